//! What the loop's `sock_*` methods return: an object that is awaited like a coroutine.
//!
//! Owns the work that is to be done and, while it waits, its place in the poller. asyncio takes it for a coroutine, since
//! it has the methods of one (`collections.abc.Coroutine`).
//!
//! ```text
//!  new ──step──► running ──done, error──► done
//!                 ▲   │                    ▲
//!             step│   │must wait           │throw, close
//!                 │   ▼                    │
//!                waiting ──────────────────┘
//! ```

use super::work::{Attempt, Work};
use crate::event_loop::owned::Runnable;
use crate::event_loop::wait::Waiting;
use crate::event_loop::watch::Direction;
use crate::event_loop::{Loop, tasks};
use crate::py::cell::OwnerCell;
use crate::py::coroutine::{self, Awaitable, Phase, Step, define_slots};
use crate::py::names;
use crate::transport::stream::Stream;
use pyo3::exceptions::PyRuntimeWarning;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyType, PyWeakrefReference};
use std::ffi::CString;
use std::os::fd::RawFd;

/// A system call that waits for its socket; made by the loop's `sock_*` methods.
#[pyclass(frozen, weakref, name = "SocketOperation", module = "mioloop._core")]
#[derive(Debug)]
pub(crate) struct Operation {
    core: Py<Loop>,
    /// The method that made it.
    name: &'static str,
    state: OwnerCell<State>,
}

/// What is worked on.
#[derive(Debug)]
pub(super) enum Target {
    /// A socket object; plain: exactly of the class `socket.socket`.
    Socket {
        sock: Py<PyAny>,
        is_plain: bool,
    },
    Stream(Py<Stream>),
}

#[derive(Debug)]
enum State {
    New(Target, Work),
    Running,
    Waiting(Target, Work, Place),
    Done,
}

/// Where a wait is noted.
#[derive(Debug)]
enum Place {
    Poller {
        fd: RawFd,
        direction: Direction,
        future: Py<PyAny>,
    },
    /// As a reader or writer beside others: its handle.
    Watch {
        fd: RawFd,
        direction: Direction,
        handle: Py<PyAny>,
    },
    /// Somewhere that needs no removal.
    Elsewhere,
}

