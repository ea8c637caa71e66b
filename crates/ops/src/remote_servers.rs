//! Connections to remote servers ([`waypost_core::instance::RemoteServer`]). Each process has one for each instance,
//! which all callers share; for a server with a handshake, it has one for each set of capabilities that callers
//! declare. If each agent has its own OAuth connection to the server, each agent also has its own of these connections,
//! with its own session.
//!
//! Invariants:
//! 1. A new connection uses the stored URL and secrets, even if its caller has read the instance before they changed. A
//!    caller that has read a newer generation of the instance than the connection uses gets a new one.
//! 2. At most one attempt to connect to a server is running, and all calls that wait for it use its outcome: a dead server
//!    delays a call by at most one attempt.
//! 3. Neither the URL nor a header is part of an error or of a log line.
//! 4. A token that the server rejects is replaced once ([`crate::remote_tokens`]), by one of the calls that have failed
//!    because of it.
//! 5. A connection with the token of an agent is kept under the ID of this agent, and is used only for its calls, and to read
//!    the definitions of the server. It is used only while the agent is connected: the revision of its token is read before
//!    each call, in every process.
//! 6. A connection that is lost is dropped only if it was not replaced in the meantime.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use moka::sync::Cache;
use tokio::time::Instant;
use url::Url;
use waypost_core::catalog::Source;
use waypost_core::id::{AgentId, InstanceId};
use waypost_core::instance::{Backend, Instance};
use waypost_core::seal::SealLocation;
use waypost_core::{Code, Error, Result};
use waypost_mcp_wire::client_capabilities::ClientCapabilities;
use waypost_outbound::Purpose;
use waypost_store::{instance, instance_source};
use waypost_toolbox_proto::entry::Transport;
use waypost_upstream::{Connection, ConnectionOptions, Error as UpstreamError, Identity, Limits, Protocol, Redirects};

use crate::Ops;
use crate::remote_endpoint::expand_headers;
use crate::remote_tokens::{INSUFFICIENT_SCOPE, LACKS_SCOPE, find_required_scope, insufficient, require_scope};
use crate::remote_tokens::{find_bearer, find_revision, owner, refresh_rejected};

/// The time limit of one attempt to connect.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The time in which a server must answer the first request of 2026-07-28; after that, the older handshake is tried.
const DISCOVER_TIMEOUT: Duration = Duration::from_secs(2);
/// The time for which the error of a failed attempt is also returned to other calls.
const FAILURE_AGE: Duration = Duration::from_secs(1);
/// The maximum number of connections of a process that are kept, of all instances and agents, and the time after which one
/// that is not used is dropped.
const CONNECTIONS: (u64, Duration) = (1_000, Duration::from_secs(300));

/// Returns the location to which the URL of a remote server is sealed.
pub(crate) fn url_location(id: &InstanceId) -> SealLocation<'_> {
    SealLocation { table: "instances", column: "remote_url", row: id.as_str() }
}

/// The connections of a process. All clones share them.
#[derive(Clone)]
pub(crate) struct RemoteServers(Cache<Key, Arc<Server>>);

/// An instance, the agent if each has its own connection, and the client capabilities.
type Key = (InstanceId, Option<AgentId>, ClientCapabilities);

/// The agent whose connection a call uses, and the client capabilities that are declared on it. The agent is ignored
/// unless each agent has its own connection.
pub(crate) type Session<'a> = (Option<&'a AgentId>, ClientCapabilities);

impl std::fmt::Debug for RemoteServers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteServers").finish_non_exhaustive()
    }
}

impl Default for RemoteServers {
    fn default() -> Self {
        let (number, idle) = CONNECTIONS;
        Self(Cache::builder().max_capacity(number).time_to_idle(idle).build())
    }
}

/// The generation and the number of restarts of an instance. One of them increases when its URL or its secrets change,
/// or a new session is needed.
type Configuration = (u64, u64);

/// The configuration of an instance, and the revision of the agent's token: those that a caller has read, or that an
/// attempt has used.
type Versions = (Configuration, Option<i64>);

fn configuration(instance: &Instance) -> Configuration {
    (instance.generation, instance.restarts)
}

/// The connection to a server, and the attempts to connect.
#[derive(Default)]
struct Server {
    open: Mutex<Option<OpenConnection>>,
    /// Held during an attempt to connect. Contains the last attempt if it has failed.
    attempt: tokio::sync::Mutex<Option<FailedAttempt>>,
}

