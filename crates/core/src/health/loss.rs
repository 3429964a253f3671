//! Losses of one side: how many of the last hundred probes, and whether the line loses more than
//! its limit. The latter is a cumulative sum test (E. S. Page, Continuous Inspection Schemes,
//! 1954) between a third of the limit and the limit: it decides as soon as it can, and a line
//! that loses less than a third is practically never accused. What a target does not answer counts
//! against the line once the same target answers again: until then it may be the target that is
//! deaf, and not the line that loses. And what only one kind of probe loses, where there are
//! several, is the fate of that kind: carriers ration echoes on lines that are otherwise well.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::Kind;
use crate::time::Moment;

/// The score at which a line is accused: odds of 400,000 to one.
const ALARM: f64 = 12.9;
/// What all kinds of probes but the worst must have scored together.
const SHARED: f64 = 7.5;
/// The losses that an accusation rests on must lie so far apart: when a queue fills all at once,
/// answers that seem lost are soon found to be late.
const APART: Duration = Duration::from_secs(1);
/// And so many round trips, of all kinds together and of each that counts, but no further than this:
/// who fills a queue until it drops has to hear of that, several times, before he is as slow as the
/// line (RFC 5681, 3.1). Where the queue is long, so are the round trips.
const APART_ROUND_TRIPS: u32 = 10;
const APART_MAX: Duration = Duration::from_secs(15);
/// The score of the opposite test that ends it: a hundred to one; some thirty answers in a row.
const CALM: f64 = 4.6;
/// Losses of one round of probes prove one gap, not several: what they may add to the score. To that
/// of a kind alone a round adds one loss.
const ROUND_MAX: f64 = 2.2;
/// How many fates are remembered for the percentage.
const WINDOW: u32 = 100;
/// The fewest of them that make a percentage worth telling.
const FEW: u32 = 20;
/// How long a round is remembered for losses that turn out to belong to it.
const ROUND_KEPT: Duration = Duration::from_secs(10);
/// Losses that are held back, of one target.
const HELD_MAX: usize = 100;

/// What losses are held against.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bar {
    /// So many percent are too many; `None`: losses do not matter.
    pub(super) limit: Option<u8>,
    /// How long the line usually takes to answer.
    pub(super) round_trip: Duration,
}

impl Bar {
    /// How far apart the losses of a kind must lie.
    fn apart(self) -> Duration {
        (self.round_trip * APART_ROUND_TRIPS).min(APART_MAX)
    }
}

/// A cumulative sum.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
struct Score {
    sum: f64,
    /// When the first of the lost probes was sent that it is made of.
    since: Option<Moment>,
}

impl Score {
    fn add(&mut self, loss: f64, sent: Moment) {
        // Beyond the threshold nothing more is learnt, and the way back must not be endless.
        self.sum = (self.sum + loss).min(ALARM);
        self.since = Some(self.since.map_or(sent, |since| since.min(sent)));
    }

    fn take(&mut self, answer: f64) {
        self.sum = (self.sum - answer).max(0.0);
        self.since = self.since.filter(|_| self.sum > 0.0);
    }

    /// Whether its losses lie so far apart, up to one that was sent at `sent`.
    fn lasts(&self, sent: Moment, span: Duration) -> bool {
        self.since.is_some_and(|since| sent >= since + span)
    }
}

/// Losses.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Loss {
    /// The last probes' fates, newest in bit 0, set when lost; and how many there are.
    window: (u128, u32),
    score: Score,
    /// The same for each kind of probe alone.
    scores: BTreeMap<Kind, Score>,
    calm: f64,
    /// The last rounds with losses: what each has added to the score, and of which kinds.
    rounds: BTreeMap<Moment, (f64, BTreeSet<Kind>)>,
    /// When those probes were sent that a target has not answered since it answered last.
    held: BTreeMap<usize, Vec<Moment>>,
    /// When the latest probe was sent that each target has answered.
    heard: BTreeMap<usize, Moment>,
    alarm: bool,
}

/// What one answer takes from the score, and one loss adds, when `limit` percent are too many.
fn weights(limit: u8) -> (f64, f64) {
    let bad = f64::from(limit.clamp(1, 90)) / 100.0;
    let good = bad / 3.0;
    (((1.0 - good) / (1.0 - bad)).ln(), (bad / good).ln())
}

