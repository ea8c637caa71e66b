//! Creation and placement of instances.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use waypost_content::name;
use waypost_core::access::Operation;
use waypost_core::agent_secret::PersonalSecret;
use waypost_core::caller::Ctx;
use waypost_core::id::{CatalogVersionId, InstanceId, OrganizationId, ToolSecretId, ToolboxId};
use waypost_core::instance::{Backend, ConnectionMode, Container, DesiredRun, Instance, RemoteServer, SecretUse};
use waypost_core::toolbox::{MAX_TOOLBOXES, Toolbox};
use waypost_core::{Code, Error, Result};
use waypost_store::{Tx, instance as store, toolbox};
use waypost_toolbox_proto::entry::ResourceClass;
use waypost_toolbox_proto::instance::InstanceState;

use super::placement::{Candidate, choose};
use super::remote::{self, NewRemoteServer};
use super::{InitialAccess, InstanceView, notify_desired, record_operation, spec};
use crate::Ops;
use crate::deployments;
use crate::slugs;
use crate::toolboxes::{Allocation, list_allocations};

/// An instance to create.
#[derive(Debug, Clone, PartialEq)]
pub struct NewInstance {
    /// The slug.
    pub slug: String,
    /// The name. By default, that of the catalogue entry, or the slug of a remote server.
    pub name: Option<String>,
    /// The server.
    pub server: NewServer,
    /// The secrets, by the names that the version declares, or by the names of the headers of a remote server.
    pub secrets: BTreeMap<String, ToolSecretId>,
    /// The approval and the grants that are created with the instance.
    pub access: InitialAccess,
}

/// The server of an instance to create.
#[derive(Debug, Clone, PartialEq)]
pub enum NewServer {
    /// A server of the catalogue, in containers or remote.
    Catalog(CatalogServer),
    /// A server that is already running elsewhere, and is not in the catalogue.
    Remote(NewRemoteServer),
}

/// A server of the catalogue.
#[derive(Debug, Clone, PartialEq)]
pub struct CatalogServer {
    /// The version to deploy.
    pub catalog_version_id: CatalogVersionId,
    /// The toolbox. By default, the online toolbox with the most free memory. `None` if the source of the version is remote.
    pub toolbox_id: Option<ToolboxId>,
    /// The configuration.
    pub config: Map<String, Value>,
    /// The names of the secrets for which each agent supplies its own value. Empty if the source of the version is remote.
    pub personal_secrets: BTreeSet<String>,
    /// Whether rejected destinations are recorded. `false` if the source of the version is remote.
    pub learn_egress: bool,
}

/// Creates an instance, and begins its first deployment or the first check of a remote server. Returns at once, with
/// the state `deploying`. Grants are created at once; an initial approval takes effect at the first check of the
/// server.
///
/// # Errors
/// `not_found` if the caller cannot access the organisation; `forbidden` for members below admin; `invalid_arguments`
/// naming the field; `conflict` if the slug is taken or looks like another one, the organisation has the maximum number
/// of instances, or no toolbox has room (`reason` is `no_capacity`, and `toolboxes` has the reason for each one).
pub async fn create(cx: &Ctx, ops: &Ops, organization: &OrganizationId, new: &NewInstance) -> Result<InstanceView> {
    ops.authorize_toolbox_use(cx, Operation::InstanceWrite, organization).await?;
    new.access.check(cx, organization)?;
    slugs::check(&new.slug)?;
    let name = new.name.as_deref().map(|text| name::check("name", text)).transpose()?;
    let id = InstanceId::new(&*cx.random);
    // Before the transaction, because it may read the database.
    let server = match &new.server {
        NewServer::Remote(server) => Prepared::Remote(remote::prepare(cx, ops, organization, &id, server).await?),
        NewServer::Catalog(server) => Prepared::Catalog(server),
    };
    let mut tx = ops.store.begin().await?;
    // Limit, slug and placement are checked under this lock.
    if !toolbox::lock_organization(&mut tx, organization).await? {
        return Err(Error::not_found("organisation"));
    }
    check_limit(&mut tx, ops, organization).await?;
    let skeleton = slugs::to_skeleton(&new.slug);
    check_slug(&mut tx, organization, &new.slug, &skeleton).await?;
    let planned = match server {
        Prepared::Catalog(server) => {
            plan_from_catalog(cx, ops, &mut tx, (organization, &id), (server, &new.secrets)).await?
        }
        Prepared::Remote(server) => {
            let secrets = remote::find_headers(&mut tx, organization, &new.secrets).await?;
            remote::check_authorization(&server, &secrets)?;
            remote::check_client_secret(&mut tx, organization, &server).await?;
            Planned {
                name: new.slug.clone(),
                backend: Backend::Remote(server),
                secrets,
                personal_secrets: Vec::new(),
                config: Map::new(),
                learn_egress: false,
            }
        }
    };
    check_approval(&planned, &new.access)?;
    let now = cx.now();
    let mut instance = Instance {
        id,
        organization_id: organization.clone(),
        slug: new.slug.clone(),
        name: name.unwrap_or(planned.name),
        backend: planned.backend,
        desired: DesiredRun::Running,
        state: InstanceState::Deploying,
        generation: 1,
        observed_generation: 0,
        restarts: 0,
        is_removing: false,
        health: None,
        config: planned.config,
        secrets: planned.secrets,
        personal_secrets: planned.personal_secrets,
        learn_egress: planned.learn_egress,
        record_contents: false,
        rejected_egress: Vec::new(),
        created_at: now,
        updated_at: now,
    };
    store::insert(&mut tx, &instance, &skeleton).await?;
    let deployment = match instance.toolbox_id() {
        Some(toolbox) => {
            toolbox::increment_revision(&mut tx, organization, toolbox).await?;
            Some(deployments::begin(cx, &mut tx, &instance).await?)
        }
        None => {
            remote::restart_checks(cx, &mut tx, &mut instance).await?;
            None
        }
    };
    record_operation(cx, &mut tx, &instance, "instance.create").await?;
    new.access.apply(cx, &mut tx, &instance).await?;
    tx.commit().await?;
    notify_desired(ops, &instance);
    Ok(InstanceView { instance, deployment })
}

