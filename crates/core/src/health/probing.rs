//! Whom a side asks and when: heartbeats, bursts, and samples while losses are in doubt; and what
//! their silence means.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::loss::Bar;
use super::passive::RECENT;
use super::rtt::Rtt;
use super::{Fate, Order, Role, Side};
use crate::api::State;
use crate::config::{Health, Kind};
use crate::time::Moment;

/// While traffic has come back so lately over a side that serves, they come twice as often: what is
/// lost shows sooner.
const TRAFFIC_RECENT: Duration = Duration::from_secs(2);
/// Heartbeats on a calm side, and in how many intervals: silence is noticed within two thirds of one,
/// and each probe more would wake an idle machine.
const CALM: (u32, u32) = (3, 2);
/// Rounds in a burst: three lost answers in a row from every target at 30 % loss and three
/// targets are a matter of 1 in 50,000.
const BURST_ROUNDS: u32 = 3;
/// Rounds more before a service is called dead.
const BURST_MORE: u32 = 2;
/// Between rounds: long enough for a queue to move, short enough to be done in 100 ms.
const BURST_GAP: Duration = Duration::from_millis(50);
/// Bursts in a row that nobody answers while traffic still comes back: then the probes, or the
/// services that they ask for, are what is broken.
const BURSTS_MUTE: u32 = 3;
/// Being woken so much too late means that this machine, not the line, was slow: then silence proves
/// nothing. Everybody is asked once more, so often at most in one burst, and an answer that is
/// waited for gets so much more time, as often.
const TOO_LATE: Duration = Duration::from_millis(50);
const EXCUSES_MAX: u32 = 6;
/// And so often where most sides are suspect at once.
const EXCUSES_TOGETHER: u32 = 3;
/// How long after its deadline an answer is still listened for: it clears a suspicion.
const LATE: Duration = Duration::from_secs(2);
/// A probe unanswered for so long is lost and not late, whatever the deadline was when it was sent;
/// should its answer come all the same, that is taken back.
const LOST_AFTER: Duration = Duration::from_millis(700);
/// Linux sends a SYN again after so long (RFC 6298, 2.1).
const SYN_AGAIN: Duration = Duration::from_secs(1);
/// So many sides may sample at this pace. When more are in doubt, it is rarely their lines that are
/// to blame, and asking them all so often would make it worse.
const SAMPLERS: u32 = 6;
/// The heartbeat of a metered WAN that serves nothing, up or down: with both families, and a
/// question of each kind in turn, some 23 MB a month.
const STANDBY_METERED: Duration = Duration::from_secs(60);
/// However much is owed, and whatever stands in, a metered WAN is asked so often (some 5 MB a
/// month): else it could not come back.
const RESTED_MAX: Duration = Duration::from_secs(300);
/// A metered WAN on standby that is impaired proves itself in one go: so many answers in a row are
/// twice what that takes. 15 KB over IPv4.
const PROOF_MAX: u32 = 60;
/// If all of them prove nothing, it is tried again after so long. Where a silence comes between, the
/// next heartbeat that is answered begins anew.
const PROOF_AGAIN: Duration = Duration::from_secs(3600);
/// Heartbeats of a metered WAN that traffic may stand in for, in a row: new connections may fail
/// where old ones go on.
const SKIPPED_MAX: u32 = 10;

/// A probe on its way.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Waiting {
    target: usize,
    sent: Moment,
    deadline: Moment,
    lost_at: Moment,
    patience: Patience,
    /// We were late to look so often, and so it is not judged before this.
    excused: (u32, Moment),
}

/// How far a probe's time is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Patience {
    InTime,
    Late,
    Lost,
}

impl Waiting {
    /// When its patience ends, or it is forgotten.
    fn next(&self) -> Moment {
        let due = match self.patience {
            Patience::InTime => self.deadline,
            Patience::Late => self.lost_at,
            Patience::Lost => self.deadline + LATE,
        };
        due.max(self.excused.1)
    }

