//! The supervisor's interface to the MCP servers in the containers.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use http::{HeaderMap, HeaderValue};
use tokio::sync::OwnedSemaphorePermit;
use waypost_mcp_wire::client_capabilities::ClientCapabilities;
use waypost_mcp_wire::log_level::LogLevel;
use waypost_mcp_wire::rewrite::quote;
use waypost_toolbox_proto::Transport;
use waypost_toolbox_proto::http::{
    CAPABILITIES_HEADER, CONTAINER_KEY_HEADER, LOG_LEVEL_HEADER, LogStream, NotificationsOpened,
    SECRETS_VERSION_HEADER, TIMEOUT_HEADER,
};

use super::forwarded_headers::ForwardedHeaders;
use crate::engine::{Attached, NetworkNamespace};

/// The default timeout of a call, and the longest one that a call can request.
const TIMEOUT: Duration = Duration::from_secs(30);
const MAX_TIMEOUT: Duration = Duration::from_secs(600);

/// A boxed future.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The messages that answer a call; the last one is the response. Dropping the stream cancels the call.
pub type Messages = Pin<Box<dyn Stream<Item = Result<Bytes, CallFailure>> + Send>>;

/// A stream of the announcements that a server makes outside of calls. Dropping it closes the stream.
pub struct Notifications {
    /// The resources whose changes the server announces.
    pub opened: NotificationsOpened,
    /// The notifications, each of which is a JSON-RPC message in one line.
    pub messages: Pin<Box<dyn Stream<Item = Bytes> + Send>>,
}

/// The way in which a server is reached.
pub enum Target {
    /// Through standard input and output of its container.
    Stdio(Attached),
    /// Over HTTP, inside the network namespace of its container.
    Http {
        /// The network namespace. It is opened once for the container, so it cannot belong to another process with a
        /// reused ID.
        namespace: NetworkNamespace,
        /// The port.
        port: u16,
        /// The path, such as `/mcp`.
        path: String,
        /// [`Transport::StreamableHttp`] or [`Transport::Sse`].
        transport: Transport,
    },
}

/// The context of a connection.
#[derive(Clone)]
pub struct ConnectContext {
    /// The ID of the instance.
    pub instance_id: String,
    /// The ID of the container.
    pub container_id: String,
    /// The folder for the saved session (`session-CONTAINER.json`), so that `initialize` is not repeated on a running
    /// container. It must exist.
    pub folder: PathBuf,
    /// Whether different callers share the container.
    pub is_shared: bool,
    /// The values of the container's secrets, which must not appear in errors.
    pub masks: Vec<String>,
    /// The log of the container, which masks the secrets itself.
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
    /// Appends a line without its line feed. A line that is longer than 16 KiB is truncated.
    fn line(&self, stream: LogStream, text: &str);
}

/// Connects to MCP servers. Implemented by the bridge; tests replace it.
pub trait Servers: Send + Sync + 'static {
    /// Connects to a server: continues the saved session of the container, or completes the MCP handshake and saves the
    /// session. Waits until the server accepts connections. The caller must apply a timeout.
    fn connect(
        &self,
        target: Target,
        context: ConnectContext,
    ) -> impl Future<Output = Result<Arc<dyn ServerSession>, ConnectError>> + Send;

    /// Sends the response of a caller to a server of an instance, whose request was among the messages of a call. Fails
    /// with 404 if the request is no longer waiting.
    fn respond<'a>(&'a self, instance_id: &'a str, response: &'a [u8]) -> BoxFuture<'a, Result<(), CallFailure>>;
}

/// The options of a message to send.
#[derive(Debug, Clone)]
pub struct CallOptions {
    /// The time after which the call fails. The time in which the server waits for answers from the caller does not
    /// count.
    pub timeout: Duration,
    /// The key that identifies the caller, and its container if the instance has one per agent or session. `None` if it
    /// is unknown.
    pub caller: Option<Arc<str>>,
    /// The minimum version of the personal secrets that the container must have. 0 accepts any.
    pub personal_version: u64,
    /// The requests that a server with a handshake may send to the caller during the call.
    pub capabilities: ClientCapabilities,
    /// The lowest level of the log messages that the caller wants.
    pub log_level: Option<LogLevel>,
    /// Headers from the caller that a server with an HTTP transport receives with the message.
    pub forwarded: ForwardedHeaders,
    /// The place of the call among the running calls. It is released while the caller is asked.
    pub slot: CallSlot,
}

