//! The sign-in of end users of a hosted server: the next step of a request, and its completion.

use axum::response::Response;
use http::HeaderMap;
use waypost_core::scope::Scopes;
use waypost_core::server::AuthType;
use waypost_core::{Code, Result};
use waypost_http_kit::cookies;
use waypost_ops::browser_sessions::{self, BrowserSession};
use waypost_ops::{identities, joins, oauth_grants, redirect_uri};

use crate::Auth;
use crate::authorize::{ClientRedirect, NextStep, SignIn, is_fresh, requires_consent};
use crate::pending::{self, PendingAuthorization};
use crate::server_request::ServerRequest;

impl SignIn for ServerRequest {
    type Session = BrowserSession;

    async fn next_step(
        auth: &Auth,
        pending: &PendingAuthorization<Self>,
        headers: &HeaderMap,
    ) -> Result<NextStep<BrowserSession>> {
        let request = &pending.request;
        let has_provider = pending.incoming.server().auth_type == AuthType::CustomOauth;
        let Some(session) = find_session(auth, pending, headers).await? else {
            // With an identity provider, consent comes first. Otherwise, any client could send the user to the provider
            // without their consent.
            return Ok(match (has_provider, request.consented_at) {
                (true, None) => NextStep::Consent,
                (true, Some(_)) => NextStep::Provider,
                (false, _) => NextStep::SignIn,
            });
        };
        if request.consented_at.is_some() {
            return Ok(NextStep::Complete(session));
        }
        let is_claim = claimable_tracking_id(auth, pending).await?.is_some();
        // On the user's device, any program can impersonate a client that the user has allowed before (RFC 8252,
        // section 8.6).
        if is_claim || requires_consent(request) || redirect_uri::is_on_device(&request.redirect_uri) {
            return Ok(NextStep::Consent);
        }
        let requested = Scopes::parse(&request.scope).unwrap_or_default();
        let allowed = oauth_grants::find_consent(auth.hosting.ops(), request, &session.end_user_id).await?;
        let is_allowed = allowed.is_some_and(|allowed| allowed.covers(&requested));
        Ok(if is_allowed { NextStep::Complete(session) } else { NextStep::Consent })
    }

    async fn complete(auth: &Auth, pending: &PendingAuthorization<Self>, session: BrowserSession) -> Response {
        complete(auth, pending, &session).await
    }
}

/// Returns the session of this browser if it is valid for this request: the user was identified by the server's current
/// issuer and, with `prompt=login`, signed in after the request.
pub(crate) async fn find_session(
    auth: &Auth,
    pending: &PendingAuthorization,
    headers: &HeaderMap,
) -> Result<Option<BrowserSession>> {
    let organization = &pending.incoming.server().organization_id;
    let Some(cookie) = cookies::read(headers, &cookies::end_user_session(organization)) else { return Ok(None) };
    let session = browser_sessions::find(&pending.cx, auth.hosting.ops(), organization, &cookie).await?;
    let Some(session) = session else { return Ok(None) };
    let is_current_issuer =
        identities::find_issuer(auth.hosting.ops(), pending.incoming.server()).await? == Some(session.issuer.clone());
    Ok(Some(session).filter(|session| is_current_issuer && is_fresh(&pending.request, session.created_at)))
}

/// Returns the tracking ID whose progress this sign-in would claim. Returns `None` if the request contains no claim, or
/// if the tracking ID is unknown or can no longer be claimed.
pub(crate) async fn claimable_tracking_id(auth: &Auth, pending: &PendingAuthorization) -> Result<Option<String>> {
    let Some(claim) = &pending.request.claim else { return Ok(None) };
    let claimable = joins::is_claimable(&pending.cx, &auth.hosting, pending.incoming.server(), claim).await?;
    Ok(claimable.then(|| claim.tracking_id.clone()))
}

/// Issues the authorization code, claims the progress that the request names, and redirects to the client.
pub(crate) async fn complete(auth: &Auth, pending: &PendingAuthorization, session: &BrowserSession) -> Response {
    let PendingAuthorization { cx, incoming, request, browser, .. } = pending;
    let code = match oauth_grants::issue_code(cx, auth.hosting.ops(), request, browser, &session.end_user_id).await {
        Ok(code) => code,
        Err(error) if error.code == Code::NotFound => return pending::gone(incoming),
        Err(error) => return pending::failed(incoming, &error),
    };
    if let Some(claim) = &request.claim {
        // The consent page has announced the claim. If it fails, the user is still signed in.
        let claimed = joins::claim_progress(cx, &auth.hosting, incoming.server(), &session.end_user_id, claim).await;
        if let Err(error) = claimed {
            tracing::error!(request_id = incoming.request_id, %error, "failed to claim progress of personal URL");
        }
    }
    ClientRedirect::of(request).to(&[("code", &code)])
}
