//! Limits on responses that stay open to follow logs or deployments.

use std::time::Duration;

use waypost_core::Result;
use waypost_core::id::OrganizationId;

use crate::Ops;
use crate::slots::{Slot, SlotLimits};

/// The limits on open responses. Each open response queries the database every few seconds. Requests do not wait for a
/// slot, because an open response may never end.
pub(crate) const MAX_FOLLOWS: SlotLimits =
    SlotLimits { total: 200, per_organization: 20, waiting: 0, waiting_per_organization: 0, max_wait: Duration::ZERO };

/// An open response, counted until it is dropped.
#[derive(Debug)]
pub struct Follow {
    _slot: Slot,
}

impl Follow {
    /// Counts an open response.
    ///
    /// # Errors
    /// `rate_limited` if the organisation has 20 open responses, or this process 200.
    pub async fn open(ops: &Ops, organization: &OrganizationId) -> Result<Self> {
        let message = "Too many logs and deployments are being followed. Close one of them first.";
        Ok(Self { _slot: ops.follows.acquire(organization, message).await? })
    }
}
