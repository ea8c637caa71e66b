//! `/organizations`.

use axum::extract::{FromRequestParts, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::request::Parts;
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use waypost_core::caller::{Caller, Ctx};
use waypost_core::id::OrganizationId;
use waypost_core::{Error, organization};
use waypost_ops::organizations::OrganizationPatch;
use waypost_ops::{logos, organizations, user_sessions};

use super::authenticate::Authenticated;
use super::extract::{Anybody, Json, Person, created};
use super::page::Page;
use crate::Web;
use crate::problem::{ApiError, ApiResult, Problems};
use crate::request_info::RequestInfo;

/// The operations on organisations.
pub(super) fn routes() -> OpenApiRouter<Web> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(get, update, delete)).routes(routes!(
        logo,
        set_logo,
        delete_logo
    ))
}

/// An organisation by the id in the path: any that the signed-in user is a member of, or the key's own.
struct At {
    cx: Ctx,
    organization_id: OrganizationId,
}

impl FromRequestParts<Web> for At {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, web: &Web) -> Result<Self, ApiError> {
        let missing = || Error::not_found("organisation");
        let info = RequestInfo::of(parts)?;
        let authenticated = parts.extensions.get::<Authenticated>().cloned().ok_or_else(missing)?;
        let path = axum::extract::Path::<String>::from_request_parts(parts, web).await;
        let id: OrganizationId = path.ok().and_then(|path| path.0.parse().ok()).ok_or_else(missing)?;
        let caller = match &authenticated.user {
            Some(user) => {
                let cx = web.context(user.clone(), &info);
                let mine = user_sessions::list_memberships(&cx, web.ops()).await?;
                let membership = mine.iter().find(|it| it.organization.id == id).ok_or_else(missing)?;
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

/// An organisation: the tenant.
#[derive(Debug, Serialize, ToSchema)]
struct Organization {
    #[schema(example = "org_0123456789abcdef")]
    id: String,
    /// Short name, unique.
    slug: String,
    name: String,
    /// RFC 3339.
    #[schema(format = DateTime)]
    created_at: String,
}

impl From<organization::Organization> for Organization {
    fn from(it: organization::Organization) -> Self {
        Self { id: it.id.to_string(), slug: it.slug, name: it.name, created_at: it.created_at.rfc3339() }
    }
}

/// An organisation that is to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewOrganization {
    /// Short name, unique: small letters, digits and `-`.
    #[schema(min_length = 2, max_length = 40, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])$", example = "acme")]
    slug: String,
    /// What it is called; by its slug when this is absent.
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
}

/// What is to be changed; what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct OrganizationChanges {
    /// Another short name. Addresses of the console change with it; those of servers do not.
    #[schema(min_length = 2, max_length = 40, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])$")]
    slug: Option<String>,
    /// Another name.
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
}

/// The organisations that the caller can see: a user's, or the key's own.
#[utoipa::path(get, path = "/organizations", tag = "organizations", operation_id = "list_organizations",
    responses((status = 200, body = Page<Organization>), Problems))]
async fn list(State(web): State<Web>, Anybody { cx }: Anybody) -> ApiResult<Json<Page<Organization>>> {
    let items = organizations::list(&cx, web.ops()).await?.into_iter().map(Organization::from).collect();
    Ok(Json(Page::whole(items)))
}

/// Makes an organisation, which the signed-in user owns then. API keys cannot.
#[utoipa::path(post, path = "/organizations", tag = "organizations", operation_id = "create_organization",
    request_body = NewOrganization, responses((status = 201, body = Organization), Problems))]
async fn create(
    State(web): State<Web>,
    Person { cx }: Person,
    Json(new): Json<NewOrganization>,
) -> ApiResult<Response> {
    let made = organizations::create(&cx, web.ops(), &new.slug, new.name.as_deref()).await?;
    Ok(created(&format!("organizations/{}", made.id), &Organization::from(made)))
}

