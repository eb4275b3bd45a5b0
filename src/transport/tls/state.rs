//! What a TLS transport knows: everything that changes in its life, apart from the session.
//!
//! Owns the two sides (the lower transport, the protocol), the unencrypted bytes and the flags. The methods that decide
//! something stand with those who need the decision.

use crate::reactor::flow::Flow;
use crate::transport::direct::Delivery;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::collections::VecDeque;

/// Where the session stands; `asyncio.sslproto.SSLProtocolState`.
///
/// ```text
/// Unwrapped ──connection_made──► Handshake ──► Wrapped ──close, end──► Flushing ──► Shutdown
///     ▲                              │            │                       │            │
///     └──────── abort, connection_lost, failure ──┴───────────────────────┴────────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Unwrapped,
    Handshake,
    Wrapped,
    Flushing,
    Shutdown,
}

/// What the protocol has been told; `asyncio.sslproto.AppProtocolState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Nothing,
    Made,
    End,
    Lost,
}

/// Everything that changes. Each flag says what is true, not what to do.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts; their combinations are all possible")]
pub(super) struct State {
    pub(super) phase: Phase,
    pub(super) told: Told,
    /// The transport below; Some from `connection_made` to `connection_lost`.
    pub(super) lower: Option<Py<PyAny>>,
    /// None once the connection is lost.
    pub(super) protocol: Option<Py<PyAny>>,
    /// How the protocol takes plaintext.
    pub(super) delivery: Delivery,
    /// Bytes that were written and are not encrypted, in order; none is empty.
    pub(super) backlog: VecDeque<Py<PyBytes>>,
    /// Their number.
    pub(super) backlog_size: usize,
    /// They wait for the end of the turn only: the transport is in the loop's list of those with unsent bytes.
    pub(super) is_deferred: bool,
    /// When the protocol is asked to pause writing.
    pub(super) write_flow: Flow,
    /// When the lower transport is asked to pause reading.
    pub(super) read_flow: Flow,
    /// The lower transport has asked to pause writing.
    pub(super) is_lower_full: bool,
    /// `pause_reading()` was called.
    pub(super) is_paused: bool,
    /// The lower transport has announced the end of the stream.
    pub(super) is_ended: bool,
    /// `close()` or `abort()` was called, or the connection is lost.
    pub(super) is_closed: bool,
    /// `close()` was called on the closed transport.
    pub(super) is_given_up: bool,
    /// A server has accepted it: nobody but the exception handler, in debug mode, hears of a failure.
    pub(super) is_accepted: bool,
    /// Counts the writes after the end, as asyncio does for its warning.
    pub(super) lost: u32,
    /// Resolved at the end of the hand-shake.
    pub(super) waiter: Option<Py<PyAny>>,
    /// Of the hand-shake, later of the shutdown.
    pub(super) timer: Option<Py<PyAny>>,
    /// When the hand-shake began (seconds on the loop's clock), in debug mode.
    pub(super) began: Option<f64>,
    pub(super) facts: Option<Facts>,
}

/// What is known when the hand-shake is done.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) peer_certificate: Py<PyAny>,
    pub(super) cipher: Py<PyAny>,
    pub(super) compression: Py<PyAny>,
}

impl State {
    /// Whether something that was written waits for more than the end of the turn.
    pub(super) fn has_backlog(&self) -> bool {
        !self.is_deferred && !self.backlog.is_empty()
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        for object in [&self.lower, &self.protocol, &self.waiter, &self.timer] {
            visit.call(object)?;
        }
        match &self.facts {
            Some(facts) => visit.call(&facts.peer_certificate),
            None => Ok(()),
        }
    }
}
