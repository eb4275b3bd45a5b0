//! The transport of datagrams: its Python methods as one list of short ones.
//!
//! Owns the socket object and the datagrams that wait to be sent. What it does is spread over its submodules:
//! [`reading`], [`writing`] and [`closing`], which all work on [`state`]. Matches
//! `asyncio.selector_events._SelectorDatagramTransport`.
//!
//! The descriptor is registered level-triggered, unlike those of streams: a read that takes one datagram need not ask
//! for another one only to learn that there is none.

mod closing;
mod reading;
mod state;
mod writing;

use crate::errors;
use crate::event_loop::Loop;
use crate::event_loop::core::error_context;
use crate::event_loop::owned::{Registered, Runnable};
use crate::event_loop::run::{Run, is_exit};
use crate::event_loop::source::{Event, Source};
use crate::py::cell::OwnerCell;
use crate::py::finalize::{Finalize, define_finalizer};
use crate::py::recycle::own_dealloc;
use crate::py::{address, context, names};
use crate::reactor::appetite::Appetite;
use crate::reactor::flow::Flow;
use crate::reactor::parcels::Parcels;
use pyo3::exceptions::{PyNotImplementedError, PyOSError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyType};
use state::{HEADER, Rare, State};
use std::io;
use std::os::fd::RawFd;

/// The most that one read takes (bytes): asyncio's `max_size`.
const LARGEST: usize = 256 * 1024;

/// A datagram transport. Users get it from `create_datagram_endpoint()`, never by calling the class.
#[pyclass(frozen, weakref, name = "DatagramTransport", module = "mioloop._core")]
#[derive(Debug)]
pub(crate) struct Datagram {
    core: Py<Loop>,
    state: OwnerCell<State>,
}

impl Datagram {
    #[inline]
    pub(crate) fn on_event(slf: &Bound<'_, Self>, run: &mut Run<'_, '_>, event: Event) -> PyResult<()> {
        match event {
            Event::Ready(readiness) => Self::on_ready(slf, run, readiness),
            Event::Continue => Self::on_continue(slf, run),
            Event::Start => Self::on_start(slf, run),
            Event::Lost => Self::on_lost(slf, run),
        }
    }

    /// Calls `connection_made`, then starts to read, then tells the waiter: asyncio's order, whatever the first does.
    fn on_start(slf: &Bound<'_, Self>, run: &mut Run<'_, '_>) -> PyResult<()> {
        let py = slf.py();
        let rare =
            |state: &mut State| (state.rare.made_context.take(), state.rare.made.take(), state.rare.waiter.take());
        let (Some(context), Some(made), waiter) = slf.get().state.with(py, rare) else { return Ok(()) };
        run.entered.switch(py, &context)?;
        let made = made.bind(py).call1((slf,)).map(drop);
        let registered = Self::register(slf);
        if let Some(waiter) = waiter {
            names::SET_RESULT_UNLESS_CANCELLED.get(py)?.call1((waiter, py.None()))?;
        }
        match made {
            Ok(()) => registered,
            Err(error) => Self::report_failure(slf, "connection_made", &error).and(registered),
        }
    }

    fn register(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let core = slf.get().core.get();
        let Some(fd) = slf.get().state.with(py, |state| (state.lost == 0).then_some(state.fd)) else { return Ok(()) };
        let source = Registered::Source(Source::Datagram(slf.clone().unbind()));
        let token = core.owned.with(py, |owned| owned.insert(fd, source));
        slf.get().state.with(py, |state| state.token = Some(token));
        Self::update_interest(slf)
    }

