//! Timers and readiness as futures: the loop's own timers and poller, for Rust code that runs on it.
//!
//! A [`Signal`] is what the loop sets and a future waits for. What was asked of the loop is taken back when the future is
//! dropped.

use super::home::{Home, Kept};
use super::polling::yield_turn;
use super::scope::{Scope, in_scope, with_loop};
use super::{attached, lock};
use pyo3::exceptions::{PyRuntimeError, PyTimeoutError};
use pyo3::intern;
use pyo3::prelude::*;
use slotmap::DefaultKey;
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Set once, waited for by one future.
#[derive(Debug, Default)]
pub(super) struct Signal(Mutex<(bool, Option<Waker>)>);

impl Signal {
    pub(super) fn set(&self) {
        let waker = {
            let mut state = lock(&self.0);
            state.0 = true;
            state.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = lock(&self.0);
        if state.0 {
            return Poll::Ready(());
        }
        if !state.1.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.1 = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

/// What the loop calls to set a signal.
#[pyclass(frozen, name = "RustSignal", module = "mioloop")]
struct Setter(Arc<Signal>);

#[pymethods]
impl Setter {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        in_scope(py, || self.0.set())
    }
}

/// The loop that this thread polls for, for a future that needs one.
pub(super) fn polling_loop<R>(action: impl FnOnce(&Arc<Home>, &Bound<'_, PyAny>) -> PyResult<R>) -> PyResult<R> {
    let found = attached(|py| {
        let (home, event_loop) = Scope::current(py)
            .ok_or_else(|| PyRuntimeError::new_err("this future must be polled by an event loop of Python's"))?;
        action(&home, event_loop.bind(py))
    });
    found.unwrap_or_else(|| Err(PyRuntimeError::new_err("the interpreter is shutting down")))
}

/// Waits on the loop's own timers: a future, made by [`sleep`].
pub struct Sleep {
    deadline: Instant,
    /// Once it was polled: the signal, and the loop, which keeps its `TimerHandle` under this key.
    timer: Option<(Arc<Signal>, Arc<Home>, DefaultKey)>,
}

/// Waits so long, on the timers of the loop that polls it; the time begins now.
///
/// Never early; how late depends on the loop (mioloop: some tens of microseconds). Dropping it takes the timer back.
///
/// # Errors
///
/// The future's: `RuntimeError` where no asyncio loop polls it.
///
/// # Examples
///
/// ```
/// use mioloop::embed;
/// use std::time::{Duration, Instant};
///
/// # fn main() -> pyo3::PyResult<()> {
/// embed::start()?;
/// let start = Instant::now();
/// embed::block_on(embed::sleep(Duration::from_millis(5)))??;
/// assert!(start.elapsed() >= Duration::from_millis(5));
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn sleep(duration: Duration) -> Sleep {
    // Beyond what the clock can tell: a century is as good.
    let now = Instant::now();
    let deadline = now.checked_add(duration).unwrap_or_else(|| now + Duration::from_secs(100 * 365 * 24 * 3600));
    Sleep { deadline, timer: None }
}

impl Sleep {
    /// When it ends.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }
}

impl Future for Sleep {
    /// Nothing, or why there is nobody to wait for.
    type Output = PyResult<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Poll::Ready(Ok(()));
        }
        if self.timer.is_none() {
            let signal = Arc::new(Signal::default());
            let begun = polling_loop(|home, event_loop| {
                let py = event_loop.py();
                let setter = Py::new(py, Setter(Arc::clone(&signal)))?;
                let handle = event_loop.call_method1(intern!(py, "call_later"), (left.as_secs_f64(), setter))?;
                let key = home.wait(Kept { object: handle.unbind(), crossing: None });
                Ok((Arc::clone(home), key))
            });
            match begun {
                Ok((home, key)) => self.timer = Some((signal, home, key)),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        let Some((signal, home, key)) = &self.timer else { return Poll::Pending };
        if signal.poll(cx).is_pending() {
            return Poll::Pending;
        }
        drop(home.take(*key));
        if Instant::now() < self.deadline {
            // A loop's clock may be a little ahead of ours: once more, for what is left.
            self.timer = None;
            return self.poll(cx);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let Some((signal, home, key)) = self.timer.take() else { return };
        // None: the loop is gone.
        let Some(Kept { object: handle, .. }) = home.take(key) else { return };
        if signal.poll(&Context::from_waker(Waker::noop())).is_ready() {
            return;
        }
        with_loop(&home, move |event_loop| {
            let py = event_loop.py();
            if let Err(error) = handle.call_method0(py, intern!(py, "cancel")) {
                error.write_unraisable(py, Some(handle.bind(py)));
            }
        });
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Sleep").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

/// Waits for a future, but not longer than this; then the future is dropped.
///
/// # Errors
///
/// `TimeoutError`: the time is over. `RuntimeError`: no asyncio loop polls it.
///
/// # Examples
///
/// ```
/// use mioloop::embed;
/// use pyo3::exceptions::PyTimeoutError;
/// use pyo3::prelude::*;
/// use std::time::Duration;
///
/// # fn main() -> PyResult<()> {
/// embed::start()?;
/// let outcome = embed::block_on(embed::timeout(Duration::from_millis(1), std::future::pending::<()>()))?;
/// Python::attach(|py| assert!(outcome.unwrap_err().is_instance_of::<PyTimeoutError>(py)));
/// # Ok(())
/// # }
/// ```
pub async fn timeout<F: Future>(duration: Duration, future: F) -> PyResult<F::Output> {
    let mut future = pin!(future);
    let mut end = pin!(sleep(duration));
    let either = std::future::poll_fn(|cx| {
        if let Poll::Ready(value) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(value));
        }
        end.as_mut().poll(cx).map(|end| Err(end.err().unwrap_or_else(|| PyTimeoutError::new_err(()))))
    });
    either.await
}

/// Gives up the turn: other Rust futures that are ready are polled first, and Python's callbacks have their turn, at once
/// where Python awaits this future, and after 64 polls or 50 µs where it was spawned.
pub async fn yield_now() {
    let mut is_over = false;
    let once = std::future::poll_fn(|cx| {
        if std::mem::replace(&mut is_over, true) {
            return Poll::Ready(());
        }
        yield_turn();
        cx.waker().wake_by_ref();
        Poll::Pending
    });
    once.await;
}
