//! Determines which definitions of the servers of its organisation an agent sees, and why.
//!
//! Invariants:
//! 1. [`View`] decides what an agent sees. The gateway lists and calls through it, and [`explain`] reports its
//!    decisions, so that pages never show anything other than what the gateway does.
//! 2. The reasons why something is hidden use the same policy ([`waypost_core::grant::covers`]).

mod view;

use std::collections::HashMap;

use waypost_core::access::{Operation, authorize};
use waypost_core::caller::Ctx;
use waypost_core::grant::{Grant, Target, covers};
use waypost_core::id::{AgentId, GrantId, InstanceId, OrganizationId, ToolApprovalId};
use waypost_core::instance::Instance;
use waypost_core::tool_definition::{ApprovalState, DefinitionKind, ToolDefinition};
use waypost_core::{Result, Timestamp};
use waypost_store::{agent, tool_definition};

pub use self::view::{Found, Item, View};
use crate::Ops;
use crate::tool_access::{AgentAccess, list_instances, load};

/// Whether an agent sees a definition, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Visibility {
    /// The gateway lists the definition for the agent.
    Visible {
        /// The name or URI by which the agent knows it.
        public: String,
        /// The grants that cover it.
        grants: Vec<GrantId>,
        /// Whether every one of these grants has rules on the arguments of the tool, so that calls can be rejected.
        is_restricted: bool,
    },
    /// The server no longer lists the approved definition.
    NotListed,
    /// The definition waits for an approval.
    NotApproved,
    /// The definition has changed since its approval, and the change waits for an approval.
    Changed,
    /// An admin has rejected the definition.
    Rejected,
    /// The agent has no grant for the instance.
    NotGranted,
    /// The grants that cover the definition have expired.
    Expired(Vec<GrantId>),
    /// The agent has grants for the instance, but none of them covers the definition.
    NotCovered,
    /// Another definition has the same public name.
    NameTaken,
}

/// A definition with its visibility for an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainedDefinition {
    /// The definition.
    pub definition: ToolDefinition,
    /// Whether the agent sees it, and why.
    pub visibility: Visibility,
}

/// An instance, and how much an agent sees of it.
#[derive(Debug, Clone, PartialEq)]
pub struct VisibleInstance {
    /// The instance.
    pub instance: Instance,
    /// The number of tools, prompts, resources and templates that the agent sees.
    pub visible: usize,
    /// The grants of the agent for the instance, newest first.
    pub grants: Vec<Grant>,
}

/// Returns all instances of the organisation, ordered by slug, and how much an agent sees of them.
///
/// # Errors
/// `not_found` if the agent does not exist or the caller cannot access the organisation; `forbidden` for members below
/// admin.
pub async fn list(cx: &Ctx, ops: &Ops, organization: &OrganizationId, agent: &AgentId) -> Result<Vec<VisibleInstance>> {
    let access = load_authorized(cx, ops, organization, agent).await?;
    let instances = list_instances(&mut ops.store.read().await?, organization).await?;
    let view = View::new(&access, None, cx.now());
    let mut counts: HashMap<&InstanceId, usize> = HashMap::new();
    for kind in DefinitionKind::ALL.iter().filter(|kind| **kind != DefinitionKind::Instructions) {
        for item in view.items(*kind) {
            *counts.entry(&item.server.instance.id).or_default() += 1;
        }
    }
    let visible = |instance: Instance| VisibleInstance {
        visible: counts.get(&instance.id).copied().unwrap_or_default(),
        grants: access.grants.get(&instance.id).cloned().unwrap_or_default(),
        instance,
    };
    Ok(instances.into_iter().map(visible).collect())
}

