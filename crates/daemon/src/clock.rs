//! The only place that reads a clock. `CLOCK_BOOTTIME` becomes [`Moment`], so that a suspended
//! machine does not think that no time has passed; the wall clock is only for people's eyes.

use std::time::Duration;

use anywan_core::time::Moment;
use rustix::time::{ClockId, clock_gettime};

/// The daemon's clock: moments count from when it was made.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Duration,
}

impl Clock {
    /// A clock that begins now.
    pub fn start() -> Clock {
        Clock { start: since_boot() }
    }

    /// The present moment.
    pub fn now(&self) -> Moment {
        Moment::from_start(since_boot().saturating_sub(self.start))
    }

    /// How long it is until `moment`; zero when it has passed.
    pub fn until(&self, moment: Moment) -> Duration {
        moment.since(self.now())
    }

    /// The wall-clock time of a moment that has passed, by today's reading of the wall clock:
    /// RFC 3339, UTC, with milliseconds.
    pub fn wall(&self, moment: Moment) -> String {
        let ago = self.now().since(moment);
        let now = jiff::Timestamp::now();
        let then = jiff::SignedDuration::try_from(ago)
            .ok()
            .and_then(|ago| now.checked_sub(ago).ok())
            .unwrap_or(now);
        format!("{then:.3}")
    }
}

/// The time since the machine was started, its sleep included.
pub(crate) fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_is_rfc_3339_in_utc_with_milliseconds() {
        let clock = Clock::start();
        let text = clock.wall(clock.now());
        assert_eq!(text.len(), "2026-01-02T03:04:05.678Z".len(), "{text}");
        assert!(text.ends_with('Z') && text.as_bytes()[19] == b'.', "{text}");
    }
}
