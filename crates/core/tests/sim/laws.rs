//! The laws: what must hold whatever happens. The world asks them at every turn, step, happening
//! and question. In: the truth about lines, which the engine cannot see, and what the kernel was
//! made to do. Out: a list of what was broken, which never stops the run.
//!
//! Every bound is worked out from the settings and named here; none is an experience.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use anywan_core::api::State;
use anywan_core::config::{Config, Health, Kind, Target, Wan};
use anywan_core::engine::Happening;
use anywan_core::names::{Family, PerFamily, WanId};
use anywan_core::observed::Structure;
use anywan_core::steps::Step;
use anywan_core::time::Moment;

use crate::line::{Ail, Condition, Fault, Line};
use crate::world::{Mood, REREAD, World};

/// The longest deadline that a probe gets when none is configured.
const DEADLINE_MAX: Duration = Duration::from_secs(3);
/// Rounds in a burst, with those that it takes to call a service dead.
const BURST_ROUNDS: f64 = 5.0;
/// From the first round of a burst to its last.
const BURST: Duration = Duration::from_millis(200);
/// What was on its way when a line died still arrives: the third SYN of a handshake, late.
const IN_FLIGHT: Duration = Duration::from_secs(5);
/// The heartbeat of a metered WAN on standby.
const STANDBY: Duration = Duration::from_secs(60);
/// The longest pause before a step that failed is tried again.
const STEP_PAUSE_MAX: Duration = Duration::from_secs(30);
/// The hold time doubles at most this often.
const FLAPS_MAX: u32 = 5;
/// A WAN that was up for this many hold times has lived its flaps down.
const CALM_HOLDS: u32 = 10;
/// A line in doubt is sampled once in a second, and so often besides.
const SAMPLES_SAVED: f64 = 80.0;
/// As in the daemon: probes under way.
const UNDER_WAY_MAX: usize = 2_048;
/// An hour, over which switches are counted.
pub(crate) const HOUR: Duration = Duration::from_secs(3_600);

/// What may be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Law {
    /// A dead WAN is out of the serving set within a bound, while another works.
    LeaveTheDead,
    /// A healthy WAN is never called down, for one deaf target or 5 % loss.
    KeepTheHealthy,
    /// A WAN comes back only so often in an hour.
    FewReturns,
    /// When faults stop, all WANs of the best priority serve, and nothing of the dead is left.
    Converge,
    /// A family that some WAN can carry is served.
    ServeSomething,
    /// The order of equal facts does not matter.
    NoOrder,
    /// At every step a way out remains, if there was one before and after.
    AlwaysAWayOut,
    /// Queues, probes and turns are bounded.
    Bounded,
    /// A restart changes nothing.
    SurviveRestart,
    /// Only flows of lost WANs are evacuated, and only while another WAN serves.
    EvacuateTheLost,
}

/// A law that was broken.
#[derive(Debug, Clone)]
pub(crate) struct Broken {
    pub(crate) law: Law,
    pub(crate) at: Moment,
    pub(crate) what: String,
    /// What happened before.
    pub(crate) trail: Vec<String>,
}

/// The truth about one family of a line.
#[derive(Debug, Clone, Copy)]
struct Truth {
    condition: Condition,
    since: Moment,
    /// Already blamed for not being left since then.
    blamed: bool,
}

/// What the laws remember.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    pub(crate) broken: Vec<Broken>,
    /// The daemon's attention began anew: a start, a wake-up, a configuration.
    pub(crate) alert_from: Moment,
    /// Until then the daemon may not know of a change of the kernel.
    disturbed_until: Moment,
    truths: BTreeMap<(u8, Family), Truth>,
    pub(crate) states: BTreeMap<(String, Family), State>,
    /// When each WAN came back, over the last hour.
    returns: BTreeMap<(String, Family), VecDeque<Moment>>,
    /// The ways out before the first step of a batch, and the fewest since.
    pub(crate) batch: Option<(PerFamily<u32>, PerFamily<u32>)>,
    pub(crate) failed_in_batch: bool,
    last_step: String,
    /// How often the clients of each WAN that is not lost were called since a table was loaded.
    called: BTreeMap<(WanId, Family), u32>,
    serving: PerFamily<BTreeMap<WanId, u32>>,
    /// How many probes of each kind were sent, in all.
    pub(crate) sent: BTreeMap<(WanId, Family, Kind), u64>,
    this_hour: (u64, BTreeMap<(WanId, Family), u64>),
    /// How long it took to leave a dead WAN.
    pub(crate) leavings: Vec<Duration>,
    /// Changes of the choice, in all.
    pub(crate) switches: u64,
}

