//! The methods of the loop. Each gives an [`Operation`] for the plain case, or else CPython's coroutine.

use super::operation::{Operation, Target};
use super::work::{Connecting, Work};
use crate::event_loop::Loop;
use crate::py::address;
use crate::py::call::call_keywords;
use crate::py::method::{Arguments, Body, Method, define};
use crate::py::names::{self, Name};
use crate::sys::socket::Address;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyFloat, PyInt, PyString, PyType};
use std::ffi::CStr;

/// Declares a method of the loop: a type that names its body.
macro_rules! loop_method {
    ($type:ident, $name:literal, $doc:literal, $body:path) => {
        struct $type;

        impl Method for $type {
            type Class = Loop;
            const NAME: &'static CStr = $name;
            const DOC: &'static CStr = $doc;
            const BODY: Body<Loop> = $body;
        }
    };
}

loop_method!(
    Receive,
    c"sock_recv",
    c"sock_recv($self, sock, n)\n--\n\nReceives at most n bytes. Matches SelectorEventLoop.sock_recv.",
    receive
);
loop_method!(
    ReceiveInto,
    c"sock_recv_into",
    c"sock_recv_into($self, sock, buf)\n--\n\nReceives into a buffer; gives how much. Matches SelectorEventLoop.sock_recv_into.",
    receive_into
);
loop_method!(
    ReceiveFrom,
    c"sock_recvfrom",
    c"sock_recvfrom($self, sock, bufsize)\n--\n\nReceives data and an address. Matches SelectorEventLoop.sock_recvfrom.",
    receive_from
);
loop_method!(
    ReceiveFromInto,
    c"sock_recvfrom_into",
    c"sock_recvfrom_into($self, sock, buf, nbytes=0)\n--\n\nReceives into a buffer; gives how much, and an address. Matches SelectorEventLoop.sock_recvfrom_into.",
    receive_from_into
);
loop_method!(
    SendAll,
    c"sock_sendall",
    c"sock_sendall($self, sock, data)\n--\n\nSends everything. Matches SelectorEventLoop.sock_sendall.",
    send_all
);
loop_method!(
    SendTo,
    c"sock_sendto",
    c"sock_sendto($self, sock, data, address)\n--\n\nSends a datagram to an address. Matches SelectorEventLoop.sock_sendto.",
    send_to
);
loop_method!(
    Connect,
    c"sock_connect",
    c"sock_connect($self, sock, address)\n--\n\nConnects a socket. Matches SelectorEventLoop.sock_connect.",
    connect
);
loop_method!(
    Accept,
    c"sock_accept",
    c"sock_accept($self, sock)\n--\n\nAccepts a connection; gives its socket and the peer's address. Matches SelectorEventLoop.sock_accept.",
    accept
);

/// Puts the methods on the loop's class.
pub(crate) fn define_methods(class: &Bound<'_, PyType>) -> PyResult<()> {
    define::<Receive>(class)?;
    define::<ReceiveInto>(class)?;
    define::<ReceiveFrom>(class)?;
    define::<ReceiveFromInto>(class)?;
    define::<SendAll>(class)?;
    define::<SendTo>(class)?;
    define::<Connect>(class)?;
    define::<Accept>(class)
}

type Answer<'py> = PyResult<Bound<'py, PyAny>>;

fn receive<'py>(slf: &Bound<'py, Loop>, arguments: Arguments<'_, 'py>) -> Answer<'py> {
    let py = slf.py();
    let [Some(sock), Some(size)] = arguments.named("sock_recv", [intern!(py, "sock"), intern!(py, "n")], 0)? else {
        return inherited(slf, "sock_recv", &arguments);
    };
    match size_of(&size) {
        Some(size @ 1..) if is_plain(slf, &sock)? => begin(slf, "sock_recv", &sock, Work::Receive { size }),
        _ => inherited(slf, "sock_recv", &arguments),
    }
}

fn receive_into<'py>(slf: &Bound<'py, Loop>, arguments: Arguments<'_, 'py>) -> Answer<'py> {
    let py = slf.py();
    let names = [intern!(py, "sock"), intern!(py, "buf")];
    match arguments.named("sock_recv_into", names, 0)? {
        [Some(sock), Some(buffer)] if is_plain(slf, &sock)? => {
            begin(slf, "sock_recv_into", &sock, Work::ReceiveInto { buffer: buffer.to_owned().unbind() })
        }
        _ => inherited(slf, "sock_recv_into", &arguments),
    }
}

fn receive_from<'py>(slf: &Bound<'py, Loop>, arguments: Arguments<'_, 'py>) -> Answer<'py> {
    let py = slf.py();
    let names = [intern!(py, "sock"), intern!(py, "bufsize")];
    let [Some(sock), Some(size)] = arguments.named("sock_recvfrom", names, 0)? else {
        return inherited(slf, "sock_recvfrom", &arguments);
    };
    match size_of(&size) {
        Some(size @ 1..) if is_plain(slf, &sock)? && has_known_family(&sock)? => {
            begin(slf, "sock_recvfrom", &sock, Work::ReceiveFrom { size })
        }
        _ => inherited(slf, "sock_recvfrom", &arguments),
    }
}

fn receive_from_into<'py>(slf: &Bound<'py, Loop>, arguments: Arguments<'_, 'py>) -> Answer<'py> {
    let py = slf.py();
    let names = [intern!(py, "sock"), intern!(py, "buf"), intern!(py, "nbytes")];
    let [Some(sock), Some(buffer), size] = arguments.named("sock_recvfrom_into", names, 1)? else {
        return inherited(slf, "sock_recvfrom_into", &arguments);
    };
    match size.map_or(Some(0), |size| size_of(&size)) {
        Some(size) if is_plain(slf, &sock)? && has_known_family(&sock)? => {
            let buffer = buffer.to_owned().unbind();
            begin(slf, "sock_recvfrom_into", &sock, Work::ReceiveFromInto { buffer, size })
        }
        _ => inherited(slf, "sock_recvfrom_into", &arguments),
    }
}

