//! Creating an organisation, and its settings.

use askama::Template;
use axum::extract::{FromRequest, Multipart, Query, Request, State};
use axum::response::IntoResponse;
use http::{StatusCode, header};
use serde::Deserialize;
use waypost_core::access::Operation;
use waypost_core::{Code, Error, Timestamp};
use waypost_ops::logos;
use waypost_ops::organizations::{self, OrganizationPatch};
use waypost_ops::overview::{self, OrganizationContents};

use crate::Console;
use crate::form::Form;
use crate::layout::{CurrentOrganization, Layout};
use crate::routes::{Access, Routes};
use crate::session::{CurrentUser, Member};
use crate::view::{self, FormError, PageError, PageResult, pluralize};

/// Returns the routes of these pages.
pub(super) fn routes() -> Routes {
    const READ: Access = Access::Member(Operation::OrganizationRead);
    const UPDATE: Access = Access::Member(Operation::OrganizationUpdate);
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
        .post("/o/{org}/settings/gateway/enable", UPDATE, enable_gateway)
        .post("/o/{org}/settings/gateway/disable", UPDATE, disable_gateway)
        .post("/o/{org}/settings/delete", Access::Member(Operation::OrganizationDelete), delete)
}

/// The availability of a slug, shown next to its field.
#[derive(Debug, Default)]
struct SlugState {
    is_available: bool,
    /// Empty if no slug is entered.
    message: String,
}

#[derive(Template)]
#[template(path = "organizations/new.html")]
struct NewOrganizationPage<'a> {
    layout: Layout,
    form_error: FormError,
    entered_name: &'a str,
    slug: &'a str,
    suggested: &'a str,
    state: SlugState,
    /// Whether this is the user's first organisation.
    is_first: bool,
}

/// The slug field, refreshed while the user types the name.
#[derive(Template)]
#[template(path = "organizations/slug_field.html")]
struct SlugFieldFragment<'a> {
    form_error: FormError,
    slug: &'a str,
    suggested: &'a str,
    state: SlugState,
}

