//! Events and webhooks about instances and their deployments.

use serde_json::{Value, json};
use waypost_content::markdown::clean_line;
use waypost_core::caller::Ctx;
use waypost_core::deployment::Deployment;
use waypost_core::id::InstanceEventId;
use waypost_core::instance::{Instance, InstanceEvent, InstanceEventKind};
use waypost_core::webhook::WebhookEvent;
use waypost_core::{Result, Timestamp};
use waypost_store::{Tx, initial_approval, instance_event};
use waypost_toolbox_proto::instance::InstanceState;

use crate::webhooks::{Event, enqueue};

/// The number of events that are kept for each instance.
const KEPT_EVENTS: i64 = 500;
/// The minimum time between two failures of an instance that are reported as `upstream.down`, in milliseconds.
const DOWN_EVERY_MS: i64 = 60_000;
/// The number of events that are searched for an earlier failure.
const RECENT_EVENTS: i64 = 50;
/// The maximum length of a text from a daemon in characters.
const MAX_TEXT: usize = 1_000;

/// Returns a text from a daemon for display: one line without invisible characters, of limited length.
#[must_use]
pub(crate) fn clean(text: &str) -> String {
    // Cleaning takes time proportional to the length.
    let start: String = text.chars().take(4 * MAX_TEXT).collect();
    clean_line(&start).chars().take(MAX_TEXT).collect()
}

/// Stores an event of an instance.
///
/// # Errors
/// Any error of the store.
pub(crate) async fn record(
    cx: &Ctx,
    tx: &mut Tx,
    instance: &Instance,
    kind: InstanceEventKind,
    (at, message): (Timestamp, String),
) -> Result<()> {
    let event = InstanceEvent {
        id: InstanceEventId::new(cx.now(), &*cx.random),
        organization_id: instance.organization_id.clone(),
        instance_id: instance.id.clone(),
        kind,
        message,
        created_at: at.min(cx.now()),
    };
    Ok(instance_event::insert(tx, &event, KEPT_EVENTS).await?)
}

/// Records that the state of an instance has changed from `previous` to its current one, and enqueues the webhooks for
/// it. If the instance has failed, its initial approval ends.
///
/// # Errors
/// Any error of the store.
pub(crate) async fn state_changed(
    cx: &Ctx,
    tx: &mut Tx,
    instance: &Instance,
    previous: InstanceState,
    cause: Option<&str>,
) -> Result<()> {
    state_changed_at(cx, tx, instance, (previous, cx.now()), cause).await
}

/// Like [`state_changed`], for a change at `at` by the toolbox's clock.
///
/// # Errors
/// Any error of the store.
pub(crate) async fn state_changed_at(
    cx: &Ctx,
    tx: &mut Tx,
    instance: &Instance,
    (previous, at): (InstanceState, Timestamp),
    cause: Option<&str>,
) -> Result<()> {
    let cause = cause.map(clean).filter(|cause| !cause.is_empty());
    let is_down = is_serving(previous) && is_failing(instance.state) && !was_down(cx, tx, instance).await?;
    let message = match &cause {
        Some(cause) => format!("{}: {cause}", instance.state),
        None => instance.state.to_string(),
    };
    record(cx, tx, instance, InstanceEventKind::State, (at, message)).await?;
    if instance.state == InstanceState::Failed {
        initial_approval::delete(tx, &instance.organization_id, &instance.id).await?;
    }
    let (event, what) = match instance.state {
        InstanceState::Unhealthy => (WebhookEvent::InstanceUnhealthy, "is unhealthy"),
        InstanceState::Failed => (WebhookEvent::InstanceFailed, "has failed"),
        InstanceState::CrashLoop => (WebhookEvent::InstanceFailed, "crashes repeatedly"),
        _ => return Ok(()),
    };
    let mut text = format!("The instance {} ({}) {what}.", instance.name, instance.slug);
    if let Some(cause) = &cause {
        text = format!("{text} {cause}");
    }
    let data = json!({ "instance": instance_data(instance), "cause": cause });
    let event = Event { event, end_user_id: None, text: &text, data };
    enqueue(cx, tx, &instance.organization_id, &event).await?;
    if is_down {
        enqueue(cx, tx, &instance.organization_id, &Event { event: WebhookEvent::UpstreamDown, ..event }).await?;
    }
    Ok(())
}

/// Whether an instance in this state serves calls. An idle server starts with its next call.
fn is_serving(state: InstanceState) -> bool {
    matches!(state, InstanceState::Running | InstanceState::Idle)
}

fn is_failing(state: InstanceState) -> bool {
    matches!(state, InstanceState::Unhealthy | InstanceState::Failed | InstanceState::CrashLoop)
}

/// Whether the instance has already been down in the last minute, by this installation's clock, so that a flapping
/// server is reported only once.
async fn was_down(cx: &Ctx, tx: &mut Tx, instance: &Instance) -> Result<bool> {
    let recent = instance_event::list(tx, &instance.organization_id, &instance.id, None, RECENT_EVENTS).await?;
    let start = InstanceEventId::floor(cx.now().plus(-DOWN_EVERY_MS));
    let is_failure = |event: &InstanceEvent| {
        let state = event.message.split(':').next().and_then(|state| state.parse().ok());
        event.kind == InstanceEventKind::State && state.is_some_and(is_failing)
    };
    Ok(recent.iter().take_while(|event| event.id > start).any(is_failure))
}

/// Enqueues the webhooks for a deployment that has ended successfully.
///
/// # Errors
/// Any error of the store.
pub(crate) async fn deployment_complete(
    cx: &Ctx,
    tx: &mut Tx,
    instance: &Instance,
    deployment: &Deployment,
) -> Result<()> {
    let text = format!("The deployment of the instance {} ({}) is complete.", instance.name, instance.slug);
    let data = json!({
        "instance": instance_data(instance),
        "deployment": {
            "id": deployment.id,
            "generation": deployment.generation,
            "catalog_version_id": deployment.catalog_version_id,
            "started_at": deployment.started_at.rfc3339(),
            "ended_at": deployment.ended_at.map(Timestamp::rfc3339),
        },
    });
    let event = Event { event: WebhookEvent::DeploymentComplete, end_user_id: None, text: &text, data };
    enqueue(cx, tx, &instance.organization_id, &event).await
}

fn instance_data(instance: &Instance) -> Value {
    json!({
        "id": instance.id,
        "slug": instance.slug,
        "name": instance.name,
        "toolbox_id": instance.toolbox_id(),
        "state": instance.state.as_str(),
        "generation": instance.generation,
    })
}
