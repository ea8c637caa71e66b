//! Back from the provider.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode, Uri};
use waypost_core::Code;
use waypost_core::caller::Ctx;
use waypost_ops::identity_provider::{self, LoginCallback};
use waypost_ops::oauth_grants;

use super::exchange::exchange;
use super::failure::{Failure, shown};
use crate::Auth;
use crate::authorize::Back;
use crate::browser;
use crate::limits::Kind;
use crate::page::{self, Layout};
use crate::pending::{failed, gone};
use crate::server_request::ServerRequest;

/// What a provider sends (RFC 6749, 4.1.2; RFC 9207, 2).
#[derive(Debug, Default)]
struct Answer {
    code: Option<String>,
    state: Option<String>,
    iss: Option<String>,
    error: Option<String>,
}

/// A page with a way back.
#[derive(Template)]
#[template(path = "provider_error.html")]
struct ProviderErrorPage<'a> {
    layout: Layout,
    title: &'a str,
    message: &'a str,
    client: &'a str,
    again: &'a str,
    back: &'a str,
}

pub(super) async fn callback(
    State(auth): State<Auth>,
    incoming: ServerRequest,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    // Looking for the state is a transaction that writes.
    if let Err(wait) = auth.limits.check(Kind::Authorize, incoming.client) {
        return page::too_many(&incoming, wait);
    }
    let cx = auth.context(&incoming);
    let browser = browser::read(&headers, browser::FLOW);
    let (Some(answer), Some(browser)) = (answer(&uri), browser) else { return gone(&incoming) };
    let Some(state) = &answer.state else { return gone(&incoming) };
    let (ops, provider_context) = (auth.hosting.ops(), &auth.providers.provider_context);
    let returned =
        match identity_provider::finish_login(&cx, ops, provider_context, incoming.server(), (state, &browser)).await {
            Ok(returned) => returned,
            Err(error) if error.code == Code::NotFound => return gone(&incoming),
            Err(error) => return failed(&incoming, &error),
        };
    match signed_in(&cx, &auth, &returned, &answer).await {
        Ok(session) => {
            let path = format!("{}?request={}", incoming.address.path("authorize/continue"), returned.request.id);
            let mut response = page::redirect(&path);
            browser::set_session(response.headers_mut(), &returned.config.organization_id, &session);
            response
        }
        Err(Failure::Own(error)) if error.code == Code::Unavailable => failed(&incoming, &error),
        Err(Failure::Refused(why)) if why == ACCESS_DENIED => {
            refused(&cx, &auth, &incoming, (&returned, &browser)).await
        }
        Err(failure) => shown_failure(&incoming, &returned, &failure),
    }
}

/// The code of RFC 6749, 4.1.2.1, for a user who said no.
const ACCESS_DENIED: &str = "access_denied";

/// The session cookie of the user for whom the provider vouches.
async fn signed_in(cx: &Ctx, auth: &Auth, returned: &LoginCallback, answer: &Answer) -> Result<String, Failure> {
    let config = &returned.config;
    // First of all: what another provider sends must not be acted on at all (RFC 9207, 2.4).
    if answer.iss.as_ref().is_some_and(|iss| !config.issuer.is_empty() && *iss != config.issuer) {
        return Err(Failure::OtherIssuer);
    }
    if let Some(error) = &answer.error {
        return Err(Failure::Refused(shown(error)));
    }
    let code = answer.code.as_deref().ok_or_else(|| Failure::Answer("there is no code in it".to_owned()))?;
    let (claims, tokens) = exchange((&auth.providers, auth.hosting.ops()), returned, code, cx.now()).await?;
    let (ops, provider_context) = (auth.hosting.ops(), &auth.providers.provider_context);
    let (_, session) = identity_provider::sign_in(cx, ops, provider_context, config, (&claims, &tokens)).await?;
    Ok(session)
}

/// The user said no at the provider: that is their answer to the client.
async fn refused(
    cx: &Ctx,
    auth: &Auth,
    incoming: &ServerRequest,
    (returned, browser): (&LoginCallback, &str),
) -> Response {
    let request = &returned.request;
    // Nobody has signed in.
    match oauth_grants::deny(cx, auth.hosting.ops(), request, browser, None).await {
        Ok(()) => page::redirect(&Back::of(request).url(&[("error", ACCESS_DENIED)])),
        Err(error) if error.code == Code::NotFound => gone(incoming),
        Err(error) => failed(incoming, &error),
    }
}

fn shown_failure(incoming: &ServerRequest, returned: &LoginCallback, failure: &Failure) -> Response {
    let config = &returned.config;
    let cause = match failure {
        Failure::Own(error) => std::error::Error::source(error).map(ToString::to_string),
        _ => None,
    };
    tracing::warn!(
        request_id = incoming.request_id,
        oauth_config = config.id.as_str(),
        %failure,
        cause,
        "nobody was signed in by an identity provider"
    );
    let title = match failure {
        Failure::Down(_) => format!("{} does not answer", config.name),
        _ => format!("{} could not sign you in", config.name),
    };
    let request = &returned.request;
    let page = ProviderErrorPage {
        layout: Layout::plain(incoming),
        title: &title,
        message: &failure.to_string(),
        client: &request.client_name,
        again: &format!("{}?request={}", incoming.address.path("upstream"), request.id),
        back: &Back::of(request).url(&[("error", "temporarily_unavailable")]),
    };
    page::html(StatusCode::BAD_GATEWAY, &page, None)
}

/// None when a parameter comes twice (RFC 6749, 3.1).
fn answer(uri: &Uri) -> Option<Answer> {
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).ok()?;
    let mut answer = Answer::default();
    for (name, value) in pairs {
        let place = match name.as_str() {
            "code" => &mut answer.code,
            "state" => &mut answer.state,
            "iss" => &mut answer.iss,
            "error" => &mut answer.error,
            _ => continue,
        };
        if place.replace(value).is_some() {
            return None;
        }
    }
    Some(answer)
}
