//! `/oauth/sign-in/link`: the link in the mail. It only shows a button, because programs that look for evil links open
//! it too; and it works in the browser that asked, because only there the code means anything.

use askama::Template;
use axum::extract::{FromRequestParts, Query, State};
use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use waypost_core::account::CodePurpose;

use crate::Auth;
use crate::page::{self, ErrorPage, Layout};
use crate::server_request::ServerRequest;

use super::code::{self, Sent};
use super::form::{Fields, Platform};
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

/// The request of the browser in which the link is opened, or the page for another browser.
pub(super) struct SameBrowser(Platform);

impl FromRequestParts<Auth> for SameBrowser {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, auth: &Auth) -> Result<Self, Response> {
        let incoming = ServerRequest::from_request_parts(parts, auth).await?;
        let found = Platform::from_request_parts(parts, auth).await;
        found
            .map(Self)
            .map_err(|page| if page.status() == StatusCode::BAD_REQUEST { elsewhere(&incoming) } else { page })
    }
}

fn elsewhere(incoming: &ServerRequest) -> Response {
    page::error(
        incoming,
        StatusCode::BAD_REQUEST,
        ErrorPage {
            title: "Type the code instead",
            message: "This link works only in the browser in which the sign-in was begun, while it is under way.",
            advice: "Go back to that browser and type the code from the mail there.",
        },
    )
}

/// Shows the button. Changes nothing.
pub(super) async fn show(
    State(auth): State<Auth>,
    SameBrowser(Platform(pending)): SameBrowser,
    Query(query): Query<Sent>,
) -> Response {
    match auth.accounts().get_code(&pending.cx, &pending.request, &query.sent).await {
        Ok(open) if open.purpose == CodePurpose::Reset => {
            let view = View::new(&pending, &open.email, "new_password");
            reset::page(&auth, &pending, view, (&query.sent, &query.code)).await
        }
        Ok(open) => {
            let (view, sent, code) = (View::new(&pending, &open.email, ""), query.sent.as_str(), query.code.as_str());
            view::answer(&auth, &pending, view, |layout, view| LinkPage { layout, view, sent, code }).await
        }
        Err(error) => code::begin_again(&auth, &pending, "", &error).await,
    }
}

/// Signs in.
pub(super) async fn post(
    State(auth): State<Auth>,
    Platform(pending): Platform,
    headers: HeaderMap,
    fields: Fields,
) -> Response {
    match fields.check(&auth, &pending, &headers) {
        Ok(()) => code::enter(&auth, &pending, &headers, &fields).await,
        Err(page) => page,
    }
}
