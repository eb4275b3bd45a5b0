//! The core of a loop: its state, and one turn.
//!
//! Owns the ready queue, the timers, the registered sources and the list of transports with unsent bytes. Invariants,
//! cited by number elsewhere:
//!
//! 1. No lock or cell borrow is held while Python runs: calls, but also drops of Python objects. Take out, release,
//!    then call or drop.
//! 2. A turn runs exactly the runnables that were ready when it began to run them, in order; FIFO holds across
//!    `call_soon` and `call_soon_threadsafe` made on the owner thread.
//! 3. A token is never reused within the batch of events in which it was freed (slot and generation); stale events are
//!    ignored.
//! 4. A descriptor is deregistered before it is closed (or closed by its only owner, which deregisters it), has one
//!    owner, and is closed once.
//! 5. No protocol method is called before `connection_made` or after `connection_lost`; `connection_lost` is always
//!    scheduled, never called from inside `close()`, `abort()` or `write()`, and is called exactly once.
//! 6. Every error of a registered descriptor ends in exactly one of: the waiter, `connection_lost(exc)`,
//!    `error_received`, the exception handler.
//! 7. The inbox is looked at after announcing "going to sleep" and before sleeping.
//! 8. Nothing that Python code, a peer or the kernel does may panic or abort. A panic becomes a Python exception.
//!
//! ```text
//! turn:  poll?  ──►  inbox, events, due timers  ──►  run the n that are ready  ──►  flush  ──►  stopping?
//!         │
//!         ├ nothing is ready: announce sleep, look again, wait for an event or the next timer (detached)
//!         ├ the last poll was 50 µs ago, or found something, or a timer is due: poll without waiting
//!         └ else: no poll; it costs more than a callback; if the turn stops the loop, it is made up for at its end
//! ```

use super::owned::{Owned, Runnable, Timer};
use super::pace::Patience;
use super::run::Run;
use super::{Loop, Shared};
use crate::errors;
use crate::py::address::Peers;
use crate::py::context::Entered;
use crate::py::names;
use crate::reactor::poller::Events;
use crate::sys::clock::{self, Limit};
use crate::sys::datagram::Slots;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::collections::VecDeque;
use std::io;

/// Shorter waits end exactly, if it matters (nanoseconds); in longer ones the kernel's tolerance of 50 µs does not.
const EXACT_BELOW: u64 = 20_000_000;
/// Room for the events of one poll.
const EVENTS_AT_ONCE: usize = 512;
/// The size of a small read (bytes): the scratch that all transports share.
pub(crate) const SCRATCH: usize = 64 * 1024;

/// What a turn does before it runs what is ready.
enum Plan {
    /// Run what is in the batch by now.
    Go,
    /// Ask the kernel without waiting; it is this late (nanoseconds).
    Poll(u64),
    /// Nothing is ready.
    Sleep,
}

/// What a run of the loop needs beside the state of the loop itself.
#[derive(Debug)]
pub(crate) struct Turns {
    events: Events,
    /// What this turn runs.
    batch: VecDeque<Runnable>,
    /// Cancelled timers, which must die outside the cell.
    dead: Vec<Timer>,
    pub(crate) entered: Entered,
    pub(crate) scratch: Scratch,
}

/// What the reads of all transports share; made when it is first needed.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// For small reads of streams.
    bytes: Vec<u8>,
    /// For datagrams of the internet and of Unix sockets; None also while it is in use.
    pub(crate) slots: [Option<Box<Slots>>; 2],
    pub(crate) peers: Peers,
}

impl Scratch {
    #[inline]
    pub(crate) fn get_mut(&mut self) -> &mut [u8] {
        if self.bytes.is_empty() {
            self.bytes.resize(SCRATCH, 0);
        }
        &mut self.bytes
    }
}

impl Turns {
    pub(crate) fn new() -> Self {
        Self {
            events: Events::with_capacity(EVENTS_AT_ONCE),
            batch: VecDeque::new(),
            dead: Vec::new(),
            entered: Entered::default(),
            scratch: Scratch::default(),
        }
    }
}

