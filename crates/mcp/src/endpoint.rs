//! The MCP address of a hosted server: every protocol revision on one endpoint.
//!
//! What rmcp leaves open is done here: bodies that are no JSON-RPC, batches of 2025-03-26, signed sessions for the
//! revisions with a handshake, sloppy `Accept` headers, rate limits, the question of a token; and every refusal has a JSON-RPC body, because
//! clients tell the eras apart by it.

mod admission;

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Collected, Full, Limited};
use rmcp::handler::server::ServerHandler;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use waypost_core::caller::{Caller, Ctx};
use waypost_core::{Code, Error, Random, name};
use waypost_ops::call_records::Rejection;
use waypost_ops::hosting::Hosting;
use waypost_ops::identity::ClientInfo;
use waypost_ops::limits::MAX_BODY;
use waypost_ops::offers::Offers;

use crate::bearer::Bearer;
use crate::limits::Limits;
use crate::listen::{self, ListenOptions, Listeners};
use crate::message::{
    self, Body as Peeked, INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, META_PROTOCOL_VERSION, METHOD_NOT_FOUND,
    Message, Refusal,
};
use crate::session::Session;
use crate::target::Target;
use crate::{methods, transport};

const SESSION_HEADER: &str = "mcp-session-id";
const VERSION_HEADER: &str = "mcp-protocol-version";
/// The revisions with a handshake, oldest first.
pub(crate) const LEGACY: &[&str] = &["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];
/// The only revision that has batches.
const BATCH_REVISION: &str = "2025-03-26";
/// The revision without a handshake.
pub(crate) const STATELESS_REVISION: &str = "2026-07-28";

/// What answers the requests of a server: the product's handler, or the fixtures of the conformance suite.
pub trait Responder: Clone + Send + Sync + 'static {
    /// The handler of one request.
    type Handler: ServerHandler + Send + 'static;

    /// Makes the handler of a request.
    fn handler(&self, target: Target) -> Self::Handler;
}

/// The product's [`Responder`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Product;

impl Responder for Product {
    type Handler = crate::handler::Handler;

    fn handler(&self, target: Target) -> Self::Handler {
        crate::handler::Handler::new(target)
    }
}

/// Who keeps the sessions of the revisions with a handshake.
#[derive(Clone)]
pub enum Sessions {
    /// Nobody: the id itself says everything.
    Signed,
    /// This process, in memory: what the conformance suite's fixtures need to call clients back.
    InMemory(Arc<LocalSessionManager>),
}

/// An endpoint for every hosted server.
#[derive(Clone)]
pub struct Endpoint<R> {
    responder: R,
    hosting: Hosting,
    limits: Limits,
    random: Arc<dyn Random>,
    sessions: Sessions,
    listeners: Listeners,
    config: StreamableHttpServerConfig,
}

/// A request that has found its server.
#[derive(Debug)]
pub struct Arrived {
    /// The server and what it offers.
    pub offers: Arc<Offers>,
    /// The tracking ID of a personal URL, in its stored form (`waypost_core::personal::stored`).
    pub tracking_id: Option<String>,
    /// What is known of the request's token.
    pub bearer: Bearer,
    /// The client's address.
    pub address: IpAddr,
    /// The request's id, as in the log.
    pub request_id: String,
}

impl<R: Responder> Endpoint<R> {
    /// An endpoint whose streams end when `shutdown` is cancelled.
    #[must_use]
    pub fn new(
        responder: R,
        hosting: Hosting,
        limits: Limits,
        random: Arc<dyn Random>,
        (sessions, shutdown): (Sessions, CancellationToken),
    ) -> Self {
        let config = StreamableHttpServerConfig::default()
            .with_legacy_session_mode(matches!(sessions, Sessions::InMemory(_)))
            .with_json_response(true)
            // Host and Origin are checked by the router, which knows every host; the body is limited here.
            .disable_allowed_hosts()
            .disable_allowed_origins()
            .with_max_request_body_bytes(MAX_BODY)
            .with_cancellation_token(shutdown.clone());
        let listeners = Listeners::new(ListenOptions::default(), shutdown);
        Self { responder, hosting, limits, random, sessions, listeners, config }
    }

    /// The same, with these limits of streams that listen for changes, and a token that ends them with a result.
    #[must_use]
    pub fn with_listeners(self, listeners: Listeners) -> Self {
        Self { listeners, ..self }
    }

