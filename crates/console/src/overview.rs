//! `/o/{org}`: the setup steps of a new organisation, and the overview of recent activity.

use askama::Template;
use axum::extract::State;
use waypost_core::access::Operation;
use waypost_ops::overview::{self, OrganizationOverview};
use waypost_ops::{audit_events, joins, tickets};

use crate::Console;
use crate::audit::AuditRow;
use crate::layout::{CurrentOrganization, Layout};
use crate::routes::{Access, Routes};
use crate::session::Member;
use crate::view::{self, PageError, PageResult};

/// The number of audit log entries shown.
const ENTRIES: u32 = 8;

/// Returns the routes of this page.
pub(super) fn routes() -> Routes {
    Routes::new().get("/o/{org}", Access::Member(Operation::OrganizationRead), show)
}

/// A setup step.
struct SetupStep {
    done: bool,
    /// Whether this is the next step to complete.
    next: bool,
    title: &'static str,
    /// The description, shown for the next step.
    text: &'static str,
    /// The path of the page on which to complete the step. Empty if the viewer lacks the permission, or if an earlier
    /// step must be completed first.
    href: String,
    action: &'static str,
}

/// A metric with a link to its source.
struct OverviewTile {
    label: &'static str,
    count: i64,
    hint: &'static str,
    /// The path of the source. Empty for no link.
    href: String,
}

#[derive(Template)]
#[template(path = "overview/show.html")]
struct OrganizationOverviewPage {
    layout: Layout,
    org: CurrentOrganization,
    steps: Vec<SetupStep>,
    tiles: Vec<OverviewTile>,
    entries: Vec<AuditRow>,
}

async fn show(State(console): State<Console>, member: Member) -> PageResult {
    let Member { cx, organization_id, org, layout } = &member;
    let page_error = |error| PageError::from(error).with_layout(layout.clone());
    let overview = overview::get(cx, console.ops(), organization_id).await.map_err(page_error)?;
    let steps = if overview.is_set_up() { Vec::new() } else { steps(org, &overview) };
    let mut tiles = Vec::new();
    if overview.servers > 0 || overview.walkthroughs > 0 {
        let counts =
            tickets::count_by_status(cx, console.ops(), organization_id, &tickets::TicketFilter::default()).await;
        let counts = counts.map_err(page_error)?.into_iter();
        let open = counts.filter(|(status, _)| !status.is_done());
        tiles = self::tiles(org, &overview, open.map(|(_, count)| count).sum());
    }
    let mut entries = Vec::new();
    if org.is_admin() {
        let claims = joins::count_recent_claims(cx, console.ops(), organization_id).await.map_err(page_error)?;
        if claims > 0 {
            tiles.push(OverviewTile {
                label: "Claimed progress",
                count: claims,
                hint: "tracking IDs claimed in the last 7 days",
                href: org.path("joins"),
            });
        }
        let filter = audit_events::AuditFilter::default();
        let events = audit_events::list(cx, console.ops(), organization_id, &filter, None, ENTRIES).await;
        entries = events.map_err(page_error)?.into_iter().map(AuditRow::from).collect();
    }
    let (layout, org) = (layout.clone().with_section("overview"), org.clone());
    Ok(view::page(&OrganizationOverviewPage { layout, org, steps, tiles, entries }))
}

/// Returns the setup steps in order, with their current state.
fn steps(org: &CurrentOrganization, overview: &OrganizationOverview) -> Vec<SetupStep> {
    let server = overview.server.as_ref().map(|id| org.path(&format!("servers/{id}")));
    let walkthrough = overview.walkthrough.as_ref().map(|id| org.path(&format!("walkthroughs/{id}")));
    let publish = match &walkthrough {
        Some(path) if overview.published == 0 => format!("{path}/publish"),
        Some(path) if overview.server.is_some() => format!("{path}/assignments"),
        _ => String::new(),
    };
    let (publish_title, publish_action) = if overview.published == 0 {
        ("Publish it and assign it to a server", "Review and publish")
    } else {
        ("Assign it to a server", "Assign to a server")
    };
    let new_server = if org.is_admin() { org.path("servers/new") } else { String::new() };
    let mut steps = vec![
        SetupStep {
            done: true,
            next: false,
            title: "Create an organisation",
            text: "",
            href: String::new(),
            action: "",
        },
        SetupStep {
            done: overview.servers > 0,
            next: false,
            title: "Create a server",
            text: if org.is_admin() {
                "The MCP server that your users connect to, with its own URL."
            } else {
                "The MCP server that your users connect to. Ask an admin of the organisation to create it."
            },
            href: new_server,
            action: "Create server",
        },
        SetupStep {
            done: overview.walkthroughs > 0,
            next: false,
            title: "Create a walkthrough",
            text: "A list of steps that an agent goes through with a user. Start from scratch, from a template or from a file.",
            href: org.path("walkthroughs/new"),
            action: "Create walkthrough",
        },
        SetupStep {
            done: overview.offered > 0,
            next: false,
            title: publish_title,
            text: "Users only see walkthroughs that are published and assigned to a server.",
            href: publish,
            action: publish_action,
        },
        SetupStep {
            done: overview.called,
            next: false,
            title: "Connect a client",
            text: "Add the server to Claude, Cursor, VS Code or another MCP client. This step is complete when the first call arrives.",
            href: server.map(|path| format!("{path}/install")).unwrap_or_default(),
            action: "View setup instructions",
        },
    ];
    if let Some(step) = steps.iter_mut().find(|step| !step.done) {
        step.next = true;
    }
    steps
}

fn tiles(org: &CurrentOrganization, overview: &OrganizationOverview, open_tickets: u64) -> Vec<OverviewTile> {
    vec![
        OverviewTile { label: "Servers", count: overview.servers, hint: "", href: org.path("servers") },
        OverviewTile {
            label: "Published walkthroughs",
            count: overview.published,
            hint: "",
            href: org.path("walkthroughs?state=published"),
        },
        OverviewTile {
            label: "Active now",
            count: overview.active,
            hint: "end users with walkthrough activity in the last 15 minutes",
            href: org.path("analytics"),
        },
        OverviewTile {
            label: "Open tickets",
            count: i64::try_from(open_tickets).unwrap_or(i64::MAX),
            hint: "",
            href: org.path("tickets"),
        },
    ]
}
