//! Approvals of the definitions that the servers of instances list. The invariants are in [`crate::tool_definitions`].

use serde_json::Value;
use waypost_content::diff::{DiffLine, Differ};
use waypost_content::invisible;
use waypost_core::access::Operation;
use waypost_core::caller::Ctx;
use waypost_core::id::{CatalogVersionId, InstanceId, OrganizationId, ToolApprovalId};
use waypost_core::tool_definition::{
    ApprovalState, Class, DefinitionKind, MAX_DEFINITIONS, MAX_REASON, ToolDefinition,
};
use waypost_core::{Code, Error, Result};
use waypost_store::tool_definition::{self as store, Content, Decision, Filter};
use waypost_store::{Tx, instance, organization};

use crate::Ops;
use crate::deployments::notify::clean;
use crate::instances::remote::check_answered;
use crate::tool_definitions::decision::{check, record_decision, record_rejection};
use crate::tool_definitions::{Observation, fetch, observe};

/// The maximum page size.
const MAX_PAGE: u32 = 100;
/// The maximum number of definitions of a catalogue version that [`list_known`] reads.
const MAX_KNOWN: i64 = 10_000;

/// A definition with the one that it would replace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolApproval {
    /// The definition.
    pub definition: ToolDefinition,
    /// The definition of the same kind and name that was approved most recently, or else the one seen most recently before.
    pub previous: Option<ToolDefinition>,
}

impl ToolApproval {
    /// Returns the lines that differ between the previous definition and this one. Empty if there is no previous one.
    #[must_use]
    pub fn diff(&self) -> Vec<DiffLine> {
        let compare = |previous: &ToolDefinition| {
            Differ::default().lines(&readable_definition(previous), &readable_definition(&self.definition))
        };
        self.previous.as_ref().map(compare).unwrap_or_default()
    }
}

/// Returns a definition as indented JSON, and instructions as text, in which invisible characters are escaped. Empty if it was
/// too large to be stored, or is not JSON.
#[must_use]
pub fn readable_definition(definition: &ToolDefinition) -> String {
    let text = match serde_json::from_str(&definition.definition) {
        Ok(Value::String(text)) => text,
        Ok(value) => serde_json::to_string_pretty::<Value>(&value).unwrap_or_default(),
        Err(_) => String::new(),
    };
    invisible::escape(&text).into_owned()
}

/// A page of approvals, oldest first.
#[derive(Debug, Clone)]
pub struct ToolApprovalPage {
    /// The approvals.
    pub items: Vec<ToolApproval>,
    /// The cursor of the next page. `None` on the last page.
    pub next_cursor: Option<String>,
}

/// The filter and page of [`list`].
#[derive(Debug, Clone, Default)]
pub struct ListToolApprovals {
    /// Only those in this state.
    pub state: Option<ApprovalState>,
    /// Only those of this instance.
    pub instance_id: Option<InstanceId>,
    /// The maximum number, 1 to 100.
    pub limit: u32,
    /// The cursor from the previous page.
    pub cursor: Option<String>,
}

/// Returns a page of the definitions that have been seen, with their approvals.
///
/// # Errors
/// `not_found` if the caller cannot access the organisation; `invalid_arguments` for a limit out of range or an invalid
/// cursor.
pub async fn list(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    query: &ListToolApprovals,
) -> Result<ToolApprovalPage> {
    ops.authorize_toolboxes(cx, Operation::ToolApprovalRead, organization)?;
    if !(1..=MAX_PAGE).contains(&query.limit) {
        return Err(Error::invalid("limit", format!("`limit` must be a number from 1 to {MAX_PAGE}.")));
    }
    let invalid_cursor = |_| Error::invalid("cursor", "`cursor` is invalid. Start again without it.");
    let after = query.cursor.as_deref().map(str::parse::<ToolApprovalId>).transpose().map_err(invalid_cursor)?;
    let filter = Filter { state: query.state, instance: query.instance_id.as_ref(), after: after.as_ref() };
    let mut conn = ops.store.read().await?;
    let mut found = store::list(&mut conn, organization, filter, i64::from(query.limit) + 1).await?;
    let has_more = found.len() > query.limit as usize;
    found.truncate(query.limit as usize);
    let next_cursor = found.last().filter(|_| has_more).map(|last| last.id.to_string());
    let mut items = Vec::with_capacity(found.len());
    for definition in found {
        let previous = store::find_previous(&mut conn, &definition).await?;
        items.push(ToolApproval { definition, previous });
    }
    Ok(ToolApprovalPage { items, next_cursor })
}

