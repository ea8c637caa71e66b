//! `waypost tool-set`: selections of the tools of instances, each with its own gateway URL.

use serde_json::{Value, json};
use waypost_core::id::OrganizationId;
use waypost_core::tool_set::{ToolSet, ToolSetMember};
use waypost_ops::tool_sets::{self, NewToolSet, ToolSetPatch};

use super::session::{Session, not_found_message};
use super::user::Org;
use super::{grant, output};

/// The number of tool sets that are read at a time.
const PAGE_SIZE: u32 = 200;

/// Subcommands of `waypost tool-set`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Create a tool set.
    Create {
        /// Slug, which is part of the URL, unique in the organisation, at most 24 characters.
        slug: String,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        options: Options,
    },
    /// List the tool sets of an organisation.
    List {
        #[command(flatten)]
        org: Org,
    },
    /// Show a tool set.
    Show {
        #[command(flatten)]
        at: AtToolSet,
    },
    /// Change a tool set. It applies within one second.
    Update {
        #[command(flatten)]
        at: AtToolSet,
        /// New slug. The URL with the old slug stops working.
        #[arg(long)]
        slug: Option<String>,
        #[command(flatten)]
        options: Options,
    },
    /// Delete a tool set. Its URL stops working.
    Delete {
        #[command(flatten)]
        at: AtToolSet,
        /// Do not ask for confirmation.
        #[arg(long)]
        yes: bool,
    },
}

/// A tool set of an organisation.
#[derive(Debug, clap::Args)]
pub struct AtToolSet {
    /// Slug or ID of the tool set.
    pub(super) tool_set: String,
    #[command(flatten)]
    pub(super) org: Org,
}

/// The settings of a tool set.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Name; by default, the slug.
    #[arg(long)]
    pub(super) name: Option<String>,
    /// Whether names of tools begin with the slug of their instance [default: true]. `false` requires exactly one member.
    #[arg(long, value_name = "BOOL")]
    pub(super) prefix: Option<bool>,
    /// Instance (slug, name or ID) whose tools belong to the set, such as `search`, or `search=find,fetch` for some of
    /// them; can be repeated. An update replaces all members.
    #[arg(long = "member", value_name = "INSTANCE[=TOOL,…]", value_parser = parse_member)]
    pub(super) members: Vec<MemberArg>,
}

/// An option `--member INSTANCE[=TOOL,…]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberArg {
    /// The slug, name or ID of the instance.
    pub(super) instance: String,
    /// The original names of its tools that belong to the set; `None` for all.
    pub(super) tools: Option<Vec<String>>,
}

fn parse_member(text: &str) -> Result<MemberArg, String> {
    let (instance, tools) = match text.split_once('=') {
        Some((instance, tools)) => (instance, Some(tools.split(',').map(str::to_owned).collect::<Vec<_>>())),
        None => (text, None),
    };
    if instance.is_empty() || tools.as_ref().is_some_and(|tools| tools.iter().any(String::is_empty)) {
        return Err("expected INSTANCE or INSTANCE=TOOL,TOOL, such as search=find,fetch".to_owned());
    }
    Ok(MemberArg { instance: instance.to_owned(), tools })
}

impl Command {
    /// Returns the organisation given by `--org`.
    pub(super) fn organization(&self) -> Option<&str> {
        let org = match self {
            Self::Create { org, .. } | Self::List { org } => org,
            Self::Show { at } | Self::Update { at, .. } | Self::Delete { at, .. } => &at.org,
        };
        org.org.as_deref()
    }
}

