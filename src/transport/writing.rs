//! From `write()` to the socket, and the water marks.
//!
//! A small write waits in the outbox until the end of the turn: header and body of a response, or the answers of
//! several tasks, leave in one system call. A long turn sends it earlier (`event_loop/pace.rs`). Bulk does not wait:
//! what grows above the high-water mark is sent at once. Where no turn is running to end (the loop does not run, or
//! another thread writes), nothing waits.

use super::state::State;
use super::stream::Stream;
use crate::errors;
use crate::event_loop::core::error_context;
use crate::event_loop::run::is_exit;
use crate::event_loop::source::Source;
use crate::py::buffer::{self, Chunk};
use crate::py::method::{Arguments, Body, Method, define};
use crate::py::{context, names};
use crate::reactor::poller::READ;
use crate::sys::socket;
use mio::Interest;
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView, PyString, PyType};
use std::ffi::CStr;
use std::io::{self, IoSlice};

/// `writelines()` of at most so many bytes is copied into one piece: cheaper than a piece each for the kernel.
const JOIN: usize = 4096;
/// From so many writes after the connection was lost, asyncio warns.
const WARN_FROM: u32 = 5;

/// `StreamTransport.write`, as a raw method.
struct Write;

impl Method for Write {
    type Class = Stream;
    const NAME: &'static CStr = c"write";
    const DOC: &'static CStr =
        c"write($self, data)\n--\n\nSends data (bytes-like) without waiting. Matches WriteTransport.write.";
    const BODY: Body<Stream> = write;
}

/// `StreamTransport.writelines`, as a raw method.
struct WriteLines;

impl Method for WriteLines {
    type Class = Stream;
    const NAME: &'static CStr = c"writelines";
    const DOC: &'static CStr = c"writelines($self, list_of_data)\n--\n\n\
        Sends the parts as if they were one. Matches WriteTransport.writelines.";
    const BODY: Body<Stream> = write_lines;
}

pub(super) fn define_methods(class: &Bound<'_, PyType>) -> PyResult<()> {
    define::<Write>(class)?;
    define::<WriteLines>(class)
}

fn write_lines<'py>(slf: &Bound<'py, Stream>, arguments: Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let list = arguments.only_argument("writelines", intern!(slf.py(), "list_of_data"))?;
    Stream::write_lines(slf, &list)?;
    Ok(slf.py().None().into_bound(slf.py()))
}

fn write<'py>(slf: &Bound<'py, Stream>, arguments: Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = slf.py();
    let data = arguments.only_argument("write", intern!(py, "data"))?;
    let is_bytes = data.is_instance_of::<PyBytes>()
        || data.is_instance_of::<PyByteArray>()
        || data.is_instance_of::<PyMemoryView>();
    if !is_bytes {
        return Err(not_bytes(&data));
    }
    if Stream::admits(slf, "Cannot call write() after write_eof()", "unable to write; sendfile is in progress")? {
        Stream::queue(slf, std::iter::once(Chunk::new(&data)?))?;
    } else if data.len()? > 0 {
        Stream::write_after_loss(slf)?;
    }
    Ok(py.None().into_bound(py))
}

#[cold]
fn not_bytes(data: &Bound<'_, PyAny>) -> PyErr {
    let wanted = if cfg!(Py_3_14) { "bytes, bytearray, or memoryview object" } else { "bytes-like object" };
    let kind = data.get_type().name().map_or_else(|_| "object".to_owned(), |name| name.to_string());
    PyTypeError::new_err(format!("data argument must be a {wanted}, not '{kind}'"))
}

/// One part of `writelines()`; asyncio makes a memoryview of each, and before Python 3.12 joins them.
fn part(place: usize, data: &Bound<'_, PyAny>) -> PyResult<Chunk> {
    Chunk::new(data).map_err(|error| {
        if !error.is_instance_of::<PyTypeError>(data.py()) {
            return error;
        }
        let kind = data.get_type().name().map_or_else(|_| "object".to_owned(), |name| name.to_string());
        PyTypeError::new_err(if cfg!(Py_3_12) {
            format!("memoryview: a bytes-like object is required, not '{kind}'")
        } else {
            format!("sequence item {place}: expected a bytes-like object, {kind} found")
        })
    })
}

