//! Webhooks and their deliveries.

use askama::Template;
use axum::extract::{Path, State};
use serde::Deserialize;
use waypost_core::Error;
use waypost_core::access::Operation;
use waypost_core::id::{WebhookDeliveryId, WebhookId};
use waypost_core::seal::SecretText;
use waypost_core::webhook::{Delivery, DeliveryStatus, Webhook, WebhookEvent};
use waypost_ops::webhooks::{self, NewWebhook, WebhookPatch};
use waypost_ops::{webhook_deliveries as deliveries, webhooks as ops};

use crate::Console;
use crate::form::Form;
use crate::layout::{CurrentOrganization, Layout};
use crate::routes::{Access, Routes};
use crate::session::Member;
use crate::view::{self, FormError, PageError, PageResult};
use axum::extract::Query;

/// The number of deliveries per page.
const DELIVERIES: u32 = 25;

/// Returns the routes of these pages.
pub(super) fn routes() -> Routes {
    const READ: Access = Access::Member(Operation::WebhookRead);
    const WRITE: Access = Access::Member(Operation::WebhookWrite);
    Routes::new()
        .get("/o/{org}/webhooks", READ, list)
        .post("/o/{org}/webhooks", WRITE, create)
        .get("/o/{org}/webhooks/{id}", READ, show)
        .post("/o/{org}/webhooks/{id}", WRITE, update)
        .post("/o/{org}/webhooks/{id}/test", WRITE, send_test)
        .post("/o/{org}/webhooks/{id}/rotate-secret", WRITE, rotate_secret)
        .post("/o/{org}/webhooks/{id}/delete", WRITE, delete)
        .post("/o/{org}/webhooks/{id}/deliveries/{delivery}/replay", WRITE, replay)
}

/// An event option.
struct EventOption {
    name: &'static str,
    label: &'static str,
    is_selected: bool,
}

fn label(event: WebhookEvent) -> &'static str {
    match event {
        WebhookEvent::TicketCreated => "Ticket created",
        WebhookEvent::TicketUpdated => "Ticket updated",
        WebhookEvent::TicketCommented => "Ticket comment added",
        WebhookEvent::WalkthroughCompleted => "Walkthrough completed",
        WebhookEvent::WalkthroughPublished => "Walkthrough published",
        WebhookEvent::ProgressClaimed => "Progress claimed",
        WebhookEvent::InstanceUnhealthy => "Instance unhealthy",
        WebhookEvent::InstanceFailed => "Instance failed",
        WebhookEvent::ToolboxUnresponsive => "Toolbox unresponsive",
        WebhookEvent::DeploymentComplete => "Deployment complete",
        WebhookEvent::GrantCreated => "Grant created",
        WebhookEvent::DefinitionChanged => "Definition changed",
        WebhookEvent::UpstreamDown => "Tool server down",
        WebhookEvent::Test => "Test",
    }
}

fn event_options(selected: &[String]) -> Vec<EventOption> {
    let choice = |event: WebhookEvent| EventOption {
        name: event.as_str(),
        label: label(event),
        is_selected: selected.iter().any(|name| name == event.as_str()),
    };
    WebhookEvent::SUBSCRIBABLE.into_iter().map(choice).collect()
}

/// The form fields of a webhook.
#[derive(Default)]
struct WebhookForm {
    url: String,
    description: String,
    events: Vec<String>,
    enabled: bool,
}

impl From<Vec<(String, String)>> for WebhookForm {
    fn from(pairs: Vec<(String, String)>) -> Self {
        let mut fields = Self::default();
        for (name, value) in pairs {
            match name.as_str() {
                "url" => fields.url = value,
                "description" => fields.description = value,
                "events" => fields.events.push(value),
                "enabled" => fields.enabled = true,
                _ => {}
            }
        }
        fields
    }
}

impl From<&Webhook> for WebhookForm {
    fn from(webhook: &Webhook) -> Self {
        Self {
            url: webhook.url.clone(),
            description: webhook.description.clone(),
            events: webhook.events.iter().map(|event| event.as_str().to_owned()).collect(),
            enabled: webhook.enabled,
        }
    }
}

impl WebhookForm {
    fn events(&self) -> Result<Vec<WebhookEvent>, Error> {
        let unknown = |_| Error::invalid("events", "Unknown event. Reload the page.");
        self.events.iter().map(|text| text.parse().map_err(unknown)).collect()
    }
}

#[derive(Template)]
#[template(path = "webhooks/list.html")]
struct WebhooksPage {
    layout: Layout,
    org: CurrentOrganization,
    form_error: FormError,
    webhooks: Vec<Webhook>,
    fields: WebhookForm,
    event_options: Vec<EventOption>,
}

