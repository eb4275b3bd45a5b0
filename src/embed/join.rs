//! Spawned futures: their handles, and the functions that spawn them.

use super::home::Home;
use super::scope::Scope;
use super::task::Task;
use super::{local, lock, panicked};
use crate::py::context;
use pyo3::exceptions::asyncio::CancelledError;
use pyo3::prelude::*;
use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

/// Why a spawned future has no result.
pub enum JoinError {
    /// It was aborted, or its loop was closed before it ended.
    Cancelled,
    /// It panicked, with this payload.
    Panicked(Box<dyn Any + Send + 'static>),
}

impl JoinError {
    /// Whether the future was dropped before it ended.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Cancelled)
    }

    /// Whether the future panicked.
    #[must_use]
    pub fn is_panic(&self) -> bool {
        matches!(self, Self::Panicked(_))
    }

    /// What the future panicked with: usually a `String` or a `&'static str`. A text for one that was cancelled.
    #[must_use]
    pub fn into_panic(self) -> Box<dyn Any + Send + 'static> {
        match self {
            Self::Panicked(payload) => payload,
            Self::Cancelled => Box::new("the future was cancelled"),
        }
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Cancelled => "the Rust future was cancelled",
            Self::Panicked(_) => "the Rust future panicked",
        })
    }
}

impl fmt::Debug for JoinError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.is_panic() { "JoinError::Panicked" } else { "JoinError::Cancelled" })
    }
}

impl std::error::Error for JoinError {}

/// `asyncio.CancelledError`, or [`RustPanic`](super::RustPanic).
impl From<JoinError> for PyErr {
    fn from(error: JoinError) -> Self {
        match error {
            JoinError::Cancelled => CancelledError::new_err(error.to_string()),
            JoinError::Panicked(payload) => panicked(payload.as_ref()),
        }
    }
}

enum Join<T> {
    Running(Option<Waker>),
    Over(Result<T, JoinError>),
    Taken,
}

/// Waits for a spawned future: a future of its result.
///
/// Dropping it lets the spawned future run on. May be awaited anywhere, also in another runtime.
pub struct JoinHandle<T> {
    join: Arc<Mutex<Join<T>>>,
    task: Arc<Task>,
}

impl<T> JoinHandle<T> {
    /// Cancels the spawned future: the loop drops it, soon, and this handle gives [`JoinError::Cancelled`]. One that has
    /// ended keeps its result.
    pub fn abort(&self) {
        self.task.abort();
    }

    /// Whether the spawned future has ended, in whatever way.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        !matches!(*lock(&self.join), Join::Running(_))
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("JoinHandle").field("is_finished", &self.is_finished()).finish()
    }
}

impl<T> Future for JoinHandle<T> {
    /// The result, or why there is none.
    type Output = Result<T, JoinError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut join = lock(&self.join);
        match std::mem::replace(&mut *join, Join::Taken) {
            Join::Running(_) => {
                *join = Join::Running(Some(cx.waker().clone()));
                Poll::Pending
            }
            Join::Over(outcome) => Poll::Ready(outcome),
            // Polled again after its end.
            Join::Taken => Poll::Ready(Err(JoinError::Cancelled)),
        }
    }
}

/// Completes a [`JoinHandle`]; dropped before that, it says that the future was cancelled.
struct Promise<T>(Arc<Mutex<Join<T>>>);

impl<T> Promise<T> {
    /// False: nobody has the handle any more, and the outcome is given back.
    fn keep(&self, outcome: Result<T, JoinError>) -> Result<(), Result<T, JoinError>> {
        if Arc::strong_count(&self.0) == 1 {
            return Err(outcome);
        }
        let waker = {
            let mut join = lock(&self.0);
            match std::mem::replace(&mut *join, Join::Over(outcome)) {
                Join::Running(waker) => waker,
                Join::Over(_) | Join::Taken => None,
            }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        let is_running = matches!(*lock(&self.0), Join::Running(_));
        if is_running {
            drop(self.keep(Err(JoinError::Cancelled)));
        }
    }
}

/// The future with its panics caught and its result sent to the handle.
async fn joined<F: Future>(future: F, promise: Promise<F::Output>) {
    let outcome = {
        let mut future = pin!(future);
        let caught = std::future::poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
            Err(payload) => Poll::Ready(Err(JoinError::Panicked(payload))),
        });
        caught.await
    };
    if let Err(Err(JoinError::Panicked(payload))) = promise.keep(outcome) {
        // The task's poll reports it.
        std::panic::resume_unwind(payload);
    }
}

