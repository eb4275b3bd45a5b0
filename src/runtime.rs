//! The loop as a runtime of `pyo3-async-runtimes`: its API, without tokio and without a second thread.
//!
//! [`LoopRuntime`] implements the traits of [`pyo3_async_runtimes::generic`], so whatever is generic over a runtime there
//! runs Rust futures on the thread of the loop that awaits them: `future_into_py`, `into_future`, task locals, local
//! variants, streams (with the feature `unstable-streams` of that crate). The functions here are those of
//! `pyo3_async_runtimes::tokio` with this runtime put in: a program that changes its imports has changed its runtime.
//!
//! What is different from tokio:
//!
//! - Futures share the thread with Python's coroutines: they must not block, and need not be `Send` in the local variants.
//! - While a future is polled in a scope with a Python context (`contextvars`), that context is current.
//! - `spawn_blocking` calls at once, in this thread. That crate uses it to reach the interpreter, for which nobody waits
//!   here. Long work belongs in `loop.run_in_executor`, or in threads of your own.
//! - A future belongs to the loop that runs in the thread that spawns it; where none does, to the loop of the scope that
//!   the future enters first. One that has neither is dropped when it is woken, and its handle says that it was cancelled.
//!
//! New code that knows it is on a loop has less between itself and Python with [`embed`](crate::embed).

use crate::embed::attached;
use crate::embed::home::Home;
use crate::embed::join::{JoinHandle, prepare, prepare_local, settle_here};
use crate::embed::polling::poll_part;
use crate::py::context::Entered;
use pyo3::IntoPyObject;
use pyo3::prelude::*;
use pyo3_async_runtimes::TaskLocals;
use pyo3_async_runtimes::generic::{self, ContextExt, LocalContextExt, Runtime, SpawnLocalExt};
use std::any::Any;
use std::cell::RefCell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

pub use crate::embed::JoinError;

/// The runtime whose thread is that of the Python loop; see the module's description.
///
/// # Examples
///
/// ```
/// use mioloop::embed;
/// use mioloop::runtime::LoopRuntime;
/// use pyo3::prelude::*;
/// use pyo3_async_runtimes::generic;
///
/// # fn main() -> PyResult<()> {
/// embed::start()?;
/// Python::attach(|py| {
///     let event_loop = py.import("mioloop")?.call_method0("new_event_loop")?;
///     let sum = generic::run_until_complete::<LoopRuntime, _, i32>(&event_loop, async {
///         let coroutine = Python::attach(|py| {
///             let sleep = py.import("asyncio")?.call_method1("sleep", (0.001, 40))?;
///             generic::into_future::<LoopRuntime>(sleep)
///         })?;
///         let forty = coroutine.await?;
///         Python::attach(|py| Ok(forty.extract::<i32>(py)? + 2))
///     })?;
///     assert_eq!(sum, 42);
///     event_loop.call_method0("close").map(drop)
/// })
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct LoopRuntime;

impl generic::JoinError for JoinError {
    fn is_panic(&self) -> bool {
        Self::is_panic(self)
    }

    fn into_panic(self) -> Box<dyn Any + Send + 'static> {
        Self::into_panic(self)
    }
}

/// Gives a task to the loop of this thread, or polls it until it says which loop it belongs to.
fn settle(handle: JoinHandle<()>) -> JoinHandle<()> {
    let task = Arc::clone(handle.task());
    let settled = attached(|py| {
        let Ok((home, event_loop)) = Home::running(py) else {
            // No loop runs here.
            task.poll_homeless();
            return Ok(());
        };
        settle_here(py, &task, &home, &event_loop)
    });
    if !matches!(settled, Some(Ok(()))) {
        task.discard();
    }
    handle
}

impl Runtime for LoopRuntime {
    type JoinError = JoinError;
    type JoinHandle = JoinHandle<()>;

    fn spawn<F>(future: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        settle(prepare(future, None))
    }

    fn spawn_blocking<F>(function: F) -> JoinHandle<()>
    where
        F: FnOnce() + Send + 'static,
    {
        JoinHandle::over(catch_unwind(AssertUnwindSafe(function)).map_err(JoinError::Panicked))
    }
}

