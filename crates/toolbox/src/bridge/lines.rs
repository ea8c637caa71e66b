//! Splitting a stream into lines of limited size.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The size of the buffer that is kept, and the step by which larger ones grow.
const STEP: usize = 64 * 1024;

/// The memory for messages that wait to be processed. It is limited for each connection, so that a server cannot occupy
/// the memory of the others, and for all connections of the daemon together.
#[derive(Clone)]
pub(super) struct Budget {
    own: Arc<Semaphore>,
    shared: Arc<Semaphore>,
}

/// Reserved memory, which is released when this is dropped.
pub(super) type Memory = (OwnedSemaphorePermit, OwnedSemaphorePermit);

impl Budget {
    pub(super) fn new(bytes: usize) -> Self {
        let semaphore = Arc::new(Semaphore::new(bytes / 1024));
        Self { own: semaphore.clone(), shared: semaphore }
    }

    /// Returns the budget of one connection, which is limited to `bytes`.
    pub(super) fn connection(&self, bytes: usize) -> Self {
        Self { own: Arc::new(Semaphore::new(bytes / 1024)), shared: self.shared.clone() }
    }

    /// Reserves memory in units of 1 KiB. Returns `None` if there is not enough.
    pub(super) fn take(&self, bytes: usize) -> Option<Memory> {
        let units = u32::try_from(bytes.div_ceil(1024).max(1)).ok()?;
        let take = |semaphore: &Arc<Semaphore>| semaphore.clone().try_acquire_many_owned(units).ok();
        Some((take(&self.own)?, take(&self.shared)?))
    }

    /// Returns the message, which occupies memory until its last copy is dropped; `None` if there is not enough.
    pub(super) fn hold(&self, message: Vec<u8>) -> Option<Bytes> {
        struct Held(Vec<u8>, #[expect(dead_code, reason = "held until it is dropped")] Memory);
        impl AsRef<[u8]> for Held {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        let permit = self.take(message.len())?;
        Some(Bytes::from_owner(Held(message, permit)))
    }
}

/// Splits a stream into lines.
pub(super) struct LineReader {
    budget: Budget,
    max: usize,
    line: Vec<u8>,
    /// The memory reserved beyond [`STEP`].
    permits: Vec<Memory>,
    is_discarding: bool,
}

/// A line without its line feed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    Complete(&'a [u8]),
    /// A line that is longer than the maximum, or for which there is not enough memory. Reported when the limit is
    /// reached; the rest of the line is discarded.
    TooLong,
}

impl LineReader {
    pub(super) fn new(max: usize, budget: Budget) -> Self {
        Self { budget, max, line: Vec::new(), permits: Vec::new(), is_discarding: false }
    }

    /// Adds a chunk, and passes each line that it completes to `receive`. Returns the number of bytes that were
    /// discarded because their line is too long.
    pub(super) fn push(&mut self, mut chunk: &[u8], mut receive: impl FnMut(Line<'_>)) -> usize {
        let mut discarded = 0;
        while let Some(end) = memchr::memchr(b'\n', chunk) {
            let (part, rest) = (&chunk[..end], &chunk[end + 1..]);
            chunk = rest;
            if std::mem::take(&mut self.is_discarding) {
                discarded += part.len();
                continue;
            }
            if self.line.is_empty() && part.len() <= self.max {
                receive(Line::Complete(part));
            } else if self.extend(part) {
                receive(Line::Complete(&self.line));
            } else {
                discarded += self.line.len() + part.len();
                receive(Line::TooLong);
            }
            self.reset();
        }
        if self.is_discarding {
            discarded += chunk.len();
        } else if !self.extend(chunk) {
            discarded += self.line.len() + chunk.len();
            receive(Line::TooLong);
            self.reset();
            self.is_discarding = true;
        }
        discarded
    }

    /// Passes the incomplete last line to `receive`, if there is one.
    pub(super) fn finish(&mut self, receive: impl FnOnce(Line<'_>)) {
        if !self.line.is_empty() {
            receive(Line::Complete(&self.line));
            self.reset();
        }
    }

    fn extend(&mut self, bytes: &[u8]) -> bool {
        let length = self.line.len() + bytes.len();
        if length > self.max {
            return false;
        }
        while length > STEP * (self.permits.len() + 1) {
            let Some(permit) = self.budget.take(STEP) else { return false };
            self.permits.push(permit);
        }
        self.line.extend_from_slice(bytes);
        true
    }

    fn reset(&mut self) {
        self.line.clear();
        self.line.shrink_to(STEP);
        self.permits.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(reader: &mut LineReader, chunk: &[u8]) -> Vec<Option<Vec<u8>>> {
        let mut lines = Vec::new();
        reader.push(chunk, |line| {
            lines.push(match line {
                Line::Complete(line) => Some(line.to_vec()),
                Line::TooLong => None,
            });
        });
        lines
    }

    #[test]
    fn memory_is_limited() {
        let budget = Budget::new(100 * STEP).connection(3 * STEP);
        let mut first = LineReader::new(usize::MAX, budget.clone());
        let mut second = LineReader::new(usize::MAX, budget.clone());
        assert_eq!(read(&mut first, &vec![b'a'; 4 * STEP]), []);
        assert_eq!(read(&mut second, &vec![b'a'; STEP + 1]), [None], "the first reader holds everything");
        assert_eq!(read(&mut first, b"\nb\n").len(), 2);
        assert_eq!(read(&mut second, b"rest\nc\n"), [Some(b"c".to_vec())]);
        let held = budget.hold(vec![0; 3 * STEP]).unwrap();
        assert!(budget.hold(vec![0]).is_none());
        drop(held);
        assert!(budget.hold(vec![0]).is_some());
        let shared = Budget::new(2 * STEP);
        let held = shared.connection(9 * STEP).hold(vec![0; 2 * STEP]).unwrap();
        assert!(shared.connection(9 * STEP).hold(vec![0]).is_none(), "the limit of all connections");
        drop(held);
        assert!(shared.connection(9 * STEP).hold(vec![0]).is_some());
    }

    #[test]
    fn the_bytes_of_lines_that_are_too_long_are_counted() {
        let mut reader = LineReader::new(4, Budget::new(1024));
        let mut push = |chunk: &[u8]| reader.push(chunk, |_| {});
        assert_eq!(push(b"1234\n123"), 0);
        assert_eq!(push(b"45"), 5, "including those that arrived before");
        assert_eq!(push(b"67\n1234\n"), 2);
        assert_eq!(push(b"12345\n1\n12345"), 10);
        assert_eq!(push(b"6"), 1);
    }

    proptest! {
        #[test]
        fn chunk_boundaries_do_not_matter(lines in prop::collection::vec("[a-z]{0,12}", 0..8), size in 1_usize..20) {
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            let mut reader = LineReader::new(8, Budget::new(1024));
            let read: Vec<_> = text.as_bytes().chunks(size).flat_map(|chunk| read(&mut reader, chunk)).collect();
            let expected: Vec<_> = lines.into_iter().map(|line| (line.len() <= 8).then(|| line.into_bytes())).collect();
            prop_assert_eq!(read, expected);
        }
    }
}
