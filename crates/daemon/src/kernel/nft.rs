//! Our nftables table: reads it, loads it, changes its elements, deletes it. In: a kept socket
//! (closing one that has committed costs 16 ms). Out: core's [`Nft`].
//!
//! What was read is kept together with the generation of the rule set in which it was read; while
//! the kernel still names that generation, nothing has changed and nothing is read again. A
//! transaction of ours that is the only one since outdates only the maps that it touched. Elements
//! that the packet path itself adds, or that time out, would not show; no map that is read has such.

pub(crate) mod counters;
pub(crate) mod elements;
pub(crate) mod foreign;
mod gone;
pub(crate) mod load;
pub(crate) mod structure;

use std::collections::BTreeSet;

use anywan_core::names::NFT_TABLE;
use anywan_core::observed::{MAPS, Nft, Structure, TcpFlow};
use anywan_core::steps::ElementChange;

use super::error::{KernelError, Refused};
use super::remember::{Loaded, Memory};
use super::socket::Conn;
use super::wire::{Attribute, Attributes, Writer};

/// The length of `struct nfgenmsg`.
pub(crate) const NFGENMSG: usize = 4;
/// `struct nfgenmsg` of our requests: family `inet`.
pub(crate) const HEADER: [u8; NFGENMSG] = [libc::NFPROTO_INET as u8, 0, 0, 0];
/// The name of our table.
pub(crate) const OBJECT: &str = NFT_TABLE;
const GENERATION: u16 = 1;
/// Attributes of a chain: the table it is in, and its name.
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
/// How often the whole is read again when the rule set changed meanwhile (a read takes about one
/// millisecond, and busy machines commit some hundred times a second).
const ATTEMPTS: u32 = 10;

/// The `nlmsg_type` of an nf_tables message.
pub(crate) fn message_type(kind: i32) -> u16 {
    (libc::NFNL_SUBSYS_NFTABLES << 8 | kind) as u16
}

/// A request about nf_tables of family `inet`.
pub(crate) fn ask(kind: i32, flags: i32) -> Writer {
    Writer::message(message_type(kind), (libc::NLM_F_REQUEST | flags) as u16, &HEADER)
}

/// What was read, and when.
#[derive(Debug)]
struct Known {
    generation: u32,
    hash: Option<u64>,
    nft: Nft,
}

/// The table and what is known of it.
#[derive(Debug, Default)]
pub(crate) struct Table {
    known: Option<Known>,
    /// Maps that our own transactions changed since, and how many transactions those were.
    outdated: BTreeSet<&'static str>,
    commits: u32,
}

/// The number of the rule set's present generation; each transaction of anybody adds one.
pub(crate) fn generation(conn: &mut Conn) -> Result<u32, Refused> {
    let payload = conn.ask(ask(libc::NFT_MSG_GETGEN, 0))?;
    let number = Attributes::after(&payload, NFGENMSG).find(GENERATION).and_then(Attribute::be32);
    number.ok_or(Refused::Malformed)
}

impl Table {
    /// Our table as it is now.
    pub(crate) fn read(&mut self, conn: &mut Conn, memory: &Memory) -> Result<Nft, KernelError> {
        let read = self.refresh(conn).map_err(|e| e.doing("read our nftables table"));
        read.inspect_err(|_| self.forget())?;
        let Some(known) = &self.known else { return Ok(Nft::default()) };
        let structure = match (known.hash, memory.table()) {
            (None, _) => Structure::Absent,
            (Some(hash), Some(l)) if l.hash == hash => Structure::Intact(l.fingerprint),
            (Some(_), _) => Structure::Altered,
        };
        Ok(Nft { structure, ..known.nft.clone() })
    }

    /// Forgets what was read, so that the next reading is a whole one.
    pub(crate) fn forget(&mut self) {
        *self = Table::default();
    }

    fn refresh(&mut self, conn: &mut Conn) -> Result<(), Refused> {
        for _ in 0..ATTEMPTS {
            let before = generation(conn)?;
            match &mut self.known {
                Some(known) if known.generation.wrapping_add(self.commits) == before => {
                    for spec in MAPS.iter().filter(|spec| self.outdated.contains(spec.name)) {
                        match elements::read(conn, spec)? {
                            Some(elements) => known.nft.maps.insert(spec.name.into(), elements),
                            None => known.nft.maps.remove(spec.name),
                        };
                    }
                }
                _ => self.known = Some(read_all(conn)?),
            }
            if generation(conn)? == before {
                self.outdated.clear();
                self.commits = 0;
                if let Some(known) = &mut self.known {
                    known.generation = before;
                }
                return Ok(());
            }
            self.forget();
        }
        Err(Refused::Interrupted(ATTEMPTS))
    }

