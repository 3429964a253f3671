//! DHCP messages as bytes (RFC 2131, 2132, 3396, 3442). In: core's [`Message`], or what came. Out:
//! bytes, or core's [`Reply`]. Believes no length; whatever is cut off or of another kind is no
//! reply. Judges nothing that was read.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use anywan_core::dhcp::{Kind, Message, Reply, Verdict};
use anywan_core::names::Mac;
use ipnet::Ipv4Net;

/// The fixed part, up to the options.
const FIXED: usize = 240;
/// Relays of old drop what is shorter (RFC 1542, 2.1).
const SHORTEST: usize = 300;
const MAGIC: [u8; 4] = [99, 130, 83, 99];
const REQUEST: u8 = 1;
const REPLY: u8 = 2;
const ETHERNET: u8 = 1;
const BROADCAST: u16 = 0x8000;

/// `sname` and `file`, which may hold more options.
const SNAME: std::ops::Range<usize> = 44..108;
const FILE: std::ops::Range<usize> = 108..236;

mod code {
    pub(super) const MASK: u8 = 1;
    pub(super) const ROUTERS: u8 = 3;
    pub(super) const DNS: u8 = 6;
    pub(super) const HOST: u8 = 12;
    pub(super) const DOMAIN: u8 = 15;
    pub(super) const MTU: u8 = 26;
    pub(super) const WANTED: u8 = 50;
    pub(super) const SECONDS: u8 = 51;
    pub(super) const OVERLOAD: u8 = 52;
    pub(super) const KIND: u8 = 53;
    pub(super) const SERVER: u8 = 54;
    pub(super) const ASKED: u8 = 55;
    pub(super) const LARGEST: u8 = 57;
    pub(super) const RENEWAL: u8 = 58;
    pub(super) const REBINDING: u8 = 59;
    pub(super) const CLIENT: u8 = 61;
    pub(super) const ROUTES: u8 = 121;
    pub(super) const END: u8 = 255;
}

/// What is asked for; static routes before routers, as RFC 3442 wants it.
const ASKED: [u8; 9] = [
    code::MASK,
    code::ROUTES,
    code::ROUTERS,
    code::DNS,
    code::DOMAIN,
    code::MTU,
    code::SECONDS,
    code::RENEWAL,
    code::REBINDING,
];

