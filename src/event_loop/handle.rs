//! Handles: scheduled callbacks, as `call_soon()` and `call_later()` give them out.
//!
//! Owns the callback, its arguments and its context until the handle is run or cancelled. A handle that nobody but the
//! loop has seen the last of is used again ([`Handle::renew`]): most programs throw away what `call_soon()` answers.
//!
//! In debug mode the loop schedules asyncio's own handles instead of these: they bring source tracebacks.

use super::callback::{Callback, CallbackCell};
use super::{Loop, running};
use crate::py::call::{Call, CallParts};
use crate::py::method::{Arguments, Body, Method, define};
use crate::py::recycle::{Recycle, define_recycling, own_dealloc};
use crate::py::traverse::{Traverse, Visit, define_traverse};
use crate::py::{names, object};
use pyo3::basic::CompareOp;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyTuple, PyType};
use std::ffi::{CStr, c_int};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A callback that `call_soon()` or `call_soon_threadsafe()` scheduled; matches `asyncio.Handle`.
#[pyclass(frozen, weakref, module = "mioloop._core")]
#[derive(Debug)]
pub(crate) struct Handle {
    pub(super) callback: CallbackCell,
    /// Made by `call_soon_threadsafe()` of a Python whose handles wait for their callbacks.
    is_threadsafe: AtomicBool,
    /// The thread that runs a thread-safe handle now; 0: none.
    runner: AtomicU64,
}

impl Handle {
    pub(crate) fn new(call: Call) -> Self {
        Self { callback: CallbackCell::new(call), is_threadsafe: AtomicBool::new(false), runner: AtomicU64::new(0) }
    }

    /// Makes it a handle of `call_soon_threadsafe()`.
    pub(crate) fn make_threadsafe(&self) {
        self.is_threadsafe.store(cfg!(Py_3_14), Ordering::Relaxed);
    }

    /// The callback of a handle that others know begins to run.
    #[inline]
    pub(crate) fn begin_run(&self) {
        if self.is_threadsafe.load(Ordering::Relaxed) {
            self.runner.store(object::thread_ident(), Ordering::SeqCst);
        }
    }

    /// The callback has ended, in one way or another.
    #[inline]
    pub(crate) fn end_run(&self) {
        if self.is_threadsafe.load(Ordering::Relaxed) {
            self.runner.store(0, Ordering::SeqCst);
            running::note_end();
        }
    }

    /// Waits while another thread runs the callback of a thread-safe handle.
    #[inline]
    fn wait_for_runner(&self, py: Python<'_>) {
        if self.is_threadsafe.load(Ordering::Relaxed) {
            let this = object::thread_ident();
            running::wait_while(py, || ![0, this].contains(&self.runner.load(Ordering::SeqCst)));
        }
    }

    /// Makes a handle that was emptied by [`Self::take`] a new one.
    #[inline]
    pub(crate) fn renew(&self, py: Python<'_>, parts: CallParts<'_, '_>) {
        self.is_threadsafe.store(false, Ordering::Relaxed);
        self.callback.0.with(py, |callback| callback.fill(parts));
    }

    /// New references to what is to be called; an empty call if it is cancelled.
    #[inline]
    pub(crate) fn call(&self, py: Python<'_>) -> Call {
        self.callback.call(py)
    }

    /// The references themselves: the handle is not looked at again before it is renewed.
    #[inline]
    pub(crate) fn take(&self, py: Python<'_>) -> Call {
        self.callback.0.with(py, Callback::take)
    }

    pub(crate) fn cancel_now(&self, py: Python<'_>) {
        self.callback.cancel(py);
    }
}

#[pymethods]
impl Handle {
    /// Whether the callback was cancelled.
    fn cancelled(&self, py: Python<'_>) -> bool {
        self.wait_for_runner(py);
        self.callback.is_cancelled(py)
    }

    /// The contextvars.Context in which the callback runs.
    fn get_context(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        self.callback.context(py)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        self.callback.repr(py, "Handle", None)
    }

    #[getter]
    fn _callback(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.callback.function(py)
    }

