//! The water marks of one transport: when its protocol is asked to pause writing, and to resume.
//!
//! Owns the two limits and whether the protocol is paused now. The rules are asyncio's
//! (`transports._FlowControlMixin`): pause when the buffer grows above `high`, resume when it has shrunk to `low`.

use std::fmt;

/// asyncio's high-water mark (bytes).
const DEFAULT_HIGH: u32 = 64 * 1024;

/// The limits in bytes and the state.
#[derive(Debug)]
pub(crate) struct Flow {
    high: usize,
    low: usize,
    /// The high-water mark where nobody gives one.
    default_high: u32,
    is_paused: bool,
}

/// Limits that are out of order, as asyncio's ValueError words them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InvalidLimits {
    high: i64,
    low: i64,
}

impl fmt::Display for InvalidLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "high ({}) must be >= low ({}) must be >= 0", self.high, self.low)
    }
}

impl Flow {
    pub(crate) const fn new() -> Self {
        Self::with_default(DEFAULT_HIGH)
    }

    /// With a high-water mark of `default_high` bytes, and a low one of a quarter.
    pub(crate) const fn with_default(default_high: u32) -> Self {
        let high = default_high as usize;
        Self { high, low: high / 4, default_high, is_paused: false }
    }

    /// Sets the limits (bytes); what is not given follows from the other as in asyncio.
    pub(crate) fn set_limits(&mut self, high: Option<i64>, low: Option<i64>) -> Result<(), InvalidLimits> {
        let high = high.unwrap_or_else(|| low.map_or(self.default_high.into(), |low| low.saturating_mul(4)));
        let low = low.unwrap_or(high.div_euclid(4));
        match (usize::try_from(high), usize::try_from(low)) {
            (Ok(valid_high), Ok(valid_low)) if valid_high >= valid_low => {
                (self.high, self.low) = (valid_high, valid_low);
                Ok(())
            }
            _ => Err(InvalidLimits { high, low }),
        }
    }

    /// (low, high), as `get_write_buffer_limits()` gives them.
    pub(crate) fn limits(&self) -> (usize, usize) {
        (self.low, self.high)
    }

    /// Whether the protocol was asked to pause, and not yet to resume.
    pub(crate) const fn is_paused(&self) -> bool {
        self.is_paused
    }

    pub(crate) fn is_above_high(&self, size: usize) -> bool {
        size > self.high
    }

    /// True: the protocol must be asked to pause now; it is taken as asked.
    pub(crate) fn should_pause(&mut self, size: usize) -> bool {
        let pause = !self.is_paused && self.is_above_high(size);
        self.is_paused |= pause;
        pause
    }

    /// As [`Self::should_pause`] by the rule of asyncio's TLS: at the mark already.
    pub(crate) fn should_pause_at(&mut self, size: usize) -> bool {
        let pause = !self.is_paused && size >= self.high;
        self.is_paused |= pause;
        pause
    }

    /// True: the protocol must be asked to resume now; it is taken as asked.
    pub(crate) fn should_resume(&mut self, size: usize) -> bool {
        let resume = self.is_paused && size <= self.low;
        self.is_paused &= !resume;
        resume
    }
}

#[cfg(test)]
mod tests {
    use super::{Flow, InvalidLimits};
    use proptest::prelude::*;

    #[test]
    fn limits_follow_from_each_other() {
        let mut flow = Flow::new();
        assert_eq!(flow.limits(), (16 * 1024, 64 * 1024));
        flow.set_limits(Some(100), None).unwrap();
        assert_eq!(flow.limits(), (25, 100));
        flow.set_limits(None, Some(100)).unwrap();
        assert_eq!(flow.limits(), (100, 400));
        flow.set_limits(Some(0), None).unwrap();
        assert_eq!(flow.limits(), (0, 0));
        flow.set_limits(None, None).unwrap();
        assert_eq!(flow.limits(), (16 * 1024, 64 * 1024));
    }

    #[test]
    fn a_default_of_its_own() {
        let mut flow = Flow::with_default(1000);
        assert_eq!(flow.limits(), (250, 1000));
        flow.set_limits(Some(8), Some(2)).unwrap();
        assert!(!flow.should_pause_at(7));
        assert!(flow.should_pause_at(8));
        assert!(!flow.should_pause_at(8));
        flow.set_limits(None, None).unwrap();
        assert_eq!(flow.limits(), (250, 1000));
    }

    #[test]
    fn limits_out_of_order_are_refused_and_change_nothing() {
        let mut flow = Flow::new();
        let error = flow.set_limits(Some(1), Some(2)).unwrap_err();
        assert_eq!(error, InvalidLimits { high: 1, low: 2 });
        assert_eq!(error.to_string(), "high (1) must be >= low (2) must be >= 0");
        assert!(flow.set_limits(None, Some(-1)).is_err());
        assert!(flow.set_limits(Some(-5), None).is_err());
        assert_eq!(flow.limits(), (16 * 1024, 64 * 1024));
    }

    proptest! {
        #[test]
        fn pause_and_resume_alternate_at_the_marks(
            high in 0_u8..100, low in 0_u8..100, sizes in prop::collection::vec(0_usize..200, 0..100),
        ) {
            let mut flow = Flow::new();
            prop_assume!(flow.set_limits(Some(high.into()), Some(low.into())).is_ok());
            let (high, low) = (usize::from(high), usize::from(low));
            let mut paused = false;
            for size in sizes {
                if flow.should_pause(size) {
                    prop_assert!(!paused && size > high);
                    paused = true;
                }
                if flow.should_resume(size) {
                    prop_assert!(paused && size <= low);
                    paused = false;
                }
                // Above the high mark the protocol is paused, at or below the low mark it is not.
                prop_assert!(paused || size <= high);
                prop_assert!(!paused || size > low);
            }
        }
    }
}
