//! A bounded queue that is shared fairly: each share (an organisation) has its own line, and the lines take turns.
//!
//! Invariants, verified by the property test below:
//!
//! 1. Items of one share that were never retried leave in the order in which they were added.
//! 2. While several shares have items that can leave, none of them leaves twice before each of the others has left
//!    once.
//! 3. A share never holds more than `per_share` items, and all shares together never more than `total`. Items that were
//!    taken and are neither finished nor put back count as well, so that an item that is put back always has room.
//! 4. A share without items is rejected only if no share with waiting items has more than one item: if the queue is
//!    full, the newest waiting item of the longest of these lines is evicted.
//! 5. At most `at_once` items of a share are taken at the same time, so that one share cannot occupy every worker.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// The bounds of a queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// The maximum number of items of a share.
    pub per_share: usize,
    /// The maximum number of items of all shares.
    pub total: usize,
    /// The maximum number of items of a share that are taken at the same time.
    pub at_once: usize,
}

/// The queue has no room for this share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many emails are waiting to be sent")]
pub struct QueueFull;

/// A fair queue. Times are durations since a fixed moment.
#[derive(Debug)]
pub(crate) struct FairQueue<T> {
    bounds: Bounds,
    lines: HashMap<String, Line<T>>,
    /// The shares with waiting items, next first.
    turns: VecDeque<String>,
    len: usize,
}

#[derive(Debug)]
struct Line<T> {
    waiting: VecDeque<Entry<T>>,
    taken: usize,
}

#[derive(Debug)]
struct Entry<T> {
    item: T,
    not_before: Duration,
}

impl<T> Line<T> {
    fn len(&self) -> usize {
        self.waiting.len() + self.taken
    }

    fn next(&self, now: Duration, at_once: usize) -> Option<usize> {
        if self.taken >= at_once {
            return None;
        }
        self.waiting.iter().position(|entry| entry.not_before <= now)
    }
}

