//! Organisations: making one, and its settings.

use askama::Template;
use axum::extract::{FromRequest, Multipart, Query, Request, State};
use axum::response::IntoResponse;
use http::{StatusCode, header};
use serde::Deserialize;
use waypost_core::access::Act;
use waypost_core::{Code, Error, Timestamp};
use waypost_ops::logos;
use waypost_ops::organizations::{self, OrganizationPatch};
use waypost_ops::overview::{self, Contents};

use super::form::Form;
use super::frame::{Frame, Place};
use super::routes::{Access, Routes};
use super::session::{Member, SignedIn};
use super::view::{self, PageError, PageResult, Wrong, counted};
use crate::Web;

/// The pages.
pub(super) fn routes() -> Routes {
    const READ: Access = Access::Member(Act::OrganizationRead);
    const UPDATE: Access = Access::Member(Act::OrganizationUpdate);
    Routes::new()
        .get("/organizations/new", Access::User, new)
        .post("/organizations/new", Access::User, create)
        .get("/organizations/slug", Access::User, slug_field)
        .get("/organizations/slug/check", Access::User, slug_state)
        .get("/o/{org}/logo", READ, logo)
        .get("/o/{org}/settings", UPDATE, settings)
        .post("/o/{org}/settings", UPDATE, update)
        .post("/o/{org}/settings/logo", UPDATE, set_logo)
        .post("/o/{org}/settings/logo/remove", UPDATE, remove_logo)
        .post("/o/{org}/settings/delete", Access::Member(Act::OrganizationDelete), delete)
}

/// What is said of a slug beside its field.
#[derive(Debug, Default)]
struct SlugState {
    fine: bool,
    /// Empty while there is nothing to say.
    message: String,
}

#[derive(Template)]
#[template(path = "organizations/new.html")]
struct NewPage<'a> {
    frame: Frame,
    wrong: Wrong,
    given: &'a str,
    slug: &'a str,
    suggested: &'a str,
    state: SlugState,
    /// Whether it is the first one.
    first: bool,
}

/// The field of the slug alone, while the name is typed.
#[derive(Template)]
#[template(path = "organizations/slug_field.html")]
struct SlugField<'a> {
    wrong: Wrong,
    slug: &'a str,
    suggested: &'a str,
    state: SlugState,
}

/// What is said of the slug alone, while it is typed.
#[derive(Template)]
#[template(path = "organizations/slug_state.html")]
struct SlugStatePart {
    state: SlugState,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields {
    name: String,
    slug: String,
    /// What was suggested last: as long as the slug is that, it follows the name.
    suggested: String,
    confirm: String,
}

async fn new(SignedIn { frame, memberships, .. }: SignedIn) -> PageResult {
    let (wrong, state) = (Wrong::default(), SlugState::default());
    Ok(view::page(&NewPage { frame, wrong, given: "", slug: "", suggested: "", state, first: memberships.is_empty() }))
}

async fn create(
    State(web): State<Web>,
    SignedIn { cx, frame, memberships, .. }: SignedIn,
    Form(fields): Form<Fields>,
) -> PageResult {
    match organizations::create(&cx, web.ops(), fields.slug.trim(), Some(&fields.name)).await {
        Ok(made) => Ok(view::redirect_saying(&format!("/o/{}", made.slug), "The organisation is there. You own it.")),
        Err(error) => {
            // The address is taken: that is about the slug.
            let error = if error.code == Code::Conflict { error.with("field", "slug") } else { error };
            let (status, wrong) = Wrong::of(error).map_err(|error| PageError::from(error).within(frame.clone()))?;
            let Fields { name: given, slug, suggested, .. } = &fields;
            let (state, first) = (SlugState::default(), memberships.is_empty());
            Ok(view::html(status, &NewPage { frame, wrong, given, slug, suggested, state, first }))
        }
    }
}

async fn slug_field(State(web): State<Web>, SignedIn { cx, .. }: SignedIn, Query(fields): Query<Fields>) -> PageResult {
    let follows = fields.slug.is_empty() || fields.slug == fields.suggested;
    let suggested = organizations::suggest_slug(&cx, web.ops(), &fields.name).await?;
    let slug = if follows { &suggested } else { &fields.slug };
    let state = judge(&web, &cx, slug).await?;
    Ok(view::page(&SlugField { wrong: Wrong::default(), slug, suggested: &suggested, state }))
}

async fn slug_state(State(web): State<Web>, SignedIn { cx, .. }: SignedIn, Query(fields): Query<Fields>) -> PageResult {
    Ok(view::page(&SlugStatePart { state: judge(&web, &cx, fields.slug.trim()).await? }))
}

async fn judge(web: &Web, cx: &waypost_core::caller::Ctx, slug: &str) -> Result<SlugState, Error> {
    if slug.is_empty() {
        return Ok(SlugState::default());
    }
    match organizations::check_slug(cx, web.ops(), slug).await {
        Ok(()) => Ok(SlugState { fine: true, message: format!("{slug} is free.") }),
        Err(error) if matches!(error.code, Code::Conflict | Code::InvalidArguments) => {
            Ok(SlugState { fine: false, message: error.message })
        }
        Err(error) => Err(error),
    }
}

async fn logo(State(web): State<Web>, Member { cx, organization_id, frame, .. }: Member) -> PageResult {
    let found = logos::show(&cx, web.ops(), &organization_id).await?;
    let png = found.ok_or_else(|| PageError::from(Error::not_found("logo")).within(frame))?;
    let headers = [
        (header::CONTENT_TYPE, "image/png"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "private, no-cache"),
    ];
    Ok((headers, png).into_response())
}

#[derive(Template)]
#[template(path = "organizations/settings.html")]
struct SettingsPage {
    frame: Frame,
    place: Place,
    wrong: Wrong,
    given: String,
    slug: String,
    logo: Option<Timestamp>,
    /// What a deletion destroys, line by line; for owners.
    destroyed: Option<Vec<String>>,
}

impl SettingsPage {
    async fn read(web: &Web, member: &Member) -> Result<Self, PageError> {
        let Member { cx, organization_id, place, frame } = member;
        let within = |error| PageError::from(error).within(frame.clone());
        let destroyed = if place.is_owner() {
            Some(destroyed(&overview::get_contents(cx, web.ops(), organization_id).await.map_err(within)?))
        } else {
            None
        };
        Ok(Self {
            frame: frame.clone().at("settings"),
            place: place.clone(),
            wrong: Wrong::default(),
            given: place.organization.name.clone(),
            slug: place.organization.slug.clone(),
            logo: logos::updated_at(cx, web.ops(), organization_id).await.map_err(within)?,
            destroyed,
        })
    }

