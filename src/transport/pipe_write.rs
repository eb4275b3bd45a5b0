//! The transport that writes to a pipe, a socket, a terminal or another character device.
//!
//! Owns the unsent bytes. A write is tried at once: what is at the other end, often another process, should not wait
//! for the end of a turn. While it is idle, the end of the other side is noticed: a pipe without a reader is an error
//! condition, and a socket's peer hangs up. Matches `asyncio.unix_events._UnixWritePipeTransport`.

use super::pipe::{self, Pipe, Transport};
use crate::errors;
use crate::event_loop::Loop;
use crate::event_loop::core::error_context;
use crate::event_loop::run::{Run, is_exit};
use crate::event_loop::source::{Event, Source};
use crate::event_loop::watch::Sink;
use crate::py::buffer::{self, Chunk};
use crate::py::cell::OwnerCell;
use crate::py::finalize::{Finalize, define_finalizer};
use crate::py::method::{Arguments, Body, Method, define};
use crate::py::recycle::own_dealloc;
use crate::py::{context, names, object};
use crate::reactor::flow::Flow;
use crate::reactor::outbox::Outbox;
use crate::reactor::readiness::Readiness;
use crate::sys;
use crate::sys::pipe::Kind;
use crate::sys::socket::MAX_PARTS;
use pyo3::exceptions::{PyAssertionError, PyBrokenPipeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyMemoryView, PyString, PyType};
use std::ffi::CStr;
use std::io::{self, IoSlice};

/// From so many writes after the end, asyncio warns.
const WARN_FROM: u32 = 5;
/// `writelines()` of at most so many bytes is copied into one piece: cheaper than a piece each for the kernel.
const JOIN: usize = 4096;

/// A pipe that gets more than this at once is widened: it holds no more by default.
const MUCH: usize = 64 * 1024;

/// What writing needs to know beside the pipe.
#[derive(Debug)]
struct State {
    outbox: Outbox<Chunk>,
    flow: Flow,
    /// The other side's end is told of by the kernel; terminals and devices do not tell.
    has_hang_up: bool,
    /// The kernel took less than was offered, and tells when there is room.
    is_blocked: bool,
    /// In which context it tells: that of the write that found the kernel full.
    context: Option<Py<PyAny>>,
    /// Writes after the end, as asyncio counts them for its warning.
    late: u32,
}

/// A transport that writes. Users get it from `connect_write_pipe()`, never by calling the class.
#[pyclass(frozen, weakref, dict, name = "WritePipeTransport", module = "mioloop._core")]
#[derive(Debug)]
pub(crate) struct WritePipe {
    core: Py<Loop>,
    pipe: OwnerCell<Pipe>,
    state: OwnerCell<State>,
}

impl Transport for WritePipe {
    fn core(&self) -> &Py<Loop> {
        &self.core
    }

    fn pipe(&self) -> &OwnerCell<Pipe> {
        &self.pipe
    }

    fn source(slf: &Bound<'_, Self>) -> Source {
        Source::WritePipe(slf.clone().unbind())
    }

    fn watch(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let (room, hang_up) = slf.get().state.with(py, |state| (state.is_blocked, state.has_hang_up));
        let fd = slf.get().pipe.with(py, |pipe| pipe.fd);
        let core = slf.get().core.get();
        if room || hang_up {
            core.watch_sink(py, fd, Sink { pipe: Self::source(slf), room, hang_up })
        } else {
            core.unwatch_pipe(py, fd, &Self::source(slf));
            Ok(())
        }
    }

    fn text(&self, py: Python<'_>) -> String {
        let (start, is_open) = self.pipe.with(py, |pipe| (pipe.text("WritePipeTransport"), pipe.is_open()));
        let (size, is_blocked) = self.state.with(py, |state| (state.outbox.size(), state.is_blocked));
        match (is_open, is_blocked) {
            (false, _) => format!("{start} closed>"),
            (true, _) if self.core.get().check_open().is_err() => format!("{start} open>"),
            (true, true) => format!("{start} polling bufsize={size}>"),
            (true, false) => format!("{start} idle bufsize={size}>"),
        }
    }
}

/// `WritePipeTransport.write`, as a raw method.
struct Write;

impl Method for Write {
    type Class = WritePipe;
    const NAME: &'static CStr = c"write";
    const DOC: &'static CStr =
        c"write($self, data)\n--\n\nWrites data (bytes-like) without waiting. Matches WriteTransport.write.";
    const BODY: Body<WritePipe> = write;
}

