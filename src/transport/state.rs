//! What a stream transport knows: everything that changes in its life.
//!
//! Owns the socket, the unsent bytes, the protocol and the flags. The methods that decide something stand with those
//! who need the decision (`reading`, `writing`, `closing`).

use super::direct::Delivery;
use super::endpoint::Endpoint;
use crate::event_loop::metrics::Open;
use crate::py::buffer::Chunk;
use crate::reactor::flow::Flow;
use crate::reactor::outbox::Outbox;
use crate::reactor::poller::Token;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::fmt::Write as _;

/// Everything that changes. Each flag says what is true, not what to do.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts; their combinations are all possible")]
pub(super) struct State {
    pub(super) endpoint: Endpoint,
    /// Until the end; None then.
    pub(super) open: Option<Open>,
    /// Some from `connection_made` until the end.
    pub(super) token: Option<Token>,
    /// None once `connection_lost` was called.
    pub(super) protocol: Option<Py<PyAny>>,
    /// How the protocol takes what was received.
    pub(super) delivery: Delivery,
    pub(super) outbox: Outbox<Chunk>,
    pub(super) flow: Flow,
    /// `pause_reading()` was called.
    pub(super) is_paused: bool,
    /// There may be something to read that no event will tell of.
    pub(super) may_read: bool,
    /// The end of the stream, or an error, was announced: a short read is not the last one.
    pub(super) is_read_closed: bool,
    /// The end of the stream was delivered, and the protocol wanted to keep the connection.
    pub(super) is_read_ended: bool,
    /// A `Continue` is queued.
    pub(super) is_continued: bool,
    /// How much the next read asks for (bytes); 0: the small reads' scratch.
    pub(super) bulk: usize,
    /// The kernel took less than was offered: a writable event will come.
    pub(super) is_blocked: bool,
    /// The transport is in the loop's list of those with unsent bytes.
    pub(super) is_unflushed: bool,
    /// The registration asks for writability.
    pub(super) is_write_registered: bool,
    /// `write_eof()` was called.
    pub(super) is_write_ended: bool,
    /// `close()` or `abort()` was called, or the connection failed.
    pub(super) is_closing: bool,
    /// Above 0: `connection_lost` is scheduled. Counts the writes after it, as asyncio does for its warning.
    pub(super) lost: u32,
    /// The context of reads, and of everything if asyncio gave one (`context=`, from Python 3.14).
    pub(super) context: Py<PyAny>,
    pub(super) is_context_fixed: bool,
    pub(super) rare: Rare,
}

/// What most transports have for a moment, or never.
#[derive(Debug, Default)]
pub(super) struct Rare {
    /// The context of `connection_made`.
    pub(super) made_context: Option<Py<PyAny>>,
    /// The context in which `resume_writing` is called: that of the write that found the kernel full.
    pub(super) write_context: Option<Py<PyAny>>,
    /// The protocol's `connection_made`.
    pub(super) made: Option<Py<PyAny>>,
    /// Resolved when the connection is made.
    pub(super) waiter: Option<Py<PyAny>>,
    /// Resolved when the outbox is empty: `loop.sendfile()` waits for it.
    pub(super) empty_waiter: Option<Py<PyAny>>,
    pub(super) server: Option<Py<PyAny>>,
    pub(super) extra: Option<Py<PyDict>>,
    /// What `connection_lost` is called with, and in which context.
    pub(super) lost_with: Option<(Option<Py<PyAny>>, Py<PyAny>)>,
}

impl State {
    #[inline]
    pub(super) fn is_reading(&self) -> bool {
        !self.is_closing && !self.is_paused
    }

    /// The words of asyncio's transports.
    pub(super) fn text(&self) -> String {
        let mut text = "<StreamTransport".to_owned();
        match self.endpoint.fd() {
            None => text.push_str(" closed"),
            Some(_) if self.is_closing => text.push_str(" closing"),
            Some(_) => {}
        }
        // Writing to a String cannot fail.
        let _ = write!(text, " fd={}", self.endpoint.number());
        if self.endpoint.fd().is_some() {
            let read = if self.is_reading() && !self.is_read_ended { "polling" } else { "idle" };
            let write = if self.outbox.is_empty() { "idle" } else { "polling" };
            let _ = write!(text, " read={read} write=<{write}, bufsize={}>", self.outbox.size());
        }
        text.push('>');
        text
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.endpoint.traverse(visit)?;
        visit.call(&self.protocol)?;
        visit.call(&self.context)?;
        let rare = &self.rare;
        for object in
            [&rare.made_context, &rare.write_context, &rare.made, &rare.waiter, &rare.empty_waiter, &rare.server]
        {
            visit.call(object)?;
        }
        visit.call(&rare.extra)?;
        if let Some((error, context)) = &rare.lost_with {
            visit.call(error)?;
            visit.call(context)?;
        }
        Ok(())
    }
}
