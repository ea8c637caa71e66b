//! Refreshes the tokens of connections before they expire, and after the server has rejected one.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinSet;
use waypost_core::access::authorize_operator;
use waypost_core::caller::Ctx;
use waypost_core::id::AgentId;
use waypost_core::instance::Instance;
use waypost_core::{Code, Error, Result};
use waypost_outbound::Purpose;
use waypost_store::remote_connection::{self as store, RemoteConnection};
use waypost_store::{instance, toolbox};

use super::registered::{has_registered_client, update_client_secret};
use super::{Credentials, Grant, TokenError, end, open, refresh_time, request_tokens, revoke, seal};
use crate::Ops;

/// The name of the job that calls [`refresh_due`].
pub const JOB: &str = "remote-tokens";
/// The duration of the lease of a connection, in milliseconds. It is also the pause after a temporary failure.
const LEASE_MS: i64 = 60 * 1_000;
/// The maximum time between the start of a lease and the end of the request under it. Shorter than the lease, so that
/// no other process sends the same refresh token in the meantime.
const MAX_REFRESH: Duration = Duration::from_secs(30);
/// The maximum number of connections that are refreshed at the same time.
const BATCH_SIZE: i64 = 10;
/// The maximum number of times that [`BATCH_SIZE`] connections are refreshed in a run.
const MAX_ROUNDS: usize = 20;
/// The minimum age of a token that is refreshed because the server rejects it, in milliseconds. A server that rejects
/// every token causes at most one refresh in this time.
const MIN_AGE_MS: i64 = 60 * 1_000;

/// The result of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RefreshSummary {
    /// The number of connections with new tokens.
    pub refreshed: u64,
    /// The number of connections without new tokens. Those that the authorization server has rejected have ended.
    pub failed: u64,
}

/// Refreshes some of the tokens that expire within five minutes. Several processes may run this at the same time; each
/// token is refreshed by only one of them.
///
/// # Errors
/// `forbidden` unless the caller is the operator; any error of the store before the first request. Failures of an
/// authorization server are only logged.
pub async fn refresh_due(cx: &Ctx, ops: &Ops) -> Result<RefreshSummary> {
    authorize_operator(&cx.caller)?;
    let mut summary = RefreshSummary::default();
    for _ in 0..MAX_ROUNDS {
        let now = cx.now();
        let mut tx = ops.store.begin().await?;
        let due = store::lease_due(&mut tx, now, now.plus(LEASE_MS), BATCH_SIZE).await?;
        tx.commit().await?;
        let is_last = (due.len() as i64) < BATCH_SIZE;
        refresh_all(cx, ops, due, &mut summary).await;
        if is_last {
            break;
        }
    }
    Ok(summary)
}

async fn refresh_all(cx: &Ctx, ops: &Ops, due: Vec<RemoteConnection>, summary: &mut RefreshSummary) {
    let mut work = JoinSet::new();
    for leased in due {
        let (cx, ops) = (cx.clone(), ops.clone());
        work.spawn(waypost_jobs::catch(JOB, async move {
            let result = refresh_leased(&cx, &ops, &leased).await;
            if let Err(error) = &result {
                tracing::warn!(instance = leased.instance_id.as_str(), %error, "failed to refresh token of remote server");
            }
            result.is_ok()
        }));
    }
    while let Some(done) = work.join_next().await {
        match done {
            Ok(Some(true)) => summary.refreshed += 1,
            Ok(_) | Err(_) => summary.failed += 1,
        }
    }
}

/// Replaces the token of the connection of `agent`, or of the organisation if `agent` is `None`, after the server of an
/// instance has rejected it. `revision` is that of the rejected token. Does nothing if it has already been replaced.
///
/// # Errors
/// `tool_server_error` if there is no other token: `reason` is `unauthorized` if the rejected token is less than a
/// minute old, or the authorization server no longer accepts the connection; `not_refreshed` if another process is
/// refreshing it, or the refresh failed.
pub(crate) async fn refresh_rejected(
    ops: &Ops,
    instance: &Instance,
    agent: Option<&AgentId>,
    revision: i64,
) -> Result<()> {
    let cx = ops.background();
    let (now, key) = (cx.now(), (&instance.organization_id, (&instance.id, agent)));
    let mut tx = ops.store.begin().await?;
    let current = store::find(&mut tx, key.0, key.1).await?;
    let Some(current) = current.filter(|current| current.revision == revision) else { return Ok(()) };
    if now.since(current.updated_at) < MIN_AGE_MS {
        return Err(rejected("The server rejected a new token of its authorization server."));
    }
    let leased = store::lease(&mut tx, key, revision, (now, now.plus(LEASE_MS))).await?;
    let leased = leased.ok_or_else(|| not_refreshed("The token of the server is being refreshed. Try again."))?;
    tx.commit().await?;
    // A caller that disconnects must not end the request: the new tokens would be lost.
    let (cx, ops) = (cx.clone(), ops.clone());
    let (sender, receiver) = oneshot::channel();
    waypost_jobs::spawn("remote-token-refresh", async move {
        // Fails if the caller has disconnected.
        let _ = sender.send(refresh_leased(&cx, &ops, &leased).await);
    });
    receiver.await.map_err(Error::internal)?
}

