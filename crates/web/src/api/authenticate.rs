//! Who calls the API: an API key, or a signed-in user of the console.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, header};
use waypost_core::caller::Caller;
use waypost_core::{Code, Error, Result};
use waypost_ops::{api_keys, user_sessions};

use crate::limits::LimitKind;
use crate::problem::ApiError;
use crate::request_info::RequestInfo;
use crate::{Web, cookies, origin};

/// With which of their organisations a signed-in user works: its slug or id.
pub const ORGANIZATION: &str = "waypost-organization";

/// Who calls; stands in the request's extensions.
#[derive(Debug, Clone)]
pub struct Authenticated {
    /// For the acts of an organisation. A user without any stays [`Caller::User`].
    pub caller: Caller,
    /// For what users do for themselves; none with an API key.
    pub user: Option<Caller>,
}

/// Refuses every request without a valid key or session, whether there is something at its address or not.
pub async fn authenticate(State(web): State<Web>, info: RequestInfo, mut request: Request, next: Next) -> Response {
    match find(&web, &info, request.method(), request.headers()).await {
        Ok(authenticated) => {
            request.extensions_mut().insert(authenticated);
            next.run(request).await
        }
        Err(error) => ApiError::from(error).into_response(),
    }
}

async fn find(web: &Web, info: &RequestInfo, method: &Method, headers: &HeaderMap) -> Result<Authenticated> {
    if let Err(wait) = web.limits.check(LimitKind::Api, info.client) {
        let error = Error::new(Code::RateLimited, "Too many requests from your network.");
        return Err(error.with("retry_after_seconds", wait.as_secs().max(1)));
    }
    let found = match headers.get(header::AUTHORIZATION) {
        Some(value) => by_key(web, info, value.to_str().unwrap_or_default()).await?,
        None => by_session(web, info, method, headers).await?,
    };
    if let Some(found) = found {
        return Ok(found);
    }
    // Who shows nothing guesses nothing.
    let shown = headers.contains_key(header::AUTHORIZATION) || cookies::read(headers, cookies::SESSION).is_some();
    let checked = if shown { web.limits.check(LimitKind::InvalidCredentials, info.client) } else { Ok(()) };
    match checked {
        Err(wait) => Err(Error::new(Code::RateLimited, "Too many requests with keys that are not valid.")
            .with("retry_after_seconds", wait.as_secs().max(1))),
        Ok(()) => Err(Error::new(
            Code::SignInRequired,
            "This needs an API key (`Authorization: Bearer wpk_…`) or the console's session, and got none that is valid.",
        )),
    }
}

async fn by_key(web: &Web, info: &RequestInfo, value: &str) -> Result<Option<Authenticated>> {
    // RFC 9110, section 11.1: the scheme's case does not matter.
    let Some((scheme, secret)) = value.split_once(' ') else { return Ok(None) };
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Ok(None);
    }
    let caller = api_keys::authenticate(&web.context(Caller::Visitor, info), web.ops(), secret.trim()).await?;
    Ok(caller.map(|caller| Authenticated { caller, user: None }))
}

async fn by_session(
    web: &Web,
    info: &RequestInfo,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Option<Authenticated>> {
    let Some(token) = cookies::read(headers, cookies::SESSION) else { return Ok(None) };
    let cx = web.context(Caller::Visitor, info);
    let Some(session) = user_sessions::find(&cx, web.ops(), &token).await? else { return Ok(None) };
    let safe = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    if !safe && !origin::is_own(headers, info) {
        return Err(Error::new(
            Code::Forbidden,
            "A request with the console's session has to come from its own pages.",
        ));
    }
    let user = Caller::User { user_id: session.user_id.clone() };
    let memberships = user_sessions::list_memberships(&cx.with_caller(user.clone()), web.ops()).await?;
    let wanted = headers.get(ORGANIZATION).map(|value| value.to_str().unwrap_or_default());
    let found = match (wanted, &session.organization_id) {
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
    let caller = found.map_or_else(|| user.clone(), |it| user_sessions::member_caller(&session.user_id, it));
    Ok(Some(Authenticated { caller, user: Some(user) }))
}
