//! API authentication with an API key or a console session. On the operator's own socket, every request is the
//! operator's.

use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, header};
use waypost_core::caller::{Caller, Ctx};
use waypost_core::id::OrganizationId;
use waypost_core::{Code, Error, Result};
use waypost_ops::{api_keys, organizations, user_sessions};

use crate::Web;
use crate::problem::ApiError;
use waypost_http_kit::limits::LimitKind;
use waypost_http_kit::request_info::RequestInfo;
use waypost_http_kit::{cookies, origin};

/// The request header with which a signed-in user or the operator selects an organisation, by slug or ID.
pub const ORGANIZATION_HEADER: &str = "waypost-organization";

/// The authenticated caller, stored in the request's extensions.
#[derive(Debug, Clone)]
pub struct AuthenticatedCaller {
    /// The caller for operations on an organisation. [`Caller::User`] if the user has no organisation.
    pub caller: Caller,
    /// The caller for operations on the user's own behalf. `None` for an API key and the operator.
    pub user: Option<Caller>,
    /// The organisation that the operator selected. `None` for all other callers.
    pub operator_organization_id: Option<OrganizationId>,
}

impl AuthenticatedCaller {
    /// Returns the organisation of the request: the caller's own, or the one that the operator selected.
    ///
    /// # Errors
    /// `invalid_arguments` if the operator selected none; `conflict` if a signed-in user has none.
    pub fn organization_id(&self) -> Result<&OrganizationId> {
        match (&self.caller, &self.operator_organization_id) {
            (Caller::Member { organization_id, .. }, _) | (Caller::Operator, Some(organization_id)) => {
                Ok(organization_id)
            }
            (Caller::Operator, None) => {
                let message = "Select an organisation with the header `Waypost-Organization` (a slug or an ID).";
                Err(Error::invalid("Waypost-Organization", message))
            }
            (Caller::User { .. } | Caller::Visitor | Caller::Client { .. }, _) => {
                let message = "You are not a member of any organisation. Create one first: POST /api/v1/organizations.";
                Err(Error::new(Code::Conflict, message))
            }
        }
    }
}

/// The credentials of a GET request. A response that stays open checks with them that its caller still has access.
#[derive(Debug)]
pub struct Credentials {
    headers: HeaderMap,
    info: RequestInfo,
    /// Whether the request came through the operator's socket, which checks the caller when it is opened.
    is_operator: bool,
}

impl FromRequestParts<Web> for Credentials {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Web) -> Result<Self, ApiError> {
        let names = [header::AUTHORIZATION, header::COOKIE, HeaderName::from_static(ORGANIZATION_HEADER)];
        let values =
            names.iter().flat_map(|name| parts.headers.get_all(name).iter().map(|value| (name.clone(), value.clone())));
        // Set by the layer that determined the caller, never by the request.
        let authenticated = parts.extensions.get::<AuthenticatedCaller>();
        let is_operator = authenticated.is_some_and(|authenticated| authenticated.caller == Caller::Operator);
        Ok(Self { headers: values.collect(), info: RequestInfo::from_parts(parts)?, is_operator })
    }
}

impl Credentials {
    /// Returns the caller's current context. Does not count towards any rate limit.
    ///
    /// # Errors
    /// `sign_in_required` if the credentials are not valid any more; any error of the store.
    pub async fn context(&self, web: &Web) -> Result<Ctx> {
        if self.is_operator {
            return Ok(web.context(Caller::Operator, &self.info));
        }
        let caller =
            find_caller(web, &self.info, &Method::GET, &self.headers).await?.ok_or_else(missing_credentials)?;
        Ok(web.context(caller.caller, &self.info))
    }
}

/// Rejects requests without a valid API key or session, even if their path does not exist.
pub async fn authenticate(State(web): State<Web>, info: RequestInfo, mut request: Request, next: Next) -> Response {
    match find(&web, &info, request.method(), request.headers()).await {
        Ok(authenticated) => {
            request.extensions_mut().insert(authenticated);
            next.run(request).await
        }
        Err(error) => ApiError::from(error).into_response(),
    }
}

