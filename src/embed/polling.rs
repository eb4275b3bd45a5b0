//! Polling a future, and again at once while it wakes itself: whose turn it is, how it is woken, and when it is over.
//!
//! Owns [`Wakefulness`], the state of whatever is woken, and this thread's notes about what it polls. Rules:
//!
//! 1. A wake-up by the thread that polls, of what it polls, is a note in that thread: no atomic operation, no queue. All
//!    others change the state, each by exactly one read-modify-write; also where the bit is set already.
//! 2. A turn that a future makes longer by waking itself is over after [`POLLS`] polls or [`LONGEST`], whichever is first.
//!
//! ```text
//!            wake: queue it                 begin
//!   IDLE ───────────────────► WOKEN ──────────────────────► RUNNING ◄─┐
//!    ▲                          ▲                            │  │     │ begin: poll once more
//!    │                          │ end: queue it         wake │  └─────┼────────── a note of this thread's
//!    │                          └──────── RUNNING|WOKEN ◄────┘        │
//!    │ end                                  └─────────────────────────┘
//!    └──── RUNNING
//! ```
//!
//! Memory order. Who wakes has written something before that the future must see when it is polled next. All changes of the
//! state but those of `RUNNING` to `IDLE` that fail are read-modify-writes with `AcqRel`, so they are in one order, and each
//! sees what was written before those that come first. Either `wake` comes before `begin`, and the poll that follows sees
//! what the waker wrote; or after it, and then it sets `WOKEN` on a state that is `RUNNING`, which `end` cannot miss. A
//! `wake` that only looked at the bit would be in no order with `begin`: both could see the old value of what the other
//! has written (the store buffers of any processor do that), and the wake-up would be lost. The notes need no order:
//! one thread writes and reads them.

use crate::sys::clock;
use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Poll;

/// So many polls a turn has at most.
const POLLS: u32 = 1024;
/// What gives up its turn, and each of several that are ready, counts as so many.
const YIELD: u32 = 16;
/// A turn lasts so long at most, and the poll in which that is seen (nanoseconds).
const LONGEST: u64 = 50_000;
/// The clock is read after the first poll, and then after ever more: at most so many.
const LOOK_EVERY: u32 = 128;

const IDLE: u8 = 0;
const RUNNING: u8 = 1;
const WOKEN: u8 = 2;

/// Whether something waits, is to be polled, or is polled: see the module's picture.
#[derive(Debug)]
pub(super) struct Wakefulness(AtomicU8);

impl Wakefulness {
    /// It waits to be woken.
    pub(super) const fn idle() -> Self {
        Self(AtomicU8::new(IDLE))
    }

    /// Wakes it, from any thread; true: the caller must have it polled.
    #[inline]
    pub(super) fn wake(&self) -> bool {
        !NOW.with(|now| now.note_wake(self)) && self.0.fetch_or(WOKEN, Ordering::AcqRel) == IDLE
    }

    /// It is about to be polled.
    fn begin(&self) {
        self.0.swap(RUNNING, Ordering::AcqRel);
    }

    /// It waits again; false: it was woken meanwhile, and the caller must have it polled.
    pub(super) fn end(&self) -> bool {
        if self.0.compare_exchange(RUNNING, IDLE, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            return true;
        }
        self.0.swap(WOKEN, Ordering::AcqRel);
        false
    }

    /// Whether it was woken since it was polled.
    pub(super) fn is_woken(&self) -> bool {
        self.0.load(Ordering::Relaxed) & WOKEN != 0
    }
}

/// This thread's notes.
struct Now {
    /// What is polled: the innermost, if a poll polls in turn.
    polled: Cell<*const Wakefulness>,
    /// This thread has woken it since its poll began.
    is_woken: Cell<bool>,
    /// It has given up its turn.
    has_yielded: Cell<bool>,
    /// Nothing else waits for this turn.
    is_alone: Cell<bool>,
    turn: Cell<Turn>,
}

/// How far a turn has come.
#[derive(Clone, Copy)]
struct Turn {
    polls: u32,
    /// At so many polls the clock is read, and next after this many more.
    next_look: u32,
    step: u32,
    /// When it was read first (nanoseconds); 0: not yet.
    begun: u64,
}

impl Turn {
    const fn new() -> Self {
        Self { polls: 0, next_look: 1, step: 1, begun: 0 }
    }
}

thread_local! {
    static NOW: Now = const {
        Now {
            polled: Cell::new(ptr::null()),
            is_woken: Cell::new(false),
            has_yielded: Cell::new(false),
            is_alone: Cell::new(false),
            turn: Cell::new(Turn::new()),
        }
    };
}

impl Now {
    #[inline]
    fn note_wake(&self, whom: &Wakefulness) -> bool {
        let is_polled = ptr::eq(self.polled.get(), whom);
        if is_polled {
            self.is_woken.set(true);
        }
        is_polled
    }

