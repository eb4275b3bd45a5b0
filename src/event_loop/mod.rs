//! The event loop: its Python surface, as one list of short methods. The work is done in the submodules.
//!
//! [`Loop`] is the first base class of `mioloop.Loop`; `asyncio.BaseEventLoop`, the second one, brings everything that
//! is not listed here. State that both look at lives here: `_debug`, `_closed`, `_stopping`, `_thread_id` and
//! `_task_factory` are data descriptors, so that the inherited code's reads and writes land in Rust.

mod callback;
pub(crate) mod core;
mod forever;
pub(crate) mod handle;
pub(crate) mod metrics;
mod overridden;
pub(crate) mod owned;
mod pace;
mod retired;
pub(crate) mod run;
mod running;
mod schedule;
pub(crate) mod source;
pub(crate) mod tasks;
pub(crate) mod wait;
pub(crate) mod watch;

use self::core::Turns;
use self::owned::{Owned, Registered, Runnable};
use crate::errors;
use crate::py::cell::OwnerCell;
use crate::py::{method, names, object};
use crate::reactor::inbox::Inbox;
use crate::reactor::poller::Poller;
use once_cell::sync::OnceCell;
use pyo3::exceptions::PyRuntimeError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use watch::Direction;

/// What any thread may use of a loop: the poller's registry and waker, and the inbox.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) poller: Poller,
    pub(crate) inbox: Inbox<Runnable>,
}

/// The engine of an event loop: the first base class of mioloop.Loop.
#[pyclass(subclass, frozen, module = "mioloop._core")]
#[derive(Debug)]
pub(crate) struct Loop {
    pub(crate) owned: OwnerCell<Owned>,
    /// None once the loop is closed.
    shared: OwnerCell<Option<Arc<Shared>>>,
    task_factory: OwnerCell<Option<Py<PyAny>>>,
    /// The keywords of the last `create_task`, and the same with `loop` before them.
    task_keywords: OwnerCell<Option<(Py<PyTuple>, Py<PyTuple>)>>,
    /// Some while the loop does not run.
    turns: OwnerCell<Option<Box<Turns>>>,
    pub(crate) metrics: metrics::Metrics,
    overridden: overridden::Overridden,
    /// Borrowed transports, by descriptor.
    other_transports: OnceCell<Py<PyDict>>,
    /// What lives as long as the loop is open.
    #[cfg(feature = "embed")]
    attached: OwnerCell<Vec<Py<PyAny>>>,
    is_debug: AtomicBool,
    is_closed: AtomicBool,
    is_stopping: AtomicBool,
    /// `threading.get_ident()` of the thread that runs the loop; 0 while it does not run.
    thread: AtomicU64,
}

impl Loop {
    #[inline]
    pub(crate) fn is_debug(&self) -> bool {
        self.is_debug.load(Ordering::Relaxed)
    }

    /// Weak references, by descriptor, to the transports that are not registered.
    pub(crate) fn other_transports(&self) -> Option<&Py<PyDict>> {
        self.other_transports.get()
    }

