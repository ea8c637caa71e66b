//! HTML pages and the headers that every page has.

use std::time::Duration;

use askama::Template;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use url::Url;

use waypost_http_kit::headers;
use waypost_ops::{logos, redirect_uri};

use crate::Auth;
use crate::asset;
use crate::issuer_request::IssuerRequest;
use crate::server_request::ServerRequest;

/// Renders a page.
///
/// `target` is the URL on another host to which its forms may ultimately redirect. Browsers check the redirects after a
/// form submission against `form-action` as well (CSP Level 3, section 6.4.2), so the client's redirect URI must be
/// among its sources.
pub fn html(status: StatusCode, template: &impl Template, target: Option<&str>) -> Response {
    match template.render() {
        Ok(body) => {
            let mut response = (status, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], body).into_response();
            protect(&mut response, target);
            response
        }
        Err(error) => {
            tracing::error!(%error, "failed to render page");
            (StatusCode::INTERNAL_SERVER_ERROR, "Something went wrong on our side. Try again.").into_response()
        }
    }
}

/// The common parts of every page: branding and style.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The URL of the style sheet.
    pub style: String,
    /// The URL of the organisation's logo.
    pub logo: Option<String>,
    /// The organisation's name, or the server's name in a plain layout.
    pub organization: String,
    /// The product that the server is about.
    pub product: String,
}

impl Layout {
    /// Returns the layout of the pages of a server.
    ///
    /// # Errors
    /// `unavailable` if the database cannot be reached.
    pub async fn new(auth: &Auth, incoming: &ServerRequest) -> waypost_core::Result<Self> {
        let server = incoming.server();
        let branding =
            logos::get_branding(&auth.context(incoming), auth.hosting.ops(), &server.organization_id).await?;
        let product = if server.product_name.is_empty() { &server.name } else { &server.product_name };
        Ok(Self {
            style: asset::style_path(incoming),
            logo: branding.logo.map(|at| asset::logo_path(&incoming.address, at)),
            organization: branding.name,
            product: product.clone(),
        })
    }

    /// Returns a layout without a logo, in which the issuer's name replaces the names of the organisation and the
    /// product. Does not query the database.
    pub(crate) fn plain(incoming: &impl IssuerRequest) -> Self {
        let name = incoming.name();
        Self { style: asset::style_path(incoming), logo: None, organization: name.to_owned(), product: name.to_owned() }
    }
}

/// Returns the page for a client that has exceeded a rate limit.
#[must_use]
pub fn too_many(incoming: &impl IssuerRequest, wait: Duration) -> Response {
    let seconds = wait.as_secs().max(1);
    let unit = if seconds == 1 { "second" } else { "seconds" };
    let message = format!("Too many requests came from your network. Wait {seconds} {unit}.");
    let page = ErrorPage { title: "Too many requests", message: &message, advice: "Then reload this page." };
    let mut response = error(incoming, StatusCode::TOO_MANY_REQUESTS, page);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}

/// The text of an error page.
#[derive(Debug, Clone, Copy)]
pub struct ErrorPage<'a> {
    /// A short title.
    pub title: &'a str,
    /// A description of the problem.
    pub message: &'a str,
    /// Advice on what to do next.
    pub advice: &'a str,
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorTemplate<'a> {
    layout: Layout,
    page: ErrorPage<'a>,
}

/// Returns an error page of an issuer, without a redirect.
pub fn error(incoming: &impl IssuerRequest, status: StatusCode, page: ErrorPage<'_>) -> Response {
    html(status, &ErrorTemplate { layout: Layout::plain(incoming), page }, None)
}

/// Redirects the browser to `location` with GET (RFC 9700, section 4.12: never 307, which would resubmit a form there).
#[must_use]
pub fn redirect(location: &str) -> Response {
    match HeaderValue::from_str(location) {
        Ok(location) => {
            let mut response = (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response();
            protect(&mut response, None);
            response
        }
        Err(error) => {
            tracing::error!(%error, "failed to write redirect");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Adds the security headers: no scripts, no third-party content, no framing, no caching.
fn protect(response: &mut Response, target: Option<&str>) {
    let target = target.and_then(redirect_uri::csp_source).map(|source| format!(" {source}")).unwrap_or_default();
    let policy = format!(
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'{target}; frame-ancestors 'none'; \
         base-uri 'none'"
    );
    headers::protect(response, &policy);
}

/// Returns a redirect URI in readable form: the host, or the scheme of an application on the device.
pub(crate) fn destination(redirect_uri: &str) -> String {
    let Ok(url) = Url::parse(redirect_uri) else { return redirect_uri.to_owned() };
    match url.scheme() {
        "http" | "https" => {
            let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
            format!("{}{port}", url.host_str().unwrap_or_default())
        }
        scheme => format!("{scheme}: (an application on this device)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_uri_is_shown_in_readable_form() {
        for (uri, expected) in [
            ("https://app.example/cb", "app.example"),
            ("http://127.0.0.1:3999/cb", "127.0.0.1:3999"),
            ("cursor://anysphere.cursor-mcp/oauth/callback", "cursor: (an application on this device)"),
        ] {
            assert_eq!(destination(uri), expected);
        }
    }
}
