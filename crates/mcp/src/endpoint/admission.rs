//! Admission of requests: tokens, rate limits and limits of streams.

use std::sync::Arc;

use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use waypost_core::secret::hash;
use waypost_core::server::SignInPolicy;
use waypost_mcp_wire::revision::{METHOD_HEADER, SESSION_HEADER};
use waypost_mcp_wire::{JsonRpcError, OpenedSession, RequestId, Session};
use waypost_ops::call_records::{Rejection, record_rejection};
use waypost_ops::identity::{self, Credentials};
use waypost_ops::try_it;

use super::{Endpoint, HandlerFactory, McpRequest, handle_of};
use crate::bearer::Bearer;
use crate::known_clients::{self, ConnectingClient};
use crate::limits::CallerKey;
use crate::listen::{Listener, StreamLimit};
use crate::message::{Message, RequestBody};
use crate::transport::json_rpc_error_response;

/// The JSON-RPC code of the error for a request that exceeds a limit, outside the reserved ranges.
const LIMIT_REACHED: i64 = -31_029;
/// The `Retry-After` of a rejected stream, in seconds.
const RETRY_STREAM_S: u64 = 60;

impl<F: HandlerFactory> Endpoint<F> {
    /// Rejects a request whose token is missing, invalid or insufficient.
    pub(super) fn authorize(
        &self,
        parts: &Parts,
        body: Option<&RequestBody>,
        mcp_request: &McpRequest,
    ) -> Result<(), Response> {
        let messages = || body.into_iter().flat_map(RequestBody::messages);
        let on_connect = self.is_asked_on_connect(&parts.headers, messages(), mcp_request);
        let Err(denial) = mcp_request.bearer.authorize(on_connect, &parts.uri, messages()) else { return Ok(()) };
        let id = body.and_then(RequestBody::id).cloned();
        // Clients that guess tokens are rate-limited like all others.
        self.limit(&CallerKey::Address(mcp_request.address), id.as_ref(), mcp_request)?;
        let is_forbidden = denial.status() == StatusCode::FORBIDDEN;
        let rejection = if is_forbidden { Rejection::InsufficientScope } else { Rejection::Unauthorized };
        self.record_rejection(rejection, mcp_request);
        Err(denial.into_response(id))
    }