/// Returns a definition with its approval.
///
/// # Errors
/// `not_found` if it does not exist or the caller cannot access the organisation.
pub async fn get(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &ToolApprovalId) -> Result<ToolApproval> {
    ops.authorize_toolboxes(cx, Operation::ToolApprovalRead, organization)?;
    let mut conn = ops.store.read().await?;
    let definition = store::find(&mut conn, organization, id).await?.ok_or_else(not_found)?;
    let previous = store::find_previous(&mut conn, &definition).await?;
    Ok(ToolApproval { definition, previous })
}

/// A definition that instances of a catalogue version list, and the decision that applies to it in a new instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownDefinition {
    /// The kind.
    pub kind: DefinitionKind,
    /// The name.
    pub name: String,
    /// `approved` if it is approved for an instance of the version, otherwise `rejected` if it is rejected for one,
    /// otherwise `pending`.
    pub state: ApprovalState,
    /// The class, if it is approved.
    pub class: Option<Class>,
    /// The reason why it cannot be approved, such as `not_canonical`.
    pub problem: Option<String>,
}

/// Returns the definitions that the servers of a catalogue version currently list, ordered by kind and name. Empty if the
/// version has not been deployed before, or nothing has been read from its servers. If its instances have more than 10,000
/// definitions in total, only the first 10,000 are considered.
///
/// # Errors
/// `not_found` if the caller cannot access the organisation.
pub async fn list_known(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    version: &CatalogVersionId,
) -> Result<Vec<KnownDefinition>> {
    ops.authorize_toolboxes(cx, Operation::ToolApprovalRead, organization)?;
    let all = store::list_by_version(&mut ops.store.read().await?, organization, version, MAX_KNOWN).await?;
    let is_same = |one: &Decision, other: &Decision| {
        (one.kind, &one.name, &one.digest) == (other.kind, &other.name, &other.digest)
    };
    let current = all.chunk_by(is_same).filter(|same| same.iter().any(|one| one.is_current));
    let known = current.filter_map(|same| {
        let with = |state| same.iter().find(|one| one.state == state);
        let decided = with(ApprovalState::Approved).or_else(|| with(ApprovalState::Rejected)).or(same.first())?;
        Some(KnownDefinition {
            kind: decided.kind,
            name: decided.name.clone(),
            state: decided.state,
            class: decided.class,
            problem: decided.problem.clone(),
        })
    });
    Ok(known.collect())
}

/// Reads the definitions that the server of an instance currently lists, so that new ones can be approved.
///
/// # Errors
/// `not_found` if the instance does not exist or the caller cannot access it; `forbidden` for members below admin; those of
/// [`fetch`].
pub async fn refresh(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &InstanceId) -> Result<Observation> {
    ops.authorize_toolbox_use(cx, Operation::ToolApprovalWrite, organization).await?;
    let found = instance::find(&mut ops.store.read().await?, organization, id).await?;
    let instance = found.ok_or_else(|| Error::not_found("instance"))?;
    check_answered(&instance)?;
    let listed = fetch(ops, &instance, None).await?;
    observe(cx, ops, &instance, &listed.definitions).await
}

