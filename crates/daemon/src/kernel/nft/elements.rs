//! Reads and changes the elements of our maps and sets. In: core's keys and chains. Out: the same.
//! All changes of one call are one transaction: the kernel applies all or none.

use std::net::Ipv4Addr;

use anywan_core::names::Mac;
use anywan_core::observed::{Elements, Key, KeyKind, Leads, MAPS, MapSpec};
use anywan_core::steps::ElementChange;

use super::super::error::Refused;
use super::super::socket::Conn;
use super::super::wire::{Attribute, Attributes, Writer};
use super::{HEADER, NFGENMSG, OBJECT, ask, message_type};

pub(super) const LIST_TABLE: u16 = 1;
pub(super) const LIST_SET: u16 = 2;
pub(super) const LIST_ELEMENTS: u16 = 3;
pub(super) const ELEMENT: u16 = 1;
pub(super) const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
pub(super) const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
const GOTO: i32 = -4;
const JUMP: i32 = -3;
/// How many bytes of elements go into one message; its list's length has 16 bits, and one element
/// has at most some 150 (a chain's name is at most 31 in practice, 255 in the kernel).
pub(super) const MESSAGE: usize = 60_000;
/// How often a transaction that lost a race is sent again.
const ATTEMPTS: u32 = 5;

/// The declaration of a map of ours.
fn spec(name: &str) -> Option<&'static MapSpec> {
    MAPS.iter().find(|spec| spec.name == name)
}

/// The elements of one map; `None` when there is no such map.
pub(crate) fn read(conn: &mut Conn, spec: &MapSpec) -> Result<Option<Elements>, Refused> {
    let mut request = ask(libc::NFT_MSG_GETSETELEM, 0);
    request.put_str(LIST_TABLE, OBJECT);
    request.put_str(LIST_SET, spec.name);
    let found = conn.dump(&mut request, |payload| {
        let list = Attributes::after(payload, NFGENMSG).find(LIST_ELEMENTS)?;
        Some(list.nested().filter_map(|e| element(spec, e)).collect::<Vec<_>>())
    });
    match found {
        Ok(lists) => Ok(Some(lists.into_iter().flatten().collect())),
        Err(refused) if refused.errno() == Some(libc::ENOENT) => Ok(None),
        Err(refused) => Err(refused),
    }
}

pub(crate) fn element(spec: &MapSpec, element: Attribute<'_>) -> Option<(Key, String)> {
    let key = element.nested().find(ELEMENT_KEY)?.nested().find(DATA_VALUE)?;
    let data = element.nested().find(ELEMENT_DATA);
    if spec.leads == Leads::Ipv4 {
        let address = data.and_then(|d| d.nested().find(DATA_VALUE)).and_then(Attribute::ip);
        return Some((read_key(spec.key, key.value)?, address?.to_string()));
    }
    let verdict = data.and_then(|d| d.nested().find(DATA_VERDICT));
    let value = verdict.map(|verdict| {
        let code = verdict.nested().find(VERDICT_CODE).and_then(Attribute::be32).unwrap_or(0);
        let chain = verdict.nested().find(VERDICT_CHAIN).map(Attribute::text).unwrap_or_default();
        match code as i32 {
            GOTO => chain,
            // Not ours, and told apart from any chain's name by the space.
            JUMP => format!("jump {chain}"),
            other => format!("verdict {other}"),
        }
    });
    Some((read_key(spec.key, key.value)?, value.unwrap_or_default()))
}