    /// Whether this client is asked to sign in on connect. It sends its name in the message or sent it when its session
    /// started, so all requests of a client are treated alike.
    fn is_asked_on_connect<'m>(
        &self,
        headers: &HeaderMap,
        mut messages: impl Iterator<Item = &'m Message>,
        mcp_request: &McpRequest,
    ) -> bool {
        let sign_in = mcp_request.offers.server.sign_in;
        if !matches!(mcp_request.bearer, Bearer::Missing(_)) || sign_in != SignInPolicy::Auto {
            return known_clients::is_asked_on_connect(sign_in, None);
        }
        if let Some((name, version)) = messages.find_map(|message| message.client.as_ref()) {
            let has_method_header = headers.contains_key(METHOD_HEADER);
            return known_clients::is_asked_on_connect(
                sign_in,
                Some(ConnectingClient { name, version, has_method_header }),
            );
        }
        let now = self.hosting.clock().now();
        let id = headers.get(SESSION_HEADER).and_then(|id| id.to_str().ok());
        let session = id.and_then(|id| Session::open(id, self.hosting.keys(), &mcp_request.offers.server.id, now));
        let Some((name, version)) = session.and_then(|opened| opened.session.client) else { return false };
        // The session does not record whether its first request had the header. A probe without it was asked then.
        let client = ConnectingClient { name: &name, version: &version, has_method_header: true };
        known_clients::is_asked_on_connect(sign_in, Some(client))
    }

    /// Rejects a request that exceeds the rate limit of its caller or its server.
    pub(super) fn limit(
        &self,
        key: &CallerKey,
        id: Option<&RequestId>,
        mcp_request: &McpRequest,
    ) -> Result<(), Response> {
        let Err(wait) = self.limits.check(key, &mcp_request.offers.server.id) else { return Ok(()) };
        self.record_rejection(Rejection::RateLimited, mcp_request);
        let error =
            JsonRpcError::new(LIMIT_REACHED, "Too many calls. Try again after the time in Retry-After.", id.cloned());
        let mut response = json_rpc_error_response(StatusCode::TOO_MANY_REQUESTS, &error);
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
        Err(response)
    }

    /// Applies the rate limits to a request that identifies its user only by a token, if at all.
    pub(super) fn limit_request(&self, id: Option<&RequestId>, mcp_request: &McpRequest) -> Result<(), Response> {
        self.limit(&request_key(mcp_request), id, mcp_request)
    }

    /// Rejects an invalid request, after counting it against the rate limit.
    pub(super) fn reject(&self, status: StatusCode, error: &JsonRpcError, mcp_request: &McpRequest) -> Response {
        let counted = self.limit_request(error.id.as_ref(), mcp_request);
        counted.err().unwrap_or_else(|| json_rpc_error_response(status, error))
    }

    /// Returns the rate-limit key of a call. On servers with sign-in, only a token identifies a user; on others, a
    /// session identifies one once it has stored progress.
    pub(super) fn caller_key(
        &self,
        message: &Message,
        session: Option<&OpenedSession<'_>>,
        mcp_request: &McpRequest,
    ) -> CallerKey {
        let server = &mcp_request.offers.server;
        if mcp_request.bearer.subject().is_some() || server.auth_type.has_sign_in() {
            return request_key(mcp_request);
        }
        let handle = session.map(handle_of);
        let (credentials, is_session) = match (&mcp_request.tracking_id, &message.handle, handle) {
            (Some(tracking_id), _, _) => (Credentials::Tracking(tracking_id.clone()), false),
            (None, Some(handle), _) => (Credentials::Handle(handle.clone()), false),
            (None, None, Some(handle)) => (Credentials::Session(handle), true),
            (None, None, None) => return request_key(mcp_request),
        };
        match identity::anonymous_key(&self.hosting, server, &credentials) {
            Some((key, true)) => CallerKey::Known(key, mcp_request.address),
            Some((key, false)) if !is_session => CallerKey::Claimed(key, mcp_request.address),
            _ => request_key(mcp_request),
        }
    }

    /// Counts a call that was rejected before it reached a tool, unless it is a test.
    pub(super) fn record_rejection(&self, rejection: Rejection, mcp_request: &McpRequest) {
        if !mcp_request.tracking_id.as_deref().is_some_and(try_it::is_test_id) {
            record_rejection(&self.hosting, &mcp_request.offers.server, rejection);
        }
    }

    /// Reserves a stream for a `subscriptions/listen` request.
    pub(super) fn open_listener(
        &self,
        headers: &HeaderMap,
        id: Option<&RequestId>,
        mcp_request: &McpRequest,
    ) -> Result<Arc<Listener>, Response> {
        let slot = match self.listeners.open(&mcp_request.offers.server.id, mcp_request.address) {
            Ok(slot) => slot,
            Err(limit) => {
                self.record_rejection(Rejection::RateLimited, mcp_request);
                return Err(stream_rejection(limit, id));
            }
        };
        // The token was validated before. Only its hash is kept.
        let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.split_once(' '));
        let token_hash = token.filter(|_| mcp_request.bearer.subject().is_some()).map(|(_, token)| hash(token.trim()));
        Ok(Arc::new(Listener::new(slot, Arc::clone(&mcp_request.offers), token_hash)))
    }
}

/// Returns the rate-limit key of a request by its token or its IP address.
fn request_key(mcp_request: &McpRequest) -> CallerKey {
    match mcp_request.bearer.subject() {
        Some(subject) => CallerKey::EndUser(subject.end_user_id.clone()),
        None => CallerKey::Address(mcp_request.address),
    }
}

fn stream_rejection(limit: StreamLimit, id: Option<&RequestId>) -> Response {
    let (status, message) = match limit {
        StreamLimit::Address => (
            StatusCode::TOO_MANY_REQUESTS,
            "Too many subscriptions/listen streams from this IP address. Close one, or poll the lists instead.",
        ),
        StreamLimit::Server => (
            StatusCode::SERVICE_UNAVAILABLE,
            "Too many subscriptions/listen streams are open. Try again after the time in Retry-After, or poll the lists instead.",
        ),
    };
    let mut response = json_rpc_error_response(status, &JsonRpcError::new(LIMIT_REACHED, message, id.cloned()));
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_STREAM_S));
    response
}
