//! Receivers of webhooks, and telling them: a message is queued in the transaction of what it tells of
//! ([`crate::webhook_deliveries`] sends it).

use serde_json::{Value, json};
use url::Url;
use waypost_core::access::{Operation, authorize};
use waypost_core::caller::Ctx;
use waypost_core::id::{EndUserId, OrganizationId, WebhookDeliveryId, WebhookId};
use waypost_core::seal::{SealLocation, SecretText};
use waypost_core::webhook::{
    Delivery, MAX_URL, MAX_WEBHOOKS, NewDelivery, ROTATION_MS, Webhook, WebhookEvent, new_secret, payload,
};
use waypost_core::{Code, Error, Result, name};
use waypost_outbound::{Purpose, Route};
use waypost_store::{Tx, organization, webhook as store, webhook_delivery};

use crate::Ops;
use crate::audit::{Entry, record};
use crate::identity_provider::IdentityProviderContext;

/// A receiver to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewWebhook {
    /// Where it is.
    pub url: String,
    /// What it is for; may be empty.
    pub description: String,
    /// What it is told of.
    pub events: Vec<WebhookEvent>,
}

/// What to change of a receiver; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WebhookPatch {
    /// Where it is.
    pub url: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// What it is told of.
    pub events: Option<Vec<WebhookEvent>>,
    /// Whether anything is sent to it.
    pub enabled: Option<bool>,
}

/// Something to tell receivers of.
pub(crate) struct Event<'a> {
    /// What happened.
    pub event: WebhookEvent,
    /// Of whom it tells.
    pub end_user_id: Option<&'a EndUserId>,
    /// In a sentence.
    pub text: &'a str,
    /// For programs.
    pub data: Value,
}

/// Where a receiver's secret is kept.
pub(crate) fn secret_place(id: &WebhookId) -> SealLocation<'_> {
    SealLocation { table: "webhooks", column: "secret", row: id.as_str() }
}

/// Where the one before it is kept.
pub(crate) fn previous_secret_place(id: &WebhookId) -> SealLocation<'_> {
    SealLocation { table: "webhooks", column: "previous_secret", row: id.as_str() }
}

/// Queues messages for all receivers of an organisation that want to know.
///
/// # Errors
/// When the store fails.
pub(crate) async fn enqueue(cx: &Ctx, tx: &mut Tx, organization: &OrganizationId, news: &Event<'_>) -> Result<()> {
    let receivers = store::list_receivers(tx, organization, news.event).await?;
    if receivers.is_empty() {
        return Ok(());
    }
    let messages = deliveries(cx, organization, &receivers, news);
    webhook_delivery::enqueue(tx, &messages).await?;
    Ok(())
}

/// The messages that tell `receivers` of something.
pub(crate) fn deliveries(
    cx: &Ctx,
    organization: &OrganizationId,
    receivers: &[WebhookId],
    news: &Event<'_>,
) -> Vec<NewDelivery> {
    let now = cx.now();
    let body = payload(news.event, now, news.text, &news.data);
    let message = |webhook: &WebhookId| NewDelivery {
        id: WebhookDeliveryId::new(now, &*cx.random),
        organization_id: organization.clone(),
        webhook_id: webhook.clone(),
        end_user_id: news.end_user_id.cloned(),
        event: news.event,
        payload: body.clone(),
        created_at: now,
        next_attempt_at: now,
    };
    receivers.iter().map(message).collect()
}