/// An organisation.
#[utoipa::path(get, path = "/organizations/{id}", tag = "organizations", operation_id = "get_organization",
    params(("id" = String, Path, description = "`org_…`")),
    responses((status = 200, body = Organization), Problems))]
async fn get(State(web): State<Web>, At { cx, organization_id }: At) -> ApiResult<Json<Organization>> {
    Ok(Json(organizations::show(&cx, web.ops(), &organization_id).await?.into()))
}

/// Changes an organisation's name or slug. Needs the role `admin`.
#[utoipa::path(patch, path = "/organizations/{id}", tag = "organizations", operation_id = "update_organization",
    params(("id" = String, Path, description = "`org_…`")), request_body = OrganizationChanges,
    responses((status = 200, body = Organization), Problems))]
async fn update(
    State(web): State<Web>,
    At { cx, organization_id }: At,
    Json(changes): Json<OrganizationChanges>,
) -> ApiResult<Json<Organization>> {
    let changes = OrganizationPatch { slug: changes.slug, name: changes.name };
    Ok(Json(organizations::update(&cx, web.ops(), &organization_id, &changes).await?.into()))
}

/// Deletes an organisation and all that it owns: servers, walkthroughs, end users and their progress, members, keys. Its
/// audit log stays with the installation. Needs the role `owner`.
#[utoipa::path(delete, path = "/organizations/{id}", tag = "organizations", operation_id = "delete_organization",
    params(("id" = String, Path, description = "`org_…`")), responses((status = 204), Problems))]
async fn delete(State(web): State<Web>, At { cx, organization_id }: At) -> ApiResult<StatusCode> {
    organizations::delete(&cx, web.ops(), &organization_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The logo of an organisation: a PNG of at most 256 by 256 pixels.
#[utoipa::path(get, path = "/organizations/{id}/logo", tag = "organizations", operation_id = "get_organization_logo",
    params(("id" = String, Path, description = "`org_…`")),
    responses((status = 200, content_type = "image/png", body = Vec<u8>), Problems))]
async fn logo(State(web): State<Web>, At { cx, organization_id }: At) -> ApiResult<Response> {
    let logo = logos::show(&cx, web.ops(), &organization_id).await?.ok_or_else(|| Error::not_found("logo"))?;
    let headers = [(header::CONTENT_TYPE, "image/png"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    Ok((headers, logo).into_response())
}

/// Sets the logo from a file: PNG, JPEG, GIF or WebP, at most 1 MB, 4 megapixels and 4096 pixels on a side. Needs the role `admin`.
#[utoipa::path(put, path = "/organizations/{id}/logo", tag = "organizations", operation_id = "set_organization_logo",
    params(("id" = String, Path, description = "`org_…`")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 204), Problems))]
async fn set_logo(State(web): State<Web>, At { cx, organization_id }: At, file: LogoFile) -> ApiResult<StatusCode> {
    logos::set(&cx, web.ops(), &organization_id, file.0.to_vec()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes the logo away. Needs the role `admin`.
#[utoipa::path(delete, path = "/organizations/{id}/logo", tag = "organizations",
    operation_id = "delete_organization_logo", params(("id" = String, Path, description = "`org_…`")),
    responses((status = 204), Problems))]
async fn delete_logo(State(web): State<Web>, At { cx, organization_id }: At) -> ApiResult<StatusCode> {
    logos::remove(&cx, web.ops(), &organization_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The body, of whatever kind it says to be: what it is, its bytes tell.
struct LogoFile(Bytes);

impl axum::extract::FromRequest<Web> for LogoFile {
    type Rejection = ApiError;

    async fn from_request(request: axum::extract::Request, web: &Web) -> Result<Self, ApiError> {
        Bytes::from_request(request, web).await.map(Self).map_err(|rejection| {
            let message = "The file is larger than 1 MB, or broke off.";
            ApiError::new(rejection.status(), Error::invalid("logo", message))
        })
    }
}
