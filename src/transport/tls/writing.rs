//! From `write()` to the lower transport, and the water marks.
//!
//! What is written in a turn waits for its end unencrypted: several small writes become one record, and one write
//! below. Bulk does not wait, nor does anything where the protocol or the lower transport is asked to pause: there the
//! calls and their order are those of `asyncio.sslproto`.

use super::Tls;
use super::ending::is_exception;
use super::session::Answer;
use super::state::{Phase, State};
use crate::event_loop::run::is_exit;
use crate::event_loop::source::Source;
use crate::py::buffer::{self, Chunk};
use crate::py::call::call_method1;
use crate::py::method::{Arguments, Body, Method, define};
use crate::py::names;
use crate::transport::stream::Stream;
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView, PyType};
use std::ffi::CStr;

/// So many bytes may wait for the end of the turn.
const DEFERRED: usize = 64 * 1024;
/// Writes that fit into one record together are joined; longer ones are encrypted from where they lie.
const RECORD: usize = 16 * 1024;
/// From so many writes after the connection was lost, asyncio warns.
const WARN_FROM: u32 = 5;

/// When ciphertext leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    /// With what else the lower transport is given in this turn.
    WithTheTurn,
    /// Now: the turn has ended.
    Now,
}

/// `TlsTransport.write`, as a raw method.
struct Write;

impl Method for Write {
    type Class = Tls;
    const NAME: &'static CStr = c"write";
    const DOC: &'static CStr =
        c"write($self, data)\n--\n\nSends data (bytes-like) without waiting. Matches WriteTransport.write.";
    const BODY: Body<Tls> = write;
}

/// `TlsTransport.writelines`, as a raw method.
struct WriteLines;

impl Method for WriteLines {
    type Class = Tls;
    const NAME: &'static CStr = c"writelines";
    const DOC: &'static CStr = c"writelines($self, list_of_data)\n--\n\n\
        Sends the parts as if they were one. Matches WriteTransport.writelines.";
    const BODY: Body<Tls> = write_lines;
}

pub(super) fn define_methods(class: &Bound<'_, PyType>) -> PyResult<()> {
    define::<Write>(class)?;
    define::<WriteLines>(class)
}

fn write<'py>(slf: &Bound<'py, Tls>, arguments: Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = slf.py();
    let data = arguments.only_argument("write", intern!(py, "data"))?;
    let is_bytes = data.is_instance_of::<PyBytes>()
        || data.is_instance_of::<PyByteArray>()
        || data.is_instance_of::<PyMemoryView>();
    if !is_bytes {
        let kind = data.get_type().name()?;
        return Err(PyTypeError::new_err(format!("data: expecting a bytes-like instance, got {kind}")));
    }
    let data = snapshot(&data)?;
    if !data.as_bytes().is_empty() {
        Tls::write_plaintext(slf, std::iter::once(data))?;
    }
    Ok(py.None().into_bound(py))
}

fn write_lines<'py>(slf: &Bound<'py, Tls>, arguments: Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = slf.py();
    let list = arguments.only_argument("writelines", intern!(py, "list_of_data"))?;
    let parts = list.try_iter()?.map(|data| snapshot(&data?)).collect::<PyResult<Vec<_>>>()?;
    Tls::write_plaintext(slf, parts.into_iter())?;
    Ok(py.None().into_bound(py))
}

/// `data` as bytes that do not change.
fn snapshot<'py>(data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    match Chunk::new(data)? {
        Chunk::Shared(bytes) => Ok(bytes.into_bound(data.py())),
        Chunk::Copied(bytes) => Ok(PyBytes::new(data.py(), &bytes)),
    }
}

impl State {
    pub(super) fn push(&mut self, data: Bound<'_, PyBytes>) {
        let size = data.as_bytes().len();
        if size > 0 {
            self.backlog_size += size;
            self.backlog.push_back(data.unbind());
        }
    }

    /// Whether what was written may wait for the end of the turn.
    fn may_wait(&self) -> bool {
        let is_quiet = !self.is_lower_full && !self.write_flow.is_paused() && self.write_flow.limits().1 > 0;
        is_quiet && self.backlog_size <= DEFERRED
    }

