//! The logs of instances: a ring of files on disk for each instance, limited in size and age.
//!
//! Each line is stored as one JSON object ([`LogLine`]). Each chunk of output is written with one system call, so no
//! line is lost if the daemon is killed. Writes are not synced to the disk: after a power failure, the end of the log
//! may be missing. An incomplete line is skipped. The rate of lines is limited for each instance.

mod mask;
mod segments;
mod text;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::Stream;
use tokio::sync::broadcast;
use tokio::time::Instant;
use waypost_toolbox_proto::http::{LogLine, LogStream};

pub(crate) use self::mask::mask_text;
use self::segments::Segments;
pub use self::text::{LogWriter, MAX_TEXT_BYTES};
use crate::clock::WallClock;

/// The maximum number of lines that [`InstanceLog::tail`] returns.
pub const MAX_TAIL: usize = 100_000;
/// The maximum number of bytes that [`InstanceLog::tail`] reads.
const MAX_TAIL_BYTES: usize = 8 * 1024 * 1024;
/// The number of lines that are buffered for a slow reader. If it falls further behind, it misses lines.
const FOLLOW_BUFFER: usize = 256;
/// The interval at which expired segments are removed.
const EXPIRE_INTERVAL: Duration = Duration::from_secs(60);

/// The limits of a log.
#[derive(Debug, Clone, Copy)]
pub struct LogOptions {
    /// The maximum size of all files in bytes.
    pub max_bytes: u64,
    /// The age after which lines are removed.
    pub max_age: Duration,
    /// The sustained number of lines per second. Ten times as many can be written at once.
    pub lines_per_second: u32,
    /// The sustained number of bytes of text per second. Ten times as many can be written at once.
    pub bytes_per_second: u32,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            max_bytes: 50 * 1024 * 1024,
            max_age: Duration::from_secs(7 * 24 * 60 * 60),
            lines_per_second: 500,
            bytes_per_second: 256 * 1024,
        }
    }
}

/// The log of one instance, to which all its containers and the daemon write.
pub struct InstanceLog {
    clock: WallClock,
    options: LogOptions,
    state: Mutex<State>,
    followers: broadcast::Sender<LogLine>,
}

struct State {
    segments: Segments,
    lines: Bucket,
    bytes: Bucket,
    missing: MissingLines,
    expired_at: Instant,
}

impl InstanceLog {
    /// Opens the log in `folder`, which is created if it is missing.
    ///
    /// # Errors
    /// Returns any error of the file system.
    pub fn open(folder: &Path, options: LogOptions, clock: WallClock) -> io::Result<Arc<Self>> {
        let max_age = i64::try_from(options.max_age.as_millis()).unwrap_or(i64::MAX);
        let mut segments = Segments::open(folder, options.max_bytes, max_age)?;
        segments.expire(clock())?;
        let state = State {
            segments,
            lines: Bucket::new(options.lines_per_second),
            bytes: Bucket::new(options.bytes_per_second),
            missing: MissingLines::default(),
            expired_at: Instant::now(),
        };
        let followers = broadcast::Sender::new(FOLLOW_BUFFER);
        Ok(Arc::new(Self { clock, options, state: Mutex::new(state), followers }))
    }

    /// Returns a writer for the output of a container. All `secrets` of at least four bytes are masked.
    #[must_use]
    pub fn writer(self: &Arc<Self>, stream: LogStream, secrets: &[String]) -> LogWriter {
        LogWriter::new(self.clone(), stream, secrets)
    }

    /// Appends a line from the daemon itself. The text must not contain secrets or text that was received from a server.
    pub fn note(&self, text: &str) {
        let text = if text.len() > MAX_TEXT_BYTES { text::cut(text.to_owned()) } else { text.to_owned() };
        self.append_all(LogStream::Toolbox, vec![text]);
    }

    /// Returns the last `count` lines, but at most [`MAX_TAIL`], oldest first. Returns fewer if they are very long.
    ///
    /// # Errors
    /// Returns any error of the file system.
    pub async fn tail(&self, count: usize) -> io::Result<Vec<LogLine>> {
        let parts = self.state().segments.parts();
        self.read(parts, count).await
    }

    /// Returns the last `count` lines, and a stream of the lines after them as they are written. A reader that is too
    /// slow misses lines, and receives a line that reports this.
    ///
    /// # Errors
    /// Returns any error of the file system.
    pub async fn follow(&self, count: usize) -> io::Result<(Vec<LogLine>, impl Stream<Item = LogLine> + Send + use<>)> {
        let (parts, receiver) = {
            let state = self.state();
            // Lines are written and sent with the lock held, so every line is either in the parts or received, but not
            // both.
            (state.segments.parts(), self.followers.subscribe())
        };
        let clock = self.clock;
        let next = async move |mut receiver: broadcast::Receiver<LogLine>| match receiver.recv().await {
            Ok(line) => Some((line, receiver)),
            Err(broadcast::error::RecvError::Lagged(count)) => {
                let text = format!("{count} lines are missing here because the reader is too slow");
                Some((LogLine { at: clock(), stream: LogStream::Toolbox, text }, receiver))
            }
            Err(broadcast::error::RecvError::Closed) => None,
        };
        let lines = futures::stream::unfold((receiver, Arc::new(next)), async |(receiver, next)| {
            next(receiver).await.map(|(line, receiver)| (line, (receiver, next.clone())))
        });
        Ok((self.read(parts, count).await?, lines))
    }

