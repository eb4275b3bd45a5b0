//! The end of a connection: errors, `close()`, `abort()`, and the one call of `connection_lost`.
//!
//! ```text
//!  open ──close()──► closing, bytes wait ──drained──► lost ──next turn──► connection_lost, socket closed
//!    │                    │                            ▲
//!    └──abort(), error────┴────────────────────────────┘
//! ```

use super::stream::{Stream, detach};
use crate::errors;
use crate::event_loop::core::error_context;
use crate::event_loop::owned::Runnable;
use crate::event_loop::run::{Run, is_exit};
use crate::event_loop::source::{Event, Source};
use crate::py::context;
use crate::py::names;
use pyo3::exceptions::{PyConnectionError, PyOSError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

impl Stream {
    /// Adds transport and protocol, and calls the loop's exception handler.
    pub(super) fn report(slf: &Bound<'_, Self>, context: &Bound<'_, PyDict>) -> PyResult<()> {
        let py = slf.py();
        context.set_item(intern!(py, "transport"), slf)?;
        context.set_item(intern!(py, "protocol"), slf.get().protocol(py))?;
        let core = slf.get().core.bind(py);
        core.call_method1(intern!(py, "call_exception_handler"), (context,)).map(drop)
    }

    /// In debug mode, a line for the log of asyncio.
    #[inline]
    pub(super) fn log(slf: &Bound<'_, Self>, text: &str) -> PyResult<()> {
        if !slf.get().core.get().is_debug() {
            return Ok(());
        }
        let py = slf.py();
        names::logger(py, "asyncio.selector_events")?.call_method1(intern!(py, "debug"), (text, slf)).map(drop)
    }

    /// `_SelectorTransport._fatal_error`: the connection cannot go on.
    ///
    /// Errors of the network are the protocol's to know, by `connection_lost(exc)`; all others are reported too.
    #[cold]
    pub(super) fn fatal(slf: &Bound<'_, Self>, error: &PyErr, message: &str) -> PyResult<()> {
        let py = slf.py();
        if is_exit(py, error) {
            return Err(error.clone_ref(py));
        }
        if error.is_instance_of::<PyOSError>(py) {
            if slf.get().core.get().is_debug() {
                let keywords = PyDict::new(py);
                keywords.set_item("exc_info", errors::exception(py, error)?)?;
                let logger = names::logger(py, "asyncio.selector_events")?;
                logger.call_method(intern!(py, "debug"), ("%r: %s", slf, message), Some(&keywords))?;
            }
        } else {
            Self::report(slf, &error_context(py, message, error)?)?;
        }
        Self::force_close(slf, Some(errors::exception(py, error)?.unbind()))
    }

    /// `_SelectorTransport.close`
    pub(super) fn close_gently(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        if slf.get().state.with(py, |state| std::mem::replace(&mut state.is_closing, true)) {
            return Ok(());
        }
        // What was written in this turn leaves first; an empty outbox ends the connection.
        Self::send(slf)
    }

    /// `_SelectorTransport._force_close`; bytes that the kernel has no room for are lost.
    pub(super) fn force_close(slf: &Bound<'_, Self>, error: Option<Py<PyAny>>) -> PyResult<()> {
        let py = slf.py();
        if slf.get().state.with(py, |state| state.lost > 0) {
            return Ok(());
        }
        // asyncio would have sent this turn's small writes when they were written.
        if slf.get().state.with(py, |state| state.is_unflushed && !state.is_blocked) {
            Self::send(slf)?;
        }
        slf.get().state.with(py, |state| {
            state.is_closing = true;
            state.outbox.clear();
        });
        Self::lose(slf, error)
    }

    /// Schedules `connection_lost`, once.
    pub(super) fn lose(slf: &Bound<'_, Self>, error: Option<Py<PyAny>>) -> PyResult<()> {
        let py = slf.py();
        let core = slf.get().core.get();
        core.check_open()?;
        let fixed = slf.get().state.with(py, |state| state.is_context_fixed.then(|| state.context.clone_ref(py)));
        let context = fixed.map_or_else(|| context::copy_current(py), Ok)?;
        let is_first = slf.get().state.with(py, |state| {
            state.lost += 1;
            if state.lost > 1 {
                return Err((error, context));
            }
            state.rare.lost_with = Some((error, context));
            Ok(())
        });
        if is_first.is_ok() {
            let source = Source::Stream(slf.clone().unbind());
            core.make_ready(py, Runnable::Event(source, Event::Lost));
        }
        Ok(())
    }

    /// `_SelectorTransport._call_connection_lost`
    pub(super) fn on_lost(slf: &Bound<'_, Self>, run: &mut Run<'_, '_>) -> PyResult<()> {
        let py = slf.py();
        let lost_with = slf.get().state.with(py, |state| state.rare.lost_with.take());
        let protocol = slf.get().protocol(py);
        let (Some((error, context)), Some(protocol)) = (lost_with, protocol) else {
            return Ok(());
        };
        run.entered.switch(py, &context)?;
        let told = protocol.bind(py).call_method1(intern!(py, "connection_lost"), (error,));
        let closed = Self::close_socket(slf);
        drop(slf.get().state.with(py, |state| state.protocol.take()));
        match told {
            Ok(_) => closed,
            Err(error) if is_exit(py, &error) => Err(error),
            Err(error) => {
                let message = "Exception in callback StreamTransport.connection_lost";
                let context = error_context(py, message, &error)?;
                context.set_item(intern!(py, "transport"), slf)?;
                context.set_item(intern!(py, "protocol"), protocol)?;
                run.call_exception_handler(&context).and(closed)
            }
        }
    }

    /// Deregisters and closes the socket, and tells who waits for the end.
    fn close_socket(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let core = slf.get().core.get();
        let shared = core.shared_or_closed(py);
        slf.get().forget_unregistered(py)?;
        let (registration, closing, server, waiter) = slf.get().state.with(py, |state| {
            state.endpoint.note_addresses();
            state.open = None;
            let registration = state.token.take().zip(state.endpoint.fd());
            if let (Some((_, fd)), Some(shared), false) = (registration, shared, state.endpoint.is_private()) {
                // A duplicate may live on elsewhere. An error: the kernel has forgotten the descriptor by itself.
                drop(shared.poller.deregister(fd));
            }
            let rare = &mut state.rare;
            (registration, state.endpoint.take(), rare.server.take(), rare.empty_waiter.take())
        });
        if let Some((token, fd)) = registration {
            drop(core.owned.with(py, |owned| owned.remove(fd, token)));
        }
        let closed = closing.close(py);
        if let Some(waiter) = waiter {
            let waiter = waiter.bind(py);
            if !waiter.call_method0(intern!(py, "done"))?.is_truthy()? {
                let error = PyConnectionError::new_err("Connection is closed by peer");
                waiter.call_method1(intern!(py, "set_exception"), (error,))?;
            }
        }
        match server {
            Some(server) => closed.and(detach(server.bind(py), slf.as_any())),
            None => closed,
        }
    }
}
