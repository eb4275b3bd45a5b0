//! Spawned Rust futures: tasks of a loop, and the handles that wait for them.
//!
//! A [`Task`] owns a future and the Python context that it is polled in, until it ends or its loop does. Wakers hold the
//! task, never the loop: a waker that outlives both does nothing.

use super::home::Home;
use super::item::Item;
#[cfg(feature = "async-runtimes")]
use super::polling::OwnTurn;
use super::polling::{self, Wakefulness};
#[cfg(feature = "async-runtimes")]
use super::scope::HomeSearch;
use super::scope::Scope;
use super::{is_exit, lock, panicked, report};
use crate::py::context::{self, Entered};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use slotmap::DefaultKey;
use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Wake, Waker};

type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a task still has to do.
struct Body {
    future: Boxed,
    /// None: the loop's own empty one.
    context: Option<Py<PyAny>>,
}

/// A future on its way through a loop.
pub(crate) struct Task {
    home: OnceLock<Arc<Home>>,
    /// Its place among the tasks of its home.
    key: OnceLock<DefaultKey>,
    /// None while it is polled, and at the end.
    body: Mutex<Option<Body>>,
    /// Woken: it is in its home's queue.
    wakefulness: Wakefulness,
    /// Nobody wants it any more.
    is_discarded: AtomicBool,
}

impl Task {
    pub(crate) fn new(future: Boxed, context: Option<Py<PyAny>>) -> Arc<Self> {
        Arc::new(Self {
            home: OnceLock::new(),
            key: OnceLock::new(),
            body: Mutex::new(Some(Body { future, context })),
            wakefulness: Wakefulness::idle(),
            is_discarded: AtomicBool::new(false),
        })
    }

    /// Gives a new task its loop, which polls it soon. A loop that is closed drops it.
    pub(crate) fn settle(self: &Arc<Self>, home: &Arc<Home>) {
        if self.move_in(home) {
            self.queue();
        }
    }

    /// Gives a new task its loop; false: it has one, or this one is closed.
    fn move_in(self: &Arc<Self>, home: &Arc<Home>) -> bool {
        if self.home.set(Arc::clone(home)).is_err() {
            return false;
        }
        let key = home.keep(self);
        match key {
            // Set once: only the first call comes here.
            Some(key) => drop(self.key.set(key)),
            None => self.discard(),
        }
        key.is_some()
    }

    /// Has it polled, by the loop's thread. While it is polled, that is for who polls it to see.
    fn queue(self: &Arc<Self>) {
        if self.wakefulness.wake() {
            self.push();
        }
    }

    fn push(self: &Arc<Self>) {
        match self.home.get() {
            Some(home) if home.push(Item::Poll(Arc::clone(self))).is_ok() => {}
            Some(_) => self.discard(),
            None => self.wake_homeless(),
        }
    }

    /// Polls a task without a loop, here and now, until it says which loop it belongs to.
    #[cfg(feature = "async-runtimes")]
    pub(crate) fn poll_homeless(self: &Arc<Self>) {
        let search = HomeSearch::begin();
        let Some(mut body) = lock(&self.body).take() else { return };
        let turn = OwnTurn::begin();
        let polled = self.poll_body(&mut body);
        drop(turn);
        if !matches!(polled, Ok(Poll::Pending)) || self.is_discarded.load(Ordering::Acquire) {
            drop_caught(Some(body));
            return;
        }
        *lock(&self.body) = Some(body);
        let is_idle = self.wakefulness.end();
        let is_settled = search.found().is_some_and(|home| self.move_in(&home));
        if !is_idle {
            self.push();
        } else if is_settled {
            self.queue();
        }
    }

    /// A task without a loop is woken: the loop of whoever wakes it has it from now on; nobody else would poll it.
    fn wake_homeless(self: &Arc<Self>) {
        match Scope::home() {
            Some(home) if self.move_in(&home) => self.push(),
            Some(_) => {}
            None => self.discard(),
        }
    }

    /// Drops the future, here and now.
    pub(crate) fn discard(&self) {
        self.is_discarded.store(true, Ordering::Release);
        self.end();
    }

    /// Has the future dropped by the loop's thread.
    pub(super) fn abort(self: &Arc<Self>) {
        self.is_discarded.store(true, Ordering::Release);
        self.queue();
    }

    fn end(&self) {
        if let (Some(home), Some(key)) = (self.home.get(), self.key.get()) {
            home.release(*key);
        }
        let body = lock(&self.body).take();
        drop_caught(body);
    }

    /// Polls the future, and again if it has woken itself meanwhile.
    fn poll_body(self: &Arc<Self>, body: &mut Body) -> Result<Poll<()>, Box<dyn Any + Send>> {
        let waker = Waker::from(Arc::clone(self));
        let mut context = Context::from_waker(&waker);
        let poll = || body.future.as_mut().poll(&mut context);
        catch_unwind(AssertUnwindSafe(|| polling::poll(&self.wakefulness, poll)))
    }

    /// Polls the future, in its context. An error leaves the loop.
    pub(super) fn poll(self: Arc<Self>, event_loop: &Bound<'_, PyAny>, entered: &mut Entered) -> PyResult<()> {
        let py = event_loop.py();
        if self.is_discarded.load(Ordering::Acquire) {
            self.end();
            return Ok(());
        }
        let Some(mut body) = lock(&self.body).take() else { return Ok(()) };
        if body.context.is_none() {
            body.context = self.home.get().map(|home| context::copy(py, &home.context)).transpose()?;
        }
        if let Some(context) = &body.context {
            // One that is entered already is that of whoever has called this loop's turn: it is current.
            entered.switch(py, context).or_else(|error| if is_exit(py, &error) { Err(error) } else { Ok(()) })?;
        }
        match self.poll_body(&mut body) {
            Ok(Poll::Pending) if !self.is_discarded.load(Ordering::Acquire) => {
                *lock(&self.body) = Some(body);
                if !self.wakefulness.end() {
                    self.push();
                }
                // Discarded in between, which found nothing to drop.
                if self.is_discarded.load(Ordering::Acquire) {
                    self.end();
                }
                Ok(())
            }
            Ok(_) => {
                drop_caught(Some(body));
                self.end();
                Ok(())
            }
            Err(payload) => {
                drop_caught(Some(body));
                self.end();
                entered.leave(py)?;
                report(event_loop, "Rust future panicked", &panicked(payload.as_ref()))
            }
        }
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Ok(body) = self.body.try_lock() else { return Ok(()) };
        body.as_ref().map_or(Ok(()), |body| visit.call(&body.context))
    }
}

/// Drops what is the user's: a panic there has nobody to go to.
fn drop_caught<T>(value: Option<T>) {
    drop(catch_unwind(AssertUnwindSafe(|| drop(value))));
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.queue();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.queue();
    }
}
