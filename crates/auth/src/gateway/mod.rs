//! The gateway as an issuer: users of the console sign in, and consent to a client as members of an organisation
//! (docs/gateway.md, "People").

mod consent;

use std::net::IpAddr;

use askama::Template;
use axum::Form;
use axum::Router;
use axum::extract::{FromRequestParts, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use url::form_urlencoded;
use waypost_core::Result;
use waypost_core::caller::{Caller, Ctx};
use waypost_core::issuer::IssuerId;
use waypost_core::oauth_error::{OauthCode, OauthError};
use waypost_core::organization::User;
use waypost_http_kit::cookies;
use waypost_http_kit::limits::LimitKind;
use waypost_ops::gateway_url::{GatewayResource, GatewayUrls};
use waypost_ops::user_sessions;
use waypost_outbound::{Purpose, Route};

use crate::Auth;
use crate::authorize::{NextStep, SignIn, is_fresh};
use crate::issuer_request::{IssuerRequest, RequestedResource};
use crate::page::{self, Layout};
use crate::pending::{self, PendingAuthorization};

/// A request to the gateway's issuer. The router inserts it into the request's extensions.
#[derive(Debug, Clone)]
pub struct GatewayRequest {
    /// The URLs of the gateway on the host that was requested.
    pub urls: GatewayUrls,
    /// The client's IP address.
    pub client: IpAddr,
    /// The request ID, as in the log.
    pub request_id: String,
}

/// The pending request of a gateway client.
type PendingRequest = PendingAuthorization<GatewayRequest>;

impl<S: Send + Sync> FromRequestParts<S> for GatewayRequest {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| StatusCode::NOT_FOUND.into_response())
    }
}

/// A type without values: earlier consent is never sufficient at the gateway. A grant lets a client act on behalf of
/// the user, so the user must allow each client explicitly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoSession {}

impl IssuerRequest for GatewayRequest {
    fn issuer_id(&self) -> IssuerId {
        IssuerId::Gateway
    }

    fn issuer(&self) -> String {
        self.urls.issuer()
    }

    fn origin(&self) -> &str {
        self.urls.origin()
    }

    fn path(&self, name: &str) -> String {
        self.urls.path(name)
    }

    fn name(&self) -> &'static str {
        "Waypost"
    }

    fn address(&self) -> IpAddr {
        self.client
    }

    fn request_id(&self) -> &str {
        &self.request_id
    }

    fn caller(&self) -> Caller {
        Caller::Visitor
    }

    async fn route(&self, auth: &Auth, purpose: Purpose) -> Result<Route> {
        auth.hosting.ops().route_without_organization(purpose)
    }

    async fn requested_resource(&self, auth: &Auth, resources: &[String]) -> Result<RequestedResource, OauthError> {
        match parse_resource(auth, resources)? {
            Some(resource) => Ok(RequestedResource { url: self.urls.resource(&resource), claim: None }),
            None => Err(OauthError::new(
                OauthCode::InvalidTarget,
                "The resource is missing. It is the URL of the gateway that contains the organisation.",
            )),
        }
    }

    async fn token_resource(&self, auth: &Auth, resources: &[String]) -> Result<Option<GatewayResource>, OauthError> {
        parse_resource(auth, resources)
    }

    async fn has_consented(&self, _: &Auth, _: &HeaderMap, _: &str, _: &str) -> Result<bool> {
        Ok(false)
    }
}

impl SignIn for GatewayRequest {
    type Session = NoSession;

    async fn next_step(auth: &Auth, pending: &PendingRequest, headers: &HeaderMap) -> Result<NextStep<NoSession>> {
        let user = find_user(auth, pending, headers).await?;
        Ok(if user.is_some_and(|user| user.is_fresh) { NextStep::Consent } else { NextStep::SignIn })
    }

    async fn complete(_: &Auth, _: &PendingRequest, session: NoSession) -> Response {
        match session {}
    }
}

