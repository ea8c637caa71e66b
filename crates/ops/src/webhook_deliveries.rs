//! Webhook deliveries: listing, replaying and sending them.

use serde_json::json;
use waypost_core::access::{Operation, authorize, authorize_operator};
use waypost_core::caller::Ctx;
use waypost_core::id::{OrganizationId, WebhookDeliveryId, WebhookId};
use waypost_core::seal::Keyring;
use waypost_core::webhook::{Delivery, DeliveryStatus, LEASE_MS, MAX_FAILING_MS, Webhook, next_attempt, sign};
use waypost_core::{Code, Error, Result, Timestamp};
use waypost_outbound::{Error as OutboundError, Failure, Limits, Purpose};
use waypost_store::{Tx, webhook, webhook_delivery as store};

use crate::Ops;
use crate::audit::{Entry, record};
use crate::webhooks::{DISABLED, previous_secret_location, secret_location};

/// The maximum page size.
const MAX_PAGE: u32 = 200;
/// The limits of one attempt. A receiver that needs more time should accept the delivery first and process it
/// afterwards.
const LIMITS: Limits = Limits { max_bytes: 256 * 1024, timeout: std::time::Duration::from_secs(15), redirects: 0 };
/// The number of printable characters of a response that are stored: enough to recognise an error, too few to read the
/// responses of another service.
const EXCERPT_CHARS: usize = 200;

/// A page of deliveries, newest first.
#[derive(Debug, Clone)]
pub struct DeliveryPage {
    /// The deliveries.
    pub items: Vec<Delivery>,
    /// The cursor of the next page. `None` on the last page.
    pub next_cursor: Option<String>,
}

/// Returns the deliveries of a webhook that retention has not deleted yet, newest first.
///
/// # Errors
/// `not_found` if the webhook does not exist or the caller cannot access it; `forbidden` for members below admin;
/// `invalid_arguments` for a limit out of range or an invalid cursor.
pub async fn list(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &WebhookId,
    limit: Option<u32>,
    cursor: Option<&str>,
) -> Result<DeliveryPage> {
    authorize(&cx.caller, Operation::WebhookRead, organization)?;
    let limit = limit.unwrap_or(50);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(Error::invalid("limit", format!("`limit` must be a number from 1 to {MAX_PAGE}.")));
    }
    let before = cursor.map(str::parse::<WebhookDeliveryId>).transpose();
    let before = before.map_err(|_| Error::invalid("cursor", "`cursor` is invalid. Start again without it."))?;
    let mut conn = ops.store.read().await?;
    webhook::find(&mut conn, organization, id).await?.ok_or_else(|| Error::not_found("webhook"))?;
    let mut items = store::list(&mut conn, organization, id, before.as_ref(), i64::from(limit) + 1).await?;
    let more = items.len() > limit as usize;
    items.truncate(limit as usize);
    let next_cursor = items.last().filter(|_| more).map(|last| last.id.to_string());
    Ok(DeliveryPage { items, next_cursor })
}

/// Returns a delivery.
///
/// # Errors
/// `not_found` if the delivery does not exist or the caller cannot access it; `forbidden` for members below admin.
pub async fn get(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &WebhookDeliveryId) -> Result<Delivery> {
    authorize(&cx.caller, Operation::WebhookRead, organization)?;
    store::find(&mut ops.store.read().await?, organization, id).await?.ok_or_else(not_found)
}

