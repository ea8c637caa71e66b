//! The list of walkthroughs with search, filters, sorting and bulk actions.

use askama::Template;
use axum::extract::{Path, Query, State};
use http::HeaderMap;
use serde::Deserialize;
use url::form_urlencoded;
use waypost_core::access::Operation;
use waypost_core::id::ServerId;
use waypost_core::server::Server;
use waypost_core::walkthrough::{WalkthroughSort, WalkthroughState, WalkthroughType};
use waypost_core::{Error, Result};
use waypost_http_kit::status;
use waypost_ops::servers;
use waypost_ops::walkthroughs::bulk::{self, BulkAction, BulkResult, WalkthroughBulkAction};
use waypost_ops::walkthroughs::versions::ListedVersion;
use waypost_ops::walkthroughs::{self, ListedWalkthrough, WalkthroughListQuery, publish, versions};

use super::{DraftContext, badge, bulk_publish, kind_name, walkthrough_id};
use crate::Console;
use crate::form::Form;
use crate::layout::{CurrentOrganization, Layout};
use crate::plain_text;
use crate::routes::{Access, Routes};
use crate::session::Member;
use crate::view::{self, PageError, PageResult};

pub(super) fn routes() -> Routes {
    const WRITE: Access = Access::Member(Operation::WalkthroughWrite);
    Routes::new()
        .get("/o/{org}/walkthroughs", Access::Member(Operation::WalkthroughRead), show)
        .post("/o/{org}/walkthroughs/bulk", WRITE, apply_bulk)
        .post("/o/{org}/walkthroughs/{id}/duplicate", WRITE, duplicate)
        .post("/o/{org}/walkthroughs/{id}/archive", WRITE, archive)
        .post("/o/{org}/walkthroughs/{id}/unarchive", WRITE, unarchive)
        .get("/o/{org}/walkthroughs/{id}/delete", WRITE, confirm_delete)
}

/// The query parameters of the list.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct WalkthroughQuery {
    q: String,
    state: String,
    #[serde(rename = "type")]
    kind: String,
    server_id: String,
    sort: String,
    order: String,
    cursor: String,
}

impl WalkthroughQuery {
    fn into_list(self) -> WalkthroughListQuery {
        let text = |text: String| Some(text).filter(|text| !text.is_empty());
        WalkthroughListQuery {
            query: text(self.q),
            // Malformed values are ignored.
            state: self.state.parse().ok(),
            kind: self.kind.parse().ok(),
            server_id: self.server_id.parse().ok(),
            sort: self.sort.parse().ok(),
            descending: self.order == "desc",
            limit: None,
            cursor: text(self.cursor),
        }
    }

    fn is_empty(&self) -> bool {
        self.q.is_empty() && self.state.is_empty() && self.kind.is_empty() && self.server_id.is_empty()
    }

    /// Returns the URL of this list with another sort, order and cursor.
    fn address(&self, org: &CurrentOrganization, sort: &str, order: &str, cursor: &str) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, value) in [
            ("q", self.q.as_str()),
            ("state", &self.state),
            ("type", &self.kind),
            ("server_id", &self.server_id),
            ("sort", sort),
            ("order", order),
            ("cursor", cursor),
        ] {
            if !value.is_empty() {
                query.append_pair(name, value);
            }
        }
        let (path, query) = (org.path("walkthroughs"), query.finish());
        if query.is_empty() { path } else { format!("{path}?{query}") }
    }
}

/// A sortable column.
struct Column {
    label: &'static str,
    href: String,
    /// The value of `aria-sort`.
    sorted: &'static str,
}

#[derive(Template)]
#[template(path = "walkthroughs/list.html")]
struct WalkthroughsPage {
    layout: Layout,
    org: CurrentOrganization,
    results: ResultsFragment,
    filter: WalkthroughQuery,
    states: Vec<(&'static str, &'static str)>,
    kinds: Vec<(&'static str, &'static str)>,
    servers: Vec<Server>,
}

/// The results, refreshed by htmx when the filter changes.
#[derive(Template)]
#[template(path = "walkthroughs/results.html")]
struct ResultsFragment {
    org: CurrentOrganization,
    items: Vec<ListedWalkthrough>,
    columns: Vec<Column>,
    /// The URL of the next page.
    next: Option<String>,
    /// Whether a filter is set.
    is_filtered: bool,
    servers: Vec<Server>,
}

impl ResultsFragment {
    /// Returns the path of a walkthrough.
    fn path(&self, item: &ListedWalkthrough) -> String {
        self.org.path(&format!("walkthroughs/{}", item.walkthrough.id))
    }
}

