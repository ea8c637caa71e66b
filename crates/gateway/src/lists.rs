//! What the gateway says itself: lists, its description, and its instructions.

use serde_json::value::RawValue;
use serde_json::{Value, json};
use waypost_core::tool_definition::DefinitionKind;
use waypost_mcp_wire::revision::{MODERN, negotiate};
use waypost_mcp_wire::rewrite::{quote, rewrite_definition};
use waypost_mcp_wire::strict::{Message, text_of};
use waypost_ops::visibility::View;

use crate::reply::server_info;

/// The time in milliseconds for which clients may keep a list.
const TTL_MS: u64 = 5_000;
const INTRODUCTION: &str = "Tools of several servers, which your organisation has selected for you. The name of a tool begins \
                            with the name of its server. A call of a tool that is no longer available fails with \"Unknown tool\".";

/// Returns the kind of definition that a list method lists, and the member of its result.
pub(crate) fn kind_of(method: &str) -> Option<(DefinitionKind, &'static str)> {
    match method {
        "tools/list" => Some((DefinitionKind::Tool, "tools")),
        "prompts/list" => Some((DefinitionKind::Prompt, "prompts")),
        "resources/list" => Some((DefinitionKind::Resource, "resources")),
        "resources/templates/list" => Some((DefinitionKind::ResourceTemplate, "resourceTemplates")),
        _ => None,
    }
}

/// Returns the members of the result of a list method. Each item is the definition as the server sent it, with its public
/// name, and with the description that an admin has set, if there is one.
pub(crate) fn list(view: View<'_>, kind: DefinitionKind, member: &str, is_modern: bool) -> Value {
    let identifier = match kind {
        DefinitionKind::Resource => "uri",
        DefinitionKind::ResourceTemplate => "uriTemplate",
        DefinitionKind::Tool | DefinitionKind::Prompt | DefinitionKind::Instructions => "name",
    };
    let items: Vec<Box<RawValue>> = view
        .items(kind)
        .into_iter()
        .filter_map(|item| {
            let public = quote(&item.public);
            let description = item.description.map(quote);
            let mut members = vec![(identifier, Some(public.as_str()))];
            members.extend(description.as_deref().map(|description| ("description", Some(description))));
            let text = rewrite_definition(&item.definition.definition, &members);
            RawValue::from_string(String::from_utf8(text).ok()?).ok()
        })
        .collect();
    let mut members = json!({});
    members[member] = serde_json::to_value(items).unwrap_or_default();
    if is_modern {
        members["ttlMs"] = TTL_MS.into();
        // What an agent sees depends on its grants.
        members["cacheScope"] = "private".into();
    }
    members
}

/// Returns the result of `initialize`. `can_subscribe` is whether changes of single resources can be announced.
pub(crate) fn initialize(view: View<'_>, request: &Message<'_>, can_subscribe: bool) -> Value {
    let requested = text_of(request.params.protocol_version).unwrap_or_default();
    json!({
        "protocolVersion": negotiate(&requested),
        "capabilities": capabilities(can_subscribe),
        "serverInfo": server_info(),
        "instructions": instructions(view),
    })
}

/// Returns the result of `server/discover`, like [`initialize`].
pub(crate) fn discover(view: View<'_>, can_subscribe: bool) -> Value {
    json!({
        "supportedVersions": [MODERN],
        "capabilities": capabilities(can_subscribe),
        "instructions": instructions(view),
        "ttlMs": TTL_MS,
        "cacheScope": "private",
    })
}

/// Completions are relayed to the server of the prompt or template.
fn capabilities(can_subscribe: bool) -> Value {
    let list = json!({ "listChanged": true });
    let mut resources = list.clone();
    if can_subscribe {
        resources["subscribe"] = true.into();
    }
    json!({ "tools": list, "prompts": list, "resources": resources, "completions": {}, "logging": {} })
}

/// Returns the gateway's own instructions, followed by those of the servers that an admin has approved.
fn instructions(view: View<'_>) -> String {
    let mut text = INTRODUCTION.to_owned();
    for item in view.items(DefinitionKind::Instructions) {
        if let Ok(instructions) = serde_json::from_str::<String>(&item.definition.definition) {
            text.push_str(&format!("\n\nServer `{}`:\n{instructions}", item.server.instance.slug));
        }
    }
    text
}
