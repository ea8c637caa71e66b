//! The state that the requests of one connection share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use tokio::runtime::Handle;
use waypost_mcp_wire::memory::MemoryShare;
use waypost_mcp_wire::relay::RequestMeta;
use waypost_mcp_wire::strict::Message;
use waypost_mcp_wire::{ErrorObject, strict};
use waypost_outbound::StreamResponse;

use super::http::{Http, MAX_ERROR_BYTES, Wire, read, status_error};
use super::message::Counters;
use super::sse::SseTransport;
use crate::error::Error;
use crate::options::{ConnectionOptions, Identity, Limits};

/// The timeout of messages that no caller waits for.
const DETACHED_TIMEOUT: Duration = Duration::from_secs(5);

/// The error code with which servers that follow the examples of the TypeScript SDK reject a message with an unknown
/// session. They return the status 400 and an error without an ID, although "Session Management" requires 404.
const SDK_ERROR: i64 = -32_000;

/// The state that the requests of one connection share.
pub(crate) struct Core {
    pub(crate) http: Http,
    pub(crate) identity: Identity,
    pub(crate) capabilities: String,
    pub(crate) meta: RequestMeta,
    pub(crate) accepts_requests: bool,
    pub(crate) limits: Limits,
    pub(crate) memory: MemoryShare,
    pub(crate) counters: Counters,
    /// The stream of HTTP+SSE; `None` for Streamable HTTP.
    pub(crate) sse: Option<SseTransport>,
    next_id: AtomicU64,
}

impl Core {
    pub(crate) fn new(options: ConnectionOptions, sse: Option<SseTransport>, first_id: u64) -> Arc<Self> {
        let ConnectionOptions { url, route, headers, identity, capabilities, memory, .. } = options;
        let meta = super::message::request_meta(&identity, &capabilities);
        Arc::new(Self {
            http: Http { route, url, headers, redirects: options.redirects },
            identity,
            capabilities,
            meta,
            accepts_requests: options.accepts_requests,
            limits: options.limits,
            memory,
            counters: Counters::default(),
            sse,
            next_id: AtomicU64::new(first_id),
        })
    }

    /// Returns an ID that no other request of this connection has.
    pub(crate) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Sends a notification or a response, and ignores the body of the HTTP response.
    pub(crate) async fn send(&self, wire: &Wire, body: Vec<u8>) -> Result<(), Error> {
        let response = match &self.sse {
            Some(sse) => sse.post(self, wire.headers(), body, self.limits.of_response()).await?,
            None => self.http.post(None, wire.headers(), body, self.limits.of_response()).await?,
        };
        self.check_status(wire, response).await
    }

    /// Sends a message in the background. If it is lost, the server continues as if it had not been sent.
    pub(crate) fn send_detached(self: &Arc<Self>, wire: &Wire, body: Vec<u8>) {
        // Without a runtime, the process is ending.
        if Handle::try_current().is_ok() {
            let (core, wire) = (self.clone(), wire.clone());
            waypost_jobs::spawn("upstream-message", async move {
                let _ = core.answer(&wire, body).await;
            });
        }
    }

    /// Sends the answer to a request of the server, which may be waiting for it. The timeout is short.
    pub(crate) async fn answer(&self, wire: &Wire, body: Vec<u8>) -> Result<(), Error> {
        tokio::time::timeout(DETACHED_TIMEOUT, self.send(wire, body)).await.map_err(|_| Error::Timeout)?
    }

    /// Reads the rest of a body in the background, so that the HTTP connection can be reused.
    pub(crate) fn finish_detached(mut response: StreamResponse) {
        if Handle::try_current().is_ok() {
            waypost_jobs::spawn("upstream-body", async move {
                let _ = tokio::time::timeout(DETACHED_TIMEOUT, read(&mut response, MAX_ERROR_BYTES)).await;
            });
        }
    }

    /// Reads the HTTP response to a notification or to a JSON-RPC response.
    async fn check_status(&self, wire: &Wire, mut response: StreamResponse) -> Result<(), Error> {
        if response.status.is_success() {
            // The body has no meaning.
            let _ = read(&mut response, MAX_ERROR_BYTES).await;
            return Ok(());
        }
        if let Some(sse) = &self.sse {
            return Err(sse.error(&response));
        }
        match self.read_error(wire, &mut response).await {
            Ok(body) => Err(rpc_error(&body)),
            Err(error) => Err(error),
        }
    }

    /// Reads a response with a status that is not 2xx. Returns its body if it is a JSON-RPC error, which takes precedence
    /// over the status, except for 401, 403 and 429, which determine what the caller does next.
    pub(crate) async fn read_error(&self, wire: &Wire, response: &mut StreamResponse) -> Result<Bytes, Error> {
        let (status, headers) = (response.status, std::mem::take(&mut response.headers));
        if status == StatusCode::NOT_FOUND && wire.has_session() {
            return Err(Error::SessionLost);
        }
        let error = status_error(status, &headers);
        if !status.is_client_error() || matches!(status.as_u16(), 401 | 403 | 429) {
            return Err(error);
        }
        let body = read(response, MAX_ERROR_BYTES).await.unwrap_or_default();
        match Message::read(&body).ok().and_then(|message| Some((message.id(), message.error?.code))) {
            Some((None, SDK_ERROR)) if status == StatusCode::BAD_REQUEST && wire.has_session() => {
                Err(Error::SessionLost)
            }
            Some(_) => Ok(body),
            None => Err(error),
        }
    }
}

/// Returns the error of an error response.
pub(crate) fn rpc_error(body: &[u8]) -> Error {
    let error = Message::read(body).ok().and_then(|message| message.error);
    error.map_or(Error::invalid("the error is malformed"), |strict::ErrorMembers { code, message, .. }| {
        Error::Rpc(ErrorObject { code, message: message.into_owned() })
    })
}
