//! `GET /oauth/authorize`: validates the client's request and guides its user through sign-in and consent (RFC 6749,
//! section 4.1.1).
//!
//! Until the client and its redirect URI are validated, errors are shown on a page. After that, they are sent to the
//! client; if the client is new, by a link on a page.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode, Uri};
use url::Url;
use waypost_core::authorization::AuthorizationRequest;
use waypost_core::claim_link::ClaimLink;
use waypost_core::id::AuthorizationRequestId;
use waypost_core::oauth_error::{OauthCode, OauthError};
use waypost_core::personal;
use waypost_core::scope::Scopes;
use waypost_core::server::AuthType;
use waypost_core::{Code, Result};
use waypost_ops::browser_sessions::{self, BrowserSession};
use waypost_ops::{authorizations, identities, joins, oauth_grants, redirect_uri};

use crate::Auth;
use crate::client::{self, Client, ClientError};
use crate::consent::destination;
use crate::page::{self, ErrorPage, Layout};
use crate::params::Params;
use crate::pending::{self, PendingAuthorization};
use crate::server_request::ServerRequest;
use waypost_http_kit::cookies;
use waypost_http_kit::limits::LimitKind;

/// The maximum length of `state`, in bytes. Clients use far less.
const MAX_STATE: usize = 2_048;
/// The number of characters of `login_hint` that are used.
const MAX_HINT: usize = 254;
/// A client that registered more recently than this, in milliseconds, gets no redirect before the user has seen a page.
const NEW_CLIENT_MS: i64 = 24 * 60 * 60 * 1_000;

/// Validates a request and redirects the browser to the next step.
pub async fn authorize(State(auth): State<Auth>, incoming: ServerRequest, headers: HeaderMap, uri: Uri) -> Response {
    if let Err(wait) = auth.limits.check(LimitKind::Authorize, incoming.client) {
        return page::too_many(&incoming, wait);
    }
    let params = Params::parse(uri.query().unwrap_or_default().as_bytes());
    if let Some(fault) = params.fault() {
        return rejection_page(&incoming, &fault);
    }
    let Some(id) = params.get("client_id") else {
        return rejection_page(&incoming, "The application did not identify itself (client_id is missing).");
    };
    let client = match client::get(&auth, &incoming, id).await {
        Ok(client) => client,
        Err(ClientError::Failed(error)) => return pending::failed(&incoming, &error),
        Err(ClientError::RateLimited(wait)) => return page::too_many(&incoming, wait),
        Err(unknown) => return rejection_page(&incoming, &unknown.to_string()),
    };
    let Some(redirect_uri) = client.redirect_uri(params.get("redirect_uri")) else {
        return rejection_page(&incoming, "The application requested a redirect URI that it did not register.");
    };
    let client_redirect =
        ClientRedirect { redirect_uri: &redirect_uri, state: params.get("state"), issuer: &incoming.address.issuer() };
    let initial =
        InitialRequest { auth: &auth, incoming: &incoming, headers: &headers, client: &client, client_redirect };
    let request = match validate(&auth, &incoming, &params, &client, &redirect_uri).await {
        Ok(request) => request,
        Err(error) => return initial.error(&error).await,
    };
    let prompt_none = params.get("prompt").is_some_and(|prompt| prompt.split(' ').any(|word| word == "none"));
    let browser = cookies::read(&headers, cookies::END_USER_BROWSER);
    let is_new = browser.is_none();
    let browser = browser.unwrap_or_else(|| cookies::new_value(&*auth.random));
    let created = authorizations::create(auth.hosting.ops(), &request, &browser, &auth.network(&incoming)).await;
    if let Err(error) = created {
        return initial.error(&error.into()).await;
    }
    let pending = PendingAuthorization::new(&auth, incoming.clone(), request, browser.clone());
    let mut response = match next_step(&auth, &pending, &headers).await {
        Ok(NextStep::SignIn) if prompt_none => initial.error(&interaction_required(OauthCode::LoginRequired)).await,
        Ok(NextStep::Provider | NextStep::Consent) if prompt_none => {
            initial.error(&interaction_required(OauthCode::ConsentRequired)).await
        }
        Ok(next) => redirect_to(&auth, &pending, next).await,
        Err(error) => pending::failed(&incoming, &error),
    };
    if is_new {
        cookies::set(response.headers_mut(), cookies::END_USER_BROWSER, &browser);
    }
    response
}

