//! The beginning: what a transport is made of, `connection_made`, the hand-shake, its time-out.

use super::Tls;
use super::ending::is_exception;
use super::session::{Answer, Session};
use super::state::{Facts, Phase, State, Told};
use super::writing::Leave;
use crate::errors;
use crate::event_loop::Loop;
use crate::event_loop::core::error_context;
use crate::py::cell::OwnerCell;
use crate::py::names;
use crate::reactor::flow::Flow;
use crate::transport::direct::Delivery;
use pyo3::exceptions::{PyConnectionAbortedError, PyRuntimeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyString;
use std::collections::VecDeque;

/// `asyncio.constants.FLOW_CONTROL_HIGH_WATER_SSL_WRITE` (KiB).
const WRITE_HIGH: u32 = 512;
/// `asyncio.constants.FLOW_CONTROL_HIGH_WATER_SSL_READ` (KiB).
const READ_HIGH: u32 = 256;

/// How a TLS transport begins.
pub(in crate::transport) struct Beginning<'a, 'py> {
    pub(in crate::transport) protocol: &'a Bound<'py, PyAny>,
    /// None: the default for clients.
    pub(in crate::transport) context: Option<&'a Bound<'py, PyAny>>,
    pub(in crate::transport) waiter: Option<Py<PyAny>>,
    pub(in crate::transport) server_side: bool,
    pub(in crate::transport) server_hostname: Option<&'a Bound<'py, PyAny>>,
    /// False: the protocol has been told of the connection, which is upgraded.
    pub(in crate::transport) calls_connection_made: bool,
    pub(in crate::transport) handshake_timeout: Option<&'a Bound<'py, PyAny>>,
    pub(in crate::transport) shutdown_timeout: Option<&'a Bound<'py, PyAny>>,
    pub(in crate::transport) is_accepted: bool,
}

impl Tls {
    /// Makes a transport; it begins when the transport below calls its `connection_made`.
    pub(in crate::transport) fn begin<'py>(
        core: &Bound<'py, Loop>,
        beginning: Beginning<'_, 'py>,
    ) -> PyResult<Bound<'py, Self>> {
        let py = core.py();
        let handshake_timeout =
            timeout(beginning.handshake_timeout, "ssl_handshake_timeout", intern!(py, "SSL_HANDSHAKE_TIMEOUT"))?;
        let shutdown_timeout =
            timeout(beginning.shutdown_timeout, "ssl_shutdown_timeout", intern!(py, "SSL_SHUTDOWN_TIMEOUT"))?;
        let context = match beginning.context {
            Some(context) if context.is_truthy()? => context.clone(),
            _ => {
                let arguments = (beginning.server_side, beginning.server_hostname);
                names::CREATE_TLS_CONTEXT.get(py)?.call1(arguments)?
            }
        };
        let hostname = match beginning.server_hostname {
            Some(hostname) if !beginning.server_side && hostname.is_truthy()? => Some(hostname),
            _ => None,
        };
        let state = State {
            phase: Phase::Unwrapped,
            told: if beginning.calls_connection_made { Told::Nothing } else { Told::Made },
            lower: None,
            protocol: Some(beginning.protocol.clone().unbind()),
            delivery: Delivery::of(beginning.protocol)?,
            backlog: VecDeque::new(),
            backlog_size: 0,
            is_deferred: false,
            write_flow: Flow::with_default(WRITE_HIGH * 1024),
            read_flow: Flow::with_default(READ_HIGH * 1024),
            is_lower_full: false,
            is_paused: false,
            is_ended: false,
            is_closed: false,
            is_given_up: false,
            is_accepted: beginning.is_accepted,
            lost: 0,
            waiter: beginning.waiter,
            timer: None,
            began: None,
            facts: None,
        };
        let tls = Self {
            core: core.clone().unbind(),
            session: Session::new(&context, beginning.server_side, hostname)?,
            handshake_timeout: handshake_timeout.unbind(),
            shutdown_timeout: shutdown_timeout.unbind(),
            state: OwnerCell::new(state),
        };
        Bound::new(py, tls)
    }

    /// `SSLProtocol.connection_made`: there is a transport below.
    pub(super) fn start(slf: &Bound<'_, Self>, lower: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = slf.py();
        if slf.get().state.with(py, |state| state.protocol.is_none()) {
            // An upgrade of what was closed already: its end came first.
            return Ok(());
        }
        let core = slf.get().core.bind(py);
        let kept = lower.clone().unbind();
        let old = slf.get().state.with(py, |state| {
            if state.phase != Phase::Unwrapped {
                return Err(PyRuntimeError::new_err("the hand-shake has begun already"));
            }
            state.phase = Phase::Handshake;
            Ok(state.lower.replace(kept))
        })?;
        drop(old);
        if core.get().is_debug() {
            let logger = names::logger(py, "asyncio.sslproto")?;
            logger.call_method1(intern!(py, "debug"), ("%r starts SSL handshake", slf))?;
            let now = core.call_method0(intern!(py, "time"))?.extract()?;
            slf.get().state.with(py, |state| state.began = Some(now));
        }
        Self::set_timer(slf, &slf.get().handshake_timeout, intern!(py, "_handshake_timed_out"))?;
        Self::shake_hands(slf)
    }

    /// `SSLProtocol._do_handshake`
    pub(super) fn shake_hands(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        match slf.get().session.handshake(py) {
            Ok(Answer::Again) => Self::send_outgoing(slf, Leave::WithTheTurn),
            Ok(Answer::Done(())) => Self::hands_shaken(slf, Ok(())),
            Err(error) if error.is_instance(py, names::SSL_ERROR.get(py)?) => Self::hands_shaken(slf, Err(error)),
            Err(error) => Err(error),
        }
    }

    /// `SSLProtocol._on_handshake_complete`
    pub(super) fn hands_shaken(slf: &Bound<'_, Self>, outcome: PyResult<()>) -> PyResult<()> {
        let py = slf.py();
        Self::cancel_timer(slf)?;
        let facts = outcome.and_then(|()| {
            // A callback of the context may have aborted meanwhile: then the end is on its way.
            let goes_on = slf.get().state.with(py, |state| {
                let goes_on = state.phase == Phase::Handshake;
                if goes_on {
                    state.phase = Phase::Wrapped;
                }
                goes_on
            });
            if goes_on { slf.get().facts(py).map(Some) } else { Ok(None) }
        });
        match facts {
            Ok(Some(facts)) => Self::begin_connection(slf, facts),
            Ok(None) => Ok(()),
            Err(error) if is_exception(py, &error) => Self::refuse(slf, &error),
            Err(error) => Err(error),
        }
    }

    fn facts(&self, py: Python<'_>) -> PyResult<Facts> {
        let closed = || PyRuntimeError::new_err("the TLS session is over");
        let object = self.session.object(py).ok_or_else(closed)?;
        Ok(Facts {
            peer_certificate: object.call_method0(intern!(py, "getpeercert"))?.unbind(),
            cipher: object.call_method0(intern!(py, "cipher"))?.unbind(),
            compression: object.call_method0(intern!(py, "compression"))?.unbind(),
        })
    }

    fn refuse(slf: &Bound<'_, Self>, error: &PyErr) -> PyResult<()> {
        let py = slf.py();
        slf.get().set_phase(py, Phase::Unwrapped);
        let is_certificate = error.is_instance(py, names::CERTIFICATE_ERROR.get(py)?);
        let message =
            if is_certificate { "SSL handshake failed on verifying the certificate" } else { "SSL handshake failed" };
        Self::fatal(slf, error, message)?;
        Self::wake_waiter(slf, Some(&errors::exception(py, error)?))
    }

    fn begin_connection(slf: &Bound<'_, Self>, facts: Facts) -> PyResult<()> {
        let py = slf.py();
        let (began, is_new) = slf.get().state.with(py, |state| {
            let is_new = state.told == Told::Nothing;
            if is_new {
                state.told = Told::Made;
            }
            // There were none before: nothing is dropped here.
            state.facts = Some(facts);
            (state.began.take(), is_new)
        });
        if let Some(began) = began
            && slf.get().core.get().is_debug()
        {
            let now: f64 = slf.get().core.bind(py).call_method0(intern!(py, "time"))?.extract()?;
            let logger = names::logger(py, "asyncio.sslproto")?;
            let text = "%r: SSL handshake took %.1f ms";
            logger.call_method1(intern!(py, "debug"), (text, slf, (now - began) * 1e3))?;
        }
        if is_new && let Some(protocol) = slf.get().protocol(py) {
            protocol.call_method1(intern!(py, "connection_made"), (slf,))?;
        }
        Self::wake_waiter(slf, None)?;
        Self::read(slf)
    }

    /// `SSLProtocol._check_handshake_timeout`
    pub(super) fn handshake_timed_out(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        if slf.get().phase(py) != Phase::Handshake {
            return Ok(());
        }
        let seconds = slf.get().handshake_timeout.bind(py).str()?;
        let text = format!("SSL handshake is taking longer than {seconds} seconds: aborting the connection");
        Self::fatal(slf, &PyConnectionAbortedError::new_err(text), "Fatal error on transport")
    }

    /// `SSLProtocol._wakeup_waiter`
    pub(super) fn wake_waiter(slf: &Bound<'_, Self>, error: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let py = slf.py();
        let (waiter, is_accepted) =
            slf.get().state.with(py, |state| (state.waiter.take(), std::mem::take(&mut state.is_accepted)));
        if let (Some(error), true, true) = (error, is_accepted, slf.get().core.get().is_debug()) {
            return Self::report_accepted(slf, error);
        }
        let Some(waiter) = waiter else { return Ok(()) };
        let waiter = waiter.bind(py);
        if waiter.call_method0(intern!(py, "cancelled"))?.is_truthy()? {
            return Ok(());
        }
        match error {
            Some(error) => waiter.call_method1(intern!(py, "set_exception"), (error,)),
            None => waiter.call_method1(intern!(py, "set_result"), (py.None(),)),
        }
        .map(drop)
    }

    /// What `BaseSelectorEventLoop._accept_connection2` tells in debug mode.
    #[cold]
    fn report_accepted(slf: &Bound<'_, Self>, error: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = slf.py();
        let message = "Error on transport creation for incoming connection";
        let context = error_context(py, message, &PyErr::from_value(error.clone()))?;
        context.set_item(intern!(py, "protocol"), slf.get().protocol(py))?;
        context.set_item(intern!(py, "transport"), slf)?;
        slf.get().core.bind(py).call_method1(intern!(py, "call_exception_handler"), (context,)).map(drop)
    }
}

/// A time-out in seconds as it was given, or asyncio's default.
fn timeout<'py>(
    given: Option<&Bound<'py, PyAny>>,
    name: &str,
    default: &Bound<'py, PyString>,
) -> PyResult<Bound<'py, PyAny>> {
    match given {
        None => names::CONSTANTS.get(default.py(), default),
        Some(seconds) if seconds.le(0)? => {
            Err(PyValueError::new_err(format!("{name} should be a positive number, got {}", seconds.str()?)))
        }
        Some(seconds) => Ok(seconds.clone()),
    }
}
