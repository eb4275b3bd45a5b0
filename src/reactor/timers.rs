//! Deadlines, in order: a heap of (nanoseconds, sequence, entry) with four children to a node.
//!
//! Owns the entries until they are due. Rules:
//!
//! 1. Entries with equal deadlines come out in the order in which they went in.
//! 2. A cancelled entry stays until it reaches the top or until cancelled ones make up half of the heap
//!    ([`Timers::note_cancelled`] tells when to prune). That makes cancelling cheap and bounds the memory. Only the
//!    entry at the end of the list leaves at once ([`Timers::pop_last_if`]): nearly always it is the newest, and a
//!    time-out that did not happen is cancelled soon after it was made.
//! 3. No entry is dropped in here, since dropping one may run foreign code: it is handed back.
//!
//! The standard library's heap has two children to a node and keeps its list to itself. Four halve the levels, which
//! are cache misses in a large heap.

/// Below so many cancelled entries, pruning costs more than it frees.
const PRUNE_AT_LEAST: usize = 64;
/// Entries within this time of the earliest are woken for with it (nanoseconds): a wake-up costs more than they.
const NEAR: u64 = 200_000;
/// So many entries are a crowd, if they are within [`CROWDED`] of the earliest...
const CROWD: usize = 8;
/// ... and are woken for once in this time (nanoseconds): the resolution of other loops.
const CROWDED: u64 = 1_000_000;
/// Fewer due entries are taken out one by one.
const SORT_AT_LEAST: usize = 32;
/// Children of a node.
const ARITY: usize = 4;

/// A heap of entries by deadline.
#[derive(Debug)]
pub(crate) struct Timers<T> {
    /// No entry is before its parent: that of `heap[i]` is `heap[(i - 1) / ARITY]`.
    heap: Vec<Entry<T>>,
    sequence: u64,
    /// How many entries in the heap are cancelled.
    cancelled: usize,
}

/// When the owner is to be woken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct WakeUp {
    /// Nanoseconds on the clock of `sys::clock`.
    pub(crate) deadline: u64,
    /// It stands for a single entry, and is worth some effort.
    pub(crate) is_exact: bool,
}

#[derive(Debug)]
struct Entry<T> {
    /// The deadline (nanoseconds on the clock of `sys::clock`) above the sequence: one number to compare.
    key: u128,
    value: T,
}

impl<T> Entry<T> {
    #[inline]
    fn deadline(&self) -> u64 {
        (self.key >> 64) as u64
    }
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Timers<T> {
    pub(crate) const fn new() -> Self {
        Self { heap: Vec::new(), sequence: 0, cancelled: 0 }
    }

    /// Adds an entry that is due at `deadline` (nanoseconds).
    pub(crate) fn insert(&mut self, deadline: u64, value: T) {
        self.sequence += 1;
        self.heap.push(Entry { key: u128::from(deadline) << 64 | u128::from(self.sequence), value });
        self.rise(self.heap.len() - 1);
    }

    /// How many entries wait for their time.
    pub(crate) fn pending(&self) -> usize {
        self.heap.len().saturating_sub(self.cancelled)
    }

    /// The earliest entry and its deadline.
    #[inline]
    pub(crate) fn first(&self) -> Option<(u64, &T)> {
        self.heap.first().map(|entry| (entry.deadline(), &entry.value))
    }

    /// When to wake for the earliest entry: at its deadline, but where others follow soon, once for all of them.
    pub(crate) fn wake_up(&self) -> Option<WakeUp> {
        let first = self.heap.first()?.deadline();
        let near = first.saturating_add(NEAR);
        let crowded = first.saturating_add(CROWDED);
        if self.count_until(0, crowded, CROWD) >= CROWD {
            return Some(WakeUp { deadline: crowded, is_exact: false });
        }
        // The second-earliest entry is one of those below the top.
        let is_dense = self.heap.iter().skip(1).take(ARITY).any(|entry| entry.deadline() <= near);
        Some(WakeUp { deadline: if is_dense { near } else { first }, is_exact: !is_dense })
    }

    /// How many entries, from one node down, are due until then; `enough` are not looked beyond.
    fn count_until(&self, at: usize, until: u64, enough: usize) -> usize {
        if enough == 0 || self.heap.get(at).is_none_or(|entry| entry.deadline() > until) {
            return 0;
        }
        let children = at * ARITY + 1..=at * ARITY + ARITY;
        children.fold(1, |count, child| count + self.count_until(child, until, enough.saturating_sub(count)))
    }

    /// Takes the earliest entry out, due or not.
    pub(crate) fn pop(&mut self) -> Option<T> {
        if self.heap.is_empty() {
            return None;
        }
        let first = self.heap.swap_remove(0);
        self.sink(0);
        Some(first.value)
    }

    /// Takes out what is due, in order, if that is most of what there is; otherwise nothing. One sort costs less than to
    /// take many out one by one. (A list that is in order is a heap.)
    pub(crate) fn drain_due(&mut self, now: u64) -> impl Iterator<Item = T> + '_ {
        let most = self.heap.len() / 2;
        let count = if most >= SORT_AT_LEAST && self.count_until(0, now, most) >= most {
            self.heap.sort_unstable_by_key(|entry| entry.key);
            self.heap.partition_point(|entry| entry.deadline() <= now)
        } else {
            0
        };
        self.heap.drain(..count).map(|entry| entry.value)
    }

