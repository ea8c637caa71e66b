//! Log records in memory. Strings are interned, so that records are small and cheap to compare.

use std::collections::HashMap;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::event::EventKind;

/// The number of an absent name.
pub const NONE: u32 = u32::MAX;
/// The number of a name that does not occur in the log.
const UNKNOWN: u32 = u32::MAX - 1;

/// Interned strings, numbered in order of insertion.
#[derive(Debug, Clone, Default)]
pub struct NameTable {
    numbers: HashMap<Arc<str>, u32>,
    texts: Vec<Arc<str>>,
}

impl NameTable {
    /// Returns the number of `text` and inserts it if necessary.
    pub fn intern(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = u32::try_from(self.texts.len()).unwrap_or(UNKNOWN);
        let text: Arc<str> = text.into();
        self.texts.push(Arc::clone(&text));
        self.numbers.insert(text, number);
        number
    }

    /// Like [`NameTable::intern`]; returns [`NONE`] for `None`.
    pub fn intern_optional(&mut self, text: Option<&str>) -> u32 {
        text.map_or(NONE, |text| self.intern(text))
    }

    /// Returns the number of `text`, or a number that no record has if the text is not in the table.
    #[must_use]
    pub fn lookup(&self, text: &str) -> u32 {
        self.numbers.get(text).copied().unwrap_or(UNKNOWN)
    }

    /// Returns the text with this number. Returns `None` for [`NONE`].
    #[must_use]
    pub fn text(&self, number: u32) -> Option<&str> {
        self.texts.get(number as usize).map(AsRef::as_ref)
    }

    /// Returns the number of strings.
    #[must_use]
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether the table is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }
}

/// An event with interned strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventRecord {
    /// When it occurred.
    pub at: Timestamp,
    /// The kind of event.
    pub kind: EventKind,
    /// The attempt.
    pub attempt: u32,
    /// The end user.
    pub user: u32,
    /// The walkthrough.
    pub walkthrough: u32,
    /// The version.
    pub version: u32,
    /// The step; [`NONE`] for events of the whole attempt.
    pub step: u32,
    /// The client; [`NONE`] if unknown.
    pub client: u32,
    /// Time since the previous activity of the attempt; negative if there was none.
    pub elapsed_ms: i64,
    /// For completions, time since the attempt was started; negative for other events.
    pub took_ms: i64,
}

/// A tool call with interned strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallRecord {
    /// When the call was made.
    pub at: Timestamp,
    /// The tool.
    pub tool: u32,
    /// `ok`, or the error code.
    pub outcome: u32,
    /// The client; [`NONE`] if unknown.
    pub client: u32,
    /// The end user; [`NONE`] if unknown.
    pub user: u32,
    /// Duration in microseconds.
    pub duration_us: i64,
}

/// A part of the log. The events of each attempt are in chronological order.
#[derive(Debug, Clone, Default)]
pub struct Log {
    /// The interned strings of all records.
    pub names: NameTable,
    /// The events.
    pub events: Vec<EventRecord>,
    /// The tool calls.
    pub calls: Vec<CallRecord>,
}
