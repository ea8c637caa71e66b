//! The interface of the bridge for the supervisor.

use crate::supervisor::servers::CallFailure;

/// The cause of a failure inside the bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// Too many calls, or too much data, are waiting.
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