/// `GET /oauth/authorize/continue`: redirects to the next step.
pub async fn resume(State(auth): State<Auth>, pending: PendingAuthorization, headers: HeaderMap) -> Response {
    match next_step(&auth, &pending, &headers).await {
        Ok(next) => redirect_to(&auth, &pending, next).await,
        Err(error) => pending::failed(&pending.incoming, &error),
    }
}

/// The next step of a request.
enum NextStep {
    /// The client gets a code for this user.
    Complete(BrowserSession),
    /// The user signs in with a Waypost account.
    SignIn,
    /// The user signs in with the organisation's identity provider.
    Provider,
    /// The user is asked for consent.
    Consent,
}

/// Returns the signed-in user of this browser if the session is valid for this request: the user was identified by the
/// server's current issuer and, with `prompt=login`, signed in after the request.
pub(crate) async fn find_session(
    auth: &Auth,
    pending: &PendingAuthorization,
    headers: &HeaderMap,
) -> Result<Option<BrowserSession>> {
    let organization = &pending.request.organization_id;
    let Some(cookie) = cookies::read(headers, &cookies::end_user_session(organization)) else { return Ok(None) };
    let session = browser_sessions::find(&pending.cx, auth.hosting.ops(), organization, &cookie).await?;
    let Some(session) = session else { return Ok(None) };
    let known =
        identities::find_issuer(auth.hosting.ops(), pending.incoming.server()).await? == Some(session.issuer.clone());
    let fresh = !has_prompt(&pending.request, "login") || session.created_at >= pending.request.created_at;
    Ok(Some(session).filter(|_| known && fresh))
}

fn has_prompt(request: &AuthorizationRequest, word: &str) -> bool {
    request.prompt.as_deref().is_some_and(|prompt| prompt.split(' ').any(|own| own == word))
}

async fn next_step(auth: &Auth, pending: &PendingAuthorization, headers: &HeaderMap) -> Result<NextStep> {
    let request = &pending.request;
    let custom = pending.incoming.server().auth_type == AuthType::CustomOauth;
    let Some(session) = find_session(auth, pending, headers).await? else {
        // With an identity provider, consent comes first. Otherwise, any client could send the user to the provider
        // without their consent.
        return Ok(match (custom, request.consented_at) {
            (true, None) => NextStep::Consent,
            (true, Some(_)) => NextStep::Provider,
            (false, _) => NextStep::SignIn,
        });
    };
    if request.consented_at.is_some() {
        return Ok(NextStep::Complete(session));
    }
    let claims = claimable_tracking_id(auth, pending).await?.is_some();
    // On the user's device, any program can impersonate a client that the user allowed before (RFC 8252, section 8.6).
    if claims || has_prompt(request, "consent") || redirect_uri::is_on_device(&request.redirect_uri) {
        return Ok(NextStep::Consent);
    }
    let asked = Scopes::parse(&request.scope).unwrap_or_default();
    let allowed = oauth_grants::find_consent(auth.hosting.ops(), request, &session.end_user_id).await?;
    let known = allowed.is_some_and(|allowed| allowed.covers(&asked));
    Ok(if known { NextStep::Complete(session) } else { NextStep::Consent })
}

/// Returns the tracking ID whose progress this sign-in would claim. Returns `None` if the request proves no tracking
/// ID, or if the ID is unknown or can no longer be claimed.
pub(crate) async fn claimable_tracking_id(auth: &Auth, pending: &PendingAuthorization) -> Result<Option<String>> {
    let Some(claim) = &pending.request.claim else { return Ok(None) };
    let claimable = joins::is_claimable(&pending.cx, &auth.hosting, pending.incoming.server(), claim).await?;
    Ok(claimable.then(|| claim.tracking_id.clone()))
}

async fn redirect_to(auth: &Auth, pending: &PendingAuthorization, next: NextStep) -> Response {
    match next {
        NextStep::Complete(session) => complete(auth, pending, &session).await,
        NextStep::SignIn => page::redirect(&pending.path("sign-in")),
        NextStep::Provider => page::redirect(&pending.path("upstream")),
        NextStep::Consent => page::redirect(&pending.path("consent")),
    }
}

/// Issues the code and redirects to the client.
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

/// Tells the client that the user denied access.
pub(crate) fn redirect_denied(pending: &PendingAuthorization) -> Response {
    let client_redirect = ClientRedirect::of(&pending.request);
    client_redirect.error(&pending.incoming, &OauthError::new(OauthCode::AccessDenied, "The user denied access."))
}

fn interaction_required(code: OauthCode) -> OauthError {
    OauthError::new(code, "User interaction is required, but prompt=none forbids it.")
}