    async fn read(&self, parts: Vec<segments::Part>, count: usize) -> io::Result<Vec<LogLine>> {
        let max_age = i64::try_from(self.options.max_age.as_millis()).unwrap_or(i64::MAX);
        let not_before = (self.clock)().saturating_sub(max_age);
        let read = move || segments::tail(&parts, count.min(MAX_TAIL), MAX_TAIL_BYTES, not_before);
        tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
    }

    fn append_all(&self, stream: LogStream, texts: Vec<String>) {
        if texts.is_empty() {
            return;
        }
        let at = (self.clock)();
        let mut state = self.state();
        let (mut lines, mut count, mut reported) = (Vec::new(), 0, MissingLines::default());
        for text in texts {
            // The daemon's own lines are exempt: they are few, and explain the others.
            if stream != LogStream::Toolbox && !state.admit(text.len()) {
                state.missing.dropped += 1;
                continue;
            }
            let missing = std::mem::take(&mut state.missing);
            lines.extend(missing.describe().map(|text| LogLine { at, stream: LogStream::Toolbox, text }));
            reported.add(missing);
            lines.push(LogLine { at, stream, text });
            count += 1;
        }
        let serialised: Vec<Vec<u8>> = lines.iter().filter_map(serialise).collect();
        if let Err(error) = state.segments.append(&serialised, at) {
            if reported.failed == 0 {
                tracing::warn!(%error, "failed to write the log of an instance");
            }
            // The lines about missing lines were not written either.
            state.missing.add(MissingLines { dropped: 0, failed: count });
            state.missing.add(reported);
        }
        if state.expired_at.elapsed() >= EXPIRE_INTERVAL {
            state.expired_at = Instant::now();
            if let Err(error) = state.segments.expire(at) {
                tracing::warn!(%error, "failed to delete old lines of the log of an instance");
            }
        }
        for line in lines {
            // Fails if there are no followers.
            let _ = self.followers.send(line);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether a line is within the rate limit.
    fn admit(&mut self, bytes: usize) -> bool {
        let now = Instant::now();
        self.lines.has(1, now) && self.bytes.has(bytes, now) && {
            self.lines.take(1);
            self.bytes.take(bytes);
            true
        }
    }
}

/// The numbers of lines that have been lost since the last written line.
#[derive(Debug, Default, Clone, Copy)]
struct MissingLines {
    /// The lines that exceeded the rate limit.
    dropped: u64,
    /// The lines that could not be written.
    failed: u64,
}

impl MissingLines {
    fn add(&mut self, other: Self) {
        self.dropped += other.dropped;
        self.failed += other.failed;
    }

    /// Returns a line that reports the missing lines; `None` if there are none.
    fn describe(self) -> Option<String> {
        let reason = match (self.dropped, self.failed) {
            (0, 0) => return None,
            (_, 0) => "because the server writes too fast",
            (0, _) => "because the disk could not be written",
            _ => "because of their rate or the disk",
        };
        Some(match self.dropped + self.failed {
            1 => format!("1 line is missing here {reason}"),
            count => format!("{count} lines are missing here {reason}"),
        })
    }
}

fn serialise(line: &LogLine) -> Option<Vec<u8>> {
    let mut bytes = serde_json::to_vec(line).ok()?;
    bytes.push(b'\n');
    Some(bytes)
}

/// A token bucket that holds at most the tokens for ten seconds.
pub(crate) struct Bucket {
    rate: f64,
    tokens: f64,
    updated: Instant,
}

impl Bucket {
    pub(crate) fn new(rate: u32) -> Self {
        Self { rate: f64::from(rate), tokens: f64::from(rate) * 10.0, updated: Instant::now() }
    }

    #[expect(clippy::cast_precision_loss, reason = "an approximation is sufficient")]
    fn has(&mut self, tokens: usize, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.updated).as_secs_f64();
        self.updated = now;
        self.tokens = (self.tokens + elapsed * self.rate).min(self.rate * 10.0);
        self.tokens >= tokens as f64
    }

    #[expect(clippy::cast_precision_loss, reason = "an approximation is sufficient")]
    pub(crate) fn take(&mut self, tokens: usize) {
        self.tokens -= tokens as f64;
    }

    /// Returns the time after which the bucket is no longer overdrawn. Returns `None` if it is not overdrawn.
    pub(crate) fn delay(&mut self, now: Instant) -> Option<Duration> {
        (!self.has(0, now)).then(|| Duration::from_secs_f64(-self.tokens / self.rate))
    }
}

#[cfg(test)]
mod tests;
