//! Support tickets: the list here, one ticket in [`show`].

mod show;

use askama::Template;
use axum::extract::State;
use serde::Deserialize;
use url::form_urlencoded::Serializer;
use waypost_core::access::Operation;
use waypost_core::caller::Ctx;
use waypost_core::organization::Member as OrganizationMember;
use waypost_core::server::{Server, Support};
use waypost_core::ticket::{Priority, TicketStatus};
use waypost_core::{Error, Result};
use waypost_ops::tickets::{self, TicketDetails, TicketFilter, TicketListQuery, TicketPatch, search_text};
use waypost_ops::{servers, walkthroughs};

use super::form::Form;
use super::layout::{CurrentOrganization, Layout};
use super::routes::{Access, Routes};
use super::session::Member;
use super::view::{self, FormError, PageError, PageResult};
use crate::Console;
use axum::extract::Query;

/// The number of tickets per page.
const TICKETS: u32 = 50;
/// The value and label of each option.
type Options = Vec<(String, String)>;

/// Returns the routes of these pages.
pub(super) fn routes() -> Routes {
    const READ: Access = Access::Member(Operation::TicketRead);
    const WRITE: Access = Access::Member(Operation::TicketWrite);
    Routes::new()
        .get("/o/{org}/tickets", READ, list)
        .post("/o/{org}/tickets/bulk", WRITE, update_selected)
        .get("/o/{org}/tickets/{id}", READ, show::show)
        .post("/o/{org}/tickets/{id}", WRITE, show::update)
        .post("/o/{org}/tickets/{id}/comments", WRITE, show::add_comment)
        .post("/o/{org}/tickets/{id}/comments/{comment}", WRITE, show::edit_comment)
        .post("/o/{org}/tickets/{id}/comments/{comment}/delete", WRITE, show::delete_comment)
}

/// Returns the badge class of a status.
fn status_badge(status: TicketStatus) -> &'static str {
    match status {
        TicketStatus::NeedsEmail => "warn",
        TicketStatus::Pending => "info",
        TicketStatus::InProgress => "info",
        TicketStatus::Resolved => "good",
        TicketStatus::Closed => "",
    }
}

/// Returns the badge class of a priority.
fn priority_badge(priority: Priority) -> &'static str {
    match priority {
        Priority::Urgent => "bad",
        Priority::High => "warn",
        Priority::Normal | Priority::Low => "",
    }
}

fn statuses() -> Options {
    TicketStatus::ALL.iter().map(|status| (status.as_str().to_owned(), status.label().to_owned())).collect()
}

fn priorities() -> Options {
    Priority::ALL.iter().map(|priority| (priority.as_str().to_owned(), priority.label().to_owned())).collect()
}

fn member_options(members: &[OrganizationMember]) -> Options {
    let option = |member: &OrganizationMember| {
        let name = member.display_name();
        let is_ambiguous = members.iter().filter(|other| other.display_name() == name).count() > 1;
        let label = if is_ambiguous { format!("{name} ({})", member.email) } else { name.to_owned() };
        (member.user_id.to_string(), label)
    };
    members.iter().map(option).collect()
}

fn prepend_option(value: &str, text: &str, rest: Options) -> Options {
    std::iter::once((value.to_owned(), text.to_owned())).chain(rest).collect()
}

/// The filter, as query parameters.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct TicketQuery {
    status: String,
    priority: String,
    assignee: String,
    server: String,
    walkthrough: String,
    q: String,
    before: String,
}

impl TicketQuery {
    fn filter(&self, cx: &Ctx) -> Result<TicketFilter> {
        fn load<T: std::str::FromStr>(field: &str, text: &str) -> Result<Option<T>> {
            let invalid = |_| Error::invalid(field, "Invalid value. Select another one, or clear the filter.");
            (!text.is_empty()).then(|| text.parse().map_err(invalid)).transpose()
        }
        let assignee = match self.assignee.as_str() {
            "" => None,
            "none" => Some(None),
            "me" => Some(load("assignee", cx.caller.actor())?),
            text => Some(load("assignee", text)?),
        };
        Ok(TicketFilter {
            status: load("status", &self.status)?,
            priority: load("priority", &self.priority)?,
            assignee,
            server: load("server", &self.server)?,
            walkthrough: load("walkthrough", &self.walkthrough)?,
            text: search_text(&self.q),
        })
    }