impl State {
    /// Whether [`Stream::after_send`] has nothing to do when everything is sent: how it mostly is.
    #[inline]
    fn is_at_rest(&self) -> bool {
        let is_ending = self.is_read_ended || self.is_write_ended || self.is_closing;
        let is_waited_for = self.flow.is_paused() || self.rare.empty_waiter.is_some();
        let is_registered = self.is_write_registered && !self.endpoint.is_tcp();
        !is_ending && !is_waited_for && !is_registered
    }
}

/// What a round of sending came to.
enum Sent {
    /// Everything is sent, and somebody waits for that.
    Done,
    /// The kernel has no room; a writable event follows.
    Blocked,
    Failed(io::Error),
}

impl Stream {
    /// Whether bytes are taken now; false once the connection is lost.
    #[inline]
    fn admits(slf: &Bound<'_, Self>, ended: &'static str, busy: &'static str) -> PyResult<bool> {
        slf.get().state.with(slf.py(), |state| {
            if state.is_write_ended {
                return Err(PyRuntimeError::new_err(ended));
            }
            if state.rare.empty_waiter.is_some() {
                return Err(PyRuntimeError::new_err(busy));
            }
            Ok(state.lost == 0)
        })
    }

    /// Writing after the end is no error, but whoever goes on is warned.
    #[cold]
    fn write_after_loss(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let writes = slf.get().state.with(py, |state| {
            state.lost += 1;
            state.lost - 1
        });
        if writes >= WARN_FROM {
            let logger = names::logger(py, "asyncio.selector_events")?;
            logger.call_method1(intern!(py, "warning"), ("socket.send() raised exception.",))?;
        }
        Ok(())
    }

    #[inline]
    fn queue(slf: &Bound<'_, Self>, chunks: impl Iterator<Item = Chunk>) -> PyResult<()> {
        let py = slf.py();
        let core = slf.get().core.get();
        let can_wait = core.is_running_here();
        let (is_new, send_now, check) = slf.get().state.with(py, |state| {
            chunks.for_each(|chunk| state.outbox.push(chunk));
            let is_above = state.flow.is_above_high(state.outbox.size());
            let send_now = !state.is_blocked && (is_above || !can_wait);
            let is_new = !state.is_blocked && !send_now && !state.is_unflushed && !state.outbox.is_empty();
            state.is_unflushed |= is_new;
            (is_new, send_now, is_above)
        });
        if is_new {
            let source = Source::Stream(slf.clone().unbind());
            core.owned.with(py, |owned| owned.unflushed.push(source));
        }
        if send_now {
            Self::send(slf)?;
            Self::keep_write_context(slf)?;
        }
        if check { Self::check_high(slf) } else { Ok(()) }
    }

    /// Sends what a layer above has made: at the end of the turn like what is written, or, where the turn has ended, now.
    pub(super) fn write_bytes(slf: &Bound<'_, Self>, data: Bound<'_, PyBytes>, is_turn_over: bool) -> PyResult<()> {
        let py = slf.py();
        if !Self::admits(slf, "Cannot call write() after write_eof()", "unable to write; sendfile is in progress")? {
            return Self::write_after_loss(slf);
        }
        let chunk = Chunk::Shared(data.unbind());
        if !is_turn_over {
            return Self::queue(slf, std::iter::once(chunk));
        }
        let is_blocked = slf.get().state.with(py, |state| {
            state.outbox.push(chunk);
            state.is_blocked
        });
        if !is_blocked {
            Self::send(slf)?;
        }
        Self::check_high(slf)
    }

    fn write_lines(slf: &Bound<'_, Self>, list: &Bound<'_, PyAny>) -> PyResult<()> {
        let (ended, busy) = if cfg!(Py_3_12) {
            ("Cannot call writelines() after write_eof()", "unable to writelines; sendfile is in progress")
        } else {
            ("Cannot call write() after write_eof()", "unable to write; sendfile is in progress")
        };
        let admits = Self::admits(slf, ended, busy)?;
        if admits && let Some(joined) = buffer::join(list, JOIN) {
            return Self::queue(slf, std::iter::once(Chunk::Copied(joined)));
        }
        let parts = match list.try_iter() {
            Ok(parts) => parts.enumerate(),
            // From Python 3.12 on, asyncio looks first whether there is anything in it.
            Err(_) if cfg!(Py_3_12) && !list.is_truthy()? => return Ok(()),
            Err(error) if cfg!(Py_3_12) => return Err(error),
            Err(_) => return Err(PyTypeError::new_err("can only join an iterable")),
        };
        let chunks = parts.map(|(place, data)| part(place, &data?)).collect::<PyResult<Vec<_>>>()?;
        if admits {
            return Self::queue(slf, chunks.into_iter());
        }
        if chunks.iter().any(|chunk| !chunk.as_ref().is_empty()) { Self::write_after_loss(slf) } else { Ok(()) }
    }

