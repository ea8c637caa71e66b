//! `/oauth-configs`: identity providers that sign end users in.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use waypost_core::Error;
use waypost_core::caller::Ctx;
use waypost_core::id::{OauthConfigId, OrganizationId};
use waypost_core::oauth_config::{self, TokenAuthMethod};
use waypost_core::seal::SecretText;
use waypost_ops::oauth_configs::{self, Settings};

use super::extract::{Json, Path, Scope};
use super::page::Page;
use super::schema;
use crate::Web;
use crate::problem::{ApiResult, Problems};
use crate::request_info::RequestInfo;

/// The operations on identity providers.
pub(super) fn routes() -> OpenApiRouter<Web> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, update, delete)).routes(routes!(check))
}

/// An identity provider. Its client secret is written and never shown.
#[derive(Debug, Serialize, ToSchema)]
struct OauthConfig {
    #[schema(example = "oac_0123456789abcdef")]
    id: String,
    /// Name for people, unique in the organisation.
    name: String,
    /// `openid` or `oauth`: what it speaks.
    kind: String,
    /// Its issuer identifier; null when its endpoints were typed in.
    issuer: Option<String>,
    authorization_endpoint: String,
    token_endpoint: String,
    userinfo_endpoint: Option<String>,
    jwks_uri: Option<String>,
    /// What the provider calls Waypost.
    client_id: String,
    /// Whether a client secret is kept.
    has_client_secret: bool,
    /// How the secret is shown to the token endpoint.
    #[schema(schema_with = schema::token_auth_method)]
    token_auth_method: TokenAuthMethod,
    /// What is asked for.
    scopes: Vec<String>,
    /// The claim that names a user for ever.
    subject_claim: String,
    /// Whether a verified address links its users with those of other providers that have the same one.
    link_verified_email: bool,
    /// The slugs of the servers that use it.
    servers: Vec<String>,
    /// What to register at the provider: one for each form of address of every server that uses it.
    redirect_uris: Vec<String>,
    /// RFC 3339.
    #[schema(format = DateTime)]
    created_at: String,
    /// RFC 3339.
    #[schema(format = DateTime)]
    updated_at: String,
    /// What was found out when the provider was looked at; only after creation and changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    findings: Option<Vec<Finding>>,
}

/// One thing that was found out about a provider.
#[derive(Debug, Serialize, ToSchema)]
struct Finding {
    /// `ok`, `warning`, or `error`: people cannot sign in.
    level: &'static str,
    /// A sentence for the administrator.
    message: String,
}

impl From<oauth_configs::Finding> for Finding {
    fn from(it: oauth_configs::Finding) -> Self {
        Self { level: it.level.as_str(), message: it.message }
    }
}

/// Where an answer is made.
struct At<'a> {
    web: &'a Web,
    info: &'a RequestInfo,
    cx: &'a Ctx,
}

impl At<'_> {
    async fn body(&self, it: oauth_config::OauthConfig) -> Result<OauthConfig, Error> {
        let servers = oauth_configs::servers(self.cx, self.web.ops(), &it.organization_id, &it.id).await?;
        let redirect_uris =
            servers.iter().flat_map(|slug| self.web.public_url.redirect_uris(&self.info.authority, slug)).collect();
        Ok(OauthConfig {
            id: it.id.to_string(),
            name: it.name,
            kind: it.kind.to_string(),
            issuer: Some(it.issuer).filter(|issuer| !issuer.is_empty()),
            authorization_endpoint: it.authorization_endpoint,
            token_endpoint: it.token_endpoint,
            userinfo_endpoint: it.userinfo_endpoint,
            jwks_uri: it.jwks_uri,
            client_id: it.client_id,
            has_client_secret: it.client_secret.is_some(),
            token_auth_method: it.token_auth_method,
            scopes: it.scopes,
            subject_claim: it.subject_claim,
            link_verified_email: it.link_verified_email,
            servers,
            redirect_uris,
            created_at: it.created_at.rfc3339(),
            updated_at: it.updated_at.rfc3339(),
            findings: None,
        })
    }

    async fn examined(
        &self,
        (it, findings): (oauth_config::OauthConfig, Vec<oauth_configs::Finding>),
    ) -> Result<OauthConfig, Error> {
        let findings = Some(findings.into_iter().map(Finding::from).collect());
        Ok(OauthConfig { findings, ..self.body(it).await? })
    }
}

