//! The MCP servers in the containers, as the supervisor sees them.

use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use waypost_toolbox_proto::Transport;
use waypost_toolbox_proto::http::LogStream;

use crate::engine::{Attached, NetworkNamespace};

/// A boxed future.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The messages that answer a call; the last one is the response. Dropping the stream cancels the call.
pub type Messages = Pin<Box<dyn Stream<Item = Result<Bytes, CallFailure>> + Send>>;

/// How a server is reached.
pub enum Target {
    /// Through standard input and output of its container.
    Stdio(Attached),
    /// Over HTTP, inside the network namespace of its container.
    Http {
        /// The network namespace. It was opened once for the container, so it is never that of another process with a reused
        /// ID.
        namespace: NetworkNamespace,
        /// The port.
        port: u16,
        /// The path, such as `/mcp`.
        path: String,
        /// [`Transport::StreamableHttp`] or [`Transport::Sse`].
        transport: Transport,
    },
}

/// What a connection belongs to.
#[derive(Clone)]
pub struct ConnectContext {
    /// The ID of the instance.
    pub instance_id: String,
    /// The ID of the container.
    pub container_id: String,
    /// The folder for the saved session (`session-CONTAINER.json`), so that `initialize` is not repeated on a running
    /// container. It exists.
    pub folder: PathBuf,
    /// The values of the container's secrets, which must not appear in errors.
    pub masks: Vec<String>,
    /// The log of the container. It masks the secrets itself.
    pub log: Arc<dyn LogSink>,
}

impl fmt::Debug for ConnectContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectContext")
            .field("instance_id", &self.instance_id)
            .field("container_id", &self.container_id)
            .finish_non_exhaustive()
    }
}

/// The log of a container.
pub trait LogSink: Send + Sync + 'static {
    /// Appends a line without its line feed. A longer line than 16 KiB is cut.
    fn line(&self, stream: LogStream, text: &str);
}

/// Connects to MCP servers. The bridge implements it; tests replace it.
pub trait Servers: Send + Sync + 'static {
    /// Connects to a server: continues the saved session of the container, or completes the MCP handshake and saves
    /// the session. Waits until the server accepts connections; the caller limits the time.
    fn connect(
        &self,
        target: Target,
        context: ConnectContext,
    ) -> impl Future<Output = Result<Arc<dyn ServerSession>, ConnectError>> + Send;
}

/// An open session with a server. The connection is closed when the last reference is dropped.
pub trait ServerSession: Send + Sync + 'static {
    /// Checks that the server answers (`ping` or `server/discover`), and returns the duration.
    fn probe(&self) -> BoxFuture<'_, Result<Duration, String>>;

    /// Lists the tools, and returns their number.
    fn list_tools(&self) -> BoxFuture<'_, Result<usize, String>>;

    /// Sends a message, and returns the messages that answer it. The stream is empty for a notification.
    fn call(&self, message: Bytes, timeout: Duration) -> BoxFuture<'_, Result<Messages, CallFailure>>;

    /// Waits until the connection is closed by the other side.
    fn closed(&self) -> BoxFuture<'_, ()>;
}

/// Why a connection failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The server answers, but not with MCP.
    #[error("{0}")]
    NotMcp(String),
    /// The connection could not be opened, or was closed.
    #[error("{0}")]
    Closed(String),
    /// The server exited because its first request was not `initialize`. The bridge has stored this, so the handshake
    /// with the next container of the instance begins with `initialize`: the container must be started once more.
    #[error("{0}")]
    Restart(String),
}

/// Why a call failed, as an HTTP status of the link (see [`waypost_toolbox_proto::http`]).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CallFailure {
    /// The status: 404, 409, 413, 429, 502, 503 or 504.
    pub status: u16,
    /// The message for the caller.
    pub message: String,
}

impl CallFailure {
    /// Creates a failure.
    pub fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}
