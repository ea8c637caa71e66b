//! `POST /oauth/token` and `POST /oauth/revoke`: exchanges codes and refresh tokens for access tokens (RFC 6749,
//! sections 4.1.3 and 6) and revokes tokens (RFC 7009).

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use data_encoding::BASE64;
use http::{HeaderMap, StatusCode, header};
use serde_json::json;
use waypost_core::oauth_client::ClientAuthMethod;
use waypost_core::oauth_error::{OauthCode, OauthError};
use waypost_core::scope::Scopes;
use waypost_ops::oauth_grants::{self, CodeExchange, TokenClient, TokenSet};

use crate::Auth;
use crate::client::{self, Client, ClientError};
use crate::issuer_request::IssuerRequest;
use crate::params::Params;
use crate::response;
use waypost_http_kit::limits::LimitKind;

/// Exchanges a code or a refresh token for tokens.
pub async fn token<R: IssuerRequest>(
    State(auth): State<Auth>,
    incoming: R,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Err(wait) = auth.limits.check(LimitKind::Token, incoming.address()) {
        return response::too_many(wait);
    }
    match issue_tokens(&auth, &incoming, &headers, &body).await {
        Ok(tokens) => tokens_json(&tokens),
        Err(error) => response::error(&incoming, &error),
    }
}

/// Revokes a token. Also succeeds if the token is unknown or already revoked (RFC 7009, section 2.2).
pub async fn revoke<R: IssuerRequest>(
    State(auth): State<Auth>,
    incoming: R,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Err(wait) = auth.limits.check(LimitKind::Token, incoming.address()) {
        return response::too_many(wait);
    }
    match revoke_token(&auth, &incoming, &headers, &body).await {
        Ok(()) => (StatusCode::OK, [(header::CACHE_CONTROL, "no-store")]).into_response(),
        Err(error) => response::error(&incoming, &error),
    }
}

async fn issue_tokens(
    auth: &Auth,
    incoming: &impl IssuerRequest,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<TokenSet, OauthError> {
    let params = form(headers, body)?;
    let client = authenticate(auth, incoming, headers, &params).await?;
    let resource = incoming.token_resource(auth, params.resources()).await?;
    let issuer = &incoming.issuer_id();
    let token_client = TokenClient { issuer, client_id: &client.id, resource: resource.as_ref() };
    let (cx, ops) = (auth.context(incoming), auth.hosting.ops());
    match required(&params, "grant_type")? {
        "authorization_code" => {
            let exchange = CodeExchange {
                code: required(&params, "code")?,
                redirect_uri: params.get("redirect_uri"),
                verifier: required(&params, "code_verifier")?,
            };
            oauth_grants::exchange_code(&cx, ops, token_client, exchange).await
        }
        "refresh_token" => {
            let scopes = params.get("scope").map(|scope| Scopes::parse_supported(scope, issuer.scopes())).transpose();
            let scopes = scopes.map_err(|error| OauthError::new(OauthCode::InvalidScope, error.to_string()))?;
            oauth_grants::refresh_tokens(&cx, ops, token_client, required(&params, "refresh_token")?, scopes).await
        }
        _ => Err(OauthError::new(
            OauthCode::UnsupportedGrantType,
            "The grant_type must be authorization_code or refresh_token.",
        )),
    }
}

async fn revoke_token(
    auth: &Auth,
    incoming: &impl IssuerRequest,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<(), OauthError> {
    let params = form(headers, body)?;
    let client = authenticate(auth, incoming, headers, &params).await?;
    // token_type_hint is only useful to servers that store the two kinds of tokens separately.
    let token = required(&params, "token")?;
    let token_client = TokenClient { issuer: &incoming.issuer_id(), client_id: &client.id, resource: None };
    oauth_grants::revoke_token(&auth.context(incoming), &auth.hosting, token_client, token).await
}

fn form(headers: &HeaderMap, body: &[u8]) -> Result<Params, OauthError> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Err(OauthError::new(
            OauthCode::InvalidRequest,
            "The parameters must be sent in the body, as application/x-www-form-urlencoded.",
        ));
    }
    let params = Params::parse(body);
    match params.fault() {
        Some(reason) => Err(OauthError::new(OauthCode::InvalidRequest, reason)),
        None => Ok(params),
    }
}

fn required<'a>(params: &'a Params, name: &str) -> Result<&'a str, OauthError> {
    let missing = || OauthError::new(OauthCode::InvalidRequest, format!("The parameter {name} is missing."));
    params.get(name).ok_or_else(missing)
}

/// Authenticates the client (RFC 6749, section 2.3.1).
///
/// # Errors
/// `invalid_request` if the client ID is missing or two authentication methods are used; `invalid_client` if the
/// credentials are malformed or incorrect.
async fn authenticate(
    auth: &Auth,
    incoming: &impl IssuerRequest,
    headers: &HeaderMap,
    params: &Params,
) -> Result<Client, OauthError> {
    let invalid = |reason: &str| OauthError::new(OauthCode::InvalidClient, reason);
    let basic = match headers.get(header::AUTHORIZATION) {
        Some(value) => Some(value.to_str().ok().and_then(read_basic).ok_or_else(|| {
            invalid("The Authorization header does not contain a client ID and secret in the Basic scheme.")
        })?),
        None => None,
    };
    let posted = params.get("client_secret");
    let (id, secret, method) = match &basic {
        Some(_) if posted.is_some() => {
            let reason = "The client must use only one authentication method.";
            return Err(OauthError::new(OauthCode::InvalidRequest, reason));
        }
        Some((id, secret)) => (id.as_str(), Some(secret.as_str()), ClientAuthMethod::Basic),
        None => (required(params, "client_id")?, posted, ClientAuthMethod::Post),
    };
    if params.get("client_id").is_some_and(|named| named != id) {
        return Err(invalid("The client_id differs from that of the Authorization header."));
    }
    let client = match client::get_for_token(auth, incoming, id).await {
        Ok(client) => client,
        Err(ClientError::Failed(error)) => return Err(error.into()),
        Err(unknown) => return Err(invalid(&unknown.to_string())),
    };
    if client.accepts(method, secret) { Ok(client) } else { Err(invalid("Client authentication failed.")) }
}

/// Parses Basic credentials (RFC 7617); both parts are form-encoded (RFC 6749, section 2.3.1).
fn read_basic(value: &str) -> Option<(String, String)> {
    let (scheme, credentials) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(BASE64.decode(credentials.trim().as_bytes()).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    let decode = |text: &str| {
        let pair = format!("v={text}");
        url::form_urlencoded::parse(pair.as_bytes()).next().map(|(_, value)| value.into_owned())
    };
    Some((decode(id)?, decode(secret)?))
}

/// Returns the token response (RFC 6749, section 5.1).
fn tokens_json(tokens: &TokenSet) -> Response {
    let body = json!({
        "access_token": tokens.access_token,
        "token_type": "Bearer",
        "expires_in": tokens.expires_in,
        "refresh_token": tokens.refresh_token,
        "scope": tokens.scope.to_string(),
    });
    ([(header::CACHE_CONTROL, "no-store"), (header::PRAGMA, "no-cache")], Json(body)).into_response()
}
