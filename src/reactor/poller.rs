//! The kernel's event queue, made and owned by mio.
//!
//! Owns the poll, its waker and the keys that tell events apart. Rules:
//!
//! 1. A [`Token`] carries the generation of its slot: an event of a registration that is gone finds nothing, also
//!    when the slot and the descriptor number are used again (invariant 3 of the loop).
//! 2. A descriptor is deregistered before it is closed, or closed by its only owner, which makes the kernel forget it.
//! 3. [`Poller::wait`] is called by the owner thread; everything else may be called from any thread.
//!
//! Edge or level: transports register edge-triggered, once ([`Poller::register`]); watched descriptors
//! (`add_reader`, `add_writer`) are level-triggered by contract ([`Poller::register_level`]).

use super::readiness::Readiness;
use crate::sys::clock::Limit;
use mio::unix::SourceFd;
use mio::{Interest, Poll, Waker};
use std::io;
use std::os::fd::{AsRawFd, RawFd};

/// Names a registration; made by the slot map of the loop's sources.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Token(pub(crate) u64);

/// What a level-triggered registration asks for; nothing at all asks for errors only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Level {
    pub(crate) read: bool,
    pub(crate) write: bool,
    /// The end of the other side, without being told of data.
    pub(crate) hang_up: bool,
}

impl From<Interest> for Level {
    fn from(interest: Interest) -> Self {
        Self { read: interest.is_readable(), write: interest.is_writable(), hang_up: false }
    }
}

/// The waker's own token: no slot map key is ever all ones.
const WAKER: u64 = u64::MAX;

pub(crate) use platform::{Events, Poller};

#[cfg(any(target_os = "linux", target_os = "android"))]
mod platform {
    use super::{AsRawFd, Interest, Level, Limit, Poll, RawFd, Readiness, SourceFd, Token, WAKER, Waker, io};
    use crate::sys::epoll;

    pub(crate) use crate::sys::epoll::Events;

    /// The poll and its waker.
    #[derive(Debug)]
    pub(crate) struct Poller {
        poll: Poll,
        waker: Waker,
    }

    impl Poller {
        pub(crate) fn new() -> io::Result<Self> {
            let poll = Poll::new()?;
            let waker = Waker::new(poll.registry(), mio::Token(usize::MAX))?;
            Ok(Self { poll, waker })
        }

        /// Waits for events.
        pub(crate) fn wait(&self, events: &mut Events, limit: Limit) -> io::Result<()> {
            epoll::wait(self.poll.as_raw_fd(), events, limit)
        }

        /// Registers a descriptor, edge-triggered. A registration that is there already is taken over.
        pub(crate) fn register(&self, fd: RawFd, token: Token, interest: Interest) -> io::Result<()> {
            match self.poll.registry().register(&mut SourceFd(&fd), super::as_mio(token), interest) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.reregister(fd, token, interest),
                answer => answer,
            }
        }

        /// Changes what an edge-triggered descriptor is registered for.
        pub(crate) fn reregister(&self, fd: RawFd, token: Token, interest: Interest) -> io::Result<()> {
            self.poll.registry().reregister(&mut SourceFd(&fd), super::as_mio(token), interest)
        }

        /// Registers a descriptor level-triggered (`add`), or changes such a registration.
        pub(crate) fn register_level(
            &self,
            fd: RawFd,
            token: Token,
            level: impl Into<Level>,
            add: bool,
        ) -> io::Result<()> {
            let level = level.into();
            let wanted =
                [(level.read, libc::EPOLLIN), (level.write, libc::EPOLLOUT), (level.hang_up, libc::EPOLLRDHUP)];
            let bits = wanted.into_iter().filter(|(is_wanted, _)| *is_wanted).fold(0, |bits, (_, bit)| bits | bit);
            epoll::control_level(self.poll.as_raw_fd(), fd, token.0, bits.cast_unsigned(), add)
        }

        pub(crate) fn deregister(&self, fd: RawFd) -> io::Result<()> {
            self.poll.registry().deregister(&mut SourceFd(&fd))
        }

