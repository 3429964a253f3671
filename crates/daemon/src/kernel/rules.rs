//! Reads, adds and deletes our ip rules. In: a socket and core's [`Rule`]. Out: the same. Others'
//! rules (without our protocol number) and those that no [`Rule`] can say are left out.

use std::collections::BTreeSet;

use anywan_core::names::{Family, PROTOCOL, RulePriority, TableId};
use anywan_core::observed::{Rule, RuleAction};
use ipnet::IpNet;

use super::error::{KernelError, Refused};
use super::socket::Conn;
use super::wire::{Attribute, Attributes, Writer, u32_at};

/// The length of `struct fib_rule_hdr`.
const HEADER: usize = 12;
const FRA_DST: u16 = 1;
const FRA_SRC: u16 = 2;
const FRA_IIFNAME: u16 = 3;
const FRA_GOTO: u16 = 4;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_SUPPRESS_IFGROUP: u16 = 13;
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
const FRA_OIFNAME: u16 = 17;
const FRA_L3MDEV: u16 = 19;
const FRA_UID_RANGE: u16 = 20;
const FRA_PROTOCOL: u16 = 21;
const FRA_IP_PROTO: u16 = 22;
const FRA_SPORT_RANGE: u16 = 23;
const FRA_DPORT_RANGE: u16 = 24;
/// Selectors that we never set: a rule with one of them is not one of ours.
const FOREIGN: [u16; 8] = [
    FRA_DST,
    FRA_IIFNAME,
    FRA_OIFNAME,
    FRA_L3MDEV,
    FRA_UID_RANGE,
    FRA_IP_PROTO,
    FRA_SPORT_RANGE,
    FRA_DPORT_RANGE,
];
const TO_TABLE: u8 = 1;
const GOTO: u8 = 2;
const UNREACHABLE: u8 = 7;
const INVERT: u32 = 2;
/// No suppression.
const OFF: u32 = u32::MAX;
const REQUEST: u16 = libc::NLM_F_REQUEST as u16;
/// How many twins of one priority a deletion puts back before it gives up.
const TWINS: usize = 16;

/// Our rules of both families.
pub(crate) fn read(conn: &mut Conn) -> Result<BTreeSet<Rule>, KernelError> {
    let mut rules = BTreeSet::new();
    for family in Family::BOTH {
        let found = dump(conn, family).map_err(|e| e.doing(format!("read the {family} rules")))?;
        rules.extend(found);
    }
    Ok(rules)
}

/// Where the rules of others stand, of both families.
pub(crate) fn read_foreign(
    conn: &mut Conn,
) -> Result<BTreeSet<(Family, RulePriority)>, KernelError> {
    let mut found = BTreeSet::new();
    for family in Family::BOTH {
        let priorities = all(conn, family, foreign_priority)
            .map_err(|e| e.doing(format!("read the {family} rules")))?;
        found.extend(priorities.into_iter().map(|priority| (family, priority)));
    }
    Ok(found)
}

pub(crate) fn foreign_priority(payload: &[u8]) -> Option<RulePriority> {
    let attributes = Attributes::after(payload, HEADER);
    let protocol = attributes.clone().find(FRA_PROTOCOL).and_then(|a| a.value.first().copied());
    let priority = attributes.find(FRA_PRIORITY).and_then(Attribute::u32).unwrap_or(0);
    (protocol != Some(PROTOCOL)).then_some(RulePriority(priority))
}

fn dump(conn: &mut Conn, family: Family) -> Result<BTreeSet<Rule>, Refused> {
    Ok(all(conn, family, rule)?.into_iter().collect())
}

/// Every rule of a family, through `read`; none when the kernel has no such family.
fn all<T>(
    conn: &mut Conn,
    family: Family,
    read: impl FnMut(&[u8]) -> Option<T>,
) -> Result<Vec<T>, Refused> {
    match conn.dump(&mut request(family), read) {
        Err(refused) if refused.lacks_family() => Ok(Vec::new()),
        other => other,
    }
}

