//! Chance from a seed: a stream for drawing up a world (`splitmix64`, Steele, Lea and Flood 2014),
//! and plain functions of numbers for what happens to one packet, so that a packet's fate does not
//! depend on how many others were asked about before it.

use std::time::Duration;

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// A stream of random numbers.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(mix(seed.wrapping_add(GOLDEN)))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// A number from 0 to `count` - 1.
    pub(crate) fn below(&mut self, count: u64) -> u64 {
        self.next() % count.max(1)
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// Whether something of this probability, 0 to 1, happens.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        unit(self.next()) < probability
    }

    /// A number from `low` to `high`.
    pub(crate) fn real(&mut self, low: f64, high: f64) -> f64 {
        low + unit(self.next()) * (high - low)
    }

    /// A span between two, short ones as likely as long ones (uniform in its logarithm).
    pub(crate) fn span(&mut self, low: Duration, high: Duration) -> Duration {
        let (low, high) = (low.as_secs_f64().ln(), high.as_secs_f64().ln());
        Duration::from_secs_f64(self.real(low, high).exp())
    }

    /// A moment of a stretch of time.
    pub(crate) fn within(&mut self, low: Duration, high: Duration) -> Duration {
        Duration::from_secs_f64(self.real(low.as_secs_f64(), high.as_secs_f64()))
    }

    /// One of several.
    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        let count = u64::try_from(of.len()).expect("a list is short");
        &of[usize::try_from(self.below(count)).expect("a list is short")]
    }

    /// Puts a list in another order (Fisher and Yates).
    pub(crate) fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            let count = u64::try_from(last + 1).expect("a list is short");
            list.swap(last, usize::try_from(self.below(count)).expect("a list is short"));
        }
    }
}

/// A number that follows from others, and tells nothing about them.
pub(crate) fn hash(parts: &[u64]) -> u64 {
    parts.iter().fold(GOLDEN, |sum, part| mix(sum ^ mix(part.wrapping_add(GOLDEN))))
}

/// A number from 0 to 1 that follows from others.
pub(crate) fn fraction(parts: &[u64]) -> f64 {
    unit(hash(parts))
}

fn unit(bits: u64) -> f64 {
    // 53 bits are what a double holds exactly.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
    let fraction = (bits >> 11) as f64 / (1_u64 << 53) as f64;
    fraction
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
