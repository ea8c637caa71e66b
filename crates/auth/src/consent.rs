//! `GET` and `POST /oauth/consent`: the user sees which application wants what, and allows or refuses it.

use askama::Template;
use axum::Form;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use url::Url;
use waypost_core::Code;
use waypost_core::scope::{Scope, Scopes};
use waypost_core::server::AuthType;
use waypost_ops::browser_sessions::BrowserSession;
use waypost_ops::{authorizations, grants, redirect_uri};

use crate::Auth;
use crate::authorize::{self, tracking_note};
use crate::limits::Kind;
use crate::page::{self, Frame};
use crate::pending::{self, Pending};

#[derive(Template)]
#[template(path = "consent.html")]
struct ConsentPage<'a> {
    frame: Frame,
    action: String,
    sign_out: String,
    csrf: &'a str,
    /// What the application calls itself.
    client_name: &'a str,
    /// The host that vouches for it: where its metadata document is.
    client_host: Option<String>,
    /// Where the browser goes afterwards, for people.
    redirect_to: String,
    /// The application runs on the user's own machine; nobody else vouches for it.
    loopback_only: bool,
    /// What it wants.
    scopes: Vec<&'static str>,
    signed_in_as: Option<String>,
    /// The organisation's provider, to which the browser goes next.
    provider: bool,
    /// The tracking id whose progress becomes the user's.
    tracking_id: Option<String>,
}

/// Shows the page.
pub async fn show(State(auth): State<Auth>, pending: Pending, headers: HeaderMap) -> Response {
    let found = async {
        let session = authorize::session(&auth, &pending, &headers).await?;
        Ok((session, tracking_note(&auth, &pending).await?))
    };
    let (session, tracking_id) = match found.await {
        Ok(found) => found,
        Err(error) => return pending::failed(&pending.site, &error),
    };
    let custom = pending.site.server().auth_type == AuthType::CustomOauth;
    if session.is_none() && !custom {
        return page::redirect(&pending.path("sign-in"));
    }
    let frame = match Frame::new(&auth, &pending.site).await {
        Ok(frame) => frame,
        Err(error) => return pending::failed(&pending.site, &error),
    };
    let request = &pending.request;
    let document = Url::parse(&request.client_id).ok();
    let template = ConsentPage {
        frame,
        action: pending.path("consent"),
        sign_out: pending.path("sign-out"),
        csrf: &pending.csrf,
        client_name: &request.client_name,
        client_host: document.and_then(|url| url.host_str().map(str::to_owned)),
        redirect_to: destination(&request.redirect_uri),
        loopback_only: redirect_uri::is_on_device(&request.redirect_uri),
        scopes: Scopes::parse(&request.scope).unwrap_or_default().iter().map(meaning).collect(),
        signed_in_as: session.as_ref().map(shown),
        provider: session.is_none(),
        tracking_id,
    };
    page::html(StatusCode::OK, &template, Some(&request.redirect_uri))
}

/// The user, as they know themselves.
fn shown(session: &BrowserSession) -> String {
    session.email.clone().or_else(|| session.name.clone()).unwrap_or_else(|| "your account".to_owned())
}

fn meaning(scope: Scope) -> &'static str {
    match scope {
        Scope::Walk => "See your walkthroughs and keep your progress",
        Scope::WalkRead => "See your walkthroughs and your progress",
    }
}

/// A redirect URI as people read it: the host, or the scheme of an application of their own.
pub(crate) fn destination(redirect_uri: &str) -> String {
    let Ok(url) = Url::parse(redirect_uri) else { return redirect_uri.to_owned() };
    match url.scheme() {
        "http" | "https" => {
            let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
            format!("{}{port}", url.host_str().unwrap_or_default())
        }
        scheme => format!("{scheme}: (an application on this computer)"),
    }
}

/// What the form sends.
#[derive(Deserialize)]
pub struct Decision {
    csrf: String,
    decision: String,
}

/// Does what the user decided.
pub async fn decide(
    State(auth): State<Auth>,
    pending: Pending,
    headers: HeaderMap,
    Form(decision): Form<Decision>,
) -> Response {
    if let Err(wait) = auth.limits.check(Kind::Form, pending.site.client) {
        return page::too_many(&pending.site, wait);
    }
    if let Err(page) = pending.check_form(&auth, &headers, &decision.csrf) {
        return page;
    }
    let ops = auth.hosting.ops();
    let session = match authorize::session(&auth, &pending, &headers).await {
        Ok(session) => session,
        Err(error) => return pending::failed(&pending.site, &error),
    };
    if decision.decision != "allow" {
        let end_user = session.as_ref().map(|session| &session.end_user_id);
        return match grants::refuse(&pending.cx, ops, &pending.request, &pending.browser, end_user).await {
            Ok(()) => authorize::denied(&pending),
            Err(error) => failed(&pending, &error),
        };
    }
    match session {
        Some(session) => authorize::complete(&auth, &pending, &session).await,
        None => match authorizations::consent(&pending.cx, ops, &pending.request, &pending.browser).await {
            Ok(()) => page::redirect(&pending.path("authorize/continue")),
            Err(error) => failed(&pending, &error),
        },
    }
}

fn failed(pending: &Pending, error: &waypost_core::Error) -> Response {
    if error.code == Code::NotFound { pending::gone(&pending.site) } else { pending::failed(&pending.site, error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_where_the_browser_goes() {
        for (uri, expected) in [
            ("https://app.example/cb", "app.example"),
            ("http://127.0.0.1:3999/cb", "127.0.0.1:3999"),
            ("cursor://anysphere.cursor-mcp/oauth/callback", "cursor: (an application on this computer)"),
        ] {
            assert_eq!(destination(uri), expected);
        }
    }
}
