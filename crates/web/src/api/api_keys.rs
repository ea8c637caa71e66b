//! `/api-keys`.

use axum::extract::State;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use waypost_core::id::ApiKeyId;
use waypost_core::{Error, Result, Timestamp, organization};
use waypost_ops::api_keys::{self, ApiKeyPatch};

use super::extract::{Json, Path, Scope, created, id, nullable};
use super::members::Role;
use super::page::Page;
use crate::Web;
use crate::problem::{ApiResult, Problems};

/// The operations on API keys.
pub(super) fn routes() -> OpenApiRouter<Web> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(get, update, delete))
}

/// An API key, without its secret.
#[derive(Debug, Serialize, ToSchema)]
struct ApiKey {
    #[schema(example = "key_0123456789abcdef")]
    id: String,
    /// Name for people, unique in the organisation.
    name: String,
    /// The role that it acts as.
    scope: Role,
    /// RFC 3339.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it stops working, RFC 3339; null when it works until it is deleted.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// When it was last used, to the minute, RFC 3339; null when it never was.
    #[schema(format = DateTime)]
    last_used_at: Option<String>,
}

impl From<organization::ApiKey> for ApiKey {
    fn from(it: organization::ApiKey) -> Self {
        Self {
            id: it.id.to_string(),
            name: it.name,
            scope: it.scope.into(),
            created_at: it.created_at.rfc3339(),
            expires_at: it.expires_at.map(Timestamp::rfc3339),
            last_used_at: it.last_used_at.map(Timestamp::rfc3339),
        }
    }
}

/// A key with its secret, which is shown this once.
#[derive(Debug, Serialize, ToSchema)]
struct CreatedApiKey {
    #[serde(flatten)]
    about: ApiKey,
    /// The secret: `Authorization: Bearer wpk_…`. It cannot be had again.
    key: String,
}

/// A key that is to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewApiKey {
    /// Name for people, unique in the organisation.
    #[schema(min_length = 1, max_length = 200, example = "CI")]
    name: String,
    /// The role that it acts as, at most the caller's own. A caller with an API key can only create keys with fewer rights or an
    /// earlier end than that key; they are deleted with it.
    scope: Role,
    /// When it stops working, RFC 3339, at most ten years from now; without it, it works until it is deleted.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
}

/// What is to be changed; what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ApiKeyChanges {
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    /// Another role, at most the caller's own.
    scope: Option<Role>,
    /// Another end, RFC 3339; null for none.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Option<String>>,
}

/// The API keys of the organisation, by name, without their secrets. Needs the role `admin`.
#[utoipa::path(get, path = "/api-keys", tag = "api-keys", operation_id = "list_api_keys",
    responses((status = 200, body = Page<ApiKey>), Problems))]
async fn list(State(web): State<Web>, Scope { cx, organization_id }: Scope) -> ApiResult<Json<Page<ApiKey>>> {
    let items = api_keys::list(&cx, web.ops(), &organization_id).await?.into_iter().map(ApiKey::from).collect();
    Ok(Json(Page::whole(items)))
}

/// Makes an API key. Its secret is in the answer, this once. Needs the role `admin`; no key is made above the caller's own
/// role.
#[utoipa::path(post, path = "/api-keys", tag = "api-keys", operation_id = "create_api_key",
    request_body = NewApiKey, responses((status = 201, body = CreatedApiKey), Problems))]
async fn create(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Json(new): Json<NewApiKey>,
) -> ApiResult<Response> {
    let expires_at = new.expires_at.as_deref().map(time).transpose()?;
    let key = api_keys::CreateApiKey { name: &new.name, scope: new.scope.into(), expires_at };
    let (made, key) = api_keys::create(&cx, web.ops(), &organization_id, key).await?;
    let body = CreatedApiKey { about: made.into(), key };
    let mut response = created(&format!("api-keys/{}", body.about.id), &body);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// An API key, without its secret. Needs the role `admin`.
#[utoipa::path(get, path = "/api-keys/{id}", tag = "api-keys", operation_id = "get_api_key",
    params(("id" = String, Path, description = "`key_…`")), responses((status = 200, body = ApiKey), Problems))]
async fn get(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<Json<ApiKey>> {
    Ok(Json(api_keys::show(&cx, web.ops(), &organization_id, &id(&text, "API key")?).await?.into()))
}

/// Changes name, scope and end of an API key; its secret stays. Needs the role `admin`, and a role that covers the key's
/// scope before and after.
#[utoipa::path(patch, path = "/api-keys/{id}", tag = "api-keys", operation_id = "update_api_key",
    params(("id" = String, Path, description = "`key_…`")), request_body = ApiKeyChanges,
    responses((status = 200, body = ApiKey), Problems))]
async fn update(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
    Json(changes): Json<ApiKeyChanges>,
) -> ApiResult<Json<ApiKey>> {
    let key: ApiKeyId = id(&text, "API key")?;
    let expires_at = match changes.expires_at {
        None => None,
        Some(None) => Some(None),
        Some(Some(text)) => Some(Some(time(&text)?)),
    };
    let changes = ApiKeyPatch { name: changes.name, scope: changes.scope.map(Into::into), expires_at };
    Ok(Json(api_keys::update(&cx, web.ops(), &organization_id, &key, &changes).await?.into()))
}

/// Deletes an API key: calls with its secret are refused at once. Needs the role `admin`.
#[utoipa::path(delete, path = "/api-keys/{id}", tag = "api-keys", operation_id = "delete_api_key",
    params(("id" = String, Path, description = "`key_…`")), responses((status = 204), Problems))]
async fn delete(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<StatusCode> {
    let key: ApiKeyId = id(&text, "API key")?;
    api_keys::delete(&cx, web.ops(), &organization_id, &key).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn time(text: &str) -> Result<Timestamp> {
    Timestamp::from_rfc3339(text).ok_or_else(|| {
        Error::invalid("expires_at", "`expires_at` is a time by RFC 3339, such as `2027-01-31T00:00:00Z`.")
    })
}
