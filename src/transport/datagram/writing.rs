//! From `sendto()` to the socket, and the water marks.
//!
//! A datagram waits in the queue until the end of the turn, or of a part of a long one: the answers to a batch of
//! questions leave in one system call. What grows above the high-water mark is sent at once, and nothing waits where no
//! turn is running to end.
//! Addresses that are not plain (names of hosts) are given to the socket object, in their place in the order: as in
//! asyncio, names are looked up there and then.
//!
//! `sendmmsg(2)` tells how many datagrams left before an error, not which: what follows is sent alone, and its own
//! error is told to the protocol. An ICMP error that the kernel held for the socket is used up by that.

use super::Datagram;
use super::reading::would_block;
use super::state::{Destination, State};
use crate::errors;
use crate::event_loop::core::error_context;
use crate::event_loop::metrics::Metrics;
use crate::event_loop::run::is_exit;
use crate::event_loop::source::Source;
use crate::py::buffer::Chunk;
use crate::py::context::Entered;
use crate::py::method::{Arguments, Body, Method, define};
use crate::py::{address, context, names};
use crate::sys::datagram::{self, BATCH};
use crate::sys::socket;
use pyo3::exceptions::{PyOSError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView, PyString, PyType};
use std::ffi::CStr;
use std::io;

const WRITE_ERROR: &str = "Fatal write error on datagram transport";
/// From so many sends after the end, asyncio warns.
const WARN_FROM: u32 = 5;

/// `DatagramTransport.sendto`, as a raw method.
struct SendTo;

impl Method for SendTo {
    type Class = Datagram;
    const NAME: &'static CStr = c"sendto";
    const DOC: &'static CStr = c"sendto($self, data, addr=None)\n--\n\n\
        Sends a datagram (bytes-like) without waiting. Matches DatagramTransport.sendto.";
    const BODY: Body<Datagram> = send_to;
}

pub(super) fn define_methods(class: &Bound<'_, PyType>) -> PyResult<()> {
    define::<SendTo>(class)
}

/// Who has datagrams sent: that decides who hears of a protocol's exception, and in which context it is called.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    /// A method of the transport: as in asyncio, the exception is the caller's.
    User,
    /// The loop, in the context of the transport.
    Event,
    /// The loop, at the end of a turn, in no context.
    Flush,
}

/// What a round of sending came to.
enum Sent {
    /// Everything is sent, or nothing can be.
    Done,
    /// The kernel has no room; a writable event follows.
    Blocked,
    Failed(io::Error),
    /// The next one is for the socket object.
    Foreign(Py<PyAny>, Chunk, Option<Py<PyAny>>),
}

fn send_to<'py>(slf: &Bound<'py, Datagram>, arguments: Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = slf.py();
    let (data, addr) = arguments.one_or_two("sendto", [intern!(py, "data"), intern!(py, "addr")])?;
    let is_bytes = data.is_instance_of::<PyBytes>()
        || data.is_instance_of::<PyByteArray>()
        || data.is_instance_of::<PyMemoryView>();
    if !is_bytes {
        let kind = data.get_type().name().map_or_else(|_| "object".to_owned(), |name| name.to_string());
        return Err(PyTypeError::new_err(format!("data argument must be a bytes-like object, not '{kind}'")));
    }
    let addr = addr.filter(|addr| !addr.is_none());
    // Before Python 3.13 asyncio sends no empty datagrams.
    if (cfg!(Py_3_13) || data.len()? > 0) && Datagram::admits(slf, addr)? {
        let to = Datagram::destination(slf, addr);
        match Chunk::new(&data) {
            Ok(chunk) => Datagram::queue(slf, chunk, to)?,
            // A memoryview with holes.
            Err(error) => Datagram::fatal(slf, &error, WRITE_ERROR)?,
        }
    }
    Ok(py.None().into_bound(py))
}