/// Makes every request a request of the operator, in the organisation that the header selects. Credentials are ignored.
/// Only for a router that nobody except the operator can reach.
pub async fn authenticate_operator(
    State(web): State<Web>,
    info: RequestInfo,
    mut request: Request,
    next: Next,
) -> Response {
    let selected =
        request.headers().get(ORGANIZATION_HEADER).map(|value| value.to_str().unwrap_or_default().to_owned());
    let organization_id = match selected {
        Some(text) => match organizations::resolve(&web.context(Caller::Operator, &info), web.ops(), &text).await {
            Ok(organization) => Some(organization.id),
            Err(error) => return ApiError::from(error).into_response(),
        },
        None => None,
    };
    let authenticated =
        AuthenticatedCaller { caller: Caller::Operator, user: None, operator_organization_id: organization_id };
    request.extensions_mut().insert(authenticated);
    next.run(request).await
}

async fn find(web: &Web, info: &RequestInfo, method: &Method, headers: &HeaderMap) -> Result<AuthenticatedCaller> {
    if let Err(wait) = web.limits.check(LimitKind::Api, info.client) {
        let error = Error::new(Code::RateLimited, "Too many requests from your network. Try again later.");
        return Err(error.with("retry_after_seconds", wait.as_secs().max(1)));
    }
    if let Some(caller) = find_caller(web, info, method, headers).await? {
        return Ok(caller);
    }
    // A request without credentials is not an attempt to guess them.
    let has_credentials =
        headers.contains_key(header::AUTHORIZATION) || cookies::read(headers, cookies::SESSION).is_some();
    let checked = if has_credentials { web.limits.check(LimitKind::InvalidCredentials, info.client) } else { Ok(()) };
    match checked {
        Err(wait) => Err(Error::new(Code::RateLimited, "Too many requests with invalid credentials. Try again later.")
            .with("retry_after_seconds", wait.as_secs().max(1))),
        Ok(()) => Err(missing_credentials()),
    }
}

fn missing_credentials() -> Error {
    Error::new(
        Code::SignInRequired,
        "Valid credentials are missing. Send an API key (`Authorization: Bearer wpk_…`) or a console session.",
    )
}

async fn find_caller(
    web: &Web,
    info: &RequestInfo,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Option<AuthenticatedCaller>> {
    match headers.get(header::AUTHORIZATION) {
        Some(value) => by_key(web, info, value.to_str().unwrap_or_default()).await,
        None => by_session(web, info, method, headers).await,
    }
}

async fn by_key(web: &Web, info: &RequestInfo, value: &str) -> Result<Option<AuthenticatedCaller>> {
    // RFC 9110, section 11.1: the scheme is case-insensitive.
    let Some((scheme, secret)) = value.split_once(' ') else { return Ok(None) };
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Ok(None);
    }
    let caller = api_keys::authenticate(&web.context(Caller::Visitor, info), web.ops(), secret.trim()).await?;
    Ok(caller.map(|caller| AuthenticatedCaller { caller, user: None, operator_organization_id: None }))
}

async fn by_session(
    web: &Web,
    info: &RequestInfo,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Option<AuthenticatedCaller>> {
    let Some(token) = cookies::read(headers, cookies::SESSION) else { return Ok(None) };
    let cx = web.context(Caller::Visitor, info);
    let Some(session) = user_sessions::find(&cx, web.ops(), &token).await? else { return Ok(None) };
    let safe = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    if !safe && !origin::is_same_origin(headers, info) {
        return Err(Error::new(
            Code::Forbidden,
            "Requests with a console session must come from the console's own pages. Use an API key instead.",
        ));
    }
    let user = Caller::User { user_id: session.user_id.clone() };
    let memberships = user_sessions::list_memberships(&cx.with_caller(user.clone()), web.ops()).await?;
    let requested = headers.get(ORGANIZATION_HEADER).map(|value| value.to_str().unwrap_or_default());
    let membership = match (requested, &session.organization_id) {
        (Some(text), _) => {
            let mut mine = memberships.iter().map(|membership| (&membership.organization, membership));
            let named = mine.find(|(organization, _)| organization.slug == text || organization.id.as_str() == text);
            Some(named.ok_or_else(|| Error::not_found("organisation"))?.1)
        }
        (None, Some(id)) => {
            memberships.iter().find(|membership| membership.organization.id == *id).or(memberships.first())
        }
        (None, None) => memberships.first(),
    };
    let caller = membership
        .map_or_else(|| user.clone(), |membership| user_sessions::member_caller(&session.user_id, membership));
    Ok(Some(AuthenticatedCaller { caller, user: Some(user), operator_organization_id: None }))
}