    /// After a write that the kernel had no room for: `resume_writing` will be called in this context.
    fn keep_write_context(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let wants =
            |state: &mut State| state.is_blocked && !state.is_context_fixed && state.rare.write_context.is_none();
        if slf.get().state.with(py, wants) {
            let context = context::copy_current(py)?;
            slf.get().state.with(py, |state| state.rare.write_context = Some(context));
        }
        Ok(())
    }

    /// At the end of a turn: sends what was written in it.
    pub(crate) fn flush(slf: &Bound<'_, Self>) -> PyResult<()> {
        if slf.get().state.with(slf.py(), |state| std::mem::take(&mut state.is_unflushed)) {
            return Self::send(slf);
        }
        Ok(())
    }

    /// Sends as much as the kernel takes, then does what waited for it.
    pub(super) fn send(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let sent = slf.get().state.with(py, |state| {
            state.is_unflushed = false;
            let fd = state.endpoint.fd().filter(|_| state.lost == 0)?;
            while !state.outbox.is_empty() && !state.is_blocked {
                let size = state.outbox.size();
                let answer = if let Some(data) = state.outbox.single() {
                    socket::send(fd, data).map(|count| (count, size))
                } else {
                    let mut parts = [IoSlice::new(&[]); socket::MAX_PARTS];
                    let count = state.outbox.parts(&mut parts);
                    let parts = &parts[..count];
                    let offered = parts.iter().map(|part| part.len()).sum();
                    socket::send_vectored(fd, parts).map(|count| (count, offered))
                };
                match answer {
                    Ok((count, offered)) => {
                        state.outbox.advance(count);
                        slf.get().core.get().metrics.note_sent(count);
                        // A short write means a full buffer: the kernel tells when there is room again.
                        state.is_blocked = count < offered;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => state.is_blocked = true,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Some(Sent::Failed(error)),
                }
            }
            if state.is_blocked { Some(Sent::Blocked) } else { (!state.is_at_rest()).then_some(Sent::Done) }
        });
        // Nobody waits for it. Or the connection was lost: nobody may take an outbox that was dropped for progress.
        let Some(sent) = sent else { return Ok(()) };
        match sent {
            Sent::Failed(error) => {
                return Self::fatal(slf, &errors::os_error(py, &error), "Fatal write error on socket transport");
            }
            Sent::Blocked => Self::want_writable(slf, true)?,
            Sent::Done => {}
        }
        Self::after_send(slf)
    }

    /// `_SelectorSocketTransport._write_ready`, after the system call.
    fn after_send(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        Self::check_low(slf)?;
        // The protocol may have written more.
        let (is_drained, is_read_ended, ends, closes, waiter) = slf.get().state.with(py, |state| {
            let is_drained = state.outbox.is_empty() && state.lost == 0;
            let waiter =
                if is_drained { state.rare.empty_waiter.as_ref().map(|waiter| waiter.clone_ref(py)) } else { None };
            (is_drained, state.is_read_ended, state.is_write_ended, state.is_closing, waiter)
        });
        if !is_drained {
            return Ok(());
        }
        // Closing the socket ends its registration, too.
        match (closes, is_read_ended) {
            (true, _) => {}
            (false, true) => Self::unregister_if_idle(slf)?,
            (false, false) => Self::want_writable(slf, false)?,
        }
        if let Some(waiter) = waiter {
            names::SET_RESULT_UNLESS_CANCELLED.get(py)?.call1((waiter, py.None()))?;
        }
        if closes {
            return Self::lose(slf, None);
        }
        if ends && let Err(error) = Self::shut_down(slf) {
            return Self::fatal(slf, &error, "Fatal write error on socket transport");
        }
        Ok(())
    }

    /// Unix sockets are registered for writability only while they wait for it.
    fn want_writable(slf: &Bound<'_, Self>, wanted: bool) -> PyResult<()> {
        let py = slf.py();
        if wanted && slf.get().state.with(py, |state| state.token.is_none() && state.is_read_ended) {
            return Self::register(slf);
        }
        let place = slf.get().state.with(py, |state| {
            let (fd, token) = (state.endpoint.fd()?, state.token?);
            let changes = !state.endpoint.is_tcp() && state.is_write_registered != wanted;
            changes.then(|| {
                state.is_write_registered = wanted;
                (fd, token)
            })
        });
        let Some((fd, token)) = place else { return Ok(()) };
        let Some(shared) = slf.get().core.get().shared_or_closed(py) else { return Ok(()) };
        let interest = if wanted { READ | Interest::WRITABLE } else { READ };
        match shared.poller.reregister(fd, token, interest) {
            Ok(()) => Ok(()),
            Err(error) => Self::fatal(slf, &errors::os_error(py, &error), "Fatal write error on socket transport"),
        }
    }

    /// Asks the protocol to pause writing when the outbox has grown above the high-water mark.
    pub(super) fn check_high(slf: &Bound<'_, Self>) -> PyResult<()> {
        let pause = slf.get().state.with(slf.py(), |state| state.flow.should_pause(state.outbox.size()));
        if pause { Self::tell_flow(slf, intern!(slf.py(), "pause_writing")) } else { Ok(()) }
    }

    /// Asks the protocol to resume writing when the outbox has shrunk to the low-water mark.
    fn check_low(slf: &Bound<'_, Self>) -> PyResult<()> {
        let resume = slf.get().state.with(slf.py(), |state| state.flow.should_resume(state.outbox.size()));
        if resume { Self::tell_flow(slf, intern!(slf.py(), "resume_writing")) } else { Ok(()) }
    }

    fn tell_flow(slf: &Bound<'_, Self>, method: &Bound<'_, PyString>) -> PyResult<()> {
        let py = slf.py();
        let Some(protocol) = slf.get().protocol(py) else {
            return Ok(());
        };
        match protocol.bind(py).call_method0(method) {
            Ok(_) => Ok(()),
            Err(error) if is_exit(py, &error) => Err(error),
            Err(error) => {
                let context = error_context(py, &format!("protocol.{method}() failed"), &error)?;
                Self::report(slf, &context)
            }
        }
    }

    /// `_SelectorSocketTransport.write_eof`
    pub(super) fn end_writing(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let ended = slf.get().state.with(py, |state| {
            let is_late = state.is_closing || state.is_write_ended;
            state.is_write_ended |= !is_late;
            !is_late
        });
        if !ended {
            return Ok(());
        }
        // Drained already: the direction ends now, and its error is the caller's.
        if slf.get().state.with(py, |state| state.outbox.is_empty()) { Self::shut_down(slf) } else { Self::send(slf) }
    }

    fn shut_down(slf: &Bound<'_, Self>) -> PyResult<()> {
        let Some(fd) = slf.get().state.with(slf.py(), |state| state.endpoint.fd()) else {
            return Ok(());
        };
        socket::shutdown_write(fd).map_err(|error| errors::os_error(slf.py(), &error))
    }

    pub(super) fn make_empty_waiter<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        if slf.get().state.with(py, |state| state.rare.empty_waiter.is_some()) {
            return Err(PyRuntimeError::new_err("Empty waiter is already set"));
        }
        let waiter = slf.get().core.bind(py).call_method0(intern!(py, "create_future"))?;
        let kept = waiter.clone().unbind();
        let is_empty = slf.get().state.with(py, |state| {
            state.rare.empty_waiter = Some(kept);
            state.outbox.is_empty()
        });
        if is_empty {
            waiter.call_method1(intern!(py, "set_result"), (py.None(),))?;
        } else {
            Self::send(slf)?;
        }
        Ok(waiter)
    }

    /// A future that is done when the kernel has room again: somebody sends past the outbox, which is empty.
    pub(crate) fn wait_writable<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let waiter = slf.get().core.bind(py).call_method0(intern!(py, "create_future"))?;
        let kept = waiter.clone().unbind();
        let old = slf.get().state.with(py, |state| {
            state.is_blocked = true;
            state.rare.empty_waiter.replace(kept)
        });
        drop(old);
        Self::want_writable(slf, true)?;
        Ok(waiter)
    }

    pub(super) fn protocol(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.state.with(py, |state| state.protocol.as_ref().map(|protocol| protocol.clone_ref(py)))
    }
}
