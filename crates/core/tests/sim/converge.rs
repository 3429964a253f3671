//! The end of a run: the faults are over, and for long enough. Then everything that works serves,
//! the kernel is as it should be, nothing reminds of what was, and a daemon that starts anew finds
//! nothing to do. In: a world. Out: laws that it breaks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anywan_core::api::{FamilyStatus, State};
use anywan_core::names::{Family, PerFamily, WanId};
use anywan_core::time::Moment;

use crate::laws::{Law, hold_max, verdict};
use crate::line::{Condition, Line};
use crate::setup::Setup;
use crate::world::{REREAD, World};

/// Flows of a WAN taken out of the file last so long at most, and are counted every ten seconds.
const FLOWS: Duration = Duration::from_secs(9 * 60 + 10);
/// A restarted daemon is watched for so long.
const AFTER_RESTART: Duration = Duration::from_secs(60);

/// How long after the last fault everything must be well.
pub(crate) fn quiet(setup: &Setup) -> Duration {
    let config = setup.config();
    let longest = config.wans.iter().map(|w| hold_max(&w.health) + verdict(&w.health) * 2);
    FLOWS.max(longest.max().unwrap_or_default()) + REREAD * 3
}

impl World {
    /// What must be true in the quiet after faults; then restarts the daemon.
    pub(crate) fn check_convergence(&mut self) {
        let mut well = true;
        for family in Family::BOTH {
            let serving: BTreeSet<WanId> = self.slots(family).into_keys().collect();
            let works = |line: &&Line| self.id(line).is_some() && line.passes(family, &self.faults);
            if let Some(line) = self.lines.iter().find(works).filter(|_| serving.is_empty()) {
                let what = format!("none serves {family}, {} works", line.name());
                self.broken(Law::ServeSomething, what);
                well = false;
            }
            let Some(should) = self.best(family) else { continue };
            if should != serving {
                let states: Vec<String> = self.states(family);
                let what = format!("{serving:?} serve {family}, {should:?} should: {states:?}");
                self.broken(Law::Converge, what);
                well = false;
            }
        }
        let left: Vec<String> =
            self.engine.preview(None, self.now).iter().map(ToString::to_string).collect();
        if !left.is_empty() {
            self.broken(Law::Converge, format!("still to be done: {left:?}"));
        }
        let wans = self.config.wans.iter().map(|w| w.name.as_str());
        let known: BTreeMap<&str, WanId> =
            wans.filter_map(|name| Some((name, *self.numbers.get(name)?))).collect();
        let remnants = self.kernel.remnants(&self.config, &known.into_values().collect());
        if !remnants.is_empty() {
            self.broken(Law::Converge, format!("remnants: {remnants:?}"));
        }
        well &= self.check_lost();
        // A restart forgets a WAN's faults, and what was spent on it.
        if well && !self.some_metered_rests() {
            self.check_restart();
        }
    }

    /// Whether a metered WAN is not up though all is well.
    fn some_metered_rests(&self) -> bool {
        Family::BOTH.into_iter().any(|family| {
            self.config.wans.iter().filter(|w| w.metered).any(|wan| {
                let state = self.watch.states.get(&(wan.name.clone(), family));
                state.is_some_and(|s| !matches!(s, State::Unknown | State::Up | State::Suspect))
            })
        })
    }

    /// What the engine says of each WAN.
    fn states(&self, family: Family) -> Vec<String> {
        let since = |at: Moment| format!("{:.3}", at.since_start().as_secs_f64());
        let wans = self.engine.status(&since).wans.into_iter();
        wans.map(|wan| {
            let side = PerFamily { ipv4: wan.ipv4, ipv6: wan.ipv6 };
            let FamilyStatus { state, since, reason, loss_percent, .. } = side.get(family);
            format!("{} {state} since {since}, loss {loss_percent:?}: {reason}", wan.name)
        })
        .collect()
    }

    /// No WAN that has a family is lost there. Gives whether that is so.
    fn check_lost(&mut self) -> bool {
        let field = self.config.router.mark_field;
        let mut well = true;
        for family in Family::BOTH {
            let lines = self.lines.iter().filter(|l| *l.families.get(family));
            let ids = lines.filter_map(|line| self.id(line));
            let lost: BTreeSet<WanId> =
                ids.filter(|id| self.kernel.is_lost(family, *id, field)).collect();
            if lost.is_empty() {
                continue;
            }
            well = false;
            let what = format!("{lost:?} are lost over {family}: {:?}", self.states(family));
            self.broken(Law::Converge, what);
        }
        well
    }

    /// The WANs that must serve: those of the best priority, all being well.
    fn best(&self, family: Family) -> Option<BTreeSet<WanId>> {
        let mut by_priority: BTreeMap<u8, BTreeSet<WanId>> = BTreeMap::new();
        for line in self.lines.iter().filter(|l| *l.families.get(family)) {
            let (Some(kinds), Some(id)) = (self.kinds(line.number, family), self.id(line)) else {
                continue;
            };
            if line.condition(family, &self.faults, &kinds) != Condition::Healthy {
                return None;
            }
            let name = line.name();
            let wan = self.config.wans.iter().find(|w| w.name == name)?;
            by_priority.entry(wan.priority).or_default().insert(id);
        }
        Some(by_priority.into_values().next().unwrap_or_default())
    }

    fn check_restart(&mut self) {
        let before = self.kernel.is.clone();
        self.restart();
        let until = self.now + AFTER_RESTART;
        self.run(until.since_start());
        for family in Family::BOTH {
            let map = format!("slots{}", family.digit());
            if before.nft.maps.get(&map) != self.kernel.is.nft.maps.get(&map) {
                let what = format!("another choice over {family} after a restart");
                self.broken(Law::SurviveRestart, what);
            }
        }
        if before != self.kernel.is {
            self.broken(Law::SurviveRestart, "the kernel was changed by a restart".to_owned());
        }
    }
}
