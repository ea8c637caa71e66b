//! `/tickets/{id}/comments`.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use waypost_core::id::{TicketCommentId, TicketId};
use waypost_ops::ticket_comments::{self, CommentWithEdits, NewComment};

use crate::Web;
use crate::extract::{Json, Path, Scope, created, parse_id};
use crate::page::Page;
use crate::problem::{ApiResult, Problems};
use crate::routes::{Routes, routes};

/// The operations on comments.
pub(super) fn routes() -> Routes {
    Routes::new().routes(routes!(list, create)).routes(routes!(update, delete))
}

/// A comment on a ticket.
#[derive(Debug, Serialize, ToSchema)]
struct TicketComment {
    #[schema(example = "tkc_0123456789abcdef01234567")]
    id: String,
    ticket_id: String,
    /// The ID of the user or API key that wrote the comment.
    author: String,
    /// Markdown.
    body: String,
    /// Whether this is an internal note, visible only to members.
    internal: bool,
    /// Whether the comment was sent to the end user by email.
    mailed: bool,
    /// The previous versions of the comment, oldest first.
    edits: Vec<TicketCommentEdit>,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
}

/// A previous version of a comment.
#[derive(Debug, Serialize, ToSchema)]
struct TicketCommentEdit {
    /// Markdown.
    body: String,
    /// The ID of the user or API key that replaced this version.
    edited_by: String,
    #[schema(format = DateTime)]
    edited_at: String,
}

impl From<CommentWithEdits> for TicketComment {
    fn from(with_edits: CommentWithEdits) -> Self {
        let edit = |edit: waypost_core::ticket::TicketCommentEdit| TicketCommentEdit {
            body: edit.body,
            edited_by: edit.edited_by,
            edited_at: edit.edited_at.rfc3339(),
        };
        let comment = with_edits.named.comment;
        Self {
            id: comment.id.to_string(),
            ticket_id: comment.ticket_id.to_string(),
            author: comment.author,
            body: comment.body,
            internal: comment.internal,
            mailed: comment.mailed_to.is_some(),
            edits: with_edits.edits.into_iter().map(edit).collect(),
            created_at: comment.created_at.rfc3339(),
            updated_at: comment.updated_at.rfc3339(),
        }
    }
}

/// A comment to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TicketCommentCreate {
    /// Markdown.
    #[schema(min_length = 1, max_length = 20_000)]
    body: String,
    /// Whether this is an internal note, visible only to members. Other comments are sent to the end user by email, if
    /// their email is known and the installation sends email.
    #[serde(default)]
    internal: bool,
}

/// Changes to a comment.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TicketCommentUpdate {
    /// Markdown. The edited comment is not sent by email again.
    #[schema(min_length = 1, max_length = 20_000)]
    body: String,
}

/// Lists the comments on a ticket, oldest first.
///
/// A ticket has at most 500 comments.
#[utoipa::path(get, path = "/tickets/{id}/comments", tag = "tickets", operation_id = "list_ticket_comments",
    params(("id" = String, Path, description = "The ID of the ticket (`tkt_…`).")),
    responses((status = 200, body = Page<TicketComment>), Problems))]
async fn list(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<Json<Page<TicketComment>>> {
    let all = ticket_comments::list(&cx, web.ops(), &organization_id, &parse_id(&text, "ticket")?).await?;
    Ok(Json(Page::complete(all.into_iter().map(TicketComment::from).collect())))
}

/// Adds a comment to a ticket: a reply to the end user, or an internal note.
#[utoipa::path(post, path = "/tickets/{id}/comments", tag = "tickets", operation_id = "create_ticket_comment",
    params(("id" = String, Path, description = "The ID of the ticket (`tkt_…`).")),
    request_body = TicketCommentCreate,
    responses((status = 201, body = TicketComment), Problems))]
async fn create(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
    Json(new): Json<TicketCommentCreate>,
) -> ApiResult<Response> {
    let ticket: TicketId = parse_id(&text, "ticket")?;
    let new = NewComment { body: new.body, internal: new.internal, resolve: false };
    let comment = TicketComment::from(ticket_comments::create(&cx, web.ops(), &organization_id, &ticket, &new).await?);
    Ok(created(&format!("tickets/{ticket}/comments/{}", comment.id), &comment))
}

/// Updates a comment.
///
/// The previous version is kept in `edits`. Only the author and admins can update a comment.
#[utoipa::path(patch, path = "/tickets/{id}/comments/{comment_id}", tag = "tickets",
    operation_id = "update_ticket_comment",
    params(("id" = String, Path, description = "The ID of the ticket (`tkt_…`)."),
        ("comment_id" = String, Path, description = "The ID of the comment (`tkc_…`).")),
    request_body = TicketCommentUpdate, responses((status = 200, body = TicketComment), Problems))]
async fn update(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path((ticket, comment)): Path<(String, String)>,
    Json(change): Json<TicketCommentUpdate>,
) -> ApiResult<Json<TicketComment>> {
    let (ticket, comment): (TicketId, TicketCommentId) = (parse_id(&ticket, "ticket")?, parse_id(&comment, "comment")?);
    let changed = ticket_comments::update(&cx, web.ops(), &organization_id, &ticket, &comment, &change.body).await?;
    Ok(Json(changed.into()))
}

/// Deletes a comment and its previous versions.
///
/// Only the author and admins can delete a comment.
#[utoipa::path(delete, path = "/tickets/{id}/comments/{comment_id}", tag = "tickets",
    operation_id = "delete_ticket_comment",
    params(("id" = String, Path, description = "The ID of the ticket (`tkt_…`)."),
        ("comment_id" = String, Path, description = "The ID of the comment (`tkc_…`).")),
    responses((status = 204), Problems))]
async fn delete(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path((ticket, comment)): Path<(String, String)>,
) -> ApiResult<StatusCode> {
    let (ticket, comment): (TicketId, TicketCommentId) = (parse_id(&ticket, "ticket")?, parse_id(&comment, "comment")?);
    ticket_comments::delete(&cx, web.ops(), &organization_id, &ticket, &comment).await?;
    Ok(StatusCode::NO_CONTENT)
}