    /// Returns the filter as a query string with one parameter replaced.
    fn query(&self, name: &str, value: &str) -> String {
        let fields = [
            ("status", self.status.as_str()),
            ("priority", &self.priority),
            ("assignee", &self.assignee),
            ("server", &self.server),
            ("walkthrough", &self.walkthrough),
            ("q", &self.q),
        ];
        let other_fields = fields.into_iter().filter(|(own, value)| !value.is_empty() && *own != name);
        let mut query = Serializer::new(String::new());
        query.extend_pairs(other_fields);
        if !value.is_empty() {
            query.append_pair(name, value);
        }
        query.finish()
    }

    /// Whether no filter other than the status is set.
    fn is_unfiltered(&self) -> bool {
        [&self.priority, &self.assignee, &self.server, &self.walkthrough, &self.q]
            .into_iter()
            .all(|filter| filter.is_empty())
    }
}

/// A status tab, or the tab for all tickets.
struct Tab {
    href: String,
    label: &'static str,
    count: u64,
    is_current: bool,
}

#[derive(Template)]
#[template(path = "tickets/list.html")]
struct TicketsPage {
    layout: Layout,
    org: CurrentOrganization,
    form_error: FormError,
    fields: TicketQuery,
    tabs: Vec<Tab>,
    total: u64,
    tickets: Vec<TicketDetails>,
    older: Option<String>,
    priorities: Options,
    assignees: Options,
    servers: Options,
    /// The title of the walkthrough in the filter, if any.
    walkthrough: Option<String>,
    bulk_statuses: Options,
    bulk_priorities: Options,
    bulk_assignees: Options,
    /// Servers without support, at most five. Shown if no server has support.
    without_support: Vec<Server>,
    has_support: bool,
    can_mail: bool,
}

impl TicketsPage {
    fn status_badge(&self, details: &TicketDetails) -> &'static str {
        status_badge(details.ticket.status)
    }

    fn priority_badge(&self, details: &TicketDetails) -> &'static str {
        priority_badge(details.ticket.priority)
    }
}

async fn list(State(console): State<Console>, member: Member, Query(fields): Query<TicketQuery>) -> PageResult {
    let page_error = |error| PageError::from(error).with_layout(member.layout.clone().with_section("tickets"));
    let (status, form_error, filter) = match fields.filter(&member.cx) {
        Ok(filter) => (http::StatusCode::OK, FormError::default(), filter),
        Err(error) => {
            let (status, form_error) = FormError::from_error(error).map_err(page_error)?;
            (status, form_error, TicketFilter::default())
        }
    };
    let page = load(&console, &member, fields, filter).await.map_err(page_error)?;
    Ok(view::html(status, &TicketsPage { form_error, ..page }))
}

