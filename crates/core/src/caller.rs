//! The caller and the context of an operation.

use std::sync::Arc;

use crate::clock::{Clock, SystemClock, Timestamp};
use crate::id::{OrganizationId, ServerId, UserId};
use crate::organization::Role;
use crate::random::{Random, SystemRandom};

/// The caller of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// The operator on the command line, who may perform every operation in every organisation.
    Operator,
    /// A user or an API key of an organisation.
    Member {
        /// The only organisation that this caller can access.
        organization_id: OrganizationId,
        /// The caller's role.
        role: Role,
        /// The ID of the user or the key, for the audit log.
        actor: String,
    },
    /// A signed-in user outside any organisation.
    User {
        /// The user.
        user_id: UserId,
    },
    /// An anonymous visitor of the console.
    Visitor,
    /// An MCP client of a hosted server.
    Client {
        /// The server's organisation.
        organization_id: OrganizationId,
        /// The only server that this caller can access.
        server_id: ServerId,
    },
}

impl Caller {
    /// Returns the actor for the audit log.
    #[must_use]
    pub fn actor(&self) -> &str {
        match self {
            Self::Operator => "operator",
            Self::Member { actor, .. } => actor,
            Self::User { user_id } => user_id.as_str(),
            Self::Visitor => "visitor",
            Self::Client { server_id, .. } => server_id.as_str(),
        }
    }

    /// Returns the only organisation that the caller can access, if there is one.
    #[must_use]
    pub fn organization_id(&self) -> Option<&OrganizationId> {
        match self {
            Self::Member { organization_id, .. } | Self::Client { organization_id, .. } => Some(organization_id),
            Self::Operator | Self::User { .. } | Self::Visitor => None,
        }
    }
}

/// The context of an operation: the caller, the clock, the random number generator and the request ID.
#[derive(Clone)]
pub struct Ctx {
    /// The caller.
    pub caller: Caller,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The random number generator.
    pub random: Arc<dyn Random>,
    /// The request ID, as in the log.
    pub request_id: String,
}

impl Ctx {
    /// Creates the context of a command run by the operator.
    #[must_use]
    pub fn operator() -> Self {
        Self {
            caller: Caller::Operator,
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
            request_id: "command".to_owned(),
        }
    }

    /// Returns the same context for another caller.
    #[must_use]
    pub fn with_caller(&self, caller: Caller) -> Self {
        Self { caller, ..self.clone() }
    }

    /// Returns the current time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

impl std::fmt::Debug for Ctx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ctx")
            .field("caller", &self.caller)
            .field("request_id", &self.request_id)
            .finish_non_exhaustive()
    }
}
