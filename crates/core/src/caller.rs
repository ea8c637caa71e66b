//! Who acts, and with what: the first argument of every act.

use std::sync::Arc;

use crate::clock::{Clock, SystemClock, Timestamp};
use crate::id::{OrganizationId, ServerId, UserId};
use crate::organization::Role;
use crate::random::{Random, SystemRandom};

/// Who makes a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// The person at the machine's command line: every act, in every organisation.
    Operator,
    /// A user or an API key of an organisation.
    Member {
        /// The only organisation that this caller can name.
        organization_id: OrganizationId,
        /// What they may do there.
        role: Role,
        /// The user's or the key's id, for the audit log.
        actor: String,
    },
    /// A signed-in user who has not said yet for which organisation they act.
    User {
        /// Who.
        user_id: UserId,
    },
    /// Somebody at the console who has not signed in.
    Visitor,
    /// An MCP client of a hosted server.
    Client {
        /// The server's organisation.
        organization_id: OrganizationId,
        /// The only server that this caller can name.
        server_id: ServerId,
    },
}

impl Caller {
    /// The name in the audit log.
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
}

/// What an act is done with: who asks, the clock, the random numbers, the request's id.
#[derive(Clone)]
pub struct Ctx {
    /// Who asks.
    pub caller: Caller,
    /// Where the present comes from.
    pub clock: Arc<dyn Clock>,
    /// Where random bytes come from.
    pub random: Arc<dyn Random>,
    /// The request's id, as in the log.
    pub request_id: String,
}

impl Ctx {
    /// The context of a command that the operator typed.
    #[must_use]
    pub fn operator() -> Self {
        Self {
            caller: Caller::Operator,
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
            request_id: "command".to_owned(),
        }
    }

    /// The same for another caller.
    #[must_use]
    pub fn with_caller(&self, caller: Caller) -> Self {
        Self { caller, ..self.clone() }
    }

    /// The present.
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
