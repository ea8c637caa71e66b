//! Segments: log records packed into one string, as a dictionary followed by records of a few bytes each, whose times
//! are delta-encoded.
//!
//! The format is: the format version; the number of strings; each string, prefixed by its length; the number of
//! records; the records. Numbers are encoded as LEB128, signed numbers with zigzag encoding. The result is base 64,
//! because the store and its backups support only text.

use std::collections::HashMap;

use data_encoding::BASE64_NOPAD;

use super::log::{CallRecord, EventRecord, Log, NONE, NameTable};
use crate::clock::Timestamp;
use crate::event::EventKind;

const FORMAT: u64 = 1;

/// The text is not a valid segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the segment cannot be read")]
pub struct SegmentError;

/// Packs events.
#[must_use]
pub fn pack_events(names: &NameTable, events: &[EventRecord]) -> String {
    let mut packer = Packer::new(names);
    for event in events {
        packer.time(event.at);
        packer.put(code(event.kind));
        for name in [event.attempt, event.user, event.walkthrough, event.version, event.step, event.client] {
            packer.name(name);
        }
        packer.signed(event.elapsed_ms);
        packer.signed(event.took_ms);
    }
    packer.finish(events.len())
}

/// Packs calls.
#[must_use]
pub fn pack_calls(names: &NameTable, calls: &[CallRecord]) -> String {
    let mut packer = Packer::new(names);
    for call in calls {
        packer.time(call.at);
        for name in [call.tool, call.outcome, call.client, call.user] {
            packer.name(name);
        }
        packer.signed(call.duration_us);
    }
    packer.finish(calls.len())
}

/// Adds the events of a segment to `log`, except those for whose time `is_included` returns `false`.
///
/// # Errors
/// [`SegmentError`] if the text was not created by [`pack_events`]. `log` may then contain some of its events.
pub fn unpack_events(text: &str, log: &mut Log, is_included: impl Fn(Timestamp) -> bool) -> Result<(), SegmentError> {
    let bytes = BASE64_NOPAD.decode(text.as_bytes()).map_err(|_| SegmentError)?;
    let (mut reader, count) = Reader::new(&bytes, &mut log.names)?;
    for _ in 0..count {
        let at = reader.time()?;
        let event = EventRecord {
            at,
            kind: kind(reader.take()?)?,
            attempt: reader.name()?,
            user: reader.name()?,
            walkthrough: reader.name()?,
            version: reader.name()?,
            step: reader.name()?,
            client: reader.name()?,
            elapsed_ms: reader.signed()?,
            took_ms: reader.signed()?,
        };
        if is_included(at) {
            log.events.push(event);
        }
    }
    reader.end()
}

/// Adds the calls of a segment to `log`, except those for whose time `is_included` returns `false`.
///
/// # Errors
/// [`SegmentError`] if the text was not created by [`pack_calls`]. `log` may then contain some of its calls.
pub fn unpack_calls(text: &str, log: &mut Log, is_included: impl Fn(Timestamp) -> bool) -> Result<(), SegmentError> {
    let bytes = BASE64_NOPAD.decode(text.as_bytes()).map_err(|_| SegmentError)?;
    let (mut reader, count) = Reader::new(&bytes, &mut log.names)?;
    for _ in 0..count {
        let at = reader.time()?;
        let call = CallRecord {
            at,
            tool: reader.name()?,
            outcome: reader.name()?,
            client: reader.name()?,
            user: reader.name()?,
            duration_us: reader.signed()?,
        };
        if is_included(at) {
            log.calls.push(call);
        }
    }
    reader.end()
}

/// Returns the packed code of an event kind. Never change the codes.
fn code(kind: EventKind) -> u64 {
    match kind {
        EventKind::Started => 0,
        EventKind::Resumed => 1,
        EventKind::StepCompleted => 2,
        EventKind::Completed => 3,
        EventKind::Moved => 4,
        EventKind::MovedFromWithdrawn => 5,
        EventKind::Restarted => 6,
        EventKind::Joined => 7,
        EventKind::Reset => 8,
    }
}

fn kind(number: u64) -> Result<EventKind, SegmentError> {
    EventKind::ALL.iter().copied().find(|kind| code(*kind) == number).ok_or(SegmentError)
}

struct Packer<'a> {
    names: &'a NameTable,
    /// Maps numbers in the log to numbers in this segment.
    numbers: HashMap<u32, u64>,
    texts: Vec<&'a str>,
    rows: Vec<u8>,
    previous: i64,
}

impl<'a> Packer<'a> {
    fn new(names: &'a NameTable) -> Self {
        Self { names, numbers: HashMap::new(), texts: Vec::new(), rows: Vec::new(), previous: 0 }
    }

    fn put(&mut self, value: u64) {
        put(&mut self.rows, value);
    }

    fn signed(&mut self, value: i64) {
        put(&mut self.rows, zigzag(value));
    }

    fn time(&mut self, at: Timestamp) {
        self.signed(at.0.wrapping_sub(self.previous));
        self.previous = at.0;
    }

    /// Writes 0 for [`NONE`], otherwise the number in this segment, counted from 1.
    fn name(&mut self, number: u32) {
        let Some(text) = self.names.text(number) else { return self.put(0) };
        let number = *self.numbers.entry(number).or_insert_with(|| {
            self.texts.push(text);
            self.texts.len() as u64
        });
        self.put(number);
    }

    fn finish(self, count: usize) -> String {
        let mut bytes = Vec::with_capacity(self.rows.len() + 32 * self.texts.len());
        put(&mut bytes, FORMAT);
        put(&mut bytes, self.texts.len() as u64);
        for text in self.texts {
            put(&mut bytes, text.len() as u64);
            bytes.extend_from_slice(text.as_bytes());
        }
        put(&mut bytes, count as u64);
        bytes.extend_from_slice(&self.rows);
        BASE64_NOPAD.encode(&bytes)
    }
}

struct Reader<'a> {
    rest: &'a [u8],
    /// Maps numbers in this segment to numbers in the log.
    names: Vec<u32>,
    previous: i64,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8], names: &mut NameTable) -> Result<(Self, u64), SegmentError> {
        let mut reader = Self { rest: bytes, names: vec![NONE], previous: 0 };
        if reader.take()? != FORMAT {
            return Err(SegmentError);
        }
        for _ in 0..reader.take()? {
            let length = usize::try_from(reader.take()?).map_err(|_| SegmentError)?;
            let (text, rest) = reader.rest.split_at_checked(length).ok_or(SegmentError)?;
            reader.names.push(names.intern(std::str::from_utf8(text).map_err(|_| SegmentError)?));
            reader.rest = rest;
        }
        let count = reader.take()?;
        Ok((reader, count))
    }

    fn take(&mut self) -> Result<u64, SegmentError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or(SegmentError)?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(SegmentError)
    }

    fn signed(&mut self) -> Result<i64, SegmentError> {
        let value = self.take()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    fn time(&mut self) -> Result<Timestamp, SegmentError> {
        self.previous = self.previous.wrapping_add(self.signed()?);
        Ok(Timestamp(self.previous))
    }

    fn name(&mut self) -> Result<u32, SegmentError> {
        let number = usize::try_from(self.take()?).map_err(|_| SegmentError)?;
        self.names.get(number).copied().ok_or(SegmentError)
    }

    fn end(&self) -> Result<(), SegmentError> {
        if self.rest.is_empty() { Ok(()) } else { Err(SegmentError) }
    }
}

fn put(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    bytes.push(value.to_le_bytes()[0]);
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}
