//! Watched descriptors: `add_reader()`, `add_writer()` and their removal.
//!
//! Owns, per descriptor, the handle of its reader and of its writer. Calls are level-triggered: as long as the
//! descriptor is ready, each turn that polls calls again. One descriptor has one registration for both directions.

use super::Loop;
use super::handle::Handle;
use super::owned::{Registered, Runnable};
use crate::errors;
use crate::py::method::Arguments;
use crate::py::names;
use crate::reactor::poller::{Poller, Token};
use crate::reactor::readiness::Readiness;
use mio::Interest;
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyString;
use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;

/// A handle of ours, or one of asyncio's (debug mode).
#[derive(Debug)]
pub(crate) enum AnyHandle {
    Native(Py<Handle>),
    Foreign(Py<PyAny>),
}

impl AnyHandle {
    pub(crate) fn to_runnable(&self, py: Python<'_>) -> Runnable {
        match self {
            Self::Native(handle) => Runnable::Handle(handle.clone_ref(py)),
            Self::Foreign(handle) => Runnable::Foreign(handle.clone_ref(py)),
        }
    }

    pub(crate) fn into_runnable(self) -> Runnable {
        match self {
            Self::Native(handle) => Runnable::Handle(handle),
            Self::Foreign(handle) => Runnable::Foreign(handle),
        }
    }

    pub(crate) fn to_object(&self, py: Python<'_>) -> Py<PyAny> {
        match self {
            Self::Native(handle) => handle.clone_ref(py).into_any(),
            Self::Foreign(handle) => handle.clone_ref(py),
        }
    }

    fn cancel(self, py: Python<'_>) -> PyResult<()> {
        match self {
            Self::Native(handle) => {
                handle.get().cancel_now(py);
                handle.drop_ref(py);
                Ok(())
            }
            Self::Foreign(handle) => handle.into_bound(py).call_method0(intern!(py, "cancel")).map(drop),
        }
    }

    fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Self::Native(handle) => visit.call(handle),
            Self::Foreign(handle) => visit.call(handle),
        }
    }
}

/// One of the two directions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direction {
    Read,
    Write,
}

/// The handles of one descriptor.
#[derive(Debug)]
pub(crate) struct Watch {
    fd: RawFd,
    reader: Option<AnyHandle>,
    writer: Option<AnyHandle>,
}

impl Watch {
    fn place(&mut self, direction: Direction) -> &mut Option<AnyHandle> {
        match direction {
            Direction::Read => &mut self.reader,
            Direction::Write => &mut self.writer,
        }
    }

    /// (reader, writer): which of the two there are.
    pub(crate) fn directions(&self) -> (bool, bool) {
        (self.reader.is_some(), self.writer.is_some())
    }

    fn interest(&self) -> Option<Interest> {
        match self.directions() {
            (true, true) => Some(Interest::READABLE | Interest::WRITABLE),
            (true, false) => Some(Interest::READABLE),
            (false, true) => Some(Interest::WRITABLE),
            (false, false) => None,
        }
    }

    /// Queues the handles that a readiness concerns; an error or a hang-up concerns both.
    pub(crate) fn make_ready(&self, py: Python<'_>, readiness: Readiness, ready: &mut VecDeque<Runnable>) {
        let reader = self.reader.as_ref().filter(|_| readiness.is_readable());
        let writer = self.writer.as_ref().filter(|_| readiness.is_writable());
        ready.extend([reader, writer].into_iter().flatten().map(|handle| handle.to_runnable(py)));
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        [&self.reader, &self.writer].into_iter().flatten().try_for_each(|handle| handle.traverse(visit))
    }
}

