//! The events in memory, and the changes to write.

use std::collections::{HashSet, VecDeque};

use bytes::Bytes;
use waypost_link_io::lines::encode;
use waypost_toolbox_proto::message::{DaemonMessage, ToolboxEvent};

use super::disk::Record;

/// The maximum number of events.
pub const MAX_EVENTS: usize = 10_000;
/// The maximum size of all events in bytes.
pub const MAX_BYTES: usize = 16 * 1024 * 1024;
/// The maximum size of one event. All texts in events are short.
const MAX_EVENT_BYTES: usize = 256 * 1024;
/// The number of sequence numbers that are reserved at a time.
const RESERVED: u64 = 1_000;
/// The file is rewritten if more bytes than this, and more than half of the file, are no longer needed.
const MIN_REWRITE_BYTES: usize = 256 * 1024;

/// An event as it is sent.
pub(super) struct Entry {
    pub(super) sequence: u64,
    pub(super) line: Bytes,
    kind: Kind,
}

#[derive(PartialEq, Eq, Hash)]
enum Kind {
    /// A state of this instance. Superseded by a newer one.
    State(String),
    /// Can be removed if the queue is full.
    Other,
    /// Is never removed: the end of a deployment, or a removal.
    Essential,
}

impl Entry {
    pub(super) fn new(sequence: u64, line: Bytes, event: &ToolboxEvent) -> Self {
        let kind = match event {
            ToolboxEvent::Instance(report) => Kind::State(report.id.clone()),
            ToolboxEvent::DeploymentEnded { .. } | ToolboxEvent::Removed { .. } => Kind::Essential,
            ToolboxEvent::DeploymentStep { .. }
            | ToolboxEvent::Crashed { .. }
            | ToolboxEvent::EgressRejected { .. } => Kind::Other,
        };
        Self { sequence, line, kind }
    }
}

/// The data to write at once.
pub(super) struct Batch {
    /// The bytes to append, or the complete new content.
    pub(super) bytes: Vec<u8>,
    /// Whether the file is replaced.
    pub(super) is_complete: bool,
    /// Whether the bytes must be synced.
    pub(super) is_durable: bool,
    /// The number of the last event that is on disk after this batch is written.
    pub(super) last: u64,
}

/// The events, oldest first.
#[derive(Default)]
pub(super) struct State {
    events: VecDeque<Entry>,
    bytes: usize,
    /// The number of events that are never removed.
    essential: usize,
    /// The number of the next event.
    next: u64,
    /// All numbers below this one may have been used.
    reserved: u64,
    /// The number of the last event that can be sent.
    sendable: u64,
    unwritten: Vec<u8>,
    is_durable: bool,
    must_rewrite: bool,
    file_bytes: usize,
}

impl State {
    /// Creates the state from the content of the file.
    pub(super) fn new(events: VecDeque<Entry>, next: u64, file_bytes: usize) -> Self {
        let sendable = events.back().map_or(0, |entry| entry.sequence);
        let next = next.max(sendable + 1).max(1);
        let mut state = Self { next, reserved: next, sendable, file_bytes, ..Self::default() };
        state.replace_events(events);
        state
    }

    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    pub(super) fn push(&mut self, at: i64, event: ToolboxEvent) {
        let sequence = self.next;
        let instance = event.instance_id().to_owned();
        let message = DaemonMessage::Event { sequence, at, event };
        let DaemonMessage::Event { event, .. } = &message else { return };
        let line = match encode(&message) {
            Ok(line) if line.len() <= MAX_EVENT_BYTES => line,
            _ => {
                tracing::error!(instance, "an event is too large and was dropped");
                return;
            }
        };
        let entry = Entry::new(sequence, line, event);
        if !self.make_room(&entry) {
            tracing::error!(instance, "the queue of events is full, an event was dropped");
            return;
        }
        if self.next >= self.reserved {
            self.reserved = self.next + RESERVED;
            self.append(&Record::Reserved { sequence: self.reserved }.line());
        }
        self.next += 1;
        self.append(&entry.line.clone());
        self.is_durable = true;
        self.bytes += entry.line.len();
        self.essential += usize::from(entry.kind == Kind::Essential);
        self.events.push_back(entry);
    }