/// Sends a delivery again with the same ID, so that the receiver can recognise a duplicate.
///
/// # Errors
/// `not_found`, `forbidden`; `conflict` if the delivery is still pending or the webhook is disabled.
pub async fn replay(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &WebhookDeliveryId) -> Result<Delivery> {
    authorize(&cx.caller, Operation::WebhookWrite, organization)?;
    let mut tx = ops.store.begin().await?;
    let delivery = store::find(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    let webhook = webhook::find(&mut tx, organization, &delivery.webhook_id).await?.ok_or_else(not_found)?;
    if !webhook.enabled {
        return Err(Error::new(Code::Conflict, "The webhook is disabled. Enable it first."));
    }
    if !store::replay(&mut tx, organization, id, cx.now()).await? {
        return Err(Error::new(
            Code::Conflict,
            "The message is still being delivered. Failed attempts are retried automatically.",
        ));
    }
    let detail = json!({ "delivery_id": id, "event": delivery.event.as_str() });
    let entry = Entry { action: "webhook.replay", target: webhook.id.as_str(), detail };
    record(cx, &mut tx, organization, entry).await?;
    let delivery = store::find(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    tx.commit().await?;
    Ok(delivery)
}

/// Claims deliveries that are due, for one attempt each. No other process claims them for a minute.
///
/// # Errors
/// `forbidden` unless the caller is the operator; `unavailable` if the database cannot be reached.
pub async fn claim(cx: &Ctx, ops: &Ops, limit: usize) -> Result<Vec<Delivery>> {
    authorize_operator(&cx.caller)?;
    let now = cx.now();
    // Reads first, so that SQLite's single writer is used only if a delivery is due.
    if limit == 0 || !store::is_due(&mut ops.store.read().await?, now).await? {
        return Ok(Vec::new());
    }
    let mut tx = ops.store.begin().await?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let claimed = store::claim(&mut tx, now, now.plus(LEASE_MS), limit).await?;
    tx.commit().await?;
    Ok(claimed)
}

/// Makes the attempt for which a delivery was claimed, and records its result.
///
/// # Errors
/// `forbidden` unless the caller is the operator; `unavailable` if the database cannot be reached. The attempt is then
/// repeated.
pub async fn attempt(cx: &Ctx, ops: &Ops, delivery: Delivery) -> Result<Delivery> {
    authorize_operator(&cx.caller)?;
    let webhook = webhook::find(&mut ops.store.read().await?, &delivery.organization_id, &delivery.webhook_id).await?;
    let webhook = webhook.ok_or_else(not_found)?;
    let result = if webhook.enabled { send(cx, ops, &webhook, &delivery).await } else { AttemptResult::disabled() };
    let mut delivery = delivery;
    let now = cx.now();
    delivery.duration_ms = Some(now.since(delivery.last_attempt_at.unwrap_or(now)));
    delivery.response_status = result.status;
    delivery.response_body = result.body;
    if result.error.is_none() {
        (delivery.status, delivery.next_attempt_at, delivery.delivered_at) =
            (DeliveryStatus::Delivered, None, Some(now));
    } else {
        delivery.next_attempt_at = if result.is_final { None } else { next_attempt(delivery.attempts, now) };
        if delivery.next_attempt_at.is_none() {
            delivery.status = DeliveryStatus::Failed;
        }
    }
    delivery.error = result.error;
    let mut tx = ops.store.begin().await?;
    if store::record_attempt(&mut tx, &delivery).await? && webhook.enabled {
        update_webhook_health(cx, &mut tx, &delivery, result.is_final).await?;
    }
    tx.commit().await?;
    Ok(delivery)
}

/// Updates the failure state of the webhook of `delivery`. Disables the webhook if it has failed for five days or if
/// `is_gone`.
async fn update_webhook_health(cx: &Ctx, tx: &mut Tx, delivery: &Delivery, is_gone: bool) -> Result<()> {
    let (organization, now) = (&delivery.organization_id, cx.now());
    let Some(mut webhook) = webhook::find(tx, organization, &delivery.webhook_id).await? else { return Ok(()) };
    let Some(error) = &delivery.error else {
        if webhook.failing_since.is_some() {
            webhook::set_failing_since(tx, organization, &webhook.id, None).await?;
        }
        return Ok(());
    };
    let since = webhook.failing_since.unwrap_or(now);
    if !is_gone && now.since(since) < MAX_FAILING_MS {
        if webhook.failing_since.is_none() {
            webhook::set_failing_since(tx, organization, &webhook.id, Some(now)).await?;
        }
        return Ok(());
    }
    (webhook.enabled, webhook.failing_since, webhook.disabled_at) = (false, Some(since), Some(now));
    webhook.updated_at = now;
    webhook::update(tx, &webhook).await?;
    store::fail_pending(tx, organization, &webhook.id, DISABLED).await?;
    let detail = json!({ "failing_since": since.rfc3339(), "error": error });
    let entry = Entry { action: "webhook.disable", target: webhook.id.as_str(), detail };
    record(cx, tx, organization, entry).await
}

/// The result of an attempt.
#[derive(Debug, Default)]
struct AttemptResult {
    status: Option<u32>,
    body: Option<String>,
    error: Option<String>,
    is_final: bool,
}

impl AttemptResult {
    fn disabled() -> Self {
        Self { error: Some(DISABLED.to_owned()), is_final: true, ..Self::default() }
    }

    fn failed(error: impl ToString) -> Self {
        Self { error: Some(error.to_string()), ..Self::default() }
    }
}

async fn send(cx: &Ctx, ops: &Ops, webhook: &Webhook, delivery: &Delivery) -> AttemptResult {
    let now = cx.now();
    let signatures = ops.keyring().ok().and_then(|keyring| signatures(keyring, webhook, delivery, now));
    let Some(signatures) = signatures else {
        return AttemptResult::failed(
            "The secret cannot be decrypted with this installation's key. Rotate the secret.",
        );
    };
    let request = http::Request::post(&webhook.url)
        .header(http::header::CONTENT_TYPE, "application/json")
        .header("webhook-id", delivery.id.as_str())
        .header("webhook-timestamp", now.0.div_euclid(1_000))
        .header("webhook-signature", signatures)
        .body(delivery.payload.clone().into_bytes());
    let request = match request {
        Ok(request) => request,
        Err(error) => return AttemptResult::failed(error),
    };
    let route = match ops.route(Purpose::Webhooks, &webhook.organization_id).await {
        Ok(route) => route,
        Err(error) => return AttemptResult::failed(error.message),
    };
    match route.send(request, LIMITS).await {
        Err(error) => AttemptResult::failed(describe_error(error)),
        Ok(response) => {
            let status = response.status();
            let body = excerpt(response.body());
            let error = match status {
                status if status.is_success() => None,
                http::StatusCode::GONE => Some("The receiver returned status 410 (Gone).".to_owned()),
                status if status.is_redirection() => Some(format!(
                    "The receiver returned a redirect (status {}). Redirects are not followed.",
                    status.as_u16()
                )),
                status => Some(format!("The receiver returned status {}.", status.as_u16())),
            };
            AttemptResult {
                status: Some(u32::from(status.as_u16())),
                body: Some(body),
                error,
                is_final: status == http::StatusCode::GONE,
            }
        }
    }
}

/// Returns the beginning of a response for display: printable characters only, each run of whitespace replaced by a
/// space.
fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let words = text.split_whitespace().map(|word| word.chars().filter(|c| !c.is_control()).collect::<String>());
    let line = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    line.chars().take(EXCERPT_CHARS).collect()
}

/// Returns the reason for a failed attempt. A name that resolves to an internal address gets the same text as a name
/// that does not resolve: the organisation must not learn which internal names exist.
fn describe_error(error: OutboundError) -> String {
    match error {
        OutboundError::AddressNotAllowed { host }
        | OutboundError::Unreachable { host, failure: Failure::NameResolution, .. } => {
            format!("`{host}` has no IP address on the public internet, so Waypost does not connect to it.")
        }
        error => error.to_string(),
    }
}

/// Returns the signatures with all secrets that are valid at `now`, the current one first. Returns `None` if the
/// current secret cannot be decrypted.
fn signatures(keyring: &Keyring, webhook: &Webhook, delivery: &Delivery, now: Timestamp) -> Option<String> {
    let sign = |location, sealed: &str| {
        let secret = keyring.open_text(&location, sealed).ok()?;
        sign(&secret, delivery.id.as_str(), now.0.div_euclid(1_000), delivery.payload.as_bytes())
    };
    let mut all = vec![sign(secret_location(&webhook.id), &webhook.secret)?];
    if let (Some(sealed), Some(until)) = (&webhook.previous_secret, webhook.previous_until)
        && now < until
    {
        all.extend(sign(previous_secret_location(&webhook.id), sealed));
    }
    Some(all.join(" "))
}

fn not_found() -> Error {
    Error::not_found("message")
}
