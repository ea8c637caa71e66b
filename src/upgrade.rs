//! Connections that change their protocol (RFC 9110, section 7.8).

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderMap, header};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;

/// Uses the connection after its last response. The future is dropped when the server stops.
pub type Handler = Box<dyn FnOnce(TokioIo<Upgraded>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// A request extension that lets the handler of a request with an `Upgrade` header take over the connection. The
/// connection still counts towards the limits of its port.
#[derive(Clone, Default)]
pub struct Upgrade(Arc<Mutex<Option<Handler>>>);

impl Upgrade {
    /// Whether a request with these headers gets this extension, if its protocol version is HTTP/1.1.
    #[must_use]
    pub fn is_requested(headers: &HeaderMap) -> bool {
        headers.contains_key(header::UPGRADE)
    }

    /// Sets the handler that takes over the connection after the response, whose status must be 101. With another
    /// status, `handler` is dropped.
    pub fn set<F, R>(&self, handler: F)
    where
        F: FnOnce(TokioIo<Upgraded>) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let handler: Handler = Box::new(move |stream| Box::pin(handler(stream)));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(handler);
    }

    /// Takes the handler; `None` if none was set.
    #[must_use]
    pub fn take(&self) -> Option<Handler> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
