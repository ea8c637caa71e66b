//! The version history: comparing, restoring and withdrawing versions.

use askama::Template;
use axum::extract::{Path, Query, State};
use http::StatusCode;
use serde::Deserialize;
use waypost_core::Error;
use waypost_core::access::Operation;
use waypost_ops::walkthroughs::publish;
use waypost_ops::walkthroughs::versions::{self, ListedVersion};

use super::{Changes, DraftContext, WalkthroughHeader};
use crate::Console;
use crate::form::Form;
use crate::layout::Layout;
use crate::routes::{Access, Routes};
use crate::session::Member;
use crate::view::{self, FormError, PageError, PageResult};

pub(super) fn routes() -> Routes {
    const WRITE: Access = Access::Member(Operation::WalkthroughWrite);
    Routes::new()
        .get("/o/{org}/walkthroughs/{id}/versions", Access::Member(Operation::WalkthroughRead), show)
        .post("/o/{org}/walkthroughs/{id}/versions/{number}/restore", WRITE, restore)
        .post("/o/{org}/walkthroughs/{id}/versions/{number}/withdraw", WRITE, withdraw)
}

/// The versions to compare.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CompareQuery {
    from: String,
    to: String,
}

#[derive(Template)]
#[template(path = "walkthroughs/versions.html")]
struct VersionsPage {
    layout: Layout,
    header: WalkthroughHeader,
    form_error: FormError,
    revision: u32,
    versions: Vec<ListedVersion>,
    /// The versions to select from, as pairs of value and label.
    sides: Vec<(String, String)>,
    from: String,
    to: String,
    changes: Option<Changes>,
}

impl VersionsPage {
    async fn new(console: &Console, context: &DraftContext, query: CompareQuery) -> Result<Self, PageError> {
        let Member { cx, organization_id, .. } = &context.member;
        let versions = versions::list(cx, console.ops(), organization_id, &context.id).await;
        let versions = versions.map_err(|error| context.page_error(error))?;
        let name =
            |version: &ListedVersion| (version.info.number.to_string(), format!("Version {}", version.info.number));
        let mut sides: Vec<_> = versions.iter().map(name).collect();
        let newest = sides.first().map(|(number, _)| number.clone()).unwrap_or_default();
        sides.insert(0, ("draft".to_owned(), "Draft".to_owned()));
        let changes = match query.from.parse() {
            Err(_) => None,
            Ok(from) => {
                let to = query.to.parse().ok();
                let comparison = versions::compare(cx, console.ops(), organization_id, &context.id, from, to).await;
                Some(Changes::new(comparison.map_err(|error| context.page_error(error))?))
            }
        };
        let or = |text: String, other: String| if text.is_empty() { other } else { text };
        Ok(Self {
            layout: context.layout(),
            header: context.header("versions"),
            form_error: FormError::default(),
            revision: context.walkthrough().revision,
            versions,
            sides,
            from: or(query.from, newest),
            to: or(query.to, "draft".to_owned()),
            changes,
        })
    }

    async fn render_error(console: &Console, context: &DraftContext, error: Error) -> PageResult {
        let (status, form_error): (StatusCode, FormError) =
            FormError::from_error(error).map_err(|error| context.page_error(error))?;
        let form_error = FormError { field: String::new(), ..form_error };
        let page = Self { form_error, ..Self::new(console, context, CompareQuery::default()).await? };
        Ok(view::html(status, &page))
    }
}

async fn show(
    State(console): State<Console>,
    member: Member,
    Path((_, id)): Path<(String, String)>,
    Query(query): Query<CompareQuery>,
) -> PageResult {
    let context = DraftContext::new(&console, member, &id).await?;
    Ok(view::page(&VersionsPage::new(&console, &context, query).await?))
}

fn parse_version(text: &str) -> Result<u32, Error> {
    text.parse().map_err(|_| Error::not_found("version"))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct VersionForm {
    revision: Option<u32>,
    reason: String,
}

async fn restore(
    State(console): State<Console>,
    member: Member,
    Path((_, id, version)): Path<(String, String, String)>,
    Form(fields): Form<VersionForm>,
) -> PageResult {
    let context = DraftContext::new(&console, member, &id).await?;
    let version = parse_version(&version).map_err(|error| context.page_error(error))?;
    let target = context.target(fields.revision);
    match versions::restore(&context.member.cx, console.ops(), target, version).await {
        Ok(_) => {
            let message = format!("Version {version} restored as draft. Publish it to make it available.");
            Ok(view::redirect_with_flash(&context.path, &message))
        }
        Err(error) => VersionsPage::render_error(&console, &context, error).await,
    }
}

async fn withdraw(
    State(console): State<Console>,
    member: Member,
    Path((_, id, version)): Path<(String, String, String)>,
    Form(fields): Form<VersionForm>,
) -> PageResult {
    let context = DraftContext::new(&console, member, &id).await?;
    let version = parse_version(&version).map_err(|error| context.page_error(error))?;
    match publish::withdraw(&context.member.cx, console.ops(), context.target(None), version, &fields.reason).await {
        Ok(_) => {
            let message =
                format!("Version {version} withdrawn. End users on this version see the reason at their next step.");
            Ok(view::redirect_with_flash(&format!("{}/versions", context.path), &message))
        }
        Err(error) => VersionsPage::render_error(&console, &context, error).await,
    }
}
