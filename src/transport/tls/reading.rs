//! From the lower transport to the protocol.
//!
//! What was received goes into the session at once; what becomes of it depends on the phase. The order of calls is that
//! of `asyncio.sslproto`: all plaintext there is goes to the protocol in one call, then the end, if it came.

use super::Tls;
use super::ending::is_exception;
use super::session::Plaintext;
use super::state::{Phase, Told};
use super::writing::Leave;
use crate::event_loop::run::is_exit;
use crate::py::call::call_method1;
use crate::py::names;
use crate::transport::direct::{self, Delivery};
use pyo3::exceptions::PyConnectionResetError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

impl Tls {
    /// The lower transport has received something.
    pub(super) fn receive(slf: &Bound<'_, Self>, data: &Bound<'_, PyBytes>) -> PyResult<()> {
        slf.get().session.feed(data)?;
        Self::go_on(slf)
    }

    /// As [`Self::receive`], in two steps: what a stream of ours has received goes into the session ...
    pub(in crate::transport) fn feed(&self, py: Python<'_>, data: &[u8]) -> PyResult<()> {
        self.session.feed_slice(py, data)
    }

    /// ... and then the phase says what becomes of it.
    #[inline]
    pub(in crate::transport) fn go_on(slf: &Bound<'_, Self>) -> PyResult<()> {
        match slf.get().phase(slf.py()) {
            Phase::Handshake => Self::shake_hands(slf),
            Phase::Wrapped => Self::read(slf),
            Phase::Flushing => Self::read_and_shut_down(slf),
            Phase::Shutdown => Self::shut_down(slf),
            Phase::Unwrapped => Ok(()),
        }
    }

    /// `SSLProtocol._do_read`
    pub(super) fn read(slf: &Bound<'_, Self>) -> PyResult<()> {
        if !matches!(slf.get().phase(slf.py()), Phase::Wrapped | Phase::Flushing) {
            return Ok(());
        }
        match Self::read_or_raise(slf) {
            Err(error) if is_exception(slf.py(), &error) => Self::fatal(slf, &error, "Fatal error on SSL protocol"),
            outcome => outcome,
        }
    }

    fn read_or_raise(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let (is_paused, delivery) = slf.get().state.with(py, |state| (state.is_paused, state.delivery));
        if !is_paused {
            let is_end = match delivery {
                Delivery::Buffer => Self::fill_protocol(slf)?,
                Delivery::Data | Delivery::Reader | Delivery::Tls => Self::deliver(slf, delivery)?,
            };
            if is_end {
                Self::tell_end(slf)?;
                Self::start_shutdown(slf)?;
            }
            let (has_backlog, is_deferred) = slf.get().state.with(py, |state| (state.has_backlog(), state.is_deferred));
            if has_backlog {
                Self::encrypt(slf, Leave::WithTheTurn)?;
            } else if !is_deferred {
                // What the engine itself has to say: new keys, tickets.
                Self::send_answers(slf)?;
            }
        }
        Self::control_reading(slf)
    }

    /// `SSLProtocol._do_read__copied`; answers whether the peer has said farewell.
    fn deliver(slf: &Bound<'_, Self>, delivery: Delivery) -> PyResult<bool> {
        let py = slf.py();
        let Plaintext { data, is_end } = slf.get().session.read_all(py)?;
        if let (Some(data), Some(protocol)) = (data, slf.get().protocol(py)) {
            if delivery == Delivery::Reader {
                direct::deliver(&protocol, data.as_bytes())?;
            } else {
                call_method1(&protocol, intern!(py, "data_received"), data.as_any())?;
            }
        }
        Ok(is_end)
    }

