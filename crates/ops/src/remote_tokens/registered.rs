//! Clients that an admin has registered with an authorization server beforehand: the client ID, and a tool secret with
//! the client secret.

use waypost_core::id::{InstanceId, OrganizationId};
use waypost_core::instance::{Backend, Instance, RegisteredClient};
use waypost_core::seal::{SealLocation, SecretText};
use waypost_core::{Error, Result};
use waypost_store::remote_connection::RemoteConnection;
use waypost_store::{Conn, instance, instance_source};

use super::OauthClient;
use crate::Ops;

/// The ID and the secret of a registered client. Has no `Debug`, because of the secret.
pub(crate) struct ClientCredentials {
    pub client_id: String,
    pub client_secret: Option<SecretText>,
}

fn registered_client(instance: &Instance) -> Option<&RegisteredClient> {
    match &instance.backend {
        Backend::Remote(server) => server.client.as_ref(),
        Backend::Container(_) => None,
    }
}

/// Returns the registered client of an instance, with the current value of its secret. `None` if there is none.
///
/// # Errors
/// `internal` if the secret cannot be opened; any error of the store.
pub(crate) async fn find_client_credentials(
    ops: &Ops,
    conn: &mut Conn,
    instance: &Instance,
) -> Result<Option<ClientCredentials>> {
    let Some(client) = registered_client(instance) else { return Ok(None) };
    let client_secret = match &client.secret_id {
        Some(id) => {
            let broken =
                || Error::internal(format!("the client secret of the instance {} cannot be opened", instance.id));
            let found = instance_source::list_secrets(conn, &instance.organization_id, &[id]).await?;
            let secret = found.first().ok_or_else(broken)?;
            let location = SealLocation { table: "tool_secrets", column: "value", row: &secret.id };
            let value = ops.keyring()?.open_text(&location, &secret.value).map_err(|_| broken())?;
            // A file with a secret often ends with a line break.
            Some(SecretText::new(value.expose().trim()))
        }
        None => None,
    };
    Ok(Some(ClientCredentials { client_id: client.client_id.clone(), client_secret }))
}

/// Whether the instance of a connection has a registered client.
///
/// # Errors
/// Any error of the store.
pub(super) async fn has_registered_client(ops: &Ops, connection: &RemoteConnection) -> Result<bool> {
    let mut conn = ops.store.read().await?;
    let found = instance::find(&mut conn, &connection.organization_id, &connection.instance_id).await?;
    Ok(found.is_some_and(|instance| registered_client(&instance).is_some()))
}

/// Replaces the secret of a client with the current one, which may have been rotated since the instance was connected.
/// Changes nothing if the instance no longer has this client.
///
/// # Errors
/// Those of [`find_client_credentials`].
pub(super) async fn update_client_secret(
    ops: &Ops,
    (organization, id): (&OrganizationId, &InstanceId),
    client: &mut OauthClient,
) -> Result<()> {
    let mut conn = ops.store.read().await?;
    let Some(current) = instance::find(&mut conn, organization, id).await? else { return Ok(()) };
    let found = find_client_credentials(ops, &mut conn, &current).await?;
    let secret = found.filter(|found| found.client_id == client.client_id).and_then(|found| found.client_secret);
    if let Some(secret) = secret {
        client.client_secret = Some(secret.expose().to_owned());
    }
    Ok(())
}
