//! Watched descriptors: `add_reader()`, `add_writer()` and their removal, and pipe transports.
//!
//! Owns, per descriptor, who reads it and who writes it: a handle, or a pipe transport. Calls are level-triggered: as
//! long as the descriptor is ready, each turn that polls calls again. One descriptor has one registration for all who
//! watch it: a terminal is often a read pipe and a write pipe at once.

use super::Loop;
use super::handle::Handle;
use super::owned::{Owned, Registered, Runnable};
use super::source::{Event, Source};
use crate::errors;
use crate::py::method::Arguments;
use crate::py::names;
use crate::reactor::poller::{Level, Poller, Token};
use crate::reactor::readiness::Readiness;
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyString};
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

    fn cancel(self, py: Python<'_>, core: &Loop) -> PyResult<()> {
        match self {
            Self::Native(handle) => {
                core.cancel_handle(py, handle);
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

/// Who reads.
#[derive(Debug)]
pub(crate) enum Reader {
    Handle(AnyHandle),
    Pipe(Source),
}

/// What a write pipe wants to be told; it stands beside a writer that somebody else added.
#[derive(Debug)]
pub(crate) struct Sink {
    pub(crate) pipe: Source,
    /// There is room again.
    pub(crate) room: bool,
    /// The other side is gone.
    pub(crate) hang_up: bool,
}

/// Who watches one descriptor.
#[derive(Debug)]
pub(crate) struct Watch {
    fd: RawFd,
    /// The object by whose `fileno()` it was named, if it was: it lives as long as it is watched, and is known by
    /// itself when it was closed meanwhile. As in `selectors`.
    object: Option<Py<PyAny>>,
    reader: Option<Reader>,
    writer: Option<AnyHandle>,
    sink: Option<Sink>,
}

impl Watch {
    /// (reader, writer): which of the two there are.
    pub(crate) fn directions(&self) -> (bool, bool) {
        let room = self.sink.as_ref().is_some_and(|sink| sink.room);
        (self.reader.is_some(), self.writer.is_some() || room)
    }

    /// What the poller is asked for; None: nobody watches.
    fn level(&self) -> Option<Level> {
        let (read, write) = self.directions();
        let hang_up = self.sink.as_ref().is_some_and(|sink| sink.hang_up);
        (read || write || hang_up).then_some(Level { read, write, hang_up })
    }

    /// Puts a handle into its place; gives the one that it replaces. A pipe in its place just hears no more.
    fn replace(&mut self, direction: Direction, handle: AnyHandle) -> Option<Reader> {
        match direction {
            Direction::Read => self.reader.replace(Reader::Handle(handle)),
            Direction::Write => self.writer.replace(handle).map(Reader::Handle),
        }
    }

    /// Keeps the object that names the descriptor now; gives the one that did before.
    fn keep(&mut self, object: Option<Py<PyAny>>) -> Option<Py<PyAny>> {
        object.and_then(|object| self.object.replace(object))
    }

    fn take(&mut self, direction: Direction) -> Option<Reader> {
        match direction {
            Direction::Read => self.reader.take(),
            Direction::Write => self.writer.take().map(Reader::Handle),
        }
    }

    /// Queues those whom a readiness concerns; an error or a hang-up concerns both directions.
    pub(crate) fn make_ready(&self, py: Python<'_>, readiness: Readiness, ready: &mut VecDeque<Runnable>) {
        let event = |pipe: &Source| Runnable::Event(pipe.clone_ref(py), Event::Ready(readiness));
        let reader = self.reader.as_ref().filter(|_| readiness.is_readable()).map(|reader| match reader {
            Reader::Handle(handle) => handle.to_runnable(py),
            Reader::Pipe(pipe) => event(pipe),
        });
        let writer = self.writer.as_ref().filter(|_| readiness.is_writable()).map(|handle| handle.to_runnable(py));
        let concerns =
            |sink: &Sink| (sink.room && readiness.is_writable()) || (sink.hang_up && readiness.is_read_closed());
        let sink = self.sink.as_ref().filter(|sink| concerns(sink)).map(|sink| event(&sink.pipe));
        ready.extend([reader, writer, sink].into_iter().flatten());
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.object)?;
        match &self.reader {
            Some(Reader::Handle(handle)) => handle.traverse(visit)?,
            Some(Reader::Pipe(pipe)) => pipe.traverse(visit)?,
            None => {}
        }
        self.writer.iter().try_for_each(|handle| handle.traverse(visit))?;
        self.sink.iter().try_for_each(|sink| sink.pipe.traverse(visit))
    }
}

impl Reader {
    fn cancel(self, py: Python<'_>, core: &Loop) -> PyResult<()> {
        match self {
            Self::Handle(handle) => handle.cancel(py, core),
            Self::Pipe(_) => Ok(()),
        }
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
        let fd = Self::check_no_transport(slf, &values[0])?;
        drop(Self::watch_as(slf, values, fd, None, direction)?);
        Ok(slf.py().None().into_bound(slf.py()))
    }

    /// Refuses a descriptor that a transport owns: one of ours, or one that is borrowed from asyncio. Gives its number,
    /// if it is one.
    pub(crate) fn check_no_transport(slf: &Bound<'_, Self>, fd: &Bound<'_, PyAny>) -> PyResult<Option<RawFd>> {
        let py = slf.py();
        let number = fd.cast::<PyInt>().ok().and_then(|fd| fd.extract::<RawFd>().ok()).filter(|fd| *fd >= 0);
        if let Some(number) = number
            && let Some(others) = slf.get().other_transports.get()
            && others.bind(py).is_empty()
            && slf.get().stream_at(py, number).is_none()
        {
            return Ok(Some(number));
        }
        slf.call_method1(intern!(py, "_ensure_fd_no_transport"), (fd,))?;
        Ok(number)
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
        Self::watch_as(slf, values, None, context, direction)
    }

    /// Does it; `number`: the descriptor, if it is known by now.
    fn watch_as<'py>(
        slf: &Bound<'py, Self>,
        values: &[Borrowed<'_, 'py, PyAny>],
        number: Option<RawFd>,
        context: Option<Borrowed<'_, 'py, PyAny>>,
        direction: Direction,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let core = slf.get();
        core.check_open()?;
        let (object, callback, args) = (&values[0], &values[1], &values[2..]);
        let fd = number.map_or_else(|| descriptor(object), Ok)?;
        let named = (!object.is_instance_of::<PyInt>()).then(|| (*object).to_owned().unbind());
        let handle = Self::new_handle(slf, callback, args, context, intern!(py, "Handle"))?;
        let object = handle.to_object(py).into_bound(py);
        let shared = core.shared(py)?;
        core.release_waits(py, fd, Some(direction));
        let change = |watch: &mut Watch| (watch.replace(direction, handle), watch.keep(named));
        let Some(((replaced, _named_before), outcome)) =
            core.owned.with(py, |owned| owned.change_watch(&shared.poller, fd, change))
        else {
            return Err(PyRuntimeError::new_err(format!("File descriptor {fd} is used by a transport")));
        };
        outcome.map_err(|error| errors::os_error(py, &error))?;
        replaced.map_or(Ok(()), |reader| reader.cancel(py, core))?;
        Ok(object)
    }

    /// `remove_reader(fd)` and `remove_writer(fd)` for Python: the object may have been closed meanwhile.
    pub(crate) fn unwatch_object(
        &self,
        fd: &Bound<'_, PyAny>,
        number: Option<RawFd>,
        direction: Direction,
    ) -> PyResult<bool> {
        let py = fd.py();
        if self.is_closed() {
            return Ok(false);
        }
        let number = number.map_or_else(|| descriptor(fd), Ok).or_else(|error| {
            let known = error.is_instance_of::<PyValueError>(py).then(|| self.watched_as(fd)).flatten();
            known.ok_or(error)
        })?;
        self.unwatch(py, number, direction)
    }

    /// The descriptor that an object had when it was watched.
    fn watched_as(&self, object: &Bound<'_, PyAny>) -> Option<RawFd> {
        let is_it = |watch: &Watch| watch.object.as_ref().is_some_and(|known| known.is(object));
        self.owned.with(object.py(), |owned| {
            owned.registered().find_map(|registered| match registered {
                Registered::Watch(watch) if is_it(watch) => Some(watch.fd),
                _ => None,
            })
        })
    }

    /// Removes a reader or a writer: whether there was one.
    pub(crate) fn unwatch(&self, py: Python<'_>, fd: RawFd, direction: Direction) -> PyResult<bool> {
        let removed = self.change_existing(py, fd, |watch| watch.take(direction));
        removed.map_or(Ok(false), |reader| reader.cancel(py, self).map(|()| true))
    }

    /// Has a read pipe told that there is something to read, until [`Self::unwatch_pipe`].
    pub(crate) fn watch_pipe(&self, py: Python<'_>, fd: RawFd, pipe: Source) -> PyResult<()> {
        let replaced = self.change_for_pipe(py, fd, |watch| watch.reader.replace(Reader::Pipe(pipe)))?;
        replaced.map_or(Ok(()), |reader| reader.cancel(py, self))
    }

    /// Has a write pipe told what it wants to know, until [`Self::unwatch_pipe`].
    pub(crate) fn watch_sink(&self, py: Python<'_>, fd: RawFd, sink: Sink) -> PyResult<()> {
        self.change_for_pipe(py, fd, |watch| watch.sink.replace(sink)).map(drop)
    }

    /// Tells a pipe no more. Others who watch the descriptor stay.
    pub(crate) fn unwatch_pipe(&self, py: Python<'_>, fd: RawFd, pipe: &Source) {
        let removed = self.change_existing(py, fd, |watch| {
            let reads = matches!(&watch.reader, Some(Reader::Pipe(reader)) if reader.is(pipe));
            let writes = watch.sink.as_ref().is_some_and(|sink| sink.pipe.is(pipe));
            let reader = if reads { watch.reader.take() } else { None };
            let sink = if writes { watch.sink.take() } else { None };
            (reads || writes).then_some((reader, sink))
        });
        drop(removed);
    }

    fn change_for_pipe<T>(&self, py: Python<'_>, fd: RawFd, change: impl FnOnce(&mut Watch) -> T) -> PyResult<T> {
        let shared = self.shared(py)?;
        self.release_waits(py, fd, None);
        let changed = self.owned.with(py, |owned| owned.change_watch(&shared.poller, fd, change));
        match changed {
            Some((changed, outcome)) => outcome.map(|()| changed).map_err(|error| errors::os_error(py, &error)),
            None => Err(PyRuntimeError::new_err(format!("File descriptor {fd} is used by a transport"))),
        }
    }

    /// Takes something away; None if there was nothing, and then nothing changes.
    fn change_existing<T>(&self, py: Python<'_>, fd: RawFd, change: impl FnOnce(&mut Watch) -> Option<T>) -> Option<T> {
        let shared = self.shared_or_closed(py)?;
        // What is left of a watch, the object that named it, dies when the borrow is over (invariant 1).
        let (taken, _left) = self.owned.with(py, |owned| {
            let token = owned.token_of(fd)?;
            let Some(Registered::Watch(watch)) = owned.get_mut(token) else { return None };
            let taken = change(watch)?;
            // Errors: the descriptor was closed behind the loop's back, and the kernel has forgotten it.
            if let Some(level) = watch.level() {
                drop(shared.poller.register_level(fd, token, level, false));
                return Some((taken, None));
            }
            let left = owned.remove(fd, token);
            drop(shared.poller.deregister(fd));
            Some((taken, left))
        })?;
        Some(taken)
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
            if let Some(level) = watch.level() {
                // A descriptor that was closed meanwhile has no more events to tell.
                drop(shared.poller.register_level(watch.fd, token, level, false));
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

impl Owned {
    /// Adds somebody who watches `fd`, as `change` does it, and asks the poller accordingly; gives what `change` does.
    /// None: a transport has the descriptor for itself.
    fn change_watch<T>(
        &mut self,
        poller: &Poller,
        fd: RawFd,
        change: impl FnOnce(&mut Watch) -> T,
    ) -> Option<(T, io::Result<()>)> {
        if let Some(token) = self.token_of(fd) {
            let Some(Registered::Watch(watch)) = self.get_mut(token) else { return None };
            let changed = change(watch);
            // Also when nothing changes: the descriptor may have been closed and opened again meanwhile.
            let outcome = watch.level().map_or(Ok(()), |level| modify(poller, fd, token, level));
            self.pace.ask_next();
            return Some((changed, outcome));
        }
        let mut watch = Watch { fd, object: None, reader: None, writer: None, sink: None };
        let changed = change(&mut watch);
        let Some(level) = watch.level() else { return Some((changed, Ok(()))) };
        let token = self.insert(fd, Registered::Watch(watch));
        let outcome = add(poller, fd, token, level).inspect_err(|_| {
            // The watch holds references to what the caller holds too: nothing dies here.
            drop(self.remove(fd, token));
        });
        self.pace.ask_next();
        Some((changed, outcome))
    }
}

fn add(poller: &Poller, fd: RawFd, token: Token, level: Level) -> io::Result<()> {
    match poller.register_level(fd, token, level, true) {
        // A registration of this number that we do not know: taken over.
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => poller.register_level(fd, token, level, false),
        answer => answer,
    }
}

fn modify(poller: &Poller, fd: RawFd, token: Token, level: Level) -> io::Result<()> {
    match poller.register_level(fd, token, level, false) {
        // Closed behind the loop's back, and the number is used again.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => poller.register_level(fd, token, level, true),
        answer => answer,
    }
}

/// The descriptor of an int or of an object with `fileno()`, as `selectors` finds it.
pub(crate) fn descriptor(object: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    let py = object.py();
    let invalid = || PyValueError::new_err(format!("Invalid file object: {}", errors::repr(object)));
    let fd = if object.is_instance_of::<PyInt>() {
        object.extract::<i64>()?
    } else {
        let number = object.call_method0(intern!(py, "fileno")).and_then(|number| number.extract::<i64>());
        number.map_err(|error| if error.is_instance_of::<PyOSError>(py) { error } else { invalid() })?
    };
    let invalid = || PyValueError::new_err(format!("Invalid file descriptor: {fd}"));
    RawFd::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(invalid)
}
