//! HTTP requests of the transports.

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_TYPE, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use url::Url;
use waypost_mcp_wire::media_type::MediaType;
use waypost_mcp_wire::memory::{MemoryShare, Reservation};
use waypost_mcp_wire::revision::{BATCH, MODERN, SESSION_HEADER, VERSION_HEADER};
use waypost_outbound::{OutboundRequest, Route, StreamLimits, StreamResponse};

use crate::error::Error;
use crate::options::Redirects;

/// The maximum number of redirects of one request.
const MAX_REDIRECTS: usize = 3;
/// The maximum size of the body of an HTTP error, and of the response to a notification, in bytes.
pub(crate) const MAX_ERROR_BYTES: usize = 64 * 1024;
/// The maximum length of the challenges of a response in bytes.
const MAX_CHALLENGE_BYTES: usize = 4 * 1024;

/// Sends requests to one server.
pub(crate) struct Http {
    pub(crate) route: Route,
    pub(crate) url: Url,
    /// Headers of every request.
    pub(crate) headers: HeaderMap,
    pub(crate) redirects: Redirects,
}

/// The negotiated values that are repeated in the headers of every request.
#[derive(Debug, Clone)]
pub(crate) enum Wire {
    /// The handshake has not been completed.
    Connecting,
    /// 2026-07-28.
    Modern,
    /// The revision, and the session if the server has sessions.
    Legacy { revision: &'static str, session: Option<HeaderValue> },
}

impl Wire {
    pub(crate) fn is_modern(&self) -> bool {
        matches!(self, Self::Modern)
    }

    pub(crate) fn has_session(&self) -> bool {
        matches!(self, Self::Legacy { session: Some(_), .. })
    }

    /// Whether messages can be combined into batches.
    pub(crate) fn has_batches(&self) -> bool {
        matches!(self, Self::Legacy { revision: BATCH, .. })
    }

    pub(crate) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        match self {
            Self::Connecting => {}
            Self::Modern => {
                headers.insert(VERSION_HEADER, HeaderValue::from_static(MODERN));
            }
            Self::Legacy { revision, session } => {
                headers.insert(VERSION_HEADER, HeaderValue::from_static(revision));
                let session = session.clone().map(|session| (HeaderName::from_static(SESSION_HEADER), session));
                headers.extend(session);
            }
        }
        headers
    }
}

impl Http {
    /// Sends a message to `url`, or to the URL of the server.
    pub(crate) async fn post(
        &self,
        url: Option<&Url>,
        mut headers: HeaderMap,
        body: Vec<u8>,
        limits: StreamLimits,
    ) -> Result<StreamResponse, Error> {
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let mut request = self.request(Method::POST, headers, body);
        if let Some(url) = url {
            request.url = url.clone();
        }
        if self.redirects == Redirects::Never {
            return Ok(self.route.open(request, limits).await?);
        }
        for _ in 0..MAX_REDIRECTS {
            let response = self.route.open(request.clone(), limits).await?;
            match redirect_target(&request.url, &response) {
                Some(target) => request.url = target,
                None => return Ok(response),
            }
        }
        Ok(self.route.open(request, limits).await?)
    }

    /// Opens a stream of events. With `last_id`, the stream continues after this event.
    pub(crate) async fn get_events(
        &self,
        headers: HeaderMap,
        last_id: Option<&str>,
        limits: StreamLimits,
    ) -> Result<StreamResponse, Error> {
        let response = self.request_events(headers, last_id, limits).await?;
        match Content::of(&response) {
            _ if !response.status.is_success() => Err(status_error(response.status, &response.headers)),
            Content::Events => Ok(response),
            other => Err(other.error(&response)),
        }
    }

    /// Requests a stream of events. The response can have any status and type.
    pub(crate) async fn request_events(
        &self,
        mut headers: HeaderMap,
        last_id: Option<&str>,
        limits: StreamLimits,
    ) -> Result<StreamResponse, Error> {
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        if let Some(id) = last_id {
            let id =
                HeaderValue::try_from(id).map_err(|_| Error::invalid("the ID of an event is not a header value"))?;
            headers.insert("last-event-id", id);
        }
        Ok(self.route.open(self.request(Method::GET, headers, Vec::new()), limits).await?)
    }

    /// Ends a session (legacy, "Session Management").
    pub(crate) async fn delete(&self, headers: HeaderMap, limits: StreamLimits) -> Result<(), Error> {
        self.route.open(self.request(Method::DELETE, headers, Vec::new()), limits).await?;
        Ok(())
    }

    fn request(&self, method: Method, headers: HeaderMap, body: Vec<u8>) -> OutboundRequest {
        let mut all = self.headers.clone();
        // Replaces headers with the same name.
        headers.into_iter().filter_map(|(name, value)| Some((name?, value))).for_each(|(name, value)| {
            all.insert(name, value);
        });
        OutboundRequest { method, url: self.url.clone(), headers: all, body }
    }
}