impl Loss {
    /// A target has answered what was sent at `sent`: what it had not answered before, the line has
    /// lost.
    pub(super) fn answered(&mut self, (target, kind): (usize, Kind), sent: Moment, bar: Bar) {
        let heard = self.heard.entry(target).or_insert(sent);
        *heard = sent.max(*heard);
        for sent in self.held.remove(&target).unwrap_or_default() {
            self.count_loss(kind, sent, bar);
        }
        self.count(false);
        let Some(limit) = bar.limit else { return };
        let (answer, _) = weights(limit);
        self.score.take(answer);
        self.scores.entry(kind).or_default().take(answer);
        self.calm += answer;
        if self.alarm && self.calm >= CALM {
            (self.score, self.calm, self.alarm) = (Score::default(), 0.0, false);
            self.scores.clear();
            self.rounds.clear();
        }
    }

    /// A probe that was sent to a target at `sent` is lost.
    pub(super) fn lost(&mut self, (target, kind): (usize, Kind), sent: Moment, bar: Bar) {
        if self.heard.get(&target).is_some_and(|heard| *heard > sent) {
            self.count_loss(kind, sent, bar);
            return;
        }
        let held = self.held.entry(target).or_default();
        if held.len() < HELD_MAX {
            held.push(sent);
        }
    }

    /// What was sent to a target at `sent` was not lost after all, but late.
    pub(super) fn was_late(&mut self, (target, kind): (usize, Kind), sent: Moment, bar: Bar) {
        let held = self.held.entry(target).or_default();
        let was_held = held.len();
        held.retain(|other| *other != sent);
        let counted = held.len() == was_held;
        let round = self.rounds.get_mut(&sent).filter(|_| counted);
        let Some(((added, kinds), limit)) = round.zip(bar.limit) else { return };
        let (_, loss) = weights(limit);
        let taken = loss.min(*added);
        *added -= taken;
        self.score.take(taken);
        if kinds.remove(&kind) {
            self.scores.entry(kind).or_default().take(loss);
        }
    }

    /// A target is deaf: what it has not answered says nothing about the line.
    pub(super) fn forget(&mut self, (target, kind): (usize, Kind)) {
        self.held.remove(&target);
        self.scores.insert(kind, Score::default());
    }

    fn count_loss(&mut self, kind: Kind, sent: Moment, bar: Bar) {
        self.count(true);
        let Some(limit) = bar.limit else { return };
        let (_, loss) = weights(limit);
        self.rounds.retain(|round, _| *round + ROUND_KEPT > sent);
        let (round, kinds) = self.rounds.entry(sent).or_default();
        let added = loss.min(ROUND_MAX - *round);
        *round += added;
        let first_of_kind = kinds.insert(kind);
        self.score.add(added, sent);
        if first_of_kind {
            self.scores.entry(kind).or_default().add(loss, sent);
        }
        self.calm = (self.calm - loss).max(0.0);
        // Of two kinds at least: the one that has lost most may be rationed.
        let lasting = self.scores.values().filter(|score| score.lasts(sent, bar.apart()));
        let sums: Vec<f64> = lasting.map(|score| score.sum).collect();
        let others = sums.iter().sum::<f64>() - sums.iter().copied().fold(0.0, f64::max);
        let shared = self.scores.len() < 2 || others >= SHARED;
        let lasts = self.score.lasts(sent, bar.apart().max(APART));
        self.alarm |= self.score.sum >= ALARM && lasts && shared;
    }

    /// The line loses more than its limit.
    pub(super) fn alarming(&self) -> bool {
        self.alarm
    }

    /// Something was lost lately, and more probes would tell whether that is usual; where there is an
    /// alarm that is known.
    pub(super) fn doubtful(&self) -> bool {
        self.score.sum > 0.0
    }

    /// Lost of the last hundred, 0 to 100.
    pub(super) fn percent(&self) -> Option<f64> {
        let (bits, count) = self.window;
        (count > 0).then(|| f64::from(bits.count_ones()) * 100.0 / f64::from(count))
    }

    /// The worst that its latest probes show, 0 to 100: what has raised the alarm.
    pub(super) fn worst_percent(&self) -> f64 {
        let (bits, count) = self.window;
        let share = |few: u32| {
            let lost = (bits & ((1 << few) - 1)).count_ones();
            f64::from(lost) * 100.0 / f64::from(few)
        };
        (FEW.min(count).max(1)..=count).map(share).fold(0.0, f64::max)
    }

