//! Compares the definitions that a server lists with the stored ones.

use std::collections::{HashMap, HashSet};

use serde_json::json;
use waypost_core::caller::Ctx;
use waypost_core::id::{CatalogVersionId, ToolApprovalId};
use waypost_core::instance::Instance;
use waypost_core::tool_definition::{ApprovalState, ToolDefinition};
use waypost_core::webhook::WebhookEvent;
use waypost_core::{Result, Timestamp};
use waypost_store::tool_definition::{self as store, Content, Seen};
use waypost_store::{Tx, initial_approval, organization};

use super::Listed;
use super::initial::InitialApproval;
use crate::Ops;
use crate::deployments::notify::clean;
use crate::webhooks::{Event, enqueue};

/// The maximum number of definitions of an instance that are kept although the server no longer lists them and nobody
/// has decided about them.
pub const KEPT_UNDECIDED: usize = 200;
/// One minute in milliseconds.
const MINUTE_MS: i64 = 60_000;

/// The result of a comparison.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observation {
    /// The new definitions.
    pub added: Vec<ToolApprovalId>,
    /// The number of new definitions that await a decision.
    pub pending: usize,
}

/// Stores the definitions that the server of an instance currently lists. Definitions that have not been seen before
/// wait for an approval, except those that have been approved for the same catalogue version, and those of the first
/// list if they were approved when the instance was created. From then on, the gateway of this process uses the stored
/// definitions.
///
/// # Errors
/// Any error of the store.
pub async fn observe(cx: &Ctx, ops: &Ops, instance: &Instance, listed: &[Listed]) -> Result<Observation> {
    let observation = compare(cx, ops, instance, listed).await?;
    // Also if nothing is new: another process may have stored changes that the gateway of this process has not noticed
    // yet.
    ops.tool_access.evict(&instance.organization_id);
    Ok(observation)
}

async fn compare(cx: &Ctx, ops: &Ops, instance: &Instance, listed: &[Listed]) -> Result<Observation> {
    let organization = &instance.organization_id;
    // Most checks find nothing new, so they take no lock.
    let mut conn = ops.store.read().await?;
    let seen = store::list_seen(&mut conn, organization, &instance.id).await?;
    // An initial approval ends with the first list, even if it is empty.
    let is_first = seen.is_empty() && initial_approval::exists(&mut conn, organization, &instance.id).await?;
    drop(conn);
    let version = served_version(instance);
    if !is_first && Difference::new(&seen, listed, version).is_empty() {
        return Ok(Observation::default());
    }
    let mut tx = ops.store.begin().await?;
    if !organization::lock(&mut tx, organization).await? {
        return Ok(Observation::default());
    }
    let seen = store::list_seen(&mut tx, organization, &instance.id).await?;
    let difference = Difference::new(&seen, listed, version);
    let initial = InitialApproval::consume(cx, &mut tx, instance).await?.filter(|_| seen.is_empty());
    store::set_current(&mut tx, organization, &difference.gone, false).await?;
    store::set_current(&mut tx, organization, &difference.back, true).await?;
    if let Some(version) = version {
        set_version(cx, &mut tx, instance, (&difference.moved, version)).await?;
    }
    let mut observation = Observation::default();
    for new in &difference.new {
        let definition = insert(cx, &mut tx, (instance, version), (new, initial.as_ref())).await?;
        observation.pending += usize::from(definition.state == ApprovalState::Pending);
        observation.added.push(definition.id);
    }
    prune(&mut tx, instance).await?;
    if observation.pending > 0 && !is_notified(&seen, cx.now()) {
        notify(cx, &mut tx, instance, &observation).await?;
    }
    tx.bump_config_version(organization).await?;
    tx.commit().await?;
    Ok(observation)
}

/// The difference between the stored and the listed definitions.
struct Difference<'a> {
    /// Listed, but never seen.
    new: Vec<&'a Listed>,
    /// Listed again.
    back: Vec<&'a ToolApprovalId>,
    /// No longer listed.
    gone: Vec<&'a ToolApprovalId>,
    /// Listed last by the server of another catalogue version.
    moved: Vec<&'a Seen>,
}

impl<'a> Difference<'a> {
    /// Compares `seen` with `listed`. `version` is the catalogue version of the server; `None` if there is none, or it
    /// is not known.
    fn new(seen: &'a [Seen], listed: &'a [Listed], version: Option<&CatalogVersionId>) -> Self {
        let known: HashMap<_, _> =
            seen.iter().map(|row| ((row.kind.as_str(), row.name.as_str(), row.digest.as_str()), row)).collect();
        let mut present = HashSet::new();
        let (mut new, mut back, mut moved) = (Vec::new(), Vec::new(), Vec::new());
        for item in listed {
            match known.get(&(item.kind.as_str(), item.name.as_str(), item.digest.as_str())) {
                None => new.push(item),
                Some(row) => {
                    present.insert(&row.id);
                    if !row.is_current {
                        back.push(&row.id);
                    }
                    if version.is_some() && row.catalog_version_id.as_ref() != version {
                        moved.push(*row);
                    }
                }
            }
        }
        let gone = seen.iter().filter(|row| row.is_current && !present.contains(&row.id)).map(|row| &row.id).collect();
        Self { new, back, gone, moved }
    }

    fn is_empty(&self) -> bool {
        self.new.is_empty() && self.back.is_empty() && self.gone.is_empty() && self.moved.is_empty()
    }
}

