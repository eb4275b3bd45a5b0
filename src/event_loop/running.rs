//! Waiting for a callback that runs in another thread.
//!
//! From Python 3.14 on, `cancel()` and `cancelled()` of a handle that `call_soon_threadsafe()` gave wait while its
//! callback runs in another thread (`asyncio.events._ThreadSafeHandle` holds a lock meanwhile). Here the loop notes
//! which thread runs the handle, and who asks waits for the next end of such a run.
//!
//! Owns the count of ended runs, for all loops: ends are rare, and who was woken for another one waits again.

use pyo3::Python;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

static ENDED: Mutex<u64> = Mutex::new(0);
static HAS_ENDED: Condvar = Condvar::new();

fn ended() -> MutexGuard<'static, u64> {
    // A number cannot be left half-made by a panic.
    ENDED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A run of a thread-safe handle has ended.
pub(super) fn note_end() {
    *ended() += 1;
    HAS_ENDED.notify_all();
}

/// Waits, detached from the interpreter, until `is_running` says no.
pub(super) fn wait_while(py: Python<'_>, is_running: impl Fn() -> bool) {
    loop {
        // Read before the question: an end between the two is not missed.
        let seen = *ended();
        if !is_running() {
            return;
        }
        py.detach(|| {
            let mut count = ended();
            while *count == seen {
                count = HAS_ENDED.wait(count).unwrap_or_else(PoisonError::into_inner);
            }
        });
    }
}
