//! From the socket to the protocol.
//!
//! Facts of Linux that shape this (edge-triggered epoll): an edge fires again for new data without a read that said
//! "would block", so a read that came back short is the last one of its event, unless the end of the stream was
//! announced. Data and the end arrive as one event. What is found while reading is paused is remembered.

use super::direct::{self, Delivery, Feed};
use super::state::State;
use super::stream::Stream;
use super::tls::Tls;
use crate::errors;
use crate::event_loop::core::SCRATCH;
use crate::event_loop::owned::Runnable;
use crate::event_loop::run::{Run, is_exit};
use crate::event_loop::source::{Event, Source};
use crate::py::call::call_method1;
use crate::py::{buffer, context};
use crate::reactor::readiness::Readiness;
use crate::sys::{memory, socket};
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::io;
use std::os::fd::RawFd;

/// So many bytes are read from one transport before the others have their turn.
const BUDGET: usize = 256 * 1024;
/// The most that one read asks for: asyncio's `max_size`.
const LARGEST: usize = 256 * 1024;

/// What the next read needs.
struct Plan {
    fd: RawFd,
    protocol: Py<PyAny>,
    delivery: Delivery,
    /// As [`State::bulk`].
    bulk: usize,
}

/// What one read brought.
enum Outcome<'py> {
    /// So many bytes, in a new bytes object, or in the protocol's own buffer.
    Data(usize, Option<Bound<'py, PyBytes>>),
    /// So many bytes, which have been delivered.
    Delivered(usize, PyResult<()>),
    Nothing,
}

impl Plan {
    fn asked(&self) -> usize {
        if self.bulk == 0 { SCRATCH } else { self.bulk }
    }
}

impl State {
    #[inline]
    fn plan_read(&mut self, py: Python<'_>) -> Option<Plan> {
        if self.is_closing || self.is_paused || !self.may_read || self.is_read_ended {
            return None;
        }
        let protocol = self.protocol.as_ref()?.clone_ref(py);
        Some(Plan { fd: self.endpoint.fd()?, protocol, delivery: self.delivery, bulk: self.bulk })
    }

    /// Notes how much came of how much was asked for.
    #[inline]
    fn note_read(&mut self, count: usize, asked: usize) {
        self.may_read = count == asked || self.is_read_closed;
        self.bulk = match self.bulk {
            0 if count == asked => {
                memory::keep_large_blocks();
                SCRATCH * 2
            }
            0 => 0,
            bulk if count == asked => (bulk * 2).min(LARGEST),
            // A little more than the scratch holds would be read in two pieces with it.
            bulk if count * 2 >= SCRATCH => bulk,
            _ => 0,
        };
    }
}

impl Stream {
    #[inline]
    pub(super) fn on_ready(slf: &Bound<'_, Self>, run: &mut Run<'_, '_>, readiness: Readiness) -> PyResult<()> {
        let py = slf.py();
        if readiness.is_readable() {
            let context = slf.get().state.with(py, |state| {
                state.may_read = true;
                state.is_read_closed |= readiness.is_read_closed();
                state.is_reading().then(|| state.context.clone_ref(py))
            });
            if let Some(context) = context {
                let entered = run.entered.switch(py, &context);
                context.drop_ref(py);
                entered?;
                Self::read(slf, run)?;
            }
        }
        if readiness.is_writable() && slf.get().state.with(py, |state| std::mem::take(&mut state.is_blocked)) {
            let context = slf.get().state.with(py, |state| {
                let own = state.rare.write_context.take();
                own.unwrap_or_else(|| state.context.clone_ref(py))
            });
            run.entered.switch(py, &context)?;
            Self::send(slf)?;
            let is_blocked = slf.get().state.with(py, |state| state.is_blocked && !state.is_context_fixed);
            if is_blocked {
                slf.get().state.with(py, |state| state.rare.write_context = Some(context));
            }
        }
        Ok(())
    }

    pub(super) fn on_continue(slf: &Bound<'_, Self>, run: &mut Run<'_, '_>) -> PyResult<()> {
        let py = slf.py();
        let context = slf.get().state.with(py, |state| {
            state.is_continued = false;
            state.context.clone_ref(py)
        });
        run.entered.switch(py, &context)?;
        Self::read(slf, run)
    }