    pub(super) fn acknowledge(&mut self, sequence: u64) {
        let before = self.events.len();
        while self.events.front().is_some_and(|entry| entry.sequence <= sequence) {
            let Some(entry) = self.events.pop_front() else { break };
            self.bytes -= entry.line.len();
            self.essential -= usize::from(entry.kind == Kind::Essential);
        }
        if sequence >= self.next {
            // The file was lost. The control plane would ignore lower numbers.
            tracing::warn!(sequence, "the control plane has events with higher numbers, continuing after them");
            self.next = sequence + 1;
        } else if self.events.len() == before {
            return;
        }
        self.append(&Record::Acknowledged { sequence }.line());
        let unneeded = self.file_bytes.saturating_sub(self.bytes);
        self.must_rewrite |= unneeded > MIN_REWRITE_BYTES.max(self.bytes);
    }

    pub(super) fn next_lines(&self, after: u64, max: usize) -> (u64, Vec<Bytes>) {
        let start = self.events.partition_point(|entry| entry.sequence <= after);
        let end = self.events.partition_point(|entry| entry.sequence <= self.sendable).min(max);
        let entries = self.events.range(start.min(end)..end);
        let lines: Vec<_> = entries.map(|entry| entry.line.clone()).collect();
        let last = if lines.is_empty() { after } else { self.events[end - 1].sequence };
        (last, lines)
    }

    /// Returns the next batch to write; `None` if everything has been written.
    pub(super) fn take_batch(&mut self) -> Option<Batch> {
        let last = self.next - 1;
        if self.must_rewrite {
            self.must_rewrite = false;
            self.is_durable = false;
            self.unwritten.clear();
            let mut bytes = Record::Reserved { sequence: self.reserved.max(self.next) }.line();
            self.events.iter().for_each(|entry| bytes.extend_from_slice(&entry.line));
            self.file_bytes = bytes.len();
            return Some(Batch { bytes, is_complete: true, is_durable: true, last });
        }
        if self.unwritten.is_empty() {
            return None;
        }
        let bytes = std::mem::take(&mut self.unwritten);
        let is_durable = std::mem::take(&mut self.is_durable);
        Some(Batch { bytes, is_complete: false, is_durable, last })
    }

    /// Makes the next batch replace the complete file.
    pub(super) fn rewrite(&mut self) {
        self.must_rewrite = true;
    }

    pub(super) fn mark_sendable(&mut self, last: u64) {
        self.sendable = self.sendable.max(last);
    }

    fn append(&mut self, line: &[u8]) {
        if !self.must_rewrite {
            self.unwritten.extend_from_slice(line);
        }
        self.file_bytes += line.len();
    }

    /// Removes events if the queue has no room for `entry`. Returns `false` if there is still no room.
    fn make_room(&mut self, entry: &Entry) -> bool {
        let length = entry.line.len();
        let has_room = |state: &Self, factor: usize| {
            state.events.len() < factor * MAX_EVENTS && state.bytes + length <= factor * MAX_BYTES
        };
        if has_room(self, 1) {
            return true;
        }
        let before = self.events.len();
        if self.essential < before {
            self.remove_superseded();
            if !has_room(self, 1) {
                // Several events are removed at once, because the file is then rewritten.
                self.remove_oldest(MAX_EVENTS / 10);
            }
            self.must_rewrite = true;
            tracing::warn!(removed = before - self.events.len(), "the queue of events is full, removed events");
        }
        has_room(self, if entry.kind == Kind::Essential { 2 } else { 1 })
    }

    fn remove_superseded(&mut self) {
        let mut seen = HashSet::new();
        let mut kept = VecDeque::with_capacity(self.events.len());
        for entry in std::mem::take(&mut self.events).into_iter().rev() {
            let is_superseded = matches!(&entry.kind, Kind::State(id) if !seen.insert(id.clone()));
            if !is_superseded {
                kept.push_front(entry);
            }
        }
        self.replace_events(kept);
    }

    fn remove_oldest(&mut self, count: usize) {
        let mut remaining = count;
        let mut events = std::mem::take(&mut self.events);
        events.retain(|entry| {
            let is_removed = remaining > 0 && entry.kind != Kind::Essential;
            remaining -= usize::from(is_removed);
            !is_removed
        });
        self.replace_events(events);
    }

    fn replace_events(&mut self, events: VecDeque<Entry>) {
        self.bytes = events.iter().map(|entry| entry.line.len()).sum();
        self.essential = events.iter().filter(|entry| entry.kind == Kind::Essential).count();
        self.events = events;
    }
}
