//! The HTTP/2 settings of both ends.
//!
//! Each stream has its own flow-control window. The window of the connection is large enough for all streams together,
//! so that streams whose readers stop reading never block the others.

use bytes::Bytes;
use h2::{client, server};
use tokio::io::{AsyncRead, AsyncWrite};

/// The maximum number of concurrent requests on a link.
pub const MAX_STREAMS: u32 = 512;
/// The number of bytes that a sender may send on a stream before the receiver has read them.
const WINDOW: u32 = 128 * 1024;
/// The window of the connection: those of all requests, and that of the control stream.
const CONNECTION_WINDOW: u32 = (MAX_STREAMS + 1) * WINDOW;
const MAX_HEADERS: u32 = 16 * 1024;
/// The maximum number of bytes that a stream buffers for sending.
const SEND_BUFFER: usize = 128 * 1024;

/// The overhead in bytes of unread small frames, such as log lines, above which the connection is closed. About 200
/// clients that follow a log and stop reading stay below this limit; the default is half of it.
const FRAME_BUDGET: usize = CONNECTION_WINDOW as usize;

/// Starts HTTP/2 at the control plane's end, which sends the requests. The connection must be polled.
///
/// # Errors
/// Returns an error if the connection fails.
pub async fn client<T: AsyncRead + AsyncWrite + Unpin>(
    socket: T,
) -> Result<(client::SendRequest<Bytes>, client::Connection<T>), h2::Error> {
    client::Builder::new()
        .enable_push(false)
        .initial_window_size(WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .data_frame_budget(FRAME_BUDGET)
        .max_header_list_size(MAX_HEADERS)
        .max_send_buffer_size(SEND_BUFFER)
        .handshake(socket)
        .await
}

/// Starts HTTP/2 at the daemon's end, which answers the requests.
///
/// # Errors
/// Returns an error if the connection fails.
pub async fn server<T: AsyncRead + AsyncWrite + Unpin>(socket: T) -> Result<server::Connection<T, Bytes>, h2::Error> {
    server::Builder::new()
        .max_concurrent_streams(MAX_STREAMS + 1)
        .initial_window_size(WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEADERS)
        .max_send_buffer_size(SEND_BUFFER)
        .handshake(socket)
        .await
}
