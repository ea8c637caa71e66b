//! The team's comments on tickets: replies, which are emailed to the end user, and internal notes.

use serde_json::json;
use waypost_content::markdown::clean_markdown;
use waypost_core::access::{Operation, authorize};
use waypost_core::caller::{Caller, Ctx};
use waypost_core::id::{OrganizationId, TicketCommentId, TicketId};
use waypost_core::organization::Role;
use waypost_core::ticket::{MAX_COMMENT, MAX_COMMENTS, TicketComment, TicketCommentEdit, TicketStatus};
use waypost_core::{Code, Error, Result};
use waypost_store::ticket_comment as store;
pub use waypost_store::ticket_comment::CommentWithAuthor;
use waypost_store::{Tx, organization, ticket};

use crate::Ops;
use crate::audit::{Entry, record};
use crate::notifications::{Notification, NotificationKind};
use crate::tickets::{self, TicketDetails, events};

/// A comment to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewComment {
    /// The text, in Markdown.
    pub body: String,
    /// Whether it is an internal note. A reply is emailed to the end user if their email address is known and emails
    /// can be sent.
    pub internal: bool,
    /// Whether the ticket is resolved at the same time. The user gets one email about both.
    pub resolve: bool,
}

/// A comment with its previous versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommentWithEdits {
    /// The comment.
    pub named: CommentWithAuthor,
    /// The previous versions, oldest first.
    pub edits: Vec<TicketCommentEdit>,
}

/// Returns the comments on a ticket, oldest first. A ticket has at most 500.
///
/// # Errors
/// `not_found`.
pub async fn list(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &TicketId) -> Result<Vec<CommentWithEdits>> {
    authorize(&cx.caller, Operation::TicketRead, organization)?;
    let mut tx = ops.store.snapshot().await?;
    ticket::find(&mut tx, organization, id).await?.ok_or_else(|| Error::not_found("ticket"))?;
    let mut edits = store::list_edits(&mut tx, organization, id).await?;
    let all = store::list(&mut tx, organization, id).await?;
    let with_edits = |named: CommentWithAuthor| {
        let (own, others) = edits.drain(..).partition(|edit| edit.comment_id == named.comment.id);
        edits = others;
        CommentWithEdits { named, edits: own }
    };
    Ok(all.into_iter().map(with_edits).collect())
}

/// Creates a comment. A reply to a pending ticket changes its status to in progress.
///
/// # Errors
/// `not_found`; `invalid_arguments` for `body`; `conflict` if the ticket has 500 comments, or if `new.resolve` is set
/// and the ticket is closed.
pub async fn create(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &TicketId,
    new: &NewComment,
) -> Result<CommentWithEdits> {
    authorize(&cx.caller, Operation::TicketWrite, organization)?;
    let body = cleaned(&new.body)?;
    let mut tx = ops.store.begin().await?;
    let about = ticket::find_for_update(&mut tx, organization, id).await?;
    let about = about.ok_or_else(|| Error::not_found("ticket"))?;
    if store::count(&mut tx, organization, id).await? >= i64::try_from(MAX_COMMENTS).unwrap_or(i64::MAX) {
        let message = format!("A ticket can have at most {MAX_COMMENTS} comments. Delete one first.");
        return Err(Error::new(Code::Conflict, message));
    }
    let now = cx.now();
    let to = about.ticket.email.clone().filter(|_| !new.internal);
    // If too many emails are queued, the page shows that this reply was not sent.
    let to = if to.is_some() && ops.notifier.has_room(&mut tx, organization).await? { to } else { None };
    let comment = TicketComment {
        id: TicketCommentId::new(now, &*cx.random),
        organization_id: organization.clone(),
        ticket_id: id.clone(),
        author: cx.caller.actor().to_owned(),
        body,
        internal: new.internal,
        mailed_to: to.clone(),
        created_at: now,
        updated_at: now,
    };
    store::insert(&mut tx, &comment).await?;
    let detail = json!({ "comment_id": comment.id, "internal": comment.internal, "mailed": to.is_some() });
    record(cx, &mut tx, organization, Entry { action: "ticket.comment", target: id.as_str(), detail }).await?;
    events::commented(cx, &mut tx, &about, &comment).await?;
    let was_resolved = about.ticket.status == TicketStatus::Resolved;
    let about = update_status(cx, &mut tx, about, new).await?;
    let is_resolved = !was_resolved && about.ticket.status == TicketStatus::Resolved;
    notify(cx, ops, &mut tx, &about, is_resolved, &comment).await?;
    let named = store::find(&mut tx, organization, id, &comment.id).await?.ok_or_else(missing)?;
    tx.commit().await?;
    Ok(CommentWithEdits { named: CommentWithAuthor { comment, author: named.author }, edits: Vec::new() })
}

/// Sets the status of the ticket after a comment.
async fn update_status(cx: &Ctx, tx: &mut Tx, about: TicketDetails, new: &NewComment) -> Result<TicketDetails> {
    let mut ticket = about.ticket.clone();
    if !new.internal {
        ticket.mark_answered();
    }
    if new.resolve {
        ticket.set_status(TicketStatus::Resolved, cx.now())?;
    }
    if ticket == about.ticket { Ok(about) } else { tickets::save(cx, tx, about, ticket).await }
}