async fn load(console: &Console, member: &Member, fields: TicketQuery, filter: TicketFilter) -> Result<TicketsPage> {
    let Member { cx, organization_id, org, layout } = member;
    let ops = console.ops();
    let counts = tickets::count_by_status(cx, ops, organization_id, &filter).await?;
    let total = counts.iter().map(|(_, count)| count).sum();
    // With a malformed cursor, the page starts at the newest ticket.
    let cursor = Some(fields.before.clone()).filter(|text| text.parse::<waypost_core::id::TicketId>().is_ok());
    let list_query = TicketListQuery { filter: filter.clone(), limit: Some(TICKETS), cursor };
    let page = tickets::list(cx, ops, organization_id, list_query).await?;
    let members = member_options(&tickets::list_assignees(cx, ops, organization_id).await?);
    let all = servers::list(cx, ops, organization_id).await?;
    let has_support = all.iter().any(|server| server.support == Support::Tickets);
    let walkthrough = match &filter.walkthrough {
        Some(id) => walkthroughs::get(cx, ops, organization_id, id).await.ok().map(|walkthrough| walkthrough.title),
        None => None,
    };
    let here = org.path("tickets");
    let address = |query: String| if query.is_empty() { here.clone() } else { format!("{here}?{query}") };
    let tab = |label, status: &str, count| Tab {
        href: address(fields.query("status", status)),
        label,
        count,
        is_current: fields.status == status,
    };
    let of_status = |(status, count): &(TicketStatus, u64)| tab(status.label(), status.as_str(), *count);
    let tabs = std::iter::once(tab("All", "", total)).chain(counts.iter().map(of_status)).collect();
    let assignee_options = prepend_option("me", "Me", prepend_option("none", "Unassigned", members.clone()));
    Ok(TicketsPage {
        layout: layout.clone().with_section("tickets"),
        org: org.clone(),
        form_error: FormError::default(),
        tabs,
        total,
        older: page.next_cursor.map(|cursor| address(fields.query("before", &cursor))),
        tickets: page.items,
        priorities: prepend_option("", "Any", priorities()),
        assignees: prepend_option("", "Any", assignee_options),
        servers: prepend_option(
            "",
            "Any",
            all.iter().map(|server| (server.id.to_string(), server.name.clone())).collect(),
        ),
        walkthrough,
        bulk_statuses: prepend_option("", "No change", statuses()),
        bulk_priorities: prepend_option("", "No change", priorities()),
        bulk_assignees: prepend_option("", "No change", prepend_option("none", "Unassigned", members)),
        without_support: all.into_iter().filter(|server| server.support != Support::Tickets).take(5).collect(),
        has_support,
        can_mail: tickets::can_send_email(ops),
        fields,
    })
}

/// Updates the selected tickets. The form field `back` contains the filter of the page.
async fn update_selected(
    State(console): State<Console>,
    member: Member,
    Form(pairs): Form<Vec<(String, String)>>,
) -> PageResult {
    let page_error = |error| PageError::from(error).with_layout(member.layout.clone().with_section("tickets"));
    let value = |name: &str| pairs.iter().find(|(own, _)| own == name).map_or("", |(_, value)| value.as_str());
    let ids: Vec<String> = pairs.iter().filter(|(name, _)| name == "ids").map(|(_, id)| id.clone()).collect();
    let back = value("back");
    let back = if back.is_empty() { member.org.path("tickets") } else { member.org.path(&format!("tickets?{back}")) };
    let back = view::local_path(&back).to_owned();
    let invalid = |field| Error::invalid(field, "Invalid value. Reload the page.");
    let status = Some(value("status")).filter(|text| !text.is_empty()).map(str::parse).transpose();
    let priority = Some(value("priority")).filter(|text| !text.is_empty()).map(str::parse).transpose();
    let change = TicketPatch {
        status: status.map_err(|_| page_error(invalid("status")))?,
        priority: priority.map_err(|_| page_error(invalid("priority")))?,
        assignee: match value("assignee") {
            "" => None,
            "none" => Some(None),
            text => Some(Some(text.to_owned())),
        },
        email: None,
    };
    if ids.is_empty() || change == TicketPatch::default() {
        let message = "No changes. Select tickets and choose what to change.";
        return Ok(view::redirect_with_flash(&back, message));
    }
    let results = tickets::update_many(&member.cx, console.ops(), &member.organization_id, &ids, &change).await;
    let results = results.map_err(page_error)?;
    let failed: Vec<_> = results.iter().filter_map(|result| result.result.as_ref().err()).collect();
    let updated = results.len() - failed.len();
    let tickets = if updated == 1 { "ticket" } else { "tickets" };
    let message = match failed.first() {
        None => format!("{updated} {tickets} updated."),
        Some(first) => format!("{updated} {tickets} updated, {} failed: {}", failed.len(), first.message),
    };
    Ok(view::redirect_with_flash(&back, &message))
}
