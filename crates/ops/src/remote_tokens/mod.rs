//! The tokens of connections to remote servers that require OAuth.
//!
//! Invariants:
//! 1. A token is sent only to the origin of the instance's URL, and a refresh token only to the token endpoint that was
//!    discovered with it. A connection ends when the URL of its instance changes.
//! 2. Tokens are stored sealed, and are never part of an error, a log line, an audit entry or a response.
//! 3. A refresh token is sent only under a lease ([`waypost_store::remote_connection`]).
//! 4. If each agent has its own connection, a token is found only with the ID of its agent, and an instance with one
//!    connection has no tokens of agents: [`find_bearer`] rejects anything else.
//!
//! Waypost makes these requests itself instead of using the `auth` feature of rmcp, which keeps tokens and states in
//! stores of its own, creates its own random values, falls back to guessed endpoints if a server has no metadata, and
//! does not support leases.

mod challenge;
mod client;
mod refresh;
mod registered;
mod revoke;
mod scope;
mod step_up;

use futures::future::BoxFuture;
use http::HeaderValue;
use serde::{Deserialize, Serialize};
use serde_json::json;
use waypost_core::caller::Ctx;
use waypost_core::id::AgentId;
use waypost_core::instance::Instance;
use waypost_core::seal::{SealLocation, SecretText};
use waypost_core::{Code, Error, Result, Timestamp};
use waypost_store::remote_connection::{self as store, ConnectionKey, RemoteConnection, row_id};
use waypost_store::{Conn, Tx, instance, remote_server, toolbox};
use waypost_toolbox_proto::instance::{Health, InstanceState};

pub(crate) use self::challenge::Challenge;
pub(crate) use self::client::{Grant, OauthClient, TokenError, Tokens, request_tokens};
pub(crate) use self::refresh::refresh_rejected;
pub use self::refresh::{JOB, RefreshSummary, refresh_due};
pub(crate) use self::registered::{ClientCredentials, find_client_credentials};
pub(crate) use self::revoke::revoke;
pub(crate) use self::scope::{MAX_SCOPE, union as union_scopes, words as scope_words};
pub(crate) use self::step_up::{
    INSUFFICIENT_SCOPE, LACKS_SCOPE, find_required_scope, find_wanted_scope, insufficient, require_scope,
};
use crate::Ops;
use crate::audit::{Entry, record};
use crate::deployments::notify::state_changed;

/// The text of an instance that has not been connected yet.
pub const NOT_CONNECTED: &str =
    "The server requires OAuth, and is not connected yet. An admin connects it on the page of the instance.";
/// The text of an instance whose agents each need a connection, while none has one.
pub const NO_AGENT_CONNECTED: &str = "The server requires OAuth, and no agent is connected to it yet. An admin connects an agent on the page Connections of the instance, and people connect their own accounts.";
/// The text for a call without an agent.
const NO_AGENT: &str = "Each agent has its own connection to this server, so it can be called only as an agent.";
/// The text for an agent that is not connected. The gateway adds where to connect it.
pub const AGENT_NOT_CONNECTED: &str = "The server requires OAuth, and this agent is not connected to it.";
/// The maximum number of connections that are tried in order to read the definitions of an instance.
const DEFINITION_AGENTS: u32 = 3;
/// The text of an instance whose connection has ended.
const ENDED: &str = "The authorization server no longer accepts the connection. An admin connects it again on the page of the instance.";
/// The time before the expiry of a token at which it is refreshed, in milliseconds.
const REFRESH_AHEAD_MS: i64 = 5 * 60 * 1_000;

/// The tokens of a connection, and what is needed to refresh them. Has no `Debug`, so that it is never logged.
#[derive(Serialize, Deserialize)]
pub(crate) struct Credentials {
    /// Waypost as a client of the authorization server.
    pub client: OauthClient,
    /// The resource of the tokens (RFC 8707).
    pub resource: String,
    /// The requested scope. `None` if there was none, or the connection was made before it was stored.
    #[serde(default)]
    pub scope: Option<String>,
    /// The access token.
    pub access_token: String,
    /// The refresh token.
    pub refresh_token: Option<String>,
}

/// The value of the header `Authorization` for a connection, and the revision of its token.
pub(crate) struct Bearer {
    pub value: HeaderValue,
    pub revision: i64,
}

fn location(row: &str) -> SealLocation<'_> {
    SealLocation { table: "remote_connections", column: "credentials", row }
}

fn open(ops: &Ops, connection: &RemoteConnection) -> Result<Credentials> {
    let broken =
        || Error::internal(format!("a connection of the instance {} cannot be opened", connection.instance_id));
    let text = ops.keyring()?.open_text(&location(&row_id(connection.key())), &connection.credentials);
    // The error of the parser could contain a part of the text.
    serde_json::from_str(text.map_err(|_| broken())?.expose()).map_err(|_| broken())
}

