//! `GET` and `POST /gateway/oauth/consent`: a member of the organisation sees which application wants to act on their
//! behalf, and allows or denies it.
//!
//! All other users see the same page, whether or not the organisation or the tool set exists.

use askama::Template;
use axum::Form;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use url::Url;
use waypost_core::organization::{Membership, User};
use waypost_core::scope::{Scope, Scopes};
use waypost_core::{Code, Error, Result};
use waypost_http_kit::limits::LimitKind;
use waypost_ops::gateway_url::GatewayResource;
use waypost_ops::user_sessions::member_caller;
use waypost_ops::{gateway_sign_in, redirect_uri};

use super::{PendingRequest, SignedInUser, find_user};
use crate::Auth;
use crate::authorize::{self, ClientRedirect};
use crate::consent::describe;
use crate::page::{self, ErrorPage, Layout, destination};
use crate::pending;

#[derive(Template)]
#[template(path = "gateway_consent.html")]
struct ConsentPage<'a> {
    layout: Layout,
    action: String,
    sign_out: String,
    csrf: &'a str,
    /// The ID of the user who sees the page.
    user: &'a str,
    email: &'a str,
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
    /// The URL to which the grant is restricted.
    resource: &'a str,
    /// The slug of the tool set, if the resource is one.
    tool_set: Option<&'a str>,
}

#[derive(Template)]
#[template(path = "gateway_no_access.html")]
struct NoAccessPage<'a> {
    layout: Layout,
    action: String,
    sign_out: String,
    csrf: &'a str,
    user: &'a str,
    email: &'a str,
    resource: &'a str,
}

/// Shows the page.
pub(super) async fn show(State(auth): State<Auth>, pending: PendingRequest, headers: HeaderMap) -> Response {
    match find_user(&auth, &pending, &headers).await {
        Ok(Some(user)) if user.is_fresh => match find_membership(&auth, &pending, &user).await {
            Ok(Some(membership)) => consent_page(&pending, &user.user, &membership),
            Ok(None) => no_access_page(&pending, &user.user),
            Err(error) => pending::failed(&pending.incoming, &error),
        },
        Ok(_) => page::redirect(&pending.path("sign-in")),
        Err(error) => pending::failed(&pending.incoming, &error),
    }
}

async fn find_membership(auth: &Auth, pending: &PendingRequest, user: &SignedInUser) -> Result<Option<Membership>> {
    let Some(resource) = GatewayResource::from_url(&pending.request.resource) else { return Ok(None) };
    gateway_sign_in::find_membership(&user.cx, auth.hosting.ops(), &resource).await
}

fn consent_page(pending: &PendingRequest, user: &User, membership: &Membership) -> Response {
    let request = &pending.request;
    let document = Url::parse(&request.client_id).ok();
    let resource = GatewayResource::from_url(&request.resource);
    let organization = membership.organization.name.clone();
    let layout = Layout { product: organization.clone(), organization, ..Layout::plain(&pending.incoming) };
    let template = ConsentPage {
        layout,
        action: pending.path("consent"),
        sign_out: pending.path("sign-out"),
        csrf: &pending.csrf,
        user: user.id.as_str(),
        email: &user.email,
        client_name: &request.client_name,
        client_host: document.and_then(|url| url.host_str().map(str::to_owned)),
        redirect_to: destination(&request.redirect_uri),
        loopback_only: redirect_uri::is_on_device(&request.redirect_uri),
        scopes: Scopes::parse_supported(&request.scope, Scope::GATEWAY)
            .unwrap_or_else(|_| Scope::Gateway.into())
            .iter()
            .map(describe)
            .collect(),
        resource: &request.resource,
        tool_set: resource.as_ref().and_then(GatewayResource::tool_set),
    };
    page::html(StatusCode::OK, &template, Some(&request.redirect_uri))
}

fn no_access_page(pending: &PendingRequest, user: &User) -> Response {
    let template = NoAccessPage {
        layout: Layout::plain(&pending.incoming),
        action: pending.path("consent"),
        sign_out: pending.path("sign-out"),
        csrf: &pending.csrf,
        user: user.id.as_str(),
        email: &user.email,
        resource: &pending.request.resource,
    };
    page::html(StatusCode::NOT_FOUND, &template, Some(&pending.request.redirect_uri))
}

/// The fields of the form.
#[derive(Deserialize)]
pub(super) struct Decision {
    csrf: String,
    /// The ID of the user who saw the page. Another user may have signed in since.
    user: String,
    decision: String,
}

/// Carries out the user's decision.
pub(super) async fn decide(
    State(auth): State<Auth>,
    pending: PendingRequest,
    headers: HeaderMap,
    Form(decision): Form<Decision>,
) -> Response {
    if let Err(wait) = auth.limits.check(LimitKind::EndUserForm, pending.incoming.client) {
        return page::too_many(&pending.incoming, wait);
    }
    if let Err(page) = pending.check_form(&auth, &headers, &decision.csrf) {
        return page;
    }
    let user = match find_user(&auth, &pending, &headers).await {
        Ok(Some(user)) if user.is_fresh && user.user.id.as_str() == decision.user => user,
        Ok(_) => return page::redirect(&pending.path("authorize/continue")),
        Err(error) => return pending::failed(&pending.incoming, &error),
    };
    let membership = match find_membership(&auth, &pending, &user).await {
        Ok(membership) => membership,
        Err(error) => return pending::failed(&pending.incoming, &error),
    };
    if decision.decision != "allow" {
        return deny(&auth, &pending, &user, membership.as_ref()).await;
    }
    let Some(membership) = membership else { return no_access_page(&pending, &user.user) };
    let cx = user.cx.with_caller(member_caller(&user.user.id, &membership));
    let (ops, organization) = (auth.hosting.ops(), &membership.organization.id);
    let issued = gateway_sign_in::issue_code(&cx, ops, &pending.request, &pending.browser, organization, &user.user.id);
    match issued.await {
        Ok(code) => ClientRedirect::of(&pending.request).to(&[("code", &code)]),
        Err(error) => failed(&pending, &error),
    }
}

async fn deny(auth: &Auth, pending: &PendingRequest, user: &SignedInUser, membership: Option<&Membership>) -> Response {
    let cx = match membership {
        Some(membership) => user.cx.with_caller(member_caller(&user.user.id, membership)),
        None => user.cx.clone(),
    };
    let organization = membership.map(|membership| &membership.organization.id);
    let (ops, request) = (auth.hosting.ops(), &pending.request);
    match gateway_sign_in::deny(&cx, ops, request, &pending.browser, organization).await {
        Ok(()) => authorize::redirect_denied(pending),
        Err(error) => failed(pending, &error),
    }
}

fn failed(pending: &PendingRequest, error: &Error) -> Response {
    match error.code {
        Code::NotFound => pending::gone(&pending.incoming),
        Code::Forbidden | Code::Conflict => {
            let title = "This application cannot be connected";
            let page = ErrorPage { title, message: &error.message, advice: "Then connect again from the application." };
            page::error(&pending.incoming, StatusCode::FORBIDDEN, page)
        }
        _ => pending::failed(&pending.incoming, error),
    }
}
