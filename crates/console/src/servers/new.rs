//! Creating a server. The slug is suggested from the name and checked while the user types.

use askama::Template;
use axum::extract::{Query, State};
use http::StatusCode;
use serde::Deserialize;
use waypost_core::Error;
use waypost_core::id::ServerId;
use waypost_ops::servers::{self, ServerSettings};

use super::super::form::Form;
use super::super::layout::Layout;
use super::super::session::Member;
use super::super::view::{self, FormError, PageResult};
use crate::Console;
use waypost_http_kit::request_info::RequestInfo;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ServerForm {
    name: String,
    slug: String,
    product_name: String,
}

#[derive(Template)]
#[template(path = "servers/new.html")]
struct NewServerPage {
    layout: Layout,
    form_error: FormError,
    base: String,
    fields: ServerForm,
    slug: SlugField,
}

impl NewServerPage {
    /// Returns the attributes that refresh the slug field when the name changes.
    fn name_extra(&self) -> String {
        format!(
            r##"required maxlength="200" autocomplete="off" hx-get="{}/slug?part=field" hx-trigger="input changed delay:300ms" hx-target="#slug-field" hx-swap="outerHTML" hx-include="closest form" hx-sync="closest form:replace""##,
            self.base
        )
    }
}

/// The slug field, refreshed by htmx when the name changes.
#[derive(Template)]
#[template(path = "servers/slug.html")]
struct SlugField {
    form_error: FormError,
    base: String,
    value: String,
    /// The last suggestion. While the slug equals it, the slug follows the name.
    suggested: String,
    address: String,
}

impl SlugField {
    fn hint(&self) -> String {
        format!("3 to 40 lowercase letters, digits and hyphens. Part of the MCP URL: {}", self.address)
    }

    fn extra(&self) -> String {
        slug_extra(&self.base, "")
    }
}

/// Returns the attributes of a slug field. While the user types, htmx checks whether the slug is available to the
/// server with the ID `own`, which is empty for a new server.
pub(super) fn slug_extra(base: &str, own: &str) -> String {
    let own = if own.is_empty() { String::new() } else { format!("?server={own}") };
    format!(
        r##"required minlength="3" maxlength="40" autocomplete="off" autocapitalize="none" spellcheck="false" hx-get="{base}/slug{own}" hx-trigger="input changed delay:300ms, load" hx-target="#slug-check" hx-include="this""##
    )
}

/// The availability of the slug.
#[derive(Template)]
#[template(path = "servers/slug_check.html")]
struct SlugCheckFragment {
    reason: Option<String>,
    slug: String,
}

fn address(console: &Console, info: &RequestInfo) -> String {
    let whole = console.public_url.path_urls(&info.authority, "SLUG").resource(None);
    whole.replacen("SLUG", "…", 1)
}

pub(super) async fn show(State(console): State<Console>, info: RequestInfo, member: Member) -> PageResult {
    form(&console, &info, &member, StatusCode::OK, FormError::default(), ServerForm::default())
}

fn form(
    console: &Console,
    info: &RequestInfo,
    member: &Member,
    status: StatusCode,
    form_error: FormError,
    fields: ServerForm,
) -> PageResult {
    let base = member.org.path("servers");
    let slug = SlugField {
        form_error: form_error.clone(),
        base: base.clone(),
        value: fields.slug.clone(),
        suggested: String::new(),
        address: address(console, info),
    };
    Ok(view::html(
        status,
        &NewServerPage { layout: member.layout.clone().with_section("servers"), form_error, base, fields, slug },
    ))
}

pub(super) async fn create(
    State(console): State<Console>,
    info: RequestInfo,
    member: Member,
    Form(fields): Form<ServerForm>,
) -> PageResult {
    let optional = |text: &str| Some(text.to_owned()).filter(|text| !text.trim().is_empty());
    let settings = ServerSettings {
        name: Some(fields.name.clone()),
        product_name: optional(&fields.product_name),
        ..ServerSettings::default()
    };
    let slug = fields.slug.trim();
    match servers::create(&member.cx, console.ops(), &member.organization_id, slug, &settings).await {
        Ok(server) => {
            let location = member.org.path(&format!("servers/{}/walkthroughs", server.id));
            Ok(view::redirect_with_flash(&location, "Server created. Now assign walkthroughs to it."))
        }
        Err(error) => {
            let (status, form_error) = FormError::from_error(error)?;
            form(&console, &info, &member, status, form_error, fields)
        }
    }
}

/// The query parameters of the slug check.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct SlugQuery {
    /// `field` for the whole slug field, otherwise only the availability.
    part: String,
    name: String,
    slug: String,
    suggested: String,
    /// The ID of the server that the slug is for. Empty for a new server.
    server: String,
}

pub(super) async fn slug(
    State(console): State<Console>,
    info: RequestInfo,
    member: Member,
    Query(query): Query<SlugQuery>,
) -> PageResult {
    let Member { cx, organization_id, org, .. } = &member;
    if query.part == "field" {
        let untouched = query.slug.is_empty() || query.slug == query.suggested;
        let suggested = match query.name.trim() {
            "" => String::new(),
            name => servers::suggest_slug(cx, console.ops(), organization_id, name).await?,
        };
        let value = if untouched { suggested.clone() } else { query.slug };
        let (form_error, base) = (FormError::default(), org.path("servers"));
        return Ok(view::page(&SlugField { form_error, base, value, suggested, address: address(&console, &info) }));
    }
    let own = match query.server.as_str() {
        "" => None,
        text => Some(text.parse::<ServerId>().map_err(|_| Error::not_found("server"))?),
    };
    let slug = query.slug.trim().to_owned();
    if let Some(id) = &own
        && servers::get(cx, console.ops(), organization_id, id).await?.slug == slug
    {
        // The slug is unchanged.
        return Ok(view::page(&SlugCheckFragment { reason: None, slug: String::new() }));
    }
    let reason = servers::find_slug_problem(cx, console.ops(), organization_id, &slug, own.as_ref()).await?;
    Ok(view::page(&SlugCheckFragment { reason, slug }))
}
