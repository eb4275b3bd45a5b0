//! When to look at the clock and at the kernel while work stays ready.
//!
//! A poll costs more than a callback, and reading the clock a quarter of one. So a busy loop asks the kernel every 50 µs,
//! or again at once when it had something; and it reads the clock after several callbacks, as long as they are fast.
//!
//! And whether to detach from the interpreter when nothing is ready. Detaching and coming back costs as much as a small
//! callback; a loaded server's next event is there already. So it is asked without detaching while that succeeds, but
//! for every eighth time: other threads wait for the interpreter meanwhile. And while work stays ready, the loop detaches
//! once in a while: callbacks in C never do.
//!
//! And whether a thread that wakes the loop lets go of the interpreter to do so. If it will wait for what it asked for,
//! it should: the loop finds the interpreter free, and has often answered before the thread goes on, where both would
//! have slept and woken each other twice. If it calls again and again, it should not: each call would be a switch of
//! threads. What it will do is what it did: one call for each sleep, or many.
//!
//! And how long the writes of a turn wait for its end. They leave together, which saves system calls, and the peer is woken
//! once. But who waits for them has nothing to do meanwhile: where both sides are loops, they would take turns instead of
//! working at the same time. A loop that runs out of work has time for sending sooner; one that never does is what the
//! others wait for, and waking them more often would slow it down.

/// While work stays ready, the kernel is asked for events this often (nanoseconds).
const POLL_EVERY: u64 = 50_000;
/// The clock is read after at most so many runnables.
const CLOCK_EVERY: u32 = 16;
/// While a turn goes on, what was written in it waits for about this long (nanoseconds)...
const WRITES_WAIT: u64 = 250_000;
/// ... or this long, when the loop did not run out of work the last so many times that it asked the kernel.
const WRITES_WAIT_BUSY: u64 = 2_000_000;
const BUSY_FROM: u32 = 8;

/// So many times in a row the kernel is asked without detaching.
const ATTEMPTS: u32 = 7;
/// While work stays ready, the loop detaches this often (nanoseconds), or at every so many switch intervals of Python,
/// whichever is rarer. A thread that waits for the interpreter asks for it when its wait was undisturbed for one such
/// interval, and then gets it: detaching that often would disturb it for ever, and be too short to get it.
const BREAK_EVERY: u64 = 50_000_000;
const BREAK_INTERVALS: u64 = 10;
/// After failed attempts, at most so many sleeps come before the next.
const LONGEST_PAUSE: u32 = 64;

/// After so many sleeps that a single call from another thread ended, the caller lets go of the interpreter to wake...
const LONE_CALLS: u32 = 2;
/// ... but for every so many, to see whether more calls would have come.
const PROBE_EVERY: u32 = 16;

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Runnables until the clock is read.
    left: u32,
    /// How many it was last time; doubles while callbacks are fast.
    step: u32,
    /// When the clock was read last (nanoseconds).
    read: u64,
    /// When the kernel was asked last (nanoseconds).
    polled: u64,
    /// The loop has slept since the clock was read: it was asked a moment ago.
    is_fresh: bool,
    /// Whether it had something then: it is asked again at once.
    found: bool,
    /// When the loop detaches next although work is ready (nanoseconds).
    next_break: u64,
    /// Attempts until the loop detaches again.
    attempts: u32,
    /// Sleeps until the next attempts.
    pause: u32,
    /// How many they were after the last failed attempt; doubles with each.
    last_pause: u32,
    /// How many attempts in a row have found something.
    successes: u32,
    /// How many sleeps in a row were ended by a single call from another thread.
    lone_calls: u32,
}

impl Pace {
    /// The kernel is asked on the next turn: a run begins, or a descriptor is registered that may be ready by now.
    pub(super) fn ask_next(&mut self) {
        (self.left, self.step, self.found) = (0, 0, true);
    }

    /// A sleep has ended, and nobody has looked at the clock: if there is more to run, the time counts from the next
    /// look.
    pub(super) fn note_sleep(&mut self) {
        (self.left, self.step, self.found, self.is_fresh) = (0, 0, false, true);
    }

    /// Nothing is ready; true: ask the kernel once before detaching.
    #[inline]
    pub(super) fn is_attempt_due(&mut self) -> bool {
        if self.attempts > 0 {
            return true;
        }
        if self.pause > 0 {
            self.pause -= 1;
        } else {
            self.attempts = ATTEMPTS;
        }
        false
    }

    /// Notes whether the kernel had something.
    #[inline]
    pub(super) fn note_attempt(&mut self, found: bool) {
        if found {
            (self.attempts, self.last_pause) = (self.attempts - 1, 0);
            self.successes = self.successes.saturating_add(1);
        } else {
            self.successes = 0;
            self.last_pause = (self.last_pause * 2).clamp(1, LONGEST_PAUSE);
            (self.attempts, self.pause) = (0, self.last_pause);
        }
    }

