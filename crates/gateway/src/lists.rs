//! Results that the gateway creates itself: lists, its description, and its instructions.

use serde_json::{Map, Value, json};
use waypost_core::tool_definition::DefinitionKind;
use waypost_mcp_wire::revision::{MODERN, negotiate};
use waypost_mcp_wire::rewrite::{quote, rewrite_definition};
use waypost_mcp_wire::strict::{Message, text_of};
use waypost_ops::visibility::{Item, View};

use crate::reply::{modern_members, server_info};

/// The time in milliseconds for which clients may cache a list.
const TTL_MS: u64 = 5_000;
const INTRODUCTION: &str = "Tools of several servers, which your organisation has selected for you. The name of a tool begins \
                            with the name of its server. A call of a tool that is no longer available fails with \"Unknown tool\".";

/// Returns the kind of definition that a list method lists, and the member of its result that contains the list; `None`
/// for other methods.
pub(crate) fn kind_of(method: &str) -> Option<(DefinitionKind, &'static str)> {
    match method {
        "tools/list" => Some((DefinitionKind::Tool, "tools")),
        "prompts/list" => Some((DefinitionKind::Prompt, "prompts")),
        "resources/list" => Some((DefinitionKind::Resource, "resources")),
        "resources/templates/list" => Some((DefinitionKind::ResourceTemplate, "resourceTemplates")),
        _ => None,
    }
}

/// Returns the result of a list method as JSON text. Each item is the text of the definition that the server sent, byte for byte,
/// except for its public name, and the description that an admin has set, if there is one.
pub(crate) fn list(view: View<'_>, kind: DefinitionKind, member: &str, is_modern: bool) -> String {
    let identifier = match kind {
        DefinitionKind::Resource => "uri",
        DefinitionKind::ResourceTemplate => "uriTemplate",
        DefinitionKind::Tool | DefinitionKind::Prompt | DefinitionKind::Instructions => "name",
    };
    let mut text = format!(r#"{{"{member}":["#);
    for (index, item) in view.items(kind).iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        append_item(&mut text, identifier, item);
    }
    text.push(']');
    let mut members = Map::new();
    if is_modern {
        members.insert("ttlMs".to_owned(), TTL_MS.into());
        // What an agent sees depends on its grants.
        members.insert("cacheScope".to_owned(), "private".into());
        members.extend(modern_members());
    }
    for (name, value) in &members {
        text.push_str(&format!(",{}:{value}", quote(name)));
    }
    text.push('}');
    text
}

/// Appends the definition of an item, whose member `identifier` becomes the public name. A stored definition is valid JSON:
/// only such a definition can be approved.
fn append_item(text: &mut String, identifier: &str, item: &Item<'_>) {
    let definition = &item.definition.definition;
    if item.description.is_none() && item.public == item.definition.name {
        text.push_str(definition);
        return;
    }
    let public = quote(&item.public);
    let description = item.description.map(quote);
    let mut members = vec![(identifier, Some(public.as_str()))];
    members.extend(description.as_deref().map(|description| ("description", Some(description))));
    rewrite_definition(definition, &members, text);
}

/// Returns the result of `initialize`. `can_subscribe` states whether changes to single resources can be announced.
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

/// Returns the capabilities of the gateway. They always include completions, which are relayed to the server of the
/// prompt or template.
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
