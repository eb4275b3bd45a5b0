//! A loop as Rust futures know it: what is to be polled next, and how the loop is told so.
//!
//! Owns, per loop, the queue of what is ready, the spawned tasks, and the asyncio futures that awaited Rust futures wait
//! for. Any asyncio loop will do: one of this crate is told through its inbox, any other one (the installed mioloop
//! wheel's beside an extension, asyncio's, uvloop's) through a descriptor that it reads. Rules:
//!
//! 1. Any thread may push; nobody needs the interpreter for that. One push of many tells the loop: `is_told`.
//! 2. Everything is run by [`Home::drain`], in the loop's thread: in one turn of the loop what is ready when it begins, and
//!    what becomes ready meanwhile, as long as there is time.
//! 3. Nothing of Python's and nothing of the user's is called or dropped while a lock is held that anybody waits for.
//! 4. The loop has a [`Sentinel`], which dies when the loop is closed or collected: then everything here is dropped.
//!
//! ```text
//!  any thread                         the loop's thread
//!    wake ──► ready, is_told            drain: poll what is ready, and so on ──► still ready? call_soon(drain)
//!              └─ first: ring ──►        ▲
//!                 (inbox or descriptor)  └── the loop
//! ```

use super::item::Item;
use super::polling::OwnTurn;
use super::scope::Scope;
use super::task::Task;
use super::{coroutine, lock};
use crate::errors;
use crate::event_loop::owned::Runnable;
use crate::event_loop::{Loop, Shared};
use crate::py::context::Entered;
use crate::py::names;
use crate::sys;
use pyo3::exceptions::PyRuntimeError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use slotmap::{DefaultKey, SlotMap};
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

struct Inner {
    ready: VecDeque<Item>,
    /// Whether the loop knows that there is something to do.
    is_told: bool,
    tasks: SlotMap<DefaultKey, Arc<Task>>,
    waiting: SlotMap<DefaultKey, Kept>,
}

/// An object of Python's that something in Rust waits for.
pub(super) struct Kept {
    pub(super) object: Py<PyAny>,
    /// Who is told that the loop is gone.
    pub(super) crossing: Option<coroutine::Shared>,
}

/// How a thread that is not the loop's tells the loop.
enum Bell {
    /// A loop of this crate: its inbox. The ticket is what is posted, made beforehand by a thread that is attached.
    Inbox { shared: Weak<Shared>, ticket: Mutex<Option<Runnable>> },
    /// Any other loop: it watches the descriptor.
    Watched(sys::bell::Bell),
}

/// See the module's description.
pub(crate) struct Home {
    inner: Mutex<Inner>,
    bell: Bell,
    is_closed: AtomicBool,
    /// An empty `contextvars.Context`, for what has none of its own.
    pub(super) context: Py<PyAny>,
}

/// The homes of all loops, by the address of the loop: an entry ends with the loop's [`Sentinel`].
static HOMES: Mutex<Option<HashMap<usize, Arc<Home>>>> = Mutex::new(None);

thread_local! {
    /// The one that this thread has found last. A loop whose home is open lives: its address is nobody else's.
    static LAST: RefCell<(usize, Weak<Home>)> = const { RefCell::new((0, Weak::new())) };
}

impl Home {
    /// The home of a loop, made at the first call for it. On a loop of another kind that runs in another thread, what is
    /// pushed waits until that thread has seen it.
    pub(crate) fn of(event_loop: &Bound<'_, PyAny>) -> PyResult<Arc<Self>> {
        let address = event_loop.as_ptr() as usize;
        let last = LAST.try_with(|last| {
            let last = last.borrow();
            if last.0 == address { last.1.upgrade() } else { None }
        });
        if let Some(home) = last.ok().flatten().filter(|home| !home.is_closed()) {
            return Ok(home);
        }
        let home = lock(&HOMES).as_ref().and_then(|homes| homes.get(&address)).map(Arc::clone);
        let home = home.map_or_else(|| Self::found(event_loop, address), Ok)?;
        // An error: the thread is ending.
        let _: Result<(), _> = LAST.try_with(|last| *last.borrow_mut() = (address, Arc::downgrade(&home)));
        Ok(home)
    }

