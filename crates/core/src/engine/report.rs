//! What people are told: the status, the problems, and what happened.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::lending::lending_problems;
use super::{Engine, Happening, NOTICES_MAX};
use crate::api::{API_VERSION, AddressFrom, FamilyStatus, Problem, State, Status, WanStatus};
use crate::choose::{Choice, FamilyChoice};
use crate::config::{Addressing, Gateway, Wan};
use crate::desired;
use crate::facts::{Obstacle, SideFacts};
use crate::names::{Family, PROTOCOL, TableId, WanId};
use crate::observed::Route;
use crate::time::Moment;

impl Engine {
    /// The status; `clock` turns a moment into wall-clock text (RFC 3339).
    pub fn status(&self, clock: &dyn Fn(Moment) -> String) -> Status {
        Status {
            version: API_VERSION,
            wans: self.config.wans.iter().map(|wan| self.wan_status(wan, clock)).collect(),
            problems: self.problems.iter().cloned().collect(),
        }
    }

    /// The state of things in one short line for people: `2 of 3 WANs up`. A WAN is up when it
    /// works over one family at least; one that is being asked about still works.
    pub fn summary(&self) -> String {
        let works = |id| Family::BOTH.into_iter().any(|f| self.state_of(id, f).works());
        let numbers = self.config.wans.iter().map(|wan| self.numbers.get(&wan.name));
        let up = numbers.filter(|number| number.is_some_and(|id| works(*id))).count();
        let all = self.config.wans.len();
        format!("{up} of {all} {} up", if all == 1 { "WAN" } else { "WANs" })
    }

    fn wan_status(&self, wan: &Wan, clock: &dyn Fn(Moment) -> String) -> WanStatus {
        let id = self.numbers.get(&wan.name).copied().unwrap_or(WanId(0));
        let ipv4 = self.family_status(id, Family::Ipv4, clock);
        let ipv6 = self.family_status(id, Family::Ipv6, clock);
        let main = if wan.gateway == Gateway::Off { &ipv6 } else { &ipv4 };
        WanStatus {
            name: wan.name.clone(),
            number: id.0,
            interface: wan.interface.clone(),
            priority: wan.priority,
            weight: wan.weight.0,
            drained: self.drained.contains(&wan.name),
            share_percent: main.share_percent,
            ipv4,
            ipv6,
        }
    }

    fn family_status(
        &self,
        id: WanId,
        family: Family,
        clock: &dyn Fn(Moment) -> String,
    ) -> FamilyStatus {
        let none = SideFacts::default();
        let facts = self.facts.get(&id).map_or(&none, |f| f.sides.get(family));
        let side = self.sides.get(&id).map(|sides| sides.get(family));
        let ms = |span: std::time::Duration| (span.as_secs_f64() * 1e6).round() / 1e3;
        let told = side.map_or_else(String::new, |s| s.reason().to_owned());
        let dialled = (facts.obstacle == Some(Obstacle::NoInterface))
            .then(|| self.wan(id).and_then(|wan| self.dial_words(wan)));
        let reason = dialled.flatten().unwrap_or(told);
        let origin = facts.addresses.first().and_then(|address| self.origin(id, *address));
        FamilyStatus {
            state: self.state_of(id, family),
            share_percent: share(self.choice.get(family), id),
            gateway: facts.hop.as_ref().and_then(|h| h.via).map(|via| via.to_string()),
            address: facts.addresses.first().map(ToString::to_string),
            address_from: origin.map(|(from, _)| from),
            address_until: origin.and_then(|(_, until)| until).map(clock),
            rtt_ms: side.and_then(|s| s.rtt()).map(ms),
            loss_percent: side.and_then(|s| s.loss_percent()),
            jitter_ms: side.and_then(|s| s.jitter()).map(ms),
            since: side.map_or_else(String::new, |s| clock(s.since())),
            reason,
        }
    }

