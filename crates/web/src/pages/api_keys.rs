//! API keys.

use askama::Template;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::Deserialize;
use waypost_core::access::Act;
use waypost_core::id::ApiKeyId;
use waypost_core::organization::{ApiKey, Role};
use waypost_core::{Code, Error, Timestamp};
use waypost_ops::api_keys::{self, ApiKeyPatch, CreateApiKey};

use super::form::Form;
use super::frame::{Frame, Place};
use super::members::roles;
use super::routes::{Access, Routes};
use super::session::Member;
use super::view::{self, PageError, PageResult, Wrong};
use crate::Web;

/// A new key ends after so many days when nobody says otherwise.
const USUAL_DAYS: i64 = 90;
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// The pages.
pub(super) fn routes() -> Routes {
    const READ: Access = Access::Member(Act::KeyRead);
    const WRITE: Access = Access::Member(Act::KeyWrite);
    Routes::new()
        .get("/o/{org}/api-keys", READ, list)
        .post("/o/{org}/api-keys", WRITE, create)
        .get("/o/{org}/api-keys/{id}", READ, show)
        .post("/o/{org}/api-keys/{id}", WRITE, update)
        .post("/o/{org}/api-keys/{id}/delete", WRITE, delete)
}

/// A key, for a row.
struct Row {
    key: ApiKey,
    expired: bool,
}

/// A key that was just made.
struct Made {
    name: String,
    secret: String,
}

#[derive(Template)]
#[template(path = "api_keys/list.html")]
struct KeysPage {
    frame: Frame,
    place: Place,
    wrong: Wrong,
    keys: Vec<Row>,
    roles: Vec<(&'static str, &'static str)>,
    made: Option<Made>,
    given: String,
    scope: String,
    expires_on: String,
    origin: String,
}