/// Returns the definitions of the server of an instance, and whether an agent sees them. Of several definitions with
/// the same kind and name, only the one that the server currently lists is returned; if it lists none, the one that was
/// seen last.
///
/// # Errors
/// Those of [`list`]. An unknown instance has no definitions.
pub async fn explain(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    agent: &AgentId,
    instance: &InstanceId,
) -> Result<Vec<ExplainedDefinition>> {
    let access = load_authorized(cx, ops, organization, agent).await?;
    let all = tool_definition::list_relevant(&mut ops.store.read().await?, organization, instance).await?;
    let now = cx.now();
    let names = public_names(&View::new(&access, None, now));
    let grants = access.grants.get(instance).map_or(&[][..], Vec::as_slice);
    let mut explained = Vec::new();
    for same in all.chunk_by(|one, other| (one.kind, &one.name) == (other.kind, &other.name)) {
        let Some(definition) = same.iter().find(|definition| definition.is_current).or(same.last()) else { continue };
        let was_approved =
            same.iter().any(|other| other.state == ApprovalState::Approved && other.digest != definition.digest);
        let visibility = match names.get(&definition.id) {
            Some(public) => visible(definition, grants, public.clone(), now),
            None => hidden(definition, grants, was_approved, now),
        };
        explained.push(ExplainedDefinition { definition: definition.clone(), visibility });
    }
    // The store orders the kinds by their names.
    explained.sort_by_key(|one| DefinitionKind::ALL.iter().position(|kind| *kind == one.definition.kind));
    Ok(explained)
}

async fn load_authorized(cx: &Ctx, ops: &Ops, organization: &OrganizationId, agent: &AgentId) -> Result<AgentAccess> {
    authorize(&cx.caller, Operation::AgentRead, organization)?;
    authorize(&cx.caller, Operation::GrantRead, organization)?;
    let mut conn = ops.store.read().await?;
    if agent::find(&mut conn, organization, agent).await?.is_none() {
        return Err(crate::agents::not_found());
    }
    load(&mut conn, organization, agent).await
}

/// Returns the public name of each definition that the gateway lists.
fn public_names(view: &View<'_>) -> HashMap<ToolApprovalId, String> {
    let items = DefinitionKind::ALL.iter().flat_map(|kind| view.items(*kind));
    items.map(|item| (item.definition.id.clone(), item.public)).collect()
}

fn target(definition: &ToolDefinition) -> Target<'_> {
    Target { kind: definition.kind, name: &definition.name, class: definition.class }
}

/// Returns the grants that each cover a definition on their own.
fn covering<'a>(grants: &'a [Grant], definition: &ToolDefinition, now: Timestamp) -> Vec<&'a Grant> {
    grants.iter().filter(|grant| covers(std::slice::from_ref(*grant), now, target(definition))).collect()
}

fn visible(definition: &ToolDefinition, grants: &[Grant], public: String, now: Timestamp) -> Visibility {
    let covering = covering(grants, definition, now);
    let has_rules = |grant: &&Grant| grant.rules.iter().any(|rule| rule.tool == definition.name);
    Visibility::Visible {
        public,
        is_restricted: definition.kind == DefinitionKind::Tool && covering.iter().all(has_rules),
        grants: covering.into_iter().map(|grant| grant.id.clone()).collect(),
    }
}

fn hidden(definition: &ToolDefinition, grants: &[Grant], was_approved: bool, now: Timestamp) -> Visibility {
    match definition.state {
        ApprovalState::Rejected => return Visibility::Rejected,
        ApprovalState::Pending if was_approved => return Visibility::Changed,
        ApprovalState::Pending => return Visibility::NotApproved,
        ApprovalState::Approved if !definition.is_current => return Visibility::NotListed,
        ApprovalState::Approved => {}
    }
    if grants.is_empty() {
        return Visibility::NotGranted;
    }
    if !covering(grants, definition, now).is_empty() {
        return Visibility::NameTaken;
    }
    let unexpired: Vec<Grant> = grants.iter().map(|grant| Grant { expires_at: None, ..grant.clone() }).collect();
    match covering(&unexpired, definition, now).as_slice() {
        [] => Visibility::NotCovered,
        expired => Visibility::Expired(expired.iter().map(|grant| grant.id.clone()).collect()),
    }
}
