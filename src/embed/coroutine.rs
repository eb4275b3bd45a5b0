//! Python awaitables as Rust futures.
//!
//! The awaitable becomes an asyncio task of its loop at once; its last callback completes the Rust future, in whatever
//! thread or runtime that one is awaited. Dropping the Rust future cancels the task. A task whose loop was closed never
//! calls back: its callback dies, and says so.

use super::home::{Home, Kept};
use super::item::Item;
use super::scope::in_scope;
use super::{Closed, lock};
use crate::py::names;
use pyo3::exceptions::asyncio::CancelledError;
use pyo3::intern;
use pyo3::prelude::*;
use slotmap::DefaultKey;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

pub(super) enum State {
    /// There is no task yet.
    New(Option<Waker>),
    /// The task is kept by the home, so that the collector sees it, and that it ends with the loop.
    Running(DefaultKey, Option<Waker>),
    Over(PyResult<Py<PyAny>>),
    /// The result was given away, or nobody wants it.
    Taken,
}

pub(super) type Shared = Arc<Mutex<State>>;

/// Completes it; only the first outcome counts. What the home keeps for it is given back.
fn complete(state: &Shared, outcome: PyResult<Py<PyAny>>) -> Option<DefaultKey> {
    let (key, waker) = {
        let mut state = lock(state);
        let (key, waker) = match &mut *state {
            State::New(waker) => (None, waker.take()),
            State::Running(key, waker) => (Some(*key), waker.take()),
            State::Over(_) | State::Taken => return None,
        };
        *state = State::Over(outcome);
        (key, waker)
    };
    if let Some(waker) = waker {
        waker.wake();
    }
    key
}

/// The loop is gone.
pub(super) fn end(state: &Shared) {
    complete(state, Err(Closed.into()));
}

/// The callback of the task.
#[pyclass(frozen, name = "RustCompletion", module = "mioloop")]
struct Completion {
    state: Shared,
    home: Arc<Home>,
}

#[pymethods]
impl Completion {
    fn __call__(&self, task: &Bound<'_, PyAny>) -> PyResult<()> {
        let outcome = task.call_method0(intern!(task.py(), "result")).map(Bound::unbind);
        let kept = in_scope(task.py(), || complete(&self.state, outcome))?.and_then(|key| self.home.take(key));
        drop(kept);
        Ok(())
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        end(&self.state);
    }
}

/// A Python awaitable that a Rust future waits for: a future of its result, or of the exception that it raised.
///
/// Dropping it cancels the awaitable. May be awaited anywhere, also in another runtime.
pub struct PyFuture {
    state: Shared,
    home: Arc<Home>,
}

impl PyFuture {
    fn new(home: &Arc<Home>) -> Self {
        Self { state: Arc::new(Mutex::new(State::New(None))), home: Arc::clone(home) }
    }

    /// Has the loop's thread make an awaitable, and waits for that.
    pub(super) fn begin_on(
        home: &Arc<Home>,
        make: impl FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send + 'static,
    ) -> Self {
        let future = Self::new(home);
        let ender = Ender(Arc::clone(&future.state));
        let its = Arc::clone(home);
        let call = move |py: Python<'_>| {
            let outcome = make(py).and_then(|awaitable| begin(&its, &ender.0, awaitable.bind(py)));
            match outcome {
                // The task's callback completes it.
                Ok(()) => ender.defuse(),
                Err(error) => drop(complete(&ender.0, Err(error))),
            }
        };
        // A call that is given back is dropped, and says that the loop is closed.
        drop(home.push(Item::Call(Box::new(call))));
        future
    }
}

/// Makes a task of the awaitable, in the loop's thread.
fn begin(home: &Arc<Home>, state: &Shared, awaitable: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = awaitable.py();
    let task = names::TASKS.get(py, intern!(py, "ensure_future"))?.call1((awaitable,))?;
    let key = home.wait(Kept { object: task.clone().unbind(), crossing: Some(Arc::clone(state)) });
    let is_wanted = {
        let mut state = lock(state);
        let waker = if let State::New(waker) = &mut *state { Some(waker.take()) } else { None };
        let is_wanted = waker.is_some();
        if let Some(waker) = waker {
            *state = State::Running(key, waker);
        }
        is_wanted
    };
    if !is_wanted {
        // It was dropped meanwhile.
        drop(home.take(key));
        return task.call_method0(intern!(py, "cancel")).map(drop);
    }
    let completion = Py::new(py, Completion { state: Arc::clone(state), home: Arc::clone(home) })?;
    task.call_method1(intern!(py, "add_done_callback"), (completion,)).map(drop)
}

impl Future for PyFuture {
    /// What the awaitable returned or raised.
    type Output = PyResult<Py<PyAny>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = lock(&self.state);
        if let State::New(waker) | State::Running(_, waker) = &mut *state {
            *waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        match std::mem::replace(&mut *state, State::Taken) {
            State::Over(outcome) => Poll::Ready(outcome),
            // Polled again after its end.
            _ => Poll::Ready(Err(CancelledError::new_err(()))),
        }
    }
}

impl Drop for PyFuture {
    fn drop(&mut self) {
        let old = std::mem::replace(&mut *lock(&self.state), State::Taken);
        if let State::Running(key, _) = old
            && let Some(Kept { object: task, .. }) = self.home.take(key)
        {
            let cancel = move |py: Python<'_>| {
                if let Err(error) = task.call_method0(py, intern!(py, "cancel")) {
                    error.write_unraisable(py, Some(task.bind(py)));
                }
            };
            // An error: the loop is closed, and nothing of it runs.
            drop(self.home.push(Item::Call(Box::new(cancel))));
        }
    }
}

impl fmt::Debug for PyFuture {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_over = matches!(*lock(&self.state), State::Over(_) | State::Taken);
        formatter.debug_struct("PyFuture").field("is_over", &is_over).finish_non_exhaustive()
    }
}

/// A Python awaitable as a Rust future.
///
/// A coroutine becomes a task of the loop that runs in this thread, in a copy of the current Python context
/// (`contextvars`); a future or task of that loop is waited for as it is. It runs also while nobody polls. Dropping the
/// Rust future cancels it.
///
/// # Errors
///
/// `RuntimeError`: no loop runs in this thread. `TypeError`: the object cannot be awaited. `ValueError`: a future of
/// another loop.
///
/// # Examples
///
/// ```
/// use mioloop::embed;
/// use pyo3::prelude::*;
///
/// # fn main() -> PyResult<()> {
/// embed::start()?;
/// let answer = embed::block_on(async {
///     let slept = Python::attach(|py| {
///         let coroutine = py.import("asyncio")?.call_method1("sleep", (0.01, "slept"))?;
///         embed::into_future(&coroutine)
///     })?;
///     let answer = slept.await?;
///     Python::attach(|py| answer.extract::<String>(py))
/// })??;
/// assert_eq!(answer, "slept");
/// # Ok(())
/// # }
/// ```
pub fn into_future(awaitable: &Bound<'_, PyAny>) -> PyResult<PyFuture> {
    let (home, _) = Home::running(awaitable.py())?;
    let future = PyFuture::new(&home);
    begin(&home, &future.state, awaitable)?;
    Ok(future)
}

/// Completes a future whose call is dropped without having been made.
struct Ender(Shared);

impl Ender {
    fn defuse(mut self) {
        self.0 = Arc::new(Mutex::new(State::Taken));
    }
}

impl Drop for Ender {
    fn drop(&mut self) {
        end(&self.0);
    }
}