    /// Where an address of a WAN comes from, and until when it holds.
    fn origin(&self, id: WanId, address: IpAddr) -> Option<(AddressFrom, Option<Moment>)> {
        let wan = self.wan(id)?;
        if wan.ppp.is_some() {
            return Some((AddressFrom::Ppp, None));
        }
        let lease = self.observed.leases.get(&id).filter(|lease| lease.address == address);
        Some(match (&wan.address, lease) {
            (Addressing::Dhcp, Some(lease)) => (AddressFrom::Dhcp, lease.until),
            (Addressing::Static(list), _) if list.iter().any(|net| net.addr() == address) => {
                (AddressFrom::Static, None)
            }
            (Addressing::Observe | Addressing::Dhcp | Addressing::Static(_), _) => {
                (AddressFrom::Observed, None)
            }
        })
    }

    pub(super) fn tell(
        &mut self,
        at: Moment,
        kind: &'static str,
        wan: Option<WanId>,
        family: Option<Family>,
        (old, new, reason): (&str, &str, &str),
    ) {
        let wan = wan.and_then(|id| self.wan(id)).map_or_else(String::new, |w| w.name.clone());
        if self.happenings.len() >= NOTICES_MAX {
            self.happenings.pop_front();
        }
        let (old, new, reason) = (old.to_owned(), new.to_owned(), reason.to_owned());
        self.happenings.push_back(Happening { at, kind, wan, family, old, new, reason });
    }

    pub(super) fn tell_choice(&mut self, choice: &Choice, now: Moment) {
        for family in Family::BOTH {
            let (old, new) = (self.choice.get(family), choice.get(family));
            if old.serving == new.serving && old.reason == new.reason {
                continue;
            }
            let (was, is) = (self.names_of(old), self.names_of(new));
            let reason = new.reason.to_string();
            self.tell(now, "choice", None, Some(family), (&was, &is, &reason));
        }
    }

    fn names_of(&self, choice: &FamilyChoice) -> String {
        let names: Vec<String> = choice
            .serving
            .keys()
            .filter_map(|id| {
                let name = &self.wan(*id)?.name;
                Some(format!("{name} {:.0} %", share(choice, *id)))
            })
            .collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }

    /// Default routes that others put in main steer nothing here, but they are where gateways are
    /// learnt: say when they change.
    pub(super) fn note_foreign_defaults(&mut self, routes: &BTreeSet<Route>, now: Moment) {
        if self.settled.is_none() {
            return;
        }
        let foreign = |r: &&Route| r.table == TableId::MAIN && r.protocol != PROTOCOL;
        let old: BTreeSet<Route> = self.observed.routes.iter().filter(foreign).cloned().collect();
        let new: BTreeSet<Route> = routes.iter().filter(foreign).cloned().collect();
        for route in new.difference(&old) {
            let text = route.to_string();
            let reason = "another program's route; it steers nothing while anywan runs";
            self.tell(now, "foreign", None, Some(route.family), ("", &text, reason));
        }
        for route in old.difference(&new) {
            let text = route.to_string();
            let reason = "another program's route is gone";
            self.tell(now, "foreign", None, Some(route.family), (&text, "", reason));
        }
    }

    /// A problem of the daemon's own: one at a time of a kind at a place.
    pub(super) fn take_problem(&mut self, problem: Problem) {
        let key = (problem.code.clone(), problem.at.clone());
        let before = self.reported.insert(key, problem.clone());
        self.stale |= before != Some(problem);
    }

    /// Works out the problems anew, and tells what came and went.
    pub(super) fn renew_problems(&mut self, now: Moment) {
        let problems = self.current_problems();
        let before = std::mem::replace(&mut self.problems, problems.clone());
        for problem in problems.difference(&before) {
            let Problem { code, at, what, .. } = problem;
            self.tell(now, "problem", None, None, ("", code, &format!("{at}: {what}")));
        }
        for problem in before.difference(&problems) {
            let Problem { code, at, what, .. } = problem;
            self.tell(now, "solved", None, None, (code, "", &format!("{at}: {what}")));
        }
    }

