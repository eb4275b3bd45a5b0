//! What a loop has done so far: counters that are always on.
//!
//! Owns the counters of one loop. Rules:
//!
//! 1. Counting costs an addition or two in a turn and one for each read or write. The clock is read where the loop
//!    sleeps, and when a run begins and ends: never for a callback, nor for a poll that does not wait. Sleeps take the
//!    coarse clock: the exact one, twice, would be a hundredth of what a small message costs. One short sleep counts
//!    as nothing or as a tick of the kernel's; the sum of many is right.
//! 2. Counters are written attached to the interpreter, which makes a plain load and store an addition that loses
//!    nothing. Only the time of a wait is written detached, by the thread that runs the loop.
//! 3. They can be read by any thread at any time, also after the loop was closed.

use super::Loop;
use crate::errors;
use crate::sys::clock;
use pyo3::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
struct Count(AtomicU64);

impl Count {
    #[inline]
    fn add(&self, more: u64) {
        self.set(self.get().wrapping_add(more));
    }

    #[inline]
    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    #[inline]
    fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    turns: Count,
    runnables: Count,
    /// The most runnables that one turn had.
    deepest: Count,
    /// Time in waits that have ended (nanoseconds).
    waited: Count,
    /// When the wait under way began, by the coarse clock; 0: there is none.
    wait: Count,
    /// Time in runs that have ended (nanoseconds).
    ran: Count,
    /// When the run under way began; 0: there is none.
    run: Count,
    received: Count,
    sent: Count,
    transports: Arc<AtomicUsize>,
}

/// Counts a transport for as long as it lives.
#[derive(Debug)]
pub(crate) struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    /// A turn begins that runs so many.
    #[inline]
    pub(super) fn note_turn(&self, runnables: usize) {
        let runnables = runnables as u64;
        self.turns.add(1);
        self.runnables.add(runnables);
        if runnables > self.deepest.get() {
            self.deepest.set(runnables);
        }
    }

    /// So many more are run in the turn.
    #[cold]
    pub(super) fn note_more(&self, runnables: usize) {
        self.runnables.add(runnables as u64);
    }

    /// A turn has ended early: so many come in a later one.
    #[cold]
    pub(super) fn note_left(&self, runnables: usize) {
        self.runnables.add((runnables as u64).wrapping_neg());
    }

    #[inline]
    pub(super) fn begin_wait(&self) {
        self.wait.set(clock::coarse());
    }

    #[inline]
    pub(super) fn end_wait(&self) {
        self.waited.add(clock::coarse().saturating_sub(self.wait.get()));
        self.wait.set(0);
    }

    pub(super) fn begin_run(&self) {
        self.run.set(clock::monotonic());
    }

    pub(super) fn end_run(&self) {
        self.ran.add(clock::monotonic().saturating_sub(self.run.get()));
        self.run.set(0);
    }

    /// Bytes came from the kernel.
    #[inline]
    pub(crate) fn note_received(&self, bytes: usize) {
        self.received.add(bytes as u64);
    }

    /// The kernel took bytes.
    #[inline]
    pub(crate) fn note_sent(&self, bytes: usize) {
        self.sent.add(bytes as u64);
    }

    /// Counts one more transport until the answer is dropped.
    pub(crate) fn open_transport(&self) -> Open {
        self.transports.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(&self.transports))
    }

    /// (waited, at work), in nanoseconds, with what is under way; `tick`: the coarse clock's time.
    fn times(&self, now: u64, tick: u64) -> (u64, u64) {
        let under_way = |since: u64, now: u64| if since == 0 { 0 } else { now.saturating_sub(since) };
        let waited = self.waited.get() + under_way(self.wait.get(), tick);
        let ran = self.ran.get() + under_way(self.run.get(), now);
        (waited, ran.saturating_sub(waited))
    }
}

/// What Python makes a `mioloop.Metrics` of, in the order of its fields.
pub(super) type Measured = (u64, u64, f64, f64, u64, usize, usize, usize, u64, u64);

impl Loop {
    pub(super) fn measured(&self, py: Python<'_>) -> Measured {
        let metrics = &self.metrics;
        let (waited, worked) = metrics.times(clock::monotonic(), clock::coarse());
        let (timers, descriptors) = self.owned.with(py, |owned| (owned.timers.pending(), owned.registered().count()));
        (
            metrics.turns.get(),
            metrics.runnables.get(),
            errors::seconds(waited),
            errors::seconds(worked),
            metrics.deepest.get(),
            timers,
            descriptors,
            metrics.transports.load(Ordering::Relaxed),
            metrics.received.get(),
            metrics.sent.get(),
        )
    }

    /// The number of the turn under way; None while the loop waits or does not run.
    pub(super) fn turn_under_way(&self) -> Option<u64> {
        let is_at_work = self.is_running() && self.metrics.wait.get() == 0;
        is_at_work.then(|| self.metrics.turns.get())
    }
}

#[cfg(test)]
mod tests {
    use super::Metrics;

    #[test]
    fn what_is_under_way_counts() {
        let metrics = Metrics::default();
        metrics.run.set(100);
        assert_eq!(metrics.times(150, 148), (0, 50));
        metrics.wait.set(148);
        assert_eq!(metrics.times(190, 188), (40, 50));
        metrics.end_wait();
        assert_eq!(metrics.wait.get(), 0);
        metrics.end_run();
        let (waited, worked) = metrics.times(0, 0);
        assert_eq!(metrics.times(u64::MAX, u64::MAX), (waited, worked));
    }

    #[test]
    fn what_is_left_counts_when_it_runs() {
        let metrics = Metrics::default();
        metrics.note_turn(5);
        metrics.note_left(3);
        metrics.note_turn(3);
        assert_eq!((metrics.turns.get(), metrics.runnables.get(), metrics.deepest.get()), (2, 5, 5));
    }

    #[test]
    fn a_transport_counts_while_it_lives() {
        let metrics = Metrics::default();
        let (one, other) = (metrics.open_transport(), metrics.open_transport());
        drop(one);
        assert_eq!(metrics.transports.load(super::Ordering::Relaxed), 1);
        drop(metrics);
        drop(other);
    }
}
