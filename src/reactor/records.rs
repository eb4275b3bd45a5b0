//! Where the records of a TLS stream end: whether a read of the TLS engine can find anything.
//!
//! Owns the place in the stream of received bytes. A read that finds no whole record costs an exception in Python,
//! more than decrypting a small one; counting bytes costs nothing. What does not look like records of the present TLS
//! versions (1.2 and 1.3) makes [`Records::may_have`] answer yes for good: the engine decides then.

/// Type, version (two bytes), length (two bytes).
const HEADER: usize = 5;
/// The types of records: change of cipher, alert, hand-shake, data.
const KINDS: std::ops::RangeInclusive<u8> = 20..=23;
const HAND_SHAKE: u8 = 22;
/// The most that a record may carry: 16 KiB and what a cipher may add.
const LARGEST_BODY: u16 = (1 << 14) + 2048;

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct Records {
    /// The first bytes of a header that is not whole yet.
    header: [u8; HEADER],
    header_length: usize,
    /// How many bytes of the last record's body are still to come.
    missing: usize,
    /// Bytes since the end of the last whole record.
    tail: usize,
    /// How many whole records the engine may not have taken; never too low.
    untaken: usize,
    is_odd: bool,
}

impl Records {
    /// Notes the next bytes of the stream.
    pub(crate) fn feed(&mut self, mut data: &[u8]) {
        if self.is_odd {
            return;
        }
        while !data.is_empty() {
            if self.missing > 0 {
                let count = self.missing.min(data.len());
                data = &data[count..];
                self.missing -= count;
                self.tail += count;
            } else {
                let count = (HEADER - self.header_length).min(data.len());
                self.header[self.header_length..self.header_length + count].copy_from_slice(&data[..count]);
                data = &data[count..];
                self.header_length += count;
                self.tail += count;
                if self.header_length < HEADER {
                    return;
                }
                self.header_length = 0;
                let [kind, major, minor, high, low] = self.header;
                let length = u16::from_be_bytes([high, low]);
                // TLS 1.2 and 1.3 both say 3.3, except in a client's first greeting.
                let is_version = major == 3 && (minor == 3 || kind == HAND_SHAKE && (1..=3).contains(&minor));
                if !KINDS.contains(&kind) || !is_version || length > LARGEST_BODY {
                    self.is_odd = true;
                    return;
                }
                self.missing = length.into();
            }
            if self.missing == 0 {
                self.tail = 0;
                self.untaken += 1;
            }
        }
    }

    /// Whether a whole record may be among the last `unread` bytes of the stream.
    ///
    /// The engine takes the start of a record before the rest is there; so what it left is at most the unfinished tail.
    pub(crate) const fn may_have(&self, unread: usize) -> bool {
        self.is_odd || unread > self.tail
    }

    /// The engine gave data of a record that it had not begun. Answers how many bytes it has not taken, never too few,
    /// where that is known: when this was the last whole record.
    pub(crate) const fn note_taken(&mut self) -> Option<usize> {
        self.untaken = self.untaken.saturating_sub(1);
        if self.untaken == 0 && !self.is_odd { Some(self.tail) } else { None }
    }

    /// So many bytes are left, says the engine's buffer.
    pub(crate) const fn note_unread(&mut self, unread: usize) {
        if unread <= self.tail {
            self.untaken = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Records;
    use proptest::prelude::*;

    fn record(body: usize) -> Vec<u8> {
        let length = u16::try_from(body).unwrap().to_be_bytes();
        let mut record = vec![23, 3, 3, length[0], length[1]];
        record.resize(5 + body, 0xff);
        record
    }

    proptest! {
        #[test]
        fn whole_records_are_known_however_the_stream_is_cut(
            bodies in prop::collection::vec(0_usize..60, 1..20),
            cuts in prop::collection::vec(1_usize..40, 1..20),
            eagerness in 0_usize..70,
            silent in 0_usize..4,
        ) {
            let ends: Vec<usize> =
                bodies.iter().scan(0, |end, body| { *end += 5 + body; Some(*end) }).collect();
            let stream: Vec<u8> = bodies.iter().flat_map(|body| record(*body)).collect();
            let mut records = Records::default();
            let (mut fed, mut taken) = (0, 0);
            for cut in cuts.iter().cycle() {
                if fed == stream.len() {
                    break;
                }
                let next = (fed + cut).min(stream.len());
                records.feed(&stream[fed..next]);
                fed = next;
                let whole = ends.iter().copied().filter(|end| *end <= fed).max().unwrap_or(0);
                prop_assert_eq!(records.may_have(fed - taken), whole > taken);
                // The engine takes the whole records one by one, some without giving data, and some of the next one.
                let untaken: Vec<_> = ends.iter().copied().filter(|end| *end <= whole && *end > taken).collect();
                for (place, end) in untaken.into_iter().enumerate() {
                    taken = end;
                    if place % 3 == silent {
                        continue;
                    }
                    if let Some(unread) = records.note_taken() {
                        prop_assert_eq!((unread, end), (fed - taken, whole));
                    } else {
                        prop_assert!(end < whole || silent < 3);
                        records.note_unread(fed - taken);
                    }
                }
                taken = (whole + eagerness).clamp(taken, fed);
                records.note_unread(fed - taken);
                prop_assert!(!records.may_have(fed - taken));
            }
        }
    }

    #[test]
    fn what_is_no_tls_is_left_to_the_engine() {
        for odd in [b"GET / HTTP/1.1".as_slice(), &[23, 3, 1, 0, 1, 0], &[22, 3, 3, 0xff, 0xff], &[24, 3, 3, 0, 0]] {
            let mut records = Records::default();
            records.feed(&[22, 3, 1, 0, 1, 0]);
            records.feed(&record(7));
            assert!(!records.may_have(0));
            records.feed(odd);
            assert!(records.may_have(0));
            records.feed(&record(7));
            assert!(records.may_have(0));
        }
    }
}
