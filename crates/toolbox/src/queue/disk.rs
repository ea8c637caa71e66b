//! The file of the queue: one record per line. New records are appended; the file is replaced when most of it is no
//! longer needed.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use waypost_toolbox_proto::message::ToolboxEvent;

use super::state::{Batch, Entry, State};
use crate::files;

/// A line of the file.
#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Record {
    /// An event, exactly as it is sent.
    Event { sequence: u64, at: i64, event: ToolboxEvent },
    /// Events up to this number have been acknowledged.
    Acknowledged { sequence: u64 },
    /// All numbers below this one may have been used.
    Reserved { sequence: u64 },
}

impl Record {
    pub(super) fn line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

/// The file. It is used by one writer only.
#[derive(Clone)]
pub(super) struct Disk {
    path: PathBuf,
}

impl Disk {
    /// Opens the queue, and reads its events.
    pub(super) fn open(folder: &Path) -> io::Result<(Self, State)> {
        files::create_folder(folder)?;
        let path = folder.join("queue.jsonl");
        let content = match fs::read(&path) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let (state, is_damaged) = parse(&content);
        let mut state = state;
        if is_damaged {
            // Appending to an incomplete line would damage the next record.
            state.rewrite();
        }
        Ok((Self { path }, state))
    }

    /// Writes a batch. Blocks the thread.
    pub(super) fn write(&mut self, batch: &Batch) -> io::Result<()> {
        if batch.is_complete {
            return files::replace(&self.path, &batch.bytes);
        }
        let is_new = !self.path.exists();
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
        file.write_all(&batch.bytes)?;
        if batch.is_durable {
            file.sync_data()?;
        }
        if is_new && let Some(folder) = self.path.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    }
}

/// Parses the records. Also returns whether the file contains anything else, such as an incomplete last line.
fn parse(content: &[u8]) -> (State, bool) {
    let mut events = VecDeque::new();
    let (mut next, mut last, mut acknowledged, mut is_damaged) = (1, 0, 0, false);
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        match serde_json::from_slice(line) {
            Ok(Record::Event { sequence, event, .. }) if sequence > last && line.ends_with(b"\n") => {
                last = sequence;
                next = next.max(sequence + 1);
                events.push_back(Entry::new(sequence, Bytes::copy_from_slice(line), &event));
            }
            Ok(Record::Acknowledged { sequence }) => {
                acknowledged = acknowledged.max(sequence);
                next = next.max(sequence + 1);
            }
            Ok(Record::Reserved { sequence }) => next = next.max(sequence),
            _ => is_damaged = true,
        }
    }
    if is_damaged {
        tracing::warn!("the queue of events is damaged, probably by a crash; its readable events are used");
    }
    is_damaged |= content.last().is_some_and(|byte| *byte != b'\n');
    events.retain(|entry| entry.sequence > acknowledged);
    (State::new(events, next, content.len()), is_damaged)
}
