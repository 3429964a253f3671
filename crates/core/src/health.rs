//! The health of one family of one WAN, as a state machine without I/O: facts, answers and traffic
//! counts go in, a state with its reason and the probes to send come out. Time is an argument.
//!
//! ```text
//!            first answer                   a heartbeat goes unanswered, or
//!                                           traffic goes out and none comes back
//!  Unknown ───────────────► Up ◄──────────────────────────────► Suspect
//!     │                    ▲ ▲          any answer                 │
//!     │        hold time   │ │ hold time without fault             │
//!     │                    │ ▼                                     │
//!     │                    │ Impaired, Portal                      │
//!     │ nothing in a burst │          │ nothing in a burst         │ nothing in a burst
//!     ▼                    │          ▼                            ▼
//!    Down ───────────► Recovering ──────────────────────────────► Down
//!          an answer                  nothing in a burst
//! ```
//! A fact against the WAN (no carrier, no address, ...) means Down from every state, at once.
//! A heartbeat asks one or two targets, in rotation; a burst asks all, a few rounds in a row, so one
//! deaf target never counts as a dead WAN. Impaired: it works, but loses too much, is too slow
//! or does not carry a service; Portal: somebody else answers in the place of the internet.

mod loss;
mod passive;
mod probing;
mod rtt;
mod samples;
mod targets;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::State;
use crate::config::{Health, Kind};
use crate::facts::Obstacle;
use crate::time::Moment;

use loss::Loss;
use passive::Passive;
use probing::{Burst, Proof, Waiting};
use rtt::Rtt;
use samples::Samples;
use targets::Targets;

/// The hold time doubles at most this often.
const FLAPS_MAX: u32 = 5;
/// A WAN that was up for this many hold times has lived its flaps down.
const CALM_HOLDS: u32 = 10;
/// WANs that were all down together rarely come back in the same moment.
const GRACE: Duration = Duration::from_secs(3);
/// A limit on latency or jitter must be exceeded for so long.
const SLOW_FOR: Duration = Duration::from_secs(5);

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

/// What became of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It was answered after so long.
    Answered(Duration),
    /// It was not, or refused on the way.
    Silent,
    /// Somebody else answered: what.
    Portal(String),
}

