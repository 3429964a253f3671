//! Whom to ask for names: which resolvers there are, each behind its WAN, which of them are good,
//! and which are asked now. In: configuration, facts, choice, health, and what checks have shown.
//! Out: [`Asked`]. That a resolver is not asked any more is a change of elements of our nftables
//! table; here nothing is sent, and nothing of the program that asks is known.

mod checks;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::api::State;
use crate::choose::{Choice, Sides};
use crate::config::{Config, Wan};
use crate::facts::{Numbers, WanFacts, numbered};
use crate::names::{Family, WanId};
use crate::observed::Observed;

pub use checks::{Checks, Consultation, Fault, PATIENCE, Said};

/// The most resolvers of one WAN: a lease that lists more is not believed.
const OF_ONE_WAN_MAX: usize = 8;

/// One resolver, behind one WAN: the same address behind another WAN is another resolver.
pub type Resolver = (WanId, IpAddr);

/// Every resolver, and whether it is asked now.
pub type Asked = BTreeMap<Resolver, bool>;

/// Why a resolver is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// It is the WAN's own.
    Own,
    /// It is asked through this WAN while no own one is good.
    Fallback,
}

/// All resolvers.
pub type Known = BTreeMap<Resolver, Rank>;

/// The resolvers behind every WAN: those that are written, else those that came with its address
/// or that its router announces, else its gateway, which on most lines is a box that asks for others; and the fallbacks.
///
/// `before` is what was known last: a WAN that has lost its address, and with it its list, keeps it, so
/// that nobody has to be told while it is away.
pub fn known(
    config: &Config,
    numbers: &Numbers,
    facts: &BTreeMap<WanId, WanFacts>,
    observed: &Observed,
    before: &Known,
) -> Known {
    let mut known = Known::new();
    let Some(dns) = &config.dns else { return known };
    let ours: BTreeSet<IpAddr> = observed.addresses.iter().map(|a| a.address).collect();
    for (id, wan) in numbered(config, numbers) {
        let mut put = |addresses: &[IpAddr], rank: Rank| {
            let usable = addresses.iter().filter(|a| may_be_asked(wan, **a) && !ours.contains(*a));
            let some: Vec<IpAddr> = usable.copied().take(OF_ONE_WAN_MAX).collect();
            for address in &some {
                known.entry((id, *address)).or_insert(rank);
            }
            !some.is_empty()
        };
        let last: Vec<IpAddr> = before
            .iter()
            .filter(|((wan, _), rank)| *wan == id && **rank == Rank::Own)
            .map(|((_, address), _)| *address)
            .collect();
        let leased = observed.leases.get(&id).map(|lease| lease.dns.iter());
        let leased = leased.map(|dns| dns.copied().map(IpAddr::V4).collect::<Vec<IpAddr>>());
        let told = observed.resolvers.by_wan.get(&wan.name);
        let seen = observed.resolvers.by_interface.get(&wan.interface);
        let mut any = put(&wan.dns, Rank::Own);
        if !any {
            let lists = [leased.as_ref(), told, seen].into_iter().flatten();
            any = lists.into_iter().any(|list| put(list, Rank::Own));
            // Of the other family than most leases': they go on where that fails.
            any |= put(&announced(wan, observed), Rank::Own);
        }
        if !any && dns.upstreams.is_empty() {
            any = put(&gateways(facts.get(&id)), Rank::Own);
        }
        if !any && wan.dns.is_empty() {
            put(&last, Rank::Own);
        }
        put(&dns.upstreams, Rank::Fallback);
    }
    known
}

/// What routers announce on its link.
fn announced(wan: &Wan, observed: &Observed) -> Vec<IpAddr> {
    let device = observed.link_named(&wan.interface).map(|(device, _)| device);
    let list = device.and_then(|device| observed.resolvers.announced.get(&device));
    list.into_iter().flatten().map(|(address, _)| IpAddr::V6(*address)).collect()
}

/// Whether the WAN carries the family, and the address says by itself where it is.
fn may_be_asked(wan: &Wan, address: IpAddr) -> bool {
    let carried = match address {
        IpAddr::V4(_) => wan.gateway != crate::config::Gateway::Off,
        IpAddr::V6(ip) => {
            wan.gateway6 != crate::config::Gateway::Off && ip.segments()[0] & 0xffc0 != 0xfe80
        }
    };
    carried && !address.is_loopback() && !address.is_unspecified() && !address.is_multicast()
}

fn gateways(facts: Option<&WanFacts>) -> Vec<IpAddr> {
    let hops = Family::BOTH.into_iter().filter_map(|f| facts?.sides.get(f).hop.as_ref());
    hops.filter_map(|hop| hop.via).collect()
}

/// Which resolvers are asked now: good ones of the WANs that serve; while one of these is in doubt,
/// those of the other WANs that work too, so that no name has to wait for the outcome. Bad ones
/// only while there is nothing better, and all while nothing works.
pub fn asked(known: &Known, checks: &Checks, choice: &Choice, sides: &Sides) -> Asked {
    let fine = |resolver: &Resolver| checks.fault(resolver).is_none();
    let has_own: BTreeSet<WanId> =
        known.iter().filter(|(r, k)| **k == Rank::Own && fine(r)).map(|(r, _)| r.0).collect();
    let first = |r: &Resolver| known.get(r) == Some(&Rank::Own) || !has_own.contains(&r.0);
    let serves = |r: &Resolver| choice.get(Family::of(r.1)).serving.contains_key(&r.0);
    let usable = |r: &Resolver| choice.get(Family::of(r.1)).usable.contains(&r.0);
    let doubt = Family::BOTH.into_iter().any(|family| {
        let shaky = |id: &WanId| {
            let side = sides.get(id).map(|sides| sides.get(family));
            side.is_some_and(|side| match side.state() {
                State::Suspect => true,
                State::Unknown => !side.trusted(),
                State::Up | State::Impaired | State::Portal | State::Recovering | State::Down => {
                    false
                }
            })
        };
        choice.get(family).serving.keys().any(shaky)
    });
    let works = |r: &Resolver| usable(r) && first(r) && fine(r);
    let levels: [&dyn Fn(&Resolver) -> bool; 4] = [
        &|r| works(r) && (doubt || serves(r)),
        &works,
        &|r| usable(r) && checks.fault(r) != Some(Fault::Silent),
        &|_| true,
    ];
    let level = levels.into_iter().find(|level| known.keys().any(level));
    known.keys().map(|r| (*r, level.is_some_and(|level| level(r)))).collect()
}

#[cfg(test)]
mod tests;
