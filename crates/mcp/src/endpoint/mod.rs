//! The MCP endpoint of hosted servers, for every protocol revision.
//!
//! It handles what rmcp does not: bodies that are not JSON-RPC, batches of 2025-03-26, signed sessions for the
//! revisions with a handshake, incomplete `Accept` headers, rate limits and access tokens. Every error response has a
//! JSON-RPC body, because clients use it to tell the kinds of revisions apart.

mod admission;

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

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
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use waypost_content::name;
use waypost_core::caller::{Caller, Ctx};
use waypost_core::{Code, Error, Random};
use waypost_mcp_wire::revision::{self, SESSION_HEADER, VERSION_HEADER};
use waypost_mcp_wire::{
    INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, JsonRpcError, METHOD_NOT_FOUND, OpenedSession, PARSE_ERROR,
    RequestId, Session, era,
};
use waypost_ops::call_records::Rejection;
use waypost_ops::hosting::Hosting;
use waypost_ops::identity::{ClientInfo, session_handle};
use waypost_ops::limits::MAX_BODY;
use waypost_ops::offers::Offers;

use crate::bearer::Bearer;
use crate::context::HandlerContext;
use crate::limits::Limits;
use crate::listen::{self, ListenOptions, Listeners};
use crate::message::{self, Message, RequestBody};
use crate::transport::{self, json_rpc_error_response};

/// Creates the handlers of requests: those of the product, or the fixtures of the conformance suite.
pub trait HandlerFactory: Clone + Send + Sync + 'static {
    /// The handler type.
    type Handler: ServerHandler + Send + 'static;

    /// Creates the handler of one request.
    fn create(&self, context: HandlerContext) -> Self::Handler;
}

/// The product's [`HandlerFactory`].
#[derive(Debug, Clone, Copy, Default)]
pub struct ProductHandlers;

impl HandlerFactory for ProductHandlers {
    type Handler = crate::handler::Handler;

    fn create(&self, context: HandlerContext) -> Self::Handler {
        crate::handler::Handler::new(context)
    }
}

/// The storage of sessions, for the revisions with a handshake.
#[derive(Clone)]
pub enum SessionMode {
    /// No storage: the signed session ID contains the session.
    Signed,
    /// In this process's memory, which the fixtures of the conformance suite need to send requests to clients.
    InMemory(Arc<LocalSessionManager>),
}

/// The endpoint of all hosted servers.
#[derive(Clone)]
pub struct Endpoint<F> {
    handlers: F,
    hosting: Arc<Hosting>,
    limits: Limits,
    random: Arc<dyn Random>,
    sessions: SessionMode,
    listeners: Listeners,
    config: StreamableHttpServerConfig,
}

/// A request that was routed to a server.
#[derive(Debug)]
pub struct McpRequest {
    /// The server and what it offers.
    pub offers: Arc<Offers>,
    /// The tracking ID of a personal URL, in its stored form (`waypost_core::personal::stored_form`).
    pub tracking_id: Option<String>,
    /// The validation result of the request's token.
    pub bearer: Bearer,
    /// The client's IP address.
    pub address: IpAddr,
    /// The request ID, as in the log.
    pub request_id: String,
}

impl<F: HandlerFactory> Endpoint<F> {
    /// Creates an endpoint whose streams end when `shutdown` is cancelled.
    #[must_use]
    pub fn new(
        handlers: F,
        hosting: Hosting,
        limits: Limits,
        random: Arc<dyn Random>,
        sessions: SessionMode,
        shutdown: CancellationToken,
    ) -> Self {
        let config = StreamableHttpServerConfig::default()
            .with_legacy_session_mode(matches!(sessions, SessionMode::InMemory(_)))
            .with_json_response(true)
            // The router checks Host and Origin, because it knows every host. The body is limited here.
            .disable_allowed_hosts()
            .disable_allowed_origins()
            .with_max_request_body_bytes(MAX_BODY)
            .with_cancellation_token(shutdown.clone());
        let listeners = Listeners::new(ListenOptions::default(), shutdown);
        Self { handlers, hosting: Arc::new(hosting), limits, random, sessions, listeners, config }
    }

    /// Sets the limits of `subscriptions/listen` streams, and the token that ends them with a result.
    #[must_use]
    pub fn with_listeners(self, listeners: Listeners) -> Self {
        Self { listeners, ..self }
    }

