//! From a decision to the steps that are worth trying now: what failed or had no effect is tried
//! again with a growing pause, and a difference that nobody decided is reported as a repair.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Engine;
use crate::choose::choose;
use crate::desired::{self, Desired};
use crate::steps::{Step, diff};
use crate::time::Moment;

/// The pause before a step is tried a second time; doubles.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
/// The longest pause: the world may have changed without telling us.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A step tried this often without effect is a problem that a person should see.
const PATIENCE: u32 = 3;
/// Repairs told one by one; a flush of everything is one sentence more.
const REPAIRS_TOLD: usize = 8;

/// The steps that were tried and are still needed.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    by_step: BTreeMap<String, Attempt>,
}

#[derive(Debug)]
struct Attempt {
    count: u32,
    again: Moment,
    error: Option<String>,
}

impl Attempts {
    pub(super) fn failed(&mut self, step: &Step, error: String) {
        if let Some(attempt) = self.by_step.get_mut(&step.to_string()) {
            attempt.error = Some(error);
        }
    }

    /// Keeps of `steps` what may be tried now, and counts it as tried.
    fn admit(&mut self, steps: Vec<Step>, now: Moment) -> Vec<Step> {
        let mut known = std::mem::take(&mut self.by_step);
        let mut admitted = Vec::new();
        for step in steps {
            let name = step.to_string();
            let attempt = known.remove(&name);
            if let Some(attempt) = attempt.as_ref().filter(|a| now < a.again) {
                let attempt = Attempt { error: attempt.error.clone(), ..*attempt };
                self.by_step.insert(name, attempt);
                continue;
            }
            let (count, error) = attempt.map_or((0, None), |a| (a.count, a.error));
            let pause = PAUSE_FIRST.saturating_mul(1 << count.min(16)).min(PAUSE_MAX);
            self.by_step.insert(name, Attempt { count: count + 1, again: now + pause, error });
            admitted.push(step);
        }
        admitted
    }

    /// Ends all pauses.
    pub(super) fn hurry(&mut self, now: Moment) {
        for attempt in self.by_step.values_mut() {
            attempt.again = attempt.again.min(now);
        }
    }

    pub(super) fn due(&self, now: Moment) -> bool {
        self.by_step.values().any(|a| a.again <= now)
    }

    pub(super) fn deadline(&self) -> Option<Moment> {
        self.by_step.values().map(|a| a.again).min()
    }

    /// The steps that do not work, with the reason.
    pub(super) fn troubles(&self) -> impl Iterator<Item = (&str, &str)> {
        self.by_step
            .iter()
            .filter(|(_, a)| a.error.is_some() || a.count >= PATIENCE)
            .map(|(step, a)| (step.as_str(), a.error.as_deref().unwrap_or("it has no effect")))
    }
}

impl Engine {
    pub(super) fn plan(&mut self, now: Moment) {
        let desired = self.desired(now);
        let steps = diff(&self.observed, &desired);
        if steps.is_empty() {
            self.attempts = Attempts::default();
            self.left = self.leaving && self.observed.children.is_empty();
            self.settled = Some(desired);
            self.gone.steered(now);
            return;
        }
        let drifted = self.settled.as_ref() == Some(&desired);
        if drifted && self.attempts.by_step.is_empty() {
            self.tell_repairs(&steps, now);
        }
        let replaced = steps.iter().any(|step| matches!(step, Step::ReplaceTable { .. }));
        if replaced {
            self.gone.table_replaced();
        }
        let table_back = replaced && self.table_was_taken();
        if table_back {
            self.evacuations.search(now);
        }
        if table_back || (drifted && steps.iter().any(Step::steers)) {
            self.gone.unsteered(now);
        }
        let admitted = self.attempts.admit(steps, now);
        self.steps.extend(admitted);
    }

    /// Whether packets were steered and translated, and then somebody took the table away or
    /// changed it. At a first start there are no rules of ours yet.
    fn table_was_taken(&self) -> bool {
        !self.table_is_there() && !self.observed.rules.is_empty()
    }

    /// The steps that `config` would cause now; health is taken as it is.
    pub fn preview(&self, config: Option<crate::config::Config>, now: Moment) -> Vec<Step> {
        let Some(config) = config else {
            return diff(&self.observed, &self.desired(now));
        };
        let mut other = Engine::new(config, &self.kept());
        other.observed = self.observed.clone();
        other.name_interfaces();
        other.read = self.read;
        other.sides = self.sides.clone();
        other.dials = self.dials.clone();
        other.started = self.started;
        other.refresh_facts(now);
        other.choice =
            choose(&other.config, &other.numbers, &other.facts, &other.sides, &other.drained);
        other.resolving = self.resolving.clone();
        other.renew_resolvers(now);
        diff(&other.observed, &other.desired(now))
    }

    fn desired(&self, now: Moment) -> Desired {
        if self.leaving {
            return desired::nothing(&self.observed);
        }
        Desired {
            children: self.programs(now),
            unknown_children: self.unknown_dial_programs(),
            resolv_conf: self.wanted_resolv_conf(),
            ..desired::desire(self.basis())
        }
    }

    /// A program that does not start is asked for again after a pause of its own.
    pub(super) fn step_failed(&mut self, step: &Step, error: String, now: Moment) {
        if let Step::TakeResolvConf { .. } = step {
            self.claims.fail(error, now);
            self.stale = true;
            return;
        }
        if let Step::StartChild { name, .. } = step {
            if self.dial_not_started(name, &error, now) {
                self.stale = true;
                return;
            }
            self.ends.note(name, "child.not-started", error, Duration::ZERO, now);
        } else {
            self.attempts.failed(step, error);
        }
        self.stale = true;
    }

    fn tell_repairs(&mut self, steps: &[Step], now: Moment) {
        for step in steps.iter().take(REPAIRS_TOLD) {
            let what = step.to_string();
            self.tell(now, "repair", None, None, ("", &what, "somebody else had changed it"));
        }
        if let Some(more) = steps.len().checked_sub(REPAIRS_TOLD).filter(|more| *more > 0) {
            let what = format!("and {more} more steps");
            self.tell(now, "repair", None, None, ("", &what, "somebody else had changed it"));
        }
    }
}
