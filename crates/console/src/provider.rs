//! `/login/with/{provider}`: signing in with an identity provider of the installation.

use axum::extract::{Path, Query, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use waypost_core::{Code, Error, Result};

use crate::Console;
use crate::login::NextQuery;
use crate::providers::Provider;
use crate::routes::{Access, Routes};
use crate::sign_in::{self, Device};
use crate::view::{self, PageResult};
use waypost_http_kit::cookies;
use waypost_http_kit::limits::LimitKind;
use waypost_http_kit::request_info::RequestInfo;
use waypost_ops::login::AuthorizationResponse;
use waypost_ops::user_accounts::UserLoginRequest;

/// Returns the routes for the redirect to the provider and the callback.
pub(super) fn routes() -> Routes {
    Routes::new().get("/login/with/{provider}", Access::Public, redirect_to_provider).get(
        "/login/with/{provider}/callback",
        Access::Public,
        callback,
    )
}

fn find<'a>(console: &'a Console, key: &str) -> Result<&'a Provider> {
    console.providers().iter().find(|provider| provider.key == key).ok_or_else(|| Error::not_found("provider"))
}

/// Returns the redirect URI registered with the provider.
fn redirect_uri(console: &Console, provider: &Provider) -> String {
    format!("{}/login/with/{}/callback", console.public_url.origin(), provider.key)
}

async fn redirect_to_provider(
    State(console): State<Console>,
    info: RequestInfo,
    headers: HeaderMap,
    Path(key): Path<String>,
    Query(NextQuery { next }): Query<NextQuery>,
) -> PageResult {
    let provider = find(&console, &key)?;
    match start(&console, &info, &headers, provider, view::local_path(&next)).await {
        Ok(response) => Ok(response),
        Err(error) => render_failure(error),
    }
}

async fn start(
    console: &Console,
    info: &RequestInfo,
    headers: &HeaderMap,
    provider: &Provider,
    next: &str,
) -> Result<Response> {
    sign_in::check_limit(console, LimitKind::SignIn, info)?;
    let known = cookies::read(headers, cookies::BROWSER);
    let cookie = known.clone().unwrap_or_else(|| cookies::new_value(&*console.random));
    let cx = sign_in::visitor_context(console, info);
    let (login_provider, _) = provider.describe(console.ops(), &redirect_uri(console, provider)).await?;
    let login =
        UserLoginRequest { key: provider.key, provider: &login_provider, cookie: &cookie, next, client: info.client };
    let target = console.accounts().begin_login(&cx, login).await?;
    let mut response = view::redirect(target.as_str());
    if known.is_none() {
        cookies::set(response.headers_mut(), cookies::BROWSER, &cookie);
    }
    Ok(response)
}

/// The authorization response (RFC 6749, section 4.1.2; RFC 9207, section 2). Repeated parameters are rejected.
#[derive(Default, Deserialize)]
#[serde(default)]
struct CallbackQuery {
    code: Option<String>,
    state: String,
    iss: Option<String>,
    error: Option<String>,
}

async fn callback(
    State(console): State<Console>,
    info: RequestInfo,
    headers: HeaderMap,
    Path(key): Path<String>,
    Query(query): Query<CallbackQuery>,
) -> PageResult {
    let provider = find(&console, &key)?;
    match finish(&console, &info, &headers, provider, &query).await {
        Ok(response) => Ok(response),
        Err(error) => render_failure(error),
    }
}

async fn finish(
    console: &Console,
    info: &RequestInfo,
    headers: &HeaderMap,
    provider: &Provider,
    query: &CallbackQuery,
) -> Result<Response> {
    sign_in::check_limit(console, LimitKind::SignIn, info)?;
    let (cx, device) = (sign_in::visitor_context(console, info), Device::from_request(headers, info));
    let cookie = cookies::read(headers, cookies::BROWSER).unwrap_or_default();
    let login = console.accounts().finish_login(&cx, provider.key, &cookie, &query.state).await?;
    let response = AuthorizationResponse {
        code: query.code.clone().filter(|code| !code.is_empty()),
        iss: query.iss.clone(),
        error: query.error.clone(),
    };
    let redirect_uri = redirect_uri(console, provider);
    let identity = provider.finish_login(console.ops(), &login.secrets, &response, &redirect_uri, cx.now()).await?;
    let session = console.accounts().sign_in_with_provider(&cx, &identity, device.browser()).await?;
    Ok(sign_in::start_session(console, headers, &session, &login.next).await)
}

fn render_failure(error: Error) -> PageResult {
    let (status, message) = match error.code {
        Code::Forbidden => (StatusCode::FORBIDDEN, error.message),
        Code::Conflict => (StatusCode::CONFLICT, error.message),
        Code::InvalidArguments => {
            (StatusCode::FORBIDDEN, "Your provider did not return a valid email. Sign in another way.".to_owned())
        }
        Code::Unavailable => {
            waypost_http_kit::status::log(&error);
            (StatusCode::BAD_GATEWAY, error.message)
        }
        Code::NotFound => {
            let message = "This sign-in has expired, was already used, or was started in another browser. Start again.";
            (StatusCode::NOT_FOUND, message.to_owned())
        }
        _ => return Err(error.into()),
    };
    Ok(sign_in::notice(status, "Sign-in failed", message, "/login", "Back to sign in"))
}
