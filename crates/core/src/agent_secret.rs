//! Personal secrets: secrets of an instance for which each agent supplies its own value.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::id::{AgentId, AgentSecretId, InstanceId, OrganizationId};

/// A secret of an instance for which each agent supplies its own value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersonalSecret {
    /// The name that the version declares.
    pub name: String,
    /// Whether the server does not work without it.
    #[serde(rename = "required")]
    pub is_required: bool,
}

/// The metadata of an agent's value for a personal secret. Does not contain the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentSecret {
    /// The ID, to which the value is sealed. Each value has its own ID.
    pub id: AgentSecretId,
    /// The organisation that owns instance and agent.
    pub organization_id: OrganizationId,
    /// The instance.
    pub instance_id: InstanceId,
    /// The agent.
    pub agent_id: AgentId,
    /// The name that the version declares.
    pub name: String,
    /// Whether there is a value. `false` after it was removed.
    pub is_set: bool,
    /// The number of the last change, which increases with every change within the instance.
    pub version: u64,
    /// When the value was set or removed.
    pub updated_at: Timestamp,
}

/// Returns the names of the required secrets in `personal` that have no value in `secrets`. All of `secrets` must
/// belong to one agent and one instance.
#[must_use]
pub fn missing<'a>(personal: &'a [PersonalSecret], secrets: &[AgentSecret]) -> Vec<&'a str> {
    let is_set = |name: &str| secrets.iter().any(|secret| secret.is_set && secret.name == name);
    let required = personal.iter().filter(|secret| secret.is_required).map(|secret| secret.name.as_str());
    required.filter(|name| !is_set(name)).collect()
}

/// Returns the version of an agent's personal secrets for an instance: the number of the last change, including
/// removals. Returns 0 if `secrets`, the secrets of this agent and instance, is empty.
#[must_use]
pub fn version(secrets: &[AgentSecret]) -> u64 {
    secrets.iter().map(|secret| secret.version).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(name: &str, is_set: bool, version: u64) -> AgentSecret {
        AgentSecret {
            id: AgentSecretId::from_store("ags_1".to_owned()),
            organization_id: OrganizationId::from_store("org_1".to_owned()),
            instance_id: InstanceId::from_store("ins_1".to_owned()),
            agent_id: AgentId::from_store("agt_1".to_owned()),
            name: name.to_owned(),
            is_set,
            version,
            updated_at: Timestamp(0),
        }
    }

    #[test]
    fn required_secrets_without_a_value_are_missing() {
        let personal = |name: &str, is_required| PersonalSecret { name: name.to_owned(), is_required };
        let personal = [personal("A", true), personal("B", false), personal("C", true)];
        assert_eq!(missing(&personal, &[]), ["A", "C"]);
        assert_eq!(missing(&personal, &[secret("A", true, 1), secret("C", false, 2)]), ["C"], "C was removed");
        assert!(missing(&personal, &[secret("C", true, 3), secret("A", true, 1), secret("X", true, 9)]).is_empty());
    }

    #[test]
    fn a_removal_increases_the_version() {
        assert_eq!(version(&[]), 0);
        assert_eq!(version(&[secret("A", true, 4), secret("B", false, 7)]), 7);
    }

    #[test]
    fn the_stored_form_is_stable() {
        let personal = PersonalSecret { name: "A".to_owned(), is_required: true };
        assert_eq!(serde_json::to_string(&personal).unwrap(), r#"{"name":"A","required":true}"#);
    }
}