    /// Answers a request.
    pub async fn handle(&self, request: Request<Body>, mcp_request: &Arrived) -> Response {
        let since = Instant::now();
        let (mut parts, body) = request.into_parts();
        if parts.method != Method::POST && matches!(self.sessions, Sessions::Signed) {
            let counted = self.admit(&parts, None, mcp_request).and_then(|()| self.limit_sender(None, mcp_request));
            if let Err(response) = counted {
                return response;
            }
            // 2025-11-25, "Streamable HTTP": 405 says that there is no stream to listen to and no session to end.
            return transport::only_post(&parts.headers);
        }
        let read = Limited::new(body, MAX_BODY).collect().await.map(Collected::to_bytes);
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(error) => {
                let counted = self.admit(&parts, None, mcp_request).and_then(|()| self.limit_sender(None, mcp_request));
                if let Err(response) = counted {
                    return response;
                }
                let refused = refuse_body(&*error);
                if refused.status() == StatusCode::PAYLOAD_TOO_LARGE {
                    self.record_rejection(Rejection::TooLarge, mcp_request);
                }
                return refused;
            }
        };
        if parts.method != Method::POST {
            if let Err(response) = self.limit_sender(None, mcp_request) {
                return response;
            }
            let target = self.target(mcp_request, since, (false, None), ClientInfo::default());
            return self.serve(target, Request::from_parts(parts, bytes)).await.map(Body::new);
        }
        let peeked = message::peek(&bytes);
        if let Err(response) = self.admit(&parts, peeked.as_ref().ok(), mcp_request) {
            return response;
        }
        let peeked = match peeked {
            Ok(peeked) => peeked,
            Err(refusal) => return self.refuse_counted(StatusCode::BAD_REQUEST, &refusal, mcp_request),
        };
        normalize_accept(&mut parts.headers);
        match peeked {
            Peeked::Single(message) => {
                let request = Request::from_parts(parts, bytes);
                self.answer(request, &message, mcp_request, since).await
            }
            Peeked::Batch(batch) => self.answer_batch(&parts, batch, mcp_request, since).await,
        }
    }

    async fn answer(
        &self,
        mut request: Request<Bytes>,
        message: &Message,
        mcp_request: &Arrived,
        since: Instant,
    ) -> Response {
        if let Err(refusal) = check_era(request.headers(), message) {
            let status = if refusal.code == METHOD_NOT_FOUND { StatusCode::NOT_FOUND } else { StatusCode::BAD_REQUEST };
            return self.refuse_counted(status, &refusal, mcp_request);
        }
        let initialize = message.method.as_deref() == Some("initialize");
        let mut session = None;
        if !message.modern && !initialize && matches!(self.sessions, Sessions::Signed) {
            session = match self.open_session(request.headers_mut(), mcp_request) {
                Ok(session) => session,
                Err(refusal) => {
                    let refusal = Refusal { id: message.id.clone(), ..refusal };
                    return self.refuse_counted(StatusCode::NOT_FOUND, &refusal, mcp_request);
                }
            };
        }
        let key = self.caller_key(message, session.as_ref(), mcp_request);
        if let Err(response) = self.limit(&key, message.id.as_ref(), mcp_request) {
            return response;
        }
        let can_respond = !message.modern && matches!(self.sessions, Sessions::Signed);
        if can_respond && message.method.is_none() && !is_modern_header(request.headers()) {
            // A late answer to a question that nobody here asked: legal, and of no consequence.
            return StatusCode::ACCEPTED.into_response();
        }
        let client = client_of(request.headers(), message, session.as_ref());
        let mut target =
            self.target(mcp_request, since, (message.modern, session.and_then(|session| session.handle)), client);
        if message.modern && message.method.as_deref() == Some(listen::METHOD) {
            let listener = match self.listener(request.headers(), message.id.as_ref(), mcp_request) {
                Ok(listener) => listener,
                Err(response) => return response,
            };
            target.offers = Arc::new(mcp_request.offers.without_list());
            target.listener = Some(listener);
        }
        let response = shape(self.serve(target, request).await, message.id.as_ref()).await;
        let response = transport::name_method(response, message).await;
        if initialize && response.status() == StatusCode::OK && matches!(self.sessions, Sessions::Signed) {
            return self.with_session(response, message, mcp_request).await;
        }
        response
    }

    /// A batch, call by call: only 2025-03-26 has them, which is also the revision of a request without a header.
    async fn answer_batch(
        &self,
        parts: &http::request::Parts,
        batch: Vec<(Message, String)>,
        mcp_request: &Arrived,
        since: Instant,
    ) -> Response {
        let mut headers = parts.headers.clone();
        if matches!(self.sessions, Sessions::Signed)
            && let Err(refusal) = self.open_session(&mut headers, mcp_request)
        {
            return self.refuse_counted(StatusCode::NOT_FOUND, &refusal, mcp_request);
        }
        let revision = headers.get(VERSION_HEADER).and_then(|value| value.to_str().ok());
        if revision.is_some_and(|revision| revision != BATCH_REVISION)
            || batch.iter().any(|(message, _)| message.modern)
        {
            let refusal = Refusal::new(INVALID_REQUEST, "Invalid Request: this revision has no batches.", None);
            return self.refuse_counted(StatusCode::BAD_REQUEST, &refusal, mcp_request);
        }
        let mut answers: Vec<Value> = Vec::new();
        for (message, text) in batch {
            let mut request = Request::new(Bytes::from(text));
            *request.method_mut() = Method::POST;
            *request.uri_mut() = parts.uri.clone();
            request.headers_mut().clone_from(&parts.headers);
            request.headers_mut().remove(header::CONTENT_LENGTH);
            let response = self.answer(request, &message, mcp_request, since).await;
            if response.status() == StatusCode::TOO_MANY_REQUESTS && answers.is_empty() {
                return response;
            }
            if message.id.is_some() && message.method.is_some() {
                let body = response.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                answers.extend(serde_json::from_slice::<Value>(&body).ok());
            }
        }
        if answers.is_empty() {
            return StatusCode::ACCEPTED.into_response();
        }
        ([(header::CONTENT_TYPE, "application/json")], Value::Array(answers).to_string()).into_response()
    }

    /// Hands a request to rmcp. The service is made for this request alone, because its handler knows the tenant.
    async fn serve(&self, target: Target, request: Request<Bytes>) -> Response<BoxBody<Bytes, Infallible>> {
        let request = request.map(Full::new);
        let responder = self.responder.clone();
        let factory = move || Ok(responder.handler(target.clone()));
        match &self.sessions {
            Sessions::Signed => {
                StreamableHttpService::new(factory, Arc::new(NeverSessionManager::default()), self.config.clone())
                    .handle(request)
                    .await
            }
            Sessions::InMemory(sessions) => {
                StreamableHttpService::new(factory, Arc::clone(sessions), self.config.clone()).handle(request).await
            }
        }
    }

    fn target(
        &self,
        mcp_request: &Arrived,
        since: Instant,
        (modern, session): (bool, Option<String>),
        client: ClientInfo,
    ) -> Target {
        let server = &mcp_request.offers.server;
        let caller = Caller::Client { organization_id: server.organization_id.clone(), server_id: server.id.clone() };
        let cx: Ctx = self.hosting.context(caller, Arc::clone(&self.random), mcp_request.request_id.clone());
        let at = cx.now();
        Target {
            cx,
            hosting: self.hosting.clone(),
            offers: Arc::clone(&mcp_request.offers),
            modern,
            tracking_id: mcp_request.tracking_id.clone(),
            subject: mcp_request.bearer.subject().cloned(),
            session,
            client,
            address: mcp_request.address,
            listener: None,
            since,
            at,
        }
    }

    /// Reads the session header, where there is one, and lends the negotiated revision to a request without its own.
    fn open_session(&self, headers: &mut HeaderMap, mcp_request: &Arrived) -> Result<Option<Session>, Refusal> {
        let Some(id) = headers.get(SESSION_HEADER) else { return Ok(None) };
        let now = self.hosting.clock().now();
        let session = id
            .to_str()
            .ok()
            .and_then(|id| Session::open(id, self.hosting.keys(), &mcp_request.offers.server.id, now))
            .filter(|session| mcp_request.bearer.subject().is_none_or(|subject| session.admits(&subject.end_user_id)))
            .ok_or_else(|| Refusal::new(INVALID_REQUEST, "Session not found. Send initialize again.", None))?;
        if !headers.contains_key(VERSION_HEADER)
            && let Ok(version) = HeaderValue::from_str(&session.protocol_version)
        {
            headers.insert(VERSION_HEADER, version);
        }
        Ok(Some(session))
    }

    /// Adds a session to an answer to `initialize`, unless it is an error.
    async fn with_session(&self, response: Response, message: &Message, mcp_request: &Arrived) -> Response {
        let (mut parts, body) = response.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let succeeded = serde_json::from_slice::<Value>(&body).is_ok_and(|answer| answer.get("result").is_some());
        if succeeded {
            self.mint_session(&mut parts.headers, message, mcp_request);
        }
        Response::from_parts(parts, Body::from(body))
    }

    fn mint_session(&self, headers: &mut HeaderMap, message: &Message, mcp_request: &Arrived) {
        let requested = message.requested_version.as_deref().unwrap_or_default();
        // Lifecycle: the requested revision if it is served, else the newest with a handshake.
        let negotiated = LEGACY.iter().copied().find(|known| *known == requested).unwrap_or("2025-11-25");
        let session = Session::new(
            mcp_request.offers.server.id.clone(),
            self.hosting.clock().now(),
            &*self.random,
            negotiated.to_owned(),
            message.client.as_ref(),
        );
        let session = session.bound_to(mcp_request.bearer.subject().map(|subject| &subject.end_user_id));
        if let Ok(id) = HeaderValue::from_str(&session.seal(self.hosting.secret())) {
            headers.insert(SESSION_HEADER, id);
        }
    }
}

