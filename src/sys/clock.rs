//! The clock of the loop: `CLOCK_MONOTONIC` in whole nanoseconds, the clock of Python's `time.monotonic()`.

use std::mem::MaybeUninit;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// The time since an arbitrary point in the past, in nanoseconds (`clock_gettime(2)`).
pub(crate) fn monotonic() -> u64 {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: `time` is valid for writes of a timespec.
    let answer = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, time.as_mut_ptr()) };
    assert_eq!(answer, 0, "every supported system has CLOCK_MONOTONIC");
    // SAFETY: clock_gettime succeeded, so it has written the whole timespec.
    let time = unsafe { time.assume_init() };
    // The clock counts from a start in the past: both fields are never negative.
    time.tv_sec.unsigned_abs() * NANOS_PER_SECOND + time.tv_nsec.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::monotonic;

    #[test]
    fn never_goes_back() {
        let mut last = monotonic();
        for _ in 0..1000 {
            let now = monotonic();
            assert!(now >= last);
            last = now;
        }
    }
}