    /// Handles a request.
    pub async fn handle(&self, request: Request<Body>, mcp_request: &McpRequest) -> Response {
        let since = Instant::now();
        let (mut parts, body) = request.into_parts();
        if parts.method != Method::POST && matches!(self.sessions, SessionMode::Signed) {
            let counted =
                self.authorize(&parts, None, mcp_request).and_then(|()| self.limit_request(None, mcp_request));
            if let Err(response) = counted {
                return response;
            }
            // 2025-11-25, "Streamable HTTP": 405 means that there is no GET stream and no session to delete.
            return transport::method_not_allowed(&parts.headers);
        }
        let read = Limited::new(body, MAX_BODY).collect().await.map(Collected::to_bytes);
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(error) => {
                let counted =
                    self.authorize(&parts, None, mcp_request).and_then(|()| self.limit_request(None, mcp_request));
                if let Err(response) = counted {
                    return response;
                }
                let refused = body_error_response(&*error);
                if refused.status() == StatusCode::PAYLOAD_TOO_LARGE {
                    self.record_rejection(Rejection::TooLarge, mcp_request);
                }
                return refused;
            }
        };
        if parts.method != Method::POST {
            if let Err(response) = self.limit_request(None, mcp_request) {
                return response;
            }
            let context = self.handler_context(mcp_request, since, false, None, ClientInfo::default());
            return self.serve(context, Request::from_parts(parts, bytes)).await.map(Body::new);
        }
        let peeked = message::peek(&bytes);
        if let Err(response) = self.authorize(&parts, peeked.as_ref().ok(), mcp_request) {
            return response;
        }
        let peeked = match peeked {
            Ok(peeked) => peeked,
            Err(error) => return self.reject(StatusCode::BAD_REQUEST, &error, mcp_request),
        };
        normalize_accept(&mut parts.headers);
        match peeked {
            RequestBody::Single(message) => {
                let request = Request::from_parts(parts, bytes);
                self.handle_message(request, &message, mcp_request, since).await
            }
            RequestBody::Batch(batch) => self.handle_batch(&parts, batch, mcp_request, since).await,
        }
    }

    async fn handle_message(
        &self,
        mut request: Request<Bytes>,
        message: &Message,
        mcp_request: &McpRequest,
        since: Instant,
    ) -> Response {
        if let Err(error) = check_revision(request.headers(), message) {
            let status = if error.code == METHOD_NOT_FOUND { StatusCode::NOT_FOUND } else { StatusCode::BAD_REQUEST };
            return self.reject(status, &error, mcp_request);
        }
        let initialize = message.method.as_deref() == Some("initialize");
        let mut session = None;
        if !message.is_modern && !initialize && matches!(self.sessions, SessionMode::Signed) {
            session = match self.open_session(request.headers_mut(), mcp_request) {
                Ok(session) => session,
                Err(error) => {
                    let error = JsonRpcError { id: message.id.clone(), ..error };
                    return self.reject(StatusCode::NOT_FOUND, &error, mcp_request);
                }
            };
        }
        let key = self.caller_key(message, session.as_ref(), mcp_request);
        if let Err(response) = self.limit(&key, message.id.as_ref(), mcp_request) {
            return response;
        }
        let can_respond = !message.is_modern && matches!(self.sessions, SessionMode::Signed);
        if can_respond && message.method.is_none() && !is_modern_header(request.headers()) {
            // A response to a server request. Such responses are valid, but this server sends no requests: ignore it.
            return StatusCode::ACCEPTED.into_response();
        }
        let client = client_of(request.headers(), message, session.as_ref());
        let mut context =
            self.handler_context(mcp_request, since, message.is_modern, session.as_ref().map(handle_of), client);
        if message.is_modern && message.method.as_deref() == Some(listen::METHOD) {
            let listener = match self.open_listener(request.headers(), message.id.as_ref(), mcp_request) {
                Ok(listener) => listener,
                Err(response) => return response,
            };
            context.offers = Arc::new(mcp_request.offers.without_list());
            context.listener = Some(listener);
        }
        let response = normalize_error(self.serve(context, request).await, message.id.as_ref()).await;
        let response = transport::explain_unknown_method(response, message).await;
        if initialize && response.status() == StatusCode::OK && matches!(self.sessions, SessionMode::Signed) {
            return self.with_session(response, message, mcp_request).await;
        }
        response
    }

    /// Handles the messages of a batch one by one. Only 2025-03-26 supports batches; it is also the revision of a
    /// request without a version header.
    async fn handle_batch(
        &self,
        parts: &http::request::Parts,
        batch: Vec<(Message, String)>,
        mcp_request: &McpRequest,
        since: Instant,
    ) -> Response {
        let mut headers = parts.headers.clone();
        if matches!(self.sessions, SessionMode::Signed)
            && let Err(error) = self.open_session(&mut headers, mcp_request)
        {
            return self.reject(StatusCode::NOT_FOUND, &error, mcp_request);
        }
        let revision = headers.get(VERSION_HEADER).and_then(|value| value.to_str().ok());
        if revision.is_some_and(|revision| revision != revision::BATCH)
            || batch.iter().any(|(message, _)| message.is_modern)
        {
            let error =
                JsonRpcError::new(INVALID_REQUEST, "Invalid Request: this revision does not support batches.", None);
            return self.reject(StatusCode::BAD_REQUEST, &error, mcp_request);
        }
        let mut responses: Vec<Value> = Vec::new();
        for (message, text) in batch {
            let mut request = Request::new(Bytes::from(text));
            *request.method_mut() = Method::POST;
            *request.uri_mut() = parts.uri.clone();
            request.headers_mut().clone_from(&parts.headers);
            request.headers_mut().remove(header::CONTENT_LENGTH);
            let response = self.handle_message(request, &message, mcp_request, since).await;
            if response.status() == StatusCode::TOO_MANY_REQUESTS && responses.is_empty() {
                return response;
            }
            if message.id.is_some() && message.method.is_some() {
                let body = response.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                responses.extend(serde_json::from_slice::<Value>(&body).ok());
            }
        }
        if responses.is_empty() {
            return StatusCode::ACCEPTED.into_response();
        }
        ([(header::CONTENT_TYPE, "application/json")], Value::Array(responses).to_string()).into_response()
    }

    /// Passes a request to rmcp. Each request gets its own service, because the handler is specific to the tenant.
    async fn serve(&self, context: HandlerContext, request: Request<Bytes>) -> Response<BoxBody<Bytes, Infallible>> {
        let request = request.map(Full::new);
        let handlers = self.handlers.clone();
        let factory = move || Ok(handlers.create(context.clone()));
        match &self.sessions {
            SessionMode::Signed => {
                StreamableHttpService::new(factory, Arc::new(NeverSessionManager::default()), self.config.clone())
                    .handle(request)
                    .await
            }
            SessionMode::InMemory(sessions) => {
                StreamableHttpService::new(factory, Arc::clone(sessions), self.config.clone()).handle(request).await
            }
        }
    }

    fn handler_context(
        &self,
        mcp_request: &McpRequest,
        since: Instant,
        is_modern: bool,
        session: Option<String>,
        client: ClientInfo,
    ) -> HandlerContext {
        let server = &mcp_request.offers.server;
        let caller = Caller::Client { organization_id: server.organization_id.clone(), server_id: server.id.clone() };
        let cx: Ctx = self.hosting.context(caller, Arc::clone(&self.random), mcp_request.request_id.clone());
        let at = cx.now();
        HandlerContext {
            cx,
            hosting: Arc::clone(&self.hosting),
            offers: Arc::clone(&mcp_request.offers),
            is_modern,
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

    /// Reads the session header, if present, and adds the negotiated revision to a request without a version header.
    fn open_session(
        &self,
        headers: &mut HeaderMap,
        mcp_request: &McpRequest,
    ) -> Result<Option<OpenedSession<'_>>, JsonRpcError> {
        let Some(id) = headers.get(SESSION_HEADER) else { return Ok(None) };
        let now = self.hosting.clock().now();
        let opened = id
            .to_str()
            .ok()
            .and_then(|id| Session::open(id, self.hosting.keys(), &mcp_request.offers.server.id, now))
            .filter(|opened| {
                mcp_request.bearer.subject().is_none_or(|subject| opened.session.is_valid_for(&subject.end_user_id))
            })
            .ok_or_else(|| JsonRpcError::new(INVALID_REQUEST, "Session not found. Send initialize again.", None))?;
        if !headers.contains_key(VERSION_HEADER)
            && let Ok(version) = HeaderValue::from_str(&opened.session.protocol_version)
        {
            headers.insert(VERSION_HEADER, version);
        }
        Ok(Some(opened))
    }

    /// Adds a session ID to a successful response to `initialize`.
    async fn with_session(&self, response: Response, message: &Message, mcp_request: &McpRequest) -> Response {
        let (mut parts, body) = response.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let succeeded = serde_json::from_slice::<Value>(&body).is_ok_and(|body| body.get("result").is_some());
        if succeeded {
            self.issue_session(&mut parts.headers, message, mcp_request);
        }
        Response::from_parts(parts, Body::from(body))
    }

    fn issue_session(&self, headers: &mut HeaderMap, message: &Message, mcp_request: &McpRequest) {
        let requested = message.requested_version.as_deref().unwrap_or_default();
        let session = Session::new(
            mcp_request.offers.server.id.clone(),
            self.hosting.clock().now(),
            &*self.random,
            revision::negotiate(requested).to_owned(),
            message.client.as_ref(),
        );
        let session = session.bound_to(mcp_request.bearer.subject().map(|subject| &subject.end_user_id));
        if let Ok(id) = HeaderValue::from_str(&session.seal(self.hosting.secret())) {
            headers.insert(SESSION_HEADER, id);
        }
    }
}