pub(crate) fn define_methods(class: &Bound<'_, PyType>) -> PyResult<()> {
    // asyncio's write pipes are Transports too, whose methods for reading raise NotImplementedError.
    for name in ["is_reading", "pause_reading", "resume_reading"] {
        class.setattr(name, names::TRANSPORT.get(class.py())?.getattr(name)?)?;
    }
    define_finalizer::<WritePipe>(class);
    define::<Write>(class)
}

fn write<'py>(slf: &Bound<'py, WritePipe>, arguments: Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = slf.py();
    let data = arguments.only_argument("write", intern!(py, "data"))?;
    let is_bytes = data.is_instance_of::<PyBytes>()
        || data.is_instance_of::<PyByteArray>()
        || data.is_instance_of::<PyMemoryView>();
    if !is_bytes {
        // As asyncio, which asserts.
        return Err(PyAssertionError::new_err(errors::repr(&data)));
    }
    WritePipe::queue(slf, std::iter::once(Chunk::new(&data)?))?;
    Ok(py.None().into_bound(py))
}

/// What a round of writing came to.
enum Written {
    /// Everything that was there is gone.
    All,
    /// The kernel has no room.
    Blocked,
    Failed(io::Error),
}

impl WritePipe {
    pub(crate) fn on_event(slf: &Bound<'_, Self>, run: &mut Run<'_, '_>, event: Event) -> PyResult<()> {
        match event {
            Event::Ready(readiness) => Self::on_ready(slf, run, readiness),
            Event::Start => pipe::on_start(slf, run),
            Event::Lost => pipe::on_lost(slf, run),
            Event::Continue => Ok(()),
        }
    }

    fn on_ready(slf: &Bound<'_, Self>, run: &mut Run<'_, '_>, readiness: Readiness) -> PyResult<()> {
        let py = slf.py();
        if slf.get().pipe.with(py, |pipe| pipe.is_lost) {
            return Ok(());
        }
        let (has_hang_up, is_blocked) = slf.get().state.with(py, |state| (state.has_hang_up, state.is_blocked));
        if has_hang_up && readiness.is_read_closed() {
            let context = slf.get().pipe.with(py, |pipe| pipe.context.clone_ref(py));
            run.entered.switch(py, &context)?;
            return Self::hung_up(slf);
        }
        if !is_blocked || !readiness.is_writable() {
            return Ok(());
        }
        let context = slf.get().state.with(py, |state| state.context.as_ref().map(|context| context.clone_ref(py)));
        if let Some(context) = context {
            run.entered.switch(py, &context)?;
        }
        let written = slf.get().write_out(py);
        Self::after_write(slf, written)
    }

    /// Nobody reads any more; matches `_read_ready`.
    fn hung_up(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        pipe::log(slf, "info", "%r was closed by peer")?;
        let is_empty = slf.get().state.with(py, |state| state.outbox.is_empty());
        let error = if is_empty { None } else { Some(PyBrokenPipeError::new_err(()).into_value(py).into_any()) };
        Self::close_now(slf, error)
    }

    /// Forgets what is unsent, and ends.
    fn close_now(slf: &Bound<'_, Self>, error: Option<Py<PyAny>>) -> PyResult<()> {
        let outbox = slf.get().state.with(slf.py(), |state| {
            state.is_blocked = false;
            (std::mem::replace(&mut state.outbox, Outbox::new()), state.context.take())
        });
        drop(outbox);
        pipe::lose(slf, error, false)
    }

    fn queue(slf: &Bound<'_, Self>, chunks: impl Iterator<Item = Chunk>) -> PyResult<()> {
        let py = slf.py();
        let mut chunks = chunks.filter(|chunk| !chunk.as_ref().is_empty()).peekable();
        if chunks.peek().is_none() {
            return Ok(());
        }
        if slf.get().pipe.with(py, |pipe| pipe.is_closing) {
            return Self::write_too_late(slf);
        }
        let is_blocked = slf.get().state.with(py, |state| {
            chunks.for_each(|chunk| state.outbox.push(chunk));
            state.is_blocked
        });
        if !is_blocked {
            if slf.get().state.with(py, |state| state.outbox.size()) > MUCH {
                slf.get().pipe.with(py, Pipe::widen);
            }
            let written = slf.get().write_out(py);
            Self::after_write(slf, written)?;
        }
        Self::check_high(slf)
    }