/// Returns the target of a redirect to the same host that keeps the method. Returns `None` for any other redirect,
/// which would turn the call into a GET, or send the message to another host or without encryption.
fn redirect_target(url: &Url, response: &StreamResponse) -> Option<Url> {
    if !matches!(response.status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT) {
        return None;
    }
    let target = url.join(response.headers.get(LOCATION)?.to_str().ok()?).ok()?;
    let is_downgrade = url.scheme() == "https" && target.scheme() != "https";
    (target.host() == url.host() && !is_downgrade).then_some(target)
}

/// The type of the body of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    Json,
    Events,
    Other,
}

impl Content {
    pub(crate) fn of(response: &StreamResponse) -> Self {
        match MediaType::of(response.headers.get_all(CONTENT_TYPE).iter().map(HeaderValue::as_bytes)) {
            Some(MediaType::Json) => Self::Json,
            Some(MediaType::Events) => Self::Events,
            None => Self::Other,
        }
    }

    /// Returns the error for a response with an unexpected type.
    pub(crate) fn error(self, response: &StreamResponse) -> Error {
        Error::ContentType { content_type: content_type(response) }
    }
}

/// Returns the values of all `Content-Type` headers, separated by commas.
fn content_type(response: &StreamResponse) -> Option<String> {
    let values = response.headers.get_all(CONTENT_TYPE).iter().filter_map(|value| value.to_str().ok());
    Some(values.collect::<Vec<_>>().join(", ")).filter(|values| !values.is_empty())
}

/// Reads a small body of at most `max_bytes`, which is not counted as message memory.
pub(crate) async fn read(response: &mut StreamResponse, max_bytes: usize) -> Result<Bytes, Error> {
    read_message(response, max_bytes, MemoryShare::default().reserve()).await
}

/// Reads a body of at most `max_bytes`, which holds memory until its last copy is dropped.
pub(crate) async fn read_message(
    response: &mut StreamResponse,
    max_bytes: usize,
    mut memory: Reservation,
) -> Result<Bytes, Error> {
    let too_large = || Error::MessageTooLarge { limit: max_bytes };
    let length = response.content_length();
    if length.is_some_and(|length| length > max_bytes) {
        return Err(too_large());
    }
    let Some(first) = response.chunk().await? else { return Ok(Bytes::new()) };
    // A body that arrived as one chunk is not copied. Without a length, more can follow, even after an empty chunk.
    if length == Some(first.len()) {
        return Ok(memory.hold(first)?);
    }
    let mut body = BytesMut::with_capacity(length.unwrap_or(first.len()));
    let mut next = Some(first);
    while let Some(chunk) = next {
        if body.len() + chunk.len() > max_bytes {
            return Err(too_large());
        }
        memory.set(body.len() + chunk.len())?;
        body.extend_from_slice(&chunk);
        next = response.chunk().await?;
    }
    Ok(memory.hold(body.freeze())?)
}

/// Returns the error for a response with a status that is not 2xx.
pub(crate) fn status_error(status: StatusCode, headers: &HeaderMap) -> Error {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let retry_after = text(RETRY_AFTER).and_then(|value| value.parse().ok());
    Error::Status { status, retry_after, challenge: challenge(headers) }
}

/// Returns the challenges of all `WWW-Authenticate` headers, separated by commas (RFC 9110, section 5.3). Challenges
/// that would exceed [`MAX_CHALLENGE_BYTES`] are left out.
fn challenge(headers: &HeaderMap) -> Option<String> {
    let mut challenges = String::new();
    for value in headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()) {
        let separator = if challenges.is_empty() { "" } else { ", " };
        if challenges.len() + separator.len() + value.len() <= MAX_CHALLENGE_BYTES {
            challenges.push_str(separator);
            challenges.push_str(value);
        }
    }
    Some(challenges).filter(|challenges| !challenges.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_challenges_of_a_response_are_read_up_to_a_maximum() {
        let long = format!("Basic realm=\"{}\"", "x".repeat(MAX_CHALLENGE_BYTES));
        for (values, expected) in [
            (vec![], None),
            (vec!["Bearer scope=x"], Some("Bearer scope=x")),
            (vec!["Basic realm=\"a\"", "Bearer scope=x"], Some("Basic realm=\"a\", Bearer scope=x")),
            (vec!["", long.as_str(), "Bearer scope=x"], Some("Bearer scope=x")),
        ] {
            let mut headers = HeaderMap::new();
            for value in &values {
                headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(value).unwrap());
            }
            let error = status_error(StatusCode::FORBIDDEN, &headers);
            let is_expected = matches!(&error, Error::Status { challenge, .. } if challenge.as_deref() == expected);
            assert!(is_expected, "{values:?}: {error:?}");
        }
    }
}
