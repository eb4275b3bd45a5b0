//! A TLS session: CPython's `ssl.SSLObject` between two `ssl.MemoryBIO`, without a socket and without a loop.
//!
//! Owns the three, and knows where the received records end. Its callers give it what was received
//! ([`Session::feed`]), take plaintext from it ([`Session::read_all`], [`Session::read_into`]), give it plaintext, and
//! take what is to be sent ([`Session::take_outgoing`]). Facts that shape it:
//!
//! - An engine that finds no whole record raises `SSLWantReadError`, at the price of decrypting several small records:
//!   where the records end is known here, and such a read is not made.
//! - `SSLObject.read` gives one record, and allocates as much as it was asked for: it is asked for what there can be.
//! - `SSLObject`'s methods are Python functions around those of its private `_sslobj`, which are called directly,
//!   unless the context makes objects of a class of its own.

use crate::py::buffer;
use crate::py::call::call_method1;
use crate::py::cell::OwnerCell;
use crate::py::names;
use crate::reactor::records::Records;
use pyo3::exceptions::PyRuntimeError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

/// The most plaintext that one record has.
const RECORD: usize = 16 * 1024;
/// asyncio's `SSLProtocol.max_size`: what one call gives at most, so that a hint means the same.
const LARGEST: usize = 256 * 1024;

/// Making a copy of so many bytes is cheaper than making a view of them.
const COPIED: usize = 4096;

/// See the module's description.
#[derive(Debug)]
pub(super) struct Session {
    /// None once it was given up.
    parts: OwnerCell<Option<Parts>>,
    is_direct: bool,
    input: OwnerCell<Input>,
}

#[derive(Debug)]
struct Parts {
    context: Py<PyAny>,
    /// What users see.
    object: Py<PyAny>,
    /// What is called: the object, or its `_sslobj`.
    engine: Py<PyAny>,
    incoming: Py<PyAny>,
    outgoing: Py<PyAny>,
}

/// What is known of the received bytes.
#[derive(Debug, Default)]
struct Input {
    records: Records,
    /// How many bytes the engine has not taken; never too low.
    unread: usize,
    /// The last read was filled: the record may have more.
    is_record_open: bool,
}

/// What the engine answered.
#[derive(Debug)]
pub(super) enum Answer<T> {
    Done(T),
    /// It needs more from the peer first.
    Again,
}

/// What reading brought.
#[derive(Debug, Default)]
pub(super) struct Plaintext<T> {
    pub(super) data: T,
    /// The peer has said farewell.
    pub(super) is_end: bool,
}

impl Session {
    pub(super) fn new(
        context: &Bound<'_, PyAny>,
        server_side: bool,
        server_hostname: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let py = context.py();
        let incoming = names::MEMORY_BIO.get(py)?.call0()?;
        let outgoing = names::MEMORY_BIO.get(py)?.call0()?;
        let keywords = PyDict::new(py);
        keywords.set_item(intern!(py, "server_side"), server_side)?;
        keywords.set_item(intern!(py, "server_hostname"), server_hostname)?;
        let object = context.call_method(intern!(py, "wrap_bio"), (&incoming, &outgoing), Some(&keywords))?;
        let is_direct = object.get_type().is(names::SSL_OBJECT.get(py)?);
        let engine = if is_direct { object.getattr(intern!(py, "_sslobj"))? } else { object.clone() };
        let parts = Parts {
            context: context.clone().unbind(),
            object: object.unbind(),
            engine: engine.unbind(),
            incoming: incoming.unbind(),
            outgoing: outgoing.unbind(),
        };
        Ok(Self { parts: OwnerCell::new(Some(parts)), is_direct, input: OwnerCell::new(Input::default()) })
    }

