//! The list: searched as one types, filtered, sorted, with acts on one or several.

use askama::Template;
use axum::extract::{Path, Query, State};
use http::HeaderMap;
use serde::Deserialize;
use url::form_urlencoded;
use waypost_core::access::Act;
use waypost_core::id::ServerId;
use waypost_core::server::Server;
use waypost_core::walkthrough::{WalkthroughSort, WalkthroughState, WalkthroughType};
use waypost_core::{Error, Result};
use waypost_ops::servers;
use waypost_ops::walkthroughs::versions::ListedVersion;
use waypost_ops::walkthroughs::{self, ListedWalkthrough, WalkthroughListQuery, publish, versions};

use super::{Opened, badge, bulk_publish, kind_name, walkthrough_id};
use crate::Web;
use crate::api::extract::Scope;
use crate::api::walkthroughs::bulk::{self, Action};
use crate::pages::form::Form;
use crate::pages::frame::{Frame, Place};
use crate::pages::routes::{Access, Routes};
use crate::pages::session::Member;
use crate::pages::view::{self, PageError, PageResult};

pub(super) fn routes() -> Routes {
    const WRITE: Access = Access::Member(Act::WalkthroughWrite);
    Routes::new()
        .get("/o/{org}/walkthroughs", Access::Member(Act::WalkthroughRead), show)
        .post("/o/{org}/walkthroughs/bulk", WRITE, several)
        .post("/o/{org}/walkthroughs/{id}/duplicate", WRITE, duplicate)
        .post("/o/{org}/walkthroughs/{id}/archive", WRITE, archive)
        .post("/o/{org}/walkthroughs/{id}/unarchive", WRITE, unarchive)
        .get("/o/{org}/walkthroughs/{id}/delete", WRITE, ask)
}

/// What stands in the address of a list.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Filter {
    q: String,
    state: String,
    #[serde(rename = "type")]
    kind: String,
    server_id: String,
    sort: String,
    order: String,
    cursor: String,
}