fn rejected(message: impl Into<String>) -> Error {
    Error::new(Code::ToolServerError, message).with("reason", "unauthorized")
}

/// Returns the error for a failure that may be temporary, and says nothing about the account.
fn not_refreshed(message: impl Into<String>) -> Error {
    Error::new(Code::ToolServerError, message).with("reason", "not_refreshed")
}

/// Refreshes the tokens of a connection that this process has leased. Ends the connection if its authorization server
/// rejects it, but not if it rejects only the client that an admin has registered, whose secret may have been changed
/// at the authorization server first.
async fn refresh_leased(cx: &Ctx, ops: &Ops, leased: &RemoteConnection) -> Result<()> {
    let exchanged = tokio::time::timeout(MAX_REFRESH, exchange(cx, ops, leased)).await;
    match exchanged.unwrap_or_else(|_| Err(TokenError::Failed("its authorization server did not respond".to_owned()))) {
        Ok(new) => write(ops, &new).await,
        Err(error @ (TokenError::Refused | TokenError::ClientRefused)) => {
            if error == TokenError::ClientRefused && has_registered_client(ops, leased).await? {
                let message = "The authorization server rejects the registered client. Check its ID and secret.";
                return Err(not_refreshed(message));
            }
            end(cx, ops, leased).await?;
            Err(rejected("The authorization server no longer accepts the connection. Connect again."))
        }
        Err(TokenError::Failed(reason)) => Err(not_refreshed(format!("The token cannot be refreshed: {reason}."))),
    }
}

async fn exchange(cx: &Ctx, ops: &Ops, leased: &RemoteConnection) -> Result<RemoteConnection, TokenError> {
    let failed = |error: Error| TokenError::Failed(error.to_string());
    let mut old = open(ops, leased).map_err(failed)?;
    let at = (&leased.organization_id, &leased.instance_id);
    update_client_secret(ops, at, &mut old.client).await.map_err(failed)?;
    // Without a refresh token, only a new connection helps.
    let refresh_token = old.refresh_token.as_deref().ok_or(TokenError::Refused)?;
    let route = ops.route(Purpose::Tools, &leased.organization_id).await.map_err(failed)?;
    let now = cx.now();
    let mut tokens = request_tokens(&route, &old.client, Grant::Refresh(refresh_token), (&old.resource, now)).await?;
    // Without a new refresh token, the old one remains valid (RFC 6749, 6).
    tokens.refresh_token = tokens.refresh_token.or_else(|| old.refresh_token.clone());
    let refresh_at = refresh_time(now, &tokens);
    let credentials = Credentials { access_token: tokens.access_token, refresh_token: tokens.refresh_token, ..old };
    Ok(RemoteConnection {
        credentials: seal(cx, ops, leased.key(), &credentials).map_err(failed)?,
        expires_at: tokens.expires_at,
        refresh_at,
        updated_at: now,
        ..leased.clone()
    })
}

/// Stores new tokens. If they are those of the organisation, the instance counts as restarted, so that every process
/// connects with them. The revision of an agent's tokens is read before each of its calls.
async fn write(ops: &Ops, new: &RemoteConnection) -> Result<()> {
    let organization = &new.organization_id;
    let mut tx = ops.store.begin().await?;
    toolbox::lock_organization(&mut tx, organization).await?;
    if !store::complete_refresh(&mut tx, new).await? {
        let is_deleted = store::find(&mut tx, organization, new.key()).await?.is_none();
        drop(tx);
        if is_deleted {
            // The deletion has revoked only the old tokens.
            revoke(ops, vec![new.clone()]).await;
        }
        return Ok(());
    }
    if new.agent_id.is_none()
        && let Some(mut current) = instance::find(&mut tx, organization, &new.instance_id).await?
    {
        current.restarts += 1;
        instance::update(&mut tx, &current).await?;
        tx.bump_config_version(organization).await?;
    }
    Ok(tx.commit().await?)
}
