//! Readiness of descriptors as futures: Rust code does its own input and output on the loop's poller.
//!
//! The loop watches a descriptor for a direction while a future waits for it (`add_reader`, `add_writer`), and no longer.

use super::home::Home;
use super::lock;
use super::scope::{in_scope, with_loop};
use super::time::{Signal, polling_loop};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Direction {
    Read,
    Write,
}

/// Who waits for one direction of one descriptor on one loop.
type Waiters = Arc<Mutex<HashMap<Direction, Vec<Arc<Signal>>>>>;

/// What the loop calls when the descriptor is ready.
#[pyclass(frozen, name = "RustReadiness", module = "mioloop")]
struct Ready {
    waiters: Waiters,
    event_loop: Py<PyAny>,
    fd: RawFd,
    direction: Direction,
}

#[pymethods]
impl Ready {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        let waiters = lock(&self.waiters).remove(&self.direction).unwrap_or_default();
        let outcome = unwatch(self.event_loop.bind(py), self.fd, self.direction);
        let told = in_scope(py, || waiters.iter().for_each(|signal| signal.set()));
        outcome.and(told)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.event_loop)
    }
}

fn unwatch(event_loop: &Bound<'_, PyAny>, fd: RawFd, direction: Direction) -> PyResult<()> {
    let py = event_loop.py();
    let name = match direction {
        Direction::Read => intern!(py, "remove_reader"),
        Direction::Write => intern!(py, "remove_writer"),
    };
    event_loop.call_method1(name, (fd,)).map(drop)
}

/// Something with a descriptor that Rust code reads and writes itself, told by the loop's poller when it may.
///
/// The descriptor should be non-blocking: readiness is a hint. Several futures may wait for it. While one waits, Python
/// code must not watch the same descriptor.
///
/// # Examples
///
/// ```
/// use mioloop::embed::{self, AsyncFd};
/// use std::io::{Read, Write};
/// use std::os::unix::net::UnixStream;
///
/// # fn main() -> pyo3::PyResult<()> {
/// embed::start()?;
/// let (receiver, mut sender) = UnixStream::pair()?;
/// receiver.set_nonblocking(true)?;
/// let receiver = AsyncFd::new(receiver);
/// let received = embed::block_on(async move {
///     sender.write_all(b"hello")?;
///     let mut room = [0; 16];
///     let count = receiver.read_with(|mut socket| socket.read(&mut room)).await?;
///     pyo3::PyResult::Ok(room[..count].to_vec())
/// })??;
/// assert_eq!(received, b"hello");
/// # Ok(())
/// # }
/// ```
pub struct AsyncFd<T: AsFd> {
    inner: T,
    waiters: Waiters,
}

impl<T: AsFd> AsyncFd<T> {
    /// Wraps it. Nothing is asked of a loop before something waits.
    pub fn new(inner: T) -> Self {
        Self { inner, waiters: Waiters::default() }
    }

    /// What was wrapped.
    pub fn get_ref(&self) -> &T {
        &self.inner
    }

    /// Unwraps it.
    pub fn into_inner(self) -> T {
        self.inner
    }

    /// Waits until there is something to read, the other side has closed, or there is an error.
    ///
    /// # Errors
    ///
    /// The future's: `RuntimeError` where no asyncio loop polls it, or a transport has the descriptor; `OSError`
    /// (`PermissionError`) for a regular file.
    pub fn readable(&self) -> Readiness<'_> {
        self.ready(Direction::Read)
    }

    /// Waits until there is room to write, or an error.
    ///
    /// # Errors
    ///
    /// As for [`Self::readable`].
    pub fn writable(&self) -> Readiness<'_> {
        self.ready(Direction::Write)
    }

    /// Reads: makes the call, and makes it again when there is something to read, as long as it says that it would block.
    ///
    /// # Errors
    ///
    /// Those of the call, and those of [`Self::readable`].
    pub async fn read_with<R>(&self, mut call: impl FnMut(&T) -> io::Result<R>) -> PyResult<R> {
        self.retry(Direction::Read, &mut call).await
    }

    /// Writes: makes the call, and makes it again when there is room, as long as it says that it would block.
    ///
    /// # Errors
    ///
    /// Those of the call, and those of [`Self::writable`].
    pub async fn write_with<R>(&self, mut call: impl FnMut(&T) -> io::Result<R>) -> PyResult<R> {
        self.retry(Direction::Write, &mut call).await
    }

    async fn retry<R>(&self, direction: Direction, call: &mut impl FnMut(&T) -> io::Result<R>) -> PyResult<R> {
        loop {
            match call(&self.inner) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.ready(direction).await?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(super::os_error(&error)),
                Ok(value) => return Ok(value),
            }
        }
    }

    fn ready(&self, direction: Direction) -> Readiness<'_> {
        Readiness { fd: self.inner.as_fd(), waiters: Arc::clone(&self.waiters), direction, waiting: None }
    }
}

