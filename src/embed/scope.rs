//! On whose behalf this thread polls Rust futures: the loop that they ask for timers, descriptors and further tasks.
//!
//! What they make ready for that loop meanwhile is queued here, without a lock; the loop's own queue has it in the end.

use super::attached;
use super::home::Home;
use super::item::Item;
use pyo3::prelude::*;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

struct Current {
    home: Arc<Home>,
    event_loop: Py<PyAny>,
    ready: VecDeque<Item>,
}

thread_local! {
    /// The loop on whose behalf this thread polls Rust futures.
    static CURRENT: RefCell<Option<Current>> = const { RefCell::new(None) };
}

/// While it lasts, this thread polls on behalf of a loop.
pub(super) struct Scope {
    previous: Option<Current>,
}

impl Scope {
    pub(super) fn enter(home: &Arc<Home>, event_loop: Py<PyAny>) -> Self {
        let current = Some(Current { home: Arc::clone(home), event_loop, ready: VecDeque::new() });
        Self { previous: CURRENT.with(|place| place.replace(current)) }
    }

    /// Ends it; what became ready inside goes to the loop, which is told.
    pub(super) fn leave(mut self, py: Python<'_>, home: &Arc<Home>, event_loop: &Py<PyAny>) -> PyResult<()> {
        let ready = self.end();
        // It has ended: there is nothing to drop.
        std::mem::forget(self);
        if ready.is_empty() { Ok(()) } else { home.take_over(py, event_loop, ready) }
    }

    /// Puts the previous one back, and gives what became ready inside.
    fn end(&mut self) -> VecDeque<Item> {
        let ended = CURRENT.try_with(|place| place.replace(self.previous.take()));
        ended.ok().flatten().map(|current| current.ready).unwrap_or_default()
    }

    /// Takes the first of what is queued here, with whether it was the last.
    #[expect(clippy::unused_self, reason = "it is this scope, as long as it lasts and no other has begun inside")]
    pub(super) fn pop(&self) -> Option<(Item, bool)> {
        CURRENT.with(|place| {
            let mut place = place.borrow_mut();
            let ready = &mut place.as_mut()?.ready;
            let item = ready.pop_front()?;
            Some((item, ready.is_empty()))
        })
    }

    /// Swaps what is queued here.
    #[expect(clippy::unused_self, reason = "as above")]
    pub(super) fn swap_ready(&self, ready: &mut VecDeque<Item>) {
        CURRENT.with(|place| {
            if let Some(current) = &mut *place.borrow_mut() {
                std::mem::swap(&mut current.ready, ready);
            }
        });
    }

    /// Queues something where this thread polls for that loop; otherwise it is given back.
    pub(super) fn push(home: *const Home, item: Item) -> Result<(), Item> {
        let mut item = Some(item);
        // An error: the thread is ending.
        let _: Result<(), _> = CURRENT.try_with(|place| {
            if let Some(current) = &mut *place.borrow_mut()
                && std::ptr::eq(Arc::as_ptr(&current.home), home)
                && let Some(item) = item.take()
            {
                current.ready.push_back(item);
            }
        });
        item.map_or(Ok(()), Err)
    }

    /// The loop that this thread polls for.
    pub(super) fn current(py: Python<'_>) -> Option<(Arc<Home>, Py<PyAny>)> {
        let found = CURRENT.try_with(|place| {
            let place = place.borrow();
            place.as_ref().map(|current| (Arc::clone(&current.home), current.event_loop.clone_ref(py)))
        });
        found.ok().flatten()
    }

    /// The home of the loop that this thread polls for.
    pub(super) fn home() -> Option<Arc<Home>> {
        let found = CURRENT.try_with(|place| place.borrow().as_ref().map(|current| Arc::clone(&current.home)));
        found.ok().flatten()
    }

    pub(super) fn is_in(home: &Home) -> bool {
        let found = CURRENT.try_with(|place| {
            place.borrow().as_ref().is_some_and(|current| std::ptr::eq(Arc::as_ptr(&current.home), home))
        });
        found.unwrap_or(false)
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        // Left over by a panic.
        let home = Self::home();
        for item in self.end() {
            drop(home.as_ref().map(|home| home.push(item)));
        }
    }
}

/// Does something that may wake futures of the loop that runs in this thread: it is told of them by a callback rather than
/// by its bell.
pub(super) fn in_scope<R>(py: Python<'_>, action: impl FnOnce() -> R) -> PyResult<R> {
    let Ok((home, event_loop)) = Home::running(py) else { return Ok(action()) };
    let scope = Scope::enter(&home, event_loop.clone_ref(py));
    let value = action();
    scope.leave(py, &home, &event_loop).map(|()| value)
}

/// Does something with the loop: at once where this thread polls for it, otherwise in its thread, soon. Dropped if the
/// loop is closed.
pub(super) fn with_loop(home: &Arc<Home>, action: impl FnOnce(&Bound<'_, PyAny>) + Send + 'static) {
    if Scope::is_in(home) {
        attached(|py| {
            if let Some((_, event_loop)) = Scope::current(py) {
                action(event_loop.bind(py));
            }
        });
        return;
    }
    let call = move |py: Python<'_>| {
        if let Some((_, event_loop)) = Scope::current(py) {
            action(event_loop.bind(py));
        }
    };
    drop(home.push(Item::Call(Box::new(call))));
}

/// What a task without a loop has said about where it belongs, while it is polled.
#[cfg(feature = "async-runtimes")]
enum Search {
    Over,
    /// Nothing yet.
    On,
    Found(Arc<Home>),
}

#[cfg(feature = "async-runtimes")]
thread_local! {
    static SEARCH: RefCell<Search> = const { RefCell::new(Search::Over) };
}

/// While it lasts, this thread polls a task that has no loop yet. What such a task spawns is polled inside, and the home
/// that is found serves both.
#[cfg(feature = "async-runtimes")]
pub(super) struct HomeSearch {
    is_inner: bool,
}

#[cfg(feature = "async-runtimes")]
impl HomeSearch {
    pub(super) fn begin() -> Self {
        SEARCH.with(|place| {
            let mut place = place.borrow_mut();
            let is_inner = !matches!(*place, Search::Over);
            if !is_inner {
                *place = Search::On;
            }
            Self { is_inner }
        })
    }

    pub(super) fn found(&self) -> Option<Arc<Home>> {
        SEARCH.with(|place| if let Search::Found(home) = &*place.borrow() { Some(Arc::clone(home)) } else { None })
    }
}

#[cfg(feature = "async-runtimes")]
impl Drop for HomeSearch {
    fn drop(&mut self) {
        if !self.is_inner {
            drop(SEARCH.try_with(|place| place.replace(Search::Over)));
        }
    }
}

#[cfg(feature = "async-runtimes")]
impl Home {
    /// Where a task without a loop is polled: notes the home that it belongs to, and says so; it must be polled there.
    pub(crate) fn call_home(find: impl FnOnce() -> Option<Arc<Self>>) -> bool {
        let is_searching = SEARCH.try_with(|place| !matches!(*place.borrow(), Search::Over)).unwrap_or(false);
        if !is_searching || Scope::home().is_some() {
            return false;
        }
        let Some(home) = find() else { return false };
        drop(SEARCH.try_with(|place| place.replace(Search::Found(home))));
        true
    }
}
