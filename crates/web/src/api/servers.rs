//! `/servers`.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use data_encoding::BASE64URL_NOPAD;
use http::{StatusCode, header};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use waypost_core::id::{OauthConfigId, ServerId};
use waypost_core::server::{self, AuthType, SignIn, Support, Toolset};
use waypost_core::{Error, slug};
use waypost_ops::servers::{self, ServerSearch, ServerSettings};

use super::extract::{Json, Path, Query, Scope};
use super::page::{Page, Paging};
use super::schema;
use crate::Web;
use crate::problem::{ApiResult, Problems};
use crate::request_info::RequestInfo;

/// The operations on servers.
pub(super) fn routes() -> OpenApiRouter<Web> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show, update, delete))
        .routes(routes!(check_slug))
        .routes(routes!(list_slugs))
        .routes(routes!(release_slug))
}

/// A hosted MCP server.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Server)]
struct ServerBody {
    #[schema(example = "srv_0123456789abcdef")]
    id: String,
    /// Host name label, unique over all organisations.
    slug: String,
    /// Name for people.
    name: String,
    /// The product that it guides through.
    product_name: String,
    /// How end users are recognised.
    #[schema(schema_with = schema::auth_type)]
    auth_type: AuthType,
    /// When a server with sign-in asks for it.
    #[schema(schema_with = schema::sign_in)]
    sign_in: SignIn,
    /// The identity provider that signs end users in; only with `custom_oauth` it is asked.
    oauth_config_id: Option<String>,
    /// Whether the walkthrough tools are offered at all.
    walkthrough_tools_enabled: bool,
    /// Which of them.
    #[schema(schema_with = schema::toolset)]
    toolset: Toolset,
    /// Whether it offers support.
    #[schema(schema_with = schema::support)]
    support: Support,
    /// Origins of browsers that may call it, beside its own hosts.
    allowed_origins: Vec<String>,
    /// Whether the public page is served.
    public_page: bool,
    /// Whether search engines may index the public page.
    public_page_indexed: bool,
    /// The public page, which shows users how to connect each client. Returns 404 while `public_page` is false.
    #[schema(format = "uri")]
    public_page_url: String,
    /// The MCP address that works everywhere: `HOST/s/SLUG/mcp`.
    #[schema(format = "uri")]
    mcp_url: String,
    /// The same server on a host name of its own, `SLUG.HOST/mcp`, which needs a wildcard entry in the DNS; null where
    /// HOST is an address, which has no names below it.
    #[schema(format = "uri")]
    mcp_host_url: Option<String>,
    /// RFC 3339.
    #[schema(format = DateTime)]
    created_at: String,
    /// RFC 3339.
    #[schema(format = DateTime)]
    updated_at: String,
}

impl ServerBody {
    fn new(web: &Web, info: &RequestInfo, it: server::Server) -> Self {
        Self {
            public_page_url: web.public_url.path_urls(&info.authority, &it.slug).page(),
            mcp_url: web.public_url.path_urls(&info.authority, &it.slug).resource(None),
            mcp_host_url: web.public_url.host_urls(&info.authority, &it.slug).map(|address| address.resource(None)),
            id: it.id.to_string(),
            slug: it.slug,
            name: it.name,
            product_name: it.product_name,
            auth_type: it.auth_type,
            sign_in: it.sign_in,
            oauth_config_id: it.oauth_config_id.map(|id| id.to_string()),
            walkthrough_tools_enabled: it.walkthrough_tools_enabled,
            toolset: it.toolset,
            support: it.support,
            allowed_origins: it.allowed_origins,
            public_page: it.public_page,
            public_page_indexed: it.public_page_indexed,
            created_at: it.created_at.rfc3339(),
            updated_at: it.updated_at.rfc3339(),
        }
    }
}

