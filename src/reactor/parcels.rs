//! Datagrams that wait to be sent, in the order in which they were given, each with where it goes.
//!
//! Owns the datagrams and counts their bytes as asyncio does: from Python 3.13 on with a header for each, so that
//! empty ones fill the buffer too. Unlike [`super::outbox`] it keeps what it is given apart.

use std::collections::VecDeque;

/// More room than this is given back when the queue is empty: an idle transport holds little.
const KEPT: usize = 64;

/// A queue of datagrams with destinations.
#[derive(Debug)]
pub(crate) struct Parcels<C, D> {
    queue: VecDeque<(C, D)>,
    /// Bytes that wait, with `header` more for each datagram.
    size: usize,
    header: usize,
}

impl<C: AsRef<[u8]>, D> Parcels<C, D> {
    /// An empty queue that counts `header` bytes for each datagram beside its own.
    pub(crate) const fn new(header: usize) -> Self {
        Self { queue: VecDeque::new(), size: 0, header }
    }

    fn weight(&self, data: &C) -> usize {
        data.as_ref().len() + self.header
    }

    /// Adds a datagram at the end.
    pub(crate) fn push(&mut self, data: C, to: D) {
        self.size += self.weight(&data);
        self.queue.push_back((data, to));
    }

    /// Puts back the first one, which could not be sent.
    pub(crate) fn push_front(&mut self, data: C, to: D) {
        self.size += self.weight(&data);
        self.queue.push_front((data, to));
    }

    /// Takes the first one out.
    pub(crate) fn pop(&mut self) -> Option<(C, D)> {
        let (data, to) = self.queue.pop_front()?;
        self.size -= self.weight(&data);
        if self.queue.is_empty() && self.queue.capacity() > KEPT {
            self.queue = VecDeque::new();
        }
        Some((data, to))
    }

    /// The datagrams that wait, the first one first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &(C, D)> {
        self.queue.iter()
    }

    pub(crate) fn first(&self) -> Option<&(C, D)> {
        self.queue.front()
    }

    /// Bytes that wait, headers counted.
    pub(crate) const fn size(&self) -> usize {
        self.size
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Takes everything out.
    pub(crate) fn take(&mut self) -> VecDeque<(C, D)> {
        self.size = 0;
        std::mem::take(&mut self.queue)
    }
}

#[cfg(test)]
mod tests {
    use super::{KEPT, Parcels};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn order_and_size_hold(
            header in 0_usize..10,
            steps in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..9), 0_u8..4), 0..200),
        ) {
            let mut parcels = Parcels::new(header);
            let mut expected: Vec<(Vec<u8>, usize)> = Vec::new();
            for (number, (data, action)) in steps.into_iter().enumerate() {
                match action {
                    0 => prop_assert_eq!(parcels.pop(), if expected.is_empty() { None } else { Some(expected.remove(0)) }),
                    1 => if let Some((data, to)) = parcels.pop() {
                        parcels.push_front(data, to);
                    },
                    _ => {
                        parcels.push(data.clone(), number);
                        expected.push((data, number));
                    }
                }
                prop_assert_eq!(parcels.size(), expected.iter().map(|(data, _)| data.len() + header).sum::<usize>());
                prop_assert_eq!(parcels.is_empty(), expected.is_empty());
                prop_assert_eq!(parcels.first(), expected.first());
            }
            prop_assert_eq!(parcels.iter().cloned().collect::<Vec<_>>(), expected);
            parcels.take();
            prop_assert_eq!((parcels.size(), parcels.is_empty()), (0, true));
        }
    }

    #[test]
    fn an_empty_queue_gives_its_room_back() {
        let mut parcels = Parcels::new(0);
        for _ in 0..10 * KEPT {
            parcels.push(vec![0], ());
        }
        while parcels.pop().is_some() {}
        assert_eq!(parcels.queue.capacity(), 0);
    }
}
