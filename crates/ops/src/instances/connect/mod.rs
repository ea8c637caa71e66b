//! Connections of instances to remote servers that require OAuth (MCP 2025-11-25 and 2026-07-28, "Authorization"). There
//! is one connection per instance, which all agents of the organisation share, or one per agent.
//!
//! 1. A user starts a connection ([`begin`], [`begin_own`]): the metadata of the resource and of its authorization
//!    server is discovered, Waypost becomes a client, and the user's browser is sent to the authorization server.
//! 2. The authorization server sends the browser back to [`CALLBACK_PATH`], where [`finish`] exchanges the code for
//!    tokens. Then the server is checked like any other.
//!
//! Invariants:
//! 1. A state works once, for ten minutes, and only for the user who has started the connection.
//! 2. Nothing that the server or its authorization server states is used before it has been verified: the resource
//!    covers the URL of the instance (RFC 9728, 3.3), the metadata is that of the issuer (RFC 8414, 3.3), S256 is
//!    supported, and the response is from the issuer (RFC 9207).
//! 3. A connection is made for the agent for which it was started: by its person, or by an admin for a service ([`owner`]). This
//!    is checked when it is started and again when it is finished.
//! 4. Every request goes through the guarded client, without redirects, and with limits on size and time.

mod discovery;
mod list;
mod own;
mod owner;
mod registration;

use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use url::Url;
use waypost_core::access::{Operation, authorize, authorize_user};
use waypost_core::caller::Ctx;
use waypost_core::id::{AgentId, InstanceId, OrganizationId, UserId};
use waypost_core::instance::{Backend, Instance};
use waypost_core::seal::SealLocation;
use waypost_core::secret::hash;
use waypost_core::{Code, Error, Result, Timestamp};
use waypost_outbound::Purpose;
use waypost_store::instance as store;
use waypost_store::remote_connection::{self, RemoteConnection};
use waypost_store::remote_connection_request::{self as request_store, RemoteConnectionRequest};
use waypost_store::remote_server;
use waypost_toolbox_proto::instance::InstanceState;

pub use self::list::{AgentConnection, disconnect, list};
pub use self::own::{OwnConnection, begin_own, disconnect_own, find_own};
use self::owner::{Owner, authorize_owner, check_owner};
pub use self::registration::{CALLBACK_PATH, CLIENT_DOCUMENT_PATH, client_document};
use super::{lock, not_found, remote};
use crate::Ops;
use crate::audit::{Entry, record};
use crate::checks::require_user;
use crate::remote_servers::{read_headers, read_url};
pub use crate::remote_tokens::{AGENT_NOT_CONNECTED, NO_AGENT_CONNECTED, NOT_CONNECTED};
use crate::remote_tokens::{Credentials, Grant, OauthClient, TokenError, refresh_time, request_tokens, seal};
use crate::remote_tokens::{find_client_credentials, find_revision, find_wanted_scope, revoke, union_scopes};

/// The time that a user has to authorize a connection, in milliseconds.
pub const LIFETIME_MS: i64 = 10 * 60 * 1_000;
/// The maximum time of discovery and registration.
const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(30);
/// The number of random bytes in a state and a verifier.
const RANDOM_BYTES: usize = 32;
/// The maximum length of the parameters of a response in bytes.
const MAX_PARAMETER: usize = 4_096;

/// A connection that was started.
#[derive(Debug, Clone)]
pub struct StartedConnection {
    /// The URL at the authorization server to which the browser of the user is sent.
    pub url: Url,
    /// The issuer of the authorization server.
    pub issuer: String,
    /// When the state expires.
    pub expires_at: Timestamp,
}

/// A connection that was finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinishedConnection {
    /// The ID of the instance.
    pub instance_id: InstanceId,
    /// The slug of the instance.
    pub slug: String,
    /// The owner of the connection.
    pub owner: ConnectionOwner,
}

/// The owner of a connection that was finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionOwner {
    /// The organisation.
    Organization,
    /// A service.
    Service,
    /// The person who has finished it.
    Person,
}