impl Loop {
    /// Has the next turn ask the kernel, as each of asyncio's does: the first of a run, and one that somebody counts on.
    pub(crate) fn ask_kernel(&self, py: Python<'_>) {
        self.owned.with(py, |owned| owned.pace.ask_next());
    }

    /// One turn: see the module's picture.
    pub(crate) fn turn(slf: &Bound<'_, Self>, shared: &Shared, turns: &mut Turns) -> PyResult<()> {
        let py = slf.py();
        let core = slf.get();
        let (has_polled, waited) = match core.plan(py, shared, &mut turns.batch) {
            Plan::Go => (false, Ok(())),
            Plan::Poll(now) => (true, Self::poll_and_collect(slf, shared, turns, now)),
            Plan::Sleep => {
                let left = turns.entered.leave(py);
                let waited = core.sleep(slf, shared, turns);
                let collected = core.collect(slf, shared, turns, None);
                (true, left.and(waited).and(collected))
            }
        };
        core.metrics.note_turn(turns.batch.len());
        let mut outcome = waited.and_then(|()| Self::run_batch(slf, turns));
        if core.is_stopping() && !has_polled {
            outcome = outcome.and_then(|()| Self::run_last(slf, shared, turns));
        }
        if let Err(error) = outcome {
            return Self::end_turn(slf, turns, error);
        }
        if core.owned.with(py, |owned| owned.unflushed.is_empty()) {
            return Ok(());
        }
        match turns.entered.leave(py) {
            Ok(()) => core.flush(slf),
            Err(error) => Self::end_turn(slf, turns, error),
        }
    }

    /// Asks the kernel without waiting, and puts what it brought behind what is ready. A signal handler may raise, or the
    /// program's clock; an edge is not told again: what the kernel reported is in the batch by then.
    fn poll_and_collect(slf: &Bound<'_, Self>, shared: &Shared, turns: &mut Turns, now: u64) -> PyResult<()> {
        // Signal handlers run in no context of a callback's.
        let left = turns.entered.leave(slf.py());
        let waited = slf.get().poll(slf.py(), shared, turns, now);
        let collected = slf.get().collect(slf, shared, turns, Some(now));
        left.and(waited).and(collected)
    }

    /// Runs the batch, until it is empty or an exception leaves the loop.
    #[inline]
    fn run_batch(slf: &Bound<'_, Self>, turns: &mut Turns) -> PyResult<()> {
        let py = slf.py();
        let mut run = Run { core: slf, entered: &mut turns.entered, scratch: &mut turns.scratch };
        let mut patience = Patience::default();
        while let Some(runnable) = turns.batch.pop_front() {
            run.run(runnable)?;
            if turns.batch.is_empty() {
                break;
            }
            if slf.get().is_flush_due(py, &mut patience) {
                run.entered.leave(py)?;
                slf.get().flush(slf)?;
            }
        }
        Ok(())
    }

    /// The loop was stopped in a turn without a poll: what asyncio's turn would have begun with, events and due timers,
    /// is run at its end. What was scheduled in it stays for the next run.
    #[cold]
    fn run_last(slf: &Bound<'_, Self>, shared: &Shared, turns: &mut Turns) -> PyResult<()> {
        let py = slf.py();
        let core = slf.get();
        let scheduled = core.owned.with(py, |owned| owned.ready.len());
        let collected = Self::poll_and_collect(slf, shared, turns, clock::monotonic());
        core.owned.with(py, |owned| {
            let scheduled = scheduled.min(turns.batch.len());
            let mut later: VecDeque<Runnable> = turns.batch.drain(..scheduled).collect();
            later.append(&mut owned.ready);
            owned.ready = later;
        });
        core.metrics.note_more(turns.batch.len());
        collected?;
        Self::run_batch(slf, turns)
    }

    /// An exception leaves the loop: what did not run yet stays, before what was scheduled since, and what was written
    /// is sent.
    #[cold]
    fn end_turn(slf: &Bound<'_, Self>, turns: &mut Turns, error: PyErr) -> PyResult<()> {
        let py = slf.py();
        slf.get().metrics.note_left(turns.batch.len());
        slf.get().owned.with(py, |owned| {
            turns.batch.append(&mut owned.ready);
            std::mem::swap(&mut owned.ready, &mut turns.batch);
        });
        // The first exception counts.
        drop((turns.entered.leave(py), slf.get().flush(slf)));
        Err(error)
    }