    /// Whether its time is up. If we are late to look, its answer may wait to be read: then not yet.
    fn is_over(&mut self, now: Moment) -> bool {
        let due = self.next();
        if now > due + TOO_LATE && self.excused.0 < EXCUSES_MAX {
            self.excused = (self.excused.0 + 1, now + TOO_LATE);
            return false;
        }
        now >= due
    }
}

/// Everybody is being asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Burst {
    pub(super) begun: Moment,
    rounds_left: u32,
    next_round: Moment,
    /// When the last probe's time is over.
    verdict: Moment,
    answered: BTreeSet<usize>,
    /// Rounds added because we were late ourselves.
    excuses: u32,
    /// Traffic has come back meanwhile.
    pub(super) traffic: bool,
    /// Bursts before this one that only traffic has answered.
    repeats: u32,
    /// It goes on because a service seems to be dead.
    thorough: bool,
}

/// Answers in a row by which an impaired WAN on standby proves that it is well again.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Proof {
    answers: u32,
    /// None is begun before this.
    not_before: Moment,
}

impl Proof {
    fn goes_on(self) -> bool {
        self.answers > 0
    }

    fn answered(&mut self, now: Moment) {
        if self.answers >= PROOF_MAX {
            *self = Proof { answers: 0, not_before: now + PROOF_AGAIN };
        } else if self.answers > 0 || now >= self.not_before {
            self.answers += 1;
        }
    }

    fn missed(&mut self) {
        self.answers = 0;
    }
}

impl Side {
    /// Takes in the fate of a probe; that of an unknown or old number is nobody's.
    pub fn answer(&mut self, sequence: u64, fate: &Fate, settings: &Health, now: Moment) {
        if self.obstacle.is_some() {
            return;
        }
        let Some(waiting) = self.waiting.remove(&sequence) else { return };
        let Waiting { target, sent, patience, .. } = waiting;
        let Some(kind) = self.targets.kind_of(target) else { return };
        let (bar, tells) = (self.bar(settings), !self.targets.is_deaf(target));
        match fate {
            Fate::Answered(round_trip) => {
                let second_try = self.answers_a_second_syn(kind, *round_trip);
                match patience {
                    Patience::InTime | Patience::Late if tells && second_try => {
                        self.loss.lost((target, kind), sent, bar);
                    }
                    Patience::InTime | Patience::Late if tells => {
                        self.loss.answered((target, kind), sent, bar);
                        self.prove_on(now);
                    }
                    Patience::Lost if !second_try => {
                        self.loss.was_late((target, kind), sent, bar);
                    }
                    Patience::InTime | Patience::Late | Patience::Lost => {}
                }
                if !second_try {
                    self.rtts.entry(kind).or_default().measure(*round_trip);
                }
                self.targets.hear(target);
                self.heard_from(target, settings, now);
            }
            Fate::Portal(what) => {
                self.targets.intercept(target, what);
                self.heard_from(target, settings, now);
            }
            Fate::Silent => {
                if tells && patience != Patience::Lost {
                    self.loss.lost((target, kind), sent, bar);
                }
                if patience == Patience::InTime {
                    self.asked_in_vain = self.asked_in_vain.max(Some(sent));
                    self.miss(target, settings, now);
                }
            }
        }
        self.judge(settings, now);
    }

    /// Whether an answer is so late that the first SYN must have been lost: on a line that usually
    /// answers soon. Its round trip tells nothing (Karn's algorithm, RFC 6298, 3).
    fn answers_a_second_syn(&self, kind: Kind, round_trip: Duration) -> bool {
        let usual = self.rtts.get(&kind).and_then(Rtt::smoothed);
        matches!(kind, Kind::Tcp | Kind::Http)
            && round_trip >= SYN_AGAIN
            && usual.is_some_and(|usual| usual < SYN_AGAIN / 3)
    }

