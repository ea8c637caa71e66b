//! `/oauth/sign-in/link`: the link in the email. The page only shows a button, because link scanners open the link as
//! well. The link works only in the browser that requested the code, because the code is bound to that browser.

use askama::Template;
use axum::extract::{FromRequestParts, Query, State};
use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use waypost_core::account::CodePurpose;

use crate::Auth;
use crate::page::{self, ErrorPage, Layout};
use crate::server_request::ServerRequest;

use super::code::{self, CodeQuery};
use super::form::{Fields, PlatformSignIn};
use super::reset;
use super::view::{self, View};

#[derive(Template)]
#[template(path = "link.html")]
struct LinkPage<'a> {
    layout: Layout,
    view: View<'a>,
    sent: &'a str,
    code: &'a str,
}

/// The pending request of the browser in which the link is opened. If there is none, the extractor responds with a page
/// that asks for the code instead.
pub(super) struct SameBrowser(PlatformSignIn);

impl FromRequestParts<Auth> for SameBrowser {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, auth: &Auth) -> Result<Self, Response> {
        let incoming = ServerRequest::from_request_parts(parts, auth).await?;
        let platform = PlatformSignIn::from_request_parts(parts, auth).await;
        platform
            .map(Self)
            .map_err(|page| if page.status() == StatusCode::BAD_REQUEST { other_browser_page(&incoming) } else { page })
    }
}

fn other_browser_page(incoming: &ServerRequest) -> Response {
    page::error(
        incoming,
        StatusCode::BAD_REQUEST,
        ErrorPage {
            title: "Enter the code instead",
            message: "This link works only in the browser in which the sign-in was started, and only while that sign-in is active.",
            advice: "Go back to that browser and enter the code from the email there.",
        },
    )
}

/// Shows the page with the button, or the form for a new password. Changes nothing.
pub(super) async fn show(
    State(auth): State<Auth>,
    SameBrowser(PlatformSignIn(pending)): SameBrowser,
    Query(query): Query<CodeQuery>,
) -> Response {
    match auth.accounts().get_code(&pending.cx, &pending.request, &query.sent).await {
        Ok(open) if open.purpose == CodePurpose::Reset => {
            let view = View::new(&pending, &open.email, "new_password");
            reset::page(&auth, &pending, view, &query.sent, &query.code).await
        }
        Ok(open) => {
            let (view, sent, code) = (View::new(&pending, &open.email, ""), query.sent.as_str(), query.code.as_str());
            view::render(&auth, &pending, view, |layout, view| LinkPage { layout, view, sent, code }).await
        }
        Err(error) => code::first_page_with_error(&auth, &pending, "", &error).await,
    }
}

/// Signs in with the code in the link.
pub(super) async fn post(
    State(auth): State<Auth>,
    PlatformSignIn(pending): PlatformSignIn,
    headers: HeaderMap,
    fields: Fields,
) -> Response {
    match fields.check(&auth, &pending, &headers) {
        Ok(()) => code::sign_in(&auth, &pending, &headers, &fields).await,
        Err(page) => page,
    }
}
