//! The start of a login with an identity provider.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use openidconnect::core::{CoreAuthPrompt, CoreAuthenticationFlow};
use openidconnect::{CsrfToken, LoginHint, Nonce, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope};
use url::Url;
use waypost_core::authorization::AuthorizationRequest;
use waypost_core::oauth_config::ProviderKind;
use waypost_core::{Code, Error, Result};
use waypost_ops::identity_provider::{self, PendingLogin};

use super::redirect_uri;
use crate::Auth;
use crate::page::{self, Layout};
use crate::pending::{PendingAuthorization, failed};
use waypost_http_kit::limits::LimitKind;

/// A page that forwards itself, instead of a redirect: browsers apply the `form-action` of a form's page to the
/// redirects after it (CSP Level 3, 6.4.2), and the hosts to which a provider redirects are unknown. Here, a new
/// navigation starts.
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
    let leaving = identity_provider::begin_login(cx, ops, (incoming.server(), &pending.request)).await;
    let leaving = match leaving {
        Ok(leaving) => leaving,
        // Consent comes first; that page asks for it.
        Err(error) if error.code == Code::Forbidden => return page::redirect(&pending.path("authorize/continue")),
        Err(error) => return failed(incoming, &error),
    };
    match target(&pending.request, &leaving) {
        Ok(target) => {
            let page = ProviderRedirectPage {
                layout: Layout::plain(incoming),
                provider: &leaving.config.name,
                host: target.host_str().unwrap_or_default(),
                target: target.as_str(),
            };
            page::html(StatusCode::OK, &page, None)
        }
        Err(error) => failed(incoming, &error),
    }
}

/// Returns the authorization request to the provider (RFC 6749, 4.1.1; OpenID Connect Core, 3.1.2.1), with PKCE (S256).
fn target(request: &AuthorizationRequest, leaving: &PendingLogin) -> Result<Url> {
    let config = &leaving.config;
    let client = identity_provider::oidc_client(config, None)?
        .set_redirect_uri(RedirectUrl::new(redirect_uri(request)).map_err(Error::internal)?);
    let verifier = PkceCodeVerifier::new(leaving.verifier.expose().to_owned());
    let (state, nonce) = (leaving.state.expose().to_owned(), leaving.nonce.clone());
    let mut url = client
        .authorize_url(CoreAuthenticationFlow::AuthorizationCode, || CsrfToken::new(state), || Nonce::new(nonce))
        .add_scopes(config.scopes.iter().cloned().map(Scope::new))
        .set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(&verifier));
    // Plain OAuth has neither parameter, and a server may reject unknown ones.
    if config.kind == ProviderKind::Openid {
        if let Some(hint) = &request.login_hint {
            url = url.set_login_hint(LoginHint::new(hint.clone()));
        }
        if request.prompt.as_deref().is_some_and(|prompt| prompt.split(' ').any(|word| word == "login")) {
            url = url.add_prompt(CoreAuthPrompt::Login);
        }
    }
    let (mut url, ..) = url.url();
    if config.kind == ProviderKind::Oauth {
        let kept: Vec<_> = url.query_pairs().into_owned().filter(|(name, _)| name != "nonce").collect();
        url.query_pairs_mut().clear().extend_pairs(kept);
    }
    Ok(url)
}
