//! Streamable HTTP: sends messages and reads responses, as JSON or as a stream of events.

use http::header::{ACCEPT, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::value::RawValue;
use url::Url;
use waypost_mcp_wire::sse::EventParser;
use waypost_mcp_wire::{Envelope, ErrorObject, RequestId};
use waypost_outbound::{OutboundRequest, Route, StreamLimits, StreamResponse};

use crate::error::Error;

/// The maximum number of redirects of one request.
const MAX_REDIRECTS: usize = 3;
/// The maximum size of the body of an HTTP error. A longer one cannot be a JSON-RPC error worth showing.
const MAX_ERROR_BYTES: usize = 64 * 1024;

/// Sends messages to one server.
#[derive(Debug)]
pub(crate) struct Transport {
    pub(crate) route: Route,
    pub(crate) url: Url,
}

/// A response to a request.
#[derive(Debug)]
pub(crate) struct Reply {
    /// The headers of the HTTP response.
    pub(crate) headers: HeaderMap,
    /// The `result` member, as received.
    pub(crate) result: Box<RawValue>,
}

/// A request that a server sends before its response.
#[derive(Debug)]
pub(crate) struct ServerRequest {
    pub(crate) id: RequestId,
    pub(crate) method: String,
}

impl Transport {
    /// Sends a request and waits for its response. Requests of the server that arrive first are passed to `on_request`;
    /// its notifications are ignored.
    pub(crate) async fn request(
        &self,
        headers: HeaderMap,
        id: &RequestId,
        body: Vec<u8>,
        limits: StreamLimits,
        on_request: impl AsyncFn(ServerRequest),
    ) -> Result<Reply, Error> {
        let mut response = self.post(headers, body, limits).await?;
        let headers = std::mem::take(&mut response.headers);
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type = content_type.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
        let result = if !response.status.is_success() {
            return Err(http_error(response, &headers).await);
        } else if media_type.eq_ignore_ascii_case("application/json") {
            let bytes = read(&mut response, limits.max_bytes).await?;
            result_of(&parse(&bytes)?, id)?
        } else if media_type.eq_ignore_ascii_case("text/event-stream") {
            read_events(response, id, on_request).await?
        } else {
            return Err(Error::ContentType { content_type: content_type.map(str::to_owned) });
        };
        Ok(Reply { headers, result })
    }

    /// Sends a notification or a response, and ignores the body of the HTTP response.
    pub(crate) async fn send(&self, headers: HeaderMap, body: Vec<u8>, limits: StreamLimits) -> Result<(), Error> {
        let mut response = self.post(headers, body, limits).await?;
        if response.status.is_success() {
            return Ok(());
        }
        let headers = std::mem::take(&mut response.headers);
        Err(http_error(response, &headers).await)
    }

    /// Ends a session (legacy, "Session Management").
    pub(crate) async fn delete(&self, headers: HeaderMap, limits: StreamLimits) -> Result<(), Error> {
        let request = OutboundRequest { method: Method::DELETE, url: self.url.clone(), headers, body: Vec::new() };
        self.route.open(request, limits).await?;
        Ok(())
    }

    /// Sends a POST request. Only redirects to the same host that keep the method are followed: any other would turn
    /// the call into a GET, or send the message to another host or without encryption.
    async fn post(&self, mut headers: HeaderMap, body: Vec<u8>, limits: StreamLimits) -> Result<StreamResponse, Error> {
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let mut request = OutboundRequest { method: Method::POST, url: self.url.clone(), headers, body };
        for _ in 0..MAX_REDIRECTS {
            let response = self.route.open(request.clone(), limits).await?;
            match redirect_target(&request.url, &response) {
                Some(target) => request.url = target,
                None => return Ok(response),
            }
        }
        Ok(self.route.open(request, limits).await?)
    }
}

fn redirect_target(url: &Url, response: &StreamResponse) -> Option<Url> {
    if !matches!(response.status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT) {
        return None;
    }
    let target = url.join(response.headers.get(LOCATION)?.to_str().ok()?).ok()?;
    let is_downgrade = url.scheme() == "https" && target.scheme() != "https";
    (target.host() == url.host() && !is_downgrade).then_some(target)
}

/// Reads a body. Stops at the first chunk that exceeds `max_bytes`.
async fn read(response: &mut StreamResponse, max_bytes: usize) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    while body.len() <= max_bytes
        && let Some(chunk) = response.chunk().await?
    {
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Returns the error of a response with a status that is not 2xx. A JSON-RPC error in the body of a 4xx response takes
/// precedence over the status, except for 401, 403 and 429, which determine what the caller does next.
async fn http_error(mut response: StreamResponse, headers: &HeaderMap) -> Error {
    let status = response.status;
    let retry_after = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let http = Error::Status { status, retry_after };
    if !status.is_client_error() || matches!(status.as_u16(), 401 | 403 | 429) {
        return http;
    }
    let Ok(body) = read(&mut response, MAX_ERROR_BYTES).await else { return http };
    let error = Envelope::parse(&body).ok().and_then(|message| message.error.and_then(error_object));
    error.map_or(http, Error::Rpc)
}

/// Reads events until the response to the request `id`.
async fn read_events(
    mut response: StreamResponse,
    id: &RequestId,
    on_request: impl AsyncFn(ServerRequest),
) -> Result<Box<RawValue>, Error> {
    let mut parser = EventParser::new();
    while let Some(chunk) = response.chunk().await? {
        for event in parser.push(&chunk) {
            // An event without data only announces an event ID (2025-11-25).
            if event.data.is_empty() {
                continue;
            }
            let message = parse(event.data.as_bytes())?;
            match (&message.method, &message.id) {
                (Some(method), Some(id)) => {
                    on_request(ServerRequest { id: id.clone(), method: method.to_string() }).await;
                }
                (Some(_), None) => {}
                (None, _) => return result_of(&message, id),
            }
        }
    }
    Err(Error::InvalidResponse("the stream ended before the response"))
}

fn parse(bytes: &[u8]) -> Result<Envelope<'_>, Error> {
    Envelope::parse(bytes).map_err(|_| Error::InvalidResponse("the response is not a JSON-RPC message"))
}

/// Returns the result of a response to the request `id`.
fn result_of(message: &Envelope<'_>, id: &RequestId) -> Result<Box<RawValue>, Error> {
    if let Some(error) = message.error {
        // The ID of an error is missing if the server could not read the request, so it is not checked.
        return Err(error_object(error).map_or(Error::InvalidResponse("the error is malformed"), Error::Rpc));
    }
    if message.id.as_ref() != Some(id) {
        return Err(Error::InvalidResponse("the response has the ID of another request"));
    }
    message.result.map(ToOwned::to_owned).ok_or(Error::InvalidResponse("the response has no result"))
}

fn error_object(error: &RawValue) -> Option<ErrorObject> {
    serde_json::from_str(error.get()).ok()
}
