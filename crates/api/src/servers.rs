//! `/servers`.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use data_encoding::BASE64URL_NOPAD;
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use waypost_core::id::OauthConfigId;
use waypost_core::server::{self, AuthType, SignInPolicy, Support, Toolset};
use waypost_core::{Error, slug};
use waypost_ops::servers::{self, ServerSearch, ServerSettings};

use crate::Web;
use crate::extract::{Json, Path, Query, Scope, nullable, parse_id};
use crate::page::{Page, Paging};
use crate::problem::{ApiResult, Problems};
use crate::routes::{Routes, routes};
use crate::schema;
use waypost_http_kit::request_info::RequestInfo;

/// The operations on servers.
pub(super) fn routes() -> Routes {
    Routes::new()
        .routes(routes!(list, create))
        .routes(routes!(get, update, delete))
        .routes(routes!(check_slug))
        .routes(routes!(list_slugs))
        .routes(routes!(release_slug))
}

/// A hosted MCP server.
#[derive(Debug, Serialize, ToSchema)]
struct Server {
    #[schema(example = "srv_0123456789abcdef")]
    id: String,
    /// The slug, a host name label. Unique across all organisations.
    slug: String,
    /// The display name.
    name: String,
    /// The name of the product that the walkthroughs are about.
    product_name: String,
    /// How end users are identified.
    #[schema(schema_with = schema::auth_type)]
    auth_type: AuthType,
    /// When end users are asked to sign in, on a server with OAuth.
    #[schema(schema_with = schema::sign_in)]
    sign_in: SignInPolicy,
    /// The identity provider that end users sign in with. Used only if `auth_type` is `custom_oauth`.
    oauth_config_id: Option<String>,
    /// Whether the walkthrough tools are listed.
    walkthrough_tools_enabled: bool,
    /// Which walkthrough tools are listed.
    #[schema(schema_with = schema::toolset)]
    toolset: Toolset,
    /// Whether end users can open support tickets.
    #[schema(schema_with = schema::support)]
    support: Support,
    /// Origins of web pages that may call the server, in addition to its own hosts.
    allowed_origins: Vec<String>,
    /// Whether the public page is served.
    public_page: bool,
    /// Whether search engines may index the public page.
    public_page_indexed: bool,
    /// The URL of the public page, which shows how to connect each client. It returns 404 while `public_page` is false.
    #[schema(format = "uri")]
    public_page_url: String,
    /// The MCP URL in path form, `HOST/s/SLUG/mcp`.
    #[schema(format = "uri")]
    mcp_url: String,
    /// The MCP URL in host form, `SLUG.HOST/mcp`. It needs a wildcard DNS record. Null if HOST is an IP address.
    #[schema(format = "uri")]
    mcp_host_url: Option<String>,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
}

impl Server {
    fn new(web: &Web, info: &RequestInfo, server: server::Server) -> Self {
        Self {
            public_page_url: web.public_url.path_urls(&info.authority, &server.slug).page(),
            mcp_url: web.public_url.path_urls(&info.authority, &server.slug).resource(None),
            mcp_host_url: web.public_url.host_urls(&info.authority, &server.slug).map(|address| address.resource(None)),
            id: server.id.to_string(),
            slug: server.slug,
            name: server.name,
            product_name: server.product_name,
            auth_type: server.auth_type,
            sign_in: server.sign_in,
            oauth_config_id: server.oauth_config_id.map(|id| id.to_string()),
            walkthrough_tools_enabled: server.walkthrough_tools_enabled,
            toolset: server.toolset,
            support: server.support,
            allowed_origins: server.allowed_origins,
            public_page: server.public_page,
            public_page_indexed: server.public_page_indexed,
            created_at: server.created_at.rfc3339(),
            updated_at: server.updated_at.rfc3339(),
        }
    }
}

