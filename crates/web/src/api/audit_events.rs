//! `/audit-events`.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use waypost_core::id::AuditEventId;
use waypost_core::{Error, Result, Timestamp};
use waypost_ops::audit_events::{self, AuditEventView, Filter};

use super::extract::{Json, Query, Scope};
use super::page::{Page, Paging};
use crate::Web;
use crate::audit_export::{self, AuditExportFormat};
use crate::problem::{ApiResult, Problems};

/// The operations on the audit log.
pub(super) fn routes() -> OpenApiRouter<Web> {
    OpenApiRouter::new().routes(routes!(list))
}

/// What was done, and by whom.
#[derive(Debug, Serialize, ToSchema)]
struct AuditEvent {
    #[schema(example = "aud_0123456789abcdef01234567")]
    id: String,
    /// RFC 3339.
    #[schema(format = DateTime)]
    created_at: String,
    /// The id of the user or the key, or `operator` for the command line.
    actor: String,
    /// The user's address or the key's name; null when they are gone.
    actor_name: Option<String>,
    /// Such as `server.update`.
    act: String,
    /// The id of what it was done to.
    target: String,
    /// What changed.
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

#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum FileFormat {
    Csv,
    Json,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Params {
    /// What acts begin with, such as `member.` or `server.update`.
    #[param(max_length = 254)]
    act: Option<String>,
    /// Who did it: an id, the address of a member, the name of a key, or `operator`.
    #[param(max_length = 254)]
    actor: Option<String>,
    /// The id of what it was done to.
    #[param(max_length = 254)]
    target: Option<String>,
    /// Not before this time, RFC 3339.
    #[param(format = DateTime)]
    from: Option<String>,
    /// Before this time, RFC 3339.
    #[param(format = DateTime)]
    to: Option<String>,
    /// Entries at most.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Gives all entries, at most 100,000, as a file: `csv` or `json`. The log tells of it.
    #[param(inline)]
    format: Option<FileFormat>,
}

/// The audit log, newest first: who did what, when. Needs the role `admin`.
#[utoipa::path(get, path = "/audit-events", tag = "audit-events", operation_id = "list_audit_events", params(Params),
    responses((status = 200, description = "A page of entries, or with `format` all of them as a file",
        content((Page<AuditEvent> = "application/json"), (String = "text/csv"))), Problems))]
async fn list(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Query(params): Query<Params>,
) -> ApiResult<Response> {
    let filter = Filter {
        act: params.act,
        actor: params.actor,
        target: params.target,
        from: params.from.as_deref().map(|text| time("from", text)).transpose()?,
        to: params.to.as_deref().map(|text| time("to", text)).transpose()?,
    };
    if let Some(format) = params.format {
        if params.limit.is_some() || params.cursor.is_some() {
            let message = "A file holds all entries: leave `limit` and `cursor` out, or `format`.";
            return Err(Error::invalid("format", message).into());
        }
        let format = match format {
            FileFormat::Csv => AuditExportFormat::Csv,
            FileFormat::Json => AuditExportFormat::Json,
        };
        return Ok(file(format, audit_export::render(&web, &cx, &organization_id, &filter, format).await?));
    }
    let paging = Paging { limit: params.limit, cursor: params.cursor };
    let (limit, before) = (paging.limit()?, paging.after::<AuditEventId>()?);
    let page = (before.as_ref(), limit + 1);
    let found = audit_events::list(&cx, web.ops(), &organization_id, &filter, page).await?;
    let items = found.into_iter().map(AuditEvent::from).collect();
    Ok(Json(Page::cut(items, limit, |it| it.id.clone())).into_response())
}

fn file(format: AuditExportFormat, content: Vec<u8>) -> Response {
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

fn time(field: &str, text: &str) -> Result<Timestamp> {
    Timestamp::from_rfc3339(text).ok_or_else(|| {
        Error::invalid(field, format!("`{field}` is a time by RFC 3339, such as `2026-01-31T00:00:00Z`."))
    })
}