/// What is set on a server. What is absent stays, or is the default for a new one.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ServerChange {
    /// Host name label, unique over all organisations. After a change the former one goes on serving until it is
    /// released.
    #[schema(min_length = 3, max_length = 40, pattern = "^[a-z0-9][a-z0-9-]*[a-z0-9]$", nullable = false)]
    slug: Option<String>,
    /// Name for people; the slug by default.
    #[schema(min_length = 1, max_length = 200, nullable = false)]
    name: Option<String>,
    /// The product that it guides through; the name by default.
    #[schema(min_length = 1, max_length = 200, nullable = false)]
    product_name: Option<String>,
    /// How end users are recognised. A change ends the sign-in of everybody who is signed in.
    #[schema(schema_with = schema::auth_type)]
    auth_type: Option<AuthType>,
    /// When a server with sign-in asks for it.
    #[schema(schema_with = schema::sign_in)]
    sign_in: Option<SignIn>,
    /// The identity provider that signs end users in with `custom_oauth`; null for none. The only one of the organisation
    /// is taken by itself.
    #[serde(deserialize_with = "present")]
    #[serde(default)]
    #[schema(value_type = Option<String>, pattern = "^oac_[0-9A-Za-z]{12,40}$")]
    oauth_config_id: Option<Option<String>>,
    /// Whether the walkthrough tools are offered at all.
    #[schema(nullable = false)]
    walkthrough_tools_enabled: Option<bool>,
    /// Which of them.
    #[schema(schema_with = schema::toolset)]
    toolset: Option<Toolset>,
    /// Whether it offers support.
    #[schema(schema_with = schema::support)]
    support: Option<Support>,
    /// Origins of browsers that may call it, all of them, such as `https://example.com`.
    #[schema(max_items = 50, nullable = false)]
    allowed_origins: Option<Vec<String>>,
    /// Whether the public page is served.
    #[schema(nullable = false)]
    public_page: Option<bool>,
    /// Whether search engines may index the public page.
    #[schema(nullable = false)]
    public_page_indexed: Option<bool>,
}

/// A new server.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewServer {
    /// Host name label, unique over all organisations.
    #[schema(min_length = 3, max_length = 40, pattern = "^[a-z0-9][a-z0-9-]*[a-z0-9]$")]
    slug: String,
    /// Name for people; the slug by default.
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    /// The product that it guides through; the name by default.
    #[schema(min_length = 1, max_length = 200)]
    product_name: Option<String>,
    /// How end users are recognised; `none` by default.
    #[schema(schema_with = schema::auth_type)]
    auth_type: Option<AuthType>,
    /// When a server with sign-in asks for it; `auto` by default: clients that are known to fail during a session are
    /// asked when they connect, others when a call needs a user.
    #[schema(schema_with = schema::sign_in)]
    sign_in: Option<SignIn>,
    /// The identity provider that signs end users in with `custom_oauth`. The only one of the organisation is taken by
    /// itself.
    #[schema(pattern = "^oac_[0-9A-Za-z]{12,40}$")]
    oauth_config_id: Option<String>,
    /// Whether the walkthrough tools are offered at all; they are by default.
    walkthrough_tools_enabled: Option<bool>,
    /// Which of them; `guided` by default.
    #[schema(schema_with = schema::toolset)]
    toolset: Option<Toolset>,
    /// Whether it offers support; `off` by default.
    #[schema(schema_with = schema::support)]
    support: Option<Support>,
    /// Origins of browsers that may call it, such as `https://example.com`.
    #[schema(max_items = 50)]
    allowed_origins: Option<Vec<String>>,
    /// Whether the public page is served; it is by default.
    public_page: Option<bool>,
    /// Whether search engines may index the public page; they may not by default.
    public_page_indexed: Option<bool>,
}

/// Tells a member that is null from one that is not there.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::<String>::deserialize(deserializer).map(Some)
}

/// The provider as the settings name it. An id, and no name: what is found by name changes its meaning.
fn provider(id: Option<Option<String>>) -> Result<Option<String>, Error> {
    match id {
        None => Ok(None),
        Some(None) => Ok(Some("none".to_owned())),
        Some(Some(text)) => {
            let id: OauthConfigId = text.parse().map_err(|_| {
                Error::invalid(
                    "oauth_config_id",
                    "`oauth_config_id` is the id of an identity provider (`oac_…`) or null.",
                )
            })?;
            Ok(Some(id.to_string()))
        }
    }
}

impl TryFrom<ServerChange> for ServerSettings {
    type Error = Error;