/// Approves exactly the definition with this digest. The approval also applies to the other instances of the same
/// catalogue version that list it, unless the tool has been rejected for them. From then on, agents with a grant can
/// see and use it.
///
/// # Errors
/// `not_found` if it does not exist or the caller cannot access the organisation; `forbidden` for members below admin;
/// `conflict` if the digest differs, or the server no longer lists the definition; `invalid_arguments` if it cannot be
/// approved: it has a problem, or its schema is invalid.
pub async fn approve(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &ToolApprovalId,
    (digest, class): (&str, Class),
) -> Result<ToolDefinition> {
    ops.authorize_toolboxes(cx, Operation::ToolApprovalWrite, organization)?;
    let mut tx = ops.store.begin().await?;
    if !organization::lock(&mut tx, organization).await? {
        return Err(not_found());
    }
    let definition = store::find(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    let approved = approve_one(cx, &mut tx, definition, (digest, class)).await?;
    tx.bump_config_version(organization).await?;
    tx.commit().await?;
    Ok(approved)
}

/// Approves several definitions of an instance with the same class: all of them or, if there is an error, none.
///
/// # Errors
/// Those of [`approve`]; `not_found` if the instance does not exist; `conflict` if it has no definition with one of the
/// digests; `invalid_arguments` if there are no digests or too many.
pub async fn approve_all(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    instance: &InstanceId,
    (digests, class): (&[String], Class),
) -> Result<Vec<ToolDefinition>> {
    ops.authorize_toolboxes(cx, Operation::ToolApprovalWrite, organization)?;
    let mut tx = ops.store.begin().await?;
    if !organization::lock(&mut tx, organization).await? {
        return Err(Error::not_found("instance"));
    }
    let found = instance::find(&mut tx, organization, instance).await?;
    let instance = found.ok_or_else(|| Error::not_found("instance"))?;
    if digests.is_empty() || digests.len() > MAX_DEFINITIONS {
        let message = format!("`digests` must have 1 to {MAX_DEFINITIONS} entries.");
        return Err(Error::invalid("digests", message));
    }
    let mut approved = Vec::new();
    for digest in digests {
        let same = store::list_by_digest(&mut tx, organization, &instance.id, digest).await?;
        if same.is_empty() {
            let message =
                format!("The instance has no definition with the digest `{}`. Read the list again.", clean(digest));
            return Err(Error::new(Code::Conflict, message));
        }
        for definition in same {
            approved.push(approve_one(cx, &mut tx, definition, (digest, class)).await?);
        }
    }
    tx.bump_config_version(organization).await?;
    tx.commit().await?;
    Ok(approved)
}

/// Rejects a definition, even if it was approved before. From then on, no agent can use it.
///
/// The other approved definitions of the same instance, kind and name are rejected too: otherwise, the server could
/// make the tool usable again by listing one of them, even while the admin decides.
///
/// # Errors
/// `not_found` if it does not exist or the caller cannot access the organisation; `forbidden` for members below admin;
/// `invalid_arguments` if the reason is too long.
pub async fn reject(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &ToolApprovalId,
    reason: &str,
) -> Result<ToolDefinition> {
    ops.authorize_toolboxes(cx, Operation::ToolApprovalWrite, organization)?;
    if reason.chars().count() > MAX_REASON {
        return Err(Error::invalid("reason", format!("`reason` can have at most {MAX_REASON} characters.")));
    }
    let mut tx = ops.store.begin().await?;
    if !organization::lock(&mut tx, organization).await? {
        return Err(not_found());
    }
    let definition = store::find(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    let rejected = ToolDefinition {
        state: ApprovalState::Rejected,
        class: None,
        reason: Some(clean(reason)).filter(|reason| !reason.is_empty()),
        ..decided(cx, definition)
    };
    store::update_approval(&mut tx, &rejected).await?;
    let withdrawn = store::reject_others(&mut tx, &rejected).await?;
    record_rejection(cx, &mut tx, &rejected, withdrawn).await?;
    tx.bump_config_version(organization).await?;
    tx.commit().await?;
    Ok(rejected)
}

async fn approve_one(
    cx: &Ctx,
    tx: &mut Tx,
    definition: ToolDefinition,
    (digest, class): (&str, Class),
) -> Result<ToolDefinition> {
    check(&definition, digest)?;
    let approved =
        ToolDefinition { state: ApprovalState::Approved, class: Some(class), reason: None, ..decided(cx, definition) };
    store::update_approval(tx, &approved).await?;
    record_decision(cx, tx, &approved, "tool_approval.approve").await?;
    let Some(catalog_version) = &approved.catalog_version_id else { return Ok(approved) };
    let content = Content { catalog_version, kind: approved.kind, name: &approved.name, digest: &approved.digest };
    for other in store::list_by_content(tx, &approved.organization_id, content).await? {
        if other.state == ApprovalState::Pending && !store::is_barred(tx, &other).await? {
            let same = ToolDefinition {
                state: ApprovalState::Approved,
                class: Some(class),
                decided_at: Some(cx.now()),
                ..other
            };
            store::update_approval(tx, &same).await?;
        }
    }
    Ok(approved)
}

fn decided(cx: &Ctx, definition: ToolDefinition) -> ToolDefinition {
    ToolDefinition { decided_by: Some(cx.caller.actor().to_owned()), decided_at: Some(cx.now()), ..definition }
}

fn not_found() -> Error {
    Error::not_found("definition")
}
