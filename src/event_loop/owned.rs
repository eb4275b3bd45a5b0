//! The state of a loop that its owner thread works on: the ready queue, the timers, the registered sources.
//!
//! Owns everything that waits to be run. Who takes something out drops it outside the cell (invariant 1).

use super::handle::{Handle, TimerHandle};
use super::pace::Pace;
use super::source::{Event, Source};
use super::wait::Waits;
use super::watch::Watch;
use crate::py::buffer::Room;
use crate::py::call::CallParts;
use crate::py::context::Snapshot;
use crate::reactor::poller::{self, Events, LEVEL_NEEDS_REARM, Token};
use crate::reactor::timers::Timers;
use crate::sys::clock;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use slotmap::{DefaultKey, Key, KeyData, SlotMap};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::os::fd::RawFd;

/// So many handles are kept for the next `call_soon`, and timers for the next `call_later`: what a burst needed once
/// is there for the next one, which also spares the garbage collector.
pub(crate) const POOL: usize = 128 * 1024;
/// A loop that sleeps now and then keeps so many for good.
const IDLE_POOL: usize = 1024;
/// How often it lets go of a quarter of the rest (nanoseconds).
const TRIM_EVERY: u64 = 1_000_000_000;

/// What the pools have too many of.
type Spare = (Vec<Py<Handle>>, Vec<Py<TimerHandle>>);

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
    /// A future that a `sock_*` call waits for.
    Resolve(Py<PyAny>),
    /// An event that no `sock_*` call waits for.
    Narrow(Token),
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
    Waits(Waits),
    Source(Source),
}

/// The state that the owner thread works on.
#[derive(Debug, Default)]
pub(crate) struct Owned {
    pub(crate) ready: VecDeque<Runnable>,
    pub(crate) timers: Timers<Timer>,
    sources: SlotMap<DefaultKey, Registered>,
    /// The token of every registered descriptor.
    fds: HashMap<RawFd, Token, BuildHasherDefault<FdHasher>>,
    /// Transports that have unsent bytes from this turn.
    pub(crate) unflushed: Vec<Source>,
    /// Handles to be used again; they hold nothing.
    pub(crate) pool: Vec<Py<Handle>>,
    pub(crate) timer_pool: Vec<Py<TimerHandle>>,
    /// Cancelled timers that were in their caller's hands when they left the heap.
    pub(crate) cancelled_timers: Vec<Py<TimerHandle>>,
    /// The context of the handles that were made last.
    pub(super) snapshot: Snapshot,
    /// When the pools were trimmed (nanoseconds).
    trimmed: u64,
    pub(super) pace: Pace,
    /// What the `sock_*` calls receive into.
    room: Room,
    /// `{"loop": loop}`, for the classes of futures and tasks.
    pub(super) loop_keyword: Option<Py<PyDict>>,
}

impl Owned {
    /// Makes a handle of the pool ready; the call comes back if the pool is empty.
    #[inline]
    pub(super) fn queue_pooled<'a, 'py>(
        &mut self,
        py: Python<'py>,
        parts: CallParts<'a, 'py>,
    ) -> Result<Py<Handle>, CallParts<'a, 'py>> {
        let Some(handle) = self.pool.pop() else { return Err(parts) };
        handle.get().renew(py, parts);
        self.ready.push_back(Runnable::Handle(handle.clone_ref(py)));
        Ok(handle)
    }

    /// Keeps an emptied handle for later; it comes back if there are enough.
    #[inline]
    pub(super) fn keep_handle(&mut self, handle: Py<Handle>) -> Option<Py<Handle>> {
        if self.pool.len() < POOL {
            self.pool.push(handle);
            return None;
        }
        Some(handle)
    }

    /// A timer to be used again, and whether it is empty already.
    #[inline]
    pub(super) fn spare_timer(&mut self) -> Option<(Py<TimerHandle>, bool)> {
        match self.cancelled_timers.pop() {
            Some(timer) => Some((timer, false)),
            None => self.timer_pool.pop().map(|timer| (timer, true)),
        }
    }

    /// Gives a source its token and remembers its descriptor.
    pub(crate) fn insert(&mut self, fd: RawFd, source: Registered) -> Token {
        let token = Token(self.sources.insert(source).data().as_ffi());
        let previous = self.fds.insert(fd, token).map(key);
        // A registration that was kept for a socket's next `sock_*` call: the poller takes it over.
        if let Some(previous) = previous
            && matches!(self.sources.get(previous), Some(Registered::Waits(_)))
            && let Some(Registered::Waits(waits)) = self.sources.remove(previous)
        {
            waits.wake_all(&mut self.ready);
        }
        token
    }