/// The connection of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionView {
    /// The issuer of the authorization server.
    pub issuer: String,
    /// When the instance was connected.
    pub connected_at: Timestamp,
    /// When the access token expires; `None` if this is unknown.
    pub expires_at: Option<Timestamp>,
    /// Whether the access token can be refreshed.
    pub is_refreshed: bool,
    /// The scope that the server requires and the connection lacks. `None` if none is known.
    pub required_scope: Option<String>,
}

/// An authorization response (RFC 6749, section 4.1.2; RFC 9207, section 2).
#[derive(Debug, Clone, Default)]
pub struct AuthorizationResponse {
    /// The state.
    pub state: String,
    /// The code.
    pub code: Option<String>,
    /// The issuer.
    pub iss: Option<String>,
    /// The error code.
    pub error: Option<String>,
}

/// The stored state of a connection that was started. Has no `Debug`, because of the secrets.
#[derive(Serialize, Deserialize)]
struct PendingConnection {
    client: OauthClient,
    resource: String,
    /// The requested scope.
    #[serde(default)]
    scope: Option<String>,
    issuer: String,
    /// Whether the authorization server states the issuer in every response.
    has_iss: bool,
    verifier: String,
    redirect_uri: String,
}

fn location(state_hash: &str) -> SealLocation<'_> {
    SealLocation { table: "remote_connection_requests", column: "request", row: state_hash }
}

/// Returns the user who calls an operation.
///
/// # Errors
/// `conflict` (`reason` is `user_required`) for API keys and the operator, which cannot finish a connection.
fn user_of(cx: &Ctx) -> Result<UserId> {
    require_user(cx, "Only a user who is signed in to the console can connect the instance, on its page there.")
}

fn check_oauth(instance: &Instance) -> Result<()> {
    match &instance.backend {
        Backend::Remote(server) if server.is_oauth => Ok(()),
        _ => {
            let message = "This instance does not use OAuth, so there is nothing to connect.";
            Err(Error::new(Code::Conflict, message).with("reason", "not_oauth"))
        }
    }
}

/// Returns the connection of the organisation; `None` if the instance is not connected, or each agent has its own connection.
///
/// # Errors
/// `not_found` if the instance does not exist or the caller cannot access it.
pub async fn find(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &InstanceId,
) -> Result<Option<ConnectionView>> {
    ops.authorize_toolboxes(cx, Operation::InstanceRead, organization)?;
    let mut conn = ops.store.read().await?;
    if store::find(&mut conn, organization, id).await?.is_none() {
        return Err(not_found());
    }
    let found = remote_connection::find(&mut conn, organization, (id, None)).await?;
    Ok(found.map(|connection| ConnectionView {
        issuer: connection.issuer,
        connected_at: connection.connected_at,
        expires_at: connection.expires_at,
        is_refreshed: connection.refresh_at.is_some(),
        required_scope: connection.required_scope,
    }))
}

/// Checks that an agent is connected to the server of an instance, if each agent needs its own connection. The caller has been
/// authorized.
///
/// # Errors
/// `conflict` (`reason` is `not_connected`) if it is not.
pub async fn check_connected(ops: &Ops, instance: &Instance, agent: &AgentId) -> Result<()> {
    match instance.is_connected_per_agent() {
        true => find_revision(ops, instance, agent).await.map(drop),
        false => Ok(()),
    }
}

/// Starts a connection of an instance for the calling user: that of the organisation, or that of the service `agent` if
/// each agent has its own. `origin` is the public origin of this installation.
///
/// # Errors
/// `not_found` if the instance or the agent does not exist or the caller cannot access it; `forbidden` for members
/// below admin; `conflict` if the caller is not a user (`reason` is `user_required`), the instance does not use OAuth
/// (`not_oauth`), or `agent` is missing (`agent_required`), is not allowed (`not_per_agent`) or belongs to a person
/// (`person_required`); `tool_server_error` if the server or its authorization server cannot be used: `reason` is
/// `unreachable`, `redirect`, `no_metadata`, `invalid_metadata`, `resource_mismatch`, `issuer_mismatch`, `no_pkce`,
/// `no_registration`, `registration_failed` or `auth_method`.
pub async fn begin(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &InstanceId,
    (agent, origin): (Option<&AgentId>, &str),
) -> Result<StartedConnection> {
    ops.authorize_toolbox_use(cx, Operation::InstanceWrite, organization).await?;
    let mut conn = ops.store.read().await?;
    let found = store::find(&mut conn, organization, id).await?;
    let instance = found.filter(|instance| !instance.is_removing).ok_or_else(not_found)?;
    check_oauth(&instance)?;
    let owner = owner::find_owner(&mut conn, &instance, agent).await?;
    drop(conn);
    start(cx, ops, (&instance, &owner), origin).await
}