/// The bytes of a message. `host` is the machine's name, which some providers want to know.
pub fn write(message: &Message, mac: Mac, host: Option<&str>) -> Vec<u8> {
    let mut bytes = vec![0; FIXED];
    bytes[..4].copy_from_slice(&[REQUEST, ETHERNET, 6, 0]);
    bytes[4..8].copy_from_slice(&message.xid.to_be_bytes());
    bytes[8..10].copy_from_slice(&message.seconds.to_be_bytes());
    let flags = if message.broadcast { BROADCAST } else { 0 };
    bytes[10..12].copy_from_slice(&flags.to_be_bytes());
    bytes[12..16].copy_from_slice(&message.own.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
    bytes[28..34].copy_from_slice(&mac.0);
    bytes[236..].copy_from_slice(&MAGIC);
    let mut put = |code: u8, value: &[u8]| {
        // Every value here is shorter than 256 bytes.
        bytes.extend([code, u8::try_from(value.len()).unwrap_or(0)]);
        bytes.extend(value);
    };
    let (kind, asks) = match message.kind {
        Kind::Discover => (1, true),
        Kind::Request => (3, true),
        Kind::Decline => (4, false),
        Kind::Release => (7, false),
    };
    put(code::KIND, &[kind]);
    // By the hardware address, like most boxes: that is what providers know their customers by.
    put(code::CLIENT, &[&[ETHERNET][..], &mac.0].concat());
    if let Some(wanted) = message.wanted {
        put(code::WANTED, &wanted.octets());
    }
    if let Some(server) = message.server {
        put(code::SERVER, &server.octets());
    }
    if asks {
        put(code::LARGEST, &1472_u16.to_be_bytes());
        if let Some(host) = host.filter(|host| (1..=63).contains(&host.len())) {
            put(code::HOST, host.as_bytes());
        }
        put(code::ASKED, &ASKED);
    }
    bytes.push(code::END);
    bytes.resize(bytes.len().max(SHORTEST), 0);
    bytes
}

/// A server's message to the client with this hardware address; `via` is who sent the frame.
pub fn read(bytes: &[u8], mac: Mac, via: Mac) -> Option<Reply> {
    let fixed = bytes.get(..FIXED)?;
    if fixed[..3] != [REPLY, ETHERNET, 6] || fixed[28..34] != mac.0 || fixed[236..] != MAGIC {
        return None;
    }
    let options = options(bytes)?;
    let option = |code: u8| options.get(&code).map(Vec::as_slice);
    let number = |code: u8| Some(u32::from_be_bytes(option(code)?.try_into().ok()?));
    let address = |code: u8| number(code).map(Ipv4Addr::from);
    let verdict = match option(code::KIND)? {
        [2] => Verdict::Offer,
        [5] => Verdict::Ack,
        [6] => Verdict::Nak,
        _ => return None,
    };
    Some(Reply {
        verdict,
        xid: u32::from_be_bytes(*fixed[4..].first_chunk()?),
        address: Ipv4Addr::from(*fixed[16..].first_chunk::<4>()?),
        server: address(code::SERVER),
        via,
        mask: address(code::MASK),
        routers: addresses(option(code::ROUTERS)),
        dns: addresses(option(code::DNS)),
        domain: option(code::DOMAIN).and_then(domain),
        mtu: option(code::MTU).and_then(|b| Some(u16::from_be_bytes(b.try_into().ok()?))),
        routes: option(code::ROUTES).and_then(routes).unwrap_or_default(),
        seconds: number(code::SECONDS),
        renewal: number(code::RENEWAL),
        rebinding: number(code::REBINDING),
    })
}

/// All options; those that come in parts joined (RFC 3396). `None`: some part is cut off.
fn options(bytes: &[u8]) -> Option<BTreeMap<u8, Vec<u8>>> {
    let mut found = BTreeMap::new();
    gather(&bytes[FIXED..], &mut found)?;
    let overload = match found.get(&code::OVERLOAD).map(Vec::as_slice) {
        Some([overload]) => *overload,
        Some(_) | None => 0,
    };
    for (bit, range) in [(1, FILE), (2, SNAME)] {
        if overload & bit != 0 {
            gather(&bytes[range], &mut found)?;
        }
    }
    Some(found)
}

fn gather(mut rest: &[u8], found: &mut BTreeMap<u8, Vec<u8>>) -> Option<()> {
    while let [code, after @ ..] = rest {
        rest = match code {
            0 => after,
            &code::END => return Some(()),
            code => {
                let (length, after) = after.split_first()?;
                let (value, after) = after.split_at_checked(usize::from(*length))?;
                found.entry(*code).or_default().extend(value);
                after
            }
        };
    }
    Some(())
}

fn addresses(value: Option<&[u8]>) -> Vec<Ipv4Addr> {
    let chunks = value.unwrap_or_default().chunks_exact(4);
    chunks.filter_map(|octets| Some(Ipv4Addr::from(*octets.first_chunk::<4>()?))).collect()
}

fn domain(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?.trim_end_matches('\0');
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    ((1..=253).contains(&text.len()) && text.chars().all(plain)).then(|| text.to_owned())
}

/// Each is a prefix length, as many bytes of the destination as that needs, and a router.
fn routes(mut rest: &[u8]) -> Option<Vec<(Ipv4Net, Ipv4Addr)>> {
    let mut found = Vec::new();
    while let [bits, after @ ..] = rest {
        let (significant, after) = after.split_at_checked(usize::from(bits.div_ceil(8)))?;
        let (router, after) = after.split_first_chunk::<4>()?;
        let mut octets = [0; 4];
        octets.get_mut(..significant.len())?.copy_from_slice(significant);
        let to = Ipv4Net::new(octets.into(), *bits).ok()?;
        found.push((to, Ipv4Addr::from(*router)));
        rest = after;
    }
    Some(found)
}