/// Rejects requests that rmcp would accept, or would reject with a different error code.
fn check_revision(headers: &HeaderMap, message: &Message) -> Result<(), JsonRpcError> {
    let (Some(id), Some(method)) = (&message.id, message.method.as_deref()) else { return Ok(()) };
    let header = headers.get(VERSION_HEADER).and_then(|version| version.to_str().ok());
    era::check_header(header, method, message.is_modern).map_err(|error| JsonRpcError { id: Some(id.clone()), ..error })
}

/// Returns the handle of a session. It is derived with the key that signed the session, so it survives a rotation of
/// the key.
fn handle_of(opened: &OpenedSession<'_>) -> String {
    session_handle(opened.key, opened.session.random.as_bytes())
}

fn is_modern_header(headers: &HeaderMap) -> bool {
    headers
        .get(VERSION_HEADER)
        .is_some_and(|version| version.to_str().is_ok_and(|version| !revision::LEGACY.contains(&version)))
}

fn client_of(headers: &HeaderMap, message: &Message, session: Option<&OpenedSession<'_>>) -> ClientInfo {
    let named = message.client.clone().or_else(|| session.and_then(|opened| opened.session.client.clone()));
    let short = |text: String| name::clean(&text.chars().take(64).collect::<String>());
    let version = headers.get(VERSION_HEADER).and_then(|version| version.to_str().ok()).map(str::to_owned);
    let (name, client_version) = named.unzip();
    ClientInfo { name: name.map(short), version: client_version.map(short), protocol_version: version.map(short) }
}