/// Changes to a server. Absent members are not changed.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ServerUpdate {
    /// The slug, a host name label. Unique across all organisations. After a change, the former slug keeps serving
    /// until it is released.
    #[schema(min_length = 3, max_length = 40, pattern = "^[a-z0-9][a-z0-9-]*[a-z0-9]$", nullable = false)]
    slug: Option<String>,
    /// The display name.
    #[schema(min_length = 1, max_length = 200, nullable = false)]
    name: Option<String>,
    /// The name of the product that the walkthroughs are about.
    #[schema(min_length = 1, max_length = 200, nullable = false)]
    product_name: Option<String>,
    /// How end users are identified. A change signs every end user out.
    #[schema(schema_with = schema::auth_type)]
    auth_type: Option<AuthType>,
    /// When end users are asked to sign in, on a server with OAuth.
    #[schema(schema_with = schema::sign_in)]
    sign_in: Option<SignInPolicy>,
    /// The identity provider that end users sign in with, for `custom_oauth`. Null for none. If the organisation has
    /// only one identity provider, that is the default.
    #[serde(deserialize_with = "nullable")]
    #[serde(default)]
    #[schema(value_type = Option<String>, pattern = "^oac_[0-9A-Za-z]{12,40}$")]
    oauth_config_id: Option<Option<String>>,
    /// Whether the walkthrough tools are listed.
    #[schema(nullable = false)]
    walkthrough_tools_enabled: Option<bool>,
    /// Which walkthrough tools are listed.
    #[schema(schema_with = schema::toolset)]
    toolset: Option<Toolset>,
    /// Whether end users can open support tickets.
    #[schema(schema_with = schema::support)]
    support: Option<Support>,
    /// All origins of web pages that may call the server, such as `https://example.com`. Replaces the current list.
    #[schema(max_items = 50, nullable = false)]
    allowed_origins: Option<Vec<String>>,
    /// Whether the public page is served.
    #[schema(nullable = false)]
    public_page: Option<bool>,
    /// Whether search engines may index the public page.
    #[schema(nullable = false)]
    public_page_indexed: Option<bool>,
}

/// A server to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ServerCreate {
    /// The slug, a host name label. Unique across all organisations.
    #[schema(min_length = 3, max_length = 40, pattern = "^[a-z0-9][a-z0-9-]*[a-z0-9]$")]
    slug: String,
    /// The display name. Defaults to the slug.
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    /// The name of the product that the walkthroughs are about. Defaults to the name.
    #[schema(min_length = 1, max_length = 200)]
    product_name: Option<String>,
    /// How end users are identified. Defaults to `none`.
    #[schema(schema_with = schema::auth_type)]
    auth_type: Option<AuthType>,
    /// When end users are asked to sign in, on a server with OAuth. Defaults to `auto`: clients that are known to fail
    /// if asked during a session are asked when they connect, others when a call needs it.
    #[schema(schema_with = schema::sign_in)]
    sign_in: Option<SignInPolicy>,
    /// The identity provider that end users sign in with, for `custom_oauth`. If the organisation has only one identity
    /// provider, that is the default.
    #[schema(pattern = "^oac_[0-9A-Za-z]{12,40}$")]
    oauth_config_id: Option<String>,
    /// Whether the walkthrough tools are listed. Defaults to true.
    walkthrough_tools_enabled: Option<bool>,
    /// Which walkthrough tools are listed. Defaults to `guided`.
    #[schema(schema_with = schema::toolset)]
    toolset: Option<Toolset>,
    /// Whether end users can open support tickets. Defaults to `off`.
    #[schema(schema_with = schema::support)]
    support: Option<Support>,
    /// Origins of web pages that may call the server, such as `https://example.com`.
    #[schema(max_items = 50)]
    allowed_origins: Option<Vec<String>>,
    /// Whether the public page is served. Defaults to true.
    public_page: Option<bool>,
    /// Whether search engines may index the public page. Defaults to false.
    public_page_indexed: Option<bool>,
}

/// Converts `oauth_config_id` for [`ServerSettings`], which also accepts a name. The API accepts only an ID, because a
/// name can change.
fn provider(id: Option<Option<String>>) -> Result<Option<String>, Error> {
    match id {
        None => Ok(None),
        Some(None) => Ok(Some("none".to_owned())),
        Some(Some(text)) => {
            let id: OauthConfigId = text.parse().map_err(|_| {
                Error::invalid(
                    "oauth_config_id",
                    "`oauth_config_id` must be the ID of an identity provider (`oac_…`) or null.",
                )
            })?;
            Ok(Some(id.to_string()))
        }
    }
}

impl TryFrom<ServerUpdate> for ServerSettings {
    type Error = Error;

