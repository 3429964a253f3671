//! How quickly a side may be asked while its losses are in doubt.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Moment;

/// Between rounds of samples: fast enough to tell 30 % loss from 5 % within some two seconds.
const GAP: Duration = Duration::from_millis(100);
/// So many rounds in a row; then one in a second, which is also the pace at which they are saved
/// up again.
const SAVED: u32 = 80;
const GAP_TIRED: Duration = Duration::from_secs(1);
/// Answers that are merely late leave so many: a line whose round trips differ much is late all the
/// time, and losses must still show soon.
const KEPT: u32 = 40;

/// Rounds of samples that may follow each other quickly: a line that loses neither little nor much
/// is in doubt for ever.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Samples {
    left: u32,
    counted: Moment,
}

impl Samples {
    pub(super) fn full(now: Moment) -> Samples {
        Samples { left: SAVED, counted: now }
    }

    /// Takes one, because something was lost or is merely late; how long until the next.
    pub(super) fn take(&mut self, lost: bool, now: Moment) -> Duration {
        let seconds = u32::try_from(now.since(self.counted).as_secs()).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(seconds).min(SAVED);
        self.counted = self.counted + Duration::from_secs(u64::from(seconds));
        let kept = if lost { 0 } else { KEPT };
        if self.left > kept {
            self.left -= 1;
        }
        if self.left > kept { GAP } else { GAP_TIRED }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many follow each other quickly.
    fn quick(samples: &mut Samples, lost: bool, now: Moment) -> u32 {
        let mut count = 0;
        while samples.take(lost, now) == GAP {
            count += 1;
        }
        count
    }

    #[test]
    fn late_answers_leave_half_for_losses_and_seconds_bring_them_back() {
        let mut samples = Samples::full(Moment::default());
        assert_eq!(quick(&mut samples, false, Moment::default()), 39);
        assert_eq!(quick(&mut samples, false, Moment::default()), 0);
        assert_eq!(quick(&mut samples, true, Moment::default()), 39);
        let later = Moment::from_start(Duration::from_secs(1000));
        assert_eq!(quick(&mut samples, true, later), 79);
    }
}
