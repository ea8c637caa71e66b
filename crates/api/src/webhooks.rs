//! `/webhooks` and `/webhook-deliveries`.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use waypost_core::Timestamp;
use waypost_core::id::{WebhookDeliveryId, WebhookId};
use waypost_core::seal::SecretText;
use waypost_core::webhook::{self, DeliveryStatus, WebhookEvent};
use waypost_ops::webhook_deliveries as deliveries;
use waypost_ops::webhooks::{self, WebhookPatch};

use crate::Web;
use crate::extract::{Json, Path, Query, Scope, created, no_store, parse_id};
use crate::page::{Page, Paging};
use crate::problem::{ApiResult, Problems};
use crate::routes::{Routes, routes};
use crate::schema;

/// The operations on webhook endpoints and deliveries.
pub(super) fn routes() -> Routes {
    Routes::new()
        .routes(routes!(list, create))
        .routes(routes!(get, update, delete))
        .routes(routes!(test))
        .routes(routes!(rotate_secret))
        .routes(routes!(list_deliveries))
        .routes(routes!(get_delivery))
        .routes(routes!(replay))
}

/// A webhook endpoint.
#[derive(Debug, Serialize, ToSchema)]
struct Webhook {
    #[schema(example = "whk_0123456789abcdef")]
    id: String,
    /// The URL to which messages are sent.
    #[schema(format = "uri")]
    url: String,
    /// A description for your own use.
    description: String,
    /// The events that are sent.
    #[schema(schema_with = schema::webhook_events)]
    events: Vec<WebhookEvent>,
    /// Whether messages are sent.
    enabled: bool,
    /// The time since which every attempt has failed. Null if the last attempt succeeded.
    #[schema(format = DateTime)]
    failing_since: Option<String>,
    /// The time at which the webhook was disabled automatically, because it had been failing for five days or returned
    /// 410 Gone.
    #[schema(format = DateTime)]
    disabled_at: Option<String>,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
}

impl From<webhook::Webhook> for Webhook {
    fn from(webhook: webhook::Webhook) -> Self {
        Self {
            id: webhook.id.to_string(),
            url: webhook.url,
            description: webhook.description,
            events: webhook.events,
            enabled: webhook.enabled,
            failing_since: webhook.failing_since.map(Timestamp::rfc3339),
            disabled_at: webhook.disabled_at.map(Timestamp::rfc3339),
            created_at: webhook.created_at.rfc3339(),
            updated_at: webhook.updated_at.rfc3339(),
        }
    }
}

/// A webhook endpoint with its secret.
#[derive(Debug, Serialize, ToSchema)]
struct WebhookWithSecret {
    #[serde(flatten)]
    webhook: Webhook,
    /// The secret that messages are signed with (Standard Webhooks). It is returned only once.
    #[schema(example = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]
    secret: String,
}

impl WebhookWithSecret {
    fn new(webhook: webhook::Webhook, secret: &SecretText) -> Self {
        Self { webhook: webhook.into(), secret: secret.expose().to_owned() }
    }
}

/// A webhook endpoint to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WebhookCreate {
    /// The URL to which messages are sent. It must use https and be reachable on the public internet.
    #[schema(min_length = 1, max_length = 2_000, example = "https://example.com/webhooks")]
    url: String,
    /// A description for your own use.
    #[serde(default)]
    #[schema(max_length = 200)]
    description: String,
    /// The events to send.
    #[schema(schema_with = schema::webhook_events)]
    events: Vec<WebhookEvent>,
}

/// Changes to a webhook endpoint. Absent members are not changed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WebhookUpdate {
    /// The URL to which messages are sent.
    #[schema(min_length = 1, max_length = 2_000)]
    url: Option<String>,
    /// A description for your own use.
    #[schema(max_length = 200)]
    description: Option<String>,
    /// All events to send. Replaces the current list.
    #[schema(schema_with = schema::webhook_events)]
    events: Option<Vec<WebhookEvent>>,
    /// Whether messages are sent. Disabling the webhook discards queued messages.
    enabled: Option<bool>,
}