    /// Reads until there is no more, reading is stopped, or others must have their turn.
    fn read(slf: &Bound<'_, Self>, run: &mut Run<'_, '_>) -> PyResult<()> {
        let py = slf.py();
        let mut budget = BUDGET;
        while let Some(plan) = slf.get().state.with(py, |state| state.plan_read(py)) {
            if budget == 0 {
                Self::continue_later(slf);
                break;
            }
            let protocol = plan.protocol.bind(py);
            let outcome = match plan.delivery {
                Delivery::Data => Self::read_bytes(slf, run, &plan)?,
                Delivery::Buffer => Self::read_into_protocol(slf, protocol, plan.fd)?,
                Delivery::Tls => Self::read_into_tls(slf, run, &plan)?,
                Delivery::Reader => Self::read_into_reader(slf, run, &plan)?,
            };
            let delivered = match outcome {
                Outcome::Nothing => break,
                Outcome::Data(0, _) => return Self::on_end(slf, protocol),
                Outcome::Data(count, data) => {
                    slf.get().core.get().metrics.note_received(count);
                    budget = budget.saturating_sub(count);
                    match data {
                        Some(data) => call_method1(protocol, intern!(py, "data_received"), data.as_any()),
                        None => {
                            call_method1(protocol, intern!(py, "buffer_updated"), count.into_pyobject(py)?.as_any())
                        }
                    }
                    .map(drop)
                }
                Outcome::Delivered(count, delivered) => {
                    slf.get().core.get().metrics.note_received(count);
                    // There may be more, but the task that reads comes first: it empties the buffer for it.
                    let is_reader = plan.delivery == Delivery::Reader;
                    budget = if is_reader && count == plan.asked() { 0 } else { budget.saturating_sub(count) };
                    delivered
                }
            };
            plan.protocol.drop_ref(py);
            if let Err(error) = delivered {
                // asyncio's TLS is a BufferedProtocol.
                let is_buffered = matches!(plan.delivery, Delivery::Buffer | Delivery::Tls);
                let method = if is_buffered { "buffer_updated" } else { "data_received" };
                return Self::fatal(slf, &error, &format!("Fatal error: protocol.{method}() call failed."));
            }
        }
        Ok(())
    }