    fn try_from(it: ServerChange) -> Result<Self, Error> {
        Ok(Self {
            slug: it.slug,
            name: it.name,
            product_name: it.product_name,
            auth_type: it.auth_type,
            sign_in: it.sign_in,
            oauth_config: provider(it.oauth_config_id)?,
            walkthrough_tools_enabled: it.walkthrough_tools_enabled,
            toolset: it.toolset,
            support: it.support,
            allowed_origins: it.allowed_origins,
            public_page: it.public_page,
            public_page_indexed: it.public_page_indexed,
        })
    }
}

impl From<NewServer> for ServerChange {
    fn from(it: NewServer) -> Self {
        Self {
            slug: Some(it.slug),
            name: it.name,
            product_name: it.product_name,
            auth_type: it.auth_type,
            sign_in: it.sign_in,
            oauth_config_id: it.oauth_config_id.map(Some),
            walkthrough_tools_enabled: it.walkthrough_tools_enabled,
            toolset: it.toolset,
            support: it.support,
            allowed_origins: it.allowed_origins,
            public_page: it.public_page,
            public_page_indexed: it.public_page_indexed,
        }
    }
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ServerQuery {
    /// Items at most.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(max_length = 100)]
    cursor: Option<String>,
    /// A part of the name, the product's name or the slug.
    #[param(max_length = 200)]
    q: Option<String>,
}

/// The server that a path names; what is no id names nothing.
pub(super) fn id(text: &str) -> Result<ServerId, Error> {
    text.parse().map_err(|_| Error::not_found("server"))
}

fn after(cursor: Option<&str>) -> Result<Option<String>, Error> {
    let Some(cursor) = cursor else { return Ok(None) };
    let slug = BASE64URL_NOPAD.decode(cursor.as_bytes()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    match slug {
        Some(slug) if slug::check_server_slug(&slug).is_ok() => Ok(Some(slug)),
        _ => Err(Error::invalid("cursor", "`cursor` is not the `next_cursor` of a page of this list.")),
    }
}

/// The servers of the organisation, by slug.
#[utoipa::path(get, path = "/servers", tag = "servers", operation_id = "list_servers", params(ServerQuery),
    responses((status = 200, body = Page<ServerBody>), Problems))]
async fn list(
    State(web): State<Web>,
    info: RequestInfo,
    Scope { cx, organization_id }: Scope,
    Query(query): Query<ServerQuery>,
) -> ApiResult<Json<Page<ServerBody>>> {
    let limit = Paging { limit: query.limit, cursor: None }.limit()?;
    if query.q.as_ref().is_some_and(|q| q.chars().count() > 200) {
        return Err(Error::invalid("q", "`q` has 200 characters at most.").into());
    }
    let search = ServerSearch { text: query.q, after: after(query.cursor.as_deref())?, limit };
    let (found, more) = servers::search(&cx, web.ops(), &organization_id, &search).await?;
    let next_cursor = found.last().filter(|_| more).map(|server| BASE64URL_NOPAD.encode(server.slug.as_bytes()));
    let items = found.into_iter().map(|server| ServerBody::new(&web, &info, server)).collect();
    Ok(Json(Page { items, next_cursor }))
}

/// Makes a server. Nothing is assigned to it yet.
#[utoipa::path(post, path = "/servers", tag = "servers", operation_id = "create_server", request_body = NewServer,
    responses((status = 201, body = ServerBody, headers(("Location" = String, description = "Its address"))), Problems))]
async fn create(
    State(web): State<Web>,
    info: RequestInfo,
    Scope { cx, organization_id }: Scope,
    Json(body): Json<NewServer>,
) -> ApiResult<Response> {
    let slug = body.slug.clone();
    let settings = ServerSettings::try_from(ServerChange::from(body))?;
    let server = servers::create(&cx, web.ops(), &organization_id, &slug, &settings).await.map_err(renamed)?;
    let location = format!("/api/v1/servers/{}", server.id);
    let body = Json(ServerBody::new(&web, &info, server));
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], body).into_response())
}

/// The field as it is called here.
fn renamed(error: Error) -> Error {
    let provider = error.details.get("field").is_some_and(|field| field == "oauth_config");
    if provider { error.with("field", "oauth_config_id") } else { error }
}

/// One server.
#[utoipa::path(get, path = "/servers/{server_id}", tag = "servers", operation_id = "get_server",
    params(("server_id" = String, Path, description = "`srv_…`")),
    responses((status = 200, body = ServerBody), Problems))]
