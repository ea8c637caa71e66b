//! Extractors for the user and the organisation of a page.

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

use crate::Console;
use crate::layout::{CurrentOrganization, Layout, Viewer};
use crate::view::{self, PageError};
use waypost_http_kit::cookies;
use waypost_http_kit::request_info::RequestInfo;

/// A signed-in user.
pub struct CurrentUser {
    /// The context for operations on the user's own account.
    pub cx: Ctx,
    /// The session.
    pub session: UserSession,
    /// The memberships of the user.
    pub memberships: Vec<Membership>,
    /// Whether the user's email is verified.
    pub is_verified: bool,
    /// The layout of the page.
    pub layout: Layout,
}

impl CurrentUser {
    /// Returns the membership of the organisation in which the user last worked, or else the first membership. Returns
    /// `None` if the user is not a member of any organisation.
    pub fn current_membership(&self) -> Option<&Membership> {
        let last = self
            .memberships
            .iter()
            .find(|membership| Some(&membership.organization.id) == self.session.organization_id.as_ref());
        last.or(self.memberships.first())
    }

    /// Returns the layout with the navigation of the current organisation, for pages that belong to no organisation.
    pub fn layout_with_navigation(&self) -> Layout {
        let org = self.current_membership().map(|membership| CurrentOrganization {
            organization: membership.organization.clone(),
            role: membership.role,
        });
        Layout { org, ..self.layout.clone() }
    }

    /// Returns the normalised form of the user's email.
    pub fn email_key(&self) -> String {
        self.layout.viewer.as_ref().map(|viewer| email::key(&viewer.email)).unwrap_or_default()
    }
}

impl FromRequestParts<Console> for CurrentUser {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, console: &Console) -> Result<Self, Response> {
        let info = RequestInfo::from_parts(parts).map_err(|error| PageError::from(error).into_response())?;
        match find_user(console, &info, parts).await {
            Ok(Some(current_user)) => Ok(current_user),
            Ok(None) => Err(redirect_to_login(parts)),
            Err(error) => Err(PageError::from(error).into_response()),
        }
    }
}

/// The signed-in user of a public page, if any.
pub struct OptionalUser(pub Option<CurrentUser>);

impl FromRequestParts<Console> for OptionalUser {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, console: &Console) -> Result<Self, Response> {
        let info = RequestInfo::from_parts(parts).map_err(|error| PageError::from(error).into_response())?;
        find_user(console, &info, parts).await.map(Self).map_err(|error| PageError::from(error).into_response())
    }
}

/// The session data of a request, cached in its extensions because several extractors need it.
#[derive(Clone)]
struct SessionData {
    session: UserSession,
    memberships: Vec<Membership>,
    user: User,
}

async fn load_session(
    console: &Console,
    info: &RequestInfo,
    parts: &mut Parts,
) -> waypost_core::Result<Option<SessionData>> {
    if let Some(data) = parts.extensions.get::<SessionData>() {
        return Ok(Some(data.clone()));
    }
    let Some(token) = cookies::read(&parts.headers, cookies::SESSION) else { return Ok(None) };
    let cx = console.context(Caller::Visitor, info);
    let Some(session) = user_sessions::find(&cx, console.ops(), &token).await? else { return Ok(None) };
    let cx = cx.with_caller(Caller::User { user_id: session.user_id.clone() });
    let memberships = user_sessions::list_memberships(&cx, console.ops()).await?;
    let user = user_sessions::get_user(&cx, console.ops()).await?;
    let data = SessionData { session, memberships, user };
    parts.extensions.insert(data.clone());
    Ok(Some(data))
}

async fn find_user(
    console: &Console,
    info: &RequestInfo,
    parts: &mut Parts,
) -> waypost_core::Result<Option<CurrentUser>> {
    let Some(SessionData { session, memberships, user }) = load_session(console, info, parts).await? else {
        return Ok(None);
    };
    let cx = console.context(Caller::User { user_id: session.user_id.clone() }, info);
    let is_verified = user.verified_at.is_some();
    let layout = Layout {
        viewer: Some(Viewer { name: user.display_name().to_owned(), email: user.email }),
        memberships: memberships.clone(),
        flash: cookies::flash(&parts.headers),
        is_without_toolboxes: !console.ops().is_toolboxes_enabled(),
        is_without_gateway: !console.has_gateway(),
        ..Layout::empty()
    };
    Ok(Some(CurrentUser { cx, session, memberships, is_verified, layout }))
}

/// Redirects a visitor to the sign-in page, which redirects back after the sign-in.
fn redirect_to_login(parts: &Parts) -> Response {
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let next = if parts.method == Method::GET { path } else { "/" };
    let query = form_urlencoded::Serializer::new(String::new()).append_pair("next", next).finish();
    let location = if next == "/" { "/login".to_owned() } else { format!("/login?{query}") };
    // htmx would follow a redirect and insert the sign-in page in place of the fragment.
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

/// A member of the organisation in the path (`{org}`).
pub struct Member {
    /// The context for operations in this organisation.
    pub cx: Ctx,
    /// The organisation.
    pub organization_id: OrganizationId,
    /// The organisation with the viewer's role.
    pub org: CurrentOrganization,
    /// The layout of the page.
    pub layout: Layout,
}

impl FromRequestParts<Console> for Member {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, console: &Console) -> Result<Self, Response> {
        let CurrentUser { cx, session, memberships, layout, .. } =
            CurrentUser::from_request_parts(parts, console).await?;
        let params = RawPathParams::from_request_parts(parts, console).await.map_err(IntoResponse::into_response)?;
        let slug = params.iter().find(|(name, _)| *name == "org").map(|(_, slug)| slug.to_owned());
        let membership = memberships.iter().find(|membership| Some(&membership.organization.slug) == slug.as_ref());
        let Some(membership) = membership else {
            return Err(PageError::from(Error::not_found("organisation")).with_layout(layout).into_response());
        };
        let info = RequestInfo::from_parts(parts).map_err(|error| PageError::from(error).into_response())?;
        let organization_id = membership.organization.id.clone();
        let address = info.client.to_string();
        let touched = user_sessions::touch(&cx, console.ops(), &session, Some(&organization_id), &address).await;
        if let Err(error) = touched {
            tracing::warn!(%error, "failed to record the last use of a session");
        }
        let cx = cx.with_caller(user_sessions::member_caller(&session.user_id, membership));
        let org = CurrentOrganization { organization: membership.organization.clone(), role: membership.role };
        let layout = Layout { org: Some(org.clone()), ..layout };
        Ok(Self { cx, organization_id, org, layout })
    }
}