    fn count(&mut self, lost: bool) {
        let (bits, count) = self.window;
        let bits = (bits << 1 | u128::from(lost)) & ((1 << WINDOW) - 1);
        self.window = (bits, (count + 1).min(WINDOW));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const BAR: Bar = Bar { limit: Some(20), round_trip: Duration::from_millis(20) };

    fn at(second: u64) -> Moment {
        Moment::from_start(Duration::from_secs(second))
    }

    /// Feeds `count` probes of which `percent` are lost at random, each in a round of its own;
    /// returns after how many the alarm was raised.
    fn feed(loss: &mut Loss, percent: u64, count: u64, seed: u64) -> Option<u64> {
        let mut random = seed;
        for number in 0..count {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if (random >> 33) % 100 < percent {
                loss.lost((0, Kind::Icmp), at(number), BAR);
            } else {
                loss.answered((0, Kind::Icmp), at(number), BAR);
            }
            if loss.alarming() {
                return Some(number);
            }
        }
        None
    }

    #[test]
    fn thirty_percent_are_found_within_a_few_dozen_probes_and_five_never() {
        for seed in 1..200 {
            let found = feed(&mut Loss::default(), 30, 1000, seed).expect("found");
            assert!(found < 250, "seed {seed}: {found}");
            assert_eq!(feed(&mut Loss::default(), 5, 20_000, seed), None, "seed {seed}");
        }
    }

    #[test]
    fn one_gap_is_not_taken_for_many_losses() {
        let mut loss = Loss::default();
        for target in 0..18 {
            loss.lost((target, Kind::Icmp), at(1), BAR);
        }
        loss.answered((0, Kind::Icmp), at(2), BAR);
        assert!(loss.doubtful());
        for target in 1..18 {
            loss.answered((target, Kind::Icmp), at(2), BAR);
        }
        assert!(!loss.alarming());
    }

    #[test]
    fn an_alarm_ends_after_a_run_of_answers_and_without_a_limit_there_is_none() {
        let mut loss = Loss::default();
        for second in 0..20 {
            loss.lost((0, Kind::Icmp), at(second), BAR);
        }
        loss.answered((0, Kind::Icmp), at(30), BAR);
        assert!(loss.alarming() && loss.worst_percent() > 90.0);
        for _ in 0..25 {
            loss.answered((0, Kind::Icmp), at(30), BAR);
        }
        assert!(loss.alarming());
        for _ in 0..10 {
            loss.answered((0, Kind::Icmp), at(30), BAR);
        }
        assert!(!loss.alarming());
        let none = Bar { limit: None, ..BAR };
        let mut unlimited = Loss::default();
        for second in 0..99 {
            unlimited.lost((0, Kind::Icmp), at(second), none);
        }
        unlimited.answered((0, Kind::Icmp), at(100), none);
        assert!(!unlimited.alarming());
        assert_eq!(unlimited.percent(), Some(99.0));
    }

    #[test]
    fn what_a_target_never_answers_says_nothing_about_the_line() {
        let mut loss = Loss::default();
        for second in 0..50 {
            loss.lost((1, Kind::Icmp), at(second), BAR);
            loss.answered((0, Kind::Icmp), at(second), BAR);
        }
        assert!(!loss.alarming() && !loss.doubtful());
        loss.forget((1, Kind::Icmp));
        loss.answered((1, Kind::Icmp), at(60), BAR);
        assert_eq!(loss.percent(), Some(0.0));
    }

    #[test]
    fn what_one_kind_loses_alone_says_nothing_about_the_line() {
        let mut loss = Loss::default();
        for second in 0..500 {
            let probe = (0, Kind::Icmp);
            match second % 3 {
                0 => loss.answered(probe, at(second), BAR),
                _ => loss.lost(probe, at(second), BAR),
            }
            loss.answered((1, Kind::Tcp), at(second), BAR);
        }
        assert!(!loss.alarming() && loss.percent() > Some(20.0));
    }

    #[test]
    fn a_line_with_long_queues_is_given_time_to_find_its_pace() {
        let full = Bar { round_trip: Duration::from_millis(900), ..BAR };
        let accused_after = |bar: Bar| {
            let mut loss = Loss::default();
            // Carriers ration echoes all the time: that is no reason to be quick with others.
            (0..200).find(|second| {
                let (sent, later) = (at(*second), at(*second) + Duration::from_millis(1));
                let losing: &[Kind] = match second {
                    0..100 => &[Kind::Icmp],
                    _ => &[Kind::Icmp, Kind::Tcp, Kind::Dns],
                };
                for (target, kind) in [Kind::Icmp, Kind::Tcp, Kind::Dns].into_iter().enumerate() {
                    if losing.contains(&kind) {
                        loss.lost((target, kind), sent, bar);
                    }
                    loss.answered((target, kind), later, bar);
                }
                loss.alarming()
            })
        };
        assert_eq!(accused_after(BAR), Some(104));
        assert_eq!(accused_after(full), Some(109));
    }

    #[test]
    fn what_comes_late_is_not_lost() {
        let mut loss = Loss::default();
        for second in 0..500 {
            loss.lost((0, Kind::Icmp), at(second), BAR);
            loss.answered((0, Kind::Icmp), at(second + 1), BAR);
            loss.was_late((0, Kind::Icmp), at(second), BAR);
        }
        assert!(!loss.alarming());
    }
}
