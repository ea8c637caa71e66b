//! Progress that signed-in end users have claimed: the list, claim links and undoing a claim.

use askama::Template;
use axum::extract::{Path, Query, State};
use http::StatusCode;
use serde::Deserialize;
use waypost_core::access::Operation;
use waypost_core::claim_link::DEFAULT_LIFETIME_MS;
use waypost_core::id::{JoinId, ServerId};
use waypost_core::join::JoinKind;
use waypost_core::{Error, Result, Timestamp};
use waypost_ops::joins::{self, JoinSummary};
use waypost_ops::{claim_links, servers};

use crate::Console;
use crate::form::Form;
use crate::layout::{CurrentOrganization, Layout};
use crate::routes::{Access, Routes};
use crate::session::Member;
use crate::view::{self, FormError, PageError, PageResult};
use waypost_http_kit::request_info::RequestInfo;

/// The number of rows per page.
const ROWS: u32 = 50;

const HOUR_MS: i64 = 3_600_000;

/// Returns the routes of these pages.
pub(super) fn routes() -> Routes {
    Routes::new()
        .get("/o/{org}/joins", Access::Member(Operation::JoinRead), list)
        .post("/o/{org}/joins", Access::Member(Operation::ClaimLinkCreate), create)
        .post("/o/{org}/joins/{id}/undo", Access::Member(Operation::JoinUndo), undo)
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PageQuery {
    before: String,
}

/// The form for a new claim link.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ClaimLinkForm {
    server: String,
    tracking_id: String,
    expires_in_hours: String,
}

struct ClaimRow {
    id: JoinId,
    from: String,
    from_href: String,
    to: String,
    to_href: String,
    server: String,
    at: String,
    undone_at: Option<String>,
}

impl ClaimRow {
    fn new(summary: JoinSummary, org: &CurrentOrganization, servers: &[(String, String)]) -> Self {
        let JoinSummary { join, tracking_id, name, email } = summary;
        let href = |id: &str| org.path(&format!("end-users/{id}"));
        let from = match (join.kind, tracking_id) {
            (JoinKind::Tracking, Some(tracking_id)) => tracking_id,
            (JoinKind::Session, _) => "Session of the same client".to_owned(),
            _ => "Handle from the same client".to_owned(),
        };
        let server = servers.iter().find(|(id, _)| id == join.server_id.as_str());
        Self {
            from,
            from_href: href(join.from_end_user_id.as_str()),
            to: name.or(email).unwrap_or_else(|| join.to_end_user_id.to_string()),
            to_href: href(join.to_end_user_id.as_str()),
            server: server.map_or_else(|| join.server_id.to_string(), |(_, name)| name.clone()),
            at: join.created_at.rfc3339(),
            undone_at: join.undone_at.map(Timestamp::rfc3339),
            id: join.id,
        }
    }
}

/// A newly created claim link.
struct CreatedClaimLink {
    url: String,
    tracking_id: String,
    expires_at: String,
}

#[derive(Template)]
#[template(path = "joins/list.html")]
struct JoinsPage {
    layout: Layout,
    org: CurrentOrganization,
    form_error: FormError,
    rows: Vec<ClaimRow>,
    next: Option<String>,
    servers: Vec<(String, String)>,
    fields: ClaimLinkForm,
    created: Option<CreatedClaimLink>,
}

impl JoinsPage {
    async fn load(console: &Console, member: &Member, before: Option<&JoinId>) -> Result<Self, PageError> {
        let Member { cx, organization_id, org, layout } = member;
        let layout = layout.clone().with_section("end-users");
        let page_error = |error| PageError::from(error).with_layout(layout.clone());
        let mut joins =
            joins::list_page(cx, console.ops(), organization_id, before, ROWS + 1).await.map_err(page_error)?;
        let more = joins.len() > ROWS as usize;
        joins.truncate(ROWS as usize);
        let next = joins.last().filter(|_| more).map(|last| format!("{}?before={}", org.path("joins"), last.join.id));
        let servers = servers::list(cx, console.ops(), organization_id).await.map_err(page_error)?;
        let servers: Vec<_> = servers.into_iter().map(|server| (server.id.to_string(), server.name)).collect();
        let rows = joins.into_iter().map(|summary| ClaimRow::new(summary, org, &servers)).collect();
        let fields =
            ClaimLinkForm { expires_in_hours: (DEFAULT_LIFETIME_MS / HOUR_MS).to_string(), ..ClaimLinkForm::default() };
        let (org, form_error) = (org.clone(), FormError::default());
        Ok(Self { layout, org, form_error, rows, next, servers, fields, created: None })
    }
}

async fn list(State(console): State<Console>, member: Member, Query(paging): Query<PageQuery>) -> PageResult {
    let before = (!paging.before.is_empty()).then(|| paging.before.parse::<JoinId>()).transpose();
    let before = before.map_err(|_| PageError::from(Error::not_found("page")).with_layout(member.layout.clone()))?;
    Ok(view::page(&JoinsPage::load(&console, &member, before.as_ref()).await?))
}

async fn create(
    State(console): State<Console>,
    member: Member,
    info: RequestInfo,
    Form(fields): Form<ClaimLinkForm>,
) -> PageResult {
    let page = JoinsPage::load(&console, &member, None).await?;
    match create_link(&console, &member, &info, &fields).await {
        // Rendered without a redirect because the link is only available in this response.
        Ok(created) => Ok(view::html(StatusCode::OK, &JoinsPage { created: Some(created), ..page })),
        Err(error) => {
            let (status, form_error) = FormError::from_error(error)
                .map_err(|error| PageError::from(error).with_layout(page.layout.clone()))?;
            Ok(view::html(status, &JoinsPage { form_error, fields, ..page }))
        }
    }
}

async fn create_link(
    console: &Console,
    member: &Member,
    info: &RequestInfo,
    fields: &ClaimLinkForm,
) -> Result<CreatedClaimLink> {
    let unknown = |_| Error::invalid("server", "Select one of your servers.");
    let server: ServerId = fields.server.parse().map_err(unknown)?;
    // A malformed number becomes 0, which is rejected as a lifetime.
    let hours: u32 = fields.expires_in_hours.trim().parse().unwrap_or_default();
    let (label, lifetime_ms) = (fields.tracking_id.trim(), i64::from(hours) * HOUR_MS);
    let (ops, key, organization) = (console.ops(), console.hosting.secret(), &member.organization_id);
    let (server, link) = claim_links::create(&member.cx, ops, key, organization, &server, label, lifetime_ms).await?;
    let address = console.public_url.path_urls(&info.authority, &server.slug);
    Ok(CreatedClaimLink {
        url: address.resource(Some(&link.segment())),
        expires_at: link.expires_at.rfc3339(),
        tracking_id: link.label,
    })
}

async fn undo(State(console): State<Console>, member: Member, Path((_, id)): Path<(String, String)>) -> PageResult {
    let Member { cx, organization_id, org, layout } = &member;
    let undone = match id.parse::<JoinId>() {
        Ok(id) => joins::undo(cx, console.ops(), organization_id, &id).await,
        Err(_) => Err(Error::not_found("join")),
    };
    undone.map_err(|error| PageError::from(error).with_layout(layout.clone().with_section("end-users")))?;
    let message = "Claim undone. Earlier claim links for the tracking ID, if any, no longer work.";
    Ok(view::redirect_with_flash(&org.path("joins"), message))
}