/// Discovers the authorization server, and stores the state of a connection. The caller has been authorized to connect
/// `owner`.
async fn start(cx: &Ctx, ops: &Ops, (instance, owner): (&Instance, &Owner), origin: &str) -> Result<StartedConnection> {
    let (organization, user_id) = (&instance.organization_id, user_of(cx)?);
    let route = ops.route(Purpose::Tools, organization).await?;
    let (url, headers) = (read_url(ops, instance)?, read_headers(ops, instance).await?);
    let key = (&instance.id, owner.agent_id());
    let mut conn = ops.store.read().await?;
    let wanted = find_wanted_scope(ops, &mut conn, organization, key).await?;
    let registered = find_client_credentials(ops, &mut conn, instance).await?;
    drop(conn);
    let discover = async {
        let mut server = discovery::discover(&route, &url, headers).await?;
        server.scope = union_scopes(&[wanted.as_deref(), server.scope.as_deref()]);
        let client = registration::find_client(&route, &server, (registered, origin)).await?;
        Ok::<_, Error>((server, client))
    };
    let (server, client) = tokio::time::timeout(DISCOVERY_TIMEOUT, discover)
        .await
        .unwrap_or_else(|_| Err(discovery::failure("unreachable", "The servers did not respond in time.")))?;
    let (state, verifier) = (random_text(cx), random_text(cx));
    let redirect_uri = format!("{origin}{CALLBACK_PATH}");
    let target = authorization_url(&server, &client.client_id, (&redirect_uri, &state, &verifier));
    let pending = PendingConnection {
        client,
        resource: server.resource,
        scope: server.scope,
        issuer: server.issuer.clone(),
        has_iss: server.has_iss,
        verifier,
        redirect_uri,
    };
    let text =
        serde_json::to_string(&pending).map_err(|_| Error::internal("a connection cannot be written as JSON"))?;
    let (state_hash, now) = (hash(&state), cx.now());
    let row = RemoteConnectionRequest {
        request: ops.keyring()?.seal(&location(&state_hash), text.as_bytes(), &*cx.random),
        state_hash,
        organization_id: organization.clone(),
        instance_id: instance.id.clone(),
        agent_id: owner.agent_id().cloned(),
        user_id,
        generation: instance.generation.cast_signed(),
        created_at: now,
        expires_at: now.plus(LIFETIME_MS),
    };
    let mut tx = ops.store.begin().await?;
    lock(&mut tx, organization, &instance.id).await?;
    request_store::replace(&mut tx, &row).await?;
    tx.commit().await?;
    Ok(StartedConnection { url: target, issuer: server.issuer, expires_at: row.expires_at })
}

fn random_text(cx: &Ctx) -> String {
    let mut bytes = [0_u8; RANDOM_BYTES];
    cx.random.fill(&mut bytes);
    BASE64URL_NOPAD.encode(&bytes)
}

/// Returns the URL of the authorization request (RFC 6749, section 4.1.1; RFC 7636; RFC 8707).
fn authorization_url(
    server: &discovery::AuthorizationServer,
    client_id: &str,
    (redirect_uri, state, verifier): (&str, &str, &str),
) -> Url {
    let mut url = server.authorization_endpoint.clone();
    let challenge = BASE64URL_NOPAD.encode(&Sha256::digest(verifier.as_bytes()));
    url.query_pairs_mut()
        .append_pair("response_type", "code")
        .append_pair("client_id", client_id)
        .append_pair("redirect_uri", redirect_uri)
        .append_pair("state", state)
        .append_pair("code_challenge", &challenge)
        .append_pair("code_challenge_method", "S256")
        .append_pair("resource", &server.resource);
    if let Some(scope) = &server.scope {
        url.query_pairs_mut().append_pair("scope", scope);
    }
    url
}

