//! The transport of a TCP or Unix connection: its state, and its Python methods as one list of short ones.
//!
//! Owns the socket, the unsent bytes and the protocol. What it does is spread over its siblings: `reading`, `writing`
//! and `closing`, which all work on [`State`]. Matches `asyncio.selector_events._SelectorSocketTransport`.

use super::direct::Delivery;
use super::endpoint::{self, Endpoint, PythonSocket};
use super::state::{Rare, State};
use crate::errors;
use crate::event_loop::Loop;
use crate::event_loop::owned::{Registered, Runnable};
use crate::event_loop::run::Run;
use crate::event_loop::source::{Event, Source};
use crate::py::cell::OwnerCell;
use crate::py::finalize::{Finalize, define_finalizer};
use crate::py::recycle::own_dealloc;
use crate::py::{address, context, names};
use crate::reactor::flow::Flow;
use crate::reactor::outbox::Outbox;
use crate::reactor::poller::READ;
use mio::Interest;
use pyo3::exceptions::{PyConnectionError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyType, PyWeakrefReference};
use std::os::fd::RawFd;

/// A stream transport. Users get it from `create_connection()` and the like, never by calling the class.
#[pyclass(frozen, weakref, name = "StreamTransport", module = "mioloop._core")]
#[derive(Debug)]
pub(crate) struct Stream {
    pub(super) core: Py<Loop>,
    pub(super) state: OwnerCell<State>,
}

/// How a transport begins.
pub(super) struct Beginning<'a, 'py> {
    pub(super) endpoint: Endpoint,
    pub(super) protocol: &'a Bound<'py, PyAny>,
    pub(super) waiter: Option<Py<PyAny>>,
    pub(super) extra: Option<Py<PyDict>>,
    pub(super) server: Option<&'a Bound<'py, PyAny>>,
    pub(super) context: Option<Py<PyAny>>,
}

