//! Bodies of requests and responses.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use h2::{RecvStream, SendStream};

/// Why a body is incomplete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The sender cancelled the stream, or the connection was lost.
    #[error("The connection to the toolbox was lost, or the call was cancelled.")]
    Interrupted,
    /// The body exceeds the limit.
    #[error("The body is too large.")]
    TooLarge,
}

/// A body that is read chunk by chunk. The sender can be ahead of the reader by at most the flow-control window of the
/// stream. Dropping a body that has not been read completely cancels the stream.
pub struct Body(Source);

/// The source of the chunks.
enum Source {
    /// A stream of the link.
    Link(RecvStream),
    /// Another replica, which holds the link.
    Replica(Pin<Box<dyn Stream<Item = Result<Bytes, BodyError>> + Send>>),
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").finish_non_exhaustive()
    }
}

impl Body {
    /// Wraps the receiving half of a stream.
    #[must_use]
    pub fn new(stream: RecvStream) -> Self {
        Self(Source::Link(stream))
    }

    /// Wraps chunks that another replica forwards. Dropping the stream must cancel the request.
    #[must_use]
    pub fn forwarded(chunks: impl Stream<Item = Result<Bytes, BodyError>> + Send + 'static) -> Self {
        Self(Source::Replica(Box::pin(chunks)))
    }

    /// Returns the next chunk; `None` at the end. Cancel-safe.
    ///
    /// # Errors
    /// Returns [`BodyError::Interrupted`] if the sender cancelled the stream, or the connection was lost.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        self.next().await.transpose()
    }

    /// Reads the complete body.
    ///
    /// # Errors
    /// Returns [`BodyError::TooLarge`] if the body has more than `limit` bytes, or [`BodyError::Interrupted`].
    pub async fn read_to_end(mut self, limit: usize) -> Result<Bytes, BodyError> {
        let mut complete = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            if complete.len() + chunk.len() > limit {
                return Err(BodyError::TooLarge);
            }
            complete.extend_from_slice(&chunk);
        }
        Ok(complete.freeze())
    }
}

impl Stream for Body {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let stream = match &mut self.0 {
            Source::Link(stream) => stream,
            Source::Replica(chunks) => return chunks.as_mut().poll_next(cx),
        };
        let Some(chunk) = ready!(stream.poll_data(cx)) else {
            return Poll::Ready(None);
        };
        Poll::Ready(Some(chunk.map_err(|_| BodyError::Interrupted).inspect(|chunk| {
            // Fails only if the stream has ended.
            let _ = stream.flow_control().release_capacity(chunk.len());
        })))
    }
}

/// Sends `bytes` as fast as the receiver reads them.
///
/// # Errors
/// Returns [`BodyError::Interrupted`] if the receiver cancelled the stream, or the connection was lost.
pub async fn send(stream: &mut SendStream<Bytes>, mut bytes: Bytes) -> Result<(), BodyError> {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let capacity = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        let capacity = capacity.and_then(Result::ok).ok_or(BodyError::Interrupted)?;
        let chunk = bytes.split_to(capacity.min(bytes.len()));
        stream.send_data(chunk, false).map_err(|_| BodyError::Interrupted)?;
    }
    Ok(())
}
