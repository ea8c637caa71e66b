//! The output of a container, as lines with secrets masked.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use waypost_toolbox_proto::http::LogStream;

use super::Sink;
use super::servers::LogSink;
use crate::engine::{Output, OutputChunk};
use crate::logs::mask_text;

/// The maximum length of a line in bytes.
const MAX_LINE: usize = 16 * 1024;
/// The maximum number of lines of standard error that the error of a deployment quotes.
const TAIL: usize = 10;
/// The maximum number of lines that are withheld until the secrets are known.
const MAX_WITHHELD: usize = 200;

/// The log of a container. Secrets are masked before a line is passed on or stored.
pub(super) struct ContainerLog {
    instance_id: String,
    sink: Arc<dyn Sink>,
    state: Mutex<State>,
}

struct State {
    container_id: String,
    /// The secrets; `None` while they are unknown, for example after a restart of the daemon. Lines are withheld in the
    /// meantime.
    masks: Option<Vec<String>>,
    withheld: VecDeque<(LogStream, String)>,
    tail: VecDeque<String>,
}

impl ContainerLog {
    /// Creates the log of a container.
    pub(super) fn new(instance_id: &str, container_id: &str, sink: Arc<dyn Sink>) -> Arc<Self> {
        let container_id = container_id.to_owned();
        let state = State { container_id, masks: None, withheld: VecDeque::new(), tail: VecDeque::new() };
        Arc::new(Self { instance_id: instance_id.to_owned(), sink, state: Mutex::new(state) })
    }

    /// Sets the ID of the container, which is known only after its start.
    pub(super) fn set_container(&self, container_id: &str) {
        container_id.clone_into(&mut self.lock().container_id);
    }

    /// Sets the secrets, and writes the withheld lines.
    pub(super) fn set_masks<'a>(&self, values: impl Iterator<Item = &'a String>) {
        let withheld = {
            let mut state = self.lock();
            state.masks = Some(values.cloned().collect());
            std::mem::take(&mut state.withheld)
        };
        for (stream, text) in withheld {
            self.line(stream, &text);
        }
    }

    /// Returns the secrets. Empty while they are unknown.
    pub(super) fn masks(&self) -> Vec<String> {
        self.lock().masks.clone().unwrap_or_default()
    }

    /// Returns the text with secrets masked. Empty while the secrets are unknown.
    pub(super) fn mask(&self, text: &str) -> String {
        self.lock().mask(text).unwrap_or_default()
    }

    /// Returns the last lines of standard error.
    pub(super) fn tail(&self) -> Vec<String> {
        self.lock().tail.iter().cloned().collect()
    }

    /// Copies output from the engine to this log until it ends.
    pub(super) async fn copy(&self, mut output: Output) {
        let mut buffers = [Vec::new(), Vec::new()];
        while let Some(Ok(chunk)) = output.next().await {
            match chunk {
                OutputChunk::Stdout(bytes) => self.split(LogStream::Stdout, &bytes, &mut buffers[0]),
                OutputChunk::Stderr(bytes) => self.split(LogStream::Stderr, &bytes, &mut buffers[1]),
            }
        }
    }

    fn split(&self, stream: LogStream, bytes: &[u8], buffer: &mut Vec<u8>) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let is_end = part.ends_with(b"\n");
            // A secret that begins before the limit must be kept completely, so that it is recognised.
            let room = (MAX_LINE + 4 * 1024).saturating_sub(buffer.len());
            buffer.extend_from_slice(&part[..part.len().min(room)]);
            if is_end {
                self.line(stream, String::from_utf8_lossy(buffer).trim_end());
                buffer.clear();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn mask(&self, text: &str) -> Option<String> {
        let masks = self.masks.as_ref()?;
        Some(mask_text(masks, text))
    }
}

impl LogSink for ContainerLog {
    fn line(&self, stream: LogStream, text: &str) {
        // The text is masked before it is truncated, because a part of a secret would not be recognised.
        let (container_id, text) = {
            let mut state = self.lock();
            let Some(mut text) = state.mask(text) else {
                if state.withheld.len() == MAX_WITHHELD {
                    state.withheld.pop_front();
                }
                state.withheld.push_back((stream, text.to_owned()));
                return;
            };
            let end = (0..=MAX_LINE.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
            text.truncate(end.unwrap_or_default());
            if stream == LogStream::Stderr {
                if state.tail.len() == TAIL {
                    state.tail.pop_front();
                }
                state.tail.push_back(text.chars().take(500).collect());
            }
            (state.container_id.clone(), text)
        };
        self.sink.log(&self.instance_id, Some(&container_id), stream, &text);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::FakeSink;
    use super::*;

    fn log(secrets: &[&str]) -> (Arc<ContainerLog>, Arc<FakeSink>) {
        let sink = Arc::<FakeSink>::default();
        let log = ContainerLog::new("ins_1", "con1", Arc::clone(&sink) as _);
        let secrets: Vec<String> = secrets.iter().map(|secret| (*secret).to_owned()).collect();
        log.set_masks(secrets.iter());
        (log, sink)
    }

    fn stderr(parts: &[&[u8]]) -> Output {
        let chunks: Vec<_> =
            parts.iter().map(|part| Ok(OutputChunk::Stderr(bytes::Bytes::copy_from_slice(part)))).collect();
        Box::pin(futures::stream::iter(chunks))
    }

    #[tokio::test]
    async fn secrets_are_masked_also_across_chunks_and_lines() {
        let (log, sink) = log(&["hunter2", "hunter2-long", "-----BEGIN-----\nabcdefgh\n-----END-----", "ab"]);
        let parts: [&[u8]; 4] = [b"token hun", b"ter2-long, hunter2\nkey:\nabcd", b"efgh\nab\n", b"no line feed"];
        log.copy(stderr(&parts)).await;
        assert_eq!(*sink.lines.lock().unwrap(), ["token [secret], [secret]", "key:", "[secret]", "ab"]);
        assert_eq!(log.tail().len(), 4);
    }

    #[tokio::test]
    async fn a_flood_without_line_feeds_is_truncated() {
        let (log, sink) = log(&["hunter2-hunter2"]);
        let flood = vec![b'x'; MAX_LINE - 4];
        log.copy(stderr(&[&flood, b"hunter2-hunter2", &flood, &flood, b"\nend\n"])).await;
        let lines = sink.lines.lock().unwrap();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].len() <= MAX_LINE && !lines[0].contains("hunter"), "a secret at the limit is masked");
    }

    #[test]
    fn withheld_lines_are_bounded() {
        let sink = Arc::<FakeSink>::default();
        let log = ContainerLog::new("ins_1", "con1", Arc::clone(&sink) as _);
        for index in 0..10 * MAX_WITHHELD {
            log.line(LogStream::Stdout, &format!("line {index} with hunter2"));
        }
        assert!(sink.lines.lock().unwrap().is_empty());
        log.set_masks(["hunter2".to_owned()].iter());
        let lines = sink.lines.lock().unwrap();
        assert_eq!(lines.len(), MAX_WITHHELD);
        assert_eq!(lines[MAX_WITHHELD - 1], "line 1999 with [secret]");
    }
}
