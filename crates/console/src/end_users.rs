//! End users: the list, and the progress and activity of one end user.

use askama::Template;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use url::form_urlencoded::Serializer;
use waypost_core::access::Operation;
use waypost_core::event::EventKind;
use waypost_core::id::EndUserId;
use waypost_core::organization::Role;
use waypost_core::personal;
use waypost_core::progress::Status;
use waypost_core::{Error, Result};
use waypost_ops::end_users::{
    self, EndUser, EndUserAttempt, EndUserDataCounts, EndUserSearch, TimelineEntry, TimelineKinds,
};
use waypost_ops::servers;
use waypost_ops::walkthroughs::{self, WalkthroughListQuery};

use crate::Console;
use crate::form::Form;
use crate::layout::{CurrentOrganization, Layout};
use crate::routes::{Access, Routes};
use crate::session::Member;
use crate::view::{self, FormError, PageError, PageResult};
use waypost_http_kit::download;
use waypost_ops::activity::{cursor, parse_cursor};

/// The number of rows per page.
const ROWS: u32 = 50;

/// Returns the routes of these pages.
pub(super) fn routes() -> Routes {
    const READ: Access = Access::Member(Operation::EndUserRead);
    Routes::new()
        .get("/o/{org}/end-users", READ, list)
        .get("/o/{org}/end-users/{id}", READ, show)
        .get("/o/{org}/end-users/{id}/export", Access::Member(Operation::EndUserExport), export)
        .post("/o/{org}/end-users/{id}/erase", Access::Member(Operation::EndUserDelete), erase)
}

/// The filter of the list, as query parameters.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct EndUserQuery {
    q: String,
    server: String,
    walkthrough: String,
    status: String,
    /// `1` includes test users.
    test: String,
    after: String,
}

impl EndUserQuery {
    fn search(&self) -> Result<EndUserSearch> {
        let id = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Ok(EndUserSearch {
            text: id(&self.q),
            server_id: id(&self.server).map(|id| id.parse().map_err(|_| Error::not_found("server"))).transpose()?,
            walkthrough_id: id(&self.walkthrough)
                .map(|id| id.parse().map_err(|_| Error::not_found("walkthrough")))
                .transpose()?,
            status: match self.status.as_str() {
                "in_progress" => Some(Status::InProgress),
                "completed" => Some(Status::Completed),
                _ => None,
            },
            include_test: self.test == "1",
            after: id(&self.after).map(|id| id.parse().map_err(|_| Error::not_found("page"))).transpose()?,
            limit: ROWS + 1,
        })
    }

    fn query(&self, after: &str) -> String {
        let fields = [
            ("q", self.q.as_str()),
            ("server", &self.server),
            ("walkthrough", &self.walkthrough),
            ("status", &self.status),
            ("test", &self.test),
            ("after", after),
        ];
        Serializer::new(String::new()).extend_pairs(fields.into_iter().filter(|(_, value)| !value.is_empty())).finish()
    }

    fn is_empty(&self) -> bool {
        [&self.q, &self.server, &self.walkthrough, &self.status, &self.test].into_iter().all(String::is_empty)
    }
}

/// Returns the display name of an end user: the first of name, verified email, claimed email and tracking ID that is
/// set, or `Anonymous`.
fn display_name(end_user: &EndUser) -> String {
    if let Some(known) = end_user.name.as_ref().or(end_user.email.as_ref()).or(end_user.claimed_email.as_ref()) {
        return known.clone();
    }
    let Some(tracking_id) = &end_user.tracking_id else { return "Anonymous".to_owned() };
    match tracking_id.strip_prefix(personal::STORED_PREFIX) {
        // The first characters of the hash are enough to distinguish users.
        Some(hash) => format!("Personal URL {}", hash.chars().take(6).collect::<String>()),
        None => tracking_id.clone(),
    }
}