/// Makes a task of a future, without a loop yet.
pub(crate) fn prepare<F>(future: F, context: Option<Py<PyAny>>) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    let join = Arc::new(Mutex::new(Join::Running(None)));
    let promise = Promise(Arc::clone(&join));
    JoinHandle { join, task: Task::new(Box::pin(joined(future, promise)), context) }
}

/// As [`prepare`], for a future that stays in this thread.
pub(crate) fn prepare_local<F>(future: F, context: Option<Py<PyAny>>) -> JoinHandle<F::Output>
where
    F: Future + 'static,
{
    let join = Arc::new(Mutex::new(Join::Running(None)));
    let promise = Promise(Arc::clone(&join));
    let local = local::keep(joined(future, promise));
    let future = async move {
        // None: polled in another thread, which drops it; the handle says that it was cancelled.
        local.await;
    };
    JoinHandle { join, task: Task::new(Box::pin(future), context) }
}

impl<T> JoinHandle<T> {
    pub(crate) fn task(&self) -> &Arc<Task> {
        &self.task
    }

    /// Of something that has ended already.
    #[cfg(feature = "async-runtimes")]
    pub(crate) fn over(outcome: Result<T, JoinError>) -> Self {
        let task = Task::new(Box::pin(async {}), None);
        task.discard();
        Self { join: Arc::new(Mutex::new(Join::Over(outcome))), task }
    }
}

/// Runs a future on the loop that runs in this thread.
///
/// The future is polled by this thread, the first time in the loop's next turn, in a copy of the current Python context
/// (`contextvars`). It runs on without its handle. When the loop is closed, it is dropped.
///
/// - `py`: the attached thread, which must be the loop's.
/// - `future`: what to run. One that cannot be sent to other threads goes to [`spawn_local`].
///
/// # Errors
///
/// `RuntimeError`: no loop runs in this thread.
///
/// # Examples
///
/// ```
/// use mioloop::embed;
/// use pyo3::prelude::*;
///
/// # fn main() -> PyResult<()> {
/// embed::start()?;
/// let sum = embed::block_on(async {
///     let parts = Python::attach(|py| [1, 2, 3].map(|number| embed::spawn(py, async move { number * number })));
///     let mut sum = 0;
///     for part in parts {
///         sum += part?.await?;
///     }
///     PyResult::Ok(sum)
/// })??;
/// assert_eq!(sum, 14);
/// # Ok(())
/// # }
/// ```
pub fn spawn<F>(py: Python<'_>, future: F) -> PyResult<JoinHandle<F::Output>>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    let handle = prepare(future, Some(context::copy_current(py)?));
    spawned(py, handle)
}

/// As [`spawn`], for a future that cannot be sent to other threads.
///
/// If the loop is run by another thread later, the future is not polled there: its handle says that it was cancelled.
///
/// # Errors
///
/// `RuntimeError`: no loop runs in this thread.
pub fn spawn_local<F>(py: Python<'_>, future: F) -> PyResult<JoinHandle<F::Output>>
where
    F: Future + 'static,
{
    let handle = prepare_local(future, Some(context::copy_current(py)?));
    spawned(py, handle)
}

/// Gives a task to the loop of this thread, which is told by a callback rather than by its bell.
pub(crate) fn settle_here(py: Python<'_>, task: &Arc<Task>, home: &Arc<Home>, event_loop: &Py<PyAny>) -> PyResult<()> {
    let scope = Scope::enter(home, event_loop.clone_ref(py));
    task.settle(home);
    scope.leave(py, home, event_loop)
}

fn spawned<T>(py: Python<'_>, handle: JoinHandle<T>) -> PyResult<JoinHandle<T>> {
    let (home, event_loop) = Home::running(py)?;
    settle_here(py, &handle.task, &home, &event_loop)?;
    Ok(handle)
}