    /// More runnables follow; true: what was written before has waited for enough of them.
    #[inline]
    fn is_flush_due(&self, py: Python<'_>, patience: &mut Patience) -> bool {
        let limit = self.owned.with(py, |owned| (!owned.unflushed.is_empty()).then(|| owned.pace.writes_wait()));
        limit.is_some_and(|limit| patience.is_clock_due() && patience.is_over(clock::monotonic(), limit))
    }

    /// Sends what transports were given in this turn.
    fn flush(&self, slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let lone = |owned: &mut Owned| if owned.unflushed.len() == 1 { owned.unflushed.pop() } else { None };
        if let Some(source) = self.owned.with(py, lone) {
            return source.flush(slf);
        }
        let mut unflushed = self.owned.with(py, |owned| std::mem::take(&mut owned.unflushed));
        let mut outcome = Ok(());
        for source in unflushed.drain(..) {
            outcome = outcome.and(source.flush(slf));
        }
        // The list's memory is kept, unless something was written meanwhile.
        self.owned.with(py, |owned| {
            if owned.unflushed.is_empty() {
                owned.unflushed = unflushed;
            }
        });
        outcome
    }

    /// What comes next; a plain [`Plan::Go`], the most frequent one, has moved what is ready into the batch.
    #[inline]
    fn plan(&self, py: Python<'_>, shared: &Shared, batch: &mut VecDeque<Runnable>) -> Plan {
        let is_stopping = self.is_stopping();
        self.owned.with(py, |owned| {
            if owned.ready.is_empty() && owned.unflushed.is_empty() && !is_stopping {
                return Plan::Sleep;
            }
            // The program's clock may have moved since: who moves it counts on the next turn.
            let is_due = self.overridden.has_time();
            if owned.pace.is_clock_due(owned.ready.len()) || is_due {
                let now = clock::monotonic();
                let is_timer_due = owned.timers.first().is_some_and(|(deadline, _)| deadline <= now);
                if owned.pace.is_poll_due(now) || is_timer_due || is_due {
                    return Plan::Poll(now);
                }
                // Who posts here is not attached: it has no place in the order of the ready queue.
                owned.ready.extend(shared.inbox.drain());
            }
            std::mem::swap(&mut owned.ready, batch);
            Plan::Go
        })
    }

    /// Asks the kernel without waiting.
    fn poll(&self, py: Python<'_>, shared: &Shared, turns: &mut Turns, now: u64) -> PyResult<()> {
        let events = &mut turns.events;
        let outcome = if self.owned.with(py, |owned| owned.pace.is_break_due(now)) {
            let interval = names::switch_interval(py)?;
            self.owned.with(py, |owned| owned.pace.note_break(now, interval));
            py.detach(|| shared.poller.wait(events, Limit::Now))
        } else {
            shared.poller.wait(events, Limit::Now)
        };
        outcome.or_else(|error| interrupted(py, &error))?;
        py.check_signals()
    }

