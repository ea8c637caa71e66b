//! `/o/{org}`: the way through the first run, and afterwards what goes on.

use askama::Template;
use axum::extract::State;
use waypost_core::access::Act;
use waypost_ops::overview::{self, OrganizationOverview};
use waypost_ops::{audit_events, joins, tickets};

use super::audit::Entry;
use super::frame::{Frame, Place};
use super::routes::{Access, Routes};
use super::session::Member;
use super::view::{self, PageError, PageResult};
use crate::Web;

/// Entries of the audit log that are shown.
const ENTRIES: u32 = 8;

/// The page.
pub(super) fn routes() -> Routes {
    Routes::new().get("/o/{org}", Access::Member(Act::OrganizationRead), show)
}

/// A step of the first run.
struct Step {
    done: bool,
    /// Whether it is the next one to do.
    next: bool,
    title: &'static str,
    /// What it is for, while it is not done.
    text: &'static str,
    /// Where it is done; empty when the viewer cannot do it.
    href: String,
    action: &'static str,
}

/// A number, and where it comes from.
struct Tile {
    label: &'static str,
    count: i64,
    hint: &'static str,
    /// Empty for none.
    href: String,
}

#[derive(Template)]
#[template(path = "overview/show.html")]
struct OverviewPage {
    frame: Frame,
    place: Place,
    steps: Vec<Step>,
    tiles: Vec<Tile>,
    entries: Vec<Entry>,
}

async fn show(State(web): State<Web>, member: Member) -> PageResult {
    let Member { cx, organization_id, place, frame } = &member;
    let within = |error| PageError::from(error).within(frame.clone());
    let overview = overview::get(cx, web.ops(), organization_id).await.map_err(within)?;
    let steps = if overview.is_set_up() { Vec::new() } else { steps(place, &overview) };
    let mut tiles = Vec::new();
    if overview.servers > 0 || overview.walkthroughs > 0 {
        let counts = tickets::count_by_status(cx, web.ops(), organization_id, &tickets::Filter::default()).await;
        let counts = counts.map_err(within)?.into_iter();
        let open = counts.filter(|(status, _)| !status.is_done());
        tiles = self::tiles(place, &overview, open.map(|(_, count)| count).sum());
    }
    let mut entries = Vec::new();
    if place.is_admin() {
        let claims = joins::count_recent_claims(cx, web.ops(), organization_id).await.map_err(within)?;
        if claims > 0 {
            tiles.push(Tile {
                label: "Claimed progress",
                count: claims,
                hint: "claims of tracking IDs in the last 7 days: check who made them",
                href: place.path("joins"),
            });
        }
        let filter = audit_events::Filter::default();
        let found = audit_events::list(cx, web.ops(), organization_id, &filter, (None, ENTRIES)).await;
        entries = found.map_err(within)?.into_iter().map(Entry::from).collect();
    }
    let (frame, place) = (frame.clone().at("overview"), place.clone());
    Ok(view::page(&OverviewPage { frame, place, steps, tiles, entries }))
}

/// The first run, in order, from what is really there.
fn steps(place: &Place, overview: &OrganizationOverview) -> Vec<Step> {
    let server = overview.server.as_ref().map(|id| place.path(&format!("servers/{id}")));
    let walkthrough = overview.walkthrough.as_ref().map(|id| place.path(&format!("walkthroughs/{id}")));
    let publish = match &walkthrough {
        Some(path) if overview.published == 0 => format!("{path}/publish"),
        Some(path) if overview.server.is_some() => format!("{path}/assignments"),
        _ => String::new(),
    };
    let (publish_title, publish_action) = if overview.published == 0 {
        ("Publish it, and assign it to the server", "Look at what is published")
    } else {
        ("Assign it to the server", "Choose servers")
    };
    let new_server = if place.is_admin() { place.path("servers/new") } else { String::new() };
    let mut steps = vec![
        Step { done: true, next: false, title: "Make an organisation", text: "", href: String::new(), action: "" },
        Step {
            done: overview.servers > 0,
            next: false,
            title: "Create a server",
            text: if place.is_admin() {
                "The MCP server that your users connect to, with an address of its own."
            } else {
                "The MCP server that your users connect to. Ask an admin of the organisation to create it."
            },
            href: new_server,
            action: "Create a server",
        },
        Step {
            done: overview.walkthroughs > 0,
            next: false,
            title: "Write your first walkthrough",
            text: "Steps that an agent goes through with a user: from scratch, from a template, or from a file.",
            href: place.path("walkthroughs/new"),
            action: "Write a walkthrough",
        },
        Step {
            done: overview.offered > 0,
            next: false,
            title: publish_title,
            text: "Users see what is published and assigned to a server, and nothing else.",
            href: publish,
            action: publish_action,
        },
        Step {
            done: overview.called,
            next: false,
            title: "Connect a client",
            text: "Add the server to Claude, Cursor, VS Code or another MCP client. This is done when the first call comes.",
            href: server.map(|path| format!("{path}/install")).unwrap_or_default(),
            action: "Show how to connect",
        },
    ];
    if let Some(step) = steps.iter_mut().find(|step| !step.done) {
        step.next = true;
    }
    steps
}

fn tiles(place: &Place, overview: &OrganizationOverview, open_tickets: u64) -> Vec<Tile> {
    vec![
        Tile { label: "Servers", count: overview.servers, hint: "", href: place.path("servers") },
        Tile {
            label: "Published walkthroughs",
            count: overview.published,
            hint: "",
            href: place.path("walkthroughs?state=published"),
        },
        Tile {
            label: "Active now",
            count: overview.active,
            hint: "people who did something in a walkthrough within 15 minutes",
            href: place.path("analytics"),
        },
        Tile {
            label: "Open tickets",
            count: i64::try_from(open_tickets).unwrap_or(i64::MAX),
            hint: "",
            href: place.path("tickets"),
        },
    ]
}
