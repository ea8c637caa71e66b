//! `GET` and `POST /oauth/consent`: the user sees which application requests which access, and allows or denies it.

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
use waypost_ops::{authorizations, oauth_grants, redirect_uri};

use crate::Auth;
use crate::authorize;
use crate::page::{self, Layout, destination};
use crate::pending::{self, PendingAuthorization};
use crate::server_sign_in::{claimable_tracking_id, complete, find_session};
use waypost_http_kit::limits::LimitKind;

#[derive(Template)]
#[template(path = "consent.html")]
struct ConsentPage<'a> {
    layout: Layout,
    action: String,
    sign_out: String,
    csrf: &'a str,
    /// The self-reported name of the application.
    client_name: &'a str,
    /// The host of the application's metadata document, if it has one.
    client_host: Option<String>,
    /// The redirect target, in readable form.
    redirect_to: String,
    /// Whether the application runs on the user's own device and its identity cannot be verified.
    loopback_only: bool,
    /// The descriptions of the requested scopes.
    scopes: Vec<&'static str>,
    signed_in_as: Option<String>,
    /// Whether the user signs in with the organisation's identity provider next.
    provider: bool,
    /// The tracking ID whose progress the user claims.
    tracking_id: Option<String>,
}

/// Shows the page.
pub async fn show(State(auth): State<Auth>, pending: PendingAuthorization, headers: HeaderMap) -> Response {
    let loaded = async {
        let session = find_session(&auth, &pending, &headers).await?;
        Ok((session, claimable_tracking_id(&auth, &pending).await?))
    };
    let (session, tracking_id) = match loaded.await {
        Ok(loaded) => loaded,
        Err(error) => return pending::failed(&pending.incoming, &error),
    };
    let custom = pending.incoming.server().auth_type == AuthType::CustomOauth;
    if session.is_none() && !custom {
        return page::redirect(&pending.path("sign-in"));
    }
    let layout = match Layout::new(&auth, &pending.incoming).await {
        Ok(layout) => layout,
        Err(error) => return pending::failed(&pending.incoming, &error),
    };
    let request = &pending.request;
    let document = Url::parse(&request.client_id).ok();
    let template = ConsentPage {
        layout,
        action: pending.path("consent"),
        sign_out: pending.path("sign-out"),
        csrf: &pending.csrf,
        client_name: &request.client_name,
        client_host: document.and_then(|url| url.host_str().map(str::to_owned)),
        redirect_to: destination(&request.redirect_uri),
        loopback_only: redirect_uri::is_on_device(&request.redirect_uri),
        scopes: Scopes::parse(&request.scope).unwrap_or_default().iter().map(describe).collect(),
        signed_in_as: session.as_ref().map(display_name),
        provider: session.is_none(),
        tracking_id,
    };
    page::html(StatusCode::OK, &template, Some(&request.redirect_uri))
}

/// Returns the email or the name of the user, or a placeholder if neither is known.
fn display_name(session: &BrowserSession) -> String {
    session.email.clone().or_else(|| session.name.clone()).unwrap_or_else(|| "your account".to_owned())
}

pub(crate) fn describe(scope: Scope) -> &'static str {
    match scope {
        Scope::Gateway => "Use the tools, prompts and resources that you were granted",
        Scope::Walk => "View your walkthroughs and save your progress",
        Scope::WalkRead => "View your walkthroughs and your progress",
    }
}

/// The fields of the form.
#[derive(Deserialize)]
pub struct Decision {
    csrf: String,
    decision: String,
}

/// Carries out the user's decision.
pub async fn decide(
    State(auth): State<Auth>,
    pending: PendingAuthorization,
    headers: HeaderMap,
    Form(decision): Form<Decision>,
) -> Response {
    if let Err(wait) = auth.limits.check(LimitKind::EndUserForm, pending.incoming.client) {
        return page::too_many(&pending.incoming, wait);
    }
    if let Err(page) = pending.check_form(&auth, &headers, &decision.csrf) {
        return page;
    }
    let ops = auth.hosting.ops();
    let session = match find_session(&auth, &pending, &headers).await {
        Ok(session) => session,
        Err(error) => return pending::failed(&pending.incoming, &error),
    };
    if decision.decision != "allow" {
        let end_user = session.as_ref().map(|session| &session.end_user_id);
        return match oauth_grants::deny(&pending.cx, ops, &pending.request, &pending.browser, end_user).await {
            Ok(()) => authorize::redirect_denied(&pending),
            Err(error) => failed(&pending, &error),
        };
    }
    match session {
        Some(session) => complete(&auth, &pending, &session).await,
        None => match authorizations::record_consent(&pending.cx, ops, &pending.request, &pending.browser).await {
            Ok(()) => page::redirect(&pending.path("authorize/continue")),
            Err(error) => failed(&pending, &error),
        },
    }
}

fn failed(pending: &PendingAuthorization, error: &waypost_core::Error) -> Response {
    if error.code == Code::NotFound {
        pending::gone(&pending.incoming)
    } else {
        pending::failed(&pending.incoming, error)
    }
}
