//! `sendfile(2)`: from a file to a socket or to the socket of a transport, without the bytes passing through the process.
//!
//! Owns how far a transfer has come. Rules, which are asyncio's (`_UnixSelectorEventLoop._sock_sendfile_native_impl`):
//!
//! 1. A call that fails before anything was sent means that sendfile is not to be had for this pair: asyncio's code
//!    falls back to reading and writing.
//! 2. Without a count it goes on to the end of the file, wherever that is by then.
//! 3. However it ends, the file's position is behind what was sent.

use super::operation::{Operation, Target};
use super::work::{Attempt, Work};
use crate::errors;
use crate::event_loop::Loop;
use crate::event_loop::watch::Direction;
use crate::py::names;
use crate::sys::transfer;
use crate::transport::stream::Stream;
use pyo3::exceptions::PyConnectionError;
use pyo3::prelude::*;
use std::io;
use std::os::fd::RawFd;

/// So much is asked for with one call (bytes): signals and other threads wait no longer than that.
const PIECE: usize = 8 * 1024 * 1024;
/// After so many pieces others have their turn.
const PIECES: usize = 2;

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Transfer {
    file: RawFd,
    offset: i64,
    /// None: to the end of the file.
    count: Option<u64>,
    sent: u64,
    /// The position is set also when nothing was sent.
    always_seeks: bool,
    has_waited: bool,
}

/// Sends a file to a socket or a stream transport; for the loop's `_sock_sendfile_native` and `_sendfile_native`.
#[pyfunction]
#[pyo3(signature = (core, target, file, offset, count, always_seeks))]
pub(crate) fn send_file<'py>(
    core: &Bound<'py, Loop>,
    target: &Bound<'py, PyAny>,
    file: RawFd,
    offset: i64,
    count: Option<u64>,
    always_seeks: bool,
) -> PyResult<Bound<'py, Operation>> {
    let py = core.py();
    let target = if let Ok(stream) = target.cast_exact::<Stream>() {
        Target::Stream(stream.clone().unbind())
    } else {
        let is_plain = target.get_type().is(names::SOCKET.get(py)?);
        Target::Socket { sock: target.clone().unbind(), is_plain }
    };
    let transfer = Transfer { file, offset, count, sent: 0, always_seeks, has_waited: false };
    Operation::begin(core, "sendfile", target, Work::SendFile(Box::new(transfer)))
}

impl Transfer {
    pub(super) fn attempt<'py>(&mut self, core: &Bound<'py, Loop>, fd: RawFd) -> PyResult<Attempt<'py>> {
        let py = core.py();
        for _ in 0..PIECES {
            let left = self.count.map_or(u64::MAX, |count| count.saturating_sub(self.sent));
            if left == 0 {
                return self.end(py);
            }
            let asked = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE);
            let (file, offset) = (self.file, self.offset);
            // The file may have to be read from a disk.
            match py.detach(|| transfer::send_file(fd, file, offset, asked)) {
                Ok(0) => return self.end(py),
                Ok(count) => {
                    self.offset = self.offset.saturating_add_unsigned(count as u64);
                    self.sent += count as u64;
                    core.get().metrics.note_sent(count);
                    // A full socket, or the end of the file.
                    if count < asked && !transfer::is_writable(fd).unwrap_or(true) {
                        return Ok(self.wait());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(self.wait()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Attempt::Paused),
                Err(error) => return Err(self.fail(py, &error)),
            }
        }
        Ok(Attempt::Paused)
    }

    fn wait<'py>(&mut self) -> Attempt<'py> {
        self.has_waited = true;
        Attempt::Blocked(Direction::Write)
    }

    fn end<'py>(&self, py: Python<'py>) -> PyResult<Attempt<'py>> {
        self.note_position(py)?;
        Ok(Attempt::Done(Some(self.sent.into_pyobject(py)?.into_any())))
    }

    #[cold]
    fn fail(&self, py: Python<'_>, error: &io::Error) -> PyErr {
        if let Err(error) = self.note_position(py) {
            return error;
        }
        if self.sent == 0 {
            let class =
                names::SENDFILE_NOT_AVAILABLE.get(py).and_then(|class| class.call1(("os.sendfile call failed",)));
            return class.map_or_else(|error| error, PyErr::from_value);
        }
        let cause = errors::os_error(py, error);
        if !self.has_waited || error.raw_os_error() != Some(libc::ENOTCONN) {
            return cause;
        }
        // The connection was closed in the middle: the same error on every system.
        let error = PyConnectionError::new_err(("socket is not connected", libc::ENOTCONN));
        error.set_cause(py, Some(cause));
        error
    }

    /// Sets the file's position behind what was sent.
    pub(super) fn note_position(&self, py: Python<'_>) -> PyResult<()> {
        if self.sent == 0 && !self.always_seeks {
            return Ok(());
        }
        transfer::seek(self.file, self.offset).map_err(|error| errors::os_error(py, &error))
    }
}
