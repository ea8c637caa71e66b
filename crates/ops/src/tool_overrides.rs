//! Names and descriptions of tools for agents, in place of those that the server lists.
//!
//! Invariants:
//! 1. Grants, rules, approvals, tool sets and the call log refer to the original name of a tool.
//! 2. A name that an admin has given to a tool belongs to it until the override is changed, even while the server does not list
//!    the tool. If the server later lists another tool with this name, agents do not see that one (`shadowed_tools`), so
//!    they never call a tool other than the one that the admin named.

use std::collections::{HashMap, HashSet};

use serde_json::json;
use waypost_content::invisible;
use waypost_core::access::Operation;
use waypost_core::caller::Ctx;
use waypost_core::id::{InstanceId, OrganizationId};
use waypost_core::tool_definition::{DefinitionKind, ToolDefinition};
use waypost_core::tool_override::{MAX_DESCRIPTION, MAX_NAME, MAX_OVERRIDES, ToolOverride};
use waypost_core::{Code, Error, Result};
use waypost_mcp_wire::names::public_name;
use waypost_store::{Conn, Tx, instance, tool_definition, tool_override as store, toolbox};

use crate::Ops;
use crate::audit::{Entry, record};
use crate::checks::conflict_if_deleted;

/// A change to the override of a tool. Fields that are `None` stay unchanged; `Some(None)` restores the original.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToolOverridePatch {
    /// The original name of the tool.
    pub tool: String,
    /// The name for agents.
    pub name: Option<Option<String>>,
    /// The description for agents.
    pub description: Option<Option<String>>,
}

/// Returns the name by which agents know a tool of the instance with this slug.
#[must_use]
pub fn public_name_of(slug: &str, own: &ToolOverride) -> String {
    public_name(slug, own.name.as_deref().unwrap_or(&own.tool))
}

/// Returns the original names of the tools of an instance that agents do not see, because an override gives their name to
/// another tool. `overrides` are those of the instance, by original name.
pub(crate) fn shadowed_tools(
    slug: &str,
    definitions: &[ToolDefinition],
    overrides: &HashMap<String, ToolOverride>,
) -> HashSet<String> {
    let names = overrides.values().filter_map(|one| one.name.as_deref());
    let taken: HashSet<String> = names.map(|name| public_name(slug, name)).collect();
    if taken.is_empty() {
        return HashSet::new();
    }
    let has_name = |tool: &str| overrides.get(tool).is_some_and(|own| own.name.is_some());
    let tools = definitions.iter().filter(|definition| definition.kind == DefinitionKind::Tool);
    let shadowed = tools.filter(|tool| !has_name(&tool.name) && taken.contains(&public_name(slug, &tool.name)));
    shadowed.map(|tool| tool.name.clone()).collect()
}

/// Returns the overrides of an instance, ordered by tool.
///
/// # Errors
/// `not_found` if the instance does not exist or the caller cannot access the organisation.
pub async fn list(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    instance: &InstanceId,
) -> Result<Vec<ToolOverride>> {
    ops.authorize_toolboxes(cx, Operation::ToolApprovalRead, organization)?;
    let mut conn = ops.store.read().await?;
    find_slug(&mut conn, organization, instance).await?;
    Ok(store::list(&mut conn, organization, Some(instance)).await?)
}

/// Returns the original names of the tools of an instance that can have an override, in order: those that its server
/// currently lists, or that are approved.
///
/// # Errors
/// Those of [`list`].
pub async fn list_tools(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    instance: &InstanceId,
) -> Result<Vec<String>> {
    ops.authorize_toolboxes(cx, Operation::ToolApprovalRead, organization)?;
    let mut conn = ops.store.read().await?;
    find_slug(&mut conn, organization, instance).await?;
    list_known_tools(&mut conn, organization, instance).await
}