impl SpawnLocalExt for LoopRuntime {
    fn spawn_local<F>(future: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + 'static,
    {
        settle(prepare_local(future, None))
    }
}

thread_local! {
    /// Those of the scope whose future is being polled.
    static LOCALS: RefCell<Option<TaskLocals>> = const { RefCell::new(None) };
}

/// While it lasts, these are the locals of this thread.
struct WithLocals(Option<TaskLocals>);

impl WithLocals {
    fn new(locals: &TaskLocals) -> Self {
        Self(LOCALS.with(|place| place.replace(Some(locals.clone()))))
    }
}

impl Drop for WithLocals {
    fn drop(&mut self) {
        // An error: the thread is ending.
        drop(LOCALS.try_with(|place| place.replace(self.0.take())));
    }
}

/// A future that is polled with its locals, in their context.
async fn scoped<F: Future>(locals: TaskLocals, future: F) -> F::Output {
    let mut future = pin!(future);
    std::future::poll_fn(move |cx| {
        let polled = attached(|py| {
            if Home::call_home(|| Home::of(&locals.event_loop(py)).ok()) {
                return Poll::Pending;
            }
            poll_in(py, &locals, future.as_mut(), cx)
        });
        polled.unwrap_or(Poll::Pending)
    })
    .await
}

fn poll_in<F: Future>(
    py: Python<'_>,
    locals: &TaskLocals,
    mut future: Pin<&mut F>,
    cx: &mut Context<'_>,
) -> Poll<F::Output> {
    let context = locals.context(py);
    let mut entered = Entered::default();
    if !context.is_none() {
        // An error: it is the current one already, or in use elsewhere. Then the loop's own is as good.
        drop(entered.switch(py, context.as_unbound()));
    }
    let with_locals = WithLocals::new(locals);
    let polled = catch_unwind(AssertUnwindSafe(|| poll_part(|| future.as_mut().poll(cx))));
    drop(with_locals);
    // An error: the future has left a context of its own behind.
    drop(entered.leave(py));
    polled.unwrap_or_else(|payload| resume_unwind(payload))
}

impl ContextExt for LoopRuntime {
    fn scope<F, R>(locals: TaskLocals, future: F) -> Pin<Box<dyn Future<Output = R> + Send>>
    where
        F: Future<Output = R> + Send + 'static,
    {
        Box::pin(scoped(locals, future))
    }

    fn get_task_locals() -> Option<TaskLocals> {
        LOCALS.try_with(|place| place.borrow().clone()).ok().flatten()
    }
}

impl LocalContextExt for LoopRuntime {
    fn scope_local<F, R>(locals: TaskLocals, future: F) -> Pin<Box<dyn Future<Output = R>>>
    where
        F: Future<Output = R> + 'static,
    {
        Box::pin(scoped(locals, future))
    }
}

/// Runs a future with these task locals; see [`pyo3_async_runtimes::generic::ContextExt::scope`].
pub async fn scope<F, R>(locals: TaskLocals, future: F) -> R
where
    F: Future<Output = R> + Send + 'static,
{
    LoopRuntime::scope(locals, future).await
}

/// As [`scope`], for a future that cannot be sent to other threads.
pub async fn scope_local<F, R>(locals: TaskLocals, future: F) -> R
where
    F: Future<Output = R> + 'static,
{
    LoopRuntime::scope_local(locals, future).await
}

/// The loop of the current scope, or the one that runs in this thread; see [`generic::get_current_loop`].
///
/// # Errors
///
/// `RuntimeError`: there is neither.
pub fn get_current_loop(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    generic::get_current_loop::<LoopRuntime>(py)
}

/// The task locals of the current scope, or those of the Python task that calls; see [`generic::get_current_locals`].
///
/// # Errors
///
/// `RuntimeError`: there is no scope, and no loop runs in this thread.
pub fn get_current_locals(py: Python<'_>) -> PyResult<TaskLocals> {
    generic::get_current_locals::<LoopRuntime>(py)
}

/// Runs a Rust future on a loop to its end; see [`generic::run_until_complete`].
///
/// # Errors
///
/// The future's own, or that of the loop.
pub fn run_until_complete<F, T>(event_loop: &Bound<'_, PyAny>, future: F) -> PyResult<T>
where
    F: Future<Output = PyResult<T>> + Send + 'static,
    T: Send + Sync + 'static,
{
    generic::run_until_complete::<LoopRuntime, F, T>(event_loop, future)
}

/// Turns a Rust future into an asyncio future, which begins at once; see [`generic::future_into_py`].
///
/// # Errors
///
/// `RuntimeError`: there is no scope, and no loop runs in this thread.
pub fn future_into_py<F, T>(py: Python<'_>, future: F) -> PyResult<Bound<'_, PyAny>>
where
    F: Future<Output = PyResult<T>> + Send + 'static,
    T: for<'any> IntoPyObject<'any> + Send + 'static,
{
    generic::future_into_py::<LoopRuntime, F, T>(py, future)
}

/// As [`future_into_py`], on the loop and in the context of these locals; see [`generic::future_into_py_with_locals`].
///
/// # Errors
///
/// `RuntimeError`: the loop is closed.
pub fn future_into_py_with_locals<F, T>(py: Python<'_>, locals: TaskLocals, future: F) -> PyResult<Bound<'_, PyAny>>
where
    F: Future<Output = PyResult<T>> + Send + 'static,
    T: for<'any> IntoPyObject<'any> + Send + 'static,
{
    generic::future_into_py_with_locals::<LoopRuntime, F, T>(py, locals, future)
}

/// Turns a Python awaitable into a Rust future; see [`generic::into_future`].
///
/// # Errors
///
/// `RuntimeError`: there is no scope, and no loop runs in this thread.
pub fn into_future(awaitable: Bound<'_, PyAny>) -> PyResult<impl Future<Output = PyResult<Py<PyAny>>> + Send + use<>> {
    generic::into_future::<LoopRuntime>(awaitable)
}