/// A row of a table of end users.
pub(crate) struct EndUserRow {
    pub(crate) id: EndUserId,
    pub(crate) name: String,
    pub(crate) email: String,
    pub(crate) tracking_id: String,
    pub(crate) is_test: bool,
    pub(crate) in_progress: u32,
    pub(crate) completed: u32,
    /// The time of the last activity.
    pub(crate) last: Option<String>,
}

impl From<EndUser> for EndUserRow {
    fn from(end_user: EndUser) -> Self {
        Self {
            name: display_name(&end_user),
            last: end_user.last_activity_at.map(waypost_core::Timestamp::rfc3339),
            id: end_user.id,
            email: end_user.email.or(end_user.claimed_email).unwrap_or_default(),
            tracking_id: end_user.tracking_id.unwrap_or_default(),
            is_test: end_user.is_test,
            in_progress: end_user.in_progress,
            completed: end_user.completed,
        }
    }
}

#[derive(Template)]
#[template(path = "end_users/list.html")]
struct EndUsersPage {
    layout: Layout,
    org: CurrentOrganization,
    form_error: FormError,
    fields: EndUserQuery,
    rows: Vec<EndUserRow>,
    servers: Vec<(String, String)>,
    walkthroughs: Vec<(String, String)>,
    statuses: Vec<(String, String)>,
    next: Option<String>,
}

fn options(text: &str, rest: impl IntoIterator<Item = (String, String)>) -> Vec<(String, String)> {
    std::iter::once((String::new(), text.to_owned())).chain(rest).collect()
}

async fn list(State(console): State<Console>, member: Member, Query(fields): Query<EndUserQuery>) -> PageResult {
    let Member { cx, organization_id, org, layout } = &member;
    let page_error = |error| PageError::from(error).with_layout(layout.clone().with_section("end-users"));
    let end_users = match fields.search() {
        Ok(search) => end_users::list(cx, console.ops(), organization_id, &search).await,
        Err(error) => Err(error),
    };
    let (status, form_error, mut end_users) = match end_users {
        Ok(end_users) => (http::StatusCode::OK, FormError::default(), end_users),
        Err(error) => {
            let (status, form_error) = FormError::from_error(error).map_err(page_error)?;
            (status, form_error, Vec::new())
        }
    };
    let more = end_users.len() > ROWS as usize;
    end_users.truncate(ROWS as usize);
    let next = end_users.last().filter(|_| more).map(|last| fields.query(last.id.as_str()));
    let servers = servers::list(cx, console.ops(), organization_id).await.map_err(page_error)?;
    let listed = WalkthroughListQuery { limit: Some(200), ..WalkthroughListQuery::default() };
    let walkthroughs = walkthroughs::list(cx, console.ops(), organization_id, listed).await.map_err(page_error)?.items;
    let titles = walkthroughs
        .into_iter()
        .map(|walkthrough| (walkthrough.walkthrough.id.to_string(), walkthrough.walkthrough.title));
    let statuses = [("in_progress", "In progress"), ("completed", "Completed")];
    let page = EndUsersPage {
        layout: layout.clone().with_section("end-users"),
        org: org.clone(),
        form_error,
        rows: end_users.into_iter().map(EndUserRow::from).collect(),
        servers: options("All servers", servers.into_iter().map(|server| (server.id.to_string(), server.name))),
        walkthroughs: options("All walkthroughs", titles),
        statuses: options("Any", statuses.map(|(value, text)| (value.to_owned(), text.to_owned()))),
        next: next.map(|query| format!("{}?{query}", org.path("end-users"))),
        fields,
    };
    Ok(view::html(status, &page))
}

/// The filter of an end user's timeline, as query parameters.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct TimelineQuery {
    show: String,
    before: String,
}

impl TimelineQuery {
    fn kinds(&self) -> TimelineKinds {
        let all = !matches!(self.show.as_str(), "sessions" | "events" | "calls" | "tickets");
        TimelineKinds {
            sessions: all || self.show == "sessions",
            events: all || self.show == "events",
            calls: all || self.show == "calls",
            tickets: all || self.show == "tickets",
        }
    }