    fn try_from(update: ServerUpdate) -> Result<Self, Error> {
        Ok(Self {
            slug: update.slug,
            name: update.name,
            product_name: update.product_name,
            auth_type: update.auth_type,
            sign_in: update.sign_in,
            oauth_config: provider(update.oauth_config_id)?,
            walkthrough_tools_enabled: update.walkthrough_tools_enabled,
            toolset: update.toolset,
            support: update.support,
            allowed_origins: update.allowed_origins,
            public_page: update.public_page,
            public_page_indexed: update.public_page_indexed,
        })
    }
}

impl From<ServerCreate> for ServerUpdate {
    fn from(create: ServerCreate) -> Self {
        Self {
            slug: Some(create.slug),
            name: create.name,
            product_name: create.product_name,
            auth_type: create.auth_type,
            sign_in: create.sign_in,
            oauth_config_id: create.oauth_config_id.map(Some),
            walkthrough_tools_enabled: create.walkthrough_tools_enabled,
            toolset: create.toolset,
            support: create.support,
            allowed_origins: create.allowed_origins,
            public_page: create.public_page,
            public_page_indexed: create.public_page_indexed,
        }
    }
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ServerQuery {
    /// The maximum number of items to return.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// The `next_cursor` of the previous page.
    #[param(max_length = 100)]
    cursor: Option<String>,
    /// Only servers whose name, product name or slug contains this text.
    #[param(max_length = 200)]
    q: Option<String>,
}

/// Parses a cursor: the slug of the last server of the previous page, in base64url.
fn after(cursor: Option<&str>) -> Result<Option<String>, Error> {
    let Some(cursor) = cursor else { return Ok(None) };
    let slug = BASE64URL_NOPAD.decode(cursor.as_bytes()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    match slug {
        Some(slug) if slug::check_server_slug(&slug).is_ok() => Ok(Some(slug)),
        _ => Err(Error::invalid("cursor", "`cursor` is invalid. Use the `next_cursor` of a page of this list.")),
    }
}

/// Lists the servers of the organisation by slug.
#[utoipa::path(get, path = "/servers", tag = "servers", operation_id = "list_servers", params(ServerQuery),
    responses((status = 200, body = Page<Server>), Problems))]
async fn list(
    State(web): State<Web>,
    info: RequestInfo,
    Scope { cx, organization_id }: Scope,
    Query(query): Query<ServerQuery>,
) -> ApiResult<Json<Page<Server>>> {
    let limit = Paging { limit: query.limit, cursor: None }.limit()?;
    if query.q.as_ref().is_some_and(|q| q.chars().count() > 200) {
        return Err(Error::invalid("q", "`q` is too long. The limit is 200 characters.").into());
    }
    let search = ServerSearch { text: query.q, after: after(query.cursor.as_deref())?, limit };
    let (matches, has_more) = servers::search(&cx, web.ops(), &organization_id, &search).await?;
    let next_cursor = matches.last().filter(|_| has_more).map(|server| BASE64URL_NOPAD.encode(server.slug.as_bytes()));
    let items = matches.into_iter().map(|server| Server::new(&web, &info, server)).collect();
    Ok(Json(Page { items, next_cursor }))
}

/// Creates a server.
///
/// The new server has no assigned walkthroughs.
#[utoipa::path(post, path = "/servers", tag = "servers", operation_id = "create_server", request_body = ServerCreate,
    responses((status = 201, body = Server,
        headers(("Location" = String, description = "The URL of the server"))), Problems))]
async fn create(
    State(web): State<Web>,
    info: RequestInfo,
    Scope { cx, organization_id }: Scope,
    Json(body): Json<ServerCreate>,
) -> ApiResult<Response> {
    let slug = body.slug.clone();
    let settings = ServerSettings::try_from(ServerUpdate::from(body))?;
    let server = servers::create(&cx, web.ops(), &organization_id, &slug, &settings).await.map_err(rename_field)?;
    let location = format!("/api/v1/servers/{}", server.id);
    let body = Json(Server::new(&web, &info, server));
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], body).into_response())
}

/// Replaces the name of the invalid field in an error with the name that the API uses.
fn rename_field(error: Error) -> Error {
    let provider = error.details.get("field").is_some_and(|field| field == "oauth_config");
    if provider { error.with("field", "oauth_config_id") } else { error }
}

/// Returns a server.
#[utoipa::path(get, path = "/servers/{server_id}", tag = "servers", operation_id = "get_server",
    params(("server_id" = String, Path, description = "The ID of the server (`srv_…`).")),
    responses((status = 200, body = Server), Problems))]
