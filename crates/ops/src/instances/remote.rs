//! Instances whose server runs elsewhere. [`crate::remote_checks`] checks them.

use std::collections::{BTreeMap, HashSet};

use waypost_core::caller::Ctx;
use waypost_core::catalog::CatalogVersion;
use waypost_core::id::{InstanceId, OrganizationId, ToolSecretId};
use waypost_core::instance::{
    Backend, ConnectionMode, DesiredRun, Instance, RegisteredClient, RemoteServer, SecretUse,
};
use waypost_core::{Code, Error, Result};
use waypost_store::{Tx, instance as store, instance_source, remote_server};
use waypost_toolbox_proto::entry::Transport;
use waypost_toolbox_proto::instance::InstanceState;

use super::spec;
use crate::Ops;
use crate::remote_endpoint::{MAX_HEADERS, find_address_problem, find_header_problem, open_version_url, parse_url};
use crate::remote_servers::url_location;
use crate::remote_tokens::await_connection;

/// The maximum length of the ID of a registered client in bytes.
pub const MAX_CLIENT_ID: usize = 2_048;

/// A remote server to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRemoteServer {
    /// The URL of its MCP endpoint.
    pub url: String,
    /// The transport.
    pub transport: Transport,
    /// Whether it requires OAuth.
    pub is_oauth: bool,
    /// The owner of the OAuth connection that authorizes requests.
    pub connection: ConnectionMode,
    /// The client that was registered with its authorization server beforehand. `None` if Waypost uses its client ID
    /// metadata document, or registers itself.
    pub client: Option<RegisteredClient>,
}

/// Validates a remote server, and seals its URL to the instance `id`.
///
/// # Errors
/// `invalid_arguments` for `remote` if the URL or the transport cannot be used, or for `client_id`.
pub(super) async fn prepare(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &InstanceId,
    new: &NewRemoteServer,
) -> Result<RemoteServer> {
    let invalid = |message: &str| Error::invalid("remote", message);
    if new.transport == Transport::Stdio {
        return Err(invalid("The transport of a remote server is `streamable_http` or `sse`."));
    }
    if new.connection == ConnectionMode::PerAgent && !new.is_oauth {
        return Err(invalid("Only a server that requires OAuth can have a connection for each agent."));
    }
    if let Some(client) = &new.client {
        check_client(new, client)?;
    }
    let url = parse_url(&new.url).map_err(|problem| invalid(&problem))?;
    if let Some(problem) = find_address_problem(ops, organization, &url).await? {
        return Err(invalid(&problem));
    }
    Ok(RemoteServer {
        catalog_version_id: None,
        transport: new.transport,
        origin: url.origin().ascii_serialization(),
        is_oauth: new.is_oauth,
        connection: new.connection,
        client: new.client.clone(),
        sealed_url: ops.keyring()?.seal(&url_location(id), url.as_str().as_bytes(), &*cx.random),
    })
}

/// Checks the ID of a registered client (RFC 6749, appendix A.1).
fn check_client(new: &NewRemoteServer, client: &RegisteredClient) -> Result<()> {
    let id = &client.client_id;
    if !new.is_oauth {
        return Err(Error::invalid("client_id", "Only a server that requires OAuth can have a client ID."));
    }
    if !(1..=MAX_CLIENT_ID).contains(&id.len()) || !id.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        let message = format!("The client ID must have 1 to {MAX_CLIENT_ID} printable ASCII characters.");
        return Err(Error::invalid("client_id", message));
    }
    Ok(())
}

/// Checks that the secret of the registered client of a server exists.
///
/// # Errors
/// `invalid_arguments` for `client_secret_id` (`reason` is `secret_missing`) if it does not.
pub(super) async fn check_client_secret(
    tx: &mut Tx,
    organization: &OrganizationId,
    server: &RemoteServer,
) -> Result<()> {
    let Some(id) = server.client.as_ref().and_then(|client| client.secret_id.as_ref()) else { return Ok(()) };
    if instance_source::list_secrets(tx, organization, &[id]).await?.is_empty() {
        let message = format!("There is no secret `{id}`. Create it first.");
        return Err(Error::invalid("client_secret_id", message).with("reason", "secret_missing"));
    }
    Ok(())
}

