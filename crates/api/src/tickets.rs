//! `/tickets`.

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use waypost_core::caller::Ctx;
use waypost_core::id::{ServerId, TicketId, UserId, WalkthroughId};
use waypost_core::ticket::{Priority, TicketStatus};
use waypost_core::{Error, Result, Timestamp};
use waypost_ops::tickets::{self, TicketDetails, TicketFilter, TicketListQuery, TicketPatch, search_text};

use crate::Web;
use crate::extract::{IfMatch, Json, Path, Query, Scope, nullable, parse_id, with_etag};
use crate::page::Page;
use crate::problem::{ApiResult, Problems};
use crate::routes::{Routes, routes};
use crate::schema;

/// The operations on tickets.
pub(super) fn routes() -> Routes {
    Routes::new().routes(routes!(list)).routes(routes!(bulk)).routes(routes!(get, update))
}

/// A support ticket.
#[derive(Debug, Serialize, ToSchema)]
struct Ticket {
    #[schema(example = "tkt_0123456789abcdef01234567")]
    id: String,
    /// The number of the ticket, unique in the organisation.
    number: u32,
    /// A one-line summary, written by the end user's agent.
    title: String,
    /// The description of the problem.
    problem: String,
    /// Additional context.
    context: Option<String>,
    #[schema(schema_with = schema::ticket_status)]
    status: TicketStatus,
    #[schema(schema_with = schema::priority)]
    priority: Priority,
    /// The ID of the assigned member. Null if the ticket is unassigned.
    assignee_id: Option<String>,
    /// The email to which replies are sent. Null if there is none yet.
    email: Option<String>,
    /// Whether the email was verified by a sign-in.
    email_verified: bool,
    /// The server on which the ticket was opened. Null if the server was deleted.
    server_id: Option<String>,
    /// The end user who opened the ticket. Null if unknown.
    end_user_id: Option<String>,
    /// The walkthrough and step at which the ticket was opened. Null if no walkthrough was in progress.
    walkthrough: Option<TicketWalkthrough>,
    /// The revision, increased by every change. It is also the `ETag`.
    revision: u32,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
    /// Null while the ticket is neither resolved nor closed.
    #[schema(format = DateTime)]
    resolved_at: Option<String>,
}

/// The walkthrough in progress when a ticket was opened.
#[derive(Debug, Serialize, ToSchema)]
struct TicketWalkthrough {
    /// Null if the walkthrough was deleted.
    id: Option<String>,
    title: String,
    version: u32,
    /// The current step. Null if there was none.
    step: Option<TicketStep>,
}

/// The current step when a ticket was opened.
#[derive(Debug, Serialize, ToSchema)]
struct TicketStep {
    id: String,
    title: String,
    /// The position of the step, starting at 1.
    position: u32,
}

impl From<TicketDetails> for Ticket {
    fn from(details: TicketDetails) -> Self {
        let ticket = details.ticket;
        let walkthrough = ticket.origin.map(|origin| TicketWalkthrough {
            id: origin.walkthrough_id.map(|id| id.to_string()),
            title: origin.title,
            version: origin.version,
            step: origin.step.map(|step| TicketStep { id: step.id, title: step.title, position: step.position }),
        });
        Self {
            id: ticket.id.to_string(),
            number: ticket.number,
            title: ticket.title,
            problem: ticket.problem,
            context: ticket.context,
            status: ticket.status,
            priority: ticket.priority,
            assignee_id: ticket.assignee_id.map(|id| id.to_string()),
            email: ticket.email,
            email_verified: ticket.email_verified,
            server_id: ticket.server_id.map(|id| id.to_string()),
            end_user_id: ticket.end_user_id.map(|id| id.to_string()),
            walkthrough,
            revision: ticket.revision,
            created_at: ticket.created_at.rfc3339(),
            updated_at: ticket.updated_at.rfc3339(),
            resolved_at: ticket.resolved_at.map(Timestamp::rfc3339),
        }
    }
}

