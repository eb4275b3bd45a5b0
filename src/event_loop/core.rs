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
//!         └ else: no poll; it costs more than a callback
//! ```

use super::handle::{Handle, TimerHandle};
use super::run::Run;
use super::source::{Event, Source};
use super::watch::Watch;
use super::{Loop, Shared};
use crate::errors;
use crate::py::context::Entered;
use crate::reactor::poller::{self, Events, LEVEL_NEEDS_REARM, Token};
use crate::reactor::timers::Timers;
use crate::sys::clock;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use slotmap::{DefaultKey, Key, KeyData, SlotMap};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::RawFd;

/// While work stays ready, the kernel is asked for events this often (nanoseconds).
const POLL_EVERY: u64 = 50_000;
/// The clock is read after at most so many runnables: reading it costs a quarter of a callback.
const CLOCK_EVERY: u32 = 16;
/// Room for the events of one poll.
const EVENTS_AT_ONCE: usize = 512;
/// The size of a small read (bytes): the scratch that all transports share.
pub(crate) const SCRATCH: usize = 64 * 1024;
/// So many handles are kept for the next `call_soon`.
pub(crate) const POOL: usize = 1024;

/// Something that a turn runs.
#[derive(Debug)]
pub(crate) enum Runnable {
    Handle(Py<Handle>),
    Timer(Py<TimerHandle>),
    /// A handle made by asyncio's own classes: debug mode, signal handlers.
    Foreign(Py<PyAny>),
    /// What happened to a transport or listener.
    Event(Source, Event),
    /// A level-triggered registration where the platform only has edges.
    Rearm(Token),
}

/// Something that waits for its time.
#[derive(Debug)]
pub(crate) enum Timer {
    Native(Py<TimerHandle>),
    Foreign(Py<PyAny>),
}

/// What is registered under a token.
#[derive(Debug)]
pub(crate) enum Registered {
    Watch(Watch),
    Source(Source),
}

/// The state that the owner thread works on.
#[derive(Debug, Default)]
pub(crate) struct Owned {
    pub(crate) ready: VecDeque<Runnable>,
    pub(crate) timers: Timers<Timer>,
    sources: SlotMap<DefaultKey, Registered>,
    /// The token of every registered descriptor.
    fds: HashMap<RawFd, Token>,
    /// Transports that have unsent bytes from this turn.
    pub(crate) unflushed: Vec<Source>,
    /// Handles to be used again.
    pub(crate) pool: Vec<Py<Handle>>,
    pace: Pace,
}

/// When to look at the clock and at the kernel while work stays ready.
#[derive(Debug, Default)]
struct Pace {
    /// Runnables until the clock is read.
    left: u32,
    /// How many it was last time; doubles while callbacks are fast.
    step: u32,
    /// When the clock was read last (nanoseconds).
    read: u64,
    /// When the kernel was asked last (nanoseconds).
    polled: u64,
    /// Whether it had something then: it is asked again at once.
    found: bool,
}

/// What a turn does before it runs what is ready.
enum Plan {
    /// Run.
    Go,
    /// Ask the kernel without waiting.
    Poll,
    /// Nothing is ready.
    Sleep,
}

impl Pace {
    /// After a run began or a sleep ended: the kernel is asked on the next turn.
    fn reset(&mut self) {
        (self.left, self.step, self.found) = (0, 0, true);
    }

    /// Counts what is about to run; true: time to read the clock.
    fn is_clock_due(&mut self, runnables: usize) -> bool {
        let count = u32::try_from(runnables).unwrap_or(u32::MAX);
        if self.left > count {
            self.left -= count;
            return false;
        }
        true
    }

    /// Notes that it is `now`; true: time to ask the kernel.
    fn is_poll_due(&mut self, now: u64) -> bool {
        // Slow callbacks: look at the clock after each of them. Fast ones: ever less often.
        let was_slow = now.saturating_sub(self.read) >= POLL_EVERY;
        self.step = if was_slow {
            1
        } else {
            (self.step * 2).clamp(1, CLOCK_EVERY)
        };
        (self.left, self.read) = (self.step, now);
        self.found || now.saturating_sub(self.polled) >= POLL_EVERY
    }

    fn note_poll(&mut self, now: u64, found: bool) {
        (self.polled, self.found) = (now, found);
    }
}

impl Owned {
    /// Gives a source its token and remembers its descriptor.
    pub(crate) fn insert(&mut self, fd: RawFd, source: Registered) -> Token {
        let token = Token(self.sources.insert(source).data().as_ffi());
        self.fds.insert(fd, token);
        token
    }

    pub(crate) fn get_mut(&mut self, token: Token) -> Option<&mut Registered> {
        self.sources.get_mut(key(token))
    }

    /// The token that a descriptor is registered under.
    pub(crate) fn token_of(&self, fd: RawFd) -> Option<Token> {
        self.fds.get(&fd).copied()
    }

    /// Takes a source out; events that are still under way for it find nothing.
    pub(crate) fn remove(&mut self, fd: RawFd, token: Token) -> Option<Registered> {
        let source = self.sources.remove(key(token));
        if self.fds.get(&fd) == Some(&token) {
            self.fds.remove(&fd);
        }
        source
    }

