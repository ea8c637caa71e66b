//! A request of a page: the authorization request that it belongs to, in the browser that made it.

use axum::extract::{FromRequestParts, Query};
use axum::response::Response;
use data_encoding::BASE64URL_NOPAD;
use http::request::Parts;
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use waypost_core::authorization::AuthorizationRequest;
use waypost_core::caller::Ctx;
use waypost_core::{Code, Error};
use waypost_ops::authorizations;

use crate::Auth;
use crate::browser;
use crate::page::{self, ErrorPage};
use crate::site::Site;

/// An open authorization request in the browser that made it. Pages take it as their extractor: without the browser's
/// cookie there is no page.
#[derive(Debug, Clone)]
pub struct Pending {
    /// With what acts are done.
    pub cx: Ctx,
    /// The server, as it was asked.
    pub site: Site,
    /// What the client asked for.
    pub request: AuthorizationRequest,
    /// The browser's cookie.
    pub browser: String,
    /// What forms of this request in this browser carry.
    pub csrf: String,
}

#[derive(Deserialize)]
struct Named {
    request: String,
}

impl FromRequestParts<Auth> for Pending {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, auth: &Auth) -> Result<Self, Response> {
        let site = Site::from_request_parts(parts, auth).await?;
        let cx = auth.context(&site);
        let named = Query::<Named>::try_from_uri(&parts.uri).ok().map(|Query(named)| named.request);
        let browser = browser::read(&parts.headers, browser::FLOW);
        let (Some(id), Some(browser)) = (named, browser) else { return Err(gone(&site)) };
        match authorizations::find(&cx, auth.hosting.ops(), site.server(), &id, &browser).await {
            Ok(request) => Ok(Self::new(auth, site, request, browser)),
            Err(error) if error.code == Code::NotFound => Err(gone(&site)),
            Err(error) => Err(failed(&site, &error)),
        }
    }
}

impl Pending {
    /// A request that was just made in this browser.
    #[must_use]
    pub fn new(auth: &Auth, site: Site, request: AuthorizationRequest, browser: String) -> Self {
        let (cx, csrf) = (auth.context(&site), csrf_of(auth, &request, &browser));
        Self { cx, site, request, browser, csrf }
    }

    /// The path of a page of this request, such as `/s/SLUG/oauth/sign-in?request=arq_…`.
    #[must_use]
    pub fn path(&self, name: &str) -> String {
        format!("{}?request={}", self.site.address.path(name), self.request.id)
    }

    /// Sees that a form was sent from a page of this request in this browser.
    ///
    /// # Errors
    /// The page to show instead.
    pub fn check_form(&self, auth: &Auth, headers: &HeaderMap, csrf: &str) -> Result<(), Response> {
        let from = headers.get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or_default());
        let elsewhere = from.is_some_and(|from| !from.eq_ignore_ascii_case(self.site.address.origin()));
        let signature = BASE64URL_NOPAD.decode(csrf.as_bytes()).unwrap_or_default();
        let message = message_of(&self.request, &self.browser);
        if elsewhere || auth.hosting.keys().that_signed(CSRF, message.as_bytes(), &signature).is_none() {
            return Err(page::error(
                &self.site,
                StatusCode::FORBIDDEN,
                ErrorPage {
                    title: "This form cannot be used",
                    message: "It was not sent from a page of this sign-in.",
                    advice: "Go back, load the page again, and send the form once more.",
                },
            ));
        }
        Ok(())
    }
}

const CSRF: &str = "form of an authorization request";

fn message_of(request: &AuthorizationRequest, browser: &str) -> String {
    format!("{} {browser}", request.id)
}

fn csrf_of(auth: &Auth, request: &AuthorizationRequest, browser: &str) -> String {
    BASE64URL_NOPAD.encode(&auth.hosting.secret().sign(CSRF, message_of(request, browser).as_bytes()))
}

/// The page for a request that is not open in this browser.
#[must_use]
pub fn gone(site: &Site) -> Response {
    page::error(
        site,
        StatusCode::BAD_REQUEST,
        ErrorPage {
            title: "This sign-in is over",
            message: "It was finished, has expired, or was begun in another browser.",
            advice: "Go back to your application and connect again.",
        },
    )
}

/// The page for a fault.
#[must_use]
pub fn failed(site: &Site, error: &Error) -> Response {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    tracing::error!(request_id = site.request_id, code = error.code.as_str(), cause, "a page failed");
    let (status, title) = match error.code {
        Code::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "Not available at the moment"),
        Code::RateLimited => (StatusCode::TOO_MANY_REQUESTS, "Too many requests"),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "Something went wrong"),
    };
    page::error(site, status, ErrorPage { title, message: &error.message, advice: "Try again in a moment." })
}