impl State {
    /// Hands the first datagrams to the kernel: how many it took, of how many.
    fn transmit(&self, is_alone: bool) -> (io::Result<usize>, usize) {
        let most = if is_alone { 1 } else { BATCH };
        match self.queue.iter().take(most).take_while(|(_, to)| to.is_native()).count() {
            0 => (Ok(0), 0),
            1 => {
                let sent = self.queue.first().map_or(Ok(()), |(data, to)| match to {
                    Destination::Address(to) => datagram::send_to(self.fd, data.as_ref(), to),
                    Destination::Peer | Destination::Object(_) => socket::send(self.fd, data.as_ref()).map(drop),
                });
                (sent.map(|()| 1), 1)
            }
            offered => {
                let datagrams = self.queue.iter().take(offered).map(|(data, to)| match to {
                    Destination::Address(to) => (data.as_ref(), Some(to)),
                    Destination::Peer | Destination::Object(_) => (data.as_ref(), None),
                });
                (datagram::send_many(self.fd, datagrams), offered)
            }
        }
    }

    /// Sends what the kernel takes, as far as this needs no Python.
    fn send_native(&mut self, py: Python<'_>, metrics: &Metrics) -> Sent {
        self.is_unflushed = false;
        let mut is_alone = false;
        loop {
            let Some(sock) = &self.sock else { return Sent::Done };
            match self.queue.first() {
                None => return Sent::Done,
                Some(_) if self.is_blocked => return Sent::Blocked,
                Some((_, Destination::Object(_))) => {
                    let sock = sock.clone_ref(py);
                    if let Some((data, Destination::Object(to))) = self.queue.pop() {
                        return Sent::Foreign(sock, data, to);
                    }
                }
                Some(_) => {}
            }
            let (answer, offered) = self.transmit(is_alone);
            match answer {
                Ok(count) => {
                    // What dies here are bytes and numbers.
                    let sent = (0..count).filter_map(|_| self.queue.pop());
                    metrics.note_sent(sent.map(|(data, _)| data.as_ref().len()).sum());
                    is_alone = count < offered;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_full(&error) => self.is_blocked = true,
                Err(error) => {
                    drop(self.queue.pop());
                    return Sent::Failed(error);
                }
            }
        }
    }
}

/// Whether the kernel only has no room now: in the socket, or in the queue of a device.
fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ENOBUFS)
}

impl Datagram {
    /// Whether datagrams are taken now, for this address.
    #[inline]
    fn admits(slf: &Bound<'_, Self>, addr: Option<Borrowed<'_, '_, PyAny>>) -> PyResult<bool> {
        let py = slf.py();
        let (remote, is_lost) = slf.get().state.with(py, |state| {
            let remote = state.remote.as_ref().map(|remote| remote.clone_ref(py));
            (remote, state.lost > 0 && (state.remote.is_some() || state.sock.is_none()))
        });
        if let (Some(remote), Some(addr)) = (&remote, addr)
            && !addr.is(remote)
            && !addr.eq(remote)?
        {
            let text = remote.bind(py).str()?;
            return Err(PyValueError::new_err(format!("Invalid address: must be None or {text}")));
        }
        if is_lost {
            Self::send_after_loss(slf)?;
        }
        Ok(!is_lost)
    }

    /// Sending after the end is no error, but whoever goes on is warned.
    #[cold]
    fn send_after_loss(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let sends = slf.get().state.with(py, |state| {
            state.lost += 1;
            state.lost - 1
        });
        if sends >= WARN_FROM {
            let logger = names::logger(py, "asyncio.selector_events")?;
            logger.call_method1(intern!(py, "warning"), ("socket.send() raised exception.",))?;
        }
        Ok(())
    }