/// The availability of the slug, refreshed while the user types the slug.
#[derive(Template)]
#[template(path = "organizations/slug_state.html")]
struct SlugStateFragment {
    state: SlugState,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OrganizationForm {
    name: String,
    slug: String,
    /// The last suggestion. While the slug equals it, the slug follows the name.
    suggested: String,
    confirm: String,
}

async fn new(CurrentUser { layout, memberships, .. }: CurrentUser) -> PageResult {
    let (form_error, state) = (FormError::default(), SlugState::default());
    Ok(view::page(&NewOrganizationPage {
        layout,
        form_error,
        entered_name: "",
        slug: "",
        suggested: "",
        state,
        is_first: memberships.is_empty(),
    }))
}

async fn create(
    State(console): State<Console>,
    CurrentUser { cx, layout, memberships, .. }: CurrentUser,
    Form(fields): Form<OrganizationForm>,
) -> PageResult {
    match organizations::create(&cx, console.ops(), fields.slug.trim(), Some(&fields.name)).await {
        Ok(created) => Ok(view::redirect_with_flash(&format!("/o/{}", created.slug), "Organisation created.")),
        Err(error) => {
            // A conflict means that the slug is taken.
            let error = if error.code == Code::Conflict { error.with("field", "slug") } else { error };
            let (status, form_error) =
                FormError::from_error(error).map_err(|error| PageError::from(error).with_layout(layout.clone()))?;
            let OrganizationForm { name: entered_name, slug, suggested, .. } = &fields;
            let (state, is_first) = (SlugState::default(), memberships.is_empty());
            Ok(view::html(
                status,
                &NewOrganizationPage { layout, form_error, entered_name, slug, suggested, state, is_first },
            ))
        }
    }
}

async fn slug_field(
    State(console): State<Console>,
    CurrentUser { cx, .. }: CurrentUser,
    Query(fields): Query<OrganizationForm>,
) -> PageResult {
    let follows = fields.slug.is_empty() || fields.slug == fields.suggested;
    let suggested = organizations::suggest_slug(&cx, console.ops(), &fields.name).await?;
    let slug = if follows { &suggested } else { &fields.slug };
    let state = check_slug(&console, &cx, slug).await?;
    Ok(view::page(&SlugFieldFragment { form_error: FormError::default(), slug, suggested: &suggested, state }))
}

async fn slug_state(
    State(console): State<Console>,
    CurrentUser { cx, .. }: CurrentUser,
    Query(fields): Query<OrganizationForm>,
) -> PageResult {
    Ok(view::page(&SlugStateFragment { state: check_slug(&console, &cx, fields.slug.trim()).await? }))
}

async fn check_slug(console: &Console, cx: &waypost_core::caller::Ctx, slug: &str) -> Result<SlugState, Error> {
    if slug.is_empty() {
        return Ok(SlugState::default());
    }
    match organizations::check_slug(cx, console.ops(), slug).await {
        Ok(()) => Ok(SlugState { is_available: true, message: format!("{slug} is available.") }),
        Err(error) if matches!(error.code, Code::Conflict | Code::InvalidArguments) => {
            Ok(SlugState { is_available: false, message: error.message })
        }
        Err(error) => Err(error),
    }
}

async fn logo(State(console): State<Console>, Member { cx, organization_id, layout, .. }: Member) -> PageResult {
    let logo = logos::find(&cx, console.ops(), &organization_id).await?;
    let png = logo.ok_or_else(|| PageError::from(Error::not_found("logo")).with_layout(layout))?;
    let headers = [
        (header::CONTENT_TYPE, "image/png"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "private, no-cache"),
    ];
    Ok((headers, png).into_response())
}

#[derive(Template)]
#[template(path = "organizations/settings.html")]
struct OrganizationSettingsPage {
    layout: Layout,
    org: CurrentOrganization,
    form_error: FormError,
    entered_name: String,
    slug: String,
    logo: Option<Timestamp>,
    /// The consequences of a deletion, one per line. `None` if the viewer is not an owner.
    deletion_summary: Option<Vec<String>>,
}

impl OrganizationSettingsPage {
    async fn load(console: &Console, member: &Member) -> Result<Self, PageError> {
        let Member { cx, organization_id, org, layout } = member;
        let page_error = |error| PageError::from(error).with_layout(layout.clone());
        let deletion_summary = if org.is_owner() {
            Some(deletion_summary(
                &overview::get_contents(cx, console.ops(), organization_id).await.map_err(page_error)?,
            ))
        } else {
            None
        };
        Ok(Self {
            layout: layout.clone().with_section("settings"),
            org: org.clone(),
            form_error: FormError::default(),
            entered_name: org.organization.name.clone(),
            slug: org.organization.slug.clone(),
            logo: logos::find_updated_at(cx, console.ops(), organization_id).await.map_err(page_error)?,
            deletion_summary,
        })
    }

