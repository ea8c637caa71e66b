//! `/o/{org}/personal-secrets`: the viewer's own values for personal secrets. A value is only read from forms; no page
//! contains one.

use askama::Template;
use axum::extract::{Path, State};
use serde::Deserialize;
use waypost_core::access::Operation;
use waypost_core::id::InstanceId;
use waypost_core::seal::SecretText;
use waypost_core::{Error, Result};
use waypost_ops::agent_secrets::{self, InstancePersonalSecrets};

use crate::Console;
use crate::form::Form;
use crate::layout::Layout;
use crate::routes::{Access, Routes};
use crate::session::Member;
use crate::view::{self, FormError, PageError, PageResult};

/// The navigation section.
const SECTION: &str = "personal-secrets";

/// Returns the routes of these pages.
pub(super) fn routes() -> Routes {
    const OWN: Access = Access::Member(Operation::OwnSecretWrite);
    Routes::new()
        .get("/o/{org}/personal-secrets", OWN, show)
        .post("/o/{org}/personal-secrets/{instance}", OWN, set)
        .post("/o/{org}/personal-secrets/{instance}/delete", OWN, delete)
}

#[derive(Template)]
#[template(path = "personal_secrets/list.html")]
struct PersonalSecretsPage {
    layout: Layout,
    form_error: FormError,
    /// The path of the page.
    base: String,
    instances: Vec<InstancePersonalSecrets>,
    can_set: bool,
}

/// The form for a value.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct SecretForm {
    pub(crate) name: String,
    value: String,
}

impl SecretForm {
    /// Returns the value with the line breaks that were entered: browsers send CR LF (HTML, section
    /// 4.10.21.4).
    pub(crate) fn value(&self) -> SecretText {
        SecretText::new(self.value.replace("\r\n", "\n"))
    }
}

/// Parses the ID of an instance in a path.
///
/// # Errors
/// `not_found` if it is malformed.
pub(crate) fn parse_instance(text: &str) -> Result<InstanceId> {
    text.parse().map_err(|_| Error::not_found("instance"))
}

/// Converts an error for a form to an error for the page as a whole, because the page has several fields with the same
/// name.
///
/// # Errors
/// Returns `error` unchanged if it was not caused by the input.
pub(crate) fn form_error(error: Error) -> Result<(http::StatusCode, FormError)> {
    let (status, error) = FormError::from_error(error)?;
    Ok((status, FormError { field: String::new(), ..error }))
}

fn page_error(member: &Member) -> impl Fn(Error) -> PageError + use<> {
    let layout = member.layout.clone().with_section(SECTION);
    move |error| PageError::from(error).with_layout(layout.clone())
}

async fn load(console: &Console, member: &Member) -> Result<PersonalSecretsPage, PageError> {
    let Member { cx, organization_id, org, layout } = member;
    let found = agent_secrets::list_own(cx, console.ops(), organization_id).await;
    Ok(PersonalSecretsPage {
        instances: found.map_err(page_error(member))?,
        layout: layout.clone().with_section(SECTION),
        form_error: FormError::default(),
        base: org.path("personal-secrets"),
        can_set: true,
    })
}

async fn show(State(console): State<Console>, member: Member) -> PageResult {
    Ok(view::page(&load(&console, &member).await?))
}

async fn set(
    State(console): State<Console>,
    member: Member,
    Path((_, instance)): Path<(String, String)>,
    Form(form): Form<SecretForm>,
) -> PageResult {
    let id = parse_instance(&instance).map_err(page_error(&member))?;
    let (name, value) = (form.name.as_str(), form.value());
    let result = agent_secrets::set_own(&member.cx, console.ops(), &member.organization_id, (&id, name), &value).await;
    finish(&console, &member, result, "Value set. It is used from your next call on.").await
}

async fn delete(
    State(console): State<Console>,
    member: Member,
    Path((_, instance)): Path<(String, String)>,
    Form(form): Form<SecretForm>,
) -> PageResult {
    let id = parse_instance(&instance).map_err(page_error(&member))?;
    let result = agent_secrets::delete_own(&member.cx, console.ops(), &member.organization_id, (&id, &form.name)).await;
    finish(&console, &member, result, "Value removed.").await
}

async fn finish(console: &Console, member: &Member, result: Result<()>, message: &str) -> PageResult {
    match result {
        Ok(()) => Ok(view::redirect_with_flash(&member.org.path("personal-secrets"), message)),
        Err(error) => {
            let (status, form_error) = form_error(error).map_err(page_error(member))?;
            Ok(view::html(status, &PersonalSecretsPage { form_error, ..load(console, member).await? }))
        }
    }
}