    /// Takes out the entry at the end of the list, if it is the one that is meant.
    pub(crate) fn pop_last_if(&mut self, is_meant: impl FnOnce(&T) -> bool) -> Option<T> {
        let is_last = is_meant(&self.heap.last()?.value);
        // The last entry has no children: the rest is a heap without it.
        if is_last { self.heap.pop().map(|entry| entry.value) } else { None }
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
        let mut pruned = Vec::with_capacity(self.cancelled);
        let mut at = 0;
        while at < self.heap.len() {
            if is_cancelled(&self.heap[at].value) {
                pruned.push(self.heap.swap_remove(at).value);
            } else {
                at += 1;
            }
        }
        self.cancelled = 0;
        // Bottom up, from the last node that has children.
        for parent in (0..self.heap.len().div_ceil(ARITY)).rev() {
            self.sink(parent);
        }
        pruned
    }

    /// Adds what was inserted elsewhere meanwhile.
    pub(crate) fn merge(&mut self, mut added: Self) {
        while let Some(deadline) = added.first().map(|(deadline, _)| deadline) {
            if let Some(value) = added.pop() {
                self.insert(deadline, value);
            }
        }
        self.cancelled += added.cancelled;
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.heap.iter().map(|entry| &entry.value)
    }

    /// Moves an entry up to its place.
    #[inline]
    fn rise(&mut self, mut at: usize) {
        while at > 0 {
            let parent = (at - 1) / ARITY;
            if self.heap[at].key > self.heap[parent].key {
                return;
            }
            self.heap.swap(at, parent);
            at = parent;
        }
    }

    /// Moves an entry down to its place.
    #[inline]
    fn sink(&mut self, mut at: usize) {
        while let Some(child) = self.earliest_child(at) {
            if self.heap[child].key > self.heap[at].key {
                return;
            }
            self.heap.swap(at, child);
            at = child;
        }
    }

    #[inline]
    fn earliest_child(&self, at: usize) -> Option<usize> {
        let first = at * ARITY + 1;
        let children = &self.heap[first.min(self.heap.len())..];
        // Nearly every node that has children has all of them.
        if let Some([one, two, three, four]) = children.first_chunk::<ARITY>() {
            let left = if two.key < one.key { (1, two.key) } else { (0, one.key) };
            let right = if four.key < three.key { (3, four.key) } else { (2, three.key) };
            return Some(first + if right.1 < left.1 { right.0 } else { left.0 });
        }
        let earliest = children.iter().enumerate().min_by_key(|(_, child)| child.key);
        earliest.map(|(index, _)| first + index)
    }
}

#[cfg(test)]
mod tests {
    use super::{CROWD, CROWDED, NEAR, PRUNE_AT_LEAST, SORT_AT_LEAST, Timers, WakeUp};
    use proptest::prelude::*;

    fn drain(timers: &mut Timers<usize>) -> Vec<usize> {
        std::iter::from_fn(|| timers.pop()).collect()
    }

    #[test]
    fn entries_close_together_are_woken_for_once() {
        let mut timers = Timers::new();
        assert_eq!(timers.wake_up(), None);
        timers.insert(10 * NEAR, 0);
        let alone = WakeUp { deadline: 10 * NEAR, is_exact: true };
        assert_eq!(timers.wake_up(), Some(alone));
        timers.insert(12 * NEAR, 1);
        assert_eq!(timers.wake_up(), Some(alone));
        timers.insert(10 * NEAR + 1, 2);
        assert_eq!(timers.wake_up(), Some(WakeUp { deadline: 11 * NEAR, is_exact: false }));
    }

    #[test]
    fn a_crowd_is_woken_for_once_in_a_millisecond() {
        let mut timers = Timers::new();
        for index in 0..CROWD as u64 {
            assert!(timers.wake_up().is_none_or(|wake_up| wake_up.is_exact));
            timers.insert(5 * CROWDED + index * (NEAR + 1), index);
            timers.insert(9 * CROWDED, index);
        }
        // The last ones are beyond the millisecond still.
        timers.insert(5 * CROWDED + 2, 0);
        timers.insert(5 * CROWDED + 3, 0);
        assert!(timers.wake_up().is_some_and(|wake_up| wake_up.deadline == 5 * CROWDED + NEAR));
        timers.insert(6 * CROWDED, 0);
        assert_eq!(timers.wake_up(), Some(WakeUp { deadline: 6 * CROWDED, is_exact: false }));
    }

    #[test]
    fn the_last_entry_leaves_at_once_and_no_other_does() {
        let mut timers = Timers::new();
        assert_eq!(timers.pop_last_if(|_| true), None);
        for value in 0..10 {
            timers.insert(100 + value as u64, value);
        }
        assert_eq!(timers.pop_last_if(|value| *value == 3), None);
        assert_eq!(timers.pop_last_if(|value| *value == 9), Some(9));
        assert_eq!(drain(&mut timers), (0..9).collect::<Vec<_>>());
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
        fn most_are_taken_at_once_and_in_order(
            deadlines in prop::collection::vec(0_u64..1_000, 0..300), now in 0_u64..1_000,
        ) {
            let mut timers = Timers::new();
            for (index, deadline) in deadlines.iter().enumerate() {
                timers.insert(*deadline, index);
            }
            let mut expected: Vec<usize> = (0..deadlines.len()).collect();
            expected.sort_by_key(|index| deadlines[*index]);
            let due = deadlines.iter().filter(|deadline| **deadline <= now).count();
            let mut found: Vec<usize> = timers.drain_due(now).collect();
            prop_assert!(found.len() == due || (found.is_empty() && due < deadlines.len().max(2 * SORT_AT_LEAST)));
            timers.insert(now, deadlines.len());
            let rest: Vec<usize> = drain(&mut timers);
            prop_assert_eq!(rest.len() + found.len(), deadlines.len() + 1);
            found.extend(rest.into_iter().filter(|index| *index < deadlines.len()));
            prop_assert_eq!(found, expected);
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
