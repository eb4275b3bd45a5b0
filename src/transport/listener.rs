//! Accepting connections.
//!
//! Owns nothing of the listening socket: that is the `asyncio.Server`'s, which starts and stops its listeners. Rules:
//!
//! 1. Options that connections inherit (`TCP_NODELAY`) are set once, on the listening socket (tcp(7)).
//! 2. Out of descriptors or memory: reported, then accepting stops for a second and goes on (asyncio's rule).
//! 3. One connection that cannot be set up does not end the listener.

use super::endpoint::Endpoint;
use super::stream::{Beginning, Stream};
use super::tls::{self, Tls};
use crate::errors;
use crate::event_loop::Loop;
use crate::event_loop::core::error_context;
use crate::event_loop::owned::{Registered, Runnable};
use crate::event_loop::run::{Run, is_exit};
use crate::event_loop::source::{Event, Source};
use crate::py::cell::OwnerCell;
use crate::py::{address, context, names};
use crate::reactor::poller::Token;
use crate::sys::socket::{self, Address};
use mio::Interest;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::{fs, io};

/// `asyncio.constants.ACCEPT_RETRY_DELAY`, in seconds.
const RETRY_DELAY: u32 = 1;

/// A listening socket that is served. Made by the loop's `_start_serving`.
#[pyclass(frozen, module = "mioloop._core")]
#[derive(Debug)]
pub(crate) struct Listener {
    core: Py<Loop>,
    sock: Py<PyAny>,
    fd: RawFd,
    family: i32,
    /// The address of every connection, unless the host is a wildcard.
    local: Option<Address>,
    handler: Handler,
    /// At most so many connections are accepted before others have their turn.
    backlog: usize,
    context: Py<PyAny>,
    is_context_given: bool,
    /// Some while connections are accepted.
    token: OwnerCell<Option<Token>>,
}

/// What becomes of a connection.
#[derive(Debug)]
enum Handler {
    /// A transport of ours, with a protocol of the factory's.
    Stream { factory: Py<PyAny>, server: Py<PyAny> },
    /// A transport of ours under a TLS transport, which has the protocol.
    Tls { factory: Py<PyAny>, server: Py<PyAny>, security: Security },
}

/// What TLS connections are made with.
#[derive(Debug, FromPyObject)]
struct Security(Py<PyAny>, Py<PyAny>, Py<PyAny>);

impl Listener {
    pub(crate) fn on_event(slf: &Bound<'_, Self>, run: &mut Run<'_, '_>, event: Event) -> PyResult<()> {
        match event {
            Event::Ready(_) | Event::Continue => Self::accept_all(slf, run),
            Event::Start | Event::Lost => Ok(()),
        }
    }

