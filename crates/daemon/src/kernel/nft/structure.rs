//! Hashes the chains, rules and set declarations of our table as the kernel holds them. The kernel
//! gives bytecode back, not our text, so the hash is only ever compared with one taken right after
//! we loaded the table. Left out is what changes by itself: handles, counts, what counters counted.

use super::super::error::Refused;
use super::super::socket::Conn;
use super::super::wire::{Attribute, Attributes};
use super::{CHAIN_TABLE, NFGENMSG, OBJECT, ask};

const TABLE_FLAGS: u16 = 2;
/// Name, hook, policy, type, flags, user data.
const CHAIN_PARTS: [u16; 6] = [3, 4, 5, 7, 10, 12];
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_USERDATA: u16 = 7;
const SET_TABLE: u16 = 1;
/// Name, flags, types and lengths of key and data, policy, description, timeout, garbage
/// collection, user data, object type, expressions. Not the id, the handle or the count.
const SET_PARTS: [u16; 14] = [2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 15, 17, 18];
const OBJECT_TABLE: u16 = 1;
/// Name and type.
const OBJECT_PARTS: [u16; 2] = [2, 3];
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
/// Expressions whose whole data is what they have counted or seen.
const COUNTING: [&[u8]; 2] = [b"counter\0", b"last\0"];
const QUOTA_CONSUMED: u16 = 4;

/// The hash of our table's structure; `None` when there is no such table.
pub(crate) fn hash(conn: &mut Conn) -> Result<Option<u64>, Refused> {
    let mut hash = Fnv::new();
    let mut table = ask(libc::NFT_MSG_GETTABLE, 0);
    table.put_str(1, OBJECT);
    match conn.ask(table) {
        Ok(payload) => hash.parts(&payload, &[TABLE_FLAGS]),
        Err(refused) if refused.errno() == Some(libc::ENOENT) => return Ok(None),
        Err(refused) => return Err(refused),
    }
    for (kind, table, parts) in [
        (libc::NFT_MSG_GETCHAIN, CHAIN_TABLE, &CHAIN_PARTS[..]),
        (libc::NFT_MSG_GETSET, SET_TABLE, &SET_PARTS[..]),
        (libc::NFT_MSG_GETOBJ, OBJECT_TABLE, &OBJECT_PARTS[..]),
    ] {
        let mut request = ask(kind, 0);
        request.put_str(table, OBJECT);
        let found = conn.dump(&mut request, |payload| ours(payload, table))?;
        for payload in found {
            hash.add(&kind.to_ne_bytes());
            hash.parts(&payload, parts);
        }
    }
    let mut request = ask(libc::NFT_MSG_GETRULE, 0);
    request.put_str(RULE_TABLE, OBJECT);
    for payload in conn.dump(&mut request, |payload| ours(payload, RULE_TABLE))? {
        hash.rule(&payload);
    }
    Ok(Some(hash.0))
}

/// The hash of one message as if it were of every kind.
pub(crate) fn digest(payload: &[u8]) -> u64 {
    let mut hash = Fnv::new();
    for parts in [&CHAIN_PARTS[..], &SET_PARTS, &OBJECT_PARTS] {
        hash.parts(payload, parts);
    }
    hash.rule(payload);
    hash.0
}

/// Keeps what belongs to our table: not every dump is filtered in the kernel.
fn ours(payload: &[u8], table: u16) -> Option<Vec<u8>> {
    let name = Attributes::after(payload, NFGENMSG).find(table)?;
    (name.text() == OBJECT).then(|| payload.to_vec())
}

/// FNV-1a with 64 bits: stable across versions of the standard library, unlike its own hashers.
struct Fnv(u64);

impl Fnv {
    fn new() -> Fnv {
        Fnv(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn attribute(&mut self, attribute: Attribute<'_>) {
        self.add(&attribute.kind.to_ne_bytes());
        self.add(&attribute.value.len().to_ne_bytes());
        self.add(attribute.value);
    }

    fn parts(&mut self, payload: &[u8], parts: &[u16]) {
        for attribute in Attributes::after(payload, NFGENMSG) {
            if parts.contains(&attribute.kind) {
                self.attribute(attribute);
            }
        }
    }

    fn rule(&mut self, payload: &[u8]) {
        for attribute in Attributes::after(payload, NFGENMSG) {
            match attribute.kind {
                RULE_CHAIN | RULE_USERDATA => self.attribute(attribute),
                RULE_EXPRESSIONS => {
                    self.add(&attribute.kind.to_ne_bytes());
                    attribute.nested().for_each(|expression| self.expression(expression));
                }
                _ => {}
            }
        }
    }

    fn expression(&mut self, expression: Attribute<'_>) {
        let name = expression.nested().find(EXPRESSION_NAME).map_or(&[][..], |a| a.value);
        self.add(name);
        if COUNTING.contains(&name) {
            return;
        }
        let data = expression.nested().find(EXPRESSION_DATA);
        for part in data.into_iter().flat_map(Attribute::nested) {
            if name != b"quota\0" || part.kind != QUOTA_CONSUMED {
                self.attribute(part);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::wire::Writer;
    use super::*;

    proptest! {
        #[test]
        fn random_bytes_never_panic_the_hash(
            bytes in proptest::collection::vec(any::<u8>(), 0..300)
        ) {
            let mut hash = Fnv::new();
            hash.parts(&bytes, &SET_PARTS);
            hash.rule(&bytes);
            let mut rule = Writer::message(0, 0, &[1, 0, 0, 0]);
            rule.nest(RULE_EXPRESSIONS, |w| w.put(1, &bytes));
            hash.rule(&rule.bytes()[16..]);
        }
    }
}
