//! `/o/{org}/catalog`: the tool servers that can be deployed. `catalog.js` imports files through the REST API.

use askama::Template;
use axum::extract::{Query, State};
use serde::Deserialize;
use waypost_core::access::Operation;
use waypost_core::catalog::{CatalogEntry, CatalogEntryState, CatalogVersion, Source};
use waypost_ops::catalog;

use crate::Console;
use crate::layout::{CurrentOrganization, Layout};
use crate::routes::{Access, Routes};
use crate::session::Member;
use crate::view::{self, PageError, PageResult};

/// The number of entries per page. A page can have fewer if they are large.
const LIMIT: u32 = 50;

/// Returns the routes of these pages.
pub(super) fn routes() -> Routes {
    Routes::new().get("/o/{org}/catalog", Access::Member(Operation::CatalogRead), show)
}

/// The cursor of a list of entries.
#[derive(Default, Deserialize)]
#[serde(default)]
struct CatalogQuery {
    after: String,
}

#[derive(Template)]
#[template(path = "catalog/list.html")]
struct CatalogPage {
    layout: Layout,
    org: CurrentOrganization,
    entries: Vec<CatalogEntry>,
    next: Option<String>,
    is_later_page: bool,
}

impl CatalogPage {
    fn badge(&self, entry: &CatalogEntry) -> &'static str {
        match entry.state {
            CatalogEntryState::Published => "good",
            CatalogEntryState::Deprecated => "warn",
            CatalogEntryState::Draft | CatalogEntryState::Review | CatalogEntryState::Archived => "",
        }
    }

    fn can_deploy(&self, entry: &CatalogEntry) -> bool {
        let is_open = matches!(entry.state, CatalogEntryState::Published | CatalogEntryState::Deprecated);
        self.org.is_admin() && is_open && !entry.versions.is_empty()
    }

    fn source(&self, version: &CatalogVersion) -> String {
        match &version.definition.source {
            Source::Image(image) => image.clone(),
            Source::Package(package) => format!("{} package {} {}", package.registry, package.name, package.version),
            Source::Remote(remote) => format!("Remote server at {}", remote.origin),
        }
    }
}

async fn show(State(console): State<Console>, member: Member, Query(query): Query<CatalogQuery>) -> PageResult {
    let Member { cx, organization_id, org, layout } = member;
    let layout = layout.with_section("catalog");
    let cursor = Some(query.after.as_str()).filter(|slug| !slug.is_empty());
    let page = catalog::list(&cx, console.ops(), &organization_id, LIMIT, cursor).await;
    let page = page.map_err(|error| PageError::from(error).with_layout(layout.clone()))?;
    let next = page.next_cursor.map(|cursor| org.path(&format!("catalog?after={cursor}")));
    let is_later_page = cursor.is_some();
    Ok(view::page(&CatalogPage { layout, org, entries: page.items, next, is_later_page }))
}