impl Watch {
    /// The kernel has changed; how soon may the daemon know?
    pub(crate) fn disturb(&mut self, now: Moment, mood: Mood) {
        let soon = Duration::from_millis(100);
        let span = if mood.mute { REREAD + soon } else { mood.late + soon };
        self.disturbed_until = self.disturbed_until.max(now + span);
    }

    /// A new life: what a daemon does not keep.
    pub(crate) fn born(&mut self, now: Moment) {
        self.alert_from = now;
        // What was cut off is not gone on with: the lines may have changed since.
        (self.batch, self.failed_in_batch) = (None, false);
        self.states.clear();
        self.returns.clear();
    }

    pub(crate) fn configured(&mut self, now: Moment, config: &Config) {
        self.alert_from = now;
        let there = |name: &str| config.wans.iter().any(|w| w.name == name);
        self.states.retain(|(name, _), _| there(name));
    }

    pub(crate) fn sent(&mut self, wan: WanId, family: Family, kind: Kind, now: Moment) {
        *self.sent.entry((wan, family, kind)).or_default() += 1;
        let hour = now.since_start().as_secs() / HOUR.as_secs();
        if self.this_hour.0 != hour {
            self.this_hour = (hour, BTreeMap::new());
        }
        *self.this_hour.1.entry((wan, family)).or_default() += 1;
    }
}

/// The longest that silence can go on before a verdict: a heartbeat, its deadline, a burst.
pub(crate) fn verdict(health: &Health) -> Duration {
    let deadline = health.timeout.unwrap_or(DEADLINE_MAX);
    health.interval + deadline * 2 + BURST + IN_FLIGHT
}

/// The longest hold time.
pub(crate) fn hold_max(health: &Health) -> Duration {
    health.hold * 2_u32.pow(FLAPS_MAX)
}

