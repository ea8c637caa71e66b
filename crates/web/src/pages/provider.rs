//! `/login/with/{provider}`: signing in with an identity provider of the installation.

use axum::extract::{Path, Query, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use waypost_core::{Code, Error, Result};

use super::login::NextQuery;
use super::routes::{Access, Routes};
use super::sign_in::{self, Device};
use super::view::{self, PageResult};
use crate::limits::LimitKind;
use crate::providers::{Provider, ProviderKind};
use crate::request_info::RequestInfo;
use crate::{Web, cookies};

/// Returns the routes for the redirect to the provider and the callback.
pub(super) fn routes() -> Routes {
    Routes::new().get("/login/with/{provider}", Access::Public, redirect_to_provider).get(
        "/login/with/{provider}/callback",
        Access::Public,
        callback,
    )
}

fn find<'a>(web: &'a Web, key: &str) -> Result<&'a Provider> {
    web.providers.iter().find(|provider| provider.key == key).ok_or_else(|| Error::not_found("provider"))
}

/// Returns the redirect URI registered with the provider.
fn redirect_uri(web: &Web, provider: &Provider) -> String {
    format!("{}/login/with/{}/callback", web.public_url.origin(), provider.key)
}

async fn redirect_to_provider(
    State(web): State<Web>,
    info: RequestInfo,
    headers: HeaderMap,
    Path(key): Path<String>,
    Query(NextQuery { next }): Query<NextQuery>,
) -> PageResult {
    let provider = find(&web, &key)?;
    match start(&web, &info, &headers, (provider, view::local_path(&next))).await {
        Ok(response) => Ok(response),
        Err(error) => render_failure(error),
    }
}

async fn start(
    web: &Web,
    info: &RequestInfo,
    headers: &HeaderMap,
    (provider, next): (&Provider, &str),
) -> Result<Response> {
    sign_in::check_limit(web, LimitKind::SignIn, info)?;
    let known = cookies::read(headers, cookies::BROWSER);
    let cookie = known.clone().unwrap_or_else(|| cookies::new_value(&*web.random));
    let cx = sign_in::visitor_context(web, info);
    let pending =
        web.accounts().begin_login(&cx, &web.provider_context, (provider.key, &cookie, next), info.client).await?;
    let target = provider.authorization_url(&web.provider_context, &pending, &redirect_uri(web, provider)).await?;
    let mut response = view::redirect(&target);
    if known.is_none() {
        cookies::set_browser(response.headers_mut(), &cookie);
    }
    Ok(response)
}

/// The authorization response (RFC 6749, 4.1.2; RFC 9207, 2). Repeated parameters are rejected.
#[derive(Default, Deserialize)]
#[serde(default)]
struct CallbackQuery {
    code: String,
    state: String,
    iss: Option<String>,
    error: Option<String>,
}

async fn callback(
    State(web): State<Web>,
    info: RequestInfo,
    headers: HeaderMap,
    Path(key): Path<String>,
    Query(query): Query<CallbackQuery>,
) -> PageResult {
    let provider = find(&web, &key)?;
    match finish(&web, &info, &headers, (provider, &query)).await {
        Ok(response) => Ok(response),
        Err(error) => render_failure(error),
    }
}

async fn finish(
    web: &Web,
    info: &RequestInfo,
    headers: &HeaderMap,
    (provider, query): (&Provider, &CallbackQuery),
) -> Result<Response> {
    sign_in::check_limit(web, LimitKind::SignIn, info)?;
    let (cx, device) = (sign_in::visitor_context(web, info), Device::from_request(headers, info));
    let cookie = cookies::read(headers, cookies::BROWSER).unwrap_or_default();
    let login = web.accounts().finish_login(&cx, &web.provider_context, (provider.key, &cookie, &query.state)).await?;
    // A response from another issuer must not be processed at all (RFC 9207, 2.4).
    if let (Some(iss), ProviderKind::Openid { issuer }) = (&query.iss, &provider.kind)
        && iss != issuer
    {
        return Err(Error::new(Code::Forbidden, "The response came from a different provider than requested."));
    }
    if query.error.is_some() || query.code.is_empty() {
        let message = format!("{} did not sign you in. Nothing was changed.", provider.name);
        return Err(Error::new(Code::Forbidden, message));
    }
    let redirect_uri = redirect_uri(web, provider);
    let identity =
        provider.fetch_identity(&web.provider_context, (&login, &query.code), (&redirect_uri, cx.now())).await?;
    let session = web.accounts().sign_in_with_provider(&cx, &identity, device.browser()).await?;
    Ok(sign_in::start_session(web, headers, &session, &login.next).await)
}

fn render_failure(error: Error) -> PageResult {
    let (status, message) = match error.code {
        Code::Forbidden => (StatusCode::FORBIDDEN, error.message),
        Code::Conflict => (StatusCode::CONFLICT, error.message),
        Code::InvalidArguments => (StatusCode::FORBIDDEN, "Your provider returned no valid email.".to_owned()),
        Code::Unavailable => {
            crate::problem::log(&error);
            (StatusCode::BAD_GATEWAY, error.message)
        }
        Code::NotFound => {
            let message = "This sign-in has expired, was already used, or was started in another browser. Start again.";
            (StatusCode::NOT_FOUND, message.to_owned())
        }
        _ => return Err(error.into()),
    };
    Ok(sign_in::notice(status, ("Sign-in failed", message), ("/login", "Back to sign in")))
}
