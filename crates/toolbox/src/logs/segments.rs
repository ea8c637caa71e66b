//! The files of a log: a ring of segments, each with one JSON object per line.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use waypost_toolbox_proto::http::LogLine;

/// The number of segments into which the maximum size is divided. The oldest segment is removed as a whole.
const SEGMENTS: u64 = 16;
/// The number of segments into which the maximum age is divided.
const AGES: i64 = 7;
/// The maximum size of a serialised line: each byte of its text can be escaped as six bytes.
const MAX_LINE_BYTES: u64 = 6 * super::MAX_TEXT_BYTES as u64 + 256;

/// The segments of a log, oldest first. The last one is being written.
pub(super) struct Segments {
    folder: PathBuf,
    max_bytes: u64,
    max_age_ms: i64,
    segments: VecDeque<Segment>,
    /// The open file of the last segment; `None` before the first line, and after an error.
    file: Option<File>,
}

#[derive(Clone, Copy)]
struct Segment {
    number: u64,
    bytes: u64,
    first_at: i64,
    last_at: i64,
    /// Whether the last line may be incomplete, so that nothing may be appended.
    is_torn: bool,
}

/// The part of a segment that existed at a point in time.
pub(super) struct Part {
    path: PathBuf,
    bytes: u64,
}

impl Segments {
    /// Opens the segments in a folder, which is created if it is missing.
    pub(super) fn open(folder: &Path, max_bytes: u64, max_age_ms: i64) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut segments = Vec::new();
        for entry in fs::read_dir(folder)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".jsonl")?.parse::<u64>().ok());
            if let Some(number) = number {
                segments.push(Segment::open(&path(folder, number), number)?);
            }
        }
        segments.sort_unstable_by_key(|segment| segment.number);
        let (folder, segments) = (folder.to_owned(), segments.into());
        Ok(Self { folder, max_bytes, max_age_ms, segments, file: None })
    }

    /// Appends serialised lines with the time `now`.
    pub(super) fn append(&mut self, lines: &[Vec<u8>], now: i64) -> io::Result<()> {
        let mut buffer = Vec::new();
        for line in lines {
            if self.needs_segment(buffer.len() as u64, line.len() as u64, now) {
                self.write(&buffer, now)?;
                buffer.clear();
                self.start_segment(now)?;
            }
            buffer.extend_from_slice(line);
        }
        self.write(&buffer, now)
    }

    /// Removes segments that are too old, and the oldest ones while the total size is too large. Stops at the first
    /// error and returns it; the segment is then still counted.
    pub(super) fn expire(&mut self, now: i64) -> io::Result<()> {
        while let Some(oldest) = self.segments.front() {
            let total: u64 = self.segments.iter().map(|segment| segment.bytes).sum();
            let is_old = oldest.last_at < now.saturating_sub(self.max_age_ms);
            // The last segment may grow to its maximum size.
            let is_large = total > self.max_bytes - self.max_bytes / SEGMENTS && self.segments.len() > 1;
            if !is_old && !is_large {
                break;
            }
            if self.segments.len() == 1 {
                self.file = None;
            }
            match fs::remove_file(path(&self.folder, oldest.number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => self.segments.pop_front(),
            };
        }
        Ok(())
    }

    /// Returns all segments in their current state, oldest first.
    pub(super) fn parts(&self) -> Vec<Part> {
        let part = |segment: &Segment| Part { path: path(&self.folder, segment.number), bytes: segment.bytes };
        self.segments.iter().map(part).collect()
    }

    fn needs_segment(&self, waiting: u64, line: u64, now: i64) -> bool {
        let Some(last) = self.segments.back() else { return true };
        let bytes = last.bytes + waiting;
        let is_full = bytes > 0 && bytes + line > self.max_bytes / SEGMENTS;
        is_full || last.is_torn || last.first_at < now.saturating_sub(self.max_age_ms / AGES)
    }

    fn start_segment(&mut self, now: i64) -> io::Result<()> {
        self.expire(now)?;
        let number = self.segments.back().map_or(1, |last| last.number + 1);
        self.file = Some(File::options().append(true).create(true).open(path(&self.folder, number))?);
        self.segments.push_back(Segment { number, bytes: 0, first_at: now, last_at: now, is_torn: false });
        Ok(())
    }

    /// Writes to the last segment. If this fails, partially written data is removed, so that the next line is not
    /// appended to an incomplete one.
    fn write(&mut self, bytes: &[u8], now: i64) -> io::Result<()> {
        let Some(last) = self.segments.back_mut() else { return Ok(()) };
        if bytes.is_empty() {
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let file = File::options().append(true).create(true).open(path(&self.folder, last.number))?;
                self.file.insert(file)
            }
        };
        if let Err(error) = file.write_all(bytes) {
            if file.set_len(last.bytes).is_err() {
                last.is_torn = true;
            }
            self.file = None;
            return Err(error);
        }
        last.bytes += bytes.len() as u64;
        last.last_at = now;
        Ok(())
    }
}

impl Segment {
    /// Reads the times of a segment, and removes an incomplete last line.
    fn open(path: &Path, number: u64) -> io::Result<Self> {
        let mut file = File::options().read(true).write(true).open(path)?;
        let length = file.metadata()?.len();
        let start = read_at(&mut file, 0, MAX_LINE_BYTES)?;
        let end_from = length.saturating_sub(2 * MAX_LINE_BYTES);
        let mut end = read_at(&mut file, end_from, 2 * MAX_LINE_BYTES)?;
        let complete = end.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        let bytes = end_from + complete as u64;
        if bytes < length {
            file.set_len(bytes)?;
        }
        end.truncate(complete);
        let first_at = start.split(|byte| *byte == b'\n').find_map(parse).map(|line| line.at);
        let last_at = end.rsplit(|byte| *byte == b'\n').find_map(parse).map(|line| line.at);
        let (first_at, last_at) = (first_at.unwrap_or_default(), last_at.unwrap_or_default());
        Ok(Self { number, bytes, first_at, last_at, is_torn: false })
    }
}

/// Returns the last `count` lines of `parts` that are not older than `not_before`, oldest first, reading at most
/// `max_bytes`. Lines that cannot be parsed are skipped.
pub(super) fn tail(parts: &[Part], count: usize, max_bytes: usize, not_before: i64) -> io::Result<Vec<LogLine>> {
    let (mut lines, mut size) = (Vec::new(), 0);
    for part in parts.iter().rev() {
        let mut file = match File::open(&part.path) {
            Ok(file) => file,
            // It has been removed, because it was too old or the log too large.
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        };
        let text = read_at(&mut file, 0, part.bytes)?;
        for line in text.rsplit(|byte| *byte == b'\n') {
            size += line.len();
            if lines.len() == count || size > max_bytes {
                lines.reverse();
                return Ok(lines);
            }
            lines.extend(parse(line).filter(|line| line.at >= not_before));
        }
    }
    lines.reverse();
    Ok(lines)
}

fn parse(line: &[u8]) -> Option<LogLine> {
    serde_json::from_slice(line).ok()
}

fn read_at(file: &mut File, from: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(from))?;
    file.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:016}.jsonl"))
}