    fn current_problems(&self) -> BTreeSet<Problem> {
        let mut problems: BTreeSet<Problem> = self.reported.values().cloned().collect();
        for wan in &self.config.wans {
            problems.extend(self.wan_problems(wan));
        }
        for lan in &self.config.lans {
            if self.observed.link_named(&lan.interface).is_none() {
                problems.insert(problem(
                    "lan.interface-missing",
                    &format!("lan {}", lan.interface),
                    "the interface does not exist; it is waited for",
                    "`ip link` lists the interfaces there are",
                ));
            }
        }
        if desired::yields(&self.config, &self.observed.cpus) {
            problems.insert(problem(
                "cpu.irqbalance",
                "cpu",
                "irqbalance is running, so interrupts are left to it",
                "nothing is wrong; stop irqbalance to have anywan place them",
            ));
        }
        problems.extend(self.ends.problems());
        problems.extend(self.resolver_problems());
        problems.extend(self.claims.problem());
        let lans = self.config.lans.iter();
        problems.extend(lans.flat_map(|lan| lending_problems(lan, &self.observed)));
        for (step, error) in self.attempts.troubles() {
            problems.insert(problem(
                "step.failed",
                step,
                error,
                "it is tried again and again; `anywan plan` shows what is still to be done",
            ));
        }
        problems
    }

    fn wan_problems(&self, wan: &Wan) -> Vec<Problem> {
        let at = format!("wan {}", wan.name);
        let Some(id) = self.numbers.get(&wan.name) else {
            let what = "there is no number left for it";
            let hint = "use a wider `mark_mask`";
            return vec![problem("wan.no-number", &at, what, hint)];
        };
        let obstacle = |family| self.facts.get(id).and_then(|f| f.sides.get(family).obstacle);
        let both = [obstacle(Family::Ipv4), obstacle(Family::Ipv6)];
        let mut problems = Vec::new();
        if let Some(ppp) = &wan.ppp {
            problems.extend(self.dial_problems(wan, ppp));
            // That it is not there is told in better words.
            if both.contains(&Some(Obstacle::NoInterface)) {
                return problems;
            }
        }
        if both.contains(&Some(Obstacle::NoInterface)) {
            let what = format!("the interface {} does not exist; it is waited for", wan.interface);
            let hint = "`ip link` lists the interfaces there are";
            return vec![problem("wan.interface-missing", &at, &what, hint)];
        }
        let mut problems = self.interface_doubts(wan, &at);
        problems.extend(self.dhcp_problems(wan, *id, &at));
        for family in Family::BOTH {
            let reason = self.sides.get(id).map_or("", |s| s.get(family).reason());
            let waits = matches!(obstacle(family), Some(Obstacle::NoAddress | Obstacle::NoGateway));
            // Lacking one family is normal; lacking both is not.
            let lacks_all = waits && both.iter().all(Option::is_some) && family == Family::Ipv4;
            if self.state_of(*id, family) == State::Down {
                let what = format!("does not work over {family}: {reason}");
                let hint = "`anywan events` tells when it is back";
                problems.push(problem("wan.down", &at, &what, hint));
            } else if lacks_all {
                let what = format!("cannot be used over {family} yet: {reason}");
                problems.push(problem("wan.not-ready", &at, &what, hint_for(wan)));
            }
        }
        problems
    }
}

fn hint_for(wan: &Wan) -> &'static str {
    match wan.address {
        Addressing::Observe => {
            "is its DHCP client running? `address = \"dhcp\"` has anywan do it, and `gateway` can be \
             given in the file"
        }
        Addressing::Dhcp => "anywan goes on asking; `anywan events` tells when it has an address",
        Addressing::Static(_) => "write its `gateway` in the file",
    }
}

pub(super) fn problem(code: &str, at: &str, what: &str, hint: &str) -> Problem {
    Problem {
        code: code.to_owned(),
        at: at.to_owned(),
        what: what.to_owned(),
        hint: hint.to_owned(),
    }
}

/// The share of new connections, 0 to 100, by weight.
pub(super) fn share(choice: &FamilyChoice, id: WanId) -> f64 {
    let sum: u32 = choice.serving.values().map(|w| u32::from(w.0)).sum();
    let own = choice.serving.get(&id).map_or(0, |w| u32::from(w.0));
    if sum == 0 { 0.0 } else { (f64::from(own) * 1000.0 / f64::from(sum)).round() / 10.0 }
}