/// Enqueues the email to the user: the reply, which also says whether it resolves the ticket, or else a notification
/// that the ticket is resolved.
async fn notify(
    cx: &Ctx,
    ops: &Ops,
    tx: &mut Tx,
    about: &TicketDetails,
    is_resolved: bool,
    comment: &TicketComment,
) -> Result<()> {
    let (kind, to) = match (&comment.mailed_to, &about.ticket.email) {
        (Some(address), _) => {
            let (comment_id, body) = (comment.id.clone(), comment.body.clone());
            (NotificationKind::Answered { comment_id, body, is_resolved }, address.clone())
        }
        (None, Some(address)) if is_resolved => (NotificationKind::Resolved, address.clone()),
        _ => return Ok(()),
    };
    let Some(owner) = organization::find(tx, &about.ticket.organization_id).await? else { return Ok(()) };
    let notification = Notification {
        kind,
        to: vec![to],
        reply_to: tickets::find_caller_email(cx, tx, &owner.id).await?,
        product: about.server.clone().unwrap_or_else(|| owner.name.clone()),
        organization: owner,
        ticket: about.ticket.clone(),
    };
    ops.notifier.enqueue(cx, tx, &notification).await?;
    Ok(())
}

/// Changes the text of a comment and keeps the previous version. The comment is not emailed again.
///
/// # Errors
/// `not_found`; `invalid_arguments` for `body`; `forbidden` if the caller is neither the author nor an admin.
pub async fn update(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    ticket: &TicketId,
    id: &TicketCommentId,
    body: &str,
) -> Result<CommentWithEdits> {
    authorize(&cx.caller, Operation::TicketWrite, organization)?;
    let body = cleaned(body)?;
    let mut tx = ops.store.begin().await?;
    let mut named = find_editable(cx, &mut tx, organization, ticket, id).await?;
    if named.comment.body != body {
        let (comment_id, edited_by) = (id.clone(), cx.caller.actor().to_owned());
        let before = std::mem::replace(&mut named.comment.body, body);
        let edit = TicketCommentEdit { comment_id, body: before, edited_by, edited_at: cx.now() };
        store::insert_edit(&mut tx, organization, &edit).await?;
        named.comment.updated_at = cx.now();
        store::update(&mut tx, &named.comment).await?;
        let detail = json!({ "comment_id": id });
        let entry = Entry { action: "ticket.edit_comment", target: ticket.as_str(), detail };
        record(cx, &mut tx, organization, entry).await?;
    }
    let mut edits = store::list_edits(&mut tx, organization, ticket).await?;
    edits.retain(|edit| edit.comment_id == *id);
    tx.commit().await?;
    Ok(CommentWithEdits { named, edits })
}

/// Deletes a comment and its previous versions.
///
/// # Errors
/// The same as for [`update`].
pub async fn delete(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    ticket: &TicketId,
    id: &TicketCommentId,
) -> Result<()> {
    authorize(&cx.caller, Operation::TicketWrite, organization)?;
    let mut tx = ops.store.begin().await?;
    find_editable(cx, &mut tx, organization, ticket, id).await?;
    store::delete(&mut tx, organization, id).await?;
    let entry = Entry { action: "ticket.delete_comment", target: ticket.as_str(), detail: json!({ "comment_id": id }) };
    record(cx, &mut tx, organization, entry).await?;
    tx.commit().await?;
    Ok(())
}

/// Whether the caller can edit a comment by `author`.
#[must_use]
pub fn can_edit(caller: &Caller, author: &str) -> bool {
    match caller {
        Caller::Operator => true,
        Caller::Member { role, actor, .. } => actor == author || role.covers(Role::Admin),
        Caller::User { .. } | Caller::Visitor | Caller::Client { .. } => false,
    }
}

/// Locks the ticket and returns a comment that the caller can edit.
async fn find_editable(
    cx: &Ctx,
    tx: &mut Tx,
    organization: &OrganizationId,
    ticket: &TicketId,
    id: &TicketCommentId,
) -> Result<CommentWithAuthor> {
    // Lock the ticket, so that edits of a comment are serialised.
    ticket::find_for_update(tx, organization, ticket).await?.ok_or_else(|| Error::not_found("ticket"))?;
    let named = store::find(tx, organization, ticket, id).await?.ok_or_else(missing)?;
    if can_edit(&cx.caller, &named.comment.author) {
        Ok(named)
    } else {
        Err(Error::new(Code::Forbidden, "Only the author and admins can change a comment."))
    }
}

fn cleaned(text: &str) -> Result<String> {
    let body = clean_markdown(text).trim().to_owned();
    match body.chars().count() {
        0 => Err(Error::invalid("body", "`body` must not be empty.")),
        count if count > MAX_COMMENT => {
            Err(Error::invalid("body", format!("`body` has {count} characters; the limit is {MAX_COMMENT}.")))
        }
        _ => Ok(body),
    }
}

fn missing() -> Error {
    Error::not_found("comment")
}
