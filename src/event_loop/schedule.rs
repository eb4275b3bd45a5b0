//! Scheduling: `call_soon`, `call_soon_threadsafe`, `call_later`, `call_at`, and the watching methods, as raw methods.
//!
//! The rules and texts are `BaseEventLoop`'s. In debug mode the handles are asyncio's own, with source tracebacks.

use super::Loop;
use super::handle::{Handle, TimerHandle};
use super::owned::{Owned, Runnable, Timer};
use super::watch::{AnyHandle, Direction};
use crate::errors;
use crate::py::call::{Call, CallParts};
use crate::py::method::{Arguments, Body, Method};
use crate::py::{names, object};
use crate::sys::clock;
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyBool, PyFloat, PyInt, PyTuple};
use std::ffi::CStr;

/// Handles that so many others wait beside share a copy of the context with them.
const CROWD: usize = 1024;

/// Declares a raw method: a type that names its body.
macro_rules! raw_method {
    ($type:ident, $name:literal, $doc:literal, $body:path) => {
        #[doc = $doc]
        pub(super) struct $type;

        impl Method for $type {
            type Class = Loop;
            const NAME: &'static CStr = $name;
            const DOC: &'static CStr = match CStr::from_bytes_with_nul(concat!($doc, "\0").as_bytes()) {
                Ok(doc) => doc,
                Err(_) => c"",
            };
            const BODY: Body<Loop> = $body;
        }
    };
}
pub(super) use raw_method;

raw_method!(
    CallSoon,
    c"call_soon",
    "call_soon($self, callback, *args, context=None)\n--\n\nSchedules a callback for the next turn; gives its Handle. Matches BaseEventLoop.call_soon.",
    call_soon
);
raw_method!(
    CallSoonThreadsafe,
    c"call_soon_threadsafe",
    "call_soon_threadsafe($self, callback, *args, context=None)\n--\n\nAs call_soon, from any thread. Matches BaseEventLoop.call_soon_threadsafe.",
    call_soon_threadsafe
);
raw_method!(
    CallLater,
    c"call_later",
    "call_later($self, delay, callback, *args, context=None)\n--\n\nSchedules a callback in delay seconds; gives its TimerHandle. Matches BaseEventLoop.call_later.",
    call_later
);
raw_method!(
    CallAt,
    c"call_at",
    "call_at($self, when, callback, *args, context=None)\n--\n\nSchedules a callback for a time of the loop's clock, in seconds. Matches BaseEventLoop.call_at.",
    call_at
);
raw_method!(
    AddReader,
    c"add_reader",
    "add_reader($self, fd, callback, *args)\n--\n\nCalls back as long as fd is readable. Matches SelectorEventLoop.add_reader.",
    add_reader
);
raw_method!(
    AddWriter,
    c"add_writer",
    "add_writer($self, fd, callback, *args)\n--\n\nCalls back as long as fd is writable. Matches SelectorEventLoop.add_writer.",
    add_writer
);
raw_method!(
    PrivateAddReader,
    c"_add_reader",
    "_add_reader($self, fd, callback, *args, context=None)\n--\n\nAs add_reader, without looking for a transport; gives the handle.",
    private_add_reader
);
raw_method!(
    PrivateAddWriter,
    c"_add_writer",
    "_add_writer($self, fd, callback, *args, context=None)\n--\n\nAs add_writer, without looking for a transport; gives the handle.",
    private_add_writer
);

raw_method!(Time, c"time", "time($self)\n--\n\nThe loop's clock in seconds: time.monotonic().", time);
raw_method!(GetDebug, c"get_debug", "get_debug($self)\n--\n\nWhether debug mode is on.", get_debug);

fn time<'py>(slf: &Bound<'py, Loop>, arguments: Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    arguments.require_none("time")?;
    Ok(PyFloat::new(slf.py(), errors::seconds(clock::monotonic())).into_any())
}

/// Asked by each Future and Task that is made.
fn get_debug<'py>(slf: &Bound<'py, Loop>, arguments: Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    arguments.require_none("get_debug")?;
    Ok(PyBool::new(slf.py(), slf.get().is_debug()).to_owned().into_any())
}

fn add_reader<'py>(slf: &Bound<'py, Loop>, arguments: Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    Loop::watch_checked(slf, &arguments, Direction::Read)
}

fn add_writer<'py>(slf: &Bound<'py, Loop>, arguments: Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    Loop::watch_checked(slf, &arguments, Direction::Write)
}

fn private_add_reader<'py>(slf: &Bound<'py, Loop>, arguments: Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    Loop::watch(slf, &arguments, Direction::Read)
}

fn private_add_writer<'py>(slf: &Bound<'py, Loop>, arguments: Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    Loop::watch(slf, &arguments, Direction::Write)
}

