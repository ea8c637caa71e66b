//! `/audit-events`.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use waypost_core::Error;
use waypost_core::id::AuditEventId;
use waypost_ops::audit_events::{self, AuditEventView, AuditFilter};

use crate::Web;
use crate::extract::{Json, Query, Scope, parse_time};
use crate::page::{Page, Paging};
use crate::problem::{ApiResult, Problems};
use crate::routes::{Routes, routes};
use waypost_ops::audit_export::{self, AuditExportFormat};

/// The operations on the audit log.
pub(super) fn routes() -> Routes {
    Routes::new().routes(routes!(list))
}

/// An entry of the audit log.
#[derive(Debug, Serialize, ToSchema)]
struct AuditEvent {
    #[schema(example = "aud_0123456789abcdef01234567")]
    id: String,
    #[schema(format = DateTime)]
    created_at: String,
    /// The ID of the user or API key, or `operator` for the command line.
    actor: String,
    /// The user's email or the API key's name. Null for `operator`, or if the user or API key no longer exists.
    actor_name: Option<String>,
    /// The action, such as `server.update`.
    act: String,
    /// The ID of the affected resource.
    target: String,
    /// Details of the change.
    #[schema(value_type = Object, additional_properties)]
    detail: Map<String, Value>,
}

impl From<AuditEventView> for AuditEvent {
    fn from(AuditEventView { event, actor_name }: AuditEventView) -> Self {
        Self {
            id: event.id.to_string(),
            created_at: event.created_at.rfc3339(),
            actor: event.actor,
            actor_name,
            act: event.act,
            target: event.target,
            detail: event.detail,
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct AuditEventQuery {
    /// Only actions that start with this text, such as `member.` or `server.update`.
    #[param(max_length = 254)]
    act: Option<String>,
    /// Only actions by this actor: an ID, the email of a member, the name of an API key, or `operator`.
    #[param(max_length = 254)]
    actor: Option<String>,
    /// Only actions on the resource with this ID.
    #[param(max_length = 254)]
    target: Option<String>,
    /// Only entries at or after this time.
    #[param(format = DateTime)]
    from: Option<String>,
    /// Only entries before this time.
    #[param(format = DateTime)]
    to: Option<String>,
    /// The maximum number of items to return.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// The `next_cursor` of the previous page.
    cursor: Option<String>,
    /// Returns all matching entries, at most 100,000, as a `csv` or `json` file. The export is recorded in the audit
    /// log.
    #[param(inline)]
    format: Option<AuditExportFormat>,
}

/// Lists the entries of the audit log, newest first.
///
/// Requires the role `admin`.
#[utoipa::path(get, path = "/audit-events", tag = "audit-events", operation_id = "list_audit_events",
    params(AuditEventQuery),
    responses((status = 200, description = "A page of entries, or all entries as a file if `format` is given",
        content((Page<AuditEvent> = "application/json"), (String = "text/csv"))), Problems))]
async fn list(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Query(params): Query<AuditEventQuery>,
) -> ApiResult<Response> {
    let filter = AuditFilter {
        action: params.act,
        actor: params.actor,
        target: params.target,
        from: params.from.as_deref().map(|text| parse_time("from", text)).transpose()?,
        to: params.to.as_deref().map(|text| parse_time("to", text)).transpose()?,
    };
    if let Some(format) = params.format {
        if params.limit.is_some() || params.cursor.is_some() {
            let message =
                "`format` exports all entries. Remove `limit` and `cursor`, or remove `format` to get a page.";
            return Err(Error::invalid("format", message).into());
        }
        let content = audit_export::render(&cx, web.ops(), &organization_id, &filter, format).await?;
        return Ok(file_response(format, content));
    }
    let paging = Paging { limit: params.limit, cursor: params.cursor };
    let (limit, before) = (paging.limit()?, paging.parse_cursor::<AuditEventId>()?);
    let events = audit_events::list(&cx, web.ops(), &organization_id, &filter, before.as_ref(), limit + 1).await?;
    let items = events.into_iter().map(AuditEvent::from).collect();
    Ok(Json(Page::paginate(items, limit, |event| event.id.clone())).into_response())
}

fn file_response(format: AuditExportFormat, content: Vec<u8>) -> Response {
    let mut response = content.into_response();
    for (name, value) in [
        (header::CONTENT_TYPE, format.media_type()),
        (header::CONTENT_DISPOSITION, format.disposition()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
