//! What happens to a probe on its way, and to our things in the kernel when other programs meddle.
//! In: a probe. Out: its outcome, and how long it takes.

use std::time::Duration;

use anywan_core::config::{Kind, Target};
use anywan_core::names::{Family, PROTOCOL, RulePriority};
use anywan_core::observed::{Rule, RuleAction};
use anywan_core::steps::{Failure, Probe};

use crate::dice::Dice;
use crate::kernel::Part;
use crate::line::Question;
use crate::world::World;

/// A refusal by our own kernel comes back at once.
const AT_ONCE: Duration = Duration::from_micros(200);

/// The outcome of a probe that nobody answers.
pub(crate) fn silent(why: &str) -> Result<Duration, Failure> {
    Err(Failure::Silent(why.to_owned()))
}

impl World {
    /// Sends a probe: how long it takes, and what becomes of it.
    pub(crate) fn send(&mut self, probe: &Probe) -> (Duration, Result<Duration, Failure>) {
        let (family, kind) = (probe.family, probe.target.kind());
        self.watch.sent(probe.wan, family, kind, self.now);
        let Some(line) = self.lines.iter().find(|l| l.name() == probe.device) else {
            return (AT_ONCE, silent("no such device"));
        };
        let hops = self.kernel.route(family, probe.mark);
        let Some(hop) = hops.iter().find(|hop| hop.device == line.index) else {
            return (AT_ONCE, silent("network is unreachable"));
        };
        let too_late = (probe.timeout, silent("no answer"));
        if hop.via != Some(line.gateway(family)) {
            return too_late;
        }
        let question = Question {
            family,
            kind,
            place: self.place_of(probe).unwrap_or(usize::MAX),
            sequence: probe.sequence,
            at: self.now,
        };
        match line.answer(self.seed, &self.faults, question) {
            Some(trip) if trip <= probe.timeout => (trip, Ok(trip)),
            Some(_) | None => too_late,
        }
    }

    /// The place of a probe's target among those of its family.
    fn place_of(&self, probe: &Probe) -> Option<usize> {
        let wan = self.config.wans.iter().find(|w| w.interface == probe.device)?;
        let mut targets = wan.health.targets.iter().filter(|t| t.serves(probe.family));
        targets.position(|t| *t == probe.target)
    }

    /// How the targets of a line's WAN are asked, in their order; `None`: it is not configured.
    pub(crate) fn kinds(&self, number: u8, family: Family) -> Option<Vec<Kind>> {
        let name = format!("wan{number}");
        let wan = self.config.wans.iter().find(|w| w.name == name)?;
        let targets = wan.health.targets.iter().filter(|t| t.serves(family));
        Some(targets.map(Target::kind).collect())
    }

    /// Some other program takes away something of ours, or puts in what looks like ours.
    pub(crate) fn meddle(&mut self, salt: u64) {
        let mut dice = Dice::new(salt);
        let base = self.config.router.rule_priority_base.0;
        let is = &mut self.kernel.is;
        let (what, part) = match dice.below(7) {
            0 => {
                is.rules.clear();
                ("flushes the rules", Part::Rules)
            }
            1 => {
                is.nft = anywan_core::observed::Nft::default();
                ("deletes the table", Part::Nft)
            }
            2 => {
                let ours = is.routes.iter().filter(|r| r.protocol == PROTOCOL);
                let ours: Vec<_> = ours.cloned().collect();
                if !ours.is_empty() {
                    is.routes.remove(dice.pick(&ours));
                }
                ("deletes a route", Part::Routes)
            }
            3 => {
                for map in is.nft.maps.values_mut() {
                    map.retain(|_, _| dice.chance(0.8));
                }
                ("deletes elements", Part::Nft)
            }
            4 => {
                is.rules.insert(Rule {
                    family: *dice.pick(&Family::BOTH),
                    priority: RulePriority(base + 500),
                    mark: Some((1, 1)),
                    invert: false,
                    source: None,
                    action: RuleAction::Unreachable,
                });
                ("adds a rule that looks like ours", Part::Rules)
            }
            5 => {
                is.addresses.retain(|address| !address.ours);
                ("takes our addresses away", Part::Addresses)
            }
            _ => {
                is.sysctls.insert("net/ipv4/ip_forward".to_owned(), "0".to_owned());
                ("turns forwarding off", Part::Sysctls)
            }
        };
        self.note(format!("another program {what}"));
        self.announce([part].into());
    }
}
