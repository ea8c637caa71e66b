//! Errors of requests to an MCP server.

use http::StatusCode;
use waypost_mcp_wire::ErrorObject;

/// The reason why a request has no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server cannot be reached, or its response exceeds a limit.
    #[error(transparent)]
    Transport(#[from] waypost_outbound::Error),
    /// The server returned an HTTP status other than 2xx. A JSON-RPC error in a 4xx response is returned as
    /// [`Error::Rpc`] instead, except for 401, 403 and 429.
    #[error("HTTP {status}")]
    Status {
        /// The status.
        status: StatusCode,
        /// The seconds in `Retry-After`; `None` if it is missing or a date.
        retry_after: Option<u32>,
    },
    /// The response is neither JSON nor a stream of events.
    #[error("unexpected content type")]
    ContentType {
        /// The content type that was received.
        content_type: Option<String>,
    },
    /// The server returned a JSON-RPC error.
    #[error("{}", .0.message)]
    Rpc(ErrorObject),
    /// The response is not a valid response to the request.
    #[error("{0}")]
    InvalidResponse(&'static str),
    /// The request cannot be sent.
    #[error("{0}")]
    InvalidRequest(&'static str),
    /// The server supports no revision that this client supports.
    #[error("the server supports no common protocol revision")]
    UnsupportedRevision,
}
