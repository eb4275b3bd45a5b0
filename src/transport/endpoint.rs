//! A socket as its transport has it: the descriptor, its one owner, and the two addresses.
//!
//! Owns the descriptor, or the Python socket object that does (invariant 4 of the loop). An accepted connection has no
//! Python socket until somebody asks for it; from then on that object owns the descriptor. Addresses answer after the
//! socket is closed, as asyncio's do.

use crate::py::names;
use crate::sys::socket::{self, Address};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};

/// Who closes the descriptor.
#[derive(Debug)]
enum Owner {
    Rust(OwnedFd),
    Python(Py<PyAny>),
    Closed,
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct Endpoint {
    owner: Owner,
    fd: RawFd,
    family: i32,
    local: Option<Address>,
    peer: Option<Address>,
    /// The TransportSocket that was given out.
    shown: Option<Py<PyAny>>,
}

impl Endpoint {
    /// A connection that was just accepted; `local` is None if only the kernel knows it (a wildcard listener).
    pub(super) fn accepted(fd: OwnedFd, family: i32, local: Option<Address>, peer: Address) -> Self {
        let number = fd.as_raw_fd();
        Self { owner: Owner::Rust(fd), fd: number, family, local, peer: Some(peer), shown: None }
    }

    /// A connection that we made.
    pub(super) fn connected(fd: OwnedFd, family: i32, peer: Address) -> Self {
        let number = fd.as_raw_fd();
        // The kernel takes the wildcard for another name of this machine.
        let peer = if peer.is_wildcard() { socket::peer_address(number).ok() } else { Some(peer) };
        Self { owner: Owner::Rust(fd), fd: number, family, local: None, peer, shown: None }
    }

    /// A socket object that somebody connected or accepted.
    pub(super) fn from_socket(sock: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = sock.py();
        let fd: RawFd = sock.call_method0(intern!(py, "fileno"))?.extract()?;
        Ok(Self {
            owner: Owner::Python(sock.clone().unbind()),
            fd,
            family: sock.getattr(intern!(py, "family"))?.extract()?,
            // Errors: as in asyncio, there is no such address then.
            local: socket::local_address(fd).ok(),
            peer: socket::peer_address(fd).ok(),
            shown: None,
        })
    }

    /// Turns Nagle's algorithm off, as asyncio does for every TCP connection.
    pub(super) fn set_no_delay(&self) {
        if self.is_tcp() {
            // An error: not TCP after all, and then there is no such option to want.
            drop(socket::set_no_delay(self.fd));
        }
    }

    /// The descriptor; None once it is closed.
    #[inline]
    pub(super) fn fd(&self) -> Option<RawFd> {
        match self.owner {
            Owner::Closed => None,
            Owner::Rust(_) | Owner::Python(_) => Some(self.fd),
        }
    }

    /// The number that the descriptor has, or had.
    pub(super) fn number(&self) -> RawFd {
        self.fd
    }

    /// TCP sockets are registered for both directions at once: the kernel wakes nobody for nothing. Unix sockets report
    /// that they are writable after each send.
    pub(super) fn is_tcp(&self) -> bool {
        matches!(self.family, libc::AF_INET | libc::AF_INET6)
    }

    /// Whether closing the descriptor is enough for the kernel to forget its registration: nobody can have made a
    /// second descriptor of it.
    pub(super) fn is_private(&self) -> bool {
        matches!(self.owner, Owner::Rust(_))
    }

    /// Makes the addresses answer after closing; call it before.
    pub(super) fn note_addresses(&mut self) {
        if let (None, Some(fd)) = (&self.local, self.fd()) {
            self.local = socket::local_address(fd).ok();
        }
    }

    /// What closes the socket when it is dropped or closed, to be done outside the cell.
    pub(super) fn take(&mut self) -> Closing {
        match std::mem::replace(&mut self.owner, Owner::Closed) {
            Owner::Rust(fd) => Closing { fd: Some(fd), object: None },
            Owner::Python(object) => Closing { fd: None, object: Some(object) },
            Owner::Closed => Closing { fd: None, object: None },
        }
    }

    pub(super) fn local(&mut self) -> Option<Address> {
        self.note_addresses();
        self.local.clone()
    }

    pub(super) fn peer(&self) -> Option<Address> {
        self.peer.clone()
    }

    pub(super) fn shown(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.shown.as_ref().map(|shown| shown.clone_ref(py))
    }

    pub(super) fn set_shown(&mut self, shown: Py<PyAny>) {
        self.shown = Some(shown);
    }

    /// The Python socket that owns the descriptor, or what one can be made of.
    pub(super) fn python_socket(&mut self, py: Python<'_>) -> PythonSocket {
        match std::mem::replace(&mut self.owner, Owner::Closed) {
            Owner::Python(object) => {
                let answer = PythonSocket::There(object.clone_ref(py));
                self.owner = Owner::Python(object);
                answer
            }
            Owner::Rust(fd) => PythonSocket::ToMake(fd),
            Owner::Closed => PythonSocket::Closed,
        }
    }

    pub(super) fn set_python_socket(&mut self, object: Py<PyAny>) {
        self.owner = Owner::Python(object);
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Owner::Python(object) = &self.owner {
            visit.call(object)?;
        }
        visit.call(&self.shown)
    }
}

/// What [`Endpoint::python_socket`] found.
pub(super) enum PythonSocket {
    There(Py<PyAny>),
    /// The descriptor is the caller's now: make an object of it, and give it back to the endpoint.
    ToMake(OwnedFd),
    Closed,
}

/// A `socket.socket` that owns `fd`.
pub(super) fn make_socket(py: Python<'_>, fd: OwnedFd) -> PyResult<Bound<'_, PyAny>> {
    let keywords = pyo3::types::PyDict::new(py);
    let number = fd.into_raw_fd();
    keywords.set_item(intern!(py, "fileno"), number)?;
    let sock = names::SOCKET.get(py)?.call((), Some(&keywords))?;
    sock.call_method1(intern!(py, "setblocking"), (false,))?;
    Ok(sock)
}

/// A closed `socket.socket`, for those who ask for one after the end.
pub(super) fn make_closed_socket(py: Python<'_>, family: i32) -> PyResult<Bound<'_, PyAny>> {
    let sock = names::SOCKET.get(py)?.call1((family,))?;
    sock.call_method0(intern!(py, "close"))?;
    Ok(sock)
}

impl Endpoint {
    pub(super) fn family(&self) -> i32 {
        self.family
    }
}

/// A socket that is about to be closed.
#[derive(Debug)]
pub(super) struct Closing {
    fd: Option<OwnedFd>,
    object: Option<Py<PyAny>>,
}

impl Closing {
    pub(super) fn close(self, py: Python<'_>) -> PyResult<()> {
        drop(self.fd);
        self.object.map_or(Ok(()), |object| object.call_method0(py, intern!(py, "close")).map(drop))
    }
}
