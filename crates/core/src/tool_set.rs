//! Tool sets: selections of the tools of instances, each with its own URL.

use std::collections::BTreeSet;

use crate::error::{Error, Result};
use crate::grant::check_names;
use crate::id::{InstanceId, OrganizationId, ToolSetId};

/// The maximum number of tool sets of an organisation.
pub const MAX_TOOL_SETS: usize = 100;
/// The maximum number of members of a tool set.
pub const MAX_MEMBERS: usize = 50;

/// A tool set. It restricts what an agent sees at one URL, and never extends what the agent was granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolSet {
    /// The ID.
    pub id: ToolSetId,
    /// The organisation that owns the tool set.
    pub organization_id: OrganizationId,
    /// The slug, unique in the organisation; part of the URL.
    pub slug: String,
    /// The name.
    pub name: String,
    /// Whether names of tools and prompts begin with the slug of their instance.
    pub prefix: bool,
    /// The members, in the order in which they were specified. Deleted instances are removed, so this list can become
    /// empty.
    pub members: Vec<ToolSetMember>,
}

/// An instance in a tool set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolSetMember {
    /// The instance.
    pub instance_id: InstanceId,
    /// The original names of the tools that belong to the tool set. `None` for all of them.
    pub tools: Option<Vec<String>>,
}

/// Checks the members of a tool set: 1 to 50 different instances, or exactly one without the prefix, because tools of
/// different instances could otherwise have the same name.
///
/// # Errors
/// `invalid_arguments` for `members` or `prefix`.
pub fn check_members(prefix: bool, members: &[ToolSetMember]) -> Result<()> {
    let invalid = |message: String| Err(Error::invalid("members", message));
    if members.is_empty() {
        return invalid("`members` must contain at least one instance.".to_owned());
    }
    if members.len() > MAX_MEMBERS {
        return invalid(format!("`members` has {} instances; the maximum is {MAX_MEMBERS}.", members.len()));
    }
    let mut instances = BTreeSet::new();
    if let Some(member) = members.iter().find(|member| !instances.insert(&member.instance_id)) {
        return invalid(format!("`members` contains the instance `{}` twice.", member.instance_id));
    }
    for tools in members.iter().filter_map(|member| member.tools.as_ref()) {
        check_names("members", tools)?;
        if tools.is_empty() {
            return invalid("`tools` of a member is empty. Omit it for all tools, or remove the member.".to_owned());
        }
    }
    if !prefix && members.len() > 1 {
        let message = "`prefix` can be false only with exactly one instance: tools of several instances could have the \
                       same name.";
        return Err(Error::invalid("prefix", message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(n: usize, tools: Option<&[&str]>) -> ToolSetMember {
        let tools = tools.map(|tools| tools.iter().map(|tool| (*tool).to_owned()).collect());
        ToolSetMember { instance_id: InstanceId::from_store(format!("ins_{n}")), tools }
    }

    #[test]
    fn members_are_distinct_instances_and_only_one_is_allowed_without_the_prefix() {
        let many: Vec<_> = (0..MAX_MEMBERS).map(|n| member(n, None)).collect();
        assert!(check_members(true, &many).is_ok());
        assert!(check_members(false, &[member(1, Some(&["search"]))]).is_ok());
        let field = |prefix, members: &[ToolSetMember]| {
            check_members(prefix, members).unwrap_err().details["field"].as_str().unwrap().to_owned()
        };
        assert_eq!(field(false, &[member(1, None), member(2, None)]), "prefix");
        assert_eq!(field(true, &[]), "members");
        assert_eq!(field(true, &[many, vec![member(99, None)]].concat()), "members");
        assert_eq!(field(true, &[member(1, None), member(1, Some(&["a"]))]), "members");
        assert_eq!(field(true, &[member(1, Some(&[]))]), "members");
        assert_eq!(field(true, &[member(1, Some(&["a", "a"]))]), "members");
        assert_eq!(field(true, &[member(1, Some(&[""]))]), "members");
    }
}
