//! The connection to one server.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use url::Url;
use waypost_mcp_wire::revision::{
    LEGACY, META_CLIENT_CAPABILITIES, META_CLIENT_INFO, META_PROTOCOL_VERSION, METHOD_HEADER, MODERN, NAME_HEADER,
    NEWEST_LEGACY, SESSION_HEADER, VERSION_HEADER, header_value,
};
use waypost_mcp_wire::{JsonRpcError, METHOD_NOT_FOUND, RequestId};
use waypost_outbound::{Route, StreamLimits};

use crate::error::Error;
use crate::transport::{Reply, ServerRequest, Transport};

/// Timeout of the first request: a legacy server may not respond to it at all.
const DISCOVER_TIMEOUT: Duration = Duration::from_secs(10);
/// The error codes that only a modern server returns: a header that does not match, and a missing
/// capability (2026-07-28, "Errors").
const MODERN_ERRORS: [i64; 2] = [-32_020, -32_021];

/// The name and version that the client sends.
#[derive(Debug, Clone, Serialize)]
pub struct Identity {
    /// The name.
    pub name: &'static str,
    /// The version.
    pub version: &'static str,
}

/// Options of a connection.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// The MCP URL of the server.
    pub url: Url,
    /// The addresses that may be reached.
    pub route: Route,
    /// The client's description of itself.
    pub identity: Identity,
    /// The limits of each request. `max_bytes` limits a JSON response, or all events before and including the response.
    pub limits: StreamLimits,
}

/// A connection to a server.
#[derive(Debug)]
pub struct Client {
    transport: Transport,
    identity: Identity,
    limits: StreamLimits,
    era: Era,
    next_id: AtomicU64,
}

/// The kind of revision that a server supports.
#[derive(Debug, Clone)]
enum Era {
    /// 2026-07-28: every request is independent.
    Modern,
    /// The handshake has not been completed.
    Connecting,
    /// The negotiated revision, and the session if the server has sessions.
    Legacy { revision: HeaderValue, session: Option<HeaderValue> },
}

#[derive(Serialize)]
struct Message<'a> {
    jsonrpc: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a RequestId>,
    method: &'a str,
    #[serde(skip_serializing_if = "Map::is_empty")]
    params: Map<String, Value>,
}

impl Client {
    /// Connects to a server: with 2026-07-28 if the server supports it, otherwise with the handshake of older
    /// revisions.
    ///
    /// # Errors
    /// Any [`Error`] of the last attempt.
    pub async fn connect(options: ConnectOptions) -> Result<Self, Error> {
        let ConnectOptions { url, route, identity, limits } = options;
        let transport = Transport { route, url };
        let mut client = Self { transport, identity, limits, era: Era::Modern, next_id: AtomicU64::new(1) };
        match client.discover().await {
            Ok(true) => return Ok(client),
            Ok(false) => {}
            Err(error) if may_be_legacy(&error) => {}
            Err(error) => return Err(error),
        }
        client.era = client.initialize().await?;
        client.notify("notifications/initialized").await?;
        Ok(client)
    }

    /// Sends a request and returns the `result` of its response as received.
    ///
    /// # Errors
    /// Any [`Error`]. A tool that fails is not an error here.
    pub async fn request(&self, method: &str, params: Map<String, Value>) -> Result<Box<RawValue>, Error> {
        Ok(self.call(method, params, self.limits).await?.result)
    }

    /// Ends the session, if there is one.
    ///
    /// # Errors
    /// [`Error::Transport`] if the server cannot be reached. The server may refuse to end a session, which is not an
    /// error.
    pub async fn close(self) -> Result<(), Error> {
        match &self.era {
            Era::Legacy { session: Some(_), .. } => self.transport.delete(self.headers(), self.limits).await,
            _ => Ok(()),
        }
    }

    /// Whether the server supports 2026-07-28. `false` if it supports discovery, but only older revisions.
    async fn discover(&self) -> Result<bool, Error> {
        #[derive(Deserialize)]
        struct DiscoverResult {
            #[serde(rename = "supportedVersions")]
            supported_versions: Vec<String>,
        }
        let limits = StreamLimits { timeout: self.limits.timeout.min(DISCOVER_TIMEOUT), ..self.limits };
        let reply = self.call("server/discover", Map::new(), limits).await?;
        let discovered: DiscoverResult = serde_json::from_str(reply.result.get())
            .map_err(|_| Error::InvalidResponse("the result of server/discover is malformed"))?;
        Ok(discovered.supported_versions.iter().any(|version| version == MODERN))
    }

