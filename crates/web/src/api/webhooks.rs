//! `/webhooks` and `/webhook-deliveries`.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use waypost_core::Timestamp;
use waypost_core::id::{WebhookDeliveryId, WebhookId};
use waypost_core::seal::SecretText;
use waypost_core::webhook::{self, DeliveryStatus, WebhookEvent};
use waypost_ops::webhooks::{self, WebhookPatch};
use waypost_ops::{webhook_deliveries as deliveries, webhooks as ops};

use super::extract::{Json, Path, Query, Scope, created, id};
use super::page::{Page, Paging};
use super::schema;
use crate::Web;
use crate::problem::{ApiResult, Problems};

/// The operations on receivers of webhooks, and on messages to them.
pub(super) fn routes() -> OpenApiRouter<Web> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, update, delete))
        .routes(routes!(test))
        .routes(routes!(rotate_secret))
        .routes(routes!(list_deliveries))
        .routes(routes!(get_delivery))
        .routes(routes!(replay))
}

/// A receiver of webhooks.
#[derive(Debug, Serialize, ToSchema)]
struct Webhook {
    #[schema(example = "whk_0123456789abcdef")]
    id: String,
    /// Where messages go.
    #[schema(format = "uri")]
    url: String,
    /// What it is for, for people.
    description: String,
    /// What it is told of.
    #[schema(schema_with = schema::webhook_events)]
    events: Vec<WebhookEvent>,
    /// Whether anything is sent to it.
    enabled: bool,
    /// Since when every attempt has failed, RFC 3339; null while it works.
    #[schema(format = DateTime)]
    failing_since: Option<String>,
    /// When it was switched off by itself, because it had failed for five days or had said that it was gone; RFC 3339.
    #[schema(format = DateTime)]
    disabled_at: Option<String>,
    /// RFC 3339.
    #[schema(format = DateTime)]
    created_at: String,
    /// RFC 3339.
    #[schema(format = DateTime)]
    updated_at: String,
}

impl From<webhook::Webhook> for Webhook {
    fn from(it: webhook::Webhook) -> Self {
        Self {
            id: it.id.to_string(),
            url: it.url,
            description: it.description,
            events: it.events,
            enabled: it.enabled,
            failing_since: it.failing_since.map(Timestamp::rfc3339),
            disabled_at: it.disabled_at.map(Timestamp::rfc3339),
            created_at: it.created_at.rfc3339(),
            updated_at: it.updated_at.rfc3339(),
        }
    }
}

/// A receiver with its secret, which is shown this once.
#[derive(Debug, Serialize, ToSchema)]
struct WebhookWithSecret {
    #[serde(flatten)]
    webhook: Webhook,
    /// What messages are signed with (Standard Webhooks). It cannot be had again.
    #[schema(example = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]
    secret: String,
}

impl WebhookWithSecret {
    fn new(webhook: webhook::Webhook, secret: &SecretText) -> Self {
        Self { webhook: webhook.into(), secret: secret.expose().to_owned() }
    }
}

/// A receiver to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewWebhook {
    /// Where messages go: an address on the public internet, `https://`.
    #[schema(min_length = 1, max_length = 2_000, example = "https://example.com/webhooks")]
    url: String,
    /// What it is for, for people.
    #[serde(default)]
    #[schema(max_length = 200)]
    description: String,
    /// What it is told of.
    #[schema(schema_with = schema::webhook_events)]
    events: Vec<WebhookEvent>,
}

/// What to change of a receiver; what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WebhookChange {
    /// Where messages go.
    #[schema(min_length = 1, max_length = 2_000)]
    url: Option<String>,
    /// What it is for, for people.
    #[schema(max_length = 200)]
    description: Option<String>,
    /// What it is told of.
    #[schema(schema_with = schema::webhook_events)]
    events: Option<Vec<WebhookEvent>>,
    /// Whether anything is sent to it. Switched off, what waits for it is given up.
    enabled: Option<bool>,
}

