//! Deadlines, in order: a binary heap of (nanoseconds, sequence, entry).
//!
//! Owns the entries until they are due. Rules:
//!
//! 1. Entries with equal deadlines come out in the order in which they went in.
//! 2. A cancelled entry stays until it reaches the top or until cancelled ones make up half of the heap
//!    ([`Timers::note_cancelled`] tells when to prune). That makes cancelling cheap and bounds the memory.
//! 3. No entry is dropped in here, since dropping one may run foreign code: it is handed back.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Below so many cancelled entries, pruning costs more than it frees.
const PRUNE_AT_LEAST: usize = 64;

/// A heap of entries by deadline.
#[derive(Debug)]
pub(crate) struct Timers<T> {
    heap: BinaryHeap<Entry<T>>,
    sequence: u64,
    /// How many entries in the heap are cancelled.
    cancelled: usize,
}

#[derive(Debug)]
struct Entry<T> {
    /// Nanoseconds on the clock of `sys::clock`.
    deadline: u64,
    sequence: u64,
    value: T,
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Timers<T> {
    pub(crate) const fn new() -> Self {
        Self { heap: BinaryHeap::new(), sequence: 0, cancelled: 0 }
    }

    /// Adds an entry that is due at `deadline` (nanoseconds).
    pub(crate) fn insert(&mut self, deadline: u64, value: T) {
        self.sequence += 1;
        self.heap.push(Entry { deadline, sequence: self.sequence, value });
    }

    /// The earliest entry and its deadline.
    pub(crate) fn first(&self) -> Option<(u64, &T)> {
        self.heap.peek().map(|entry| (entry.deadline, &entry.value))
    }

    /// When to wake for the earliest entry (nanoseconds): at its deadline, but where others follow within `window`,
    /// once for all of them.
    pub(crate) fn wake_up(&self, window: u64) -> Option<u64> {
        let entries = self.heap.as_slice();
        let first = entries.first()?.deadline;
        // The second-earliest entry is one of the two below the top.
        let is_dense = entries.iter().skip(1).take(2).any(|entry| entry.deadline <= first.saturating_add(window));
        Some(if is_dense { first.saturating_add(window) } else { first })
    }

    /// Takes the earliest entry out, due or not.
    pub(crate) fn pop(&mut self) -> Option<T> {
        self.heap.pop().map(|entry| entry.value)
    }

    /// Counts one more cancelled entry; true: it is time to [`Self::prune`].
    pub(crate) fn note_cancelled(&mut self) -> bool {
        self.cancelled += 1;
        self.cancelled >= PRUNE_AT_LEAST && self.cancelled * 2 > self.heap.len()
    }

    /// Counts one cancelled entry less: it was popped.
    pub(crate) fn note_popped_cancelled(&mut self) {
        self.cancelled = self.cancelled.saturating_sub(1);
    }

    /// Takes all cancelled entries out.
    pub(crate) fn prune(&mut self, mut is_cancelled: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut entries = std::mem::take(&mut self.heap).into_vec();
        let mut pruned = Vec::with_capacity(self.cancelled);
        let mut at = 0;
        while at < entries.len() {
            if is_cancelled(&entries[at].value) {
                pruned.push(entries.swap_remove(at).value);
            } else {
                at += 1;
            }
        }
        self.heap = BinaryHeap::from(entries);
        self.cancelled = 0;
        pruned
    }

    /// Adds what was inserted elsewhere meanwhile.
    pub(crate) fn merge(&mut self, mut added: Self) {
        while let Some(entry) = added.heap.pop() {
            self.insert(entry.deadline, entry.value);
        }
        self.cancelled += added.cancelled;
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.heap.iter().map(|entry| &entry.value)
    }
}

// The heap gives its greatest entry first: the order is turned round.
impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.deadline, other.sequence).cmp(&(self.deadline, self.sequence))
    }
}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Entry<T> {}

#[cfg(test)]
mod tests {
    use super::{PRUNE_AT_LEAST, Timers};
    use proptest::prelude::*;

    fn drain(timers: &mut Timers<usize>) -> Vec<usize> {
        std::iter::from_fn(|| timers.pop()).collect()
    }

    #[test]
    fn entries_close_together_are_woken_for_once() {
        let mut timers = Timers::new();
        assert_eq!(timers.wake_up(10), None);
        timers.insert(100, 0);
        assert_eq!(timers.wake_up(10), Some(100));
        timers.insert(200, 1);
        assert_eq!(timers.wake_up(10), Some(100));
        timers.insert(110, 2);
        assert_eq!(timers.wake_up(10), Some(110));
    }

    proptest! {
        #[test]
        fn entries_come_by_deadline_then_by_age(deadlines in prop::collection::vec(0_u64..20, 0..200)) {
            let mut timers = Timers::new();
            for (index, deadline) in deadlines.iter().enumerate() {
                timers.insert(*deadline, index);
            }
            let mut expected: Vec<usize> = (0..deadlines.len()).collect();
            expected.sort_by_key(|index| deadlines[*index]);
            prop_assert_eq!(drain(&mut timers), expected);
        }

        #[test]
        fn pruning_takes_the_cancelled_and_keeps_the_order(
            timers_in in prop::collection::vec((0_u64..20, any::<bool>()), 0..300),
        ) {
            let mut timers = Timers::new();
            for (index, (deadline, _)) in timers_in.iter().enumerate() {
                timers.insert(*deadline, index);
            }
            let mut pruned = timers.prune(|index| timers_in[*index].1);
            pruned.sort_unstable();
            let cancelled: Vec<usize> = (0..timers_in.len()).filter(|index| timers_in[*index].1).collect();
            prop_assert_eq!(pruned, cancelled);
            let mut kept: Vec<usize> = (0..timers_in.len()).filter(|index| !timers_in[*index].1).collect();
            kept.sort_by_key(|index| timers_in[*index].0);
            prop_assert_eq!(drain(&mut timers), kept);
        }

        #[test]
        fn at_most_half_of_a_large_heap_is_cancelled(live in 0_usize..300, cancelled in 0_usize..600) {
            let mut timers = Timers::new();
            for index in 0..live {
                timers.insert(index as u64, false);
            }
            let mut waiting = 0;
            for index in 0..cancelled {
                timers.insert(index as u64, true);
                waiting += 1;
                if timers.note_cancelled() {
                    prop_assert_eq!(timers.prune(|dead| *dead).len(), waiting);
                    waiting = 0;
                }
                prop_assert!(waiting < PRUNE_AT_LEAST || waiting * 2 <= timers.heap.len());
            }
        }
    }
}
