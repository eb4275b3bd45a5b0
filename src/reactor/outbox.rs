//! Bytes that wait to be written, in the order in which they were given.
//!
//! Owns the chunks and remembers how much of the first one is gone. A chunk is never copied or joined here: the
//! kernel takes several at once ([`Outbox::parts`]).

use std::collections::VecDeque;
use std::io::IoSlice;

/// A queue of chunks.
#[derive(Debug)]
pub(crate) struct Outbox<C> {
    chunks: VecDeque<C>,
    /// How many bytes of the first chunk were written: always less than its length.
    written: usize,
    /// Bytes that wait, over all chunks.
    size: usize,
}

impl<C: AsRef<[u8]>> Outbox<C> {
    pub(crate) const fn new() -> Self {
        Self { chunks: VecDeque::new(), written: 0, size: 0 }
    }

    /// Adds a chunk; an empty one is nothing to write and is dropped.
    pub(crate) fn push(&mut self, chunk: C) {
        let length = chunk.as_ref().len();
        if length > 0 {
            self.size += length;
            self.chunks.push_back(chunk);
        }
    }

    /// Bytes that wait.
    pub(crate) const fn size(&self) -> usize {
        self.size
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// The bytes that wait, when they are in one piece.
    pub(crate) fn single(&self) -> Option<&[u8]> {
        match self.chunks.len() {
            1 => Some(&self.chunks[0].as_ref()[self.written..]),
            _ => None,
        }
    }

    /// The first `N` pieces of what waits; answers how many there are.
    pub(crate) fn parts<'a, const N: usize>(&'a self, parts: &mut [IoSlice<'a>; N]) -> usize {
        let mut skip = self.written;
        let mut count = 0;
        for (part, chunk) in parts.iter_mut().zip(&self.chunks) {
            *part = IoSlice::new(&chunk.as_ref()[skip..]);
            skip = 0;
            count += 1;
        }
        count
    }

    /// Takes away `count` bytes that were written.
    pub(crate) fn advance(&mut self, count: usize) {
        debug_assert!(count <= self.size, "no more is written than waits");
        if count == self.size {
            // Mostly one chunk: taking it is cheaper than clearing the queue.
            while self.chunks.pop_front().is_some() {}
            (self.written, self.size) = (0, 0);
            return;
        }
        self.size -= count.min(self.size);
        self.written += count;
        while let Some(first) = self.chunks.front() {
            let length = first.as_ref().len();
            if self.written < length {
                break;
            }
            self.written -= length;
            self.chunks.pop_front();
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.chunks.clear();
        (self.written, self.size) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::Outbox;
    use proptest::prelude::*;
    use std::io::IoSlice;

    fn waiting(outbox: &Outbox<Vec<u8>>) -> Vec<u8> {
        let mut parts = [IoSlice::new(&[]); 512];
        let count = outbox.parts(&mut parts);
        parts[..count].iter().flat_map(|part| part.to_vec()).collect()
    }

    proptest! {
        #[test]
        fn partial_writes_keep_their_place(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..40),
            steps in prop::collection::vec(0_usize..50, 0..60),
        ) {
            let mut outbox = Outbox::new();
            let mut expected: Vec<u8> = Vec::new();
            let mut chunks = chunks.into_iter();
            for step in steps {
                if let Some(chunk) = chunks.next() {
                    expected.extend(&chunk);
                    outbox.push(chunk);
                }
                let count = step.min(outbox.size());
                outbox.advance(count);
                expected.drain(..count);
                prop_assert_eq!(outbox.size(), expected.len());
                prop_assert_eq!(outbox.is_empty(), expected.is_empty());
                prop_assert_eq!(waiting(&outbox), expected.clone());
                if let Some(single) = outbox.single() {
                    prop_assert_eq!(single, &expected[..]);
                }
            }
            outbox.clear();
            prop_assert_eq!(waiting(&outbox), Vec::<u8>::new());
        }
    }

    #[test]
    fn no_more_parts_than_asked_for() {
        let mut outbox = Outbox::new();
        for _ in 0..5 {
            outbox.push(vec![1]);
        }
        let mut parts = [IoSlice::new(&[]); 3];
        assert_eq!(outbox.parts(&mut parts), 3);
    }
}
