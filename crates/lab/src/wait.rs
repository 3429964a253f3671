//! Waiting for an observed condition: poll until it holds, with a generous safety deadline.
//!
//! No test sleeps and hopes. A deadline here only bounds how long a broken system is waited for.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Between two looks; short against what is waited for, long against the cost of a look.
const PAUSE: Duration = Duration::from_millis(10);

/// Polls `look` until it gives a value. `Err(why)` means "not yet"; the last one is reported when
/// `deadline` has passed.
pub fn until<T>(deadline: Duration, what: &str, mut look: impl FnMut() -> Result<T>) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        match look() {
            Ok(value) => return Ok(value),
            Err(why) if Instant::now() >= end => {
                bail!("waited {deadline:?} in vain for {what}: {why:#}")
            }
            Err(_) => sleep(PAUSE),
        }
    }
}

/// [`until`] for a plain condition.
pub fn until_true(
    deadline: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<bool>,
) -> Result<()> {
    until(deadline, what, || if look()? { Ok(()) } else { bail!("not so yet") })
}