    /// Does what is due: judges probes whose time is over, ends bursts, and returns the probes to
    /// send.
    pub fn wake(&mut self, role: &Role<'_>, settings: &Health, now: Moment) -> Vec<Order> {
        if self.obstacle.is_some() {
            return Vec::new();
        }
        self.targets.become_(role.kinds);
        if role.kinds.is_empty() {
            (self.burst, self.mute) = (None, false);
            self.waiting.clear();
            self.believe_facts(settings, now);
            return Vec::new();
        }
        self.expire(settings, now);
        if self.mute && !self.passive.comes_back(RECENT, now) {
            self.fall("probes go unanswered, and no traffic comes back".to_owned(), settings, now);
        }
        if self.hurries(role, settings, now) {
            self.next_beat = now;
        }
        self.pace = self.cadence(role, settings, now);
        let mut orders = Vec::new();
        if self.burst.is_none() && now >= self.next_beat(role) {
            self.beat(role, settings, now, &mut orders);
        }
        self.go_on_with_burst(role, settings, now, &mut orders);
        if self.samples(role, settings) && now >= self.next_sample {
            self.sample(role, settings, now, &mut orders);
        }
        self.judge(settings, now);
        orders
    }

    /// Whether it is to be asked more often than when it was woken last, because it serves now or
    /// traffic has begun: then it is asked at once if it would have had to wait.
    pub fn hurries(&self, role: &Role<'_>, settings: &Health, now: Moment) -> bool {
        let cadence = self.cadence(role, settings, now);
        cadence < self.pace && self.next_beat > now + cadence
    }

    /// When [`Side::wake`] has something to do next.
    pub fn deadline(&self, role: &Role<'_>, settings: &Health) -> Option<Moment> {
        if self.obstacle.is_some() {
            return None;
        }
        if role.kinds.is_empty() {
            return (self.state == State::Recovering).then(|| self.since + self.hold(settings));
        }
        let waiting = self.waiting.values().map(Waiting::next).min();
        let burst =
            self.burst.as_ref().map(|b| if b.rounds_left > 0 { b.next_round } else { b.verdict });
        let quiet = self.burst.is_none();
        let beat = quiet.then(|| self.next_beat(role));
        let sample = self.samples(role, settings).then_some(self.next_sample);
        let clear = self.clear_since.map(|since| since + self.hold(settings));
        let silent = self.mute.then(|| self.passive.back.unwrap_or(self.since) + RECENT);
        let slow = self.slow_since.map(|since| since + super::SLOW_FOR);
        let slow = slow.filter(|_| matches!(self.state, State::Up | State::Suspect));
        [waiting, burst, beat, sample, clear, silent, slow].into_iter().flatten().min()
    }

    fn rests(&self, role: &Role<'_>) -> bool {
        // A WAN on its way back is watched closely even when it is metered.
        let settled =
            matches!(self.state, State::Up | State::Down | State::Impaired | State::Portal);
        role.metered && !role.serving && settled && !self.proof.goes_on()
    }

    fn next_beat(&self, role: &Role<'_>) -> Moment {
        let long_ago = self.beaten.map_or(self.next_beat, |beaten| beaten + RESTED_MAX);
        let rest_until = role.rest_until.min(long_ago);
        if self.rests(role) { self.next_beat.max(rest_until) } else { self.next_beat }
    }

    /// Whether traffic has come back lately over a side that serves.
    fn is_busy(&self, role: &Role<'_>, now: Moment) -> bool {
        role.serving && self.passive.comes_back(TRAFFIC_RECENT, now)
    }

    /// Whether nothing depends on it right now, and nothing about it is in doubt.
    fn is_calm(&self, role: &Role<'_>, now: Moment) -> bool {
        matches!(self.state, State::Up | State::Down) && !self.is_busy(role, now)
    }

