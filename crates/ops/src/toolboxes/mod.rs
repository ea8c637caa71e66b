//! Toolboxes: an organisation's machines that run tool servers.

mod join;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use waypost_content::name;
use waypost_core::access::{Operation, authorize_operator};
use waypost_core::caller::Ctx;
use waypost_core::id::{OrganizationId, ToolboxId};
use waypost_core::toolbox::{MAX_TOOLBOXES, Toolbox, ToolboxState, UNRESPONSIVE_AFTER_MS};
use waypost_core::webhook::WebhookEvent;
use waypost_core::{Code, Error, Result, Timestamp};
use waypost_store::toolbox::{self as store, ClassUse};
use waypost_store::{Conn, Tx, instance};

pub(crate) use self::join::check_public_key;
pub use self::join::{JoinToken, join, join_command, renew_token};
use crate::Ops;
use crate::audit::{Entry, record};
use crate::checks::conflict_if_taken;
use crate::deployments;
use crate::webhooks::{Event, enqueue};

/// The maximum number of toolboxes that [`report_unresponsive`] reports per call.
const MAX_REPORTED: i64 = 100;
/// The maximum number of tokens that [`delete_expired_tokens`] deletes per call.
const MAX_DELETED: i64 = 1_000;

/// The resources of a toolbox that its instances use: the sum of their resource classes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allocation {
    /// The CPUs, in thousandths of a CPU.
    pub millicpus: u64,
    /// The memory, in bytes.
    pub memory_bytes: u64,
    /// The number of instances, including those that are being removed.
    pub instances: u64,
}

impl Allocation {
    fn add(&mut self, class_use: ClassUse) {
        let ClassUse { class, instances } = class_use;
        self.millicpus += class.millicpus() * instances;
        self.memory_bytes += class.memory_bytes() * instances;
        self.instances += instances;
    }
}

/// A toolbox with its state and its resource usage.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolboxView {
    /// The toolbox.
    pub toolbox: Toolbox,
    /// The state at the time of the request.
    pub state: ToolboxState,
    /// The resources that its instances use.
    pub allocated: Allocation,
}

/// Changes to a toolbox. Fields that are `None` stay unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToolboxPatch {
    /// The name.
    pub name: Option<String>,
}

/// Returns the resources in use on each toolbox of an organisation. With `toolbox`, returns only those of this toolbox.
pub(crate) async fn list_allocations(
    conn: &mut Conn,
    organization: &OrganizationId,
    toolbox: Option<&ToolboxId>,
) -> Result<BTreeMap<ToolboxId, Allocation>> {
    let mut allocations: BTreeMap<ToolboxId, Allocation> = BTreeMap::new();
    for (id, class_use) in store::list_use(conn, organization, toolbox).await? {
        allocations.entry(id).or_default().add(class_use);
    }
    Ok(allocations)
}

async fn view(cx: &Ctx, conn: &mut Conn, toolbox: Toolbox) -> Result<ToolboxView> {
    let allocations = list_allocations(conn, &toolbox.organization_id, Some(&toolbox.id)).await?;
    let allocated = allocations.get(&toolbox.id).copied().unwrap_or_default();
    Ok(ToolboxView { state: toolbox.state(cx.now()), toolbox, allocated })
}