async fn show(
    State(web): State<Web>,
    info: RequestInfo,
    Scope { cx, organization_id }: Scope,
    Path(server_id): Path<String>,
) -> ApiResult<Json<ServerBody>> {
    let server = servers::get(&cx, web.ops(), &organization_id, &id(&server_id)?).await?;
    Ok(Json(ServerBody::new(&web, &info, server)))
}

/// Changes settings of a server.
#[utoipa::path(patch, path = "/servers/{server_id}", tag = "servers", operation_id = "update_server",
    params(("server_id" = String, Path, description = "`srv_…`")), request_body = ServerChange,
    responses((status = 200, body = ServerBody), Problems))]
async fn update(
    State(web): State<Web>,
    info: RequestInfo,
    Scope { cx, organization_id }: Scope,
    Path(server_id): Path<String>,
    Json(change): Json<ServerChange>,
) -> ApiResult<Json<ServerBody>> {
    let id = id(&server_id)?;
    let settings = ServerSettings::try_from(change)?;
    let server = servers::update(&cx, web.ops(), &organization_id, &id, &settings).await.map_err(renamed)?;
    Ok(Json(ServerBody::new(&web, &info, server)))
}

/// Deletes a server with its assignments and everything that end users did on it. Walkthroughs stay.
#[utoipa::path(delete, path = "/servers/{server_id}", tag = "servers", operation_id = "delete_server",
    params(("server_id" = String, Path, description = "`srv_…`")), responses((status = 204), Problems))]
async fn delete(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(server_id): Path<String>,
) -> ApiResult<StatusCode> {
    servers::delete(&cx, web.ops(), &organization_id, &id(&server_id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct SlugQuery {
    /// The slug that somebody would like.
    slug: String,
    /// The server that would get it, `srv_…`; a former slug of its own is free for it.
    server_id: Option<String>,
}

/// Whether a slug can be had.
#[derive(Debug, Serialize, ToSchema)]
struct SlugCheck {
    slug: String,
    /// Whether a server could have it now.
    available: bool,
    /// Why not; null when it is available.
    reason: Option<String>,
}

/// Says whether a server could have a slug.
#[utoipa::path(get, path = "/servers/slug-check", tag = "servers", operation_id = "check_server_slug",
    params(SlugQuery), responses((status = 200, body = SlugCheck), Problems))]
async fn check_slug(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Query(query): Query<SlugQuery>,
) -> ApiResult<Json<SlugCheck>> {
    let own = query.server_id.as_deref().map(id).transpose()?;
    let reason = servers::find_slug_problem(&cx, web.ops(), &organization_id, &query.slug, own.as_ref()).await?;
    Ok(Json(SlugCheck { slug: query.slug, available: reason.is_none(), reason }))
}

/// A slug that a server had before, and still answers to.
#[derive(Debug, Serialize, ToSchema)]
struct FormerSlug {
    slug: String,
}

/// The slugs that a server had before and still answers to.
#[utoipa::path(get, path = "/servers/{server_id}/slugs", tag = "servers", operation_id = "list_former_slugs",
    params(("server_id" = String, Path, description = "`srv_…`")),
    responses((status = 200, body = Page<FormerSlug>), Problems))]
async fn list_slugs(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(server_id): Path<String>,
) -> ApiResult<Json<Page<FormerSlug>>> {
    let slugs = servers::list_former_slugs(&cx, web.ops(), &organization_id, &id(&server_id)?).await?;
    Ok(Json(Page::whole(slugs.into_iter().map(|slug| FormerSlug { slug }).collect())))
}

/// Gives up a former slug: the server answers to it no more, and another one may have it.
#[utoipa::path(delete, path = "/servers/{server_id}/slugs/{slug}", tag = "servers", operation_id = "release_slug",
    params(("server_id" = String, Path, description = "`srv_…`"), ("slug" = String, Path, description = "The slug")),
    responses((status = 204), Problems))]
async fn release_slug(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path((server_id, slug)): Path<(String, String)>,
) -> ApiResult<StatusCode> {
    servers::release_slug(&cx, web.ops(), &organization_id, &id(&server_id)?, &slug).await?;
    Ok(StatusCode::NO_CONTENT)
}
