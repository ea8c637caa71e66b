//! `/oauth-configs`: identity providers that end users sign in with.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use waypost_core::Error;
use waypost_core::caller::Ctx;
use waypost_core::id::{OauthConfigId, OrganizationId};
use waypost_core::oauth_config::{self, TokenAuthMethod};
use waypost_core::seal::SecretText;
use waypost_ops::oauth_configs;

use crate::Web;
use crate::extract::{Json, Path, Scope, parse_id};
use crate::page::Page;
use crate::problem::{ApiResult, Problems};
use crate::routes::{Routes, routes};
use crate::schema;
use waypost_http_kit::request_info::RequestInfo;

/// The operations on identity providers.
pub(super) fn routes() -> Routes {
    Routes::new().routes(routes!(list, create)).routes(routes!(get, update, delete)).routes(routes!(check))
}

/// An identity provider. Its client secret is write-only.
#[derive(Debug, Serialize, ToSchema)]
struct OauthConfig {
    #[schema(example = "oac_0123456789abcdef")]
    id: String,
    /// The display name, unique in the organisation.
    name: String,
    /// The protocol, `openid` or `oauth`.
    kind: String,
    /// The issuer identifier. Null if the endpoints were configured individually.
    issuer: Option<String>,
    authorization_endpoint: String,
    token_endpoint: String,
    userinfo_endpoint: Option<String>,
    jwks_uri: Option<String>,
    /// The client ID registered at the provider.
    client_id: String,
    /// Whether a client secret is stored.
    has_client_secret: bool,
    /// The client authentication method at the token endpoint.
    #[schema(schema_with = schema::token_auth_method)]
    token_auth_method: TokenAuthMethod,
    /// The requested scopes.
    scopes: Vec<String>,
    /// The claim that identifies a user permanently.
    subject_claim: String,
    /// Whether end users are linked to those of other providers with the same verified email.
    link_verified_email: bool,
    /// The slugs of the servers that use the provider.
    servers: Vec<String>,
    /// The redirect URIs to register at the provider: one for each URL form of each server that uses it.
    redirect_uris: Vec<String>,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
    /// The findings of the check. Present only in responses to creation and updates.
    #[serde(skip_serializing_if = "Option::is_none")]
    findings: Option<Vec<OauthConfigFinding>>,
}

/// A finding about an identity provider.
#[derive(Debug, Serialize, ToSchema)]
struct OauthConfigFinding {
    /// `ok`, `warning` or `error`. An error means that sign-in does not work.
    level: &'static str,
    /// A message for the administrator.
    message: String,
}

impl From<oauth_configs::ProviderFinding> for OauthConfigFinding {
    fn from(finding: oauth_configs::ProviderFinding) -> Self {
        Self { level: finding.level.as_str(), message: finding.message }
    }
}

/// Builds response bodies whose URLs have the host of the current request.
struct ResponseBuilder<'a> {
    web: &'a Web,
    info: &'a RequestInfo,
    cx: &'a Ctx,
}

impl ResponseBuilder<'_> {
    async fn body(&self, config: oauth_config::OauthConfig) -> Result<OauthConfig, Error> {
        let servers = oauth_configs::list_servers(self.cx, self.web.ops(), &config.organization_id, &config.id).await?;
        let redirect_uris =
            servers.iter().flat_map(|slug| self.web.public_url.redirect_uris(&self.info.authority, slug)).collect();
        Ok(OauthConfig {
            id: config.id.to_string(),
            name: config.name,
            kind: config.kind.to_string(),
            issuer: Some(config.issuer).filter(|issuer| !issuer.is_empty()),
            authorization_endpoint: config.authorization_endpoint,
            token_endpoint: config.token_endpoint,
            userinfo_endpoint: config.userinfo_endpoint,
            jwks_uri: config.jwks_uri,
            client_id: config.client_id,
            has_client_secret: config.client_secret.is_some(),
            token_auth_method: config.token_auth_method,
            scopes: config.scopes,
            subject_claim: config.subject_claim,
            link_verified_email: config.link_verified_email,
            servers,
            redirect_uris,
            created_at: config.created_at.rfc3339(),
            updated_at: config.updated_at.rfc3339(),
            findings: None,
        })
    }

    async fn with_findings(
        &self,
        config: oauth_config::OauthConfig,
        findings: Vec<oauth_configs::ProviderFinding>,
    ) -> Result<OauthConfig, Error> {
        let findings = Some(findings.into_iter().map(OauthConfigFinding::from).collect());
        Ok(OauthConfig { findings, ..self.body(config).await? })
    }
}

