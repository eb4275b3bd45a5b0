//! Sockets that a `sock_*` call waits for.
//!
//! Owns, per descriptor, the future of who waits to read and of who waits to write. A future is resolved once, by an
//! event, and is forgotten then; whoever awaits it makes the system call. Rules:
//!
//! 1. The registration is edge-triggered and stays when nobody waits: the next wait finds it and costs no system call.
//!    An event that nobody waits for narrows it to what is waited for, or ends it.
//! 2. A kept registration counts only for the socket object that it was made for, which a weak reference tells: a closed
//!    socket's number is used again, and the kernel has forgotten what stood under it.
//! 3. One future for each direction; a newer one takes the place, as in asyncio. Who is cancelled takes back only its own.
//! 4. A transport or listener, and `add_reader()` and `add_writer()`, take the descriptor over: who waits is woken, and
//!    tries again.

use super::Loop;
use super::owned::{Owned, Registered, Runnable};
use super::watch::Direction;
use crate::errors;
use crate::reactor::poller::{Poller, Token};
use crate::reactor::readiness::Readiness;
use mio::Interest;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;

/// Who waits for one descriptor.
#[derive(Debug)]
pub(crate) struct Waits {
    fd: RawFd,
    /// A weak reference to the socket that the registration was made for; None: it counts for nobody.
    owner: Option<Py<PyAny>>,
    reader: Option<Py<PyAny>>,
    writer: Option<Py<PyAny>>,
    /// What the kernel was asked for.
    armed: Option<Interest>,
}

impl Waits {
    fn place(&mut self, direction: Direction) -> &mut Option<Py<PyAny>> {
        match direction {
            Direction::Read => &mut self.reader,
            Direction::Write => &mut self.writer,
        }
    }

    /// What is waited for.
    fn interest(&self) -> Option<Interest> {
        match (self.reader.is_some(), self.writer.is_some()) {
            (true, true) => Some(Interest::READABLE | Interest::WRITABLE),
            (true, false) => Some(Interest::READABLE),
            (false, true) => Some(Interest::WRITABLE),
            (false, false) => None,
        }
    }

    fn is_armed(&self, direction: Direction) -> bool {
        self.armed.is_some_and(|armed| match direction {
            Direction::Read => armed.is_readable(),
            Direction::Write => armed.is_writable(),
        })
    }

    /// What to ask the kernel for at a new wait. Reading stays asked for: its next event is wanted most often. That a
    /// Unix socket is writable would be told after each send.
    fn wanted(&self) -> Option<Interest> {
        match (self.interest(), self.is_armed(Direction::Read)) {
            (Some(interest), true) => Some(interest | Interest::READABLE),
            (interest, _) => interest,
        }
    }

    /// Wakes those whom a readiness concerns; false if that is nobody.
    pub(super) fn wake(&mut self, readiness: Readiness, ready: &mut VecDeque<Runnable>) -> bool {
        let reader = if readiness.is_readable() { self.reader.take() } else { None };
        let writer = if readiness.is_writable() { self.writer.take() } else { None };
        let is_anybody = reader.is_some() || writer.is_some();
        ready.extend([reader, writer].into_iter().flatten().map(Runnable::Resolve));
        is_anybody
    }

    /// Wakes everybody: the descriptor is somebody else's now.
    pub(super) fn wake_all(mut self, ready: &mut VecDeque<Runnable>) {
        ready.extend([self.reader.take(), self.writer.take()].into_iter().flatten().map(Runnable::Resolve));
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        [&self.owner, &self.reader, &self.writer].into_iter().try_for_each(|object| visit.call(object))
    }
}

/// What became of a wait.
pub(crate) enum Waiting {
    /// An event will resolve the future.
    Begun,
    /// Somebody watches the descriptor by `add_reader()` or `add_writer()`: the wait must do the same.
    Watched,
}

impl Loop {
    /// Has `future` resolved when the descriptor is ready. `owner`: a weak reference to the socket, if a registration
    /// may be kept for it.
    pub(crate) fn wait(
        &self,
        py: Python<'_>,
        fd: RawFd,
        direction: Direction,
        future: Py<PyAny>,
        owner: Option<Py<PyAny>>,
    ) -> PyResult<Waiting> {
        let shared = self.shared(py)?;
        let (outcome, dead) = self.owned.with(py, |owned| owned.wait(&shared.poller, fd, direction, future, owner));
        // What was replaced dies outside the cell.
        drop(dead);
        outcome.map_err(|error| errors::os_error(py, &error))
    }

    /// Takes a wait back, if it is still there; then the kernel is asked for what others wait for, and no more.
    pub(crate) fn end_wait(&self, py: Python<'_>, fd: RawFd, direction: Direction, future: &Py<PyAny>) {
        let Some(shared) = self.shared_or_closed(py) else { return };
        let dead = self.owned.with(py, |owned| {
            let token = owned.token_of(fd)?;
            let Some(Registered::Waits(waits)) = owned.get_mut(token) else { return None };
            let place = waits.place(direction);
            let taken = if place.as_ref().is_some_and(|waiting| waiting.is(future)) { place.take() } else { None };
            Some((taken, owned.narrow(&shared.poller, token)))
        });
        drop(dead);
    }

