//! The tool that opens support tickets.

use rmcp::model::JsonObject;
use serde_json::json;
use waypost_core::Result;
use waypost_core::email::Email;
use waypost_core::ticket::{Ticket, TicketStatus};
use waypost_ops::progress::Play;
use waypost_ops::record::Arrival;
use waypost_ops::tickets::open::{NewTicket, open};

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
    arrival: &Arrival,
) -> Result<Answer> {
    let new = NewTicket {
        title: required(arguments, "title")?.to_owned(),
        problem: required(arguments, "problem")?.to_owned(),
        context: text(arguments, "context").map(str::to_owned),
    };
    let presented = target.presented(text(arguments, "progress_handle"))?;
    let play = Play { offers: &target.offers, presented, email, arrival };
    let ticket = open(&target.cx, &target.hosting, &play, new).await?;
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
