//! `/tickets`.

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use waypost_core::caller::Ctx;
use waypost_core::id::{ServerId, TicketId, UserId, WalkthroughId};
use waypost_core::ticket::{Priority, TicketStatus};
use waypost_core::{Error, Result, Timestamp};
use waypost_ops::tickets::{self, Filter, Named, TicketListQuery, TicketPatch, search_text};

use super::extract::{IfMatch, Json, Path, Query, Scope, id, nullable, tagged};
use super::page::Page;
use super::schema;
use crate::Web;
use crate::problem::{ApiResult, Problems};

/// The operations on tickets.
pub(super) fn routes() -> OpenApiRouter<Web> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(bulk)).routes(routes!(get, update))
}

/// A support ticket.
#[derive(Debug, Serialize, ToSchema)]
struct Ticket {
    #[schema(example = "tkt_0123456789abcdef01234567")]
    id: String,
    /// Its number within the organisation, for people.
    number: u32,
    /// In a line, as the user's agent wrote it.
    title: String,
    /// What is wrong.
    problem: String,
    /// What else may help.
    context: Option<String>,
    #[schema(schema_with = schema::ticket_status)]
    status: TicketStatus,
    #[schema(schema_with = schema::priority)]
    priority: Priority,
    /// The member who has it.
    assignee_id: Option<String>,
    /// Where to answer to.
    email: Option<String>,
    /// Whether that address was proved at a sign-in; otherwise it is what somebody said.
    email_verified: bool,
    /// The server on which it was opened; null when that was deleted.
    server_id: Option<String>,
    /// Who opened it; null when nobody could tell.
    end_user_id: Option<String>,
    /// Where they were then.
    walkthrough: Option<TicketWalkthrough>,
    /// Counted up by every change; also the `ETag`.
    revision: u32,
    /// RFC 3339.
    #[schema(format = DateTime)]
    created_at: String,
    /// RFC 3339.
    #[schema(format = DateTime)]
    updated_at: String,
    /// RFC 3339; null while it is neither resolved nor closed.
    #[schema(format = DateTime)]
    resolved_at: Option<String>,
}

/// Where a user was when they opened a ticket.
#[derive(Debug, Serialize, ToSchema)]
struct TicketWalkthrough {
    /// Null when it was deleted.
    id: Option<String>,
    title: String,
    version: u32,
    /// The step that they were at.
    step: Option<TicketStep>,
}

/// The step that a user was at.
#[derive(Debug, Serialize, ToSchema)]
struct TicketStep {
    id: String,
    title: String,
    /// From 1.
    position: u32,
}

impl From<Named> for Ticket {
    fn from(named: Named) -> Self {
        let it = named.ticket;
        let walkthrough = it.place.map(|place| TicketWalkthrough {
            id: place.walkthrough_id.map(|id| id.to_string()),
            title: place.title,
            version: place.version,
            step: place.step.map(|step| TicketStep { id: step.id, title: step.title, position: step.position }),
        });
        Self {
            id: it.id.to_string(),
            number: it.number,
            title: it.title,
            problem: it.problem,
            context: it.context,
            status: it.status,
            priority: it.priority,
            assignee_id: it.assignee_id.map(|id| id.to_string()),
            email: it.email,
            email_verified: it.email_verified,
            server_id: it.server_id.map(|id| id.to_string()),
            end_user_id: it.end_user_id.map(|id| id.to_string()),
            walkthrough,
            revision: it.revision,
            created_at: it.created_at.rfc3339(),
            updated_at: it.updated_at.rfc3339(),
            resolved_at: it.resolved_at.map(Timestamp::rfc3339),
        }
    }
}

/// Which tickets to list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct TicketQuery {
    /// In this status.
    #[param(schema_with = schema::ticket_status)]
    status: Option<TicketStatus>,
    /// With this priority.
    #[param(schema_with = schema::priority)]
    priority: Option<Priority>,
    /// Those of a member (`usr_…`), your own (`me`), or those that nobody has (`none`).
    assignee: Option<String>,
    /// Opened on this server (`srv_…`).
    server_id: Option<String>,
    /// Opened in this walkthrough (`wt_…`).
    walkthrough_id: Option<String>,
    /// With these words in number, title, problem or address.
    #[param(max_length = 200)]
    q: Option<String>,
    /// Items at most.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

impl TicketQuery {
    fn read(self, cx: &Ctx) -> Result<TicketListQuery> {
        let filter = Filter {
            status: self.status,
            priority: self.priority,
            assignee: self.assignee.as_deref().map(|text| assignee(cx, text)).transpose()?,
            server: self.server_id.as_deref().map(|text| named::<ServerId>("server_id", text)).transpose()?,
            walkthrough: self
                .walkthrough_id
                .as_deref()
                .map(|text| named::<WalkthroughId>("walkthrough_id", text))
                .transpose()?,
            text: self.q.as_deref().and_then(search_text),
        };
        Ok(TicketListQuery { filter, limit: self.limit, cursor: self.cursor })
    }
}

/// Whose tickets are meant; `none` is nobody's.
///
/// # Errors
/// `invalid_arguments` for anything that is none of it.
pub(crate) fn assignee(cx: &Ctx, text: &str) -> Result<Option<UserId>> {
    match text {
        "none" => Ok(None),
        "me" => named("assignee", cx.caller.actor()).map(Some),
        text => named("assignee", text).map(Some),
    }
}

