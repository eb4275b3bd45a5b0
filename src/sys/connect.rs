//! Connecting: a new TCP socket on its way to an address, without waiting.

use super::socket::{Address, AddressRoom, length_of};
use super::syscall;
use std::ffi::c_int;
use std::io;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
use std::os::fd::AsRawFd;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// A TCP socket, non-blocking and close-on-exec (`socket(2)`).
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn open(family: c_int) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: socket takes integers and touches no memory.
    let fd = syscall!(unsafe { libc::socket(family, kind, libc::IPPROTO_TCP) })?;
    // SAFETY: the kernel has just made this descriptor; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A TCP socket, non-blocking and close-on-exec (`socket(2)`, `fcntl(2)`).
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn open(family: c_int) -> io::Result<OwnedFd> {
    // SAFETY: socket takes integers and touches no memory.
    let fd = syscall!(unsafe { libc::socket(family, libc::SOCK_STREAM, libc::IPPROTO_TCP) })?;
    // SAFETY: the kernel has just made this descriptor; nobody else knows it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: F_SETFL and F_SETFD take an integer and touch no memory.
    syscall!(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) })?;
    // SAFETY: as above.
    syscall!(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) })?;
    Ok(fd)
}

/// Begins to connect (`connect(2)`); false: it is under way.
pub(crate) fn begin(fd: RawFd, to: &Address) -> io::Result<bool> {
    let room = AddressRoom::of(to);
    let (address, length) = room.parts();
    // SAFETY: `address` is valid for reads of `length` bytes.
    match syscall!(unsafe { libc::connect(fd, address, length) }) {
        Ok(_) => Ok(true),
        Err(error) => match error.raw_os_error() {
            Some(libc::EINPROGRESS | libc::EALREADY | libc::EINTR | libc::EAGAIN) => Ok(false),
            _ => Err(error),
        },
    }
}

/// Whether a connect that was begun is done, or how it failed.
///
/// The first call for a non-blocking socket seldom says so, not even where both ends are on this machine. There the
/// connection stands when it returns, and this one tells.
pub(crate) fn is_done(fd: RawFd, to: &Address) -> io::Result<bool> {
    begin(fd, to).or_else(|error| if error.raw_os_error() == Some(libc::EISCONN) { Ok(true) } else { Err(error) })
}

/// Takes the error that is pending on a socket, if any (socket(7), `SO_ERROR`).
pub(crate) fn take_error(fd: RawFd) -> io::Result<Option<io::Error>> {
    let mut number: c_int = 0;
    let mut length = length_of::<c_int>();
    let place = (&raw mut number).cast();
    // SAFETY: `place` is valid for writes of `length` bytes, and `length` itself is valid.
    syscall!(unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ERROR, place, &raw mut length) })?;
    Ok((number != 0).then(|| io::Error::from_raw_os_error(number)))
}

#[cfg(test)]
mod tests {
    use super::{begin, is_done, open, take_error};
    use crate::sys::socket::Address;
    use std::net::{Ipv4Addr, TcpListener, UdpSocket};
    use std::os::fd::AsRawFd;

    fn address_of(listener: &TcpListener) -> Address {
        let port = listener.local_addr().unwrap().port();
        Address::Ip4 { host: Ipv4Addr::LOCALHOST.octets(), port }
    }

    #[test]
    fn a_listener_is_reached() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let fd = open(libc::AF_INET).unwrap();
        let to = address_of(&listener);
        begin(fd.as_raw_fd(), &to).unwrap();
        while !is_done(fd.as_raw_fd(), &to).unwrap() {}
        assert!(take_error(fd.as_raw_fd()).unwrap().is_none());
        listener.accept().unwrap();
    }

    #[test]
    fn nobody_listens() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let to = address_of(&listener);
        drop(listener);
        let fd = open(libc::AF_INET).unwrap();
        let error = loop {
            match begin(fd.as_raw_fd(), &to) {
                Ok(connected) => assert!(!connected),
                Err(error) => break error,
            }
        };
        assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
    }

    #[test]
    fn a_connected_socket_is_not_connected_again() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let to = address_of(&listener);
        let fd = open(libc::AF_INET).unwrap();
        begin(fd.as_raw_fd(), &to).unwrap();
        while !is_done(fd.as_raw_fd(), &to).unwrap() {}
        // The first call after the connection stands says so, the next ones refuse.
        drop(begin(fd.as_raw_fd(), &to));
        assert_eq!(begin(fd.as_raw_fd(), &to).unwrap_err().raw_os_error(), Some(libc::EISCONN));
    }

    #[test]
    fn a_datagram_socket_is_connected_at_once() {
        let to = Address::Ip4 { host: [127, 0, 0, 1], port: 9 };
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(begin(socket.as_raw_fd(), &to).unwrap());
        assert!(take_error(socket.as_raw_fd()).unwrap().is_none());
    }
}
