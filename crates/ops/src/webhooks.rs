//! Webhooks and their events. A delivery is enqueued in the transaction of the operation that it reports;
//! [`crate::webhook_deliveries`] sends it.

use serde_json::{Value, json};
use url::Url;
use waypost_content::name;
use waypost_core::access::{Operation, authorize};
use waypost_core::caller::Ctx;
use waypost_core::id::{EndUserId, OrganizationId, WebhookDeliveryId, WebhookId};
use waypost_core::seal::{SealLocation, SecretText};
use waypost_core::webhook::{
    Delivery, MAX_URL, MAX_WEBHOOKS, NewDelivery, ROTATION_MS, Webhook, WebhookEvent, new_secret, payload,
};
use waypost_core::{Code, Error, Result};
use waypost_outbound::{Purpose, Route};
use waypost_store::{Tx, organization, webhook as store, webhook_delivery};

use crate::Ops;
use crate::audit::{Entry, record};

/// A webhook to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewWebhook {
    /// The URL that receives the deliveries.
    pub url: String,
    /// The description; may be empty.
    pub description: String,
    /// The subscribed events.
    pub events: Vec<WebhookEvent>,
}

/// Changes to a webhook. Fields that are `None` stay unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WebhookPatch {
    /// The URL that receives the deliveries.
    pub url: Option<String>,
    /// The description.
    pub description: Option<String>,
    /// The subscribed events.
    pub events: Option<Vec<WebhookEvent>>,
    /// Whether deliveries are sent.
    pub enabled: Option<bool>,
}

/// An event to deliver to webhooks.
pub(crate) struct Event<'a> {
    /// The type of the event.
    pub event: WebhookEvent,
    /// The end user whom the event concerns.
    pub end_user_id: Option<&'a EndUserId>,
    /// A sentence that describes the event.
    pub text: &'a str,
    /// The event's data for programs.
    pub data: Value,
}

/// Returns the location to which a webhook's secret is sealed.
pub(crate) fn secret_location(id: &WebhookId) -> SealLocation<'_> {
    SealLocation { table: "webhooks", column: "secret", row: id.as_str() }
}

/// Returns the location to which a webhook's previous secret is sealed.
pub(crate) fn previous_secret_location(id: &WebhookId) -> SealLocation<'_> {
    SealLocation { table: "webhooks", column: "previous_secret", row: id.as_str() }
}

/// Enqueues a delivery for each webhook of the organisation that is subscribed to the event.
///
/// # Errors
/// Returns an error if a database query fails.
pub(crate) async fn enqueue(cx: &Ctx, tx: &mut Tx, organization: &OrganizationId, event: &Event<'_>) -> Result<()> {
    let webhooks = store::list_receivers(tx, organization, event.event).await?;
    if webhooks.is_empty() {
        return Ok(());
    }
    let new = deliveries(cx, organization, &webhooks, event);
    webhook_delivery::enqueue(tx, &new).await?;
    Ok(())
}

/// Returns the deliveries of an event to `webhooks`.
pub(crate) fn deliveries(
    cx: &Ctx,
    organization: &OrganizationId,
    webhooks: &[WebhookId],
    event: &Event<'_>,
) -> Vec<NewDelivery> {
    let now = cx.now();
    let body = payload(event.event, now, event.text, &event.data);
    let delivery = |webhook: &WebhookId| NewDelivery {
        id: WebhookDeliveryId::new(now, &*cx.random),
        organization_id: organization.clone(),
        webhook_id: webhook.clone(),
        end_user_id: event.end_user_id.cloned(),
        event: event.event,
        payload: body.clone(),
        created_at: now,
        next_attempt_at: now,
    };
    webhooks.iter().map(delivery).collect()
}