    /// Changes elements in one transaction.
    pub(crate) fn change(
        &mut self,
        conn: &mut Conn,
        changes: &[ElementChange],
    ) -> Result<(), KernelError> {
        if changes.is_empty() {
            return Ok(());
        }
        let touched = |name: &str| changes.iter().any(|change| change.map == name);
        self.outdated.extend(MAPS.iter().map(|spec| spec.name).filter(|name| touched(name)));
        self.commit(conn, |conn| elements::change(conn, changes))
            .map_err(|refused| refused.doing(describe(changes)))
    }

    /// Makes a transaction of ours and counts it, if it is one: the kernel passes over what changes
    /// nothing, and that must not hide the next transaction of somebody else.
    fn commit(
        &mut self,
        conn: &mut Conn,
        transaction: impl FnOnce(&mut Conn) -> Result<(), Refused>,
    ) -> Result<(), Refused> {
        let before = generation(conn);
        let done = transaction(conn);
        match (&done, before, generation(conn)) {
            (Ok(()), Ok(before), Ok(after)) if after == before.wrapping_add(1) => {
                self.commits = self.commits.wrapping_add(1);
            }
            _ => self.forget(),
        }
        done
    }

    /// Has packets of these flows answered with a reset for so many seconds.
    pub(crate) fn mark_gone(
        &mut self,
        conn: &mut Conn,
        flows: &[TcpFlow],
        seconds: u32,
    ) -> Result<(), KernelError> {
        if flows.is_empty() {
            return Ok(());
        }
        // No map that is read changes.
        self.commit(conn, |conn| gone::mark(conn, flows, seconds))
            .map_err(|refused| refused.doing(format!("mark {} flows as gone", flows.len())))
    }

    /// Replaces the whole table by what a text says, deletes its interim chains, and remembers what
    /// the kernel made of the rest.
    pub(crate) fn replace(
        &mut self,
        conn: &mut Conn,
        memory: &mut Memory,
        fingerprint: u64,
        (text, interim): (&str, &[String]),
    ) -> Result<(), KernelError> {
        self.forget();
        load::load(text)?;
        delete_chains(conn, interim).map_err(|e| e.doing("delete chains of our nftables table"))?;
        let hash = structure::hash(conn).map_err(|e| e.doing("read back our nftables table"))?;
        memory.set_table(hash.map(|hash| Loaded { fingerprint, hash }));
        Ok(())
    }

    /// Deletes the table; it is fine when there is none.
    pub(crate) fn delete(
        &mut self,
        conn: &mut Conn,
        memory: &mut Memory,
    ) -> Result<(), KernelError> {
        self.forget();
        let mut batch = elements::Batch::begin(conn);
        batch.message(conn, libc::NFT_MSG_DELTABLE, 0).put_str(1, OBJECT);
        match batch.commit(conn) {
            Err(refused) if refused.errno() != Some(libc::ENOENT) => {
                return Err(refused.doing("delete our nftables table"));
            }
            _ => memory.set_table(None),
        }
        Ok(())
    }
}

/// Deletes chains with their rules, in one transaction.
fn delete_chains(conn: &mut Conn, names: &[String]) -> Result<(), Refused> {
    if names.is_empty() {
        return Ok(());
    }
    elements::retry_races(|| {
        let mut batch = elements::Batch::begin(conn);
        for name in names {
            let writer = batch.message(conn, libc::NFT_MSG_DELCHAIN, 0);
            writer.put_str(CHAIN_TABLE, OBJECT);
            writer.put_str(CHAIN_NAME, name);
        }
        batch.commit(conn)
    })
}

fn read_all(conn: &mut Conn) -> Result<Known, Refused> {
    let mut known = Known { generation: 0, hash: structure::hash(conn)?, nft: Nft::default() };
    if known.hash.is_some() {
        for spec in &MAPS {
            if let Some(elements) = elements::read(conn, spec)? {
                known.nft.maps.insert(spec.name.to_owned(), elements);
            }
        }
    }
    Ok(known)
}

fn describe(changes: &[ElementChange]) -> String {
    match changes {
        [one] => format!("change element {:?} of map {}", one.key, one.map),
        many => {
            let maps: BTreeSet<&str> = many.iter().map(|change| change.map.as_str()).collect();
            let maps: Vec<&str> = maps.into_iter().collect();
            format!("change {} elements of maps {}", many.len(), maps.join(", "))
        }
    }
}