/// The settings of an identity provider. Absent members keep their value, or are read from the provider's metadata.
/// Specify the provider by `issuer` or by `metadata_url`; if it has no metadata, by its three endpoints.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct OauthConfigSettings {
    /// The display name, unique in the organisation.
    #[schema(min_length = 1, max_length = 200, nullable = false)]
    name: Option<String>,
    /// The issuer identifier, exactly as in the provider's metadata. The metadata is discovered from it.
    #[schema(format = "uri", nullable = false)]
    issuer: Option<String>,
    /// The URL of the provider's metadata. Use it instead of `issuer`.
    #[schema(format = "uri", nullable = false)]
    metadata_url: Option<String>,
    /// Only for a provider without metadata.
    #[schema(format = "uri", nullable = false)]
    authorization_endpoint: Option<String>,
    /// Only for a provider without metadata.
    #[schema(format = "uri", nullable = false)]
    token_endpoint: Option<String>,
    /// Only for a provider whose metadata is missing or does not contain it.
    #[schema(format = "uri", nullable = false)]
    userinfo_endpoint: Option<String>,
    /// The client ID registered at the provider.
    #[schema(min_length = 1, max_length = 1024, pattern = "^[ -~]+$", nullable = false)]
    client_id: Option<String>,
    /// The client secret issued by the provider. It is stored encrypted and never returned.
    #[schema(write_only, min_length = 1, max_length = 1024, pattern = "^[ -~]+$", nullable = false)]
    client_secret: Option<String>,
    /// All scopes to request. Defaults to those of `openid`, `email` and `profile` that the provider supports; to none
    /// for plain OAuth.
    #[schema(max_items = 50, nullable = false)]
    scopes: Option<Vec<String>>,
    /// The client authentication method at the token endpoint. Defaults to the method in the provider's metadata.
    #[schema(schema_with = schema::token_auth_method)]
    token_auth_method: Option<TokenAuthMethod>,
    /// The claim that identifies a user permanently. Defaults to `sub` for OpenID Connect, otherwise to `id`.
    #[schema(min_length = 1, max_length = 1024, pattern = "^[!-~]+$", nullable = false)]
    subject_claim: Option<String>,
    /// Whether end users are linked to those of other providers with the same verified email. Defaults to false.
    #[schema(nullable = false)]
    link_verified_email: Option<bool>,
}

impl From<OauthConfigSettings> for oauth_configs::OauthConfigSettings {
    fn from(settings: OauthConfigSettings) -> Self {
        Self {
            name: settings.name,
            issuer: settings.issuer,
            metadata_url: settings.metadata_url,
            authorization_endpoint: settings.authorization_endpoint,
            token_endpoint: settings.token_endpoint,
            userinfo_endpoint: settings.userinfo_endpoint,
            client_id: settings.client_id,
            client_secret: settings.client_secret.map(SecretText::new),
            scopes: settings.scopes,
            token_auth_method: settings.token_auth_method,
            subject_claim: settings.subject_claim,
            link_verified_email: settings.link_verified_email,
        }
    }
}

async fn get_config(
    cx: &Ctx,
    web: &Web,
    organization: &OrganizationId,
    id: &str,
) -> Result<oauth_config::OauthConfig, Error> {
    let id: OauthConfigId = parse_id(id, "identity provider")?;
    oauth_configs::get(cx, web.ops(), organization, &id).await
}

/// Replaces the name of the invalid field in an error with the name that the API uses.
fn rename_field(error: Error) -> Error {
    let scope = error.details.get("field").is_some_and(|field| field == "scope");
    if scope { error.with("field", "scopes") } else { error }
}

/// Lists the identity providers of the organisation by name.
///
/// The list is complete: `next_cursor` is always null.
#[utoipa::path(get, path = "/oauth-configs", tag = "oauth-configs", operation_id = "list_oauth_configs",
    responses((status = 200, body = Page<OauthConfig>), Problems))]
async fn list(
    State(web): State<Web>,
    info: RequestInfo,
    Scope { cx, organization_id }: Scope,
) -> ApiResult<Json<Page<OauthConfig>>> {
    let builder = ResponseBuilder { web: &web, info: &info, cx: &cx };
    let mut items = Vec::new();
    for config in oauth_configs::list(&cx, web.ops(), &organization_id).await? {
        items.push(builder.body(config).await?);
    }
    Ok(Json(Page::complete(items)))
}

