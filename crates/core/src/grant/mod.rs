//! Grants: the tools, prompts and resources of an instance that an agent may use.
//!
//! Invariants of the policy ([`allows`], [`covers`]), which the property tests verify:
//! 1. Default deny: without a grant, nothing is allowed.
//! 2. Union: a use is allowed if and only if one grant alone allows it. Parts of different grants are never combined.
//! 3. Monotonicity: an additional grant never removes access.
//! 4. Expiry: an expired grant has no effect. It expires at `expires_at`, not after it.
//! 5. Rules only restrict: a grant with a rule allows at most what it allows without the rule. A rule restricts only
//!    calls of the tool that it names.
//! 6. `read_only` depends only on the class that an admin chose when approving the definition, never on the server's
//!    hints.
//! 7. Everything that may be called is also listed: [`allows`] implies [`covers`].
//!
//! The policy uses original names only. Names that agents see (with prefixes or overrides) must be translated first.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::argument_rule::{ArgumentRule, MAX_TOOL_NAME};
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::id::{AgentId, GrantId, InstanceId, OrganizationId};
use crate::tool_definition::{Class, DefinitionKind};
use crate::uri_template::UriTemplate;
use crate::walkthrough::names;

/// The maximum number of grants of an agent.
pub const MAX_GRANTS: usize = 200;
/// The maximum number of names in a list.
pub const MAX_NAMES: usize = 500;
/// The maximum number of rules of a grant.
pub const MAX_RULES: usize = 50;
/// The maximum length of a URI or a URI template in characters.
pub const MAX_RESOURCE: usize = 2_000;

names! {
    /// The access level of a grant.
    AccessLevel {
        /// Definitions of the class `read`.
        ReadOnly = "read_only",
        /// Listed tools, prompts and resources.
        Custom = "custom",
        /// Everything.
        FullAccess = "full_access",
    }
}

/// The lists of a grant with the access level `custom`. Empty for other levels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantedNames {
    /// The original names of tools.
    pub tools: Vec<String>,
    /// The original names of prompts.
    pub prompts: Vec<String>,
    /// URIs of resources, and URI templates (RFC 6570). A template covers itself and every URI that it matches.
    pub resources: Vec<String>,
}

impl GrantedNames {
    /// Whether all lists are empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tools.is_empty() && self.prompts.is_empty() && self.resources.is_empty()
    }
}

/// A grant.
#[derive(Debug, Clone, PartialEq)]
pub struct Grant {
    /// The ID.
    pub id: GrantId,
    /// The organisation that owns the grant.
    pub organization_id: OrganizationId,
    /// The agent.
    pub agent_id: AgentId,
    /// The instance.
    pub instance_id: InstanceId,
    /// The access level.
    pub access: AccessLevel,
    /// The tools, prompts and resources that `custom` covers.
    pub names: GrantedNames,
    /// The rules on arguments. All rules that name the called tool must match.
    pub rules: Vec<ArgumentRule>,
    /// When the grant expires. `None` if it never does.
    pub expires_at: Option<Timestamp>,
    /// When the grant was created.
    pub created_at: Timestamp,
    /// The ID of the user or the key that created the grant, or `operator`.
    pub created_by: String,
}

/// A definition that an agent wants to use or see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'a> {
    /// The kind of the definition.
    pub kind: DefinitionKind,
    /// The original name of a tool or a prompt, the URI of a resource, or a URI template. Ignored for instructions.
    pub name: &'a str,
    /// The class that an admin chose when approving the definition. `None` if it is not approved.
    pub class: Option<Class>,
}

/// Whether an agent may use `target` at `now` with these arguments. `grants` are the agent's grants for the target's
/// instance. `arguments` are the arguments of a tool call; `None` if it has none, in which case no rule matches.
#[must_use]
pub fn allows(grants: &[Grant], now: Timestamp, target: Target<'_>, arguments: Option<&Value>) -> bool {
    grants.iter().any(|grant| grant.covers(now, target) && grant.satisfies_rules(target, arguments))
}

/// Whether `target` is listed for an agent at `now`: whether one of `grants`, its grants for the instance of the target,
/// covers it. Rules on arguments are not checked, so a call may still be rejected.
#[must_use]
pub fn covers(grants: &[Grant], now: Timestamp, target: Target<'_>) -> bool {
    grants.iter().any(|grant| grant.covers(now, target))
}

