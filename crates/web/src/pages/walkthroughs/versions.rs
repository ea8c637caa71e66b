//! The history: versions, what is different between two of them, going back to one, taking one back.

use askama::Template;
use axum::extract::{Path, Query, State};
use http::StatusCode;
use serde::Deserialize;
use waypost_core::Error;
use waypost_core::access::Act;
use waypost_ops::walkthroughs::publish;
use waypost_ops::walkthroughs::versions::{self, ListedVersion};

use super::{Around, Changes, Opened};
use crate::Web;
use crate::pages::form::Form;
use crate::pages::frame::Frame;
use crate::pages::routes::{Access, Routes};
use crate::pages::session::Member;
use crate::pages::view::{self, PageError, PageResult, Wrong};

pub(super) fn routes() -> Routes {
    const WRITE: Access = Access::Member(Act::WalkthroughWrite);
    Routes::new()
        .get("/o/{org}/walkthroughs/{id}/versions", Access::Member(Act::WalkthroughRead), show)
        .post("/o/{org}/walkthroughs/{id}/versions/{number}/restore", WRITE, restore)
        .post("/o/{org}/walkthroughs/{id}/versions/{number}/withdraw", WRITE, withdraw)
}

/// Which states to compare.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Between {
    from: String,
    to: String,
}

#[derive(Template)]
#[template(path = "walkthroughs/versions.html")]
struct VersionsPage {
    frame: Frame,
    around: Around,
    wrong: Wrong,
    revision: u32,
    versions: Vec<ListedVersion>,
    /// What can be compared: value and text.
    sides: Vec<(String, String)>,
    from: String,
    to: String,
    changes: Option<Changes>,
}

impl VersionsPage {
    async fn new(web: &Web, opened: &Opened, between: Between) -> Result<Self, PageError> {
        let Member { cx, organization_id, .. } = &opened.member;
        let versions = versions::list(cx, web.ops(), organization_id, &opened.id).await;
        let versions = versions.map_err(|error| opened.within(error))?;
        let name = |it: &ListedVersion| (it.head.number.to_string(), format!("Version {}", it.head.number));
        let mut sides: Vec<_> = versions.iter().map(name).collect();
        let newest = sides.first().map(|(number, _)| number.clone()).unwrap_or_default();
        sides.insert(0, ("draft".to_owned(), "The draft".to_owned()));
        let changes = match between.from.parse() {
            Err(_) => None,
            Ok(from) => {
                let to = between.to.parse().ok();
                let found = versions::compare(cx, web.ops(), organization_id, &opened.id, (from, to)).await;
                Some(Changes::new(found.map_err(|error| opened.within(error))?))
            }
        };
        let or = |text: String, other: String| if text.is_empty() { other } else { text };
        Ok(Self {
            frame: opened.frame(),
            around: opened.around("versions"),
            wrong: Wrong::default(),
            revision: opened.head().revision,
            versions,
            sides,
            from: or(between.from, newest),
            to: or(between.to, "draft".to_owned()),
            changes,
        })
    }

    async fn refused(web: &Web, opened: &Opened, error: Error) -> PageResult {
        let (status, wrong): (StatusCode, Wrong) = Wrong::of(error).map_err(|error| opened.within(error))?;
        let wrong = Wrong { field: String::new(), ..wrong };
        let page = Self { wrong, ..Self::new(web, opened, Between::default()).await? };
        Ok(view::html(status, &page))
    }
}

async fn show(
    State(web): State<Web>,
    member: Member,
    Path((_, id)): Path<(String, String)>,
    Query(between): Query<Between>,
) -> PageResult {
    let opened = Opened::new(&web, member, &id).await?;
    Ok(view::page(&VersionsPage::new(&web, &opened, between).await?))
}

fn number(text: &str) -> Result<u32, Error> {
    text.parse().map_err(|_| Error::not_found("version"))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Fields {
    revision: Option<u32>,
    reason: String,
}

async fn restore(
    State(web): State<Web>,
    member: Member,
    Path((_, id, version)): Path<(String, String, String)>,
    Form(fields): Form<Fields>,
) -> PageResult {
    let opened = Opened::new(&web, member, &id).await?;
    let version = number(&version).map_err(|error| opened.within(error))?;
    let target = opened.target(fields.revision);
    match versions::restore(&opened.member.cx, web.ops(), target, version).await {
        Ok(_) => {
            let said = format!("The draft is version {version} again. Nothing is published yet.");
            Ok(view::redirect_saying(&opened.at, &said))
        }
        Err(error) => VersionsPage::refused(&web, &opened, error).await,
    }
}

async fn withdraw(
    State(web): State<Web>,
    member: Member,
    Path((_, id, version)): Path<(String, String, String)>,
    Form(fields): Form<Fields>,
) -> PageResult {
    let opened = Opened::new(&web, member, &id).await?;
    let version = number(&version).map_err(|error| opened.within(error))?;
    match publish::withdraw(&opened.member.cx, web.ops(), opened.target(None), version, &fields.reason).await {
        Ok(_) => {
            let said = format!("Version {version} is withdrawn. Who was on it is told the reason at their next step.");
            Ok(view::redirect_saying(&format!("{}/versions", opened.at), &said))
        }
        Err(error) => VersionsPage::refused(&web, &opened, error).await,
    }
}