fn named<T: std::str::FromStr>(field: &str, text: &str) -> Result<T> {
    text.parse().map_err(|_| Error::invalid(field, format!("`{field}` is no id of that kind.")))
}

/// What to change of a ticket; what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TicketChange {
    /// A closed ticket can be opened again as `pending` or `in_progress`; `needs_email` is only for those without address.
    #[schema(schema_with = schema::ticket_status)]
    status: Option<TicketStatus>,
    #[schema(schema_with = schema::priority)]
    priority: Option<Priority>,
    /// A member, by id or e-mail address; null: nobody.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(max_length = 254)]
    assignee_id: Option<Option<String>>,
    /// Where to answer to. It ends the wait for one.
    #[schema(min_length = 3, max_length = 254, example = "anna@example.com")]
    email: Option<String>,
}

impl From<TicketChange> for TicketPatch {
    fn from(change: TicketChange) -> Self {
        let TicketChange { status, priority, assignee_id, email } = change;
        Self { status, priority, assignee: assignee_id, email }
    }
}

/// What to change of many tickets.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct BulkTickets {
    /// The tickets, 100 at most.
    #[schema(min_items = 1, max_items = 100)]
    ids: Vec<String>,
    #[schema(schema_with = schema::ticket_status)]
    status: Option<TicketStatus>,
    #[schema(schema_with = schema::priority)]
    priority: Option<Priority>,
    /// A member, by id or e-mail address; null: nobody.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(max_length = 254)]
    assignee_id: Option<Option<String>>,
}

/// What became of a bulk change.
#[derive(Debug, Serialize, ToSchema)]
struct BulkTicketResults {
    /// One for each id, in their order.
    results: Vec<BulkTicketResult>,
}

/// What became of one ticket.
#[derive(Debug, Serialize, ToSchema)]
struct BulkTicketResult {
    id: String,
    /// The ticket as it is now; null when it did not change.
    ticket: Option<Ticket>,
    /// Why it did not change; null when it did.
    error: Option<BulkTicketError>,
}

/// Why a ticket did not change.
#[derive(Debug, Serialize, ToSchema)]
struct BulkTicketError {
    /// As the `code` of a problem.
    #[schema(value_type = String)]
    code: &'static str,
    detail: String,
}

/// The support tickets of the organisation, newest first.
#[utoipa::path(get, path = "/tickets", tag = "tickets", operation_id = "list_tickets", params(TicketQuery),
    responses((status = 200, body = Page<Ticket>), Problems))]
async fn list(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Query(query): Query<TicketQuery>,
) -> ApiResult<Json<Page<Ticket>>> {
    let page = tickets::list(&cx, web.ops(), &organization_id, query.read(&cx)?).await?;
    let items = page.items.into_iter().map(Ticket::from).collect();
    Ok(Json(Page { items, next_cursor: page.next_cursor }))
}

/// A support ticket.
#[utoipa::path(get, path = "/tickets/{id}", tag = "tickets", operation_id = "get_ticket",
    params(("id" = String, Path, description = "`tkt_…`")), responses((status = 200, body = Ticket), Problems))]
async fn get(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<Response> {
    let found = tickets::get(&cx, web.ops(), &organization_id, &id(&text, "ticket")?).await?;
    Ok(tagged(found.ticket.revision, Json(Ticket::from(found))))
}

/// Changes a ticket. The user is told by mail when it is resolved, and the assignee when it becomes theirs. With
/// `If-Match`, only when nobody changed it meanwhile.
#[utoipa::path(patch, path = "/tickets/{id}", tag = "tickets", operation_id = "update_ticket",
    params(("id" = String, Path, description = "`tkt_…`"),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the ticket as it was read")),
    request_body = TicketChange, responses((status = 200, body = Ticket), Problems))]
async fn update(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
    IfMatch(revision): IfMatch,
    Json(change): Json<TicketChange>,
) -> ApiResult<Response> {
    let ticket: TicketId = id(&text, "ticket")?;
    let changed = tickets::update(&cx, web.ops(), &organization_id, (&ticket, revision), &change.into()).await?;
    Ok(tagged(changed.ticket.revision, Json(Ticket::from(changed))))
}

/// Changes many tickets in the same way, each by itself: what is wrong with one stands in its result.
#[utoipa::path(post, path = "/tickets/bulk", tag = "tickets", operation_id = "update_tickets",
    request_body = BulkTickets, responses((status = 200, body = BulkTicketResults), Problems))]
async fn bulk(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Json(bulk): Json<BulkTickets>,
) -> ApiResult<Json<BulkTicketResults>> {
    let BulkTickets { ids, status, priority, assignee_id } = bulk;
    let change = TicketPatch { status, priority, assignee: assignee_id, email: None };
    let results = tickets::update_many(&cx, web.ops(), &organization_id, &ids, &change).await?;
    let result = |it: tickets::BulkResult| match it.result {
        Ok(named) => BulkTicketResult { id: it.id, ticket: Some(named.into()), error: None },
        Err(error) => {
            crate::problem::log(&error);
            let error = BulkTicketError { code: error.code.as_str(), detail: error.message };
            BulkTicketResult { id: it.id, ticket: None, error: Some(error) }
        }
    };
    Ok(Json(BulkTicketResults { results: results.into_iter().map(result).collect() }))
}