/// A failed attempt to connect, with the configuration and the revision of the token that it used.
struct FailedAttempt {
    used: Versions,
    at: Instant,
    error: Error,
}

/// A connection with the configuration and the revision of the token that it uses.
struct OpenConnection {
    configuration: Configuration,
    connection: Connection,
    /// `None` if the server does not require OAuth.
    token: Option<i64>,
}

impl OpenConnection {
    fn is_as_new_as(&self, (configuration, revision): Versions) -> bool {
        self.configuration >= configuration && (revision.is_none() || self.token >= revision)
    }
}

impl FailedAttempt {
    /// Returns the error if the attempt applies to a caller that arrived at `arrived`.
    fn find_error(&self, minimum: Versions, arrived: Instant) -> Option<Error> {
        let is_as_new = self.used.0 >= minimum.0 && self.used.1 >= minimum.1;
        let applies = is_as_new && (self.at >= arrived || self.at.elapsed() < FAILURE_AGE);
        applies.then(|| self.error.without_cause())
    }
}

impl Server {
    fn open(&self) -> MutexGuard<'_, Option<OpenConnection>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the connection if it is at least as new as `minimum`, which the caller has read.
    fn find(&self, minimum: Versions) -> Option<Connection> {
        let open = self.open();
        open.as_ref().filter(|open| open.is_as_new_as(minimum)).map(|open| open.connection.clone())
    }

    /// Returns the revision of the token of a connection; `None` if it was replaced, or the server does not require OAuth.
    fn find_token(&self, connection: &Connection) -> Option<i64> {
        let open = self.open();
        open.as_ref().filter(|open| open.connection.is_same(connection)).and_then(|open| open.token)
    }

    /// Drops a connection, unless it was replaced already.
    fn forget(&self, connection: &Connection) {
        self.open().take_if(|open| open.connection.is_same(connection));
    }
}

impl RemoteServers {
    fn server(&self, instance: &Instance, (agent, capabilities): Session<'_>) -> Arc<Server> {
        self.0.get_with((instance.id.clone(), agent.cloned(), capabilities), Arc::default)
    }

    /// Returns the connection to the server of an instance for these callers, and connects if there is none.
    ///
    /// # Errors
    /// Those of [`to_error`]; `conflict` (`reason` is `not_connected`) if the agent needs an OAuth connection and has none;
    /// `not_found` if the instance was deleted; `internal` if it is not a remote server, or a secret cannot be opened.
    pub(crate) async fn connect(
        &self,
        ops: &Ops,
        instance: &Instance,
        (agent, capabilities): Session<'_>,
    ) -> Result<Connection> {
        let arrived = Instant::now();
        let agent = owner(instance, agent)?;
        let revision = match agent {
            Some(agent) => Some(find_revision(ops, instance, agent).await?),
            None => None,
        };
        let minimum = (configuration(instance), revision);
        let server = self.server(instance, (agent, capabilities));
        let mut failed = server.attempt.lock().await;
        if let Some(connection) = server.find(minimum) {
            return Ok(connection);
        }
        if let Some(error) = failed.as_ref().and_then(|failed| failed.find_error(minimum, arrived)) {
            return Err(error);
        }
        // The caller may have read the instance before its last change.
        let current = Box::pin(find_current(ops, instance)).await?;
        if current.is_connected_per_agent() != instance.is_connected_per_agent() {
            let message = "The connection of the instance was changed meanwhile. Try again.";
            return Err(Error::new(Code::Conflict, message).with("reason", "not_running"));
        }
        match Box::pin(open(ops, &current, (agent, capabilities))).await {
            Ok(open) => {
                let connection = open.connection.clone();
                *server.open() = Some(open);
                *failed = None;
                Ok(connection)
            }
            Err(error) => {
                let used = (configuration(&current), revision);
                *server.open() = None;
                *failed = Some(FailedAttempt { used, at: Instant::now(), error: error.without_cause() });
                Err(error)
            }
        }
    }

