//! Keeps the list of resolvers, has them checked, and says which are asked. A change of who is
//! asked is a reason to plan, like a change of the choice.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Engine;
use super::report::problem;
use crate::api::{Problem, State};
use crate::config::Target;
use crate::names::{Family, WanId};
use crate::resolvers::{self, Asked, Checks, Fault, Known, PATIENCE, Rank, Resolver, Said};
use crate::steps::{Ask, Probe};
use crate::time::Moment;

/// What is asked for where no DNS target names anything.
const NAME: &str = "example.com";

/// The ends of the order of addresses.
const FIRST_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const LAST_ADDRESS: IpAddr = IpAddr::V6(Ipv6Addr::from_bits(u128::MAX));

/// The resolvers.
#[derive(Debug, Clone, Default)]
pub(super) struct Resolving {
    pub(super) known: Known,
    pub(super) checks: Checks,
    pub(super) asked: Asked,
}

impl Engine {
    /// Works out anew whom there is to ask, and who is asked; says whether anything changed.
    pub(super) fn renew_resolvers(&mut self, now: Moment) -> bool {
        let before = &self.resolving.known;
        let known =
            resolvers::known(&self.config, &self.numbers, &self.facts, &self.observed, before);
        self.resolving.checks.keep(&known, now);
        let asked = resolvers::asked(&known, &self.resolving.checks, &self.choice, &self.sides);
        let changed = known != self.resolving.known || asked != self.resolving.asked;
        (self.resolving.known, self.resolving.asked) = (known, asked);
        changed
    }

    /// Takes in what others were told, by interface.
    pub(super) fn take_resolvers(&mut self, found: BTreeMap<String, Vec<IpAddr>>) {
        self.stale |= super::replace(&mut self.observed.resolvers.by_interface, found);
    }

    /// Whether names are looked up for LANs.
    pub fn serves_names(&self) -> bool {
        self.config.dns.is_some()
    }

    /// The interfaces of WANs, of which others may have been told resolvers, by index.
    pub fn interfaces(&self) -> BTreeMap<u32, String> {
        let names: BTreeSet<&str> = self.config.wans.iter().map(|w| w.interface.as_str()).collect();
        let links = self.observed.links.iter();
        let ours = links.filter(|(_, link)| names.contains(link.name.as_str()));
        ours.map(|(index, link)| (index.0, link.name.clone())).collect()
    }

    /// Whether an answer of this resolver, or its silence, says something about it; one that is only a
    /// fallback is not bothered while it is not needed.
    fn is_judged(&self, resolver: &Resolver) -> bool {
        let works = |state| matches!(state, State::Up | State::Impaired);
        let Resolving { known, checks, .. } = &self.resolving;
        let own = |id: WanId| {
            let of_wan = (id, FIRST_ADDRESS)..=(id, LAST_ADDRESS);
            known
                .range(of_wan)
                .filter(|(_, rank)| **rank == Rank::Own)
                .map(|(resolver, _)| resolver)
        };
        let needed = known.get(resolver) == Some(&Rank::Own)
            || own(resolver.0).all(|own| checks.fault(own).is_some());
        needed && works(self.state_of(resolver.0, Family::of(resolver.1)))
    }

    pub(super) fn consult_deadline(&self) -> Option<Moment> {
        self.resolving.checks.deadline(|resolver| self.is_judged(resolver))
    }

    /// Asks the questions that are due.
    pub(super) fn consult(&mut self, now: Moment) {
        if self.leaving || self.resolving.known.is_empty() {
            return;
        }
        let known = self.resolving.known.keys();
        let judged: BTreeSet<Resolver> = known.filter(|r| self.is_judged(r)).copied().collect();
        let mut checks = std::mem::take(&mut self.resolving.checks);
        let questions = checks.due(
            |resolver| judged.contains(resolver),
            |id| self.wan(id).is_some_and(|wan| wan.metered),
            |id| self.name_to_ask_for(id),
            now,
        );
        self.resolving.checks = checks;
        for question in questions {
            let (wan, server) = question.resolver;
            let Some(device) = self.wan(wan).map(|wan| wan.interface.clone()) else { continue };
            self.asks.push_back(Ask::Consult(Probe {
                wan,
                family: Family::of(server),
                target: Target::Dns { server, port: 53, name: question.name },
                resolvers: Vec::new(),
                sequence: question.sequence,
                device,
                mark: self.config.router.mark_field.keep(wan),
                timeout: PATIENCE,
            }));
        }
    }

    /// Who is asked for names behind a WAN, the WAN's own first; nobody while no names are served.
    pub(super) fn servers_behind(&self, id: WanId) -> Vec<SocketAddr> {
        let of_wan = (id, FIRST_ADDRESS)..=(id, LAST_ADDRESS);
        let mut all: Vec<_> = self.resolving.known.range(of_wan).collect();
        all.sort_by_key(|(_, rank)| **rank);
        all.into_iter().map(|((_, address), _)| SocketAddr::new(*address, 53)).collect()
    }

    /// A name that this WAN's probes ask for anyway.
    fn name_to_ask_for(&self, id: WanId) -> String {
        let targets = self.wan(id).into_iter().flat_map(|wan| &wan.health.targets);
        let mut names = targets.filter_map(|target| match target {
            Target::Dns { name, .. } => Some(name.clone()),
            Target::Icmp(_) | Target::Tcp(..) | Target::Http(_) => None,
        });
        names.next().unwrap_or_else(|| NAME.to_owned())
    }

    pub(super) fn consulted(
        &mut self,
        resolver: (WanId, IpAddr),
        sequence: u64,
        said: Option<Said>,
        now: Moment,
    ) {
        let before = self.resolving.checks.fault(&resolver);
        self.resolving.checks.take(resolver, sequence, said, now);
        self.undecided |= before != self.resolving.checks.fault(&resolver);
    }

    /// What is wrong with resolvers.
    pub(super) fn resolver_problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for ((id, address), fault) in self.resolving.checks.faults() {
            let Some(wan) = self.wan(id) else { continue };
            let at = format!("wan {}", wan.name);
            let asked = self.resolving.asked.get(&(id, address)) == Some(&true);
            let left = if asked { "nobody better can be asked" } else { "it is not asked" };
            let (code, what) = match fault {
                Fault::Silent => ("dns.silent", format!("its resolver {address} does not answer")),
                Fault::Lies => {
                    let what = "invents addresses for names that do not exist";
                    ("dns.lies", format!("its resolver {address} {what}"))
                }
            };
            let hint = "name better ones with `dns` of this WAN, or `upstreams` in [dns]";
            problems.push(problem(code, &at, &format!("{what}; {left}"), hint));
        }
        if self.config.dns.is_some() && self.resolving.known.is_empty() {
            let what = "no WAN has a resolver that could be asked";
            let hint = "write `dns` of a WAN, or `upstreams` in [dns]";
            problems.push(problem("dns.no-resolver", "dns", what, hint));
        }
        problems
    }
}
