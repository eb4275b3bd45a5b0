//! What both pipe transports are made of: the pipe, its protocol, and the way to the end.
//!
//! Owns the user's pipe object from `connection_made` on, and closes it after `connection_lost` (invariant 4 of the
//! loop). Matches what `asyncio.unix_events._UnixReadPipeTransport` and `_UnixWritePipeTransport` have in common, which
//! differs from streams:
//!
//! * Exceptions of protocol methods are reported, and the transport stays open.
//! * The descriptor need not be the transport's own: a terminal may be read by one and written by another, so that
//!   registrations are level-triggered and shared ([`crate::event_loop::watch`]).

use crate::errors;
use crate::event_loop::Loop;
use crate::event_loop::core::error_context;
use crate::event_loop::metrics::Open;
use crate::event_loop::owned::Runnable;
use crate::event_loop::run::{Run, is_exit};
use crate::event_loop::source::{Event, Source};
use crate::py::cell::OwnerCell;
use crate::py::{context, names};
use crate::sys::pipe::{self, Kind};
use pyo3::PyClass;
use pyo3::exceptions::PyValueError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::boolean_struct::True;
use pyo3::types::PyDict;
use std::os::fd::RawFd;

/// What both kinds know.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts; their combinations are all possible")]
pub(super) struct Pipe {
    /// The user's object; `get_extra_info("pipe")` answers with it after the end too.
    object: Py<PyAny>,
    pub(super) fd: RawFd,
    /// It is a pipe that has not been widened.
    is_narrow: bool,
    /// The object is not closed yet.
    is_open: bool,
    /// Until the end; None then.
    open: Option<Open>,
    /// None once `connection_lost` was called.
    pub(super) protocol: Option<Py<PyAny>>,
    extra: Option<Py<PyDict>>,
    /// `close()`, `abort()` or `write_eof()` was called, the end was read, or the pipe failed.
    pub(super) is_closing: bool,
    /// `connection_lost` is scheduled.
    pub(super) is_lost: bool,
    /// The context of what the kernel reports.
    pub(super) context: Py<PyAny>,
    beginning: Option<Beginning>,
    ending: Option<Ending>,
}

/// What waits for the first turn.
#[derive(Debug)]
struct Beginning {
    context: Py<PyAny>,
    made: Py<PyAny>,
    waiter: Option<Py<PyAny>>,
}

/// What `connection_lost` is called with, and in which context.
#[derive(Debug)]
struct Ending {
    context: Py<PyAny>,
    error: Option<Py<PyAny>>,
    /// `eof_received` comes first.
    is_end_of_file: bool,
}

impl Pipe {
    /// Takes a pipe object; `refusal` is the text of asyncio's `ValueError` for other files.
    pub(super) fn new(
        core: &Bound<'_, Loop>,
        object: &Bound<'_, PyAny>,
        protocol: &Bound<'_, PyAny>,
        waiter: Option<Py<PyAny>>,
        extra: Option<Py<PyDict>>,
        refusal: &'static str,
    ) -> PyResult<(Self, Kind)> {
        let py = core.py();
        let failed = |error| errors::os_error(py, &error);
        let fd: RawFd = object.call_method0(intern!(py, "fileno"))?.extract()?;
        let kind = pipe::kind(fd).map_err(failed)?;
        if kind == Kind::Other {
            return Err(PyValueError::new_err(refusal));
        }
        pipe::set_non_blocking(fd).map_err(failed)?;
        core.get().check_open()?;
        // As asyncio, which looks it up here: a protocol without it gets no transport.
        let made = protocol.getattr(intern!(py, "connection_made"))?.unbind();
        let pipe = Self {
            object: object.clone().unbind(),
            fd,
            is_narrow: kind == Kind::Pipe,
            is_open: true,
            open: Some(core.get().metrics.open_transport()),
            protocol: Some(protocol.clone().unbind()),
            extra,
            is_closing: false,
            is_lost: false,
            context: context::copy_current(py)?,
            beginning: Some(Beginning { context: context::copy_current(py)?, made, waiter }),
            ending: None,
        };
        Ok((pipe, kind))
    }

    /// Much goes through it: a pipe that holds more costs fewer changes between the two processes.
    pub(super) fn widen(&mut self) {
        if std::mem::take(&mut self.is_narrow) {
            // An error: the user has too much in pipes already (`pipe(7)`), and it stays as it is.
            drop(pipe::widen(self.fd));
        }
    }