/// Returns the organisation of a connection that the calling user has started.
///
/// # Errors
/// `forbidden` unless the caller is a user; `not_found` if the state is unknown, used, expired or another user's.
pub async fn find_organization(cx: &Ctx, ops: &Ops, state: &str) -> Result<OrganizationId> {
    let user = authorize_user(&cx.caller)?;
    let mut conn = ops.store.read().await?;
    let found = request_store::find_organization(&mut conn, user, &hash(state), cx.now()).await?;
    found.ok_or_else(unknown_state)
}

fn unknown_state() -> Error {
    Error::not_found("connection")
}

/// Finishes a connection with the response of the authorization server. The state is used up, whatever the result.
///
/// # Errors
/// `not_found` if the state is unknown, used, expired or another user's, or the instance or the agent no longer exists;
/// `forbidden` for members below admin, except for the connection of their own agent; `conflict` if the user has denied
/// the request (`reason` is `denied`) or the instance has been changed since (`changed`); `tool_server_error` if the
/// response is from another issuer (`issuer_mismatch`), or there are no tokens (`no_tokens`).
pub async fn finish(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    response: &AuthorizationResponse,
) -> Result<FinishedConnection> {
    ops.authorize_toolbox_use(cx, Operation::InstanceConnect, organization).await?;
    let (user, state_hash) = (user_of(cx)?, hash(&response.state));
    let mut tx = ops.store.begin().await?;
    let row = request_store::consume(&mut tx, organization, &user, &state_hash, cx.now()).await?;
    tx.commit().await?;
    let row = row.ok_or_else(unknown_state)?;
    authorize_owner(cx, ops, organization, row.agent_id.as_ref()).await?;
    let text = ops.keyring()?.open_text(&location(&state_hash), &row.request).map_err(Error::internal)?;
    let pending: PendingConnection =
        serde_json::from_str(text.expose()).map_err(|_| Error::internal("a started connection cannot be read"))?;
    check_scope(ops, &row, &pending, response).await?;
    let code = check_response(&pending, response)?;
    let route = ops.route(Purpose::Tools, organization).await?;
    let grant = Grant::Code { code, redirect_uri: &pending.redirect_uri, verifier: &pending.verifier };
    let now = cx.now();
    let tokens = request_tokens(&route, &pending.client, grant, (&pending.resource, now)).await;
    let tokens = tokens.map_err(|error| no_tokens(&error))?;
    let refresh_at = refresh_time(now, &tokens);
    let credentials = Credentials {
        client: pending.client,
        resource: pending.resource,
        scope: pending.scope,
        access_token: tokens.access_token,
        refresh_token: tokens.refresh_token,
    };
    let connection = RemoteConnection {
        credentials: seal(cx, ops, (&row.instance_id, row.agent_id.as_ref()), &credentials)?,
        instance_id: row.instance_id,
        agent_id: row.agent_id,
        organization_id: organization.clone(),
        issuer: pending.issuer,
        revision: now.0,
        expires_at: tokens.expires_at,
        refresh_at,
        failed_at: None,
        is_by_admin: authorize(&cx.caller, Operation::InstanceWrite, organization).is_ok(),
        connected_by: user.to_string(),
        connected_at: now,
        updated_at: now,
        required_scope: None,
    };
    let stored = store_connection(cx, ops, &connection, row.generation).await;
    if stored.is_err() {
        // Nobody would use these tokens.
        revoke(ops, vec![connection]).await;
    }
    stored
}

fn no_tokens(error: &TokenError) -> Error {
    discovery::failure("no_tokens", format!("The server cannot be connected: {error}. Connect again."))
}

