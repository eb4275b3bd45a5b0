//! Rust futures and Python coroutines on one loop, in one thread: the API of this crate for Rust code.
//!
//! A *program* starts Python with mioloop in it by [`start`] or [`Builder`]; no mioloop wheel need be installed. An
//! *extension module* for Python, built with PyO3, uses the same functions beside the installed wheel, or on any other
//! asyncio loop: it starts nothing.
//!
//! | from | to | by |
//! | --- | --- | --- |
//! | a Python coroutine | its result, in Rust | [`run`] |
//! | a Rust future | its result, with Python running beside it | [`block_on`] |
//! | a Rust future | something that Python awaits | [`into_awaitable`] |
//! | something that Python awaits | a Rust future | [`into_future`] |
//! | a Rust future | a task of the loop | [`spawn`], [`spawn_local`] |
//! | another thread | the loop | [`Remote`] |
//! | time, descriptors | a Rust future | [`sleep`], [`timeout`], [`AsyncFd`] |
//!
//! A Rust future is polled by the thread of its loop, attached to the interpreter, with the loop's callbacks before and
//! after it: it should not block, and may use Python objects at once (`Python::attach` costs nothing there). A waker may
//! be called by any thread; it needs no interpreter, and does not wait for one. A future that stays ready is polled again
//! at once, for 50 µs in a turn of the loop.
//!
//! Cancelling crosses the border both ways, panics become exceptions, context variables follow; each function says how.
//! When a loop is closed, the Rust futures on it are dropped, and their handles say that they were cancelled.

/// The page about this API: its Rust is compiled and run with the other examples.
#[cfg(doctest)]
#[doc = include_str!("../../docs/embedding.md")]
struct Page;

mod awaitable;
mod coroutine;
mod descriptor;
pub(crate) mod home;
mod item;
pub(crate) mod join;
mod local;
mod package;
pub(crate) mod polling;
mod program;
mod remote;
mod scope;
mod task;
mod time;

pub use awaitable::{into_awaitable, into_awaitable_local};
pub use coroutine::{PyFuture, into_future};
pub use descriptor::{AsyncFd, Readiness};
pub use join::{JoinError, JoinHandle, spawn, spawn_local};
pub use program::{Builder, block_on, run, start};
pub use remote::Remote;
pub use time::{Sleep, sleep, timeout, yield_now};

use crate::errors;
use crate::event_loop::core::error_context;
use pyo3::exceptions::{PyKeyboardInterrupt, PyRuntimeError, PySystemExit};
use pyo3::intern;
use pyo3::prelude::*;
use std::any::Any;
use std::fmt;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The loop is closed: what was sent to it was dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Event loop is closed")
    }
}

impl std::error::Error for Closed {}

/// asyncio's `RuntimeError`.
impl From<Closed> for PyErr {
    fn from(error: Closed) -> Self {
        PyRuntimeError::new_err(error.to_string())
    }
}

mod exceptions {
    use pyo3::exceptions::PyException;

    pyo3::create_exception!(mioloop, RustPanic, PyException, "A Rust future has panicked.");
}
/// What a panic of a Rust future is to Python: an `Exception` with the text of the panic.
///
/// Not PyO3's `PanicException`, which goes on panicking in the next Rust code that it comes through.
pub use exceptions::RustPanic;

/// The exception of a panic.
#[cold]
fn panicked(payload: &(dyn Any + Send)) -> PyErr {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("panic without a text");
    RustPanic::new_err(text.to_owned())
}

/// A function for the loop's thread.
type Job = Box<dyn FnOnce(Python<'_>) + Send>;

/// What is behind these locks is consistent at any time: a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Attaches to the interpreter; None while that is shutting down.
pub(crate) fn attached<R>(action: impl FnOnce(Python<'_>) -> R) -> Option<R> {
    #[expect(clippy::disallowed_methods, reason = "Rust code calls here, which has no token to pass on")]
    Python::try_attach(action)
}

fn os_error(error: &io::Error) -> PyErr {
    attached(|py| errors::os_error(py, error)).unwrap_or_else(|| PyRuntimeError::new_err(error.to_string()))
}

/// The exceptions that leave the loop.
fn is_exit(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PySystemExit>(py) || error.is_instance_of::<PyKeyboardInterrupt>(py)
}

/// Tells the loop's exception handler of an error that has nobody else to go to.
fn report(event_loop: &Bound<'_, PyAny>, message: &str, error: &PyErr) -> PyResult<()> {
    let py = event_loop.py();
    if is_exit(py, error) {
        return Err(error.clone_ref(py));
    }
    let context = error_context(py, message, error)?;
    event_loop.call_method1(intern!(py, "call_exception_handler"), (context,)).map(drop)
}