    /// Replaces a connection whose token the server has rejected, after a refresh of the token. Returns `None` if the
    /// server does not require OAuth.
    ///
    /// # Errors
    /// Those of [`Self::connect`]; `tool_server_error` (`reason` is `unauthorized`) if there is no other token.
    pub(crate) async fn reconnect(
        &self,
        ops: &Ops,
        instance: &Instance,
        (agent, capabilities): Session<'_>,
        rejected: &Connection,
    ) -> Result<Option<Connection>> {
        if !is_oauth(instance) {
            return Ok(None);
        }
        let agent = owner(instance, agent)?;
        let server = self.server(instance, (agent, capabilities));
        {
            let _attempt = server.attempt.lock().await;
            // Another call may have replaced the connection already.
            if let Some(revision) = server.find_token(rejected) {
                refresh_rejected(ops, instance, agent, revision).await?;
                server.forget(rejected);
            }
        }
        self.connect(ops, instance, (agent, capabilities)).await.map(Some)
    }

    /// Replaces a connection whose token lacks a scope, if the token was replaced since the connection was opened, for example
    /// because a user has connected the instance again. Returns `None` if there is no other token.
    ///
    /// # Errors
    /// Those of [`Self::connect`].
    pub(crate) async fn find_newer(
        &self,
        ops: &Ops,
        instance: &Instance,
        (agent, capabilities): Session<'_>,
        rejected: &Connection,
    ) -> Result<Option<Connection>> {
        if !is_oauth(instance) {
            return Ok(None);
        }
        let agent = owner(instance, agent)?;
        let server = self.server(instance, (agent, capabilities));
        if let Some(used) = server.find_token(rejected) {
            if find_bearer(ops, instance, agent).await?.revision <= used {
                return Ok(None);
            }
            server.forget(rejected);
        }
        self.connect(ops, instance, (agent, capabilities)).await.map(Some)
    }

    /// Returns the error for a request for which the token of a connection lacks the scope `required`, and stores the
    /// scope, so that the next OAuth connection asks for it.
    pub(crate) async fn require_scope(
        &self,
        ops: &Ops,
        instance: &Instance,
        (agent, capabilities): Session<'_>,
        (rejected, required): (&Connection, &str),
    ) -> Error {
        let agent = match owner(instance, agent) {
            Ok(agent) => agent,
            Err(error) => return error,
        };
        let token = self.server(instance, (agent, capabilities)).find_token(rejected);
        match token {
            Some(revision) => require_scope(ops, instance, agent, (revision, required)).await,
            None => insufficient(LACKS_SCOPE),
        }
    }

    /// Returns the open connection without client capabilities to the server of an instance that all agents share. Does
    /// not connect; returns `None` if there is no such connection.
    pub(crate) fn find_open(&self, instance: &InstanceId) -> Option<Connection> {
        let server = self.0.get(&(instance.clone(), None, ClientCapabilities::default()))?;
        let open = server.open();
        open.as_ref().map(|open| open.connection.clone())
    }

    /// Drops a connection to the server of an instance that is lost, so that the next call connects again. Another call may
    /// have replaced it already: the new connection is kept.
    pub(crate) fn forget(&self, instance: &InstanceId, (agent, capabilities): Session<'_>, lost: &Connection) {
        if let Some(server) = self.0.get(&(instance.clone(), agent.cloned(), capabilities)) {
            server.forget(lost);
        }
    }
}

async fn find_current(ops: &Ops, instance: &Instance) -> Result<Instance> {
    let current = instance::find(&mut ops.store.read().await?, &instance.organization_id, &instance.id).await?;
    current.ok_or_else(|| Error::not_found("instance"))
}

fn is_oauth(instance: &Instance) -> bool {
    matches!(&instance.backend, Backend::Remote(server) if server.is_oauth)
}

/// Connects to a server. If it requires OAuth and rejects the token, connects once more with a new one. `agent` is the
/// one whose token is used, if each agent has its own.
async fn open(ops: &Ops, instance: &Instance, (agent, capabilities): Session<'_>) -> Result<OpenConnection> {
    let configuration = configuration(instance);
    if !is_oauth(instance) {
        let connection = open_with(ops, instance, (capabilities, None)).await?.map_err(|error| to_error(&error))?;
        return Ok(OpenConnection { configuration, connection, token: None });
    }
    let bearer = find_bearer(ops, instance, agent).await?;
    let mut token = bearer.revision;
    let mut opened = open_with(ops, instance, (capabilities, Some(bearer.value))).await?;
    if opened.as_ref().is_err_and(is_unauthorized) {
        refresh_rejected(ops, instance, agent, token).await?;
        let bearer = find_bearer(ops, instance, agent).await?;
        token = bearer.revision;
        opened = open_with(ops, instance, (capabilities, Some(bearer.value))).await?;
    }
    match opened {
        Ok(connection) => Ok(OpenConnection { configuration, connection, token: Some(token) }),
        Err(error) => Err(match find_required_scope(&error) {
            Some(required) => require_scope(ops, instance, agent, (token, &required)).await,
            None => to_error(&error),
        }),
    }
}