    #[inline]
    fn read_bytes<'py>(slf: &Bound<'py, Self>, run: &mut Run<'_, '_>, plan: &Plan) -> PyResult<Outcome<'py>> {
        let py = slf.py();
        loop {
            let answer = if plan.bulk == 0 {
                let scratch = run.scratch.get_mut();
                socket::receive(plan.fd, scratch).map(|count| PyBytes::new(py, &scratch[..count]))
            } else {
                buffer::read_into_bytes(py, plan.bulk, |room| socket::receive_uninit(plan.fd, room))?
            };
            match answer {
                Ok(data) => {
                    let count = data.as_bytes().len();
                    slf.get().state.with(py, |state| state.note_read(count, plan.asked()));
                    return Ok(Outcome::Data(count, Some(data)));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Self::read_failed(slf, &error),
            }
        }
    }

    /// What is received goes through the scratch into the session; then the session's plaintext is delivered.
    fn read_into_tls<'py>(slf: &Bound<'py, Self>, run: &mut Run<'_, '_>, plan: &Plan) -> PyResult<Outcome<'py>> {
        let py = slf.py();
        let scratch = run.scratch.get_mut();
        loop {
            match socket::receive(plan.fd, scratch) {
                Ok(0) => return Ok(Outcome::Data(0, None)),
                Ok(count) => {
                    let is_full = count == scratch.len();
                    slf.get().state.with(py, |state| state.may_read = is_full || state.is_read_closed);
                    let tls = plan.protocol.bind(py).cast_exact::<Tls>()?;
                    tls.get().feed(py, &scratch[..count])?;
                    return Ok(Outcome::Delivered(count, Tls::go_on(tls)));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Self::read_failed(slf, &error),
            }
        }
    }

    /// For asyncio's own streams: small reads through the scratch, large ones straight into the reader's buffer.
    fn read_into_reader<'py>(slf: &Bound<'py, Self>, run: &mut Run<'_, '_>, plan: &Plan) -> PyResult<Outcome<'py>> {
        let py = slf.py();
        let protocol = plan.protocol.bind(py);
        let feed = if plan.bulk == 0 { None } else { Feed::of(protocol) };
        loop {
            let scratch = run.scratch.get_mut();
            let answer = match &feed {
                None if plan.bulk == 0 => Some(socket::receive(plan.fd, scratch)),
                None => None,
                Some(feed) => feed.read(plan.bulk, |room| socket::receive_uninit(plan.fd, room)),
            };
            match answer {
                None => return Self::read_bytes(slf, run, plan),
                Some(Ok(0)) => return Ok(Outcome::Data(0, None)),
                Some(Ok(count)) => {
                    slf.get().state.with(py, |state| state.note_read(count, plan.asked()));
                    let delivered =
                        feed.map_or_else(|| direct::deliver(protocol, &scratch[..count]), |feed| feed.wake());
                    return Ok(Outcome::Delivered(count, delivered));
                }
                Some(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Some(Err(error)) => return Self::read_failed(slf, &error),
            }
        }
    }

    /// `_SelectorSocketTransport._read_ready__get_buffer`
    fn read_into_protocol<'py>(
        slf: &Bound<'py, Self>,
        protocol: &Bound<'py, PyAny>,
        fd: RawFd,
    ) -> PyResult<Outcome<'py>> {
        let py = slf.py();
        let failed = |error: &PyErr| {
            let message = "Fatal error: protocol.get_buffer() call failed.";
            Self::fatal(slf, error, message).map(|()| Outcome::Nothing)
        };
        let room = call_method1(protocol, intern!(py, "get_buffer"), (-1_i32).into_pyobject(py)?.as_any());
        let room = match room.and_then(|room| room.len().map(|length| (room, length))) {
            Ok((room, 1..)) => room,
            Ok(_) => return failed(&PyRuntimeError::new_err("get_buffer() returned an empty buffer")),
            Err(error) => return failed(&error),
        };
        let mut asked = 0;
        let answer = buffer::fill(&room, |room| {
            asked = room.len();
            loop {
                match socket::receive_uninit(fd, room) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    answer => return answer,
                }
            }
        });
        match answer {
            Ok(Ok(count)) => {
                slf.get().state.with(py, |state| state.may_read = count == asked || state.is_read_closed);
                Ok(Outcome::Data(count, None))
            }
            Ok(Err(error)) => Self::read_failed(slf, &error),
            Err(error) => Self::fatal(slf, &error, "Fatal read error on socket transport").map(|()| Outcome::Nothing),
        }
    }

    #[cold]
    fn read_failed<'py>(slf: &Bound<'py, Self>, error: &io::Error) -> PyResult<Outcome<'py>> {
        let py = slf.py();
        if error.kind() == io::ErrorKind::WouldBlock {
            slf.get().state.with(py, |state| {
                state.may_read = false;
                state.is_read_closed = false;
            });
            return Ok(Outcome::Nothing);
        }
        let error = errors::os_error(py, error);
        Self::fatal(slf, &error, "Fatal read error on socket transport").map(|()| Outcome::Nothing)
    }

    /// The peer has ended its direction; `_SelectorSocketTransport._read_ready__on_eof`.
    #[cold]
    fn on_end(slf: &Bound<'_, Self>, protocol: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = slf.py();
        Self::log(slf, "%r received EOF")?;
        slf.get().state.with(py, |state| state.is_read_ended = true);
        let keeps_open = protocol.call_method0(intern!(py, "eof_received")).and_then(|answer| answer.is_truthy());
        match keeps_open {
            Ok(true) => Self::unregister_if_idle(slf),
            Ok(false) => Self::close_gently(slf),
            Err(error) if is_exit(py, &error) => Err(error),
            Err(error) => Self::fatal(slf, &error, "Fatal error: protocol.eof_received() call failed."),
        }
    }

    /// `pause_reading()`
    pub(super) fn pause(slf: &Bound<'_, Self>) -> PyResult<()> {
        let was_reading = slf.get().state.with(slf.py(), |state| {
            let was_reading = state.is_reading();
            state.is_paused |= was_reading;
            was_reading
        });
        if was_reading { Self::log(slf, "%r pauses reading") } else { Ok(()) }
    }

    /// `resume_reading()`: what was found meanwhile is read in the next turn.
    ///
    /// Before contexts could be given to transports, asyncio reads in the context of whoever resumed last.
    pub(super) fn resume(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        if !slf.get().state.with(py, |state| !state.is_closing && state.is_paused) {
            return Ok(());
        }
        let context = context::copy_current(py)?;
        let (may_read, old) = slf.get().state.with(py, |state| {
            let old = if state.is_context_fixed { context } else { std::mem::replace(&mut state.context, context) };
            state.is_paused = false;
            (state.may_read && state.token.is_some(), old)
        });
        drop(old);
        if may_read {
            Self::continue_later(slf);
        } else {
            slf.get().core.get().ask_kernel(py);
        }
        Self::log(slf, "%r resumes reading")
    }

    fn continue_later(slf: &Bound<'_, Self>) {
        let py = slf.py();
        if slf.get().state.with(py, |state| !std::mem::replace(&mut state.is_continued, true)) {
            let source = Source::Stream(slf.clone().unbind());
            slf.get().core.get().make_ready(py, Runnable::Event(source, Event::Continue));
        }
    }
}