    /// After a poll whose future was woken; true: it may be polled again at once.
    #[inline]
    fn goes_on(&self) -> bool {
        if !self.has_yielded.get() {
            return self.spend(1);
        }
        if !self.is_alone.get() {
            return false;
        }
        self.has_yielded.set(false);
        self.spend(YIELD)
    }

    /// Counts what was done in this turn, in polls; true: there is time for more.
    #[inline]
    fn spend(&self, polls: u32) -> bool {
        let mut turn = self.turn.get();
        turn.polls = turn.polls.saturating_add(polls);
        let goes_on = turn.polls < turn.next_look || Self::look(&mut turn);
        self.turn.set(turn);
        goes_on
    }

    /// Looks at the clock; true: there is time left.
    #[inline(never)]
    fn look(turn: &mut Turn) -> bool {
        let now = clock::monotonic();
        if turn.begun == 0 {
            turn.begun = now;
        }
        if turn.polls >= POLLS || now - turn.begun >= LONGEST {
            // Whoever asks again in this turn comes here again.
            turn.next_look = 0;
            return false;
        }
        turn.next_look = (turn.polls + turn.step).min(POLLS);
        turn.step = (turn.step * 2).min(LOOK_EVERY);
        true
    }
}

/// While it lasts, this thread has a turn of its own for what it polls; it may be inside another one.
pub(super) struct OwnTurn {
    previous: Turn,
    was_alone: bool,
}

impl OwnTurn {
    /// Begins one for something that nothing is known to wait beside.
    pub(super) fn begin() -> Self {
        NOW.with(|now| Self { previous: now.turn.replace(Turn::new()), was_alone: now.is_alone.replace(false) })
    }

    /// Notes whether nothing else waits: then who gives up the turn may have it back.
    pub(super) fn note_alone(is_alone: bool) {
        NOW.with(|now| now.is_alone.set(is_alone));
    }

    /// As [`Self::note_alone`], for something more; false: there is no time for it in this turn.
    pub(super) fn goes_on(is_alone: bool) -> bool {
        NOW.with(|now| {
            now.is_alone.set(is_alone);
            now.spend(YIELD)
        })
    }
}

impl Drop for OwnTurn {
    fn drop(&mut self) {
        NOW.with(|now| {
            now.turn.set(self.previous);
            now.is_alone.set(self.was_alone);
        });
    }
}

/// Has who polls in this thread let others have their turn.
pub(super) fn yield_turn() {
    NOW.with(|now| now.has_yielded.set(true));
}

/// Notes of an outer poll, which come back with the end of an inner one, also by a panic.
struct Outer<'a> {
    now: &'a Now,
    polled: *const Wakefulness,
    is_woken: bool,
    has_yielded: bool,
}

impl Drop for Outer<'_> {
    fn drop(&mut self) {
        self.now.polled.set(self.polled);
        self.now.is_woken.set(self.is_woken);
        self.now.has_yielded.set(self.has_yielded);
    }
}

/// Polls, and again while that wakes `wakefulness`, as long as the turn lasts. After Pending, the caller stores what it has
/// and calls [`Wakefulness::end`].
pub(super) fn poll<R>(wakefulness: &Wakefulness, mut poll: impl FnMut() -> Poll<R>) -> Poll<R> {
    NOW.with(|now| {
        let _outer = Outer {
            now,
            polled: now.polled.replace(wakefulness),
            is_woken: now.is_woken.replace(false),
            has_yielded: now.has_yielded.replace(false),
        };
        wakefulness.begin();
        loop {
            let polled = poll();
            if polled.is_ready() {
                return polled;
            }
            let is_noted = now.is_woken.take();
            if !is_noted && !wakefulness.is_woken() {
                return polled;
            }
            if !now.goes_on() {
                wakefulness.0.fetch_or(WOKEN, Ordering::AcqRel);
                return polled;
            }
            if !is_noted {
                wakefulness.begin();
            }
        }
    })
}

