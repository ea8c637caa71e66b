//! The team's replies to a ticket, for the end user who opened it, with the tool `get_support` of a hosted server.

use waypost_content::markdown::clean_markdown;
use waypost_core::caller::Ctx;
use waypost_core::id::TicketId;
use waypost_core::ticket::Ticket;
use waypost_core::{Error, Result, Timestamp};
use waypost_store::{ticket as store, ticket_comment};

use crate::call_records::CallOutcome;
use crate::hosting::Hosting;
use crate::identity;
use crate::progress::{PlayRequest, ensure_signed_in};
use crate::ticket_creation::check_support;

/// The maximum number of replies that are returned.
const MAX_REPLIES: usize = 20;
/// The maximum number of characters of all returned replies together. The newest reply is always returned.
const MAX_CHARS: usize = 40_000;

/// A reply, as the end user sees it: without its author.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TicketReply {
    /// The text, in Markdown.
    pub body: String,
    /// The time of the reply.
    pub created_at: Timestamp,
}

/// A ticket with the newest replies.
#[derive(Debug, Clone)]
pub struct TicketReplies {
    /// The ticket.
    pub ticket: Ticket,
    /// The newest replies, oldest first. Internal notes and previous versions are not included.
    pub replies: Vec<TicketReply>,
    /// Whether older replies are omitted.
    pub has_older: bool,
}

/// Returns the replies to a ticket that the calling end user opened on this server.
///
/// A ticket is returned only if the call identifies the end user who opened it. Tickets of unknown users, of other
/// users and of other servers cause the same error as IDs that do not exist, so that the tool does not reveal which
/// exist.
///
/// # Errors
/// `invalid_arguments` if the end user opened no ticket with this ID on this server; `walkthrough_not_found` on a
/// server without support; `sign_in_required`, `handle_unknown`; `unavailable`.
pub async fn list_replies(cx: &Ctx, hosting: &Hosting, play: &PlayRequest<'_>, id: &str) -> Result<TicketReplies> {
    let server = &play.offers.server;
    check_support(cx, server)?;
    ensure_signed_in(cx, hosting, play).await?;
    let identity = identity::resolve(cx, hosting, server, &play.credentials).await?;
    let end_user = identity.end_user_id.as_ref().ok_or_else(not_found)?;
    let id: TicketId = id.parse().map_err(|_| not_found())?;
    let mut conn = hosting.read().await?;
    let named = store::find(&mut conn, &server.organization_id, &id).await?.ok_or_else(not_found)?;
    let ticket = named.ticket;
    if ticket.end_user_id.as_ref() != Some(end_user) || ticket.server_id.as_ref() != Some(&server.id) {
        return Err(not_found());
    }
    let limit = i64::try_from(MAX_REPLIES + 1).unwrap_or(i64::MAX);
    let newest = ticket_comment::list_replies(&mut conn, &server.organization_id, &id, limit).await?;
    drop(conn);
    let found = newest.len();
    let mut replies = Vec::new();
    let mut chars = 0;
    for comment in newest.into_iter().take(MAX_REPLIES) {
        // The text was cleaned when it was stored, possibly by a release that removed fewer invisible characters.
        let body = clean_markdown(&comment.body).trim().to_owned();
        chars += body.chars().count();
        if chars > MAX_CHARS && !replies.is_empty() {
            break;
        }
        replies.push(TicketReply { body, created_at: comment.created_at });
    }
    let has_older = replies.len() < found;
    replies.reverse();
    play.call.record(cx, hosting, server, Some(&identity), CallOutcome::Read).await;
    Ok(TicketReplies { ticket, replies, has_older })
}

fn not_found() -> Error {
    let message = "This user has opened no support ticket with this ID on this server. Use the `ticket_id` that \
                   get_support returned, as the same user.";
    Error::invalid("ticket_id", message)
}
