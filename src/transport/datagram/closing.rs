//! The end of a datagram transport: fatal errors, `close()`, `abort()`, and the one call of `connection_lost`.
//!
//! Errors of the network are told by `error_received()` and end nothing; what ends the transport is an exception of
//! another kind, such as that of an address that is none.

use super::Datagram;
use super::writing::Caller;
use crate::errors;
use crate::event_loop::core::error_context;
use crate::event_loop::owned::Runnable;
use crate::event_loop::run::{Run, is_exit};
use crate::event_loop::source::{Event, Source};
use crate::py::{context, names};
use pyo3::exceptions::PyOSError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

impl Datagram {
    /// `_SelectorTransport._fatal_error`: the transport cannot go on.
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
        Self::update_interest(slf)?;
        // What was sent in this turn leaves first; an empty queue ends the transport.
        Self::send(slf, Caller::User)
    }

    /// `_SelectorTransport._force_close`; what the kernel has no room for is lost.
    pub(super) fn force_close(slf: &Bound<'_, Self>, error: Option<Py<PyAny>>) -> PyResult<()> {
        let py = slf.py();
        if slf.get().state.with(py, |state| state.lost > 0) {
            return Ok(());
        }
        // asyncio would have sent this turn's datagrams when they were given to it.
        if slf.get().state.with(py, |state| state.is_unflushed && !state.is_blocked) {
            Self::send(slf, Caller::User)?;
        }
        let rest = slf.get().state.with(py, |state| {
            (state.is_closing, state.is_blocked) = (true, false);
            state.queue.take()
        });
        drop(rest);
        Self::lose(slf, error)
    }

    /// Schedules `connection_lost`, once.
    pub(super) fn lose(slf: &Bound<'_, Self>, error: Option<Py<PyAny>>) -> PyResult<()> {
        let py = slf.py();
        let core = slf.get().core.get();
        core.check_open()?;
        let context = context::copy_current(py)?;
        let is_first = slf.get().state.with(py, |state| {
            state.lost += 1;
            if state.lost > 1 {
                return Err((error, context));
            }
            state.rare.lost_with = Some((error, context));
            Ok(())
        });
        if is_first.is_ok() {
            core.make_ready(py, Runnable::Event(Source::Datagram(slf.clone().unbind()), Event::Lost));
            Self::update_interest(slf)?;
        }
        Ok(())
    }

    /// `_SelectorTransport._call_connection_lost`
    pub(super) fn on_lost(slf: &Bound<'_, Self>, run: &mut Run<'_, '_>) -> PyResult<()> {
        let py = slf.py();
        let (lost_with, protocol, kept) = slf.get().state.with(py, |state| {
            let protocol = state.protocol.as_ref().map(|protocol| protocol.clone_ref(py));
            (state.rare.lost_with.take(), protocol, std::mem::take(&mut state.rare.kept))
        });
        drop(kept);
        let (Some((error, context)), Some(protocol)) = (lost_with, protocol) else { return Ok(()) };
        run.entered.switch(py, &context)?;
        let told = protocol.bind(py).call_method1(intern!(py, "connection_lost"), (error,));
        // As asyncio, which sends at once: what came since `close()` still leaves.
        let sent =
            if slf.get().state.with(py, |state| state.is_unflushed) { Self::send(slf, Caller::Event) } else { Ok(()) };
        let closed = sent.and(Self::close_socket(slf));
        drop(slf.get().state.with(py, |state| state.protocol.take()));
        match told {
            Ok(_) => closed,
            Err(error) if is_exit(py, &error) => Err(error),
            Err(error) => {
                let message = "Exception in callback DatagramTransport.connection_lost()";
                let context = error_context(py, message, &error)?;
                context.set_item(intern!(py, "transport"), slf)?;
                context.set_item(intern!(py, "protocol"), protocol)?;
                run.call_exception_handler(&context).and(closed)
            }
        }
    }

    /// Deregisters and closes the socket.
    fn close_socket(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let core = slf.get().core.get();
        let (registration, fd, sock) = slf.get().state.with(py, |state| {
            state.open = None;
            (state.token.take().zip(state.interest.take().map(Some).or(Some(None))), state.fd, state.sock.take())
        });
        if let Some((token, interest)) = registration {
            if interest.is_some()
                && let Some(shared) = core.shared_or_closed(py)
            {
                // An error: the kernel has forgotten the descriptor by itself.
                drop(shared.poller.deregister(fd));
            }
            drop(core.owned.with(py, |owned| owned.remove(fd, token)));
        }
        sock.map_or(Ok(()), |sock| sock.call_method0(py, intern!(py, "close")).map(drop))
    }
}