    /// After an event that nobody waited for.
    pub(super) fn narrow(&self, py: Python<'_>, token: Token) {
        let Some(shared) = self.shared_or_closed(py) else { return };
        drop(self.owned.with(py, |owned| owned.narrow(&shared.poller, token)));
    }

    /// Lets go of a descriptor that somebody is about to watch: who waits is woken, and tries again. But a reader or
    /// writer takes the place of a wait for the same thing, as in asyncio.
    pub(super) fn release_waits(&self, py: Python<'_>, fd: RawFd, replaced: Option<Direction>) {
        let Some(shared) = self.shared_or_closed(py) else { return };
        let replaced = self.owned.with(py, |owned| {
            let token = owned.token_of(fd)?;
            let Some(Registered::Waits(waits)) = owned.get_mut(token) else { return None };
            let replaced = replaced.and_then(|direction| waits.place(direction).take());
            if let Some(Registered::Waits(waits)) = owned.remove(fd, token) {
                waits.wake_all(&mut owned.ready);
            }
            // An error: the kernel has forgotten the descriptor by itself.
            drop(shared.poller.deregister(fd));
            replaced
        });
        drop(replaced);
    }
}

/// What dies outside the cell.
type Dead = (Option<Py<PyAny>>, Option<Py<PyAny>>);

impl Owned {
    fn wait(
        &mut self,
        poller: &Poller,
        fd: RawFd,
        direction: Direction,
        future: Py<PyAny>,
        owner: Option<Py<PyAny>>,
    ) -> (io::Result<Waiting>, Dead) {
        let known = self.token_of(fd).and_then(|token| self.get_mut(token).map(|registered| (token, registered)));
        let Some((mut token, registered)) = known else {
            let waits = Waits { fd, owner, reader: None, writer: None, armed: None };
            let token = self.insert(fd, Registered::Waits(waits));
            return self.begin_wait(poller, token, direction, future, None);
        };
        let Registered::Waits(waits) = registered else {
            return (Ok(Waiting::Watched), (Some(future), owner));
        };
        let is_same = owner.as_ref().zip(waits.owner.as_ref()).is_some_and(|(owner, known)| owner.is(known));
        if is_same && waits.is_armed(direction) {
            let replaced = waits.place(direction).replace(future);
            return (Ok(Waiting::Begun), (replaced, owner));
        }
        let old = std::mem::replace(&mut waits.owner, owner);
        if !is_same {
            // Perhaps another file, and events of the old one may be under way: they must find nothing.
            waits.armed = None;
            if let Some(waits) = self.remove(fd, token) {
                token = self.insert(fd, waits);
            }
        }
        self.begin_wait(poller, token, direction, future, old)
    }

    fn begin_wait(
        &mut self,
        poller: &Poller,
        token: Token,
        direction: Direction,
        future: Py<PyAny>,
        old: Option<Py<PyAny>>,
    ) -> (io::Result<Waiting>, Dead) {
        let Some(Registered::Waits(waits)) = self.get_mut(token) else {
            return (Ok(Waiting::Watched), (Some(future), old));
        };
        let replaced = waits.place(direction).replace(future);
        let wanted = waits.wanted().unwrap_or(Interest::READABLE);
        let outcome = waits.arm(poller, token, wanted);
        let Err(error) = outcome else { return (Ok(Waiting::Begun), (replaced, old)) };
        let future = waits.place(direction).take();
        waits.armed = None;
        // Also who else waits for it would wait in vain.
        let fd = waits.fd;
        if let Some(Registered::Waits(waits)) = self.remove(fd, token) {
            waits.wake_all(&mut self.ready);
        }
        (Err(error), (future, replaced.or(old)))
    }

    /// Asks the kernel for what is waited for, and forgets a descriptor that nobody waits for.
    fn narrow(&mut self, poller: &Poller, token: Token) -> Option<Registered> {
        let Some(Registered::Waits(waits)) = self.get_mut(token) else { return None };
        let fd = waits.fd;
        let Some(interest) = waits.interest() else {
            // An error: the kernel has forgotten the descriptor by itself.
            drop(poller.deregister(fd));
            return self.remove(fd, token);
        };
        if waits.armed != Some(interest) {
            // An error: closed behind the loop's back, and then there is nothing to be told.
            drop(waits.arm(poller, token, interest));
        }
        None
    }
}

impl Waits {
    /// Registers for what is wanted. The kernel looks at the descriptor then: what is ready already is told too.
    fn arm(&mut self, poller: &Poller, token: Token, wanted: Interest) -> io::Result<()> {
        let outcome = if self.armed.is_some() {
            match poller.reregister(self.fd, token, wanted) {
                // Closed behind the loop's back, and the number is used again.
                Err(error) if error.kind() == io::ErrorKind::NotFound => poller.register(self.fd, token, wanted),
                answer => answer,
            }
        } else {
            poller.register(self.fd, token, wanted)
        };
        outcome.inspect(|()| self.armed = Some(wanted))
    }
}