    /// Asks the poller for what is wanted now.
    fn update_interest(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let change = slf.get().state.with(py, |state| {
            let (token, wanted) = (state.token?, state.wanted());
            let current = std::mem::replace(&mut state.interest, wanted);
            (current != wanted).then_some((state.fd, token, current, wanted))
        });
        let Some((fd, token, current, wanted)) = change else { return Ok(()) };
        let Some(shared) = slf.get().core.get().shared_or_closed(py) else { return Ok(()) };
        slf.get().core.get().ask_kernel(py);
        let register = |interest, add| match shared.poller.register_level(fd, token, interest, add) {
            // Closed behind the loop's back and used again, or watched before: taken over.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EEXIST)) => {
                shared.poller.register_level(fd, token, interest, !add)
            }
            answer => answer,
        };
        let outcome = match (current, wanted) {
            (None, Some(interest)) => register(interest, true),
            (Some(_), Some(interest)) => register(interest, false),
            (Some(_), None) => {
                // An error: the kernel has forgotten the descriptor by itself.
                drop(shared.poller.deregister(fd));
                Ok(())
            }
            (None, None) => Ok(()),
        };
        outcome.or_else(|error: io::Error| {
            Self::fatal(slf, &errors::os_error(py, &error), "Fatal read error on datagram transport")
        })
    }

    fn protocol(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.state.with(py, |state| state.protocol.as_ref().map(|protocol| protocol.clone_ref(py)))
    }

    /// Adds transport and protocol, and calls the loop's exception handler.
    fn report(slf: &Bound<'_, Self>, context: &Bound<'_, PyDict>) -> PyResult<()> {
        let py = slf.py();
        context.set_item(intern!(py, "transport"), slf)?;
        context.set_item(intern!(py, "protocol"), slf.get().protocol(py))?;
        let core = slf.get().core.bind(py);
        core.call_method1(intern!(py, "call_exception_handler"), (context,)).map(drop)
    }

    /// A method of the protocol failed: that is reported, and the transport goes on, as asyncio's does.
    #[cold]
    fn report_failure(slf: &Bound<'_, Self>, method: &str, error: &PyErr) -> PyResult<()> {
        let py = slf.py();
        if is_exit(py, error) {
            return Err(error.clone_ref(py));
        }
        let message = format!("Exception in callback DatagramTransport.{method}()");
        Self::report(slf, &error_context(py, &message, error)?)
    }

    /// In debug mode, a line for the log of asyncio.
    fn log(slf: &Bound<'_, Self>, text: &str) -> PyResult<()> {
        let py = slf.py();
        if slf.get().core.get().is_debug() {
            let logger = names::logger(py, "asyncio.selector_events")?;
            logger.call_method1(intern!(py, "debug"), (text, slf))?;
        }
        Ok(())
    }
}

#[cold]
fn not_implemented() -> PyErr {
    PyNotImplementedError::new_err(())
}

/// What asyncio's transports know of themselves, added to what the caller of the constructor knows.
fn describe<'py>(sock: &Bound<'py, PyAny>, extra: Option<Bound<'py, PyDict>>) -> PyResult<Bound<'py, PyDict>> {
    let py = sock.py();
    let extra = extra.unwrap_or_else(|| PyDict::new(py));
    extra.set_item(intern!(py, "socket"), names::TRANSPORT_SOCKET.get(py)?.call1((sock,))?)?;
    let ask = |method| match sock.call_method0(method) {
        Err(error) if error.is_instance_of::<PyOSError>(py) => Ok(py.None().into_bound(py)),
        answer => answer,
    };
    extra.set_item(intern!(py, "sockname"), ask(intern!(py, "getsockname"))?)?;
    if !extra.contains(intern!(py, "peername"))? {
        extra.set_item(intern!(py, "peername"), ask(intern!(py, "getpeername"))?)?;
    }
    Ok(extra)
}

#[pymethods]
impl Datagram {
    #[classattr]
    #[expect(non_upper_case_globals, reason = "asyncio's name")]
    const max_size: usize = LARGEST;

    /// A transport over a non-blocking socket; for the loop's `_make_datagram_transport`.
    #[new]
    #[pyo3(signature = (core, sock, protocol, address=None, waiter=None, extra=None))]
    fn new<'py>(
        core: &Bound<'py, Loop>,
        sock: &Bound<'py, PyAny>,
        protocol: &Bound<'py, PyAny>,
        address: Option<Bound<'py, PyAny>>,
        waiter: Option<Py<PyAny>>,
        extra: Option<Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, Self>> {
        let py = core.py();
        core.get().check_open()?;
        // As asyncio, which looks it up here: a protocol without it gets no transport.
        let made = protocol.getattr(intern!(py, "connection_made"))?.unbind();
        let extra = describe(sock, extra)?;
        let fd: RawFd = sock.call_method0(intern!(py, "fileno"))?.extract()?;
        let family = sock.getattr(intern!(py, "family"))?.extract()?;
        let peer = extra.get_item(intern!(py, "peername"))?;
        let remote = match address {
            Some(address) if address.is_truthy()? => Some(address),
            Some(_) | None => None,
        };
        let state = State {
            sock: Some(sock.clone().unbind()),
            fd,
            open: Some(core.get().metrics.open_transport()),
            family,
            is_connected: peer.map_or(Ok(false), |peer| peer.is_truthy())?,
            remote_address: remote.as_ref().and_then(|remote| address::from_object(family, remote)),
            remote: remote.map(Bound::unbind),
            token: None,
            interest: None,
            protocol: Some(protocol.clone().unbind()),
            queue: Parcels::new(HEADER),
            flow: Flow::new(),
            appetite: Appetite::new(),
            last: None,
            is_paused: false,
            is_continued: false,
            is_blocked: false,
            is_unflushed: false,
            is_listed: false,
            is_closing: false,
            lost: 0,
            context: context::copy_current(py)?,
            extra: extra.unbind(),
            rare: Rare { made_context: Some(context::copy_current(py)?), made: Some(made), waiter, ..Rare::default() },
        };
        let transport = Bound::new(py, Self { core: core.clone().unbind(), state: OwnerCell::new(state) })?;
        let source = Source::Datagram(transport.clone().unbind());
        core.get().make_ready(py, Runnable::Event(source, Event::Start));
        Ok(transport)
    }