/// The redirect back to the client (RFC 6749, section 4.1.2; RFC 9207, section 2).
pub(crate) struct ClientRedirect<'a> {
    redirect_uri: &'a str,
    state: Option<&'a str>,
    issuer: &'a str,
}

impl<'a> ClientRedirect<'a> {
    /// Returns the redirect of a request.
    pub(crate) fn of(request: &'a AuthorizationRequest) -> Self {
        Self { redirect_uri: &request.redirect_uri, state: request.state.as_deref(), issuer: &request.issuer }
    }

    /// Returns the redirect URI with `parameters`, state and issuer.
    pub(crate) fn url(&self, parameters: &[(&str, &str)]) -> String {
        let Ok(mut url) = Url::parse(self.redirect_uri) else { return self.redirect_uri.to_owned() };
        // A query that the client registered is kept (RFC 6749, section 3.1.2).
        url.query_pairs_mut()
            .extend_pairs(parameters)
            .extend_pairs(self.state.map(|state| ("state", state)))
            .append_pair("iss", self.issuer);
        url.into()
    }

    fn to(&self, parameters: &[(&str, &str)]) -> Response {
        page::redirect(&self.url(parameters))
    }

    /// Returns the redirect URI with an error (RFC 6749, section 4.1.2.1).
    fn error_url(&self, error: &OauthError) -> String {
        self.url(&[("error", error.code.as_str()), ("error_description", &error.description)])
    }

    fn error(&self, incoming: &ServerRequest, error: &OauthError) -> Response {
        self.log(incoming, error);
        page::redirect(&self.error_url(error))
    }

    fn log(&self, incoming: &ServerRequest, error: &OauthError) {
        if let Some(cause) = &error.cause {
            tracing::error!(request_id = incoming.request_id, %cause, "authorization request failed");
        }
    }
}

/// A request whose user has not seen a page of this server yet.
struct InitialRequest<'a> {
    auth: &'a Auth,
    incoming: &'a ServerRequest,
    headers: &'a HeaderMap,
    client: &'a Client,
    client_redirect: ClientRedirect<'a>,
}

#[derive(Template)]
#[template(path = "client_error.html")]
struct ClientErrorPage<'a> {
    layout: Layout,
    client_name: &'a str,
    message: &'a str,
    destination: String,
    client_url: String,
}

impl InitialRequest<'_> {
    /// Redirects to the client with an error, or shows the error with a link to the client. Anyone can register a
    /// client and send links to this server; showing a page prevents its use as an open redirector (RFC 9700, section
    /// 4.11.2).
    async fn error(&self, error: &OauthError) -> Response {
        match self.may_redirect().await {
            Ok(true) => self.client_redirect.error(self.incoming, error),
            Ok(false) => {
                self.client_redirect.log(self.incoming, error);
                let page = ClientErrorPage {
                    layout: Layout::plain(self.incoming),
                    client_name: &self.client.name,
                    message: &error.description,
                    destination: destination(self.client_redirect.redirect_uri),
                    client_url: self.client_redirect.error_url(error),
                };
                page::html(StatusCode::BAD_REQUEST, &page, None)
            }
            Err(cause) => pending::failed(self.incoming, &cause),
        }
    }

    /// Whether the browser may be redirected to the client immediately: either the client registered more than a day
    /// ago, and has therefore been used, or the signed-in user allowed it before. The age of a client with a metadata
    /// document is unknown.
    async fn may_redirect(&self) -> Result<bool> {
        let (cx, ops, server) = (self.auth.context(self.incoming), self.auth.hosting.ops(), self.incoming.server());
        if self.client.registered_at.is_some_and(|at| cx.now().since(at) >= NEW_CLIENT_MS) {
            return Ok(true);
        }
        let organization = &server.organization_id;
        let Some(cookie) = cookies::read(self.headers, &cookies::end_user_session(organization)) else {
            return Ok(false);
        };
        let Some(session) = browser_sessions::find(&cx, ops, organization, &cookie).await? else { return Ok(false) };
        let (client_id, redirect_uri) = (self.client.id.as_str(), self.client_redirect.redirect_uri);
        let end_user = &session.end_user_id;
        Ok(oauth_grants::find_consent_for(ops, organization, &server.id, client_id, redirect_uri, end_user)
            .await?
            .is_some())
    }
}

fn rejection_page(incoming: &ServerRequest, message: &str) -> Response {
    page::error(
        incoming,
        StatusCode::BAD_REQUEST,
        ErrorPage {
            title: "This application cannot be connected",
            message,
            advice: "Go back to the application and connect again. If the problem persists, send this message to the app's developer.",
        },
    )
}