    /// The room for received bytes, to be taken out while it is used.
    #[inline]
    pub(crate) fn room(&mut self) -> &mut Room {
        &mut self.room
    }

    pub(crate) fn get_mut(&mut self, token: Token) -> Option<&mut Registered> {
        self.sources.get_mut(key(token))
    }

    /// All that is registered, in no order.
    pub(crate) fn registered(&self) -> impl Iterator<Item = &Registered> {
        self.sources.values()
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
    pub(super) fn take_events(&mut self, py: Python<'_>, events: &Events) {
        for (token, readiness) in poller::iter(events) {
            match self.sources.get_mut(key(token)) {
                None => {}
                Some(Registered::Source(source)) => {
                    self.ready.push_back(Runnable::Event(source.clone_ref(py), Event::Ready(readiness)));
                }
                Some(Registered::Waits(waits)) => {
                    let is_awaited = waits.wake(readiness, &mut self.ready);
                    self.ready.extend((!is_awaited).then_some(Runnable::Narrow(token)));
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

    /// Makes ready the timers that are due; the cancelled ones that follow go to `dead`, to be dropped by the caller.
    pub(super) fn take_due(&mut self, py: Python<'_>, now: u64, dead: &mut Vec<Timer>) {
        self.ready.extend(self.timers.drain_due(now).map(|timer| match timer {
            Timer::Native(timer) => Runnable::Timer(timer),
            Timer::Foreign(timer) => Runnable::Foreign(timer),
        }));
        while let Some((deadline, timer)) = self.timers.first() {
            let is_due = deadline <= now;
            if !is_due && !timer.is_cancelled_native(py) {
                return;
            }
            match self.timers.pop() {
                Some(timer) if !is_due => {
                    self.timers.note_popped_cancelled();
                    dead.push(timer);
                }
                // Whether it is cancelled is seen when it is run.
                Some(Timer::Native(timer)) => self.ready.push_back(Runnable::Timer(timer)),
                Some(Timer::Foreign(timer)) => self.ready.push_back(Runnable::Foreign(timer)),
                None => return,
            }
        }
    }

    /// Whether there is nothing to let go of before a sleep.
    #[inline]
    pub(super) fn is_tidy(&self, py: Python<'_>) -> bool {
        let is_first_alive = self.timers.first().is_none_or(|(_, first)| !first.is_cancelled_native(py));
        is_first_alive && self.cancelled_timers.is_empty() && self.snapshot.is_empty() && !self.has_large_pools()
    }

    #[inline]
    fn has_large_pools(&self) -> bool {
        self.pool.len().max(self.timer_pool.len()) > IDLE_POOL
    }

    /// Takes out what bursts left in the pools, a little every second; the caller drops it.
    pub(super) fn trim_pools(&mut self) -> Option<Spare> {
        if !self.has_large_pools() {
            return None;
        }
        let now = clock::monotonic();
        if now.saturating_sub(self.trimmed) < TRIM_EVERY {
            return None;
        }
        self.trimmed = now;
        let from = |length: usize| length.min(IDLE_POOL.max(length - length / 4));
        let handles = self.pool.split_off(from(self.pool.len()));
        Some((handles, self.timer_pool.split_off(from(self.timer_pool.len()))))
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.loop_keyword)?;
        for runnable in &self.ready {
            match runnable {
                Runnable::Handle(handle) => visit.call(handle)?,
                Runnable::Timer(timer) => visit.call(timer)?,
                Runnable::Foreign(handle) => visit.call(handle)?,
                Runnable::Event(source, _) => {
                    source.traverse(visit)?;
                }
                Runnable::Resolve(future) => visit.call(future)?,
                Runnable::Rearm(_) | Runnable::Narrow(_) => {}
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
                Registered::Waits(waits) => waits.traverse(visit)?,
                Registered::Source(source) => source.traverse(visit)?,
            }
        }
        // The pool's handles hold nothing; its timers hold the loop.
        self.timer_pool.iter().chain(&self.cancelled_timers).try_for_each(|timer| visit.call(timer))?;
        visit.call(self.snapshot.context())?;
        self.unflushed.iter().try_for_each(|source| source.traverse(visit))
    }
}

/// Hashes a descriptor. The kernel chooses the numbers, not a peer: one multiplication spreads them.
#[derive(Debug, Default)]
struct FdHasher(u64);

impl Hasher for FdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_i32(i32::from(*byte));
        }
    }

    fn write_i32(&mut self, fd: i32) {
        // 2^64 over the golden ratio (Knuth, The Art of Computer Programming, 6.4).
        self.0 = (self.0 ^ u64::from(fd.cast_unsigned())).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn finish(&self) -> u64 {
        self.0
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
