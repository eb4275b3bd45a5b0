//! The one cell type of the crate: state that belongs to whoever is attached to the interpreter.
//!
//! With a GIL the [`Python`] token proves that no other thread is inside; on free-threaded builds a lock does, held
//! for the closure only. Rules for callers:
//!
//! 1. The closure neither calls Python nor drops a Python object that may run code when it dies, nor creates one that
//!    the collector tracks (a collection could start there). Take out, return, then call or drop (invariant 1 of the
//!    loop).
//! 2. The closure does not detach from the interpreter.
//!
//! A closure that comes back to its own cell has broken rule 1: that is a panic, which reaches Python as an exception.

use pyo3::Python;
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, Ordering};

/// See the module's description.
#[derive(Debug)]
pub(crate) struct OwnerCell<T> {
    is_borrowed: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached through `with` and `try_with` only, which let one thread in at a time.
unsafe impl<T: Send> Sync for OwnerCell<T> {}

/// Gives the cell back when the closure ends, also by a panic.
struct Claim<'a>(&'a AtomicBool);

impl Drop for Claim<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl<T> OwnerCell<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self { is_borrowed: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    /// Runs `action` on the value.
    #[inline]
    pub(crate) fn with<R>(&self, _py: Python<'_>, action: impl FnOnce(&mut T) -> R) -> R {
        let _claim = self.claim().expect("invariant 1: no Python code runs while the cell is borrowed");
        // SAFETY: the claim is held, so nobody else has a reference to the value.
        action(unsafe { &mut *self.value.get() })
    }

    /// As [`Self::with`], but None if the cell is in use; for the garbage collector, which comes at any time.
    pub(crate) fn try_with<R>(&self, action: impl FnOnce(&mut T) -> R) -> Option<R> {
        let _claim = self.try_claim()?;
        // SAFETY: the claim is held, so nobody else has a reference to the value.
        Some(action(unsafe { &mut *self.value.get() }))
    }

    #[cfg(not(Py_GIL_DISABLED))]
    #[inline]
    fn claim(&self) -> Option<Claim<'_>> {
        self.try_claim()
    }

    /// The GIL is held: nobody comes between the load and the store.
    #[cfg(not(Py_GIL_DISABLED))]
    #[inline]
    fn try_claim(&self) -> Option<Claim<'_>> {
        if self.is_borrowed.load(Ordering::Relaxed) {
            return None;
        }
        self.is_borrowed.store(true, Ordering::Relaxed);
        Some(Claim(&self.is_borrowed))
    }

    /// Another thread is inside for a few instructions only (rule 1), so it is waited for; a closure that came back to
    /// its own cell would wait for ever, which the bound turns into the panic.
    #[cfg(Py_GIL_DISABLED)]
    fn claim(&self) -> Option<Claim<'_>> {
        for _ in 0..1_000_000 {
            if let Some(claim) = self.try_claim() {
                return Some(claim);
            }
            std::thread::yield_now();
        }
        None
    }

    #[cfg(Py_GIL_DISABLED)]
    fn try_claim(&self) -> Option<Claim<'_>> {
        let claimed = self.is_borrowed.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed);
        claimed.is_ok().then(|| Claim(&self.is_borrowed))
    }
}
