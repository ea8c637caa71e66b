//! Who looks at a page: extractors, so that a handler cannot forget to ask.

use axum::extract::{FromRequestParts, RawPathParams};
use axum::response::{IntoResponse, Response};
use http::header::LOCATION;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use url::form_urlencoded;
use waypost_core::caller::{Caller, Ctx};
use waypost_core::id::OrganizationId;
use waypost_core::organization::{Membership, User};
use waypost_core::{Error, email};
use waypost_ops::user_sessions::{self, UserSession};

use super::frame::{Frame, Place, Viewer};
use super::view::{self, PageError};
use crate::request_info::RequestInfo;
use crate::{Web, cookies};

/// A signed-in user.
pub struct SignedIn {
    /// For what they do for themselves.
    pub cx: Ctx,
    /// Their session.
    pub session: UserSession,
    /// Where they are members.
    pub memberships: Vec<Membership>,
    /// Whether their address is verified.
    pub is_verified: bool,
    /// What stands around the page.
    pub frame: Frame,
}

impl SignedIn {
    /// The key of the user's address.
    pub fn email_key(&self) -> String {
        self.frame.viewer.as_ref().map(|viewer| email::key(&viewer.email)).unwrap_or_default()
    }
}

impl FromRequestParts<Web> for SignedIn {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, web: &Web) -> Result<Self, Response> {
        let info = RequestInfo::of(parts).map_err(|error| PageError::from(error).into_response())?;
        match find(web, &info, parts).await {
            Ok(Some(signed_in)) => Ok(signed_in),
            Ok(None) => Err(to_login(parts)),
            Err(error) => Err(PageError::from(error).into_response()),
        }
    }
}

/// Whoever looks at a page that is for everybody: the user when they are signed in.
pub struct Anyone(pub Option<SignedIn>);

impl FromRequestParts<Web> for Anyone {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, web: &Web) -> Result<Self, Response> {
        let info = RequestInfo::of(parts).map_err(|error| PageError::from(error).into_response())?;
        find(web, &info, parts).await.map(Self).map_err(|error| PageError::from(error).into_response())
    }
}

/// What the cookie of a request stands for; kept in its extensions, because several extractors ask.
#[derive(Clone)]
struct Found {
    session: UserSession,
    memberships: Vec<Membership>,
    user: User,
}

async fn look_up(web: &Web, info: &RequestInfo, parts: &mut Parts) -> waypost_core::Result<Option<Found>> {
    if let Some(found) = parts.extensions.get::<Found>() {
        return Ok(Some(found.clone()));
    }
    let Some(token) = cookies::read(&parts.headers, cookies::SESSION) else { return Ok(None) };
    let cx = web.context(Caller::Visitor, info);
    let Some(session) = user_sessions::find(&cx, web.ops(), &token).await? else { return Ok(None) };
    let cx = cx.with_caller(Caller::User { user_id: session.user_id.clone() });
    let memberships = user_sessions::list_memberships(&cx, web.ops()).await?;
    let user = user_sessions::get_user(&cx, web.ops()).await?;
    let found = Found { session, memberships, user };
    parts.extensions.insert(found.clone());
    Ok(Some(found))
}

async fn find(web: &Web, info: &RequestInfo, parts: &mut Parts) -> waypost_core::Result<Option<SignedIn>> {
    let Some(Found { session, memberships, user }) = look_up(web, info, parts).await? else { return Ok(None) };
    let cx = web.context(Caller::User { user_id: session.user_id.clone() }, info);
    let is_verified = user.verified_at.is_some();
    let frame = Frame {
        viewer: Some(Viewer { name: user.display_name().to_owned(), email: user.email }),
        memberships: memberships.clone(),
        flash: cookies::flash(&parts.headers),
        ..Frame::empty()
    };
    Ok(Some(SignedIn { cx, session, memberships, is_verified, frame }))
}

/// Where a visitor signs in, and comes back from.
fn to_login(parts: &Parts) -> Response {
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let next = if parts.method == Method::GET { path } else { "/" };
    let query = form_urlencoded::Serializer::new(String::new()).append_pair("next", next).finish();
    let location = if next == "/" { "/login".to_owned() } else { format!("/login?{query}") };
    // A script that asked for a part of a page cannot follow a redirect to another one.
    if parts.headers.contains_key("hx-request") {
        let mut response = StatusCode::UNAUTHORIZED.into_response();
        if let Ok(location) = HeaderValue::from_str("/login") {
            response.headers_mut().insert(HeaderName::from_static("hx-redirect"), location);
        }
        return response;
    }
    let mut response = view::redirect(&location);
    if !response.headers().contains_key(LOCATION) {
        response = view::redirect("/login");
    }
    response
}

/// A member of the organisation whose slug stands in the path as `{org}`.
pub struct Member {
    /// For the acts of this organisation.
    pub cx: Ctx,
    /// The organisation.
    pub organization_id: OrganizationId,
    /// The organisation with the viewer's role.
    pub place: Place,
    /// What stands around the page.
    pub frame: Frame,
}

impl FromRequestParts<Web> for Member {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, web: &Web) -> Result<Self, Response> {
        let SignedIn { cx, session, memberships, frame, .. } = SignedIn::from_request_parts(parts, web).await?;
        let params = RawPathParams::from_request_parts(parts, web).await.map_err(IntoResponse::into_response)?;
        let slug = params.iter().find(|(name, _)| *name == "org").map(|(_, slug)| slug.to_owned());
        let found = memberships.iter().find(|membership| Some(&membership.organization.slug) == slug.as_ref());
        let Some(membership) = found else {
            return Err(PageError::from(Error::not_found("organisation")).within(frame).into_response());
        };
        let info = RequestInfo::of(parts).map_err(|error| PageError::from(error).into_response())?;
        let organization_id = membership.organization.id.clone();
        let address = info.client.to_string();
        let touched = user_sessions::touch(&cx, web.ops(), &session, (Some(&organization_id), &address)).await;
        if let Err(error) = touched {
            tracing::warn!(%error, "the last use of a session could not be written");
        }
        let cx = cx.with_caller(user_sessions::member_caller(&session.user_id, membership));
        let place = Place { organization: membership.organization.clone(), role: membership.role };
        let frame = Frame { place: Some(place.clone()), ..frame };
        Ok(Self { cx, organization_id, place, frame })
    }
}
