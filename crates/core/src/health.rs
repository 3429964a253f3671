//! The health of one family of one WAN, as a state machine without I/O: facts and answers go in,
//! a state with its reason and the probes to send come out. Time is an argument.
//!
//! ```text
//!            first answer                    a heartbeat goes unanswered
//!  Unknown ───────────────► Up ◄──────────────────────────────► Suspect
//!     │                     ▲          any answer                  │
//!     │ none in a burst     │ answers for the hold time            │ none in a burst
//!     ▼                     │                                      ▼
//!    Down ───────────► Recovering ─────────────────────────────► Down
//!          an answer                   none in a burst
//! ```
//! A fact against the WAN (no carrier, no address, ...) means Down from every state, at once.
//! A heartbeat asks one target, in rotation; a burst asks all targets, a few rounds in a row, so
//! one deaf target never counts as a dead WAN.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::State;
use crate::config::Health;
use crate::facts::Obstacle;
use crate::time::Moment;

/// Rounds in a burst: three lost answers in a row from every target at 30 % loss and three
/// targets are a matter of 1 in 50,000.
const BURST_ROUNDS: u32 = 3;
/// Between rounds: long enough for a queue to move, short enough to be done in 200 ms.
const BURST_GAP: Duration = Duration::from_millis(100);
/// A deadline is never shorter: scheduling on a busy Pi delays by tens of milliseconds.
const DEADLINE_MIN: Duration = Duration::from_millis(250);
/// Nor longer, so that a line with a huge deviation is still judged.
const DEADLINE_MAX: Duration = Duration::from_secs(3);
/// Before anything was measured: RFC 6298 (2.1).
const DEADLINE_FIRST: Duration = Duration::from_secs(1);
/// How long after its deadline an answer is still listened for: it clears a suspicion.
const LATE: Duration = Duration::from_secs(2);
/// The hold time doubles at most this often.
const FLAPS_MAX: u32 = 5;
/// A WAN that was up for this many hold times has lived its flaps down.
const CALM_HOLDS: u32 = 10;
/// The heartbeat of a metered WAN that serves nothing, up or down.
const STANDBY_METERED: Duration = Duration::from_secs(30);

/// A probe that should be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// Which of the side's targets.
    pub target: usize,
    /// Its number.
    pub sequence: u64,
    /// How long to listen for the answer.
    pub listen: Duration,
}

