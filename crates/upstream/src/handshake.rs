//! Negotiates the protocol revision and the transport.

use std::sync::Arc;

use http::HeaderValue;
use serde::Deserialize;
use serde_json::json;
use waypost_mcp_wire::log_level::LogLevel;
use waypost_mcp_wire::revision::{LEGACY, MODERN, NEWEST_LEGACY};
use waypost_mcp_wire::strict::{MessageKind, OwnedMessage, ResultMembers, text_of};
use waypost_mcp_wire::{HEADER_MISMATCH, MISSING_CAPABILITY, UNSUPPORTED_VERSION};

use crate::error::Error;
use crate::transport::core::{Core, rpc_error};
use crate::transport::exchange::{Exchange, HttpExchange, Source};
use crate::transport::http::Wire;
use crate::transport::message::{CallRequest, Outgoing, message_text};

/// The declarations of a server in its response to `server/discover` or `initialize`. All texts are JSON as received.
#[derive(Debug, Clone)]
pub struct Server {
    /// The negotiated revision.
    pub revision: &'static str,
    /// The complete result.
    pub result: Box<str>,
    /// `capabilities`.
    pub capabilities: Option<Box<str>>,
    /// `instructions`, a JSON string.
    pub instructions: Option<Box<str>>,
}

/// The outcome of the negotiation.
#[derive(Debug)]
pub(crate) struct Negotiated {
    pub(crate) wire: Wire,
    pub(crate) server: Server,
    /// The log level that was requested from a server with a handshake; `None` if none was requested.
    pub(crate) log_level: tokio::sync::Mutex<Option<LogLevel>>,
}

impl Negotiated {
    fn new(wire: Wire, server: Server) -> Self {
        Self { wire, server, log_level: tokio::sync::Mutex::default() }
    }
}

impl Server {
    fn new(revision: &'static str, members: &ResultMembers<'_>) -> Self {
        let text = |raw: Option<&str>| raw.map(Into::into);
        let (capabilities, instructions) = (text(members.capabilities), text(members.instructions));
        Self { revision, result: members.raw.into(), capabilities, instructions }
    }

    /// Whether the server declared a capability.
    #[must_use]
    pub fn has_capability(&self, name: &str) -> bool {
        let capabilities: Option<serde_json::Map<String, serde_json::Value>> =
            self.capabilities.as_deref().and_then(|text| serde_json::from_str(text).ok());
        capabilities.is_some_and(|capabilities| capabilities.contains_key(name))
    }
}

/// Asks the server which revisions it supports. Returns `None` if it supports discovery, but not 2026-07-28.
pub(crate) async fn discover(core: &Arc<Core>) -> Result<Option<Negotiated>, Error> {
    let timeout = core.limits.timeout.min(core.limits.discover_timeout);
    let call = CallRequest { method: "server/discover", timeout: Some(timeout), ..CallRequest::default() };
    let (mut response, _) = ask(core, &call, &Wire::Modern).await?;
    if is_rejected_but_supported(&response) {
        (response, _) = ask(core, &call, &Wire::Modern).await?;
    }
    let response = with_result(response)?;
    let members = result_members(&response)?;
    let versions = members.supported_versions.and_then(|versions| serde_json::from_str::<Vec<String>>(versions).ok());
    let versions = versions.ok_or(Error::invalid("the result of server/discover is malformed"))?;
    let is_modern = versions.iter().any(|version| version == MODERN);
    Ok(is_modern.then(|| Negotiated::new(Wire::Modern, Server::new(MODERN, members))))
}

/// Performs the handshake of older revisions.
pub(crate) async fn initialize(core: &Arc<Core>) -> Result<Negotiated, Error> {
    let params = format!(
        r#"{{"protocolVersion":"{NEWEST_LEGACY}","capabilities":{},"clientInfo":{}}}"#,
        core.capabilities,
        json!(core.identity)
    );
    let call = CallRequest { method: "initialize", params: Some(&params), ..CallRequest::default() };
    let (response, session) = ask(core, &call, &Wire::Connecting).await?;
    let response = with_result(response)?;
    let members = result_members(&response)?;
    let version = text_of(members.protocol_version).ok_or(Error::invalid("the result of initialize is malformed"))?;
    let revision = LEGACY.iter().copied().find(|known| *known == version).ok_or(Error::UnsupportedRevision)?;
    let wire = Wire::Legacy { revision, session };
    core.send(&wire, message_text(None, "notifications/initialized", None).into_bytes()).await?;
    Ok(Negotiated::new(wire, Server::new(revision, members)))
}

