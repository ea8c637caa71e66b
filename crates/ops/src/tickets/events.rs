//! Webhook events of tickets (docs/webhooks.md), and their audit details.

use serde_json::{Value, json};
use waypost_core::Result;
use waypost_core::caller::Ctx;
use waypost_core::ticket::{Ticket, TicketComment};
use waypost_core::webhook::WebhookEvent;
use waypost_store::Tx;
use waypost_store::ticket::TicketDetails;

use crate::webhooks::{self, Event};

/// Enqueues `ticket.created`.
pub(crate) async fn created(cx: &Ctx, tx: &mut Tx, details: &TicketDetails) -> Result<()> {
    let ticket = &details.ticket;
    let of = details.server.as_deref().map(|name| format!(" of {name}")).unwrap_or_default();
    let text = format!("New ticket #{}{of}: {}", ticket.number, ticket.title);
    enqueue_event(cx, tx, WebhookEvent::TicketCreated, ticket, &text, json!({ "ticket": data(details) })).await
}

/// Enqueues `ticket.updated`.
pub(super) async fn updated(cx: &Ctx, tx: &mut Tx, details: &TicketDetails) -> Result<()> {
    let ticket = &details.ticket;
    let (status, priority) = (ticket.status.label().to_lowercase(), ticket.priority.label().to_lowercase());
    let text = format!("Ticket #{} is {status}, priority {priority}: {}", ticket.number, ticket.title);
    enqueue_event(cx, tx, WebhookEvent::TicketUpdated, ticket, &text, json!({ "ticket": data(details) })).await
}

/// Enqueues `ticket.commented`.
pub(crate) async fn commented(cx: &Ctx, tx: &mut Tx, details: &TicketDetails, comment: &TicketComment) -> Result<()> {
    let ticket = &details.ticket;
    let kind = if comment.internal { "Note on" } else { "Reply to" };
    let text = format!("{kind} ticket #{}: {}", ticket.number, ticket.title);
    let comment = json!({
        "id": comment.id,
        "author": comment.author,
        "internal": comment.internal,
        "body": comment.body,
        "created_at": comment.created_at.rfc3339(),
    });
    let data = json!({ "ticket": data(details), "comment": comment });
    enqueue_event(cx, tx, WebhookEvent::TicketCommented, ticket, &text, data).await
}

async fn enqueue_event(
    cx: &Ctx,
    tx: &mut Tx,
    event: WebhookEvent,
    ticket: &Ticket,
    text: &str,
    data: Value,
) -> Result<()> {
    let event = Event { event, end_user_id: ticket.end_user_id.as_ref(), text, data };
    webhooks::enqueue(cx, tx, &ticket.organization_id, &event).await
}

fn data(details: &TicketDetails) -> Value {
    let ticket = &details.ticket;
    let walkthrough = ticket.origin.as_ref().map(|place| {
        let step =
            place.step.as_ref().map(|step| json!({ "id": step.id, "title": step.title, "position": step.position }));
        json!({ "id": place.walkthrough_id, "title": place.title, "version": place.version, "step": step })
    });
    json!({
        "id": ticket.id,
        "number": ticket.number,
        "title": ticket.title,
        "problem": ticket.problem,
        "context": ticket.context,
        "email": ticket.email,
        "status": ticket.status.as_str(),
        "priority": ticket.priority.as_str(),
        "assignee_id": ticket.assignee_id,
        "server": ticket.server_id.as_ref().map(|id| json!({ "id": id, "name": details.server })),
        "end_user_id": ticket.end_user_id,
        "walkthrough": walkthrough,
        "created_at": ticket.created_at.rfc3339(),
        "updated_at": ticket.updated_at.rfc3339(),
    })
}

/// Returns the changes of a ticket, for the audit log.
pub(super) fn changes(before: &Ticket, after: &Ticket) -> Value {
    let mut changes = json!({ "number": after.number });
    let mut add = |name: &str, from: Value, to: Value| {
        if from != to {
            changes[name] = json!({ "from": from, "to": to });
        }
    };
    add("status", before.status.as_str().into(), after.status.as_str().into());
    add("priority", before.priority.as_str().into(), after.priority.as_str().into());
    add("assignee_id", json!(before.assignee_id), json!(after.assignee_id));
    // The log outlives the user's data: it records whether there is an email address, but not the address itself.
    add("has_email", before.email.is_some().into(), after.email.is_some().into());
    changes
}