    /// Waits for the next event or timer, detached from the interpreter if it must wait.
    fn sleep(&self, slf: &Bound<'_, Self>, shared: &Shared, turns: &mut Turns) -> PyResult<()> {
        let py = slf.py();
        let (is_attempt_due, is_tidy) = self.owned.with(py, |owned| (owned.pace.is_attempt_due(), owned.is_tidy(py)));
        if is_attempt_due {
            shared.poller.wait(&mut turns.events, Limit::Now).or_else(|error| interrupted(py, &error))?;
            let found = !turns.events.is_empty();
            self.owned.with(py, |owned| owned.pace.note_attempt(found));
            if found {
                return py.check_signals();
            }
        }
        if !is_tidy {
            self.tidy(py, turns);
        }
        // Those of an earlier poll.
        turns.events.clear();
        turns.entered.forget(py)?;
        // A signal that came when no Python code ran would be slept over: nobody has called its handler yet.
        py.check_signals()?;
        // What died, and the handler, may have set timers.
        let wake_up = self.owned.with(py, |owned| owned.timers.wake_up());
        let limit = match wake_up {
            None => Limit::Never,
            Some(wake_up) => match wake_up.deadline.saturating_sub(Self::timers_now(slf)?) {
                0 => Limit::Now,
                nanoseconds if wake_up.is_exact && nanoseconds < EXACT_BELOW => Limit::Exactly(nanoseconds),
                nanoseconds => Limit::Roughly(nanoseconds),
            },
        };
        if limit == Limit::Now {
            shared.poller.wait(&mut turns.events, Limit::Now).or_else(|error| interrupted(py, &error))?;
            return py.check_signals();
        }
        shared.inbox.park();
        let has_work = !shared.inbox.is_empty() || self.owned.with(py, |owned| !owned.ready.is_empty());
        let outcome = if has_work || self.is_stopping() {
            Ok(())
        } else {
            let events = &mut turns.events;
            self.metrics.begin_wait();
            py.detach(|| {
                let outcome = shared.poller.wait(events, limit);
                self.metrics.end_wait();
                outcome
            })
        };
        if shared.inbox.unpark() {
            self.owned.with(py, |owned| owned.pace.note_woken(owned.ready.len()));
        }
        outcome.or_else(|error| interrupted(py, &error))?;
        // A signal handler may have scheduled something: the next turn looks before it sleeps again.
        py.check_signals()
    }

    /// Before a sleep: lets go of what was kept for the next callbacks, and need not outlive them.
    fn tidy(&self, py: Python<'_>, turns: &mut Turns) {
        let unneeded = self.owned.with(py, |owned| {
            // Cancelled timers at the top would wake the loop for nothing, and those that left hold their contexts.
            turns.dead.extend(owned.cancelled_timers.drain(..).map(Timer::Native));
            owned.take_due(py, 0, &mut turns.dead);
            (owned.trim_pools(), owned.snapshot.take())
        });
        self.recycle_dead(py, turns);
        drop(unneeded);
    }

    /// Makes ready what the poll brought and the timers that are due; `now`: when the poll began, if that is known.
    fn collect(&self, slf: &Bound<'_, Self>, shared: &Shared, turns: &mut Turns, now: Option<u64>) -> PyResult<()> {
        let py = slf.py();
        let program_time = if self.overridden.has_time() { Some(Self::timers_now(slf)) } else { None };
        let dead = &mut turns.dead;
        let batch = &mut turns.batch;
        self.owned.with(py, |owned| {
            owned.ready.extend(shared.inbox.drain());
            let found = !turns.events.is_empty();
            if found {
                owned.take_events(py, &turns.events);
            }
            // After a sleep the clock is read for the timers only.
            match now {
                Some(now) => owned.pace.note_poll(now, found),
                None => owned.pace.note_sleep(),
            }
            if owned.timers.first().is_some() {
                let time = match &program_time {
                    None => clock::monotonic(),
                    Some(time) => time.as_ref().copied().unwrap_or(0),
                };
                owned.take_due(py, time, dead);
            }
            std::mem::swap(&mut owned.ready, batch);
        });
        if !turns.dead.is_empty() {
            self.recycle_dead(py, turns);
        }
        program_time.transpose().map(drop)
    }

    fn recycle_dead(&self, py: Python<'_>, turns: &mut Turns) {
        for timer in turns.dead.drain(..) {
            if let Timer::Native(timer) = timer {
                self.recycle_timer(py, timer);
            }
        }
    }
}

/// EINTR is no error: the caller looks at the signals next.
fn interrupted(py: Python<'_>, error: &io::Error) -> PyResult<()> {
    if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(errors::os_error(py, error)) }
}

/// A dictionary for the loop's exception handler.
pub(crate) fn error_context<'py>(py: Python<'py>, message: &str, error: &PyErr) -> PyResult<Bound<'py, PyDict>> {
    let context = PyDict::new(py);
    context.set_item("message", message)?;
    context.set_item("exception", errors::exception(py, error)?)?;
    Ok(context)
}