    /// How often there is a heartbeat. Each kind of target is asked once in an interval, twice while
    /// traffic comes back. On a calm side, and where data costs money, it is one target at a time,
    /// and kinds take turns.
    fn cadence(&self, role: &Role<'_>, settings: &Health, now: Moment) -> Duration {
        if self.rests(role) {
            return settings.interval.max(STANDBY_METERED);
        }
        if role.metered {
            return settings.interval;
        }
        let closely = settings.interval / self.targets.beats();
        if self.is_busy(role, now) {
            closely / 2
        } else if self.is_calm(role, now) {
            closely.max(settings.interval * CALM.1 / CALM.0)
        } else {
            closely
        }
    }

    /// When the next heartbeat is: all sides have theirs at the same moments, so that the machine
    /// wakes once for all.
    fn beat_after(&mut self, cadence: Duration, now: Moment) {
        self.next_beat = (now + cadence).floor(cadence);
    }

    fn beat(&mut self, role: &Role<'_>, settings: &Health, now: Moment, orders: &mut Vec<Order>) {
        if self.state == State::Unknown {
            self.start_burst(settings, now);
            return;
        }
        let cadence = self.cadence(role, settings, now);
        self.beat_after(cadence, now);
        let asked_lately = self.beaten.is_some_and(|beaten| now < beaten + RESTED_MAX);
        let stands_in = self.state == State::Up && self.passive.comes_back(cadence, now);
        if asked_lately && role.metered && stands_in && self.skipped < SKIPPED_MAX {
            self.skipped += 1;
            return;
        }
        (self.skipped, self.beaten) = (0, Some(now));
        let one = role.metered || self.is_calm(role, now);
        let asked = if one { 1 } else { self.targets.share() };
        for _ in 0..asked {
            if let Some(target) = self.targets.next() {
                self.send(target, settings, now, orders);
            }
        }
    }

    /// Whether losses matter and are in doubt: there were some, or an answer is late and may turn
    /// out to be one.
    pub fn doubts_losses(&self, settings: &Health) -> bool {
        let answers = matches!(self.state, State::Up | State::Recovering | State::Impaired);
        let matters = settings.max_loss_percent.is_some() && !self.targets.all_deaf();
        let late = |waiting: &Waiting| {
            waiting.patience == Patience::Late && !self.targets.is_deaf(waiting.target)
        };
        let doubt = || self.loss.doubtful() || self.waiting.values().any(late);
        matters && answers && !self.loss.alarming() && doubt()
    }

    /// Whether more probes would settle that; not before a burst has shown that it lives.
    fn samples(&self, role: &Role<'_>, settings: &Health) -> bool {
        let lives = self.burst.as_ref().is_none_or(|burst| !burst.answered.is_empty());
        lives && self.doubts_losses(settings) && !self.rests(role)
    }

    fn sample(&mut self, role: &Role<'_>, settings: &Health, now: Moment, orders: &mut Vec<Order>) {
        let telling = self.targets.telling();
        let count = if role.metered { 1 } else { telling.len() };
        let first = usize::try_from(self.next_sequence).unwrap_or_default() % telling.len().max(1);
        for target in telling.iter().cycle().skip(first).take(count) {
            self.send(*target, settings, now, orders);
        }
        let gap = self.samples.take(self.loss.doubtful(), now);
        self.next_sample = now + gap * role.doubtful.max(SAMPLERS) / SAMPLERS;
    }

    fn send(&mut self, target: usize, settings: &Health, now: Moment, orders: &mut Vec<Order>) {
        let span = self.span(target, settings);
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let waiting = Waiting {
            target,
            sent: now,
            deadline: now + span,
            lost_at: now + span.max(LOST_AFTER),
            patience: Patience::InTime,
            excused: (0, now),
        };
        self.waiting.insert(sequence, waiting);
        orders.push(Order { target, sequence, listen: span + LATE });
    }

    /// How long an answer of a target may take.
    fn span(&self, target: usize, settings: &Health) -> Duration {
        let usual = |kind: Kind| self.rtts.get(&kind).map(Rtt::deadline);
        let measured = || self.targets.kind_of(target).and_then(usual);
        settings.timeout.unwrap_or_else(|| measured().unwrap_or_else(|| Rtt::default().deadline()))
    }