/// Makes one attempt to connect to a server. The inner error is the one of this attempt.
async fn open_with(
    ops: &Ops,
    instance: &Instance,
    (capabilities, bearer): (ClientCapabilities, Option<HeaderValue>),
) -> Result<Result<Connection, UpstreamError>> {
    let Backend::Remote(server) = &instance.backend else {
        return Err(Error::internal("a server in a container was called as a remote one"));
    };
    let mut headers = read_headers(ops, instance).await?;
    if let Some(bearer) = bearer {
        headers.insert(AUTHORIZATION, bearer);
    }
    let options = ConnectionOptions {
        url: read_url(ops, instance)?,
        route: ops.route(Purpose::Tools, &instance.organization_id).await?,
        headers,
        identity: Identity { name: "waypost", version: env!("CARGO_PKG_VERSION") },
        capabilities: capabilities.to_json(),
        accepts_requests: !capabilities.is_empty(),
        protocol: match server.transport {
            Transport::Sse => Protocol::Sse,
            Transport::Stdio | Transport::StreamableHttp => Protocol::StreamableHttp,
        },
        redirects: Redirects::Never,
        limits: Limits { discover_timeout: DISCOVER_TIMEOUT, ..Limits::default() },
        memory: ops.message_memory(&instance.organization_id),
    };
    let opened = tokio::time::timeout(CONNECT_TIMEOUT, Connection::open(options)).await;
    Ok(opened.unwrap_or(Err(UpstreamError::Timeout)))
}

/// Returns the URL of a remote server.
///
/// # Errors
/// `internal` if it cannot be opened, or the instance is not a remote server.
pub(crate) fn read_url(ops: &Ops, instance: &Instance) -> Result<Url> {
    let Backend::Remote(server) = &instance.backend else {
        return Err(Error::internal("a server in a container has no URL"));
    };
    let unreadable = |_| Error::internal(format!("the URL of the instance {} cannot be opened", instance.id));
    let url = ops.keyring()?.open_text(&url_location(&instance.id), &server.sealed_url).map_err(unreadable)?;
    Url::parse(url.expose()).map_err(|_| Error::internal("the URL of a remote server is invalid"))
}