    #[getter]
    fn _args<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        self.callback.args(py)
    }

    #[getter]
    fn _cancelled(&self, py: Python<'_>) -> bool {
        self.callback.is_cancelled(py)
    }

    /// `isinstance(handle, asyncio.Handle)` holds.
    #[getter]
    fn __class__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let is_threadsafe = self.is_threadsafe.load(Ordering::Relaxed);
        names::EVENTS.get(py, if is_threadsafe { intern!(py, "_ThreadSafeHandle") } else { intern!(py, "Handle") })
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.callback.traverse(&visit)
    }

    fn __clear__(&self) {
        self.callback.clear();
    }
}

/// A callback that `call_later()` or `call_at()` scheduled; matches `asyncio.TimerHandle`.
#[pyclass(frozen, weakref, module = "mioloop._core")]
#[derive(Debug)]
pub(crate) struct TimerHandle {
    pub(super) callback: CallbackCell,
    /// The bits of a float: seconds on the loop's clock, exactly as the caller gave them.
    when: AtomicU64,
    /// It waits, or is about to be run: a cancellation concerns the loop.
    is_scheduled: AtomicBool,
    /// Where the handle waits, to be told of a cancellation.
    owner: Py<Loop>,
}

impl TimerHandle {
    pub(crate) fn new(call: Call, when: f64, owner: Py<Loop>) -> Self {
        let (callback, when) = (CallbackCell::new(call), AtomicU64::new(when.to_bits()));
        Self { callback, when, is_scheduled: AtomicBool::new(true), owner }
    }

    /// It is run now, or never will be.
    #[inline]
    pub(crate) fn end_schedule(&self) {
        self.is_scheduled.store(false, Ordering::Relaxed);
    }

    /// New references to what is to be called; an empty call if it is cancelled.
    pub(crate) fn call(&self, py: Python<'_>) -> Call {
        self.callback.call(py)
    }

    /// Makes a timer that was emptied by [`Self::take`] a new one of the same loop.
    #[inline]
    pub(crate) fn renew(&self, py: Python<'_>, parts: CallParts<'_, '_>, when: f64) {
        self.when.store(when.to_bits(), Ordering::Relaxed);
        self.is_scheduled.store(true, Ordering::Relaxed);
        self.callback.0.with(py, |callback| callback.fill(parts));
    }

    /// The references themselves: the handle is not looked at again before it is renewed.
    #[inline]
    pub(crate) fn take(&self, py: Python<'_>) -> Call {
        self.callback.0.with(py, Callback::take)
    }

    /// Drops what a cancelled timer still holds: its context.
    pub(crate) fn empty(&self, py: Python<'_>) {
        if let Some(context) = self.callback.0.with(py, |callback| callback.call.take_context()) {
            context.drop_ref(py);
        }
    }

    #[inline]
    pub(crate) fn is_cancelled(&self, py: Python<'_>) -> bool {
        self.callback.is_cancelled(py)
    }

    pub(crate) fn seconds(&self) -> f64 {
        f64::from_bits(self.when.load(Ordering::Relaxed))
    }

    fn equals(&self, py: Python<'_>, other: &Self) -> PyResult<bool> {
        #[expect(clippy::float_cmp, reason = "asyncio compares the two times as they are")]
        if self.seconds() != other.seconds() || self.is_cancelled(py) != other.is_cancelled(py) {
            return Ok(false);
        }
        let same_function = self.callback.function(py).into_pyobject(py)?.eq(other.callback.function(py))?;
        Ok(same_function && self.callback.args(py)?.into_pyobject(py)?.eq(other.callback.args(py)?)?)
    }
}

#[pymethods]
impl TimerHandle {
    /// Whether the callback was cancelled.
    fn cancelled(&self, py: Python<'_>) -> bool {
        self.callback.is_cancelled(py)
    }

    /// The contextvars.Context in which the callback runs.
    fn get_context(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        self.callback.context(py)
    }

    /// The time for which the callback is scheduled, in seconds on the clock of loop.time().
    fn when(&self) -> f64 {
        self.seconds()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        self.callback.repr(py, "TimerHandle", Some(self.seconds()))
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        self.seconds().into_pyobject(py)?.hash()
    }