    /// What losses are held against.
    fn bar(&self, settings: &Health) -> Bar {
        let fastest = self.rtts.values().filter_map(Rtt::smoothed).min();
        Bar { limit: settings.max_loss_percent, round_trip: fastest.unwrap_or_default() }
    }

    /// How long the fastest kind of answer usually takes, with all its spread.
    pub(super) fn usual_round_trip(&self) -> Duration {
        let spread = |rtt: &Rtt| Some(rtt.smoothed()? + rtt.deviation()? * 4);
        let fastest = self.rtts.values().filter_map(spread).min();
        fastest.unwrap_or_else(|| Rtt::default().deadline())
    }

    /// Marks probes whose time is over, and forgets those beyond hope.
    fn expire(&mut self, settings: &Health, now: Moment) {
        let mut missed = Vec::new();
        let spans: Vec<Duration> =
            (0..self.targets.count()).map(|target| self.span(target, settings)).collect();
        let bar = self.bar(settings);
        for waiting in self.waiting.values_mut() {
            if waiting.patience == Patience::InTime && waiting.is_over(now) {
                waiting.patience = Patience::Late;
                self.asked_in_vain = self.asked_in_vain.max(Some(waiting.sent));
                missed.push(waiting.target);
            }
            // A line that has become slow since gets the time that it takes by now.
            let span = spans.get(waiting.target).copied().unwrap_or_default();
            waiting.lost_at = waiting.lost_at.max(waiting.sent + span);
            if waiting.patience == Patience::Late && waiting.is_over(now) {
                waiting.patience = Patience::Lost;
                let target = waiting.target;
                let kind = self.targets.kind_of(target).filter(|_| !self.targets.is_deaf(target));
                if let Some(kind) = kind {
                    self.loss.lost((target, kind), waiting.sent, bar);
                }
            }
        }
        self.waiting.retain(|_, w| w.patience != Patience::Lost || now < w.next());
        for target in missed {
            self.miss(target, settings, now);
        }
    }

    fn miss(&mut self, target: usize, settings: &Health, now: Moment) {
        self.proof.missed();
        if self.burst.is_some() || self.targets.is_deaf(target) {
            return;
        }
        match self.state {
            State::Up => {
                self.enter(State::Suspect, "a probe went unanswered".to_owned(), now);
                self.start_burst(settings, now);
            }
            State::Recovering | State::Impaired | State::Portal => {
                self.start_burst(settings, now);
            }
            State::Unknown | State::Suspect | State::Down => {}
        }
    }

    /// An answer in time. Those that come too late prove nothing: they were losses before.
    fn prove_on(&mut self, now: Moment) {
        if matches!(self.state, State::Impaired | State::Portal) {
            self.proof.answered(now);
        }
    }

    fn heard_from(&mut self, target: usize, settings: &Health, now: Moment) {
        self.mute = false;
        self.heard = Some(now);
        if let Some(burst) = &mut self.burst {
            burst.answered.insert(target);
        }
        self.alive(settings, now);
    }

    pub(super) fn start_burst(&mut self, settings: &Health, now: Moment) {
        if self.burst.is_some() {
            return;
        }
        self.burst = Some(Burst {
            begun: now,
            rounds_left: BURST_ROUNDS,
            next_round: now,
            verdict: now + settings.timeout.unwrap_or(LOST_AFTER),
            answered: BTreeSet::new(),
            excuses: 0,
            traffic: false,
            repeats: 0,
            thorough: false,
        });
    }

