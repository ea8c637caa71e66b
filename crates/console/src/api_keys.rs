//! `/o/{org}/api-keys`: the API keys of an organisation.

use askama::Template;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::Deserialize;
use waypost_core::access::Operation;
use waypost_core::id::ApiKeyId;
use waypost_core::organization::{ApiKey, Role};
use waypost_core::{Code, Error};
use waypost_ops::api_keys::{self, ApiKeyPatch, CreateApiKey};

use crate::Console;
use crate::form::{Form, day, default_expiry, end_of_day, locate_expiry};
use crate::layout::{CurrentOrganization, Layout};
use crate::members::roles;
use crate::routes::{Access, Routes};
use crate::session::Member;
use crate::view::{self, FormError, PageError, PageResult};

/// Returns the routes of these pages.
pub(super) fn routes() -> Routes {
    const READ: Access = Access::Member(Operation::KeyRead);
    const WRITE: Access = Access::Member(Operation::KeyWrite);
    Routes::new()
        .get("/o/{org}/api-keys", READ, list)
        .post("/o/{org}/api-keys", WRITE, create)
        .get("/o/{org}/api-keys/{id}", READ, show)
        .post("/o/{org}/api-keys/{id}", WRITE, update)
        .post("/o/{org}/api-keys/{id}/delete", WRITE, delete)
}

/// A row of the key list.
struct ApiKeyRow {
    key: ApiKey,
    expired: bool,
}

/// A newly created key.
struct CreatedKey {
    name: String,
    secret: String,
}

#[derive(Template)]
#[template(path = "api_keys/list.html")]
struct ApiKeysPage {
    layout: Layout,
    org: CurrentOrganization,
    form_error: FormError,
    keys: Vec<ApiKeyRow>,
    roles: Vec<(&'static str, &'static str)>,
    created: Option<CreatedKey>,
    entered_name: String,
    scope: String,
    expires_on: String,
    origin: String,
}