/// Sets the `Accept` header to both media types that rmcp requires, if the client accepts JSON or sends no such header.
/// The response is JSON.
fn normalize_accept(headers: &mut HeaderMap) {
    let accepts_json = match headers.get(header::ACCEPT).map(HeaderValue::to_str) {
        None => true,
        Some(Ok(accept)) => {
            accept.contains("*/*") || accept.contains("application/*") || accept.contains("application/json")
        }
        Some(Err(_)) => false,
    };
    if accepts_json {
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
    }
}

/// Replaces the plain-text errors of rmcp with JSON-RPC errors that have the correct code.
async fn normalize_error(response: Response<BoxBody<Bytes, Infallible>>, id: Option<&RequestId>) -> Response {
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
        // The body is a JSON-RPC message (see `message::peek`) with params that rmcp cannot parse.
        return json_rpc_error_response(
            StatusCode::BAD_REQUEST,
            &JsonRpcError::new(INVALID_PARAMS, "Invalid params.", id.cloned()),
        );
    }
    let (code, message) = if parts.status.is_server_error() {
        tracing::error!(status = parts.status.as_u16(), body = %text, "rmcp failed");
        (INTERNAL_ERROR, "Internal error.".to_owned())
    } else {
        (INVALID_REQUEST, text.chars().take(200).collect())
    };
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let error = JsonRpcError::new(code, message, id.cloned());
    Response::from_parts(parts, Body::from(error.to_json().to_string()))
}

fn body_error_response(error: &(dyn std::error::Error + 'static)) -> Response {
    if error.is::<http_body_util::LengthLimitError>() {
        let message = format!("The body is larger than {MAX_BODY} bytes.");
        return json_rpc_error_response(
            StatusCode::PAYLOAD_TOO_LARGE,
            &JsonRpcError::new(INVALID_REQUEST, message, None),
        );
    }
    json_rpc_error_response(
        StatusCode::BAD_REQUEST,
        &JsonRpcError::new(PARSE_ERROR, "The body could not be read.", None),
    )
}

/// Returns the response to an error outside the protocol, such as an unknown slug, with a JSON-RPC body.
#[must_use]
pub fn error_response(error: &Error) -> Response {
    let status = match error.code {
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::InvalidArguments => StatusCode::BAD_REQUEST,
        Code::Forbidden => StatusCode::FORBIDDEN,
        Code::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        // These are results of tools, not errors of the endpoint.
        Code::WalkthroughNotFound
        | Code::WalkthroughEmpty
        | Code::NoActiveWalkthrough
        | Code::AmbiguousWalkthrough
        | Code::StepMismatch
        | Code::StepNotFound
        | Code::ConfirmationRequired
        | Code::HandleUnknown
        | Code::EmailRequired
        | Code::SignInRequired
        | Code::NoProgress
        | Code::Conflict
        | Code::PreconditionFailed
        | Code::ImageNotFound
        | Code::ImageDenied
        | Code::ToolServerError
        | Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let code = if status.is_server_error() { INTERNAL_ERROR } else { INVALID_REQUEST };
    let body = json!({ "jsonrpc": "2.0", "error": { "code": code, "message": error.message } });
    let mut response = (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response();
    if let Some(seconds) = error.details.get("retry_after_seconds").and_then(Value::as_u64) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