impl Filter {
    fn into_list(self) -> WalkthroughListQuery {
        let text = |text: String| Some(text).filter(|text| !text.is_empty());
        WalkthroughListQuery {
            query: text(self.q),
            // A link with a value that is none shows everything.
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

    /// The address of this list with another sort, order and cursor.
    fn address(&self, place: &Place, (sort, order, cursor): (&str, &str, &str)) -> String {
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
        let (path, query) = (place.path("walkthroughs"), query.finish());
        if query.is_empty() { path } else { format!("{path}?{query}") }
    }
}

/// A column by which a list can be sorted.
struct Column {
    label: &'static str,
    href: String,
    /// `aria-sort`.
    sorted: &'static str,
}

#[derive(Template)]
#[template(path = "walkthroughs/list.html")]
struct ListPage {
    frame: Frame,
    place: Place,
    results: Results,
    filter: Filter,
    states: Vec<(&'static str, &'static str)>,
    kinds: Vec<(&'static str, &'static str)>,
    servers: Vec<Server>,
}

/// The part of the page that a search replaces.
#[derive(Template)]
#[template(path = "walkthroughs/results.html")]
struct Results {
    place: Place,
    items: Vec<ListedWalkthrough>,
    columns: Vec<Column>,
    /// The address of the next page.
    next: Option<String>,
    /// Whether this is a part of the list only.
    filtered: bool,
    servers: Vec<Server>,
}

impl Results {
    /// The address of a walkthrough.
    fn at(&self, item: &ListedWalkthrough) -> String {
        self.place.path(&format!("walkthroughs/{}", item.walkthrough.id))
    }
}

async fn show(
    State(web): State<Web>,
    Member { cx, organization_id, place, frame }: Member,
    Query(filter): Query<Filter>,
    headers: HeaderMap,
) -> PageResult {
    let frame = frame.at("walkthroughs");
    let found = async {
        let page = walkthroughs::list(&cx, web.ops(), &organization_id, filter.clone().into_list()).await?;
        Ok::<_, Error>((page, servers::list(&cx, web.ops(), &organization_id).await?))
    };
    let (page, servers) = found.await.map_err(|error| PageError::from(error).within(frame.clone()))?;
    let results = Results {
        next: page.next_cursor.map(|cursor| filter.address(&place, (&filter.sort, &filter.order, &cursor))),
        items: page.items,
        columns: columns(&filter, &place),
        filtered: !filter.is_empty(),
        servers: servers.clone(),
        place: place.clone(),
    };
    if headers.contains_key("hx-request") {
        return Ok(view::page(&results));
    }
    let states = WalkthroughState::ALL.iter().map(|state| (state.as_str(), badge(state).1));
    let kinds = WalkthroughType::ALL.iter().map(|kind| (kind.as_str(), kind_name(kind)));
    Ok(view::page(&ListPage {
        states: std::iter::once(("", "Any state")).chain(states).collect(),
        kinds: std::iter::once(("", "Any type")).chain(kinds).collect(),
        frame,
        place,
        results,
        filter,
        servers,
    }))
}

fn columns(filter: &Filter, place: &Place) -> Vec<Column> {
    let present: WalkthroughSort = filter.sort.parse().unwrap_or(WalkthroughSort::Title);
    let column = |label, sort: WalkthroughSort, first: &'static str| {
        let (sorted, next) = match (sort == present, filter.order.as_str()) {
            (true, "desc") => ("descending", "asc"),
            (true, _) => ("ascending", "desc"),
            (false, _) => ("none", first),
        };
        Column { label, href: filter.address(place, (sort.as_str(), next, "")), sorted }
    };
    vec![
        column("Title", WalkthroughSort::Title, "asc"),
        column("Changed", WalkthroughSort::UpdatedAt, "desc"),
        column("Made", WalkthroughSort::CreatedAt, "desc"),
    ]
}

/// The ids that were ticked, and what to do with them.
struct Ticked {
    action: Option<Action>,
    /// As it stands in the form.
    word: String,
    server: Option<ServerId>,
    /// The ids; with the revision that the confirmation was about.
    ids: Vec<(String, Option<u32>)>,
    confirmed: bool,
}

impl Ticked {
    fn of(fields: Vec<(String, String)>) -> Self {
        let one = |name: &str| fields.iter().rev().find(|(own, _)| own == name).map(|(_, value)| value.clone());
        let word = one("action").unwrap_or_default();
        Self {
            action: match word.as_str() {
                "publish" => Some(Action::Publish),
                "archive" => Some(Action::Archive),
                "unarchive" => Some(Action::Unarchive),
                "assign" => Some(Action::Assign),
                "delete" => Some(Action::Delete),
                _ => None,
            },
            word,
            server: one("server_id").and_then(|id| id.parse().ok()),
            confirmed: one("confirmed").is_some(),
            ids: fields
                .iter()
                .filter(|(name, _)| name == "ids")
                .map(|(_, id)| (id.clone(), one(&format!("revision-{id}")).and_then(|revision| revision.parse().ok())))
                .collect(),
        }
    }
}

/// What became of several walkthroughs.
#[derive(Template)]
#[template(path = "walkthroughs/bulk.html")]
struct BulkPage {
    frame: Frame,
    place: Place,
    done: usize,
    /// What was refused: title or id, and why.
    refused: Vec<(String, String)>,
}

/// A walkthrough that is to be deleted, with what goes with it.
struct Doomed {
    id: String,
    title: String,
    steps: usize,
    versions: usize,
    servers: usize,
    people: u64,
}

#[derive(Template)]
#[template(path = "walkthroughs/delete.html")]
struct DeletePage {
    frame: Frame,
    place: Place,
    /// Where the form goes.
    action: String,
    doomed: Vec<Doomed>,
    people: u64,
}

async fn several(State(web): State<Web>, member: Member, Form(fields): Form<Vec<(String, String)>>) -> PageResult {
    let frame = member.frame.clone().at("walkthroughs");
    let place = member.place.clone();
    let within = |error| PageError::from(error).within(frame.clone());
    let ticked = Ticked::of(fields);
    let Some(action) = ticked.action else {
        return Err(within(Error::invalid("action", "Choose what to do with the walkthroughs.")));
    };
    let ids: Vec<String> = ticked.ids.iter().map(|(id, _)| id.clone()).collect();
    if matches!(action, Action::Delete) && !ticked.confirmed {
        let page = confirm(&web, &member, &ids, place.path("walkthroughs/bulk")).await.map_err(within)?;
        return Ok(view::page(&page));
    }
    if matches!(action, Action::Publish) && !ticked.confirmed {
        let page = bulk_publish::confirm(&web, &member, &ids).await.map_err(within)?;
        return Ok(view::page(&page));
    }
    let scope = Scope { cx: member.cx, organization_id: member.organization_id };
    let outcomes = bulk::run(&web, &scope, (action, ticked.server), ticked.ids).await.map_err(within)?;
    let done = outcomes.iter().filter(|outcome| outcome.ok).count();
    if done == outcomes.len() {
        let many = i64::try_from(done).unwrap_or(i64::MAX);
        let what = view::counted(many, "walkthrough", "walkthroughs");
        let verb = match ticked.word.as_str() {
            "publish" => "published",
            "archive" => "archived",
            "unarchive" => "taken out of the archive",
            "assign" => "assigned",
            _ => "deleted",
        };
        return Ok(view::redirect_saying(&place.path("walkthroughs"), &format!("{what} {verb}.")));
    }
    let mut refused = Vec::new();
    for outcome in outcomes.into_iter().filter(|outcome| !outcome.ok) {
        let title = match walkthrough_id(&outcome.id) {
            Ok(id) => walkthroughs::get_draft(&scope.cx, web.ops(), &scope.organization_id, &id).await.ok(),
            Err(_) => None,
        };
        let title = title.map_or(outcome.id, |draft| draft.walkthrough.title);
        refused.push((title, outcome.detail.unwrap_or_default()));
    }
    Ok(view::page(&BulkPage { frame, place, done, refused }))
}

/// The page that says what a deletion destroys.
async fn confirm(web: &Web, member: &Member, ids: &[String], action: String) -> Result<DeletePage> {
    let (cx, ops, org) = (&member.cx, web.ops(), &member.organization_id);
    let mut doomed = Vec::with_capacity(ids.len());
    for text in ids.iter().take(100) {
        let id = walkthrough_id(text)?;
        let draft = walkthroughs::get_draft(cx, ops, org, &id).await?;
        let versions: Vec<ListedVersion> = versions::list(cx, ops, org, &id).await?;
        let listed = walkthroughs::describe(cx, ops, org, draft.walkthrough).await?;
        doomed.push(Doomed {
            id: id.to_string(),
            title: listed.walkthrough.title,
            steps: draft.steps.len(),
            versions: versions.len(),
            servers: listed.servers.len(),
            people: versions.iter().map(|version| version.in_progress).sum(),
        });
    }
    if doomed.is_empty() {
        return Err(Error::invalid("ids", "Tick the walkthroughs to delete first."));
    }
    let people = doomed.iter().map(|it| it.people).sum();
    Ok(DeletePage {
        frame: member.frame.clone().at("walkthroughs"),
        place: member.place.clone(),
        action,
        doomed,
        people,
    })
}

async fn ask(State(web): State<Web>, member: Member, Path((_, id)): Path<(String, String)>) -> PageResult {
    let action = member.place.path("walkthroughs/bulk");
    let page = confirm(&web, &member, &[id], action).await;
    Ok(view::page(&page.map_err(|error| PageError::from(error).within(member.frame.clone().at("walkthroughs")))?))
}

async fn duplicate(State(web): State<Web>, member: Member, Path((_, id)): Path<(String, String)>) -> PageResult {
    let opened = Opened::new(&web, member, &id).await?;
    let Member { cx, organization_id, place, .. } = &opened.member;
    let made = walkthroughs::duplicate(cx, web.ops(), organization_id, &opened.id, None).await;
    let made = made.map_err(|error| opened.within(error))?;
    let said = format!("This is the copy, “{}”. It is a draft, on no server.", made.title);
    Ok(view::redirect_saying(&place.path(&format!("walkthroughs/{}", made.id)), &said))
}

async fn archive(State(web): State<Web>, member: Member, Path((_, id)): Path<(String, String)>) -> PageResult {
    let opened = Opened::new(&web, member, &id).await?;
    let done = publish::archive(&opened.member.cx, web.ops(), opened.target(None)).await;
    done.map_err(|error| opened.within(error))?;
    let said = format!("“{}” is archived: it is not offered any more, and everything is kept.", opened.head().title);
    Ok(view::redirect_saying(&opened.member.place.path("walkthroughs"), &said))
}

async fn unarchive(State(web): State<Web>, member: Member, Path((_, id)): Path<(String, String)>) -> PageResult {
    let opened = Opened::new(&web, member, &id).await?;
    let done = publish::unarchive(&opened.member.cx, web.ops(), opened.target(None)).await;
    done.map_err(|error| opened.within(error))?;
    let said = format!("“{}” is a draft again. Publish it to offer it.", opened.head().title);
    Ok(view::redirect_saying(&opened.member.place.path("walkthroughs"), &said))
}
