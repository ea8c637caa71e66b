//! Messages to receivers of webhooks: the log of them, sending again, and the sending itself.

use serde_json::json;
use waypost_core::access::{Operation, authorize, authorize_operator};
use waypost_core::caller::Ctx;
use waypost_core::id::{OrganizationId, WebhookDeliveryId, WebhookId};
use waypost_core::webhook::{Delivery, DeliveryStatus, LEASE_MS, MAX_FAILING_MS, Webhook, next_attempt, sign};
use waypost_core::{Code, Error, Result, Timestamp};
use waypost_outbound::{Error as OutboundError, Failure, Limits, Purpose};
use waypost_store::{Tx, webhook, webhook_delivery as store};

use crate::Ops;
use crate::audit::{Entry, record};
use crate::identity_provider::IdentityProviderContext;
use crate::webhooks::{DISABLED, previous_secret_place, secret_place};

/// Messages on a page at most.
const MAX_PAGE: u32 = 200;
/// What one attempt may cost: a receiver that thinks for longer should take the message first and think then.
const LIMITS: Limits = Limits { max_bytes: 256 * 1024, timeout: std::time::Duration::from_secs(15), redirects: 0 };
/// Printable characters of a response that are kept: enough to recognise an error, too few to read another service with.
const EXCERPT: usize = 200;

/// A page of messages, newest first.
#[derive(Debug, Clone)]
pub struct DeliveryPage {
    /// The messages.
    pub items: Vec<Delivery>,
    /// Where the next page begins; none on the last one.
    pub next_cursor: Option<String>,
}

/// What was sent to a receiver and not deleted yet by retention, newest first.
///
/// # Errors
/// `not_found` when there is no such receiver that the caller may know of; `forbidden` for members below admin;
/// `invalid_arguments` for a limit out of range or a cursor that no list gave.
pub async fn list(
    cx: &Ctx,
    ops: &Ops,
    (organization, id): (&OrganizationId, &WebhookId),
    (limit, cursor): (Option<u32>, Option<&str>),
) -> Result<DeliveryPage> {
    authorize(&cx.caller, Operation::WebhookRead, organization)?;
    let limit = limit.unwrap_or(50);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(Error::invalid("limit", format!("`limit` is a number from 1 to {MAX_PAGE}.")));
    }
    let before = cursor.map(str::parse::<WebhookDeliveryId>).transpose();
    let before =
        before.map_err(|_| Error::invalid("cursor", "`cursor` is not one that a list gave. Begin without it."))?;
    let mut conn = ops.db.read().await?;
    webhook::find(&mut conn, organization, id).await?.ok_or_else(|| Error::not_found("webhook"))?;
    let mut items = store::list(&mut conn, organization, id, before.as_ref(), i64::from(limit) + 1).await?;
    let more = items.len() > limit as usize;
    items.truncate(limit as usize);
    let next_cursor = items.last().filter(|_| more).map(|last| last.id.to_string());
    Ok(DeliveryPage { items, next_cursor })
}

/// One message.
///
/// # Errors
/// `not_found` when there is none that the caller may know of; `forbidden` for members below admin.
pub async fn get(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &WebhookDeliveryId) -> Result<Delivery> {
    authorize(&cx.caller, Operation::WebhookRead, organization)?;
    store::find(&mut ops.db.read().await?, organization, id).await?.ok_or_else(missing)
}

