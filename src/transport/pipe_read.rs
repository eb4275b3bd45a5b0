//! The transport that reads a pipe, a socket, a terminal or another character device.
//!
//! One delivery per event, as asyncio's: the registration is level-triggered, so that what is left is told again. Only
//! where the end was announced, reading goes on to it at once. Matches `asyncio.unix_events._UnixReadPipeTransport`.

use super::pipe::{self, Pipe, Transport};
use crate::errors;
use crate::event_loop::Loop;
use crate::event_loop::core::SCRATCH;
use crate::event_loop::run::Run;
use crate::event_loop::source::{Event, Source};
use crate::py::call::call_method1;
use crate::py::cell::OwnerCell;
use crate::py::finalize::{Finalize, define_finalizer};
use crate::py::recycle::own_dealloc;
use crate::py::{buffer, context, names, object};
use crate::reactor::readiness::Readiness;
use crate::sys;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyType};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

/// The most that is read before others have their turn: what a `StreamReader` takes before it pauses.
const LARGEST: usize = 128 * 1024;

/// So many bytes at once are a sign of more to come: the least that a full pipe gives (`pipe(7)`).
const PAGE: usize = 4096;

/// So often an empty pipe is looked at again while much is coming. A look costs a fifth of a microsecond, in which a
/// process that writes fills the next page.
const PATIENCE: u32 = 8;

/// What reading needs to know beside the pipe.
#[derive(Debug)]
struct State {
    /// `pause_reading()` was called.
    is_paused: bool,
    /// The kernel tells of data. A pause ends that only when data comes: most pauses are shorter.
    is_watched: bool,
    /// How much the next read asks for (bytes); 0: the small reads' scratch.
    bulk: usize,
}

/// A transport that reads. Users get it from `connect_read_pipe()`, never by calling the class.
#[pyclass(frozen, weakref, dict, name = "ReadPipeTransport", module = "mioloop._core")]
#[derive(Debug)]
pub(crate) struct ReadPipe {
    core: Py<Loop>,
    pipe: OwnerCell<Pipe>,
    state: OwnerCell<State>,
}

impl Transport for ReadPipe {
    fn core(&self) -> &Py<Loop> {
        &self.core
    }

    fn pipe(&self) -> &OwnerCell<Pipe> {
        &self.pipe
    }

    fn source(slf: &Bound<'_, Self>) -> Source {
        Source::ReadPipe(slf.clone().unbind())
    }

    fn watch(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let (fd, is_closing) = slf.get().pipe.with(py, |pipe| (pipe.fd, pipe.is_closing));
        if is_closing || slf.get().state.with(py, |state| state.is_paused || state.is_watched) {
            return Ok(());
        }
        slf.get().core.get().watch_pipe(py, fd, Self::source(slf))?;
        slf.get().state.with(py, |state| state.is_watched = true);
        Ok(())
    }

    fn text(&self, py: Python<'_>) -> String {
        let mut text = self.pipe.with(py, |pipe| pipe.text("ReadPipeTransport"));
        text.push_str(if !self.pipe.with(py, |pipe| pipe.is_open()) {
            " closed>"
        } else if self.core.get().check_open().is_err() {
            " open>"
        } else if self.is_reading(py) && self.state.with(py, |state| state.is_watched) {
            " polling>"
        } else {
            " idle>"
        });
        text
    }
}

impl ReadPipe {
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
        let context = slf.get().pipe.with(py, |pipe| pipe.context.clone_ref(py));
        run.entered.switch(py, &context)?;
        let mut budget = LARGEST;
        while let Some((fd, protocol)) = slf.get().next(py) {
            let data = match Self::read(slf, run, fd)? {
                Ok(data) => data,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Self::failed(slf, &error),
            };
            let count = data.as_bytes().len();
            if count == 0 {
                pipe::log(slf, "info", "%r was closed by peer")?;
                return pipe::lose(slf, None, true);
            }
            let delivered = call_method1(protocol.bind(py), intern!(py, "data_received"), data.as_any());
            protocol.drop_ref(py);
            delivered?;
            budget = budget.saturating_sub(count);
            if budget == 0 || !readiness.is_read_closed() {
                return Ok(());
            }
        }
        if slf.get().is_open_but_paused(py) {
            // Told once more, it would be told in every turn.
            slf.get().state.with(py, |state| state.is_watched = false);
            let fd = slf.get().pipe.with(py, |pipe| pipe.fd);
            slf.get().core.get().unwatch_pipe(py, fd, &Self::source(slf));
        }
        Ok(())
    }

    /// What to read and for whom; None while nothing is to be read.
    fn next(&self, py: Python<'_>) -> Option<(RawFd, Py<PyAny>)> {
        if self.state.with(py, |state| state.is_paused) {
            return None;
        }
        self.pipe.with(py, |pipe| {
            if pipe.is_closing {
                return None;
            }
            pipe.protocol(py).map(|protocol| (pipe.fd, protocol))
        })
    }

    fn is_open_but_paused(&self, py: Python<'_>) -> bool {
        self.state.with(py, |state| state.is_paused) && self.pipe.with(py, |pipe| !pipe.is_closing)
    }

    fn read<'py>(
        slf: &Bound<'py, Self>,
        run: &mut Run<'_, '_>,
        fd: RawFd,
    ) -> PyResult<io::Result<Bound<'py, PyBytes>>> {
        let py = slf.py();
        let bulk = slf.get().state.with(py, |state| state.bulk);
        let answer = if bulk == 0 {
            let scratch = run.scratch.get_mut();
            sys::pipe::read_into(fd, scratch).map(|count| PyBytes::new(py, &scratch[..count]))
        } else {
            buffer::read_into_bytes(py, bulk, |room| read_much(fd, room))?
        };
        if let Ok(data) = &answer {
            let count = data.as_bytes().len();
            slf.get().core.get().metrics.note_received(count);
            slf.get().state.with(py, |state| state.bulk = next_bulk(state.bulk, count));
            if count >= SCRATCH {
                slf.get().pipe.with(py, Pipe::widen);
            }
        }
        Ok(answer)
    }

    #[cold]
    fn failed(slf: &Bound<'_, Self>, error: &io::Error) -> PyResult<()> {
        // EIO is how a terminal ends.
        let is_expected = error.raw_os_error() == Some(libc::EIO);
        let error = errors::os_error(slf.py(), error);
        pipe::fatal(slf, &error, "Fatal read error on pipe transport", is_expected)
    }
}