async fn get(
    State(web): State<Web>,
    info: RequestInfo,
    Scope { cx, organization_id }: Scope,
    Path(server_id): Path<String>,
) -> ApiResult<Json<Server>> {
    let server = servers::get(&cx, web.ops(), &organization_id, &parse_id(&server_id, "server")?).await?;
    Ok(Json(Server::new(&web, &info, server)))
}

/// Updates the settings of a server.
#[utoipa::path(patch, path = "/servers/{server_id}", tag = "servers", operation_id = "update_server",
    params(("server_id" = String, Path, description = "The ID of the server (`srv_…`).")),
    request_body = ServerUpdate,
    responses((status = 200, body = Server), Problems))]
async fn update(
    State(web): State<Web>,
    info: RequestInfo,
    Scope { cx, organization_id }: Scope,
    Path(server_id): Path<String>,
    Json(change): Json<ServerUpdate>,
) -> ApiResult<Json<Server>> {
    let id = parse_id(&server_id, "server")?;
    let settings = ServerSettings::try_from(change)?;
    let server = servers::update(&cx, web.ops(), &organization_id, &id, &settings).await.map_err(rename_field)?;
    Ok(Json(Server::new(&web, &info, server)))
}

/// Deletes a server.
///
/// Its assignments, and the progress and activity of end users on it, are deleted. Walkthroughs are kept.
#[utoipa::path(delete, path = "/servers/{server_id}", tag = "servers", operation_id = "delete_server",
    params(("server_id" = String, Path, description = "The ID of the server (`srv_…`).")),
    responses((status = 204), Problems))]
async fn delete(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(server_id): Path<String>,
) -> ApiResult<StatusCode> {
    servers::delete(&cx, web.ops(), &organization_id, &parse_id(&server_id, "server")?).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct SlugQuery {
    /// The slug to check.
    slug: String,
    /// The ID of the server (`srv_…`) that would get the slug. Its own former slugs are available to it.
    server_id: Option<String>,
}

/// The availability of a slug.
#[derive(Debug, Serialize, ToSchema)]
struct SlugAvailability {
    slug: String,
    /// Whether the slug is available.
    available: bool,
    /// The reason why the slug is not available. Null if it is available.
    reason: Option<String>,
}

/// Checks whether a slug is available.
#[utoipa::path(get, path = "/servers/slug-check", tag = "servers", operation_id = "check_server_slug",
    params(SlugQuery), responses((status = 200, body = SlugAvailability), Problems))]
async fn check_slug(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Query(query): Query<SlugQuery>,
) -> ApiResult<Json<SlugAvailability>> {
    let own = query.server_id.as_deref().map(|text| parse_id(text, "server")).transpose()?;
    let reason = servers::find_slug_problem(&cx, web.ops(), &organization_id, &query.slug, own.as_ref()).await?;
    Ok(Json(SlugAvailability { slug: query.slug, available: reason.is_none(), reason }))
}

/// A former slug that a server still serves.
#[derive(Debug, Serialize, ToSchema)]
struct FormerSlug {
    slug: String,
}

/// Lists the former slugs that a server still serves.
#[utoipa::path(get, path = "/servers/{server_id}/slugs", tag = "servers", operation_id = "list_former_slugs",
    params(("server_id" = String, Path, description = "The ID of the server (`srv_…`).")),
    responses((status = 200, body = Page<FormerSlug>), Problems))]
async fn list_slugs(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(server_id): Path<String>,
) -> ApiResult<Json<Page<FormerSlug>>> {
    let slugs = servers::list_former_slugs(&cx, web.ops(), &organization_id, &parse_id(&server_id, "server")?).await?;
    Ok(Json(Page::complete(slugs.into_iter().map(|slug| FormerSlug { slug }).collect())))
}

/// Releases a former slug.
///
/// The server stops serving the slug, and other servers can use it.
#[utoipa::path(delete, path = "/servers/{server_id}/slugs/{slug}", tag = "servers", operation_id = "release_slug",
    params(("server_id" = String, Path, description = "The ID of the server (`srv_…`)."),
        ("slug" = String, Path, description = "The former slug.")),
    responses((status = 204), Problems))]
async fn release_slug(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path((server_id, slug)): Path<(String, String)>,
) -> ApiResult<StatusCode> {
    servers::release_slug(&cx, web.ops(), &organization_id, &parse_id(&server_id, "server")?, &slug).await?;
    Ok(StatusCode::NO_CONTENT)
}