    fn part<'py>(&self, py: Python<'py>, pick: impl FnOnce(&Parts) -> &Py<PyAny>) -> Option<Bound<'py, PyAny>> {
        self.parts.with(py, |parts| parts.as_ref().map(|parts| pick(parts).bind(py).clone()))
    }

    /// The `ssl.SSLObject`; None once the session was given up.
    pub(super) fn object<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.part(py, |parts| &parts.object)
    }

    /// The `ssl.SSLContext`; None once the session was given up.
    pub(super) fn context<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.part(py, |parts| &parts.context)
    }

    fn engine<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.part(py, |parts| &parts.engine).ok_or_else(|| PyRuntimeError::new_err("the TLS session is over"))
    }

    /// Lets go of the engine and all that it holds. There is nothing to read or send any more.
    pub(super) fn give_up(&self) {
        drop(self.parts.try_with(Option::take));
    }

    /// Takes bytes that were received.
    pub(super) fn feed(&self, data: &Bound<'_, PyBytes>) -> PyResult<()> {
        let py = data.py();
        let Some(incoming) = self.part(py, |parts| &parts.incoming) else { return Ok(()) };
        self.note_fed(py, data.as_bytes());
        call_method1(&incoming, intern!(py, "write"), data.as_any()).map(drop)
    }

    /// As [`Self::feed`], for bytes that are no object: many are not copied to make one.
    pub(super) fn feed_slice(&self, py: Python<'_>, data: &[u8]) -> PyResult<()> {
        if data.len() <= COPIED {
            return self.feed(&PyBytes::new(py, data));
        }
        let Some(incoming) = self.part(py, |parts| &parts.incoming) else { return Ok(()) };
        self.note_fed(py, data);
        buffer::write_to_bio(&incoming, data)
    }

    fn note_fed(&self, py: Python<'_>, data: &[u8]) {
        self.input.with(py, |input| {
            input.records.feed(data);
            input.unread += data.len();
        });
    }

    /// How many received bytes the engine has not taken.
    pub(super) fn unread(&self, py: Python<'_>) -> PyResult<usize> {
        let Some(incoming) = self.part(py, |parts| &parts.incoming) else { return Ok(0) };
        let unread = incoming.getattr(intern!(py, "pending"))?.extract()?;
        self.input.with(py, |input| {
            input.unread = unread;
            input.records.note_unread(unread);
        });
        Ok(unread)
    }

    /// As [`Self::unread`] when it was last looked at.
    pub(super) fn known_unread(&self, py: Python<'_>) -> usize {
        self.input.with(py, |input| input.unread)
    }

    pub(super) fn handshake(&self, py: Python<'_>) -> PyResult<Answer<()>> {
        let answer = self.engine(py)?.call_method0(intern!(py, "do_handshake"));
        self.unread(py)?;
        again(py, answer.map(drop))
    }

    /// Says farewell, and waits for the peer's.
    pub(super) fn shut_down(&self, py: Python<'_>) -> PyResult<Answer<()>> {
        let name = if self.is_direct { intern!(py, "shutdown") } else { intern!(py, "unwrap") };
        let answer = self.engine(py)?.call_method0(name);
        self.unread(py)?;
        again(py, answer.map(drop))
    }

    /// Encrypts; answers how many bytes were taken.
    pub(super) fn write(&self, data: &Bound<'_, PyBytes>) -> PyResult<Answer<usize>> {
        let py = data.py();
        let answer = call_method1(&self.engine(py)?, intern!(py, "write"), data.as_any());
        again(py, answer.and_then(|count| count.extract()))
    }

    /// All that is to be sent.
    pub(super) fn take_outgoing<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        match self.part(py, |parts| &parts.outgoing) {
            Some(outgoing) => Ok(outgoing.call_method0(intern!(py, "read"))?.cast_into()?),
            None => Ok(PyBytes::new(py, &[])),
        }
    }

    /// How many bytes wait to be sent.
    pub(super) fn unsent(&self, py: Python<'_>) -> PyResult<usize> {
        let Some(outgoing) = self.part(py, |parts| &parts.outgoing) else { return Ok(0) };
        outgoing.getattr(intern!(py, "pending"))?.extract()
    }

    /// Reads all there is, as one object; None: nothing.
    pub(super) fn read_all<'py>(&self, py: Python<'py>) -> PyResult<Plaintext<Option<Bound<'py, PyBytes>>>> {
        let (mut first, mut more) = (None, Vec::new());
        let mut is_end = false;
        while let Some(unread) = self.readable(py) {
            let answer = if unread > 2 * RECORD { self.read_records(py, unread) } else { self.read_record(py, unread) };
            let Plaintext { data, is_end: ended } = answer?;
            is_end = ended;
            match (data, &first) {
                (Some(data), None) => first = Some(data),
                (Some(data), Some(_)) => more.push(data),
                (None, _) => break,
            }
            if is_end {
                break;
            }
        }
        let data = match first {
            Some(first) if !more.is_empty() => {
                more.insert(0, first);
                Some(buffer::concatenate(py, &more)?)
            }
            first => first,
        };
        Ok(Plaintext { data, is_end })
    }

    /// Fills `room`, a writable buffer of `size` bytes, with what there is; answers how much.
    pub(super) fn read_into(&self, room: &Bound<'_, PyAny>, size: usize) -> PyResult<Plaintext<usize>> {
        let py = room.py();
        let mut filled = 0;
        while filled < size && self.readable(py).is_some() {
            let wanted = size - filled;
            let rest = if filled == 0 { room.clone() } else { buffer::rest_of(room, filled)? };
            match self.engine_read_into(py, wanted, &rest)? {
                Answer::Done(0) => return Ok(Plaintext { data: filled, is_end: true }),
                Answer::Done(count) => filled += count,
                Answer::Again => break,
            }
        }
        Ok(Plaintext { data: filled, is_end: false })
    }

    /// How many received bytes the next read is about; None if it would find nothing.
    fn readable(&self, py: Python<'_>) -> Option<usize> {
        self.input
            .with(py, |input| (input.is_record_open || input.records.may_have(input.unread)).then_some(input.unread))
    }

    /// Reads one record.
    fn read_record<'py>(&self, py: Python<'py>, unread: usize) -> PyResult<Plaintext<Option<Bound<'py, PyBytes>>>> {
        let is_open = self.input.with(py, |input| input.is_record_open);
        // A record is longer than its plaintext; what is left of one inside the engine is not known.
        let wanted = if is_open { RECORD } else { unread.clamp(1, RECORD) };
        let answer = call_method1(&self.engine(py)?, intern!(py, "read"), wanted.into_pyobject(py)?.as_any());
        match again(py, answer)? {
            Answer::Again => {
                self.note_read(py, 0, wanted)?;
                Ok(Plaintext::default())
            }
            Answer::Done(data) => {
                let data = data.cast_into::<PyBytes>()?;
                let count = data.as_bytes().len();
                self.note_read(py, count, wanted)?;
                Ok(Plaintext { is_end: count == 0, data: (count > 0).then_some(data) })
            }
        }
    }

    /// Reads the records of a large piece of the stream into one object.
    fn read_records<'py>(&self, py: Python<'py>, unread: usize) -> PyResult<Plaintext<Option<Bound<'py, PyBytes>>>> {
        let size = (unread + RECORD).min(LARGEST);
        let mut is_end = false;
        let data = buffer::fill_new_bytes(py, size, |room| {
            match self.engine_read_into(py, room.len()?.min(RECORD), room)? {
                Answer::Again => Ok((0, false)),
                Answer::Done(count) => {
                    is_end = count == 0;
                    Ok((count, count > 0 && self.readable(py).is_some()))
                }
            }
        })?;
        Ok(Plaintext { data: Some(data).filter(|data| !data.as_bytes().is_empty()), is_end })
    }

    fn engine_read_into(&self, py: Python<'_>, wanted: usize, room: &Bound<'_, PyAny>) -> PyResult<Answer<usize>> {
        let answer = self.engine(py)?.call_method1(intern!(py, "read"), (wanted, room));
        let answer = again(py, answer.and_then(|count| count.extract::<usize>()))?;
        let count = if let Answer::Done(count) = answer { count } else { 0 };
        self.note_read(py, count, wanted)?;
        Ok(answer)
    }

    /// Notes that `count` bytes of plaintext came of `wanted`, and what is left.
    fn note_read(&self, py: Python<'_>, count: usize, wanted: usize) -> PyResult<()> {
        let has_more =
            count == wanted && self.engine(py)?.call_method0(intern!(py, "pending"))?.extract::<usize>()? > 0;
        let is_known = self.input.with(py, |input| {
            let was_open = std::mem::replace(&mut input.is_record_open, has_more);
            let unread = if was_open || count == 0 { None } else { input.records.note_taken() };
            unread.map(|unread| input.unread = unread).is_some()
        });
        if is_known { Ok(()) } else { self.unread(py).map(drop) }
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        let visit_all = |parts: &mut Option<Parts>| match parts {
            Some(parts) => [&parts.context, &parts.object, &parts.engine, &parts.incoming, &parts.outgoing]
                .into_iter()
                .try_for_each(|part| visit.call(part)),
            None => Ok(()),
        };
        self.parts.try_with(visit_all).unwrap_or(Ok(()))
    }
}

/// Takes the errors that only ask for patience (`asyncio.sslproto.SSLAgainErrors`) as an answer.
fn again<T>(py: Python<'_>, answer: PyResult<T>) -> PyResult<Answer<T>> {
    match answer {
        Ok(value) => Ok(Answer::Done(value)),
        Err(error) if error.is_instance(py, names::SSL_WANT_READ_ERROR.get(py)?) => Ok(Answer::Again),
        Err(error) if error.is_instance(py, names::SSL_SYSCALL_ERROR.get(py)?) => Ok(Answer::Again),
        Err(error) => Err(error),
    }
}