async fn show(
    State(console): State<Console>,
    Member { cx, organization_id, org, layout }: Member,
    Query(filter): Query<WalkthroughQuery>,
    headers: HeaderMap,
) -> PageResult {
    let layout = layout.with_section("walkthroughs");
    let listing = async {
        let page = walkthroughs::list(&cx, console.ops(), &organization_id, filter.clone().into_list()).await?;
        Ok::<_, Error>((page, servers::list(&cx, console.ops(), &organization_id).await?))
    };
    let (page, servers) = listing.await.map_err(|error| PageError::from(error).with_layout(layout.clone()))?;
    let results = ResultsFragment {
        next: page.next_cursor.map(|cursor| filter.address(&org, &filter.sort, &filter.order, &cursor)),
        items: page.items,
        columns: columns(&filter, &org),
        is_filtered: !filter.is_empty(),
        servers: servers.clone(),
        org: org.clone(),
    };
    if headers.contains_key("hx-request") {
        return Ok(view::page(&results));
    }
    let states = WalkthroughState::ALL.iter().map(|state| (state.as_str(), badge(state).1));
    let kinds = WalkthroughType::ALL.iter().map(|kind| (kind.as_str(), kind_name(kind)));
    Ok(view::page(&WalkthroughsPage {
        states: std::iter::once(("", "Any state")).chain(states).collect(),
        kinds: std::iter::once(("", "Any type")).chain(kinds).collect(),
        layout,
        org,
        results,
        filter,
        servers,
    }))
}

fn columns(filter: &WalkthroughQuery, org: &CurrentOrganization) -> Vec<Column> {
    let current: WalkthroughSort = filter.sort.parse().unwrap_or(WalkthroughSort::Title);
    let column = |label, sort: WalkthroughSort, first: &'static str| {
        let (sorted, next) = match (sort == current, filter.order.as_str()) {
            (true, "desc") => ("descending", "asc"),
            (true, _) => ("ascending", "desc"),
            (false, _) => ("none", first),
        };
        Column { label, href: filter.address(org, sort.as_str(), next, ""), sorted }
    };
    vec![
        column("Title", WalkthroughSort::Title, "asc"),
        column("Updated", WalkthroughSort::UpdatedAt, "desc"),
        column("Created", WalkthroughSort::CreatedAt, "desc"),
    ]
}

/// The selected walkthroughs and the action to apply.
struct BulkSelection {
    action: Option<WalkthroughBulkAction>,
    /// The action as sent by the form.
    word: String,
    server: Option<ServerId>,
    /// The IDs, with the revision shown on the confirmation page.
    ids: Vec<(String, Option<u32>)>,
    is_confirmed: bool,
}

impl BulkSelection {
    fn of(fields: Vec<(String, String)>) -> Self {
        let one = |name: &str| fields.iter().rev().find(|(own, _)| own == name).map(|(_, value)| value.clone());
        let word = one("action").unwrap_or_default();
        Self {
            action: match word.as_str() {
                "publish" => Some(WalkthroughBulkAction::Publish),
                "archive" => Some(WalkthroughBulkAction::Archive),
                "unarchive" => Some(WalkthroughBulkAction::Unarchive),
                "assign" => Some(WalkthroughBulkAction::Assign),
                "delete" => Some(WalkthroughBulkAction::Delete),
                _ => None,
            },
            word,
            server: one("server_id").and_then(|id| id.parse().ok()),
            is_confirmed: one("confirmed").is_some(),
            ids: fields
                .iter()
                .filter(|(name, _)| name == "ids")
                .map(|(_, id)| (id.clone(), one(&format!("revision-{id}")).and_then(|revision| revision.parse().ok())))
                .collect(),
        }
    }
}

/// The result of a bulk action.
#[derive(Template)]
#[template(path = "walkthroughs/bulk.html")]
struct BulkResultPage {
    layout: Layout,
    org: CurrentOrganization,
    done: usize,
    /// The failures: title or ID, and the reason.
    failed: Vec<(String, String)>,
}

/// A walkthrough to be deleted, with the counts of the data that is deleted with it.
struct DeletionPreview {
    id: String,
    title: String,
    steps: usize,
    versions: usize,
    servers: usize,
    /// The number of end users in progress.
    end_users: u64,
}

#[derive(Template)]
#[template(path = "walkthroughs/delete.html")]
struct DeleteWalkthroughsPage {
    layout: Layout,
    org: CurrentOrganization,
    /// The target of the form.
    action: String,
    previews: Vec<DeletionPreview>,
    end_users: u64,
}