pub(crate) fn seal(cx: &Ctx, ops: &Ops, key: ConnectionKey<'_>, credentials: &Credentials) -> Result<String> {
    let text = serde_json::to_string(credentials).map_err(|_| Error::internal("tokens cannot be written as JSON"))?;
    Ok(ops.keyring()?.seal(&location(&row_id(key)), text.as_bytes(), &*cx.random))
}

/// Returns the time at which tokens are refreshed: five minutes before they expire, or after half of a shorter lifetime.
pub(crate) fn refresh_time(now: Timestamp, tokens: &Tokens) -> Option<Timestamp> {
    let expires_at = tokens.expires_at.filter(|_| tokens.refresh_token.is_some())?;
    Some(expires_at.plus(-REFRESH_AHEAD_MS).max(now.plus(expires_at.since(now) / 2)))
}

/// Returns the error for a connection that does not exist.
pub(crate) fn not_connected(message: &str) -> Error {
    Error::new(Code::Conflict, message).with("reason", "not_connected")
}

/// Whether an error concerns only the account of a connection, and so says nothing about the server.
pub(crate) fn is_account_error(error: &Error) -> bool {
    matches!(error.reason(), Some("not_connected" | "unauthorized" | INSUFFICIENT_SCOPE))
}

/// Returns the agent whose connection authorizes a request of `agent`: `agent`, or `None` if the instance has one connection
/// for all agents, or needs none.
///
/// # Errors
/// `conflict` (`reason` is `not_connected`) if each agent needs a connection and the request has no agent.
pub(crate) fn owner<'a>(instance: &Instance, agent: Option<&'a AgentId>) -> Result<Option<&'a AgentId>> {
    match (instance.is_connected_per_agent(), agent) {
        (false, _) => Ok(None),
        (true, Some(agent)) => Ok(Some(agent)),
        (true, None) => Err(not_connected(NO_AGENT)),
    }
}

/// Reads from the server of an instance with the connection of the organisation or, if each agent has its own, with
/// those of several agents in turn, until the server accepts an account.
///
/// # Errors
/// `conflict` (`reason` is `not_connected`) if no agent is connected; otherwise those of `read`.
pub(crate) async fn read_as_any<'a, T>(
    ops: &Ops,
    instance: &Instance,
    read: impl Fn(Option<AgentId>) -> BoxFuture<'a, Result<T>>,
) -> Result<T> {
    let mut agents = list_definition_agents(ops, instance).await?.into_iter().peekable();
    while let Some(agent) = agents.next() {
        match read(agent).await {
            Err(error) if is_account_error(&error) && agents.peek().is_some() => {}
            result => return result,
        }
    }
    Err(not_connected(NO_AGENT_CONNECTED))
}

/// Returns the agents with whose connections the definitions of an instance can be read, in order of preference;
/// `[None]` if the instance has one connection for all agents, or needs none.
async fn list_definition_agents(ops: &Ops, instance: &Instance) -> Result<Vec<Option<AgentId>>> {
    if !instance.is_connected_per_agent() {
        return Ok(vec![None]);
    }
    let mut conn = ops.store.read().await?;
    let agents =
        store::list_definition_agents(&mut conn, &instance.organization_id, &instance.id, DEFINITION_AGENTS).await?;
    Ok(agents.into_iter().map(Some).collect())
}

/// Returns the revision of the tokens of an agent.
///
/// # Errors
/// `conflict` (`reason` is `not_connected`) if the agent is not connected.
pub(crate) async fn find_revision(ops: &Ops, instance: &Instance, agent: &AgentId) -> Result<i64> {
    let mut conn = ops.store.read().await?;
    let found = store::find_revision(&mut conn, &instance.organization_id, (&instance.id, Some(agent))).await?;
    found.ok_or_else(|| not_connected(AGENT_NOT_CONNECTED))
}

/// Returns the value of the header `Authorization` for requests to the server of an instance: that of the connection of
/// `agent`, or of the organisation's connection if `agent` is `None`.
///
/// # Errors
/// `conflict` (`reason` is `not_connected`) if there is no such connection, or it has failed; `internal` if its tokens
/// cannot be opened, or the instance has no such connections.
pub(crate) async fn find_bearer(ops: &Ops, instance: &Instance, agent: Option<&AgentId>) -> Result<Bearer> {
    if instance.is_connected_per_agent() != agent.is_some() {
        return Err(Error::internal("the token of another kind of connection was requested"));
    }
    let mut conn = ops.store.read().await?;
    let found = store::find(&mut conn, &instance.organization_id, (&instance.id, agent)).await?;
    let found = found.filter(|connection| connection.failed_at.is_none());
    let missing = if agent.is_some() { AGENT_NOT_CONNECTED } else { NOT_CONNECTED };
    let connection = found.ok_or_else(|| not_connected(missing))?;
    let credentials = open(ops, &connection)?;
    let value = HeaderValue::try_from(format!("Bearer {}", credentials.access_token));
    let mut value = value.map_err(|_| Error::internal("a token cannot be the value of a header"))?;
    value.set_sensitive(true);
    Ok(Bearer { value, revision: connection.revision })
}