/// Runs the command.
///
/// # Errors
/// If the operation is rejected.
pub async fn run(session: &Session, command: Command) -> anyhow::Result<()> {
    let Session { cx, ops, json, .. } = session;
    let organization = session.organization(command.organization()).await?.id;
    match command {
        Command::Create { slug, options, .. } => {
            let members = find_members(session, &organization, options.members).await?;
            let new = NewToolSet { slug, name: options.name, prefix: options.prefix.unwrap_or(true), members };
            print(*json, to_json(&tool_sets::create(cx, ops, &organization, &new).await?))
        }
        Command::List { .. } => {
            let (mut items, mut after) = (Vec::new(), None::<String>);
            loop {
                let found = tool_sets::list(cx, ops, &organization, after.as_deref(), PAGE_SIZE).await?;
                after = found.last().map(|last| last.slug.clone());
                items.extend(found.iter().map(to_json));
                if after.is_none() {
                    return print_list(*json, items);
                }
            }
        }
        Command::Show { at } => print(*json, to_json(&find(session, &organization, &at).await?)),
        Command::Update { at, slug, options } => {
            let id = find(session, &organization, &at).await?.id;
            let members = find_members(session, &organization, options.members).await?;
            let members = (!members.is_empty()).then_some(members);
            let change = ToolSetPatch { slug, name: options.name, prefix: options.prefix, members };
            print(*json, to_json(&tool_sets::update(cx, ops, &organization, &id, &change).await?))
        }
        Command::Delete { at, yes } => {
            let found = find(session, &organization, &at).await?;
            confirm_deletion(yes, &found.slug)?;
            tool_sets::delete(cx, ops, &organization, &found.id).await?;
            print_deleted(*json, found.id.as_str(), &found.slug)
        }
    }
}

async fn find(session: &Session, organization: &OrganizationId, at: &AtToolSet) -> anyhow::Result<ToolSet> {
    let found = tool_sets::resolve(&session.cx, &session.ops, organization, &at.tool_set).await;
    found.map_err(|error| not_found_message(error, "tool set", &at.tool_set, "tool-set"))
}

async fn find_members(
    session: &Session,
    organization: &OrganizationId,
    arguments: Vec<MemberArg>,
) -> anyhow::Result<Vec<ToolSetMember>> {
    let mut members = Vec::with_capacity(arguments.len());
    for MemberArg { instance, tools } in arguments {
        let instance_id = grant::find_instance(session, organization, &instance).await?;
        members.push(ToolSetMember { instance_id, tools });
    }
    Ok(members)
}

/// Prints a tool set. Text output shows each member like the argument of `--member`.
pub(super) fn print(json: bool, mut tool_set: Value) -> anyhow::Result<()> {
    if !json {
        show_members(&mut tool_set);
    }
    output::object(json, &tool_set)
}

pub(super) fn print_list(json: bool, mut items: Vec<Value>) -> anyhow::Result<()> {
    if !json {
        items.iter_mut().for_each(show_members);
    }
    output::list(json, &["slug", "name", "prefix", "id", "members"], items)
}

fn show_members(tool_set: &mut Value) {
    for member in tool_set["members"].as_array_mut().into_iter().flatten() {
        let tools: Option<Vec<_>> =
            member["tools"].as_array().map(|tools| tools.iter().filter_map(Value::as_str).collect());
        let tools = tools.map(|tools| format!("={}", tools.join(","))).unwrap_or_default();
        *member = format!("{}{tools}", member["instance_id"].as_str().unwrap_or_default()).into();
    }
}

pub(super) fn confirm_deletion(yes: bool, slug: &str) -> anyhow::Result<()> {
    output::confirm(yes, &format!("Delete the tool set {}? Its URL stops working.", output::clean(slug)))
}

pub(super) fn print_deleted(json: bool, id: &str, slug: &str) -> anyhow::Result<()> {
    output::deleted(json, id, &format!("Deleted the tool set {}.", output::clean(slug)))
}

/// The members of a tool set, in the order of [`to_json`].
pub(super) const MEMBERS: &[&str] = &["id", "slug", "name", "prefix", "members"];

fn to_json(tool_set: &ToolSet) -> Value {
    let member = |member: &ToolSetMember| json!({ "instance_id": member.instance_id, "tools": member.tools });
    json!({
        "id": tool_set.id,
        "slug": tool_set.slug,
        "name": tool_set.name,
        "prefix": tool_set.prefix,
        "members": tool_set.members.iter().map(member).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_parsed() {
        let member = |instance: &str, tools: Option<&[&str]>| {
            let tools = tools.map(|tools| tools.iter().map(|tool| (*tool).to_owned()).collect());
            Ok(MemberArg { instance: instance.to_owned(), tools })
        };
        assert_eq!(parse_member("search"), member("search", None));
        assert_eq!(parse_member("search=find,fetch=2"), member("search", Some(&["find", "fetch=2"])));
        for text in ["", "=find", "search=", "search=a,,b"] {
            assert!(parse_member(text).is_err(), "{text}");
        }
    }
}
