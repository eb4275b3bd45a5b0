//! Rust futures as Python awaits them.
//!
//! [`RustFuture`] owns a future. It is polled inside the step of the Python task that awaits it: in the task's thread and
//! context, and at once. While the future is not ready the task waits for an asyncio future, which the waker has resolved
//! by the loop; a future that has woken itself meanwhile only gives up its turn. Cancelling the task drops the future.
//!
//! ```text
//!  new ──step──► running ──ready, panic──► done
//!                 ▲   │                     ▲
//!             step│   │pending              │throw, close, collected: the future is dropped
//!                 │   ▼                     │
//!                waiting ───────────────────┘
//! ```

use super::home::{Home, Kept};
use super::polling::{self, OwnTurn, Wakefulness};
use super::scope::{Scope, in_scope};
use super::{attached, local, lock, panicked};
use crate::py::cell::OwnerCell;
use crate::py::coroutine::{self, Awaitable, Phase, Step, define_slots};
use crate::sys::waker::with_waker;
use pyo3::exceptions::PyRuntimeError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::{IntoPyObject, IntoPyObjectExt};
use slotmap::DefaultKey;
use std::any::TypeId;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake};

type Boxed = Pin<Box<dyn Future<Output = PyResult<Py<PyAny>>> + Send>>;

/// A Rust future for Python to await, once.
#[pyclass(frozen, weakref, module = "mioloop")]
struct RustFuture {
    state: OwnerCell<State>,
}

enum State {
    New(Boxed),
    Running,
    Waiting(Boxed, Arc<Alarm>),
    Done,
}

/// What wakes the task that awaits the future.
struct Alarm {
    home: Arc<Home>,
    wakefulness: Wakefulness,
    /// While it is idle: the asyncio future that the task waits for, in its home.
    waiting: Mutex<Option<DefaultKey>>,
}

impl Alarm {
    fn new(home: &Arc<Home>) -> Arc<Self> {
        Arc::new(Self { home: Arc::clone(home), wakefulness: Wakefulness::idle(), waiting: Mutex::default() })
    }

    /// The task does not wait any more, to its end or not.
    fn forget(&self) {
        let waiting = lock(&self.waiting).take();
        if let Some(key) = waiting {
            drop(self.home.take(key));
        }
    }

    /// Has a future resolved when the alarm rings; false: it has rung already.
    fn wait(&self, future: &Bound<'_, PyAny>) -> bool {
        let key = self.home.wait(Kept { object: future.clone().unbind(), crossing: None });
        *lock(&self.waiting) = Some(key);
        let is_idle = self.wakefulness.end();
        if !is_idle {
            self.forget();
        }
        is_idle
    }

