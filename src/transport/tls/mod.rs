//! The transport of a TLS connection, over any other transport.
//!
//! To its protocol it is a transport, to the transport below it is the protocol: one object has both faces. Below may be
//! a [`Stream`](super::stream::Stream), another TLS transport, or anybody's transport that `start_tls()` was given.
//! Matches `asyncio.sslproto.SSLProtocol` and its `_SSLProtocolTransport`; the session is always CPython's.
//!
//! | file | what |
//! | --- | --- |
//! | [`session`] | `ssl.SSLObject` and its two buffers: no transport, no loop |
//! | [`state`] | what the transport knows |
//! | [`handshake`] | the beginning |
//! | [`reading`] | from the transport below to the protocol |
//! | [`writing`] | from `write()` to the transport below, and the water marks |
//! | [`ending`] | the farewell, errors, `close()`, `abort()`, `connection_lost` |
//!
//! Rules: no cell is borrowed while the session is called, since contexts have callbacks in Python. An idle connection
//! has no buffer here: what is received goes into the session at once, what is to be sent goes below.

mod ending;
mod handshake;
mod reading;
mod session;
mod state;
mod writing;

pub(super) use self::handshake::Beginning;
use self::session::Session;
use self::state::{Facts, Phase, State};
use crate::event_loop::Loop;
use crate::py::buffer::Chunk;
use crate::py::cell::OwnerCell;
use crate::py::names;
use crate::transport::direct::Delivery;
use pyo3::exceptions::{PyNotImplementedError, PyResourceWarning, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyType};

/// A TLS transport. Users get it from `create_connection(ssl=...)`, `start_tls()` and the like, never by calling the
/// class.
#[pyclass(frozen, weakref, name = "TlsTransport", module = "mioloop._core")]
#[derive(Debug)]
pub(crate) struct Tls {
    core: Py<Loop>,
    session: Session,
    /// In seconds, as they were given: messages show them.
    handshake_timeout: Py<PyAny>,
    shutdown_timeout: Py<PyAny>,
    state: OwnerCell<State>,
}

impl Tls {
    #[inline]
    fn phase(&self, py: Python<'_>) -> Phase {
        self.state.with(py, |state| state.phase)
    }

    fn set_phase(&self, py: Python<'_>, phase: Phase) {
        self.state.with(py, |state| state.phase = phase);
    }

    fn protocol<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.state.with(py, |state| state.protocol.as_ref().map(|protocol| protocol.bind(py).clone()))
    }

    /// Frees the session when the connection is lost and nobody will ask for it.
    fn give_up_if_over(&self, py: Python<'_>) {
        if self.state.with(py, |state| state.is_given_up && state.lower.is_none()) {
            self.session.give_up();
        }
    }

    fn lower<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.state.with(py, |state| state.lower.as_ref().map(|lower| lower.bind(py).clone()))
    }
}

