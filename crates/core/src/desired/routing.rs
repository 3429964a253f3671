//! Routes and rules. Each WAN has a table with the one default route that leads out of it; the
//! `balance` table has a weighted multipath route over the WANs that serve, and behind it a
//! single-path route for every usable WAN, because unplugging a device deletes the whole
//! multipath route. There is no guard inside a WAN's table: a new connection whose WAN has no
//! carrier falls through to `balance` in the kernel itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::Basis;
use crate::facts::{WanFacts, numbered};
use crate::names::{Family, IfIndex, MarkField, PROTOCOL, RulePriority, TableId, WanId};
use crate::observed::{Hop, Route, Rule, RuleAction};

/// The metric of the one route in a WAN's table and of the first in `balance`.
const METRIC_FIRST: u32 = 1;
/// The reserve routes of `balance` come behind, by priority, then number.
pub(super) const METRIC_RESERVE: u32 = 1000;
/// Behind all those: the WANs that do not work.
const METRIC_LAST: u32 = 1000;
/// More linear mark rules than this cost more than the tree that replaces them.
const LINEAR_MAX: usize = 4;
/// Own addresses per WAN and family that get a source rule: a host with privacy addresses has a
/// handful.
const SOURCES_MAX: usize = 8;
/// Networks of LANs of each family that get past those rules by one of their own.
const LANS_MAX: usize = 8;
/// Marks on Tailscale's own packets, which its rule at 5210 would send by main's default route.
const TAILSCALE: (u32, u32) = (0x0008_0000, 0x00ff_0000);

/// Offsets from the configured base of the low block of rule priorities.
const UNMARKED: u32 = 0;
const MARKS: u32 = 10;
const NEW: u32 = 890;
const GUARD: u32 = 891;
const MAIN: u32 = 900;
const ASKED: u32 = 901;
const LANS: u32 = 902;
const SOURCES: u32 = 910;
const OTHERS: u32 = 990;
/// The high block: right before main, and, being added later, behind whoever else is there.
/// `wg-quick` for all traffic takes this and the one before when it is started before us.
const LAST: RulePriority = RulePriority(32_765);
/// The last route of `balance`: what has no way out is refused before main is asked.
const METRIC_REFUSE: u32 = u32::MAX - 1;

pub(super) fn table_of(basis: Basis<'_>, wan: WanId) -> TableId {
    TableId(basis.config.router.table_base.0 + u32::from(wan.0))
}

/// All default routes of ours.
pub(super) fn routes(basis: Basis<'_>) -> BTreeSet<Route> {
    Family::BOTH.into_iter().flat_map(|family| family_routes(basis, family)).collect()
}

fn family_routes(basis: Basis<'_>, family: Family) -> Vec<Route> {
    let route =
        |table, metric, hops| Route { family, table, to: None, metric, protocol: PROTOCOL, hops };
    let hop = |id: &WanId| basis.facts.get(id).and_then(|f| f.sides.get(family).hop.clone());
    let mut routes: Vec<Route> = basis
        .facts
        .keys()
        .filter_map(|id| hop(id).map(|h| route(table_of(basis, *id), METRIC_FIRST, vec![h])))
        .collect();
    let balance = basis.config.router.table_base;
    let choice = basis.choice.get(family);
    let mut hops: Vec<Hop> = choice
        .serving
        .iter()
        .filter_map(|(id, weight)| hop(id).map(|h| Hop { weight: weight.0, ..h }))
        .collect();
    hops.sort();
    match hops.len() {
        0 => {}
        1 => {
            hops[0].weight = 1;
            routes.push(route(balance, METRIC_FIRST, hops));
        }
        _ => routes.push(route(balance, METRIC_FIRST, hops)),
    }
    // The rank counts all WANs, so that one that comes or goes moves nobody else's route.
    let mut ranks: Vec<(u8, WanId)> =
        numbered(basis.config, basis.numbers).iter().map(|(id, w)| (w.priority, *id)).collect();
    ranks.sort();
    for (metric, (_, id)) in (METRIC_RESERVE..).zip(&ranks) {
        // One that does not work comes last. It carries nothing while another does; when none
        // does, answers to probes would otherwise have no way back by which the kernel's
        // reverse-path filter lets them in, and no WAN could ever return.
        let metric = if choice.usable.contains(id) { metric } else { metric + METRIC_LAST };
        routes.extend(hop(id).map(|h| route(balance, metric, vec![h])));
    }
    if choice.is_present() {
        routes.push(route(balance, METRIC_REFUSE, Vec::new()));
    }
    routes
}

/// All rules of ours.
pub(super) fn rules(basis: Basis<'_>) -> BTreeSet<Rule> {
    let present = |family: &Family| basis.choice.get(*family).is_present();
    Family::BOTH.into_iter().filter(present).flat_map(|f| family_rules(basis, f)).collect()
}