/// Reads a key: numbers in host byte order, addresses as on the wire, each field padded to 4.
fn read_key(kind: KeyKind, bytes: &[u8]) -> Option<Key> {
    let (number, rest) = bytes.split_first_chunk::<4>()?;
    let number = u32::from_ne_bytes(*number);
    Some(match kind {
        KeyKind::Number => Key::Number(number),
        KeyKind::DeviceIpv4 => Key::DeviceIpv4(number, rest.first_chunk::<4>().copied()?.into()),
        KeyKind::DeviceIpv6 => Key::DeviceIpv6(number, rest.first_chunk::<16>().copied()?.into()),
        KeyKind::Ipv4 => Key::Ipv4(number.to_ne_bytes().into()),
        KeyKind::DeviceMac => Key::DeviceMac(number, Mac(rest.first_chunk::<6>().copied()?)),
    })
}

fn write_key(key: &Key) -> Vec<u8> {
    match key {
        Key::Number(number) => number.to_ne_bytes().to_vec(),
        Key::DeviceIpv4(device, ip) => [&device.to_ne_bytes()[..], &ip.octets()].concat(),
        Key::DeviceIpv6(device, ip) => [&device.to_ne_bytes()[..], &ip.octets()].concat(),
        Key::Ipv4(ip) => ip.octets().to_vec(),
        Key::DeviceMac(device, mac) => [&device.to_ne_bytes()[..], &mac.0, &[0, 0]].concat(),
    }
}

/// Applies all changes in one transaction.
pub(crate) fn change(conn: &mut Conn, changes: &[ElementChange]) -> Result<(), Refused> {
    if changes.is_empty() {
        return Ok(());
    }
    retry_races(|| {
        let mut batch = Batch::begin(conn);
        // First everything that goes, then everything that comes: a changed element is both.
        batch.list(conn, libc::NFT_MSG_DELSETELEM, changes, |c| c.old.as_ref().map(|_| None));
        batch.list(conn, libc::NFT_MSG_NEWSETELEM, changes, |c| c.new.as_deref().map(Some));
        batch.commit(conn)
    })
}

/// Sends a transaction again when it lost a race against somebody else's.
pub(super) fn retry_races(
    mut transaction: impl FnMut() -> Result<(), Refused>,
) -> Result<(), Refused> {
    let mut attempt = 1;
    loop {
        match transaction() {
            Err(refused) if lost_a_race(&refused) && attempt < ATTEMPTS => attempt += 1,
            done => return done,
        }
    }
}

fn lost_a_race(refused: &Refused) -> bool {
    [libc::EINTR, libc::EAGAIN, libc::ERESTART].contains(&refused.errno().unwrap_or(0))
}

/// A transaction in the making.
pub(crate) struct Batch {
    writer: Writer,
    first: u32,
    last: u32,
}

impl Batch {
    /// Begins a transaction.
    pub(crate) fn begin(conn: &mut Conn) -> Batch {
        let mut writer = Writer::new();
        let first = conn.reserve(1);
        writer.begin(libc::NFNL_MSG_BATCH_BEGIN as u16, libc::NLM_F_REQUEST as u16, &BATCH);
        writer.set_sequence(first);
        Batch { writer, first, last: first }
    }

    /// Adds a message.
    pub(crate) fn message(&mut self, conn: &mut Conn, kind: i32, flags: i32) -> &mut Writer {
        let flags = (libc::NLM_F_REQUEST | flags) as u16;
        self.last = conn.reserve(1);
        self.writer.begin(message_type(kind), flags, &HEADER);
        self.writer.set_sequence(self.last);
        &mut self.writer
    }

    /// Adds the elements that `value` picks, map by map, in messages that are not too long.
    fn list<'a>(
        &mut self,
        conn: &mut Conn,
        kind: i32,
        changes: &'a [ElementChange],
        value: impl Fn(&'a ElementChange) -> Option<Option<&'a str>>,
    ) {
        let mut picked: Vec<_> = changes.iter().filter_map(|c| Some((c, value(c)?))).collect();
        picked.sort_by(|a, b| a.0.map.cmp(&b.0.map));
        for group in picked.chunk_by(|a, b| a.0.map == b.0.map) {
            let mut rest = group.iter().peekable();
            let create = if kind == libc::NFT_MSG_NEWSETELEM { libc::NLM_F_CREATE } else { 0 };
            while let Some((change, _)) = rest.peek() {
                let leads = spec(&change.map).map_or(Leads::Chain, |spec| spec.leads);
                let writer = self.message(conn, kind, create);
                writer.put_str(LIST_TABLE, OBJECT);
                writer.put_str(LIST_SET, &change.map);
                writer.nest(LIST_ELEMENTS, |w| {
                    let start = w.len();
                    while w.len() - start < MESSAGE {
                        let Some((change, chain)) = rest.next() else { break };
                        put_element(w, change, *chain, leads);
                    }
                });
            }
        }
    }