/// Checks an identity provider and creates it if sign-in works.
///
/// `findings` contains the result of the check.
#[utoipa::path(post, path = "/oauth-configs", tag = "oauth-configs", operation_id = "create_oauth_config",
    request_body = OauthConfigSettings,
    responses((status = 201, body = OauthConfig,
        headers(("Location" = String, description = "The URL of the identity provider"))), Problems))]
async fn create(
    State(web): State<Web>,
    info: RequestInfo,
    Scope { cx, organization_id }: Scope,
    Json(body): Json<OauthConfigSettings>,
) -> ApiResult<Response> {
    let result = oauth_configs::create(&cx, web.ops(), &organization_id, &body.into()).await;
    let (config, findings) = result.map_err(rename_field)?;
    let location = format!("/api/v1/oauth-configs/{}", config.id);
    let body = ResponseBuilder { web: &web, info: &info, cx: &cx }.with_findings(config, findings).await?;
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(body)).into_response())
}

/// Returns an identity provider.
#[utoipa::path(get, path = "/oauth-configs/{oauth_config_id}", tag = "oauth-configs",
    operation_id = "get_oauth_config",
    params(("oauth_config_id" = String, Path, description = "The ID of the identity provider (`oac_…`).")),
    responses((status = 200, body = OauthConfig), Problems))]
async fn get(
    State(web): State<Web>,
    info: RequestInfo,
    Scope { cx, organization_id }: Scope,
    Path(id): Path<String>,
) -> ApiResult<Json<OauthConfig>> {
    let config = get_config(&cx, &web, &organization_id, &id).await?;
    Ok(Json(ResponseBuilder { web: &web, info: &info, cx: &cx }.body(config).await?))
}

/// Updates an identity provider.
///
/// If the change affects sign-in, the provider is checked first. Changing to a different provider signs out every end
/// user who signed in with the previous one.
#[utoipa::path(patch, path = "/oauth-configs/{oauth_config_id}", tag = "oauth-configs",
    operation_id = "update_oauth_config",
    params(("oauth_config_id" = String, Path, description = "The ID of the identity provider (`oac_…`).")),
    request_body = OauthConfigSettings, responses((status = 200, body = OauthConfig), Problems))]
async fn update(
    State(web): State<Web>,
    info: RequestInfo,
    Scope { cx, organization_id }: Scope,
    Path(id): Path<String>,
    Json(change): Json<OauthConfigSettings>,
) -> ApiResult<Json<OauthConfig>> {
    let old = get_config(&cx, &web, &organization_id, &id).await?;
    let (config, findings) = oauth_configs::update(&cx, web.ops(), &old, &change.into()).await.map_err(rename_field)?;
    Ok(Json(ResponseBuilder { web: &web, info: &info, cx: &cx }.with_findings(config, findings).await?))
}

/// Deletes an identity provider and the tokens it issued.
///
/// Fails with 409 while servers use the provider. End users and their progress are kept.
#[utoipa::path(delete, path = "/oauth-configs/{oauth_config_id}", tag = "oauth-configs",
    operation_id = "delete_oauth_config",
    params(("oauth_config_id" = String, Path, description = "The ID of the identity provider (`oac_…`).")),
    responses((status = 204), Problems))]
async fn delete(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(id): Path<String>,
) -> ApiResult<StatusCode> {
    let id: OauthConfigId = parse_id(&id, "identity provider")?;
    oauth_configs::delete(&cx, web.ops(), &organization_id, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The result of checking an identity provider.
#[derive(Debug, Serialize, ToSchema)]
struct OauthConfigCheck {
    findings: Vec<OauthConfigFinding>,
}

/// Checks whether sign-in with an identity provider works.
///
/// Changes nothing.
#[utoipa::path(post, path = "/oauth-configs/{oauth_config_id}/check", tag = "oauth-configs",
    operation_id = "check_oauth_config",
    params(("oauth_config_id" = String, Path, description = "The ID of the identity provider (`oac_…`).")),
    responses((status = 200, body = OauthConfigCheck), Problems))]
async fn check(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(id): Path<String>,
) -> ApiResult<Json<OauthConfigCheck>> {
    let config = get_config(&cx, &web, &organization_id, &id).await?;
    let findings = oauth_configs::check(&cx, web.ops(), &config).await?;
    Ok(Json(OauthConfigCheck { findings: findings.into_iter().map(OauthConfigFinding::from).collect() }))
}