    fn go_on_with_burst(
        &mut self,
        role: &Role<'_>,
        settings: &Health,
        now: Moment,
        orders: &mut Vec<Order>,
    ) {
        let Some(mut burst) = self.burst.take() else { return };
        let due = if burst.rounds_left > 0 { burst.next_round } else { burst.verdict };
        if now > due + TOO_LATE && burst.excuses < EXCUSES_MAX {
            burst.excuses += 1;
            burst.rounds_left += 1;
            burst.next_round = now;
        }
        if burst.rounds_left > 0 && now >= burst.next_round {
            let silent: Vec<usize> =
                (0..self.targets.count()).filter(|at| !burst.answered.contains(at)).collect();
            let longest = silent.iter().map(|target| self.span(*target, settings)).max();
            for target in silent {
                self.send(target, settings, now, orders);
            }
            burst.rounds_left -= 1;
            burst.next_round = now + BURST_GAP;
            if burst.rounds_left == 0 && self.should_ask_more(&burst) {
                (burst.rounds_left, burst.thorough) = (BURST_MORE, true);
            }
            // Traffic comes back, so it may be that everything takes longer now.
            let patience = if burst.repeats > 0 { LOST_AFTER } else { Duration::ZERO };
            burst.verdict = now + longest.unwrap_or_default().max(patience);
        }
        let all = burst.answered.len() == self.targets.count();
        if all || (burst.rounds_left == 0 && now >= burst.verdict) {
            self.conclude(burst, role, settings, now, orders);
        } else {
            self.burst = Some(burst);
        }
    }

    /// Who has been silent in a burst while others answered.
    fn silent_in(&self, burst: &Burst) -> Vec<usize> {
        let silent = (0..self.targets.count()).filter(|at| !burst.answered.contains(at));
        silent.filter(|_| !burst.answered.is_empty()).collect()
    }

    /// The same, as far as it proves something: where we were slow ourselves, silence does not tell one
    /// target from another.
    fn deaf_in(&self, burst: &Burst) -> Vec<usize> {
        if burst.excuses == 0 { self.silent_in(burst) } else { Vec::new() }
    }

    /// On a line that loses now and then, a burst loses all of one target's answers once in a few
    /// days: not enough to call a service dead.
    fn should_ask_more(&self, burst: &Burst) -> bool {
        !burst.thorough && self.targets.would_lose_a_service(&self.deaf_in(burst))
    }

    fn conclude(
        &mut self,
        burst: Burst,
        role: &Role<'_>,
        settings: &Health,
        now: Moment,
        orders: &mut Vec<Order>,
    ) {
        let count = self.targets.count();
        if !burst.answered.is_empty() {
            if self.should_ask_more(&burst) {
                self.burst = Some(Burst {
                    rounds_left: BURST_MORE,
                    next_round: now,
                    thorough: true,
                    ..burst
                });
                self.go_on_with_burst(role, settings, now, orders);
                return;
            }
            for target in self.silent_in(&burst) {
                if burst.excuses == 0 {
                    self.targets.set_deaf(target);
                } else if !self.targets.is_deaf_after(target) {
                    continue;
                }
                let kind = self.targets.kind_of(target);
                kind.into_iter().for_each(|kind| self.loss.forget((target, kind)));
            }
            self.beat_after(self.cadence(role, settings, now), now);
        } else if role.all_suspect && burst.excuses < EXCUSES_TOGETHER {
            // Then there is nothing better to go to, and it may be this machine that is slow.
            let (excuses, next_round) = (burst.excuses + 1, now);
            self.burst = Some(Burst { excuses, next_round, rounds_left: 1, ..burst });
            self.go_on_with_burst(role, settings, now, orders);
        } else if burst.traffic && burst.repeats + 1 < BURSTS_MUTE {
            self.start_burst(settings, now);
            if let Some(next) = &mut self.burst {
                next.repeats = burst.repeats + 1;
            }
            self.go_on_with_burst(role, settings, now, orders);
        } else if burst.traffic {
            self.mute = true;
            self.next_beat = now + settings.interval;
        } else {
            let asked = u32::try_from(count).unwrap_or(u32::MAX).saturating_mul(BURST_ROUNDS);
            self.fall(format!("{asked} probes in a row went unanswered"), settings, now);
        }
    }
}
