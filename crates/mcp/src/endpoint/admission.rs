//! Who has to sign in at once, and who may open a stream.

use std::sync::Arc;

use axum::response::Response;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::Value;
use waypost_core::secret::hash;
use waypost_core::server::SignIn;
use waypost_ops::record::Rejection;

use super::{Arrived, Endpoint, LIMIT_REACHED, Responder, SESSION_HEADER, refuse};
use crate::bearer::Bearer;
use crate::known_clients::{self, Sender};
use crate::listen::{Full, Listener};
use crate::message::{Message, Refusal};
use crate::session::Session;

const METHOD_HEADER: &str = "mcp-method";
/// When a client may try again to open a stream, in seconds.
const RETRY_STREAM_S: u64 = 60;

impl<R: Responder> Endpoint<R> {
    /// Whether this client is asked to sign in at once. It names itself in the message or did so when its session
    /// began, so a client gets the same answer to each of its requests.
    pub(super) fn asks_on_connect<'m>(
        &self,
        headers: &HeaderMap,
        mut messages: impl Iterator<Item = &'m Message>,
        arrived: &Arrived,
    ) -> bool {
        let sign_in = arrived.offers.server.sign_in;
        if !matches!(arrived.bearer, Bearer::Missing(_)) || sign_in != SignIn::Auto {
            return known_clients::asks_on_connect(sign_in, None);
        }
        if let Some((name, version)) = messages.find_map(|message| message.client.as_ref()) {
            let method_header = headers.contains_key(METHOD_HEADER);
            return known_clients::asks_on_connect(sign_in, Some(Sender { name, version, method_header }));
        }
        let now = self.hosting.clock().now();
        let id = headers.get(SESSION_HEADER).and_then(|id| id.to_str().ok());
        let session = id.and_then(|id| Session::open(id, self.hosting.keys(), &arrived.offers.server.id, now));
        let Some((name, version)) = session.and_then(|session| session.client) else { return false };
        // The session does not say whether its first request had the header. A probe without it was asked then.
        let sender = Sender { name: &name, version: &version, method_header: true };
        known_clients::asks_on_connect(sign_in, Some(sender))
    }

    /// A place for one more stream.
    pub(super) async fn listener(
        &self,
        headers: &HeaderMap,
        id: Option<&Value>,
        arrived: &Arrived,
    ) -> Result<Arc<Listener>, Response> {
        let slot = match self.listeners.open(&arrived.offers.server.id, arrived.address) {
            Ok(slot) => slot,
            Err(full) => {
                self.record_rejection(Rejection::RateLimited, arrived).await;
                return Err(refuse_stream(full, id));
            }
        };
        // It was read and found valid before; what is kept is its hash.
        let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.split_once(' '));
        let token_hash = token.filter(|_| arrived.bearer.subject().is_some()).map(|(_, token)| hash(token.trim()));
        Ok(Arc::new(Listener::new(slot, Arc::clone(&arrived.offers), token_hash)))
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