/// Makes a receiver. Its secret is told this once.
///
/// # Errors
/// `not_found` in an organisation that the caller may not know of; `forbidden` for members below admin;
/// `invalid_arguments` naming the field; `conflict` when there are 20.
pub async fn create(
    cx: &Ctx,
    ops: &Ops,
    provider_context: &IdentityProviderContext,
    organization: &OrganizationId,
    new: &NewWebhook,
) -> Result<(Webhook, SecretText)> {
    authorize(&cx.caller, Operation::WebhookWrite, organization)?;
    let route = provider_context.route(ops, Purpose::Webhooks, organization).await?;
    let (id, secret, now) = (WebhookId::new(&*cx.random), new_secret(&*cx.random), cx.now());
    let webhook = Webhook {
        organization_id: organization.clone(),
        url: checked_url(&route, &new.url)?,
        description: checked_description(&new.description)?,
        secret: provider_context.keyring.seal(&secret_place(&id), secret.expose().as_bytes(), &*cx.random),
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
    let mut tx = ops.db.begin().await?;
    if organization::find(&mut tx, organization).await?.is_none() {
        return Err(Error::not_found("organisation"));
    }
    store::insert(&mut tx, &webhook).await?;
    if store::list(&mut tx, organization).await?.len() > MAX_WEBHOOKS {
        let message = format!("An organisation has {MAX_WEBHOOKS} webhooks at most. Delete one first.");
        return Err(Error::new(Code::Conflict, message));
    }
    note(cx, &mut tx, &webhook, "webhook.create").await?;
    tx.commit().await?;
    Ok((webhook, secret))
}

/// The receivers of an organisation, oldest first.
///
/// # Errors
/// `not_found` in an organisation that the caller may not know of; `forbidden` for members below admin.
pub async fn list(cx: &Ctx, ops: &Ops, organization: &OrganizationId) -> Result<Vec<Webhook>> {
    authorize(&cx.caller, Operation::WebhookRead, organization)?;
    Ok(store::list(&mut ops.db.read().await?, organization).await?)
}

/// One receiver.
///
/// # Errors
/// As [`list`]; `not_found` when there is none.
pub async fn get(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &WebhookId) -> Result<Webhook> {
    authorize(&cx.caller, Operation::WebhookRead, organization)?;
    store::find(&mut ops.db.read().await?, organization, id).await?.ok_or_else(missing)
}

/// Changes a receiver. Switched off, it gets nothing more: what waits for it is given up, and can be sent again. Switched
/// on, it begins with a clean slate.
///
/// # Errors
/// As [`create`]; `not_found`.
pub async fn update(
    cx: &Ctx,
    ops: &Ops,
    provider_context: &IdentityProviderContext,
    (organization, id): (&OrganizationId, &WebhookId),
    change: &WebhookPatch,
) -> Result<Webhook> {
    authorize(&cx.caller, Operation::WebhookWrite, organization)?;
    let route = provider_context.route(ops, Purpose::Webhooks, organization).await?;
    let mut tx = ops.db.begin().await?;
    let before = store::find(&mut tx, organization, id).await?.ok_or_else(missing)?;
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
    note(cx, &mut tx, &webhook, "webhook.update").await?;
    tx.commit().await?;
    Ok(webhook)
}

/// Why a message to a receiver that is switched off was given up.
pub(crate) const DISABLED: &str = "The webhook is switched off.";

/// Deletes a receiver with all messages to it.
///
/// # Errors
/// `not_found`, `forbidden`.
pub async fn delete(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &WebhookId) -> Result<()> {
    authorize(&cx.caller, Operation::WebhookWrite, organization)?;
    let mut tx = ops.db.begin().await?;
    let webhook = store::find(&mut tx, organization, id).await?.ok_or_else(missing)?;
    store::delete(&mut tx, organization, id).await?;
    note(cx, &mut tx, &webhook, "webhook.delete").await?;
    tx.commit().await?;
    Ok(())
}

/// Gives a receiver a new secret, told this once. The one before it signs as well for a day more, so that nothing is lost
/// while the receiver changes over.
///
/// # Errors
/// `not_found`, `forbidden`.
pub async fn rotate_secret(
    cx: &Ctx,
    ops: &Ops,
    provider_context: &IdentityProviderContext,
    organization: &OrganizationId,
    id: &WebhookId,
) -> Result<(Webhook, SecretText)> {
    authorize(&cx.caller, Operation::WebhookWrite, organization)?;
    let mut tx = ops.db.begin().await?;
    let mut webhook = store::find(&mut tx, organization, id).await?.ok_or_else(missing)?;
    let secret = new_secret(&*cx.random);
    // A secret that no key opens any more signs nothing; a new one is then all the more needed.
    let before = provider_context.keyring.open(&secret_place(id), &webhook.secret).ok();
    webhook.previous_until = before.as_ref().map(|_| cx.now().plus(ROTATION_MS));
    webhook.previous_secret =
        before.map(|before| provider_context.keyring.seal(&previous_secret_place(id), &before, &*cx.random));
    webhook.secret = provider_context.keyring.seal(&secret_place(id), secret.expose().as_bytes(), &*cx.random);
    webhook.updated_at = cx.now();
    store::update(&mut tx, &webhook).await?;
    note(cx, &mut tx, &webhook, "webhook.rotate_secret").await?;
    tx.commit().await?;
    Ok((webhook, secret))
}

/// Sends a receiver a message to try it out.
///
/// # Errors
/// `not_found`, `forbidden`; `conflict` when it is switched off.
pub async fn send_test(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &WebhookId) -> Result<Delivery> {
    authorize(&cx.caller, Operation::WebhookWrite, organization)?;
    let mut tx = ops.db.begin().await?;
    let webhook = store::find(&mut tx, organization, id).await?.ok_or_else(missing)?;
    if !webhook.enabled {
        return Err(Error::new(Code::Conflict, "The webhook is switched off. Switch it on first."));
    }
    let whose = organization::find(&mut tx, organization).await?.ok_or_else(|| Error::not_found("organisation"))?;
    let text = format!("This is a test of the webhooks of {}.", whose.name);
    let data = json!({ "webhook_id": id, "organization": { "id": whose.id, "slug": whose.slug, "name": whose.name } });
    let news = Event { event: WebhookEvent::Test, end_user_id: None, text: &text, data };
    let new = deliveries(cx, organization, std::slice::from_ref(id), &news);
    webhook_delivery::enqueue(&mut tx, &new).await?;
    note(cx, &mut tx, &webhook, "webhook.test").await?;
    let sent = match new.first() {
        Some(new) => webhook_delivery::find(&mut tx, organization, &new.id).await?,
        None => None,
    };
    tx.commit().await?;
    sent.ok_or_else(missing)
}

fn checked_url(route: &Route, text: &str) -> Result<String> {
    let text = text.trim();
    let refused = |why: String| Error::invalid("url", why);
    if text.chars().count() > MAX_URL {
        return Err(refused(format!("`url` has {MAX_URL} characters at most.")));
    }
    let url = Url::parse(text)
        .map_err(|_| refused("`url` is no address. Write it as `https://example.com/webhooks`.".to_owned()))?;
    route.check_url(&url).map_err(|error| refused(format!("`url`: {error}")))?;
    if url.fragment().is_some() {
        return Err(refused("`url` has a part behind `#`, which is never sent. Leave it out.".to_owned()));
    }
    Ok(url.to_string())
}

fn checked_description(text: &str) -> Result<String> {
    let text = name::clean(text);
    if text.is_empty() { Ok(text) } else { name::check("description", &text) }
}

/// Each once, in the order of [`WebhookEvent::SUBSCRIBABLE`].
fn checked_events(events: &[WebhookEvent]) -> Result<Vec<WebhookEvent>> {
    let chosen: Vec<_> = WebhookEvent::SUBSCRIBABLE.into_iter().filter(|event| events.contains(event)).collect();
    if chosen.is_empty() {
        return Err(Error::invalid("events", "`events` names at least one event, or nothing would ever be sent."));
    }
    Ok(chosen)
}

/// Addresses of receivers can hold a secret of theirs: the log has the host only.
async fn note(cx: &Ctx, tx: &mut Tx, webhook: &Webhook, act: &'static str) -> Result<()> {
    let host = Url::parse(&webhook.url).ok().and_then(|url| url.host_str().map(str::to_owned));
    let events: Vec<_> = webhook.events.iter().map(|event| event.as_str()).collect();
    let detail =
        json!({ "host": host, "description": webhook.description, "events": events, "enabled": webhook.enabled });
    record(cx, tx, &webhook.organization_id, Entry { action: act, target: webhook.id.as_str(), detail }).await
}

fn missing() -> Error {
    Error::not_found("webhook")
}
