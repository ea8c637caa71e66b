//! Tool sets: selections of the tools of instances, each with its own gateway URL.

use serde_json::json;
use waypost_core::access::{Operation, authorize};
use waypost_core::caller::Ctx;
use waypost_core::id::{OrganizationId, ToolSetId};
use waypost_core::tool_set::{MAX_TOOL_SETS, ToolSet, ToolSetMember, check_members};
use waypost_core::{Code, Error, Result};
use waypost_store::{Tx, instance, organization, tool_set as store};

use crate::Ops;
use crate::audit::{Entry, record};
use crate::checks::{check_short_name, conflict_if_deleted, exceeds};
use crate::slugs;

/// A tool set to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToolSet {
    /// The slug.
    pub slug: String,
    /// The name. By default, the slug.
    pub name: Option<String>,
    /// Whether names of tools and prompts begin with the slug of their instance.
    pub prefix: bool,
    /// The members.
    pub members: Vec<ToolSetMember>,
}

/// Changes to a tool set. Fields that are `None` stay unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToolSetPatch {
    /// The slug. A change of the slug changes the URL; the old URL stops working.
    pub slug: Option<String>,
    /// The name.
    pub name: Option<String>,
    /// Whether names of tools and prompts begin with the slug of their instance.
    pub prefix: Option<bool>,
    /// All members.
    pub members: Option<Vec<ToolSetMember>>,
}

/// Creates a tool set.
///
/// # Errors
/// `not_found` if the caller cannot access the organisation; `forbidden` for members below admin; `invalid_arguments`
/// naming the field; `conflict` if the slug is taken or looks like another one, or the organisation has 100 tool sets.
pub async fn create(cx: &Ctx, ops: &Ops, organization: &OrganizationId, new: &NewToolSet) -> Result<ToolSet> {
    authorize(&cx.caller, Operation::ToolSetWrite, organization)?;
    slugs::check(&new.slug)?;
    check_members(new.prefix, &new.members)?;
    let tool_set = ToolSet {
        id: ToolSetId::new(&*cx.random),
        organization_id: organization.clone(),
        name: check_short_name(new.name.as_deref().unwrap_or(&new.slug))?,
        slug: new.slug.clone(),
        prefix: new.prefix,
        members: new.members.clone(),
    };
    let mut tx = ops.store.begin().await?;
    if organization::find(&mut tx, organization).await?.is_none() {
        return Err(Error::not_found("organisation"));
    }
    let skeleton = check_slug(&mut tx, &tool_set).await?;
    check_instances(&mut tx, &tool_set).await?;
    // The insertion locks the change counter, so tool sets are counted one after another.
    store::insert(&mut tx, &tool_set, &skeleton).await.map_err(changed_meanwhile)?;
    if exceeds(store::count(&mut tx, organization).await?, MAX_TOOL_SETS) {
        let message = format!("An organisation can have at most {MAX_TOOL_SETS} tool sets. Delete one first.");
        return Err(Error::new(Code::Conflict, message));
    }
    record_operation(cx, &mut tx, &tool_set, "tool_set.create").await?;
    tx.commit().await?;
    Ok(tool_set)
}

/// Returns at most `limit` tool sets, ordered by slug. With `after`, returns only those with a later slug.
///
/// # Errors
/// `not_found` if the caller cannot access the organisation.
pub async fn list(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    after: Option<&str>,
    limit: u32,
) -> Result<Vec<ToolSet>> {
    authorize(&cx.caller, Operation::ToolSetRead, organization)?;
    Ok(store::list(&mut ops.store.read().await?, organization, after, limit).await?)
}

/// Returns a tool set.
///
/// # Errors
/// Those of [`list`]; `not_found` if the tool set does not exist.
pub async fn get(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &ToolSetId) -> Result<ToolSet> {
    authorize(&cx.caller, Operation::ToolSetRead, organization)?;
    store::find(&mut ops.store.read().await?, organization, id).await?.ok_or_else(not_found)
}

/// Returns the tool set with the ID or the slug `text`.
///
/// # Errors
/// Those of [`get`].
pub async fn resolve(cx: &Ctx, ops: &Ops, organization: &OrganizationId, text: &str) -> Result<ToolSet> {
    authorize(&cx.caller, Operation::ToolSetRead, organization)?;
    let mut conn = ops.store.read().await?;
    // A slug contains no `_`, so none has the form of an ID.
    let found = match text.parse::<ToolSetId>() {
        Ok(id) => store::find(&mut conn, organization, &id).await?,
        Err(_) => store::find_by_slug(&mut conn, organization, text).await?,
    };
    found.ok_or_else(not_found)
}