/// Fails if the authorization server has rejected the scope of a request. The scope that calls have required is then
/// forgotten: every further connection would request it, and would be rejected too.
async fn check_scope(
    ops: &Ops,
    row: &RemoteConnectionRequest,
    pending: &PendingConnection,
    response: &AuthorizationResponse,
) -> Result<()> {
    if response.error.as_deref() != Some("invalid_scope") || !is_from_issuer(pending, response) {
        return Ok(());
    }
    let key = (&row.instance_id, row.agent_id.as_ref());
    let mut tx = ops.store.begin().await?;
    let is_forgotten = remote_connection::forget_required_scope(&mut tx, &row.organization_id, key).await?;
    tx.commit().await?;
    let message = match is_forgotten {
        true => {
            "The authorization server rejected the scope. The scope that calls have required is no longer asked for. Connect again."
        }
        false => "The authorization server rejected the scope that the server states.",
    };
    Err(Error::new(Code::Conflict, message).with("reason", "denied"))
}

/// Whether a response is from the authorization server to which the browser was sent (RFC 9207, section 2.4).
fn is_from_issuer(pending: &PendingConnection, response: &AuthorizationResponse) -> bool {
    match &response.iss {
        Some(iss) => *iss == pending.issuer,
        None => !pending.has_iss,
    }
}

/// Returns the code of a successful response that is from the right issuer.
fn check_response<'a>(pending: &PendingConnection, response: &'a AuthorizationResponse) -> Result<&'a str> {
    // This check comes first: a response of another server must not be processed (RFC 9207, section 2.4).
    if !is_from_issuer(pending, response) {
        let message = "The response is not from the authorization server of this instance. Connect again.";
        return Err(discovery::failure("issuer_mismatch", message));
    }
    if let Some(error) = &response.error {
        let message = match error.as_str() {
            "access_denied" => "The connection was denied at the authorization server.",
            _ => "The authorization server rejected the connection.",
        };
        return Err(Error::new(Code::Conflict, format!("{message} Connect again.")).with("reason", "denied"));
    }
    let code = response.code.as_deref().filter(|code| (1..=MAX_PARAMETER).contains(&code.len()));
    code.ok_or_else(|| discovery::failure("no_tokens", "The authorization server sent no code. Connect again."))
}

/// Stores a connection. The server is then checked if the connection is that of the organisation, or if the server has
/// not answered yet.
async fn store_connection(
    cx: &Ctx,
    ops: &Ops,
    connection: &RemoteConnection,
    generation: i64,
) -> Result<FinishedConnection> {
    let (organization, id) = (&connection.organization_id, &connection.instance_id);
    let mut tx = ops.store.begin().await?;
    let mut instance = lock(&mut tx, organization, id).await?;
    if check_oauth(&instance).is_err() || instance.generation.cast_signed() != generation {
        let message = "The instance has been changed since the connection was started. Connect again.";
        return Err(Error::new(Code::Conflict, message).with("reason", "changed"));
    }
    // The grant or the agent may have been deleted while the tokens were requested.
    let owner = check_owner(cx, &mut tx, &instance, connection.agent_id.as_ref()).await?;
    remote_connection::upsert(&mut tx, connection).await?;
    match connection.agent_id {
        // A server that has not answered yet is checked at once. The checks of others are not disturbed.
        Some(_) if matches!(instance.state, InstanceState::Deploying | InstanceState::Failed) => {
            remote_server::reset_checks(&mut tx, organization, id).await?;
        }
        Some(_) => {}
        None => {
            // Every process needs a new session, because its current one uses the former token.
            instance.restarts += 1;
            instance.updated_at = cx.now();
            remote::restart_checks(cx, &mut tx, &mut instance).await?;
        }
    }
    record_connection(cx, &mut tx, &instance, ("instance.connect", connection)).await?;
    tx.bump_config_version(organization).await?;
    tx.commit().await?;
    Ok(FinishedConnection { instance_id: instance.id, slug: instance.slug, owner: owner.kind() })
}

/// Records that a connection was made or ended.
async fn record_connection(
    cx: &Ctx,
    tx: &mut waypost_store::Tx,
    instance: &Instance,
    (action, connection): (&'static str, &RemoteConnection),
) -> Result<()> {
    let detail = json!({ "slug": instance.slug, "issuer": connection.issuer, "agent_id": connection.agent_id });
    record(cx, tx, &instance.organization_id, Entry { action, target: instance.id.as_str(), detail }).await
}