/// The health of one family of one WAN.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Side {
    state: State,
    since: Moment,
    reason: String,
    obstacle: Option<Obstacle>,
    /// Was up at least once: from then on a return takes the hold time.
    been_up: bool,
    /// Was there when the daemon started: given the benefit of the doubt while Unknown.
    trusted: bool,
    flaps: u32,
    /// Since when it is up (through suspicions), and whether it had been down before that.
    up_since: Moment,
    came_back: bool,
    burst: Option<Burst>,
    next_heartbeat: Moment,
    next_target: usize,
    next_sequence: u64,
    waiting: BTreeMap<u64, Waiting>,
    rtt: Rtt,
    /// The last probes' fates, newest in bit 0, set when lost; and how many there are.
    losses: (u128, u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Waiting {
    deadline: Moment,
    missed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Burst {
    rounds_left: u32,
    next_round: Moment,
    /// When the last probe's time is over.
    verdict: Moment,
}

/// RFC 6298's estimator.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
struct Rtt {
    smoothed: Option<Duration>,
    deviation: Duration,
}

impl Rtt {
    fn measure(&mut self, sample: Duration) {
        match self.smoothed {
            None => {
                self.smoothed = Some(sample);
                self.deviation = sample / 2;
            }
            Some(smoothed) => {
                self.deviation = (self.deviation * 3 + smoothed.abs_diff(sample)) / 4;
                self.smoothed = Some((smoothed * 7 + sample) / 8);
            }
        }
    }

    fn deadline(&self) -> Duration {
        match self.smoothed {
            None => DEADLINE_FIRST,
            Some(smoothed) => (smoothed + self.deviation * 4).clamp(DEADLINE_MIN, DEADLINE_MAX),
        }
    }
}

impl Side {
    /// A side of which nothing is known yet. `trusted`: it may serve until proven dead, because
    /// nothing says that it did not work before the daemon started.
    pub fn new(trusted: bool, now: Moment) -> Side {
        Side {
            state: State::Unknown,
            since: now,
            reason: "not probed yet".to_owned(),
            obstacle: None,
            been_up: false,
            trusted,
            flaps: 0,
            up_since: now,
            came_back: false,
            burst: None,
            next_heartbeat: now,
            next_target: 0,
            next_sequence: 1,
            waiting: BTreeMap::new(),
            rtt: Rtt::default(),
            losses: (0, 0),
        }
    }

    /// A side that the kernel's own state says was lost when an earlier daemon left.
    pub fn known_lost(now: Moment) -> Side {
        let mut side = Side::new(false, now);
        side.been_up = true;
        side.enter(State::Down, "was down when the daemon started".to_owned(), now);
        side
    }

    /// What we conclude.
    pub fn state(&self) -> State {
        self.state
    }

    /// Since when.
    pub fn since(&self) -> Moment {
        self.since
    }

    /// Why.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Whether it may serve although it was not judged yet.
    pub fn trusted(&self) -> bool {
        self.trusted && self.state == State::Unknown
    }

    /// Whether it has worked since the daemon started, or an earlier daemon had known it.
    pub fn has_been_up(&self) -> bool {
        self.been_up
    }

    /// The smoothed round trip.
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt.smoothed
    }

    /// The smoothed deviation of round trips.
    pub fn jitter(&self) -> Option<Duration> {
        self.rtt.smoothed.map(|_| self.rtt.deviation)
    }

    /// Probes lost of the last hundred or so, 0 to 100.
    pub fn loss_percent(&self) -> Option<f64> {
        let (bits, count) = self.losses;
        (count > 0).then(|| f64::from(bits.count_ones()) * 100.0 / f64::from(count))
    }

    /// Takes in what the facts say.
    pub fn learn(&mut self, obstacle: Option<Obstacle>, settings: &Health, now: Moment) {
        if self.obstacle == obstacle {
            return;
        }
        self.obstacle = obstacle;
        self.waiting.clear();
        self.burst = None;
        match obstacle {
            // A family that a WAN never had is no failure.
            Some(absent) if absent.is_absence() && (!self.been_up || absent == Obstacle::Off) => {
                self.enter(State::Unknown, absent.to_string(), now);
            }
            Some(obstacle) => self.fall(obstacle.to_string(), settings, now),
            None => {
                self.rtt = Rtt::default();
                self.losses = (0, 0);
                self.next_heartbeat = now;
                self.trusted = false;
                if matches!(self.state, State::Unknown | State::Down) && !self.been_up {
                    self.enter(State::Unknown, "not probed yet".to_owned(), now);
                }
            }
        }
    }

    /// The way out has changed: asks at once instead of at the next heartbeat.
    pub fn recheck(&mut self, now: Moment) {
        self.next_heartbeat = now;
    }

    /// Takes in the fate of a probe; unknown or old numbers only count as signs of life.
    pub fn answer(
        &mut self,
        sequence: u64,
        outcome: &Result<Duration, String>,
        settings: &Health,
        now: Moment,
    ) {
        if self.obstacle.is_some() {
            return;
        }
        let Some(waiting) = self.waiting.remove(&sequence) else { return };
        match outcome {
            Ok(round_trip) => {
                if !waiting.missed {
                    self.count(false);
                }
                self.rtt.measure(*round_trip);
                self.alive(settings, now);
            }
            Err(_) if waiting.missed => {}
            Err(_) => self.miss(settings, now),
        }
    }

    /// Does what is due: judges probes whose time is over, ends bursts, and returns the probes to
    /// send. `targets` is how many targets this side has; `standby` says that it serves nothing
    /// and that its data costs money.
    pub fn wake(
        &mut self,
        targets: usize,
        standby: bool,
        settings: &Health,
        now: Moment,
    ) -> Vec<Order> {
        if self.obstacle.is_some() {
            return Vec::new();
        }
        if targets == 0 {
            self.believe_facts(settings, now);
            return Vec::new();
        }
        self.expire(settings, now);
        let mut orders = Vec::new();
        if self.hurries(standby, settings, now) {
            self.next_heartbeat = now;
        }
        if let Some(burst) = self.burst {
            self.go_on_with_burst(burst, targets, settings, now, &mut orders);
        } else if now >= self.next_heartbeat {
            if self.state == State::Unknown {
                self.start_burst(settings, now);
                return self.wake(targets, standby, settings, now);
            }
            let target = self.next_target % targets;
            self.next_target = (target + 1) % targets;
            self.send(target, settings, now, &mut orders);
            self.next_heartbeat = now + self.cadence(standby, settings);
        }
        orders
    }

    /// Whether it was left alone on standby and serves now: then it is asked at once.
    pub fn hurries(&self, standby: bool, settings: &Health, now: Moment) -> bool {
        self.next_heartbeat > now + self.cadence(standby, settings)
    }

    /// When [`Side::wake`] has something to do next.
    pub fn deadline(&self, targets: usize, settings: &Health) -> Option<Moment> {
        if self.obstacle.is_some() {
            return None;
        }
        if targets == 0 {
            return (self.state == State::Recovering).then(|| self.since + self.hold(settings));
        }
        let judged = self.waiting.values().filter(|w| !w.missed).map(|w| w.deadline).min();
        let forgotten = self.waiting.values().map(|w| w.deadline + LATE).min();
        let burst = self.burst.map(|b| if b.rounds_left > 0 { b.next_round } else { b.verdict });
        let heartbeat = self.burst.is_none().then_some(self.next_heartbeat);
        [judged, forgotten, burst, heartbeat].into_iter().flatten().min()
    }

    fn cadence(&self, standby: bool, settings: &Health) -> Duration {
        // A WAN on its way back is watched closely even when it is metered.
        if standby && matches!(self.state, State::Up | State::Down) {
            settings.interval.max(STANDBY_METERED)
        } else {
            settings.interval
        }
    }

    fn hold(&self, settings: &Health) -> Duration {
        settings.hold * 2_u32.pow(self.flaps.min(FLAPS_MAX))
    }

    fn believe_facts(&mut self, settings: &Health, now: Moment) {
        let reason = || "no probe targets of this family; judged by its link alone".to_owned();
        match self.state {
            State::Unknown => self.enter(State::Up, reason(), now),
            State::Down if !self.been_up => self.enter(State::Up, reason(), now),
            State::Down => self.enter(State::Recovering, reason(), now),
            State::Recovering if now >= self.since + self.hold(settings) => {
                self.enter(State::Up, reason(), now);
            }
            State::Recovering | State::Up | State::Suspect => {}
        }
    }

    fn deadline_span(&self, settings: &Health) -> Duration {
        settings.timeout.unwrap_or_else(|| self.rtt.deadline())
    }

    fn send(&mut self, target: usize, settings: &Health, now: Moment, orders: &mut Vec<Order>) {
        let span = self.deadline_span(settings);
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.waiting.insert(sequence, Waiting { deadline: now + span, missed: false });
        orders.push(Order { target, sequence, listen: span + LATE });
    }

    /// Marks probes whose deadline has passed as missed, and forgets those beyond hope.
    fn expire(&mut self, settings: &Health, now: Moment) {
        let mut misses = 0_u32;
        for waiting in self.waiting.values_mut() {
            if !waiting.missed && now >= waiting.deadline {
                waiting.missed = true;
                misses += 1;
            }
        }
        self.waiting.retain(|_, w| now < w.deadline + LATE);
        for _ in 0..misses {
            self.miss(settings, now);
        }
    }

    fn count(&mut self, lost: bool) {
        let (bits, count) = self.losses;
        self.losses = ((bits << 1 | u128::from(lost)) & ((1 << 100) - 1), (count + 1).min(100));
    }

    fn miss(&mut self, settings: &Health, now: Moment) {
        self.count(true);
        if self.burst.is_some() {
            return;
        }
        match self.state {
            State::Up => {
                self.enter(State::Suspect, "a probe went unanswered".to_owned(), now);
                self.start_burst(settings, now);
            }
            State::Recovering => self.start_burst(settings, now),
            State::Unknown | State::Suspect | State::Down => {}
        }
    }

    fn start_burst(&mut self, settings: &Health, now: Moment) {
        self.burst = Some(Burst {
            rounds_left: BURST_ROUNDS,
            next_round: now,
            verdict: now + self.deadline_span(settings),
        });
    }

    fn go_on_with_burst(
        &mut self,
        mut burst: Burst,
        targets: usize,
        settings: &Health,
        now: Moment,
        orders: &mut Vec<Order>,
    ) {
        if burst.rounds_left > 0 && now >= burst.next_round {
            for target in 0..targets {
                self.send(target, settings, now, orders);
            }
            burst.rounds_left -= 1;
            burst.next_round = now + BURST_GAP;
            burst.verdict = now + self.deadline_span(settings);
        }
        self.burst = Some(burst);
        if burst.rounds_left == 0 && now >= burst.verdict {
            self.burst = None;
            let asked = u32::try_from(targets).unwrap_or(u32::MAX).saturating_mul(BURST_ROUNDS);
            self.fall(format!("{asked} probes in a row went unanswered"), settings, now);
        }
    }

    fn alive(&mut self, settings: &Health, now: Moment) {
        if self.burst.take().is_some() {
            self.next_heartbeat = now + settings.interval;
        }
        match self.state {
            State::Unknown => self.enter(State::Up, "probes are answered".to_owned(), now),
            State::Suspect => {
                self.enter(State::Up, "another probe was answered".to_owned(), now);
            }
            State::Down if !self.been_up => {
                self.enter(State::Up, "probes are answered".to_owned(), now);
            }
            State::Down => {
                self.enter(State::Recovering, "probes are answered again".to_owned(), now);
                self.end_hold(settings, now);
            }
            State::Recovering => self.end_hold(settings, now),
            State::Up => {}
        }
    }

    fn end_hold(&mut self, settings: &Health, now: Moment) {
        let hold = self.hold(settings);
        if now >= self.since + hold {
            self.enter(State::Up, format!("answered for {} s", hold.as_secs_f32()), now);
        }
    }

    fn fall(&mut self, reason: String, settings: &Health, now: Moment) {
        match self.state {
            State::Up | State::Suspect => {
                let calm = self.hold(settings) * CALM_HOLDS;
                self.flaps = if self.flap_span(now) < calm { self.flaps + 1 } else { 0 };
                self.flaps = self.flaps.min(FLAPS_MAX);
                self.enter(State::Down, reason, now);
            }
            State::Unknown | State::Recovering => self.enter(State::Down, reason, now),
            State::Down => self.reason = reason,
        }
        self.next_heartbeat = now + settings.interval;
    }

    /// How long the WAN had been up; the first time up is never a flap.
    fn flap_span(&self, now: Moment) -> Duration {
        if self.came_back { now.since(self.up_since) } else { Duration::MAX }
    }

    fn enter(&mut self, state: State, reason: String, now: Moment) {
        let was = self.state;
        if state == State::Up && was != State::Suspect {
            self.came_back = was == State::Recovering;
            self.up_since = now;
            self.been_up = true;
        }
        self.state = state;
        self.since = now;
        self.reason = reason;
    }
}

#[cfg(test)]
mod tests;