impl CallOptions {
    /// Reads the options of a call from the headers of its request (see [`waypost_toolbox_proto::http`]). Headers that
    /// cannot be parsed are treated as missing.
    #[must_use]
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let header = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let timeout = header(TIMEOUT_HEADER).and_then(|text| text.parse().ok()).map(Duration::from_millis);
        Self {
            caller: header(CONTAINER_KEY_HEADER).map(Arc::from),
            personal_version: header(SECRETS_VERSION_HEADER).and_then(|text| text.parse().ok()).unwrap_or_default(),
            capabilities: ClientCapabilities::parse(header(CAPABILITIES_HEADER)),
            log_level: header(LOG_LEVEL_HEADER).and_then(|level| LogLevel::parse(Some(&quote(level)))),
            forwarded: ForwardedHeaders::read(headers),
            ..timeout.unwrap_or(TIMEOUT).min(MAX_TIMEOUT).into()
        }
    }
}

impl From<Duration> for CallOptions {
    /// Returns the options of a caller that answers no requests.
    fn from(timeout: Duration) -> Self {
        let (capabilities, forwarded, slot) = Default::default();
        Self { timeout, caller: None, personal_version: 0, capabilities, log_level: None, forwarded, slot }
    }
}

/// The place of a call among the running calls of its instance. All clones share it.
#[derive(Debug, Clone, Default)]
pub struct CallSlot(Arc<Mutex<Option<OwnedSemaphorePermit>>>);

impl CallSlot {
    pub(crate) fn new(permit: OwnedSemaphorePermit) -> Self {
        Self(Arc::new(Mutex::new(Some(permit))))
    }

    /// Lets another call run. The call does not acquire a place again when it continues, so that its server does not
    /// wait for other calls.
    pub fn release(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// An open session with a server. The connection is closed when the last reference is dropped.
pub trait ServerSession: Send + Sync + 'static {
    /// Checks that the server answers (`ping` or `server/discover`), and returns the duration.
    fn probe(&self) -> BoxFuture<'_, Result<Duration, String>>;

    /// Lists the tools, and returns their number.
    fn list_tools(&self) -> BoxFuture<'_, Result<usize, String>>;

    /// Sends a message, and returns the messages that answer it, which can include requests from the server to the
    /// caller. The stream is empty for a notification.
    fn call(&self, message: Bytes, options: CallOptions) -> BoxFuture<'_, Result<Messages, CallFailure>>;

    /// Opens a stream of the server's announcements outside of calls: changed lists, and changes of these resources.
    /// Returns `None` if the server makes no announcements. The default implementation returns `None`. The stream must
    /// not keep the session open.
    fn notifications(
        self: Arc<Self>,
        _resources: BTreeSet<String>,
    ) -> BoxFuture<'static, Result<Option<Notifications>, CallFailure>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Waits until the server closes the connection.
    fn closed(&self) -> BoxFuture<'_, ()>;
}

/// Why a connection failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The server answers, but does not speak MCP.
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
    /// The status: 400, 404, 409, 413, 429, 502, 503 or 504.
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

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use waypost_toolbox_proto::http::FORWARDED_HEADERS_HEADER;

    use super::*;

    #[test]
    fn options_are_read_from_headers() {
        let headers = |headers: &[(&'static str, &'static str)]| {
            let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
            CallOptions::from_headers(&headers.collect())
        };
        let all = headers(&[
            (TIMEOUT_HEADER, "1500"),
            (CONTAINER_KEY_HEADER, "agent:1"),
            (SECRETS_VERSION_HEADER, "7"),
            (CAPABILITIES_HEADER, r#"{"elicitation":{}}"#),
            (LOG_LEVEL_HEADER, "error"),
            (FORWARDED_HEADERS_HEADER, r#"{"x-tenant":"acme","authorization":"other"}"#),
        ]);
        assert_eq!((all.timeout.as_millis(), all.caller.as_deref()), (1_500, Some("agent:1")));
        assert_eq!(all.personal_version, 7);
        assert_eq!(
            (all.capabilities.to_json(), all.log_level),
            (r#"{"elicitation":{}}"#.into(), Some(LogLevel::Error))
        );
        assert_eq!(all.forwarded.to_vec(), [(HeaderName::from_static("x-tenant"), HeaderValue::from_static("acme"))]);
        // An earlier control plane sends only the timeout and the key.
        let none = headers(&[(TIMEOUT_HEADER, "x"), (CAPABILITIES_HEADER, "x"), (LOG_LEVEL_HEADER, "loud\"")]);
        assert_eq!((none.timeout, none.caller, none.log_level), (TIMEOUT, None, None));
        assert!(none.capabilities.is_empty() && none.personal_version == 0 && none.forwarded.to_vec().is_empty());
        assert_eq!(headers(&[(TIMEOUT_HEADER, "9999999")]).timeout, MAX_TIMEOUT);
    }
}
