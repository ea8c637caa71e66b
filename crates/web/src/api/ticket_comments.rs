//! `/tickets/{id}/comments`.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use waypost_core::id::{TicketCommentId, TicketId};
use waypost_ops::ticket_comments::{self, CommentWithEdits, NewComment};

use super::extract::{Json, Path, Scope, created, id};
use super::page::Page;
use crate::Web;
use crate::problem::{ApiResult, Problems};

/// The operations on comments.
pub(super) fn routes() -> OpenApiRouter<Web> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(update, delete))
}

/// What the team wrote on a ticket.
#[derive(Debug, Serialize, ToSchema)]
struct TicketComment {
    #[schema(example = "tkc_0123456789abcdef01234567")]
    id: String,
    ticket_id: String,
    /// The id of the user or the key that wrote it.
    author: String,
    /// Markdown.
    body: String,
    /// Whether it is a note for the team only.
    internal: bool,
    /// Whether it was sent to the user by mail.
    mailed: bool,
    /// What stood there before, oldest first.
    edits: Vec<TicketCommentEdit>,
    /// RFC 3339.
    #[schema(format = DateTime)]
    created_at: String,
    /// RFC 3339.
    #[schema(format = DateTime)]
    updated_at: String,
}

/// A former text of a comment.
#[derive(Debug, Serialize, ToSchema)]
struct TicketCommentEdit {
    /// Markdown.
    body: String,
    /// The id of the user or the key that replaced it.
    edited_by: String,
    /// RFC 3339.
    #[schema(format = DateTime)]
    edited_at: String,
}

impl From<CommentWithEdits> for TicketComment {
    fn from(it: CommentWithEdits) -> Self {
        let edit = |edit: waypost_core::ticket::TicketCommentEdit| TicketCommentEdit {
            body: edit.body,
            edited_by: edit.edited_by,
            edited_at: edit.edited_at.rfc3339(),
        };
        let comment = it.named.comment;
        Self {
            id: comment.id.to_string(),
            ticket_id: comment.ticket_id.to_string(),
            author: comment.author,
            body: comment.body,
            internal: comment.internal,
            mailed: comment.mailed_to.is_some(),
            edits: it.edits.into_iter().map(edit).collect(),
            created_at: comment.created_at.rfc3339(),
            updated_at: comment.updated_at.rfc3339(),
        }
    }
}

/// What to write on a ticket.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewTicketComment {
    /// Markdown.
    #[schema(min_length = 1, max_length = 20_000)]
    body: String,
    /// A note for the team only. Anything else goes to the user by mail, when their address is known and the installation
    /// can send any.
    #[serde(default)]
    internal: bool,
}

/// What to change of a comment.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TicketCommentChange {
    /// Markdown. It is not mailed again.
    #[schema(min_length = 1, max_length = 20_000)]
    body: String,
}

/// The comments on a ticket, oldest first: 500 at most.
#[utoipa::path(get, path = "/tickets/{id}/comments", tag = "tickets", operation_id = "list_ticket_comments",
    params(("id" = String, Path, description = "`tkt_…`")),
    responses((status = 200, body = Page<TicketComment>), Problems))]
async fn list(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<Json<Page<TicketComment>>> {
    let all = ticket_comments::list(&cx, web.ops(), &organization_id, &id(&text, "ticket")?).await?;
    Ok(Json(Page::whole(all.into_iter().map(TicketComment::from).collect())))
}

/// Writes on a ticket: an answer to the user, or a note for the team.
#[utoipa::path(post, path = "/tickets/{id}/comments", tag = "tickets", operation_id = "create_ticket_comment",
    params(("id" = String, Path, description = "`tkt_…`")), request_body = NewTicketComment,
    responses((status = 201, body = TicketComment), Problems))]
async fn create(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
    Json(new): Json<NewTicketComment>,
) -> ApiResult<Response> {
    let ticket: TicketId = id(&text, "ticket")?;
    let new = NewComment { body: new.body, internal: new.internal };
    let comment = TicketComment::from(ticket_comments::create(&cx, web.ops(), &organization_id, &ticket, &new).await?);
    Ok(created(&format!("tickets/{ticket}/comments/{}", comment.id), &comment))
}

/// Changes a comment; what stood there is kept in `edits`. For its author, and for admins.
#[utoipa::path(patch, path = "/tickets/{id}/comments/{comment_id}", tag = "tickets",
    operation_id = "update_ticket_comment",
    params(("id" = String, Path, description = "`tkt_…`"), ("comment_id" = String, Path, description = "`tkc_…`")),
    request_body = TicketCommentChange, responses((status = 200, body = TicketComment), Problems))]
async fn update(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path((ticket, comment)): Path<(String, String)>,
    Json(change): Json<TicketCommentChange>,
) -> ApiResult<Json<TicketComment>> {
    let (ticket, comment): (TicketId, TicketCommentId) = (id(&ticket, "ticket")?, id(&comment, "comment")?);
    let place = (&ticket, &comment);
    let changed = ticket_comments::update(&cx, web.ops(), &organization_id, place, &change.body).await?;
    Ok(Json(changed.into()))
}

/// Deletes a comment with what stood there before. For its author, and for admins.
#[utoipa::path(delete, path = "/tickets/{id}/comments/{comment_id}", tag = "tickets",
    operation_id = "delete_ticket_comment",
    params(("id" = String, Path, description = "`tkt_…`"), ("comment_id" = String, Path, description = "`tkc_…`")),
    responses((status = 204), Problems))]
async fn delete(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path((ticket, comment)): Path<(String, String)>,
) -> ApiResult<StatusCode> {
    let (ticket, comment): (TicketId, TicketCommentId) = (id(&ticket, "ticket")?, id(&comment, "comment")?);
    ticket_comments::delete(&cx, web.ops(), &organization_id, (&ticket, &comment)).await?;
    Ok(StatusCode::NO_CONTENT)
}
