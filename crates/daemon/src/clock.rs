//! The only place that reads a clock. `CLOCK_BOOTTIME` becomes [`Moment`], so that a suspended
//! machine does not think that no time has passed; the wall clock is only for people's eyes, and for
//! what must outlive a run.

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

    /// The wall clock: seconds since 1970 (UTC).
    pub fn unix(&self) -> u64 {
        u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default()
    }

    /// The wall-clock time of a moment, past or to come, by today's reading of the wall clock:
    /// RFC 3339, UTC, with milliseconds.
    pub fn wall(&self, moment: Moment) -> String {
        let at = self.now();
        let now = jiff::Timestamp::now();
        let signed = |span: Duration| jiff::SignedDuration::try_from(span).ok();
        let then = if moment <= at {
            signed(at.since(moment)).and_then(|ago| now.checked_sub(ago).ok())
        } else {
            signed(moment.since(at)).and_then(|ahead| now.checked_add(ahead).ok())
        };
        let then = then.unwrap_or(now);
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
        let now: jiff::Timestamp = text.parse().expect("a time");
        let later = clock.wall(clock.now() + Duration::from_secs(3600));
        let later: jiff::Timestamp = later.parse().expect("a time");
        assert!(later.duration_since(now).as_secs() >= 3599, "{text} {later}");
    }
}