/// Rejects an initial approval if each agent has its own connection or needs its own secrets: the first account could
/// be that of a member below admin, and what it sees must not be approved for other agents.
fn check_approval(planned: &Planned, access: &InitialAccess) -> Result<()> {
    if access.approve.is_none() {
        return Ok(());
    }
    if matches!(&planned.backend, Backend::Remote(server) if server.connection == ConnectionMode::PerAgent) {
        let message = "What a server lists cannot be approved in advance if each agent has its own connection to it. Approve it \
                       after an agent has been connected.";
        return Err(Error::invalid("approve", message));
    }
    if planned.personal_secrets.iter().any(|secret| secret.is_required) {
        let message = "What a server lists cannot be approved in advance if each agent needs its own secrets. Approve it after \
                       an agent has supplied them.";
        return Err(Error::invalid("approve", message));
    }
    Ok(())
}

/// The server of an instance to create, with the URL of a remote one sealed.
enum Prepared<'a> {
    Catalog(&'a CatalogServer),
    Remote(RemoteServer),
}

/// The parts of an instance to create, after validation.
struct Planned {
    /// The default of the name.
    name: String,
    backend: Backend,
    secrets: Vec<SecretUse>,
    personal_secrets: Vec<PersonalSecret>,
    config: Map<String, Value>,
    learn_egress: bool,
}

async fn plan_from_catalog(
    cx: &Ctx,
    ops: &Ops,
    tx: &mut Tx,
    (organization, id): (&OrganizationId, &InstanceId),
    (server, secrets): (&CatalogServer, &BTreeMap<String, ToolSecretId>),
) -> Result<Planned> {
    let source = spec::find_source(tx, organization, &server.catalog_version_id).await?;
    let definition = &source.version.definition;
    if definition.is_remote() {
        check_no_container(server)?;
    }
    spec::check_config(definition, &server.config)?;
    let personal_secrets = spec::find_personal(definition, &server.personal_secrets, secrets)?;
    let secrets = spec::find_secrets(tx, organization, definition, (secrets, &personal_secrets)).await?;
    let backend = match definition.is_remote() {
        true => Backend::Remote(remote::from_version(cx, ops, id, &source.version)?),
        false => {
            let toolbox_id = place(cx, tx, organization, server.toolbox_id.as_ref(), definition.resources).await?;
            Backend::Container(Container { catalog_version_id: source.version.id, toolbox_id })
        }
    };
    Ok(Planned {
        name: source.entry_name,
        backend,
        secrets,
        personal_secrets,
        config: server.config.clone(),
        learn_egress: server.learn_egress,
    })
}

/// Rejects fields that apply only to containers.
fn check_no_container(server: &CatalogServer) -> Result<()> {
    let unused = [
        ("toolbox_id", server.toolbox_id.is_some()),
        ("learn_egress", server.learn_egress),
        ("personal_secrets", !server.personal_secrets.is_empty()),
    ];
    match unused.into_iter().find(|(_, is_set)| *is_set) {
        Some((field, _)) => {
            let message = format!("This version is a remote server, which has no `{field}`. Remove it.");
            Err(Error::invalid(field, message))
        }
        None => Ok(()),
    }
}

