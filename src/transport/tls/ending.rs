//! The end: the farewell of TLS, errors, `close()`, `abort()`, `connection_lost`.
//!
//! The time-out of the farewell stays until the lower transport reports the end: a peer that does not read can delay
//! the closing of a socket for ever.

use super::Tls;
use super::session::Answer;
use super::state::{Phase, Told};
use super::writing::Leave;
use crate::errors;
use crate::event_loop::core::error_context;
use crate::py::names;
use pyo3::exceptions::{PyException, PyOSError, PyTimeoutError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

impl Tls {
    /// `SSLProtocol._start_shutdown`
    pub(super) fn start_shutdown(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        match slf.get().phase(py) {
            Phase::Flushing | Phase::Shutdown | Phase::Unwrapped => Ok(()),
            Phase::Handshake => {
                slf.get().state.with(py, |state| state.is_closed = true);
                Self::abort_with(slf, None)
            }
            Phase::Wrapped => {
                slf.get().state.with(py, |state| state.is_closed = true);
                Self::settle(slf, Leave::WithTheTurn)?;
                if slf.get().phase(py) != Phase::Wrapped {
                    return Ok(());
                }
                slf.get().set_phase(py, Phase::Flushing);
                Self::start_shutdown_timer(slf)?;
                Self::read_and_shut_down(slf)
            }
        }
    }

    fn start_shutdown_timer(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::set_timer(slf, &slf.get().shutdown_timeout, intern!(slf.py(), "_shutdown_timed_out"))
    }

    /// `SSLProtocol._check_shutdown_timeout`
    pub(super) fn shutdown_timed_out(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        if matches!(slf.get().phase(py), Phase::Flushing | Phase::Shutdown) {
            let error = PyTimeoutError::new_err("SSL shutdown timed out");
            return Self::force_close_below(slf, Some(error.into_value(py).into_bound(py).into_any()));
        }
        Ok(())
    }

    /// `SSLProtocol._do_flush`
    pub(super) fn read_and_shut_down(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        Self::read(slf)?;
        // The protocol may have aborted meanwhile.
        if slf.get().phase(py) != Phase::Flushing {
            return Ok(());
        }
        slf.get().set_phase(py, Phase::Shutdown);
        Self::shut_down(slf)
    }

    /// `SSLProtocol._do_shutdown`
    pub(super) fn shut_down(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let is_ended = slf.get().state.with(py, |state| state.is_ended);
        let answer = if is_ended { Ok(Answer::Done(())) } else { slf.get().session.shut_down(py) };
        match answer {
            Ok(Answer::Again) => Self::send_outgoing(slf, Leave::WithTheTurn),
            Ok(Answer::Done(())) => {
                Self::send_outgoing(slf, Leave::WithTheTurn)?;
                Self::tell_end(slf)?;
                Self::close_below(slf)
            }
            Err(error) if error.is_instance(py, names::SSL_ERROR.get(py)?) => {
                Self::cancel_timer(slf)?;
                Self::fatal(slf, &error, "Fatal error on transport")
            }
            Err(error) => Err(error),
        }
    }

    /// Both sides have said farewell; `SSLProtocol._on_shutdown_complete`.
    fn close_below(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        if slf.get().state.with(py, |state| state.timer.is_none()) {
            Self::start_shutdown_timer(slf)?;
        }
        let Some(lower) = slf.get().lower(py) else { return Ok(()) };
        let close = lower.getattr(intern!(py, "close"))?;
        slf.get().core.bind(py).call_method1(intern!(py, "call_soon"), (close,)).map(drop)
    }

    /// `SSLProtocol._abort`
    pub(super) fn abort_with(slf: &Bound<'_, Self>, error: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        let py = slf.py();
        // asyncio would have sent this turn's writes when they were made.
        Self::settle(slf, Leave::WithTheTurn)?;
        slf.get().set_phase(py, Phase::Unwrapped);
        Self::force_close_below(slf, error)
    }

    /// Ends the lower transport at once. A transport of somebody else's may not be able to pass on an error.
    fn force_close_below(slf: &Bound<'_, Self>, error: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        let py = slf.py();
        let Some(lower) = slf.get().lower(py) else { return Ok(()) };
        match error {
            Some(error) => match lower.getattr_opt(intern!(py, "_force_close"))? {
                Some(force_close) => force_close.call1((error,)),
                None => lower.call_method0(intern!(py, "abort")),
            },
            None => lower.call_method0(intern!(py, "abort")),
        }
        .map(drop)
    }

    /// `SSLProtocol._fatal_error`: the connection cannot go on.
    ///
    /// Errors of the network are the protocol's to know, by `connection_lost(exc)`; all others are reported too.
    #[cold]
    pub(super) fn fatal(slf: &Bound<'_, Self>, error: &PyErr, message: &str) -> PyResult<()> {
        let py = slf.py();
        // asyncio would have sent this turn's writes when they were made.
        Self::settle(slf, Leave::WithTheTurn)?;
        let lower = slf.get().lower(py);
        Self::force_close_below(slf, Some(errors::exception(py, error)?))?;
        if error.is_instance_of::<PyOSError>(py) {
            if slf.get().core.get().is_debug() {
                let keywords = PyDict::new(py);
                keywords.set_item("exc_info", errors::exception(py, error)?)?;
                let logger = names::logger(py, "asyncio.sslproto")?;
                logger.call_method(intern!(py, "debug"), ("%r: %s", slf, message), Some(&keywords))?;
            }
            return Ok(());
        }
        if error.is_instance(py, names::CANCELLED_ERROR.get(py)?) {
            return Ok(());
        }
        Self::report(slf, error, message, lower)
    }

    /// Calls the loop's exception handler.
    pub(super) fn report(
        slf: &Bound<'_, Self>,
        error: &PyErr,
        message: &str,
        transport: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let py = slf.py();
        let context = error_context(py, message, error)?;
        context.set_item(intern!(py, "transport"), transport)?;
        context.set_item(intern!(py, "protocol"), slf)?;
        slf.get().core.bind(py).call_method1(intern!(py, "call_exception_handler"), (context,)).map(drop)
    }

    /// `SSLProtocol.connection_lost`: the lower transport is gone.
    ///
    /// A protocol that was told of a connection is told of its end, also when it is lost in the hand-shake of an
    /// upgrade, of which asyncio tells nobody but the caller of `start_tls()`.
    pub(super) fn lower_lost(slf: &Bound<'_, Self>, error: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = slf.py();
        let (protocol, lower, backlog, tells) = slf.get().state.with(py, |state| {
            let tells = matches!(state.told, Told::Made | Told::End);
            if tells {
                state.told = Told::Lost;
            }
            state.is_closed = true;
            state.is_deferred = false;
            state.backlog_size = 0;
            state.lost += 1;
            state.phase = Phase::Unwrapped;
            let protocol = state.protocol.as_ref().map(|protocol| protocol.clone_ref(py));
            (protocol, state.lower.take(), std::mem::take(&mut state.backlog), tells)
        });
        drop((lower, backlog));
        slf.get().session.take_outgoing(py)?;
        if let (Some(protocol), true) = (&protocol, tells) {
            let tell = protocol.bind(py).getattr(intern!(py, "connection_lost"))?;
            slf.get().core.bind(py).call_method1(intern!(py, "call_soon"), (tell, error))?;
        }
        Self::wake_waiter(slf, Some(error).filter(|error| !error.is_none()))?;
        drop(slf.get().state.with(py, |state| state.protocol.take()));
        slf.get().give_up_if_over(py);
        Self::cancel_timer(slf)
    }

    /// Calls `self.name()` after `seconds`, unless it is cancelled.
    pub(super) fn set_timer(slf: &Bound<'_, Self>, seconds: &Py<PyAny>, name: &Bound<'_, PyString>) -> PyResult<()> {
        let py = slf.py();
        let timer = slf.get().core.bind(py).call_method1(intern!(py, "call_later"), (seconds, slf.getattr(name)?))?;
        let timer = timer.unbind();
        let old = slf.get().state.with(py, |state| state.timer.replace(timer));
        old.map_or(Ok(()), |old| old.call_method0(py, intern!(py, "cancel")).map(drop))
    }

    pub(super) fn cancel_timer(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        match slf.get().state.with(py, |state| state.timer.take()) {
            Some(timer) => timer.call_method0(py, intern!(py, "cancel")).map(drop),
            None => Ok(()),
        }
    }
}

/// Whether an `except Exception` catches it.
pub(super) fn is_exception(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyException>(py)
}
