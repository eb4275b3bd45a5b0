//! Socket addresses on their way to Python and back.
//!
//! Owns the objects of the peers that were heard of last ([`Peers`]). What `socket` makes of an address is the rule;
//! whatever is not plain (names of hosts, other families) is left to it.

use crate::errors;
use crate::sys::socket::Address;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};
use std::net::{Ipv4Addr, Ipv6Addr};

/// An address as Python's `socket` module gives it.
pub(crate) fn to_object<'py>(py: Python<'py>, address: &Address) -> PyResult<Bound<'py, PyAny>> {
    match address {
        Address::Ip4 { port, .. } => Ok((address.host_text(), *port).into_pyobject(py)?.into_any()),
        Address::Ip6 { port, flow, scope, .. } => {
            Ok((address.host_text(), *port, *flow, *scope).into_pyobject(py)?.into_any())
        }
        Address::Unix(name) if name.first() == Some(&0) => Ok(PyBytes::new(py, name).into_any()),
        Address::Unix(path) => Ok(errors::path(py, path)?.into_any()),
        Address::Other => Ok(PyString::new(py, "").into_any()),
    }
}

/// The address that an object stands for in a socket of this family; None: ask the socket object itself, which also
/// knows what is wrong with it.
pub(crate) fn from_object(family: i32, object: &Bound<'_, PyAny>) -> Option<Address> {
    match family {
        libc::AF_INET => {
            let tuple = object.cast_exact::<PyTuple>().ok().filter(|tuple| tuple.len() == 2)?;
            let host: Ipv4Addr = text_at(tuple)?.to_str().ok()?.parse().ok()?;
            Some(Address::Ip4 { host: host.octets(), port: number_at(tuple, 1)? })
        }
        libc::AF_INET6 => {
            let tuple = object.cast_exact::<PyTuple>().ok().filter(|tuple| (2..=4).contains(&tuple.len()))?;
            let host: Ipv6Addr = text_at(tuple)?.to_str().ok()?.parse().ok()?;
            let given = |index: usize| if index < tuple.len() { number_at(tuple, index) } else { Some(0) };
            // The kernel has twenty bits for the flow.
            let flow = given(2).filter(|flow| *flow <= 0xF_FFFF)?;
            Some(Address::Ip6 { host: host.octets(), port: number_at(tuple, 1)?, flow, scope: given(3)? })
        }
        libc::AF_UNIX => {
            let name: Box<[u8]> = if let Ok(text) = object.cast_exact::<PyString>() {
                // The encoding of file names is nearly always UTF-8: only ASCII is the same in all.
                text.to_str().ok().filter(|text| text.is_ascii())?.as_bytes().into()
            } else {
                object.cast_exact::<PyBytes>().ok()?.as_bytes().into()
            };
            // A path ends with a zero byte in the kernel's room of 108; an abstract name begins with one.
            let is_plain = (1..100).contains(&name.len()) && !name[1..].contains(&0);
            is_plain.then_some(Address::Unix(name))
        }
        _ => None,
    }
}

fn text_at<'py>(tuple: &Bound<'py, PyTuple>) -> Option<Bound<'py, PyString>> {
    tuple.get_item(0).ok()?.cast_into_exact().ok()
}

fn number_at<'py, T: FromPyObjectOwned<'py>>(tuple: &Bound<'py, PyTuple>, index: usize) -> Option<T> {
    let item = tuple.get_item(index).ok()?;
    item.is_exact_instance_of::<pyo3::types::PyInt>().then(|| item.extract().ok()).flatten()
}

/// Peers whose addresses have the same hash share a row of so many places.
const ROW: usize = 4;
/// So many rows there are.
const ROWS: usize = 64;

/// The objects of peers: one that sends again has the same object again, which is also cheaper than a new one. The
/// oldest of a row makes place for a new one.
#[derive(Debug, Default)]
pub(crate) struct Peers(Vec<Option<(Address, Py<PyAny>)>>);

impl Peers {
    /// The object of an address.
    pub(crate) fn object(&mut self, py: Python<'_>, address: &Address) -> PyResult<Py<PyAny>> {
        if self.0.is_empty() {
            self.0.resize_with(ROWS * ROW, || None);
        }
        let start = row_of(address) * ROW;
        let row = &mut self.0[start..start + ROW];
        if let Some((_, object)) = row.iter().flatten().find(|(known, _)| known == address) {
            return Ok(object.clone_ref(py));
        }
        let object = to_object(py, address)?.unbind();
        row.rotate_right(1);
        row[0] = Some((address.clone(), object.clone_ref(py)));
        Ok(object)
    }
}

/// The row of an address: ports and the last bytes of hosts are what differs.
fn row_of(address: &Address) -> usize {
    let mix = |hash: u32, part: &[u8]| {
        part.iter().fold(hash, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
    };
    let hash = match address {
        Address::Ip4 { host, port } => mix(u32::from(*port).wrapping_mul(0x9E37_79B1), host),
        Address::Ip6 { host, port, .. } => mix(u32::from(*port).wrapping_mul(0x9E37_79B1), &host[8..]),
        Address::Unix(name) => mix(0, name),
        Address::Other => 0,
    };
    // All bits count for the highest ones, which tell the row.
    let hash = (hash ^ (hash >> 15)).wrapping_mul(0x9E37_79B1);
    ((hash ^ (hash >> 16)).wrapping_mul(0x85EB_CA6B) >> 26) as usize % ROWS
}

#[cfg(test)]
mod tests {
    use super::{ROW, ROWS, row_of};
    use crate::sys::socket::Address;

    #[test]
    fn nearly_all_of_a_hundred_peers_have_a_place() {
        let ports = (0..100).map(|number| Address::Ip4 { host: [127, 0, 0, 1], port: 40_000 + number });
        let hosts = (0..100).map(|number| Address::Ip4 { host: [10, 0, 0, number], port: 5353 });
        for peers in [ports.collect::<Vec<_>>(), hosts.collect()] {
            let mut rows = [0_usize; ROWS];
            for peer in &peers {
                rows[row_of(peer)] += 1;
            }
            let crowded: usize = rows.iter().map(|count| count.saturating_sub(ROW)).sum();
            assert!(crowded < 10, "{rows:?}");
        }
    }
}
