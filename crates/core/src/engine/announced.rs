//! The resolvers that routers announce on WANs' links (RFC 8106): they hold for as long as they say,
//! and are asked for when we start, because whoever listened before us has taken what it heard with it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use super::Engine;
use crate::config::{Gateway, Wan};
use crate::names::IfIndex;
use crate::steps::Ask;
use crate::time::Moment;

/// The most that are kept of one link: a router that announces more is not believed.
const OF_ONE_LINK_MAX: usize = 8;
/// How often a link's routers are asked, and the pause between (RFC 4861, 10: `MAX_RTR_SOLICITATIONS`,
/// `RTR_SOLICITATION_INTERVAL`).
const TIMES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(4);

/// How often the routers of each link were asked since we have known it, and when next.
#[derive(Debug, Clone, Default)]
pub(super) struct Solicited {
    by_link: BTreeMap<IfIndex, (u32, Moment)>,
}

impl Engine {
    /// Takes in what a router has just announced; no time at all takes it back.
    pub(super) fn take_announced(
        &mut self,
        device: IfIndex,
        resolvers: &[Ipv6Addr],
        lives: Option<Duration>,
        now: Moment,
    ) {
        if !self.listens_on(device) {
            return;
        }
        let known = self.observed.resolvers.announced.entry(device).or_default();
        for address in resolvers {
            if lives == Some(Duration::ZERO) {
                // What is left of it goes when its time, which is now, is over.
                known.entry(*address).and_modify(|until| *until = Some(now));
            } else if known.contains_key(address) || known.len() < OF_ONE_LINK_MAX {
                let until = lives.map(|lives| now + lives);
                // One that is heard again lives longer, and that is all.
                self.stale |= known.insert(*address, until).is_none();
            }
        }
    }

    /// Whether resolvers that are announced there may be asked.
    fn listens_on(&self, device: IfIndex) -> bool {
        let link = self.observed.links.get(&device);
        link.is_some_and(|link| self.wans_that_listen().any(|wan| wan.interface == link.name))
    }

    fn wans_that_listen(&self) -> impl Iterator<Item = &Wan> {
        let wans = self.config.wans.iter().filter(|_| self.config.dns.is_some());
        wans.filter(|wan| wan.gateway6 != Gateway::Off && wan.dns.is_empty())
    }

    /// Forgets what is over or gone with its link, and asks the routers of new links.
    pub(super) fn mind_announced(&mut self, now: Moment) {
        let links = &self.observed.links;
        let announced = &mut self.observed.resolvers.announced;
        announced.retain(|device, _| links.contains_key(device));
        self.solicited.by_link.retain(|device, _| links.contains_key(device));
        let mut over: Vec<(String, Ipv6Addr)> = Vec::new();
        for (device, known) in announced {
            let name = links.get(device).map_or("", |link| link.name.as_str());
            known.retain(|address, until| {
                let is_over = until.is_some_and(|until| until <= now);
                if is_over {
                    over.push((name.to_owned(), *address));
                }
                !is_over
            });
        }
        for (interface, address) in &over {
            self.forget_resolver(interface, IpAddr::V6(*address));
        }
        self.stale |= !over.is_empty();
        self.solicit(now);
    }

    /// What was known last holds while a WAN is away, but not what its router took back.
    fn forget_resolver(&mut self, interface: &str, address: IpAddr) {
        let of_link = self.config.wans.iter().filter(|wan| wan.interface == interface);
        for id in of_link.filter_map(|wan| self.numbers.get(&wan.name)) {
            self.resolving.known.remove(&(*id, address));
        }
    }

    fn solicit(&mut self, now: Moment) {
        if self.leaving {
            return;
        }
        for device in self.links_to_solicit() {
            let (times, next) = self.solicited.by_link.entry(device).or_insert((0, now));
            if *times < TIMES && *next <= now {
                (*times, *next) = (*times + 1, now + PAUSE);
                self.asks.push_back(Ask::Solicit { device });
            }
        }
    }

    /// Links on which nothing has been announced yet.
    fn links_to_solicit(&self) -> Vec<IfIndex> {
        let silent = |device: &IfIndex| {
            self.observed.resolvers.announced.get(device).is_none_or(BTreeMap::is_empty)
        };
        let links = self.wans_that_listen().filter_map(|w| self.observed.link_named(&w.interface));
        let mut found: Vec<IfIndex> =
            links.filter(|(_, link)| link.up && link.carrier).map(|(device, _)| device).collect();
        found.retain(silent);
        found.sort();
        found.dedup();
        found
    }

    pub(super) fn announced_deadline(&self) -> Option<Moment> {
        let ends = self.observed.resolvers.announced.values().flat_map(BTreeMap::values);
        let asking = self.links_to_solicit().into_iter().filter_map(|device| {
            let (times, next) = self.solicited.by_link.get(&device)?;
            (*times < TIMES).then_some(*next)
        });
        ends.filter_map(|until| *until).chain(asking).min()
    }
}