fn send_all<'py>(slf: &Bound<'py, Loop>, arguments: Arguments<'_, 'py>) -> Answer<'py> {
    let py = slf.py();
    match arguments.named("sock_sendall", [intern!(py, "sock"), intern!(py, "data")], 0)? {
        [Some(sock), Some(data)] if is_plain(slf, &sock)? => {
            begin(slf, "sock_sendall", &sock, Work::SendAll { data: data.to_owned().unbind(), sent: 0 })
        }
        _ => inherited(slf, "sock_sendall", &arguments),
    }
}

fn send_to<'py>(slf: &Bound<'py, Loop>, arguments: Arguments<'_, 'py>) -> Answer<'py> {
    let py = slf.py();
    let names = [intern!(py, "sock"), intern!(py, "data"), intern!(py, "address")];
    let [Some(sock), Some(data), Some(given)] = arguments.named("sock_sendto", names, 0)? else {
        return inherited(slf, "sock_sendto", &arguments);
    };
    if is_plain(slf, &sock)?
        && let Some(to) = address::from_object(member(&sock, &names::SOCKET_FAMILY)?, &given)
    {
        let work = Work::SendTo { data: data.to_owned().unbind(), address: given.to_owned().unbind(), to };
        return begin(slf, "sock_sendto", &sock, work);
    }
    inherited(slf, "sock_sendto", &arguments)
}

fn connect<'py>(slf: &Bound<'py, Loop>, arguments: Arguments<'_, 'py>) -> Answer<'py> {
    let py = slf.py();
    let names = [intern!(py, "sock"), intern!(py, "address")];
    let [Some(sock), Some(given)] = arguments.named("sock_connect", names, 0)? else {
        return inherited(slf, "sock_connect", &arguments);
    };
    if is_plain(slf, &sock)? && is_non_blocking(&sock)? {
        let to = address::from_object(member(&sock, &names::SOCKET_FAMILY)?, &given);
        // Names are resolved, and the texts of errors made, by asyncio's rules for these families.
        if let Some(to @ (Address::Ip4 { .. } | Address::Ip6 { .. })) = to {
            let work = Work::Connect(Box::new(Connecting { address: given.to_owned().unbind(), to, is_begun: false }));
            return begin(slf, "sock_connect", &sock, work);
        }
    }
    inherited(slf, "sock_connect", &arguments)
}

fn accept<'py>(slf: &Bound<'py, Loop>, arguments: Arguments<'_, 'py>) -> Answer<'py> {
    let [Some(sock)] = arguments.named("sock_accept", [intern!(slf.py(), "sock")], 0)? else {
        return inherited(slf, "sock_accept", &arguments);
    };
    if is_plain(slf, &sock)? && has_known_family(&sock)? && is_non_blocking(&sock)? {
        return begin(slf, "sock_accept", &sock, Work::Accept);
    }
    inherited(slf, "sock_accept", &arguments)
}

#[inline]
fn begin<'py>(slf: &Bound<'py, Loop>, name: &'static str, sock: &Borrowed<'_, 'py, PyAny>, work: Work) -> Answer<'py> {
    let target = Target::Socket { sock: (*sock).to_owned().unbind(), is_plain: true };
    Operation::begin(slf, name, target, work).map(Bound::into_any)
}

/// Exactly a `socket.socket`, whose methods are known; in debug mode asyncio's own code also knows where it was called.
#[inline]
fn is_plain(slf: &Bound<'_, Loop>, sock: &Borrowed<'_, '_, PyAny>) -> PyResult<bool> {
    Ok(!slf.get().is_debug() && sock.get_type().is(names::SOCKET.get(slf.py())?))
}

/// A length that is an int and not negative.
#[inline]
fn size_of(object: &Borrowed<'_, '_, PyAny>) -> Option<usize> {
    let size = object.is_exact_instance_of::<PyInt>().then(|| object.extract::<isize>().ok()).flatten()?;
    usize::try_from(size).ok()
}

/// The families whose addresses are made here.
fn has_known_family(sock: &Borrowed<'_, '_, PyAny>) -> PyResult<bool> {
    Ok(matches!(member(sock, &names::SOCKET_FAMILY)?, libc::AF_INET | libc::AF_INET6 | libc::AF_UNIX))
}

/// Two of the calls have no flag for a single non-blocking one.
fn is_non_blocking(sock: &Borrowed<'_, '_, PyAny>) -> PyResult<bool> {
    let timeout = sock.call_method0(intern!(sock.py(), "gettimeout"))?;
    Ok(timeout.cast_exact::<PyFloat>().is_ok_and(|timeout| timeout.value() == 0.0))
}

/// A number of a socket as its class in C has it: the property of the class in Python makes an enumeration of it.
pub(super) fn member(sock: &Bound<'_, PyAny>, name: &'static Name) -> PyResult<i32> {
    let py = sock.py();
    name.get(py)?.call_method1(intern!(py, "__get__"), (sock,))?.extract()
}

/// CPython's coroutine.
#[cold]
fn inherited<'py>(slf: &Bound<'py, Loop>, name: &str, arguments: &Arguments<'_, 'py>) -> Answer<'py> {
    let py = slf.py();
    let function = names::SELECTOR_LOOP.get(py)?.getattr(PyString::intern(py, name))?;
    let mut values = Vec::with_capacity(arguments.values().len() + 1);
    values.push(slf.as_any().as_borrowed());
    values.extend_from_slice(arguments.values());
    call_keywords(py, &function, &values, arguments.keywords())
}
