//! Pages, with the headers that every page has.

use std::time::Duration;

use askama::Template;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};

use waypost_ops::{logos, redirect_uri};

use crate::Auth;
use crate::asset;
use crate::site::Site;

/// Renders a page.
///
/// `target` is where its forms may lead in the end, beside this host: browsers check the redirects after a form against
/// `form-action` as well (CSP Level 3, section 6.4.2), so the client's redirect URI has to be among its sources.
pub fn html(status: StatusCode, template: &impl Template, target: Option<&str>) -> Response {
    match template.render() {
        Ok(body) => {
            let mut response = (status, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], body).into_response();
            protect(&mut response, target);
            response
        }
        Err(error) => {
            tracing::error!(%error, "a page could not be rendered");
            (StatusCode::INTERNAL_SERVER_ERROR, "Something went wrong on our side. Try again.").into_response()
        }
    }
}

/// What stands around the content of a page: whose it is, and its style.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The address of the style sheet.
    pub style: String,
    /// The address of the organisation's logo.
    pub logo: Option<String>,
    /// The organisation's name, or the server's while that is not known.
    pub organization: String,
    /// The product that the server guides through.
    pub product: String,
}

impl Frame {
    /// The frame of the pages of a server.
    ///
    /// # Errors
    /// `unavailable` when the database is away.
    pub async fn new(auth: &Auth, site: &Site) -> waypost_core::Result<Self> {
        let server = site.server();
        let branding = logos::branding(&auth.context(site), auth.hosting.ops(), &server.organization_id).await?;
        let product = if server.product_name.is_empty() { &server.name } else { &server.product_name };
        Ok(Self {
            style: asset::style_path(&site.address),
            logo: branding.logo.map(|at| asset::logo_path(&site.address, at)),
            organization: branding.name,
            product: product.clone(),
        })
    }

    /// A frame that needs nothing of the database: for pages that tell of an error.
    pub(crate) fn plain(site: &Site) -> Self {
        let name = &site.server().name;
        Self { style: asset::style_path(&site.address), logo: None, organization: name.clone(), product: name.clone() }
    }
}

/// A page for an address that asks too often.
#[must_use]
pub fn too_many(site: &Site, wait: Duration) -> Response {
    let message = format!("There were too many requests from your network. Wait {} seconds.", wait.as_secs().max(1));
    let page = ErrorPage { title: "Too many requests", message: &message, advice: "Then load this page again." };
    let mut response = error(site, StatusCode::TOO_MANY_REQUESTS, page);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
    response
}

/// A page that says what went wrong and what to do.
#[derive(Debug, Clone, Copy)]
pub struct ErrorPage<'a> {
    /// In a few words.
    pub title: &'a str,
    /// What happened.
    pub message: &'a str,
    /// What to do.
    pub advice: &'a str,
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorTemplate<'a> {
    frame: Frame,
    page: ErrorPage<'a>,
}

/// Shows an error of a server. The browser is sent nowhere.
pub fn error(site: &Site, status: StatusCode, page: ErrorPage<'_>) -> Response {
    html(status, &ErrorTemplate { frame: Frame::plain(site), page }, None)
}

/// Sends the browser to `location` with GET (RFC 9700, section 4.12: never 307, which would repeat a form there).
#[must_use]
pub fn redirect(location: &str) -> Response {
    match HeaderValue::from_str(location) {
        Ok(location) => {
            let mut response = (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response();
            protect(&mut response, None);
            response
        }
        Err(error) => {
            tracing::error!(%error, "a redirect could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// No script, nothing from elsewhere, in nobody's frame, in nobody's cache.
fn protect(response: &mut Response, target: Option<&str>) {
    let target = target.and_then(redirect_uri::policy_source).map(|source| format!(" {source}")).unwrap_or_default();
    let policy = format!(
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'{target}; frame-ancestors 'none'; \
         base-uri 'none'"
    );
    let headers = response.headers_mut();
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        // The addresses of these pages are nobody else's business; forms still say where they come from.
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}