/// A row of the list of deliveries.
struct DeliveryRow {
    delivery: Delivery,
    label: &'static str,
    badge: &'static str,
    /// The body, pretty-printed.
    payload: String,
}

impl From<Delivery> for DeliveryRow {
    fn from(delivery: Delivery) -> Self {
        let read = serde_json::from_str::<serde_json::Value>(&delivery.payload);
        let pretty = read.ok().and_then(|value| serde_json::to_string_pretty(&value).ok());
        let badge = match delivery.status {
            DeliveryStatus::Pending => "info",
            DeliveryStatus::Delivered => "good",
            DeliveryStatus::Failed => "bad",
        };
        Self {
            label: label(delivery.event),
            badge,
            payload: pretty.unwrap_or_else(|| delivery.payload.clone()),
            delivery,
        }
    }
}

#[derive(Template)]
#[template(path = "webhooks/show.html")]
struct WebhookPage {
    layout: Layout,
    org: CurrentOrganization,
    form_error: FormError,
    webhook: Webhook,
    fields: WebhookForm,
    event_options: Vec<EventOption>,
    /// The new secret, if one was created in this request.
    secret: Option<String>,
    deliveries: Vec<DeliveryRow>,
    older: Option<String>,
    before: String,
}

impl WebhookPage {
    fn path(&self) -> String {
        self.org.path(&format!("webhooks/{}", self.webhook.id))
    }

    fn title(&self) -> &str {
        if self.webhook.description.is_empty() { &self.webhook.url } else { &self.webhook.description }
    }
}

/// The cursor of the list of deliveries.
#[derive(Default, Deserialize)]
#[serde(default)]
struct DeliveriesQuery {
    before: String,
}

fn page_error(member: &Member) -> impl Fn(Error) -> PageError {
    let layout = member.layout.clone().with_section("webhooks");
    move |error| PageError::from(error).with_layout(layout.clone())
}

async fn load_list(console: &Console, member: &Member, fields: WebhookForm) -> Result<WebhooksPage, PageError> {
    let Member { cx, organization_id, org, layout } = member;
    let webhooks = ops::list(cx, console.ops(), organization_id).await.map_err(page_error(member))?;
    Ok(WebhooksPage {
        layout: layout.clone().with_section("webhooks"),
        org: org.clone(),
        form_error: FormError::default(),
        webhooks,
        event_options: event_options(&fields.events),
        fields,
    })
}

async fn list(State(console): State<Console>, member: Member) -> PageResult {
    // All events are selected by default.
    let events = WebhookEvent::SUBSCRIBABLE.iter().map(|event| event.as_str().to_owned()).collect();
    Ok(view::page(&load_list(&console, &member, WebhookForm { events, ..WebhookForm::default() }).await?))
}

async fn create(
    State(console): State<Console>,
    member: Member,
    Form(pairs): Form<Vec<(String, String)>>,
) -> PageResult {
    let fields = WebhookForm::from(pairs);
    let created = match fields.events() {
        Ok(events) => {
            let new = NewWebhook { url: fields.url.clone(), description: fields.description.clone(), events };
            ops::create(&member.cx, console.ops(), &member.organization_id, &new).await
        }
        Err(error) => Err(error),
    };
    match created {
        Ok((webhook, secret)) => render_with_secret(&console, &member, webhook, &secret).await,
        Err(error) => {
            let (status, form_error) = FormError::from_error(error).map_err(page_error(&member))?;
            let page = load_list(&console, &member, fields).await?;
            Ok(view::html(status, &WebhooksPage { form_error, ..page }))
        }
    }
}

/// Renders the page with a new secret. Does not redirect, because the secret is only available in this response.
async fn render_with_secret(console: &Console, member: &Member, webhook: Webhook, secret: &SecretText) -> PageResult {
    let page = load(console, member, webhook.id.as_str(), "").await.map_err(page_error(member))?;
    Ok(view::page(&WebhookPage { secret: Some(secret.expose().to_owned()), ..page }))
}

