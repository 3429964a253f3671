//! The own addresses of WANs, the links that must be up for them, and the routes that come with a
//! lease. In: configuration, leases, links. Out: what should be there of ours. An address that
//! somebody else has put there is used as it is; `steps` leaves it alone.
//!
//! The kernel makes the route to an address's own subnet in main, as for everybody's addresses
//! (no `IFA_F_NOPREFIXROUTE`): so a modem's own page, or another host on a shared interface, is
//! reached without any route of ours. Two WANs with one subnet have two such routes in main, of
//! which the first is used; nothing of ours goes by them, since our tables name the interface and
//! take the gateway for directly connected. `gateway_alias` reaches the second one's page.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::Basis;
use crate::config::{Addressing, Wan};
use crate::facts::numbered_all;
use crate::names::{Family, IfIndex, METRIC_IN_MAIN, PROTOCOL, TableId, WanId};
use crate::observed::{Hop, Observed, OwnAddress, Route};

/// The WANs whose addresses are ours, with their interfaces.
fn addressed<'a>(basis: Basis<'a>) -> impl Iterator<Item = (WanId, &'a Wan, IfIndex)> {
    numbered_all(basis.config, basis.numbers)
        .into_iter()
        .filter(|(_, wan)| wan.address != Addressing::Observe)
        .filter_map(move |(id, wan)| Some((id, wan, basis.observed.link_named(&wan.interface)?.0)))
}

/// The links that we set up.
pub(super) fn links_up(basis: Basis<'_>) -> BTreeSet<IfIndex> {
    let stays = |id: &WanId| basis.facts.get(id).is_none_or(|facts| !facts.retiring);
    // One that is down carries no flow of what retires.
    addressed(basis).filter(|(id, ..)| stays(id)).map(|(_, _, device)| device).collect()
}

/// Every address of ours. One that two WANs have, as a WAN under another name and what retires under
/// the former one do, is there once, for as long as either has it.
pub(super) fn addresses(basis: Basis<'_>) -> BTreeSet<OwnAddress> {
    let mut own: BTreeMap<(IfIndex, IpAddr), OwnAddress> = BTreeMap::new();
    let of_wan = |(id, wan, device)| {
        let retires = basis.facts.get(&id).is_some_and(|facts| facts.retiring);
        let there = |own: &OwnAddress| basis.observed.addresses.iter().any(|a| own.is(a));
        // What retires keeps what it has, and is given nothing.
        of_wan(basis, id, wan, device).into_iter().filter(move |own| !retires || there(own))
    };
    for one in addressed(basis).flat_map(of_wan) {
        let kept = own.entry((one.device, one.address)).or_insert_with(|| one.clone());
        kept.until = kept.until.zip(one.until).map(|(a, b)| a.max(b));
    }
    own.into_values().collect()
}

fn of_wan(basis: Basis<'_>, id: WanId, wan: &Wan, device: IfIndex) -> Vec<OwnAddress> {
    match &wan.address {
        Addressing::Observe => Vec::new(),
        Addressing::Static(list) => {
            let own = |net: &IpNet| OwnAddress {
                device,
                address: net.addr(),
                prefix: net.prefix_len(),
                until: None,
            };
            list.iter().map(own).collect()
        }
        Addressing::Dhcp => match basis.observed.leases.get(&id) {
            Some(lease) => vec![OwnAddress {
                device,
                address: lease.address.into(),
                prefix: lease.prefix,
                until: lease.until,
            }],
            // Of an earlier run, whose lease was not kept: it ends by itself, unless a server
            // says before that it is not ours.
            None if basis.observed.undecided.contains(&id) => ours_on(basis.observed, device),
            None => Vec::new(),
        },
    }
}

fn ours_on(observed: &Observed, device: IfIndex) -> Vec<OwnAddress> {
    let there = observed.addresses.iter().filter(|a| a.ours && a.device == device);
    there.filter(|a| a.until.is_some()).map(OwnAddress::of).collect()
}

/// The routes of leases, for everybody on this machine: in main.
pub(super) fn lease_routes(basis: Basis<'_>) -> BTreeSet<Route> {
    let mut routes = BTreeSet::new();
    let mut taken: BTreeSet<IpNet> = BTreeSet::new();
    for (id, _, device) in addressed(basis) {
        let Some(lease) = basis.observed.leases.get(&id) else { continue };
        let there = basis.facts.get(&id).is_some_and(|f| f.sides.get(Family::Ipv4).hop.is_some());
        for (to, via) in lease.routes.iter().filter(|_| there) {
            let to = IpNet::V4(*to);
            // One place for one destination: the WAN with the lower number has it.
            if !taken.insert(to) {
                continue;
            }
            routes.insert(Route {
                family: Family::Ipv4,
                table: TableId::MAIN,
                to: Some(to),
                metric: METRIC_IN_MAIN,
                protocol: PROTOCOL,
                hops: vec![Hop { device, via: via.map(IpAddr::V4), weight: 1 }],
            });
        }
    }
    routes
}