    #[inline]
    fn destination(slf: &Bound<'_, Self>, addr: Option<Borrowed<'_, '_, PyAny>>) -> Destination {
        let py = slf.py();
        let (found, family) = slf.get().state.with(py, |state| {
            if state.is_connected {
                return (Some(Destination::Peer), 0);
            }
            if let Some(remote) = &state.remote {
                let address = state.remote_address.clone().map(Destination::Address);
                return (Some(address.unwrap_or_else(|| Destination::Object(Some(remote.clone_ref(py))))), 0);
            }
            let last = state.last.as_ref().filter(|(_, object)| addr.is_some_and(|addr| addr.is(object)));
            (last.map(|(address, _)| Destination::Address(address.clone())), state.family)
        });
        found.unwrap_or_else(|| match addr {
            None => Destination::Object(None),
            Some(addr) => match address::from_object(family, &addr) {
                Some(address) => Destination::Address(address),
                None => Destination::Object(Some(addr.to_owned().unbind())),
            },
        })
    }

    #[inline]
    fn queue(slf: &Bound<'_, Self>, chunk: Chunk, to: Destination) -> PyResult<()> {
        let py = slf.py();
        let core = slf.get().core.get();
        let can_wait = to.is_native() && core.is_running_here();
        let (is_new, send_now) = slf.get().state.with(py, |state| {
            state.queue.push(chunk, to);
            let send_now = !state.is_blocked && (!can_wait || state.flow.is_above_high(state.queue.size()));
            let can_be_sent = !state.is_blocked && !send_now;
            state.is_unflushed |= can_be_sent;
            let is_new = can_be_sent && !std::mem::replace(&mut state.is_listed, true);
            (is_new, send_now)
        });
        if is_new {
            let source = Source::Datagram(slf.clone().unbind());
            core.owned.with(py, |owned| owned.unflushed.push(source));
        }
        if send_now {
            Self::send(slf, Caller::User)?;
            Self::keep_write_context(slf)?;
        }
        Self::check_high(slf)
    }

    /// After a send that the kernel had no room for: `resume_writing` will be called in this context.
    fn keep_write_context(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        if slf.get().state.with(py, |state| state.is_blocked && state.rare.write_context.is_none()) {
            let context = context::copy_current(py)?;
            slf.get().state.with(py, |state| state.rare.write_context = Some(context));
        }
        Ok(())
    }

    /// At the end of a turn: sends what was given in it.
    pub(crate) fn flush(slf: &Bound<'_, Self>) -> PyResult<()> {
        let is_unflushed = slf.get().state.with(slf.py(), |state| {
            state.is_listed = false;
            state.is_unflushed
        });
        if is_unflushed { Self::send(slf, Caller::Flush) } else { Ok(()) }
    }

    /// Sends what the protocol answered to a datagram that came alone; false if that was nothing.
    #[inline]
    pub(super) fn answer(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let answers = slf.get().state.with(slf.py(), |state| state.is_unflushed);
        if answers { Self::send(slf, Caller::Event).map(|()| true) } else { Ok(false) }
    }

    pub(super) fn on_writable(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::send(slf, Caller::Event)
    }

    /// Sends as much as the kernel takes, tells the errors, then does what waited for it.
    pub(super) fn send(slf: &Bound<'_, Self>, caller: Caller) -> PyResult<()> {
        let py = slf.py();
        let metrics = &slf.get().core.get().metrics;
        loop {
            match slf.get().state.with(py, |state| state.send_native(py, metrics)) {
                Sent::Done => break,
                Sent::Blocked => return Self::update_interest(slf).and_then(|()| Self::check_low(slf, caller)),
                Sent::Failed(error) => Self::hear_error(slf, caller, &errors::os_error(py, &error))?,
                Sent::Foreign(sock, data, to) => Self::send_foreign(slf, caller, &sock, data, to)?,
            }
        }
        Self::after_send(slf, caller)
    }

