//! The page of a ticket with its comments.

use askama::Template;
use axum::extract::{Path, State};
use serde::Deserialize;
use waypost_core::Error;
use waypost_core::id::{TicketCommentId, TicketId};
use waypost_core::ticket::{Ticket, TicketStatus};
use waypost_ops::ticket_comments::{self, CommentWithEdits, NewComment, can_edit};
use waypost_ops::tickets::{self, TicketDetails, TicketPatch};

use super::{Options, member_options, prepend_option, priorities, priority_badge, status_badge, statuses};
use crate::Console;
use crate::form::Form;
use crate::layout::{CurrentOrganization, Layout};
use crate::session::Member;
use crate::view::{self, FormError, PageError, PageResult};
use waypost_content::html;

/// A comment, formatted for the page.
struct CommentView {
    id: String,
    author: String,
    at: String,
    edited_at: Option<String>,
    internal: bool,
    mailed_to: Option<String>,
    html: String,
    body: String,
    /// The previous versions, newest first: the time of the edit and the text as HTML.
    edits: Vec<(String, String)>,
    /// Whether the viewer can edit and delete the comment.
    can_change: bool,
}

#[derive(Template)]
#[template(path = "tickets/show.html")]
struct TicketPage {
    layout: Layout,
    org: CurrentOrganization,
    form_error: FormError,
    details: TicketDetails,
    problem: String,
    context: Option<String>,
    comments: Vec<CommentView>,
    statuses: Options,
    priorities: Options,
    assignees: Options,
    /// The text of a rejected comment.
    draft: String,
    /// Whether the rejected comment is an internal note.
    draft_internal: bool,
    can_mail: bool,
}

impl TicketPage {
    fn ticket(&self) -> &Ticket {
        &self.details.ticket
    }

    fn path(&self) -> String {
        self.org.path(&format!("tickets/{}", self.ticket().id))
    }

    fn status_badge(&self) -> &'static str {
        status_badge(self.ticket().status)
    }

    fn priority_badge(&self) -> &'static str {
        priority_badge(self.ticket().priority)
    }

    fn assignee(&self) -> &str {
        self.ticket().assignee_id.as_ref().map_or("none", |id| id.as_str())
    }
}

fn parse_id<T: std::str::FromStr>(text: &str, noun: &str) -> Result<T, Error> {
    text.parse().map_err(|_| Error::not_found(noun))
}

async fn find(console: &Console, member: &Member, id: &str) -> Result<TicketPage, PageError> {
    load(console, member, id)
        .await
        .map_err(|error| PageError::from(error).with_layout(member.layout.clone().with_section("tickets")))
}

async fn load(console: &Console, member: &Member, id: &str) -> Result<TicketPage, Error> {
    let Member { cx, organization_id, org, layout } = member;
    let (id, ops): (TicketId, _) = (parse_id(id, "ticket")?, console.ops());
    let details = tickets::get(cx, ops, organization_id, &id).await?;
    let comments = ticket_comments::list(cx, ops, organization_id, &id).await?;
    let mut members = member_options(&tickets::list_assignees(cx, ops, organization_id).await?);
    if let (Some(id), Some(name)) = (&details.ticket.assignee_id, &details.assignee)
        && !members.iter().any(|(own, _)| own == id.as_str())
    {
        members.push((id.to_string(), format!("{name} (no longer a member)")));
    }
    Ok(TicketPage {
        layout: layout.clone().with_section("tickets"),
        org: org.clone(),
        form_error: FormError::default(),
        problem: html::render(&details.ticket.problem),
        context: details.ticket.context.as_deref().map(html::render),
        comments: comments.into_iter().map(|comment| comment_view(member, comment)).collect(),
        statuses: statuses().into_iter().filter(|(value, _)| can_change_status(&details.ticket, value)).collect(),
        priorities: priorities(),
        assignees: prepend_option("none", "Unassigned", members),
        draft: String::new(),
        draft_internal: false,
        can_mail: tickets::can_send_email(ops),
        details,
    })
}

/// Whether the ticket can change to this status.
fn can_change_status(ticket: &Ticket, status: &str) -> bool {
    status
        .parse::<TicketStatus>()
        .is_ok_and(|next| ticket.status.check_transition(next, ticket.email.is_some()).is_ok())
}

fn comment_view(member: &Member, with_edits: CommentWithEdits) -> CommentView {
    let CommentWithEdits { named, edits } = with_edits;
    let comment = named.comment;
    CommentView {
        id: comment.id.to_string(),
        can_change: can_edit(&member.cx.caller, &comment.author),
        author: named.author.unwrap_or(comment.author),
        at: comment.created_at.rfc3339(),
        edited_at: (comment.updated_at != comment.created_at).then(|| comment.updated_at.rfc3339()),
        internal: comment.internal,
        mailed_to: comment.mailed_to,
        html: html::render(&comment.body),
        body: comment.body,
        edits: edits.into_iter().rev().map(|edit| (edit.edited_at.rfc3339(), html::render(&edit.body))).collect(),
    }
}

pub(super) async fn show(
    State(console): State<Console>,
    member: Member,
    Path((_, id)): Path<(String, String)>,
) -> PageResult {
    Ok(view::page(&find(&console, &member, &id).await?))
}

/// The form with the ticket details.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct TicketForm {
    status: String,
    priority: String,
    assignee: String,
    email: String,
    revision: String,
}

