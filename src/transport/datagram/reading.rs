//! From the socket to the protocol.
//!
//! An event is answered by one read of a batch, or by a row of single ones ([`crate::reactor::appetite`]): the
//! registration is level-triggered, so what is left is told again by the next poll, after timers and others had their
//! turn. Where the platform only has edges, a full batch queues a `Continue`.
//!
//! What a batch brought is delivered in order; what the protocol does in between counts at once: after `close()` the
//! rest is dropped, after `pause_reading()` it is kept.

use super::state::{Received, State};
use super::{Datagram, LARGEST};
use crate::errors;
use crate::event_loop::owned::Runnable;
use crate::event_loop::run::{Run, is_exit};
use crate::event_loop::source::{Event, Source};
use crate::py::address::Peers;
use crate::py::call::call_method2;
use crate::py::context;
use crate::reactor::appetite::LONGEST_ROW;
use crate::reactor::poller::LEVEL_NEEDS_REARM;
use crate::reactor::readiness::Readiness;
use crate::sys::clock;
use crate::sys::datagram::{BATCH, Slots};
use crate::sys::socket::Address;
use pyo3::exceptions::{PyBlockingIOError, PyInterruptedError, PyOSError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};
use std::io;
use std::os::fd::RawFd;

/// No datagram of the internet is larger (bytes).
const LARGEST_IP: usize = 64 * 1024;
/// Those of Unix sockets are: fewer fit into a batch.
const UNIX_BATCH: usize = 8;

/// What a read needs.
struct Plan {
    fd: RawFd,
    /// How many datagrams to ask for.
    asked: usize,
}

/// What the next datagram meets.
enum Door {
    Open(Py<PyAny>),
    /// Reading is paused.
    Shut,
    /// The transport is closing.
    Gone,
}

impl State {
    #[inline]
    fn plan_read(&mut self) -> Option<Plan> {
        if !self.is_reading() || self.sock.is_none() {
            return None;
        }
        // A lone read would have to be repeated where only edges are told.
        let asked = if LEVEL_NEEDS_REARM { BATCH } else { self.appetite.next() };
        Some(Plan { fd: self.fd, asked })
    }

    #[inline]
    fn door(&self, py: Python<'_>) -> Door {
        match &self.protocol {
            Some(protocol) if self.is_reading() => Door::Open(protocol.clone_ref(py)),
            Some(_) if !self.is_closing => Door::Shut,
            Some(_) | None => Door::Gone,
        }
    }
}

impl Datagram {
    #[inline]
    pub(super) fn on_ready(slf: &Bound<'_, Self>, run: &mut Run<'_, '_>, readiness: Readiness) -> PyResult<()> {
        let py = slf.py();
        if readiness.is_readable() {
            Self::read(slf, run)?;
        }
        if readiness.is_writable() && slf.get().state.with(py, |state| std::mem::take(&mut state.is_blocked)) {
            let context = slf.get().state.with(py, |state| {
                let own = state.rare.write_context.take();
                own.unwrap_or_else(|| state.context.clone_ref(py))
            });
            run.entered.switch(py, &context)?;
            Self::on_writable(slf)?;
            if slf.get().state.with(py, |state| state.is_blocked) {
                slf.get().state.with(py, |state| state.rare.write_context = Some(context));
            }
        }
        Ok(())
    }

    pub(super) fn on_continue(slf: &Bound<'_, Self>, run: &mut Run<'_, '_>) -> PyResult<()> {
        slf.get().state.with(slf.py(), |state| state.is_continued = false);
        Self::read(slf, run)
    }

    /// Reads, after what is left from an earlier batch.
    fn read(slf: &Bound<'_, Self>, run: &mut Run<'_, '_>) -> PyResult<()> {
        let py = slf.py();
        Self::deliver_kept(slf, run)?;
        let (place, count, size) = match slf.get().state.with(py, |state| state.family) {
            libc::AF_INET | libc::AF_INET6 => (0, BATCH, LARGEST_IP),
            libc::AF_UNIX => (1, UNIX_BATCH, LARGEST),
            _ => return Self::read_foreign(slf, run),
        };
        // Taken out: whatever the protocol does, nobody else gets these slots meanwhile.
        let mut slots = run.scratch.slots[place].take().unwrap_or_else(|| Box::new(Slots::new(count, size)));
        let outcome = Self::read_native(slf, run, &mut slots);
        run.scratch.slots[place] = Some(slots);
        outcome
    }

