//! The tool that opens support tickets.

use rmcp::model::JsonObject;
use serde_json::json;
use waypost_core::Result;
use waypost_core::email::Email;
use waypost_core::ticket::{Ticket, TicketStatus};
use waypost_ops::call_records::CallContext;
use waypost_ops::progress::PlayRequest;
use waypost_ops::tickets::creation::{NewTicket, create};

use super::walkthrough::Answer;
use super::{required, text};
use crate::target::Target;

/// Opens a ticket.
///
/// # Errors
/// As the act behind it.
pub(super) async fn call(
    target: &Target,
    arguments: &JsonObject,
    email: Option<Email>,
    call: &CallContext,
) -> Result<Answer> {
    let new = NewTicket {
        title: required(arguments, "title")?.to_owned(),
        problem: required(arguments, "problem")?.to_owned(),
        context: text(arguments, "context").map(str::to_owned),
    };
    let credentials = target.credentials(text(arguments, "progress_handle"))?;
    let play = PlayRequest { offers: &target.offers, credentials, email, call };
    let ticket = create(&target.cx, &target.hosting, &play, new).await?;
    let text = message(&ticket);
    let structured = json!({ "ticket_id": ticket.id, "status": ticket.status.as_str(), "message": text });
    Ok(Answer { structured, text })
}

fn message(ticket: &Ticket) -> String {
    let next = match ticket.status {
        TicketStatus::NeedsEmail => {
            "The team does not know where to answer to. Ask the user for an e-mail address, then call get_support again \
             with the same title, problem and context, and with email."
        }
        _ => "The team answers by e-mail. Tell the user.",
    };
    format!("Support ticket #{} is open. {next}", ticket.number)
}
