//! Client connections by address: a socket on its way, and the transport that it becomes.
//!
//! [`Connecting`] owns the descriptor until a transport takes it; one that is dropped half-way closes it, once
//! (invariant 4 of the loop). No Python socket is made. Waiting is the caller's: it watches `fileno()` for writing and
//! calls `settle()`. Errors have the texts of `SelectorEventLoop.sock_connect`.

use super::endpoint::Endpoint;
use super::stream::{Beginning, Stream};
use crate::errors;
use crate::event_loop::Loop;
use crate::py::call::call_keywords;
use crate::py::cell::OwnerCell;
use crate::py::method::{self, Arguments, Body, Method};
use crate::py::{context, names};
use crate::resolver;
use crate::sys::connect;
use crate::sys::socket::Address;
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple, PyType};
use std::ffi::CStr;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// A socket that connects, or has.
#[pyclass(frozen, module = "mioloop._core")]
#[derive(Debug)]
pub(crate) struct Connecting {
    /// None once a transport has it, or it was closed.
    fd: OwnerCell<Option<OwnedFd>>,
    address: Address,
    /// The host as it was given.
    host: Py<PyString>,
    is_connected: AtomicBool,
}

/// `loop._connect`
struct Connect;

impl Method for Connect {
    type Class = Loop;
    const NAME: &'static CStr = c"_connect";
    const DOC: &'static CStr =
        c"_connect($self, *query)\n--\n\nBegins to connect to host, port, family; None if that is no plain address.";
    const BODY: Body<Loop> = begin;
}

/// Puts the method on the loop's class.
pub(crate) fn define_methods(class: &Bound<'_, PyType>) -> PyResult<()> {
    method::define::<Connect>(class)
}

fn begin<'py>(slf: &Bound<'py, Loop>, arguments: Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = slf.py();
    let [host, port, family] = arguments.positional() else { return Ok(py.None().into_bound(py)) };
    let Some(address) = address_of(host, port, family) else { return Ok(py.None().into_bound(py)) };
    slf.get().check_open()?;
    let fd = connect::open(family_of(&address)).map_err(|error| errors::os_error(py, &error))?;
    let number = fd.as_raw_fd();
    let connecting = Connecting {
        fd: OwnerCell::new(Some(fd)),
        address,
        host: text_of(host)?.unbind(),
        is_connected: AtomicBool::new(false),
    };
    let connecting = Bound::new(py, connecting)?;
    let this = connecting.get();
    let event = intern!(py, "socket.connect").as_any().as_borrowed();
    let place = this.place(py)?;
    let values = [event, connecting.as_any().as_borrowed(), place.as_any().as_borrowed()];
    call_keywords(py, names::AUDIT.get(py)?, &values, None)?;
    let mut is_connected = connect::begin(number, &this.address).map_err(|error| errors::os_error(py, &error))?;
    if !is_connected && is_local(&this.address) {
        is_connected = connect::is_done(number, &this.address).map_err(|error| this.failure(py, &error))?;
    }
    this.is_connected.store(is_connected, Ordering::Relaxed);
    if is_connected {
        // The other end may be a listener of this loop. On asyncio it accepts in the turn in which we learn of this.
        slf.get().ask_kernel(py);
    }
    Ok(connecting.into_any())
}

/// The address that host and port spell out, if it is of that family (0: of any).
fn address_of(host: &Bound<'_, PyAny>, port: &Bound<'_, PyAny>, family: &Bound<'_, PyAny>) -> Option<Address> {
    let (literal, _) = resolver::literal(host)?;
    let (port, wanted) = (resolver::port_of(port)?, resolver::number(family)?);
    let address = match literal {
        IpAddr::V4(host) => Address::Ip4 { host: host.octets(), port },
        IpAddr::V6(host) => Address::Ip6 { host: host.octets(), port, flow: 0, scope: 0 },
    };
    (wanted == libc::AF_UNSPEC || wanted == family_of(&address)).then_some(address)
}