/// How often a WAN can come back in an hour. It comes back after a hold time. Whoever falls again
/// within ten hold times has it doubled, so the quickest that goes on for ever is to stay up just
/// long enough to be forgiven; before that come a few shorter ones.
fn returns_max(health: &Health) -> usize {
    let cycle = health.hold * (CALM_HOLDS + 1);
    let cycles = HOUR.as_secs_f64() / cycle.as_secs_f64().max(1.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small number")]
    let cycles = cycles.ceil() as usize;
    cycles + usize::try_from(FLAPS_MAX).expect("five") + 1
}

impl World {
    pub(crate) fn broken(&mut self, law: Law, what: String) {
        // One of each law says it all.
        if self.watch.broken.iter().any(|b| b.law == law) {
            return;
        }
        self.note(format!("BROKEN {law:?}: {what}"));
        let trail = self.trail.iter().cloned().collect();
        self.watch.broken.push(Broken { law, at: self.now, what, trail });
    }

    fn wan(&self, line: &Line) -> Option<&Wan> {
        let name = line.name();
        self.config.wans.iter().find(|w| w.name == name)
    }

    pub(crate) fn id(&self, line: &Line) -> Option<WanId> {
        self.wan(line).and_then(|wan| self.numbers.get(&wan.name).copied())
    }

    /// Looks at the lines anew, after anything about them has changed.
    pub(crate) fn look_at_lines(&mut self) {
        for line in &self.lines {
            for family in Family::BOTH {
                let condition = match self.kinds(line.number, family) {
                    Some(kinds) => line.condition(family, &self.faults, &kinds),
                    None => Condition::Murky,
                };
                let fresh = Truth { condition, since: self.now, blamed: false };
                let truth = self.watch.truths.entry((line.number, family)).or_insert(fresh);
                if truth.condition != condition {
                    *truth = fresh;
                }
            }
        }
    }

    pub(crate) fn mood_changes(&mut self, mood: Mood) {
        // What was not told, or failed, in the old mood is made up for after this.
        let old = self.mood;
        self.watch.disturb(self.now, old);
        if old.failing > 0.0 {
            let until = self.now + STEP_PAUSE_MAX + REREAD;
            self.watch.disturbed_until = self.watch.disturbed_until.max(until);
        }
        self.mood = mood;
    }

    /// Since when a line has been in a condition of which the daemon could know.
    fn known_since(&self, line: &Line, family: Family, condition: Condition) -> Option<Moment> {
        let truth = self.watch.truths.get(&(line.number, family))?;
        let since = truth.since.max(self.watch.disturbed_until);
        let steady = self.mood.failing <= 0.0 && since <= self.now;
        (truth.condition == condition && steady).then_some(since)
    }

    /// Whether another line has been healthy for so long that the daemon must know.
    fn another_works(&self, line: &Line, family: Family) -> bool {
        self.lines.iter().filter(|other| other.number != line.number).any(|other| {
            let Some(wan) = self.wan(other) else { return false };
            let bound = (verdict(&wan.health) + STANDBY) * 2;
            self.known_since(other, family, Condition::Healthy)
                .is_some_and(|since| self.now >= since.max(self.watch.alert_from) + bound)
        })
    }

    /// At the end of every turn.
    pub(crate) fn check_turn(&mut self) {
        for family in Family::BOTH {
            for place in 0..self.lines.len() {
                self.check_dead(&self.lines[place].clone(), family);
            }
        }
    }

    fn check_dead(&mut self, line: &Line, family: Family) {
        let key = (line.number, family);
        let Some(truth) = self.watch.truths.get(&key).copied() else { return };
        if truth.condition != Condition::Dead || truth.blamed {
            return;
        }
        let (Some(wan), Some(id)) = (self.wan(line), self.id(line)) else { return };
        let bound = verdict(&wan.health);
        let serves = self.watch.serving.get(family).contains_key(&id);
        let since = truth.since;
        if !serves {
            let taken = self.now.since(since.max(self.watch.alert_from));
            let truth = self.watch.truths.get_mut(&key).expect("it was there");
            truth.blamed = true;
            self.watch.leavings.push(taken);
            return;
        }
        let known = self.known_since(line, family, Condition::Dead);
        let late = known.is_some_and(|k| self.now > k.max(self.watch.alert_from) + bound);
        if late && self.another_works(line, family) {
            self.watch.truths.get_mut(&key).expect("it was there").blamed = true;
            let what = format!("{} is dead over {family} since {since:?} and serves", line.name());
            self.broken(Law::LeaveTheDead, what);
        }
    }

    pub(crate) fn check_happening(&mut self, happening: &Happening) {
        if happening.kind == "choice" {
            self.watch.switches += 1;
        }
        let Some(family) = happening.family.filter(|_| happening.kind == "state") else { return };
        let state = [
            State::Unknown,
            State::Up,
            State::Suspect,
            State::Impaired,
            State::Portal,
            State::Down,
            State::Recovering,
        ]
        .into_iter()
        .find(|state| state.to_string() == happening.new)
        .unwrap_or(State::Unknown);
        let key = (happening.wan.clone(), family);
        let old = self.watch.states.insert(key.clone(), state);
        if state == State::Up
            && matches!(old, Some(State::Recovering | State::Impaired | State::Portal))
        {
            self.check_return(key);
        }
        if state == State::Impaired && old == Some(State::Recovering) {
            // It had not come back yet: what ailed it is still in its statistics.
            return;
        }
        let line = self.lines.iter().find(|l| l.name() == happening.wan).cloned();
        let Some(line) = line.filter(|_| is_bad(&happening.new)) else { return };
        let Some(bound) = self.wan(&line).map(|wan| verdict(&wan.health)) else { return };
        let healthy = self.known_since(&line, family, Condition::Healthy);
        // An address that comes from us is put back once we are awake.
        let awake = if line.fixed { self.watch.alert_from } else { Moment::default() };
        if healthy.is_some_and(|since| self.now > since.max(awake) + bound) {
            let Happening { wan, new, reason, .. } = happening;
            let what = format!("{wan} is healthy over {family}, but is called {new}: {reason}");
            self.broken(Law::KeepTheHealthy, what);
        }
    }

    fn check_return(&mut self, (name, family): (String, Family)) {
        let Some(wan) = self.config.wans.iter().find(|w| w.name == name) else { return };
        let most = returns_max(&wan.health);
        let now = self.now;
        let returns = self.watch.returns.entry((name.clone(), family)).or_default();
        returns.push_back(now);
        while returns.front().is_some_and(|at| now.since(*at) > HOUR) {
            returns.pop_front();
        }
        let count = returns.len();
        if count > most {
            let what = format!("{name} came back {count} times in an hour, {most} is the most");
            self.broken(Law::FewReturns, what);
        }
    }

    pub(crate) fn check_asks(&mut self, count: usize) {
        if count > UNDER_WAY_MAX {
            self.broken(Law::Bounded, format!("{count} questions at once"));
        }
        let Some((id, family, sent, most)) = self.too_many_probes() else { return };
        let what =
            format!("WAN {} sent {sent} probes over {family} in an hour, {most} is the most", id.0);
        self.broken(Law::Bounded, what);
    }

    /// Were every heartbeat missed and every burst in vain, and the line sampled all the while:
    /// each kind twice and a burst in each cycle, and all targets in each second.
    fn too_many_probes(&self) -> Option<(WanId, Family, u64, u64)> {
        self.watch.this_hour.1.iter().find_map(|((id, family), sent)| {
            let wan = self.config.wans.iter().find(|w| self.numbers.get(&w.name) == Some(id))?;
            let of_family = || wan.health.targets.iter().filter(|t| t.serves(*family));
            let kinds: BTreeSet<_> = of_family().map(Target::kind).collect();
            let kinds = f64::from(u32::try_from(kinds.len()).ok()?);
            let targets = f64::from(u32::try_from(of_family().count()).ok()?);
            let hour = HOUR.as_secs_f64();
            let cycles = hour / wan.health.interval.as_secs_f64() + 60.0;
            let samples = (hour + SAMPLES_SAVED) * targets;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small")]
            let most = (cycles * (2.0 * kinds + BURST_ROUNDS * targets) + samples) as u64;
            (*sent > most).then_some((*id, *family, *sent, most))
        })
    }

    /// How many of 1,000 new flows find a way that works.
    pub(crate) fn ways_out(&self) -> PerFamily<u32> {
        PerFamily::from_fn(|family| {
            let field = self.config.router.mark_field;
            if self.kernel.is.nft.structure == Structure::Absent {
                return self.way_out(family, anywan_core::names::Mark(0));
            }
            let slots = self.slots(family);
            let sum: u32 =
                slots.iter().map(|(id, n)| n * self.way_out(family, field.place(*id))).sum();
            sum / anywan_core::desired::SLOTS
        })
    }

    fn way_out(&self, family: Family, mark: anywan_core::names::Mark) -> u32 {
        let hops = self.kernel.route(family, mark);
        let works = |hop: &&&anywan_core::observed::Hop| {
            self.lines.iter().any(|line| {
                line.index == hop.device
                    && hop.via == Some(line.gateway(family))
                    && (line.passes(family, &self.faults) || self.dies_unnoticed(line, family))
            })
        };
        let count = u32::try_from(hops.iter().filter(works).count()).unwrap_or(0);
        count * 1000 / u32::try_from(hops.len()).unwrap_or(1).max(1)
    }

    /// Nothing comes through, in silence, and it is trusted yet: no order of steps can mind that.
    fn dies_unnoticed(&self, line: &Line, family: Family) -> bool {
        let silent = |ail: &Ail| matches!(ail, Ail::Silent(_));
        let others: Vec<Fault> =
            self.faults.iter().filter(|fault| !silent(&fault.ail)).cloned().collect();
        let state = self.watch.states.get(&(line.name(), family));
        line.passes(family, &others) && matches!(state, Some(State::Up | State::Suspect))
    }

    pub(crate) fn check_before_step(&mut self) {
        if self.watch.batch.is_none() {
            let ways = self.ways_out();
            self.watch.batch = Some((ways, ways));
        }
    }

    pub(crate) fn check_step(&mut self, step: &Step) {
        if let Step::ReplaceTable { .. } = step {
            self.watch.called.clear();
        }
        self.watch.serving = PerFamily::from_fn(|family| self.slots(family));
        let ways = self.ways_out();
        let Some((_, fewest)) = &mut self.watch.batch else { return };
        for family in Family::BOTH {
            if *ways.get(family) < *fewest.get(family) {
                *fewest.get_mut(family) = *ways.get(family);
                self.watch.last_step = step.to_string();
            }
        }
    }

    /// After the last step that was to be done in one go.
    pub(crate) fn check_batch(&mut self) {
        let failed = std::mem::take(&mut self.watch.failed_in_batch);
        let Some((before, fewest)) = self.watch.batch.take() else { return };
        let after = self.ways_out();
        for family in Family::BOTH {
            let (before, after) = (*before.get(family), *after.get(family));
            let fewest = *fewest.get(family);
            if fewest < before.min(after) && !failed {
                let step = self.watch.last_step.clone();
                let what = format!(
                    "of 1,000 new {family} flows {before} had a way before, {after} after, but \
                     {fewest} in between, after: {step}"
                );
                self.broken(Law::AlwaysAWayOut, what);
            }
        }
    }

    /// Clients of a lost WAN are woken to be told. Those of others are called twice when a table is
    /// back, and go on.
    pub(crate) fn check_wake(&mut self, wan: WanId, family: Family) {
        let lost = self.kernel.is_lost(family, wan, self.config.router.mark_field);
        let called = self.watch.called.entry((wan, family)).or_default();
        *called += u32::from(!lost);
        if lost || *called > 2 {
            self.check_evacuation(wan, family);
        }
    }

    pub(crate) fn check_evacuation(&mut self, wan: WanId, family: Family) {
        let others = self.slots(family).keys().filter(|id| **id != wan).count();
        let lost = self.kernel.is_lost(family, wan, self.config.router.mark_field);
        if others == 0 || !lost {
            let what = format!(
                "flows of WAN {} over {family} are evacuated; lost: {lost}, others that serve: \
                 {others}",
                wan.0
            );
            self.broken(Law::EvacuateTheLost, what);
        }
    }
}

/// States in which a WAN gets no new connections while another works.
fn is_bad(state: &str) -> bool {
    matches!(state, "down" | "impaired" | "portal")
}