    /// `SSLProtocol._do_read__buffered`; answers whether the peer has said farewell.
    fn fill_protocol(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let py = slf.py();
        let Some(protocol) = slf.get().protocol(py) else { return Ok(false) };
        let hint = slf.get().session.unread(py)?;
        let room = call_method1(&protocol, intern!(py, "get_buffer"), hint.into_pyobject(py)?.as_any())?;
        let size = room.len()?;
        let Plaintext { data: filled, is_end } = slf.get().session.read_into(&room, size)?;
        if filled > 0 {
            if filled == size {
                // There may be more, for which there was no room.
                let read = slf.getattr(intern!(py, "_read"))?;
                slf.get().core.bind(py).call_method1(intern!(py, "call_soon"), (read,))?;
            }
            call_method1(&protocol, intern!(py, "buffer_updated"), filled.into_pyobject(py)?.as_any())?;
        }
        Ok(is_end)
    }

    /// `SSLProtocol._call_eof_received`
    pub(super) fn tell_end(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let protocol = slf.get().state.with(py, |state| {
            let is_first = state.told == Told::Made;
            if is_first {
                state.told = Told::End;
            }
            state.protocol.as_ref().filter(|_| is_first).map(|protocol| protocol.clone_ref(py))
        });
        let Some(protocol) = protocol else { return Ok(()) };
        let keeps_open = protocol.bind(py).call_method0(intern!(py, "eof_received")).and_then(|keep| keep.is_truthy());
        match keeps_open {
            Ok(false) => Ok(()),
            Ok(true) => {
                let text = "returning true from eof_received() has no effect when using ssl";
                let logger = names::logger(py, "asyncio.sslproto")?;
                logger.call_method1(intern!(py, "warning"), (text,)).map(drop)
            }
            Err(error) if is_exit(py, &error) => Err(error),
            Err(error) => Self::fatal(slf, &error, "Error calling eof_received()"),
        }
    }

    /// `SSLProtocol._control_ssl_reading`
    pub(super) fn control_reading(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let size = slf.get().session.known_unread(py);
        let (pauses, resumes) = slf.get().state.with(py, |state| {
            let pauses = state.read_flow.should_pause_at(size);
            (pauses, !pauses && state.read_flow.should_resume(size))
        });
        if !pauses && !resumes {
            return Ok(());
        }
        let Some(lower) = slf.get().lower(py) else { return Ok(()) };
        lower.call_method0(if pauses { intern!(py, "pause_reading") } else { intern!(py, "resume_reading") }).map(drop)
    }

    /// `SSLProtocol._resume_reading`
    pub(super) fn resume(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        if slf.get().state.with(py, |state| std::mem::take(&mut state.is_paused)) {
            let go_on = slf.getattr(intern!(py, "_go_on_reading"))?;
            slf.get().core.bind(py).call_method1(intern!(py, "call_soon"), (go_on,))?;
        }
        Ok(())
    }

    /// `SSLProtocol.eof_received`: the lower transport has reached the end of the stream. Answers whether it must stay.
    pub(super) fn receive_end(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let py = slf.py();
        slf.get().state.with(py, |state| state.is_ended = true);
        let outcome = Self::handle_end(slf);
        if let Err(error) = &outcome
            && is_exception(py, error)
            && let Some(lower) = slf.get().lower(py)
        {
            lower.call_method0(intern!(py, "close"))?;
        }
        outcome
    }

    fn handle_end(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let py = slf.py();
        if slf.get().core.get().is_debug() {
            names::logger(py, "asyncio.sslproto")?.call_method1(intern!(py, "debug"), ("%r received EOF", slf))?;
        }
        match slf.get().phase(py) {
            Phase::Handshake => {
                Self::hands_shaken(slf, Err(PyConnectionResetError::new_err(())))?;
            }
            Phase::Wrapped => {
                Self::settle(slf, Leave::WithTheTurn)?;
                slf.get().set_phase(py, Phase::Flushing);
                if slf.get().state.with(py, |state| state.is_paused) {
                    return Ok(true);
                }
                Self::read_and_shut_down(slf)?;
            }
            Phase::Flushing => {
                Self::encrypt(slf, Leave::WithTheTurn)?;
                slf.get().set_phase(py, Phase::Shutdown);
                Self::shut_down(slf)?;
            }
            Phase::Shutdown => Self::shut_down(slf)?,
            Phase::Unwrapped => {}
        }
        Ok(false)
    }
}