/// Creates a toolbox. Returns it with the token with which a machine joins; the token cannot be retrieved again.
///
/// # Errors
/// `not_found` if the caller cannot access the organisation; `forbidden` for members below admin; `invalid_arguments`
/// for an invalid name; `conflict` if the name is taken or the organisation already has 100 toolboxes.
pub async fn create(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    name: &str,
) -> Result<(ToolboxView, JoinToken)> {
    ops.authorize_toolbox_use(cx, Operation::ToolboxWrite, organization).await?;
    let name = name::check("name", name)?;
    let (token, now) = (JoinToken::new(cx), cx.now());
    let toolbox = Toolbox {
        id: ToolboxId::new(&*cx.random),
        organization_id: organization.clone(),
        name,
        join_token_hash: Some(token.hash()),
        join_expires_at: Some(token.expires_at),
        public_key: None,
        key_rotation_requested_at: None,
        joined_at: None,
        revoked_at: None,
        version: None,
        engine: None,
        capacity: None,
        last_seen_at: None,
        unresponsive_at: None,
        desired_revision: 1,
        last_event: 0,
        created_at: now,
        updated_at: now,
    };
    let mut tx = ops.store.begin().await?;
    if !store::lock_organization(&mut tx, organization).await? {
        return Err(Error::not_found("organisation"));
    }
    if usize::try_from(store::count(&mut tx, organization).await?).is_ok_and(|count| count >= MAX_TOOLBOXES) {
        let message = format!("An organisation can have at most {MAX_TOOLBOXES} toolboxes. Delete one first.");
        return Err(Error::new(Code::Conflict, message));
    }
    store::insert(&mut tx, &toolbox).await.map_err(|error| name_taken(error, &toolbox.name))?;
    record_operation(cx, &mut tx, &toolbox, "toolbox.create").await?;
    tx.commit().await?;
    let (state, allocated) = (toolbox.state(now), Allocation::default());
    Ok((ToolboxView { toolbox, state, allocated }, token))
}

/// Returns at most `limit` toolboxes, ordered by name. With `after`, returns only those with a later name.
///
/// # Errors
/// `not_found` if the caller cannot access the organisation.
pub async fn list(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    after: Option<&str>,
    limit: u32,
) -> Result<Vec<ToolboxView>> {
    ops.authorize_toolboxes(cx, Operation::ToolboxRead, organization)?;
    let mut conn = ops.store.read().await?;
    let toolboxes = store::list(&mut conn, organization, after, i64::from(limit)).await?;
    let allocations = list_allocations(&mut conn, organization, None).await?;
    let view = |toolbox: Toolbox| {
        let allocated = allocations.get(&toolbox.id).copied().unwrap_or_default();
        ToolboxView { state: toolbox.state(cx.now()), toolbox, allocated }
    };
    Ok(toolboxes.into_iter().map(view).collect())
}

/// Returns a toolbox.
///
/// # Errors
/// The same as for [`list`]; `not_found` if the toolbox does not exist.
pub async fn get(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &ToolboxId) -> Result<ToolboxView> {
    ops.authorize_toolboxes(cx, Operation::ToolboxRead, organization)?;
    let mut conn = ops.store.read().await?;
    let toolbox = store::find(&mut conn, organization, id).await?.ok_or_else(not_found)?;
    view(cx, &mut conn, toolbox).await
}

/// Returns the toolbox with the ID or the name `text`.
///
/// # Errors
/// The same as for [`get`].
pub async fn resolve(cx: &Ctx, ops: &Ops, organization: &OrganizationId, text: &str) -> Result<ToolboxView> {
    ops.authorize_toolboxes(cx, Operation::ToolboxRead, organization)?;
    let mut conn = ops.store.read().await?;
    let by_id = match text.parse::<ToolboxId>() {
        Ok(id) => store::find(&mut conn, organization, &id).await?,
        Err(_) => None,
    };
    let toolbox = match by_id {
        Some(toolbox) => toolbox,
        None => store::find_by_name(&mut conn, organization, &name::clean(text)).await?.ok_or_else(not_found)?,
    };
    view(cx, &mut conn, toolbox).await
}