#[inline]
fn call_soon<'py>(slf: &Bound<'py, Loop>, arguments: Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = slf.py();
    let core = slf.get();
    let mut room = Vec::new();
    let (values, context) = arguments.bind(py, "call_soon", &["callback"], &mut room)?;
    core.check_open()?;
    let (callback, args) = (&values[0], &values[1..]);
    if core.is_debug() {
        check_debug(slf, callback, "call_soon", true)?;
        let handle = Loop::new_handle(slf, callback, args, context, intern!(py, "Handle"))?;
        let object = handle.to_object(py).into_bound(py);
        core.make_ready(py, handle.into_runnable());
        return Ok(object);
    }
    Ok(queue(py, core, callback, args, context)?.into_bound(py).into_any())
}

/// Makes a new handle ready.
#[inline]
fn queue<'py>(
    py: Python<'py>,
    core: &Loop,
    callback: &Borrowed<'_, 'py, PyAny>,
    args: &[Borrowed<'_, 'py, PyAny>],
    context: Option<Borrowed<'_, 'py, PyAny>>,
) -> PyResult<Py<Handle>> {
    let is_copy = context.is_none();
    let mut parts = CallParts::new(py, *callback, args, context)?;
    let (queued, left) = core.owned.with(py, |owned| {
        let is_crowd = is_copy && owned.ready.len() >= CROWD;
        let left = if is_crowd { owned.snapshot.share(py, &mut parts) } else { None };
        (owned.queue_pooled(py, parts), left)
    });
    if let Some(left) = left {
        left.drop_ref(py);
    }
    match queued {
        Ok(handle) => Ok(handle),
        Err(parts) => {
            let handle = Py::new(py, Handle::new(Call::new(parts)))?;
            core.make_ready(py, Runnable::Handle(handle.clone_ref(py)));
            Ok(handle)
        }
    }
}

fn call_soon_threadsafe<'py>(slf: &Bound<'py, Loop>, arguments: Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = slf.py();
    let core = slf.get();
    let mut room = Vec::new();
    let (values, context) = arguments.bind(py, "call_soon_threadsafe", &["callback"], &mut room)?;
    core.check_open()?;
    let (callback, args) = (&values[0], &values[1..]);
    if !cfg!(Py_GIL_DISABLED) && !core.is_debug() {
        // With a GIL, the caller has the queue to itself as the owner has: measured, a fifth faster than the inbox.
        let handle = queue(py, core, callback, args, context)?;
        handle.get().make_threadsafe();
        if core.is_parked(py) {
            core.wake_for_call(py)?;
        }
        return Ok(handle.into_bound(py).into_any());
    }
    if core.is_debug() {
        check_debug(slf, callback, "call_soon_threadsafe", false)?;
    }
    let debug_class = if cfg!(Py_3_14) { intern!(py, "_ThreadSafeHandle") } else { intern!(py, "Handle") };
    let handle = Loop::new_handle(slf, callback, args, context, debug_class)?;
    match &handle {
        AnyHandle::Native(handle) => handle.get().make_threadsafe(),
        // The constructor of the subclass is no source of the user's; `call_soon_threadsafe` of asyncio drops it too.
        AnyHandle::Foreign(handle) if cfg!(Py_3_14) => {
            let traceback = handle.bind(py).getattr(intern!(py, "_source_traceback"))?;
            if traceback.is_truthy()? {
                traceback.del_item(-1)?;
            }
        }
        AnyHandle::Foreign(_) => {}
    }
    let object = handle.to_object(py).into_bound(py);
    let runnable = handle.into_runnable();
    if cfg!(Py_GIL_DISABLED) && !core.is_owner() {
        let shared = core.shared(py)?;
        if shared.inbox.post(runnable) {
            shared.poller.wake().map_err(|error| errors::os_error(py, &error))?;
        }
        return Ok(object);
    }
    core.make_ready(py, runnable);
    if core.is_parked(py) {
        core.wake(py)?;
    }
    Ok(object)
}

fn call_later<'py>(slf: &Bound<'py, Loop>, arguments: Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = slf.py();
    let mut room = Vec::new();
    let (values, context) = arguments.bind(py, "call_later", &["delay", "callback"], &mut room)?;
    let (delay, callback, args) = (&values[0], &values[1], &values[2..]);
    if delay.is_none() {
        return Err(PyTypeError::new_err("delay must not be None"));
    }
    let program_time = Loop::program_time(slf)?;
    let now = errors::seconds(clock::monotonic());
    let when = if let Some(now) = program_time {
        now.add(delay)?.extract()?
    } else if let Ok(delay) = delay.cast_exact::<PyFloat>() {
        now + delay.value()
    } else if let Ok(delay) = delay.cast_exact::<PyInt>() {
        now + object::int_as_float(&delay)?
    } else {
        // Whatever can be added to a float is a delay: Fraction, numpy's numbers.
        PyFloat::new(py, now).add(delay)?.extract()?
    };
    if Loop::has_program_call_at(slf) {
        return call_program_call_at(slf, when, callback, args, context);
    }
    schedule(slf, when, callback, args, context)
}

