//! The `get_support` tool, which creates support tickets.

use rmcp::model::JsonObject;
use serde_json::json;
use waypost_core::Result;
use waypost_core::email::Email;
use waypost_core::ticket::{Ticket, TicketStatus};
use waypost_ops::call_records::CallContext;
use waypost_ops::progress::PlayRequest;
use waypost_ops::ticket_creation::{NewTicket, create};

use super::walkthrough::ToolResult;
use super::{required, text};
use crate::context::HandlerContext;

/// Creates a ticket.
///
/// # Errors
/// Those of [`create`].
pub(super) async fn call(
    context: &HandlerContext,
    arguments: &JsonObject,
    email: Option<Email>,
    call: &CallContext,
) -> Result<ToolResult> {
    let new = NewTicket {
        title: required(arguments, "title")?.to_owned(),
        problem: required(arguments, "problem")?.to_owned(),
        context: text(arguments, "context").map(str::to_owned),
    };
    let credentials = context.credentials(text(arguments, "progress_handle"))?;
    let play = PlayRequest { offers: &context.offers, credentials, email, call };
    let ticket = create(&context.cx, &context.hosting, &play, new).await?;
    let text = message(&ticket);
    let structured = json!({ "ticket_id": ticket.id, "status": ticket.status.as_str(), "message": text });
    Ok(ToolResult { structured, text })
}

fn message(ticket: &Ticket) -> String {
    let next = match ticket.status {
        TicketStatus::NeedsEmail => {
            "The team has no email address to reply to. Ask the user for one, then call get_support again with the same \
             title, problem and context, and with email."
        }
        _ => "The team will reply by email. Tell the user.",
    };
    format!("Support ticket #{} is open. {next}", ticket.number)
}
