//! `/secrets`: secrets of tool servers.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use waypost_core::Timestamp;
use waypost_core::id::ToolSecretId;
use waypost_core::seal::SecretText;
use waypost_core::tool_secret::{self, ToolSecret};
use waypost_ops::tool_secrets;

use crate::Web;
use crate::extract::{Json, Path, Query, Scope, created, parse_id};
use crate::page::{Page, Paging};
use crate::problem::{ApiResult, Problems};
use crate::routes::{Routes, routes};

/// The operations on secrets.
pub(super) fn routes() -> Routes {
    Routes::new().routes(routes!(list, create)).routes(routes!(get, delete)).routes(routes!(rotate))
}

/// A secret of tool servers. Its value is never returned.
#[derive(Debug, Serialize, ToSchema)]
struct Secret {
    #[schema(example = "sec_0123456789abcdef")]
    id: String,
    /// The name, unique in the organisation.
    #[schema(example = "GITHUB_TOKEN")]
    name: String,
    /// The number of the value, which increases with every rotation.
    version: u64,
    /// The instances that use the secret, ordered by slug.
    used_by: Vec<SecretUser>,
    #[schema(format = DateTime)]
    created_at: String,
    /// When the value was last rotated.
    #[schema(format = DateTime)]
    rotated_at: Option<String>,
}

/// An instance that uses a secret.
#[derive(Debug, Serialize, ToSchema)]
struct SecretUser {
    /// The ID of the instance.
    #[schema(example = "ins_0123456789abcdef")]
    id: String,
    /// The slug of the instance.
    slug: String,
}

impl From<tool_secret::SecretUser> for SecretUser {
    fn from(user: tool_secret::SecretUser) -> Self {
        Self { id: user.instance_id.to_string(), slug: user.slug }
    }
}

impl From<ToolSecret> for Secret {
    fn from(secret: ToolSecret) -> Self {
        Self {
            id: secret.id.to_string(),
            name: secret.name,
            version: secret.version,
            used_by: secret.used_by.into_iter().map(SecretUser::from).collect(),
            created_at: secret.created_at.rfc3339(),
            rotated_at: secret.rotated_at.map(Timestamp::rfc3339),
        }
    }
}

/// A secret to create.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SecretCreate {
    /// The name, unique in the organisation.
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9_-]+$", example = "NEW_TOKEN")]
    name: String,
    /// The value, at most 64 KiB. It is stored encrypted and never returned.
    #[schema(write_only, min_length = 1, max_length = 65536)]
    value: String,
}

/// A new value of a secret.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SecretRotate {
    /// The new value, at most 64 KiB. It is stored encrypted and never returned.
    #[schema(write_only, min_length = 1, max_length = 65536)]
    value: String,
}

/// Lists the secrets by name, with the instances that use them.
///
/// Requires the role `admin`.
#[utoipa::path(get, path = "/secrets", tag = "secrets", operation_id = "list_secrets", params(Paging),
    responses((status = 200, body = Page<Secret>), Problems))]
async fn list(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Query(paging): Query<Paging>,
) -> ApiResult<Json<Page<Secret>>> {
    let (limit, cursor) = (paging.limit()?, paging.cursor.as_deref());
    let page = tool_secrets::list(&cx, web.ops(), &organization_id, limit, cursor).await?;
    let items = page.items.into_iter().map(Secret::from).collect();
    Ok(Json(Page { items, next_cursor: page.next_cursor }))
}

/// Creates a secret.
///
/// Requires the role `admin`.
#[utoipa::path(post, path = "/secrets", tag = "secrets", operation_id = "create_secret", request_body = SecretCreate,
    responses((status = 201, body = Secret, headers(("Location" = String, description = "The URL of the secret"))),
        Problems))]
async fn create(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Json(new): Json<SecretCreate>,
) -> ApiResult<Response> {
    let value = SecretText::new(new.value);
    let secret = tool_secrets::create(&cx, web.ops(), &organization_id, &new.name, &value).await?;
    let body = Secret::from(secret);
    Ok(created(&format!("secrets/{}", body.id), &body))
}

/// Returns a secret, without its value.
///
/// Requires the role `admin`.
#[utoipa::path(get, path = "/secrets/{id}", tag = "secrets", operation_id = "get_secret",
    params(("id" = String, Path, description = "The ID of the secret (`sec_…`).")),
    responses((status = 200, body = Secret), Problems))]
async fn get(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<Json<Secret>> {
    let id: ToolSecretId = parse_id(&text, "secret")?;
    Ok(Json(tool_secrets::get(&cx, web.ops(), &organization_id, &id).await?.into()))
}

/// Replaces the value of a secret.
///
/// Instances that use the secret receive the new value when they are restarted. Requires the role `admin`.
#[utoipa::path(post, path = "/secrets/{id}/rotate", tag = "secrets", operation_id = "rotate_secret",
    params(("id" = String, Path, description = "The ID of the secret (`sec_…`).")), request_body = SecretRotate,
    responses((status = 200, body = Secret), Problems))]
async fn rotate(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
    Json(new): Json<SecretRotate>,
) -> ApiResult<Json<Secret>> {
    let (id, value): (ToolSecretId, _) = (parse_id(&text, "secret")?, SecretText::new(new.value));
    Ok(Json(tool_secrets::rotate(&cx, web.ops(), &organization_id, &id, &value).await?.into()))
}

/// Deletes a secret.
///
/// Fails with `conflict` while instances or catalogue entries use it; `instances` and `catalog` list their slugs.
/// Requires the role `admin`.
#[utoipa::path(delete, path = "/secrets/{id}", tag = "secrets", operation_id = "delete_secret",
    params(("id" = String, Path, description = "The ID of the secret (`sec_…`).")),
    responses((status = 204), Problems))]
async fn delete(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<StatusCode> {
    tool_secrets::delete(&cx, web.ops(), &organization_id, &parse_id(&text, "secret")?).await?;
    Ok(StatusCode::NO_CONTENT)
}
