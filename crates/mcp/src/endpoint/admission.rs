//! Which requests are let in: the question of a token, rate limits, and streams.

use std::sync::Arc;

use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::Value;
use waypost_core::secret::hash;
use waypost_core::server::SignIn;
use waypost_ops::call_records::{Rejection, record_rejection};
use waypost_ops::identity::{self, Credentials};
use waypost_ops::try_it;

use super::{Arrived, Endpoint, Responder, SESSION_HEADER, refuse};
use crate::bearer::Bearer;
use crate::known_clients::{self, Sender};
use crate::limits::CallerKey;
use crate::listen::{Full, Listener};
use crate::message::{Body, Message, Refusal};
use crate::session::Session;

/// The JSON-RPC code of a request that exceeds a limit, outside of the ranges that others have reserved.
const LIMIT_REACHED: i64 = -31_029;
const METHOD_HEADER: &str = "mcp-method";
/// When a client may try again to open a stream, in seconds.
const RETRY_STREAM_S: u64 = 60;

impl<R: Responder> Endpoint<R> {
    /// Turns a request away that needs a token and has none that will do.
    pub(super) fn admit(&self, parts: &Parts, body: Option<&Body>, mcp_request: &Arrived) -> Result<(), Response> {
        let messages = || body.into_iter().flat_map(Body::messages);
        let on_connect = self.asks_on_connect(&parts.headers, messages(), mcp_request);
        let Err(denial) = mcp_request.bearer.admit(on_connect, &parts.uri, messages()) else { return Ok(()) };
        let id = body.and_then(Body::id).cloned();
        // Whoever guesses tokens is slowed down like any other caller.
        self.limit(&CallerKey::Address(mcp_request.address), id.as_ref(), mcp_request)?;
        let is_forbidden = denial.status() == StatusCode::FORBIDDEN;
        let rejection = if is_forbidden { Rejection::InsufficientScope } else { Rejection::Unauthorized };
        self.record_rejection(rejection, mcp_request);
        Err(denial.into_response(id))
    }

