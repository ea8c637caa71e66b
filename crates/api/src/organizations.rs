//! `/organizations`.

use axum::extract::{FromRequestParts, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::request::Parts;
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use waypost_core::caller::{Caller, Ctx};
use waypost_core::id::OrganizationId;
use waypost_core::{Error, organization};
use waypost_ops::organizations::OrganizationPatch;
use waypost_ops::{logos, organizations, user_sessions};

use crate::Web;
use crate::authenticate::AuthenticatedCaller;
use crate::extract::{AnyCaller, Json, SessionUser, created};
use crate::page::Page;
use crate::problem::{ApiError, ApiResult, Problems};
use crate::routes::{Routes, routes};
use waypost_http_kit::request_info::RequestInfo;

/// The operations on organisations.
pub(super) fn routes() -> Routes {
    Routes::new().routes(routes!(list, create)).routes(routes!(get, update, delete)).routes(routes!(
        logo,
        set_logo,
        delete_logo
    ))
}

/// The organisation in the path: any organisation of the signed-in user, or the organisation of the API key.
struct OrganizationPath {
    cx: Ctx,
    organization_id: OrganizationId,
}

impl FromRequestParts<Web> for OrganizationPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, web: &Web) -> Result<Self, ApiError> {
        let missing = || Error::not_found("organisation");
        let info = RequestInfo::from_parts(parts)?;
        let authenticated = parts.extensions.get::<AuthenticatedCaller>().cloned().ok_or_else(missing)?;
        let path = axum::extract::Path::<String>::from_request_parts(parts, web).await;
        let id: OrganizationId = path.ok().and_then(|path| path.0.parse().ok()).ok_or_else(missing)?;
        let caller = match &authenticated.user {
            Some(user) => {
                let cx = web.context(user.clone(), &info);
                let mine = user_sessions::list_memberships(&cx, web.ops()).await?;
                let membership = mine.iter().find(|membership| membership.organization.id == id).ok_or_else(missing)?;
                match user {
                    Caller::User { user_id } => user_sessions::member_caller(user_id, membership),
                    _ => return Err(missing().into()),
                }
            }
            None => authenticated.caller,
        };
        Ok(Self { cx: web.context(caller, &info), organization_id: id })
    }
}

/// An organisation.
#[derive(Debug, Serialize, ToSchema)]
struct Organization {
    #[schema(example = "org_0123456789abcdef")]
    id: String,
    /// The slug. Unique in the installation.
    slug: String,
    name: String,
    /// Whether toolboxes are on. If not, no toolbox is connected, and instances can be neither changed nor called.
    toolboxes_enabled: bool,
    /// Whether the gateway is on. If not, the requests of all agents of the organisation are rejected.
    gateway_enabled: bool,
    #[schema(format = DateTime)]
    created_at: String,
}

impl From<organization::Organization> for Organization {
    fn from(organization: organization::Organization) -> Self {
        Self {
            id: organization.id.to_string(),
            slug: organization.slug,
            name: organization.name,
            toolboxes_enabled: organization.toolboxes_enabled,
            gateway_enabled: organization.gateway_enabled,
            created_at: organization.created_at.rfc3339(),
        }
    }
}

/// An organisation to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct OrganizationCreate {
    /// The slug. Unique in the installation. Lowercase letters, digits and `-`.
    #[schema(min_length = 2, max_length = 40, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])$", example = "acme")]
    slug: String,
    /// The display name. Defaults to the slug.
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
}

/// Changes to an organisation. Absent members are not changed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct OrganizationUpdate {
    /// The new slug. It changes the URLs of the console, but not those of servers.
    #[schema(min_length = 2, max_length = 40, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])$")]
    slug: Option<String>,
    /// The new display name.
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    /// `false` switches toolboxes off: their links are closed, and instances can be neither changed nor called.
    /// Containers keep running.
    toolboxes_enabled: Option<bool>,
    /// `false` switches the gateway off: the requests of all agents of the organisation are rejected, and their streams
    /// end. Running calls may finish.
    gateway_enabled: Option<bool>,
}

/// Lists the organisations of the signed-in user, or the organisation of the API key.
#[utoipa::path(get, path = "/organizations", tag = "organizations", operation_id = "list_organizations",
    responses((status = 200, body = Page<Organization>), Problems))]
async fn list(State(web): State<Web>, AnyCaller { cx }: AnyCaller) -> ApiResult<Json<Page<Organization>>> {
    let items = organizations::list(&cx, web.ops()).await?.into_iter().map(Organization::from).collect();
    Ok(Json(Page::complete(items)))
}

/// Creates an organisation owned by the signed-in user.
///
/// API keys cannot create organisations.
#[utoipa::path(post, path = "/organizations", tag = "organizations", operation_id = "create_organization",
    request_body = OrganizationCreate, responses((status = 201, body = Organization), Problems))]