async fn apply_bulk(
    State(console): State<Console>,
    member: Member,
    Form(fields): Form<Vec<(String, String)>>,
) -> PageResult {
    let layout = member.layout.clone().with_section("walkthroughs");
    let org = member.org.clone();
    let page_error = |error| PageError::from(error).with_layout(layout.clone());
    let selection = BulkSelection::of(fields);
    let Some(action) = selection.action else {
        return Err(page_error(Error::invalid("action", "Select an action.")));
    };
    let ids: Vec<String> = selection.ids.iter().map(|(id, _)| id.clone()).collect();
    if matches!(action, WalkthroughBulkAction::Delete) && !selection.is_confirmed {
        let page = delete_page(&console, &member, &ids, org.path("walkthroughs/bulk")).await.map_err(page_error)?;
        return Ok(view::page(&page));
    }
    if matches!(action, WalkthroughBulkAction::Publish) && !selection.is_confirmed {
        let page = bulk_publish::confirm(&console, &member, &ids).await.map_err(page_error)?;
        return Ok(view::page(&page));
    }
    let Member { cx, organization_id, .. } = &member;
    let action = BulkAction::new(action, selection.server).map_err(page_error)?;
    let results = bulk::run(cx, console.ops(), organization_id, &action, selection.ids).await.map_err(page_error)?;
    let done = results.iter().filter(|result| result.result.is_ok()).count();
    if done == results.len() {
        let total = i64::try_from(done).unwrap_or(i64::MAX);
        let what = view::pluralize(total, "walkthrough", "walkthroughs");
        let verb = match selection.word.as_str() {
            "publish" => "published",
            "archive" => "archived",
            "unarchive" => "unarchived",
            "assign" => "assigned",
            _ => "deleted",
        };
        return Ok(view::redirect_with_flash(&org.path("walkthroughs"), &format!("{what} {verb}.")));
    }
    let mut failed = Vec::new();
    for BulkResult { id, result } in results {
        let Err(error) = result else { continue };
        status::log(&error);
        let title = match walkthrough_id(&id) {
            Ok(id) => walkthroughs::get(cx, console.ops(), organization_id, &id).await.ok(),
            Err(_) => None,
        };
        let title = title.map_or(id, |head| head.title);
        failed.push((title, plain_text::message(&error.message, "")));
    }
    Ok(view::page(&BulkResultPage { layout, org, done, failed }))
}

/// Returns the confirmation page of a deletion.
async fn delete_page(
    console: &Console,
    member: &Member,
    ids: &[String],
    action: String,
) -> Result<DeleteWalkthroughsPage> {
    let (cx, ops, org) = (&member.cx, console.ops(), &member.organization_id);
    let mut previews = Vec::with_capacity(ids.len());
    for text in ids.iter().take(100) {
        let id = walkthrough_id(text)?;
        let draft = walkthroughs::get_draft(cx, ops, org, &id).await?;
        let versions: Vec<ListedVersion> = versions::list(cx, ops, org, &id).await?;
        let listed = walkthroughs::describe(cx, ops, org, draft.walkthrough).await?;
        previews.push(DeletionPreview {
            id: id.to_string(),
            title: listed.walkthrough.title,
            steps: draft.steps.len(),
            versions: versions.len(),
            servers: listed.servers.len(),
            end_users: versions.iter().map(|version| version.in_progress).sum(),
        });
    }
    if previews.is_empty() {
        return Err(Error::invalid("ids", "Select the walkthroughs to delete first."));
    }
    let end_users = previews.iter().map(|preview| preview.end_users).sum();
    Ok(DeleteWalkthroughsPage {
        layout: member.layout.clone().with_section("walkthroughs"),
        org: member.org.clone(),
        action,
        previews,
        end_users,
    })
}

async fn confirm_delete(
    State(console): State<Console>,
    member: Member,
    Path((_, id)): Path<(String, String)>,
) -> PageResult {
    let action = member.org.path("walkthroughs/bulk");
    let page = delete_page(&console, &member, &[id], action).await;
    Ok(view::page(
        &page
            .map_err(|error| PageError::from(error).with_layout(member.layout.clone().with_section("walkthroughs")))?,
    ))
}

async fn duplicate(
    State(console): State<Console>,
    member: Member,
    Path((_, id)): Path<(String, String)>,
) -> PageResult {
    let context = DraftContext::new(&console, member, &id).await?;
    let Member { cx, organization_id, org, .. } = &context.member;
    let created = walkthroughs::duplicate(cx, console.ops(), organization_id, &context.id, None).await;
    let created = created.map_err(|error| context.page_error(error))?;
    let message = format!("Created the copy “{}” as a draft. It is not assigned to any server.", created.title);
    Ok(view::redirect_with_flash(&org.path(&format!("walkthroughs/{}", created.id)), &message))
}

async fn archive(State(console): State<Console>, member: Member, Path((_, id)): Path<(String, String)>) -> PageResult {
    let context = DraftContext::new(&console, member, &id).await?;
    let archived = publish::archive(&context.member.cx, console.ops(), context.target(None)).await;
    archived.map_err(|error| context.page_error(error))?;
    let message = format!(
        "“{}” archived. It is no longer available to end users. Its content and progress are kept.",
        context.walkthrough().title
    );
    Ok(view::redirect_with_flash(&context.member.org.path("walkthroughs"), &message))
}

async fn unarchive(
    State(console): State<Console>,
    member: Member,
    Path((_, id)): Path<(String, String)>,
) -> PageResult {
    let context = DraftContext::new(&console, member, &id).await?;
    let unarchived = publish::unarchive(&context.member.cx, console.ops(), context.target(None)).await;
    unarchived.map_err(|error| context.page_error(error))?;
    let message =
        format!("“{}” unarchived. It is a draft; publish it to make it available.", context.walkthrough().title);
    Ok(view::redirect_with_flash(&context.member.org.path("walkthroughs"), &message))
}