#[pymethods]
impl Tls {
    /// A transport without one below: for the loop's `_make_ssl_transport` and `start_tls`.
    #[new]
    #[pyo3(signature = (core, protocol, sslcontext, waiter=None, server_side=false, server_hostname=None,
        call_connection_made=true, ssl_handshake_timeout=None, ssl_shutdown_timeout=None))]
    #[expect(clippy::too_many_arguments, reason = "those of asyncio's SSLProtocol")]
    fn new<'py>(
        core: &Bound<'py, Loop>,
        protocol: &Bound<'py, PyAny>,
        sslcontext: Option<&Bound<'py, PyAny>>,
        waiter: Option<Py<PyAny>>,
        server_side: bool,
        server_hostname: Option<&Bound<'py, PyAny>>,
        call_connection_made: bool,
        ssl_handshake_timeout: Option<&Bound<'py, PyAny>>,
        ssl_shutdown_timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, Self>> {
        let beginning = Beginning {
            protocol,
            context: sslcontext,
            waiter,
            server_side,
            server_hostname,
            calls_connection_made: call_connection_made,
            handshake_timeout: ssl_handshake_timeout,
            shutdown_timeout: ssl_shutdown_timeout,
            is_accepted: false,
        };
        Self::begin(core, beginning)
    }

    // What the protocol sees: a transport.

    /// The information `name` of the connection, or `default`; matches BaseTransport.get_extra_info.
    #[pyo3(signature = (name, default=None))]
    fn get_extra_info<'py>(
        slf: &Bound<'py, Self>,
        name: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = slf.py();
        let tls = slf.get();
        let key = name.extract::<&str>().unwrap_or("");
        let pick = |pick: fn(&Facts) -> &Py<PyAny>| {
            tls.state.with(py, |state| state.facts.as_ref().map(|facts| pick(facts).bind(py).clone()))
        };
        let fact = match key {
            "sslcontext" => tls.session.context(py),
            "ssl_object" if tls.state.with(py, |state| state.facts.is_some()) => tls.session.object(py),
            "peercert" => pick(|facts| &facts.peer_certificate),
            "cipher" => pick(|facts| &facts.cipher),
            "compression" => pick(|facts| &facts.compression),
            _ => None,
        };
        match (fact, tls.lower(py)) {
            (Some(fact), _) => Ok(Some(fact)),
            (None, Some(lower)) => lower.call_method1(intern!(py, "get_extra_info"), (name, default)).map(Some),
            (None, None) => Ok(default),
        }
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
    fn get_protocol<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.protocol(py)
    }

    /// Whether the transport is closing or closed.
    fn is_closing(&self, py: Python<'_>) -> PyResult<bool> {
        if self.state.with(py, |state| state.is_closed) {
            return Ok(true);
        }
        match self.lower(py) {
            // Since Python 3.14 the transport below has a say.
            Some(lower) if cfg!(Py_3_14) => lower.call_method0(intern!(py, "is_closing"))?.is_truthy(),
            _ => Ok(false),
        }
    }

    /// Says farewell once everything is sent, and closes; `connection_lost(None)` follows.
    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        if slf.get().state.with(slf.py(), |state| std::mem::replace(&mut state.is_closed, true)) {
            // As in asyncio, who closes twice is done with it: a protocol may keep its transport for long.
            slf.get().state.with(slf.py(), |state| state.is_given_up = true);
            slf.get().give_up_if_over(slf.py());
            return Ok(());
        }
        Self::start_shutdown(slf)
    }

    /// Closes at once; `connection_lost(None)` follows.
    fn abort(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::_force_close(slf, None)
    }

    #[pyo3(signature = (exc))]
    fn _force_close(slf: &Bound<'_, Self>, exc: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        slf.get().state.with(slf.py(), |state| state.is_closed = true);
        Self::abort_with(slf, exc)
    }

    /// Whether data is being received.
    fn is_reading(&self, py: Python<'_>) -> bool {
        self.state.with(py, |state| !state.is_paused)
    }

    /// Stops calling `data_received`; may be called when it is stopped already.
    fn pause_reading(&self, py: Python<'_>) {
        self.state.with(py, |state| state.is_paused = true);
    }

    /// Goes on calling `data_received`; may be called when it is going on already.
    fn resume_reading(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::resume(slf)
    }

    /// Sets the water marks of writing in bytes; matches WriteTransport.set_write_buffer_limits.
    #[pyo3(signature = (high=None, low=None))]
    fn set_write_buffer_limits(slf: &Bound<'_, Self>, high: Option<i64>, low: Option<i64>) -> PyResult<()> {
        let outcome = slf.get().state.with(slf.py(), |state| state.write_flow.set_limits(high, low));
        outcome.map_err(|error| PyValueError::new_err(error.to_string()))?;
        Self::control_writing(slf)
    }

    /// (low, high) in bytes.
    fn get_write_buffer_limits(&self, py: Python<'_>) -> (usize, usize) {
        self.state.with(py, |state| state.write_flow.limits())
    }

    /// How many bytes wait for the transport below to take them.
    fn get_write_buffer_size(&self, py: Python<'_>) -> PyResult<usize> {
        self.unsent(py)
    }

    /// Sets the water marks of reading in bytes: when the transport below is asked to pause.
    #[pyo3(signature = (high=None, low=None))]
    fn set_read_buffer_limits(slf: &Bound<'_, Self>, high: Option<i64>, low: Option<i64>) -> PyResult<()> {
        let outcome = slf.get().state.with(slf.py(), |state| state.read_flow.set_limits(high, low));
        outcome.map_err(|error| PyValueError::new_err(error.to_string()))?;
        Self::control_reading(slf)
    }

    /// (low, high) in bytes.
    fn get_read_buffer_limits(&self, py: Python<'_>) -> (usize, usize) {
        self.state.with(py, |state| state.read_flow.limits())
    }

    /// How many received bytes wait to be decrypted.
    fn get_read_buffer_size(&self, py: Python<'_>) -> PyResult<usize> {
        self.session.unread(py)
    }

    /// Raises NotImplementedError: TLS has no half-closed connections.
    fn write_eof(&self) -> PyResult<()> {
        Err(PyNotImplementedError::new_err(()))
    }

    /// False.
    fn can_write_eof(&self) -> bool {
        false
    }

    // What the transport below sees: a protocol.

    /// There is a transport below: the hand-shake begins.
    fn connection_made(slf: &Bound<'_, Self>, transport: &Bound<'_, PyAny>) -> PyResult<()> {
        Self::start(slf, transport)
    }

    /// The transport below has received `data`.
    fn data_received(slf: &Bound<'_, Self>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        match data.cast_exact::<PyBytes>() {
            Ok(data) => Self::receive(slf, data),
            Err(_) => Self::receive(slf, &PyBytes::new(slf.py(), Chunk::new(data)?.as_ref())),
        }
    }

    /// The transport below has reached the end of the stream; True asks it to stay.
    fn eof_received(slf: &Bound<'_, Self>) -> PyResult<bool> {
        Self::receive_end(slf)
    }

    /// The transport below is gone.
    fn connection_lost(slf: &Bound<'_, Self>, exc: &Bound<'_, PyAny>) -> PyResult<()> {
        Self::lower_lost(slf, exc)
    }

    /// The transport below is full.
    fn pause_writing(&self, py: Python<'_>) {
        self.state.with(py, |state| state.is_lower_full = true);
    }

    /// The transport below has room again.
    fn resume_writing(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::lower_has_room(slf)
    }

    // What the loop and asyncio call.

    /// For CPython's tests: as `write()`, but nothing is encrypted now.
    #[pyo3(name = "_test__append_write_backlog")]
    fn append_to_backlog(&self, data: &Bound<'_, PyBytes>) {
        self.state.with(data.py(), |state| state.push(data.clone()));
    }

    /// Takes bytes that were received before the upgrade.
    fn _receive_early(&self, data: &Bound<'_, PyAny>) -> PyResult<()> {
        self.session.feed(&PyBytes::new(data.py(), Chunk::new(data)?.as_ref()))
    }

    fn _read(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::read(slf)
    }

    fn _go_on_reading(slf: &Bound<'_, Self>) -> PyResult<()> {
        match slf.get().phase(slf.py()) {
            // The hand-shake does not wait for the protocol.
            Phase::Handshake => Ok(()),
            _ => Self::go_on(slf),
        }
    }

    fn _handshake_timed_out(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::handshake_timed_out(slf)
    }

    fn _shutdown_timed_out(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::shutdown_timed_out(slf)
    }

    #[getter]
    fn _protocol_paused(&self, py: Python<'_>) -> bool {
        self.state.with(py, |state| state.write_flow.is_paused())
    }

    /// For CPython's tests.
    #[getter]
    fn _app_reading_paused(&self, py: Python<'_>) -> bool {
        self.state.with(py, |state| state.is_paused)
    }

    #[getter]
    fn _loop(&self, py: Python<'_>) -> Py<Loop> {
        self.core.clone_ref(py)
    }

    /// Itself: in asyncio another object has the protocol's face.
    #[getter]
    fn _ssl_protocol<'py>(slf: &Bound<'py, Self>) -> Bound<'py, Self> {
        slf.clone()
    }

    /// The transport below, while the connection lives.
    #[getter]
    fn _transport<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.lower(py)
    }

    /// `isinstance(transport, asyncio.Transport)` holds, also for the part of it that `loop.sendfile()` asks for.
    #[getter]
    fn __class__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        names::TLS_TRANSPORT.get(py).cloned()
    }

    fn __repr__(&self, py: Python<'_>) -> &'static str {
        if self.state.with(py, |state| state.is_closed) { "<TlsTransport closing>" } else { "<TlsTransport>" }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.core)?;
        self.session.traverse(&visit)?;
        self.state.try_with(|state| state.traverse(&visit)).unwrap_or(Ok(()))
    }

    fn __clear__(&self) {
        self.session.give_up();
        drop(self.state.try_with(|state| {
            let objects = (state.lower.take(), state.protocol.take(), state.waiter.take(), state.timer.take());
            (objects, state.facts.take())
        }));
    }
}

impl Drop for Tls {
    /// A transport that nobody closed: asyncio's warning.
    fn drop(&mut self) {
        let warn = |py: Python<'_>| {
            if self.state.with(py, |state| std::mem::replace(&mut state.is_closed, true)) {
                return;
            }
            let text = c"unclosed transport <TlsTransport>";
            if let Err(error) = PyErr::warn(py, &py.get_type::<PyResourceWarning>(), text, 1) {
                error.write_unraisable(py, None);
            }
        };
        // None: the interpreter is going down, and nobody listens.
        #[expect(clippy::disallowed_methods, reason = "a destructor has no token")]
        let _: Option<()> = Python::try_attach(warn);
    }
}

/// Puts on the class what only Python can say, and the raw methods.
pub(crate) fn define_methods(class: &Bound<'_, PyType>) -> PyResult<()> {
    let mode = class.py().import("asyncio.constants")?.getattr("_SendfileMode")?.getattr("FALLBACK")?;
    class.setattr("_sendfile_compatible", mode)?;
    class.setattr("_start_tls_compatible", true)?;
    writing::define_methods(class)
}
