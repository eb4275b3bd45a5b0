//! What other threads posted to a loop, and whether the loop must be woken for it.
//!
//! Owns the channel and the flag that says that the owner thread sleeps. A wake-up costs a system call, so it is made
//! once per sleep, by whoever posts first:
//!
//! ```text
//! owner thread                      any thread
//!   parked = true                     send(item)
//!   look: anything there?             parked.swap(false) was true?  -> wake the poller
//!   yes: parked = false, go on
//!   no:  sleep, parked = false
//! ```
//!
//! Both sides write before they read what the other wrote, in one total order (SeqCst): either the owner sees the
//! item before it sleeps, or the poster sees that it is parked and wakes it (invariant 7 of the loop).

use crossbeam_channel::{Receiver, Sender, TryIter};
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// A channel into the loop.
#[derive(Debug)]
pub(crate) struct Inbox<T> {
    sender: Sender<T>,
    receiver: Receiver<T>,
    /// True from the owner's announcement to sleep until it is awake or somebody wakes it.
    parked: AtomicBool,
}

impl<T> Inbox<T> {
    pub(crate) fn new() -> Self {
        let (sender, receiver) = crossbeam_channel::unbounded();
        Self { sender, receiver, parked: AtomicBool::new(false) }
    }

    /// Adds an item, from any thread; true: the caller must wake the poller.
    #[must_use]
    pub(crate) fn post(&self, item: T) -> bool {
        // The receiver lives in the same struct as the sender: the channel cannot be closed.
        let sent = self.sender.send(item);
        debug_assert!(sent.is_ok(), "the inbox holds both ends of its channel");
        self.must_wake()
    }

    /// From any thread, after something was made ready for the owner; true: the caller must wake the poller.
    #[must_use]
    pub(crate) fn must_wake(&self) -> bool {
        fence(Ordering::SeqCst);
        self.unpark_attached()
    }

    /// As [`Self::must_wake`], for callers whom a lock has put in order with the owner's announcement: a GIL.
    #[must_use]
    #[inline]
    pub(crate) fn unpark_attached(&self) -> bool {
        self.parked.load(Ordering::Relaxed) && self.parked.swap(false, Ordering::SeqCst)
    }

    /// The owner announces that it is going to sleep; it must look at everything once more before it does.
    pub(crate) fn park(&self) {
        self.parked.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// The owner is awake; true: somebody has posted, or made something ready, since it announced its sleep.
    pub(crate) fn unpark(&self) -> bool {
        !self.parked.swap(false, Ordering::Relaxed)
    }

    /// Everything that was posted so far; for the owner.
    pub(crate) fn drain(&self) -> TryIter<'_, T> {
        self.receiver.try_iter()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::Inbox;
    use crate::reactor::poller::{Events, Poller};
    use crate::sys::clock::Limit;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn one_sleep_is_woken_once() {
        let inbox = Inbox::new();
        assert!(!inbox.post(1));
        inbox.park();
        assert!(inbox.post(2));
        assert!(!inbox.post(3));
        assert_eq!(inbox.drain().collect::<Vec<_>>(), [1, 2, 3]);
        assert!(inbox.unpark());
        inbox.park();
        assert!(!inbox.unpark());
        assert!(!inbox.must_wake());
    }

    /// Several threads post while the owner sleeps without limit whenever it finds nothing: a lost wake-up hangs.
    #[test]
    fn nothing_posted_is_missed_and_each_thread_keeps_its_order() {
        const THREADS: usize = 4;
        const EACH: usize = 5_000;
        let inbox = Arc::new(Inbox::new());
        let poller = Arc::new(Poller::new().unwrap());
        let wakes = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (inbox, poller, wakes) = (inbox.clone(), poller.clone(), wakes.clone());
                std::thread::spawn(move || {
                    for number in 0..EACH {
                        if inbox.post((thread, number)) {
                            wakes.fetch_add(1, Ordering::Relaxed);
                            poller.wake().unwrap();
                        }
                    }
                })
            })
            .collect();
        let mut next = [0; THREADS];
        let mut events = Events::with_capacity(4);
        let mut parks = 0;
        while next.iter().sum::<usize>() < THREADS * EACH {
            inbox.park();
            parks += 1;
            if inbox.is_empty() {
                poller.wait(&mut events, Limit::Never).unwrap();
            }
            inbox.unpark();
            for (thread, number) in inbox.drain() {
                assert_eq!(number, next[thread]);
                next[thread] += 1;
            }
        }
        for thread in threads {
            thread.join().unwrap();
        }
        assert!(wakes.load(Ordering::Relaxed) <= parks);
    }
}