/// A message to a receiver.
#[derive(Debug, Serialize, ToSchema)]
struct WebhookDelivery {
    /// The `webhook-id` of the message: the same for every attempt.
    #[schema(example = "whd_0123456789abcdef01234567")]
    id: String,
    webhook_id: String,
    #[schema(schema_with = schema::webhook_event)]
    event: WebhookEvent,
    #[schema(schema_with = schema::delivery_status)]
    status: DeliveryStatus,
    /// Attempts so far.
    attempts: u32,
    /// The body, as it is sent.
    payload: String,
    /// What the receiver answered last.
    response_status: Option<u32>,
    /// The first 1,000 characters of that.
    response_body: Option<String>,
    /// Why the last attempt failed.
    error: Option<String>,
    /// How long the last attempt took.
    duration_ms: Option<i64>,
    /// RFC 3339.
    #[schema(format = DateTime)]
    created_at: String,
    /// RFC 3339.
    #[schema(format = DateTime)]
    last_attempt_at: Option<String>,
    /// RFC 3339; null when there is no other attempt.
    #[schema(format = DateTime)]
    next_attempt_at: Option<String>,
    /// RFC 3339.
    #[schema(format = DateTime)]
    delivered_at: Option<String>,
}

impl From<webhook::Delivery> for WebhookDelivery {
    fn from(it: webhook::Delivery) -> Self {
        Self {
            id: it.id.to_string(),
            webhook_id: it.webhook_id.to_string(),
            event: it.event,
            status: it.status,
            attempts: it.attempts,
            payload: it.payload,
            response_status: it.response_status,
            response_body: it.response_body,
            error: it.error,
            duration_ms: it.duration_ms,
            created_at: it.created_at.rfc3339(),
            last_attempt_at: it.last_attempt_at.map(Timestamp::rfc3339),
            next_attempt_at: it.next_attempt_at.map(Timestamp::rfc3339),
            delivered_at: it.delivered_at.map(Timestamp::rfc3339),
        }
    }
}

/// The receivers of webhooks, oldest first: 20 at most. Needs the role `admin`.
#[utoipa::path(get, path = "/webhooks", tag = "webhooks", operation_id = "list_webhooks",
    responses((status = 200, body = Page<Webhook>), Problems))]
async fn list(State(web): State<Web>, Scope { cx, organization_id }: Scope) -> ApiResult<Json<Page<Webhook>>> {
    let all = ops::list(&cx, web.ops(), &organization_id).await?;
    Ok(Json(Page::whole(all.into_iter().map(Webhook::from).collect())))
}

/// Makes a receiver. Its secret is in the answer and nowhere else. Needs the role `admin`.
#[utoipa::path(post, path = "/webhooks", tag = "webhooks", operation_id = "create_webhook", request_body = NewWebhook,
    responses((status = 201, body = WebhookWithSecret), Problems))]
async fn create(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Json(new): Json<NewWebhook>,
) -> ApiResult<Response> {
    let new = webhooks::NewWebhook { url: new.url, description: new.description, events: new.events };
    let (webhook, secret) = ops::create(&cx, web.ops(), &web.provider_context, &organization_id, &new).await?;
    let path = format!("webhooks/{}", webhook.id);
    Ok(unkept(created(&path, &WebhookWithSecret::new(webhook, &secret))))
}

/// A receiver. Needs the role `admin`.
#[utoipa::path(get, path = "/webhooks/{id}", tag = "webhooks", operation_id = "get_webhook",
    params(("id" = String, Path, description = "`whk_…`")), responses((status = 200, body = Webhook), Problems))]
async fn get(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<Json<Webhook>> {
    Ok(Json(ops::get(&cx, web.ops(), &organization_id, &id(&text, "webhook")?).await?.into()))
}

/// Changes a receiver. Needs the role `admin`.
#[utoipa::path(patch, path = "/webhooks/{id}", tag = "webhooks", operation_id = "update_webhook",
    params(("id" = String, Path, description = "`whk_…`")), request_body = WebhookChange,
    responses((status = 200, body = Webhook), Problems))]
async fn update(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
    Json(change): Json<WebhookChange>,
) -> ApiResult<Json<Webhook>> {
    let webhook: WebhookId = id(&text, "webhook")?;
    let WebhookChange { url, description, events, enabled } = change;
    let change = WebhookPatch { url, description, events, enabled };
    let changed = ops::update(&cx, web.ops(), &web.provider_context, (&organization_id, &webhook), &change).await?;
    Ok(Json(changed.into()))
}