async fn check_limit(tx: &mut Tx, ops: &Ops, organization: &OrganizationId) -> Result<()> {
    let limit = ops.instance_limit;
    if store::count(tx, organization).await? < i64::from(limit) {
        return Ok(());
    }
    let message = format!("An organisation can have at most {limit} instances. Delete one first.");
    Err(Error::new(Code::Conflict, message).with("reason", "instance_limit").with("limit", limit))
}

async fn check_slug(tx: &mut Tx, organization: &OrganizationId, slug: &str, skeleton: &str) -> Result<()> {
    let Some(taken) = store::find_slug_by_skeleton(tx, organization, skeleton).await? else { return Ok(()) };
    let message = if taken == slug {
        format!("An instance with the slug `{slug}` already exists. Choose another slug.")
    } else {
        format!("The slug `{slug}` looks like `{taken}`, the slug of another instance. Choose another slug.")
    };
    Err(Error::new(Code::Conflict, message).with("field", "slug"))
}

/// Returns the toolbox for a new instance, and locks it.
async fn place(
    cx: &Ctx,
    tx: &mut Tx,
    organization: &OrganizationId,
    requested: Option<&ToolboxId>,
    class: ResourceClass,
) -> Result<ToolboxId> {
    let id = match requested {
        Some(id) => id.clone(),
        None => {
            let all = toolbox::list(tx, organization, None, i64::try_from(MAX_TOOLBOXES).unwrap_or(i64::MAX)).await?;
            let allocations = list_allocations(tx, organization, None).await?;
            let candidate = |toolbox| candidate(cx, toolbox, |id| allocations.get(id).copied().unwrap_or_default());
            let candidates: Vec<_> = all.into_iter().map(candidate).collect();
            choose(&candidates, class).map_err(|problems| no_capacity(&problems))?.id.clone()
        }
    };
    let unknown = || Error::invalid("toolbox_id", "There is no such toolbox.");
    let toolbox = toolbox::lock(tx, organization, &id).await?.ok_or_else(unknown)?;
    if toolbox.revoked_at.is_some() {
        return Err(Error::new(Code::Conflict, format!("The toolbox `{}` is revoked.", toolbox.name)));
    }
    check_capacity(cx, tx, toolbox, None, class).await?;
    Ok(id)
}

/// Checks that an instance of `class` fits on a toolbox. If it already runs there, `current` is its current class.
///
/// # Errors
/// `conflict` if it does not fit.
pub(super) async fn check_capacity(
    cx: &Ctx,
    tx: &mut Tx,
    toolbox: Toolbox,
    current: Option<ResourceClass>,
    class: ResourceClass,
) -> Result<()> {
    let allocations = list_allocations(tx, &toolbox.organization_id, Some(&toolbox.id)).await?;
    let allocated = |id: &ToolboxId| {
        let mut allocated = allocations.get(id).copied().unwrap_or_default();
        if let Some(current) = current {
            allocated.memory_bytes = allocated.memory_bytes.saturating_sub(current.memory_bytes());
            allocated.millicpus = allocated.millicpus.saturating_sub(current.millicpus());
        }
        allocated
    };
    let candidate = candidate(cx, toolbox, allocated);
    match candidate.find_shortage(class) {
        Some(shortage) => Err(no_capacity(&[(&candidate, shortage)])),
        None => Ok(()),
    }
}

fn candidate(cx: &Ctx, toolbox: Toolbox, allocated: impl Fn(&ToolboxId) -> Allocation) -> Candidate {
    Candidate {
        state: toolbox.state(cx.now()),
        has_engine: toolbox.engine.is_some(),
        capacity: toolbox.capacity,
        allocated: allocated(&toolbox.id),
        id: toolbox.id,
        name: toolbox.name,
    }
}

fn no_capacity(problems: &[(&Candidate, String)]) -> Error {
    let reasons: Vec<_> = problems.iter().map(|(found, reason)| format!("`{}`: {reason}", found.name)).collect();
    let message = if reasons.is_empty() {
        "The organisation has no toolbox. Create one, and let a machine join.".to_owned()
    } else {
        format!("No toolbox has room for this instance. {}. Add a toolbox, or remove an instance.", reasons.join("; "))
    };
    let toolboxes: Vec<_> = problems
        .iter()
        .map(|(found, reason)| json!({ "id": found.id, "name": found.name, "reason": reason }))
        .collect();
    Error::new(Code::Conflict, message).with("reason", "no_capacity").with("toolboxes", toolboxes)
}
