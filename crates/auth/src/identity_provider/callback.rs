//! The end of a login with an identity provider.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode, Uri};
use waypost_core::Code;
use waypost_core::caller::Ctx;
use waypost_ops::identity_provider::{self, LoginCallback};
use waypost_ops::login::{
    AuthorizationResponse, LoginError, LoginProvider, LoginVerification, SigningKeys, finish_login,
};
use waypost_ops::oauth_grants;
use waypost_outbound::Purpose;

use super::redirect_uri;
use crate::Auth;
use crate::authorize::ClientRedirect;
use crate::page::{self, Layout};
use crate::pending::{failed, gone};
use crate::server_request::ServerRequest;
use waypost_http_kit::cookies;
use waypost_http_kit::limits::LimitKind;

/// The error page, with a link to the client.
#[derive(Template)]
#[template(path = "provider_error.html")]
struct ProviderErrorPage<'a> {
    layout: Layout,
    title: &'a str,
    message: &'a str,
    client: &'a str,
    retry_url: &'a str,
    client_url: &'a str,
}

pub(super) async fn callback(
    State(auth): State<Auth>,
    incoming: ServerRequest,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    // Consuming the state is a write transaction.
    if let Err(wait) = auth.limits.check(LimitKind::Authorize, incoming.client) {
        return page::too_many(&incoming, wait);
    }
    let cx = auth.context(&incoming);
    let browser = cookies::read(&headers, cookies::END_USER_BROWSER);
    let (Some((Some(state), response)), Some(browser)) = (parse_response(&uri), browser) else {
        return gone(&incoming);
    };
    let ops = auth.hosting.ops();
    let callback_state = match identity_provider::finish_login(&cx, ops, incoming.server(), &state, &browser).await {
        Ok(callback_state) => callback_state,
        Err(error) if error.code == Code::NotFound => return gone(&incoming),
        Err(error) => return failed(&incoming, &error),
    };
    match sign_in(&cx, &auth, &callback_state, &response).await {
        Ok(session) => {
            let path = format!("{}?request={}", incoming.address.path("authorize/continue"), callback_state.request.id);
            let mut response = page::redirect(&path);
            cookies::set_session(
                response.headers_mut(),
                cookies::end_user_session(&callback_state.config.organization_id),
                &session,
            );
            response
        }
        Err(LoginError::Internal(error)) if error.code == Code::Unavailable => failed(&incoming, &error),
        Err(LoginError::Refused(reason)) if reason == ACCESS_DENIED => {
            denied(&cx, &auth, &incoming, &callback_state, &browser).await
        }
        Err(failure) => error_page(&incoming, &callback_state, &failure),
    }
}

/// The error code for a user who denied access (RFC 6749, section 4.1.2.1).
const ACCESS_DENIED: &str = "access_denied";

/// Verifies the provider's response and signs in the user whom it identifies. Returns the new session token.
async fn sign_in(
    cx: &Ctx,
    auth: &Auth,
    callback_state: &LoginCallback,
    response: &AuthorizationResponse,
) -> Result<String, LoginError> {
    let LoginCallback { config, client_secret, request, secrets } = callback_state;
    let ops = auth.hosting.ops();
    let provider = LoginProvider::of_config(config, client_secret.clone(), redirect_uri(request));
    let login = LoginVerification {
        provider: &provider,
        route: &ops.route(Purpose::SignIn, &config.organization_id).await?,
        keys: SigningKeys::Cached(&auth.providers.keys, config.id.as_str()),
        secrets,
        response,
        now: cx.now(),
    };
    let finished = finish_login(login).await?;
    let (_, session) = identity_provider::sign_in(cx, ops, config, &finished).await?;
    Ok(session)
}

/// Handles a user who denied access at the provider: closes the request and redirects to the client with the error.
async fn denied(
    cx: &Ctx,
    auth: &Auth,
    incoming: &ServerRequest,
    callback_state: &LoginCallback,
    browser: &str,
) -> Response {
    let request = &callback_state.request;
    // No end user is signed in.
    match oauth_grants::deny(cx, auth.hosting.ops(), request, browser, None).await {
        Ok(()) => page::redirect(&ClientRedirect::of(request).url(&[("error", ACCESS_DENIED)])),
        Err(error) if error.code == Code::NotFound => gone(incoming),
        Err(error) => failed(incoming, &error),
    }
}

fn error_page(incoming: &ServerRequest, callback_state: &LoginCallback, failure: &LoginError) -> Response {
    let config = &callback_state.config;
    let cause = match failure {
        LoginError::Internal(error) => std::error::Error::source(error).map(ToString::to_string),
        _ => None,
    };
    tracing::warn!(
        request_id = incoming.request_id,
        oauth_config = config.id.as_str(),
        %failure,
        cause,
        "sign-in with identity provider failed"
    );
    let title = match failure {
        LoginError::Unreachable(_) => format!("{} did not respond", config.name),
        _ => format!("{} could not sign you in", config.name),
    };
    let request = &callback_state.request;
    let page = ProviderErrorPage {
        layout: Layout::plain(incoming),
        title: &title,
        message: &failure.to_string(),
        client: &request.client_name,
        retry_url: &format!("{}?request={}", incoming.address.path("upstream"), request.id),
        client_url: &ClientRedirect::of(request).url(&[("error", "temporarily_unavailable")]),
    };
    page::html(StatusCode::BAD_GATEWAY, &page, None)
}

/// Returns the state and the rest of the response. Returns `None` if the query is malformed or a parameter occurs more
/// than once (RFC 6749, section 3.1).
fn parse_response(uri: &Uri) -> Option<(Option<String>, AuthorizationResponse)> {
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).ok()?;
    let (mut state, mut response) = (None, AuthorizationResponse::default());
    for (name, value) in pairs {
        let member = match name.as_str() {
            "code" => &mut response.code,
            "state" => &mut state,
            "iss" => &mut response.iss,
            "error" => &mut response.error,
            _ => continue,
        };
        if member.replace(value).is_some() {
            return None;
        }
    }
    Some((state, response))
}
