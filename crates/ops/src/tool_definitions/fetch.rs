//! Reads what the server of an instance lists.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;
use serde_json::value::RawValue;
use waypost_core::instance::Instance;
use waypost_core::tool_definition::{DefinitionKind, MAX_DEFINITIONS};
use waypost_core::{Code, Error, Result};
use waypost_mcp_wire::METHOD_NOT_FOUND;
use waypost_mcp_wire::definition::split_list;
use waypost_mcp_wire::revision::NEWEST_LEGACY;
use waypost_mcp_wire::strict::{ResultMembers, text_of};

use super::Listed;
use crate::Ops;
use crate::instances::call::{Call, LIST_KEY, MAX_RESPONSE_BYTES, TIMEOUT};
use crate::instances::requests::within;

/// The maximum number of pages of a list.
const MAX_PAGES: usize = 50;

/// The capabilities of a server that stand for lists.
#[derive(Default, Deserialize)]
struct Capabilities {
    tools: Option<IgnoredAny>,
    prompts: Option<IgnoredAny>,
    resources: Option<IgnoredAny>,
}

impl Capabilities {
    fn kinds(&self) -> impl Iterator<Item = DefinitionKind> + use<> {
        let kinds = [
            (DefinitionKind::Tool, self.tools.is_some()),
            (DefinitionKind::Prompt, self.prompts.is_some()),
            (DefinitionKind::Resource, self.resources.is_some()),
            (DefinitionKind::ResourceTemplate, self.resources.is_some()),
        ];
        kinds.into_iter().filter(|(_, is_supported)| *is_supported).map(|(kind, _)| kind)
    }
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
    let no_description = || no_list("initialize");
    let members = ResultMembers::parse(description.get()).ok_or_else(no_description)?;
    let capabilities: Capabilities =
        serde_json::from_str(members.capabilities.unwrap_or("{}")).map_err(|_| no_description())?;
    let instructions = members.instructions.filter(|text| text.starts_with('"'));
    let mut listed: Vec<Listed> =
        instructions.and_then(|text| Listed::read(DefinitionKind::Instructions, text)).into_iter().collect();
    let mut left = MAX_RESPONSE_BYTES;
    for kind in capabilities.kinds() {
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
        let members = ResultMembers::parse(result.get()).ok_or_else(|| no_list(method))?;
        let items = split_list(list_of(kind, &members).ok_or_else(|| no_list(method))?);
        for item in items.map_err(|_| no_list(method))?.into_iter().filter_map(|item| Listed::read(kind, item)) {
            // The first one counts, as for clients that read the list in order.
            if !listed.iter().any(|other| other.kind == kind && other.name == item.name) {
                listed.push(item);
            }
        }
        if listed.len() > MAX_DEFINITIONS {
            return Err(too_much(&format!(
                "The server lists more than {MAX_DEFINITIONS} tools, prompts and resources."
            )));
        }
        cursor = text_of(members.next_cursor).map(Cow::into_owned);
        if cursor.is_none() {
            return Ok(());
        }
    }
    Err(too_much(&format!("The server's answer to `{method}` has more than {MAX_PAGES} pages.")))
}

fn list_method(kind: DefinitionKind) -> Option<&'static str> {
    match kind {
        DefinitionKind::Tool => Some("tools/list"),
        DefinitionKind::Prompt => Some("prompts/list"),
        DefinitionKind::Resource => Some("resources/list"),
        DefinitionKind::ResourceTemplate => Some("resources/templates/list"),
        DefinitionKind::Instructions => None,
    }
}

fn list_of<'a>(kind: DefinitionKind, result: &ResultMembers<'a>) -> Option<&'a str> {
    match kind {
        DefinitionKind::Tool => result.tools,
        DefinitionKind::Prompt => result.prompts,
        DefinitionKind::Resource => result.resources,
        DefinitionKind::ResourceTemplate => result.resource_templates,
        DefinitionKind::Instructions => None,
    }
}

fn no_list(method: &str) -> Error {
    Error::new(Code::ToolServerError, format!("The server did not answer `{method}` with a list."))
        .with("reason", "no_mcp")
}

fn too_much(message: &str) -> Error {
    Error::new(Code::ToolServerError, message).with("reason", "too_large")
}
