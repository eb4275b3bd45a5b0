//! `getaddrinfo` and `getnameinfo` of literals: addresses in figures need no other thread and no resolver.
//!
//! Owns nothing. What is answered here equals what `socket.getaddrinfo` and `socket.getnameinfo` give, element for
//! element. Everything unusual is None, and goes to them in a thread: names, services, scopes, old spellings of IPv4
//! addresses ("127.1"), other types and flags, and all that they refuse, so that the errors are theirs. They are also
//! asked when a program has put something else in their place, and in debug mode, where asyncio reports the time.

use crate::event_loop::Loop;
use crate::py::call::call_keywords;
use crate::py::method::{self, Arguments, Body, Method};
use crate::py::names;
use crate::sys::socket::Address;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt, PyList, PyString, PyTuple, PyType};
use std::ffi::CStr;
use std::net::IpAddr;

/// Flags that change nothing for a literal.
const PLAIN_FLAGS: i32 = libc::AI_PASSIVE | libc::AI_NUMERICHOST | libc::AI_NUMERICSERV;
/// What `getnameinfo` is asked for when it is to look nothing up.
const NUMERIC_NAME: i32 = libc::NI_NUMERICHOST | libc::NI_NUMERICSERV;
/// The longest text of an IPv6 address.
const LONGEST: usize = 45;

/// `loop._literal_address`
struct LiteralAddress;

impl Method for LiteralAddress {
    type Class = Loop;
    const NAME: &'static CStr = c"_literal_address";
    const DOC: &'static CStr = c"_literal_address($self, *query)\n--\n\nWhat socket.getaddrinfo gives for an address in figures; None for all that is to be asked there.";
    const BODY: Body<Loop> = literal_address;
}

/// `loop._literal_name`
struct LiteralName;

impl Method for LiteralName {
    type Class = Loop;
    const NAME: &'static CStr = c"_literal_name";
    const DOC: &'static CStr = c"_literal_name($self, *query)\n--\n\nWhat socket.getnameinfo gives where nothing is to be looked up; None for all that is to be asked there.";
    const BODY: Body<Loop> = literal_name;
}

/// Puts the methods on the loop's class.
pub(crate) fn define_methods(class: &Bound<'_, PyType>) -> PyResult<()> {
    // Known from now on, to see later whether a program has replaced them.
    names::GETADDRINFO.get(class.py())?;
    names::GETNAMEINFO.get(class.py())?;
    method::define::<LiteralAddress>(class)?;
    method::define::<LiteralName>(class)
}

fn literal_address<'py>(slf: &Bound<'py, Loop>, arguments: Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = slf.py();
    let values = arguments.positional();
    let answer = match values {
        [host, port, family, kind, proto, flags]
            if is_native(slf, intern!(py, "getaddrinfo"), &names::GETADDRINFO)? =>
        {
            addresses(py, &Query { host, port, family, kind, proto, flags })?
        }
        _ => None,
    };
    let Some(answer) = answer else { return Ok(py.None().into_bound(py)) };
    audit(py, intern!(py, "socket.getaddrinfo"), &values[..5])?;
    Ok(answer.into_any())
}

fn literal_name<'py>(slf: &Bound<'py, Loop>, arguments: Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = slf.py();
    let values = arguments.positional();
    let answer = match values {
        [address, flags] if is_native(slf, intern!(py, "getnameinfo"), &names::GETNAMEINFO)? => name(address, flags)?,
        _ => None,
    };
    let Some(answer) = answer else { return Ok(py.None().into_bound(py)) };
    audit(py, intern!(py, "socket.getnameinfo"), &values[..1])?;
    Ok(answer.into_any())
}

/// Whether the function of `socket` is the one that it was, and nobody wants to see what it does.
fn is_native(slf: &Bound<'_, Loop>, name: &Bound<'_, PyString>, original: &names::Name) -> PyResult<bool> {
    let core = slf.get();
    core.check_open()?;
    Ok(!core.is_debug() && names::SOCKETS.get(slf.py(), name)?.is(original.get(slf.py())?))
}

/// Tells audit hooks of a call that they would have seen.
fn audit<'py>(py: Python<'py>, event: &Bound<'py, PyString>, values: &[Borrowed<'_, 'py, PyAny>]) -> PyResult<()> {
    let mut arguments = [event.as_any().as_borrowed(); 6];
    arguments[1..=values.len()].copy_from_slice(values);
    call_keywords(py, names::AUDIT.get(py)?, &arguments[..=values.len()], None).map(drop)
}

/// The arguments of `getaddrinfo`.
struct Query<'a, 'py> {
    host: &'a Borrowed<'a, 'py, PyAny>,
    port: &'a Borrowed<'a, 'py, PyAny>,
    family: &'a Borrowed<'a, 'py, PyAny>,
    kind: &'a Borrowed<'a, 'py, PyAny>,
    proto: &'a Borrowed<'a, 'py, PyAny>,
    flags: &'a Borrowed<'a, 'py, PyAny>,
}