    fn ring(&self) {
        if self.wakefulness.wake() {
            let waiting = lock(&self.waiting).take();
            if let Some(key) = waiting {
                self.home.resolve(key);
            }
        }
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

/// What is dropped when an await ends early.
struct Abandoned {
    future: Boxed,
    alarm: Option<Arc<Alarm>>,
}

impl Abandoned {
    /// A panic of the future's destructor becomes an exception.
    fn end(self, py: Python<'_>) -> PyResult<()> {
        if let Some(alarm) = self.alarm {
            alarm.forget();
        }
        let future = self.future;
        // In the loop's thread, what the future has asked of the loop is taken back at once.
        let dropped = in_scope(py, || catch_unwind(AssertUnwindSafe(|| drop(future))))?;
        dropped.map_err(|payload| panicked(payload.as_ref()))
    }
}

impl RustFuture {
    fn take(&self, py: Python<'_>) -> PyResult<Abandoned> {
        let state = self.state.with(py, |state| std::mem::replace(state, State::Running));
        match state {
            State::New(future) => Ok(Abandoned { future, alarm: None }),
            State::Waiting(future, alarm) => Ok(Abandoned { future, alarm: Some(alarm) }),
            State::Running => Err(coroutine::executing()),
            State::Done => {
                self.put(py, State::Done);
                Err(coroutine::reused())
            }
        }
    }

    fn put(&self, py: Python<'_>, new: State) {
        // What is replaced is `Running`, which holds nothing.
        drop(self.state.with(py, |state| std::mem::replace(state, new)));
    }

    /// Polls the future.
    fn go_on<'py>(&self, py: Python<'py>) -> PyResult<Step<'py>> {
        let Abandoned { mut future, alarm } = self.take(py)?;
        let (home, event_loop) = Home::running(py).inspect_err(|_| self.put(py, State::Done))?;
        let alarm = match alarm {
            Some(alarm) if Arc::ptr_eq(&alarm.home, &home) => alarm,
            _ => Alarm::new(&home),
        };
        alarm.forget();
        let scope = Scope::enter(&home, event_loop.clone_ref(py));
        let turn = OwnTurn::begin();
        let polled = with_waker(&alarm, |waker| {
            let mut context = Context::from_waker(waker);
            let poll = || future.as_mut().poll(&mut context);
            catch_unwind(AssertUnwindSafe(|| polling::poll(&alarm.wakefulness, poll)))
        });
        drop(turn);
        let told = scope.leave(py, &home, &event_loop);
        let outcome = match polled {
            Ok(Poll::Pending) => {
                let waiting = if alarm.wakefulness.is_woken() { Ok(None) } else { wait(&alarm, event_loop.bind(py)) };
                match told.and(waiting) {
                    Ok(waiting) => {
                        self.put(py, State::Waiting(future, alarm));
                        return Ok(Step::Wait(waiting.unwrap_or_else(|| py.None().into_bound(py))));
                    }
                    Err(error) => Err(error),
                }
            }
            Ok(Poll::Ready(Ok(value))) if value.is_none(py) => Ok(Step::Done(None)),
            Ok(Poll::Ready(Ok(value))) => Ok(Step::Done(Some(value.into_bound(py)))),
            Ok(Poll::Ready(Err(error))) => Err(error),
            Err(payload) => Err(panicked(payload.as_ref())),
        };
        self.put(py, State::Done);
        let ended = Abandoned { future, alarm: Some(alarm) }.end(py);
        outcome.and_then(|step| ended.map(|()| step))
    }
}

/// An asyncio future for the task to wait for; None: the alarm has rung meanwhile.
fn wait<'py>(alarm: &Alarm, event_loop: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = event_loop.py();
    let future = event_loop.call_method0(intern!(py, "create_future"))?;
    // What awaiting the future itself would do: a task waits for it.
    future.setattr(intern!(py, "_asyncio_future_blocking"), true)?;
    Ok(alarm.wait(&future).then_some(future))
}

impl Awaitable for RustFuture {
    fn phase(&self, py: Python<'_>) -> Phase {
        self.state.with(py, |state| match state {
            State::New(_) => Phase::New,
            State::Running => Phase::Running,
            State::Waiting(..) => Phase::Waiting,
            State::Done => Phase::Done,
        })
    }

    #[inline]
    fn step<'py>(slf: &Bound<'py, Self>) -> PyResult<Step<'py>> {
        // Attached once more, so that what the future drops of Python's dies now.
        let stepped = attached(|_| slf.get().go_on(slf.py()));
        stepped.unwrap_or_else(|| Err(PyRuntimeError::new_err("the interpreter is shutting down")))
    }

    /// Drops the future.
    fn abandon(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let abandoned = slf.get().take(py)?;
        slf.get().put(py, State::Done);
        abandoned.end(py)
    }
}

#[pymethods]
impl RustFuture {
    fn __await__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, Self>> {
        coroutine::begin(slf)
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        coroutine::next(slf)
    }

    /// Goes on; only None can be sent.
    fn send<'py>(slf: &Bound<'py, Self>, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        coroutine::send(slf, value)
    }

    /// Drops the future and raises the exception: what cancelling does.
    #[pyo3(signature = (typ, val=None, tb=None))]
    fn throw(
        slf: &Bound<'_, Self>,
        typ: &Bound<'_, PyAny>,
        val: Option<&Bound<'_, PyAny>>,
        tb: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        coroutine::throw(slf, typ, val, tb)
    }

    /// Drops the future.
    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        coroutine::close(slf)
    }

    #[getter]
    fn __name__(&self) -> &'static str {
        "RustFuture"
    }

    #[getter]
    fn __qualname__(&self) -> &'static str {
        "RustFuture"
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        format!("<RustFuture {}>", self.phase(py).name())
    }

    #[expect(clippy::unnecessary_wraps, reason = "what the collector's slot looks like")]
    fn __traverse__(&self, _visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // What a Rust future holds, only it knows; the asyncio future that is waited for is its home's.
        Ok(())
    }

    fn __clear__(&self) {
        drop(self.state.try_with(|state| std::mem::replace(state, State::Done)));
    }
}