/// What a side is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Role<'a> {
    /// How each of its targets is asked, in file order.
    pub kinds: &'a [Kind],
    /// Its data costs money.
    pub metered: bool,
    /// It gets new connections.
    pub serving: bool,
    /// On standby, its budget allows no heartbeat before this.
    pub rest_until: Moment,
    /// How many sides are in doubt about their losses now: they share the samples.
    pub doubtful: u32,
    /// Most sides are suspect at once.
    pub all_suspect: bool,
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
    /// Since when it is up (through suspicions), and whether it had not been before that.
    up_since: Moment,
    came_back: bool,
    /// Since when an impaired side shows no fault.
    clear_since: Option<Moment>,
    /// Since when it is slower than its limits allow.
    slow_since: Option<Moment>,
    /// Probes go unanswered although traffic comes back.
    mute: bool,
    /// When it showed a sign of life last.
    heard: Option<Moment>,
    /// When the last probe was sent that went unanswered.
    asked_in_vain: Option<Moment>,
    /// Since when it has worked in any way, when it does.
    usable_since: Moment,
    /// An earlier daemon had told its flows to start anew.
    told: bool,
    targets: Targets,
    rtts: BTreeMap<Kind, Rtt>,
    loss: Loss,
    passive: Passive,
    burst: Option<Burst>,
    next_beat: Moment,
    /// How often there was to be a heartbeat when it was woken last.
    pace: Duration,
    next_sample: Moment,
    samples: Samples,
    /// Heartbeats left out in a row because traffic came back.
    skipped: u32,
    /// When it was asked by a heartbeat last; forgotten when a fact says that it may be back.
    beaten: Option<Moment>,
    proof: Proof,
    next_sequence: u64,
    waiting: BTreeMap<u64, Waiting>,
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
            clear_since: None,
            slow_since: None,
            mute: false,
            heard: None,
            asked_in_vain: None,
            usable_since: now,
            told: false,
            targets: Targets::default(),
            rtts: BTreeMap::new(),
            loss: Loss::default(),
            passive: Passive::default(),
            burst: None,
            next_beat: now,
            pace: Duration::ZERO,
            next_sample: now,
            samples: Samples::full(now),
            skipped: 0,
            beaten: None,
            proof: Proof::default(),
            next_sequence: 1,
            waiting: BTreeMap::new(),
        }
    }

    /// A side that the kernel's own state says was lost when an earlier daemon left.
    pub fn known_lost(now: Moment) -> Side {
        let mut side = Side::new(false, now);
        (side.been_up, side.told) = (true, true);
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

    /// Whether it has shown a sign of life at or after `moment`; one that nobody can ask is believed.
    fn heard_since(&self, moment: Moment) -> bool {
        let unasked = self.targets.count() == 0 && self.been_up;
        unasked || self.heard.is_some_and(|heard| heard >= moment)
    }

    /// Whether `other` has shown that it works although this one does not: it has been heard since
    /// this one went down, and since it works this one was asked in vain, or cannot be asked. When
    /// both come back from an outage of everything, neither is to lose its flows: then the second
    /// gets a few seconds of grace.
    pub fn is_outlived_by(&self, other: &Side) -> bool {
        let grace = if other.usable_since > self.since { GRACE } else { Duration::ZERO };
        let asked = self.asked_in_vain.is_some_and(|asked| asked >= other.usable_since + grace);
        let deaf = self.obstacle.is_some() || self.targets.count() == 0 || asked;
        deaf && other.heard_since(self.since)
    }

    /// Whether the kernel says that its flows were told to start anew, by an earlier daemon.
    pub fn told(&self) -> bool {
        self.told && self.state == State::Down
    }

    /// The smoothed round trip of the plainest kind of probe that is answered.
    pub fn rtt(&self) -> Option<Duration> {
        self.rtts.values().find_map(Rtt::smoothed)
    }

    /// The smoothed deviation of the same round trips.
    pub fn jitter(&self) -> Option<Duration> {
        self.rtts.values().find_map(Rtt::deviation)
    }

    /// Probes lost of the last hundred or so, 0 to 100; targets that never answer do not count.
    pub fn loss_percent(&self) -> Option<f64> {
        self.loss.percent()
    }

    /// Whether it would help to know soon whether traffic comes back.
    pub fn wants_traffic(&self) -> bool {
        self.burst.is_some() && self.obstacle.is_none()
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
                // One that was given up is as good as one that never was.
                self.been_up = false;
                self.enter(State::Unknown, absent.to_string(), now);
            }
            Some(obstacle) => self.fall(obstacle.to_string(), settings, now),
            None => {
                self.rtts.clear();
                self.loss = Loss::default();
                self.targets = Targets::default();
                self.passive = Passive::default();
                self.may_be_back(now);
                self.trusted = false;
                if matches!(self.state, State::Unknown | State::Down) && !self.been_up {
                    self.enter(State::Unknown, "not probed yet".to_owned(), now);
                }
            }
        }
    }

    /// The way out has changed: what was lost by the old one says nothing.
    pub fn moved(&mut self, now: Moment) {
        self.forget_losses();
        self.recheck(now);
    }

    /// Asks at once instead of at the next heartbeat.
    pub fn recheck(&mut self, now: Moment) {
        self.next_beat = now;
    }

    /// What kept it from working is over: it is asked at once, whatever that costs.
    pub fn may_be_back(&mut self, now: Moment) {
        (self.next_beat, self.beaten) = (now, None);
    }

    /// New connections are about to be placed here: proves at once that it works, beside that.
    pub fn prove(&mut self, settings: &Health, now: Moment) {
        if matches!(self.state, State::Up | State::Impaired | State::Portal | State::Recovering) {
            self.start_burst(settings, now);
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
            // What was found out by targets that are no longer configured.
            State::Suspect | State::Impaired | State::Portal => {
                self.enter(State::Up, reason(), now);
            }
            State::Recovering | State::Up => {}
        }
    }

    /// The line carries packets.
    fn alive(&mut self, settings: &Health, now: Moment) {
        match self.state {
            State::Unknown => self.enter(State::Up, "probes are answered".to_owned(), now),
            State::Suspect => {
                self.passive.refuted(now);
                self.enter(State::Up, "another probe was answered".to_owned(), now);
            }
            State::Down if !self.been_up => {
                self.forget_losses();
                self.enter(State::Up, "probes are answered".to_owned(), now);
            }
            State::Down => {
                self.forget_losses();
                self.enter(State::Recovering, "probes are answered again".to_owned(), now);
                self.end_hold(settings, now);
            }
            State::Recovering => self.end_hold(settings, now),
            State::Up | State::Impaired | State::Portal => {}
        }
    }

    /// What was lost while it was down says nothing about what it is now.
    fn forget_losses(&mut self) {
        self.waiting.clear();
        self.loss = Loss::default();
    }

    fn end_hold(&mut self, settings: &Health, now: Moment) {
        let hold = self.hold(settings);
        if now < self.since + hold {
            return;
        }
        match self.fault(settings, now) {
            Some((state, reason)) => self.enter(state, reason, now),
            None => self.enter(State::Up, format!("answered for {} s", hold.as_secs_f32()), now),
        }
    }

    fn fall(&mut self, reason: String, settings: &Health, now: Moment) {
        match self.state {
            State::Up | State::Suspect => {
                self.count_flap(settings, now);
                self.enter(State::Down, reason, now);
            }
            State::Unknown | State::Recovering | State::Impaired | State::Portal => {
                self.enter(State::Down, reason, now);
            }
            State::Down => self.reason = reason,
        }
        self.mute = false;
        self.next_beat = now + settings.interval / 2;
    }

    fn count_flap(&mut self, settings: &Health, now: Moment) {
        let calm = self.hold(settings) * CALM_HOLDS;
        // The first time up is never a flap.
        let flap = self.came_back && now.since(self.up_since) < calm;
        self.flaps = if flap { (self.flaps + 1).min(FLAPS_MAX) } else { 0 };
    }

    /// What speaks against an answering side.
    fn fault(&self, settings: &Health, now: Moment) -> Option<(State, String)> {
        if let Some(what) = self.targets.portal() {
            return Some((State::Portal, format!("a captive portal answers: {what}")));
        }
        let why = if self.mute {
            "probes go unanswered although traffic comes back".to_owned()
        } else if let Some(limit) = settings.max_loss_percent.filter(|_| self.loss.alarming()) {
            let percent = self.loss.worst_percent();
            format!("loses {percent:.0} % of its latest probes; the limit is {limit} %")
        } else if let Some((kind, count)) = self.targets.dead_service() {
            format!("none of {count} {kind} targets answers, others do")
        } else if self.slow_since.is_some_and(|since| now >= since + SLOW_FOR) {
            let rtt = self.rtt().unwrap_or_default().as_millis();
            let jitter = self.jitter().unwrap_or_default().as_millis();
            format!("round trips of {rtt} ms, jitter of {jitter} ms: more than its limits")
        } else {
            return None;
        };
        Some((State::Impaired, why))
    }

    /// Lets faults that come and go change the state of an answering side.
    fn judge(&mut self, settings: &Health, now: Moment) {
        let over = |limit: Option<Duration>, value: Option<Duration>| {
            limit.zip(value).is_some_and(|(limit, value)| value > limit)
        };
        let slow =
            over(settings.max_latency, self.rtt()) || over(settings.max_jitter, self.jitter());
        self.slow_since = slow.then(|| self.slow_since.unwrap_or(now));
        let fault = self.fault(settings, now);
        match (self.state, fault) {
            (State::Up | State::Suspect, Some((state, reason))) => {
                self.count_flap(settings, now);
                self.enter(state, reason, now);
            }
            (State::Impaired | State::Portal, Some((state, reason))) => {
                self.clear_since = None;
                if state != self.state {
                    self.enter(state, reason, now);
                }
            }
            (State::Impaired | State::Portal, None) => {
                let since = *self.clear_since.get_or_insert(now);
                if now >= since + self.hold(settings) {
                    self.enter(State::Up, "works without fault again".to_owned(), now);
                }
            }
            (
                State::Up | State::Suspect | State::Unknown | State::Down | State::Recovering,
                None | Some(_),
            ) => {}
        }
    }

    fn enter(&mut self, state: State, reason: String, now: Moment) {
        let was = self.state;
        if state == State::Up && was != State::Suspect {
            self.came_back = matches!(was, State::Recovering | State::Impaired | State::Portal);
            self.up_since = now;
        }
        if matches!(was, State::Unknown | State::Down) && !matches!(state, State::Down) {
            self.usable_since = now;
        }
        self.been_up |= matches!(state, State::Up | State::Impaired | State::Portal);
        (self.clear_since, self.proof) = (None, Proof::default());
        self.state = state;
        self.since = now;
        self.reason = reason;
    }
}

#[cfg(test)]
mod tests;