/// What is set on a provider; what is absent stays, or is what the provider says. Name the provider by `issuer`, or by
/// `metadata_url`, or, when it has no metadata, by its three endpoints.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct OauthConfigChange {
    /// Name for people, unique in the organisation.
    #[schema(min_length = 1, max_length = 200, nullable = false)]
    name: Option<String>,
    /// The issuer, exactly as the provider writes it; its metadata is found from it.
    #[schema(format = "uri", nullable = false)]
    issuer: Option<String>,
    /// Where the provider's metadata is, instead of the issuer.
    #[schema(format = "uri", nullable = false)]
    metadata_url: Option<String>,
    /// For a provider without metadata.
    #[schema(format = "uri", nullable = false)]
    authorization_endpoint: Option<String>,
    /// For a provider without metadata.
    #[schema(format = "uri", nullable = false)]
    token_endpoint: Option<String>,
    /// For a provider without metadata, or whose metadata does not name it.
    #[schema(format = "uri", nullable = false)]
    userinfo_endpoint: Option<String>,
    /// What the provider calls Waypost.
    #[schema(min_length = 1, max_length = 1024, pattern = "^[ -~]+$", nullable = false)]
    client_id: Option<String>,
    /// The secret that the provider gave. It is kept sealed and never shown.
    #[schema(write_only, min_length = 1, max_length = 1024, pattern = "^[ -~]+$", nullable = false)]
    client_secret: Option<String>,
    /// What to ask for, all of it. By default openid, email and profile, as far as the provider knows them.
    #[schema(max_items = 50, nullable = false)]
    scopes: Option<Vec<String>>,
    /// How the secret is shown to the token endpoint; by default what the provider says.
    #[schema(schema_with = schema::token_auth_method)]
    token_auth_method: Option<TokenAuthMethod>,
    /// The claim that names a user for ever; `sub` by default, without OpenID Connect `id`.
    #[schema(min_length = 1, max_length = 1024, pattern = "^[!-~]+$", nullable = false)]
    subject_claim: Option<String>,
    /// Whether users with the same verified address as those of other providers are the same; they are not by default.
    #[schema(nullable = false)]
    link_verified_email: Option<bool>,
}

impl From<OauthConfigChange> for Settings {
    fn from(it: OauthConfigChange) -> Self {
        Self {
            name: it.name,
            issuer: it.issuer,
            metadata_url: it.metadata_url,
            authorization_endpoint: it.authorization_endpoint,
            token_endpoint: it.token_endpoint,
            userinfo_endpoint: it.userinfo_endpoint,
            client_id: it.client_id,
            client_secret: it.client_secret.map(SecretText::new),
            scopes: it.scopes,
            token_auth_method: it.token_auth_method,
            subject_claim: it.subject_claim,
            link_verified_email: it.link_verified_email,
        }
    }
}

async fn found(
    cx: &Ctx,
    web: &Web,
    organization: &OrganizationId,
    id: &str,
) -> Result<oauth_config::OauthConfig, Error> {
    let id: OauthConfigId = id.parse().map_err(|_| Error::not_found("identity provider"))?;
    oauth_configs::show(cx, web.ops(), organization, &id).await
}

/// The field as it is called here.
fn renamed(error: Error) -> Error {
    let scope = error.details.get("field").is_some_and(|field| field == "scope");
    if scope { error.with("field", "scopes") } else { error }
}

/// The identity providers of the organisation, by name. The list is whole: `next_cursor` is null.
#[utoipa::path(get, path = "/oauth-configs", tag = "oauth-configs", operation_id = "list_oauth_configs",
    responses((status = 200, body = Page<OauthConfig>), Problems))]
async fn list(
    State(web): State<Web>,
    info: RequestInfo,
    Scope { cx, organization_id }: Scope,
) -> ApiResult<Json<Page<OauthConfig>>> {
    let at = At { web: &web, info: &info, cx: &cx };
    let mut items = Vec::new();
    for config in oauth_configs::list(&cx, web.ops(), &organization_id).await? {
        items.push(at.body(config).await?);
    }
    Ok(Json(Page::whole(items)))
}