    /// How long writes may wait for the end of their turn (nanoseconds).
    #[inline]
    pub(super) fn writes_wait(&self) -> u64 {
        if self.successes < BUSY_FROM { WRITES_WAIT } else { WRITES_WAIT_BUSY }
    }

    /// Another thread has ended a sleep, and so many runnables are ready now that the loop is attached again.
    #[inline]
    pub(super) fn note_woken(&mut self, runnables: usize) {
        self.lone_calls = if runnables == 1 { self.lone_calls + 1 } else { 0 };
        if self.lone_calls == LONE_CALLS + PROBE_EVERY {
            self.lone_calls = LONE_CALLS - 1;
        }
    }

    /// Another thread, which is attached, is about to end a sleep; true: it should let go of the interpreter for that.
    #[inline]
    pub(super) fn is_hand_over_due(&self) -> bool {
        self.lone_calls >= LONE_CALLS
    }

    /// Counts what is about to run; true: time to read the clock.
    pub(super) fn is_clock_due(&mut self, runnables: usize) -> bool {
        let count = u32::try_from(runnables).unwrap_or(u32::MAX);
        if self.left > count {
            self.left -= count;
            return false;
        }
        true
    }

    /// Notes that it is `now`; true: time to ask the kernel.
    pub(super) fn is_poll_due(&mut self, now: u64) -> bool {
        // Slow callbacks: look at the clock after each of them. Fast ones: ever less often.
        let was_slow = now.saturating_sub(self.read) >= POLL_EVERY;
        self.step = if was_slow { 1 } else { (self.step * 2).clamp(1, CLOCK_EVERY) };
        (self.left, self.read) = (self.step, now);
        if std::mem::take(&mut self.is_fresh) {
            self.polled = now;
        }
        self.found || now.saturating_sub(self.polled) >= POLL_EVERY
    }

    /// Before a poll at `now`; true: it is time to detach for it.
    pub(super) fn is_break_due(&self, now: u64) -> bool {
        now >= self.next_break
    }

    /// Notes a break at `now`; `interval`: the switch interval of Python (nanoseconds).
    pub(super) fn note_break(&mut self, now: u64, interval: u64) {
        self.next_break = now.saturating_add(BREAK_EVERY.max(interval.saturating_mul(BREAK_INTERVALS)));
    }

    pub(super) fn note_poll(&mut self, now: u64, found: bool) {
        (self.polled, self.found) = (now, found);
    }
}

/// How long what was written in a turn has waited.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// When it was first looked at (nanoseconds).
    begun: Option<u64>,
    /// Runnables since then.
    run: u32,
    /// Runnables until the clock is read.
    left: u32,
}

impl Patience {
    /// Counts what has run while something waits; true: time to read the clock.
    #[inline]
    pub(super) fn is_clock_due(&mut self) -> bool {
        self.run = self.run.saturating_add(u32::from(self.begun.is_some()));
        self.left = self.left.saturating_sub(1);
        self.left == 0
    }

