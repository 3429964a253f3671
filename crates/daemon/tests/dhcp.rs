//! What DHCP clients say and hear, as bytes: a message survives the way, and whatever comes instead
//! of one - spoilt, cut off, for somebody else, random - is nothing, and never makes the reader
//! panic. `FUZZ_CASES` says how many cases are tried.

use std::net::Ipv4Addr;

use anywan_core::dhcp::{Kind, Message, Reply, Verdict};
use anywan_core::engine::DhcpNews;
use anywan_core::names::Mac;
use anywan_daemon::dhcp::{frame, message, reply, taken};
use proptest::prelude::*;
use proptest::sample::Index;

const OWN: Mac = Mac([2, 0, 0, 0, 0, 1]);
const SERVER: Mac = Mac([2, 0, 0, 0, 0, 9]);

fn config() -> ProptestConfig {
    let cases = std::env::var("FUZZ_CASES").ok();
    let cases = cases.map_or(10_000, |n| n.parse().expect("FUZZ_CASES is a number"));
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// A server's answer, made of what a client says: the fixed part is the same.
fn answer(kind: u8, options: &[&[u8]]) -> Vec<u8> {
    let question = Message {
        kind: Kind::Discover,
        xid: 0x1234_5678,
        seconds: 0,
        broadcast: false,
        own: None,
        wanted: None,
        server: None,
        to: None,
    };
    let mut bytes = message::write(&question, OWN, Some("router"));
    bytes.truncate(240);
    bytes[0] = 2;
    bytes[16..20].copy_from_slice(&[10, 0, 0, 77]);
    bytes.extend([53, 1, kind]);
    options.iter().for_each(|option| bytes.extend(*option));
    bytes.push(255);
    bytes
}

fn full() -> Vec<u8> {
    answer(
        5,
        &[
            &[54, 4, 10, 0, 0, 1],
            &[1, 4, 255, 255, 255, 0],
            &[3, 8, 10, 0, 0, 1, 10, 0, 0, 2],
            &[6, 4, 10, 0, 0, 53],
            &[51, 4, 0, 0, 0x0e, 0x10],
            &[58, 4, 0, 0, 7, 8],
            &[59, 4, 0, 0, 0x0c, 0x4e],
            &[26, 2, 5, 0x78],
            &[15, 8],
            b"home.arp",
            &[121, 14, 0, 10, 0, 0, 2, 24, 203, 0, 113, 10, 0, 0, 8, 0, 0, 0],
        ],
    )
}

/// A frame as a server's would come: the client's own way of making them, turned round.
fn framed(bytes: &[u8]) -> Vec<u8> {
    let mut made = frame::to_server(bytes, SERVER, Some([10, 0, 0, 1].into()), None);
    // The ports change places, which leaves the checksum as it is.
    made[34..38].copy_from_slice(&[0, 67, 0, 68]);
    made
}

fn heard(bytes: &[u8]) -> Option<Reply> {
    match reply(&framed(bytes), OWN)? {
        DhcpNews::Reply(reply) => Some(reply),
        DhcpNews::Taken { .. } => None,
    }
}

#[test]
fn everything_that_a_server_says_is_heard() {
    let mut bytes = full();
    // Three bytes too many in the routes spoil only those.
    let reply = heard(&bytes).expect("a reply");
    assert!(reply.routes.is_empty());
    let at = bytes.windows(2).position(|pair| pair == [121, 14]).expect("it is there");
    bytes.splice(at..at + 16, [121, 13, 0, 10, 0, 0, 2, 24, 203, 0, 113, 10, 0, 0, 8]);
    bytes.truncate(at + 15);
    bytes.push(255);
    let reply = heard(&bytes).expect("a reply");
    assert_eq!((reply.verdict, reply.xid, reply.via), (Verdict::Ack, 0x1234_5678, SERVER));
    assert_eq!(reply.address, Ipv4Addr::new(10, 0, 0, 77));
    assert_eq!(reply.mask, Some(Ipv4Addr::new(255, 255, 255, 0)));
    assert_eq!((reply.routers.len(), reply.dns.len(), reply.mtu), (2, 1, Some(1400)));
    assert_eq!(
        (reply.seconds, reply.renewal, reply.rebinding),
        (Some(3600), Some(1800), Some(3150))
    );
    assert_eq!(reply.domain.as_deref(), Some("home.arp"));
    let routes: Vec<String> = reply.routes.iter().map(|(to, via)| format!("{to} {via}")).collect();
    assert_eq!(routes, ["0.0.0.0/0 10.0.0.2", "203.0.113.0/24 10.0.0.8"]);
}

#[test]
fn an_option_in_parts_or_in_other_fields_is_one() {
    let mut bytes = answer(2, &[&[6, 2, 10, 0], &[6, 2, 0, 53], &[52, 1, 1]]);
    bytes[108..115].copy_from_slice(&[54, 4, 10, 0, 0, 1, 255]);
    let reply = heard(&bytes).expect("a reply");
    assert_eq!(reply.dns, [Ipv4Addr::new(10, 0, 0, 53)]);
    assert_eq!(reply.server, Some(Ipv4Addr::new(10, 0, 0, 1)));
}

#[test]
fn what_is_cut_off_spoilt_or_for_somebody_else_is_nothing() {
    let whole = framed(&full());
    assert!(reply(&whole, OWN).is_some());
    assert!(reply(&whole, SERVER).is_none(), "for somebody else");
    for length in 0..whole.len() {
        assert!(reply(&whole[..length], OWN).is_none(), "{length} bytes of {}", whole.len());
    }
    for at in 14..whole.len() {
        let mut spoilt = whole.clone();
        spoilt[at] ^= 0x10;
        let read = reply(&spoilt, OWN);
        // Only the kind of service has no part in whether it is whole: it has, by the checksum.
        assert!(read.is_none(), "byte {at}");
    }
    let mut cut = full();
    cut.truncate(cut.len() - 4);
    assert!(heard(&cut).is_none(), "an option that is cut off");
    assert!(heard(&answer(1, &[])).is_none(), "no answer");
}

#[test]
fn a_checksum_may_be_absent_or_left_to_hardware() {
    let mut made = framed(&full());
    made[40..42].copy_from_slice(&[0, 0]);
    assert!(reply(&made, OWN).is_some(), "absent");
    // The sum over addresses, protocol and length alone.
    let length = u32::from(u16::from_be_bytes([made[38], made[39]]));
    let words = made[26..34].chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
    let sum = words.sum::<u32>() + 17 + length;
    let folded = ((sum & 0xffff) + (sum >> 16)) as u16;
    made[40..42].copy_from_slice(&folded.to_be_bytes());
    assert!(reply(&made, OWN).is_some(), "left to hardware");
}

#[test]
fn who_has_an_address_is_heard_unless_it_is_us() {
    let address = Ipv4Addr::new(10, 0, 0, 77);
    let question = frame::who_has(address, OWN);
    assert_eq!(taken(&question, OWN), None, "our own question");
    let other = DhcpNews::Taken { address, by: SERVER };
    assert_eq!(taken(&frame::who_has(address, SERVER), OWN), Some(other.clone()), "asks as we do");
    let mut answer = frame::who_has([10, 0, 0, 5].into(), SERVER);
    answer[21] = 2;
    answer[28..32].copy_from_slice(&address.octets());
    assert_eq!(taken(&answer, OWN), Some(other));
}

#[test]
fn spoilt_messages_never_panic_the_reader() {
    let harms = prop::collection::vec((any::<Index>(), any::<u8>()), 0..12);
    proptest!(config(), |(harms in harms, cut in prop::option::of(any::<Index>()))| {
        let mut bytes = full();
        for (at, value) in harms {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        let _ = message::read(&bytes, OWN, SERVER);
        let _ = (reply(&framed(&bytes), OWN), reply(&bytes, OWN), taken(&bytes, OWN));
    });
}

#[test]
fn random_bytes_never_panic_the_reader() {
    proptest!(config(), |(bytes in prop::collection::vec(any::<u8>(), 0..400))| {
        let _ = (reply(&bytes, OWN), taken(&bytes, OWN));
        let mut fixed = full();
        fixed.truncate(240);
        fixed.extend(&bytes);
        let _ = message::read(&fixed, OWN, SERVER);
        let _ = reply(&framed(&fixed), OWN);
    });
}