/// Returns the catalogue version of the server that answers for an instance. `None` if there is none, or the container
/// of an earlier version still serves calls: its list says nothing about the new version.
fn served_version(instance: &Instance) -> Option<&CatalogVersionId> {
    // The first generation has no earlier container.
    let is_first = instance.generation == 1;
    let is_served = is_first || instance.toolbox_id().is_none() || instance.observed_generation == instance.generation;
    instance.catalog_version_id().filter(|_| is_served)
}

/// Records that the server of another catalogue version lists definitions, so that their approvals apply to it.
/// Approvals for this version apply to those definitions about which nobody has decided.
async fn set_version(
    cx: &Ctx,
    tx: &mut Tx,
    instance: &Instance,
    (moved, version): (&[&Seen], &CatalogVersionId),
) -> Result<()> {
    let organization = &instance.organization_id;
    let ids: Vec<_> = moved.iter().map(|row| &row.id).collect();
    store::set_catalog_version(tx, organization, &ids, version).await?;
    for row in moved.iter().filter(|row| row.is_pending) {
        let Some(definition) = store::find(tx, organization, &row.id).await? else { continue };
        let (name, digest) = (&definition.name, &definition.digest);
        let content = Content { catalog_version: version, kind: definition.kind, name, digest };
        let same = store::list_by_content(tx, organization, content).await?;
        let approved = same.into_iter().find(|other| other.state == ApprovalState::Approved);
        if let Some(approved) = approved.filter(|_| definition.problem.is_none())
            && !store::is_barred(tx, &definition).await?
        {
            let (state, decided_at) = (ApprovalState::Approved, Some(cx.now()));
            let inherited = ToolDefinition { state, class: approved.class, decided_at, ..definition };
            store::update_approval(tx, &inherited).await?;
        }
    }
    Ok(())
}

/// Stores a new definition, which the server of this catalogue version lists.
async fn insert(
    cx: &Ctx,
    tx: &mut Tx,
    (instance, version): (&Instance, Option<&CatalogVersionId>),
    (new, initial): (&Listed, Option<&InitialApproval>),
) -> Result<ToolDefinition> {
    let organization = &instance.organization_id;
    let same = match version {
        Some(catalog_version) => {
            let content = Content { catalog_version, kind: new.kind, name: &new.name, digest: &new.digest };
            store::list_by_content(tx, organization, content).await?
        }
        None => Vec::new(),
    };
    let is_rejected = same.iter().any(|other| other.state == ApprovalState::Rejected);
    let approved = same.into_iter().find(|other| other.state == ApprovalState::Approved);
    let row = ToolDefinition {
        id: ToolApprovalId::new(cx.now(), &*cx.random),
        organization_id: organization.clone(),
        instance_id: instance.id.clone(),
        catalog_version_id: version.cloned(),
        kind: new.kind,
        name: new.name.clone(),
        digest: new.digest.clone(),
        definition: new.text.clone(),
        problem: new.problem.map(str::to_owned),
        is_current: true,
        state: ApprovalState::Pending,
        class: None,
        reason: None,
        decided_by: None,
        decided_at: None,
        first_seen_at: cx.now(),
    };
    let is_barred = store::is_barred(tx, &row).await?;
    let row = match approved.filter(|_| row.problem.is_none() && !is_barred) {
        Some(approved) => {
            let (state, decided_at) = (ApprovalState::Approved, Some(cx.now()));
            ToolDefinition { state, class: approved.class, decided_at, ..row }
        }
        None => row,
    };
    let initial = initial.filter(|_| row.state == ApprovalState::Pending && !is_rejected && !is_barred);
    let row = match initial {
        Some(initial) => initial.apply(row),
        None => row,
    };
    store::insert(tx, &row).await?;
    if let Some(initial) = initial.filter(|_| row.state == ApprovalState::Approved) {
        initial.record(tx, &row).await?;
    }
    Ok(row)
}

/// Deletes the oldest definitions that are no longer listed and about which nobody has decided.
async fn prune(tx: &mut Tx, instance: &Instance) -> Result<()> {
    let organization = &instance.organization_id;
    let seen = store::list_seen(tx, organization, &instance.id).await?;
    let unlisted = seen.iter().filter(|row| !row.is_current).count();
    if unlisted <= KEPT_UNDECIDED {
        return Ok(());
    }
    let decided = store::list_decided_ids(tx, organization, &instance.id).await?;
    let unused: Vec<_> =
        seen.iter().filter(|row| !row.is_current && !decided.contains(&row.id)).map(|row| &row.id).collect();
    let excess = unused.len().saturating_sub(KEPT_UNDECIDED);
    Ok(store::delete(tx, organization, &unused[..excess]).await?)
}

/// Whether an event has already been enqueued in the minute of `now` for a definition that still waits for a decision,
/// so that a server that keeps inventing definitions causes at most one event per minute.
fn is_notified(seen: &[Seen], now: Timestamp) -> bool {
    let minute = |at: Timestamp| at.0.div_euclid(MINUTE_MS);
    seen.iter().any(|row| row.is_pending && minute(row.first_seen_at) == minute(now))
}

async fn notify(cx: &Ctx, tx: &mut Tx, instance: &Instance, observation: &Observation) -> Result<()> {
    let count = observation.pending;
    let what = if count == 1 { "definition waits" } else { "definitions wait" };
    let text = format!("{count} {what} for an approval: {} ({}).", clean(&instance.name), instance.slug);
    let data = json!({
        "instance": { "id": instance.id, "slug": instance.slug, "name": instance.name },
        "pending": count,
    });
    let event = Event { event: WebhookEvent::DefinitionChanged, end_user_id: None, text: &text, data };
    enqueue(cx, tx, &instance.organization_id, &event).await
}