    /// Sends the transaction, which the kernel carries out whole or not at all.
    pub(crate) fn commit(mut self, conn: &mut Conn) -> Result<(), Refused> {
        let start = self.writer.message_start();
        self.writer.add_flags(start, libc::NLM_F_ACK as u16);
        self.writer.begin(libc::NFNL_MSG_BATCH_END as u16, libc::NLM_F_REQUEST as u16, &BATCH);
        let end = conn.reserve(1);
        self.writer.set_sequence(end);
        let mut acknowledged = false;
        for (sequence, answer) in conn.transact(self.writer.bytes())? {
            if !(self.first..=end).contains(&sequence) {
                continue;
            }
            if let Some(refused) = answer {
                return Err(refused);
            }
            acknowledged |= sequence == self.last;
        }
        if acknowledged { Ok(()) } else { Err(Refused::Malformed) }
    }
}

/// `struct nfgenmsg` of the ends of a batch: the subsystem is in `res_id`, in network byte order.
const BATCH: [u8; NFGENMSG] = [0, 0, 0, libc::NFNL_SUBSYS_NFTABLES as u8];

fn put_element(writer: &mut Writer, change: &ElementChange, value: Option<&str>, leads: Leads) {
    writer.nest(ELEMENT, |element| {
        element.nest(ELEMENT_KEY, |key| key.put(DATA_VALUE, &write_key(&change.key)));
        match (value, leads) {
            (Some(chain), Leads::Chain) => element.nest(ELEMENT_DATA, |data| {
                data.nest(DATA_VERDICT, |verdict| {
                    verdict.put_be32(VERDICT_CODE, GOTO as u32);
                    verdict.put_str(VERDICT_CHAIN, chain);
                });
            }),
            (Some(address), Leads::Ipv4) => {
                let octets = address.parse::<Ipv4Addr>().unwrap_or(Ipv4Addr::UNSPECIFIED).octets();
                element.nest(ELEMENT_DATA, |data| data.put(DATA_VALUE, &octets));
            }
            (Some(_), Leads::Nowhere) | (None, _) => {}
        }
    });
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_of_each_kind_survives_writing_and_reading() {
        for (kind, key, length) in [
            (KeyKind::Number, Key::Number(0x3e00_0000), 4),
            (KeyKind::DeviceIpv4, Key::DeviceIpv4(3, Ipv4Addr::new(192, 168, 1, 1)), 8),
            (KeyKind::DeviceIpv6, Key::DeviceIpv6(3, Ipv6Addr::LOCALHOST), 20),
            (KeyKind::Ipv4, Key::Ipv4(Ipv4Addr::new(192, 168, 108, 1)), 4),
            (KeyKind::DeviceMac, Key::DeviceMac(3, Mac([2, 0, 0, 0, 0, 1])), 12),
        ] {
            let bytes = write_key(&key);
            assert_eq!((bytes.len(), read_key(kind, &bytes)), (length, Some(key)));
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic_the_parser(
            bytes in proptest::collection::vec(any::<u8>(), 0..200)
        ) {
            for spec in &MAPS {
                let _ = read_key(spec.key, &bytes);
                for attribute in Attributes(&bytes) {
                    let _ = element(spec, attribute);
                }
            }
        }
    }
}