    /// By the socket object, as asyncio does it.
    #[cold]
    fn send_foreign(
        slf: &Bound<'_, Self>,
        caller: Caller,
        sock: &Py<PyAny>,
        data: Chunk,
        to: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        let py = slf.py();
        let bytes = match &data {
            Chunk::Shared(bytes) => bytes.bind(py).clone(),
            Chunk::Copied(bytes) => PyBytes::new(py, bytes),
        };
        let sent = sock.bind(py).call_method1(intern!(py, "sendto"), (bytes, to.as_ref()));
        match sent {
            Ok(_) => {
                slf.get().core.get().metrics.note_sent(data.as_ref().len());
                Ok(())
            }
            Err(error) if is_exit(py, &error) => Err(error),
            Err(error) if would_block(py, &error) => {
                slf.get().state.with(py, |state| {
                    state.queue.push_front(data, Destination::Object(to));
                    state.is_blocked = true;
                });
                Ok(())
            }
            Err(error) if error.is_instance_of::<PyOSError>(py) => Self::hear_error(slf, caller, &error),
            Err(error) => Self::fatal(slf, &error, WRITE_ERROR),
        }
    }

    /// `protocol.error_received(error)`
    pub(super) fn tell_error(slf: &Bound<'_, Self>, error: &PyErr) -> PyResult<()> {
        let py = slf.py();
        let Some(protocol) = slf.get().protocol(py) else { return Ok(()) };
        let error = errors::exception(py, error)?;
        protocol.bind(py).call_method1(intern!(py, "error_received"), (error,)).map(drop)
    }

    /// Tells the protocol of an error; its own exception is the caller's, or is reported.
    #[cold]
    fn hear_error(slf: &Bound<'_, Self>, caller: Caller, error: &PyErr) -> PyResult<()> {
        let told = Self::in_context(slf, caller, || Self::tell_error(slf, error));
        match told {
            Err(error) if caller != Caller::User => Self::report_failure(slf, "error_received", &error),
            told => told,
        }
    }

    /// Calls in the context of the transport, where none is entered.
    fn in_context(slf: &Bound<'_, Self>, caller: Caller, call: impl FnOnce() -> PyResult<()>) -> PyResult<()> {
        if caller != Caller::Flush {
            return call();
        }
        let py = slf.py();
        let context = slf.get().state.with(py, |state| state.context.clone_ref(py));
        let mut entered = Entered::default();
        entered.switch(py, &context)?;
        let outcome = call();
        let left = entered.leave(py);
        outcome.and(left)
    }

    fn after_send(slf: &Bound<'_, Self>, caller: Caller) -> PyResult<()> {
        let py = slf.py();
        Self::check_low(slf, caller)?;
        // The protocol may have sent more.
        let (is_drained, closes) =
            slf.get().state.with(py, |state| (state.queue.is_empty() && state.lost == 0, state.is_closing));
        if !is_drained {
            return Ok(());
        }
        Self::update_interest(slf)?;
        if closes { Self::lose(slf, None) } else { Ok(()) }
    }

    /// Asks the protocol to pause writing when the queue has grown above the high-water mark.
    pub(super) fn check_high(slf: &Bound<'_, Self>) -> PyResult<()> {
        let pause = slf.get().state.with(slf.py(), |state| state.flow.should_pause(state.queue.size()));
        if pause { Self::tell_flow(slf, intern!(slf.py(), "pause_writing")) } else { Ok(()) }
    }

    /// Asks the protocol to resume writing when the queue has shrunk to the low-water mark.
    fn check_low(slf: &Bound<'_, Self>, caller: Caller) -> PyResult<()> {
        let resume = slf.get().state.with(slf.py(), |state| state.flow.should_resume(state.queue.size()));
        if resume {
            Self::in_context(slf, caller, || Self::tell_flow(slf, intern!(slf.py(), "resume_writing")))
        } else {
            Ok(())
        }
    }

    #[cold]
    fn tell_flow(slf: &Bound<'_, Self>, method: &Bound<'_, PyString>) -> PyResult<()> {
        let py = slf.py();
        let Some(protocol) = slf.get().protocol(py) else { return Ok(()) };
        match protocol.bind(py).call_method0(method) {
            Ok(_) => Ok(()),
            Err(error) if is_exit(py, &error) => Err(error),
            Err(error) => {
                let context = error_context(py, &format!("protocol.{method}() failed"), &error)?;
                Self::report(slf, &context)
            }
        }
    }
}
