//! The start of a login with an identity provider.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use waypost_core::Code;
use waypost_ops::identity_provider::{self, LoginRequest};

use super::redirect_uri;
use crate::Auth;
use crate::page::{self, Layout};
use crate::pending::{PendingAuthorization, failed};
use waypost_http_kit::limits::LimitKind;

/// A page that forwards the browser by a meta refresh instead of an HTTP redirect. Browsers also apply the
/// `form-action` of a page to the redirects that follow the submission of its forms (CSP Level 3, section 6.4.2), and
/// the hosts to which a provider redirects are unknown. A meta refresh starts a new navigation.
#[derive(Template)]
#[template(path = "provider_redirect.html")]
struct ProviderRedirectPage<'a> {
    layout: Layout,
    provider: &'a str,
    host: &'a str,
    target: &'a str,
}

pub(super) async fn begin_login(State(auth): State<Auth>, pending: PendingAuthorization) -> Response {
    let (cx, ops, incoming) = (&pending.cx, auth.hosting.ops(), &pending.incoming);
    // Each request stores a row.
    if let Err(wait) = auth.limits.check(LimitKind::Authorize, incoming.client) {
        return page::too_many(incoming, wait);
    }
    let login = LoginRequest {
        server: incoming.server(),
        request: &pending.request,
        redirect_uri: &redirect_uri(&pending.request),
    };
    match identity_provider::begin_login(cx, ops, login).await {
        Ok(login) => {
            let page = ProviderRedirectPage {
                layout: Layout::plain(incoming),
                provider: &login.config.name,
                host: login.url.host_str().unwrap_or_default(),
                target: login.url.as_str(),
            };
            page::html(StatusCode::OK, &page, None)
        }
        // The user has not consented yet. The next step asks for consent.
        Err(error) if error.code == Code::Forbidden => page::redirect(&pending.path("authorize/continue")),
        Err(error) => failed(incoming, &error),
    }
}