    /// One batch, or single datagrams as long as answers to them bring new ones.
    fn read_native(slf: &Bound<'_, Self>, run: &mut Run<'_, '_>, slots: &mut Slots) -> PyResult<()> {
        let py = slf.py();
        let mut start = None;
        while let Some(plan) = slf.get().state.with(py, State::plan_read) {
            let count = Self::read_batch(slf, run, &plan, slots)?;
            if start.is_some() {
                slf.get().state.with(py, |state| state.appetite.note_look(count > 0));
            }
            if count != 1 || !Self::answer(slf)? || !slf.get().state.with(py, |state| state.appetite.looks_again()) {
                return Ok(());
            }
            let now = clock::monotonic();
            if now.saturating_sub(*start.get_or_insert(now)) > LONGEST_ROW {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Reads and delivers; how many datagrams there were.
    fn read_batch(slf: &Bound<'_, Self>, run: &mut Run<'_, '_>, plan: &Plan, slots: &mut Slots) -> PyResult<usize> {
        let py = slf.py();
        let is_lone = plan.asked == 1;
        let received = loop {
            let answer =
                if is_lone { slots.receive_one(plan.fd).map(|()| 1) } else { slots.receive(plan.fd, plan.asked) };
            match answer {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                answer => break answer,
            }
        };
        let count = match received {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(error) => return Self::read_failed(slf, run, &errors::os_error(py, &error)).map(|()| 0),
        };
        if !is_lone {
            slf.get().state.with(py, |state| state.appetite.note_count(count));
        }
        if LEVEL_NEEDS_REARM && count == plan.asked {
            Self::continue_later(slf);
        }
        let start = (count > 1).then(clock::monotonic);
        for index in 0..count {
            let protocol = match slf.get().state.with(py, |state| state.door(py)) {
                Door::Open(protocol) => protocol,
                Door::Shut => return Self::keep(slf, &mut run.scratch.peers, slots, index..count).map(|()| count),
                Door::Gone => return Ok(count),
            };
            let data = PyBytes::new(py, slots.datagram(index));
            let sender = Self::sender(slf, &mut run.scratch.peers, slots.sender(index))?;
            if let Err(error) = Self::deliver(slf, run, protocol, &data, &sender) {
                return Self::keep(slf, &mut run.scratch.peers, slots, index + 1..count).and(Err(error));
            }
        }
        if let Some(start) = start {
            let time = clock::monotonic().saturating_sub(start);
            slf.get().state.with(py, |state| state.appetite.note_time(count, time));
        }
        Ok(count)
    }

    /// Calls `datagram_received`; an error leaves the loop.
    #[inline]
    fn deliver<'py>(
        slf: &Bound<'py, Self>,
        run: &mut Run<'_, '_>,
        protocol: Py<PyAny>,
        data: &Bound<'py, PyBytes>,
        sender: &Bound<'py, PyAny>,
    ) -> PyResult<()> {
        let py = slf.py();
        slf.get().core.get().metrics.note_received(data.as_bytes().len());
        Self::enter(slf, run)?;
        let delivered = call_method2(protocol.bind(py), intern!(py, "datagram_received"), data, sender);
        protocol.drop_ref(py);
        match delivered {
            Ok(_) => Ok(()),
            Err(error) => Self::report_failure(slf, "datagram_received", &error),
        }
    }

    /// Enters the context of reads, unless it is entered.
    #[inline]
    fn enter(slf: &Bound<'_, Self>, run: &mut Run<'_, '_>) -> PyResult<()> {
        let py = slf.py();
        let context = slf.get().state.with(py, |state| state.context.clone_ref(py));
        let entered = run.entered.switch(py, &context);
        context.drop_ref(py);
        entered
    }

    /// The object of a sender; the same one as long as the same peer sends.
    #[inline]
    fn sender<'py>(slf: &Bound<'py, Self>, peers: &mut Peers, address: Option<Address>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let Some(address) = address else { return Ok(py.None().into_bound(py)) };
        let known = slf.get().state.with(py, |state| {
            state.last.as_ref().filter(|(last, _)| *last == address).map(|(_, object)| object.clone_ref(py))
        });
        if let Some(object) = known {
            return Ok(object.into_bound(py));
        }
        let object = peers.object(py, &address)?;
        let last = (address, object.clone_ref(py));
        drop(slf.get().state.with(py, |state| state.last.replace(last)));
        Ok(object.into_bound(py))
    }

    /// Keeps what was received and cannot be delivered now.
    #[cold]
    fn keep(slf: &Bound<'_, Self>, peers: &mut Peers, slots: &Slots, indices: std::ops::Range<usize>) -> PyResult<()> {
        let py = slf.py();
        for index in indices {
            let data = PyBytes::new(py, slots.datagram(index)).unbind();
            let sender = Self::sender(slf, peers, slots.sender(index))?.unbind();
            slf.get().state.with(py, |state| state.rare.kept.push_back((data, sender)));
        }
        Self::continue_if_kept(slf);
        Ok(())
    }

    /// Delivers what was kept, as far as the protocol lets it.
    fn deliver_kept(slf: &Bound<'_, Self>, run: &mut Run<'_, '_>) -> PyResult<()> {
        let py = slf.py();
        loop {
            let next = |state: &mut State| -> Option<(Py<PyAny>, Received)> {
                if state.rare.kept.is_empty() {
                    return None;
                }
                match state.door(py) {
                    Door::Open(protocol) => state.rare.kept.pop_front().map(|received| (protocol, received)),
                    Door::Shut | Door::Gone => None,
                }
            };
            let Some((protocol, (data, sender))) = slf.get().state.with(py, next) else { return Ok(()) };
            let delivered = Self::deliver(slf, run, protocol, data.bind(py), sender.bind(py));
            if delivered.is_err() {
                Self::continue_if_kept(slf);
                return delivered;
            }
        }
    }

    fn continue_if_kept(slf: &Bound<'_, Self>) {
        if slf.get().state.with(slf.py(), |state| state.is_reading() && !state.rare.kept.is_empty()) {
            Self::continue_later(slf);
        }
    }

    fn continue_later(slf: &Bound<'_, Self>) {
        let py = slf.py();
        if slf.get().state.with(py, |state| !std::mem::replace(&mut state.is_continued, true)) {
            let source = Source::Datagram(slf.clone().unbind());
            slf.get().core.get().make_ready(py, Runnable::Event(source, Event::Continue));
        }
    }

    /// An error of the socket is told, and the transport goes on.
    #[cold]
    fn read_failed(slf: &Bound<'_, Self>, run: &mut Run<'_, '_>, error: &PyErr) -> PyResult<()> {
        if LEVEL_NEEDS_REARM {
            Self::continue_later(slf);
        }
        Self::enter(slf, run)?;
        Self::tell_error(slf, error).or_else(|error| Self::report_failure(slf, "error_received", &error))
    }

    /// `_SelectorDatagramTransport._read_ready`, word by word: for families whose addresses only Python knows.
    #[cold]
    fn read_foreign(slf: &Bound<'_, Self>, run: &mut Run<'_, '_>) -> PyResult<()> {
        let py = slf.py();
        let parts = slf.get().state.with(py, |state| {
            let sock = state.sock.as_ref().map(|sock| sock.clone_ref(py));
            sock.zip(state.protocol.as_ref().map(|protocol| protocol.clone_ref(py)))
        });
        let Some((sock, protocol)) = parts else { return Ok(()) };
        let received = sock.bind(py).call_method1(intern!(py, "recvfrom"), (LARGEST,));
        match received.and_then(|received| received.cast_into::<PyTuple>()?.extract::<(Bound<'_, PyBytes>, _)>()) {
            Ok((data, sender)) => {
                if LEVEL_NEEDS_REARM {
                    Self::continue_later(slf);
                }
                Self::deliver(slf, run, protocol, &data, &sender)
            }
            Err(error) if is_exit(py, &error) => Err(error),
            Err(error) if would_block(py, &error) => Ok(()),
            Err(error) if error.is_instance_of::<PyOSError>(py) => Self::read_failed(slf, run, &error),
            Err(error) => Self::fatal(slf, &error, "Fatal read error on datagram transport"),
        }
    }

    /// `resume_reading()`: what was kept is delivered in the next turn.
    ///
    /// asyncio reads in the context of whoever resumed last.
    pub(super) fn resume(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        if !slf.get().state.with(py, |state| !state.is_closing && state.is_paused) {
            return Ok(());
        }
        let context = context::copy_current(py)?;
        let old = slf.get().state.with(py, |state| {
            state.is_paused = false;
            std::mem::replace(&mut state.context, context)
        });
        drop(old);
        Self::update_interest(slf)?;
        Self::continue_if_kept(slf);
        Self::log(slf, "%r resumes reading")
    }
}

/// Whether an exception of the socket object only says that now is not the time.
pub(super) fn would_block(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyBlockingIOError>(py) || error.is_instance_of::<PyInterruptedError>(py)
}
