//! `GET /oauth/authorize`: validates the client's request and guides the user through sign-in and consent (RFC 6749,
//! section 4.1.1).
//!
//! Until the client and its redirect URI are validated, errors are shown on a page. After that, they are sent to the
//! client: by a redirect or, if the client is new, by a link on a page.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode, Uri};
use url::Url;
use waypost_core::authorization::AuthorizationRequest;
use waypost_core::id::AuthorizationRequestId;
use waypost_core::oauth_error::{OauthCode, OauthError};
use waypost_core::scope::Scopes;
use waypost_core::{Result, Timestamp};
use waypost_ops::authorizations;

use crate::Auth;
use crate::client::{self, Client, ClientError};
use crate::issuer_request::{IssuerRequest, RequestedResource};
use crate::page::{self, ErrorPage, Layout, destination};
use crate::params::Params;
use crate::pending::{self, PendingAuthorization};
use waypost_http_kit::cookies;
use waypost_http_kit::limits::LimitKind;

/// The maximum length of `state`, in bytes. Clients use far less.
const MAX_STATE: usize = 2_048;
/// The maximum number of characters of `login_hint` that are kept.
const MAX_HINT: usize = 254;
/// The age below which a client is new, in milliseconds. Errors are sent to a new client by a redirect only if the user
/// has allowed it before.
const NEW_CLIENT_MS: i64 = 24 * 60 * 60 * 1_000;

/// The sign-in and consent of an issuer's users.
pub trait SignIn: IssuerRequest {
    /// A signed-in user whose earlier consent is sufficient.
    type Session: Send;

    /// Returns the next step of a request.
    fn next_step(
        auth: &Auth,
        pending: &PendingAuthorization<Self>,
        headers: &HeaderMap,
    ) -> impl Future<Output = Result<NextStep<Self::Session>>> + Send;

    /// Issues the code for a user whose earlier consent is sufficient, and redirects to the client.
    fn complete(
        auth: &Auth,
        pending: &PendingAuthorization<Self>,
        session: Self::Session,
    ) -> impl Future<Output = Response> + Send;
}

/// The next step of an authorization request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextStep<S> {
    /// The client gets a code for this user.
    Complete(S),
    /// The user signs in.
    SignIn,
    /// The user signs in with the organisation's identity provider.
    Provider,
    /// The user is asked for consent.
    Consent,
}

