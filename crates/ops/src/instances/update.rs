//! Changes of instances.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use waypost_content::name;
use waypost_core::access::Operation;
use waypost_core::caller::Ctx;
use waypost_core::id::{CatalogVersionId, InstanceId, OrganizationId, ToolSecretId};
use waypost_core::instance::{Backend, Container, Instance, RemoteServer};
use waypost_core::{Error, Result};
use waypost_store::instance_source::{self, InstanceSource};
use waypost_store::remote_connection::{self, RemoteConnection};
use waypost_store::{Tx, deployment, instance as store, toolbox};

use super::create::check_capacity;
use super::remote::{self, NewRemoteServer};
use super::{InstanceView, deploy, lock, notify_desired, record_operation, spec};
use crate::Ops;
use crate::audit::{Entry, record};
use crate::remote_tokens::revoke;

/// Changes to an instance. Fields that are `None` stay unchanged.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct InstancePatch {
    /// The name.
    pub name: Option<String>,
    /// The version, of the same catalogue entry.
    pub catalog_version_id: Option<CatalogVersionId>,
    /// The complete configuration.
    pub config: Option<Map<String, Value>>,
    /// All secrets by the names that the version declares.
    pub secrets: Option<BTreeMap<String, ToolSecretId>>,
    /// The names of all secrets for which each agent supplies its own value.
    pub personal_secrets: Option<BTreeSet<String>>,
    /// Whether rejected destinations are recorded.
    pub learn_egress: Option<bool>,
    /// Whether arguments and results of calls through the gateway are recorded.
    pub record_contents: Option<bool>,
    /// The URL, transport and connection mode of a remote server that is not in the catalogue. Its connections end.
    pub remote: Option<NewRemoteServer>,
}

/// Changes an instance. A remote server is checked again after any change except to the name and `record_contents`. An
/// instance in containers cannot become a remote server or vice versa, and the URL of a remote server of the catalogue
/// changes only with its version.
///
/// For an instance in containers, any change except to the name and `record_contents` begins the deployment of a new
/// generation: the old container serves calls until the new one is healthy.
///
/// A stopped instance stays stopped. Its deployment is complete when the toolbox has accepted the new generation; the server
/// is checked only when the instance is started. If it then does not become healthy, there is no rollback.
///
/// # Errors
/// `not_found` if the instance does not exist or the caller cannot access it; `forbidden` for members below admin;
/// `invalid_arguments` naming the field; `conflict` if the instance is being removed, or the toolbox has no room for the
/// version's resource class.
pub async fn update(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &InstanceId,
    patch: &InstancePatch,
) -> Result<InstanceView> {
    ops.authorize_toolbox_use(cx, Operation::InstanceWrite, organization).await?;
    let name = patch.name.as_deref().map(|text| name::check("name", text)).transpose()?;
    // Before the transaction, because it may read the database.
    let remote = match &patch.remote {
        Some(server) => Some(remote::prepare(cx, ops, organization, id, server).await?),
        None => None,
    };
    let mut tx = ops.store.begin().await?;
    // The capacity of the toolbox is checked under this lock.
    toolbox::lock_organization(&mut tx, organization).await?;
    let before = lock(&mut tx, organization, id).await?;
    let (mut instance, mut ended) = (before.clone(), Vec::new());
    instance.name = name.unwrap_or(instance.name);
    instance.record_contents = patch.record_contents.unwrap_or(instance.record_contents);
    match &instance.backend {
        Backend::Remote(RemoteServer { catalog_version_id: None, .. }) => {
            ended = apply_remote(&mut tx, &mut instance, remote, patch).await?;
        }
        _ => {
            check_source_patch(&instance, patch)?;
            instance.learn_egress = patch.learn_egress.unwrap_or(instance.learn_egress);
            apply_source(cx, ops, &mut tx, &mut instance, patch).await?;
        }
    }
    if instance == before {
        let deployment = deployment::list_current(&mut tx, organization, &[id]).await?.pop();
        return Ok(InstanceView { instance, deployment });
    }
    instance.updated_at = cx.now();
    let has_other_recording = instance.record_contents != before.record_contents;
    // Changes that do not affect the server.
    let unchanged = Instance {
        name: instance.name.clone(),
        record_contents: instance.record_contents,
        updated_at: instance.updated_at,
        ..before
    };
    let deployment = if instance == unchanged {
        store::update(&mut tx, &instance).await?;
        deployment::list_current(&mut tx, organization, &[id]).await?.pop()
    } else {
        deploy(cx, &mut tx, &mut instance).await?
    };
    record_operation(cx, &mut tx, &instance, "instance.update").await?;
    if has_other_recording {
        let detail = json!({ "slug": instance.slug, "record_contents": instance.record_contents });
        let entry = Entry { action: "instance.record_contents", target: id.as_str(), detail };
        record(cx, &mut tx, organization, entry).await?;
    }
    tx.commit().await?;
    notify_desired(ops, &instance);
    revoke(ops, ended).await;
    Ok(InstanceView { instance, deployment })
}

/// Rejects changes that do not apply to an instance of the catalogue.
fn check_source_patch(instance: &Instance, patch: &InstancePatch) -> Result<()> {
    let is_remote = matches!(instance.backend, Backend::Remote(_));
    if patch.remote.is_some() {
        let message = match is_remote {
            true => "The URL of this instance is that of its catalogue version. Set `catalog_version_id` to change it.",
            false => "This instance runs on a toolbox, so it has no URL.",
        };
        return Err(Error::invalid("remote", message));
    }
    if is_remote && patch.learn_egress == Some(true) {
        return Err(Error::invalid("learn_egress", "A remote server has no `learn_egress`."));
    }
    if is_remote && patch.personal_secrets.as_ref().is_some_and(|names| !names.is_empty()) {
        return Err(Error::invalid("personal_secrets", "A remote server has no `personal_secrets`."));
    }
    Ok(())
}