/// Parses resource indicators (RFC 8707). Returns the resource that all of them name, or `None` if there are none.
///
/// # Errors
/// `invalid_target` if one of them is not a URL of this gateway, or if they name different resources: a token is bound
/// to one resource.
fn parse_resource(auth: &Auth, resources: &[String]) -> Result<Option<GatewayResource>, OauthError> {
    let invalid = || OauthError::new(OauthCode::InvalidTarget, "The resource must be exactly one URL of this gateway.");
    let mut named = None;
    for resource in resources {
        let resource = GatewayResource::parse(&auth.public_url, resource).ok_or_else(invalid)?;
        if named.as_ref().is_some_and(|named| *named != resource) {
            return Err(invalid());
        }
        named = Some(resource);
    }
    Ok(named)
}

/// The user who is signed in to the console in the browser of a request.
struct SignedInUser {
    user: User,
    /// The context for this user's operations.
    cx: Ctx,
    /// Whether the session is recent enough for the request.
    is_fresh: bool,
}

async fn find_user(auth: &Auth, pending: &PendingRequest, headers: &HeaderMap) -> Result<Option<SignedInUser>> {
    let ops = auth.hosting.ops();
    let Some(token) = cookies::read(headers, cookies::SESSION) else { return Ok(None) };
    let Some(session) = user_sessions::find(&pending.cx, ops, &token).await? else { return Ok(None) };
    let cx = pending.cx.with_caller(Caller::User { user_id: session.user_id });
    let user = user_sessions::get_user(&cx, ops).await?;
    Ok(Some(SignedInUser { user, cx, is_fresh: is_fresh(&pending.request, session.created_at) }))
}

/// Returns the routes of the pages, below `/gateway/oauth`.
pub(crate) fn routes() -> Router<Auth> {
    Router::new()
        .route("/consent", get(consent::show).post(consent::decide))
        .route("/sign-in", get(sign_in))
        .route("/sign-out", post(sign_out))
}

#[derive(Template)]
#[template(path = "gateway_sign_in.html")]
struct SignInPage<'a> {
    layout: Layout,
    email: String,
    sign_out: String,
    csrf: &'a str,
}

/// Redirects to the console's sign-in page, which redirects back. If the session is too old for the request, shows a
/// page on which the user signs out first.
async fn sign_in(State(auth): State<Auth>, pending: PendingRequest, headers: HeaderMap) -> Response {
    match find_user(&auth, &pending, &headers).await {
        Ok(None) => page::redirect(&login_path(&pending)),
        Ok(Some(user)) if user.is_fresh => page::redirect(&pending.path("authorize/continue")),
        Ok(Some(user)) => {
            let template = SignInPage {
                layout: Layout::plain(&pending.incoming),
                email: user.user.email,
                sign_out: pending.path("sign-out"),
                csrf: &pending.csrf,
            };
            page::html(StatusCode::OK, &template, None)
        }
        Err(error) => pending::failed(&pending.incoming, &error),
    }
}

/// Returns the path of the console's sign-in page, which redirects back to the request after the sign-in.
fn login_path(pending: &PendingRequest) -> String {
    let next = pending.path("authorize/continue");
    let query = form_urlencoded::Serializer::new(String::new()).append_pair("next", &next).finish();
    format!("/login?{query}")
}

/// The fields of the sign-out form.
#[derive(Deserialize)]
struct SignOutForm {
    csrf: String,
}

/// Ends the console session in this browser, so that another user can sign in.
async fn sign_out(
    State(auth): State<Auth>,
    pending: PendingRequest,
    headers: HeaderMap,
    Form(fields): Form<SignOutForm>,
) -> Response {
    if let Err(wait) = auth.limits.check(LimitKind::EndUserForm, pending.incoming.client) {
        return page::too_many(&pending.incoming, wait);
    }
    if let Err(page) = pending.check_form(&auth, &headers, &fields.csrf) {
        return page;
    }
    if let Some(token) = cookies::read(&headers, cookies::SESSION)
        && let Err(error) = user_sessions::delete_by_token(auth.hosting.ops(), &token).await
    {
        return pending::failed(&pending.incoming, &error);
    }
    let mut response = page::redirect(&login_path(&pending));
    cookies::clear(response.headers_mut(), cookies::SESSION);
    response
}