    /// Makes ready what the kernel reported.
    fn take_events(&mut self, py: Python<'_>, events: &Events) {
        for (token, readiness) in poller::iter(events) {
            match self.sources.get(key(token)) {
                None => {}
                Some(Registered::Source(source)) => {
                    self.ready.push_back(Runnable::Event(
                        source.clone_ref(py),
                        Event::Ready(readiness),
                    ));
                }
                Some(Registered::Watch(watch)) => {
                    watch.make_ready(py, readiness, &mut self.ready);
                    if LEVEL_NEEDS_REARM {
                        self.ready.push_back(Runnable::Rearm(token));
                    }
                }
            }
        }
    }

    /// Makes ready the timers that are due; cancelled ones go to `dead`, to be dropped by the caller.
    fn take_due(&mut self, py: Python<'_>, now: u64, dead: &mut Vec<Timer>) {
        while let Some((deadline, timer)) = self.timers.first() {
            let is_cancelled = timer.is_cancelled_native(py);
            if deadline > now && !is_cancelled {
                return;
            }
            match self.timers.pop() {
                Some(timer) if is_cancelled => {
                    self.timers.note_popped_cancelled();
                    dead.push(timer);
                }
                Some(Timer::Native(timer)) => self.ready.push_back(Runnable::Timer(timer)),
                Some(Timer::Foreign(timer)) => self.ready.push_back(Runnable::Foreign(timer)),
                None => return,
            }
        }
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        for runnable in &self.ready {
            match runnable {
                Runnable::Handle(handle) => visit.call(handle)?,
                Runnable::Timer(timer) => visit.call(timer)?,
                Runnable::Foreign(handle) => visit.call(handle)?,
                Runnable::Event(source, _) => {
                    source.traverse(visit)?;
                }
                Runnable::Rearm(_) => {}
            }
        }
        for timer in self.timers.iter() {
            match timer {
                Timer::Native(timer) => visit.call(timer)?,
                Timer::Foreign(timer) => visit.call(timer)?,
            }
        }
        for source in self.sources.values() {
            match source {
                Registered::Watch(watch) => watch.traverse(visit)?,
                Registered::Source(source) => source.traverse(visit)?,
            }
        }
        self.unflushed
            .iter()
            .try_for_each(|source| source.traverse(visit))?;
        self.pool.iter().try_for_each(|handle| visit.call(handle))
    }
}

fn key(token: Token) -> DefaultKey {
    KeyData::from_ffi(token.0).into()
}

impl Timer {
    /// Whether it is a cancelled one of ours; asyncio's own are asked when they are run.
    fn is_cancelled_native(&self, py: Python<'_>) -> bool {
        match self {
            Self::Native(timer) => timer.get().is_cancelled(py),
            Self::Foreign(_) => false,
        }
    }

    pub(crate) fn is_cancelled(&self, py: Python<'_>) -> PyResult<bool> {
        match self {
            Self::Native(timer) => Ok(timer.get().is_cancelled(py)),
            Self::Foreign(timer) => super::run::is_cancelled(timer.bind(py)),
        }
    }
}

/// What a run of the loop needs beside the state of the loop itself.
#[derive(Debug)]
pub(crate) struct Turns {
    events: Events,
    /// What this turn runs.
    batch: VecDeque<Runnable>,
    dead: Vec<Timer>,
    pub(crate) entered: Entered,
    pub(crate) scratch: Scratch,
}

/// The buffer that small reads of all transports share; made when it is first needed.
#[derive(Debug, Default)]
pub(crate) struct Scratch(Vec<u8>);

