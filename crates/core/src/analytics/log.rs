//! Rows of the log in memory: texts are numbered, so that a row is small and comparing is cheap.

use std::collections::HashMap;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::event::EventKind;

/// The number of a name that is absent.
pub const NONE: u32 = u32::MAX;
/// The number of a name that no row has.
const UNKNOWN: u32 = u32::MAX - 1;

/// Texts, numbered in the order of their coming.
#[derive(Debug, Clone, Default)]
pub struct NameTable {
    numbers: HashMap<Arc<str>, u32>,
    texts: Vec<Arc<str>>,
}

impl NameTable {
    /// The number of `text`, which is given it when it is new.
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

    /// As [`NameTable::intern`]; [`NONE`] for none.
    pub fn intern_optional(&mut self, text: Option<&str>) -> u32 {
        text.map_or(NONE, |text| self.intern(text))
    }

    /// The number of `text`; one that no row has when it is not there.
    #[must_use]
    pub fn lookup(&self, text: &str) -> u32 {
        self.numbers.get(text).copied().unwrap_or(UNKNOWN)
    }

    /// The text with this number; none for [`NONE`].
    #[must_use]
    pub fn text(&self, number: u32) -> Option<&str> {
        self.texts.get(number as usize).map(AsRef::as_ref)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }
}

/// An event, its texts by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventRecord {
    /// When.
    pub at: Timestamp,
    /// What happened.
    pub kind: EventKind,
    /// To which attempt.
    pub attempt: u32,
    /// Of whom.
    pub user: u32,
    /// At what.
    pub walkthrough: u32,
    /// In which version.
    pub version: u32,
    /// To which step; [`NONE`] for those of the whole attempt.
    pub step: u32,
    /// By which client; [`NONE`] when it did not say.
    pub client: u32,
    /// Since the attempt was worked on before; negative when it was not.
    pub elapsed_ms: i64,
    /// For completions, since the attempt began; negative for others.
    pub took_ms: i64,
}

/// A tool call, its texts by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallRecord {
    /// When.
    pub at: Timestamp,
    /// Of which tool.
    pub tool: u32,
    /// `ok`, or the code of the error.
    pub outcome: u32,
    /// By which client; [`NONE`] when it did not say.
    pub client: u32,
    /// By whom; [`NONE`] when that is not known.
    pub user: u32,
    /// How long it took, in microseconds.
    pub duration_us: i64,
}

/// A part of the log. The events of each attempt are in the order in which they happened.
#[derive(Debug, Clone, Default)]
pub struct Log {
    /// The texts of all rows.
    pub names: NameTable,
    /// Events.
    pub events: Vec<EventRecord>,
    /// Calls.
    pub calls: Vec<CallRecord>,
}