impl Stream {
    /// Makes a transport and schedules its `connection_made`.
    pub(super) fn begin<'py>(core: &Bound<'py, Loop>, beginning: Beginning<'_, 'py>) -> PyResult<Bound<'py, Self>> {
        let py = core.py();
        core.get().check_open()?;
        // As asyncio, which looks it up here: a protocol without it gets no transport.
        let made = beginning.protocol.getattr(intern!(py, "connection_made"))?.unbind();
        let is_context_fixed = beginning.context.is_some();
        let (context, made_context) = match beginning.context {
            Some(context) => (context.clone_ref(py), context),
            None => (context::copy_current(py)?, context::copy_current(py)?),
        };
        let state = State {
            endpoint: beginning.endpoint,
            open: Some(core.get().metrics.open_transport()),
            token: None,
            protocol: Some(beginning.protocol.clone().unbind()),
            delivery: Delivery::of(beginning.protocol)?,
            outbox: Outbox::new(),
            flow: Flow::new(),
            is_paused: false,
            may_read: true,
            is_read_closed: false,
            is_read_ended: false,
            is_continued: false,
            bulk: 0,
            is_blocked: false,
            is_unflushed: false,
            is_write_registered: false,
            is_write_ended: false,
            is_closing: false,
            lost: 0,
            context,
            is_context_fixed,
            rare: Rare {
                made_context: Some(made_context),
                made: Some(made),
                waiter: beginning.waiter,
                server: beginning.server.map(|server| server.clone().unbind()),
                extra: beginning.extra,
                ..Rare::default()
            },
        };
        let stream = Bound::new(py, Self { core: core.clone().unbind(), state: OwnerCell::new(state) })?;
        if let Some(server) = beginning.server {
            attach(server, &stream)?;
        }
        core.get().make_ready(py, Runnable::Event(Source::Stream(stream.clone().unbind()), Event::Start));
        Ok(stream)
    }

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
        let (context, made, waiter) = slf
            .get()
            .state
            .with(py, |state| (state.rare.made_context.take(), state.rare.made.take(), state.rare.waiter.take()));
        let (Some(context), Some(made)) = (context, made) else { return Ok(()) };
        run.entered.switch(py, &context)?;
        let outcome = match made.bind(py).call1((slf,)) {
            Ok(_) => Ok(()),
            Err(error) => Self::fatal(slf, &error, "Fatal error: protocol.connection_made() call failed."),
        };
        Self::register(slf)?;
        if let Some(waiter) = waiter {
            names::SET_RESULT_UNLESS_CANCELLED.get(py)?.call1((waiter, py.None()))?;
        }
        outcome
    }

    pub(super) fn register(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let core = slf.get().core.get();
        let Some(shared) = core.shared_or_closed(py) else {
            return Ok(());
        };
        let place = slf.get().state.with(py, |state| {
            state.endpoint.fd().filter(|_| state.lost == 0).map(|fd| {
                // Unix sockets ask for writability only while they wait for it.
                state.is_write_registered = state.endpoint.is_tcp() || state.is_blocked;
                (fd, state.is_write_registered)
            })
        });
        let Some((fd, both)) = place else {
            return Ok(());
        };
        let interest = if both { READ | Interest::WRITABLE } else { READ };
        let source = Registered::Source(Source::Stream(slf.clone().unbind()));
        let token = core.owned.with(py, |owned| owned.insert(fd, source));
        core.ask_kernel(py);
        slf.get().state.with(py, |state| state.token = Some(token));
        match shared.poller.register(fd, token, interest) {
            Ok(()) => Ok(()),
            Err(error) => Self::fatal(slf, &errors::os_error(py, &error), "Fatal read error on socket transport"),
        }
    }

    /// Ends the registration of a transport that has nothing more to read, and nothing that waits to be sent.
    ///
    /// As in asyncio, the loop lets go of it, so that it is closed when the program drops it: servers whose handlers
    /// return without closing live on that.
    #[cold]
    pub(super) fn unregister_if_idle(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let core = slf.get().core.get();
        let registration = slf.get().state.with(py, |state| {
            let fd = state.endpoint.fd().filter(|_| state.is_read_ended && !state.is_blocked)?;
            Some((fd, state.token.take()?))
        });
        let Some((fd, token)) = registration else { return Ok(()) };
        if let Some(shared) = core.shared_or_closed(py) {
            // An error: the kernel has forgotten the descriptor by itself.
            drop(shared.poller.deregister(fd));
        }
        drop(core.owned.with(py, |owned| owned.remove(fd, token)));
        // Others are still warned off its descriptor.
        let Some(others) = core.other_transports() else { return Ok(()) };
        others.bind(py).set_item(fd, PyWeakrefReference::new(slf)?)
    }

    /// Undoes the last step of [`Self::unregister_if_idle`]; to be called while the descriptor is still ours.
    pub(super) fn forget_unregistered(&self, py: Python<'_>) -> PyResult<()> {
        let found =
            self.state.with(py, |state| state.endpoint.fd().filter(|_| state.token.is_none() && state.is_read_ended));
        match (found, self.core.get().other_transports()) {
            (Some(fd), Some(others)) if others.bind(py).contains(fd)? => others.bind(py).del_item(fd),
            _ => Ok(()),
        }
    }

    /// The descriptor of a connection that is not lost; asyncio's error if it is.
    pub(crate) fn open_fd(&self, py: Python<'_>) -> PyResult<RawFd> {
        let fd = self.state.with(py, |state| state.endpoint.fd().filter(|_| state.lost == 0));
        fd.ok_or_else(|| PyConnectionError::new_err("Connection is closed by peer"))
    }

    /// The Python socket object; made when it is first asked for.
    fn python_socket(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        let found = slf.get().state.with(py, |state| (state.endpoint.python_socket(py), state.endpoint.family()));
        match found {
            (PythonSocket::There(object), _) => Ok(object),
            (PythonSocket::ToMake(fd), _) => {
                let object = endpoint::make_socket(py, fd)?.unbind();
                slf.get().state.with(py, |state| state.endpoint.set_python_socket(object.clone_ref(py)));
                Ok(object)
            }
            (PythonSocket::Closed, family) => Ok(endpoint::make_closed_socket(py, family)?.unbind()),
        }
    }

    fn transport_socket(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        if let Some(shown) = slf.get().state.with(py, |state| state.endpoint.shown(py)) {
            return Ok(shown);
        }
        let shown = names::TRANSPORT_SOCKET.get(py)?.call1((Self::python_socket(slf)?,))?.unbind();
        slf.get().state.with(py, |state| state.endpoint.set_shown(shown.clone_ref(py)));
        Ok(shown)
    }
}

#[pymethods]
impl Stream {
    /// A transport over a connected, non-blocking socket; for the loop's `_make_socket_transport`.
    #[new]
    #[pyo3(signature = (core, sock, protocol, waiter=None, extra=None, server=None, context=None))]
    fn new<'py>(
        core: &Bound<'py, Loop>,
        sock: &Bound<'py, PyAny>,
        protocol: &Bound<'py, PyAny>,
        waiter: Option<Py<PyAny>>,
        extra: Option<Py<PyDict>>,
        server: Option<&Bound<'py, PyAny>>,
        context: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, Self>> {
        let endpoint = Endpoint::from_socket(sock)?;
        endpoint.set_no_delay();
        Self::begin(core, Beginning { endpoint, protocol, waiter, extra, server, context })
    }