/// Changes a toolbox.
///
/// # Errors
/// The same as for [`create`]; `not_found` if the toolbox does not exist.
pub async fn update(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &ToolboxId,
    patch: &ToolboxPatch,
) -> Result<ToolboxView> {
    ops.authorize_toolbox_use(cx, Operation::ToolboxWrite, organization).await?;
    let name = patch.name.as_deref().map(|text| name::check("name", text)).transpose()?;
    let mut tx = ops.store.begin().await?;
    let mut toolbox = store::lock(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    if let Some(name) = name.filter(|name| *name != toolbox.name) {
        (toolbox.name, toolbox.updated_at) = (name, cx.now());
        let renamed = store::rename(&mut tx, organization, id, &toolbox.name, cx.now()).await;
        renamed.map_err(|error| name_taken(error, &toolbox.name))?;
        record_operation(cx, &mut tx, &toolbox, "toolbox.update").await?;
    }
    let view = view(cx, &mut tx, toolbox).await?;
    tx.commit().await?;
    Ok(view)
}

/// Revokes a toolbox: its link is closed, it can no longer connect, and its running deployments end with the code
/// `toolbox_offline`. Instances without an earlier container that serves calls fail with their deployments. Succeeds if
/// the toolbox is already revoked.
///
/// # Errors
/// `forbidden` for members below admin; `not_found` if the toolbox does not exist.
pub async fn revoke(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &ToolboxId) -> Result<ToolboxView> {
    ops.authorize_toolboxes(cx, Operation::ToolboxWrite, organization)?;
    let mut tx = ops.store.begin().await?;
    let mut toolbox = store::lock(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    if store::revoke(&mut tx, organization, id, cx.now()).await? {
        (toolbox.revoked_at, toolbox.updated_at) = (Some(cx.now()), cx.now());
        (toolbox.join_token_hash, toolbox.join_expires_at) = (None, None);
        end_deployments(cx, &mut tx, &toolbox).await?;
        record_operation(cx, &mut tx, &toolbox, "toolbox.revoke").await?;
    }
    let view = view(cx, &mut tx, toolbox).await?;
    tx.commit().await?;
    ops.links().close(id);
    Ok(view)
}

async fn end_deployments(cx: &Ctx, tx: &mut Tx, toolbox: &Toolbox) -> Result<()> {
    let organization = &toolbox.organization_id;
    for mut instance in instance::list_by_toolbox(tx, organization, &toolbox.id).await? {
        deployments::end_revoked(cx, tx, &mut instance).await?;
        // An instance that is being removed will no longer be reported as removed.
        if instance.is_removing {
            instance::delete(tx, organization, &instance.id).await?;
        }
    }
    Ok(())
}

/// Requests a new key from the daemon: immediately if this process holds the link, otherwise when the daemon sends its
/// next heartbeat, at most a minute later if it is online. The current key remains valid until the daemon presents the
/// new one.
///
/// # Errors
/// `forbidden` for members below admin; `not_found` if the toolbox does not exist; `conflict` if no daemon has
/// connected or the toolbox is revoked.
pub async fn rotate_key(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &ToolboxId) -> Result<ToolboxView> {
    ops.authorize_toolbox_use(cx, Operation::ToolboxWrite, organization).await?;
    let mut tx = ops.store.begin().await?;
    let mut toolbox = store::lock(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    match toolbox.state(cx.now()) {
        ToolboxState::Pending => {
            return Err(Error::new(Code::Conflict, "No daemon has connected to this toolbox yet."));
        }
        ToolboxState::Revoked => {
            return Err(Error::new(Code::Conflict, "The toolbox is revoked, so its key is no longer valid."));
        }
        ToolboxState::Online | ToolboxState::Unresponsive => {}
    }
    store::request_key_rotation(&mut tx, organization, id, cx.now()).await?;
    (toolbox.key_rotation_requested_at, toolbox.updated_at) = (Some(cx.now()), cx.now());
    record_operation(cx, &mut tx, &toolbox, "toolbox.rotate_key").await?;
    let view = view(cx, &mut tx, toolbox).await?;
    tx.commit().await?;
    // Without a link here, the daemon is asked when it sends its next heartbeat.
    let _ = ops.links().rotate_key(id);
    Ok(view)
}

/// Deletes a toolbox, and closes its link. The instances of a revoked toolbox are deleted with it.
///
/// # Errors
/// `forbidden` for members below admin; `not_found` if the toolbox does not exist; `conflict` if it has instances and
/// is not revoked.
pub async fn delete(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &ToolboxId) -> Result<()> {
    ops.authorize_toolboxes(cx, Operation::ToolboxWrite, organization)?;
    let mut tx = ops.store.begin().await?;
    // Instances are created under this lock.
    store::lock_organization(&mut tx, organization).await?;
    let toolbox = store::lock(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    let instances = instance::list_by_toolbox(&mut tx, organization, id).await?;
    if !instances.is_empty() && toolbox.revoked_at.is_none() {
        let slugs: Vec<_> = instances.iter().map(|instance| format!("`{}`", instance.slug)).collect();
        let message = format!(
            "The toolbox still has instances: {}. Delete them first, or revoke the toolbox if its machine is lost.",
            slugs.join(", ")
        );
        return Err(Error::new(Code::Conflict, message));
    }
    instance::delete_by_toolbox(&mut tx, organization, id).await?;
    store::delete(&mut tx, organization, id).await?;
    for instance in &instances {
        let detail = json!({ "slug": instance.slug, "name": instance.name, "toolbox_id": id });
        let entry = Entry { action: "instance.delete", target: instance.id.as_str(), detail };
        record(cx, &mut tx, organization, entry).await?;
    }
    record_operation(cx, &mut tx, &toolbox, "toolbox.delete").await?;
    tx.commit().await?;
    ops.links().close(id);
    Ok(())
}

/// Marks toolboxes that have missed three heartbeats as unresponsive, and enqueues one webhook event per outage.
/// Returns the number of toolboxes. Called by a job.
///
/// # Errors
/// `forbidden` for everyone except the operator; any error of the store.
pub async fn report_unresponsive(cx: &Ctx, ops: &Ops) -> Result<usize> {
    authorize_operator(&cx.caller)?;
    let now = cx.now();
    let mut tx = ops.store.begin().await?;
    let before = now.plus(-UNRESPONSIVE_AFTER_MS);
    let found = store::mark_unresponsive(&mut tx, before, now, MAX_REPORTED).await?;
    for toolbox in &found {
        let seen = toolbox.last_seen_at.map(Timestamp::rfc3339);
        let text = format!(
            "The toolbox {} is unresponsive. Its last heartbeat arrived at {}.",
            toolbox.name,
            seen.as_deref().unwrap_or("an unknown time")
        );
        let data = json!({ "toolbox": { "id": toolbox.id, "name": toolbox.name, "last_seen_at": seen } });
        let event = Event { event: WebhookEvent::ToolboxUnresponsive, end_user_id: None, text: &text, data };
        enqueue(cx, &mut tx, &toolbox.organization_id, &event).await?;
    }
    tx.commit().await?;
    Ok(found.len())
}

/// Deletes the hashes of expired join tokens. Returns their number. Called by a job.
///
/// # Errors
/// `forbidden` for everyone except the operator; any error of the store.
pub async fn delete_expired_tokens(cx: &Ctx, ops: &Ops) -> Result<u64> {
    authorize_operator(&cx.caller)?;
    let mut tx = ops.store.begin().await?;
    let deleted = store::delete_expired_tokens(&mut tx, cx.now(), MAX_DELETED).await?;
    tx.commit().await?;
    Ok(deleted)
}

async fn record_operation(cx: &Ctx, tx: &mut Tx, toolbox: &Toolbox, action: &'static str) -> Result<()> {
    let detail: Value = json!({ "name": toolbox.name });
    record(cx, tx, &toolbox.organization_id, Entry { action, target: toolbox.id.as_str(), detail }).await
}

fn not_found() -> Error {
    Error::not_found("toolbox")
}

fn name_taken(error: waypost_store::Error, name: &str) -> Error {
    conflict_if_taken(error, || {
        format!("A toolbox named `{name}` already exists. Choose another name, or delete that toolbox first.")
    })
}
