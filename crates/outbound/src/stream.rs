//! Responses that are read chunk by chunk, for bodies that take a long time or arrive as a stream of events.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tokio::time::{Instant, timeout};

use crate::error::{Error, translate};
use crate::route::{OutboundRequest, Route, host_of};

/// Limits of a request whose response is read as a stream.
#[derive(Debug, Clone, Copy)]
pub struct StreamLimits {
    /// Maximum size of the response body in bytes.
    pub max_bytes: usize,
    /// Maximum time to wait for a chunk of the body.
    pub idle: Duration,
    /// Timeout for the whole request: name resolution, connection and the complete body.
    pub timeout: Duration,
}

/// A response whose body has not been read. Dropping it closes the connection, or resets its HTTP/2 stream.
#[derive(Debug)]
pub struct StreamResponse {
    /// The status. A 3xx, 4xx or 5xx status is not an error here.
    pub status: StatusCode,
    /// The response headers.
    pub headers: HeaderMap,
    response: reqwest::Response,
    host: String,
    received: usize,
    limits: StreamLimits,
    deadline: Instant,
}

impl Route {
    /// Sends `request` and returns its response as soon as the headers are complete. The URL and its addresses are
    /// checked as in [`Route::send`]. Redirects are returned as responses: a caller that follows one sends another
    /// request, which is checked as well.
    ///
    /// # Errors
    /// Any [`Error`]. A 3xx, 4xx or 5xx status is not an error.
    pub async fn open(&self, request: OutboundRequest, limits: StreamLimits) -> Result<StreamResponse, Error> {
        let deadline = Instant::now() + limits.timeout;
        let host = host_of(&request.url);
        let mut response = match timeout(limits.timeout, self.start(request)).await {
            Ok(response) => response?,
            Err(_) => return Err(Error::Timeout { host }),
        };
        if response.content_length().is_some_and(|length| length > limits.max_bytes as u64) {
            return Err(Error::TooLarge { host, limit: limits.max_bytes });
        }
        let headers = std::mem::take(response.headers_mut());
        Ok(StreamResponse { status: response.status(), headers, response, host, received: 0, limits, deadline })
    }
}

impl StreamResponse {
    /// Returns the size of the body in bytes, if the response declares it.
    #[must_use]
    pub fn content_length(&self) -> Option<usize> {
        self.response.content_length().and_then(|length| usize::try_from(length).ok())
    }

    /// Returns the next chunk of the body as it arrived, or `None` at the end of the body.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if the body exceeds its limit; [`Error::Timeout`] if no chunk arrives in time;
    /// [`Error::Unreachable`] if the connection breaks.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        let remaining = self.deadline.saturating_duration_since(Instant::now());
        let Ok(chunk) = timeout(remaining.min(self.limits.idle), self.response.chunk()).await else {
            return Err(Error::Timeout { host: self.host.clone() });
        };
        let chunk = chunk.map_err(|error| translate(&error, &self.host))?;
        self.received += chunk.as_ref().map_or(0, Bytes::len);
        if self.received > self.limits.max_bytes {
            return Err(Error::TooLarge { host: self.host.clone(), limit: self.limits.max_bytes });
        }
        Ok(chunk)
    }
}