/// Sends a message again, under the same id: a receiver that has it already can tell.
///
/// # Errors
/// `not_found`, `forbidden`; `conflict` while it still waits, or when its receiver is switched off.
pub async fn replay(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &WebhookDeliveryId) -> Result<Delivery> {
    authorize(&cx.caller, Operation::WebhookWrite, organization)?;
    let mut tx = ops.db.begin().await?;
    let delivery = store::find(&mut tx, organization, id).await?.ok_or_else(missing)?;
    let receiver = webhook::find(&mut tx, organization, &delivery.webhook_id).await?.ok_or_else(missing)?;
    if !receiver.enabled {
        return Err(Error::new(Code::Conflict, "The webhook is switched off. Switch it on first."));
    }
    if !store::replay(&mut tx, organization, id, cx.now()).await? {
        return Err(Error::new(Code::Conflict, "The message is on its way: it is tried again by itself."));
    }
    let detail = json!({ "delivery_id": id, "event": delivery.event.as_str() });
    let entry = Entry { action: "webhook.replay", target: receiver.id.as_str(), detail };
    record(cx, &mut tx, organization, entry).await?;
    let delivery = store::find(&mut tx, organization, id).await?.ok_or_else(missing)?;
    tx.commit().await?;
    Ok(delivery)
}

/// Takes messages whose time has come, for one attempt each: nobody else takes them for a minute.
///
/// # Errors
/// `forbidden` for everybody but the operator; `unavailable` when the database is away.
pub async fn claim(cx: &Ctx, ops: &Ops, limit: usize) -> Result<Vec<Delivery>> {
    authorize_operator(&cx.caller)?;
    let now = cx.now();
    // Looking costs nobody the place of the one writer.
    if limit == 0 || !store::is_due(&mut ops.db.read().await?, now).await? {
        return Ok(Vec::new());
    }
    let mut tx = ops.db.begin().await?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let claimed = store::claim(&mut tx, now, now.plus(LEASE_MS), limit).await?;
    tx.commit().await?;
    Ok(claimed)
}

/// Makes the attempt that was claimed, and writes down what came of it.
///
/// # Errors
/// `forbidden` for everybody but the operator; `unavailable` when the database is away: the attempt is made again then.
pub async fn attempt(
    cx: &Ctx,
    ops: &Ops,
    provider_context: &IdentityProviderContext,
    delivery: Delivery,
) -> Result<Delivery> {
    authorize_operator(&cx.caller)?;
    let found = webhook::find(&mut ops.db.read().await?, &delivery.organization_id, &delivery.webhook_id).await?;
    let receiver = found.ok_or_else(missing)?;
    let answer = if receiver.enabled {
        send((cx, ops, provider_context), &receiver, &delivery).await
    } else {
        AttemptResult::off()
    };
    let mut delivery = delivery;
    let now = cx.now();
    delivery.duration_ms = Some(now.since(delivery.last_attempt_at.unwrap_or(now)));
    delivery.response_status = answer.status;
    delivery.response_body = answer.body;
    if answer.error.is_none() {
        (delivery.status, delivery.next_attempt_at, delivery.delivered_at) =
            (DeliveryStatus::Delivered, None, Some(now));
    } else {
        delivery.next_attempt_at = if answer.is_final { None } else { next_attempt(delivery.attempts, now) };
        if delivery.next_attempt_at.is_none() {
            delivery.status = DeliveryStatus::Failed;
        }
    }
    delivery.error = answer.error;
    let mut tx = ops.db.begin().await?;
    if store::record_attempt(&mut tx, &delivery).await? && receiver.enabled {
        update_webhook_health(cx, &mut tx, &delivery, answer.is_final).await?;
    }
    tx.commit().await?;
    Ok(delivery)
}

/// Notes how the receiver of `delivery` does, and switches it off when it has failed for five days, or said that it is
/// gone for good.
async fn update_webhook_health(cx: &Ctx, tx: &mut Tx, delivery: &Delivery, is_gone: bool) -> Result<()> {
    let (organization, now) = (&delivery.organization_id, cx.now());
    let Some(mut receiver) = webhook::find(tx, organization, &delivery.webhook_id).await? else { return Ok(()) };
    let Some(why) = &delivery.error else {
        if receiver.failing_since.is_some() {
            webhook::set_failing_since(tx, organization, &receiver.id, None).await?;
        }
        return Ok(());
    };
    let since = receiver.failing_since.unwrap_or(now);
    if !is_gone && now.since(since) < MAX_FAILING_MS {
        if receiver.failing_since.is_none() {
            webhook::set_failing_since(tx, organization, &receiver.id, Some(now)).await?;
        }
        return Ok(());
    }
    (receiver.enabled, receiver.failing_since, receiver.disabled_at) = (false, Some(since), Some(now));
    receiver.updated_at = now;
    webhook::update(tx, &receiver).await?;
    store::fail_pending(tx, organization, &receiver.id, DISABLED).await?;
    let detail = json!({ "failing_since": since.rfc3339(), "error": why });
    let entry = Entry { action: "webhook.disable", target: receiver.id.as_str(), detail };
    record(cx, tx, organization, entry).await
}

