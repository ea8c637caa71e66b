//! `/api-keys`.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use waypost_core::id::ApiKeyId;
use waypost_core::{Timestamp, organization};
use waypost_ops::api_keys::{self, ApiKeyPatch};

use crate::Web;
use crate::extract::{Json, Path, Scope, created, no_store, nullable, parse_id, parse_nullable_time, parse_time};
use crate::page::Page;
use crate::problem::{ApiResult, Problems};
use crate::routes::{Routes, routes};
use waypost_core::organization::Role;

/// The operations on API keys.
pub(super) fn routes() -> Routes {
    Routes::new().routes(routes!(list, create)).routes(routes!(get, update, delete))
}

/// An API key, without its secret.
#[derive(Debug, Serialize, ToSchema)]
struct ApiKey {
    #[schema(example = "key_0123456789abcdef")]
    id: String,
    /// The display name, unique in the organisation.
    name: String,
    /// The role of the key.
    scope: Role,
    #[schema(format = DateTime)]
    created_at: String,
    /// The time at which the key expires. Null if it does not expire.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// The time of the last use, to the minute. Null if the key has never been used.
    #[schema(format = DateTime)]
    last_used_at: Option<String>,
}

impl From<organization::ApiKey> for ApiKey {
    fn from(api_key: organization::ApiKey) -> Self {
        Self {
            id: api_key.id.to_string(),
            name: api_key.name,
            scope: api_key.scope,
            created_at: api_key.created_at.rfc3339(),
            expires_at: api_key.expires_at.map(Timestamp::rfc3339),
            last_used_at: api_key.last_used_at.map(Timestamp::rfc3339),
        }
    }
}

/// An API key with its secret.
#[derive(Debug, Serialize, ToSchema)]
struct ApiKeyWithSecret {
    #[serde(flatten)]
    api_key: ApiKey,
    /// The secret, sent as `Authorization: Bearer wpk_…`. It is returned only once.
    key: String,
}

/// An API key to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ApiKeyCreate {
    /// The display name, unique in the organisation.
    #[schema(min_length = 1, max_length = 200, example = "CI")]
    name: String,
    /// The role of the key. It cannot exceed the caller's own role. A key created with another API key can have neither
    /// more rights nor a later expiry than that key, and must have fewer rights or an earlier expiry. It is deleted
    /// together with that key.
    scope: Role,
    /// The time at which the key expires, at most ten years from now. By default it does not expire.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
}

/// Changes to an API key. Absent members are not changed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ApiKeyUpdate {
    /// The new display name, unique in the organisation.
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    /// The new role. It cannot exceed the caller's own role.
    scope: Option<Role>,
    /// The time at which the key expires, at most ten years from now. Null removes the expiry.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Option<String>>,
}

/// Lists the API keys of the organisation without their secrets, sorted by name.
///
/// Requires the role `admin`.
#[utoipa::path(get, path = "/api-keys", tag = "api-keys", operation_id = "list_api_keys",
    responses((status = 200, body = Page<ApiKey>), Problems))]
async fn list(State(web): State<Web>, Scope { cx, organization_id }: Scope) -> ApiResult<Json<Page<ApiKey>>> {
    let items = api_keys::list(&cx, web.ops(), &organization_id).await?.into_iter().map(ApiKey::from).collect();
    Ok(Json(Page::complete(items)))
}

/// Creates an API key.
///
/// The response is the only one that contains the secret. Requires the role `admin`. The role of the key cannot exceed
/// the caller's own role.
#[utoipa::path(post, path = "/api-keys", tag = "api-keys", operation_id = "create_api_key",
    request_body = ApiKeyCreate, responses((status = 201, body = ApiKeyWithSecret), Problems))]
async fn create(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Json(new): Json<ApiKeyCreate>,
) -> ApiResult<Response> {
    let expires_at = new.expires_at.as_deref().map(|text| parse_time("expires_at", text)).transpose()?;
    let key = api_keys::CreateApiKey { name: &new.name, scope: new.scope, expires_at };
    let (api_key, secret) = api_keys::create(&cx, web.ops(), &organization_id, key).await?;
    let body = ApiKeyWithSecret { api_key: api_key.into(), key: secret };
    Ok(no_store(created(&format!("api-keys/{}", body.api_key.id), &body)))
}

/// Returns an API key without its secret.
///
/// Requires the role `admin`.
#[utoipa::path(get, path = "/api-keys/{id}", tag = "api-keys", operation_id = "get_api_key",
    params(("id" = String, Path, description = "The ID of the API key (`key_…`).")),
    responses((status = 200, body = ApiKey), Problems))]
async fn get(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<Json<ApiKey>> {
    Ok(Json(api_keys::get(&cx, web.ops(), &organization_id, &parse_id(&text, "API key")?).await?.into()))
}

/// Updates the name, role or expiry of an API key.
///
/// The secret does not change. Requires the role `admin`. Neither the current nor the new role of the key can exceed
/// the caller's own role.
#[utoipa::path(patch, path = "/api-keys/{id}", tag = "api-keys", operation_id = "update_api_key",
    params(("id" = String, Path, description = "The ID of the API key (`key_…`).")), request_body = ApiKeyUpdate,
    responses((status = 200, body = ApiKey), Problems))]
async fn update(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
    Json(changes): Json<ApiKeyUpdate>,
) -> ApiResult<Json<ApiKey>> {
    let key: ApiKeyId = parse_id(&text, "API key")?;
    let expires_at = parse_nullable_time("expires_at", changes.expires_at.as_ref())?;
    let changes = ApiKeyPatch { name: changes.name, scope: changes.scope, expires_at };
    Ok(Json(api_keys::update(&cx, web.ops(), &organization_id, &key, &changes).await?.into()))
}

/// Deletes an API key.
///
/// Requests with its secret are rejected immediately. Requires the role `admin`.
#[utoipa::path(delete, path = "/api-keys/{id}", tag = "api-keys", operation_id = "delete_api_key",
    params(("id" = String, Path, description = "The ID of the API key (`key_…`).")),
    responses((status = 204), Problems))]
async fn delete(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<StatusCode> {
    let key: ApiKeyId = parse_id(&text, "API key")?;
    api_keys::delete(&cx, web.ops(), &organization_id, &key).await?;
    Ok(StatusCode::NO_CONTENT)
}
