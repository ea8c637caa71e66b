//! `/o/{org}/secrets`: the secrets of tool servers. A value is only read from forms; no page contains one.

use askama::Template;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use waypost_core::Error;
use waypost_core::access::Operation;
use waypost_core::id::ToolSecretId;
use waypost_core::seal::SecretText;
use waypost_core::tool_secret::ToolSecret;
use waypost_ops::tool_secrets;

use crate::Console;
use crate::form::Form;
use crate::layout::{CurrentOrganization, Layout};
use crate::routes::{Access, Routes};
use crate::session::Member;
use crate::view::{self, FormError, PageError, PageResult};

/// The number of secrets per page.
const LIMIT: u32 = 100;

/// Returns the routes of these pages.
pub(super) fn routes() -> Routes {
    const READ: Access = Access::Member(Operation::ToolSecretRead);
    const WRITE: Access = Access::Member(Operation::ToolSecretWrite);
    Routes::new()
        .get("/o/{org}/secrets", READ, list)
        .post("/o/{org}/secrets", WRITE, create)
        .get("/o/{org}/secrets/{id}", READ, show)
        .post("/o/{org}/secrets/{id}/rotate", WRITE, rotate)
        .post("/o/{org}/secrets/{id}/delete", WRITE, delete)
}

/// The cursor of the list.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ListQuery {
    after: String,
}

#[derive(Template)]
#[template(path = "secrets/list.html")]
struct SecretsPage {
    layout: Layout,
    org: CurrentOrganization,
    form_error: FormError,
    secrets: Vec<ToolSecret>,
    next: Option<String>,
    is_later_page: bool,
    entered_name: String,
}

#[derive(Template)]
#[template(path = "secrets/show.html")]
struct SecretPage {
    layout: Layout,
    org: CurrentOrganization,
    form_error: FormError,
    secret: ToolSecret,
}

impl SecretPage {
    fn path(&self) -> String {
        path(&self.org, &self.secret.id)
    }
}

/// The form for a new secret.
#[derive(Default, Deserialize)]
#[serde(default)]
struct NewSecret {
    name: String,
    value: String,
}

/// The form for a new value.
#[derive(Default, Deserialize)]
#[serde(default)]
struct NewValue {
    value: String,
}

/// Returns the value of a text area with the line breaks that were entered: browsers send CR LF (HTML, section
/// 4.10.21.4).
fn value(text: &str) -> SecretText {
    SecretText::new(text.replace("\r\n", "\n"))
}

fn path(org: &CurrentOrganization, id: &ToolSecretId) -> String {
    org.path(&format!("secrets/{id}"))
}

fn parse_id(text: &str) -> Result<ToolSecretId, Error> {
    text.parse().map_err(|_| Error::not_found("secret"))
}

fn page_error(member: &Member) -> impl Fn(Error) -> PageError + use<> {
    let layout = member.layout.clone().with_section("secrets");
    move |error| PageError::from(error).with_layout(layout.clone())
}

async fn load(console: &Console, member: &Member, after: &str) -> Result<SecretsPage, PageError> {
    let Member { cx, organization_id, org, layout } = member;
    let cursor = Some(after).filter(|name| !name.is_empty());
    let found = tool_secrets::list(cx, console.ops(), organization_id, LIMIT, cursor).await;
    let found = found.map_err(page_error(member))?;
    Ok(SecretsPage {
        layout: layout.clone().with_section("secrets"),
        org: org.clone(),
        form_error: FormError::default(),
        secrets: found.items,
        next: found.next_cursor.map(|cursor| org.path(&format!("secrets?after={cursor}"))),
        is_later_page: cursor.is_some(),
        entered_name: String::new(),
    })
}

async fn find(console: &Console, member: &Member, id: &str) -> Result<SecretPage, PageError> {
    let Member { cx, organization_id, org, layout } = member;
    let found = async { tool_secrets::get(cx, console.ops(), organization_id, &parse_id(id)?).await };
    Ok(SecretPage {
        secret: found.await.map_err(page_error(member))?,
        layout: layout.clone().with_section("secrets"),
        org: org.clone(),
        form_error: FormError::default(),
    })
}

async fn list(State(console): State<Console>, member: Member, Query(query): Query<ListQuery>) -> PageResult {
    Ok(view::page(&load(&console, &member, &query.after).await?))
}

async fn create(
    State(console): State<Console>,
    member: Member,
    Form(NewSecret { name, value: text }): Form<NewSecret>,
) -> PageResult {
    let created =
        tool_secrets::create(&member.cx, console.ops(), &member.organization_id, name.trim(), &value(&text)).await;
    match created {
        Ok(_) => Ok(view::redirect_with_flash(&member.org.path("secrets"), "Secret created.")),
        Err(error) => {
            let (status, form_error) = FormError::from_error(error).map_err(page_error(&member))?;
            let page = load(&console, &member, "").await?;
            Ok(view::html(status, &SecretsPage { form_error, entered_name: name, ..page }))
        }
    }
}

async fn show(State(console): State<Console>, member: Member, Path((_, id)): Path<(String, String)>) -> PageResult {
    Ok(view::page(&find(&console, &member, &id).await?))
}

async fn rotate(
    State(console): State<Console>,
    member: Member,
    Path((_, id)): Path<(String, String)>,
    Form(NewValue { value: text }): Form<NewValue>,
) -> PageResult {
    let id = parse_id(&id).map_err(page_error(&member))?;
    let rotated = tool_secrets::rotate(&member.cx, console.ops(), &member.organization_id, &id, &value(&text)).await;
    let message = "Value replaced. Instances that use the secret are restarted one after another.";
    match rotated {
        Ok(_) => Ok(view::redirect_with_flash(&path(&member.org, &id), message)),
        Err(error) => reject(&console, &member, &id, error).await,
    }
}

async fn delete(State(console): State<Console>, member: Member, Path((_, id)): Path<(String, String)>) -> PageResult {
    let id = parse_id(&id).map_err(page_error(&member))?;
    match tool_secrets::delete(&member.cx, console.ops(), &member.organization_id, &id).await {
        Ok(()) => Ok(view::redirect_with_flash(&member.org.path("secrets"), "Secret deleted.")),
        Err(error) => reject(&console, &member, &id, error).await,
    }
}

/// Renders the page of a secret with an error.
async fn reject(console: &Console, member: &Member, id: &ToolSecretId, error: Error) -> PageResult {
    let (status, form_error) = FormError::from_error(error).map_err(page_error(member))?;
    let page = find(console, member, id.as_str()).await?;
    Ok(view::html(status, &SecretPage { form_error, ..page }))
}