    /// "closed", "closing" or nothing, and the descriptor.
    pub(super) fn text(&self, name: &str) -> String {
        match (self.is_open, self.is_closing) {
            (false, _) => format!("<{name} closed fd={}", self.fd),
            (true, true) => format!("<{name} closing fd={}", self.fd),
            (true, false) => format!("<{name} fd={}", self.fd),
        }
    }

    pub(super) const fn is_open(&self) -> bool {
        self.is_open
    }

    pub(super) fn protocol(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.protocol.as_ref().map(|protocol| protocol.clone_ref(py))
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.object)?;
        visit.call(&self.protocol)?;
        visit.call(&self.extra)?;
        visit.call(&self.context)?;
        if let Some(Beginning { context, made, waiter }) = &self.beginning {
            visit.call(context)?;
            visit.call(made)?;
            visit.call(waiter)?;
        }
        if let Some(Ending { context, error, .. }) = &self.ending {
            visit.call(context)?;
            visit.call(error)?;
        }
        Ok(())
    }

    /// What can be part of a cycle, to be dropped outside the cell; the pipe object stays, to be closed.
    pub(super) fn clear(&mut self) -> impl Sized + use<> {
        (self.protocol.take(), self.extra.take(), self.beginning.take(), self.ending.take())
    }
}