async fn create(
    State(web): State<Web>,
    SessionUser { cx }: SessionUser,
    Json(new): Json<OrganizationCreate>,
) -> ApiResult<Response> {
    let organization = organizations::create(&cx, web.ops(), &new.slug, new.name.as_deref()).await?;
    Ok(created(&format!("organizations/{}", organization.id), &Organization::from(organization)))
}

/// Returns an organisation.
#[utoipa::path(get, path = "/organizations/{id}", tag = "organizations", operation_id = "get_organization",
    params(("id" = String, Path, description = "The ID of the organisation (`org_…`).")),
    responses((status = 200, body = Organization), Problems))]
async fn get(
    State(web): State<Web>,
    OrganizationPath { cx, organization_id }: OrganizationPath,
) -> ApiResult<Json<Organization>> {
    Ok(Json(organizations::get(&cx, web.ops(), &organization_id).await?.into()))
}

/// Updates an organisation.
///
/// Requires the role `admin`.
#[utoipa::path(patch, path = "/organizations/{id}", tag = "organizations", operation_id = "update_organization",
    params(("id" = String, Path, description = "The ID of the organisation (`org_…`).")),
    request_body = OrganizationUpdate,
    responses((status = 200, body = Organization), Problems))]
async fn update(
    State(web): State<Web>,
    OrganizationPath { cx, organization_id }: OrganizationPath,
    Json(changes): Json<OrganizationUpdate>,
) -> ApiResult<Json<Organization>> {
    let changes = OrganizationPatch {
        slug: changes.slug,
        name: changes.name,
        toolboxes_enabled: changes.toolboxes_enabled,
        gateway_enabled: changes.gateway_enabled,
    };
    Ok(Json(organizations::update(&cx, web.ops(), &organization_id, &changes).await?.into()))
}

/// Deletes an organisation and everything it owns.
///
/// Deletes servers, walkthroughs, end users and their progress, memberships and API keys. The installation keeps the
/// audit log. Requires the role `owner`.
#[utoipa::path(delete, path = "/organizations/{id}", tag = "organizations", operation_id = "delete_organization",
    params(("id" = String, Path, description = "The ID of the organisation (`org_…`).")),
    responses((status = 204), Problems))]
async fn delete(
    State(web): State<Web>,
    OrganizationPath { cx, organization_id }: OrganizationPath,
) -> ApiResult<StatusCode> {
    organizations::delete(&cx, web.ops(), &organization_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Returns the logo of an organisation, a PNG of at most 256 by 256 pixels.
#[utoipa::path(get, path = "/organizations/{id}/logo", tag = "organizations", operation_id = "get_organization_logo",
    params(("id" = String, Path, description = "The ID of the organisation (`org_…`).")),
    responses((status = 200, content_type = "image/png", body = Vec<u8>), Problems))]
async fn logo(
    State(web): State<Web>,
    OrganizationPath { cx, organization_id }: OrganizationPath,
) -> ApiResult<Response> {
    let logo = logos::find(&cx, web.ops(), &organization_id).await?.ok_or_else(|| Error::not_found("logo"))?;
    let headers = [(header::CONTENT_TYPE, "image/png"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    Ok((headers, logo).into_response())
}

/// Sets the logo of an organisation.
///
/// The body is a PNG, JPEG, GIF or WebP file of at most 1 MB, 4 megapixels and 4096 pixels on a side. Requires the role
/// `admin`.
#[utoipa::path(put, path = "/organizations/{id}/logo", tag = "organizations", operation_id = "set_organization_logo",
    params(("id" = String, Path, description = "The ID of the organisation (`org_…`).")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 204), Problems))]
async fn set_logo(
    State(web): State<Web>,
    OrganizationPath { cx, organization_id }: OrganizationPath,
    file: LogoFile,
) -> ApiResult<StatusCode> {
    logos::set(&cx, web.ops(), &organization_id, file.0.to_vec()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Deletes the logo of an organisation.
///
/// Requires the role `admin`.
#[utoipa::path(delete, path = "/organizations/{id}/logo", tag = "organizations",
    operation_id = "delete_organization_logo",
    params(("id" = String, Path, description = "The ID of the organisation (`org_…`).")),
    responses((status = 204), Problems))]
async fn delete_logo(
    State(web): State<Web>,
    OrganizationPath { cx, organization_id }: OrganizationPath,
) -> ApiResult<StatusCode> {
    logos::delete(&cx, web.ops(), &organization_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The file in the body. Its `Content-Type` is ignored; the format is detected from the content.
struct LogoFile(Bytes);

impl axum::extract::FromRequest<Web> for LogoFile {
    type Rejection = ApiError;

    async fn from_request(request: axum::extract::Request, web: &Web) -> Result<Self, ApiError> {
        Bytes::from_request(request, web).await.map(Self).map_err(|rejection| {
            let message = "The file is too large or incomplete. The limit is 1 MB.";
            ApiError::new(rejection.status(), Error::invalid("logo", message))
        })
    }
}
