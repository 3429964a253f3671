//! Round trips of one kind of probe, and the deadline that follows from them: RFC 6298's
//! estimator, and the slowest of the last few, so that a line with long queues is not judged by
//! its good moments.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A deadline is never shorter: scheduling on a busy Pi delays by tens of milliseconds.
const MIN: Duration = Duration::from_millis(150);
/// Nor longer, so that a line with a huge deviation is still judged.
const MAX: Duration = Duration::from_secs(3);
/// Before anything was measured: RFC 6298 (2.1).
const FIRST: Duration = Duration::from_secs(1);
/// Round trips remembered one by one: a quarter of a minute at the usual pace.
const RECENT: usize = 16;

/// Round trips.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Rtt {
    smoothed: Option<Duration>,
    deviation: Duration,
    recent: VecDeque<Duration>,
}

impl Rtt {
    pub(super) fn measure(&mut self, sample: Duration) {
        match self.smoothed {
            None => {
                self.smoothed = Some(sample);
                self.deviation = sample / 2;
            }
            // The first answer waited for a neighbour's address and a cold path.
            Some(first) if self.recent.len() == 1 && sample < first => {
                (self.smoothed, self.deviation) = (Some(sample), sample / 2);
                self.recent.clear();
            }
            Some(smoothed) => {
                self.deviation = (self.deviation * 3 + smoothed.abs_diff(sample)) / 4;
                self.smoothed = Some((smoothed * 7 + sample) / 8);
            }
        }
        self.recent.push_back(sample);
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
    }

    pub(super) fn deadline(&self) -> Duration {
        let Some(smoothed) = self.smoothed else { return FIRST };
        let slowest = self.recent.iter().max().copied().unwrap_or_default();
        (smoothed + self.deviation * 4).max(slowest * 9 / 8).clamp(MIN, MAX)
    }

    pub(super) fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    pub(super) fn deviation(&self) -> Option<Duration> {
        self.smoothed.map(|_| self.deviation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deadline_follows_the_round_trips() {
        let mut rtt = Rtt::default();
        assert_eq!(rtt.deadline(), FIRST);
        rtt.measure(Duration::from_millis(20));
        assert_eq!(rtt.deadline(), MIN);
        for round in 0..100_u64 {
            rtt.measure(Duration::from_millis(if round % 2 == 0 { 300 } else { 1500 }));
        }
        assert!(rtt.deadline() > Duration::from_millis(1500), "{:?}", rtt.deadline());
        for _ in 0..100 {
            rtt.measure(Duration::from_secs(30));
        }
        assert_eq!(rtt.deadline(), MAX);
    }

    #[test]
    fn the_second_answer_replaces_a_slower_first_one() {
        let mut rtt = Rtt::default();
        rtt.measure(Duration::from_millis(1200));
        rtt.measure(Duration::from_millis(60));
        assert_eq!(rtt.deadline(), Duration::from_millis(180));
    }

    #[test]
    fn one_slow_answer_is_remembered_for_a_while() {
        let mut rtt = Rtt::default();
        for _ in 0..20 {
            rtt.measure(Duration::from_millis(40));
        }
        rtt.measure(Duration::from_millis(800));
        for _ in 0..15 {
            rtt.measure(Duration::from_millis(40));
        }
        assert_eq!(rtt.deadline(), Duration::from_millis(900));
        rtt.measure(Duration::from_millis(40));
        assert!(rtt.deadline() < Duration::from_millis(300), "{:?}", rtt.deadline());
    }
}