    /// Notes that it is `now`, and how long writes may wait; true: they are sent, and patience begins anew.
    pub(super) fn is_over(&mut self, now: u64, limit: u64) -> bool {
        let waited = now.saturating_sub(*self.begun.get_or_insert(now));
        if waited >= limit {
            *self = Self::default();
            return true;
        }
        // At the pace so far, so many more may run.
        let rest = u64::from(self.run) * (limit - waited) / waited.max(1);
        self.left = u32::try_from(rest).unwrap_or(u32::MAX).clamp(1, CLOCK_EVERY);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::{ATTEMPTS, BREAK_EVERY, BREAK_INTERVALS, BUSY_FROM, CLOCK_EVERY, LONE_CALLS, LONGEST_PAUSE};
    use super::{POLL_EVERY, PROBE_EVERY, Pace, Patience, WRITES_WAIT, WRITES_WAIT_BUSY};

    /// Sleeps so often; `is_there` tells what an attempt finds. How many attempts were made.
    fn sleep(pace: &mut Pace, times: u32, is_there: bool) -> u32 {
        (0..times).map(|_| u32::from(pace.is_attempt_due().then(|| pace.note_attempt(is_there)).is_some())).sum()
    }

    #[test]
    fn under_load_every_eighth_sleep_detaches() {
        let mut pace = Pace::default();
        assert_eq!(sleep(&mut pace, 10 * (ATTEMPTS + 1), true), 10 * ATTEMPTS);
    }

    #[test]
    fn an_idle_loop_hardly_attempts_and_a_busy_one_does_at_once() {
        let mut pace = Pace::default();
        sleep(&mut pace, 1_000, false);
        assert!(sleep(&mut pace, 100 * LONGEST_PAUSE, false) <= 100);
        // At most one pause later.
        sleep(&mut pace, LONGEST_PAUSE + 1, true);
        assert_eq!(sleep(&mut pace, ATTEMPTS + 1, true), ATTEMPTS);
    }

    /// Counts single runnables until the clock is due.
    fn runnables_until_clock(pace: &mut Pace) -> u32 {
        (1..=2 * CLOCK_EVERY).find(|_| pace.is_clock_due(1)).unwrap()
    }

    #[test]
    fn who_waits_for_its_call_lets_the_loop_in() {
        let mut pace = Pace::default();
        let hand_overs = |pace: &mut Pace, runnables, times: u32| {
            let wake = |_| {
                let is_due = pace.is_hand_over_due();
                pace.note_woken(runnables);
                u32::from(is_due)
            };
            (0..times).map(wake).sum::<u32>()
        };
        assert_eq!(hand_overs(&mut pace, 1, LONE_CALLS), 0);
        assert_eq!(hand_overs(&mut pace, 1, 10 * (PROBE_EVERY + 1)), 10 * PROBE_EVERY);
        assert!(hand_overs(&mut pace, 100, 10) <= 1);
    }

    #[test]
    fn the_clock_is_read_less_often_while_callbacks_are_fast() {
        let mut pace = Pace::default();
        pace.ask_next();
        assert!(pace.is_clock_due(1) && pace.is_poll_due(1_000));
        pace.note_poll(1_000, false);
        for now in 1..20 {
            runnables_until_clock(&mut pace);
            assert!(!pace.is_poll_due(1_000 + now));
        }
        assert_eq!(runnables_until_clock(&mut pace), CLOCK_EVERY);
    }

    #[test]
    fn after_a_slow_callback_it_is_read_every_time() {
        let mut pace = Pace::default();
        pace.note_poll(0, false);
        assert!(pace.is_poll_due(POLL_EVERY));
        assert_eq!(runnables_until_clock(&mut pace), 1);
    }

    #[test]
    fn a_busy_loop_detaches_now_and_then() {
        let mut pace = Pace::default();
        assert!(pace.is_break_due(1));
        pace.note_break(1, BREAK_EVERY / BREAK_INTERVALS / 2);
        assert!(!pace.is_break_due(BREAK_EVERY));
        assert!(pace.is_break_due(1 + BREAK_EVERY));
        pace.note_break(1, BREAK_EVERY);
        assert!(!pace.is_break_due(BREAK_EVERY * BREAK_INTERVALS));
        assert!(pace.is_break_due(1 + BREAK_EVERY * BREAK_INTERVALS));
    }

    #[test]
    fn work_that_follows_a_sleep_does_not_ask_again_at_once() {
        let mut pace = Pace::default();
        pace.note_sleep();
        assert!(pace.is_clock_due(1) && !pace.is_poll_due(1_000_000));
        assert!(pace.is_poll_due(1_000_000 + POLL_EVERY));
    }

    #[test]
    fn a_poll_that_found_something_is_followed_by_another() {
        let mut pace = Pace::default();
        pace.note_poll(1_000, true);
        assert!(pace.is_poll_due(1_001));
        pace.note_poll(1_001, false);
        assert!(!pace.is_poll_due(1_002));
    }

    /// Runs callbacks that take so long each, until what was written is sent. How long it has waited, and how often the
    /// clock was read.
    fn wait_for_writes(patience: &mut Patience, mut callback: impl FnMut() -> u64) -> (u64, u32) {
        let (mut now, mut reads) = (1_000_000, 0);
        loop {
            if patience.is_clock_due() {
                reads += 1;
                if patience.is_over(now, WRITES_WAIT) {
                    return (now - 1_000_000, reads);
                }
            }
            now += callback();
        }
    }

    #[test]
    fn writes_wait_longer_while_the_loop_never_runs_out_of_work() {
        let mut pace = Pace::default();
        assert_eq!(pace.writes_wait(), WRITES_WAIT);
        sleep(&mut pace, 2 * BUSY_FROM, true);
        assert_eq!(pace.writes_wait(), WRITES_WAIT_BUSY);
        sleep(&mut pace, ATTEMPTS + 1, false);
        assert_eq!(pace.writes_wait(), WRITES_WAIT);
    }

    #[test]
    fn writes_wait_for_fast_callbacks_and_few_slow_ones() {
        let mut patience = Patience::default();
        for (callback, most_reads) in [(1_000, 25), (5_000, 8), (30_000, 5), (WRITES_WAIT, 2), (10 * WRITES_WAIT, 2)] {
            let (waited, reads) = wait_for_writes(&mut patience, || callback);
            assert!((WRITES_WAIT..WRITES_WAIT + u64::from(CLOCK_EVERY) * 1_000 + callback).contains(&waited));
            assert!(reads <= most_reads, "{callback}: {reads} reads");
        }
    }

    #[test]
    fn writes_wait_for_a_few_callbacks_that_become_slow() {
        let mut calls = 0;
        let callback = || {
            calls += 1;
            if calls < 10 { 1_000 } else { 10 * WRITES_WAIT }
        };
        let (waited, _) = wait_for_writes(&mut Patience::default(), callback);
        assert!(waited <= 10 * WRITES_WAIT * u64::from(CLOCK_EVERY));
    }
}