    /// Whether this client is asked to sign in at once. It names itself in the message or did so when its session
    /// began, so a client gets the same answer to each of its requests.
    fn asks_on_connect<'m>(
        &self,
        headers: &HeaderMap,
        mut messages: impl Iterator<Item = &'m Message>,
        mcp_request: &Arrived,
    ) -> bool {
        let sign_in = mcp_request.offers.server.sign_in;
        if !matches!(mcp_request.bearer, Bearer::Missing(_)) || sign_in != SignIn::Auto {
            return known_clients::asks_on_connect(sign_in, None);
        }
        if let Some((name, version)) = messages.find_map(|message| message.client.as_ref()) {
            let method_header = headers.contains_key(METHOD_HEADER);
            return known_clients::asks_on_connect(sign_in, Some(Sender { name, version, method_header }));
        }
        let now = self.hosting.clock().now();
        let id = headers.get(SESSION_HEADER).and_then(|id| id.to_str().ok());
        let session = id.and_then(|id| Session::open(id, self.hosting.keys(), &mcp_request.offers.server.id, now));
        let Some((name, version)) = session.and_then(|session| session.client) else { return false };
        // The session does not say whether its first request had the header. A probe without it was asked then.
        let sender = Sender { name: &name, version: &version, method_header: true };
        known_clients::asks_on_connect(sign_in, Some(sender))
    }

    /// Rejects a request beyond the rate limit of its caller or its server.
    pub(super) fn limit(&self, key: &CallerKey, id: Option<&Value>, mcp_request: &Arrived) -> Result<(), Response> {
        let Err(wait) = self.limits.check(key, &mcp_request.offers.server.id) else { return Ok(()) };
        self.record_rejection(Rejection::RateLimited, mcp_request);
        let refusal =
            Refusal::new(LIMIT_REACHED, "Too many calls. Try again after the time in Retry-After.", id.cloned());
        let mut response = refuse(StatusCode::TOO_MANY_REQUESTS, &refusal);
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
        Err(response)
    }

    /// Counts a request that says nothing about its user beside a token.
    pub(super) fn limit_sender(&self, id: Option<&Value>, mcp_request: &Arrived) -> Result<(), Response> {
        self.limit(&sender(mcp_request), id, mcp_request)
    }

    /// Refuses a request of which no call can be made. It counts as one all the same.
    pub(super) fn refuse_counted(&self, status: StatusCode, refusal: &Refusal, mcp_request: &Arrived) -> Response {
        let counted = self.limit_sender(refusal.id.as_ref(), mcp_request);
        counted.err().unwrap_or_else(|| refuse(status, refusal))
    }

    /// Returns whom a call is counted for. Where users sign in, nothing but a token says who somebody is; elsewhere a
    /// session says so once it has stored progress.
    pub(super) fn caller_key(&self, message: &Message, session: Option<&Session>, mcp_request: &Arrived) -> CallerKey {
        let server = &mcp_request.offers.server;
        if mcp_request.bearer.subject().is_some() || server.auth_type.signs_in() {
            return sender(mcp_request);
        }
        let handle = session.and_then(|session| session.handle.clone());
        let (credentials, is_session) = match (&mcp_request.tracking_id, &message.handle, handle) {
            (Some(tracking_id), _, _) => (Credentials::Tracking(tracking_id.clone()), false),
            (None, Some(handle), _) => (Credentials::Handle(handle.clone()), false),
            (None, None, Some(handle)) => (Credentials::Session(handle), true),
            (None, None, None) => return sender(mcp_request),
        };
        match identity::anonymous_key(&self.hosting, server, &credentials) {
            Some((key, true)) => CallerKey::Known(key, mcp_request.address),
            Some((key, false)) if !is_session => CallerKey::Claimed(key, mcp_request.address),
            _ => sender(mcp_request),
        }
    }

    /// Counts a call that was rejected before it reached a tool, unless it is a test.
    pub(super) fn record_rejection(&self, rejection: Rejection, mcp_request: &Arrived) {
        if !mcp_request.tracking_id.as_deref().is_some_and(try_it::is_test_id) {
            record_rejection(&self.hosting, &mcp_request.offers.server, rejection);
        }
    }

    /// A place for one more stream.
    pub(super) fn listener(
        &self,
        headers: &HeaderMap,
        id: Option<&Value>,
        mcp_request: &Arrived,
    ) -> Result<Arc<Listener>, Response> {
        let slot = match self.listeners.open(&mcp_request.offers.server.id, mcp_request.address) {
            Ok(slot) => slot,
            Err(full) => {
                self.record_rejection(Rejection::RateLimited, mcp_request);
                return Err(refuse_stream(full, id));
            }
        };
        // It was read and found valid before; what is kept is its hash.
        let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.split_once(' '));
        let token_hash = token.filter(|_| mcp_request.bearer.subject().is_some()).map(|(_, token)| hash(token.trim()));
        Ok(Arc::new(Listener::new(slot, Arc::clone(&mcp_request.offers), token_hash)))
    }
}

/// Returns whom a request is counted for of which only token and address are known.
fn sender(mcp_request: &Arrived) -> CallerKey {
    match mcp_request.bearer.subject() {
        Some(subject) => CallerKey::EndUser(subject.end_user_id.clone()),
        None => CallerKey::Address(mcp_request.address),
    }
}

fn refuse_stream(full: Full, id: Option<&Value>) -> Response {
    let (status, message) = match full {
        Full::Address => (
            StatusCode::TOO_MANY_REQUESTS,
            "Too many subscriptions/listen streams from this address. Close one, or list again instead.",
        ),
        Full::Server => (
            StatusCode::SERVICE_UNAVAILABLE,
            "Too many subscriptions/listen streams are open. Try again after the time in Retry-After, or list again instead.",
        ),
    };
    let mut response = refuse(status, &Refusal::new(LIMIT_REACHED, message, id.cloned()));
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_STREAM_S));
    response
}