/// Inside a poll: polls a part of what is polled, and again while this thread wakes it.
///
/// The part may have woken another part instead: so the whole is polled once more in any case.
#[cfg(feature = "async-runtimes")]
pub(crate) fn poll_part<R>(mut poll: impl FnMut() -> Poll<R>) -> Poll<R> {
    /// Leaves the note that it found or made.
    struct Note<'a>(&'a Now, bool);

    impl Drop for Note<'_> {
        fn drop(&mut self) {
            if self.1 {
                self.0.is_woken.set(true);
            }
        }
    }

    NOW.with(|now| {
        let mut note = Note(now, now.is_woken.take());
        loop {
            let polled = poll();
            if polled.is_ready() || !now.is_woken.take() {
                return polled;
            }
            note.1 = true;
            if !now.goes_on() {
                return polled;
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::{LONGEST, OwnTurn, POLLS, Wakefulness, YIELD, poll, yield_turn};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Poll;
    use std::thread;
    use std::time::{Duration, Instant};

    /// Polls what never becomes ready; how often.
    fn polls(wakefulness: &Wakefulness, mut each: impl FnMut(usize)) -> usize {
        let mut count = 0;
        let polled = poll(wakefulness, || {
            count += 1;
            each(count);
            Poll::<()>::Pending
        });
        assert!(polled.is_pending());
        count
    }

    #[test]
    fn what_is_not_woken_is_polled_once() {
        let wakefulness = Wakefulness::idle();
        assert_eq!(polls(&wakefulness, |_| ()), 1);
        assert!(wakefulness.end());
        assert!(wakefulness.wake());
        assert!(!wakefulness.wake());
        assert!(wakefulness.is_woken());
    }

    /// At least once: a busy machine may use up a turn.
    fn in_time(mut action: impl FnMut() -> bool) {
        assert!((0..1000).any(|_| {
            let _turn = OwnTurn::begin();
            action()
        }));
    }

    #[test]
    fn what_wakes_itself_is_polled_again_until_it_stops() {
        let wakefulness = Wakefulness::idle();
        in_time(|| polls(&wakefulness, |count| assert!(count >= 5 || !wakefulness.wake())) == 5 && wakefulness.end());
    }

    #[test]
    fn what_wakes_itself_for_ever_has_a_turn_and_is_queued() {
        let wakefulness = Wakefulness::idle();
        in_time(|| polls(&wakefulness, |_| assert!(!wakefulness.wake())) == POLLS as usize);
        assert!(!wakefulness.end());
    }

    #[test]
    fn a_turn_of_slow_polls_is_short() {
        let wakefulness = Wakefulness::idle();
        let _turn = OwnTurn::begin();
        let slow = |_| {
            let start = Instant::now();
            while start.elapsed() < Duration::from_nanos(LONGEST) {}
            wakefulness.wake();
        };
        assert_eq!(polls(&wakefulness, slow), 2);
        // There is no time left for others either.
        assert!(!OwnTurn::goes_on(false));
    }

    #[test]
    fn who_gives_up_the_turn_has_it_back_if_nobody_else_waits() {
        let wakefulness = Wakefulness::idle();
        let _turn = OwnTurn::begin();
        let yielding = |_| {
            yield_turn();
            assert!(!wakefulness.wake());
        };
        assert_eq!(polls(&wakefulness, yielding), 1);
        assert!(!wakefulness.end());
        in_time(|| OwnTurn::goes_on(true) && polls(&wakefulness, yielding) == (POLLS / YIELD) as usize - 1);
    }

    #[test]
    fn a_wake_up_of_the_outer_one_is_not_the_inner_ones() {
        let (outer, inner) = (Wakefulness::idle(), Wakefulness::idle());
        let _turn = OwnTurn::begin();
        let nested = |count| {
            if count == 1 {
                assert_eq!(polls(&inner, |_| assert!(!outer.wake())), 1);
                assert!(inner.end());
            }
        };
        assert_eq!(polls(&outer, nested), 2);
        assert!(outer.end());
    }

    #[cfg(feature = "async-runtimes")]
    #[test]
    fn a_part_that_wakes_itself_has_the_whole_polled_once_more() {
        let wakefulness = Wakefulness::idle();
        in_time(|| {
            let mut parts = 0;
            let mut part = || {
                parts += 1;
                assert!(parts >= 5 || !wakefulness.wake());
                Poll::<()>::Pending
            };
            let wholes = polls(&wakefulness, |_| assert!(super::poll_part(&mut part).is_pending()));
            wholes == 2 && parts == 6 && wakefulness.end()
        });
    }

    /// What another thread has written before it woke is seen by a later poll, however the two meet.
    #[test]
    fn no_wake_up_is_lost() {
        const COUNT: usize = if cfg!(miri) { 100 } else { 100_000 };
        let wakefulness = Wakefulness::idle();
        let (asked, answered) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let queued = AtomicUsize::new(0);
        thread::scope(|scope| {
            scope.spawn(|| {
                for number in 1..=COUNT {
                    asked.store(number, Ordering::Relaxed);
                    if wakefulness.wake() {
                        queued.fetch_add(1, Ordering::Release);
                    }
                    // Now and then it lets the other come to rest, so that it must be queued.
                    while number % 3 == 0 && answered.load(Ordering::Relaxed) < number {
                        thread::yield_now();
                    }
                }
            });
            let mut taken = 0;
            while answered.load(Ordering::Relaxed) < COUNT {
                if queued.load(Ordering::Acquire) == taken {
                    thread::yield_now();
                    continue;
                }
                taken += 1;
                loop {
                    let _turn = OwnTurn::begin();
                    polls(&wakefulness, |_| answered.store(asked.load(Ordering::Relaxed), Ordering::Relaxed));
                    if wakefulness.end() {
                        break;
                    }
                }
            }
        });
        assert_eq!(answered.into_inner(), COUNT);
    }
}