/// The query parameters of the ticket list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct TicketQuery {
    /// Only tickets with this status.
    #[param(schema_with = schema::ticket_status)]
    status: Option<TicketStatus>,
    /// Only tickets with this priority.
    #[param(schema_with = schema::priority)]
    priority: Option<Priority>,
    /// Only tickets assigned to this member (`usr_…`), to yourself (`me`) or to no one (`none`).
    assignee: Option<String>,
    /// Only tickets opened on this server (`srv_…`).
    server_id: Option<String>,
    /// Only tickets opened in this walkthrough (`wt_…`).
    walkthrough_id: Option<String>,
    /// Only tickets whose number, title, problem or email contains this text.
    #[param(max_length = 200)]
    q: Option<String>,
    /// The maximum number of items to return.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// The `next_cursor` of the previous page.
    cursor: Option<String>,
}

impl TicketQuery {
    fn into_list_query(self, cx: &Ctx) -> Result<TicketListQuery> {
        let filter = TicketFilter {
            status: self.status,
            priority: self.priority,
            assignee: self.assignee.as_deref().map(|text| parse_assignee(cx, text)).transpose()?,
            server: self.server_id.as_deref().map(|text| parse_field::<ServerId>("server_id", text)).transpose()?,
            walkthrough: self
                .walkthrough_id
                .as_deref()
                .map(|text| parse_field::<WalkthroughId>("walkthrough_id", text))
                .transpose()?,
            text: self.q.as_deref().and_then(search_text),
        };
        Ok(TicketListQuery { filter, limit: self.limit, cursor: self.cursor })
    }
}

/// Parses an assignee filter: a user ID, `me` or `none`. Returns `None` for `none`.
///
/// # Errors
/// `invalid_arguments` if the text is anything else, or if it is `me` and the caller is an API key rather than a user.
pub(crate) fn parse_assignee(cx: &Ctx, text: &str) -> Result<Option<UserId>> {
    match text {
        "none" => Ok(None),
        "me" => parse_field("assignee", cx.caller.actor()).map(Some),
        text => parse_field("assignee", text).map(Some),
    }
}

fn parse_field<T: std::str::FromStr>(field: &str, text: &str) -> Result<T> {
    text.parse().map_err(|_| Error::invalid(field, format!("`{field}` is not a valid ID.")))
}

/// Changes to a ticket. Absent members are not changed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TicketUpdate {
    /// A closed ticket can be reopened as `pending` or `in_progress`. `needs_email` is allowed only if the ticket has
    /// no email.
    #[schema(schema_with = schema::ticket_status)]
    status: Option<TicketStatus>,
    #[schema(schema_with = schema::priority)]
    priority: Option<Priority>,
    /// The ID or email of the member to assign. Null unassigns the ticket.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(max_length = 254)]
    assignee_id: Option<Option<String>>,
    /// The email to which replies are sent. Setting it changes the status `needs_email` to `pending`.
    #[schema(min_length = 3, max_length = 254, example = "anna@example.com")]
    email: Option<String>,
}

impl From<TicketUpdate> for TicketPatch {
    fn from(change: TicketUpdate) -> Self {
        let TicketUpdate { status, priority, assignee_id, email } = change;
        Self { status, priority, assignee: assignee_id, email }
    }
}

/// Changes to several tickets. Absent members are not changed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TicketBulkUpdate {
    /// The IDs of the tickets. At most 100.
    #[schema(min_items = 1, max_items = 100)]
    ids: Vec<String>,
    #[schema(schema_with = schema::ticket_status)]
    status: Option<TicketStatus>,
    #[schema(schema_with = schema::priority)]
    priority: Option<Priority>,
    /// The ID or email of the member to assign. Null unassigns the tickets.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(max_length = 254)]
    assignee_id: Option<Option<String>>,
}

/// The results of a bulk update.
#[derive(Debug, Serialize, ToSchema)]
struct TicketBulkResults {
    /// One result for each ID, in the same order.
    results: Vec<TicketBulkResult>,
}