/// What rmcp would let pass, or refuse with another code.
fn check_era(headers: &HeaderMap, message: &Message) -> Result<(), Refusal> {
    let (Some(id), Some(method)) = (&message.id, message.method.as_deref()) else { return Ok(()) };
    if message.modern && method == "initialize" {
        // 2026-07-28 has no handshake.
        return Err(Refusal::new(METHOD_NOT_FOUND, methods::not_found(method, true), Some(id.clone())));
    }
    let declared = headers.get(VERSION_HEADER).is_some_and(|version| version == STATELESS_REVISION);
    if declared && !message.modern && method != "initialize" {
        let why =
            format!("Invalid params: `_meta` lacks {META_PROTOCOL_VERSION}, which {STATELESS_REVISION} requires.");
        return Err(Refusal::new(INVALID_PARAMS, why, Some(id.clone())));
    }
    Ok(())
}

fn is_modern_header(headers: &HeaderMap) -> bool {
    headers.get(VERSION_HEADER).is_some_and(|version| version.to_str().is_ok_and(|version| !LEGACY.contains(&version)))
}

fn client_of(headers: &HeaderMap, message: &Message, session: Option<&Session>) -> ClientInfo {
    let named = message.client.clone().or_else(|| session.and_then(|session| session.client.clone()));
    let short = |text: String| name::clean(&text.chars().take(64).collect::<String>());
    let version = headers.get(VERSION_HEADER).and_then(|version| version.to_str().ok()).map(str::to_owned);
    let (name, client_version) = named.unzip();
    ClientInfo { name: name.map(short), version: client_version.map(short), protocol_version: version.map(short) }
}