/// Applies the changes to version, configuration and secrets. A change to one of them is validated together with the
/// others.
async fn apply_source(cx: &Ctx, ops: &Ops, tx: &mut Tx, instance: &mut Instance, patch: &InstancePatch) -> Result<()> {
    let has_secrets = patch.secrets.is_some() || patch.personal_secrets.is_some();
    if patch.catalog_version_id.is_none() && patch.config.is_none() && !has_secrets {
        return Ok(());
    }
    let organization = instance.organization_id.clone();
    let missing = || Error::internal("the version of an instance does not exist");
    let version = instance.catalog_version_id().cloned().ok_or_else(missing)?;
    let current = instance_source::find(tx, &organization, &version).await?.ok_or_else(missing)?;
    let source = match patch.catalog_version_id.as_ref().filter(|id| **id != version) {
        Some(id) => {
            let source = find_upgrade(tx, &organization, (&current, id)).await?;
            instance.backend = upgrade(cx, ops, tx, instance, (&current, &source)).await?;
            source
        }
        None => current,
    };
    if let Some(config) = &patch.config {
        instance.config = config.clone();
    }
    let definition = &source.version.definition;
    spec::check_config(definition, &instance.config)?;
    let old = assigned(instance);
    let secrets = patch.secrets.as_ref().unwrap_or(&old);
    let names = match &patch.personal_secrets {
        Some(names) => names.clone(),
        None => instance.personal_secrets.iter().map(|secret| secret.name.clone()).collect(),
    };
    instance.personal_secrets = spec::find_personal(definition, &names, secrets)?;
    let uses = spec::find_secrets(tx, &organization, definition, (secrets, &instance.personal_secrets)).await?;
    // A rotated value is not a change by the user.
    if *secrets != old {
        instance.secrets = uses;
    }
    Ok(())
}

/// Returns the secrets of an instance by their names.
fn assigned(instance: &Instance) -> BTreeMap<String, ToolSecretId> {
    instance.secrets.iter().map(|secret| (secret.name.clone(), secret.secret_id.clone())).collect()
}

/// Applies the changes to the URL and the headers of a remote server that is not in the catalogue. Returns the
/// connections that end as a result.
async fn apply_remote(
    tx: &mut Tx,
    instance: &mut Instance,
    remote: Option<RemoteServer>,
    patch: &InstancePatch,
) -> Result<Vec<RemoteConnection>> {
    let mut ended = Vec::new();
    let unused = [
        ("catalog_version_id", patch.catalog_version_id.is_some()),
        ("config", patch.config.as_ref().is_some_and(|config| !config.is_empty())),
        ("learn_egress", patch.learn_egress == Some(true)),
        ("personal_secrets", patch.personal_secrets.as_ref().is_some_and(|names| !names.is_empty())),
    ];
    if let Some((field, _)) = unused.into_iter().find(|(_, is_set)| *is_set) {
        return Err(Error::invalid(field, format!("A remote server has no `{field}`.")));
    }
    if let Some(remote) = remote {
        remote::check_client_secret(tx, &instance.organization_id, &remote).await?;
        // The tokens were issued for the former URL or connection mode.
        ended = remote_connection::delete_all(tx, &instance.organization_id, &instance.id).await?;
        instance.backend = Backend::Remote(remote);
    }
    if let Some(secrets) = patch.secrets.as_ref().filter(|secrets| **secrets != assigned(instance)) {
        instance.secrets = remote::find_headers(tx, &instance.organization_id, secrets).await?;
    }
    if let Backend::Remote(server) = &instance.backend {
        remote::check_authorization(server, &instance.secrets)?;
    }
    Ok(ended)
}

/// Returns another version of the same entry. Fails if it belongs to another entry, or if only one of the two versions
/// is remote.
async fn find_upgrade(
    tx: &mut Tx,
    organization: &OrganizationId,
    (current, id): (&InstanceSource, &CatalogVersionId),
) -> Result<InstanceSource> {
    let source = spec::find_source(tx, organization, id).await?;
    let invalid = |message: &str| Err(Error::invalid("catalog_version_id", message));
    if source.version.catalog_entry_id != current.version.catalog_entry_id {
        return invalid("This version belongs to another catalogue entry. Create a new instance for it.");
    }
    match (current.version.definition.is_remote(), source.version.definition.is_remote()) {
        (false, true) => invalid(
            "This version is a remote server, but the instance runs on a toolbox. Create a new instance for this version.",
        ),
        (true, false) => invalid(
            "This version runs on a toolbox, but the instance is a remote server. Create a new instance for this version.",
        ),
        _ => Ok(source),
    }
}

/// Returns the backend of an instance with another version. Checks that its toolbox has room for the version.
async fn upgrade(
    cx: &Ctx,
    ops: &Ops,
    tx: &mut Tx,
    instance: &Instance,
    (current, source): (&InstanceSource, &InstanceSource),
) -> Result<Backend> {
    let Backend::Container(container) = &instance.backend else {
        return Ok(Backend::Remote(remote::from_version(cx, ops, &instance.id, &source.version)?));
    };
    let (old, new) = (current.version.definition.resources, source.version.definition.resources);
    if old != new
        && let Some(toolbox) = toolbox::find(tx, &instance.organization_id, &container.toolbox_id).await?
    {
        check_capacity(cx, tx, toolbox, Some(old), new).await?;
    }
    Ok(Backend::Container(Container { catalog_version_id: source.version.id.clone(), ..container.clone() }))
}
