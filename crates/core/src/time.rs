//! A point in time as the core knows it: an argument, never read here. Only arithmetic.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Time since the daemon's clock began, counting suspend (`CLOCK_BOOTTIME`), in nanoseconds.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Moment(u64);

impl Moment {
    /// The moment `since_start` after the clock's beginning.
    pub fn from_start(since_start: Duration) -> Moment {
        Moment(u64::try_from(since_start.as_nanos()).unwrap_or(u64::MAX))
    }

    /// The time from the clock's beginning.
    pub fn since_start(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    /// The last of the moments up to this one that lie so far apart from the clock's beginning on;
    /// this one itself where that is nothing.
    #[must_use]
    pub fn floor(self, apart: Duration) -> Moment {
        let apart = u64::try_from(apart.as_nanos()).unwrap_or(u64::MAX).max(1);
        Moment(self.0 - self.0 % apart)
    }

    /// The time from `earlier` to this moment; zero when `earlier` is later.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, span: Duration) -> Moment {
        Moment(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}