fn addresses<'py>(py: Python<'py>, query: &Query<'_, 'py>) -> PyResult<Option<Bound<'py, PyList>>> {
    let (Some((host, text)), Some(port)) = (literal(query.host), port_of(query.port)) else { return Ok(None) };
    let (Some(kind), Some(proto)) = (number(query.kind), number(query.proto)) else { return Ok(None) };
    let (Some(wanted), Some(flags)) = (number(query.family), number(query.flags)) else { return Ok(None) };
    let (family, family_object) = match host {
        IpAddr::V4(_) => (libc::AF_INET, &names::AF_INET),
        IpAddr::V6(_) => (libc::AF_INET6, &names::AF_INET6),
    };
    if flags & !PLAIN_FLAGS != 0 || (wanted != libc::AF_UNSPEC && wanted != family) {
        return Ok(None);
    }
    let stream = (&names::SOCK_STREAM, libc::IPPROTO_TCP);
    let datagram = (&names::SOCK_DGRAM, libc::IPPROTO_UDP);
    let raw = (&names::SOCK_RAW, 0);
    let entries: &[_] = match (kind, proto) {
        (libc::SOCK_STREAM, 0 | libc::IPPROTO_TCP) => &[stream],
        (libc::SOCK_DGRAM, 0 | libc::IPPROTO_UDP) => &[datagram],
        // The list is the C library's own.
        (0, 0) if cfg!(all(target_os = "linux", target_env = "gnu")) => &[stream, datagram, raw],
        _ => return Ok(None),
    };
    let address = match host {
        IpAddr::V4(_) => (text, port).into_pyobject(py)?,
        IpAddr::V6(_) => (text, port, 0, 0).into_pyobject(py)?,
    };
    let family = family_object.get(py)?;
    let list = PyList::empty(py);
    for (kind, proto) in entries {
        list.append((family, kind.get(py)?, proto, intern!(py, ""), &address))?;
    }
    Ok(Some(list))
}

fn name<'py>(
    address: &Borrowed<'_, 'py, PyAny>,
    flags: &Borrowed<'_, 'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyTuple>>> {
    let py = address.py();
    let is_numeric = number(flags).is_some_and(|flags| flags & !libc::NI_DGRAM == NUMERIC_NAME);
    let Ok(address) = address.cast_exact::<PyTuple>() else { return Ok(None) };
    if !is_numeric || address.len() != 2 {
        return Ok(None);
    }
    let (host, port) = (address.get_borrowed_item(0)?, address.get_borrowed_item(1)?);
    if !host.is_exact_instance_of::<PyString>() || !port.is_exact_instance_of::<PyInt>() {
        return Ok(None);
    }
    let (Some((_, text)), Some(port)) = (literal(&host), port_of(&port)) else { return Ok(None) };
    (text, port.to_string()).into_pyobject(py).map(Some)
}

/// The address that a text or bytes spell out, and its text as the system gives it.
pub(crate) fn literal<'py>(host: &Bound<'py, PyAny>) -> Option<(IpAddr, Bound<'py, PyString>)> {
    let py = host.py();
    let given = host.cast_exact::<PyString>().ok();
    let text = match given {
        Some(text) => text.to_str().ok()?,
        None => std::str::from_utf8(host.cast_exact::<PyBytes>().ok()?.as_bytes()).ok()?,
    };
    if text.len() > LONGEST {
        return None;
    }
    let address: IpAddr = text.parse().ok()?;
    let text = match (address, given) {
        // Four decimal numbers have one spelling only.
        (IpAddr::V4(_), Some(given)) => given.clone(),
        (IpAddr::V4(_), None) => PyString::new(py, text),
        (IpAddr::V6(address), _) => {
            PyString::new(py, &Address::Ip6 { host: address.octets(), port: 0, flow: 0, scope: 0 }.host_text())
        }
    };
    Some((address, text))
}

/// A port given as None, as a number, or as a number in figures.
pub(crate) fn port_of(port: &Bound<'_, PyAny>) -> Option<u16> {
    if port.is_exact_instance_of::<PyInt>() {
        return port.extract().ok();
    }
    if port.is_none() {
        return Some(0);
    }
    let figures = match port.cast_exact::<PyString>() {
        Ok(text) => text.to_str().ok()?.as_bytes(),
        Err(_) => port.cast_exact::<PyBytes>().ok()?.as_bytes(),
    };
    if figures.is_empty() || !figures.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(figures).ok()?.parse().ok()
}

pub(crate) fn number(value: &Bound<'_, PyAny>) -> Option<i32> {
    if value.is_instance_of::<PyInt>() { value.extract().ok() } else { None }
}
