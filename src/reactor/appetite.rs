//! How many datagrams the next read asks for.
//!
//! Facts of Linux, measured with datagrams of 64 bytes: waiting for one and receiving it costs 1.07 µs with
//! `recvfrom(2)`, and 1.34 µs with a `recvmmsg(2)` that finds only this one. With 32 waiting, each costs the latter
//! less than half. So a socket is asked for one at a time as long as its datagrams come one at a time, and now and
//! then for more, to find out.
//!
//! A lone reader whose protocol answers at once may find the next question there when the answer is out: it looks,
//! for 0.15 µs, as long as that mostly saves it the wait, which costs several times as much.
//!
//! Batches, and rows of single datagrams, are delivered without a look at other events or timers. Where a batch takes
//! long, the next one is smaller; a row ends.

/// The most that is asked for.
const MOST: usize = 32;
/// What a new socket is asked for: nobody knows yet how long its protocol takes.
const BEGIN: usize = 4;
/// So many batches of one make a lone reader.
const MISSES: u8 = 3;
/// It asks so many times for one datagram before it asks for more again.
const LONE: u8 = 16;
/// A batch that takes longer than this is too large (nanoseconds).
const SLOW: u64 = 100_000;
/// A row of single datagrams ends after this time (nanoseconds).
pub(crate) const LONGEST_ROW: u64 = 500_000;
/// What is hoped of the next look, at most. Each that finds something adds two, each that does not takes one: a look
/// costs a third of what it may save.
const MOST_HOPE: u8 = 8;
/// Without hope, every so many events are followed by a look.
const PATIENCE: u8 = 16;

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Appetite {
    /// What a batch asks for.
    limit: usize,
    /// Batches in a row that were none.
    misses: u8,
    /// So many more reads ask for one datagram only.
    lone: u8,
    /// Above 0: a look for the next datagram pays.
    hope: u8,
    /// Events since the last look.
    patience: u8,
}

impl Appetite {
    pub(crate) const fn new() -> Self {
        Self { limit: BEGIN, misses: 0, lone: 0, hope: 1, patience: 0 }
    }

    /// How many datagrams to ask for now.
    pub(crate) fn next(&mut self) -> usize {
        if self.lone > 0 {
            self.lone -= 1;
            return 1;
        }
        self.limit
    }

    /// Whether to look for another datagram right after one that was alone.
    pub(crate) fn looks_again(&mut self) -> bool {
        if self.hope > 0 {
            return true;
        }
        self.patience = (self.patience + 1) % PATIENCE;
        self.patience == 0
    }

    /// Notes whether such a look found something.
    pub(crate) fn note_look(&mut self, found: bool) {
        self.hope = if found { (self.hope + 2).min(MOST_HOPE) } else { self.hope.saturating_sub(1) };
    }

    /// Notes what a batch brought, one datagram or none at least.
    pub(crate) fn note_count(&mut self, count: usize) {
        self.misses = if count > 1 { 0 } else { self.misses + 1 };
        if self.misses >= MISSES {
            // The next batch decides alone.
            (self.misses, self.lone) = (MISSES - 1, LONE);
        }
    }

    /// Notes how long it took to deliver a batch of several (nanoseconds).
    pub(crate) fn note_time(&mut self, count: usize, time: u64) {
        if time > SLOW {
            self.limit = (self.limit / 2).max(2);
        } else if count >= self.limit && time < SLOW / 2 {
            self.limit = (self.limit * 2).min(MOST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Appetite, BEGIN, LONE, MISSES, MOST, MOST_HOPE, PATIENCE, SLOW};

    #[test]
    fn one_at_a_time_becomes_a_lone_reader_that_looks_up_now_and_then() {
        let mut appetite = Appetite::new();
        let mut asked = Vec::new();
        for _ in 0..100 {
            let count = appetite.next();
            if count > 1 {
                appetite.note_count(1);
            }
            asked.push(count);
        }
        let batches = asked.iter().filter(|count| **count > 1).count();
        assert_eq!(batches, usize::from(MISSES) + (100 - usize::from(MISSES)) / (usize::from(LONE) + 1));
        while appetite.next() == 1 {}
        appetite.note_count(2);
        assert!(appetite.next() > 1 && appetite.next() > 1);
    }

    #[test]
    fn looks_that_find_nothing_become_rare() {
        let mut appetite = Appetite::new();
        let mut looks = |found: bool| {
            let look = |_: &usize| {
                let looks = appetite.looks_again();
                if looks {
                    appetite.note_look(found);
                }
                looks
            };
            (0..160).filter(look).count()
        };
        assert_eq!(looks(true), 160);
        let rare = usize::from(160 / PATIENCE);
        assert!((rare..=rare + usize::from(MOST_HOPE)).contains(&looks(false)));
        assert!(looks(true) > 100);
    }

    #[test]
    fn full_and_quick_batches_grow_and_slow_ones_shrink() {
        let mut appetite = Appetite::new();
        assert_eq!(appetite.next(), BEGIN);
        for _ in 0..10 {
            let count = appetite.next();
            appetite.note_count(count);
            appetite.note_time(count, SLOW / 10);
        }
        assert_eq!(appetite.next(), MOST);
        for _ in 0..10 {
            appetite.note_time(MOST, SLOW * 10);
        }
        assert_eq!(appetite.next(), 2);
        appetite.note_time(1, 0);
        assert_eq!(appetite.next(), 2);
    }
}
