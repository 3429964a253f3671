//! Chains of others that drop forwarded packets which they do not know. In: a dump of all base
//! chains. Out: their names, as `nft list chain` takes them.

use std::collections::BTreeSet;

use super::super::error::Refused;
use super::super::socket::Conn;
use super::super::wire::{Attribute, Attributes, Writer};
use super::{CHAIN_NAME, CHAIN_TABLE, NFGENMSG, OBJECT, message_type};

const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
/// `NF_INET_FORWARD`.
const FORWARD: u32 = 2;
/// `NF_DROP`.
const DROP: u32 = 0;

/// The base chains in `forward`, of the families that forward, whose policy is to drop.
pub(crate) fn dropping(conn: &mut Conn) -> Result<BTreeSet<String>, Refused> {
    let kind = message_type(libc::NFT_MSG_GETCHAIN);
    let mut request = Writer::message(kind, libc::NLM_F_REQUEST as u16, &[0; NFGENMSG]);
    Ok(conn.dump(&mut request, name_of)?.into_iter().collect())
}

pub(crate) fn name_of(payload: &[u8]) -> Option<String> {
    let family = match i32::from(*payload.first()?) {
        libc::NFPROTO_INET => "inet",
        libc::NFPROTO_IPV4 => "ip",
        libc::NFPROTO_IPV6 => "ip6",
        _ => return None,
    };
    let part = |kind| Attributes::after(payload, NFGENMSG).find(kind);
    let hook = part(CHAIN_HOOK)?.nested().find(HOOK_NUMBER).and_then(Attribute::be32);
    let policy = part(CHAIN_POLICY).and_then(Attribute::be32);
    let table = part(CHAIN_TABLE)?.text();
    let fits = hook == Some(FORWARD) && policy == Some(DROP) && table != OBJECT;
    if !fits || part(CHAIN_TYPE)?.text() != "filter" {
        return None;
    }
    Some(format!("{family} {table} {}", part(CHAIN_NAME)?.text()))
}