impl Drop for RustFuture {
    fn drop(&mut self) {
        let state = self.state.try_with(|state| std::mem::replace(state, State::Done));
        let abandoned = match state {
            Some(State::New(future)) => Abandoned { future, alarm: None },
            Some(State::Waiting(future, alarm)) => Abandoned { future, alarm: Some(alarm) },
            Some(State::Running | State::Done) | None => return,
        };
        attached(|py| coroutine::end_unseen(py, || abandoned.end(py)));
    }
}

/// The class, with what makes it quick to await.
fn prepare_class(py: Python<'_>) {
    static IS_PREPARED: PyOnceLock<()> = PyOnceLock::new();
    IS_PREPARED.get_or_init(py, || define_slots::<RustFuture>(&py.get_type::<RustFuture>()));
}

fn new(py: Python<'_>, future: Boxed) -> PyResult<Bound<'_, PyAny>> {
    prepare_class(py);
    Ok(Bound::new(py, RustFuture { state: OwnerCell::new(State::New(future)) })?.into_any())
}

/// The value as Python has it; Rust's `()` is what a Python function without a result returns.
fn converted<T>(value: T) -> PyResult<Py<PyAny>>
where
    T: for<'py> IntoPyObject<'py> + 'static,
{
    let is_unit = TypeId::of::<T>() == TypeId::of::<()>();
    let converted = attached(|py| if is_unit { Ok(py.None()) } else { value.into_py_any(py) });
    converted.unwrap_or_else(|| Err(PyRuntimeError::new_err("the interpreter is shutting down")))
}

/// A Rust future as an object that Python awaits, once: by `await`, `asyncio.create_task` or whatever takes a coroutine.
///
/// It is polled by the thread of the loop that awaits it, in the context of the task that does (`contextvars`); it does
/// nothing before it is awaited. Cancelling that task drops the future, and so does dropping the object. A panic is raised
/// as [`RustPanic`](super::RustPanic).
///
/// - `py`: the attached thread, any one.
/// - `future`: what is awaited. Its value becomes a Python object, its error is raised. One that cannot be sent to other
///   threads goes to [`into_awaitable_local`].
///
/// # Errors
///
/// `MemoryError`: Python has no memory for the object.
///
/// # Examples
///
/// ```
/// use mioloop::embed;
/// use pyo3::prelude::*;
/// use std::time::Duration;
///
/// /// What Python calls: `await nap(0.01)`.
/// #[pyfunction]
/// fn nap(py: Python<'_>, seconds: f64) -> PyResult<Bound<'_, PyAny>> {
///     embed::into_awaitable(py, async move {
///         embed::sleep(Duration::from_secs_f64(seconds)).await?;
///         Ok("rested")
///     })
/// }
///
/// # fn main() -> PyResult<()> {
/// embed::start()?;
/// Python::attach(|py| {
///     let answer = embed::run(&nap(py, 0.01)?)?;
///     assert_eq!(answer.extract::<String>()?, "rested");
///     Ok(())
/// })
/// # }
/// ```
pub fn into_awaitable<F, T>(py: Python<'_>, future: F) -> PyResult<Bound<'_, PyAny>>
where
    F: Future<Output = PyResult<T>> + Send + 'static,
    T: for<'any> IntoPyObject<'any> + Send + 'static,
{
    new(py, Box::pin(async move { converted(future.await?) }))
}

/// As [`into_awaitable`], for a future that cannot be sent to other threads: it must be awaited in this one.
///
/// Awaited in another thread, it raises `RuntimeError`; the future is dropped in its own thread.
///
/// # Errors
///
/// `MemoryError`: Python has no memory for the object.
pub fn into_awaitable_local<F, T>(py: Python<'_>, future: F) -> PyResult<Bound<'_, PyAny>>
where
    F: Future<Output = PyResult<T>> + 'static,
    T: for<'any> IntoPyObject<'any> + 'static,
{
    let local = local::keep_with_result(async move { converted(future.await?) });
    let moved = || PyRuntimeError::new_err("this Rust future belongs to another thread");
    new(py, Box::pin(async move { local.await.unwrap_or_else(|| Err(moved())) }))
}
