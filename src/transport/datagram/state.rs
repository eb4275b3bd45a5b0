//! What a datagram transport knows: everything that changes in its life.
//!
//! Owns the socket object, the datagrams that wait, the protocol and the flags.

use crate::event_loop::metrics::Open;
use crate::py::buffer::Chunk;
use crate::reactor::appetite::Appetite;
use crate::reactor::flow::Flow;
use crate::reactor::parcels::Parcels;
use crate::reactor::poller::Token;
use crate::sys::socket::Address;
use mio::Interest;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::os::fd::RawFd;

/// Bytes that count for each waiting datagram beside its own: asyncio's `_header_size`.
pub(super) const HEADER: usize = if cfg!(Py_3_13) { 8 } else { 0 };

/// Where a datagram goes.
#[derive(Debug)]
pub(super) enum Destination {
    /// To the peer of a connected socket.
    Peer,
    Address(Address),
    /// What the socket object is to make an address of, if it can.
    Object(Option<Py<PyAny>>),
}

impl Destination {
    pub(super) fn is_native(&self) -> bool {
        matches!(self, Self::Peer | Self::Address(_))
    }
}

/// A datagram that was received, and its sender.
pub(super) type Received = (Py<PyBytes>, Py<PyAny>);

/// Everything that changes. Each flag says what is true, not what to do.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts; their combinations are all possible")]
pub(super) struct State {
    /// The socket object, which owns the descriptor; None once it is closed.
    pub(super) sock: Option<Py<PyAny>>,
    pub(super) fd: RawFd,
    /// Until the end; None then.
    pub(super) open: Option<Open>,
    pub(super) family: i32,
    /// The socket has a peer that has a name: asyncio's `_extra["peername"]`.
    pub(super) is_connected: bool,
    /// The only address that may be sent to: `remote_addr`.
    pub(super) remote: Option<Py<PyAny>>,
    /// The same, where it is a plain one.
    pub(super) remote_address: Option<Address>,
    /// Some from `connection_made` until the end.
    pub(super) token: Option<Token>,
    /// What the poller was asked for.
    pub(super) interest: Option<Interest>,
    /// None once `connection_lost` was called.
    pub(super) protocol: Option<Py<PyAny>>,
    pub(super) queue: Parcels<Chunk, Destination>,
    pub(super) flow: Flow,
    pub(super) appetite: Appetite,
    /// The sender of the last datagram.
    pub(super) last: Option<(Address, Py<PyAny>)>,
    /// `pause_reading()` was called.
    pub(super) is_paused: bool,
    /// A `Continue` is queued.
    pub(super) is_continued: bool,
    /// The kernel had no room: a writable event will come.
    pub(super) is_blocked: bool,
    /// Datagrams wait for the end of the turn.
    pub(super) is_unflushed: bool,
    /// The transport is in the loop's list of those that may have something to send.
    pub(super) is_listed: bool,
    /// `close()` or `abort()` was called, or the transport failed.
    pub(super) is_closing: bool,
    /// Above 0: `connection_lost` is scheduled. Counts the sends after it, as asyncio does for its warning.
    pub(super) lost: u32,
    /// The context of reads.
    pub(super) context: Py<PyAny>,
    pub(super) extra: Py<PyDict>,
    pub(super) rare: Rare,
}

/// What most transports have for a moment, or never.
#[derive(Debug, Default)]
pub(super) struct Rare {
    /// The context of `connection_made`.
    pub(super) made_context: Option<Py<PyAny>>,
    /// The context in which `resume_writing` is called: that of the send that found the kernel full.
    pub(super) write_context: Option<Py<PyAny>>,
    /// The protocol's `connection_made`.
    pub(super) made: Option<Py<PyAny>>,
    /// Resolved when the transport has begun.
    pub(super) waiter: Option<Py<PyAny>>,
    /// Received with others of a batch, when the protocol paused reading or an exception left the loop.
    pub(super) kept: VecDeque<Received>,
    /// What `connection_lost` is called with, and in which context.
    pub(super) lost_with: Option<(Option<Py<PyAny>>, Py<PyAny>)>,
}

impl State {
    #[inline]
    pub(super) fn is_reading(&self) -> bool {
        !self.is_closing && !self.is_paused
    }

    /// What the poller should be asked for.
    pub(super) fn wanted(&self) -> Option<Interest> {
        match (self.is_reading(), self.is_blocked) {
            (true, true) => Some(Interest::READABLE | Interest::WRITABLE),
            (true, false) => Some(Interest::READABLE),
            (false, true) => Some(Interest::WRITABLE),
            (false, false) => None,
        }
    }

    /// The words of asyncio's transports.
    pub(super) fn text(&self) -> String {
        let mut text = "<DatagramTransport".to_owned();
        if self.sock.is_none() {
            text.push_str(" closed");
        } else if self.is_closing {
            text.push_str(" closing");
        }
        // Writing to a String cannot fail.
        let _ = write!(text, " fd={}", self.fd);
        if self.sock.is_some() {
            let read = if self.is_reading() { "polling" } else { "idle" };
            let write = if self.queue.is_empty() { "idle" } else { "polling" };
            let _ = write!(text, " read={read} write=<{write}, bufsize={}>", self.queue.size());
        }
        text.push('>');
        text
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        let rare = &self.rare;
        for object in [
            &self.sock,
            &self.remote,
            &self.protocol,
            &rare.made_context,
            &rare.write_context,
            &rare.made,
            &rare.waiter,
        ] {
            visit.call(object)?;
        }
        visit.call(&self.context)?;
        visit.call(&self.extra)?;
        for (_, to) in self.queue.iter() {
            if let Destination::Object(object) = to {
                visit.call(object)?;
            }
        }
        if let Some((error, context)) = &rare.lost_with {
            visit.call(error)?;
            visit.call(context)?;
        }
        Ok(())
    }
}
