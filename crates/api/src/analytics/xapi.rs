//! `/analytics/xapi`: progress events as statements of the Experience API (xAPI) 1.0.3.
//! <https://github.com/adlnet/xAPI-Spec/blob/master/xAPI-Data.md>

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, header};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use utoipa::{IntoParams, ToSchema};
use waypost_core::Error;
use waypost_core::event::EventKind;
use waypost_ops::activity::{self, WalkthroughEvent};

use waypost_ops::activity::cursor;

use super::super::extract::{Query, Scope};
use crate::Web;
use crate::activity::ActivityQuery;
use crate::problem::{ApiResult, Problems};
use crate::routes::{Routes, routes};

/// The header that contains the cursor of the next page. The body contains only statements.
const NEXT_CURSOR: HeaderName = HeaderName::from_static("x-next-cursor");

/// The operation on xAPI statements.
pub(super) fn routes() -> Routes {
    Routes::new().routes(routes!(xapi))
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum StatementFormat {
    #[default]
    Json,
    Ndjson,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct StatementQuery {
    /// Only events at or after this time.
    #[param(format = DateTime)]
    from: Option<String>,
    /// Only events before this time.
    #[param(format = DateTime)]
    to: Option<String>,
    /// Only events on this server (`srv_…`).
    server_id: Option<String>,
    /// Only events of this walkthrough (`wt_…`).
    walkthrough_id: Option<String>,
    /// Only events of this end user (`eu_…`).
    end_user_id: Option<String>,
    /// The maximum number of events to read. Events that have no xAPI statement are omitted.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// The `X-Next-Cursor` header of the previous page.
    cursor: Option<String>,
    /// `json` (the default) returns an array, `ndjson` one statement per line.
    #[param(inline)]
    format: Option<StatementFormat>,
}

/// Exports progress events as xAPI 1.0.3 statements, oldest first.
///
/// The verbs are `initialized` (an attempt started), `progressed` (a step was completed) and `completed` (the attempt
/// was completed). Statement IDs are stable, so statements can be sent more than once. Pass the `X-Next-Cursor` header
/// as `cursor` to get the next page; on the last page the header is absent.
#[utoipa::path(get, path = "/analytics/xapi", tag = "analytics", operation_id = "export_xapi", params(StatementQuery),
    responses((status = 200, description = "Statements", content((Vec<Value> = "application/json"),
        (String = "application/x-ndjson"))), Problems))]
async fn xapi(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Query(params): Query<StatementQuery>,
) -> ApiResult<Response> {
    let listing = ActivityQuery {
        from: params.from,
        to: params.to,
        server_id: params.server_id,
        walkthrough_id: params.walkthrough_id,
        end_user_id: params.end_user_id,
        limit: params.limit,
        cursor: params.cursor,
    };
    let limit = listing.limit()?;
    let filter = listing.filter(true)?;
    let mut events = activity::list_events(&cx, web.ops(), &organization_id, &filter).await?;
    let more = events.len() > limit as usize;
    events.truncate(limit as usize);
    let next = events.last().filter(|_| more).map(|last| cursor(last.created_at, last.id.as_str()));
    let home = &web.public_url.origin();
    let statements: Vec<Value> = events.iter().filter_map(|event| statement(home, event)).collect();
    let mut response = match params.format.unwrap_or_default() {
        StatementFormat::Json => axum::Json(statements).into_response(),
        StatementFormat::Ndjson => {
            let lines: String = statements.iter().map(|statement| format!("{statement}\n")).collect();
            ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from(lines)).into_response()
        }
    };
    if let Some(next) = next {
        let value = HeaderValue::from_str(&next).map_err(Error::internal)?;
        response.headers_mut().insert(NEXT_CURSOR, value);
    }
    Ok(response)
}

fn statement(home: &str, event: &WalkthroughEvent) -> Option<Value> {
    let verb = match event.kind {
        EventKind::Started | EventKind::Restarted => "initialized",
        EventKind::StepCompleted => "progressed",
        EventKind::Completed => "completed",
        _ => return None,
    };
    let walkthrough = format!("{home}/xapi/walkthroughs/{}", event.walkthrough_id);
    let object = match &event.step_id {
        Some(step) => format!("{walkthrough}/steps/{step}"),
        None => walkthrough.clone(),
    };
    let kind = if event.step_id.is_some() { "lesson" } else { "course" };
    let mut context = json!({
        "registration": uuid(event.progress_id.as_str()),
        "platform": event.client_name,
        "contextActivities": { "grouping": [{ "objectType": "Activity", "id": format!("{home}/xapi/servers/{}", event.server_id) }] },
        "extensions": { format!("{home}/xapi/extensions/version-id"): event.version_id.as_str() },
    });
    if let Some(context) = context.as_object_mut() {
        // Statements must not contain null (section 2.2).
        context.retain(|_, value| !value.is_null());
        if event.step_id.is_some()
            && let Some(activities) = context.get_mut("contextActivities").and_then(Value::as_object_mut)
        {
            activities.insert("parent".to_owned(), json!([{ "objectType": "Activity", "id": walkthrough }]));
        }
    }
    let mut statement = json!({
        "id": uuid(event.id.as_str()),
        "version": "1.0.3",
        "timestamp": event.created_at.rfc3339(),
        "actor": {
            "objectType": "Agent",
            "account": { "homePage": home, "name": event.end_user_id.as_str() },
        },
        "verb": { "id": format!("http://adlnet.gov/expapi/verbs/{verb}"), "display": { "en-US": verb } },
        "object": {
            "objectType": "Activity",
            "id": object,
            "definition": { "type": format!("http://adlnet.gov/expapi/activities/{kind}") },
        },
        "context": context,
    });
    if event.kind == EventKind::Completed {
        statement["result"] = json!({ "completion": true });
    }
    Some(statement)
}

/// Derives a stable UUID from an ID. It is marked as version 4 (RFC 9562, section 5.4), because receivers accept only
/// the versions of RFC 4122.
fn uuid(id: &str) -> String {
    let mut bytes = [0_u8; 16];
    bytes.copy_from_slice(&Sha256::digest(id.as_bytes())[..16]);
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex = data_encoding::HEXLOWER.encode(&bytes);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_stable_uuids() {
        let id = uuid("ev_1");
        assert_eq!(id, uuid("ev_1"));
        assert_ne!(id, uuid("ev_2"));
        assert!(id.len() == 36 && id.as_bytes()[14] == b'4' && matches!(id.as_bytes()[19], b'8' | b'9' | b'a' | b'b'));
    }
}