impl Loop {
    /// `add_reader(fd, callback, *args)` and `add_writer` for users: a transport's descriptor is refused.
    pub(crate) fn watch_checked<'py>(
        slf: &Bound<'py, Self>,
        arguments: &Arguments<'_, 'py>,
        direction: Direction,
    ) -> PyResult<Bound<'py, PyAny>> {
        let function = if direction == Direction::Read { "add_reader" } else { "add_writer" };
        let mut room = Vec::new();
        let names = ["fd", "callback"];
        let (values, context) = arguments.bind(slf.py(), function, &names, &mut room)?;
        if context.is_some() {
            let text = format!("{function}() got an unexpected keyword argument 'context'");
            return Err(PyTypeError::new_err(text));
        }
        Self::check_no_transport(slf, &values[0])?;
        Self::watch(slf, arguments, direction)?;
        Ok(slf.py().None().into_bound(slf.py()))
    }

    /// Refuses a descriptor that a transport owns: one of ours, or one that is borrowed from asyncio.
    pub(crate) fn check_no_transport(slf: &Bound<'_, Self>, fd: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = slf.py();
        if let Ok(number) = fd.extract::<RawFd>()
            && let Some(others) = slf.get().other_transports.get()
            && others.bind(py).is_empty()
            && slf.get().stream_at(py, number).is_none()
        {
            return Ok(());
        }
        slf.call_method1(intern!(py, "_ensure_fd_no_transport"), (fd,)).map(drop)
    }

    /// `_add_reader(fd, callback, *args, context=None)` and `_add_writer`: gives the handle.
    pub(crate) fn watch<'py>(
        slf: &Bound<'py, Self>,
        arguments: &Arguments<'_, 'py>,
        direction: Direction,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let mut room = Vec::new();
        let names = ["fd", "callback"];
        let (values, context) = arguments.bind(py, "_add_reader", &names, &mut room)?;
        let core = slf.get();
        core.check_open()?;
        let (fd, callback, args) = (&values[0], &values[1], &values[2..]);
        let fd = descriptor(fd)?;
        let handle = Self::new_handle(slf, callback, args, context, intern!(py, "Handle"))?;
        let object = handle.to_object(py).into_bound(py);
        let shared = core.shared(py)?;
        let outcome = core.owned.with(py, |owned| {
            if let Some(token) = owned.token_of(fd) {
                let Some(Registered::Watch(watch)) = owned.get_mut(token) else {
                    return Ok(Err(handle));
                };
                let replaced = watch.place(direction).replace(handle);
                let interest = watch.interest().unwrap_or(Interest::READABLE);
                // Also when nothing changes: the descriptor may have been closed and opened again meanwhile.
                modify(&shared.poller, fd, token, interest).map(|()| Ok(replaced))
            } else {
                let mut watch = Watch { fd, reader: None, writer: None };
                *watch.place(direction) = Some(handle);
                let interest = watch.interest().unwrap_or(Interest::READABLE);
                let token = owned.insert(fd, Registered::Watch(watch));
                add(&shared.poller, fd, token, interest).map(|()| Ok(None)).inspect_err(|_| {
                    // The watch holds references to what the caller holds too: nothing dies here.
                    owned.remove(fd, token);
                })
            }
        });
        match outcome {
            Ok(Ok(replaced)) => replaced.map_or(Ok(()), |handle| handle.cancel(py))?,
            Ok(Err(_)) => {
                return Err(PyRuntimeError::new_err(format!("File descriptor {fd} is used by a transport")));
            }
            Err(error) => return Err(errors::os_error(py, &error)),
        }
        Ok(object)
    }

    /// `remove_reader(fd)` and `remove_writer(fd)`: whether there was something to remove.
    pub(crate) fn unwatch(&self, py: Python<'_>, fd: RawFd, direction: Direction) -> PyResult<bool> {
        let Some(shared) = self.shared_or_closed(py) else {
            return Ok(false);
        };
        let (removed, watch) = self.owned.with(py, |owned| {
            let Some(token) = owned.token_of(fd) else {
                return (None, None);
            };
            let Some(Registered::Watch(watch)) = owned.get_mut(token) else {
                return (None, None);
            };
            let Some(removed) = watch.place(direction).take() else {
                return (None, None);
            };
            // Errors: the descriptor was closed behind the loop's back, and the kernel has forgotten it.
            let (watch, _) = match watch.interest() {
                Some(interest) => (None, shared.poller.register_level(fd, token, interest, false)),
                None => (owned.remove(fd, token), shared.poller.deregister(fd)),
            };
            (Some(removed), watch)
        });
        drop(watch);
        removed.map_or(Ok(false), |handle| handle.cancel(py).map(|()| true))
    }

    /// Registers again where level-triggering is made of edges.
    pub(crate) fn rearm(&self, py: Python<'_>, token: Token) {
        let Some(shared) = self.shared_or_closed(py) else {
            return;
        };
        self.owned.with(py, |owned| {
            let Some(Registered::Watch(watch)) = owned.get_mut(token) else {
                return;
            };
            if let Some(interest) = watch.interest() {
                // A descriptor that was closed meanwhile has no more events to tell.
                drop(shared.poller.register_level(watch.fd, token, interest, false));
            }
        });
    }

    /// A handle for a callback: ours, or asyncio's own in debug mode.
    pub(crate) fn new_handle<'py>(
        slf: &Bound<'py, Self>,
        callback: &Borrowed<'_, 'py, PyAny>,
        args: &[Borrowed<'_, 'py, PyAny>],
        context: Option<Borrowed<'_, 'py, PyAny>>,
        debug_class: &Bound<'py, PyString>,
    ) -> PyResult<AnyHandle> {
        let py = slf.py();
        if slf.get().is_debug() {
            let args = pyo3::types::PyTuple::new(py, args.iter().map(|arg| (*arg).to_owned()))?;
            let handle =
                names::EVENTS.get(py, debug_class)?.call1((callback, args, slf, context.map(Borrowed::to_owned)))?;
            return Ok(AnyHandle::Foreign(handle.unbind()));
        }
        Self::native_handle(py, slf.get(), callback, args, context).map(AnyHandle::Native)
    }
}

fn add(poller: &Poller, fd: RawFd, token: Token, interest: Interest) -> io::Result<()> {
    match poller.register_level(fd, token, interest, true) {
        // A registration of this number that we do not know: taken over.
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => poller.register_level(fd, token, interest, false),
        answer => answer,
    }
}

fn modify(poller: &Poller, fd: RawFd, token: Token, interest: Interest) -> io::Result<()> {
    match poller.register_level(fd, token, interest, false) {
        // Closed behind the loop's back, and the number is used again.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => poller.register_level(fd, token, interest, true),
        answer => answer,
    }
}

/// The descriptor of an int or of an object with `fileno()`, as `selectors` finds it.
pub(crate) fn descriptor(object: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    let py = object.py();
    let invalid = || PyValueError::new_err(format!("Invalid file object: {}", errors::repr(object)));
    let fd = if object.is_instance_of::<pyo3::types::PyInt>() {
        object.extract::<i64>()?
    } else {
        let number = object.call_method0(intern!(py, "fileno")).and_then(|number| number.extract::<i64>());
        number.map_err(|error| if error.is_instance_of::<PyOSError>(py) { error } else { invalid() })?
    };
    let invalid = || PyValueError::new_err(format!("Invalid file descriptor: {fd}"));
    RawFd::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(invalid)
}