    #[inline]
    pub(crate) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }

    /// asyncio's error for calls on a closed loop.
    #[inline]
    pub(crate) fn check_open(&self) -> PyResult<()> {
        if self.is_closed.load(Ordering::Relaxed) {
            return Err(PyRuntimeError::new_err("Event loop is closed"));
        }
        Ok(())
    }

    pub(crate) fn shared(&self, py: Python<'_>) -> PyResult<Arc<Shared>> {
        self.shared_or_closed(py).ok_or_else(|| PyRuntimeError::new_err("Event loop is closed"))
    }

    pub(crate) fn shared_or_closed(&self, py: Python<'_>) -> Option<Arc<Shared>> {
        self.shared.with(py, |shared| shared.clone())
    }

    /// The transport of ours that owns a descriptor.
    pub(crate) fn stream_at(&self, py: Python<'_>, fd: RawFd) -> Option<Py<PyAny>> {
        self.owned.with(py, |owned| {
            let token = owned.token_of(fd)?;
            match owned.get_mut(token)? {
                Registered::Source(source) => source.is_transport().then(|| source.to_object(py)),
                Registered::Watch(_) | Registered::Waits(_) => None,
            }
        })
    }

    /// Whether the owner sleeps, or is about to; whoever is told so must wake it, and nobody else is told.
    #[inline]
    fn is_parked(&self, py: Python<'_>) -> bool {
        self.shared.with(py, |shared| shared.as_ref().is_some_and(|shared| shared.inbox.unpark_attached()))
    }

    fn wake(&self, py: Python<'_>) -> PyResult<()> {
        let Some(shared) = self.shared_or_closed(py) else { return Ok(()) };
        shared.poller.wake().map_err(|error| errors::os_error(py, &error))
    }

    /// Wakes the loop for a call from another thread: see `pace`.
    fn wake_for_call(&self, py: Python<'_>) -> PyResult<()> {
        if !self.owned.with(py, |owned| owned.pace.is_hand_over_due()) {
            return self.wake(py);
        }
        let Some(shared) = self.shared_or_closed(py) else { return Ok(()) };
        py.detach(|| shared.poller.wake()).map_err(|error| errors::os_error(py, &error))
    }

    /// Queues something for the next turn, from any thread that is attached.
    #[inline]
    pub(crate) fn make_ready(&self, py: Python<'_>, runnable: Runnable) {
        self.owned.with(py, |owned| owned.ready.push_back(runnable));
    }

    /// Queues something for the next turn, from another thread; the loop sleeps and must be woken if it is given back.
    pub(crate) fn post(&self, py: Python<'_>, runnable: Runnable) -> Option<Arc<Shared>> {
        let shared = self.shared_or_closed(py)?;
        if cfg!(Py_GIL_DISABLED) {
            return shared.inbox.post(runnable).then_some(shared);
        }
        self.make_ready(py, runnable);
        shared.inbox.unpark_attached().then_some(shared)
    }

    /// Keeps an object until the loop is closed.
    #[cfg(feature = "embed")]
    pub(crate) fn keep_attached(&self, py: Python<'_>, object: Py<PyAny>) {
        self.attached.with(py, |attached| attached.push(object));
    }

    /// Whether the caller is on the thread that runs the loop, or the loop does not run.
    #[inline]
    fn is_owner(&self) -> bool {
        let thread = self.thread.load(Ordering::Relaxed);
        thread == 0 || thread == object::thread_ident()
    }

    /// Whether the loop runs, on this thread: there is a turn to end.
    #[inline]
    pub(crate) fn is_running_here(&self) -> bool {
        self.thread.load(Ordering::Relaxed) == object::thread_ident()
    }
}

#[pymethods]
impl Loop {
    #[new]
    #[pyo3(signature = (*_args, **_keywords))]
    fn new(py: Python<'_>, _args: &Bound<'_, PyTuple>, _keywords: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let poller = Poller::new().map_err(|error| errors::os_error(py, &error))?;
        // Callbacks are compared with it.
        names::SET_RESULT_UNLESS_CANCELLED.get(py)?;
        Ok(Self {
            owned: OwnerCell::new(Owned::default()),
            shared: OwnerCell::new(Some(Arc::new(Shared { poller, inbox: Inbox::new() }))),
            task_factory: OwnerCell::new(None),
            task_keywords: OwnerCell::new(None),
            turns: OwnerCell::new(None),
            metrics: metrics::Metrics::default(),
            overridden: overridden::Overridden::default(),
            other_transports: OnceCell::new(),
            #[cfg(feature = "embed")]
            attached: OwnerCell::new(Vec::new()),
            is_debug: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
            thread: AtomicU64::new(0),
        })
    }