/// Returns the headers of an instance: those of its catalogue version, and its secrets, each as the value of the header with
/// its name.
pub(crate) async fn read_headers(ops: &Ops, instance: &Instance) -> Result<HeaderMap> {
    let mut headers = read_version_headers(ops, instance).await?;
    let ids: Vec<_> = instance.secrets.iter().map(|used| &used.secret_id).collect();
    let sealed = instance_source::list_secrets(&mut ops.store.read().await?, &instance.organization_id, &ids).await?;
    for used in &instance.secrets {
        let missing = || Error::internal(format!("a secret of the instance {} cannot be opened", instance.id));
        let secret = sealed.iter().find(|secret| secret.id == used.secret_id.as_str()).ok_or_else(missing)?;
        let location = SealLocation { table: "tool_secrets", column: "value", row: &secret.id };
        let value = ops.keyring()?.open_text(&location, &secret.value).map_err(|_| missing())?;
        let name = HeaderName::try_from(&used.name).map_err(Error::internal)?;
        let mut value = HeaderValue::try_from(value.expose().trim()).map_err(|_| {
            let message = format!("The secret for the header `{name}` cannot be the value of a header.");
            Error::new(Code::Conflict, message).with("reason", "secret_invalid")
        })?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

/// Returns the headers that the catalogue version of an instance sets; none for an instance without one.
async fn read_version_headers(ops: &Ops, instance: &Instance) -> Result<HeaderMap> {
    let Some(version) = instance.catalog_version_id() else { return Ok(HeaderMap::new()) };
    let source = instance_source::find(&mut ops.store.read().await?, &instance.organization_id, version).await?;
    match source.map(|source| source.version.definition.source) {
        Some(Source::Remote(remote)) => expand_headers(&remote.headers, &instance.config),
        _ => Err(Error::internal("the catalogue version of a remote server does not exist")),
    }
}

/// Converts the error of a request to a remote server. `reason` identifies it.
pub(crate) fn to_error(error: &UpstreamError) -> Error {
    let (reason, message): (_, Cow<'_, str>) = match error {
        UpstreamError::Transport(waypost_outbound::Error::Timeout { .. }) | UpstreamError::Timeout => {
            ("timeout", "The server did not answer in time.".into())
        }
        UpstreamError::Transport(waypost_outbound::Error::TooLarge { .. })
        | UpstreamError::MessageTooLarge { .. }
        | UpstreamError::TooManyMessages { .. } => ("too_large", "The server's answer is too large.".into()),
        UpstreamError::OutOfMemory(_) => return out_of_memory(),
        UpstreamError::Transport(error) => ("unreachable", error.to_string().into()),
        UpstreamError::Status { .. } if find_required_scope(error).is_some() => {
            (INSUFFICIENT_SCOPE, LACKS_SCOPE.into())
        }
        UpstreamError::Status { status, .. } => match status.as_u16() {
            300..=399 => {
                ("redirect", "The server redirects to another URL, which is not followed. Use that URL.".into())
            }
            401 | 403 => {
                ("unauthorized", "The server rejected the credentials. Check the secrets of the instance.".into())
            }
            429 => ("server_busy", "The server receives too many requests. Try again later.".into()),
            code => ("server_error", format!("The server answered with HTTP status {code}.").into()),
        },
        UpstreamError::InvalidRequest(_) => ("rejected", "The message cannot be sent to this server.".into()),
        UpstreamError::ContentType { .. }
        | UpstreamError::Rpc(_)
        | UpstreamError::InvalidResponse(_)
        | UpstreamError::UnsupportedRevision
        | UpstreamError::SessionLost => ("no_mcp", "The server did not answer with MCP. Check the URL.".into()),
    };
    Error::new(Code::ToolServerError, message).with("reason", reason)
}

/// The `reason` of an error if a message is not read because its organisation has used up its share of the memory.
pub(crate) const TOO_MANY_LARGE_ANSWERS: &str = "too_many_large_answers";

/// Returns the error for a message that is not read because its organisation has used up its share of the memory. It
/// says nothing about the server.
pub(crate) fn out_of_memory() -> Error {
    let message = "The organisation is receiving too many large answers of servers at a time. Try again later.";
    Error::new(Code::RateLimited, message).with("reason", TOO_MANY_LARGE_ANSWERS).with("retry_after_seconds", 1)
}

/// Whether an error means that the server rejects the credentials, and has not processed the request.
pub(crate) fn is_unauthorized(error: &UpstreamError) -> bool {
    matches!(error, UpstreamError::Status { status, .. } if *status == StatusCode::UNAUTHORIZED)
}

/// Whether an error means that the connection can no longer be used.
pub(crate) fn is_lost(error: &UpstreamError) -> bool {
    matches!(error, UpstreamError::SessionLost | UpstreamError::Transport(waypost_outbound::Error::Unreachable { .. }))
}

#[cfg(test)]
mod tests {
    use waypost_mcp_wire::memory::OutOfMemory;

    use super::*;

    #[test]
    fn errors_have_reasons_and_say_what_to_do() {
        let status = |code: u16| UpstreamError::Status {
            status: StatusCode::from_u16(code).unwrap(),
            retry_after: None,
            challenge: None,
        };
        for (error, reason, lost) in [
            (status(307), "redirect", false),
            (status(401), "unauthorized", false),
            (status(403), "unauthorized", false),
            (status(429), "server_busy", false),
            (status(500), "server_error", false),
            (UpstreamError::Timeout, "timeout", false),
            (UpstreamError::MessageTooLarge { limit: 1 }, "too_large", false),
            (UpstreamError::UnsupportedRevision, "no_mcp", false),
            (UpstreamError::SessionLost, "no_mcp", true),
        ] {
            let found = to_error(&error);
            assert_eq!((found.code, &found.details["reason"]), (Code::ToolServerError, &reason.into()), "{error}");
            assert_eq!(is_lost(&error), lost, "{error}");
        }
        let found = to_error(&UpstreamError::OutOfMemory(OutOfMemory));
        assert_eq!((found.code, found.reason()), (Code::RateLimited, Some("too_many_large_answers")));
        let challenge = Some("Bearer error=insufficient_scope".to_owned());
        let error = UpstreamError::Status { status: StatusCode::FORBIDDEN, retry_after: None, challenge };
        assert_eq!(to_error(&error).reason(), Some("insufficient_scope"));
    }
}