/// Clients that accept anything, or say nothing, get JSON; rmcp wants to hear of both types.
fn normalize_accept(headers: &mut HeaderMap) {
    let sloppy = match headers.get(header::ACCEPT).map(HeaderValue::to_str) {
        None => true,
        Some(Ok(accept)) => {
            accept.contains("*/*") || accept.contains("application/*") || accept.contains("application/json")
        }
        Some(Err(_)) => false,
    };
    if sloppy {
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
    }
}

/// Gives every refusal of rmcp that is plain text a JSON-RPC body, and every parse of a known shape its right code.
async fn shape(response: Response<BoxBody<Bytes, Infallible>>, id: Option<&Value>) -> Response {
    let (mut parts, body) = response.into_parts();
    let is_json = parts
        .headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.to_str().is_ok_and(|kind| kind.starts_with("application/json")));
    if !parts.status.is_client_error() && !parts.status.is_server_error() || is_json {
        return Response::from_parts(parts, Body::new(body));
    }
    let text = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    if parts.status == StatusCode::UNSUPPORTED_MEDIA_TYPE && !text.contains("Content-Type") {
        // The body is a JSON-RPC message (see `message::peek`) whose parameters rmcp cannot read.
        return refuse(StatusCode::BAD_REQUEST, &Refusal::new(INVALID_PARAMS, "Invalid params.", id.cloned()));
    }
    let (code, message) = if parts.status.is_server_error() {
        tracing::error!(status = parts.status.as_u16(), body = %text, "rmcp failed");
        (INTERNAL_ERROR, "Internal error.".to_owned())
    } else {
        (INVALID_REQUEST, text.chars().take(200).collect())
    };
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let refusal = Refusal::new(code, message, id.cloned());
    Response::from_parts(parts, Body::from(refusal.to_json().to_string()))
}

pub(crate) fn refuse(status: StatusCode, refusal: &Refusal) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], refusal.to_json().to_string()).into_response()
}

fn refuse_body(error: &(dyn std::error::Error + 'static)) -> Response {
    if error.is::<http_body_util::LengthLimitError>() {
        let message = format!("The body is larger than {MAX_BODY} bytes.");
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, &Refusal::new(INVALID_REQUEST, message, None));
    }
    refuse(StatusCode::BAD_REQUEST, &Refusal::new(message::PARSE_ERROR, "The body could not be read.", None))
}

/// A refusal outside of the protocol, such as an unknown slug, with a JSON-RPC body all the same.
#[must_use]
pub fn refuse_error(error: &Error) -> Response {
    let status = match error.code {
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::InvalidArguments => StatusCode::BAD_REQUEST,
        Code::Forbidden => StatusCode::FORBIDDEN,
        Code::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let code = if status.is_server_error() { INTERNAL_ERROR } else { INVALID_REQUEST };
    let body = json!({ "jsonrpc": "2.0", "error": { "code": code, "message": error.message } });
    let mut response = (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response();
    if let Some(seconds) = error.details.get("retry_after_seconds").and_then(Value::as_u64) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