    /// How many bytes wait unencrypted, but for the end of the turn.
    fn waiting(&self) -> usize {
        if self.is_deferred { 0 } else { self.backlog_size }
    }

    /// Takes what the next record is made of: the first piece, and those that fit into the record with it.
    fn take_pieces(&mut self, py: Python<'_>) -> Option<(Py<PyBytes>, Vec<Py<PyBytes>>)> {
        let first = self.backlog.pop_front()?;
        if self.backlog.is_empty() {
            return Some((first, Vec::new()));
        }
        let mut size = first.bind(py).as_bytes().len();
        let fits = |piece: &&Py<PyBytes>| {
            size += piece.bind(py).as_bytes().len();
            size <= RECORD
        };
        let count = self.backlog.iter().take_while(fits).count();
        Some((first, self.backlog.drain(..count).collect()))
    }
}

impl Tls {
    /// `SSLProtocol._write_appdata`
    pub(super) fn write_plaintext<'py>(
        slf: &Bound<'py, Self>,
        parts: impl Iterator<Item = Bound<'py, PyBytes>>,
    ) -> PyResult<()> {
        let py = slf.py();
        let core = slf.get().core.get();
        let is_over = |state: &mut State| matches!(state.phase, Phase::Flushing | Phase::Shutdown | Phase::Unwrapped);
        if slf.get().state.with(py, is_over) {
            return Self::write_after_end(slf);
        }
        let can_wait = core.is_running_here();
        let (encrypts, is_new) = slf.get().state.with(py, |state| {
            let waited = state.has_backlog();
            parts.for_each(|part| state.push(part));
            let defers = state.phase == Phase::Wrapped && can_wait && !waited && state.may_wait();
            let is_new = defers && !state.is_deferred && !state.backlog.is_empty();
            state.is_deferred = defers && !state.backlog.is_empty();
            (state.phase == Phase::Wrapped && !defers, is_new)
        });
        if is_new {
            let source = Source::Tls(slf.clone().unbind());
            core.owned.with(py, |owned| owned.unflushed.push(source));
        }
        if encrypts { Self::encrypt_or_fail(slf, Leave::WithTheTurn) } else { Ok(()) }
    }

    #[cold]
    fn write_after_end(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let writes = slf.get().state.with(py, |state| {
            state.lost += 1;
            state.lost - 1
        });
        if writes >= WARN_FROM {
            let logger = names::logger(py, "asyncio.sslproto")?;
            logger.call_method1(intern!(py, "warning"), ("SSL connection is closed",))?;
        }
        Ok(())
    }

    /// At the end of a turn: encrypts and sends what was written in it.
    pub(crate) fn flush(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::settle(slf, Leave::Now)
    }

    /// Encrypts what waits for the end of the turn.
    pub(super) fn settle(slf: &Bound<'_, Self>, leave: Leave) -> PyResult<()> {
        if slf.get().state.with(slf.py(), |state| std::mem::take(&mut state.is_deferred)) {
            return Self::encrypt_or_fail(slf, leave);
        }
        Ok(())
    }

    fn encrypt_or_fail(slf: &Bound<'_, Self>, leave: Leave) -> PyResult<()> {
        match Self::encrypt(slf, leave) {
            Err(error) if is_exception(slf.py(), &error) => Self::fatal(slf, &error, "Fatal error on SSL protocol"),
            outcome => outcome,
        }
    }

    /// `SSLProtocol._do_write`
    pub(super) fn encrypt(slf: &Bound<'_, Self>, leave: Leave) -> PyResult<()> {
        let py = slf.py();
        loop {
            let Some((first, more)) = slf.get().state.with(py, |state| state.take_pieces(py)) else { break };
            let first = first.into_bound(py);
            let data = if more.is_empty() {
                first
            } else {
                let pieces: Vec<_> =
                    std::iter::once(first).chain(more.into_iter().map(|piece| piece.into_bound(py))).collect();
                buffer::concatenate(py, &pieces)?
            };
            let size = data.as_bytes().len();
            let answer = slf.get().session.write(&data);
            // What the engine has not taken must be offered again as it was.
            let taken = if let Ok(Answer::Done(count)) = answer { count.min(size) } else { 0 };
            let rest = match taken {
                0 => Some(data),
                taken if taken < size => Some(PyBytes::new(py, &data.as_bytes()[taken..])),
                _ => None,
            };
            slf.get().state.with(py, |state| {
                state.backlog_size = state.backlog_size.saturating_sub(taken);
                if let Some(rest) = rest {
                    state.backlog.push_front(rest.unbind());
                }
            });
            if let Answer::Again | Answer::Done(0) = answer? {
                break;
            }
        }
        Self::send_outgoing(slf, leave)
    }

    /// `SSLProtocol._process_outgoing`
    pub(super) fn send_outgoing(slf: &Bound<'_, Self>, leave: Leave) -> PyResult<()> {
        let py = slf.py();
        if slf.get().state.with(py, |state| state.is_lower_full) {
            return Self::control_writing(slf);
        }
        let data = slf.get().session.take_outgoing(py)?;
        if data.as_bytes().is_empty() || Self::write_below(slf, data, leave)? {
            return Self::control_writing_of(slf, 0);
        }
        Self::control_writing(slf)
    }

    /// As [`Self::send_outgoing`] after a read, when there is mostly nothing to send.
    pub(super) fn send_answers(slf: &Bound<'_, Self>) -> PyResult<()> {
        match slf.get().session.unsent(slf.py())? {
            0 => Self::control_writing_of(slf, 0),
            _ => Self::send_outgoing(slf, Leave::WithTheTurn),
        }
    }

    /// Answers whether nothing else can have been encrypted meanwhile.
    fn write_below(slf: &Bound<'_, Self>, data: Bound<'_, PyBytes>, leave: Leave) -> PyResult<bool> {
        let py = slf.py();
        let Some(lower) = slf.get().lower(py) else { return Ok(true) };
        if let Ok(stream) = lower.cast_exact::<Stream>() {
            return Stream::write_bytes(stream, data, leave == Leave::Now).map(|()| true);
        }
        if let (Ok(tls), Leave::Now) = (lower.cast_exact::<Self>(), leave) {
            Self::write_plaintext(tls, std::iter::once(data))?;
            return Self::flush(tls).map(|()| false);
        }
        call_method1(&lower, intern!(py, "write"), data.as_any()).map(|_| false)
    }

    /// How many bytes wait here, encrypted or not.
    pub(super) fn unsent(&self, py: Python<'_>) -> PyResult<usize> {
        let plain = self.state.with(py, |state| state.waiting());
        Ok(plain + self.session.unsent(py)?)
    }

    pub(super) fn control_writing(slf: &Bound<'_, Self>) -> PyResult<()> {
        let encrypted = slf.get().session.unsent(slf.py())?;
        Self::control_writing_of(slf, encrypted)
    }

    /// `SSLProtocol._control_app_writing`, when so many encrypted bytes wait.
    fn control_writing_of(slf: &Bound<'_, Self>, encrypted: usize) -> PyResult<()> {
        let py = slf.py();
        let (pauses, resumes) = slf.get().state.with(py, |state| {
            let size = state.waiting() + encrypted;
            let pauses = state.write_flow.should_pause_at(size);
            (pauses, !pauses && state.write_flow.should_resume(size))
        });
        let method = match (pauses, resumes) {
            (true, _) => intern!(py, "pause_writing"),
            (_, true) => intern!(py, "resume_writing"),
            _ => return Ok(()),
        };
        let Some(protocol) = slf.get().protocol(py) else { return Ok(()) };
        match protocol.call_method0(method) {
            Ok(_) => Ok(()),
            Err(error) if is_exit(py, &error) => Err(error),
            Err(error) => {
                let own = Some(slf.clone().into_any());
                Self::report(slf, &error, &format!("protocol.{method}() failed"), own)
            }
        }
    }

    /// The lower transport has room again.
    pub(super) fn lower_has_room(slf: &Bound<'_, Self>) -> PyResult<()> {
        slf.get().state.with(slf.py(), |state| state.is_lower_full = false);
        Self::send_outgoing(slf, Leave::WithTheTurn)
    }
}
