//! Wakers that borrow what they wake: the waker of a poll need not count a reference that the poller has anyway.

use std::mem::ManuallyDrop;
use std::ptr;
use std::sync::Arc;
use std::task::{Wake, Waker};

/// Calls with a waker of `woken`; what the callee clones counts, as any waker does.
#[inline]
pub(crate) fn with_waker<W: Wake + Send + Sync + 'static, R>(woken: &Arc<W>, action: impl FnOnce(&Waker) -> R) -> R {
    // SAFETY: an Arc may be read as it is valid; the copy is never dropped, and `woken` is borrowed as long as it is used.
    let copy = unsafe { ptr::read(woken) };
    let waker = ManuallyDrop::new(Waker::from(copy));
    action(&waker)
}

#[cfg(test)]
mod tests {
    use super::with_waker;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn only_clones_are_counted() {
        let count = Arc::new(Count::default());
        let clone = with_waker(&count, |waker| {
            waker.wake_by_ref();
            assert_eq!(Arc::strong_count(&count), 1);
            waker.clone()
        });
        assert_eq!(Arc::strong_count(&count), 2);
        assert!(clone.will_wake(&Waker::from(Arc::clone(&count))));
        clone.wake();
        assert_eq!(Arc::strong_count(&count), 1);
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
    }
}
