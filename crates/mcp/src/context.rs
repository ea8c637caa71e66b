//! The context of one MCP request: the server, and what is known about the caller.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::time::Instant;
use waypost_core::caller::Ctx;
use waypost_core::{Code, Error, Result, Timestamp};
use waypost_ops::call_records::{CallContext, CallOutcome};
use waypost_ops::hosting::Hosting;
use waypost_ops::identity::{self, ClientInfo, Credentials, Subject};
use waypost_ops::offers::Offers;
use waypost_ops::try_it;

use crate::listen::Listener;

/// The maximum length of a handle in bytes.
const MAX_HANDLE: usize = 128;

/// The server and the caller of one request.
#[derive(Clone)]
pub struct HandlerContext {
    /// The context of the operations.
    pub cx: Ctx,
    /// The hosting services of this process.
    pub hosting: Arc<Hosting>,
    /// The server and what it offers.
    pub offers: Arc<Offers>,
    /// Whether the request uses a stateless revision, whose results carry more metadata.
    pub is_modern: bool,
    /// The tracking ID of the personal URL.
    pub tracking_id: Option<String>,
    /// The subject of the token, on a server whose users sign in.
    pub subject: Option<Subject>,
    /// The handle of a valid session.
    pub session: Option<String>,
    /// The client's description of itself.
    pub client: ClientInfo,
    /// The client's IP address.
    pub address: IpAddr,
    /// The stream that the request opens. `Some` only for `subscriptions/listen`.
    pub(crate) listener: Option<Arc<Listener>>,
    /// The time at which the request was received, on the monotonic clock.
    pub since: Instant,
    /// The time at which the request was received.
    pub at: Timestamp,
}

impl HandlerContext {
    /// Returns the credentials of the request, by precedence (docs/mcp.md, "User identity").
    ///
    /// # Errors
    /// `invalid_arguments` if the handle is longer than [`MAX_HANDLE`].
    pub(crate) fn credentials(&self, handle: Option<&str>) -> Result<Credentials> {
        if self.offers.server.auth_type.has_sign_in() {
            return Ok(self.signed_in(handle));
        }
        if let Some(tracking_id) = &self.tracking_id {
            return Ok(Credentials::Tracking(tracking_id.clone()));
        }
        match (handle, &self.session) {
            (Some(handle), _) if handle.len() > MAX_HANDLE => Err(Error::invalid(
                "progress_handle",
                "`progress_handle` is not a handle of this server. Pass the handle from an earlier result, or omit it.",
            )),
            (Some(handle), _) => Ok(Credentials::Handle(handle.to_owned())),
            (None, Some(session)) => Ok(Credentials::Session(session.clone())),
            (None, None) => Ok(Credentials::Nothing),
        }
    }

    /// Returns the subject of the token, together with the handle or session that the client also sends if it started
    /// before its user signed in. A handle that is longer than [`MAX_HANDLE`] is ignored.
    fn signed_in(&self, handle: Option<&str>) -> Credentials {
        let Some(subject) = self.subject.clone() else { return Credentials::Nothing };
        let other = match (handle, &self.session) {
            (Some(handle), _) if handle.len() <= MAX_HANDLE => Credentials::Handle(handle.to_owned()),
            (_, Some(session)) => Credentials::Session(session.clone()),
            _ => Credentials::Nothing,
        };
        Credentials::Subject(subject, Box::new(other))
    }

    /// Whether a handle or a session identifies the user: there is neither sign-in nor a personal URL.
    pub(crate) fn is_identified_by_handle(&self) -> bool {
        !self.offers.server.auth_type.has_sign_in() && self.tracking_id.is_none()
    }

    /// Returns the context of a call, for its record.
    pub(crate) fn call_context(&self, tool: &str, arguments: String) -> CallContext {
        CallContext {
            tool: tool.to_owned(),
            arguments,
            since: self.since,
            at: self.at,
            client: self.client.clone(),
            protocol_session: self.session.clone(),
            is_test: self.tracking_id.as_deref().is_some_and(try_it::is_test_id),
            address: self.address,
        }
    }

    /// Records a failed call, with its user if `handle` or the other credentials of the request identify one. Logs the
    /// cause of an internal error.
    pub(crate) async fn record_failure(&self, call: &CallContext, error: &Error, handle: Option<&str>) {
        if let Some(cause) = std::error::Error::source(error) {
            tracing::error!(
                request_id = self.cx.request_id,
                tool = call.tool,
                code = error.code.as_str(),
                cause = cause.to_string(),
                "tool call failed"
            );
        }
        let server = &self.offers.server;
        let identity = if error.code == Code::Unavailable {
            // The database is unavailable.
            None
        } else {
            let by_handle = if handle.is_some() { self.credentials(handle).ok() } else { None };
            let candidates = [by_handle, self.credentials(None).ok()].into_iter().flatten();
            identity::identify_failed_call(&self.cx, &self.hosting, server, candidates).await
        };
        let outcome = CallOutcome::Failed(error);
        call.record(&self.cx, &self.hosting, server, identity.as_ref(), outcome).await;
    }
}