#[derive(Template)]
#[template(path = "api_keys/show.html")]
struct ApiKeyPage {
    layout: Layout,
    org: CurrentOrganization,
    form_error: FormError,
    key: ApiKey,
    expired: bool,
    /// Whether the viewer can change the key.
    can_change: bool,
    roles: Vec<(&'static str, &'static str)>,
    entered_name: String,
    scope: String,
    expires_on: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ApiKeyForm {
    name: String,
    scope: String,
    expires_on: String,
}

impl ApiKeyForm {
    fn scope(&self) -> Result<Role, Error> {
        self.scope.parse().map_err(|reason| Error::invalid("scope", format!("Invalid role: {reason}.")))
    }
}

impl ApiKeysPage {
    async fn load(console: &Console, member: &Member) -> Result<Self, PageError> {
        let Member { cx, organization_id, org, layout } = member;
        let keys = api_keys::list(cx, console.ops(), organization_id).await;
        let keys = keys.map_err(|error| PageError::from(error).with_layout(layout.clone()))?;
        Ok(Self {
            layout: layout.clone().with_section("api-keys"),
            org: org.clone(),
            form_error: FormError::default(),
            keys: keys.into_iter().map(|key| ApiKeyRow { expired: key.is_expired(cx.now()), key }).collect(),
            roles: roles(org.role),
            created: None,
            entered_name: String::new(),
            scope: Role::Member.as_str().to_owned(),
            expires_on: default_expiry(cx.now()),
            origin: console.public_url.origin(),
        })
    }
}

async fn list(State(console): State<Console>, member: Member) -> PageResult {
    Ok(view::page(&ApiKeysPage::load(&console, &member).await?))
}

async fn create(State(console): State<Console>, member: Member, Form(fields): Form<ApiKeyForm>) -> PageResult {
    let created = match (fields.scope(), end_of_day(&fields.expires_on)) {
        (Ok(scope), Ok(expires_at)) => {
            let new = CreateApiKey { name: &fields.name, scope, expires_at };
            api_keys::create(&member.cx, console.ops(), &member.organization_id, new).await
        }
        (Err(error), _) | (_, Err(error)) => Err(error),
    };
    match created {
        Ok((key, secret)) => {
            // Rendered without a redirect because the secret is only available in this response.
            let page = ApiKeysPage::load(&console, &member).await?;
            Ok(view::page(&ApiKeysPage { created: Some(CreatedKey { name: key.name, secret }), ..page }))
        }
        Err(error) => {
            let (status, form_error) = self::form_error(&member, error)?;
            let page = ApiKeysPage::load(&console, &member).await?;
            let ApiKeyForm { name: entered_name, scope, expires_on } = fields;
            Ok(view::html(status, &ApiKeysPage { form_error, entered_name, scope, expires_on, ..page }))
        }
    }
}

async fn find(console: &Console, member: &Member, id: &str) -> Result<ApiKeyPage, PageError> {
    let Member { cx, organization_id, org, layout } = member;
    let key = match id.parse::<ApiKeyId>() {
        Ok(id) => api_keys::get(cx, console.ops(), organization_id, &id).await,
        Err(_) => Err(Error::not_found("API key")),
    };
    let key = key.map_err(|error| PageError::from(error).with_layout(layout.clone()))?;
    Ok(ApiKeyPage {
        layout: layout.clone().with_section("api-keys"),
        org: org.clone(),
        form_error: FormError::default(),
        expired: key.is_expired(cx.now()),
        can_change: org.role.covers(key.scope),
        roles: roles(org.role),
        entered_name: key.name.clone(),
        scope: key.scope.as_str().to_owned(),
        expires_on: key.expires_at.map(day).unwrap_or_default(),
        key,
    })
}

async fn show(State(console): State<Console>, member: Member, Path((_, id)): Path<(String, String)>) -> PageResult {
    Ok(view::page(&find(&console, &member, &id).await?))
}

async fn update(
    State(console): State<Console>,
    member: Member,
    Path((_, id)): Path<(String, String)>,
    Form(fields): Form<ApiKeyForm>,
) -> PageResult {
    let page = find(&console, &member, &id).await?;
    let changed = match (fields.scope(), end_of_day(&fields.expires_on)) {
        (Ok(scope), Ok(expires_at)) => {
            // The form shows only the day, so an unchanged day must not change the exact expiry time.
            let expires_at = (fields.expires_on != page.expires_on).then_some(expires_at);
            let changes = ApiKeyPatch { name: Some(fields.name.clone()), scope: Some(scope), expires_at };
            api_keys::update(&member.cx, console.ops(), &member.organization_id, &page.key.id, &changes).await
        }
        (Err(error), _) | (_, Err(error)) => Err(error),
    };
    match changed {
        Ok(_) => Ok(view::redirect_with_flash(&member.org.path("api-keys"), "Saved.")),
        Err(error) => {
            let (status, form_error) = self::form_error(&member, error)?;
            let ApiKeyForm { name: entered_name, scope, expires_on } = fields;
            Ok(view::html(status, &ApiKeyPage { form_error, entered_name, scope, expires_on, ..page }))
        }
    }
}

async fn delete(State(console): State<Console>, member: Member, Path((_, id)): Path<(String, String)>) -> PageResult {
    let page = find(&console, &member, &id).await?;
    let deleted = api_keys::delete(&member.cx, console.ops(), &member.organization_id, &page.key.id).await;
    deleted.map_err(|error| PageError::from(error).with_layout(page.layout.clone()))?;
    let message = format!("API key {} deleted.", page.key.name);
    Ok(view::redirect_with_flash(&member.org.path("api-keys"), &message))
}

fn form_error(member: &Member, error: Error) -> Result<(StatusCode, FormError), PageError> {
    let error = if error.code == Code::Conflict { error.with("field", "name") } else { locate_expiry(error) };
    FormError::from_error(error).map_err(|error| PageError::from(error).with_layout(member.layout.clone()))
}
