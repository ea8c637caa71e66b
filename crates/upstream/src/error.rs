//! Errors of requests to an MCP server.

use std::borrow::Cow;

use http::StatusCode;
use waypost_mcp_wire::ErrorObject;
use waypost_mcp_wire::memory::OutOfMemory;

/// The reason why a request has no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server cannot be reached, or its response exceeds a limit.
    #[error(transparent)]
    Transport(#[from] waypost_outbound::Error),
    /// The response was not complete in time.
    #[error("the server did not respond in time")]
    Timeout,
    /// A message is too large.
    #[error("the server sent a message of more than {limit} bytes")]
    MessageTooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// There is not enough memory for a message.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
    /// A response has too many messages.
    #[error("the server sent more than {limit} messages before its response")]
    TooManyMessages {
        /// The limit.
        limit: usize,
    },
    /// The server returned an HTTP status other than 2xx. A JSON-RPC error in a 4xx response is a response instead,
    /// except for 401, 403 and 429.
    #[error("HTTP {status}")]
    Status {
        /// The status.
        status: StatusCode,
        /// The seconds in `Retry-After`; `None` if it is missing or a date.
        retry_after: Option<u32>,
        /// The challenges in all `WWW-Authenticate` headers, separated by commas.
        challenge: Option<String>,
    },
    /// The response is neither JSON nor a stream of events, or programs could disagree about it
    /// ([`waypost_mcp_wire::media_type`]).
    #[error("unexpected content type")]
    ContentType {
        /// The content type that was received.
        content_type: Option<String>,
    },
    /// The server returned a JSON-RPC error.
    #[error("{}", .0.message)]
    Rpc(ErrorObject),
    /// The response is not a valid response to the request, or a message of the server is ambiguous
    /// ([`waypost_mcp_wire::strict`]).
    #[error("{0}")]
    InvalidResponse(Cow<'static, str>),
    /// The request cannot be sent.
    #[error("{0}")]
    InvalidRequest(&'static str),
    /// The server supports no revision that this client supports.
    #[error("the server supports no common protocol revision")]
    UnsupportedRevision,
    /// The server has ended the session, and a new one could not be used either.
    #[error("the server ended the session")]
    SessionLost,
}

impl Error {
    /// Returns an [`Error::InvalidResponse`].
    pub(crate) fn invalid(text: &'static str) -> Self {
        Self::InvalidResponse(Cow::Borrowed(text))
    }
}
