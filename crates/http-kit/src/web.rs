//! The state that the console and the REST API share.

use std::sync::Arc;

use waypost_core::caller::{Caller, Ctx};
use waypost_core::{Code, Error, Random, Result};
use waypost_mail::Outbox;
use waypost_ops::Ops;
use waypost_ops::hosting::Hosting;
use waypost_ops::public_url::PublicUrl;

use crate::limits::{LimitKind, Limits};
use crate::request_info::RequestInfo;

/// The state of the console and the REST API. Cheap to clone.
#[derive(Clone)]
pub struct Web(Arc<WebState>);

/// The parts of a [`Web`].
pub struct WebState {
    /// The hosted servers of this process.
    pub hosting: Hosting,
    /// The public origin of this installation.
    pub public_url: PublicUrl,
    /// Rate limits per client address.
    pub limits: Limits,
    /// The outbox for emails. `None` if this installation sends no email.
    pub mail: Option<Outbox>,
    /// The source of random bytes.
    pub random: Arc<dyn Random>,
}

impl Web {
    /// Creates the shared state.
    #[must_use]
    pub fn new(state: WebState) -> Self {
        Self(Arc::new(state))
    }

    /// Returns the resources that operations use.
    #[must_use]
    pub fn ops(&self) -> &Ops {
        self.hosting.ops()
    }

    /// Creates the context of an operation for `caller`.
    #[must_use]
    pub fn context(&self, caller: Caller, info: &RequestInfo) -> Ctx {
        self.hosting.context(caller, Arc::clone(&self.random), info.request_id.clone())
    }

    /// Counts a request that creates or resends an invitation, and the email that it sends, if any.
    ///
    /// # Errors
    /// `rate_limited` if there were too many requests from the client's network.
    pub fn check_invitation_limits(&self, info: &RequestInfo) -> Result<()> {
        let mail = self.mail.as_ref().map(|_| LimitKind::Mail);
        [Some(LimitKind::Invitation), mail].into_iter().flatten().try_for_each(|kind| {
            self.limits.check(kind, info.client).map_err(|wait| {
                let seconds = wait.as_secs().max(1);
                let message = format!("Too many invitations from your network. Try again in {seconds} seconds.");
                Error::new(Code::RateLimited, message).with("retry_after_seconds", seconds)
            })
        })
    }
}

impl std::ops::Deref for Web {
    type Target = WebState;

    fn deref(&self) -> &WebState {
        &self.0
    }
}