    /// Writing after the end is no error, but whoever goes on is warned.
    #[cold]
    fn write_too_late(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let writes = slf.get().state.with(py, |state| {
            state.late += 1;
            state.late - 1
        });
        if writes >= WARN_FROM {
            let text = "pipe closed by peer or os.write(pipe, data) raised exception.";
            names::logger(py, "asyncio.unix_events")?.call_method1(intern!(py, "warning"), (text,))?;
        }
        Ok(())
    }

    /// Writes until everything is gone, or the kernel has no room.
    fn write_out(&self, py: Python<'_>) -> Written {
        let fd = self.pipe.with(py, |pipe| pipe.fd);
        self.state.with(py, |state| {
            state.is_blocked = false;
            while !state.outbox.is_empty() {
                let mut parts = [IoSlice::new(&[]); MAX_PARTS];
                let count = state.outbox.parts(&mut parts);
                match sys::pipe::write(fd, &parts[..count]) {
                    Ok(count) => {
                        self.core.get().metrics.note_sent(count);
                        state.outbox.advance(count);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        state.is_blocked = true;
                        return Written::Blocked;
                    }
                    Err(error) => return Written::Failed(error),
                }
            }
            Written::All
        })
    }

    fn after_write(slf: &Bound<'_, Self>, written: Written) -> PyResult<()> {
        let py = slf.py();
        let is_waiting = slf.get().state.with(py, |state| state.context.is_some());
        match written {
            Written::Failed(error) => {
                slf.get().state.with(py, |state| state.late += 1);
                let error = errors::os_error(py, &error);
                pipe::fatal(slf, &error, "Fatal write error on pipe transport", true)?;
                return Self::close_now(slf, None);
            }
            Written::Blocked if !is_waiting => {
                let context = context::copy_current(py)?;
                slf.get().state.with(py, |state| state.context = Some(context));
                Self::watch(slf)?;
            }
            Written::All if is_waiting => {
                drop(slf.get().state.with(py, |state| state.context.take()));
                Self::watch(slf)?;
            }
            Written::Blocked | Written::All => {}
        }
        // The protocol may write more.
        Self::check_low(slf)?;
        let is_drained = slf.get().state.with(py, |state| state.outbox.is_empty());
        if is_drained && slf.get().pipe.with(py, |pipe| pipe.is_closing) {
            return pipe::lose(slf, None, false);
        }
        Ok(())
    }

    /// Asks the protocol to pause writing when the outbox has grown above the high-water mark.
    fn check_high(slf: &Bound<'_, Self>) -> PyResult<()> {
        let pause = slf.get().state.with(slf.py(), |state| state.flow.should_pause(state.outbox.size()));
        if pause { Self::tell_flow(slf, intern!(slf.py(), "pause_writing")) } else { Ok(()) }
    }

    /// Asks the protocol to resume writing when the outbox has shrunk to the low-water mark.
    fn check_low(slf: &Bound<'_, Self>) -> PyResult<()> {
        let resume = slf.get().state.with(slf.py(), |state| state.flow.should_resume(state.outbox.size()));
        if resume { Self::tell_flow(slf, intern!(slf.py(), "resume_writing")) } else { Ok(()) }
    }

    fn tell_flow(slf: &Bound<'_, Self>, method: &Bound<'_, PyString>) -> PyResult<()> {
        let py = slf.py();
        let Some(protocol) = slf.get().pipe.with(py, |pipe| pipe.protocol(py)) else {
            return Ok(());
        };
        match protocol.bind(py).call_method0(method) {
            Ok(_) => Ok(()),
            Err(error) if is_exit(py, &error) => Err(error),
            Err(error) => pipe::report(slf, &error_context(py, &format!("protocol.{method}() failed"), &error)?),
        }
    }
}

