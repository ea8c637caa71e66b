//! Back from the provider.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode, Uri};
use waypost_core::Code;
use waypost_core::caller::Ctx;
use waypost_ops::grants;
use waypost_ops::upstream::{self, Returned};

use super::exchange::exchange;
use super::failure::{Failure, shown};
use crate::Auth;
use crate::authorize::Back;
use crate::browser;
use crate::limits::Kind;
use crate::page::{self, Frame};
use crate::pending::{failed, gone};
use crate::site::Site;

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
#[template(path = "upstream_failed.html")]
struct FailedPage<'a> {
    frame: Frame,
    title: &'a str,
    message: &'a str,
    client: &'a str,
    again: &'a str,
    back: &'a str,
}

pub(super) async fn callback(State(auth): State<Auth>, site: Site, headers: HeaderMap, uri: Uri) -> Response {
    // Looking for the state is a transaction that writes.
    if let Err(wait) = auth.limits.check(Kind::Authorize, site.client) {
        return page::too_many(&site, wait);
    }
    let cx = auth.context(&site);
    let browser = browser::read(&headers, browser::FLOW);
    let (Some(answer), Some(browser)) = (answer(&uri), browser) else { return gone(&site) };
    let Some(state) = &answer.state else { return gone(&site) };
    let (ops, upstream) = (auth.hosting.ops(), &auth.providers.upstream);
    let returned = match upstream::take_back(&cx, ops, upstream, site.server(), (state, &browser)).await {
        Ok(returned) => returned,
        Err(error) if error.code == Code::NotFound => return gone(&site),
        Err(error) => return failed(&site, &error),
    };
    match signed_in(&cx, &auth, &returned, &answer).await {
        Ok(session) => {
            let path = format!("{}?request={}", site.address.path("authorize/continue"), returned.request.id);
            let mut response = page::redirect(&path);
            browser::set_session(response.headers_mut(), &returned.config.organization_id, &session);
            response
        }
        Err(Failure::Own(error)) if error.code == Code::Unavailable => failed(&site, &error),
        Err(Failure::Refused(why)) if why == ACCESS_DENIED => refused(&cx, &auth, &site, (&returned, &browser)).await,
        Err(failure) => shown_failure(&site, &returned, &failure),
    }
}

/// The code of RFC 6749, 4.1.2.1, for a user who said no.
const ACCESS_DENIED: &str = "access_denied";

/// The session cookie of the user for whom the provider vouches.
async fn signed_in(cx: &Ctx, auth: &Auth, returned: &Returned, answer: &Answer) -> Result<String, Failure> {
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
    let (ops, upstream) = (auth.hosting.ops(), &auth.providers.upstream);
    let (_, session) = upstream::sign_in(cx, ops, upstream, config, (&claims, &tokens)).await?;
    Ok(session)
}

/// The user said no at the provider: that is their answer to the client.
async fn refused(cx: &Ctx, auth: &Auth, site: &Site, (returned, browser): (&Returned, &str)) -> Response {
    let request = &returned.request;
    // Nobody has signed in.
    match grants::refuse(cx, auth.hosting.ops(), request, browser, None).await {
        Ok(()) => page::redirect(&Back::of(request).url(&[("error", ACCESS_DENIED)])),
        Err(error) if error.code == Code::NotFound => gone(site),
        Err(error) => failed(site, &error),
    }
}

fn shown_failure(site: &Site, returned: &Returned, failure: &Failure) -> Response {
    let config = &returned.config;
    let cause = match failure {
        Failure::Own(error) => std::error::Error::source(error).map(ToString::to_string),
        _ => None,
    };
    tracing::warn!(
        request_id = site.request_id,
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
    let page = FailedPage {
        frame: Frame::plain(site),
        title: &title,
        message: &failure.to_string(),
        client: &request.client_name,
        again: &format!("{}?request={}", site.address.path("upstream"), request.id),
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
