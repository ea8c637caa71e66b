//! `POST /oauth/token` and `POST /oauth/revoke`: codes and refresh tokens for access tokens (RFC 6749, sections 4.1.3
//! and 6), and tokens that shall end (RFC 7009).

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
use crate::authorize::names_server;
use crate::client::{self, Client, Unknown};
use crate::limits::Kind;
use crate::params::Params;
use crate::response;
use crate::server_request::ServerRequest;

/// Gives tokens, or says why not.
pub async fn token(State(auth): State<Auth>, incoming: ServerRequest, headers: HeaderMap, body: Bytes) -> Response {
    if let Err(wait) = auth.limits.check(Kind::Token, incoming.client) {
        return response::too_many(wait);
    }
    match give(&auth, &incoming, &headers, &body).await {
        Ok(tokens) => tokens_json(&tokens),
        Err(error) => response::error(&incoming, &error),
    }
}

/// Ends a token. Also one that is not known, or not any more: then there is nothing to end (RFC 7009, section 2.2).
pub async fn revoke(State(auth): State<Auth>, incoming: ServerRequest, headers: HeaderMap, body: Bytes) -> Response {
    if let Err(wait) = auth.limits.check(Kind::Token, incoming.client) {
        return response::too_many(wait);
    }
    match end(&auth, &incoming, &headers, &body).await {
        Ok(()) => (StatusCode::OK, [(header::CACHE_CONTROL, "no-store")]).into_response(),
        Err(error) => response::error(&incoming, &error),
    }
}

async fn give(auth: &Auth, incoming: &ServerRequest, headers: &HeaderMap, body: &[u8]) -> Result<TokenSet, OauthError> {
    let params = form(headers, body)?;
    let client = authenticated(auth, incoming, headers, &params).await?;
    // RFC 8707, section 2.2: a token of this server is for all of its addresses, so any of them is within the grant.
    if !names_server(auth, incoming, params.resources()).await? {
        return Err(OauthError::new(OauthCode::InvalidTarget, "The resource is no address of this server."));
    }
    let token_client = TokenClient { server: incoming.server(), client_id: &client.id };
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
            let scopes = params.get("scope").map(Scopes::parse).transpose();
            let scopes = scopes.map_err(|error| OauthError::new(OauthCode::InvalidScope, error.to_string()))?;
            oauth_grants::refresh_tokens(&cx, ops, token_client, (required(&params, "refresh_token")?, scopes)).await
        }
        _ => Err(OauthError::new(
            OauthCode::UnsupportedGrantType,
            "The grant_type is authorization_code or refresh_token.",
        )),
    }
}

async fn end(auth: &Auth, incoming: &ServerRequest, headers: &HeaderMap, body: &[u8]) -> Result<(), OauthError> {
    let params = form(headers, body)?;
    let client = authenticated(auth, incoming, headers, &params).await?;
    // token_type_hint is for servers that would have to look in several places.
    let token = required(&params, "token")?;
    let token_client = TokenClient { server: incoming.server(), client_id: &client.id };
    oauth_grants::revoke_token(&auth.context(incoming), &auth.hosting, token_client, token).await
}

fn form(headers: &HeaderMap, body: &[u8]) -> Result<Params, OauthError> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Err(OauthError::new(
            OauthCode::InvalidRequest,
            "The parameters come in the body, as application/x-www-form-urlencoded.",
        ));
    }
    let params = Params::parse(body);
    match params.fault() {
        Some(why) => Err(OauthError::new(OauthCode::InvalidRequest, why)),
        None => Ok(params),
    }
}

fn required<'a>(params: &'a Params, name: &str) -> Result<&'a str, OauthError> {
    let missing = || OauthError::new(OauthCode::InvalidRequest, format!("The parameter {name} is missing."));
    params.get(name).ok_or_else(missing)
}

/// The client, after it proved who it is (RFC 6749, section 2.3.1).
async fn authenticated(
    auth: &Auth,
    incoming: &ServerRequest,
    headers: &HeaderMap,
    params: &Params,
) -> Result<Client, OauthError> {
    let invalid = |why: &str| OauthError::new(OauthCode::InvalidClient, why);
    let basic =
        match headers.get(header::AUTHORIZATION) {
            Some(value) => Some(value.to_str().ok().and_then(read_basic).ok_or_else(|| {
                invalid("The Authorization header holds no client id and secret in the Basic scheme.")
            })?),
            None => None,
        };
    let posted = params.get("client_secret");
    let (id, secret, method) = match &basic {
        Some(_) if posted.is_some() => {
            let why = "The client proves who it is in one way, not in two.";
            return Err(OauthError::new(OauthCode::InvalidRequest, why));
        }
        Some((id, secret)) => (id.as_str(), Some(secret.as_str()), ClientAuthMethod::Basic),
        None => (required(params, "client_id")?, posted, ClientAuthMethod::Post),
    };
    if params.get("client_id").is_some_and(|named| named != id) {
        return Err(invalid("The client_id is not that of the Authorization header."));
    }
    let client = match client::find_known(auth, incoming, id).await {
        Ok(client) => client,
        Err(Unknown::Failed(error)) => return Err(error.into()),
        Err(unknown) => return Err(invalid(&unknown.to_string())),
    };
    if client.accepts(method, secret) { Ok(client) } else { Err(invalid("The client did not prove who it is.")) }
}

/// RFC 7617, with both parts encoded as in a form (RFC 6749, section 2.3.1).
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

/// RFC 6749, section 5.1.
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
