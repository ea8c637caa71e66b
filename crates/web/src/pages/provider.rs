//! `/login/with/{provider}`: to a provider of the installation, and back.

use axum::extract::{Path, Query, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use waypost_core::{Code, Error, Result};

use super::entry::{self, Device};
use super::login::Next;
use super::routes::{Access, Routes};
use super::view::{self, PageResult};
use crate::limits::LimitKind;
use crate::providers::{Provider, ProviderKind};
use crate::request_info::RequestInfo;
use crate::{Web, cookies};

/// The two addresses.
pub(super) fn routes() -> Routes {
    Routes::new().get("/login/with/{provider}", Access::Public, leave).get(
        "/login/with/{provider}/callback",
        Access::Public,
        callback,
    )
}

fn find<'a>(web: &'a Web, key: &str) -> Result<&'a Provider> {
    web.providers.iter().find(|provider| provider.key == key).ok_or_else(|| Error::not_found("provider"))
}

/// Where the provider sends the browser back to.
fn redirect_uri(web: &Web, provider: &Provider) -> String {
    format!("{}/login/with/{}/callback", web.public_url.origin(), provider.key)
}

async fn leave(
    State(web): State<Web>,
    info: RequestInfo,
    headers: HeaderMap,
    Path(key): Path<String>,
    Query(Next { next }): Query<Next>,
) -> PageResult {
    let provider = find(&web, &key)?;
    match away(&web, &info, &headers, (provider, view::own_path(&next))).await {
        Ok(response) => Ok(response),
        Err(error) => failed(error),
    }
}

async fn away(
    web: &Web,
    info: &RequestInfo,
    headers: &HeaderMap,
    (provider, next): (&Provider, &str),
) -> Result<Response> {
    entry::check_limit(web, LimitKind::SignIn, info)?;
    let known = cookies::read(headers, cookies::BROWSER);
    let cookie = known.clone().unwrap_or_else(|| cookies::new_value(&*web.random));
    let cx = entry::visitor(web, info);
    let leaving =
        web.accounts().begin_login(&cx, &web.provider_context, (provider.key, &cookie, next), info.client).await?;
    let target = provider.authorization_url(&web.provider_context, &leaving, &redirect_uri(web, provider)).await?;
    let mut response = view::redirect(&target);
    if known.is_none() {
        cookies::set_browser(response.headers_mut(), &cookie);
    }
    Ok(response)
}

/// What a provider sends (RFC 6749, 4.1.2; RFC 9207, 2). A parameter that comes twice is refused.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer {
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
    Query(answer): Query<Answer>,
) -> PageResult {
    let provider = find(&web, &key)?;
    match back(&web, &info, &headers, (provider, &answer)).await {
        Ok(response) => Ok(response),
        Err(error) => failed(error),
    }
}

async fn back(
    web: &Web,
    info: &RequestInfo,
    headers: &HeaderMap,
    (provider, answer): (&Provider, &Answer),
) -> Result<Response> {
    entry::check_limit(web, LimitKind::SignIn, info)?;
    let (cx, device) = (entry::visitor(web, info), Device::of(headers, info));
    let cookie = cookies::read(headers, cookies::BROWSER).unwrap_or_default();
    let returned =
        web.accounts().finish_login(&cx, &web.provider_context, (provider.key, &cookie, &answer.state)).await?;
    // What another provider sends must not be acted on at all (RFC 9207, 2.4).
    if let (Some(iss), ProviderKind::Openid { issuer }) = (&answer.iss, &provider.kind)
        && iss != issuer
    {
        return Err(Error::new(Code::Forbidden, "The answer came from another provider than the one that was asked."));
    }
    if answer.error.is_some() || answer.code.is_empty() {
        let message = format!("{} did not sign you in: nothing was changed.", provider.name);
        return Err(Error::new(Code::Forbidden, message));
    }
    let asked = (redirect_uri(web, provider), cx.now());
    let vouched =
        provider.fetch_identity(&web.provider_context, (&returned, &answer.code), (&asked.0, asked.1)).await?;
    let session = web.accounts().sign_in_with_provider(&cx, &vouched, device.browser()).await?;
    Ok(entry::signed_in(web, headers, &session, &returned.next).await)
}

fn failed(error: Error) -> PageResult {
    let (status, message) = match error.code {
        Code::Forbidden => (StatusCode::FORBIDDEN, error.message),
        Code::Conflict => (StatusCode::CONFLICT, error.message),
        Code::InvalidArguments => (StatusCode::FORBIDDEN, "The provider's address of yours is none.".to_owned()),
        Code::Unavailable => {
            crate::problem::log(&error);
            (StatusCode::BAD_GATEWAY, error.message)
        }
        Code::NotFound => {
            let message = "You came back too late, twice, or in another browser. Begin again.";
            (StatusCode::NOT_FOUND, message.to_owned())
        }
        _ => return Err(error.into()),
    };
    Ok(entry::notice(status, ("You are not signed in", message), ("/login", "Back to sign in")))
}
