//! On whose behalf this thread polls Rust futures: the loop that they ask for timers, descriptors and further tasks.

use super::attached;
use super::home::{Home, Item};
use pyo3::prelude::*;
use std::cell::{Cell, RefCell};
use std::sync::Arc;

struct Current {
    home: Arc<Home>,
    event_loop: Py<PyAny>,
}

thread_local! {
    /// The loop on whose behalf this thread polls Rust futures.
    static CURRENT: RefCell<Option<Current>> = const { RefCell::new(None) };
}

thread_local! {
    /// The future that is polled in this thread has given up its turn.
    static HAS_YIELDED: Cell<bool> = const { Cell::new(false) };
}

/// Has who polls in this thread let others have their turn.
pub(super) fn yield_turn() {
    HAS_YIELDED.set(true);
}

/// Whether that was asked for since the last call.
pub(super) fn take_yield() -> bool {
    HAS_YIELDED.replace(false)
}

/// While it lasts, this thread polls on behalf of a loop.
pub(super) struct Scope {
    previous: Option<Current>,
}

impl Scope {
    pub(super) fn enter(home: &Arc<Home>, event_loop: Py<PyAny>) -> Self {
        let current = Some(Current { home: Arc::clone(home), event_loop });
        Self { previous: CURRENT.with(|place| place.replace(current)) }
    }

    /// Ends it, and tells the loop what became ready inside.
    pub(super) fn leave(self, py: Python<'_>, home: &Arc<Home>, event_loop: &Py<PyAny>) -> PyResult<()> {
        drop(self);
        home.tell_if_due(py, event_loop)
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
        let ended = CURRENT.try_with(|place| place.replace(self.previous.take()));
        drop(ended);
    }
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
