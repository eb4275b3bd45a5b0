//! The loop as other threads may use it.

use super::Closed;
use super::coroutine::PyFuture;
use super::home::Home;
use super::item::Item;
use super::join::{JoinHandle, prepare};
use pyo3::prelude::*;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

/// A loop as other threads may use it: posts work to it, and runs futures and coroutines on it.
///
/// Cheap to clone. Nothing here waits for the interpreter but [`Remote::of`] and [`Remote::current`].
#[derive(Clone)]
pub struct Remote {
    home: Arc<Home>,
}

impl Remote {
    /// The loop that runs in this thread.
    ///
    /// # Errors
    ///
    /// `RuntimeError`: no loop runs in this thread.
    pub fn current(py: Python<'_>) -> PyResult<Self> {
        Home::running(py).map(|(home, _)| Self { home })
    }

    /// This loop: one of mioloop's, or any asyncio loop that has `add_reader`.
    ///
    /// # Errors
    ///
    /// `RuntimeError`: the loop is closed. `OSError`: no descriptors are left.
    pub fn of(event_loop: &Bound<'_, PyAny>) -> PyResult<Self> {
        Home::of(event_loop).map(|home| Self { home })
    }

    /// Has the loop's thread call a function, in the order of the calls of this thread. A panic goes to the loop's
    /// exception handler.
    ///
    /// # Errors
    ///
    /// [`Closed`]: the loop is closed, and the function was dropped.
    pub fn post(&self, function: impl FnOnce(Python<'_>) + Send + 'static) -> Result<(), Closed> {
        self.home.push(Item::Call(Box::new(function))).map_err(|_| Closed)
    }

    /// Runs a future on the loop; its thread polls it, in an empty Python context. On a closed loop the handle says that
    /// the future was cancelled.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        let handle = prepare(future, None);
        handle.task().settle(&self.home);
        handle
    }

    /// Runs a coroutine on the loop: a future of its result.
    ///
    /// - `make`: called by the loop's thread; gives the awaitable. Its error is the future's.
    ///
    /// On a closed loop the future's error is `RuntimeError`.
    pub fn run_coroutine(&self, make: impl FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send + 'static) -> PyFuture {
        PyFuture::begin_on(&self.home, make)
    }

    /// Whether the loop is closed, or was collected.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.home.is_closed()
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Remote").field("is_closed", &self.is_closed()).finish()
    }
}
