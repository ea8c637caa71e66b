//! A WebSocket as a byte stream.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures::{Sink, SinkExt, Stream, StreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Interval, MissedTickBehavior, Sleep};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::create_response;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use waypost_toolbox_proto::handshake::{MAX_HANDSHAKE_BYTES, PING_SECONDS};

/// The maximum size of a frame that is sent.
const MAX_SENT: usize = 32 * 1024;
/// The maximum size of a message that is accepted. Larger than [`MAX_SENT`], so that it can grow in a later version.
const MAX_RECEIVED: usize = 64 * 1024;
/// The interval between pings.
const PING: Duration = Duration::from_secs(PING_SECONDS);
/// The connection is closed if nothing is received for this time.
const IDLE: Duration = Duration::from_secs(3 * PING_SECONDS);

/// Returns the WebSocket configuration of both ends, which limits the sizes of messages and buffers.
#[must_use]
pub fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(16 * 1024)
        .write_buffer_size(MAX_SENT)
        .max_write_buffer_size(4 * MAX_SENT)
        .max_message_size(Some(MAX_RECEIVED))
        .max_frame_size(Some(MAX_RECEIVED))
}

/// Returns the response that upgrades a request to a WebSocket (RFC 6455, section 4.2.2); `None` if the request does not ask
/// for one.
#[must_use]
pub fn upgrade_response(request: http::request::Parts) -> Option<http::Response<()>> {
    create_response(&http::Request::from_parts(request, ())).ok()
}

/// Why the handshake on a socket failed.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The peer closed the connection.
    #[error("the peer closed the connection")]
    Closed,
    /// The peer sent something other than a handshake message. The error does not include the content.
    #[error("the peer sent an invalid message")]
    Invalid,
    /// The connection failed.
    #[error("{0}")]
    Connection(#[from] io::Error),
}

/// A WebSocket that carries the handshake, and then a stream of bytes. It must be used by one task only.
///
/// While it is read or written, it sends a ping every 20 seconds, and fails with [`ErrorKind::TimedOut`] if nothing has
/// been received for 60 seconds. This detects connections that broke without being closed.
pub struct Socket<S> {
    inner: WebSocketStream<S>,
    unread: Bytes,
    last_received: Instant,
    ping: Interval,
    is_ping_unsent: bool,
    idle: Pin<Box<Sleep>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// Wraps a connection that has been upgraded, at the end that accepted it.
    pub async fn server(stream: S) -> Self {
        Self::new(WebSocketStream::from_raw_socket(stream, Role::Server, Some(config())).await)
    }

    /// Wraps a WebSocket, which must have been created with [`config`].
    #[must_use]
    pub fn new(inner: WebSocketStream<S>) -> Self {
        let now = Instant::now();
        let mut ping = tokio::time::interval_at(now + PING, PING);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let idle = Box::pin(tokio::time::sleep_until(now + IDLE));
        Self { inner, unread: Bytes::new(), last_received: now, ping, is_ping_unsent: false, idle }
    }

    /// Sends a handshake message.
    ///
    /// # Errors
    /// Returns an error if the connection fails.
    pub async fn send<T: Serialize + Sync>(&mut self, message: &T) -> Result<(), SocketError> {
        let text = serde_json::to_string(message).map_err(|_| SocketError::Invalid)?;
        Ok(self.inner.send(Message::text(text)).await.map_err(into_io)?)
    }

    /// Receives a handshake message. The caller must apply a timeout.
    ///
    /// # Errors
    /// Returns an error if the connection fails or is closed, or the message is too long or not a `T`.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> Result<T, SocketError> {
        loop {
            match self.inner.next().await {
                Some(Ok(Message::Text(text))) if text.len() <= MAX_HANDSHAKE_BYTES => {
                    self.last_received = Instant::now();
                    return serde_json::from_str(&text).map_err(|_| SocketError::Invalid);
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(_))) | None => return Err(SocketError::Closed),
                Some(Ok(_) | Err(Error::Capacity(_) | Error::Utf8(_))) => return Err(SocketError::Invalid),
                Some(Err(error)) => return Err(into_io(error).into()),
            }
        }
    }

    /// Closes the connection. The caller must apply a timeout.
    pub async fn close(mut self) {
        // The connection may already be closed.
        let _ = self.inner.close(None).await;
    }

    /// Sends pings that are due, and fails if nothing has been received for [`IDLE`].
    fn poll_timers(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.ping.poll_tick(cx).is_ready() {
            // If data is still waiting to be sent, a ping would wait behind it.
            if let Poll::Ready(result) = Pin::new(&mut self.inner).poll_ready(cx) {
                result.map_err(into_io)?;
                Pin::new(&mut self.inner).start_send(Message::Ping(Bytes::new())).map_err(into_io)?;
                self.is_ping_unsent = true;
            }
        }
        if self.is_ping_unsent
            && let Poll::Ready(result) = Pin::new(&mut self.inner).poll_flush(cx)
        {
            result.map_err(into_io)?;
            self.is_ping_unsent = false;
        }
        while self.idle.as_mut().poll(cx).is_ready() {
            let deadline = self.last_received + IDLE;
            if deadline <= Instant::now() {
                return Err(io::Error::new(ErrorKind::TimedOut, "nothing was received for too long"));
            }
            self.idle.as_mut().reset(deadline);
        }
        Ok(())
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        loop {
            let Poll::Ready(message) = Pin::new(&mut self.inner).poll_next(cx) else {
                self.poll_timers(cx)?;
                return Poll::Pending;
            };
            self.last_received = Instant::now();
            match message {
                Some(Ok(Message::Binary(bytes))) if bytes.is_empty() => {}
                Some(Ok(Message::Binary(bytes))) => return Poll::Ready(Ok(Some(bytes))),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(None)),
                Some(Ok(_)) => return Poll::Ready(Err(io::Error::new(ErrorKind::InvalidData, "not a binary message"))),
                Some(Err(error)) => return Poll::Ready(Err(into_io(error))),
            }
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: impl FnOnce() -> Bytes) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.inner).poll_ready(cx) {
            Poll::Ready(result) => result.map_err(into_io)?,
            Poll::Pending => {
                self.poll_timers(cx)?;
                return Poll::Pending;
            }
        }
        let bytes = bytes();
        let length = bytes.len();
        Pin::new(&mut self.inner).start_send(Message::Binary(bytes)).map_err(into_io)?;
        Poll::Ready(Ok(length))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Socket<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            let Some(bytes) = ready!(self.poll_message(cx))? else {
                return Poll::Ready(Ok(()));
            };
            self.unread = bytes;
        }
        let length = self.unread.len().min(buffer.remaining());
        buffer.put_slice(&self.unread[..length]);
        self.unread.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_send(cx, || Bytes::copy_from_slice(&bytes[..bytes.len().min(MAX_SENT)]))
    }

    /// Combines the header and the payload of an HTTP/2 frame, which are separate slices, in one WebSocket frame.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, || {
            let total: usize = slices.iter().map(|slice| slice.len()).sum();
            let mut bytes = BytesMut::with_capacity(total.min(MAX_SENT));
            for slice in slices {
                let remaining = MAX_SENT - bytes.len();
                bytes.extend_from_slice(&slice[..slice.len().min(remaining)]);
            }
            bytes.freeze()
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_flush(cx).map_err(into_io);
        if result.is_pending() {
            self.poll_timers(cx)?;
        }
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx).map_err(into_io)
    }
}