/// Looks at a provider and, when people can sign in with it, saves it; `findings` says what was found.
#[utoipa::path(post, path = "/oauth-configs", tag = "oauth-configs", operation_id = "create_oauth_config",
    request_body = OauthConfigChange,
    responses((status = 201, body = OauthConfig, headers(("Location" = String, description = "Its address"))), Problems))]
async fn create(
    State(web): State<Web>,
    info: RequestInfo,
    Scope { cx, organization_id }: Scope,
    Json(body): Json<OauthConfigChange>,
) -> ApiResult<Response> {
    let made = oauth_configs::create(&cx, web.ops(), &web.provider_context, &organization_id, &body.into()).await;
    let made = made.map_err(renamed)?;
    let location = format!("/api/v1/oauth-configs/{}", made.0.id);
    let body = At { web: &web, info: &info, cx: &cx }.examined(made).await?;
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(body)).into_response())
}

/// One identity provider.
#[utoipa::path(get, path = "/oauth-configs/{oauth_config_id}", tag = "oauth-configs", operation_id = "get_oauth_config",
    params(("oauth_config_id" = String, Path, description = "`oac_…`")),
    responses((status = 200, body = OauthConfig), Problems))]
async fn show(
    State(web): State<Web>,
    info: RequestInfo,
    Scope { cx, organization_id }: Scope,
    Path(id): Path<String>,
) -> ApiResult<Json<OauthConfig>> {
    let config = found(&cx, &web, &organization_id, &id).await?;
    Ok(Json(At { web: &web, info: &info, cx: &cx }.body(config).await?))
}

/// Changes what is named. Whatever the provider has to say in it, it is looked at again before. Another provider means
/// that everybody who signed in with it signs in again.
#[utoipa::path(patch, path = "/oauth-configs/{oauth_config_id}", tag = "oauth-configs",
    operation_id = "update_oauth_config", params(("oauth_config_id" = String, Path, description = "`oac_…`")),
    request_body = OauthConfigChange, responses((status = 200, body = OauthConfig), Problems))]
async fn update(
    State(web): State<Web>,
    info: RequestInfo,
    Scope { cx, organization_id }: Scope,
    Path(id): Path<String>,
    Json(change): Json<OauthConfigChange>,
) -> ApiResult<Json<OauthConfig>> {
    let old = found(&cx, &web, &organization_id, &id).await?;
    let changed =
        oauth_configs::update(&cx, web.ops(), &web.provider_context, &old, &change.into()).await.map_err(renamed)?;
    Ok(Json(At { web: &web, info: &info, cx: &cx }.examined(changed).await?))
}

/// Deletes a provider with the tokens that it gave; refused while servers use it. End users and what they did stay.
#[utoipa::path(delete, path = "/oauth-configs/{oauth_config_id}", tag = "oauth-configs",
    operation_id = "delete_oauth_config", params(("oauth_config_id" = String, Path, description = "`oac_…`")),
    responses((status = 204), Problems))]
async fn delete(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(id): Path<String>,
) -> ApiResult<StatusCode> {
    let id: OauthConfigId = id.parse().map_err(|_| Error::not_found("identity provider"))?;
    oauth_configs::delete(&cx, web.ops(), &organization_id, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What was found out about a provider.
#[derive(Debug, Serialize, ToSchema)]
struct Findings {
    findings: Vec<Finding>,
}

/// Looks at a saved provider again: whether people can sign in with it now. Changes nothing.
#[utoipa::path(post, path = "/oauth-configs/{oauth_config_id}/check", tag = "oauth-configs",
    operation_id = "check_oauth_config", params(("oauth_config_id" = String, Path, description = "`oac_…`")),
    responses((status = 200, body = Findings), Problems))]
async fn check(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(id): Path<String>,
) -> ApiResult<Json<Findings>> {
    let config = found(&cx, &web, &organization_id, &id).await?;
    let findings = oauth_configs::check(&cx, web.ops(), &web.provider_context, &config).await?;
    Ok(Json(Findings { findings: findings.into_iter().map(Finding::from).collect() }))
}