    fn __richcmp__(&self, py: Python<'_>, other: &Bound<'_, PyAny>, operation: CompareOp) -> PyResult<Py<PyAny>> {
        let Ok(other) = other.cast::<Self>() else {
            return Ok(py.NotImplemented());
        };
        let other = other.get();
        let answer = match operation {
            CompareOp::Lt => self.seconds() < other.seconds(),
            CompareOp::Le => self.seconds() < other.seconds() || self.equals(py, other)?,
            CompareOp::Gt => self.seconds() > other.seconds(),
            CompareOp::Ge => self.seconds() > other.seconds() || self.equals(py, other)?,
            CompareOp::Eq => self.equals(py, other)?,
            CompareOp::Ne => !self.equals(py, other)?,
        };
        Ok(answer.into_pyobject(py)?.to_owned().into_any().unbind())
    }

    #[getter]
    fn _callback(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.callback.function(py)
    }

    #[getter]
    fn _args<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        self.callback.args(py)
    }

    #[getter]
    fn _cancelled(&self, py: Python<'_>) -> bool {
        self.callback.is_cancelled(py)
    }

    #[getter]
    fn _when(&self) -> f64 {
        self.seconds()
    }

    /// `isinstance(handle, asyncio.TimerHandle)` holds.
    #[getter]
    fn __class__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        names::TIMER_HANDLE.get(py).cloned()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.owner)?;
        self.callback.traverse(&visit)
    }

    fn __clear__(&self) {
        self.callback.clear();
    }
}

impl Traverse for Handle {
    #[inline]
    fn traverse_raw(&self, visit: Visit) -> c_int {
        self.callback.traverse_raw(visit)
    }
}

impl Traverse for TimerHandle {
    #[inline]
    fn traverse_raw(&self, visit: Visit) -> c_int {
        match visit.call(&self.owner) {
            0 => self.callback.traverse_raw(visit),
            answer => answer,
        }
    }
}

/// Programs hold timers to cancel them: `asyncio.sleep()` does, and who sets a time-out.
impl Recycle for TimerHandle {
    own_dealloc!();

    #[inline]
    fn is_wanted(&self, _py: Python<'_>) -> bool {
        self.owner.get().has_room_for_timer()
    }

    #[inline]
    fn recycle(py: Python<'_>, timer: Py<Self>) {
        // What it still holds dies while it lives.
        timer.get().take(py).drop_ref(py);
        let owner = timer.get().owner.clone_ref(py);
        owner.get().recycle_timer(py, timer);
        owner.drop_ref(py);
    }
}

/// `Handle.cancel`, as a raw method: as hot as `call_soon()` where timeouts are used.
struct Cancel;

impl Method for Cancel {
    type Class = Handle;
    const NAME: &'static CStr = c"cancel";
    const DOC: &'static CStr = c"cancel($self)\n--\n\nCancels the callback; it will not run.";
    const BODY: Body<Handle> = cancel;
}

fn cancel<'py>(slf: &Bound<'py, Handle>, arguments: Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    arguments.require_none("cancel")?;
    slf.get().wait_for_runner(slf.py());
    slf.get().callback.cancel(slf.py());
    Ok(slf.py().None().into_bound(slf.py()))
}

/// `TimerHandle.cancel`, as a raw method.
struct CancelTimer;

impl Method for CancelTimer {
    type Class = TimerHandle;
    const NAME: &'static CStr = c"cancel";
    const DOC: &'static CStr = c"cancel($self)\n--\n\nCancels the callback; it will not run.";
    const BODY: Body<TimerHandle> = cancel_timer;
}

fn cancel_timer<'py>(slf: &Bound<'py, TimerHandle>, arguments: Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    arguments.require_none("cancel")?;
    let timer = slf.get();
    if timer.callback.cancel(slf.py()) && timer.is_scheduled.load(Ordering::Relaxed) {
        timer.owner.get().timer_cancelled(slf.py(), slf.as_unbound());
    }
    Ok(slf.py().None().into_bound(slf.py()))
}

/// Puts the raw methods on their classes.
pub(crate) fn define_methods(handle: &Bound<'_, PyType>, timer: &Bound<'_, PyType>) -> PyResult<()> {
    define_traverse::<Handle>(handle);
    define_traverse::<TimerHandle>(timer);
    define_recycling::<TimerHandle>(timer);
    define::<Cancel>(handle)?;
    define::<CancelTimer>(timer)
}