fn into_io(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::ConnectionClosed | Error::AlreadyClosed => ErrorKind::BrokenPipe.into(),
        error => io::Error::new(ErrorKind::InvalidData, error),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    async fn pair(capacity: usize) -> (Socket<DuplexStream>, Socket<DuplexStream>) {
        let (client, server) = tokio::io::duplex(capacity);
        let client = WebSocketStream::from_raw_socket(client, Role::Client, Some(config())).await;
        (Socket::new(client), Socket::server(server).await)
    }

    #[tokio::test]
    async fn carries_a_handshake_and_then_bytes_in_both_directions() {
        let (mut client, mut server) = pair(1_000).await;
        client.send(&"hello").await.unwrap();
        assert_eq!(server.receive::<String>().await.unwrap(), "hello");
        let sent: Vec<u8> = (0..300_000_u32).map(|i| i.to_le_bytes()[0]).collect();
        let (mut client_read, mut client_write) = tokio::io::split(client);
        let (mut server_read, mut server_write) = tokio::io::split(server);
        let (mut received, mut echoed) = (vec![0; sent.len()], vec![0; sent.len()]);
        let upload = async {
            client_write.write_all(&sent).await.unwrap();
            client_write.flush().await.unwrap();
        };
        let echo = async {
            server_read.read_exact(&mut received).await.unwrap();
            server_write.write_all(&received).await.unwrap();
            server_write.flush().await.unwrap();
        };
        let download = client_read.read_exact(&mut echoed);
        let ((), (), downloaded) = tokio::join!(upload, echo, download);
        downloaded.unwrap();
        assert_eq!(echoed, sent);
    }

    #[tokio::test]
    async fn the_end_of_the_connection_ends_the_stream() {
        let (mut client, mut server) = pair(1_000).await;
        client.write_all(b"last").await.unwrap();
        let (closed, received) = tokio::join!(client.shutdown(), async {
            let mut received = Vec::new();
            server.read_to_end(&mut received).await.map(|_| received)
        });
        closed.unwrap();
        assert_eq!(received.unwrap(), b"last");
    }

    #[tokio::test]
    async fn rejects_invalid_handshake_messages() {
        for message in [
            Message::text("x".repeat(MAX_HANDSHAKE_BYTES + 1)),
            Message::text("x".repeat(MAX_RECEIVED + 1)),
            Message::text("{}"),
            Message::binary("\"hello\""),
        ] {
            let (mut client, mut server) = pair(1_000_000).await;
            client.inner.send(message.clone()).await.unwrap();
            let error = server.receive::<String>().await.unwrap_err();
            assert!(matches!(error, SocketError::Invalid), "{:.40}: {error}", message.to_string());
        }
    }

    #[tokio::test]
    async fn rejects_text_after_the_handshake() {
        let (mut client, mut server) = pair(1_000).await;
        client.inner.send(Message::text("text")).await.unwrap();
        assert_eq!(server.read_u8().await.unwrap_err().kind(), ErrorKind::InvalidData);
    }

    #[tokio::test(start_paused = true)]
    async fn pings_keep_an_idle_connection_open() {
        let (mut client, mut server) = pair(1_000).await;
        let idle = async { tokio::join!(client.read_u8(), server.read_u8()) };
        assert!(tokio::time::timeout(Duration::from_secs(3_600), idle).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_is_detected() {
        let (mut client, _server) = pair(1_000).await;
        let start = Instant::now();
        assert_eq!(client.read_u8().await.unwrap_err().kind(), ErrorKind::TimedOut);
        assert_eq!(start.elapsed().as_secs(), 60);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_read_is_detected() {
        let (mut client, _server) = pair(1_000).await;
        let start = Instant::now();
        let error = client.write_all(&vec![0; 1_000_000]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert_eq!(start.elapsed().as_secs(), 60);
    }
}
