//! Whether the kernel's clock is kept right by a time service (adjtimex(2)). Changes nothing.

/// Whether some time service keeps the clock right; `None`: the kernel does not say.
#[expect(unsafe_code, reason = "adjtimex is in no safe crate of ours")]
pub fn clock_kept() -> Option<bool> {
    // SAFETY: a timex of zeros is a valid one, with no mode set: nothing is changed.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a timex that lives through the call.
    let answer = unsafe { libc::adjtimex(&raw mut state) };
    (answer >= 0).then_some(state.status & libc::STA_UNSYNC == 0)
}