    async fn refused(web: &Web, member: &Member, error: Error) -> Result<(StatusCode, Self), PageError> {
        let error = match error.code {
            Code::Conflict if !error.details.contains_key("field") => error.with("field", "slug"),
            _ => error,
        };
        let (status, wrong) = Wrong::of(error).map_err(|error| PageError::from(error).within(member.frame.clone()))?;
        Ok((status, Self { wrong, ..Self::read(web, member).await? }))
    }
}

/// What goes with an organisation, in words.
fn destroyed(contents: &Contents) -> Vec<String> {
    let Contents { servers, walkthroughs, end_users, members, api_keys } = *contents;
    vec![
        format!("{}: MCP clients that use them get an error", counted(servers, "server", "servers")),
        format!("{} with all drafts and versions", counted(walkthroughs, "walkthrough", "walkthroughs")),
        format!("{} with their progress and history", counted(end_users, "end user", "end users")),
        format!("{}: scripts that use them are refused", counted(api_keys, "API key", "API keys")),
        format!("the access of {}", counted(members, "member", "members")),
    ]
}

async fn settings(State(web): State<Web>, member: Member) -> PageResult {
    Ok(view::page(&SettingsPage::read(&web, &member).await?))
}

async fn update(State(web): State<Web>, member: Member, Form(fields): Form<Fields>) -> PageResult {
    let slug = fields.slug.trim().to_owned();
    let changes = OrganizationPatch { slug: Some(slug.clone()), name: Some(fields.name.clone()) };
    match organizations::update(&member.cx, web.ops(), &member.organization_id, &changes).await {
        Ok(organization) => Ok(view::redirect_saying(&format!("/o/{}/settings", organization.slug), "Saved.")),
        Err(error) => {
            let (status, page) = SettingsPage::refused(&web, &member, error).await?;
            Ok(view::html(status, &SettingsPage { given: fields.name, slug, ..page }))
        }
    }
}

async fn set_logo(State(web): State<Web>, member: Member, request: Request) -> PageResult {
    let set = match file(request, &web).await {
        Ok(file) => logos::set(&member.cx, web.ops(), &member.organization_id, file).await,
        Err(error) => Err(error),
    };
    match set {
        Ok(()) => Ok(view::redirect_saying(&member.place.path("settings"), "The logo is set.")),
        Err(error) => {
            let (status, page) = SettingsPage::refused(&web, &member, error).await?;
            Ok(view::html(status, &page))
        }
    }
}

/// The file in the form. Its name does not matter, and is not kept.
async fn file(request: Request, web: &Web) -> Result<Vec<u8>, Error> {
    let refused = || Error::invalid("logo", "Choose a file: PNG, JPEG, GIF or WebP, at most 1 MB.");
    let mut form = Multipart::from_request(request, web).await.map_err(|_| refused())?;
    while let Some(field) = form.next_field().await.map_err(|_| refused())? {
        if field.name() == Some("logo") {
            let bytes = field.bytes().await.map_err(|_| refused())?;
            return if bytes.is_empty() { Err(refused()) } else { Ok(bytes.to_vec()) };
        }
    }
    Err(refused())
}

async fn remove_logo(State(web): State<Web>, member: Member) -> PageResult {
    logos::remove(&member.cx, web.ops(), &member.organization_id).await?;
    Ok(view::redirect_saying(&member.place.path("settings"), "The logo is gone."))
}

async fn delete(State(web): State<Web>, member: Member, Form(fields): Form<Fields>) -> PageResult {
    let slug = &member.place.organization.slug;
    if fields.confirm != *slug {
        let error = Error::invalid("", format!("Nothing was deleted. Type {slug} to confirm."));
        let (status, page) = SettingsPage::refused(&web, &member, error).await?;
        return Ok(view::html(status, &page));
    }
    organizations::delete(&member.cx, web.ops(), &member.organization_id).await?;
    Ok(view::redirect_saying("/", &format!("{} is deleted.", member.place.organization.name)))
}
