//! Futures that stay in their thread, behind handles that may go anywhere.
//!
//! Owns, per thread, the futures themselves; a [`LocalFuture`] is the key to one. A key that is polled in another thread
//! gives None; one that is dropped there leaves its future to its own thread, which drops it when it next comes here, or
//! ends. So no future that is not `Send` is ever touched by another thread.

use super::lock;
use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::thread::{self, ThreadId};

type Boxed = Pin<Box<dyn Future<Output = ()>>>;

#[derive(Default)]
struct Futures {
    next: u64,
    futures: HashMap<u64, Boxed>,
}

thread_local! {
    static FUTURES: RefCell<Futures> = RefCell::default();
}

/// Keys that were dropped in a thread that was not theirs.
static ORPHANS: Mutex<Vec<(ThreadId, u64)>> = Mutex::new(Vec::new());
static ORPHAN_COUNT: AtomicUsize = AtomicUsize::new(0);

/// Drops what other threads have left to this one.
fn drop_orphans() {
    if ORPHAN_COUNT.load(Ordering::Relaxed) == 0 {
        return;
    }
    let here = thread::current().id();
    let keys: Vec<u64> = {
        let mut orphans = lock(&ORPHANS);
        let keys = orphans.extract_if(.., |(thread, _)| *thread == here).map(|(_, key)| key).collect();
        ORPHAN_COUNT.store(orphans.len(), Ordering::Relaxed);
        keys
    };
    for key in keys {
        drop(take(key));
    }
}

fn take(key: u64) -> Option<Boxed> {
    FUTURES.try_with(|place| place.borrow_mut().futures.remove(&key)).ok().flatten()
}

/// The key to a future of the thread that made it.
pub(super) struct LocalFuture {
    thread: ThreadId,
    key: u64,
    is_over: bool,
}

/// Keeps a future in this thread.
pub(super) fn keep(future: impl Future<Output = ()> + 'static) -> LocalFuture {
    drop_orphans();
    let future: Boxed = Box::pin(future);
    let key = FUTURES.with(|place| {
        let mut place = place.borrow_mut();
        place.next += 1;
        let key = place.next;
        place.futures.insert(key, future);
        key
    });
    LocalFuture { thread: thread::current().id(), key, is_over: false }
}

impl Future for LocalFuture {
    /// None: this is not its thread.
    type Output = Option<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.thread != thread::current().id() {
            return Poll::Ready(None);
        }
        drop_orphans();
        // Taken out while it is polled: it may come here itself.
        let Some(mut future) = take(self.key) else { return Poll::Ready(None) };
        match future.as_mut().poll(cx) {
            Poll::Ready(()) => {
                self.is_over = true;
                Poll::Ready(Some(()))
            }
            Poll::Pending => {
                FUTURES.with(|place| place.borrow_mut().futures.insert(self.key, future));
                Poll::Pending
            }
        }
    }
}

impl Drop for LocalFuture {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        if self.thread == thread::current().id() {
            drop(take(self.key));
            return;
        }
        let mut orphans = lock(&ORPHANS);
        orphans.push((self.thread, self.key));
        ORPHAN_COUNT.store(orphans.len(), Ordering::Relaxed);
    }
}

/// As [`keep`], for a future with a result; None: it was polled in another thread.
pub(super) fn keep_with_result<T: Send + 'static>(
    future: impl Future<Output = T> + 'static,
) -> impl Future<Output = Option<T>> + Send {
    let place = Arc::new(Mutex::new(None));
    let result = Arc::clone(&place);
    let local = keep(async move {
        let value = future.await;
        *lock(&place) = Some(value);
    });
    async move {
        local.await?;
        lock(&result).take()
    }
}