    async fn initialize(&mut self) -> Result<Era, Error> {
        #[derive(Deserialize)]
        struct InitializeResult {
            #[serde(rename = "protocolVersion")]
            protocol_version: String,
        }
        self.era = Era::Connecting;
        let params = [
            ("protocolVersion", NEWEST_LEGACY.into()),
            ("capabilities", json!({})),
            ("clientInfo", json!(self.identity)),
        ];
        let params = params.map(|(name, value)| (name.to_owned(), value)).into_iter().collect();
        let Reply { headers, result } = self.call("initialize", params, self.limits).await?;
        let initialized: InitializeResult = serde_json::from_str(result.get())
            .map_err(|_| Error::InvalidResponse("the result of initialize is malformed"))?;
        let revision = LEGACY.iter().copied().find(|known| *known == initialized.protocol_version);
        let revision = HeaderValue::from_static(revision.ok_or(Error::UnsupportedRevision)?);
        Ok(Era::Legacy { revision, session: headers.get(SESSION_HEADER).cloned() })
    }

    async fn call(&self, method: &str, mut params: Map<String, Value>, limits: StreamLimits) -> Result<Reply, Error> {
        let id = RequestId::from(self.next_id.fetch_add(1, Ordering::Relaxed));
        let mut headers = self.headers();
        if matches!(self.era, Era::Modern) {
            headers.insert(METHOD_HEADER, encoded(method)?);
            if let Some(name) = params.get("name").or_else(|| params.get("uri")).and_then(Value::as_str) {
                headers.insert(NAME_HEADER, encoded(name)?);
            }
            let meta = json!({
                META_PROTOCOL_VERSION: MODERN,
                META_CLIENT_INFO: self.identity,
                META_CLIENT_CAPABILITIES: {},
            });
            params.insert("_meta".to_owned(), meta);
        }
        let body = serialize(&Message { jsonrpc: "2.0", id: Some(&id), method, params })?;
        let answer = async |request| self.answer(request).await;
        self.transport.request(headers, &id, body, limits, answer).await
    }

    async fn notify(&self, method: &str) -> Result<(), Error> {
        let body = serialize(&Message { jsonrpc: "2.0", id: None, method, params: Map::new() })?;
        self.transport.send(self.headers(), body, self.limits).await
    }

    /// Answers a request of a legacy server, which may wait for the answer. This client declares no capabilities, so
    /// only `ping` has a result.
    async fn answer(&self, request: ServerRequest) {
        let id = request.id;
        let response = match request.method.as_str() {
            "ping" => json!({ "jsonrpc": "2.0", "id": id, "result": {} }),
            _ => JsonRpcError::new(METHOD_NOT_FOUND, "Method not found.", Some(id)).to_json(),
        };
        // If the answer is lost, the response to the client's own request shows whether the server continues.
        let _ = self.transport.send(self.headers(), response.to_string().into_bytes(), self.limits).await;
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        match &self.era {
            Era::Connecting => {}
            Era::Modern => {
                headers.insert(VERSION_HEADER, HeaderValue::from_static(MODERN));
            }
            Era::Legacy { revision, session } => {
                headers.insert(VERSION_HEADER, revision.clone());
                let session = session.clone().map(|session| (HeaderName::from_static(SESSION_HEADER), session));
                headers.extend(session);
            }
        }
        headers
    }
}

/// Whether a server that rejected the first request like this may support the handshake.
fn may_be_legacy(error: &Error) -> bool {
    match error {
        Error::Rpc(error) => !MODERN_ERRORS.contains(&error.code),
        Error::Status { status, .. } => !matches!(status.as_u16(), 300..=399 | 401 | 403 | 429),
        Error::Transport(error) => matches!(error, waypost_outbound::Error::Timeout { .. }),
        Error::ContentType { .. } | Error::InvalidResponse(_) | Error::UnsupportedRevision => true,
        Error::InvalidRequest(_) => false,
    }
}

fn encoded(value: &str) -> Result<HeaderValue, Error> {
    HeaderValue::try_from(header_value(value)).map_err(|_| Error::InvalidRequest("a name is not a header value"))
}

fn serialize(message: &Message<'_>) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(message).map_err(|_| Error::InvalidRequest("the request cannot be serialised"))
}