/// Returns the server of a catalogue version, with its URL sealed to the instance `id`.
///
/// # Errors
/// `internal` if the source of the version is not remote, or its URL cannot be opened.
pub(super) fn from_version(cx: &Ctx, ops: &Ops, id: &InstanceId, version: &CatalogVersion) -> Result<RemoteServer> {
    let url = open_version_url(ops, version)?;
    Ok(RemoteServer {
        catalog_version_id: Some(version.id.clone()),
        transport: version.definition.transport,
        origin: url.origin().ascii_serialization(),
        is_oauth: false,
        connection: ConnectionMode::Shared,
        client: None,
        sealed_url: ops.keyring()?.seal(&url_location(id), url.as_str().as_bytes(), &*cx.random),
    })
}

/// Returns the uses of secrets, each as the value of the header with its name.
///
/// # Errors
/// `invalid_arguments` for `secrets` if a name is not the name of a header that can be set, two names differ only in
/// case, or a secret does not exist.
pub(super) async fn find_headers(
    tx: &mut Tx,
    organization: &OrganizationId,
    secrets: &BTreeMap<String, ToolSecretId>,
) -> Result<Vec<SecretUse>> {
    let invalid = |message: String| Error::invalid("secrets", message);
    if secrets.len() > MAX_HEADERS {
        return Err(invalid(format!("A remote server can have at most {MAX_HEADERS} headers.")));
    }
    let mut names = HashSet::new();
    for name in secrets.keys() {
        if let Some(problem) = find_header_problem(name) {
            return Err(invalid(problem));
        }
        if !names.insert(name.to_ascii_lowercase()) {
            return Err(invalid(format!("The header `{name}` is set twice.")));
        }
    }
    spec::find_uses(tx, organization, secrets).await
}

/// Checks that no secret is the value of the header `Authorization` if the connection sets it.
///
/// # Errors
/// `invalid_arguments` for `secrets`.
pub(super) fn check_authorization(server: &RemoteServer, secrets: &[SecretUse]) -> Result<()> {
    if server.is_oauth && secrets.iter().any(|used| used.name.eq_ignore_ascii_case("authorization")) {
        let message = "With OAuth, the connection sets the header `Authorization`. Remove its secret.";
        return Err(Error::invalid("secrets", message));
    }
    Ok(())
}

/// Checks that a remote server is not stopped, and has answered since its last change. Succeeds for a container.
///
/// # Errors
/// `conflict` (`reason` is `not_running`) if it is stopped, or has not answered.
pub(crate) fn check_answered(instance: &Instance) -> Result<()> {
    let is_usable = matches!(instance.state, InstanceState::Running | InstanceState::Unhealthy);
    if instance.container().is_ok() || is_usable {
        return Ok(());
    }
    if instance.state == InstanceState::Stopped {
        let message = "The instance is stopped, so its server is not called. Start it first.";
        return Err(Error::new(Code::Conflict, message).with("reason", "not_running"));
    }
    let cause = instance.health.as_ref().and_then(|health| health.message.as_deref()).unwrap_or("It is being tested.");
    let message = format!("The remote server has not answered yet. {cause}");
    Err(Error::new(Code::Conflict, message).with("reason", "not_running"))
}

/// Stores an instance whose remote server is to be checked again: at once, or when it has been connected if it waits
/// for an OAuth connection.
pub(super) async fn restart_checks(cx: &Ctx, tx: &mut Tx, instance: &mut Instance) -> Result<()> {
    instance.state = match instance.desired {
        DesiredRun::Running => InstanceState::Deploying,
        DesiredRun::Stopped => InstanceState::Stopped,
    };
    instance.health = None;
    let waits = matches!(&instance.backend, Backend::Remote(server) if server.is_oauth)
        && await_connection(cx, tx, instance).await?;
    store::update(tx, instance).await?;
    match waits {
        true => remote_server::suspend_checks(tx, &instance.organization_id, &instance.id).await?,
        false => remote_server::reset_checks(tx, &instance.organization_id, &instance.id).await?,
    }
    Ok(())
}