    /// `BaseSelectorEventLoop._accept_connection`
    fn accept_all(slf: &Bound<'_, Self>, run: &mut Run<'_, '_>) -> PyResult<()> {
        let py = slf.py();
        let listener = slf.get();
        for _ in 0..=listener.backlog {
            if listener.token.with(py, |token| token.is_none()) {
                return Ok(());
            }
            match socket::accept(listener.fd) {
                Ok((fd, peer)) => Self::set_up(slf, run, fd, peer)?,
                Err(error) => match error.raw_os_error() {
                    Some(libc::ECONNABORTED | libc::EINTR) => {}
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                        return Self::retry_later(slf, run, &error);
                    }
                    _ if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                    number => {
                        if is_end(number) {
                            listener.stop(py);
                        }
                        let error = errors::os_error(py, &error);
                        let context = error_context(py, "Exception in callback Listener.accept()", &error)?;
                        run.call_exception_handler(&context)?;
                    }
                },
            }
        }
        // An edge is not told again: the rest waits for the next turn.
        let source = Source::Listener(slf.clone().unbind());
        listener.core.get().make_ready(py, Runnable::Event(source, Event::Continue));
        Ok(())
    }

    /// Makes a connection of a descriptor; `BaseSelectorEventLoop._accept_connection2`.
    fn set_up(slf: &Bound<'_, Self>, run: &mut Run<'_, '_>, fd: OwnedFd, peer: Address) -> PyResult<()> {
        let py = slf.py();
        let listener = slf.get();
        let context = context::copy(py, &listener.context)?;
        run.entered.switch(py, &context)?;
        if listener.core.get().is_debug() {
            listener.log_accepted(py, &fd, &peer)?;
        }
        let context = listener.is_context_given.then_some(context);
        let begun = Self::begin(listener.core.bind(py), listener, fd, peer, context);
        match begun {
            Err(error) if is_exit(py, &error) => Err(error),
            // asyncio keeps quiet about it, except in debug mode.
            Err(error) if listener.core.get().is_debug() => {
                let message = "Error on transport creation for incoming connection";
                run.call_exception_handler(&error_context(py, message, &error)?)
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn begin(
        core: &Bound<'_, Loop>,
        listener: &Self,
        fd: OwnedFd,
        peer: Address,
        context: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        let py = core.py();
        let endpoint = Endpoint::accepted(fd, listener.family, listener.local.clone(), peer);
        let (factory, server, security) = match &listener.handler {
            Handler::Stream { factory, server } => (factory, server, None),
            Handler::Tls { factory, server, security } => (factory, server, Some(security)),
        };
        let protocol = factory.bind(py).call0()?;
        let protocol = match security {
            None => protocol,
            Some(security) => security.wrap(core, &protocol)?.into_any(),
        };
        let server = Some(server.bind(py));
        let beginning = Beginning { endpoint, protocol: &protocol, waiter: None, extra: None, server, context };
        Stream::begin(core, beginning).map(drop)
    }

    /// A line for the log of asyncio, which shows the connection as a socket object.
    #[cold]
    fn log_accepted(&self, py: Python<'_>, fd: &OwnedFd, peer: &Address) -> PyResult<()> {
        let sock = self.sock.bind(py);
        let kind = [intern!(py, "family"), intern!(py, "type"), intern!(py, "proto")].map(|name| sock.getattr(name));
        let [family, kind, proto] = kind;
        let shown = names::SOCKET.get(py)?.call1((family?, kind?, proto?, fd.as_raw_fd()))?;
        let text = shown.repr();
        // The descriptor is not the object's.
        shown.call_method0(intern!(py, "detach"))?;
        let (Handler::Stream { server, .. } | Handler::Tls { server, .. }) = &self.handler;
        let arguments = ("%r got a new connection from %r: %s", server, address::to_object(py, peer)?, text?);
        names::logger(py, "asyncio.selector_events")?.call_method1(intern!(py, "debug"), arguments).map(drop)
    }

    #[cold]
    fn retry_later(slf: &Bound<'_, Self>, run: &mut Run<'_, '_>, error: &io::Error) -> PyResult<()> {
        let py = slf.py();
        let listener = slf.get();
        listener.stop(py);
        let error = errors::os_error(py, error);
        let context = error_context(py, "socket.accept() out of system resource", &error)?;
        context.set_item("socket", names::TRANSPORT_SOCKET.get(py)?.call1((&listener.sock,))?)?;
        run.call_exception_handler(&context)?;
        let start = slf.getattr(intern!(py, "_resume"))?;
        let core = listener.core.bind(py);
        core.call_method1(intern!(py, "call_later"), (RETRY_DELAY, start)).map(drop)
    }
}

/// Whether there will be nothing to accept any more: the descriptor was closed behind the loop's back, or does not
/// listen. Other errors are those of one connection, which the kernel has taken off its queue (accept(2)).
fn is_end(number: Option<i32>) -> bool {
    matches!(number, None | Some(libc::EBADF | libc::EINVAL | libc::ENOTSOCK | libc::EOPNOTSUPP | libc::EFAULT))
}

impl Security {
    fn wrap<'py>(&self, core: &Bound<'py, Loop>, protocol: &Bound<'py, PyAny>) -> PyResult<Bound<'py, Tls>> {
        let py = core.py();
        let Self(context, handshake_timeout, shutdown_timeout) = self;
        let beginning = tls::Beginning {
            protocol,
            context: Some(context.bind(py)),
            waiter: None,
            server_side: true,
            server_hostname: None,
            calls_connection_made: true,
            handshake_timeout: Some(handshake_timeout.bind(py)).filter(|timeout| !timeout.is_none()),
            shutdown_timeout: Some(shutdown_timeout.bind(py)).filter(|timeout| !timeout.is_none()),
            is_accepted: true,
        };
        Tls::begin(core, beginning)
    }
}

#[pymethods]
impl Listener {
    /// Serves `sock`, which listens. `tls`: the SSLContext of its connections, and the time-outs of their hand-shakes
    /// and farewells.
    #[new]
    #[pyo3(signature = (core, sock, factory, server, backlog, tls=None, context=None))]
    fn new<'py>(
        core: &Bound<'py, Loop>,
        sock: &Bound<'py, PyAny>,
        factory: Py<PyAny>,
        server: Py<PyAny>,
        backlog: isize,
        tls: Option<Security>,
        context: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, Self>> {
        let py = core.py();
        core.get().check_open()?;
        let fd: RawFd = sock.call_method0(intern!(py, "fileno"))?.extract()?;
        let family = sock.getattr(intern!(py, "family"))?.extract()?;
        if matches!(family, libc::AF_INET | libc::AF_INET6) {
            // An error: not TCP, and then there is no such option to want.
            drop(socket::set_no_delay(fd));
        }
        let is_context_given = context.is_some();
        let listener = Self {
            core: core.clone().unbind(),
            sock: sock.clone().unbind(),
            fd,
            family,
            local: socket::local_address(fd).ok().filter(|address| !address.is_wildcard()),
            handler: match tls {
                Some(security) => Handler::Tls { factory, server, security },
                None => Handler::Stream { factory, server },
            },
            // listen(2) takes a negative number for none, and so does asyncio.
            backlog: usize::try_from(backlog).unwrap_or(0),
            context: context.map_or_else(|| context::copy_current(py), Ok)?,
            is_context_given,
            token: OwnerCell::new(None),
        };
        Bound::new(py, listener)
    }

    /// Starts accepting.
    fn start(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let listener = slf.get();
        let core = listener.core.get();
        let shared = core.shared(py)?;
        let source = Registered::Source(Source::Listener(slf.clone().unbind()));
        let token = core.owned.with(py, |owned| owned.insert(listener.fd, source));
        listener.token.with(py, |place| *place = Some(token));
        shared.poller.register(listener.fd, token, Interest::READABLE).map_err(|error| {
            listener.forget(py);
            errors::os_error(py, &error)
        })
    }

    /// Stops accepting.
    fn stop(&self, py: Python<'_>) {
        if self.token.with(py, |token| token.is_some())
            && let Some(shared) = self.core.get().shared_or_closed(py)
        {
            // An error: the kernel has forgotten the descriptor by itself.
            drop(shared.poller.deregister(self.fd));
        }
        self.forget(py);
    }

    /// Starts again after a shortage, unless the server was closed meanwhile.
    fn _resume(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let is_open: RawFd = slf.get().sock.call_method0(py, intern!(py, "fileno"))?.extract(py)?;
        if is_open == slf.get().fd && slf.get().token.with(py, |token| token.is_none()) {
            Self::start(slf)?;
        }
        Ok(())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.core)?;
        visit.call(&self.sock)?;
        visit.call(&self.context)?;
        match &self.handler {
            Handler::Stream { factory, server } => {
                visit.call(factory)?;
                visit.call(server)
            }
            Handler::Tls { factory, server, security } => {
                visit.call(factory)?;
                visit.call(server)?;
                let Security(context, handshake_timeout, shutdown_timeout) = security;
                [context, handshake_timeout, shutdown_timeout].into_iter().try_for_each(|object| visit.call(object))
            }
        }
    }
}

impl Listener {
    fn forget(&self, py: Python<'_>) {
        if let Some(token) = self.token.with(py, Option::take) {
            drop(self.core.get().owned.with(py, |owned| owned.remove(self.fd, token)));
        }
    }
}

/// Removes the file of a Unix socket that was listened on, unless it is another one's by now (another inode).
///
/// Not by functions of `os`: tools that look for calls that block know asyncio's file by its name, and not ours.
#[pyfunction]
pub(crate) fn remove_socket_file(py: Python<'_>, path: PathBuf, inode: u64) -> PyResult<()> {
    let removed =
        fs::metadata(&path).and_then(|facts| if facts.ino() == inode { fs::remove_file(path) } else { Ok(()) });
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(errors::os_error(py, &error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::is_end;

    #[test]
    fn the_error_of_one_connection_does_not_end_the_listener() {
        assert!([libc::EBADF, libc::EINVAL, libc::ENOTSOCK].into_iter().all(|number| is_end(Some(number))));
        // From accept(2): what the network had to say, and a firewall.
        let passing = [libc::EPROTO, libc::EPERM, libc::ENETDOWN, libc::EHOSTUNREACH, libc::ETIMEDOUT];
        assert!(!passing.into_iter().any(|number| is_end(Some(number))));
    }
}