        /// Ends the wait of the owner thread, or its next one.
        pub(crate) fn wake(&self) -> io::Result<()> {
            self.waker.wake()
        }

        pub(crate) fn as_raw_fd(&self) -> RawFd {
            self.poll.as_raw_fd()
        }
    }

    /// The events of the last wait, without the waker's.
    pub(crate) fn iter(events: &Events) -> impl Iterator<Item = (Token, Readiness)> + '_ {
        events
            .iter()
            .filter(|event| event.token != WAKER)
            .map(|event| (Token(event.token), Readiness::from_epoll(event.bits)))
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod platform {
    use super::{AsRawFd, Interest, Level, Limit, Poll, RawFd, Readiness, SourceFd, Token, WAKER, Waker, io};
    use std::sync::{Mutex, PoisonError};
    use std::time::Duration;

    pub(crate) use mio::Events;

    /// The poll, a second handle on its registry (a wait holds the poll itself), and the waker.
    #[derive(Debug)]
    pub(crate) struct Poller {
        poll: Mutex<Poll>,
        registry: mio::Registry,
        waker: Waker,
        fd: RawFd,
    }

    impl Poller {
        pub(crate) fn new() -> io::Result<Self> {
            let poll = Poll::new()?;
            let registry = poll.registry().try_clone()?;
            let waker = Waker::new(&registry, mio::Token(usize::MAX))?;
            let fd = poll.as_raw_fd();
            Ok(Self { poll: Mutex::new(poll), registry, waker, fd })
        }

        /// Waits for events.
        pub(crate) fn wait(&self, events: &mut Events, limit: Limit) -> io::Result<()> {
            // The poll holds no state that a panic could leave half-made.
            let mut poll = self.poll.lock().unwrap_or_else(PoisonError::into_inner);
            poll.poll(events, limit.nanoseconds().map(Duration::from_nanos))
        }

        /// Registers a descriptor, edge-triggered.
        pub(crate) fn register(&self, fd: RawFd, token: Token, interest: Interest) -> io::Result<()> {
            self.registry.register(&mut SourceFd(&fd), super::as_mio(token), interest)
        }

        /// Changes what an edge-triggered descriptor is registered for.
        pub(crate) fn reregister(&self, fd: RawFd, token: Token, interest: Interest) -> io::Result<()> {
            self.registry.reregister(&mut SourceFd(&fd), super::as_mio(token), interest)
        }

        /// Registers a descriptor for calls as long as it is ready: the loop re-arms it after every event.
        pub(crate) fn register_level(
            &self,
            fd: RawFd,
            token: Token,
            level: impl Into<Level>,
            add: bool,
        ) -> io::Result<()> {
            let level = level.into();
            // A hang-up is the end of what can be read.
            let interest = match (level.read || level.hang_up, level.write) {
                (true, true) => Interest::READABLE | Interest::WRITABLE,
                (false, true) => Interest::WRITABLE,
                (_, false) => Interest::READABLE,
            };
            if add { self.register(fd, token, interest) } else { self.reregister(fd, token, interest) }
        }

        pub(crate) fn deregister(&self, fd: RawFd) -> io::Result<()> {
            self.registry.deregister(&mut SourceFd(&fd))
        }

        /// Ends the wait of the owner thread, or its next one.
        pub(crate) fn wake(&self) -> io::Result<()> {
            self.waker.wake()
        }

        pub(crate) fn as_raw_fd(&self) -> RawFd {
            self.fd
        }
    }

    /// The events of the last wait, without the waker's.
    pub(crate) fn iter(events: &Events) -> impl Iterator<Item = (Token, Readiness)> + '_ {
        events.iter().filter(|event| event.token().0 as u64 != WAKER).map(|event| {
            let conditions = [
                (event.is_readable(), Readiness::READABLE),
                (event.is_writable(), Readiness::WRITABLE),
                (event.is_read_closed(), Readiness::READ_CLOSED),
                (event.is_error() || event.is_write_closed(), Readiness::ERROR),
            ];
            let none = Readiness::none();
            let readiness =
                conditions.into_iter().filter(|(holds, _)| *holds).fold(none, |all, (_, one)| all.union(one));
            (Token(event.token().0 as u64), readiness)
        })
    }
}