/// What came of an attempt.
#[derive(Debug, Default)]
struct AttemptResult {
    status: Option<u32>,
    body: Option<String>,
    error: Option<String>,
    is_final: bool,
}

impl AttemptResult {
    fn off() -> Self {
        Self { error: Some(DISABLED.to_owned()), is_final: true, ..Self::default() }
    }

    fn failed(error: impl ToString) -> Self {
        Self { error: Some(error.to_string()), ..Self::default() }
    }
}

async fn send(
    (cx, ops, provider_context): (&Ctx, &Ops, &IdentityProviderContext),
    receiver: &Webhook,
    delivery: &Delivery,
) -> AttemptResult {
    let now = cx.now();
    let Some(signatures) = signatures(provider_context, receiver, delivery, now) else {
        return AttemptResult::failed("Its secret cannot be opened with this installation's key. Give it a new one.");
    };
    let request = http::Request::post(&receiver.url)
        .header(http::header::CONTENT_TYPE, "application/json")
        .header("webhook-id", delivery.id.as_str())
        .header("webhook-timestamp", now.0.div_euclid(1_000))
        .header("webhook-signature", signatures)
        .body(delivery.payload.clone().into_bytes());
    let request = match request {
        Ok(request) => request,
        Err(error) => return AttemptResult::failed(error),
    };
    let route = match provider_context.route(ops, Purpose::Webhooks, &receiver.organization_id).await {
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
                http::StatusCode::GONE => Some("The receiver says that it is gone for good (status 410).".to_owned()),
                status if status.is_redirection() => {
                    Some(format!("The receiver redirects (status {}), which is not followed.", status.as_u16()))
                }
                status => Some(format!("The receiver answered with status {}.", status.as_u16())),
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

/// The beginning of a response, for people: printable characters, with a space for every run of whitespace.
fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let words = text.split_whitespace().map(|word| word.chars().filter(|c| !c.is_control()).collect::<String>());
    let line = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    line.chars().take(EXCERPT).collect()
}

/// The reason for a failed attempt. A name that resolves to an internal address reads like one that does not resolve:
/// the organisation must not learn which internal names exist.
fn describe_error(error: OutboundError) -> String {
    match error {
        OutboundError::AddressNotAllowed { host }
        | OutboundError::Unreachable { host, failure: Failure::NameResolution } => {
            format!("`{host}` has no address on the public internet, so no connection is made to it.")
        }
        error => error.to_string(),
    }
}

/// The signatures of all secrets that count at `now`, the current one first.
fn signatures(
    provider_context: &IdentityProviderContext,
    receiver: &Webhook,
    delivery: &Delivery,
    now: Timestamp,
) -> Option<String> {
    let sign = |place, sealed: &str| {
        let secret = provider_context.keyring.open_text(&place, sealed).ok()?;
        sign(&secret, delivery.id.as_str(), now.0.div_euclid(1_000), delivery.payload.as_bytes())
    };
    let mut all = vec![sign(secret_place(&receiver.id), &receiver.secret)?];
    if let (Some(sealed), Some(until)) = (&receiver.previous_secret, receiver.previous_until)
        && now < until
    {
        all.extend(sign(previous_secret_place(&receiver.id), sealed));
    }
    Some(all.join(" "))
}

fn missing() -> Error {
    Error::not_found("message")
}