async fn load(console: &Console, member: &Member, id: &str, before: &str) -> Result<WebhookPage, Error> {
    let Member { cx, organization_id, org, layout } = member;
    let id: WebhookId = id.parse().map_err(|_| Error::not_found("webhook"))?;
    let webhook = ops::get(cx, console.ops(), organization_id, &id).await?;
    let cursor = Some(before).filter(|text| text.parse::<WebhookDeliveryId>().is_ok());
    let deliveries = deliveries::list(cx, console.ops(), organization_id, &id, Some(DELIVERIES), cursor).await?;
    let fields = WebhookForm::from(&webhook);
    let older = deliveries.next_cursor.map(|cursor| org.path(&format!("webhooks/{id}?before={cursor}")));
    Ok(WebhookPage {
        layout: layout.clone().with_section("webhooks"),
        org: org.clone(),
        form_error: FormError::default(),
        event_options: event_options(&fields.events),
        fields,
        webhook,
        secret: None,
        deliveries: deliveries.items.into_iter().map(DeliveryRow::from).collect(),
        older,
        before: before.to_owned(),
    })
}

async fn show(
    State(console): State<Console>,
    member: Member,
    Path((_, id)): Path<(String, String)>,
    Query(DeliveriesQuery { before }): Query<DeliveriesQuery>,
) -> PageResult {
    Ok(view::page(&load(&console, &member, &id, &before).await.map_err(page_error(&member))?))
}

async fn update(
    State(console): State<Console>,
    member: Member,
    Path((_, id)): Path<(String, String)>,
    Form(pairs): Form<Vec<(String, String)>>,
) -> PageResult {
    let page = load(&console, &member, &id, "").await.map_err(page_error(&member))?;
    let fields = WebhookForm::from(pairs);
    let updated = match fields.events() {
        Ok(events) => {
            let change = WebhookPatch {
                url: Some(fields.url.clone()),
                description: Some(fields.description.clone()),
                events: Some(events),
                enabled: Some(fields.enabled),
            };
            let (organization, id) = (&member.organization_id, &page.webhook.id);
            webhooks::update(&member.cx, console.ops(), organization, id, &change).await
        }
        Err(error) => Err(error),
    };
    match updated {
        Ok(_) => Ok(view::redirect_with_flash(&page.path(), "Saved.")),
        Err(error) => {
            let (status, form_error) = FormError::from_error(error).map_err(page_error(&member))?;
            Ok(view::html(
                status,
                &WebhookPage { form_error, event_options: event_options(&fields.events), fields, ..page },
            ))
        }
    }
}

async fn send_test(
    State(console): State<Console>,
    member: Member,
    Path((_, id)): Path<(String, String)>,
) -> PageResult {
    let page = load(&console, &member, &id, "").await.map_err(page_error(&member))?;
    match ops::send_test(&member.cx, console.ops(), &member.organization_id, &page.webhook.id).await {
        Ok(_) => {
            let message = "Test queued. Reload the page in a moment to see the result.";
            Ok(view::redirect_with_flash(&page.path(), message))
        }
        Err(error) => {
            let (status, form_error) = FormError::from_error(error).map_err(page_error(&member))?;
            Ok(view::html(status, &WebhookPage { form_error, ..page }))
        }
    }
}

async fn rotate_secret(
    State(console): State<Console>,
    member: Member,
    Path((_, id)): Path<(String, String)>,
) -> PageResult {
    let id: WebhookId = id.parse().map_err(|_| page_error(&member)(Error::not_found("webhook")))?;
    let rotated = ops::rotate_secret(&member.cx, console.ops(), &member.organization_id, &id).await;
    let (webhook, secret) = rotated.map_err(page_error(&member))?;
    render_with_secret(&console, &member, webhook, &secret).await
}

async fn delete(State(console): State<Console>, member: Member, Path((_, id)): Path<(String, String)>) -> PageResult {
    let id: WebhookId = id.parse().map_err(|_| page_error(&member)(Error::not_found("webhook")))?;
    ops::delete(&member.cx, console.ops(), &member.organization_id, &id).await.map_err(page_error(&member))?;
    Ok(view::redirect_with_flash(&member.org.path("webhooks"), "Webhook deleted."))
}

async fn replay(
    State(console): State<Console>,
    member: Member,
    Path((_, id, delivery)): Path<(String, String, String)>,
) -> PageResult {
    let page = load(&console, &member, &id, "").await.map_err(page_error(&member))?;
    let delivery: WebhookDeliveryId = delivery.parse().map_err(|_| page_error(&member)(Error::not_found("message")))?;
    match deliveries::replay(&member.cx, console.ops(), &member.organization_id, &delivery).await {
        Ok(_) => Ok(view::redirect_with_flash(&page.path(), "Message queued again.")),
        Err(error) => {
            let (status, form_error) = FormError::from_error(error).map_err(page_error(&member))?;
            Ok(view::html(status, &WebhookPage { form_error, ..page }))
        }
    }
}