fn family_rules(basis: Basis<'_>, family: Family) -> Vec<Rule> {
    let router = &basis.config.router;
    let field = router.mark_field;
    let low = router.rule_priority_base.0;
    let balance = RuleAction::Lookup(router.table_base);
    let at = |offset: u32, mark: Option<(u32, u32)>, action| Rule {
        family,
        priority: RulePriority(low + offset),
        mark,
        invert: false,
        source: None,
        action,
    };
    let new = field.new_bit();
    let mut rules = vec![
        // Most packets carry no mark of ours: past the mark rules with one comparison.
        at(UNMARKED, Some((0, field.number_mask())), RuleAction::Goto(RulePriority(low + MAIN))),
        at(NEW, Some((new, new)), balance),
        Rule { invert: true, ..at(GUARD, Some((0, field.number_mask())), RuleAction::Unreachable) },
        at(MAIN, None, RuleAction::LookupNoDefault(TableId::MAIN)),
        // The question is not about own addresses: past their rules.
        at(
            ASKED,
            Some((field.ask().0, field.mask())),
            RuleAction::Goto(RulePriority(low + OTHERS)),
        ),
        at(OTHERS, Some(TAILSCALE), balance),
    ];
    // The question "does anyone but us know this destination?" ends here. These two stand at one
    // priority in any order, so neither may match what is the other's.
    let asked = Rule {
        priority: LAST,
        ..at(0, Some((field.ask().0, field.mask())), RuleAction::Unreachable)
    };
    rules.push(Rule { invert: true, action: balance, ..asked.clone() });
    rules.push(asked);
    let wans: Vec<WanId> = basis.facts.keys().copied().collect();
    let mut next = low + MARKS;
    mark_tree(basis, family, field, &wans, &mut next, &mut rules);
    let sources = source_rules(basis, family, low);
    if sources.len() > LINEAR_MAX {
        let networks = lan_networks(basis, family, &sources).into_iter().take(LANS_MAX);
        let past = at(LANS, None, RuleAction::Goto(RulePriority(low + OTHERS)));
        rules.extend(networks.map(|network| Rule { source: Some(network), ..past.clone() }));
    }
    rules.extend(sources);
    rules
}

/// Rules from a WAN's mark to its table: a list when they are few; otherwise a tree that splits
/// the numbers by one bit at a time, six comparisons for any of 62 WANs.
fn mark_tree(
    basis: Basis<'_>,
    family: Family,
    field: MarkField,
    wans: &[WanId],
    next: &mut u32,
    rules: &mut Vec<Rule>,
) {
    let mut take = || {
        let priority = RulePriority(*next);
        *next += 1;
        priority
    };
    let rule = |priority, mark, action| Rule {
        family,
        priority,
        mark: Some(mark),
        invert: false,
        source: None,
        action,
    };
    if wans.len() <= LINEAR_MAX {
        for id in wans {
            let lookup = RuleAction::Lookup(table_of(basis, *id));
            rules.push(rule(take(), field.flows(*id), lookup));
        }
        return;
    }
    let (bit, low, high) = split(wans);
    let mask = field.keep(WanId(bit)).0;
    let fork = take();
    mark_tree(basis, family, field, &low, next, rules);
    let target = RulePriority(*next);
    rules.push(rule(fork, (mask, mask), RuleAction::Goto(target)));
    mark_tree(basis, family, field, &high, next, rules);
}

/// Splits at least two numbers by the bit that halves them best.
fn split(wans: &[WanId]) -> (u8, Vec<WanId>, Vec<WanId>) {
    let halves =
        |bit: u8| -> (Vec<WanId>, Vec<WanId>) { wans.iter().partition(|id| id.0 & bit == 0) };
    let bit = (0..6)
        .map(|shift| 1_u8 << shift)
        .min_by_key(|bit| {
            let (low, high) = halves(*bit);
            low.len().abs_diff(high.len())
        })
        .expect("the range is not empty");
    let (low, high) = halves(bit);
    (bit, low, high)
}

/// The networks of LANs, unless a WAN that has one of these rules has its address there. The kernel
/// looks up the way back for each packet that a WAN brings: it would compare the LAN's host with the
/// address of every WAN.
fn lan_networks(basis: Basis<'_>, family: Family, sources: &[Rule]) -> BTreeSet<IpNet> {
    let lans = basis.config.lans.iter();
    let devices: BTreeSet<IfIndex> =
        lans.filter_map(|lan| Some(basis.observed.link_named(&lan.interface)?.0)).collect();
    let own = basis.observed.addresses.iter();
    own.filter(|a| a.global && Family::of(a.address) == family && devices.contains(&a.device))
        .filter_map(|a| Some(IpNet::new(a.address, a.prefix).ok()?.trunc()))
        .filter(|network| {
            let has = |rule: &Rule| rule.source.is_some_and(|source| network.contains(&source));
            !sources.iter().any(has)
        })
        .collect()
}

/// Whoever binds to a WAN's own address leaves by that WAN, as long as it works. An address that
/// several WANs have says nothing.
fn source_rules(basis: Basis<'_>, family: Family, low: u32) -> Vec<Rule> {
    let mut owners: BTreeMap<IpAddr, Vec<WanId>> = BTreeMap::new();
    for (id, facts) in basis.facts.iter().filter(|(_, f)| !f.retiring) {
        let sources = &facts.sides.get(family).addresses;
        for address in sources.iter().take(SOURCES_MAX) {
            owners.entry(*address).or_default().push(*id);
        }
    }
    let works = |id: &WanId| basis.choice.get(family).usable.contains(id);
    owners
        .into_iter()
        .filter_map(|(address, ids)| match ids[..] {
            [id] if works(&id) && unambiguous(basis.facts.get(&id)) => Some((address, id)),
            _ => None,
        })
        .map(|(address, id)| Rule {
            family,
            priority: RulePriority(low + SOURCES + u32::from(id.0)),
            mark: None,
            invert: false,
            source: Some(IpNet::from(address)),
            action: RuleAction::Lookup(table_of(basis, id)),
        })
        .collect()
}

/// On an interface that is a LAN's too, the own address is the LAN's: what leaves from it may be
/// meant for any WAN.
fn unambiguous(facts: Option<&WanFacts>) -> bool {
    facts.is_some_and(|f| !f.shared)
}