    async fn with_error(console: &Console, member: &Member, error: Error) -> Result<(StatusCode, Self), PageError> {
        let error = match error.code {
            Code::Conflict if !error.details.contains_key("field") => error.with("field", "slug"),
            _ => error,
        };
        let (status, form_error) =
            FormError::from_error(error).map_err(|error| PageError::from(error).with_layout(member.layout.clone()))?;
        Ok((status, Self { form_error, ..Self::load(console, member).await? }))
    }
}

/// Returns the consequences of deleting an organisation, one per line.
fn deletion_summary(contents: &OrganizationContents) -> Vec<String> {
    let OrganizationContents { servers, walkthroughs, end_users, members, api_keys } = *contents;
    vec![
        format!("{}: MCP clients that use them will get an error", pluralize(servers, "server", "servers")),
        format!("{} with all drafts and versions", pluralize(walkthroughs, "walkthrough", "walkthroughs")),
        format!("{} with their progress and history", pluralize(end_users, "end user", "end users")),
        format!("{}: scripts that use them will be rejected", pluralize(api_keys, "API key", "API keys")),
        format!("the access of {}", pluralize(members, "member", "members")),
    ]
}

async fn settings(State(console): State<Console>, member: Member) -> PageResult {
    Ok(view::page(&OrganizationSettingsPage::load(&console, &member).await?))
}

async fn update(State(console): State<Console>, member: Member, Form(fields): Form<OrganizationForm>) -> PageResult {
    let slug = fields.slug.trim().to_owned();
    let changes = OrganizationPatch { slug: Some(slug.clone()), name: Some(fields.name.clone()), ..Default::default() };
    match organizations::update(&member.cx, console.ops(), &member.organization_id, &changes).await {
        Ok(organization) => Ok(view::redirect_with_flash(&format!("/o/{}/settings", organization.slug), "Saved.")),
        Err(error) => {
            let (status, page) = OrganizationSettingsPage::with_error(&console, &member, error).await?;
            Ok(view::html(status, &OrganizationSettingsPage { entered_name: fields.name, slug, ..page }))
        }
    }
}

async fn set_logo(State(console): State<Console>, member: Member, request: Request) -> PageResult {
    let set = match read_logo(request, &console).await {
        Ok(file) => logos::set(&member.cx, console.ops(), &member.organization_id, file).await,
        Err(error) => Err(error),
    };
    match set {
        Ok(()) => Ok(view::redirect_with_flash(&member.org.path("settings"), "Logo saved.")),
        Err(error) => {
            let (status, page) = OrganizationSettingsPage::with_error(&console, &member, error).await?;
            Ok(view::html(status, &page))
        }
    }
}

/// Reads the uploaded file. The file name is ignored.
async fn read_logo(request: Request, console: &Console) -> Result<Vec<u8>, Error> {
    let invalid_logo = || Error::invalid("logo", "Select a PNG, JPEG, GIF or WebP file of at most 1 MB.");
    let mut form = Multipart::from_request(request, console).await.map_err(|_| invalid_logo())?;
    while let Some(field) = form.next_field().await.map_err(|_| invalid_logo())? {
        if field.name() == Some("logo") {
            let bytes = field.bytes().await.map_err(|_| invalid_logo())?;
            return if bytes.is_empty() { Err(invalid_logo()) } else { Ok(bytes.to_vec()) };
        }
    }
    Err(invalid_logo())
}

async fn remove_logo(State(console): State<Console>, member: Member) -> PageResult {
    logos::delete(&member.cx, console.ops(), &member.organization_id).await?;
    Ok(view::redirect_with_flash(&member.org.path("settings"), "Logo removed."))
}

async fn enable_gateway(State(console): State<Console>, member: Member) -> PageResult {
    switch_gateway(&console, &member, true, "Gateway switched on.").await
}

async fn disable_gateway(State(console): State<Console>, member: Member) -> PageResult {
    switch_gateway(&console, &member, false, "Gateway switched off.").await
}

async fn switch_gateway(console: &Console, member: &Member, is_on: bool, message: &str) -> PageResult {
    let changes = OrganizationPatch { gateway_enabled: Some(is_on), ..OrganizationPatch::default() };
    organizations::update(&member.cx, console.ops(), &member.organization_id, &changes).await?;
    Ok(view::redirect_with_flash(&member.org.path("settings"), message))
}

async fn delete(State(console): State<Console>, member: Member, Form(fields): Form<OrganizationForm>) -> PageResult {
    let slug = &member.org.organization.slug;
    if fields.confirm != *slug {
        let error = Error::invalid("", format!("Type {slug} to confirm. Nothing was deleted."));
        let (status, page) = OrganizationSettingsPage::with_error(&console, &member, error).await?;
        return Ok(view::html(status, &page));
    }
    organizations::delete(&member.cx, console.ops(), &member.organization_id).await?;
    Ok(view::redirect_with_flash("/", &format!("{} deleted.", member.org.organization.name)))
}
