//! Waiting for an observed condition: poll until it holds, with a generous safety deadline.
//!
//! No test sleeps and hopes. A deadline here only bounds how long a broken system is waited for.

use std::sync::LazyLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Between two looks, or as long as a look takes: watching is not to keep a slow machine from what
/// is waited for.
const PAUSE: Duration = Duration::from_millis(10);

/// How many times slower periodic traffic goes, and how many times longer safety nets hold: a whole
/// number in `ANYWAN_LAB_SLOWER`, 1 by default. An emulated machine would do nothing else.
static SLOWER: LazyLock<u32> = LazyLock::new(|| match std::env::var("ANYWAN_LAB_SLOWER") {
    Ok(text) => text.parse().expect("ANYWAN_LAB_SLOWER is a whole number"),
    Err(_) => 1,
});

/// A time between two beats of periodic traffic, or a safety net, as this machine can bear it.
pub(crate) fn slower(span: Duration) -> Duration {
    span * *SLOWER
}

/// Whether this machine is an emulated one.
pub(crate) fn is_emulated() -> bool {
    *SLOWER > 1
}

/// A number of things done at once, as this machine can bear it: what else goes on must get its turn.
pub(crate) fn fewer(count: usize) -> usize {
    (count / usize::try_from(*SLOWER).unwrap_or(usize::MAX)).max(1)
}

/// Polls `look` until it gives a value. `Err(why)` means "not yet"; the last one is reported when
/// `deadline` has passed.
pub fn until<T>(deadline: Duration, what: &str, mut look: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = slower(deadline);
    let end = Instant::now() + deadline;
    loop {
        let begun = Instant::now();
        match look() {
            Ok(value) => return Ok(value),
            Err(why) if Instant::now() >= end => {
                bail!("waited {deadline:?} in vain for {what}: {why:#}")
            }
            Err(_) => sleep(PAUSE.max(begun.elapsed())),
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
