//! Requests to daemons.

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri};
use waypost_core::id::ToolboxId;
use waypost_link_io::Body;

use crate::error::LinkError;
use crate::links::{Link, Links};

impl Links {
    /// Sends a request to the daemon of `toolbox`, through the link of this process or, if it has none, of another
    /// replica, and returns its response as soon as the headers are complete. Only the path and query of the URI are
    /// used. Dropping the future, or the body of the response, cancels the call on the daemon. There is no timeout
    /// here: the daemon ends a call after the time in [`TIMEOUT_HEADER`](waypost_toolbox_proto::http::TIMEOUT_HEADER),
    /// and the caller can drop the future earlier.
    ///
    /// # Errors
    /// Returns [`LinkError::Offline`] at once if there is no link, or [`LinkError::Interrupted`] if the link is lost.
    /// An error from the daemon is a response with a status of 400 or higher.
    pub async fn request(&self, toolbox: &ToolboxId, request: Request<Bytes>) -> Result<Response<Body>, LinkError> {
        match (self.find(toolbox), self.forward()) {
            (None, Some(forward)) => count("replica", forward.forward(toolbox, request)).await,
            _ => self.request_here(toolbox, request).await,
        }
    }

    /// Like [`Links::request`], but only through a link of this process.
    ///
    /// # Errors
    /// Returns the errors of [`Links::request`].
    pub async fn request_here(
        &self,
        toolbox: &ToolboxId,
        request: Request<Bytes>,
    ) -> Result<Response<Body>, LinkError> {
        let response = async {
            match self.find(toolbox) {
                Some(link) => send(&link, request).await,
                None => Err(LinkError::Offline),
            }
        };
        count("link", response).await
    }
}

/// Counts a request and its outcome. `via` says whether it was sent through a link of this process or to another
/// replica.
async fn count(
    via: &'static str,
    response: impl Future<Output = Result<Response<Body>, LinkError>>,
) -> Result<Response<Body>, LinkError> {
    let start = tokio::time::Instant::now();
    let result = response.await;
    let outcome = match &result {
        Ok(response) if response.status().as_u16() < 400 => "ok",
        Ok(_) => "error",
        Err(LinkError::Offline) => "offline",
        Err(LinkError::Interrupted) => "interrupted",
    };
    metrics::counter!("waypost_toolbox_requests_total", "outcome" => outcome, "via" => via).increment(1);
    metrics::histogram!("waypost_toolbox_request_seconds", "outcome" => outcome, "via" => via).record(start.elapsed());
    result
}

async fn send(link: &Link, request: Request<Bytes>) -> Result<Response<Body>, LinkError> {
    let (mut parts, body) = request.into_parts();
    parts.uri = absolute(&parts.uri);
    let request = Request::from_parts(parts, ());
    let exchange = async {
        let mut client = link.client.clone().ready().await?;
        let (response, mut stream) = client.send_request(request, body.is_empty())?;
        if !body.is_empty() {
            // The body is shared, not copied, and sent as fast as the daemon reads it.
            stream.send_data(body, true)?;
        }
        response.await
    };
    tokio::select! {
        result = exchange => match result {
            Ok(response) => Ok(response.map(Body::new)),
            Err(error) => {
                tracing::debug!(%error, "request to a toolbox failed");
                Err(LinkError::Interrupted)
            }
        },
        () = link.closed.cancelled() => Err(LinkError::Interrupted),
    }
}

/// Returns the path and query of `uri` with the scheme and the authority that HTTP/2 requires (RFC 9113, section
/// 8.3.1).
pub(crate) fn absolute(uri: &Uri) -> Uri {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(Authority::from_static("toolbox"));
    parts.path_and_query = Some(uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")));
    Uri::from_parts(parts).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_path_and_query_are_kept() {
        for uri in ["/v1/instances/i/logs?tail=1", "https://example.com/v1/instances/i/logs?tail=1"] {
            assert_eq!(absolute(&uri.parse().unwrap()), "http://toolbox/v1/instances/i/logs?tail=1");
        }
        assert_eq!(absolute(&Uri::from_static("http://example.com")), "http://toolbox/");
    }
}
