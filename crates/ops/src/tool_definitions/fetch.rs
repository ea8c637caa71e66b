//! Reads what the server of an instance lists.

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use waypost_core::instance::Instance;
use waypost_core::tool_definition::{DefinitionKind, MAX_DEFINITIONS};
use waypost_core::{Code, Error, Result};
use waypost_mcp_wire::METHOD_NOT_FOUND;
use waypost_mcp_wire::definition::{Definition, list_method, read_list};
use waypost_mcp_wire::revision::NEWEST_LEGACY;

use super::Listed;
use crate::Ops;
use crate::instances::call::{Call, LIST_KEY, MAX_RESPONSE_BYTES, TIMEOUT};
use crate::instances::requests::within;

/// The maximum number of pages of a list.
const MAX_PAGES: usize = 50;

/// The result of `initialize` (legacy) or `server/discover` (2026-07-28).
#[derive(Deserialize)]
struct Description<'a> {
    #[serde(borrow)]
    instructions: Option<&'a RawValue>,
    #[serde(default)]
    capabilities: Capabilities,
}

#[derive(Default, Deserialize)]
struct Capabilities {
    tools: Option<serde::de::IgnoredAny>,
    prompts: Option<serde::de::IgnoredAny>,
    resources: Option<serde::de::IgnoredAny>,
}

/// Returns everything that the server of an instance lists, without duplicates. Starts the server if it is stopped until its
/// next call. The caller has been authorized.
///
/// # Errors
/// `unavailable` if there is no link to the toolbox or the server cannot be started; `conflict` if the instance is not
/// running; `tool_server_error` if the server reports an error, its answer is not a list, it lists too much, or does not
/// answer within 30 seconds in total.
pub async fn fetch(ops: &Ops, instance: &Instance) -> Result<Vec<Listed>> {
    let call = Call { ops, instance, key: LIST_KEY.to_owned() };
    within(TIMEOUT, fetch_all(&call)).await
}

async fn fetch_all(call: &Call<'_>) -> Result<Vec<Listed>> {
    let description = describe(call).await?;
    let Description { instructions, capabilities } =
        serde_json::from_str(description.get()).map_err(|_| no_list("describe itself"))?;
    let mut listed = Vec::new();
    if let Some(definition) = instructions.and_then(Definition::read_instructions) {
        listed.push(Listed { kind: DefinitionKind::Instructions, definition });
    }
    let kinds = [
        (DefinitionKind::Tool, capabilities.tools.is_some()),
        (DefinitionKind::Prompt, capabilities.prompts.is_some()),
        (DefinitionKind::Resource, capabilities.resources.is_some()),
        (DefinitionKind::ResourceTemplate, capabilities.resources.is_some()),
    ];
    let mut left = MAX_RESPONSE_BYTES;
    for (kind, _) in kinds.into_iter().filter(|(_, is_supported)| *is_supported) {
        list(call, kind, &mut left, &mut listed).await?;
    }
    Ok(listed)
}

/// Returns what the server says about itself. The toolbox answers `initialize` for a legacy server from its handshake.
async fn describe(call: &Call<'_>) -> Result<Box<RawValue>> {
    let client = json!({ "name": "waypost", "version": env!("CARGO_PKG_VERSION") });
    let params = json!({ "protocolVersion": NEWEST_LEGACY, "capabilities": {}, "clientInfo": client });
    match call.request("initialize", &params, MAX_RESPONSE_BYTES).await {
        // A server of 2026-07-28 does not know `initialize`.
        Err(error) if error.details.contains_key("server_code") => {
            call.request("server/discover", &json!({}), MAX_RESPONSE_BYTES).await
        }
        result => result,
    }
}

/// Adds everything of one kind. `left` is the number of bytes that the server may still send.
async fn list(call: &Call<'_>, kind: DefinitionKind, left: &mut usize, listed: &mut Vec<Listed>) -> Result<()> {
    let Some(method) = list_method(kind) else { return Ok(()) };
    let mut cursor: Option<String> = None;
    for _ in 0..MAX_PAGES {
        let params = cursor.map_or_else(|| json!({}), |cursor| json!({ "cursor": cursor }));
        let result = match call.request(method, &params, *left).await {
            // Templates are optional, also for a server with resources.
            Err(error) if error.details.get("server_code").is_some_and(|code| *code == METHOD_NOT_FOUND) => {
                return Ok(());
            }
            result => result?,
        };
        *left = left.saturating_sub(result.get().len());
        let page = read_list(kind, &result).ok_or_else(|| no_list(method))?;
        for definition in page.items.into_iter().filter_map(|item| Definition::read(kind, item)) {
            let is_known = |other: &Listed| other.kind == kind && other.definition.name == definition.name;
            // The first one counts, as for clients that read the list in order.
            if !listed.iter().any(is_known) {
                listed.push(Listed { kind, definition });
            }
        }
        if listed.len() > MAX_DEFINITIONS {
            return Err(too_much(&format!(
                "The server lists more than {MAX_DEFINITIONS} tools, prompts and resources."
            )));
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            return Ok(());
        }
    }
    Err(too_much(&format!("The server's answer to `{method}` has more than {MAX_PAGES} pages.")))
}

fn no_list(method: &str) -> Error {
    Error::new(Code::ToolServerError, format!("The server did not answer `{method}` with a list."))
        .with("reason", "no_mcp")
}

fn too_much(message: &str) -> Error {
    Error::new(Code::ToolServerError, message).with("reason", "too_large")
}