/// Reads until the buffer is full or there is nothing more.
///
/// A process that writes much fills a pipe page by page, and a read returns as soon as it has emptied it: often with
/// one page. Reading again at once, while the pages are in the processor's cache, takes a third of the time that it
/// takes to hand on each piece, and to wait for the next.
fn read_much(fd: RawFd, room: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
    let mut filled = sys::pipe::read(fd, room)?;
    let mut patience = PATIENCE;
    while filled >= PAGE && filled < room.len() {
        match sys::pipe::read(fd, &mut room[filled..]) {
            Ok(count @ 1..) => {
                filled += count;
                patience = PATIENCE;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && patience > 0 => patience -= 1,
            // The end, and errors, are found again by the next read.
            Ok(0) | Err(_) => break,
        }
    }
    Ok(filled)
}

/// How much the next read asks for, after one that brought `count` bytes.
fn next_bulk(bulk: usize, count: usize) -> usize {
    match bulk {
        0 if count >= PAGE => SCRATCH,
        0 => 0,
        _ if count == bulk => (bulk * 2).min(LARGEST),
        _ if count >= PAGE => bulk,
        _ => 0,
    }
}

#[pymethods]
impl ReadPipe {
    /// A transport over a pipe object; for the loop's `_make_read_pipe_transport`.
    #[new]
    #[pyo3(signature = (core, pipe, protocol, waiter=None, extra=None))]
    fn new<'py>(
        core: &Bound<'py, Loop>,
        pipe: &Bound<'py, PyAny>,
        protocol: &Bound<'py, PyAny>,
        waiter: Option<Py<PyAny>>,
        extra: Option<Py<PyDict>>,
    ) -> PyResult<Bound<'py, Self>> {
        let refusal = "Pipe transport is for pipes/sockets only.";
        let (pipe, _) = Pipe::new(core, pipe, protocol, waiter, extra, refusal)?;
        let state = State { is_paused: false, is_watched: false, bulk: 0 };
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

    /// Whether data is being read.
    fn is_reading(&self, py: Python<'_>) -> bool {
        !self.state.with(py, |state| state.is_paused) && !self.is_closing(py)
    }

    /// Stops calling `data_received`; may be called when it is stopped already.
    fn pause_reading(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        if !slf.get().is_reading(py) {
            return Ok(());
        }
        slf.get().state.with(py, |state| state.is_paused = true);
        pipe::log(slf, "debug", "%r pauses reading")
    }

    /// Goes on calling `data_received`; may be called when it is going on already.
    fn resume_reading(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        if !slf.get().is_open_but_paused(py) {
            return Ok(());
        }
        // As asyncio, which reads in the context of whoever resumed last.
        let context = context::copy_current(py)?;
        drop(slf.get().pipe.with(py, |pipe| std::mem::replace(&mut pipe.context, context)));
        slf.get().state.with(py, |state| state.is_paused = false);
        Self::watch(slf)?;
        pipe::log(slf, "debug", "%r resumes reading")
    }

    /// Closes; `connection_lost(None)` follows.
    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        if slf.get().is_closing(slf.py()) { Ok(()) } else { pipe::lose(slf, None, false) }
    }

    /// `isinstance(transport, asyncio.ReadTransport)` holds.
    #[getter]
    fn __class__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        names::READ_TRANSPORT.get(py).cloned()
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        self.text(py)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.core)?;
        self.pipe.try_with(|pipe| pipe.traverse(&visit)).unwrap_or(Ok(()))
    }

    fn __clear__(&self) {
        drop(self.pipe.try_with(Pipe::clear));
    }
}

impl Finalize for ReadPipe {
    own_dealloc!();

    fn finalize(slf: &Bound<'_, Self>) -> PyResult<()> {
        pipe::finalize(slf)
    }
}

/// Puts the finalizer on the class.
pub(crate) fn define_methods(class: &Bound<'_, PyType>) {
    define_finalizer::<ReadPipe>(class);
}