/// The events of the last wait, without the waker's.
pub(crate) fn iter(events: &Events) -> impl Iterator<Item = (Token, Readiness)> + '_ {
    platform::iter(events)
}

/// What a reader of a socket asks for: urgent data too, where an event tells of it.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) const READ: Interest = Interest::READABLE.add(Interest::PRIORITY);
/// What a reader of a socket asks for.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) const READ: Interest = Interest::READABLE;

/// Whether [`Poller::register_level`] must be repeated after each event to be told again.
pub(crate) const LEVEL_NEEDS_REARM: bool = !cfg!(any(target_os = "linux", target_os = "android"));

fn as_mio(token: Token) -> mio::Token {
    // Slot map keys are 64 bits wide; every supported platform has words of that size.
    mio::Token(usize::try_from(token.0).unwrap_or(usize::MAX - 1))
}

#[cfg(test)]
mod tests {
    use super::{Events, Level, Limit, Poller, Token, iter};
    use mio::Interest;
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    fn wait_for(poller: &Poller, nanoseconds: u64) -> Vec<Token> {
        let mut events = Events::with_capacity(8);
        let limit = if nanoseconds == 0 { Limit::Now } else { Limit::Exactly(nanoseconds) };
        poller.wait(&mut events, limit).unwrap();
        iter(&events).map(|(token, _)| token).collect()
    }

    #[test]
    fn an_edge_is_told_once_and_a_level_again() {
        let poller = Poller::new().unwrap();
        let (edge, mut to_edge) = UnixStream::pair().unwrap();
        let (level, mut to_level) = UnixStream::pair().unwrap();
        poller.register(edge.as_raw_fd(), Token(1), Interest::READABLE).unwrap();
        poller.register_level(level.as_raw_fd(), Token(2), Interest::READABLE, true).unwrap();
        to_edge.write_all(b"x").unwrap();
        to_level.write_all(b"x").unwrap();
        let mut first = wait_for(&poller, 1_000_000_000);
        first.sort_by_key(|token| token.0);
        assert_eq!(first, [Token(1), Token(2)]);
        if !super::LEVEL_NEEDS_REARM {
            assert_eq!(wait_for(&poller, 0), [Token(2)]);
        }
        poller.deregister(level.as_raw_fd()).unwrap();
        assert_eq!(wait_for(&poller, 0), []);
    }

    #[test]
    fn a_hang_up_is_told_without_data() {
        let poller = Poller::new().unwrap();
        let (socket, mut peer) = UnixStream::pair().unwrap();
        let idle = Level { read: false, write: false, hang_up: true };
        poller.register_level(socket.as_raw_fd(), Token(1), idle, true).unwrap();
        if !super::LEVEL_NEEDS_REARM {
            peer.write_all(b"x").unwrap();
            assert_eq!(wait_for(&poller, 0), []);
        }
        let (reader, writer) = std::io::pipe().unwrap();
        poller.register_level(writer.as_raw_fd(), Token(2), idle, true).unwrap();
        drop((peer, reader));
        let mut told = wait_for(&poller, 1_000_000_000);
        told.sort_by_key(|token| token.0);
        assert_eq!(told, [Token(1), Token(2)]);
    }

    #[test]
    fn a_wait_is_never_shorter_than_its_limit() {
        let poller = Poller::new().unwrap();
        let start = crate::sys::clock::monotonic();
        assert_eq!(wait_for(&poller, 300_000), []);
        assert!(crate::sys::clock::monotonic() - start >= 300_000);
    }

    #[test]
    fn waking_ends_a_wait_and_is_no_event() {
        let poller = std::sync::Arc::new(Poller::new().unwrap());
        let other = poller.clone();
        let waker = std::thread::spawn(move || other.wake().unwrap());
        assert_eq!(wait_for(&poller, 10_000_000_000), []);
        waker.join().unwrap();
    }
}