/// A pipe transport, of either kind.
pub(super) trait Transport: PyClass<Frozen = True> + Sync {
    fn core(&self) -> &Py<Loop>;
    fn pipe(&self) -> &OwnerCell<Pipe>;
    fn source(slf: &Bound<'_, Self>) -> Source;
    /// Has the kernel report what the transport needs to know from its beginning on.
    fn watch(slf: &Bound<'_, Self>) -> PyResult<()>;
    /// What `repr()` shows.
    fn text(&self, py: Python<'_>) -> String;
}

/// Schedules `connection_made`.
pub(super) fn begin<T: Transport>(slf: &Bound<'_, T>) {
    let start = Runnable::Event(T::source(slf), Event::Start);
    slf.get().core().get().make_ready(slf.py(), start);
}

/// Calls `connection_made`, then begins to watch, then tells the waiter; what fails keeps nothing from the rest.
pub(super) fn on_start<T: Transport>(slf: &Bound<'_, T>, run: &mut Run<'_, '_>) -> PyResult<()> {
    let py = slf.py();
    let Some(Beginning { context, made, waiter }) = slf.get().pipe().with(py, |pipe| pipe.beginning.take()) else {
        return Ok(());
    };
    run.entered.switch(py, &context)?;
    let outcome = made.bind(py).call1((slf,)).map(drop);
    if let Err(error) = &outcome
        && is_exit(py, error)
    {
        return outcome;
    }
    let is_open = slf.get().pipe().with(py, |pipe| !pipe.is_closing);
    let outcome = outcome.and(if is_open { T::watch(slf) } else { Ok(()) });
    if let Some(waiter) = waiter {
        names::SET_RESULT_UNLESS_CANCELLED.get(py)?.call1((waiter, py.None()))?;
    }
    outcome
}

/// Stops to watch and schedules `connection_lost(error)`, once; matches `_close`.
pub(super) fn lose<T: Transport>(slf: &Bound<'_, T>, error: Option<Py<PyAny>>, is_end_of_file: bool) -> PyResult<()> {
    let py = slf.py();
    let core = slf.get().core().get();
    let (fd, is_first) = slf.get().pipe().with(py, |pipe| {
        pipe.is_closing = true;
        (pipe.fd, !pipe.is_lost)
    });
    if !is_first {
        return Ok(());
    }
    core.check_open()?;
    let context = context::copy_current(py)?;
    core.unwatch_pipe(py, fd, &T::source(slf));
    slf.get().pipe().with(py, |pipe| {
        pipe.is_lost = true;
        pipe.ending = Some(Ending { context, error, is_end_of_file });
    });
    core.make_ready(py, Runnable::Event(T::source(slf), Event::Lost));
    Ok(())
}

/// Calls `eof_received` if the end was read, then `connection_lost`, and closes the pipe whatever they do.
pub(super) fn on_lost<T: Transport>(slf: &Bound<'_, T>, run: &mut Run<'_, '_>) -> PyResult<()> {
    let py = slf.py();
    let (ending, protocol) = slf.get().pipe().with(py, |pipe| (pipe.ending.take(), pipe.protocol(py)));
    let (Some(Ending { context, error, is_end_of_file }), Some(protocol)) = (ending, protocol) else {
        return Ok(());
    };
    run.entered.switch(py, &context)?;
    let protocol = protocol.bind(py);
    if is_end_of_file && let Err(error) = protocol.call_method0(intern!(py, "eof_received")) {
        if is_exit(py, &error) {
            // The rest of the end follows when the loop runs again.
            let ending = Ending { context, error: None, is_end_of_file: false };
            slf.get().pipe().with(py, |pipe| pipe.ending = Some(ending));
            slf.get().core().get().make_ready(py, Runnable::Event(T::source(slf), Event::Lost));
            return Err(error);
        }
        run.report_event(&error, &T::source(slf))?;
        run.entered.switch(py, &context)?;
    }
    let told = protocol.call_method1(intern!(py, "connection_lost"), (error,)).map(drop);
    let (object, protocol) = slf.get().pipe().with(py, |pipe| {
        pipe.is_open = false;
        pipe.open = None;
        (pipe.object.clone_ref(py), pipe.protocol.take())
    });
    drop(protocol);
    told.and(object.bind(py).call_method0(intern!(py, "close")).map(drop))
}

/// The pipe cannot go on; matches `_fatal_error`. `is_expected`: the protocol knows by `connection_lost`, nobody else.
#[cold]
pub(super) fn fatal<T: Transport>(slf: &Bound<'_, T>, error: &PyErr, message: &str, is_expected: bool) -> PyResult<()> {
    let py = slf.py();
    let exception = errors::exception(py, error)?;
    if !is_expected {
        report(slf, &error_context(py, message, error)?)?;
    } else if slf.get().core().get().is_debug() {
        let keywords = PyDict::new(py);
        keywords.set_item("exc_info", &exception)?;
        let logger = names::logger(py, "asyncio.unix_events")?;
        logger.call_method(intern!(py, "debug"), ("%r: %s", slf, message), Some(&keywords))?;
    }
    lose(slf, Some(exception.unbind()), false)
}

/// Adds transport and protocol, and calls the loop's exception handler.
pub(super) fn report<T: Transport>(slf: &Bound<'_, T>, context: &Bound<'_, PyDict>) -> PyResult<()> {
    let py = slf.py();
    context.set_item(intern!(py, "transport"), slf)?;
    context.set_item(intern!(py, "protocol"), slf.get().pipe().with(py, |pipe| pipe.protocol(py)))?;
    let core = slf.get().core().bind(py);
    core.call_method1(intern!(py, "call_exception_handler"), (context,)).map(drop)
}

/// In debug mode, asyncio's log records about the life of a pipe.
#[inline]
pub(super) fn log<T: Transport>(slf: &Bound<'_, T>, level: &str, text: &str) -> PyResult<()> {
    if !slf.get().core().get().is_debug() {
        return Ok(());
    }
    names::logger(slf.py(), "asyncio.unix_events")?.call_method1(level, (text, slf)).map(drop)
}

/// `BaseTransport.get_extra_info`
pub(super) fn extra_info<'py, T: Transport>(
    slf: &Bound<'py, T>,
    name: &Bound<'py, PyAny>,
    default: Option<Bound<'py, PyAny>>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = slf.py();
    if matches!(name.extract::<&str>(), Ok("pipe")) {
        return Ok(Some(slf.get().pipe().with(py, |pipe| pipe.object.clone_ref(py)).into_bound(py)));
    }
    let extra = slf.get().pipe().with(py, |pipe| pipe.extra.as_ref().map(|extra| extra.clone_ref(py)));
    match extra {
        Some(extra) => Ok(extra.bind(py).get_item(name)?.or(default)),
        None => Ok(default),
    }
}

/// `BaseTransport.set_protocol`
pub(super) fn set_protocol<T: Transport>(transport: &T, protocol: &Bound<'_, PyAny>) {
    let new = protocol.clone().unbind();
    drop(transport.pipe().with(protocol.py(), |pipe| pipe.protocol.replace(new)));
}

/// The finalizer. A transport that nobody closed: asyncio's warning, and the pipe is closed.
pub(super) fn finalize<T: Transport>(slf: &Bound<'_, T>) -> PyResult<()> {
    let py = slf.py();
    let open = |pipe: &mut Pipe| std::mem::take(&mut pipe.is_open).then(|| pipe.object.clone_ref(py));
    if !slf.get().pipe().with(py, |pipe| pipe.is_open) {
        return Ok(());
    }
    let warned = errors::warn_unclosed(slf.as_any());
    let object = slf.get().pipe().with(py, open);
    let closed = object.map_or(Ok(()), |object| object.call_method0(py, intern!(py, "close")).map(drop));
    warned.and(closed)
}