#[pymethods]
impl WritePipe {
    /// A transport over a pipe object; for the loop's `_make_write_pipe_transport`.
    #[new]
    #[pyo3(signature = (core, pipe, protocol, waiter=None, extra=None))]
    fn new<'py>(
        core: &Bound<'py, Loop>,
        pipe: &Bound<'py, PyAny>,
        protocol: &Bound<'py, PyAny>,
        waiter: Option<Py<PyAny>>,
        extra: Option<Py<PyDict>>,
    ) -> PyResult<Bound<'py, Self>> {
        let refusal = "Pipe transport is only for pipes, sockets and character devices";
        let (pipe, kind) = Pipe::new(core, pipe, protocol, waiter, extra, refusal)?;
        let state = State {
            outbox: Outbox::new(),
            flow: Flow::new(),
            has_hang_up: kind != Kind::Character,
            is_blocked: false,
            context: None,
            late: 0,
        };
        let new = Self { core: core.clone().unbind(), pipe: OwnerCell::new(pipe), state: OwnerCell::new(state) };
        let slf = object::new_with_dictionary(core.py(), new)?;
        pipe::begin(&slf);
        Ok(slf)
    }

    /// The information `name`, or `default`; matches BaseTransport.get_extra_info.
    #[pyo3(signature = (name, default=None))]
    fn get_extra_info<'py>(
        slf: &Bound<'py, Self>,
        name: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        pipe::extra_info(slf, name, default)
    }

    /// Replaces the protocol; matches BaseTransport.set_protocol.
    fn set_protocol(&self, protocol: &Bound<'_, PyAny>) {
        pipe::set_protocol(self, protocol);
    }

    /// The protocol; None after the end.
    fn get_protocol(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.pipe.with(py, |pipe| pipe.protocol(py))
    }

    /// Whether the transport is closing or closed.
    fn is_closing(&self, py: Python<'_>) -> bool {
        self.pipe.with(py, |pipe| pipe.is_closing)
    }

    /// Writes the parts as if they were one; matches WriteTransport.writelines.
    fn writelines(slf: &Bound<'_, Self>, list_of_data: &Bound<'_, PyAny>) -> PyResult<()> {
        if let Some(joined) = buffer::join(list_of_data, JOIN) {
            return Self::queue(slf, std::iter::once(Chunk::Copied(joined)));
        }
        let chunks = list_of_data.try_iter()?.map(|data| Chunk::new(&data?)).collect::<PyResult<Vec<_>>>()?;
        Self::queue(slf, chunks.into_iter())
    }

    /// Closes once everything is written; `connection_lost(None)` follows.
    fn write_eof(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        if slf.get().pipe.with(py, |pipe| std::mem::replace(&mut pipe.is_closing, true)) {
            return Ok(());
        }
        let is_empty = slf.get().state.with(py, |state| state.outbox.is_empty());
        if is_empty { pipe::lose(slf, None, false) } else { Ok(()) }
    }

    /// True.
    #[expect(clippy::unused_self, reason = "a method for Python")]
    fn can_write_eof(&self) -> bool {
        true
    }

    /// How many bytes wait to be written.
    fn get_write_buffer_size(&self, py: Python<'_>) -> usize {
        self.state.with(py, |state| state.outbox.size())
    }

    /// (low, high) in bytes.
    fn get_write_buffer_limits(&self, py: Python<'_>) -> (usize, usize) {
        self.state.with(py, |state| state.flow.limits())
    }

    /// Sets the water marks in bytes; matches WriteTransport.set_write_buffer_limits.
    #[pyo3(signature = (high=None, low=None))]
    fn set_write_buffer_limits(slf: &Bound<'_, Self>, high: Option<i64>, low: Option<i64>) -> PyResult<()> {
        let outcome = slf.get().state.with(slf.py(), |state| state.flow.set_limits(high, low));
        outcome.map_err(|error| PyValueError::new_err(error.to_string()))?;
        Self::check_high(slf)
    }

    /// As `write_eof()`.
    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::write_eof(slf)
    }

    /// Closes at once; `connection_lost(None)` follows.
    fn abort(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::close_now(slf, None)
    }

    /// `isinstance(transport, asyncio.Transport)` holds.
    #[getter]
    fn __class__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        names::TRANSPORT.get(py).cloned()
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        self.text(py)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.core)?;
        self.state.try_with(|state| visit.call(&state.context)).unwrap_or(Ok(()))?;
        self.pipe.try_with(|pipe| pipe.traverse(&visit)).unwrap_or(Ok(()))
    }

    fn __clear__(&self) {
        drop(self.state.try_with(|state| state.context.take()));
        drop(self.pipe.try_with(Pipe::clear));
    }
}

impl Finalize for WritePipe {
    own_dealloc!();

    fn finalize(slf: &Bound<'_, Self>) -> PyResult<()> {
        pipe::finalize(slf)
    }
}
