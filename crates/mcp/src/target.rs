//! What a request is about: the server that it is for, and all that is known of its sender.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use waypost_core::caller::Ctx;
use waypost_core::{Code, Error, Result, Timestamp};
use waypost_ops::call_records::{CallContext, CallOutcome};
use waypost_ops::hosting::Hosting;
use waypost_ops::identity::{self, ClientInfo, Credentials, Subject};
use waypost_ops::offers::Offers;
use waypost_ops::try_it;

use crate::listen::Listener;

/// The longest tracking id and the longest handle.
const MAX_NAME: usize = 128;

/// A request's server and sender.
#[derive(Clone)]
pub struct Target {
    /// With what acts are done.
    pub cx: Ctx,
    /// Where acts are done.
    pub hosting: Hosting,
    /// The server and what it offers.
    pub offers: Arc<Offers>,
    /// Whether the request is of the stateless era, whose results say more of themselves.
    pub modern: bool,
    /// The tracking id of the personal URL.
    pub tracking_id: Option<String>,
    /// Whom the token names, where users sign in.
    pub subject: Option<Subject>,
    /// The handle that a valid session stands for.
    pub session: Option<String>,
    /// What the client says of itself.
    pub client: ClientInfo,
    /// The client's address.
    pub address: IpAddr,
    /// The stream that the request opens: only for `subscriptions/listen`.
    pub(crate) listener: Option<Arc<Listener>>,
    /// When the request arrived, on the monotonic clock.
    pub since: Instant,
    /// When the request arrived.
    pub at: Timestamp,
}

impl Target {
    /// What the request shows of who makes it, in the order in which it counts (contract, section 4).
    ///
    /// # Errors
    /// `invalid_arguments` when the handle is longer than any handle.
    pub(crate) fn credentials(&self, handle: Option<&str>) -> Result<Credentials> {
        if self.offers.server.auth_type.signs_in() {
            return Ok(self.signed_in(handle));
        }
        if let Some(tracking_id) = &self.tracking_id {
            return Ok(Credentials::Tracking(tracking_id.clone()));
        }
        match (handle, &self.session) {
            (Some(handle), _) if handle.len() > MAX_NAME => {
                Err(Error::invalid("progress_handle", "`progress_handle` is not a handle of this server."))
            }
            (Some(handle), _) => Ok(Credentials::Handle(handle.to_owned())),
            (None, Some(session)) => Ok(Credentials::Session(session.clone())),
            (None, None) => Ok(Credentials::Nothing),
        }
    }

    /// The subject of the token and what is shown beside it: of a client that began before its user signed in. What
    /// is no handle of anybody does no harm there.
    fn signed_in(&self, handle: Option<&str>) -> Credentials {
        let Some(subject) = self.subject.clone() else { return Credentials::Nothing };
        let beside = match (handle, &self.session) {
            (Some(handle), _) if handle.len() <= MAX_NAME => Credentials::Handle(handle.to_owned()),
            (_, Some(session)) => Credentials::Session(session.clone()),
            _ => Credentials::Nothing,
        };
        Credentials::Subject(subject, Box::new(beside))
    }

    /// Whether a handle, or a session that stands for one, identifies the user: without sign-in and personal URL.
    pub(crate) fn is_by_handle(&self) -> bool {
        !self.offers.server.auth_type.signs_in() && self.tracking_id.is_none()
    }

    pub(crate) fn call(&self, tool: &str, arguments: String) -> CallContext {
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

    /// Records a failed call with its user, if `handle` or what else the request shows identifies one; logs the cause if
    /// the server is at fault.
    pub(crate) async fn record_failure(&self, call: &CallContext, error: &Error, handle: Option<&str>) {
        if let Some(cause) = std::error::Error::source(error) {
            tracing::error!(
                request_id = self.cx.request_id,
                tool = call.tool,
                code = error.code.as_str(),
                cause = cause.to_string(),
                "a tool call failed"
            );
        }
        let server = &self.offers.server;
        let identity = if error.code == Code::Unavailable {
            // A database that is away is not asked.
            None
        } else {
            let by_handle = if handle.is_some() { self.credentials(handle).ok() } else { None };
            let candidates = [by_handle, self.credentials(None).ok()].into_iter().flatten();
            identity::identify_failed_call(&self.cx, &self.hosting, server, candidates).await
        };
        let outcome = CallOutcome::Failed(error);
        call.record(&self.cx, &self.hosting, server, (identity.as_ref(), outcome)).await;
    }
}