#[derive(Template)]
#[template(path = "api_keys/show.html")]
struct KeyPage {
    frame: Frame,
    place: Place,
    wrong: Wrong,
    key: ApiKey,
    expired: bool,
    /// Whether the viewer may change it.
    changeable: bool,
    roles: Vec<(&'static str, &'static str)>,
    given: String,
    scope: String,
    expires_on: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields {
    name: String,
    scope: String,
    expires_on: String,
}

impl Fields {
    fn scope(&self) -> Result<Role, Error> {
        self.scope.parse().map_err(|why| Error::invalid("scope", format!("This is no role: {why}.")))
    }
}

impl KeysPage {
    async fn read(web: &Web, member: &Member) -> Result<Self, PageError> {
        let Member { cx, organization_id, place, frame } = member;
        let keys = api_keys::list(cx, web.ops(), organization_id).await;
        let keys = keys.map_err(|error| PageError::from(error).within(frame.clone()))?;
        Ok(Self {
            frame: frame.clone().at("api-keys"),
            place: place.clone(),
            wrong: Wrong::default(),
            keys: keys.into_iter().map(|key| Row { expired: key.is_expired(cx.now()), key }).collect(),
            roles: roles(place.role),
            made: None,
            given: String::new(),
            scope: Role::Member.as_str().to_owned(),
            expires_on: day(cx.now().plus(USUAL_DAYS * DAY_MS)),
            origin: web.public_url.origin(),
        })
    }
}

async fn list(State(web): State<Web>, member: Member) -> PageResult {
    Ok(view::page(&KeysPage::read(&web, &member).await?))
}

async fn create(State(web): State<Web>, member: Member, Form(fields): Form<Fields>) -> PageResult {
    let made = match (fields.scope(), last_moment(&fields.expires_on)) {
        (Ok(scope), Ok(expires_at)) => {
            let new = CreateApiKey { name: &fields.name, scope, expires_at };
            api_keys::create(&member.cx, web.ops(), &member.organization_id, new).await
        }
        (Err(error), _) | (_, Err(error)) => Err(error),
    };
    match made {
        Ok((key, secret)) => {
            // Not by a redirect: the secret is in this answer and nowhere else.
            let page = KeysPage::read(&web, &member).await?;
            Ok(view::page(&KeysPage { made: Some(Made { name: key.name, secret }), ..page }))
        }
        Err(error) => {
            let (status, wrong) = wrong(&member, error)?;
            let page = KeysPage::read(&web, &member).await?;
            let Fields { name: given, scope, expires_on } = fields;
            Ok(view::html(status, &KeysPage { wrong, given, scope, expires_on, ..page }))
        }
    }
}

async fn find(web: &Web, member: &Member, id: &str) -> Result<KeyPage, PageError> {
    let Member { cx, organization_id, place, frame } = member;
    let key = match id.parse::<ApiKeyId>() {
        Ok(id) => api_keys::show(cx, web.ops(), organization_id, &id).await,
        Err(_) => Err(Error::not_found("API key")),
    };
    let key = key.map_err(|error| PageError::from(error).within(frame.clone()))?;
    Ok(KeyPage {
        frame: frame.clone().at("api-keys"),
        place: place.clone(),
        wrong: Wrong::default(),
        expired: key.is_expired(cx.now()),
        changeable: place.role.covers(key.scope),
        roles: roles(place.role),
        given: key.name.clone(),
        scope: key.scope.as_str().to_owned(),
        expires_on: key.expires_at.map(day).unwrap_or_default(),
        key,
    })
}

async fn show(State(web): State<Web>, member: Member, Path((_, id)): Path<(String, String)>) -> PageResult {
    Ok(view::page(&find(&web, &member, &id).await?))
}

async fn update(
    State(web): State<Web>,
    member: Member,
    Path((_, id)): Path<(String, String)>,
    Form(fields): Form<Fields>,
) -> PageResult {
    let page = find(&web, &member, &id).await?;
    let changed = match (fields.scope(), last_moment(&fields.expires_on)) {
        (Ok(scope), Ok(expires_at)) => {
            // The day that is shown is not the moment: who leaves it alone changes nothing.
            let expires_at = (fields.expires_on != page.expires_on).then_some(expires_at);
            let changes = ApiKeyPatch { name: Some(fields.name.clone()), scope: Some(scope), expires_at };
            api_keys::update(&member.cx, web.ops(), &member.organization_id, &page.key.id, &changes).await
        }
        (Err(error), _) | (_, Err(error)) => Err(error),
    };
    match changed {
        Ok(_) => Ok(view::redirect_saying(&member.place.path("api-keys"), "Saved.")),
        Err(error) => {
            let (status, wrong) = wrong(&member, error)?;
            let Fields { name: given, scope, expires_on } = fields;
            Ok(view::html(status, &KeyPage { wrong, given, scope, expires_on, ..page }))
        }
    }
}

async fn delete(State(web): State<Web>, member: Member, Path((_, id)): Path<(String, String)>) -> PageResult {
    let page = find(&web, &member, &id).await?;
    let deleted = api_keys::delete(&member.cx, web.ops(), &member.organization_id, &page.key.id).await;
    deleted.map_err(|error| PageError::from(error).within(page.frame.clone()))?;
    let message = format!("The key {} is deleted. It works no more.", page.key.name);
    Ok(view::redirect_saying(&member.place.path("api-keys"), &message))
}

fn wrong(member: &Member, error: Error) -> Result<(StatusCode, Wrong), PageError> {
    let field = match error.code {
        Code::Conflict => Some("name"),
        Code::InvalidArguments if error.details.get("field").is_some_and(|it| it == "expires_at") => Some("expires_on"),
        _ => None,
    };
    let error = match field {
        Some(field) => error.with("field", field),
        None => error,
    };
    Wrong::of(error).map_err(|error| PageError::from(error).within(member.frame.clone()))
}

/// The day of a time, in UTC.
fn day(time: Timestamp) -> String {
    time.rfc3339().chars().take(10).collect()
}

/// The last moment of a day in UTC; none for an empty text.
fn last_moment(day: &str) -> Result<Option<Timestamp>, Error> {
    if day.is_empty() {
        return Ok(None);
    }
    let time = Timestamp::from_rfc3339(&format!("{day}T23:59:59.999Z"));
    time.map(Some)
        .ok_or_else(|| Error::invalid("expires_on", "This is no day. Write it as 2027-01-31, or leave it empty."))
}
