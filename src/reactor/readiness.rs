//! What an event says about one descriptor.

/// A set of conditions; combined events carry several of them, and each direction takes its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Readiness(u8);

impl Readiness {
    pub(crate) const READABLE: Self = Self(1);
    pub(crate) const WRITABLE: Self = Self(2);
    /// The peer has ended its direction, or the connection: reading goes on to the end of the stream.
    pub(crate) const READ_CLOSED: Self = Self(4);
    /// An error is pending, or the descriptor is hung up: both directions find out by trying.
    pub(crate) const ERROR: Self = Self(8);

    /// Nothing is known.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub(crate) const fn none() -> Self {
        Self(0)
    }

    pub(crate) const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether a reader has something to find: bytes, an end, or an error.
    pub(crate) const fn is_readable(self) -> bool {
        self.0 & (Self::READABLE.0 | Self::READ_CLOSED.0 | Self::ERROR.0) != 0
    }

    /// Whether a writer has something to find: room, or an error.
    pub(crate) const fn is_writable(self) -> bool {
        self.0 & (Self::WRITABLE.0 | Self::ERROR.0) != 0
    }

    /// Whether the end of the stream, or an error, lies behind the bytes that are there now.
    pub(crate) const fn is_read_closed(self) -> bool {
        self.0 & (Self::READ_CLOSED.0 | Self::ERROR.0) != 0
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
impl Readiness {
    /// Reads the bits of epoll(7).
    pub(crate) fn from_epoll(bits: u32) -> Self {
        let has = |flags: libc::c_int| bits & flags.cast_unsigned() != 0;
        let mut readiness = Self(0);
        if has(libc::EPOLLIN | libc::EPOLLPRI) {
            readiness = readiness.union(Self::READABLE);
        }
        if has(libc::EPOLLOUT) {
            readiness = readiness.union(Self::WRITABLE);
        }
        // A read stops before urgent data (tcp(7)): a short one is not the last.
        if has(libc::EPOLLRDHUP | libc::EPOLLPRI) {
            readiness = readiness.union(Self::READ_CLOSED);
        }
        if has(libc::EPOLLERR | libc::EPOLLHUP) {
            readiness = readiness.union(Self::ERROR);
        }
        readiness
    }
}

#[cfg(test)]
mod tests {
    use super::Readiness;

    #[test]
    fn one_event_serves_both_directions() {
        let both = Readiness::READABLE.union(Readiness::WRITABLE);
        assert!(both.is_readable() && both.is_writable() && !both.is_read_closed());
    }

    #[test]
    fn an_error_reaches_reader_and_writer() {
        let error = Readiness::ERROR;
        assert!(error.is_readable() && error.is_writable() && error.is_read_closed());
    }
}
