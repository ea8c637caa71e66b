//! The form of a grant: access level, names, rules on arguments and expiry.

use std::collections::BTreeSet;

use serde_json::Value;
use waypost_core::argument_rule::ArgumentRule;
use waypost_core::grant::{AccessLevel, Grant, GrantedNames};
use waypost_core::tool_definition::{DefinitionKind, ToolDefinition};
use waypost_core::{Error, Result, Timestamp};

use super::rules_form::RulesForm;
use super::{access_label, kind_label};
use crate::form::{day, end_of_day};

/// Returns the explanation of an access level.
fn access_hint(access: AccessLevel) -> &'static str {
    match access {
        AccessLevel::ReadOnly => "Everything that was approved as “read”, also what is approved later.",
        AccessLevel::Custom => "Only the tools, prompts and resources that you select.",
        AccessLevel::FullAccess => "Everything that is approved, also what is approved later.",
    }
}

/// A name that can be selected.
pub(super) struct NameOption {
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) is_selected: bool,
}

/// The names of one kind.
pub(super) struct NameGroup {
    /// The name of the field.
    pub(super) field: &'static str,
    pub(super) label: &'static str,
    pub(super) options: Vec<NameOption>,
}

impl NameGroup {
    /// Creates the options: the names that the server lists, and the selected names that it does not list.
    fn new(
        (field, label, kinds): (&'static str, &'static str, &[DefinitionKind]),
        (known, selected): (&[ToolDefinition], &[String]),
    ) -> Self {
        let listed = known.iter().filter(|definition| kinds.contains(&definition.kind));
        let option = |definition: &ToolDefinition| NameOption {
            is_selected: selected.contains(&definition.name),
            kind: kind_label(definition.kind),
            name: definition.name.clone(),
        };
        let mut options: Vec<_> = listed.map(option).collect();
        for name in selected {
            if !options.iter().any(|option| option.name == *name) {
                options.push(NameOption { name: name.clone(), kind: "not listed at present", is_selected: true });
            }
        }
        Self { field, label, options }
    }
}

/// The fields of a grant.
pub(super) struct GrantForm {
    pub(super) access: String,
    pub(super) groups: Vec<NameGroup>,
    /// URI templates and other names that the server does not list, one per line.
    pub(super) other_resources: String,
    pub(super) rules: RulesForm,
    pub(super) expires_on: String,
    /// The tools to which rules can apply.
    tools: Vec<String>,
    /// The names of the arguments of all tools.
    pub(super) arguments: BTreeSet<String>,
}

impl GrantForm {
    /// Creates the form. `known` contains the definitions of the instance's server.
    pub(super) fn new(known: &[ToolDefinition], grant: Option<&Grant>) -> Self {
        let names = grant.map(|grant| grant.names.clone()).unwrap_or_default();
        let rules = grant.map_or(&[][..], |grant| grant.rules.as_slice());
        Self {
            access: grant.map_or(AccessLevel::ReadOnly, |grant| grant.access).as_str().to_owned(),
            rules: RulesForm::new(rules),
            expires_on: grant.and_then(|grant| grant.expires_at).map(day).unwrap_or_default(),
            ..Self::with_names(known, &names, rules)
        }
    }

    /// Creates the form with the submitted fields.
    pub(super) fn from_input(known: &[ToolDefinition], pairs: &[(String, String)]) -> Self {
        let text = |name: &str| pairs.iter().find(|(own, _)| own == name).map(|(_, value)| value.clone());
        let all = |name: &str| {
            let values = pairs.iter().filter(|(own, _)| own == name).map(|(_, value)| value.clone());
            values.collect::<Vec<_>>()
        };
        let names = GrantedNames { tools: all("tools"), prompts: all("prompts"), resources: all("resources") };
        let rules = RulesForm::from_input(pairs);
        let mut form = Self::with_names(known, &names, &[]);
        form.tools.extend(rules.rows.iter().map(|row| row.tool.clone()));
        form.tools.retain(|tool| !tool.is_empty());
        form.tools.sort();
        form.tools.dedup();
        Self {
            access: text("access").unwrap_or_default(),
            other_resources: text("other_resources").unwrap_or_default(),
            expires_on: text("expires_on").unwrap_or_default(),
            rules,
            ..form
        }
    }

    fn with_names(known: &[ToolDefinition], names: &GrantedNames, rules: &[ArgumentRule]) -> Self {
        let (resource, template) = (DefinitionKind::Resource, DefinitionKind::ResourceTemplate);
        let tools = known.iter().filter(|definition| definition.kind == DefinitionKind::Tool);
        let mut tool_names: Vec<_> = tools.clone().map(|definition| definition.name.clone()).collect();
        tool_names.extend(names.tools.iter().cloned().chain(rules.iter().map(|rule| rule.tool.clone())));
        tool_names.sort();
        tool_names.dedup();
        Self {
            access: String::new(),
            groups: vec![
                NameGroup::new(("tools", "Tools", &[DefinitionKind::Tool]), (known, &names.tools)),
                NameGroup::new(("prompts", "Prompts", &[DefinitionKind::Prompt]), (known, &names.prompts)),
                NameGroup::new(("resources", "Resources", &[resource, template]), (known, &names.resources)),
            ],
            other_resources: String::new(),
            rules: RulesForm::new(&[]),
            expires_on: String::new(),
            tools: tool_names,
            arguments: tools.flat_map(argument_names).collect(),
        }
    }

    pub(super) fn accesses(&self) -> Vec<(&'static str, &'static str, &'static str)> {
        let choice = |access: &AccessLevel| (access.as_str(), access_label(*access), access_hint(*access));
        AccessLevel::ALL.iter().map(choice).collect()
    }

    /// Returns the tools as options of a rule: value and label.
    pub(super) fn rule_tools(&self) -> Vec<(&str, &str)> {
        let none = std::iter::once(("", "No rule"));
        none.chain(self.tools.iter().map(|tool| (tool.as_str(), tool.as_str()))).collect()
    }

    pub(super) fn parse_access(&self) -> Result<AccessLevel> {
        self.access.parse().map_err(|_| Error::invalid("access", "Select one of the access levels."))
    }

    /// Returns the selected names. Empty for access levels other than `custom`.
    pub(super) fn names(&self, access: AccessLevel) -> GrantedNames {
        if access != AccessLevel::Custom {
            return GrantedNames::default();
        }
        let selected = |field: &str| {
            let group = self.groups.iter().filter(|group| group.field == field);
            let options = group.flat_map(|group| &group.options).filter(|option| option.is_selected);
            options.map(|option| option.name.clone()).collect::<Vec<_>>()
        };
        let others = self.other_resources.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned);
        GrantedNames {
            tools: selected("tools"),
            prompts: selected("prompts"),
            resources: selected("resources").into_iter().chain(others).collect(),
        }
    }

    pub(super) fn parse_rules(&self) -> Result<Vec<ArgumentRule>> {
        self.rules.parse()
    }

    pub(super) fn parse_expiry(&self) -> Result<Option<Timestamp>> {
        end_of_day(&self.expires_on)
    }
}

/// Returns the names of the arguments of a tool.
fn argument_names(tool: &ToolDefinition) -> Vec<String> {
    let definition: Option<Value> = serde_json::from_str(&tool.definition).ok();
    let properties = definition.as_ref().and_then(|tool| tool["inputSchema"]["properties"].as_object());
    properties.into_iter().flat_map(|properties| properties.keys().cloned()).collect()
}
