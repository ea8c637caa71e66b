//! The HTML of the public page, and the headers of its responses.

use std::sync::LazyLock;

use askama::Template;
use axum::response::{IntoResponse, Response};
use data_encoding::BASE64;
use http::{HeaderName, HeaderValue, StatusCode, header};
use sha2::{Digest, Sha256};
use waypost_core::personal::PersonalId;
use waypost_core::server::SignInPolicy;
use waypost_ops::logos::Branding;
use waypost_ops::offers::Offer;

use super::PageRequest;
use crate::Console;
use crate::install::{self, Client, Target};

const STYLE: &str = include_str!("../../assets/public-page.css");
const SCRIPT: &str = include_str!("../../assets/public-page.js");
/// The maximum number of listed walkthroughs.
const MAX_LISTED: usize = 50;
/// The maximum number of characters of a description that are shown.
const MAX_DESCRIPTION: usize = 240;

/// The content security policy. It allows the inline style and script by their hashes (CSP Level 3, section 2.3.1), so
/// text written by an author can neither run scripts nor apply styles.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |text: &str| BASE64.encode(&Sha256::digest(text.as_bytes()));
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; img-src 'self' data:; form-action 'none'; \
         frame-ancestors 'none'; base-uri 'none'",
        hash(STYLE),
        hash(SCRIPT)
    )
});

/// A walkthrough in the list.
struct WalkthroughItem {
    title: String,
    description: String,
    steps: String,
    minutes: Option<String>,
}

impl WalkthroughItem {
    fn new(offer: &Offer) -> Self {
        let counted = |count: u32, one: &str, many: &str| match count {
            1 => format!("1 {one}"),
            count => format!("{count} {many}"),
        };
        let mut description: String = offer.description.chars().take(MAX_DESCRIPTION).collect();
        if description.len() < offer.description.len() {
            description.push('…');
        }
        Self {
            title: offer.title.clone(),
            description,
            steps: counted(offer.step_count, "step", "steps"),
            minutes: offer.estimated_duration_minutes.map(|minutes| counted(minutes, "minute", "minutes")),
        }
    }
}

#[derive(Template)]
#[template(path = "public_page/page.html")]
struct PageTemplate<'a> {
    style: &'static str,
    script: &'static str,
    indexed: bool,
    name: &'a str,
    product: &'a str,
    organization: &'a str,
    logo: Option<String>,
    /// The MCP URL, personal on a server without OAuth.
    url: String,
    personal: bool,
    /// The origin of the installation's public URL if it is a loopback address.
    loopback: Option<String>,
    reachable: bool,
    clients: Vec<Client>,
    /// `None` if walkthroughs are shown to signed-in users only.
    walkthroughs: Option<Vec<WalkthroughItem>>,
    /// The number of walkthroughs that are not listed.
    more: usize,
}

impl PageTemplate<'_> {
    /// Returns the product name, or the server's name if there is none.
    fn subject(&self) -> &str {
        if self.product.is_empty() { self.name } else { self.product }
    }
}

#[derive(Template)]
#[template(path = "public_page/notice.html")]
struct NoticeTemplate<'a> {
    style: &'static str,
    title: &'a str,
    message: &'a str,
}

/// Renders the page of a server, with the visitor's ID on a server without OAuth.
pub(super) fn page(console: &Console, request: &PageRequest, branding: &Branding, id: Option<&PersonalId>) -> Response {
    let server = &request.offers.server;
    let url = request.current.resource(id.map(PersonalId::expose));
    let hidden = server.auth_type.has_sign_in() && server.sign_in == SignInPolicy::OnConnect;
    let offers = request.offers.list();
    let template = PageTemplate {
        style: STYLE,
        script: SCRIPT,
        indexed: server.public_page_indexed,
        name: &server.name,
        product: &server.product_name,
        organization: &branding.name,
        // At the requested address, because the policy `'self'` allows no other host.
        logo: branding.logo.map(|at| format!("{}/logo.png?v={}", request.address.prefix(), at.0)),
        personal: id.is_some(),
        loopback: console.public_url.is_loopback().then(|| console.public_url.origin()),
        reachable: install::is_reachable_from_internet(&url),
        clients: install::end_user_clients(Target { name: &server.slug, url: &url }),
        walkthroughs: (!hidden)
            .then(|| offers.iter().take(MAX_LISTED).map(|offer| WalkthroughItem::new(offer)).collect()),
        more: offers.len().saturating_sub(MAX_LISTED),
        url,
    };
    respond(StatusCode::OK, &template, server.public_page_indexed)
}

/// Renders a page with a message.
pub(super) fn notice(status: StatusCode, title: &str, message: &str) -> Response {
    respond(status, &NoticeTemplate { style: STYLE, title, message }, false)
}

/// Returns a logo response. Browsers may cache it, because its URL contains the version.
pub(super) fn png(content: Vec<u8>) -> Response {
    let mut response = content.into_response();
    for (name, value) in [
        (header::CONTENT_TYPE, "image/png"),
        (header::CACHE_CONTROL, "public, max-age=86400"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn respond(status: StatusCode, template: &impl Template, indexed: bool) -> Response {
    let body = match template.render() {
        Ok(body) => body,
        Err(error) => {
            tracing::error!(%error, "failed to render a public page");
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
    };
    let mut response = (status, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], body).into_response();
    let headers = response.headers_mut();
    if let Ok(policy) = HeaderValue::from_str(&POLICY) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    // An archived copy would publish a visitor's personal URL.
    let robots = if indexed { "noarchive" } else { "noindex, nofollow, noarchive" };
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("x-robots-tag"), robots),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_client_can_be_selected_without_a_script() {
        for client in install::end_user_clients(Target { name: "a", url: "https://x.example/s/a/mcp" }) {
            let rule = format!(".connect:has(#{0}:checked) [data-client=\"{0}\"]", client.id);
            assert!(STYLE.contains(&rule), "{rule} is missing in public-page.css");
        }
    }

    #[test]
    fn style_and_script_cannot_end_their_elements() {
        assert!(!STYLE.contains("</") && !SCRIPT.contains("</") && !SCRIPT.contains("<!--"));
    }
}
