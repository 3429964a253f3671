//! Losses of one side: how many of the last hundred probes, and whether the line loses more than
//! its limit. The latter is a cumulative sum test (E. S. Page, Continuous Inspection Schemes,
//! 1954) between a third of the limit and the limit: it decides as soon as it can, and a line
//! that loses less than a third is practically never accused.

use serde::{Deserialize, Serialize};

use crate::time::Moment;

/// The score at which a line is accused: odds of a million to one.
const ALARM: f64 = 13.8;
/// The score of the opposite test that ends it: a hundred to one; some thirty answers in a row.
const CALM: f64 = 4.6;
/// Losses of one round of probes prove one gap, not several: what they may add to the score.
const ROUND_MAX: f64 = 2.2;
/// How many fates are remembered for the percentage.
const WINDOW: u32 = 100;

/// Losses.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Loss {
    /// The last probes' fates, newest in bit 0, set when lost; and how many there are.
    window: (u128, u32),
    score: f64,
    calm: f64,
    /// The last round with a loss, and what it has added to the score.
    round: (Moment, f64),
    alarm: bool,
}

/// What one answer takes from the score, and one loss adds, when `limit` percent are too many.
fn weights(limit: u8) -> (f64, f64) {
    let bad = f64::from(limit.clamp(1, 90)) / 100.0;
    let good = bad / 3.0;
    (((1.0 - good) / (1.0 - bad)).ln(), (bad / good).ln())
}

impl Loss {
    /// A probe was answered.
    pub(super) fn answered(&mut self, limit: Option<u8>) {
        self.count(false);
        let Some(limit) = limit else { return };
        let (answer, _) = weights(limit);
        self.score = (self.score - answer).max(0.0);
        self.calm += answer;
        if self.alarm && self.calm >= CALM {
            *self = Loss { window: self.window, ..Loss::default() };
        }
    }

    /// A probe that was sent at `sent` is lost.
    pub(super) fn lost(&mut self, sent: Moment, limit: Option<u8>) {
        self.count(true);
        let Some(limit) = limit else { return };
        let (_, loss) = weights(limit);
        if self.round.0 != sent {
            self.round = (sent, 0.0);
        }
        let added = loss.min(ROUND_MAX - self.round.1);
        self.round.1 += added;
        self.score += added;
        self.calm = (self.calm - loss).max(0.0);
        if self.score >= ALARM {
            self.alarm = true;
            // Beyond the threshold nothing more is learnt, and the way back must not be endless.
            self.score = ALARM;
        }
    }

    /// The line loses more than its limit.
    pub(super) fn alarming(&self) -> bool {
        self.alarm
    }

    /// Something was lost lately, and more probes would tell whether that is usual.
    pub(super) fn doubtful(&self) -> bool {
        !self.alarm && self.score > 0.0
    }

    /// Lost of the last hundred, 0 to 100.
    pub(super) fn percent(&self) -> Option<f64> {
        let (bits, count) = self.window;
        (count > 0).then(|| f64::from(bits.count_ones()) * 100.0 / f64::from(count))
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

    /// Feeds `count` probes of which `percent` are lost at random, each in a round of its own;
    /// returns after how many the alarm was raised.
    fn feed(loss: &mut Loss, percent: u64, count: u64, seed: u64) -> Option<u64> {
        let mut random = seed;
        for number in 0..count {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if (random >> 33) % 100 < percent {
                loss.lost(Moment::from_start(Duration::from_millis(number)), Some(20));
            } else {
                loss.answered(Some(20));
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
        for _ in 0..18 {
            loss.lost(Moment::from_start(Duration::from_secs(1)), Some(20));
        }
        assert!(!loss.alarming());
        assert!(loss.doubtful());
    }

    #[test]
    fn an_alarm_ends_after_a_run_of_answers_and_without_a_limit_there_is_none() {
        let mut loss = Loss::default();
        for second in 0..20 {
            loss.lost(Moment::from_start(Duration::from_secs(second)), Some(20));
        }
        assert!(loss.alarming());
        for _ in 0..25 {
            loss.answered(Some(20));
        }
        assert!(loss.alarming());
        for _ in 0..10 {
            loss.answered(Some(20));
        }
        assert!(!loss.alarming());
        let mut unlimited = Loss::default();
        for second in 0..100 {
            unlimited.lost(Moment::from_start(Duration::from_secs(second)), None);
        }
        assert!(!unlimited.alarming());
        assert_eq!(unlimited.percent(), Some(100.0));
    }
}
