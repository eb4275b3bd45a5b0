//! The operating system: every libc call of the crate, one safe function each.
//!
//! Owns nothing. No Python and no mio in here, so each function is what its man page says and can be tested with
//! two file descriptors. Rules for callers and heirs:
//!
//! 1. Every call goes through [`syscall!`] and returns [`std::io::Result`]; errno is never lost.
//! 2. A descriptor that is created here leaves as an [`std::os::fd::OwnedFd`].
//! 3. A raw descriptor that is passed in is only borrowed for the call.

#![allow(unsafe_code, reason = "libc is called here and nowhere else; every block says why it is sound")]

#[cfg(feature = "embed")]
pub(crate) mod bell;
pub(crate) mod clock;
pub(crate) mod connect;
pub(crate) mod datagram;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) mod epoll;
pub(crate) mod memory;
pub(crate) mod pipe;
pub(crate) mod socket;
pub(crate) mod transfer;
#[cfg(feature = "embed")]
pub(crate) mod waker;

/// Calls a libc function that answers -1 on failure; gives [`std::io::Result`] of what it answered.
///
/// The call itself stands in an `unsafe` block at the place where it is made, with its reason.
macro_rules! syscall {
    ($call:expr) => {{
        let answer = $call;
        if answer == -1 { Err(std::io::Error::last_os_error()) } else { Ok(answer) }
    }};
}
pub(crate) use syscall;

#[cfg(test)]
mod tests {
    use super::socket;
    use std::io::{IoSlice, Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn what_is_sent_is_received() {
        let (left, mut right) = UnixStream::pair().unwrap();
        let parts = [IoSlice::new(b"he"), IoSlice::new(b"llo")];
        assert_eq!(socket::send_vectored(left.as_raw_fd(), &parts).unwrap(), 5);
        let mut buffer = [0; 5];
        right.read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"hello");
        right.write_all(b"back").unwrap();
        let mut scratch = [0; 16];
        assert_eq!(socket::receive(left.as_raw_fd(), &mut scratch).unwrap(), 4);
        assert_eq!(&scratch[..4], b"back");
    }

    #[test]
    fn errors_keep_their_number() {
        let error = socket::receive(-1, &mut [0; 1]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    }
}