    /// Returns the query string for another filter or page.
    fn query(&self, show: &str, before: &str) -> String {
        let fields = [("show", show), ("before", before)];
        Serializer::new(String::new()).extend_pairs(fields.into_iter().filter(|(_, value)| !value.is_empty())).finish()
    }
}

/// An entry of the timeline.
struct TimelineItem {
    at: String,
    class: &'static str,
    badge: &'static str,
    text: String,
    detail: String,
}

impl TimelineItem {
    /// Describes an entry. `servers` contains the ID and name of each server.
    fn new(entry: TimelineEntry, servers: &[(String, String)]) -> Self {
        let at = entry.at().rfc3339();
        match entry {
            TimelineEntry::Session(session) => {
                let client = session.client_name.unwrap_or_else(|| "an unknown client".to_owned());
                let version = session.client_version.map(|version| format!(" {version}")).unwrap_or_default();
                let text = format!("Connected with {client}{version}");
                let server = servers.iter().find(|(id, _)| *id == session.server_id.as_str());
                let detail = server.map_or("Deleted server", |(_, name)| name).to_owned();
                Self { at, class: "session", badge: "Session", text, detail }
            }
            TimelineEntry::Event(event) => {
                // The titles come from the event's version, so they do not change if the step is renamed or deleted.
                let step = event.step_title.or(event.step_id.map(|_| "deleted step".to_owned()));
                let step = step.map(|step| format!(": {step}")).unwrap_or_default();
                let text = format!("{}{step}", event_label(event.kind));
                let walkthrough = event.walkthrough_title.unwrap_or_else(|| "Deleted walkthrough".to_owned());
                let pause =
                    event.elapsed_ms.map(|ms| format!(", after {}", view::duration(Some(ms)))).unwrap_or_default();
                Self { at, class: "event", badge: "Event", text, detail: format!("{walkthrough}{pause}") }
            }
            TimelineEntry::Call(call) => {
                let ok = call.outcome == "ok";
                let class = if ok { "call" } else { "failed" };
                let text = if ok { call.tool } else { format!("{} failed: {}", call.tool, call.outcome) };
                let detail = call.client_name.unwrap_or_default();
                Self { at, class, badge: "Call", text, detail }
            }
            TimelineEntry::Ticket(ticket) => {
                let text = format!("Opened ticket #{}: {}", ticket.number, ticket.title);
                Self { at, class: "ticket-opened", badge: "Ticket", text, detail: ticket.status.label().to_owned() }
            }
        }
    }
}

/// Returns the label of an event.
fn event_label(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Started => "Started",
        EventKind::Resumed => "Resumed",
        EventKind::StepCompleted => "Step completed",
        EventKind::Completed => "Walkthrough completed",
        EventKind::Moved => "Moved to a newer version",
        EventKind::MovedFromWithdrawn => "Moved because the version was withdrawn",
        EventKind::Restarted => "Restarted",
        EventKind::Joined => "Progress claimed",
        EventKind::Reset => "Reset",
    }
}

/// Lists the data of an end user, such as `1 attempt, 3 events`.
fn describe_data(data: &EndUserDataCounts) -> String {
    let parts = [
        (data.attempts, "attempt", "attempts"),
        (data.events, "event", "events"),
        (data.calls, "tool call", "tool calls"),
        (data.sessions, "session", "sessions"),
        (data.oauth_grants, "OAuth grant", "OAuth grants"),
        (data.tickets, "ticket", "tickets"),
    ];
    let parts = parts.map(|(count, one, many)| view::pluralize(count, one, many));
    parts.join(", ")
}

#[derive(Template)]
#[template(path = "end_users/show.html")]
struct EndUserPage {
    layout: Layout,
    org: CurrentOrganization,
    name: String,
    end_user: EndUser,
    /// The data that is deleted with the end user.
    data: String,
    progress: Vec<EndUserAttempt>,
    items: Vec<TimelineItem>,
    timeline: TimelineQuery,
    older: Option<String>,
    is_admin: bool,
    erase_path: String,
    form_error: FormError,
}