/// A delivery: a message to a webhook endpoint.
#[derive(Debug, Serialize, ToSchema)]
struct WebhookDelivery {
    /// The `webhook-id` of the message, which is the same for every attempt.
    #[schema(example = "whd_0123456789abcdef01234567")]
    id: String,
    webhook_id: String,
    #[schema(schema_with = schema::webhook_event)]
    event: WebhookEvent,
    #[schema(schema_with = schema::delivery_status)]
    status: DeliveryStatus,
    /// The number of attempts so far.
    attempts: u32,
    /// The request body.
    payload: String,
    /// The HTTP status of the last response.
    response_status: Option<u32>,
    /// The first 1,000 characters of the last response.
    response_body: Option<String>,
    /// The reason why the last attempt failed.
    error: Option<String>,
    /// The duration of the last attempt in milliseconds.
    duration_ms: Option<i64>,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    last_attempt_at: Option<String>,
    /// The time of the next attempt. Null if there is none.
    #[schema(format = DateTime)]
    next_attempt_at: Option<String>,
    #[schema(format = DateTime)]
    delivered_at: Option<String>,
}

impl From<webhook::Delivery> for WebhookDelivery {
    fn from(delivery: webhook::Delivery) -> Self {
        Self {
            id: delivery.id.to_string(),
            webhook_id: delivery.webhook_id.to_string(),
            event: delivery.event,
            status: delivery.status,
            attempts: delivery.attempts,
            payload: delivery.payload,
            response_status: delivery.response_status,
            response_body: delivery.response_body,
            error: delivery.error,
            duration_ms: delivery.duration_ms,
            created_at: delivery.created_at.rfc3339(),
            last_attempt_at: delivery.last_attempt_at.map(Timestamp::rfc3339),
            next_attempt_at: delivery.next_attempt_at.map(Timestamp::rfc3339),
            delivered_at: delivery.delivered_at.map(Timestamp::rfc3339),
        }
    }
}

/// Lists the webhook endpoints, oldest first.
///
/// An organisation has at most 20. Requires the role `admin`.
#[utoipa::path(get, path = "/webhooks", tag = "webhooks", operation_id = "list_webhooks",
    responses((status = 200, body = Page<Webhook>), Problems))]
async fn list(State(web): State<Web>, Scope { cx, organization_id }: Scope) -> ApiResult<Json<Page<Webhook>>> {
    let all = webhooks::list(&cx, web.ops(), &organization_id).await?;
    Ok(Json(Page::complete(all.into_iter().map(Webhook::from).collect())))
}

/// Creates a webhook endpoint.
///
/// The response is the only one that contains the secret. Requires the role `admin`.
#[utoipa::path(post, path = "/webhooks", tag = "webhooks",
    operation_id = "create_webhook", request_body = WebhookCreate,
    responses((status = 201, body = WebhookWithSecret), Problems))]
async fn create(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Json(new): Json<WebhookCreate>,
) -> ApiResult<Response> {
    let new = webhooks::NewWebhook { url: new.url, description: new.description, events: new.events };
    let (webhook, secret) = webhooks::create(&cx, web.ops(), &organization_id, &new).await?;
    let path = format!("webhooks/{}", webhook.id);
    Ok(no_store(created(&path, &WebhookWithSecret::new(webhook, &secret))))
}

/// Returns a webhook endpoint.
///
/// Requires the role `admin`.
#[utoipa::path(get, path = "/webhooks/{id}", tag = "webhooks", operation_id = "get_webhook",
    params(("id" = String, Path, description = "The ID of the webhook (`whk_…`).")),
    responses((status = 200, body = Webhook), Problems))]
async fn get(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<Json<Webhook>> {
    Ok(Json(webhooks::get(&cx, web.ops(), &organization_id, &parse_id(&text, "webhook")?).await?.into()))
}

/// Updates a webhook endpoint.
///
/// Requires the role `admin`.
#[utoipa::path(patch, path = "/webhooks/{id}", tag = "webhooks", operation_id = "update_webhook",
    params(("id" = String, Path, description = "The ID of the webhook (`whk_…`).")), request_body = WebhookUpdate,
    responses((status = 200, body = Webhook), Problems))]
async fn update(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
    Json(change): Json<WebhookUpdate>,
) -> ApiResult<Json<Webhook>> {
    let webhook: WebhookId = parse_id(&text, "webhook")?;
    let WebhookUpdate { url, description, events, enabled } = change;
    let change = WebhookPatch { url, description, events, enabled };
    let changed = webhooks::update(&cx, web.ops(), &organization_id, &webhook, &change).await?;
    Ok(Json(changed.into()))
}

