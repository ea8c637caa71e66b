//! `/o/{org}/grants`: the tools, prompts and resources of instances that agents may use.

mod edit;
mod form;
mod matrix;
mod rules_form;

use waypost_core::access::Operation;
use waypost_core::argument_rule::{ArgumentRule, Comparison};
use waypost_core::caller::Ctx;
use waypost_core::grant::{AccessLevel, Grant, MAX_GRANTS};
use waypost_core::id::{AgentId, OrganizationId};
use waypost_core::instance::Instance;
use waypost_core::tool_definition::DefinitionKind;
use waypost_core::{Result, Timestamp};
use waypost_ops::grants::{self, GrantFilter};

use crate::Console;
use crate::instance_list::list_all;
use crate::layout::CurrentOrganization;
use crate::routes::{Access, Routes};
use crate::view::pluralize;

/// Returns the routes of these pages.
pub(super) fn routes() -> Routes {
    const READ: Access = Access::Member(Operation::GrantRead);
    const WRITE: Access = Access::Member(Operation::GrantWrite);
    Routes::new()
        .get("/o/{org}/grants", READ, matrix::show)
        .get("/o/{org}/grants/new", WRITE, edit::new)
        .post("/o/{org}/grants", WRITE, edit::create)
        .get("/o/{org}/grants/{grant}", READ, edit::show)
        .post("/o/{org}/grants/{grant}", WRITE, edit::update)
        .post("/o/{org}/grants/{grant}/delete", WRITE, edit::delete)
}

/// Returns the label of an access level.
pub(crate) fn access_label(access: AccessLevel) -> &'static str {
    match access {
        AccessLevel::ReadOnly => "Read only",
        AccessLevel::Custom => "Selected tools",
        AccessLevel::FullAccess => "Full access",
    }
}

/// Returns the label of a kind of definition.
pub(crate) fn kind_label(kind: DefinitionKind) -> &'static str {
    match kind {
        DefinitionKind::Tool => "Tool",
        DefinitionKind::Prompt => "Prompt",
        DefinitionKind::Resource => "Resource",
        DefinitionKind::ResourceTemplate => "Resource template",
        DefinitionKind::Instructions => "Instructions",
    }
}

/// Returns a comparison in words.
fn comparison_label(comparison: Comparison) -> &'static str {
    match comparison {
        Comparison::Equals => "is",
        Comparison::NotEquals => "is not",
        Comparison::LessThan => "is less than",
        Comparison::AtMost => "is at most",
        Comparison::GreaterThan => "is more than",
        Comparison::AtLeast => "is at least",
        Comparison::StartsWith => "starts with",
        Comparison::Contains => "contains",
        Comparison::OneOf => "is one of",
    }
}

/// Returns a rule in words, such as `find: limit is at most 10`.
fn describe_rule(rule: &ArgumentRule) -> String {
    let value = match &rule.value {
        serde_json::Value::Array(values) => values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        value => value.to_string(),
    };
    format!("{}: {} {} {value}", rule.tool, rule.field, comparison_label(rule.comparison))
}

/// A grant in a list.
pub(crate) struct GrantRow {
    /// The path of the grant.
    pub(crate) href: String,
    /// The slug of the instance, or its ID if the instance was deleted.
    pub(crate) instance: String,
    /// The path of the instance.
    pub(crate) instance_href: String,
    pub(crate) access: &'static str,
    /// The number of names of each kind, such as `2 tools`.
    pub(crate) names: String,
    pub(crate) rules: Vec<String>,
    pub(crate) expires_at: Option<String>,
    pub(crate) is_expired: bool,
}

impl GrantRow {
    fn new(org: &CurrentOrganization, grant: &Grant, instances: &[Instance], now: Timestamp) -> Self {
        let instance = instances.iter().find(|instance| instance.id == grant.instance_id);
        Self {
            href: org.path(&format!("grants/{}", grant.id)),
            instance: instance.map_or_else(|| grant.instance_id.to_string(), |instance| instance.slug.clone()),
            instance_href: org.path(&format!("instances/{}", grant.instance_id)),
            access: access_label(grant.access),
            names: count_names(grant),
            rules: grant.rules.iter().map(describe_rule).collect(),
            expires_at: grant.expires_at.map(Timestamp::rfc3339),
            is_expired: grant.is_expired(now),
        }
    }
}

/// Returns the number of names of each kind that a grant lists, such as `2 tools`. Empty if it lists none.
fn count_names(grant: &Grant) -> String {
    let names = &grant.names;
    let counts = [
        (names.tools.len(), "tool", "tools"),
        (names.prompts.len(), "prompt", "prompts"),
        (names.resources.len(), "resource", "resources"),
    ];
    let counts = counts.into_iter().filter(|(count, ..)| *count > 0);
    let text = |(count, one, many)| pluralize(i64::try_from(count).unwrap_or(i64::MAX), one, many);
    counts.map(text).collect::<Vec<_>>().join(", ")
}

/// Returns the grants of an agent, newest first.
pub(crate) async fn list_of_agent(
    cx: &Ctx,
    console: &Console,
    organization: &OrganizationId,
    org: &CurrentOrganization,
    agent: &AgentId,
) -> Result<Vec<GrantRow>> {
    let limit = u32::try_from(MAX_GRANTS).unwrap_or(u32::MAX);
    let filter = GrantFilter { agent: Some(agent), instance: None };
    let found = grants::list(cx, console.ops(), organization, filter, (None, limit)).await?;
    let instances = if found.is_empty() { Vec::new() } else { list_all(cx, console, organization).await? };
    Ok(found.iter().map(|grant| GrantRow::new(org, grant, &instances, cx.now())).collect())
}