impl Operation {
    #[inline]
    pub(super) fn begin<'py>(
        core: &Bound<'py, Loop>,
        name: &'static str,
        target: Target,
        work: Work,
    ) -> PyResult<Bound<'py, Self>> {
        let state = OwnerCell::new(State::New(target, work));
        Bound::new(core.py(), Self { core: core.clone().unbind(), name, state })
    }

    /// Takes the work out, to go on with it.
    #[inline]
    fn take(&self, py: Python<'_>) -> PyResult<(Target, Work, Place)> {
        let state = self.state.with(py, |state| std::mem::replace(state, State::Running));
        match state {
            State::New(target, work) => Ok((target, work, Place::Elsewhere)),
            State::Waiting(target, work, place) => Ok((target, work, place)),
            State::Running => Err(coroutine::executing()),
            State::Done => {
                self.put(py, State::Done);
                Err(coroutine::reused())
            }
        }
    }

    #[inline]
    fn put(&self, py: Python<'_>, new: State) {
        // What is replaced is `Running`, which holds nothing.
        drop(self.state.with(py, |state| std::mem::replace(state, new)));
    }

    /// Goes on; an error, too, ends the operation.
    #[inline]
    fn go_on<'py>(&self, py: Python<'py>) -> PyResult<Step<'py>> {
        let (target, mut work, place) = self.take(py)?;
        let core = self.core.bind(py);
        let outcome = place.end_watch(core).and_then(|()| self.attempt(core, &target, &mut work));
        match outcome {
            Ok((Step::Wait(future), place)) => {
                self.put(py, State::Waiting(target, work, place));
                Ok(Step::Wait(future))
            }
            Ok((done, _)) => {
                self.put(py, State::Done);
                Ok(done)
            }
            Err(error) => {
                self.put(py, State::Done);
                Err(error)
            }
        }
    }

    #[inline]
    fn attempt<'py>(&self, core: &Bound<'py, Loop>, target: &Target, work: &mut Work) -> PyResult<(Step<'py>, Place)> {
        let py = core.py();
        let (number, fd) = target.descriptor(py)?;
        let attempt = match target {
            Target::Socket { sock, .. } => work.attempt(core, sock.bind(py), fd)?,
            Target::Stream(_) => work.attempt(core, py.None().bind(py), fd)?,
        };
        let direction = match attempt {
            Attempt::Done(value) => return Ok((Step::Done(value), Place::Elsewhere)),
            Attempt::Blocked(direction) => Some(direction),
            Attempt::Paused => None,
        };
        let (future, place) = match (direction, target) {
            (None, _) => {
                let future = tasks::new_future(core)?;
                core.get().make_ready(py, Runnable::Resolve(future.clone().unbind()));
                (future, Place::Elsewhere)
            }
            (Some(_), Target::Stream(stream)) => (Stream::wait_writable(stream.bind(py))?, Place::Elsewhere),
            (Some(direction), Target::Socket { sock, is_plain }) => {
                let future = tasks::new_future(core)?;
                Loop::check_no_transport(core, &number)?;
                let owner = if *is_plain { Some(sock.bind(py)) } else { None };
                let place = wait(core, fd, direction, &future, owner)?;
                (future, place)
            }
        };
        // What awaiting the future itself would do: a Task waits for it.
        future.setattr(intern!(py, "_asyncio_future_blocking"), true)?;
        Ok((Step::Wait(future), place))
    }

    fn end_here(&self, py: Python<'_>) -> PyResult<()> {
        let (target, work, place) = self.take(py)?;
        self.put(py, State::Done);
        let core = self.core.bind(py);
        if let Place::Poller { fd, direction, future } = &place {
            core.get().end_wait(py, *fd, *direction, future);
        }
        let ended = place.end_watch(core);
        let left = work.abandon(py);
        drop((target, work));
        ended.and(left)
    }
}

impl Target {
    /// The descriptor: as `fileno()` gives it, and as a number. -1: it is closed.
    #[inline]
    fn descriptor<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, RawFd)> {
        match self {
            Self::Socket { sock, .. } => {
                let number = sock.bind(py).call_method0(intern!(py, "fileno"))?;
                let fd = number.extract()?;
                Ok((number, fd))
            }
            Self::Stream(stream) => {
                let fd = stream.get().open_fd(py)?;
                Ok((fd.into_pyobject(py)?.into_any(), fd))
            }
        }
    }

    fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Self::Socket { sock, .. } => visit.call(sock),
            Self::Stream(stream) => visit.call(stream),
        }
    }
}

impl Place {
    /// Removes a reader or writer; one that was replaced is somebody else's.
    #[inline]
    fn end_watch(&self, core: &Bound<'_, Loop>) -> PyResult<()> {
        let Self::Watch { fd, direction, handle } = self else { return Ok(()) };
        let py = core.py();
        if !handle.call_method0(py, intern!(py, "cancelled"))?.is_truthy(py)? {
            core.get().unwatch(py, *fd, *direction)?;
        }
        Ok(())
    }
}