impl Grant {
    /// Whether the grant has expired at `now`.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    fn covers(&self, now: Timestamp, target: Target<'_>) -> bool {
        if self.is_expired(now) {
            return false;
        }
        // Instructions cannot be called. They describe the instance to every agent that has a grant for it.
        if target.kind == DefinitionKind::Instructions {
            return true;
        }
        match self.access {
            AccessLevel::FullAccess => true,
            AccessLevel::ReadOnly => target.class == Some(Class::Read),
            AccessLevel::Custom => self.names.contains(target),
        }
    }

    fn satisfies_rules(&self, target: Target<'_>, arguments: Option<&Value>) -> bool {
        let mut rules = self.rules.iter().filter(|rule| rule.tool == target.name);
        target.kind != DefinitionKind::Tool || rules.all(|rule| arguments.is_some_and(|value| rule.matches(value)))
    }

    /// Checks access level, lists and rules.
    ///
    /// # Errors
    /// `invalid_arguments` for `tools`, `prompts`, `resources` or `rules`.
    pub fn check(&self) -> Result<()> {
        let names = &self.names;
        check_names("tools", &names.tools)?;
        check_names("prompts", &names.prompts)?;
        check_list("resources", &names.resources, MAX_RESOURCE)?;
        for text in &names.resources {
            UriTemplate::parse(text).map_err(|error| {
                Error::invalid("resources", format!("An entry of `resources` is invalid: {error}."))
            })?;
        }
        if self.access != AccessLevel::Custom && !names.is_empty() {
            let message = format!(
                "`tools`, `prompts` and `resources` are only for the access `custom`, not for `{}`. Remove them, or \
                 choose `custom`.",
                self.access
            );
            return Err(Error::invalid("access", message));
        }
        if self.access == AccessLevel::Custom && names.is_empty() {
            let message = "The access `custom` needs at least one entry of `tools`, `prompts` or `resources`.";
            return Err(Error::invalid("tools", message));
        }
        if self.rules.len() > MAX_RULES {
            let message = format!("`rules` has {} entries; the maximum is {MAX_RULES}.", self.rules.len());
            return Err(Error::invalid("rules", message));
        }
        for rule in &self.rules {
            rule.check()?;
            if self.access == AccessLevel::Custom && !names.tools.contains(&rule.tool) {
                let message = "A rule names a tool that is not in `tools`. Add the tool, or remove the rule.";
                return Err(Error::invalid("rules", message));
            }
        }
        Ok(())
    }
}

impl GrantedNames {
    fn contains(&self, target: Target<'_>) -> bool {
        let is_listed = |list: &[String]| list.iter().any(|name| name == target.name);
        match target.kind {
            DefinitionKind::Tool => is_listed(&self.tools),
            DefinitionKind::Prompt => is_listed(&self.prompts),
            DefinitionKind::ResourceTemplate => is_listed(&self.resources),
            DefinitionKind::Resource => {
                let matches = |text: &String| UriTemplate::parse(text).is_ok_and(|text| text.matches(target.name));
                self.resources.iter().any(matches)
            }
            DefinitionKind::Instructions => false,
        }
    }
}

/// Checks a list of names of tools or prompts: at most 500 different names of 1 to 256 characters.
///
/// # Errors
/// `invalid_arguments` for `field`.
pub fn check_names(field: &str, names: &[String]) -> Result<()> {
    check_list(field, names, MAX_TOOL_NAME)
}

fn check_list(field: &str, list: &[String], max_chars: usize) -> Result<()> {
    let invalid = |message: String| Err(Error::invalid(field, message));
    if list.len() > MAX_NAMES {
        return invalid(format!("`{field}` has {} entries; the maximum is {MAX_NAMES}.", list.len()));
    }
    if !list.iter().all(|text| (1..=max_chars).contains(&text.chars().count())) {
        return invalid(format!("Every entry of `{field}` must have 1 to {max_chars} characters."));
    }
    let mut known = BTreeSet::new();
    match list.iter().find(|text| !known.insert(text.as_str())) {
        Some(text) => invalid(format!("`{field}` contains {text:?} twice.")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