/// Changes a tool set.
///
/// # Errors
/// Those of [`create`]; `not_found` if the tool set does not exist.
pub async fn update(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &ToolSetId,
    change: &ToolSetPatch,
) -> Result<ToolSet> {
    authorize(&cx.caller, Operation::ToolSetWrite, organization)?;
    let mut tx = ops.store.begin().await?;
    let before = store::find(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    let mut tool_set = before.clone();
    if let Some(slug) = &change.slug {
        slugs::check(slug)?;
        tool_set.slug.clone_from(slug);
    }
    if let Some(name) = &change.name {
        tool_set.name = check_short_name(name)?;
    }
    tool_set.prefix = change.prefix.unwrap_or(tool_set.prefix);
    if let Some(members) = &change.members {
        tool_set.members.clone_from(members);
    }
    if tool_set == before {
        return Ok(before);
    }
    if (tool_set.prefix, &tool_set.members) != (before.prefix, &before.members) {
        check_members(tool_set.prefix, &tool_set.members)?;
    }
    if change.members.is_some() {
        check_instances(&mut tx, &tool_set).await?;
    }
    let skeleton = check_slug(&mut tx, &tool_set).await?;
    store::update(&mut tx, &tool_set, &skeleton).await.map_err(changed_meanwhile)?;
    record_operation(cx, &mut tx, &tool_set, "tool_set.update").await?;
    tx.commit().await?;
    Ok(tool_set)
}

/// Deletes a tool set. Its URL stops working everywhere within one second.
///
/// # Errors
/// `not_found` if the tool set does not exist or the caller cannot access the organisation; `forbidden` for members below
/// admin.
pub async fn delete(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &ToolSetId) -> Result<()> {
    authorize(&cx.caller, Operation::ToolSetWrite, organization)?;
    let mut tx = ops.store.begin().await?;
    let tool_set = store::find(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    store::delete(&mut tx, organization, id).await?;
    record_operation(cx, &mut tx, &tool_set, "tool_set.delete").await?;
    tx.commit().await?;
    Ok(())
}

/// Checks that no other tool set of the organisation has a slug that looks like this one. Returns the skeleton of the
/// slug.
async fn check_slug(tx: &mut Tx, tool_set: &ToolSet) -> Result<String> {
    let (slug, skeleton) = (&tool_set.slug, slugs::to_skeleton(&tool_set.slug));
    let taken = store::find_by_skeleton(tx, &tool_set.organization_id, &skeleton).await?;
    let Some((_, taken)) = taken.filter(|(id, _)| *id != tool_set.id) else { return Ok(skeleton) };
    let message = if taken == *slug {
        format!("A tool set with the slug `{slug}` already exists. Choose another slug.")
    } else {
        format!("The slug `{slug}` looks like `{taken}`, the slug of another tool set. Choose another slug.")
    };
    Err(Error::new(Code::Conflict, message).with("field", "slug"))
}

/// Checks that the members are instances of the organisation that are not being removed.
async fn check_instances(tx: &mut Tx, tool_set: &ToolSet) -> Result<()> {
    let ids: Vec<_> = tool_set.members.iter().map(|member| &member.instance_id).collect();
    let existing = instance::list_existing(tx, &tool_set.organization_id, &ids).await?;
    match ids.into_iter().find(|id| !existing.contains(id)) {
        None => Ok(()),
        Some(id) => {
            let message = format!("There is no instance `{id}`, or it is being removed.");
            Err(Error::invalid("members", message))
        }
    }
}

async fn record_operation(cx: &Ctx, tx: &mut Tx, tool_set: &ToolSet, action: &'static str) -> Result<()> {
    let member = |member: &ToolSetMember| {
        let tools = member.tools.as_ref().map(Vec::len);
        json!({ "instance_id": member.instance_id, "tool_count": tools })
    };
    let members: Vec<_> = tool_set.members.iter().map(member).collect();
    let detail = json!({ "slug": tool_set.slug, "name": tool_set.name, "prefix": tool_set.prefix, "members": members });
    record(cx, tx, &tool_set.organization_id, Entry { action, target: tool_set.id.as_str(), detail }).await
}

/// Converts the errors of concurrent changes that were made after the checks.
fn changed_meanwhile(error: waypost_store::Error) -> Error {
    if error.is_unique_violation() {
        return Error::new(Code::Conflict, "Another tool set has just been given this slug. Choose another slug.");
    }
    conflict_if_deleted(error, "An instance")
}

fn not_found() -> Error {
    Error::not_found("tool set")
}
