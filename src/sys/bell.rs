//! A bell: any thread rings it, and a descriptor becomes readable.
//!
//! On Linux one `eventfd(2)`: ringing and hearing it cost about half of what they cost with a pair of sockets, which is what
//! other systems have.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

#[cfg(any(target_os = "linux", target_os = "android"))]
mod system {
    use crate::sys::syscall;
    use std::fs::File;
    use std::io::{self, Read, Write};
    use std::os::fd::{FromRawFd, OwnedFd, RawFd};

    #[derive(Debug)]
    pub(super) struct Ends(File);

    impl Ends {
        pub(super) fn new() -> io::Result<Self> {
            // SAFETY: takes integers and touches no memory.
            let fd: RawFd = syscall!(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
            // SAFETY: a new descriptor, which nobody else has.
            Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }.into()))
        }

        pub(super) fn reader(&self) -> &File {
            &self.0
        }

        pub(super) fn ring(&self) -> io::Result<usize> {
            (&self.0).write(&1_u64.to_ne_bytes())
        }

        pub(super) fn hear(&self) -> io::Result<usize> {
            (&self.0).read(&mut [0; 8])
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod system {
    use std::io::{self, Read, Write};
    use std::os::unix::net::UnixStream;

    #[derive(Debug)]
    pub(super) struct Ends {
        reader: UnixStream,
        writer: UnixStream,
    }

    impl Ends {
        pub(super) fn new() -> io::Result<Self> {
            let (reader, writer) = UnixStream::pair()?;
            reader.set_nonblocking(true)?;
            writer.set_nonblocking(true)?;
            Ok(Self { reader, writer })
        }

        pub(super) fn reader(&self) -> &UnixStream {
            &self.reader
        }

        pub(super) fn ring(&self) -> io::Result<usize> {
            (&self.writer).write(&[1])
        }

        pub(super) fn hear(&self) -> io::Result<usize> {
            (&self.reader).read(&mut [0; 64])
        }
    }
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Bell(system::Ends);

impl Bell {
    pub(crate) fn new() -> io::Result<Self> {
        system::Ends::new().map(Self)
    }

    /// Makes the descriptor readable, from any thread.
    pub(crate) fn ring(&self) {
        // An error: it was rung more often than it can count, and is readable.
        let _: io::Result<usize> = self.0.ring();
    }

    /// Makes the descriptor unreadable; it need not have been rung.
    pub(crate) fn hear(&self) -> io::Result<()> {
        match self.0.hear() {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(()),
            heard => heard.map(drop),
        }
    }
}

/// What becomes readable.
impl AsRawFd for Bell {
    fn as_raw_fd(&self) -> RawFd {
        self.0.reader().as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::Bell;
    use std::os::fd::AsRawFd;

    fn is_readable(fd: i32) -> bool {
        let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry, valid for the length of the call.
        unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
    }

    #[test]
    fn it_is_readable_when_it_was_rung() {
        let bell = Bell::new().unwrap();
        assert!(!is_readable(bell.as_raw_fd()));
        bell.hear().unwrap();
        for _ in 0..3 {
            bell.ring();
        }
        assert!(is_readable(bell.as_raw_fd()));
        bell.hear().unwrap();
        assert!(!is_readable(bell.as_raw_fd()));
    }
}
