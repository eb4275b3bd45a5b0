//! One attempt at each of the system calls of `sock_*`.
//!
//! Owns what a call was given, and how far it has come. An attempt either ends the work or says what the socket must be
//! ready for; it is made again then.

use super::methods::member;
use super::sendfile::Transfer;
use crate::errors;
use crate::event_loop::Loop;
use crate::event_loop::watch::Direction;
use crate::py::{address, buffer, names};
use crate::sys::socket::{self, Address};
use crate::sys::{connect, transfer};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMemoryView, PyTuple};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};

/// What is to be done.
#[derive(Debug)]
pub(super) enum Work {
    Receive {
        size: usize,
    },
    ReceiveInto {
        buffer: Py<PyAny>,
    },
    ReceiveFrom {
        size: usize,
    },
    /// Size 0: all of the buffer.
    ReceiveFromInto {
        buffer: Py<PyAny>,
        size: usize,
    },
    SendAll {
        data: Py<PyAny>,
        sent: usize,
    },
    SendTo {
        data: Py<PyAny>,
        address: Py<PyAny>,
        to: Address,
    },
    Accept,
    Connect(Box<Connecting>),
    SendFile(Box<Transfer>),
}

/// A connection that is being made.
#[derive(Debug)]
pub(super) struct Connecting {
    /// The address as it was given.
    pub(super) address: Py<PyAny>,
    pub(super) to: Address,
    /// The kernel is at it.
    pub(super) is_begun: bool,
}

/// What an attempt came to.
#[derive(Debug)]
pub(super) enum Attempt<'py> {
    /// None is Python's.
    Done(Option<Bound<'py, PyAny>>),
    Blocked(Direction),
    /// It could go on at once, but others must have their turn.
    Paused,
}

impl Work {
    #[inline]
    pub(super) fn attempt<'py>(
        &mut self,
        core: &Bound<'py, Loop>,
        sock: &Bound<'py, PyAny>,
        fd: RawFd,
    ) -> PyResult<Attempt<'py>> {
        let py = core.py();
        match self {
            Self::Receive { size } => {
                let received = receive_bytes(core, *size, |room| Ok((socket::receive_uninit(fd, room)?, ())));
                done_or_blocked(py, received?, Direction::Read, |(data, ())| Ok(data.into_any()))
            }
            Self::ReceiveInto { buffer } => {
                let buffer = buffer.bind(py);
                let received = buffer::fill(buffer, |room| match room {
                    [] => Ok(0),
                    room => socket::receive_uninit(fd, room),
                });
                let received =
                    received.map_err(|error| refusal(sock.call_method1(intern!(py, "recv_into"), (buffer,)), error));
                done_or_blocked(py, received?, Direction::Read, |count| {
                    core.get().metrics.note_received(count);
                    Ok(count.into_pyobject(py)?.into_any())
                })
            }
            Self::ReceiveFrom { size } => {
                let received = receive_bytes(core, *size, |room| transfer::receive_from(fd, room));
                done_or_blocked(py, received?, Direction::Read, |(data, from)| pair(data.into_any(), from.as_ref()))
            }
            Self::ReceiveFromInto { buffer, size } => receive_from_into(core, sock, fd, buffer.bind(py), *size),
            Self::SendAll { data, sent } => send_all(core, fd, data, sent),
            Self::SendTo { data, address, to } => {
                audit(intern!(py, "socket.sendto"), sock, address.bind(py))?;
                let sent = buffer::look(data.bind(py), |bytes| transfer::send_to(fd, bytes, to))?;
                done_or_blocked(py, sent, Direction::Write, |count| {
                    core.get().metrics.note_sent(count);
                    Ok(count.into_pyobject(py)?.into_any())
                })
            }
            Self::Accept => accept(sock, fd),
            Self::Connect(connecting) => connecting.attempt(sock, fd),
            Self::SendFile(transfer) => transfer.attempt(core, fd),
        }
    }

    /// When it is ended before it is done.
    pub(super) fn abandon(&self, py: Python<'_>) -> PyResult<()> {
        match self {
            Self::SendFile(transfer) => transfer.note_position(py),
            _ => Ok(()),
        }
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Self::Receive { .. } | Self::ReceiveFrom { .. } | Self::Accept | Self::SendFile(_) => Ok(()),
            Self::ReceiveInto { buffer } | Self::ReceiveFromInto { buffer, .. } => visit.call(buffer),
            Self::SendAll { data, .. } => visit.call(data),
            Self::SendTo { data, address, .. } => visit.call(data).and_then(|()| visit.call(address)),
            Self::Connect(connecting) => visit.call(&connecting.address),
        }
    }
}

/// What the kernel answered, as an attempt. Interrupted: tried again at once, as when the socket is ready.
#[inline]
fn done_or_blocked<'py, T>(
    py: Python<'py>,
    answer: io::Result<T>,
    direction: Direction,
    object: impl FnOnce(T) -> PyResult<Bound<'py, PyAny>>,
) -> PyResult<Attempt<'py>> {
    match answer {
        Ok(value) => Ok(Attempt::Done(Some(object(value)?))),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Attempt::Blocked(direction)),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Attempt::Paused),
        Err(error) => Err(errors::os_error(py, &error)),
    }
}

/// A bytes object of what `read` receives, by way of the loop's room for that.
#[inline]
fn receive_bytes<'py, T>(
    core: &Bound<'py, Loop>,
    size: usize,
    read: impl FnOnce(&mut [MaybeUninit<u8>]) -> io::Result<(usize, T)>,
) -> PyResult<io::Result<(Bound<'py, PyBytes>, T)>> {
    let py = core.py();
    // Out of the cell: the new object may be what starts a collection.
    let mut room = core.get().owned.with(py, |owned| std::mem::take(owned.room()));
    let received = room.receive(py, size, read);
    core.get().owned.with(py, |owned| *owned.room() = room);
    if let Ok(Ok((data, _))) = &received {
        core.get().metrics.note_received(data.as_bytes().len());
    }
    received
}