/// Validates all parameters except the client and the redirect URI.
async fn validate(
    auth: &Auth,
    incoming: &ServerRequest,
    params: &Params,
    client: &Client,
    redirect_uri: &str,
) -> Result<AuthorizationRequest, OauthError> {
    let invalid = |why: &str| OauthError::new(OauthCode::InvalidRequest, why);
    for (name, code) in
        [("request", OauthCode::RequestNotSupported), ("request_uri", OauthCode::RequestUriNotSupported)]
    {
        if params.get(name).is_some() {
            return Err(OauthError::new(code, "Request objects are not supported."));
        }
    }
    match params.get("response_type") {
        Some("code") => {}
        None => return Err(invalid("The parameter response_type is missing.")),
        Some(_) => return Err(OauthError::new(OauthCode::UnsupportedResponseType, "The response_type must be code.")),
    }
    if params.get("response_mode").is_some_and(|mode| mode != "query") {
        return Err(invalid("The response_mode must be query."));
    }
    let state = params.get("state");
    if state.is_some_and(|state| state.len() > MAX_STATE) {
        return Err(invalid("The state is too long."));
    }
    let code_challenge = challenge(params)?;
    let scopes = Scopes::parse(params.get("scope").unwrap_or_default());
    let scopes = scopes.map_err(|error| OauthError::new(OauthCode::InvalidScope, error.to_string()))?;
    if !resources_match_server(auth, incoming, params.resources()).await? {
        return Err(OauthError::new(OauthCode::InvalidTarget, "The resource is not a URL of this server."));
    }
    // A missing resource means the server: clients of revision 2025-03-26 do not send the parameter.
    let resource = params.resources().first().cloned().unwrap_or_else(|| incoming.address.resource(None));
    let named = auth.public_url.parse_resource(&resource).and_then(|resource| resource.tracking_id);
    let cx = auth.context(incoming);
    let claim = match &named {
        Some(segment) => joins::verify_claim(&cx, &auth.hosting, incoming.server(), segment).await?,
        None => None,
    };
    // The signature of a claim link is not stored.
    let link = named.as_deref().and_then(|segment| Some((segment, ClaimLink::parse(segment)?)));
    let resource = link.map_or_else(|| resource.clone(), |(segment, link)| resource.replace(segment, &link.label));
    let now = cx.now();
    Ok(AuthorizationRequest {
        id: AuthorizationRequestId::new(now, &*cx.random),
        organization_id: incoming.server().organization_id.clone(),
        server_id: incoming.server().id.clone(),
        issuer: incoming.address.issuer(),
        client_id: client.id.clone(),
        client_name: client.name.clone(),
        redirect_uri: redirect_uri.to_owned(),
        state: state.map(str::to_owned),
        scope: scopes.to_string(),
        resource: personal::mask(&resource),
        claim,
        code_challenge,
        prompt: params.get("prompt").map(|prompt| prompt.chars().take(64).collect()),
        login_hint: params.get("login_hint").map(|hint| hint.chars().take(MAX_HINT).collect()),
        created_at: now,
        expires_at: now.plus(authorizations::LIFETIME_MS),
        consented_at: None,
    })
}

/// Returns the PKCE challenge (RFC 7636, section 4.3), which is required. Only S256 is accepted.
fn challenge(params: &Params) -> Result<String, OauthError> {
    let invalid = |why: &str| OauthError::new(OauthCode::InvalidRequest, why);
    let challenge = params.get("code_challenge").ok_or_else(|| invalid("The code_challenge is missing (PKCE)."))?;
    // Without a method, the challenge would be `plain`.
    if params.get("code_challenge_method") != Some("S256") {
        return Err(invalid("The code_challenge_method must be S256."));
    }
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if challenge.len() != 43 || !challenge.bytes().all(unreserved) {
        return Err(invalid(
            "The code_challenge must be the SHA-256 hash of the verifier in base64url: 43 characters.",
        ));
    }
    Ok(challenge.to_owned())
}

/// Whether every resource indicator is a URL of the requested server, with its current slug or a former one.
pub(crate) async fn resources_match_server(
    auth: &Auth,
    incoming: &ServerRequest,
    resources: &[String],
) -> Result<bool> {
    for resource in resources {
        let Some(named) = auth.public_url.parse_resource(resource) else { return Ok(false) };
        match auth.hosting.offer_cache().get(&named.slug.to_ascii_lowercase()).await {
            Ok(offers) if offers.server.id == incoming.server().id => {}
            Ok(_) => return Ok(false),
            Err(error) if error.code == Code::NotFound => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}