fn request(family: Family) -> Writer {
    let header = [number(family), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    Writer::message(libc::RTM_GETRULE, REQUEST, &header)
}

fn number(family: Family) -> u8 {
    match family {
        Family::Ipv4 => libc::AF_INET as u8,
        Family::Ipv6 => libc::AF_INET6 as u8,
    }
}

pub(crate) fn rule(payload: &[u8]) -> Option<Rule> {
    let [family, 0, source_bits, 0, table, _, _, action] = *payload.first_chunk()? else {
        return None;
    };
    let flags = u32_at(payload, 8)?;
    let attributes = Attributes::after(payload, HEADER);
    let value = |kind| attributes.clone().find(kind).and_then(Attribute::u32);
    let protocol = attributes.clone().find(FRA_PROTOCOL)?.value.first().copied();
    let foreign = attributes.clone().any(|a| FOREIGN.contains(&a.kind));
    if protocol != Some(PROTOCOL) || foreign || value(FRA_SUPPRESS_IFGROUP).unwrap_or(OFF) != OFF {
        return None;
    }
    let family = match i32::from(family) {
        libc::AF_INET => Family::Ipv4,
        libc::AF_INET6 => Family::Ipv6,
        _ => return None,
    };
    let source = match source_bits {
        0 => None,
        bits => Some(IpNet::new(attributes.clone().find(FRA_SRC)?.ip()?, bits).ok()?),
    };
    let table = TableId(value(FRA_TABLE).unwrap_or(u32::from(table)));
    let action = match (action, value(FRA_SUPPRESS_PREFIXLEN).unwrap_or(OFF)) {
        (TO_TABLE, OFF) => RuleAction::Lookup(table),
        (TO_TABLE, 0) => RuleAction::LookupNoDefault(table),
        (GOTO, _) => RuleAction::Goto(RulePriority(value(FRA_GOTO)?)),
        (UNREACHABLE, _) => RuleAction::Unreachable,
        _ => return None,
    };
    let mask = value(FRA_FWMASK).filter(|mask| *mask != 0);
    Some(Rule {
        family,
        priority: RulePriority(value(FRA_PRIORITY).unwrap_or(0)),
        mark: mask.map(|mask| (value(FRA_FWMARK).unwrap_or(0), mask)),
        invert: flags & INVERT != 0,
        source,
        action,
    })
}

/// Adds a rule; it is fine when it is there.
pub(crate) fn add(conn: &mut Conn, rule: &Rule) -> Result<(), KernelError> {
    let create = REQUEST | libc::NLM_F_CREATE as u16;
    let excl = libc::NLM_F_EXCL as u16;
    let done = match conn.change(message(libc::RTM_NEWRULE, create | excl, rule)) {
        // The kernel's comparison leaves out the protocol, `not` and the target of `goto`, so
        // what is there may be somebody else's.
        Err(e) if e.errno() == Some(libc::EEXIST) => match dump(conn, rule.family) {
            Ok(present) if present.contains(rule) => Ok(()),
            Ok(_) => conn.change(message(libc::RTM_NEWRULE, create, rule)),
            Err(refused) => Err(refused),
        },
        other => other,
    };
    done.map_err(|e| e.doing(format!("add {rule}")))
}

/// Deletes a rule; it is fine when there is none.
pub(crate) fn delete(conn: &mut Conn, rule: &Rule) -> Result<(), KernelError> {
    delete_exactly(conn, rule).map_err(|e| e.doing(format!("delete {rule}")))
}

/// The kernel deletes the first rule that has all attributes of the request; it compares neither
/// `not` nor the absence of a selector. So where we have twins of one priority, what it takes by
/// mistake is put back, which also moves it behind the one that is meant.
fn delete_exactly(conn: &mut Conn, rule: &Rule) -> Result<(), Refused> {
    let mut before = dump(conn, rule.family)?;
    for _ in 0..TWINS {
        if !before.contains(rule) {
            return Ok(());
        }
        match conn.change(message(libc::RTM_DELRULE, REQUEST, rule)) {
            Err(e) if e.errno() == Some(libc::ENOENT) => return Ok(()),
            other => other?,
        }
        if before.iter().filter(|other| other.priority == rule.priority).count() == 1 {
            return Ok(());
        }
        let after = dump(conn, rule.family)?;
        for taken in before.difference(&after).filter(|taken| *taken != rule) {
            let create = REQUEST | libc::NLM_F_CREATE as u16;
            conn.change(message(libc::RTM_NEWRULE, create, taken))?;
        }
        before = dump(conn, rule.family)?;
    }
    Err(Refused::Malformed)
}

fn message(kind: u16, flags: u16, rule: &Rule) -> Writer {
    let (action, suppress) = match rule.action {
        RuleAction::Lookup(_) => (TO_TABLE, OFF),
        RuleAction::LookupNoDefault(_) => (TO_TABLE, 0),
        RuleAction::Goto(_) => (GOTO, OFF),
        RuleAction::Unreachable => (UNREACHABLE, OFF),
    };
    let source_bits = rule.source.map_or(0, |source| source.prefix_len());
    let mut header = [number(rule.family), 0, source_bits, 0, 0, 0, 0, action, 0, 0, 0, 0];
    header[8..].copy_from_slice(&(if rule.invert { INVERT } else { 0 }).to_ne_bytes());
    let mut message = Writer::message(kind, flags, &header);
    message.put(FRA_PROTOCOL, &[PROTOCOL]);
    message.put_u32(FRA_PRIORITY, rule.priority.0);
    if let Some((mark, mask)) = rule.mark {
        message.put_u32(FRA_FWMARK, mark);
        message.put_u32(FRA_FWMASK, mask);
    }
    if let Some(source) = rule.source {
        message.put_ip(FRA_SRC, source.addr());
    }
    match rule.action {
        RuleAction::Lookup(table) | RuleAction::LookupNoDefault(table) => {
            message.put_u32(FRA_TABLE, table.0);
        }
        RuleAction::Goto(target) => message.put_u32(FRA_GOTO, target.0),
        RuleAction::Unreachable => {}
    }
    if suppress != OFF {
        message.put_u32(FRA_SUPPRESS_PREFIXLEN, suppress);
    }
    message
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn random_bytes_never_panic_the_parser(
            bytes in proptest::collection::vec(any::<u8>(), 0..200)
        ) {
            let _ = rule(&bytes);
        }
    }
}