/// The result of a bulk update for one ticket.
#[derive(Debug, Serialize, ToSchema)]
struct TicketBulkResult {
    id: String,
    /// The updated ticket. Null if the update failed.
    ticket: Option<Ticket>,
    /// The reason why the update failed. Null if it succeeded.
    error: Option<TicketBulkError>,
}

/// The reason why the update of a ticket failed.
#[derive(Debug, Serialize, ToSchema)]
struct TicketBulkError {
    /// An error code, as in a problem response.
    #[schema(value_type = String)]
    code: &'static str,
    detail: String,
}

/// Lists the support tickets of the organisation, newest first.
#[utoipa::path(get, path = "/tickets", tag = "tickets", operation_id = "list_tickets", params(TicketQuery),
    responses((status = 200, body = Page<Ticket>), Problems))]
async fn list(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Query(query): Query<TicketQuery>,
) -> ApiResult<Json<Page<Ticket>>> {
    let page = tickets::list(&cx, web.ops(), &organization_id, query.into_list_query(&cx)?).await?;
    let items = page.items.into_iter().map(Ticket::from).collect();
    Ok(Json(Page { items, next_cursor: page.next_cursor }))
}

/// Returns a support ticket.
#[utoipa::path(get, path = "/tickets/{id}", tag = "tickets", operation_id = "get_ticket",
    params(("id" = String, Path, description = "The ID of the ticket (`tkt_…`).")),
    responses((status = 200, body = Ticket), Problems))]
async fn get(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<Response> {
    let details = tickets::get(&cx, web.ops(), &organization_id, &parse_id(&text, "ticket")?).await?;
    Ok(with_etag(details.ticket.revision, Json(Ticket::from(details))))
}

/// Updates a ticket.
///
/// Resolving a ticket notifies the end user by email. Assigning it notifies the assignee. With `If-Match`, the update
/// fails with 412 if the ticket has changed in the meantime.
#[utoipa::path(patch, path = "/tickets/{id}", tag = "tickets", operation_id = "update_ticket",
    params(("id" = String, Path, description = "The ID of the ticket (`tkt_…`)."),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the ticket.")),
    request_body = TicketUpdate, responses((status = 200, body = Ticket), Problems))]
async fn update(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
    IfMatch(revision): IfMatch,
    Json(change): Json<TicketUpdate>,
) -> ApiResult<Response> {
    let ticket: TicketId = parse_id(&text, "ticket")?;
    let changed = tickets::update(&cx, web.ops(), &organization_id, &ticket, revision, &change.into()).await?;
    Ok(with_etag(changed.ticket.revision, Json(Ticket::from(changed))))
}

/// Updates several tickets in the same way.
///
/// Each ticket is updated independently. Errors are reported in the result of the ticket.
#[utoipa::path(post, path = "/tickets/bulk", tag = "tickets", operation_id = "update_tickets",
    request_body = TicketBulkUpdate, responses((status = 200, body = TicketBulkResults), Problems))]
async fn bulk(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Json(bulk): Json<TicketBulkUpdate>,
) -> ApiResult<Json<TicketBulkResults>> {
    let TicketBulkUpdate { ids, status, priority, assignee_id } = bulk;
    let change = TicketPatch { status, priority, assignee: assignee_id, email: None };
    let results = tickets::update_many(&cx, web.ops(), &organization_id, &ids, &change).await?;
    let result = |result: tickets::BulkResult| match result.result {
        Ok(details) => TicketBulkResult { id: result.id, ticket: Some(details.into()), error: None },
        Err(error) => {
            waypost_http_kit::status::log(&error);
            let error = TicketBulkError { code: error.code.as_str(), detail: error.message };
            TicketBulkResult { id: result.id, ticket: None, error: Some(error) }
        }
    };
    Ok(Json(TicketBulkResults { results: results.into_iter().map(result).collect() }))
}
