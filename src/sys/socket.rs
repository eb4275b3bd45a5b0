//! Sockets: receiving, sending, accepting, addresses and options.

use super::syscall;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::io::{self, IoSlice};
use std::mem::{self, MaybeUninit};
use std::net::Ipv4Addr;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::ptr;

unsafe extern "C" {
    /// `inet_ntop(3)`, which the libc crate leaves out.
    fn inet_ntop(family: c_int, source: *const c_void, text: *mut c_char, size: libc::socklen_t) -> *const c_char;
}

/// Flags for every send: a peer that went away is an error of this call, not a SIGPIPE of the process, and a blocking
/// socket does not block the loop.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) const SEND_FLAGS: c_int = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) const SEND_FLAGS: c_int = libc::MSG_DONTWAIT;

/// At most so many parts are handed to one `sendmsg(2)`; Linux allows 1024.
pub(crate) const MAX_PARTS: usize = 64;

/// Receives into `buffer`; 0 bytes mean the end of the stream (`recv(2)`).
pub(crate) fn receive(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: a slice of u8 may be seen as one of MaybeUninit<u8>; `receive_uninit` only writes bytes into it.
    let buffer = unsafe { &mut *(ptr::from_mut(buffer) as *mut [MaybeUninit<u8>]) };
    receive_uninit(fd, buffer)
}

/// As [`receive`]; the first bytes of `buffer`, as many as the answer says, are initialised by the call.
pub(crate) fn receive_uninit(fd: RawFd, buffer: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
    // SAFETY: `buffer` is valid for writes of its length.
    let answer = unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT) };
    syscall!(answer).map(isize::unsigned_abs)
}

/// Sends from `data`; answers how many bytes the kernel took (`send(2)`).
pub(crate) fn send(fd: RawFd, data: &[u8]) -> io::Result<usize> {
    // SAFETY: `data` is valid for reads of its length.
    let answer = unsafe { libc::send(fd, data.as_ptr().cast(), data.len(), SEND_FLAGS) };
    syscall!(answer).map(isize::unsigned_abs)
}

/// Sends the parts as if they were one; answers how many bytes the kernel took (`sendmsg(2)`).
pub(crate) fn send_vectored(fd: RawFd, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    // SAFETY: a msghdr of zeros is a valid, empty one.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = parts.as_ptr().cast_mut().cast();
    message.msg_iovlen = parts.len().min(MAX_PARTS) as _;
    // SAFETY: IoSlice has the layout of iovec; sendmsg only reads through it, and the parts outlive the call.
    let answer = unsafe { libc::sendmsg(fd, &raw const message, SEND_FLAGS) };
    syscall!(answer).map(isize::unsigned_abs)
}

/// The size of a type in the unit that the socket calls take.
#[expect(clippy::cast_possible_truncation, reason = "the types that come here are a few bytes long")]
pub(super) const fn length_of<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}

/// The number of an address family in the unit that addresses have.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "families are small numbers")]
const fn family_of(family: c_int) -> libc::sa_family_t {
    family as libc::sa_family_t
}

/// A socket address, in as little memory as it needs: every connection keeps two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Ip4 {
        host: [u8; 4],
        port: u16,
    },
    Ip6 {
        host: [u8; 16],
        port: u16,
        flow: u32,
        scope: u32,
    },
    /// A path, a name that starts with a zero byte (abstract), or nothing (unnamed).
    Unix(Box<[u8]>),
    Other,
}

impl Address {
    /// Whether the host is the wildcard (0.0.0.0 or ::), which no connection has.
    pub(crate) fn is_wildcard(&self) -> bool {
        match self {
            Self::Ip4 { host, .. } => *host == [0; 4],
            Self::Ip6 { host, .. } => *host == [0; 16],
            Self::Unix(_) | Self::Other => false,
        }
    }

