//! Handles and timers that are done with: used again, taken out of the heap, or left to die.
//!
//! Owns nothing: what is kept for later is in the loop's pools. Who took something out drops it outside the cell.

use super::Loop;
use super::handle::{Handle, TimerHandle};
use super::owned::{POOL, Timer};
use crate::py::object;
use pyo3::prelude::*;

impl Loop {
    /// Cancels a handle, and keeps it for the next callback if nobody else knows it.
    pub(crate) fn cancel_handle(&self, py: Python<'_>, handle: Py<Handle>) {
        if !object::is_unshared(py, &handle) {
            handle.get().cancel_now(py);
            handle.drop_ref(py);
            return;
        }
        handle.get().take(py).drop_ref(py);
        if let Some(rest) = self.owned.with(py, |owned| owned.keep_handle(handle)) {
            rest.drop_ref(py);
        }
    }

    /// Keeps a timer that is done with for the next `call_later`, if nobody else knows it.
    pub(crate) fn recycle_timer(&self, py: Python<'_>, timer: Py<TimerHandle>) {
        if !object::is_unshared(py, &timer) {
            timer.drop_ref(py);
            return;
        }
        timer.get().empty(py);
        let rest = self.owned.with(py, |owned| {
            if owned.timer_pool.len() < POOL {
                owned.timer_pool.push(timer);
                return None;
            }
            Some(timer)
        });
        if let Some(timer) = rest {
            timer.drop_ref(py);
        }
    }

    /// Whether [`Self::recycle_timer`] would keep one more; false also while the cell is in use.
    pub(crate) fn has_room_for_timer(&self) -> bool {
        !self.is_closed() && self.owned.try_with(|owned| owned.timer_pool.len() < POOL).unwrap_or(false)
    }

    /// One of our timers was cancelled: often the newest, which leaves the heap at once.
    #[inline]
    pub(crate) fn timer_cancelled(&self, py: Python<'_>, timer: &Py<TimerHandle>) {
        let must_prune = self.owned.with(py, |owned| {
            match owned.timers.pop_last_if(|last| matches!(last, Timer::Native(last) if last.is(timer))) {
                // The caller has a reference still: when the next timer is made, it will not.
                Some(Timer::Native(timer)) => {
                    owned.cancelled_timers.push(timer);
                    owned.cancelled_timers.len() > POOL
                }
                Some(Timer::Foreign(_)) | None => owned.timers.note_cancelled(),
            }
        });
        if must_prune {
            self.prune_timers(py);
        }
    }

    /// One of asyncio's own timers was cancelled.
    pub(crate) fn foreign_timer_cancelled(&self, py: Python<'_>) {
        if self.owned.with(py, |owned| owned.timers.note_cancelled()) {
            self.prune_timers(py);
        }
    }

    /// Takes out what is cancelled.
    #[cold]
    fn prune_timers(&self, py: Python<'_>) {
        let cancelled = self.owned.with(py, |owned| std::mem::take(&mut owned.cancelled_timers));
        for timer in cancelled {
            self.recycle_timer(py, timer);
        }
        // asyncio's own handles are asked by attribute: outside the cell.
        let mut timers = self.owned.with(py, |owned| std::mem::take(&mut owned.timers));
        let pruned = timers.prune(|timer| timer.is_cancelled(py).unwrap_or(false));
        self.owned.with(py, |owned| {
            let added = std::mem::replace(&mut owned.timers, timers);
            owned.timers.merge(added);
        });
        for timer in pruned {
            if let Timer::Native(timer) = timer {
                self.recycle_timer(py, timer);
            }
        }
    }
}