/// Whether a server that rejected the first request with this error may support the handshake.
pub(crate) fn may_be_legacy(error: &Error) -> bool {
    match error {
        // Only a modern server returns these (2026-07-28, "Errors").
        Error::Rpc(error) => ![HEADER_MISMATCH, MISSING_CAPABILITY].contains(&error.code),
        Error::Status { status, .. } => !matches!(status.as_u16(), 300..=399 | 401 | 403 | 429),
        Error::Transport(error) => matches!(error, waypost_outbound::Error::Timeout { .. }),
        Error::Timeout | Error::ContentType { .. } | Error::InvalidResponse(_) | Error::UnsupportedRevision => true,
        Error::InvalidRequest(_)
        | Error::MessageTooLarge { .. }
        | Error::OutOfMemory(_)
        | Error::TooManyMessages { .. }
        | Error::SessionLost => false,
    }
}

/// Whether a server that rejected `initialize` with this error may use HTTP+SSE (2025-03-26, "Backwards Compatibility").
pub(crate) fn may_be_sse(error: &Error) -> bool {
    matches!(error, Error::Status { status, .. } if status.is_client_error() && !matches!(status.as_u16(), 401 | 403 | 429))
}

/// Whether a server rejected the revision of a request with an error that lists 2026-07-28 as supported. If so, the client
/// retries once with this revision instead of starting a handshake (2026-07-28, "Versioning").
fn is_rejected_but_supported(response: &OwnedMessage) -> bool {
    #[derive(Deserialize)]
    struct Data {
        supported: Vec<String>,
    }
    let error = response.message().error.as_ref().filter(|error| error.code == UNSUPPORTED_VERSION);
    let data = error.and_then(|error| error.data).and_then(|data| serde_json::from_str::<Data>(data).ok());
    data.is_some_and(|data| data.supported.iter().any(|version| version == MODERN))
}

/// Sends a request of the handshake, and returns its response. Also returns the session ID that the response sets.
async fn ask(
    core: &Arc<Core>,
    call: &CallRequest<'_>,
    wire: &Wire,
) -> Result<(OwnedMessage, Option<HeaderValue>), Error> {
    let outgoing = Outgoing::new(core.next_id(), call, wire, &core.meta)?;
    let (mut exchange, session) = start(core, outgoing, wire).await?;
    Ok((any_response_of(&mut exchange).await?, session))
}

/// Sends a request. Returns the exchange, and the session ID that the response sets.
pub(crate) async fn start(
    core: &Arc<Core>,
    outgoing: Outgoing,
    wire: &Wire,
) -> Result<(Exchange, Option<HeaderValue>), Error> {
    match &core.sse {
        Some(sse) => Ok((Exchange(Source::Sse(Box::pin(sse.open(core, outgoing, wire)).await?)), None)),
        None => {
            let (exchange, session) = HttpExchange::open(core, outgoing, wire).await?;
            Ok((Exchange(Source::Http(Box::new(exchange))), session))
        }
    }
}

/// Waits for the response. Returns it if it has a result, and the error that it contains otherwise.
pub(crate) async fn response_of(exchange: &mut Exchange) -> Result<OwnedMessage, Error> {
    with_result(any_response_of(exchange).await?)
}

/// Waits for the response, which has a result or an error.
async fn any_response_of(exchange: &mut Exchange) -> Result<OwnedMessage, Error> {
    while let Some(message) = exchange.next().await? {
        match message.message().kind {
            MessageKind::Result | MessageKind::Error => return Ok(message),
            MessageKind::Request | MessageKind::Notification => {}
        }
    }
    Err(Error::invalid("the stream ended before the response"))
}

/// Returns the response if it has a result, and the error that it contains otherwise.
fn with_result(response: OwnedMessage) -> Result<OwnedMessage, Error> {
    match response.message().kind {
        MessageKind::Error => Err(rpc_error(response.text())),
        _ => Ok(response),
    }
}

/// Returns the members of the result of a response.
pub(crate) fn result_members(response: &OwnedMessage) -> Result<&ResultMembers<'_>, Error> {
    response.message().result.as_ref().ok_or(Error::invalid("the response has no result"))
}