/// Creates a webhook. Returns it with its secret, which is not shown again.
///
/// # Errors
/// `not_found` if the caller cannot access the organisation; `forbidden` for members below admin; `invalid_arguments`,
/// naming the field; `conflict` if the organisation already has 20 webhooks.
pub async fn create(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    new: &NewWebhook,
) -> Result<(Webhook, SecretText)> {
    authorize(&cx.caller, Operation::WebhookWrite, organization)?;
    let route = ops.route(Purpose::Webhooks, organization).await?;
    let (id, secret, now) = (WebhookId::new(&*cx.random), new_secret(&*cx.random), cx.now());
    let webhook = Webhook {
        organization_id: organization.clone(),
        url: checked_url(&route, &new.url)?,
        description: checked_description(&new.description)?,
        secret: ops.keyring()?.seal(&secret_location(&id), secret.expose().as_bytes(), &*cx.random),
        previous_secret: None,
        previous_until: None,
        events: checked_events(&new.events)?,
        enabled: true,
        failing_since: None,
        disabled_at: None,
        created_at: now,
        updated_at: now,
        id,
    };
    let mut tx = ops.store.begin().await?;
    if organization::find(&mut tx, organization).await?.is_none() {
        return Err(Error::not_found("organisation"));
    }
    store::insert(&mut tx, &webhook).await?;
    if store::list(&mut tx, organization).await?.len() > MAX_WEBHOOKS {
        let message = format!("An organisation can have at most {MAX_WEBHOOKS} webhooks. Delete one first.");
        return Err(Error::new(Code::Conflict, message));
    }
    record_operation(cx, &mut tx, &webhook, "webhook.create").await?;
    tx.commit().await?;
    Ok((webhook, secret))
}

/// Returns the webhooks of an organisation, oldest first.
///
/// # Errors
/// `not_found` if the caller cannot access the organisation; `forbidden` for members below admin.
pub async fn list(cx: &Ctx, ops: &Ops, organization: &OrganizationId) -> Result<Vec<Webhook>> {
    authorize(&cx.caller, Operation::WebhookRead, organization)?;
    Ok(store::list(&mut ops.store.read().await?, organization).await?)
}

/// Returns a webhook.
///
/// # Errors
/// The same as for [`list`]; `not_found` if the webhook does not exist.
pub async fn get(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &WebhookId) -> Result<Webhook> {
    authorize(&cx.caller, Operation::WebhookRead, organization)?;
    store::find(&mut ops.store.read().await?, organization, id).await?.ok_or_else(not_found)
}