    /// The information `name` of the connection, or `default`; matches BaseTransport.get_extra_info.
    #[pyo3(signature = (name, default=None))]
    fn get_extra_info<'py>(
        slf: &Bound<'py, Self>,
        name: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = slf.py();
        let state = &slf.get().state;
        if let Some(extra) = state.with(py, |state| state.rare.extra.as_ref().map(|extra| extra.clone_ref(py)))
            && let Some(value) = extra.bind(py).get_item(name)?
        {
            return Ok(Some(value));
        }
        let found = match name.extract::<&str>() {
            Ok("socket") => {
                return Self::transport_socket(slf).map(|sock| Some(sock.into_bound(py)));
            }
            Ok("sockname") => state.with(py, |state| state.endpoint.local()),
            Ok("peername") => state.with(py, |state| state.endpoint.peer()),
            _ => return Ok(default),
        };
        found.map(|found| address::to_object(py, &found)).transpose()
    }

    /// Replaces the protocol; matches BaseTransport.set_protocol.
    fn set_protocol(&self, protocol: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = protocol.py();
        let delivery = Delivery::of(protocol)?;
        let protocol = protocol.clone().unbind();
        let old = self.state.with(py, |state| {
            state.delivery = delivery;
            state.protocol.replace(protocol)
        });
        drop(old);
        Ok(())
    }

    /// The protocol; None after the end.
    fn get_protocol(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.state.with(py, |state| state.protocol.as_ref().map(|protocol| protocol.clone_ref(py)))
    }

    /// Whether the transport is closing or closed.
    fn is_closing(&self, py: Python<'_>) -> bool {
        self.state.with(py, |state| state.is_closing)
    }

    /// Whether data is being received.
    fn is_reading(&self, py: Python<'_>) -> bool {
        self.state.with(py, |state| state.is_reading())
    }

    /// Stops calling `data_received`; may be called when it is stopped already.
    fn pause_reading(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::pause(slf)
    }

    /// Goes on calling `data_received`; may be called when it is going on already.
    fn resume_reading(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::resume(slf)
    }

    /// Ends the sending direction once everything is sent; matches WriteTransport.write_eof.
    fn write_eof(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::end_writing(slf)
    }

    /// True.
    #[expect(clippy::unused_self, reason = "a method for Python")]
    fn can_write_eof(&self) -> bool {
        true
    }

    /// How many bytes wait to be sent.
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

    /// A future that is done when everything is sent; `loop.sendfile()` waits for it.
    fn _make_empty_waiter<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Self::make_empty_waiter(slf)
    }

    fn _reset_empty_waiter(&self, py: Python<'_>) {
        drop(self.state.with(py, |state| state.rare.empty_waiter.take()));
    }

    #[getter]
    fn _sock(slf: &Bound<'_, Self>) -> PyResult<Option<Py<PyAny>>> {
        if slf.get().state.with(slf.py(), |state| state.endpoint.fd().is_none()) {
            return Ok(None);
        }
        Self::python_socket(slf).map(Some)
    }

    #[getter]
    fn _protocol_paused(&self, py: Python<'_>) -> bool {
        self.state.with(py, |state| state.flow.is_paused())
    }

    #[getter]
    fn _sock_fd(&self, py: Python<'_>) -> RawFd {
        self.state.with(py, |state| state.endpoint.fd().unwrap_or(-1))
    }

    #[getter]
    fn _loop(&self, py: Python<'_>) -> Py<Loop> {
        self.core.clone_ref(py)
    }

    /// `isinstance(transport, asyncio.Transport)` holds, also for the part of it that `loop.sendfile()` asks for.
    #[getter]
    fn __class__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        names::TRANSPORT.get(py).cloned()
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        self.state.with(py, |state| state.text())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.core)?;
        self.state.try_with(|state| state.traverse(&visit)).unwrap_or(Ok(()))
    }

    fn __clear__(&self) {
        drop(self.state.try_with(|state| {
            // The server is told by the destructor.
            let server = state.rare.server.take();
            let rare = std::mem::replace(&mut state.rare, Rare { server, ..Rare::default() });
            (state.protocol.take(), rare)
        }));
    }
}

impl Finalize for Stream {
    own_dealloc!();

    /// A transport that nobody closed: asyncio's warning, the socket is closed, and the server hears of it.
    fn finalize(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let state = &slf.get().state;
        if state.with(py, |state| state.endpoint.fd().is_none()) {
            return Ok(());
        }
        let warned = errors::warn_unclosed(slf);
        let (closing, server) = state.with(py, |state| (state.endpoint.take(), state.rare.server.take()));
        let closed = closing.close(py);
        let told = server.map_or(Ok(()), |server| detach(server.bind(py), slf));
        warned.and(closed).and(told)
    }
}

/// Tells the server of a new transport; before Python 3.13 it only counts them.
fn attach(server: &Bound<'_, PyAny>, stream: &Bound<'_, Stream>) -> PyResult<()> {
    let name = intern!(server.py(), "_attach");
    if cfg!(Py_3_13) { server.call_method1(name, (stream,)) } else { server.call_method0(name) }.map(drop)
}

/// Tells the server of a transport's end.
pub(super) fn detach(server: &Bound<'_, PyAny>, stream: &Bound<'_, PyAny>) -> PyResult<()> {
    let name = intern!(server.py(), "_detach");
    if cfg!(Py_3_13) { server.call_method1(name, (stream,)) } else { server.call_method0(name) }.map(drop)
}

/// Puts on the class what only Python can say.
pub(crate) fn define_methods(class: &Bound<'_, PyType>) -> PyResult<()> {
    let mode = class.py().import("asyncio.constants")?.getattr("_SendfileMode")?.getattr("TRY_NATIVE")?;
    class.setattr("_sendfile_compatible", mode)?;
    class.setattr("_start_tls_compatible", true)?;
    define_finalizer::<Stream>(class);
    super::writing::define_methods(class)
}