impl<T> FairQueue<T> {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, lines: HashMap::new(), turns: VecDeque::new(), len: 0 }
    }

    /// Returns the number of waiting and taken items.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Adds an item. Returns the item that was evicted for it, if the queue was full.
    ///
    /// # Errors
    /// [`QueueFull`] if the share has reached its maximum, or if the queue is full and no other share with waiting
    /// items has at least two items more.
    pub(crate) fn push(&mut self, share: &str, item: T) -> Result<Option<T>, QueueFull> {
        let own = self.lines.get(share).map_or(0, Line::len);
        if own >= self.bounds.per_share {
            return Err(QueueFull);
        }
        let evicted = if self.len >= self.bounds.total { Some(self.evict(own)?) } else { None };
        self.add(share, Entry { item, not_before: Duration::ZERO });
        Ok(evicted)
    }

    /// Takes the next item that can leave at `now`, with its share. The caller must call [`FairQueue::done`] or
    /// [`FairQueue::put_back`] for it.
    pub(crate) fn pop(&mut self, now: Duration) -> Option<(String, T)> {
        let at_once = self.bounds.at_once;
        let lines = &self.lines;
        let next = |(turn, share): (usize, &String)| {
            lines.get(share).and_then(|line| line.next(now, at_once)).map(|position| (turn, position))
        };
        let (turn, position) = self.turns.iter().enumerate().find_map(next)?;
        let share = self.turns.remove(turn)?;
        let line = self.lines.get_mut(&share)?;
        let entry = line.waiting.remove(position)?;
        line.taken += 1;
        if !line.waiting.is_empty() {
            self.turns.push_back(share.clone());
        }
        Some((share, entry.item))
    }

    /// Finishes a taken item.
    pub(crate) fn done(&mut self, share: &str) {
        if let Some(line) = self.lines.get_mut(share) {
            line.taken = line.taken.saturating_sub(1);
            self.len -= 1;
            if line.len() == 0 {
                self.lines.remove(share);
            }
        }
    }

    /// Puts a taken item at the end of its share's line. It leaves at `not_before` at the earliest.
    pub(crate) fn put_back(&mut self, share: &str, item: T, not_before: Duration) {
        if let Some(line) = self.lines.get_mut(share) {
            line.taken = line.taken.saturating_sub(1);
            self.len -= 1;
        }
        self.add(share, Entry { item, not_before });
    }

    /// Returns the earliest time after `now` at which a waiting item can leave. Returns `None` if there is no such
    /// item.
    pub(crate) fn next_at(&self, now: Duration) -> Option<Duration> {
        let entries = self.lines.values().flat_map(|line| &line.waiting);
        entries.map(|entry| entry.not_before).filter(|at| *at > now).min()
    }

    fn add(&mut self, share: &str, entry: Entry<T>) {
        let line = self.lines.entry(share.to_owned()).or_insert_with(|| Line { waiting: VecDeque::new(), taken: 0 });
        if line.waiting.is_empty() {
            self.turns.push_back(share.to_owned());
        }
        line.waiting.push_back(entry);
        self.len += 1;
    }

    /// Evicts the newest item of the longest line with waiting items, to make room for a share that has `own` items.
    fn evict(&mut self, own: usize) -> Result<T, QueueFull> {
        let waiting = self.lines.iter().filter(|(_, line)| !line.waiting.is_empty());
        // The name decides between lines of equal length, so that the result does not depend on the order of the map.
        let longest = waiting.max_by_key(|(share, line)| (line.len(), share.as_str()));
        let (share, _) = longest.filter(|(_, line)| line.len() > own + 1).ok_or(QueueFull)?;
        let share = share.clone();
        let line = self.lines.get_mut(&share).ok_or(QueueFull)?;
        let entry = line.waiting.pop_back().ok_or(QueueFull)?;
        self.len -= 1;
        if line.waiting.is_empty() {
            self.turns.retain(|turn| *turn != share);
        }
        Ok(entry.item)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds { per_share: 4, total: 10, at_once: 2 };

    #[derive(Debug, Clone)]
    enum Step {
        Push(u8),
        Pop,
        /// Finishes one of the taken items.
        Done(prop::sample::Index),
        /// Puts back one of the taken items with a delay.
        PutBack(prop::sample::Index, u8),
        Wait(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0..7_u8).prop_map(Step::Push),
            4 => Just(Step::Pop),
            3 => any::<prop::sample::Index>().prop_map(Step::Done),
            1 => (any::<prop::sample::Index>(), 0..9_u8).prop_map(|(index, wait)| Step::PutBack(index, wait)),
            1 => (0..9_u8).prop_map(Step::Wait),
        ]
    }

    #[derive(Debug, Clone, PartialEq)]
    struct Item {
        share: String,
        number: usize,
        retried: bool,
        not_before: u64,
    }

    /// A simple model of the queue.
    #[derive(Default)]
    struct Model {
        waiting: Vec<Item>,
        taken: Vec<Item>,
        /// For each share that could leave continuously, the shares that left since it last left.
        left_since: BTreeMap<String, Vec<String>>,
        last_left: BTreeMap<String, usize>,
    }

    impl Model {
        fn count(&self, share: &str) -> usize {
            self.waiting.iter().chain(&self.taken).filter(|item| item.share == share).count()
        }

        fn can_leave(&self, share: &str, now: u64) -> bool {
            self.taken.iter().filter(|item| item.share == share).count() < BOUNDS.at_once
                && self.waiting.iter().any(|item| item.share == share && item.not_before <= now)
        }

        /// Called after every step: the wait of a share that temporarily cannot leave starts again.
        fn forget_unable(&mut self, now: u64) {
            let seen = std::mem::take(&mut self.left_since);
            self.left_since = seen.into_iter().filter(|(share, _)| self.can_leave(share, now)).collect();
        }

        fn shares(&self) -> Vec<String> {
            let mut all: Vec<_> = self.waiting.iter().chain(&self.taken).map(|item| item.share.clone()).collect();
            all.sort();
            all.dedup();
            all
        }

        fn pushed(&mut self, item: Item, result: Result<Option<Item>, QueueFull>) {
            let own = self.count(&item.share);
            let full = self.waiting.len() + self.taken.len() >= BOUNDS.total;
            let longest = self.shares().iter().map(|share| self.count(share)).max().unwrap_or(0);
            match result {
                Ok(evicted) => {
                    assert!(own < BOUNDS.per_share);
                    assert_eq!(evicted.is_some(), full);
                    if let Some(evicted) = evicted {
                        assert!(self.count(&evicted.share) > own + 1, "only an item of a longer line is evicted");
                        self.waiting.retain(|item| item.number != evicted.number);
                    }
                    self.waiting.push(item);
                }
                Err(QueueFull) => {
                    // A share without items is rejected only if no share has more than one item, except for lines whose
                    // items are all taken.
                    let evictable = self.shares().iter().any(|share| {
                        self.count(share) == longest && self.waiting.iter().any(|item| item.share == *share)
                    });
                    assert!(own >= BOUNDS.per_share || full && (longest <= own + 1 || !evictable));
                }
            }
        }

        fn popped(&mut self, now: u64, result: Option<(String, Item)>) {
            let able: Vec<_> = self.shares().into_iter().filter(|share| self.can_leave(share, now)).collect();
            let Some((share, item)) = result else {
                assert_eq!(able, Vec::<String>::new(), "an item that can leave does leave");
                return;
            };
            assert!(able.contains(&share) && item.share == share);
            if !item.retried {
                let first = self.last_left.insert(share.clone(), item.number);
                assert!(first.is_none_or(|first| first < item.number), "in order");
            }
            // A share that can leave continuously waits for at most one turn of each other share.
            for other in able.iter().filter(|other| **other != share) {
                let seen = self.left_since.entry(other.clone()).or_default();
                assert!(!seen.contains(&share), "{share} left twice while {other} waited");
                seen.push(share.clone());
            }
            self.left_since.remove(&share);
            let position = self.waiting.iter().position(|waiting| waiting.number == item.number).unwrap();
            self.waiting.remove(position);
            self.taken.push(item);
        }
    }

    fn take(taken: &mut Vec<Item>, index: prop::sample::Index) -> Option<Item> {
        if taken.is_empty() { None } else { Some(taken.remove(index.index(taken.len()))) }
    }

    proptest! {
        #[test]
        fn order_fairness_and_bounds_hold(steps in prop::collection::vec(step(), 0..400)) {
            let (mut queue, mut model, mut now) = (FairQueue::new(BOUNDS), Model::default(), 0);
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Push(share) => {
                        let item = Item { share: format!("org_{share}"), number, retried: false, not_before: 0 };
                        model.pushed(item.clone(), queue.push(&item.share.clone(), item));
                    }
                    Step::Pop => model.popped(now, queue.pop(Duration::from_secs(now))),
                    Step::Done(index) => {
                        if let Some(item) = take(&mut model.taken, index) {
                            queue.done(&item.share);
                        }
                    }
                    Step::PutBack(index, wait) => {
                        if let Some(item) = take(&mut model.taken, index) {
                            let item = Item { retried: true, not_before: now + u64::from(wait), ..item };
                            queue.put_back(&item.share.clone(), item.clone(), Duration::from_secs(item.not_before));
                            model.waiting.push(item);
                        }
                    }
                    Step::Wait(seconds) => now += u64::from(seconds),
                }
                model.forget_unable(now);
                prop_assert_eq!(queue.len(), model.waiting.len() + model.taken.len());
                prop_assert!(queue.len() <= BOUNDS.total);
                prop_assert!(model.shares().iter().all(|share| model.count(share) <= BOUNDS.per_share));
                let later = model.waiting.iter().map(|item| item.not_before).filter(|at| *at > now).min();
                prop_assert_eq!(queue.next_at(Duration::from_secs(now)), later.map(Duration::from_secs));
                prop_assert_eq!(queue.lines.len(), model.shares().len(), "no memory for shares without items");
            }
        }
    }

    #[test]
    fn a_flood_of_one_share_never_rejects_another() {
        let mut queue = FairQueue::new(Bounds { per_share: 100, total: 200, at_once: 2 });
        for share in ["flood_1", "flood_2"] {
            assert!((0..100).all(|n| queue.push(share, n).is_ok()));
            assert_eq!(queue.push(share, 100), Err(QueueFull));
        }
        for n in 0..50 {
            assert!(
                matches!(queue.push(&format!("quiet_{n}"), n), Ok(Some(_))),
                "an item of the longest line is evicted"
            );
        }
        let first: Vec<_> = (0..6).filter_map(|_| queue.pop(Duration::ZERO)).map(|(share, _)| share).collect();
        assert_eq!(first, ["flood_1", "flood_2", "quiet_0", "quiet_1", "quiet_2", "quiet_3"]);
    }
}
