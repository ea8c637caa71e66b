//! Sends requests for toolboxes to the replica that holds the link.

use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use http::{Request, Response};
use waypost_core::id::ToolboxId;
use waypost_link::{Body, BodyError, BoxFuture, Forward, LinkError};
use waypost_ops::link_leases::LinkLeases;

use super::relay::{LINK_ERROR_HEADER, path};

/// The timeout for connecting to another replica.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The time after which an idle connection is closed: before the other replica closes it.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// The interval at which TCP checks a silent connection.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Forwards requests to other replicas. Implements [`Forward`].
pub(super) struct Forwarder {
    leases: LinkLeases,
    client: reqwest::Client,
}

impl Forwarder {
    pub(super) fn new(leases: LinkLeases, client: reqwest::Client) -> Self {
        Self { leases, client }
    }

    async fn send(&self, toolbox: &ToolboxId, request: Request<Bytes>) -> Result<Response<Body>, LinkError> {
        let holder = self.leases.find_other(toolbox).await.map_err(|error| {
            tracing::error!(%error, "failed to find the replica that holds a link");
            LinkError::Offline
        })?;
        let origin = holder.ok_or(LinkError::Offline)?;
        let (parts, body) = request.into_parts();
        let url = format!("{origin}{}", path(toolbox, &parts.uri));
        let sent = self.client.request(parts.method, url).headers(parts.headers).body(body).send().await;
        let response = sent.map_err(|error| {
            tracing::warn!(%toolbox, error = %chain(&error), "failed to forward a request to another replica");
            // Without a connection, nothing was sent.
            if error.is_connect() { LinkError::Offline } else { LinkError::Interrupted }
        })?;
        if let Some(reason) = response.headers().get(LINK_ERROR_HEADER) {
            let is_offline = reason.as_bytes() == LinkError::Offline.reason().as_bytes();
            return Err(if is_offline { LinkError::Offline } else { LinkError::Interrupted });
        }
        let status = response.status();
        let body = Body::forwarded(response.bytes_stream().map_err(|_| BodyError::Interrupted));
        let mut response = Response::new(body);
        *response.status_mut() = status;
        Ok(response)
    }
}

impl Forward for Forwarder {
    fn forward<'a>(
        &'a self,
        toolbox: &'a ToolboxId,
        request: Request<Bytes>,
    ) -> BoxFuture<'a, Result<Response<Body>, LinkError>> {
        Box::pin(self.send(toolbox, request))
    }
}

/// Returns an error with its causes.
fn chain(error: &reqwest::Error) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