/// Changes a webhook. If it is disabled, its pending deliveries fail; they can be replayed. If it is enabled again, its
/// failure state is cleared.
///
/// # Errors
/// The same as for [`create`]; `not_found` if the webhook does not exist.
pub async fn update(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &WebhookId,
    change: &WebhookPatch,
) -> Result<Webhook> {
    authorize(&cx.caller, Operation::WebhookWrite, organization)?;
    let route = ops.route(Purpose::Webhooks, organization).await?;
    let mut tx = ops.store.begin().await?;
    let before = store::find(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    let mut webhook = before.clone();
    if let Some(url) = &change.url {
        webhook.url = checked_url(&route, url)?;
    }
    if let Some(description) = &change.description {
        webhook.description = checked_description(description)?;
    }
    if let Some(events) = &change.events {
        webhook.events = checked_events(events)?;
    }
    if let Some(enabled) = change.enabled.filter(|enabled| *enabled != before.enabled) {
        (webhook.enabled, webhook.failing_since, webhook.disabled_at) = (enabled, None, None);
        if !enabled {
            webhook_delivery::fail_pending(&mut tx, organization, id, DISABLED).await?;
        }
    }
    if webhook == before {
        return Ok(before);
    }
    webhook.updated_at = cx.now();
    store::update(&mut tx, &webhook).await?;
    record_operation(cx, &mut tx, &webhook, "webhook.update").await?;
    tx.commit().await?;
    Ok(webhook)
}

/// The error of a delivery that failed because its webhook is disabled.
pub(crate) const DISABLED: &str = "The webhook is disabled.";

/// Deletes a webhook with all its deliveries.
///
/// # Errors
/// `not_found`, `forbidden`.
pub async fn delete(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &WebhookId) -> Result<()> {
    authorize(&cx.caller, Operation::WebhookWrite, organization)?;
    let mut tx = ops.store.begin().await?;
    let webhook = store::find(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    store::delete(&mut tx, organization, id).await?;
    record_operation(cx, &mut tx, &webhook, "webhook.delete").await?;
    tx.commit().await?;
    Ok(())
}

/// Replaces a webhook's secret. Returns the new one, which is not shown again. For one more day, deliveries are also
/// signed with the previous secret, so that none is rejected while the receiver switches over.
///
/// # Errors
/// `not_found`, `forbidden`.
pub async fn rotate_secret(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &WebhookId,
) -> Result<(Webhook, SecretText)> {
    authorize(&cx.caller, Operation::WebhookWrite, organization)?;
    let mut tx = ops.store.begin().await?;
    let mut webhook = store::find(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    let secret = new_secret(&*cx.random);
    // A secret that cannot be decrypted is dropped: it cannot sign anything, and the new one replaces it.
    let keyring = ops.keyring()?;
    let previous = keyring.open(&secret_location(id), &webhook.secret).ok();
    webhook.previous_until = previous.as_ref().map(|_| cx.now().plus(ROTATION_MS));
    webhook.previous_secret = previous.map(|secret| keyring.seal(&previous_secret_location(id), &secret, &*cx.random));
    webhook.secret = keyring.seal(&secret_location(id), secret.expose().as_bytes(), &*cx.random);
    webhook.updated_at = cx.now();
    store::update(&mut tx, &webhook).await?;
    record_operation(cx, &mut tx, &webhook, "webhook.rotate_secret").await?;
    tx.commit().await?;
    Ok((webhook, secret))
}

/// Enqueues a test event for a webhook.
///
/// # Errors
/// `not_found`, `forbidden`; `conflict` if the webhook is disabled.
pub async fn send_test(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &WebhookId) -> Result<Delivery> {
    authorize(&cx.caller, Operation::WebhookWrite, organization)?;
    let mut tx = ops.store.begin().await?;
    let webhook = store::find(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    if !webhook.enabled {
        return Err(Error::new(Code::Conflict, "The webhook is disabled. Enable it first."));
    }
    let owner = organization::find(&mut tx, organization).await?.ok_or_else(|| Error::not_found("organisation"))?;
    let text = format!("This is a test message for the webhooks of {}.", owner.name);
    let data = json!({ "webhook_id": id, "organization": { "id": owner.id, "slug": owner.slug, "name": owner.name } });
    let event = Event { event: WebhookEvent::Test, end_user_id: None, text: &text, data };
    let new = deliveries(cx, organization, std::slice::from_ref(id), &event);
    webhook_delivery::enqueue(&mut tx, &new).await?;
    record_operation(cx, &mut tx, &webhook, "webhook.test").await?;
    let delivery = match new.first() {
        Some(new) => webhook_delivery::find(&mut tx, organization, &new.id).await?,
        None => None,
    };
    tx.commit().await?;
    delivery.ok_or_else(not_found)
}

fn checked_url(route: &Route, text: &str) -> Result<String> {
    let text = text.trim();
    let invalid = |message: String| Error::invalid("url", message);
    if text.chars().count() > MAX_URL {
        return Err(invalid(format!("`url` can have at most {MAX_URL} characters.")));
    }
    let url = Url::parse(text)
        .map_err(|_| invalid("`url` is not a valid URL. Use the form `https://example.com/webhooks`.".to_owned()))?;
    route.check_url(&url).map_err(|error| invalid(format!("`url`: {error}")))?;
    if url.fragment().is_some() {
        return Err(invalid("`url` has a fragment (`#…`), which is never sent. Remove it.".to_owned()));
    }
    Ok(url.to_string())
}

fn checked_description(text: &str) -> Result<String> {
    let text = name::clean(text);
    if text.is_empty() { Ok(text) } else { name::check("description", &text) }
}

/// Returns the events without duplicates, in the order of [`WebhookEvent::SUBSCRIBABLE`].
fn checked_events(events: &[WebhookEvent]) -> Result<Vec<WebhookEvent>> {
    let selected: Vec<_> = WebhookEvent::SUBSCRIBABLE.into_iter().filter(|event| events.contains(event)).collect();
    if selected.is_empty() {
        return Err(Error::invalid("events", "`events` must contain at least one event."));
    }
    Ok(selected)
}

/// Records an operation in the audit log, with the host only: the URL of a webhook may contain a secret.
async fn record_operation(cx: &Ctx, tx: &mut Tx, webhook: &Webhook, action: &'static str) -> Result<()> {
    let host = Url::parse(&webhook.url).ok().and_then(|url| url.host_str().map(str::to_owned));
    let events: Vec<_> = webhook.events.iter().map(|event| event.as_str()).collect();
    let detail =
        json!({ "host": host, "description": webhook.description, "events": events, "enabled": webhook.enabled });
    record(cx, tx, &webhook.organization_id, Entry { action, target: webhook.id.as_str(), detail }).await
}

fn not_found() -> Error {
    Error::not_found("webhook")
}
