//! What can be registered with the poller or can have something to do in a turn, apart from handles.
//!
//! The one place where a lower layer names a higher one: the loop keeps sources, and a match calls them.

use super::Loop;
use super::run::Run;
use crate::executor::Job;
use crate::reactor::readiness::Readiness;
use crate::transport::datagram::Datagram;
use crate::transport::listener::Listener;
use crate::transport::pipe_read::ReadPipe;
use crate::transport::pipe_write::WritePipe;
use crate::transport::stream::Stream;
use crate::transport::tls::Tls;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

/// A transport or listener, or a call that another thread has made.
#[derive(Debug)]
pub(crate) enum Source {
    Stream(Py<Stream>),
    Datagram(Py<Datagram>),
    Listener(Py<Listener>),
    Job(Py<Job>),
    ReadPipe(Py<ReadPipe>),
    WritePipe(Py<WritePipe>),
    /// Only ever flushed: the transport below is what is registered.
    Tls(Py<Tls>),
}

/// What a source is told in a turn.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    /// The kernel reported this.
    Ready(Readiness),
    /// The transport is new: `connection_made`, then reading starts.
    Start,
    /// Reading stopped for fairness or was resumed, or a thread has done its part: go on.
    Continue,
    /// The connection is gone: `connection_lost`.
    Lost,
}

impl Source {
    #[inline]
    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Self {
        match self {
            Self::Stream(stream) => Self::Stream(stream.clone_ref(py)),
            Self::Datagram(datagram) => Self::Datagram(datagram.clone_ref(py)),
            Self::Listener(listener) => Self::Listener(listener.clone_ref(py)),
            Self::Job(job) => Self::Job(job.clone_ref(py)),
            Self::ReadPipe(pipe) => Self::ReadPipe(pipe.clone_ref(py)),
            Self::WritePipe(pipe) => Self::WritePipe(pipe.clone_ref(py)),
            Self::Tls(tls) => Self::Tls(tls.clone_ref(py)),
        }
    }

    /// Tells the source what happened; an error leaves the loop.
    #[inline]
    pub(crate) fn on_event(&self, run: &mut Run<'_, '_>, event: Event) -> PyResult<()> {
        match self {
            Self::Stream(stream) => Stream::on_event(stream.bind(run.core.py()), run, event),
            Self::Datagram(datagram) => Datagram::on_event(datagram.bind(run.core.py()), run, event),
            Self::Listener(listener) => Listener::on_event(listener.bind(run.core.py()), run, event),
            Self::Job(job) => Job::on_event(job.bind(run.core.py()), run, event),
            Self::ReadPipe(pipe) => ReadPipe::on_event(pipe.bind(run.core.py()), run, event),
            Self::WritePipe(pipe) => WritePipe::on_event(pipe.bind(run.core.py()), run, event),
            Self::Tls(_) => Ok(()),
        }
    }

    /// Sends what the source was given in this turn.
    #[inline]
    pub(crate) fn flush(&self, core: &Bound<'_, Loop>) -> PyResult<()> {
        match self {
            Self::Stream(stream) => Stream::flush(stream.bind(core.py())),
            Self::Datagram(datagram) => Datagram::flush(datagram.bind(core.py())),
            Self::Tls(tls) => Tls::flush(tls.bind(core.py())),
            Self::Listener(_) | Self::Job(_) | Self::ReadPipe(_) | Self::WritePipe(_) => Ok(()),
        }
    }

    pub(crate) fn is_transport(&self) -> bool {
        matches!(self, Self::Stream(_) | Self::Datagram(_))
    }

    /// Whether both are the same pipe.
    pub(crate) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::ReadPipe(one), Self::ReadPipe(other)) => one.is(other),
            (Self::WritePipe(one), Self::WritePipe(other)) => one.is(other),
            _ => false,
        }
    }

    pub(crate) fn to_object(&self, py: Python<'_>) -> Py<PyAny> {
        match self {
            Self::Stream(stream) => stream.clone_ref(py).into_any(),
            Self::Datagram(datagram) => datagram.clone_ref(py).into_any(),
            Self::Listener(listener) => listener.clone_ref(py).into_any(),
            Self::Job(job) => job.clone_ref(py).into_any(),
            Self::ReadPipe(pipe) => pipe.clone_ref(py).into_any(),
            Self::WritePipe(pipe) => pipe.clone_ref(py).into_any(),
            Self::Tls(tls) => tls.clone_ref(py).into_any(),
        }
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Self::Stream(stream) => visit.call(stream),
            Self::Datagram(datagram) => visit.call(datagram),
            Self::Listener(listener) => visit.call(listener),
            Self::Job(job) => visit.call(job),
            Self::ReadPipe(pipe) => visit.call(pipe),
            Self::WritePipe(pipe) => visit.call(pipe),
            Self::Tls(tls) => visit.call(tls),
        }
    }
}