/// Has the future resolved when the descriptor is ready.
fn wait(
    core: &Bound<'_, Loop>,
    fd: RawFd,
    direction: Direction,
    future: &Bound<'_, PyAny>,
    sock: Option<&Bound<'_, PyAny>>,
) -> PyResult<Place> {
    let py = core.py();
    // Without a callback, an object has one weak reference, which is known by its identity.
    let owner = sock.map(PyWeakrefReference::new).transpose()?.map(|owner| owner.into_any().unbind());
    match core.get().wait(py, fd, direction, future.clone().unbind(), owner)? {
        Waiting::Begun => Ok(Place::Poller { fd, direction, future: future.clone().unbind() }),
        Waiting::Watched => {
            let method = match direction {
                Direction::Read => intern!(py, "_add_reader"),
                Direction::Write => intern!(py, "_add_writer"),
            };
            let resolve = names::SET_RESULT_UNLESS_CANCELLED.get(py)?;
            let handle = core.call_method1(method, (fd, resolve, future, py.None()))?.unbind();
            Ok(Place::Watch { fd, direction, handle })
        }
    }
}

impl Awaitable for Operation {
    #[inline]
    fn phase(&self, py: Python<'_>) -> Phase {
        self.state.with(py, |state| match state {
            State::New(..) => Phase::New,
            State::Running => Phase::Running,
            State::Waiting(..) => Phase::Waiting,
            State::Done => Phase::Done,
        })
    }

    #[inline]
    fn step<'py>(slf: &Bound<'py, Self>) -> PyResult<Step<'py>> {
        slf.get().go_on(slf.py())
    }

    fn abandon(slf: &Bound<'_, Self>) -> PyResult<()> {
        slf.get().end_here(slf.py())
    }
}

#[pymethods]
impl Operation {
    fn __await__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, Self>> {
        coroutine::begin(slf)
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        coroutine::next(slf)
    }

    /// Goes on; only None can be sent.
    fn send<'py>(slf: &Bound<'py, Self>, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        coroutine::send(slf, value)
    }

    /// Ends it with an exception: what cancelling does.
    #[pyo3(signature = (typ, val=None, tb=None))]
    fn throw(
        slf: &Bound<'_, Self>,
        typ: &Bound<'_, PyAny>,
        val: Option<&Bound<'_, PyAny>>,
        tb: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        coroutine::throw(slf, typ, val, tb)
    }

    /// Ends it.
    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        coroutine::close(slf)
    }

    #[getter]
    fn __name__(&self) -> &'static str {
        self.name
    }

    #[getter]
    fn __qualname__(&self) -> String {
        format!("Loop.{}", self.name)
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        format!("<SocketOperation Loop.{}() {}>", self.name, self.phase(py).name())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.core)?;
        let visited = self.state.try_with(|state| match state {
            State::New(target, work) => target.traverse(&visit).and_then(|()| work.traverse(&visit)),
            State::Waiting(target, work, place) => {
                target.traverse(&visit)?;
                work.traverse(&visit)?;
                match place {
                    Place::Poller { future, .. } => visit.call(&*future),
                    Place::Watch { handle, .. } => visit.call(&*handle),
                    Place::Elsewhere => Ok(()),
                }
            }
            State::Running | State::Done => Ok(()),
        });
        visited.unwrap_or(Ok(()))
    }

    fn __clear__(&self) {
        drop(self.state.try_with(|state| std::mem::replace(state, State::Done)));
    }
}

impl Operation {
    /// What a coroutine does when nobody awaited it, or when it dies while it waits.
    #[cold]
    fn die(&self, py: Python<'_>) {
        coroutine::end_unseen(py, || {
            if self.phase(py) != Phase::New {
                return self.end_here(py);
            }
            let text = CString::new(format!("coroutine 'Loop.{}' was never awaited", self.name)).unwrap_or_default();
            PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), &text, 1)
        });
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        let is_over = self.state.try_with(|state| matches!(state, State::Running | State::Done));
        if is_over != Some(false) {
            return;
        }
        // None: the interpreter is going down, and nobody listens.
        #[expect(clippy::disallowed_methods, reason = "a destructor has no token")]
        let _: Option<()> = Python::try_attach(|py| self.die(py));
    }
}

/// Puts on the class what makes it quick to await.
pub(crate) fn define_operation(class: &Bound<'_, PyType>) {
    define_slots::<Operation>(class);
}