    #[cold]
    fn found(event_loop: &Bound<'_, PyAny>, address: usize) -> PyResult<Arc<Self>> {
        let py = event_loop.py();
        if event_loop.call_method0(intern!(py, "is_closed"))?.is_truthy()? {
            return Err(PyRuntimeError::new_err("Event loop is closed"));
        }
        let core = event_loop.cast::<Loop>();
        let bell = if let Ok(core) = &core {
            Bell::Inbox { shared: Arc::downgrade(&core.get().shared(py)?), ticket: Mutex::new(None) }
        } else {
            Bell::Watched(sys::bell::Bell::new().map_err(|error| errors::os_error(py, &error))?)
        };
        let fd = if let Bell::Watched(bell) = &bell { Some(bell.as_raw_fd()) } else { None };
        let inner = Inner { ready: VecDeque::new(), is_told: false, tasks: SlotMap::new(), waiting: SlotMap::new() };
        let context = names::CONTEXT.get(py)?.call0()?.unbind();
        let home = Arc::new(Self { inner: Mutex::new(inner), bell, is_closed: AtomicBool::new(false), context });
        let sentinel = Bound::new(py, Sentinel { home: Arc::clone(&home), address })?;
        match (core, fd) {
            (Ok(core), _) => {
                home.renew_ticket(core)?;
                core.get().keep_attached(py, sentinel.into_any().unbind());
            }
            (Err(_), Some(fd)) => Self::settle_in(event_loop, fd, sentinel)?,
            (Err(_), None) => {}
        }
        let rival = lock(&HOMES).get_or_insert_default().insert(address, Arc::clone(&home));
        // Its sentinel is dead, or another thread was here at the same time: free-threaded builds only.
        drop(rival);
        Ok(home)
    }

    /// Has a loop of another kind watch the descriptor; from a thread that is not its own, when it next looks.
    fn settle_in(event_loop: &Bound<'_, PyAny>, fd: i32, sentinel: Bound<'_, Sentinel>) -> PyResult<()> {
        let py = event_loop.py();
        let running = names::EVENTS.get(py, intern!(py, "_get_running_loop"))?.call0()?;
        if running.is(event_loop) || !event_loop.call_method0(intern!(py, "is_running"))?.is_truthy()? {
            return event_loop.call_method1(intern!(py, "add_reader"), (fd, sentinel)).map(drop);
        }
        let add = event_loop.getattr(intern!(py, "add_reader"))?;
        event_loop.call_method1(intern!(py, "call_soon_threadsafe"), (add, fd, sentinel)).map(drop)
    }

