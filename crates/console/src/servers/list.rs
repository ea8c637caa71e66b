//! The list of servers.

use askama::Template;
use axum::extract::{Query, State};
use serde::Deserialize;
use url::form_urlencoded;
use waypost_core::server::Server;
use waypost_ops::servers::{self, MAX_CALLS, ServerSearch, ServerUsage};

use super::super::layout::Layout;
use super::super::session::Member;
use super::super::view::{self, PageError, PageResult};
use super::{auth_label, group_digits, pluralize};
use crate::Console;
use waypost_http_kit::request_info::RequestInfo;

/// The number of servers per page.
const LIMIT: u32 = 24;

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct ServerQuery {
    q: String,
    after: String,
}

struct ServerRow {
    href: String,
    name: String,
    slug: String,
    /// The URL of the public page. `None` if it is turned off.
    page_url: Option<String>,
    auth: &'static str,
    walkthroughs: String,
    calls: String,
    last_call_at: Option<String>,
}

#[derive(Template)]
#[template(path = "servers/list.html")]
struct ServersPage {
    layout: Layout,
    base: String,
    is_admin: bool,
    q: String,
    rows: Vec<ServerRow>,
    /// Whether this is not the first page.
    is_later_page: bool,
    next: Option<String>,
}

impl ServersPage {
    fn new_path(&self) -> String {
        format!("{}/new", self.base)
    }
}

pub(super) async fn show(
    State(console): State<Console>,
    info: RequestInfo,
    member: Member,
    Query(fields): Query<ServerQuery>,
) -> PageResult {
    let Member { cx, organization_id, org, layout } = member;
    let layout = layout.with_section("servers");
    let base = org.path("servers");
    let search = ServerSearch { text: Some(fields.q.clone()), after: Some(fields.after.clone()), limit: LIMIT };
    let servers = servers::search(&cx, console.ops(), &organization_id, &search).await;
    let (servers, more) = servers.map_err(|error| PageError::from(error).with_layout(layout.clone()))?;
    let ids: Vec<_> = servers.iter().map(|server| &server.id).collect();
    let usages = servers::list_usage(&cx, console.ops(), &organization_id, &ids).await?;
    let next = servers.last().filter(|_| more).map(|last| {
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("q", &fields.q)
            .append_pair("after", &last.slug)
            .finish();
        format!("{base}?{query}")
    });
    let page = |server: &Server| {
        server.public_page.then(|| console.public_url.path_urls(&info.authority, &server.slug).page())
    };
    let rows =
        servers.into_iter().zip(usages).map(|(server, usage)| row(&base, page(&server), server, usage)).collect();
    let is_later_page = !fields.after.is_empty();
    Ok(view::page(&ServersPage { layout, is_admin: org.is_admin(), base, q: fields.q, rows, is_later_page, next }))
}

fn row(base: &str, page_url: Option<String>, server: Server, usage: ServerUsage) -> ServerRow {
    ServerRow {
        page_url,
        href: format!("{base}/{}", server.id),
        name: server.name,
        slug: server.slug,
        auth: auth_label(server.auth_type),
        walkthroughs: pluralize(usage.walkthroughs, "walkthrough", "walkthroughs"),
        calls: format_calls(usage),
        last_call_at: usage.last_call_at.map(|at| at.rfc3339()),
    }
}

/// Formats the number of calls. Calls are counted up to [`MAX_CALLS`]; at the maximum, a `+` is appended.
pub(super) fn format_calls(usage: ServerUsage) -> String {
    let more = if usage.calls >= MAX_CALLS { "+" } else { "" };
    format!("{}{more}", group_digits(usage.calls))
}