impl<T: AsFd + fmt::Debug> fmt::Debug for AsyncFd<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("AsyncFd").field(&self.inner).finish()
    }
}

/// Waits until a descriptor is ready: a future, made by [`AsyncFd::readable`] and [`AsyncFd::writable`].
pub struct Readiness<'a> {
    fd: BorrowedFd<'a>,
    waiters: Waiters,
    direction: Direction,
    waiting: Option<(Arc<Signal>, Arc<Home>)>,
}

impl Readiness<'_> {
    fn begin(&self) -> PyResult<(Arc<Signal>, Arc<Home>)> {
        let signal = Arc::new(Signal::default());
        let fd = self.fd.as_raw_fd();
        let home = polling_loop(|home, event_loop| {
            let is_first = {
                let mut waiters = lock(&self.waiters);
                let waiters = waiters.entry(self.direction).or_default();
                waiters.push(Arc::clone(&signal));
                waiters.len() == 1
            };
            if is_first {
                self.watch(event_loop, fd).inspect_err(|_| {
                    lock(&self.waiters).remove(&self.direction);
                })?;
            }
            Ok(Arc::clone(home))
        })?;
        Ok((signal, home))
    }

    fn watch(&self, event_loop: &Bound<'_, PyAny>, fd: RawFd) -> PyResult<()> {
        let py = event_loop.py();
        let waiters = Arc::clone(&self.waiters);
        let ready = Ready { waiters, event_loop: event_loop.clone().unbind(), fd, direction: self.direction };
        let name = match self.direction {
            Direction::Read => intern!(py, "add_reader"),
            Direction::Write => intern!(py, "add_writer"),
        };
        event_loop.call_method1(name, (fd, Py::new(py, ready)?)).map(drop)
    }
}

impl Future for Readiness<'_> {
    /// Nothing, or why nobody watches the descriptor.
    type Output = PyResult<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.waiting.is_none() {
            match self.begin() {
                Ok(waiting) => self.waiting = Some(waiting),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        match &self.waiting {
            Some((signal, _)) => signal.poll(cx).map(Ok),
            None => Poll::Pending,
        }
    }
}

impl Drop for Readiness<'_> {
    fn drop(&mut self) {
        let Some((signal, home)) = self.waiting.take() else { return };
        if signal.poll(&Context::from_waker(Waker::noop())).is_ready() {
            return;
        }
        let is_last = {
            let mut waiters = lock(&self.waiters);
            let Some(signals) = waiters.get_mut(&self.direction) else { return };
            signals.retain(|other| !Arc::ptr_eq(other, &signal));
            let is_last = signals.is_empty();
            if is_last {
                waiters.remove(&self.direction);
            }
            is_last
        };
        if is_last {
            let (fd, direction) = (self.fd.as_raw_fd(), self.direction);
            with_loop(&home, move |event_loop| {
                if let Err(error) = unwatch(event_loop, fd, direction) {
                    error.write_unraisable(event_loop.py(), None);
                }
            });
        }
    }
}

impl fmt::Debug for Readiness<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Readiness").field("fd", &self.fd).field("direction", &self.direction).finish()
    }
}