/// Returns the secrets of the connections that a request of `agent` can use.
///
/// # Errors
/// `internal` if they cannot be opened; any error of the store.
pub(crate) async fn list_secrets(
    ops: &Ops,
    conn: &mut Conn,
    instance: &Instance,
    agent: &AgentId,
) -> Result<Vec<SecretText>> {
    let agent = instance.is_connected_per_agent().then_some(agent);
    let Some(connection) = store::find(conn, &instance.organization_id, (&instance.id, agent)).await? else {
        return Ok(Vec::new());
    };
    let Credentials { client, access_token, refresh_token, .. } = open(ops, &connection)?;
    let secrets = [Some(access_token), refresh_token, client.client_secret];
    Ok(secrets.into_iter().flatten().map(SecretText::new).collect())
}

/// Returns whether a locked remote server that requires OAuth has to wait for a connection instead of being checked. If
/// so, changes `health` of `instance`, which the caller writes.
///
/// # Errors
/// Any error of the store.
pub(crate) async fn await_connection(cx: &Ctx, tx: &mut Tx, instance: &mut Instance) -> Result<bool> {
    let (organization, id) = (&instance.organization_id, &instance.id);
    let is_per_agent = instance.is_connected_per_agent();
    let is_connected = match is_per_agent {
        true => !store::list_definition_agents(tx, organization, id, 1).await?.is_empty(),
        false => store::find(tx, organization, (id, None)).await?.is_some(),
    };
    if !is_connected {
        instance.health = Some(unhealthy(cx, if is_per_agent { NO_AGENT_CONNECTED } else { NOT_CONNECTED }));
    }
    Ok(!is_connected)
}

fn unhealthy(cx: &Ctx, message: &str) -> Health {
    Health { ok: false, checked_at: cx.now().0, latency_ms: None, message: Some(message.to_owned()) }
}

/// Ends a connection that the authorization server has rejected. The connection of an agent is marked as failed, which
/// affects no other agent. That of the organisation is deleted, and the instance has failed until it is connected
/// again.
///
/// # Errors
/// Any error of the store.
async fn end(cx: &Ctx, ops: &Ops, rejected: &RemoteConnection) -> Result<()> {
    let (organization, id) = (&rejected.organization_id, &rejected.instance_id);
    let mut tx = ops.store.begin().await?;
    toolbox::lock_organization(&mut tx, organization).await?;
    let is_ended = match &rejected.agent_id {
        Some(_) => store::fail_rejected(&mut tx, rejected, cx.now()).await?,
        None => store::delete_rejected(&mut tx, rejected).await?,
    };
    if !is_ended {
        return Ok(());
    }
    let Some(mut current) = instance::find(&mut tx, organization, id).await? else { return Ok(tx.commit().await?) };
    if rejected.agent_id.is_none() {
        let previous = current.state;
        if previous != InstanceState::Stopped {
            current.state = InstanceState::Failed;
        }
        current.health = Some(unhealthy(cx, ENDED));
        current.restarts += 1;
        instance::update(&mut tx, &current).await?;
        remote_server::suspend_checks(&mut tx, organization, id).await?;
        if current.state != previous {
            state_changed(cx, &mut tx, &current, previous, Some(ENDED)).await?;
        }
        tx.bump_config_version(organization).await?;
    }
    let detail = json!({ "slug": current.slug, "issuer": rejected.issuer, "agent_id": rejected.agent_id });
    record(cx, &mut tx, organization, Entry { action: "instance.connection_end", target: id.as_str(), detail }).await?;
    Ok(tx.commit().await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_refreshed_five_minutes_before_they_expire() {
        let tokens = |lifetime: Option<i64>, refresh: Option<&str>| Tokens {
            access_token: "a".to_owned(),
            refresh_token: refresh.map(str::to_owned),
            expires_at: lifetime.map(|lifetime| Timestamp(1_000 + lifetime)),
        };
        let at = |lifetime, refresh| refresh_time(Timestamp(1_000), &tokens(lifetime, refresh)).map(|at| at.0 - 1_000);
        assert_eq!(at(Some(3_600_000), Some("r")), Some(3_300_000));
        assert_eq!(at(Some(400_000), Some("r")), Some(200_000), "never at once");
        assert_eq!(at(Some(3_600_000), None), None);
        assert_eq!(at(None, Some("r")), None);
    }
}
