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
use super::{is_exit, panicked, report};
use crate::py::context::{self, Entered};
use crate::sys::waker::with_waker;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use slotmap::DefaultKey;
use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Wake};

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
    /// None at the end. Claimed while it is polled: nobody waits for this lock.
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
            Arc::clone(self).push();
        }
    }

    /// Puts it into the queue of its home, where it is not yet.
    fn push(self: Arc<Self>) {
        let Some(home) = self.home.get() else { return self.wake_homeless() };
        let home = Arc::as_ptr(home);
        if let Err(Item::Poll(task)) = Scope::push(home, Item::Poll(self)) {
            task.push_outside();
        }
    }

    fn push_outside(self: Arc<Self>) {
        let Some(home) = self.home.get().map(Arc::clone) else { return };
        if let Err(Item::Poll(task)) = home.push_outside(Item::Poll(self)) {
            task.discard();
        }
    }

    /// Polls a task without a loop, here and now, until it says which loop it belongs to.
    #[cfg(feature = "async-runtimes")]
    pub(crate) fn poll_homeless(self: &Arc<Self>) {
        let search = HomeSearch::begin();
        let Ok(mut claim) = self.body.try_lock() else { return };
        let Some(body) = &mut *claim else { return };
        let turn = OwnTurn::begin();
        let polled = self.poll_body(body);
        drop(turn);
        let is_pending = matches!(polled, Ok(Poll::Pending));
        drop(claim);
        if !is_pending || self.is_discarded.load(Ordering::Acquire) {
            self.end();
            return;
        }
        let is_idle = self.wakefulness.end();
        let is_settled = search.found().is_some_and(|home| self.move_in(&home));
        if !is_idle {
            Arc::clone(self).push();
        } else if is_settled {
            self.queue();
        }
    }

    /// A task without a loop is woken: the loop of whoever wakes it has it from now on; nobody else would poll it.
    fn wake_homeless(self: Arc<Self>) {
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
        // Claimed: it is polled, and ended by who polls it.
        let body = self.body.try_lock().ok().and_then(|mut claim| claim.take());
        drop_caught(body);
    }

    /// Polls the future, and again if it has woken itself meanwhile.
    fn poll_body(self: &Arc<Self>, body: &mut Body) -> Result<Poll<()>, Box<dyn Any + Send>> {
        with_waker(self, |waker| {
            let mut context = Context::from_waker(waker);
            let poll = || body.future.as_mut().poll(&mut context);
            catch_unwind(AssertUnwindSafe(|| polling::poll(&self.wakefulness, poll)))
        })
    }

    /// Polls the future, in its context. An error leaves the loop.
    pub(super) fn poll(self: Arc<Self>, event_loop: &Bound<'_, PyAny>, entered: &mut Entered) -> PyResult<()> {
        let polled = if self.is_discarded.load(Ordering::Acquire) {
            Ok(Poll::Ready(()))
        } else {
            self.poll_claimed(event_loop.py(), entered).inspect_err(|_| self.end())?
        };
        // Discarded while it was polled: nobody else could drop it.
        if matches!(polled, Ok(Poll::Pending)) && !self.is_discarded.load(Ordering::Acquire) {
            if !self.wakefulness.end() {
                self.push();
            }
            return Ok(());
        }
        self.end();
        let Err(payload) = polled else { return Ok(()) };
        entered.leave(event_loop.py())?;
        report(event_loop, "Rust future panicked", &panicked(payload.as_ref()))
    }

    fn poll_claimed(
        self: &Arc<Self>,
        py: Python<'_>,
        entered: &mut Entered,
    ) -> PyResult<Result<Poll<()>, Box<dyn Any + Send>>> {
        let Ok(mut claim) = self.body.try_lock() else { return Ok(Ok(Poll::Pending)) };
        let Some(body) = &mut *claim else { return Ok(Ok(Poll::Ready(()))) };
        if body.context.is_none() {
            body.context = self.home.get().map(|home| context::copy(py, &home.context)).transpose()?;
        }
        if let Some(context) = &body.context {
            // One that is entered already is that of whoever has called this loop's turn: it is current.
            entered.switch(py, context).or_else(|error| if is_exit(py, &error) { Err(error) } else { Ok(()) })?;
        }
        Ok(self.poll_body(body))
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
    /// The waker's reference goes to the queue.
    fn wake(self: Arc<Self>) {
        if self.wakefulness.wake() {
            self.push();
        }
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.queue();
    }
}