    /// The home of the loop that runs in this thread, and that loop.
    pub(crate) fn running(py: Python<'_>) -> PyResult<(Arc<Self>, Py<PyAny>)> {
        if let Some(found) = Scope::current(py) {
            return Ok(found);
        }
        let event_loop = names::EVENTS.get(py, intern!(py, "get_running_loop"))?.call0()?;
        Ok((Self::of(&event_loop)?, event_loop.unbind()))
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// Queues something, from any thread; given back if the loop is closed, for the caller to drop.
    pub(super) fn push(&self, item: Item) -> Result<(), Item> {
        Scope::push(self, item).or_else(|item| self.push_outside(item))
    }

    /// As [`Self::push`], where this thread does not poll for the loop.
    pub(super) fn push_outside(&self, item: Item) -> Result<(), Item> {
        let was_told = {
            let mut inner = lock(&self.inner);
            // Looked at under the lock: `close` empties the queue under it.
            if self.is_closed() {
                drop(inner);
                return Err(item);
            }
            inner.ready.push_back(item);
            std::mem::replace(&mut inner.is_told, true)
        };
        if !was_told {
            self.ring();
        }
        Ok(())
    }

    /// Queues what became ready in a [`Scope`] that has ended, and tells the loop.
    pub(super) fn take_over(
        self: &Arc<Self>,
        py: Python<'_>,
        event_loop: &Py<PyAny>,
        mut ready: VecDeque<Item>,
    ) -> PyResult<()> {
        if ready.is_empty() {
            return Ok(());
        }
        let was_told = {
            let mut inner = lock(&self.inner);
            if self.is_closed() {
                true
            } else {
                inner.ready.append(&mut ready);
                std::mem::replace(&mut inner.is_told, true)
            }
        };
        // Of a loop that is closed.
        drop(ready);
        if was_told { Ok(()) } else { self.tell_here(py, event_loop) }
    }

    /// Tells the loop, from any thread, attached or not.
    fn ring(&self) {
        match &self.bell {
            Bell::Inbox { shared, ticket } => {
                let ticket = lock(ticket).take();
                if let (Some(shared), Some(ticket)) = (shared.upgrade(), ticket)
                    && shared.inbox.post(ticket)
                {
                    // An error: the poller is going away, and nobody waits.
                    drop(shared.poller.wake());
                }
            }
            Bell::Watched(bell) => bell.ring(),
        }
    }

    /// Tells the loop, in its own thread.
    fn tell_here(self: &Arc<Self>, py: Python<'_>, event_loop: &Py<PyAny>) -> PyResult<()> {
        if let (Bell::Inbox { ticket, .. }, Ok(core)) = (&self.bell, event_loop.bind(py).cast::<Loop>()) {
            let ticket = lock(ticket).take();
            if let Some(ticket) = ticket {
                core.get().make_ready(py, ticket);
            }
            return Ok(());
        }
        let drain = Py::new(py, Drain { home: Arc::clone(self) })?;
        event_loop.call_method1(py, intern!(py, "call_soon"), (drain,)).map(drop)
    }

    /// Makes what is posted to a loop of ours.
    fn renew_ticket(self: &Arc<Self>, core: &Bound<'_, Loop>) -> PyResult<()> {
        let Bell::Inbox { ticket, .. } = &self.bell else { return Ok(()) };
        if lock(ticket).is_some() {
            return Ok(());
        }
        let py = core.py();
        let drain = Bound::new(py, Drain { home: Arc::clone(self) })?.into_any();
        let context = self.context.bind_borrowed(py);
        let handle = Loop::native_handle(py, core.get(), &drain.as_borrowed(), &[], Some(context))?;
        let rival = lock(ticket).replace(Runnable::Handle(handle));
        drop(rival);
        Ok(())
    }

    /// Runs what is ready, and what becomes ready meanwhile, up to a limit.
    fn drain(self: &Arc<Self>, py: Python<'_>) -> PyResult<()> {
        let event_loop = names::EVENTS.get(py, intern!(py, "get_running_loop"))?.call0()?;
        if let Ok(core) = event_loop.cast::<Loop>() {
            self.renew_ticket(core)?;
        }
        let scope = Scope::enter(self, event_loop.clone().unbind());
        let turn = OwnTurn::begin();
        let mut entered = Entered::default();
        let mut outcome = Ok(());
        let mut late = None;
        // What is ready now is run in any case, as a turn of the loop does; what becomes ready meanwhile, if there is time.
        let mut due = self.take_ready(&scope);
        let mut is_over = due == 0;
        while !is_over {
            // Of this thread, then of others.
            let Some((item, is_alone)) = scope.pop() else {
                is_over = self.take_ready(&scope) == 0;
                continue;
            };
            if due > 0 {
                due -= 1;
                OwnTurn::note_alone(is_alone);
            } else if !OwnTurn::goes_on(is_alone) {
                late = Some(item);
                break;
            }
            outcome = item.run(&event_loop, &mut entered);
            if outcome.is_err() {
                break;
            }
        }
        drop(turn);
        let left = entered.leave(py);
        let mut unfinished = VecDeque::new();
        scope.swap_ready(&mut unfinished);
        if let Some(late) = late {
            unfinished.push_front(late);
        }
        drop(scope);
        let told = if is_over && unfinished.is_empty() {
            Ok(())
        } else {
            self.put_back(py, event_loop.as_unbound(), unfinished)
        };
        outcome.and(left).and(told)
    }

    /// Gives a scope that has nothing queued what is ready, and tells how much. Nothing: the loop will be told of the next.
    fn take_ready(&self, scope: &Scope) -> usize {
        let mut inner = lock(&self.inner);
        let count = inner.ready.len();
        if count > 0 {
            scope.swap_ready(&mut inner.ready);
        }
        inner.is_told = count > 0;
        count
    }

    /// Puts back what a turn has left over, before what came since, and tells the loop of it.
    fn put_back(self: &Arc<Self>, py: Python<'_>, event_loop: &Py<PyAny>, mut left: VecDeque<Item>) -> PyResult<()> {
        let is_ready = {
            let mut inner = lock(&self.inner);
            left.append(&mut inner.ready);
            std::mem::swap(&mut inner.ready, &mut left);
            inner.is_told = !inner.ready.is_empty();
            inner.is_told
        };
        if is_ready { self.tell_here(py, event_loop) } else { Ok(()) }
    }

    /// Keeps an object until [`Self::take`] or the end of the loop.
    pub(super) fn wait(&self, kept: Kept) -> DefaultKey {
        lock(&self.inner).waiting.insert(kept)
    }

    pub(super) fn take(&self, key: DefaultKey) -> Option<Kept> {
        lock(&self.inner).waiting.remove(key)
    }

    /// Has the loop resolve a future that was kept; from any thread.
    pub(super) fn resolve(&self, key: DefaultKey) {
        if let Some(kept) = self.take(key) {
            drop(self.push(Item::Resolve(kept.object)));
        }
    }

    /// Keeps a task, so that it ends with the loop; None: the loop is closed.
    pub(super) fn keep(&self, task: &Arc<Task>) -> Option<DefaultKey> {
        let mut inner = lock(&self.inner);
        (!self.is_closed()).then(|| inner.tasks.insert(Arc::clone(task)))
    }

    pub(super) fn release(&self, key: DefaultKey) {
        let task = lock(&self.inner).tasks.remove(key);
        drop(task);
    }

    /// Drops everything: the loop is gone.
    fn close(&self) {
        let (ready, tasks, waiting) = {
            let mut inner = lock(&self.inner);
            self.is_closed.store(true, Ordering::Release);
            (std::mem::take(&mut inner.ready), std::mem::take(&mut inner.tasks), std::mem::take(&mut inner.waiting))
        };
        let ticket = match &self.bell {
            Bell::Inbox { ticket, .. } => lock(ticket).take(),
            Bell::Watched(_) => None,
        };
        for (_, task) in tasks {
            task.discard();
        }
        for (_, kept) in waiting {
            if let Some(crossing) = &kept.crossing {
                coroutine::end(crossing);
            }
        }
        drop((ready, ticket));
    }

    fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.context)?;
        let Ok(inner) = self.inner.try_lock() else { return Ok(()) };
        inner.waiting.values().try_for_each(|kept| visit.call(&kept.object))?;
        inner.tasks.values().try_for_each(|task| task.traverse(visit))
    }
}

/// What a loop calls to have Rust futures polled.
#[pyclass(frozen, weakref, name = "RustFutures", module = "mioloop")]
struct Drain {
    home: Arc<Home>,
}

#[pymethods]
impl Drain {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        self.home.drain(py)
    }
}

/// What a loop keeps as long as it is open; on loops of other kinds it is also what hears the bell.
#[pyclass(frozen, weakref, name = "RustFuturesSentinel", module = "mioloop")]
struct Sentinel {
    home: Arc<Home>,
    /// Of the loop.
    address: usize,
}

#[pymethods]
impl Sentinel {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        if let Bell::Watched(bell) = &self.home.bell {
            bell.hear().map_err(|error| errors::os_error(py, &error))?;
        }
        self.home.drain(py)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.home.traverse(&visit)
    }

    fn __clear__(&self) {
        self.home.close();
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let home = {
            let mut homes = lock(&HOMES);
            let is_own = |homes: &HashMap<usize, Arc<Home>>| {
                homes.get(&self.address).is_some_and(|home| Arc::ptr_eq(home, &self.home))
            };
            homes.as_mut().filter(|homes| is_own(homes)).and_then(|homes| homes.remove(&self.address))
        };
        drop(home);
        self.home.close();
    }
}
