//! JSON messages on a stream, one per line.

use bytes::{Bytes, BytesMut};
use h2::SendStream;
use serde::Serialize;
use serde::de::DeserializeOwned;
use waypost_toolbox_proto::message::MAX_LINE_BYTES;

use crate::body::{Body, send};

/// Why messages cannot be transferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// The stream was cancelled, or the connection was lost.
    #[error("the stream was interrupted")]
    Interrupted,
    /// The message exceeds [`MAX_LINE_BYTES`].
    #[error("a message is too long")]
    TooLong,
    /// The peer sent a line that is not a message. The error does not include the content, because it may be secret.
    #[error("the peer sent an invalid message")]
    Invalid,
}

/// Receives messages.
#[derive(Debug)]
pub struct LineReader {
    body: Body,
    buffer: BytesMut,
    /// The number of bytes at the start of the buffer that contain no line feed.
    searched: usize,
}

impl LineReader {
    /// Reads messages from `body`.
    #[must_use]
    pub fn new(body: Body) -> Self {
        Self { body, buffer: BytesMut::new(), searched: 0 }
    }

    /// Receives the next message; `None` at the end of the stream. Cancel-safe.
    ///
    /// # Errors
    /// Returns any [`LineError`], after which the stream can no longer be used.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, LineError> {
        loop {
            if let Some(position) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(self.searched + position + 1);
                self.searched = 0;
                return serde_json::from_slice(&line).map(Some).map_err(|_| LineError::Invalid);
            }
            self.searched = self.buffer.len();
            if self.searched > MAX_LINE_BYTES {
                return Err(LineError::TooLong);
            }
            match self.body.chunk().await {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk),
                Ok(None) if self.buffer.is_empty() => return Ok(None),
                Ok(None) => return Err(LineError::Invalid),
                Err(_) => return Err(LineError::Interrupted),
            }
        }
    }
}

/// Sends messages.
#[derive(Debug)]
pub struct LineWriter(SendStream<Bytes>);

impl LineWriter {
    /// Sends messages to `stream`.
    #[must_use]
    pub fn new(stream: SendStream<Bytes>) -> Self {
        Self(stream)
    }

    /// Sends a message. The future must not be dropped before it completes: part of the message may have been sent.
    ///
    /// # Errors
    /// Returns [`LineError::TooLong`], after which the stream can still be used, or [`LineError::Interrupted`].
    pub async fn send<T: Serialize + Sync>(&mut self, message: &T) -> Result<(), LineError> {
        self.send_line(encode(message)?).await
    }

    /// Sends a message that has been encoded by [`encode`]. The future must not be dropped before it completes.
    ///
    /// # Errors
    /// Returns [`LineError::Interrupted`] if the receiver cancelled the stream, or the connection was lost.
    pub async fn send_line(&mut self, line: Bytes) -> Result<(), LineError> {
        send(&mut self.0, line).await.map_err(|_| LineError::Interrupted)
    }
}

/// Encodes a message as a line.
///
/// # Errors
/// Returns [`LineError::TooLong`], or [`LineError::Invalid`] if `message` cannot be serialised as JSON.
pub fn encode<T: Serialize>(message: &T) -> Result<Bytes, LineError> {
    let mut line = serde_json::to_vec(message).map_err(|_| LineError::Invalid)?;
    if line.len() > MAX_LINE_BYTES {
        return Err(LineError::TooLong);
    }
    line.push(b'\n');
    Ok(line.into())
}