fn parse_id(text: &str) -> Result<EndUserId> {
    text.parse().map_err(|_| Error::not_found("end user"))
}

async fn show(
    State(console): State<Console>,
    member: Member,
    Path((_, id)): Path<(String, String)>,
    Query(timeline): Query<TimelineQuery>,
) -> PageResult {
    render_end_user(&console, &member, &id, timeline, http::StatusCode::OK, FormError::default()).await
}

async fn render_end_user(
    console: &Console,
    member: &Member,
    id: &str,
    timeline: TimelineQuery,
    status: http::StatusCode,
    form_error: FormError,
) -> PageResult {
    let Member { cx, organization_id, org, layout } = member;
    let page_error = |error| PageError::from(error).with_layout(layout.clone().with_section("end-users"));
    let id = parse_id(id).map_err(page_error)?;
    let end_user = end_users::get(cx, console.ops(), organization_id, &id).await.map_err(page_error)?;
    let before = if timeline.before.is_empty() { Ok(None) } else { parse_cursor(&timeline.before).map(Some) };
    let before = before.map_err(page_error)?;
    let mut entries =
        end_users::get_timeline(cx, console.ops(), organization_id, &id, timeline.kinds(), before, ROWS + 1)
            .await
            .map_err(page_error)?;
    let more = entries.len() > ROWS as usize;
    entries.truncate(ROWS as usize);
    let older =
        entries.last().filter(|_| more).map(|last| timeline.query(&timeline.show, &cursor(last.at(), last.id())));
    let servers = servers::list(cx, console.ops(), organization_id).await.map_err(page_error)?;
    let servers: Vec<_> = servers.into_iter().map(|server| (server.id.to_string(), server.name)).collect();
    let page = EndUserPage {
        layout: layout.clone().with_section("end-users"),
        name: display_name(&end_user),
        data: describe_data(&end_users::count_data(cx, console.ops(), organization_id, &id).await.map_err(page_error)?),
        progress: end_users::list_progress(cx, console.ops(), organization_id, &id).await.map_err(page_error)?,
        items: entries.into_iter().map(|entry| TimelineItem::new(entry, &servers)).collect(),
        older,
        erase_path: org.path(&format!("end-users/{id}/erase")),
        is_admin: org.role.covers(Role::Admin),
        org: org.clone(),
        end_user,
        timeline,
        form_error,
    };
    Ok(view::html(status, &page))
}

async fn export(State(console): State<Console>, member: Member, Path((_, id)): Path<(String, String)>) -> PageResult {
    let Member { cx, organization_id, layout, .. } = &member;
    let page_error = |error| PageError::from(error).with_layout(layout.clone().with_section("end-users"));
    let id = parse_id(&id).map_err(page_error)?;
    let whole = end_users::export(cx, console.ops(), organization_id, &id).await.map_err(page_error)?;
    Ok(download::json(id.as_str(), &whole))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct EraseForm {
    confirm: String,
}

async fn erase(
    State(console): State<Console>,
    member: Member,
    Path((_, text)): Path<(String, String)>,
    Form(EraseForm { confirm }): Form<EraseForm>,
) -> PageResult {
    let Member { cx, organization_id, org, layout } = &member;
    let page_error = |error| PageError::from(error).with_layout(layout.clone().with_section("end-users"));
    let id = parse_id(&text).map_err(page_error)?;
    match end_users::delete_confirmed(cx, console.ops(), organization_id, &id, &confirm).await {
        Ok(()) => Ok(view::redirect_with_flash(&org.path("end-users"), "End user erased. All their data was deleted.")),
        Err(error) => {
            let (status, mut form_error) = FormError::from_error(error).map_err(page_error)?;
            // The field is in a dialog that is closed after a reload, so the error is shown above the page.
            form_error.field = String::new();
            render_end_user(&console, &member, &text, TimelineQuery::default(), status, form_error).await
        }
    }
}