impl Scratch {
    #[inline]
    pub(crate) fn get_mut(&mut self) -> &mut [u8] {
        if self.0.is_empty() {
            self.0.resize(SCRATCH, 0);
        }
        &mut self.0
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
    /// Before the first turn of a run: it asks the kernel, as each of asyncio's does.
    pub(crate) fn begin_turns(&self, py: Python<'_>) {
        self.owned.with(py, |owned| owned.pace.reset());
    }

    /// One turn: see the module's picture.
    pub(crate) fn turn(slf: &Bound<'_, Self>, shared: &Shared, turns: &mut Turns) -> PyResult<()> {
        let py = slf.py();
        let core = slf.get();
        match core.plan(py, shared) {
            Plan::Go => {}
            Plan::Poll => {
                shared
                    .poller
                    .wait(&mut turns.events, Some(0))
                    .or_else(|error| interrupted(py, error))?;
                py.check_signals()?;
                core.collect(py, shared, turns);
            }
            Plan::Sleep => {
                core.sleep(py, shared, turns)?;
                core.collect(py, shared, turns);
            }
        }
        core.owned.with(py, |owned| {
            if !shared.inbox.is_empty() {
                owned.ready.extend(shared.inbox.drain());
            }
            std::mem::swap(&mut owned.ready, &mut turns.batch);
        });
        turns.dead.clear();
        let outcome = Self::run_batch(slf, turns);
        if !turns.batch.is_empty() {
            // An exception leaves the loop: what did not run yet stays, before what was scheduled since.
            core.owned.with(py, |owned| {
                turns.batch.append(&mut owned.ready);
                std::mem::swap(&mut owned.ready, &mut turns.batch);
            });
        }
        outcome
    }

    fn run_batch(slf: &Bound<'_, Self>, turns: &mut Turns) -> PyResult<()> {
        let py = slf.py();
        let mut run = Run {
            core: slf,
            entered: &mut turns.entered,
            scratch: &mut turns.scratch,
        };
        let mut outcome = Ok(());
        while let Some(runnable) = turns.batch.pop_front() {
            outcome = run.run(runnable);
            if outcome.is_err() {
                break;
            }
        }
        let left = run.entered.leave(py);
        // Also when an exception leaves the loop: what was written is sent.
        let flushed = slf.get().flush(slf);
        outcome.and(left).and(flushed)
    }

    /// Sends what transports were given in this turn.
    fn flush(&self, slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let unflushed = self
            .owned
            .with(py, |owned| std::mem::take(&mut owned.unflushed));
        if unflushed.is_empty() {
            return Ok(());
        }
        let mut outcome = Ok(());
        let mut unflushed = unflushed;
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

    fn plan(&self, py: Python<'_>, shared: &Shared) -> Plan {
        let is_stopping = self.is_stopping();
        self.owned.with(py, |owned| {
            if owned.ready.is_empty()
                && owned.unflushed.is_empty()
                && shared.inbox.is_empty()
                && !is_stopping
            {
                return Plan::Sleep;
            }
            if !owned.pace.is_clock_due(owned.ready.len()) {
                return Plan::Go;
            }
            let now = clock::monotonic();
            let is_timer_due = owned
                .timers
                .first()
                .is_some_and(|(deadline, _)| deadline <= now);
            if owned.pace.is_poll_due(now) || is_timer_due {
                Plan::Poll
            } else {
                Plan::Go
            }
        })
    }

    /// Waits for the next event or timer, detached from the interpreter.
    fn sleep(&self, py: Python<'_>, shared: &Shared, turns: &mut Turns) -> PyResult<()> {
        let deadline = self.owned.with(py, |owned| {
            // Cancelled timers at the top would wake the loop for nothing.
            owned.take_due(py, 0, &mut turns.dead);
            owned.timers.first().map(|(deadline, _)| deadline)
        });
        turns.dead.clear();
        let timeout = deadline.map(|deadline| deadline.saturating_sub(clock::monotonic()));
        if timeout == Some(0) {
            shared
                .poller
                .wait(&mut turns.events, Some(0))
                .or_else(|error| interrupted(py, error))?;
            return py.check_signals();
        }
        shared.inbox.park();
        let has_work =
            !shared.inbox.is_empty() || self.owned.with(py, |owned| !owned.ready.is_empty());
        let outcome = if has_work || self.is_stopping() {
            turns.events.clear();
            Ok(())
        } else {
            let events = &mut turns.events;
            py.detach(|| shared.poller.wait(events, timeout))
        };
        shared.inbox.unpark();
        outcome.or_else(|error| interrupted(py, error))?;
        // A signal handler may have scheduled something: the next turn looks before it sleeps again.
        py.check_signals()
    }

    /// Makes ready what the poll brought and the timers that are due.
    fn collect(&self, py: Python<'_>, shared: &Shared, turns: &mut Turns) {
        let dead = &mut turns.dead;
        self.owned.with(py, |owned| {
            if !shared.inbox.is_empty() {
                owned.ready.extend(shared.inbox.drain());
            }
            owned.take_events(py, &turns.events);
            let now = clock::monotonic();
            owned.pace.note_poll(now, turns.events.len() > 0);
            owned.take_due(py, now, dead);
        });
    }

    /// A cancelled timer waits in the heap; when they are many they are taken out.
    pub(crate) fn timer_cancelled(&self, py: Python<'_>) {
        if !self.owned.with(py, |owned| owned.timers.note_cancelled()) {
            return;
        }
        // asyncio's own handles are asked by attribute: outside the cell.
        let mut timers = self
            .owned
            .with(py, |owned| std::mem::take(&mut owned.timers));
        let pruned = timers.prune(|timer| timer.is_cancelled(py).unwrap_or(false));
        self.owned.with(py, |owned| {
            let added = std::mem::replace(&mut owned.timers, timers);
            owned.timers.merge(added);
        });
        drop(pruned);
    }
}

/// EINTR is no error: the caller looks at the signals next.
fn interrupted(py: Python<'_>, error: io::Error) -> PyResult<()> {
    if error.kind() == io::ErrorKind::Interrupted {
        Ok(())
    } else {
        Err(errors::os_error(py, &error))
    }
}

/// A dictionary for the loop's exception handler.
pub(crate) fn error_context<'py>(
    py: Python<'py>,
    message: &str,
    error: &PyErr,
) -> PyResult<Bound<'py, PyDict>> {
    let context = PyDict::new(py);
    context.set_item("message", message)?;
    context.set_item("exception", error.value(py))?;
    Ok(context)
}