/// The host as it was given.
fn text_of<'py>(host: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyString>> {
    match host.cast::<PyBytes>() {
        Ok(bytes) => Ok(PyString::new(host.py(), &String::from_utf8_lossy(bytes.as_bytes()))),
        Err(_) => host.cast().cloned().map_err(PyErr::from),
    }
}

fn family_of(address: &Address) -> i32 {
    if matches!(address, Address::Ip4 { .. }) { libc::AF_INET } else { libc::AF_INET6 }
}

/// Whether both ends are on this machine: there, connecting takes no time.
fn is_local(address: &Address) -> bool {
    match address {
        Address::Ip4 { host, .. } => host[0] == 127,
        Address::Ip6 { host, .. } => std::net::Ipv6Addr::from(*host).is_loopback(),
        Address::Unix(_) | Address::Other => false,
    }
}

impl Connecting {
    /// The address as asyncio would have it.
    fn place<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        match &self.address {
            Address::Ip6 { port, flow, scope, .. } => (&self.host, *port, *flow, *scope).into_pyobject(py),
            Address::Ip4 { port, .. } => (&self.host, *port).into_pyobject(py),
            Address::Unix(_) | Address::Other => Ok(PyTuple::empty(py)),
        }
    }

    /// `SelectorEventLoop._sock_connect_cb`: the error of a connect that had begun.
    #[cold]
    fn failure(&self, py: Python<'_>, error: &io::Error) -> PyErr {
        match (self.place(py), error.raw_os_error()) {
            (Ok(place), Some(number)) => {
                PyOSError::new_err((number, format!("Connect call failed {}", errors::repr(place.as_any()))))
            }
            (Err(failure), _) => failure,
            (Ok(_), None) => errors::os_error(py, error),
        }
    }
}

#[pymethods]
impl Connecting {
    /// Whether the connection stands.
    fn is_connected(&self) -> bool {
        self.is_connected.load(Ordering::Relaxed)
    }

    /// The descriptor; -1 once it is another's, or closed.
    fn fileno(&self, py: Python<'_>) -> RawFd {
        self.fd.with(py, |fd| fd.as_ref().map_or(-1, AsRawFd::as_raw_fd))
    }

    /// Looks how it ended, once the descriptor is writable; an OSError if it failed.
    fn settle(&self, py: Python<'_>) -> PyResult<()> {
        let answer = self.fd.with(py, |fd| fd.as_ref().map_or(Ok(None), |fd| connect::take_error(fd.as_raw_fd())));
        if let Ok(Some(error)) | Err(error) = answer {
            return Err(self.failure(py, &error));
        }
        self.is_connected.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Gives the connection to a new transport, which calls the protocol from the next turn on; matches
    /// `BaseEventLoop._create_connection_transport`.
    fn make_transport<'py>(
        &self,
        core: &Bound<'py, Loop>,
        protocol_factory: &Bound<'py, PyAny>,
        waiter: Py<PyAny>,
    ) -> PyResult<(Bound<'py, Stream>, Bound<'py, PyAny>)> {
        let py = core.py();
        let Some(fd) = self.fd.with(py, Option::take) else {
            return Err(PyRuntimeError::new_err("the connection has a transport already"));
        };
        // From Python 3.15 on, a client's transport has one context for its whole life: that before the protocol's.
        let context = if cfg!(Py_3_15) { Some(context::copy_current(py)?) } else { None };
        let protocol = &protocol_factory.call0()?;
        let endpoint = Endpoint::connected(fd, family_of(&self.address), self.address.clone());
        endpoint.set_no_delay();
        let parts = Beginning { endpoint, protocol, waiter: Some(waiter), extra: None, server: None, context };
        Ok((Stream::begin(core, parts)?, protocol.clone()))
    }

    /// Closes the socket, unless a transport has it.
    fn close(&self, py: Python<'_>) {
        drop(self.fd.with(py, Option::take));
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("<Connecting to {}>", self.host.bind(py).to_str()?))
    }
}