    /// The information `name` of the transport, or `default`; matches BaseTransport.get_extra_info.
    #[pyo3(signature = (name, default=None))]
    fn get_extra_info<'py>(
        &self,
        name: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = name.py();
        let extra = self.state.with(py, |state| state.extra.clone_ref(py));
        Ok(extra.bind(py).get_item(name)?.or(default))
    }

    /// Replaces the protocol; matches BaseTransport.set_protocol.
    fn set_protocol(&self, py: Python<'_>, protocol: Py<PyAny>) {
        drop(self.state.with(py, |state| state.protocol.replace(protocol)));
    }

    /// The protocol; None after the end.
    fn get_protocol(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.protocol(py)
    }

    /// Whether the transport is closing or closed.
    fn is_closing(&self, py: Python<'_>) -> bool {
        self.state.with(py, |state| state.is_closing)
    }

    /// Whether datagrams are being received.
    fn is_reading(&self, py: Python<'_>) -> bool {
        self.state.with(py, |state| state.is_reading())
    }

    /// Stops calling `datagram_received`; may be called when it is stopped already.
    fn pause_reading(slf: &Bound<'_, Self>) -> PyResult<()> {
        let pauses = |state: &mut State| state.is_reading() && !std::mem::replace(&mut state.is_paused, true);
        if slf.get().state.with(slf.py(), pauses) {
            Self::update_interest(slf)?;
            Self::log(slf, "%r pauses reading")?;
        }
        Ok(())
    }

    /// Goes on calling `datagram_received`; may be called when it is going on already.
    fn resume_reading(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::resume(slf)
    }

    /// How many bytes wait to be sent; from Python 3.13 on with 8 more for each datagram.
    fn get_write_buffer_size(&self, py: Python<'_>) -> usize {
        self.state.with(py, |state| state.queue.size())
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

    /// Closes once everything is sent; `connection_lost(None)` follows.
    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::close_gently(slf)
    }

    /// Closes at once; `connection_lost(None)` follows.
    fn abort(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::force_close(slf, None)
    }

    fn _force_close(slf: &Bound<'_, Self>, exc: Option<Py<PyAny>>) -> PyResult<()> {
        Self::force_close(slf, exc)
    }

    /// NotImplementedError: asyncio's datagram transports are Transports too.
    fn write(&self, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let _ = data;
        Err(not_implemented())
    }

    /// NotImplementedError, as `write()`.
    fn writelines(&self, list_of_data: &Bound<'_, PyAny>) -> PyResult<()> {
        let _ = list_of_data;
        Err(not_implemented())
    }

    /// NotImplementedError, as `write()`.
    fn write_eof(&self) -> PyResult<()> {
        Err(not_implemented())
    }

    /// NotImplementedError, as `write()`.
    fn can_write_eof(&self) -> PyResult<bool> {
        Err(not_implemented())
    }

    #[getter]
    fn _sock(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.state.with(py, |state| state.sock.as_ref().map(|sock| sock.clone_ref(py)))
    }

    #[getter]
    fn _sock_fd(&self, py: Python<'_>) -> RawFd {
        self.state.with(py, |state| state.fd)
    }

    #[getter]
    fn _protocol_paused(&self, py: Python<'_>) -> bool {
        self.state.with(py, |state| state.flow.is_paused())
    }

    #[getter]
    fn _loop(&self, py: Python<'_>) -> Py<Loop> {
        self.core.clone_ref(py)
    }

    /// `isinstance(transport, asyncio.DatagramTransport)` holds.
    #[getter]
    fn __class__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        names::DATAGRAM_TRANSPORT.get(py).cloned()
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        self.state.with(py, |state| state.text())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.core)?;
        self.state.try_with(|state| state.traverse(&visit)).unwrap_or(Ok(()))
    }

    fn __clear__(&self) {
        let parts = |state: &mut State| (state.protocol.take(), state.queue.take(), std::mem::take(&mut state.rare));
        drop(self.state.try_with(parts));
    }
}

impl Finalize for Datagram {
    own_dealloc!();

    /// A transport that nobody closed: asyncio's warning, then the socket is closed.
    fn finalize(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        if slf.get().state.with(py, |state| state.sock.is_none()) {
            return Ok(());
        }
        let warned = errors::warn_unclosed(slf);
        let sock = slf.get().state.with(py, |state| state.sock.take());
        let closed = sock.map_or(Ok(()), |sock| sock.call_method0(py, intern!(py, "close")).map(drop));
        warned.and(closed)
    }
}

/// Puts the hot method on the class, and the finalizer.
pub(crate) fn define_methods(class: &Bound<'_, PyType>) -> PyResult<()> {
    define_finalizer::<Datagram>(class);
    writing::define_methods(class)
}