/// Validates a request and redirects the browser to the next step.
pub async fn authorize<R: SignIn>(State(auth): State<Auth>, incoming: R, headers: HeaderMap, uri: Uri) -> Response {
    if let Err(wait) = auth.limits.check(LimitKind::Authorize, incoming.address()) {
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
        ClientRedirect { redirect_uri: &redirect_uri, state: params.get("state"), issuer: &incoming.issuer() };
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
    let mut response = match R::next_step(&auth, &pending, &headers).await {
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
pub async fn resume<R: SignIn>(
    State(auth): State<Auth>,
    pending: PendingAuthorization<R>,
    headers: HeaderMap,
) -> Response {
    match R::next_step(&auth, &pending, &headers).await {
        Ok(next) => redirect_to(&auth, &pending, next).await,
        Err(error) => pending::failed(&pending.incoming, &error),
    }
}

fn has_prompt(request: &AuthorizationRequest, word: &str) -> bool {
    request.prompt.as_deref().is_some_and(|prompt| prompt.split(' ').any(|own| own == word))
}

/// Whether a session that was created at `created_at` is recent enough: with `prompt=login`, the user must sign in
/// after the request was made.
pub(crate) fn is_fresh(request: &AuthorizationRequest, created_at: Timestamp) -> bool {
    !has_prompt(request, "login") || created_at >= request.created_at
}

/// Whether the request requires the user to consent again.
pub(crate) fn requires_consent(request: &AuthorizationRequest) -> bool {
    has_prompt(request, "consent")
}

async fn redirect_to<R: SignIn>(
    auth: &Auth,
    pending: &PendingAuthorization<R>,
    next: NextStep<R::Session>,
) -> Response {
    match next {
        NextStep::Complete(session) => R::complete(auth, pending, session).await,
        NextStep::SignIn => page::redirect(&pending.path("sign-in")),
        NextStep::Provider => page::redirect(&pending.path("upstream")),
        NextStep::Consent => page::redirect(&pending.path("consent")),
    }
}

/// Tells the client that the user denied access.
pub(crate) fn redirect_denied<R: IssuerRequest>(pending: &PendingAuthorization<R>) -> Response {
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
    /// Returns the redirect for a request.
    pub(crate) fn of(request: &'a AuthorizationRequest) -> Self {
        Self { redirect_uri: &request.redirect_uri, state: request.state.as_deref(), issuer: &request.issuer }
    }

    /// Returns the redirect URI with `parameters`, the state and the issuer in its query.
    pub(crate) fn url(&self, parameters: &[(&str, &str)]) -> String {
        let Ok(mut url) = Url::parse(self.redirect_uri) else { return self.redirect_uri.to_owned() };
        // A query that the client registered is kept (RFC 6749, section 3.1.2).
        url.query_pairs_mut()
            .extend_pairs(parameters)
            .extend_pairs(self.state.map(|state| ("state", state)))
            .append_pair("iss", self.issuer);
        url.into()
    }

    pub(crate) fn to(&self, parameters: &[(&str, &str)]) -> Response {
        page::redirect(&self.url(parameters))
    }

    /// Returns the redirect URI with an error (RFC 6749, section 4.1.2.1).
    fn error_url(&self, error: &OauthError) -> String {
        self.url(&[("error", error.code.as_str()), ("error_description", &error.description)])
    }

    fn error(&self, incoming: &impl IssuerRequest, error: &OauthError) -> Response {
        self.log(incoming, error);
        page::redirect(&self.error_url(error))
    }

    fn log(&self, incoming: &impl IssuerRequest, error: &OauthError) {
        if let Some(cause) = &error.cause {
            tracing::error!(request_id = incoming.request_id(), %cause, "authorization request failed");
        }
    }
}

/// A request whose user has not seen a page of this issuer yet.
struct InitialRequest<'a, R> {
    auth: &'a Auth,
    incoming: &'a R,
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

impl<R: IssuerRequest> InitialRequest<'_, R> {
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

    /// Whether the browser may be redirected to the client immediately: either the client registered at least a day ago
    /// and has therefore been used, or the signed-in user has allowed it before. The age of a client with a metadata
    /// document is unknown.
    async fn may_redirect(&self) -> Result<bool> {
        let now = self.auth.hosting.clock().now();
        if self.client.registered_at.is_some_and(|at| now.since(at) >= NEW_CLIENT_MS) {
            return Ok(true);
        }
        let redirect_uri = self.client_redirect.redirect_uri;
        self.incoming.has_consented(self.auth, self.headers, &self.client.id, redirect_uri).await
    }
}

fn rejection_page(incoming: &impl IssuerRequest, message: &str) -> Response {
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
    incoming: &impl IssuerRequest,
    params: &Params,
    client: &Client,
    redirect_uri: &str,
) -> Result<AuthorizationRequest, OauthError> {
    let invalid = |reason: &str| OauthError::new(OauthCode::InvalidRequest, reason);
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
    let issuer_id = incoming.issuer_id();
    let scopes = Scopes::parse_supported(params.get("scope").unwrap_or_default(), issuer_id.scopes());
    let scopes = scopes.map_err(|error| OauthError::new(OauthCode::InvalidScope, error.to_string()))?;
    let RequestedResource { url: resource, claim } = incoming.requested_resource(auth, params.resources()).await?;
    let cx = auth.context(incoming);
    let now = cx.now();
    Ok(AuthorizationRequest {
        id: AuthorizationRequestId::new(now, &*cx.random),
        issuer_id,
        issuer: incoming.issuer(),
        client_id: client.id.clone(),
        client_name: client.name.clone(),
        redirect_uri: redirect_uri.to_owned(),
        state: state.map(str::to_owned),
        scope: scopes.to_string(),
        resource,
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
    let invalid = |reason: &str| OauthError::new(OauthCode::InvalidRequest, reason);
    let challenge = params.get("code_challenge").ok_or_else(|| invalid("The code_challenge is missing (PKCE)."))?;
    // If the method is absent, it is `plain` (RFC 7636, section 4.3).
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
