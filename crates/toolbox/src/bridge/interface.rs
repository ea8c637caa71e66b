//! The MCP servers in the containers, as the rest of the daemon sees them.

use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use waypost_toolbox_proto::Transport;
use waypost_toolbox_proto::http::LogStream;

use crate::engine::Attached;
use crate::logs::ContainerLog;

/// The messages that answer a call; the last one is the response. Dropping the stream cancels the call.
pub type Messages = Pin<Box<dyn Stream<Item = Result<Bytes, CallFailure>> + Send>>;

/// How a server is reached.
pub enum Target {
    /// Through standard input and output of its container.
    Stdio(Attached),
    /// Over HTTP, inside the network namespace of its container.
    Http {
        /// The network namespace: `/proc/PID/ns/net`.
        namespace: PathBuf,
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

impl LogSink for ContainerLog {
    fn line(&self, stream: LogStream, text: &str) {
        self.line(stream, text);
    }
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
    /// The server exited because its first request was not `initialize`. This is stored, so the handshake with the next
    /// container of the instance begins with `initialize`: the container must be started once more.
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

/// The cause of a failure inside the bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// Too many calls, or too much data, wait.
    Busy,
    /// The message is too large.
    TooLarge,
    /// The server did not answer in time.
    Timeout,
    /// The connection was closed.
    Closed(String),
    /// No connection could be opened.
    Refused(String),
    /// The server no longer knows the session.
    SessionLost,
    /// The server answered with an HTTP status other than 2xx, without a JSON-RPC message.
    Status(u16),
    /// The server answered with something other than MCP.
    NotMcp(String),
    /// The session could not be saved.
    Storage(String),
}

impl From<Failure> for CallFailure {
    fn from(failure: Failure) -> Self {
        let max = waypost_toolbox_proto::http::MAX_MESSAGE_BYTES / (1024 * 1024);
        match failure {
            Failure::Busy => Self::new(429, "Too many calls are waiting for this server. Try again later."),
            Failure::TooLarge => Self::new(413, format!("The message is larger than {max} MiB.")),
            Failure::Timeout => Self::new(504, "The server did not answer in time."),
            Failure::Closed(cause) => Self::new(502, format!("The connection to the server was closed: {cause}.")),
            Failure::Refused(cause) => Self::new(503, format!("The server cannot be reached: {cause}.")),
            Failure::SessionLost => Self::new(502, "The server ended the session."),
            Failure::Status(status) => Self::new(502, format!("The server answered with HTTP status {status}.")),
            Failure::NotMcp(cause) => Self::new(502, format!("The server did not answer with MCP: {cause}.")),
            Failure::Storage(cause) => Self::new(503, format!("The session could not be saved: {cause}.")),
        }
    }
}
