//! The direct path of asyncio's streams: bytes go straight into a `StreamReader`.
//!
//! Owns nothing. What `StreamReaderProtocol.data_received`, `StreamReader.feed_data` and `_wakeup_waiter` do in Python is
//! done here without their frames, in their order: the buffer grows, the waiting task is woken, and the transport is
//! paused above twice the limit.
//!
//! Rules: nothing of asyncio is changed, and whatever a program changed is honoured. Each delivery looks whether protocol
//! and reader are exactly asyncio's classes with asyncio's own functions, also on the instances; everything else, and
//! every surprise (an ended reader, a buffer that somebody has a view of), takes the ordinary path, by `data_received`.

use super::tls::Tls;
use crate::py::call::call_method1;
use crate::py::{buffer, names, object};
use pyo3::exceptions::PyNotImplementedError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyByteArray, PyBytes, PyInt, PyWeakrefReference};
use std::io;
use std::mem::MaybeUninit;

/// How a protocol takes what was received; known from its class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// `data_received(bytes)`
    Data,
    /// `get_buffer()`, `buffer_updated(count)`
    Buffer,
    /// A TLS transport of ours.
    Tls,
    /// As `Data`, but the reader of asyncio's streams takes the bytes itself if it can.
    Reader,
}

impl Delivery {
    pub(crate) fn of(protocol: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = protocol.py();
        if names::streams(py).is_some_and(|streams| object::is_exactly(protocol, &streams.protocol)) {
            return Ok(Self::Reader);
        }
        if protocol.cast_exact::<Tls>().is_ok() {
            return Ok(Self::Tls);
        }
        let is_buffered = protocol.is_instance(names::BUFFERED_PROTOCOL.get(py)?)?;
        Ok(if is_buffered { Self::Buffer } else { Self::Data })
    }
}

/// Delivers to a protocol of [`Delivery::Reader`] what came through a buffer of the caller's.
#[inline]
pub(crate) fn deliver(protocol: &Bound<'_, PyAny>, data: &[u8]) -> PyResult<()> {
    match Feed::of(protocol) {
        Some(feed) if buffer::append(&feed.buffer, data) => feed.wake(),
        _ => {
            let py = protocol.py();
            call_method1(protocol, intern!(py, "data_received"), &PyBytes::new(py, data)).map(drop)
        }
    }
}

/// A reader that can be fed.
pub(super) struct Feed<'py> {
    reader: Bound<'py, PyAny>,
    buffer: Bound<'py, PyByteArray>,
}

impl<'py> Feed<'py> {
    /// The reader of a protocol; None if anything is not as asyncio made it.
    #[inline]
    pub(super) fn of(protocol: &Bound<'py, PyAny>) -> Option<Self> {
        let py = protocol.py();
        let streams = names::streams(py)?;
        let is_own_protocol = object::is_exactly(protocol, &streams.protocol)
            && object::calls(protocol, intern!(py, "data_received"), &streams.data_received)
            && object::has_in_class(protocol, intern!(py, "_stream_reader"), &streams.stream_reader);
        if !is_own_protocol {
            return None;
        }
        let reference = protocol.getattr(intern!(py, "_stream_reader_wr")).ok()?;
        let reader = reference.cast_exact::<PyWeakrefReference>().ok()?.upgrade()?;
        let is_own_reader = object::is_exactly(&reader, &streams.reader)
            && object::calls(&reader, intern!(py, "feed_data"), &streams.feed_data)
            && object::calls(&reader, intern!(py, "_wakeup_waiter"), &streams.wakeup_waiter);
        if !is_own_reader || !reader.getattr(intern!(py, "_eof")).ok()?.is(PyBool::new(py, false)) {
            return None;
        }
        let buffer = reader.getattr(intern!(py, "_buffer")).ok()?.cast_into_exact().ok()?;
        Some(Self { reader, buffer })
    }

    /// Lets `read` put at most `size` bytes into the reader's buffer; None if that cannot grow now.
    ///
    /// Whoever gets bytes calls [`Self::wake`].
    #[inline]
    pub(super) fn read(
        &self,
        size: usize,
        read: impl FnOnce(&mut [MaybeUninit<u8>]) -> io::Result<usize>,
    ) -> Option<io::Result<usize>> {
        buffer::read_behind(&self.buffer, size, read)
    }

    /// `StreamReader.feed_data`, after its buffer has grown.
    #[inline]
    pub(super) fn wake(&self) -> PyResult<()> {
        let py = self.reader.py();
        let waiter = self.reader.getattr(intern!(py, "_waiter"))?;
        if !waiter.is_none() {
            self.reader.setattr(intern!(py, "_waiter"), py.None())?;
            resolve(&waiter)?;
        }
        let limit = self.reader.getattr(intern!(py, "_limit"))?;
        let is_below =
            limit.cast_exact::<PyInt>().ok().and_then(|limit| limit.extract::<i64>().ok()).is_some_and(|limit| {
                i64::try_from(self.buffer.len()).is_ok_and(|length| length <= limit.saturating_mul(2))
            });
        if is_below { Ok(()) } else { self.pause(&limit) }
    }

    /// Pauses the transport if the buffer is longer than twice the limit.
    #[cold]
    fn pause(&self, limit: &Bound<'py, PyAny>) -> PyResult<()> {
        let py = self.reader.py();
        let (transport_name, paused_name) = (intern!(py, "_transport"), intern!(py, "_paused"));
        let transport = self.reader.getattr(transport_name)?;
        if transport.is_none() || self.reader.getattr(paused_name)?.is_truthy()? {
            return Ok(());
        }
        let most = 2_i32.into_pyobject(py)?.into_any().mul(limit)?;
        if !self.buffer.len().into_pyobject(py)?.into_any().gt(most)? {
            return Ok(());
        }
        match transport.call_method0(intern!(py, "pause_reading")) {
            Ok(_) => self.reader.setattr(paused_name, true),
            Err(error) if error.is_instance_of::<PyNotImplementedError>(py) => {
                self.reader.setattr(transport_name, py.None())
            }
            Err(error) => Err(error),
        }
    }
}

/// `waiter.set_result(None)` unless it is cancelled: the one wake-up of the task that reads.
#[inline]
fn resolve(waiter: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = waiter.py();
    let (set_result, none) = (intern!(py, "set_result"), py.None());
    let is_own = waiter.get_type().is(names::FUTURE.get(py)?);
    if !is_own && is_cancelled(waiter)? {
        return Ok(());
    }
    match call_method1(waiter, set_result, none.bind(py)) {
        Ok(_) => Ok(()),
        // A cancelled one of asyncio's refuses without doing anything: asked afterwards, since it hardly ever is.
        Err(error) if is_own && is_cancelled(waiter)? => {
            drop(error);
            Ok(())
        }
        Err(error) => Err(error),
    }
}

#[cold]
fn is_cancelled(waiter: &Bound<'_, PyAny>) -> PyResult<bool> {
    waiter.call_method0(intern!(waiter.py(), "cancelled"))?.is_truthy()
}
