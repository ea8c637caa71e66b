//! The handshake with a server, which determines the revision of the protocol.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::time::Instant;
use waypost_mcp_wire::relay::relay_request;
use waypost_mcp_wire::revision::{LEGACY, MODERN, NEWEST_LEGACY};
use waypost_mcp_wire::{Envelope, ErrorObject};

use super::interface::Failure;
use super::session::Link;
use super::wire::{Negotiated, Request, Wire, as_line, client_info, request_meta};

/// The time after which `initialize` is sent even if `server/discover` has not been answered: some servers do not
/// answer unknown methods, others are still starting.
const DISCOVER_PATIENCE: Duration = Duration::from_secs(3);
/// The timeout of each request of the handshake. The caller limits the total time.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(600);
/// The maximum size of the result in bytes.
const MAX_RESULT_BYTES: usize = 1024 * 1024;

/// The answer to a request of the handshake.
enum Answer {
    Result { result: Box<RawValue>, session: Option<String> },
    Error(ErrorObject),
}

/// The request that is sent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    /// `server/discover`; then `initialize` if the server is a legacy one.
    Discover,
    /// `initialize`; then `server/discover` if the server is a modern one.
    Initialize,
    /// Only `initialize`.
    OnlyInitialize,
}

/// Negotiates the revision. Does not announce the end of the handshake.
pub(super) async fn negotiate(link: &Link, first: First) -> Result<Negotiated, Failure> {
    match first {
        First::OnlyInitialize => initialize(link).await,
        First::Initialize => match initialize(link).await {
            Err(Failure::NotMcp(cause)) => discover(link).await?.ok_or(Failure::NotMcp(cause)),
            result => result,
        },
        First::Discover => {
            let mut discovery = std::pin::pin!(discover(link));
            match tokio::time::timeout(DISCOVER_PATIENCE, &mut discovery).await {
                Ok(Ok(Some(negotiated))) => return Ok(negotiated),
                Ok(Err(failure @ (Failure::Refused(_) | Failure::Storage(_)))) => return Err(failure),
                // Whatever a legacy server does with an unknown request, it may still accept `initialize`.
                Ok(_) => return initialize(link).await,
                Err(_) => {}
            }
            // Uses whichever succeeds first. A server that answers in order and supports both answers `server/discover`
            // first.
            tokio::select! {
                biased;
                Ok(Some(negotiated)) = &mut discovery => Ok(negotiated),
                result = initialize(link) => match result {
                    // A modern server that started slowly rejects `initialize` after it has answered the other request.
                    Err(Failure::NotMcp(cause)) => discover(link).await?.ok_or(Failure::NotMcp(cause)),
                    result => result,
                },
            }
        }
    }
}

/// Sends `server/discover`. Returns `None` if the server does not support the modern revision.
async fn discover(link: &Link) -> Result<Option<Negotiated>, Failure> {
    #[derive(Deserialize)]
    struct Discovered {
        #[serde(rename = "supportedVersions")]
        supported_versions: Vec<String>,
    }
    match ask(link, "server/discover", json!({}), &Wire::modern()).await? {
        Answer::Error(_) => Ok(None),
        Answer::Result { result, .. } => {
            let discovered = serde_json::from_str::<Discovered>(result.get());
            let is_modern = discovered.is_ok_and(|result| result.supported_versions.iter().any(|v| v == MODERN));
            Ok(is_modern.then(|| Negotiated {
                revision: MODERN.to_owned(),
                result: result.get().to_owned(),
                session: None,
                is_announced: true,
            }))
        }
    }
}

async fn initialize(link: &Link) -> Result<Negotiated, Failure> {
    #[derive(Deserialize)]
    struct Initialized {
        #[serde(rename = "protocolVersion")]
        protocol_version: String,
    }
    let capabilities: Value = serde_json::from_str(&link.declared.to_json())
        .map_err(|_| Failure::NotMcp("the capabilities are no JSON".to_owned()))?;
    let params = json!({ "protocolVersion": NEWEST_LEGACY, "capabilities": capabilities, "clientInfo": client_info() });
    match ask(link, "initialize", params, &Wire::default()).await? {
        Answer::Error(error) => {
            Err(Failure::NotMcp(format!("`initialize` failed with error {}: {}", error.code, error.message)))
        }
        Answer::Result { result, session } => {
            let initialized: Initialized = serde_json::from_str(result.get())
                .map_err(|_| Failure::NotMcp("the result of `initialize` has no `protocolVersion`".to_owned()))?;
            let revision = initialized.protocol_version;
            if !LEGACY.contains(&revision.as_str()) {
                return Err(Failure::NotMcp(format!("the server requires the unknown revision `{revision}`")));
            }
            Ok(Negotiated { revision, result: result.get().to_owned(), session, is_announced: false })
        }
    }
}

/// Sends a request of the handshake. Dropping the future does not cancel the request: `initialize` must not be
/// cancelled, and there is no need to cancel `server/discover` on a server that does not know it.
async fn ask(link: &Link, method: &str, params: Value, wire: &Wire) -> Result<Answer, Failure> {
    let id = link.file.next_id().await?;
    let message = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string();
    let broken = |error: &dyn std::fmt::Display| Failure::NotMcp(error.to_string());
    let envelope = Envelope::parse(message.as_bytes()).map_err(|error| broken(&error.message))?;
    let meta = wire.is_modern().then(request_meta);
    let relayed = relay_request(&envelope, id, meta.as_ref()).map_err(|error| broken(&error.message))?;
    let request = Request {
        id,
        text: as_line(relayed.text).into(),
        original: relayed.original,
        caller: None,
        method: method.to_owned(),
        name: None,
        headers: Vec::new(),
        deadline: Instant::now() + REQUEST_TIMEOUT,
        slot: None,
        is_cancellable: false,
    };
    let (mut messages, session) = link.transport.open(request, wire).await?;
    let mut last = None;
    while let Some(message) = messages.next().await {
        last = Some(message?);
    }
    read_answer(&last.unwrap_or_default(), session)
}

fn read_answer(message: &Bytes, session: Option<String>) -> Result<Answer, Failure> {
    let envelope = Envelope::parse(message).map_err(|error| Failure::NotMcp(error.message))?;
    match (envelope.result, envelope.error) {
        (Some(result), _) if result.get().len() <= MAX_RESULT_BYTES => {
            Ok(Answer::Result { result: result.to_owned(), session })
        }
        (Some(_), _) => Err(Failure::NotMcp("the result of the handshake is too large".to_owned())),
        (None, error) => {
            let error = error.and_then(|error| serde_json::from_str(error.get()).ok());
            error.map(Answer::Error).ok_or_else(|| Failure::NotMcp("the response is malformed".to_owned()))
        }
    }
}