impl TicketForm {
    fn change(&self) -> Result<TicketPatch, Error> {
        let invalid = |field| Error::invalid(field, "Invalid value. Reload the page.");
        Ok(TicketPatch {
            status: Some(self.status.parse().map_err(|_| invalid("status"))?),
            priority: Some(self.priority.parse().map_err(|_| invalid("priority"))?),
            assignee: Some(Some(self.assignee.clone()).filter(|text| text != "none" && !text.is_empty())),
            email: Some(self.email.trim().to_owned()).filter(|text| !text.is_empty()),
        })
    }
}

pub(super) async fn update(
    State(console): State<Console>,
    member: Member,
    Path((_, id)): Path<(String, String)>,
    Form(fields): Form<TicketForm>,
) -> PageResult {
    let page = find(&console, &member, &id).await?;
    let updated = match fields.change() {
        Ok(mut change) => {
            // An unchanged assignee is not sent, because an assignee who is no longer a member would be rejected.
            if fields.assignee == page.assignee() {
                change.assignee = None;
            }
            let (id, revision) = (&page.ticket().id, fields.revision.parse().ok());
            tickets::update(&member.cx, console.ops(), &member.organization_id, id, revision, &change).await
        }
        Err(error) => Err(error),
    };
    match updated {
        Ok(_) => Ok(view::redirect_with_flash(&page.path(), "Saved.")),
        Err(error) => {
            let error = match error.details.get("field") {
                Some(field) if field == "assignee_id" => error.with("field", "assignee"),
                _ => error,
            };
            let (status, form_error) = FormError::from_error(error)
                .map_err(|error| PageError::from(error).with_layout(page.layout.clone()))?;
            Ok(view::html(status, &TicketPage { form_error, ..page }))
        }
    }
}

/// The form for a new comment.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct CommentForm {
    body: String,
    kind: String,
    then: String,
}

pub(super) async fn add_comment(
    State(console): State<Console>,
    member: Member,
    Path((_, id)): Path<(String, String)>,
    Form(fields): Form<CommentForm>,
) -> PageResult {
    let page = find(&console, &member, &id).await?;
    let (cx, ops, ticket) = (&member.cx, console.ops(), page.ticket().id.clone());
    let internal = fields.kind == "note";
    let resolve = fields.then == "resolved" && page.ticket().status != TicketStatus::Resolved;
    let new = NewComment { body: fields.body.clone(), internal, resolve };
    let added = ticket_comments::create(cx, ops, &member.organization_id, &ticket, &new).await;
    let page_error = |error| PageError::from(error).with_layout(page.layout.clone());
    match added {
        Ok(added) => {
            let message = match (internal, added.named.comment.mailed_to.is_some()) {
                (true, _) => "Note added.",
                (false, true) => "Reply added. It will be sent to the user by email.",
                (false, false) => "Reply added. No email was sent.",
            };
            Ok(view::redirect_with_flash(&page.path(), message))
        }
        Err(error) => {
            let (status, form_error) = FormError::from_error(error).map_err(page_error)?;
            let page = TicketPage { form_error, draft: fields.body, draft_internal: internal, ..page };
            Ok(view::html(status, &page))
        }
    }
}

pub(super) async fn edit_comment(
    State(console): State<Console>,
    member: Member,
    Path((_, id, comment_id)): Path<(String, String, String)>,
    Form(pairs): Form<Vec<(String, String)>>,
) -> PageResult {
    let page = find(&console, &member, &id).await?;
    let page_error = |error| PageError::from(error).with_layout(page.layout.clone());
    let comment: TicketCommentId = parse_id(&comment_id, "comment").map_err(page_error)?;
    // Every comment has its own form with a unique field name.
    let field = format!("body-{comment}");
    let body = pairs.into_iter().find(|(name, _)| *name == field).map(|(_, body)| body).unwrap_or_default();
    let (organization, ticket) = (&member.organization_id, &page.ticket().id);
    let edited = ticket_comments::update(&member.cx, console.ops(), organization, ticket, &comment, &body).await;
    match edited {
        Ok(_) => Ok(view::redirect_with_flash(&page.path(), "Saved. The previous version is kept.")),
        Err(error) => {
            let (status, form_error) = FormError::from_error(error).map_err(page_error)?;
            // Keeps the entered text in the form it was submitted from.
            let mut page = TicketPage { form_error: FormError { field, ..form_error }, ..page };
            if let Some(comment) = page.comments.iter_mut().find(|view| view.id == comment.as_str()) {
                comment.body = body;
            }
            Ok(view::html(status, &page))
        }
    }
}

pub(super) async fn delete_comment(
    State(console): State<Console>,
    member: Member,
    Path((_, id, comment_id)): Path<(String, String, String)>,
) -> PageResult {
    let page = find(&console, &member, &id).await?;
    let page_error = |error| PageError::from(error).with_layout(page.layout.clone());
    let comment: TicketCommentId = parse_id(&comment_id, "comment").map_err(page_error)?;
    let (organization, ticket) = (&member.organization_id, &page.ticket().id);
    ticket_comments::delete(&member.cx, console.ops(), organization, ticket, &comment).await.map_err(page_error)?;
    Ok(view::redirect_with_flash(&page.path(), "Comment deleted."))
}
