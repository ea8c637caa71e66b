//! The form of a tool set.

use waypost_core::instance::Instance;
use waypost_core::tool_set::{ToolSet, ToolSetMember};

/// An instance that can be a member.
pub(super) struct MemberField {
    pub(super) instance: Instance,
    pub(super) is_member: bool,
    /// The names of the tools that belong to the tool set, one per line. Empty for all.
    pub(super) tools: String,
}

impl MemberField {
    /// Returns the name of the field for the tools.
    pub(super) fn tools_field(&self) -> String {
        format!("tools-{}", self.instance.id)
    }
}

/// The fields of a tool set.
pub(super) struct ToolSetForm {
    pub(super) slug: String,
    pub(super) name: String,
    pub(super) has_prefix: bool,
    /// The members in their order, followed by the other instances.
    pub(super) members: Vec<MemberField>,
}

impl ToolSetForm {
    pub(super) fn new(instances: &[Instance], tool_set: Option<&ToolSet>) -> Self {
        let members = tool_set.map_or(&[][..], |set| set.members.as_slice());
        let position = |instance: &Instance| members.iter().position(|member| member.instance_id == instance.id);
        let field = |instance: &Instance| {
            let member = position(instance).map(|position| &members[position]);
            let tools = member.and_then(|member| member.tools.as_ref());
            MemberField {
                instance: instance.clone(),
                is_member: member.is_some(),
                tools: tools.map(|tools| tools.join("\n")).unwrap_or_default(),
            }
        };
        let mut fields: Vec<_> = instances.iter().filter(|one| !one.is_removing).map(field).collect();
        fields.sort_by_key(|field| position(&field.instance).unwrap_or(usize::MAX));
        Self {
            slug: tool_set.map(|set| set.slug.clone()).unwrap_or_default(),
            name: tool_set.map(|set| set.name.clone()).unwrap_or_default(),
            has_prefix: tool_set.is_none_or(|set| set.prefix),
            members: fields,
        }
    }

    /// Creates the form with the submitted fields. The members stay in the order in which the form listed them.
    pub(super) fn from_input(instances: &[Instance], pairs: &[(String, String)]) -> Self {
        let text = |name: &str| {
            let found = pairs.iter().find(|(own, _)| own == name);
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        let order = |instance: &Instance| {
            let position = pairs.iter().position(|(name, value)| name == "member" && value == instance.id.as_str());
            position.unwrap_or(usize::MAX)
        };
        let mut form = Self::new(instances, None);
        for field in &mut form.members {
            field.is_member = order(&field.instance) < usize::MAX;
            field.tools = text(&field.tools_field());
        }
        form.members.sort_by_key(|field| order(&field.instance));
        Self { slug: text("slug"), name: text("name"), has_prefix: text("prefix") == "true", members: form.members }
    }

    /// Returns the members in the order of the form.
    pub(super) fn selected_members(&self) -> Vec<ToolSetMember> {
        let member = |field: &MemberField| {
            let lines = field.tools.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned);
            let tools = Some(lines.collect::<Vec<_>>()).filter(|tools| !tools.is_empty());
            ToolSetMember { instance_id: field.instance.id.clone(), tools }
        };
        self.members.iter().filter(|field| field.is_member).map(member).collect()
    }
}