    /// The text of the host as Python's `socket` gives it (`inet_ntop(3)`); empty if there is none.
    pub(crate) fn host_text(&self) -> String {
        let (family, host): (_, &[u8]) = match self {
            // All agree on these.
            Self::Ip4 { host, .. } => return Ipv4Addr::from(*host).to_string(),
            Self::Ip6 { host, .. } => (libc::AF_INET6, host),
            Self::Unix(_) | Self::Other => return String::new(),
        };
        let mut text = [0_u8; 64];
        let (start, length) = (text.as_mut_ptr().cast(), length_of::<[u8; 64]>());
        // SAFETY: `host` has the bytes of an address of that family; `text` is longer than INET6_ADDRSTRLEN.
        let answer = unsafe { inet_ntop(family, host.as_ptr().cast(), start, length) };
        if answer.is_null() {
            return String::new();
        }
        CStr::from_bytes_until_nul(&text).map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

/// Room for an address that the kernel writes, or reads.
#[derive(Debug)]
pub(super) struct AddressRoom {
    storage: libc::sockaddr_storage,
    length: libc::socklen_t,
}

impl AddressRoom {
    pub(super) fn new() -> Self {
        // SAFETY: a sockaddr_storage of zeros is valid: family AF_UNSPEC.
        let storage = unsafe { mem::zeroed() };
        Self { storage, length: length_of::<libc::sockaddr_storage>() }
    }

    pub(super) fn pointers(&mut self) -> (*mut libc::sockaddr, *mut libc::socklen_t) {
        ((&raw mut self.storage).cast(), &raw mut self.length)
    }

    /// What a call that takes an address wants; valid as long as the room stays in its place.
    pub(super) fn parts(&self) -> (*const libc::sockaddr, libc::socklen_t) {
        ((&raw const self.storage).cast(), self.length)
    }

    /// All of the room again, for the next address that the kernel writes.
    pub(super) fn renewed(&mut self) -> (*mut libc::sockaddr, *mut libc::socklen_t) {
        self.length = length_of::<libc::sockaddr_storage>();
        self.pointers()
    }

    /// Notes how much the kernel has written, where it does not do so itself.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(super) fn set_length(&mut self, length: libc::socklen_t) {
        self.length = length;
    }

    /// What the kernel wrote; None if that was nothing.
    pub(super) fn given(&self) -> Option<Address> {
        (self.length > 0).then(|| self.address())
    }

    /// An address as the kernel reads it. The name of a Unix socket is cut off where the kernel's room for it ends.
    pub(super) fn of(address: &Address) -> Self {
        let mut room = Self::new();
        let storage = &raw mut room.storage;
        match address {
            Address::Ip4 { host, port } => {
                // SAFETY: sockaddr_storage is large and aligned enough for every address, and valid as zeros.
                let place: &mut libc::sockaddr_in = unsafe { &mut *storage.cast() };
                place.sin_family = family_of(libc::AF_INET);
                place.sin_port = port.to_be();
                place.sin_addr.s_addr = u32::from_ne_bytes(*host);
                room.length = length_of::<libc::sockaddr_in>();
            }
            Address::Ip6 { host, port, flow, scope } => {
                // SAFETY: as above.
                let place: &mut libc::sockaddr_in6 = unsafe { &mut *storage.cast() };
                place.sin6_family = family_of(libc::AF_INET6);
                place.sin6_port = port.to_be();
                place.sin6_flowinfo = flow.to_be();
                place.sin6_addr.s6_addr = *host;
                place.sin6_scope_id = *scope;
                room.length = length_of::<libc::sockaddr_in6>();
            }
            Address::Unix(name) => {
                // SAFETY: as above.
                let place: &mut libc::sockaddr_un = unsafe { &mut *storage.cast() };
                place.sun_family = family_of(libc::AF_UNIX);
                for (to, from) in place.sun_path.iter_mut().zip(name) {
                    *to = from.cast_signed() as _;
                }
                let length = mem::offset_of!(libc::sockaddr_un, sun_path) + name.len().min(place.sun_path.len());
                room.length = libc::socklen_t::try_from(length).unwrap_or(0);
            }
            Address::Other => room.length = 0,
        }
        room
    }

    fn address(&self) -> Address {
        match c_int::from(self.storage.ss_family) {
            libc::AF_INET => {
                // SAFETY: sockaddr_storage is large and aligned enough for every address; the family was looked at.
                let address: &libc::sockaddr_in = unsafe { &*(&raw const self.storage).cast() };
                Address::Ip4 { host: address.sin_addr.s_addr.to_ne_bytes(), port: u16::from_be(address.sin_port) }
            }
            libc::AF_INET6 => {
                // SAFETY: as above.
                let address: &libc::sockaddr_in6 = unsafe { &*(&raw const self.storage).cast() };
                Address::Ip6 {
                    host: address.sin6_addr.s6_addr,
                    port: u16::from_be(address.sin6_port),
                    flow: u32::from_be(address.sin6_flowinfo),
                    scope: address.sin6_scope_id,
                }
            }
            libc::AF_UNIX => Address::Unix(self.unix_name().into()),
            _ => Address::Other,
        }
    }

    /// See unix(7): the length tells where the name ends; a path may or may not bring its zero byte.
    fn unix_name(&self) -> &[u8] {
        let offset = mem::offset_of!(libc::sockaddr_un, sun_path);
        let length = (self.length as usize).min(size_of::<libc::sockaddr_un>()).saturating_sub(offset);
        // SAFETY: the name lies within the storage; every byte of it is initialised (zeros at first).
        let name = unsafe { std::slice::from_raw_parts((&raw const self.storage).cast::<u8>().add(offset), length) };
        match name {
            [] | [0, ..] => name,
            path => path.split(|byte| *byte == 0).next().unwrap_or_default(),
        }
    }
}

/// Accepts one connection, non-blocking and close-on-exec, with the peer's address (`accept4(2)`).
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn accept(fd: RawFd) -> io::Result<(OwnedFd, Address)> {
    let mut room = AddressRoom::new();
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let (storage, length) = room.pointers();
    // SAFETY: `storage` is valid for writes of `length` bytes, and `length` is valid itself.
    let connection = syscall!(unsafe { libc::accept4(fd, storage, length, flags) })?;
    // SAFETY: the kernel has just made this descriptor; nobody else knows it.
    Ok((unsafe { OwnedFd::from_raw_fd(connection) }, room.address()))
}

/// Accepts one connection, non-blocking and close-on-exec, with the peer's address (`accept(2)`, `fcntl(2)`).
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn accept(fd: RawFd) -> io::Result<(OwnedFd, Address)> {
    use std::os::fd::AsRawFd;
    let mut room = AddressRoom::new();
    let (storage, length) = room.pointers();
    // SAFETY: `storage` is valid for writes of `length` bytes, and `length` is valid itself.
    let connection = syscall!(unsafe { libc::accept(fd, storage, length) })?;
    // SAFETY: the kernel has just made this descriptor; nobody else knows it.
    let connection = unsafe { OwnedFd::from_raw_fd(connection) };
    // SAFETY: F_SETFL and F_SETFD take an integer and touch no memory.
    syscall!(unsafe { libc::fcntl(connection.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) })?;
    // SAFETY: as above.
    syscall!(unsafe { libc::fcntl(connection.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) })?;
    Ok((connection, room.address()))
}

/// The address that the socket is bound to (`getsockname(2)`).
pub(crate) fn local_address(fd: RawFd) -> io::Result<Address> {
    let mut room = AddressRoom::new();
    let (storage, length) = room.pointers();
    // SAFETY: `storage` is valid for writes of `length` bytes, and `length` is valid itself.
    syscall!(unsafe { libc::getsockname(fd, storage, length) })?;
    Ok(room.address())
}

/// The address of the peer (`getpeername(2)`).
pub(crate) fn peer_address(fd: RawFd) -> io::Result<Address> {
    let mut room = AddressRoom::new();
    let (storage, length) = room.pointers();
    // SAFETY: `storage` is valid for writes of `length` bytes, and `length` is valid itself.
    syscall!(unsafe { libc::getpeername(fd, storage, length) })?;
    Ok(room.address())
}

/// Ends the sending direction (`shutdown(2)` with `SHUT_WR`).
pub(crate) fn shutdown_write(fd: RawFd) -> io::Result<()> {
    // SAFETY: shutdown takes integers and touches no memory.
    syscall!(unsafe { libc::shutdown(fd, libc::SHUT_WR) }).map(drop)
}

/// Turns Nagle's algorithm off (tcp(7), `TCP_NODELAY`).
pub(crate) fn set_no_delay(fd: RawFd) -> io::Result<()> {
    let on: c_int = 1;
    let length = length_of::<c_int>();
    // SAFETY: `on` is valid for reads of `length` bytes.
    let answer = unsafe { libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, (&raw const on).cast(), length) };
    syscall!(answer).map(drop)
}
