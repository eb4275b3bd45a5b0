//! What only the `sock_*` calls and sendfile ask of a socket: addresses with data, files.

use super::socket::{Address, AddressRoom, SEND_FLAGS};
use super::syscall;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

/// Receives into `buffer`; answers how much, and from whom if the kernel says so (`recvfrom(2)`).
pub(crate) fn receive_from(fd: RawFd, buffer: &mut [MaybeUninit<u8>]) -> io::Result<(usize, Option<Address>)> {
    let mut room = AddressRoom::new();
    let (address, length) = room.pointers();
    let (start, size) = (buffer.as_mut_ptr().cast(), buffer.len());
    // SAFETY: `buffer` is valid for writes of its length, `address` for those of `length`, and `length` itself is valid.
    let answer = unsafe { libc::recvfrom(fd, start, size, libc::MSG_DONTWAIT, address, length) };
    let count = syscall!(answer).map(isize::unsigned_abs)?;
    Ok((count, room.given()))
}

/// Sends to an address; answers how many bytes the kernel took (`sendto(2)`).
pub(crate) fn send_to(fd: RawFd, data: &[u8], to: &Address) -> io::Result<usize> {
    let room = AddressRoom::of(to);
    let (address, length) = room.parts();
    // SAFETY: `data` is valid for reads of its length, and `address` for those of `length`.
    let answer = unsafe { libc::sendto(fd, data.as_ptr().cast(), data.len(), SEND_FLAGS, address, length) };
    syscall!(answer).map(isize::unsigned_abs)
}

/// Whether a send would find room, or an error, now (`poll(2)`). If not, the kernel notes that somebody waits for it:
/// from then on an edge will come.
pub(crate) fn is_writable(fd: RawFd) -> io::Result<bool> {
    let mut entry = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
    // SAFETY: `entry` is one valid entry.
    syscall!(unsafe { libc::poll(&raw mut entry, 1, 0) }).map(|count| count > 0)
}

/// Sends at most `count` bytes of a file, from `offset` on; 0 at its end (`sendfile(2)`).
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn send_file(fd: RawFd, file: RawFd, offset: i64, count: usize) -> io::Result<usize> {
    let mut place: libc::off_t = offset;
    // SAFETY: `place` is valid for reads and writes.
    let answer = unsafe { libc::sendfile(fd, file, &raw mut place, count) };
    syscall!(answer).map(isize::unsigned_abs)
}

/// Sends at most `count` bytes of a file, from `offset` on; 0 at its end (`sendfile(2)`).
#[cfg(target_vendor = "apple")]
pub(crate) fn send_file(fd: RawFd, file: RawFd, offset: i64, count: usize) -> io::Result<usize> {
    let mut length = libc::off_t::try_from(count).unwrap_or(libc::off_t::MAX);
    // SAFETY: `length` is valid for reads and writes; no headers are given.
    let answer = unsafe { libc::sendfile(file, fd, offset, &raw mut length, std::ptr::null_mut(), 0) };
    match syscall!(answer) {
        // The call fails when the socket is full, also after it has sent something.
        Err(error) if length == 0 || error.kind() != io::ErrorKind::WouldBlock => Err(error),
        Ok(_) | Err(_) => Ok(usize::try_from(length).unwrap_or(0)),
    }
}

/// Elsewhere the loop reads and writes instead.
#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
pub(crate) fn send_file(_fd: RawFd, _file: RawFd, _offset: i64, _count: usize) -> io::Result<usize> {
    Err(io::Error::from_raw_os_error(libc::ENOSYS))
}

/// Moves the position of a file, which is what later reads go on from (`lseek(2)`).
pub(crate) fn seek(file: RawFd, offset: i64) -> io::Result<()> {
    // SAFETY: lseek takes integers and touches no memory.
    syscall!(unsafe { libc::lseek(file, offset, libc::SEEK_SET) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::{is_writable, receive_from, send_file, send_to};
    use crate::sys::socket::Address;
    use std::io::{Read, Write};
    use std::mem::MaybeUninit;
    use std::net::UdpSocket;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_datagram_comes_with_its_sender() {
        let (one, other) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let address =
            |socket: &UdpSocket| Address::Ip4 { host: [127, 0, 0, 1], port: socket.local_addr().unwrap().port() };
        assert_eq!(send_to(one.as_raw_fd(), b"hello", &address(&other)).unwrap(), 5);
        let mut room = [MaybeUninit::uninit(); 16];
        assert_eq!(receive_from(other.as_raw_fd(), &mut room).unwrap(), (5, Some(address(&one))));
        let empty = receive_from(other.as_raw_fd(), &mut room).unwrap_err();
        assert_eq!(empty.kind(), std::io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_connected_socket_names_no_sender() {
        let (left, mut right) = UnixStream::pair().unwrap();
        right.write_all(b"x").unwrap();
        assert_eq!(receive_from(left.as_raw_fd(), &mut [MaybeUninit::uninit(); 4]).unwrap(), (1, None));
    }

    #[test]
    fn a_full_socket_is_not_writable() {
        let (left, mut right) = UnixStream::pair().unwrap();
        left.set_nonblocking(true).unwrap();
        assert!(is_writable(left.as_raw_fd()).unwrap());
        while (&left).write(&[0; 4096]).is_ok() {}
        assert!(!is_writable(left.as_raw_fd()).unwrap());
        while !is_writable(left.as_raw_fd()).unwrap() {
            right.read_exact(&mut [0; 4096]).unwrap();
        }
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[test]
    fn a_file_is_sent_from_an_offset_to_its_end() {
        let path = std::env::temp_dir().join(format!("mioloop-sendfile-{}", std::process::id()));
        std::fs::write(&path, b"0123456789").unwrap();
        let file = std::fs::File::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let (left, mut right) = UnixStream::pair().unwrap();
        assert_eq!(send_file(left.as_raw_fd(), file.as_raw_fd(), 4, 100).unwrap(), 6);
        assert_eq!(send_file(left.as_raw_fd(), file.as_raw_fd(), 10, 100).unwrap(), 0);
        let mut received = [0; 6];
        right.read_exact(&mut received).unwrap();
        assert_eq!(&received, b"456789");
    }
}