/// Deletes a receiver with the log of what was sent to it. Needs the role `admin`.
#[utoipa::path(delete, path = "/webhooks/{id}", tag = "webhooks", operation_id = "delete_webhook",
    params(("id" = String, Path, description = "`whk_…`")), responses((status = 204), Problems))]
async fn delete(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<StatusCode> {
    ops::delete(&cx, web.ops(), &organization_id, &id(&text, "webhook")?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sends a receiver a `webhook.test`. The answer says that it is on its way; read the delivery to see what came of it.
/// Needs the role `admin`.
#[utoipa::path(post, path = "/webhooks/{id}/test", tag = "webhooks", operation_id = "test_webhook",
    params(("id" = String, Path, description = "`whk_…`")),
    responses((status = 201, body = WebhookDelivery), Problems))]
async fn test(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<Response> {
    let sent = ops::send_test(&cx, web.ops(), &organization_id, &id(&text, "webhook")?).await?;
    let body = WebhookDelivery::from(sent);
    Ok(created(&format!("webhook-deliveries/{}", body.id), &body))
}

/// Gives a receiver a new secret, which is in the answer and nowhere else. The one before it signs as well for 24 hours
/// more. Needs the role `admin`.
#[utoipa::path(post, path = "/webhooks/{id}/rotate-secret", tag = "webhooks", operation_id = "rotate_webhook_secret",
    params(("id" = String, Path, description = "`whk_…`")),
    responses((status = 200, body = WebhookWithSecret), Problems))]
async fn rotate_secret(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<Response> {
    let webhook: WebhookId = id(&text, "webhook")?;
    let (webhook, secret) =
        ops::rotate_secret(&cx, web.ops(), &web.provider_context, &organization_id, &webhook).await?;
    Ok(unkept(Json(WebhookWithSecret::new(webhook, &secret)).into_response()))
}

/// What was sent to a receiver within 30 days, newest first. Needs the role `admin`.
#[utoipa::path(get, path = "/webhooks/{id}/deliveries", tag = "webhooks", operation_id = "list_webhook_deliveries",
    params(("id" = String, Path, description = "`whk_…`"), Paging),
    responses((status = 200, body = Page<WebhookDelivery>), Problems))]
async fn list_deliveries(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
    Query(paging): Query<Paging>,
) -> ApiResult<Json<Page<WebhookDelivery>>> {
    let webhook: WebhookId = id(&text, "webhook")?;
    let wanted = (Some(paging.limit()?), paging.cursor.as_deref());
    let page = deliveries::list(&cx, web.ops(), (&organization_id, &webhook), wanted).await?;
    let items = page.items.into_iter().map(WebhookDelivery::from).collect();
    Ok(Json(Page { items, next_cursor: page.next_cursor }))
}

/// A message to a receiver. Needs the role `admin`.
#[utoipa::path(get, path = "/webhook-deliveries/{id}", tag = "webhooks", operation_id = "get_webhook_delivery",
    params(("id" = String, Path, description = "`whd_…`")),
    responses((status = 200, body = WebhookDelivery), Problems))]
async fn get_delivery(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<Json<WebhookDelivery>> {
    let found = deliveries::get(&cx, web.ops(), &organization_id, &id(&text, "message")?).await?;
    Ok(Json(found.into()))
}

/// Sends a message again, under the same id. Needs the role `admin`.
#[utoipa::path(post, path = "/webhook-deliveries/{id}/replay", tag = "webhooks", operation_id = "replay_webhook_delivery",
    params(("id" = String, Path, description = "`whd_…`")),
    responses((status = 200, body = WebhookDelivery), Problems))]
async fn replay(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<Json<WebhookDelivery>> {
    let message: WebhookDeliveryId = id(&text, "message")?;
    Ok(Json(deliveries::replay(&cx, web.ops(), &organization_id, &message).await?.into()))
}

/// An answer that holds a secret is kept by nobody on the way.
fn unkept(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
