//! The clock of the loop: `CLOCK_MONOTONIC` in whole nanoseconds, the clock of Python's `time.monotonic()`.

use std::mem::MaybeUninit;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// How long a wait lasts at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Limit {
    /// It does not wait.
    Now,
    /// So many nanoseconds, as exactly as the system can.
    Exactly(u64),
    /// So many nanoseconds, and what the system usually adds.
    Roughly(u64),
    /// It waits for an event.
    Never,
}

impl Limit {
    /// In nanoseconds; None: no limit.
    pub(crate) fn nanoseconds(self) -> Option<u64> {
        match self {
            Self::Now => Some(0),
            Self::Exactly(nanoseconds) | Self::Roughly(nanoseconds) => Some(nanoseconds),
            Self::Never => None,
        }
    }
}

/// While it lives, waits of this thread end as exactly as the kernel can (`prctl(2)`, `PR_SET_TIMERSLACK`).
///
/// Linux groups wake-ups within 50 µs by default. The setting is inherited by new threads and processes, so it is made
/// for single waits only.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) struct ExactWait {
    previous: libc::c_ulong,
}

#[cfg(any(target_os = "linux", target_os = "android"))]
impl ExactWait {
    pub(super) fn begin() -> Option<Self> {
        // SAFETY: takes integers and touches no memory.
        let previous = unsafe { libc::prctl(libc::PR_GET_TIMERSLACK) };
        // SAFETY: as above.
        let is_set = unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong) } == 0;
        // A failure costs precision only.
        is_set.then_some(Self { previous: libc::c_ulong::try_from(previous).unwrap_or(0) })
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
impl Drop for ExactWait {
    fn drop(&mut self) {
        // SAFETY: takes integers and touches no memory. A zero stands for the thread's default.
        unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, self.previous) };
    }
}

/// A clock that goes on by the kernel's ticks (1 to 10 ms), and costs a tenth of the exact one.
#[cfg(any(target_os = "linux", target_os = "android"))]
const COARSE: libc::clockid_t = libc::CLOCK_MONOTONIC_COARSE;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const COARSE: libc::clockid_t = libc::CLOCK_MONOTONIC;

/// The time since an arbitrary point in the past, in nanoseconds (`clock_gettime(2)`).
pub(crate) fn monotonic() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

/// As [`monotonic`], at the kernel's last tick.
pub(crate) fn coarse() -> u64 {
    read(COARSE)
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: `time` is valid for writes of a timespec.
    let answer = unsafe { libc::clock_gettime(clock, time.as_mut_ptr()) };
    assert_eq!(answer, 0, "every supported system has these clocks");
    // SAFETY: clock_gettime succeeded, so it has written the whole timespec.
    let time = unsafe { time.assume_init() };
    // The clock counts from a start in the past: both fields are never negative.
    time.tv_sec.unsigned_abs() * NANOS_PER_SECOND + time.tv_nsec.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::{coarse, monotonic};

    #[test]
    fn never_goes_back() {
        for clock in [monotonic, coarse] {
            let mut last = clock();
            for _ in 0..1000 {
                let now = clock();
                assert!(now >= last);
                last = now;
            }
        }
    }

    #[test]
    fn the_coarse_clock_is_a_tick_behind_at_most() {
        let (before, at_tick) = (monotonic(), coarse());
        assert!(at_tick <= monotonic());
        // So slow are the ticks of a kernel with CONFIG_HZ=100, which may be late when a machine is busy.
        assert!(before.saturating_sub(at_tick) < 1_000_000_000);
    }
}