/// Changes the override of a tool. It takes effect everywhere within one second. Returns the override, which has been deleted
/// if it has neither a name nor a description.
///
/// # Errors
/// Those of [`list`]; `forbidden` for members below admin; `invalid_arguments`, naming the field; `conflict` if another tool
/// of the instance has this name, or if the instance has [`MAX_OVERRIDES`] overrides.
pub async fn update(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    instance: &InstanceId,
    change: &ToolOverridePatch,
) -> Result<ToolOverride> {
    ops.authorize_toolboxes(cx, Operation::ToolApprovalWrite, organization)?;
    let mut tx = ops.store.begin().await?;
    // Locked so that no concurrent change can take the same name.
    toolbox::lock_organization(&mut tx, organization).await?;
    let slug = find_slug(&mut tx, organization, instance).await?;
    let overrides = store::list(&mut tx, organization, Some(instance)).await?;
    let before = overrides.iter().find(|one| one.tool == change.tool);
    let known = list_known_tools(&mut tx, organization, instance).await?;
    if before.is_none() && !known.contains(&change.tool) {
        return Err(Error::invalid(
            "tool",
            "The server of this instance lists no tool with this original name. Check the list of its tools.",
        ));
    }
    let new = apply(organization, instance, before, change);
    let is_original = new.name.is_none() && new.description.is_none();
    if before.map_or(is_original, |before| *before == new) {
        return Ok(new);
    }
    check(&new)?;
    // Checked only if the name changes, so that a description can be changed even while another tool is shadowed.
    if before.and_then(|before| before.name.as_ref()) != new.name.as_ref() {
        check_name_available(&slug, &new, &known, &overrides)?;
    }
    if before.is_none() && overrides.len() >= MAX_OVERRIDES {
        let message = format!(
            "An instance can have at most {MAX_OVERRIDES} tools with another name or description. Restore one first."
        );
        return Err(Error::new(Code::Conflict, message));
    }
    if is_original {
        store::delete(&mut tx, organization, instance, &new.tool).await?;
    } else {
        store::replace(&mut tx, &new).await.map_err(|error| conflict_if_deleted(error, "The instance"))?;
    }
    record_operation(cx, &mut tx, &new).await?;
    tx.commit().await?;
    Ok(new)
}

/// Returns the override after a change.
fn apply(
    organization: &OrganizationId,
    instance: &InstanceId,
    before: Option<&ToolOverride>,
    change: &ToolOverridePatch,
) -> ToolOverride {
    let (name, description) =
        before.map(|before| (before.name.clone(), before.description.clone())).unwrap_or_default();
    let changed = change.name.clone().unwrap_or(name);
    ToolOverride {
        organization_id: organization.clone(),
        instance_id: instance.clone(),
        tool: change.tool.clone(),
        // The original name needs no override.
        name: changed.filter(|name| *name != change.tool),
        description: change.description.clone().unwrap_or(description),
    }
}

/// Checks the characters of a name and a description.
fn check(new: &ToolOverride) -> Result<()> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if let Some(name) = &new.name
        && (name.is_empty() || name.len() > MAX_NAME || !name.chars().all(is_allowed))
    {
        let message = format!("`name` must have 1 to {MAX_NAME} characters from A to Z, a to z, 0 to 9, `_` and `-`.");
        return Err(Error::invalid("name", message));
    }
    let Some(description) = &new.description else { return Ok(()) };
    let length = description.chars().count();
    if length == 0 || length > MAX_DESCRIPTION {
        let message = format!("`description` must have 1 to {MAX_DESCRIPTION} characters.");
        return Err(Error::invalid("description", message));
    }
    // Otherwise agents would read text that admins cannot see.
    let is_hidden = |c: char| c != '\n' && (c.is_control() || invisible::is_invisible(c));
    if description.chars().any(is_hidden) {
        return Err(Error::invalid(
            "description",
            "`description` contains control characters or invisible characters.",
        ));
    }
    Ok(())
}

/// Checks that a name is neither the original name nor the override of another tool. The original name of a renamed tool stays
/// reserved for it: agents and admins would otherwise mean different tools by the same name.
fn check_name_available(slug: &str, new: &ToolOverride, known: &[String], overrides: &[ToolOverride]) -> Result<()> {
    let Some(name) = &new.name else { return Ok(()) };
    let public = public_name(slug, name);
    let originals = known.iter().chain(overrides.iter().map(|one| &one.tool)).map(|tool| (tool, tool));
    let renamed = overrides.iter().filter_map(|one| Some((&one.tool, one.name.as_ref()?)));
    let mut others = originals.chain(renamed).filter(|(tool, _)| **tool != new.tool);
    match others.find(|(_, taken)| public_name(slug, taken) == public) {
        None => Ok(()),
        Some((tool, _)) => {
            let message = format!("Name `{name}` belongs to the tool `{tool}` of this instance. Choose another.");
            Err(Error::new(Code::Conflict, message).with("field", "name"))
        }
    }
}

async fn list_known_tools(
    conn: &mut Conn,
    organization: &OrganizationId,
    instance: &InstanceId,
) -> Result<Vec<String>> {
    let definitions = tool_definition::list_relevant(conn, organization, instance).await?;
    let tools = definitions.into_iter().filter(|definition| definition.kind == DefinitionKind::Tool);
    let mut names: Vec<String> = tools.map(|definition| definition.name).collect();
    names.dedup();
    Ok(names)
}

async fn find_slug(conn: &mut Conn, organization: &OrganizationId, id: &InstanceId) -> Result<String> {
    let found = instance::find(conn, organization, id).await?;
    Ok(found.ok_or_else(|| Error::not_found("instance"))?.slug)
}

async fn record_operation(cx: &Ctx, tx: &mut Tx, new: &ToolOverride) -> Result<()> {
    let detail = json!({ "tool": new.tool, "name": new.name, "description": new.description });
    let entry = Entry { action: "tool_override.update", target: new.instance_id.as_str(), detail };
    record(cx, tx, &new.organization_id, entry).await
}