    /// Runs until stop() is called; matches BaseEventLoop.run_forever.
    fn run_forever(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::run(slf)
    }

    /// Stops the loop at the end of its current turn, or its next one.
    fn stop(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    /// Whether the loop is running.
    fn is_running(&self) -> bool {
        self.thread.load(Ordering::Relaxed) != 0
    }

    /// Whether the loop is closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    /// Removes a reader; True if there was one. `fd` is a descriptor or an object with fileno().
    fn remove_reader(slf: &Bound<'_, Self>, fd: &Bound<'_, PyAny>) -> PyResult<bool> {
        let number = Self::check_no_transport(slf, fd)?;
        slf.get().unwatch_object(fd, number, Direction::Read)
    }

    /// Removes a writer; True if there was one. `fd` is a descriptor or an object with fileno().
    fn remove_writer(slf: &Bound<'_, Self>, fd: &Bound<'_, PyAny>) -> PyResult<bool> {
        let number = Self::check_no_transport(slf, fd)?;
        slf.get().unwatch_object(fd, number, Direction::Write)
    }

    fn _remove_reader(slf: &Bound<'_, Self>, fd: &Bound<'_, PyAny>) -> PyResult<bool> {
        slf.get().unwatch_object(fd, None, Direction::Read)
    }

    fn _remove_writer(slf: &Bound<'_, Self>, fd: &Bound<'_, PyAny>) -> PyResult<bool> {
        slf.get().unwatch_object(fd, None, Direction::Write)
    }

    /// The transport of ours that owns a descriptor, or None.
    fn _transport_of(&self, py: Python<'_>, fd: RawFd) -> Option<Py<PyAny>> {
        self.stream_at(py, fd)
    }

    /// (reader, writer): which of the two a descriptor is watched for.
    fn _watched(&self, py: Python<'_>, fd: RawFd) -> (bool, bool) {
        self.owned.with(py, |owned| match owned.token_of(fd).and_then(|token| owned.get_mut(token)) {
            Some(Registered::Watch(watch)) => watch.directions(),
            Some(Registered::Source(_) | Registered::Waits(_)) | None => (false, false),
        })
    }

    /// Names the dictionary in which borrowed transports stand by descriptor.
    fn _set_other_transports(&self, transports: Py<PyDict>) {
        // Set once, by the constructor of the Python class: a second call changes nothing.
        let _ = self.other_transports.set(transports);
    }

    /// The poller's own descriptor; -1 once the loop is closed.
    fn _poller_fileno(&self, py: Python<'_>) -> RawFd {
        self.shared_or_closed(py).map_or(-1, |shared| shared.poller.as_raw_fd())
    }

    /// The fields of `mioloop.Metrics`, but for the threads.
    fn _measured(&self, py: Python<'_>) -> metrics::Measured {
        self.measured(py)
    }

    /// The number of the turn under way; None while the loop waits or does not run. From any thread.
    fn _turn_under_way(&self) -> Option<u64> {
        self.turn_under_way()
    }

    /// Queues one of asyncio's own handles.
    fn _add_callback(&self, py: Python<'_>, handle: Py<PyAny>) {
        self.make_ready(py, Runnable::Foreign(handle));
    }

    fn _add_callback_signalsafe(&self, py: Python<'_>, handle: Py<PyAny>) -> PyResult<()> {
        self.make_ready(py, Runnable::Foreign(handle));
        self._write_to_self(py)
    }

    /// Wakes the loop, from any thread.
    fn _write_to_self(&self, py: Python<'_>) -> PyResult<()> {
        self.wake(py)
    }

    fn __setattr__(slf: &Bound<'_, Self>, name: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        Self::store_attribute(slf, name, Some(value))
    }

    fn __delattr__(slf: &Bound<'_, Self>, name: &Bound<'_, PyAny>) -> PyResult<()> {
        Self::store_attribute(slf, name, None)
    }

    /// Called by asyncio's own TimerHandle.cancel.
    fn _timer_handle_cancelled(&self, py: Python<'_>, handle: &Bound<'_, PyAny>) -> PyResult<()> {
        if handle.getattr(intern!(py, "_scheduled"))?.is_truthy()? {
            self.foreign_timer_cancelled(py);
        }
        Ok(())
    }

    /// Drops what is queued and registered, and closes the poller.
    fn _close_core(&self, py: Python<'_>) {
        self.is_closed.store(true, Ordering::Relaxed);
        // Everything dies here, outside the cells.
        drop(self.owned.with(py, std::mem::take));
        drop(self.shared.with(py, Option::take));
        #[cfg(feature = "embed")]
        drop(self.attached.with(py, std::mem::take));
    }

    #[getter(_debug)]
    fn shown_debug(&self) -> bool {
        self.is_debug()
    }

    #[setter(_debug)]
    fn store_debug(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        self.is_debug.store(value.is_truthy()?, Ordering::Relaxed);
        Ok(())
    }

    #[getter(_closed)]
    fn shown_closed(&self) -> bool {
        self.is_closed()
    }

    #[setter(_closed)]
    fn store_closed(&self, value: bool) {
        self.is_closed.store(value, Ordering::Relaxed);
    }

    #[getter(_stopping)]
    fn shown_stopping(&self) -> bool {
        self.is_stopping()
    }

    #[setter(_stopping)]
    fn store_stopping(&self, value: bool) {
        self.is_stopping.store(value, Ordering::Relaxed);
    }

    #[getter(_thread_id)]
    fn shown_thread_id(&self) -> Option<u64> {
        Some(self.thread.load(Ordering::Relaxed)).filter(|thread| *thread != 0)
    }

    #[setter(_thread_id)]
    fn store_thread_id(&self, value: Option<u64>) {
        self.thread.store(value.unwrap_or(0), Ordering::Relaxed);
    }

    #[getter(_task_factory)]
    fn shown_task_factory(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.task_factory.with(py, |factory| factory.as_ref().map(|factory| factory.clone_ref(py)))
    }

    #[setter(_task_factory)]
    fn store_task_factory(&self, py: Python<'_>, value: Option<Py<PyAny>>) {
        drop(self.task_factory.with(py, |factory| std::mem::replace(factory, value)));
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.owned.try_with(|owned| owned.traverse(&visit)).unwrap_or(Ok(()))?;
        #[cfg(feature = "embed")]
        self.attached
            .try_with(|attached| attached.iter().try_for_each(|object| visit.call(object)))
            .unwrap_or(Ok(()))?;
        self.task_factory.try_with(|factory| visit.call(&*factory)).unwrap_or(Ok(()))
    }

    fn __clear__(&self) {
        // From now on it takes no timers back, which would hold it.
        self.is_closed.store(true, Ordering::Relaxed);
        drop(self.owned.try_with(std::mem::take));
        drop(self.task_factory.try_with(Option::take));
        #[cfg(feature = "embed")]
        drop(self.attached.try_with(std::mem::take));
    }
}

/// Puts the hot methods on the class.
pub(crate) fn define_methods(class: &Bound<'_, PyType>) -> PyResult<()> {
    method::define::<schedule::CallSoon>(class)?;
    method::define::<schedule::CallSoonThreadsafe>(class)?;
    method::define::<schedule::CallLater>(class)?;
    method::define::<schedule::CallAt>(class)?;
    method::define::<schedule::AddReader>(class)?;
    method::define::<schedule::AddWriter>(class)?;
    method::define::<schedule::PrivateAddReader>(class)?;
    method::define::<schedule::PrivateAddWriter>(class)?;
    method::define::<schedule::Time>(class)?;
    method::define::<schedule::GetDebug>(class)?;
    method::define::<tasks::CreateFuture>(class)?;
    method::define::<tasks::CreateTask>(class)
}