/// `(first, address)`; the address is None if the kernel gave none.
fn pair<'py>(first: Bound<'py, PyAny>, from: Option<&Address>) -> PyResult<Bound<'py, PyAny>> {
    let py = first.py();
    let address = match from {
        Some(from) => address::to_object(py, from)?,
        None => py.None().into_bound(py),
    };
    Ok(PyTuple::new(py, [first, address])?.into_any())
}

/// The words in which the socket's own method refuses its arguments.
#[cold]
fn refusal(outcome: PyResult<Bound<'_, PyAny>>, error: PyErr) -> PyErr {
    outcome.err().unwrap_or(error)
}

fn receive_from_into<'py>(
    core: &Bound<'py, Loop>,
    sock: &Bound<'py, PyAny>,
    fd: RawFd,
    buffer: &Bound<'py, PyAny>,
    size: usize,
) -> PyResult<Attempt<'py>> {
    let py = sock.py();
    let mut is_too_large = false;
    let received = buffer::fill(buffer, |room| {
        is_too_large = size > room.len();
        let size = if size == 0 || is_too_large { room.len() } else { size };
        if is_too_large { Ok((0, None)) } else { transfer::receive_from(fd, &mut room[..size]) }
    });
    let received =
        received.map_err(|error| refusal(sock.call_method1(intern!(py, "recvfrom_into"), (buffer, size)), error))?;
    if is_too_large {
        return Err(PyValueError::new_err("nbytes is greater than the length of the buffer"));
    }
    done_or_blocked(py, received, Direction::Read, |(count, from)| {
        core.get().metrics.note_received(count);
        pair(count.into_pyobject(py)?.into_any(), from.as_ref())
    })
}

#[inline]
fn send_all<'py>(core: &Bound<'py, Loop>, fd: RawFd, data: &mut Py<PyAny>, sent: &mut usize) -> PyResult<Attempt<'py>> {
    let py = core.py();
    let (answer, size) =
        buffer::look(data.bind(py), |bytes| (socket::send(fd, bytes.get(*sent..).unwrap_or(&[])), bytes.len()))?;
    match answer {
        Ok(count) => {
            core.get().metrics.note_sent(count);
            *sent += count;
            if *sent >= size {
                return Ok(Attempt::Done(None));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Attempt::Paused),
        Err(error) => return Err(errors::os_error(py, &error)),
    }
    if !data.bind(py).is_exact_instance_of::<PyBytes>() && !data.bind(py).is_exact_instance_of::<PyMemoryView>() {
        // A view keeps the buffer's size and place, as asyncio's does.
        *data = PyMemoryView::from(data.bind(py))?.into_any().unbind();
    }
    Ok(Attempt::Blocked(Direction::Write))
}

fn accept<'py>(sock: &Bound<'py, PyAny>, fd: RawFd) -> PyResult<Attempt<'py>> {
    let py = sock.py();
    let accepted = socket::accept(fd);
    done_or_blocked(py, accepted, Direction::Read, |(accepted, peer)| {
        let kind = member(sock, &names::SOCKET_TYPE)?;
        // The class takes the flag for what it says: the socket is non-blocking already.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let kind = kind | libc::SOCK_NONBLOCK;
        let family = member(sock, &names::SOCKET_FAMILY)?;
        let protocol = member(sock, &names::SOCKET_PROTOCOL)?;
        let connection = names::SOCKET.get(py)?.call1((family, kind, protocol, accepted.as_raw_fd()))?;
        // The object closes it from now on.
        let _ = accepted.into_raw_fd();
        if cfg!(not(any(target_os = "linux", target_os = "android"))) {
            connection.call_method1(intern!(py, "setblocking"), (false,))?;
        }
        pair(connection, Some(&peer))
    })
}

impl Connecting {
    fn attempt<'py>(&mut self, sock: &Bound<'py, PyAny>, fd: RawFd) -> PyResult<Attempt<'py>> {
        let py = sock.py();
        if self.is_begun {
            return match connect::take_error(fd) {
                Ok(None) => Ok(Attempt::Done(None)),
                Ok(Some(error)) | Err(error) => Err(self.failed(py, &error)),
            };
        }
        audit(intern!(py, "socket.connect"), sock, self.address.bind(py))?;
        match connect::begin(fd, &self.to) {
            Ok(true) => Ok(Attempt::Done(None)),
            // On this machine the connection is made by now, and a second call would tell. But programs count on a server
            // of theirs having accepted when its client is connected: the poll that tells one tells the other.
            Ok(false) => {
                self.is_begun = true;
                Ok(Attempt::Blocked(Direction::Write))
            }
            Err(error) => Err(errors::os_error(py, &error)),
        }
    }

    /// The words of `BaseSelectorEventLoop._sock_connect_cb`.
    #[cold]
    fn failed(&self, py: Python<'_>, error: &io::Error) -> PyErr {
        let address = match address::to_object(py, &self.to) {
            Ok(address) => address,
            Err(error) => return error,
        };
        PyOSError::new_err((error.raw_os_error(), format!("Connect call failed {}", errors::repr(&address))))
    }
}

/// Tells audit hooks what the methods of the socket would have told them.
fn audit(event: &Bound<'_, PyAny>, sock: &Bound<'_, PyAny>, address: &Bound<'_, PyAny>) -> PyResult<()> {
    names::AUDIT.get(sock.py())?.call1((event, sock, address)).map(drop)
}
