//! Revocation of the tokens of connections that have been deleted (RFC 7009).
//!
//! Revocation is best effort: the connection no longer exists, whatever the authorization server answers, and nothing
//! is retried. Revocation begins after the transaction that has deleted the connections, and is abandoned after
//! [`MAX_TIME`].

use std::time::Duration;

use futures::{StreamExt, stream};
use waypost_core::Result;
use waypost_outbound::Purpose;
use waypost_store::remote_connection::RemoteConnection;

use super::client::revoke_token;
use super::open;
use super::registered::update_client_secret;
use crate::Ops;

/// The time limit for revoking the tokens of deleted connections. Tokens that are left then are not revoked.
const MAX_TIME: Duration = Duration::from_secs(10);
/// The maximum number of connections whose tokens are revoked at the same time.
const CONCURRENT_REVOCATIONS: usize = 8;

/// Revokes the tokens of connections that were deleted, and waits until this is done. Continues even if the caller
/// disconnects. Failures are only logged.
pub(crate) async fn revoke(ops: &Ops, deleted: Vec<RemoteConnection>) {
    if deleted.is_empty() {
        return;
    }
    let ops = ops.clone();
    let task = waypost_jobs::spawn("remote-token-revocation", async move {
        let count = deleted.len();
        let all = deleted.into_iter().map(|connection| revoke_logged(ops.clone(), connection));
        let all = stream::iter(all.collect::<Vec<_>>()).buffer_unordered(CONCURRENT_REVOCATIONS).collect::<Vec<()>>();
        if tokio::time::timeout(MAX_TIME, all).await.is_err() {
            tracing::warn!(count, "failed to revoke all tokens of remote servers in time");
        }
    });
    // Fails only if the process stops.
    let _ = task.await;
}

async fn revoke_logged(ops: Ops, connection: RemoteConnection) {
    if let Err(error) = revoke_one(&ops, &connection).await {
        tracing::warn!(instance = connection.instance_id.as_str(), %error, "failed to revoke token of remote server");
    }
}

/// Revokes the refresh token, which also invalidates its access tokens at most servers (RFC 7009, section 2.1), then
/// the access token. Both are tried: a server may support only one of them (section 2.2.1).
async fn revoke_one(ops: &Ops, connection: &RemoteConnection) -> Result<()> {
    let mut credentials = open(ops, connection)?;
    let at = (&connection.organization_id, &connection.instance_id);
    if let Err(error) = update_client_secret(ops, at, &mut credentials.client).await {
        tracing::warn!(instance = connection.instance_id.as_str(), %error, "failed to read current client secret");
    }
    let Some(endpoint) = credentials.client.revocation_endpoint.as_deref() else { return Ok(()) };
    let route = ops.route(Purpose::Tools, &connection.organization_id).await?;
    let refresh_token = credentials.refresh_token.as_deref().map(|token| (token, "refresh_token"));
    let mut result = Ok(());
    for token in refresh_token.into_iter().chain([(credentials.access_token.as_str(), "access_token")]) {
        let revoked = revoke_token(&route, &credentials.client, endpoint, token).await;
        result = result.and(revoked.map_err(|error| waypost_core::Error::internal(error.to_string())));
    }
    result
}