#[cold]
fn call_program_call_at<'py>(
    slf: &Bound<'py, Loop>,
    when: f64,
    callback: &Borrowed<'_, 'py, PyAny>,
    args: &[Borrowed<'_, 'py, PyAny>],
    context: Option<Borrowed<'_, 'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = slf.py();
    let when = PyFloat::new(py, when).into_any();
    let args = [when, (*callback).to_owned()].into_iter().chain(args.iter().map(|arg| (*arg).to_owned()));
    let keywords = [("context", context)].into_py_dict(py)?;
    slf.call_method(intern!(py, "call_at"), PyTuple::new(py, args.collect::<Vec<_>>())?, Some(&keywords))
}

fn call_at<'py>(slf: &Bound<'py, Loop>, arguments: Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let mut room = Vec::new();
    let names = ["when", "callback"];
    let (values, context) = arguments.bind(slf.py(), "call_at", &names, &mut room)?;
    let (when, callback, args) = (&values[0], &values[1], &values[2..]);
    if when.is_none() {
        return Err(PyTypeError::new_err("when cannot be None"));
    }
    schedule(slf, when.extract()?, callback, args, context)
}

fn schedule<'py>(
    slf: &Bound<'py, Loop>,
    when: f64,
    callback: &Borrowed<'_, 'py, PyAny>,
    args: &[Borrowed<'_, 'py, PyAny>],
    context: Option<Borrowed<'_, 'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = slf.py();
    let core = slf.get();
    core.check_open()?;
    let deadline = deadline(when);
    if core.is_debug() {
        check_debug(slf, callback, "call_at", true)?;
        let args = PyTuple::new(py, args.iter().map(|arg| (*arg).to_owned()))?;
        let context = context.map(Borrowed::to_owned);
        let timer = names::TIMER_HANDLE.get(py)?.call1((when, callback, args, slf, context))?;
        timer.setattr(intern!(py, "_scheduled"), true)?;
        let waiting = Timer::Foreign(timer.clone().unbind());
        core.owned.with(py, |owned| owned.timers.insert(deadline, waiting));
        return Ok(timer);
    }
    let is_copy = context.is_none();
    let mut parts = CallParts::new(py, *callback, args, context)?;
    let left = core.owned.with(py, |owned| {
        let is_crowd = is_copy && owned.timers.pending() >= CROWD;
        if is_crowd { owned.snapshot.share(py, &mut parts) } else { None }
    });
    if let Some(left) = left {
        left.drop_ref(py);
    }
    let timer = match spare_timer(py, core) {
        Some(timer) => {
            timer.get().renew(py, parts, when);
            timer
        }
        None => Py::new(py, TimerHandle::new(Call::new(parts), when, slf.clone().unbind()))?,
    };
    let waiting = Timer::Native(timer.clone_ref(py));
    core.owned.with(py, |owned| owned.timers.insert(deadline, waiting));
    Ok(timer.into_bound(py).into_any())
}

/// A timer that nobody knows any more, emptied.
#[inline]
fn spare_timer(py: Python<'_>, core: &Loop) -> Option<Py<TimerHandle>> {
    let (timer, is_empty) = core.owned.with(py, Owned::spare_timer)?;
    if is_empty {
        return Some(timer);
    }
    if !object::is_unshared(py, &timer) {
        // Its caller has kept it.
        timer.drop_ref(py);
        return None;
    }
    timer.get().empty(py);
    Some(timer)
}

/// Nanoseconds of a time in seconds, rounded up: a timer is never early. Times before the clock's start are due, times
/// beyond its end never are.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturating is what is wanted")]
pub(super) fn deadline(when: f64) -> u64 {
    (when * 1e9).ceil() as u64
}

/// The checks that asyncio makes in debug mode only.
#[cold]
fn check_debug(
    slf: &Bound<'_, Loop>,
    callback: &Borrowed<'_, '_, PyAny>,
    function: &str,
    check_thread: bool,
) -> PyResult<()> {
    let py = slf.py();
    if check_thread {
        slf.call_method0(intern!(py, "_check_thread"))?;
    }
    slf.call_method1(intern!(py, "_check_callback"), (callback, function)).map(drop)
}

impl Loop {
    /// A handle of ours: one from the pool, if there is one.
    #[inline]
    pub(crate) fn native_handle<'py>(
        py: Python<'py>,
        core: &Self,
        callback: &Borrowed<'_, 'py, PyAny>,
        args: &[Borrowed<'_, 'py, PyAny>],
        context: Option<Borrowed<'_, 'py, PyAny>>,
    ) -> PyResult<Py<Handle>> {
        let parts = CallParts::new(py, *callback, args, context)?;
        match core.owned.with(py, |owned| owned.pool.pop()) {
            Some(handle) => {
                handle.get().renew(py, parts);
                Ok(handle)
            }
            None => Py::new(py, Handle::new(Call::new(parts))),
        }
    }
}
