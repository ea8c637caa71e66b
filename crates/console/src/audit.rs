//! The audit log.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use serde::Deserialize;
use serde_json::{Map, Value};
use url::form_urlencoded::Serializer;
use waypost_core::Error;
use waypost_core::access::Operation;
use waypost_core::analytics::DAY_MS;
use waypost_core::id::AuditEventId;
use waypost_ops::audit_events::{self, AuditEventView, AuditFilter};
use waypost_ops::{api_keys, users};

use crate::Console;
use crate::form::parse_day;
use crate::layout::{CurrentOrganization, Layout};
use crate::routes::{Access, Routes};
use crate::session::Member;
use crate::view::{self, FormError, PageError, PageResult};
use waypost_ops::audit_export::{self, AuditExportFormat};

/// The number of entries per page.
const ENTRIES: u32 = 50;
/// The action prefixes offered in the filter.
const ACTION_PREFIXES: &[&str] = &[
    "account.",
    "agent_secret.",
    "assignment.",
    "audit.",
    "call.",
    "catalog.",
    "claim_link.",
    "client.",
    "end_user.",
    "grant.",
    "instance.",
    "invitation.",
    "join.",
    "key.",
    "member.",
    "oauth_config.",
    "organization.",
    "server.",
    "ticket.",
    "ticket_comment.",
    "token.",
    "tool_override.",
    "tool_secret.",
    "toolbox.",
    "walkthrough.",
    "webhook.",
];

/// Returns the routes of these pages.
pub(super) fn routes() -> Routes {
    const READ: Access = Access::Member(Operation::AuditRead);
    Routes::new().get("/o/{org}/audit", READ, list).get("/o/{org}/audit/export", READ, export)
}

/// The filter, as query parameters.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct AuditQuery {
    act: String,
    actor: String,
    target: String,
    from: String,
    to: String,
    before: String,
    format: String,
}

impl AuditQuery {
    fn filter(&self) -> Result<AuditFilter, Error> {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        // The last day is included.
        let to = parse_day("to", &self.to)?.map(|time| time.plus(DAY_MS));
        Ok(AuditFilter {
            action: text(&self.act),
            actor: text(&self.actor),
            target: text(&self.target),
            from: parse_day("from", &self.from)?,
            to,
        })
    }

    /// Returns the filter as a query string with one additional pair.
    fn query(&self, name: &str, value: &str) -> String {
        let fields = [
            ("act", self.act.as_str()),
            ("actor", &self.actor),
            ("target", &self.target),
            ("from", &self.from),
            ("to", &self.to),
            (name, value),
        ];
        Serializer::new(String::new()).extend_pairs(fields.into_iter().filter(|(_, value)| !value.is_empty())).finish()
    }

    fn is_empty(&self) -> bool {
        [&self.act, &self.actor, &self.target, &self.from, &self.to].into_iter().all(String::is_empty)
    }
}

/// An entry, formatted for the page.
pub(super) struct AuditRow {
    pub(super) at: String,
    pub(super) actor: String,
    /// The name of the actor. `None` if the actor no longer exists.
    pub(super) actor_name: Option<String>,
    pub(super) action: String,
    pub(super) target: String,
    pub(super) detail: Vec<(String, String)>,
}

impl From<AuditEventView> for AuditRow {
    fn from(AuditEventView { event, actor_name }: AuditEventView) -> Self {
        let known = match event.actor.as_str() {
            "operator" => Some("Operator (command line)".to_owned()),
            _ => actor_name,
        };
        Self {
            at: event.created_at.rfc3339(),
            actor: event.actor,
            actor_name: known,
            action: event.act,
            target: event.target,
            detail: detail(&event.detail),
        }
    }
}

/// Formats the members of the details as pairs of name and value.
fn detail(detail: &Map<String, Value>) -> Vec<(String, String)> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => "none".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        other => other.to_string(),
    };
    detail.iter().map(|(name, value)| (name.replace('_', " "), text(value))).collect()
}

#[derive(Template)]
#[template(path = "audit/list.html")]
struct AuditPage {
    layout: Layout,
    org: CurrentOrganization,
    form_error: FormError,
    fields: AuditQuery,
    entries: Vec<AuditRow>,
    action_prefixes: &'static [&'static str],
    /// The members and API keys offered in the filter.
    actors: Vec<String>,
    older: Option<String>,
    /// The URL of the export without the format.
    export: String,
}

async fn list(State(console): State<Console>, member: Member, Query(fields): Query<AuditQuery>) -> PageResult {
    let Member { cx, organization_id, org, layout } = &member;
    let page_error = |error| PageError::from(error).with_layout(layout.clone());
    let before: Option<AuditEventId> = fields.before.parse().ok();
    let events = match fields.filter() {
        Ok(filter) => {
            audit_events::list(cx, console.ops(), organization_id, &filter, before.as_ref(), ENTRIES + 1).await
        }
        Err(error) => Err(error),
    };
    let (status, form_error, mut events) = match events {
        Ok(events) => (http::StatusCode::OK, FormError::default(), events),
        Err(error) => {
            let (status, form_error) = FormError::from_error(error).map_err(page_error)?;
            (status, form_error, Vec::new())
        }
    };
    let more = events.len() > ENTRIES as usize;
    events.truncate(ENTRIES as usize);
    let older = events.last().filter(|_| more).map(|entry| fields.query("before", entry.event.id.as_str()));
    let members = users::list(cx, console.ops(), organization_id).await.map_err(page_error)?;
    let keys = api_keys::list(cx, console.ops(), organization_id).await.map_err(page_error)?;
    let actors = members.into_iter().map(|member| member.email).chain(keys.into_iter().map(|key| key.name));
    let page = AuditPage {
        layout: layout.clone().with_section("audit"),
        org: org.clone(),
        form_error,
        entries: events.into_iter().map(AuditRow::from).collect(),
        action_prefixes: ACTION_PREFIXES,
        actors: actors.chain(["operator".to_owned()]).collect(),
        older: older.map(|query| format!("{}?{query}", org.path("audit"))),
        export: format!("{}?{}", org.path("audit/export"), fields.query("format", "")),
        fields,
    };
    Ok(view::html(status, &page))
}

async fn export(State(console): State<Console>, member: Member, Query(fields): Query<AuditQuery>) -> PageResult {
    let Member { cx, organization_id, layout, .. } = &member;
    let format = if fields.format == "json" { AuditExportFormat::Json } else { AuditExportFormat::Csv };
    let file = match fields.filter() {
        Ok(filter) => audit_export::render(cx, console.ops(), organization_id, &filter, format).await,
        Err(error) => Err(error),
    };
    let file = file.map_err(|error| PageError::from(error).with_layout(layout.clone().with_section("audit")))?;
    Ok(download(format, file))
}

fn download(format: AuditExportFormat, file: Vec<u8>) -> Response {
    let mut response = file.into_response();
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