/// Deletes a webhook endpoint and its deliveries.
///
/// Requires the role `admin`.
#[utoipa::path(delete, path = "/webhooks/{id}", tag = "webhooks", operation_id = "delete_webhook",
    params(("id" = String, Path, description = "The ID of the webhook (`whk_…`).")),
    responses((status = 204), Problems))]
async fn delete(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<StatusCode> {
    webhooks::delete(&cx, web.ops(), &organization_id, &parse_id(&text, "webhook")?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sends a `webhook.test` event to a webhook endpoint.
///
/// The response is the queued delivery. Get the delivery to see the result. Requires the role `admin`.
#[utoipa::path(post, path = "/webhooks/{id}/test", tag = "webhooks", operation_id = "test_webhook",
    params(("id" = String, Path, description = "The ID of the webhook (`whk_…`).")),
    responses((status = 201, body = WebhookDelivery), Problems))]
async fn test(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<Response> {
    let sent = webhooks::send_test(&cx, web.ops(), &organization_id, &parse_id(&text, "webhook")?).await?;
    let body = WebhookDelivery::from(sent);
    Ok(created(&format!("webhook-deliveries/{}", body.id), &body))
}

/// Rotates the secret of a webhook endpoint.
///
/// The response is the only one that contains the new secret. For 24 hours, messages are signed with both the new and
/// the previous secret. Requires the role `admin`.
#[utoipa::path(post, path = "/webhooks/{id}/rotate-secret", tag = "webhooks", operation_id = "rotate_webhook_secret",
    params(("id" = String, Path, description = "The ID of the webhook (`whk_…`).")),
    responses((status = 200, body = WebhookWithSecret), Problems))]
async fn rotate_secret(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<Response> {
    let webhook: WebhookId = parse_id(&text, "webhook")?;
    let (webhook, secret) = webhooks::rotate_secret(&cx, web.ops(), &organization_id, &webhook).await?;
    Ok(no_store(Json(WebhookWithSecret::new(webhook, &secret)).into_response()))
}

/// Lists the deliveries of a webhook endpoint from the last 30 days, newest first.
///
/// Requires the role `admin`.
#[utoipa::path(get, path = "/webhooks/{id}/deliveries", tag = "webhooks", operation_id = "list_webhook_deliveries",
    params(("id" = String, Path, description = "The ID of the webhook (`whk_…`)."), Paging),
    responses((status = 200, body = Page<WebhookDelivery>), Problems))]
async fn list_deliveries(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
    Query(paging): Query<Paging>,
) -> ApiResult<Json<Page<WebhookDelivery>>> {
    let webhook: WebhookId = parse_id(&text, "webhook")?;
    let (limit, cursor) = (Some(paging.limit()?), paging.cursor.as_deref());
    let page = deliveries::list(&cx, web.ops(), &organization_id, &webhook, limit, cursor).await?;
    let items = page.items.into_iter().map(WebhookDelivery::from).collect();
    Ok(Json(Page { items, next_cursor: page.next_cursor }))
}

/// Returns a delivery.
///
/// Requires the role `admin`.
#[utoipa::path(get, path = "/webhook-deliveries/{id}", tag = "webhooks", operation_id = "get_webhook_delivery",
    params(("id" = String, Path, description = "The ID of the delivery (`whd_…`).")),
    responses((status = 200, body = WebhookDelivery), Problems))]
async fn get_delivery(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<Json<WebhookDelivery>> {
    let delivery = deliveries::get(&cx, web.ops(), &organization_id, &parse_id(&text, "delivery")?).await?;
    Ok(Json(delivery.into()))
}

/// Sends a message again with the same ID.
///
/// Requires the role `admin`.
#[utoipa::path(post, path = "/webhook-deliveries/{id}/replay", tag = "webhooks",
    operation_id = "replay_webhook_delivery",
    params(("id" = String, Path, description = "The ID of the delivery (`whd_…`).")),
    responses((status = 200, body = WebhookDelivery), Problems))]
async fn replay(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<Json<WebhookDelivery>> {
    let delivery: WebhookDeliveryId = parse_id(&text, "delivery")?;
    Ok(Json(deliveries::replay(&cx, web.ops(), &organization_id, &delivery).await?.into()))
}
