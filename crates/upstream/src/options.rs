//! Options of a connection.

use std::fmt;
use std::time::Duration;

use http::HeaderMap;
use serde::Serialize;
use url::Url;
use waypost_mcp_wire::memory::MemoryShare;
use waypost_outbound::{Route, StreamLimits};

/// The name and version that the client sends.
#[derive(Debug, Clone, Serialize)]
pub struct Identity {
    /// The name.
    pub name: &'static str,
    /// The version.
    pub version: &'static str,
}

/// The revisions and transports that are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// 2026-07-28, then the handshake over Streamable HTTP, then HTTP+SSE of 2024-11-05.
    #[default]
    Any,
    /// 2026-07-28, then the handshake over Streamable HTTP.
    StreamableHttp,
    /// Only 2026-07-28.
    Modern,
    /// Only the handshake over Streamable HTTP.
    Legacy,
    /// Only HTTP+SSE of 2024-11-05.
    Sse,
}

/// The redirects of messages that are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Redirects {
    /// None.
    #[default]
    Never,
    /// Those to the same host that keep the method, up to three.
    SameHost,
}

/// Limits of each request and its response.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The maximum size of a message in bytes.
    pub max_message_bytes: usize,
    /// The maximum size of all messages of a response in bytes.
    pub max_response_bytes: usize,
    /// The maximum number of messages of a response.
    pub max_messages: usize,
    /// The maximum time between two parts of a response.
    pub idle: Duration,
    /// The maximum time until the response is complete.
    pub timeout: Duration,
    /// The maximum duration of the first request, which a server of an older revision may never answer.
    pub discover_timeout: Duration,
}

impl Default for Limits {
    /// Returns 16 MiB per message, 64 MiB and 10,000 messages per response, 30 s, and 10 s for the first request.
    fn default() -> Self {
        Self {
            max_message_bytes: 16 * 1024 * 1024,
            max_response_bytes: 64 * 1024 * 1024,
            max_messages: 10_000,
            idle: Duration::from_secs(30),
            timeout: Duration::from_secs(30),
            discover_timeout: Duration::from_secs(10),
        }
    }
}

impl Limits {
    /// Returns the limits of an HTTP response.
    pub(crate) fn of_response(&self) -> StreamLimits {
        StreamLimits { max_bytes: self.max_response_bytes, idle: self.idle, timeout: self.timeout }
    }
}

/// Options of a [`Connection`](crate::Connection).
#[derive(Clone)]
pub struct ConnectionOptions {
    /// The MCP URL of the server, which may be a secret.
    pub url: Url,
    /// The addresses that may be reached.
    pub route: Route,
    /// Headers of every request, such as credentials. They cannot replace the headers of the protocol.
    pub headers: HeaderMap,
    /// The client's description of itself.
    pub identity: Identity,
    /// The client's capabilities, as JSON text. Requests that declare their own (2026-07-28) keep them.
    pub capabilities: String,
    /// Whether requests of a server, except `ping`, are passed to the caller, who answers them with
    /// [`Connection::respond`](crate::Connection::respond). Otherwise, they are answered with "method not found".
    pub accepts_requests: bool,
    /// The revisions and transports that are tried.
    pub protocol: Protocol,
    /// The redirects that are followed.
    pub redirects: Redirects,
    /// The limits of each request.
    pub limits: Limits,
    /// The memory for large messages of the server.
    pub memory: MemoryShare,
}

/// Omits the URL and the headers, which can contain secrets.
impl fmt::Debug for ConnectionOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionOptions").field("identity", &self.identity).finish_non_exhaustive()
    }
}
