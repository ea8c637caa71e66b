//! Agents: the AI clients of an organisation, and their tokens.

use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::id::{AgentId, AgentTokenId, OrganizationId, UserId};
use crate::walkthrough::names;

/// The maximum number of agents of an organisation.
pub const MAX_AGENTS: usize = 1_000;
/// The maximum number of tokens of an agent that are neither expired nor revoked.
pub const MAX_TOKENS: usize = 20;
/// The maximum number of expired or revoked tokens of an agent that are kept.
pub const MAX_INACTIVE_TOKENS: usize = 20;
/// The time for which expired and revoked tokens are kept, in milliseconds: 30 days.
pub const INACTIVE_TOKEN_MS: i64 = 30 * 24 * 60 * 60 * 1_000;
/// The maximum length of the name of an agent, a token or a tool set in characters.
pub const MAX_NAME: usize = 100;

names! {
    /// The kind of an agent.
    AgentKind {
        /// A program with its own tokens.
        Service = "service",
        /// A user of the console, who signs in with OAuth.
        Person = "person",
    }
}

names! {
    /// Whether an agent can use the gateway.
    AgentState {
        /// The agent can use what it was granted.
        Active = "active",
        /// Every token of the agent is rejected.
        Disabled = "disabled",
    }
}

/// An agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// The ID.
    pub id: AgentId,
    /// The organisation that owns the agent.
    pub organization_id: OrganizationId,
    /// The name, unique in the organisation.
    pub name: String,
    /// The kind.
    pub kind: AgentKind,
    /// The user to whom an agent of the kind `person` belongs. `None` for services.
    pub user_id: Option<UserId>,
    /// Whether the agent can use the gateway.
    pub state: AgentState,
    /// When the agent was created.
    pub created_at: Timestamp,
    /// The ID of the user or the key that created the agent, or `operator`.
    pub created_by: String,
    /// When the agent was last seen, to the minute. `None` if it never was.
    pub last_seen_at: Option<Timestamp>,
}

/// A token of an agent, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentToken {
    /// The ID.
    pub id: AgentTokenId,
    /// The agent.
    pub agent_id: AgentId,
    /// The name.
    pub name: String,
    /// When the token was created.
    pub created_at: Timestamp,
    /// When the token expires. `None` if it never does.
    pub expires_at: Option<Timestamp>,
    /// When the token was last used, to the minute. `None` if it never was.
    pub last_used_at: Option<Timestamp>,
    /// When the token was revoked.
    pub revoked_at: Option<Timestamp>,
}

impl AgentToken {
    /// Whether the token is valid at `now`: neither expired nor revoked.
    #[must_use]
    pub fn is_active(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|at| now < at)
    }
}

/// Checks the cleaned name of an agent. A name that could be an ID is rejected, because commands accept both.
///
/// # Errors
/// `invalid_arguments` for the field `name`.
pub fn check_agent_name(name: &str) -> Result<()> {
    check_name_length("name", name)?;
    if name.parse::<AgentId>().is_ok() {
        let message = format!("`name` cannot have the form of an ID, such as `{name}`. Choose another.");
        return Err(Error::invalid("name", message));
    }
    Ok(())
}

/// Checks the length of a cleaned name of an agent, a token or a tool set.
///
/// # Errors
/// `invalid_arguments` for `field`.
pub fn check_name_length(field: &str, name: &str) -> Result<()> {
    match name.chars().count() {
        0..=MAX_NAME => Ok(()),
        count => {
            let message = format!("`{field}` has {count} characters; the maximum is {MAX_NAME}.");
            Err(Error::invalid(field, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_active_until_it_expires_or_is_revoked() {
        let token = |expires_at, revoked_at| AgentToken {
            id: AgentTokenId::from_store("agk_1".to_owned()),
            agent_id: AgentId::from_store("agt_1".to_owned()),
            name: "laptop".to_owned(),
            created_at: Timestamp(0),
            expires_at,
            last_used_at: None,
            revoked_at,
        };
        let now = Timestamp(100);
        assert!(token(None, None).is_active(now));
        assert!(token(Some(Timestamp(101)), None).is_active(now));
        assert!(!token(Some(now), None).is_active(now), "expires at this moment");
        assert!(!token(None, Some(Timestamp(50))).is_active(now));
        assert!(!token(Some(Timestamp(101)), Some(Timestamp(50))).is_active(now));
    }

    #[test]
    fn names_must_be_short_and_not_look_like_ids() {
        assert!(check_agent_name(&"ü".repeat(MAX_NAME)).is_ok());
        for name in [&"ü".repeat(MAX_NAME + 1), "agt_0123456789abcdef"] {
            assert_eq!(check_agent_name(name).unwrap_err().details["field"], "name");
        }
        assert_eq!(check_name_length("title", &"x".repeat(101)).unwrap_err().details["field"], "title");
    }
}
