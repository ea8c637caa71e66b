//! Reads the definitions that the server of an instance lists.

use std::time::Duration;

use futures::FutureExt;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;
use serde_json::value::RawValue;
use waypost_core::instance::Instance;
use waypost_core::tool_definition::{DefinitionKind, MAX_DEFINITIONS};
use waypost_core::{Code, Error, Result};
use waypost_mcp_wire::METHOD_NOT_FOUND;
use waypost_mcp_wire::revision::NEWEST_LEGACY;
use waypost_mcp_wire::strict::ResultMembers;

use super::Listed;
use crate::Ops;
use crate::instances::call::{Call, LIST_KEY, MAX_RESPONSE_BYTES, TIMEOUT, not_mcp, shorter, time_to_live};
use crate::instances::containers::{ContainerKey, find_for_lists};
use crate::instances::requests::within;
use crate::remote_tokens::read_as_any;

/// The capabilities of a server that declare lists.
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

/// The definitions that a server lists.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// The definitions, without duplicates.
    pub definitions: Vec<Listed>,
    /// The time for which the whole listing may be cached, if the server declares it (2026-07-28).
    pub ttl: Option<Duration>,
}

/// Returns everything that the server of an instance lists, without duplicates. Starts the server if it is idle. The
/// caller has been authorized. `container` is that of the agent on whose behalf the server is read; by default, that of
/// an agent that has supplied every required personal secret, if there are any.
///
/// If each agent has its own connection to the server, the listing is that of one of their accounts ([`read_as_any`]).
/// Admins approve this listing: definitions that only other accounts see reach nobody.
///
/// # Errors
/// `unavailable` if there is no link to the toolbox, the server cannot be started, or the listing takes longer than 30
/// seconds in total; `conflict` if the instance is not running, no agent is connected to it (`reason` is
/// `not_connected`), or none has all personal secrets (`secret_missing`); `tool_server_error` if the server reports an
/// error, its answer is not a list, or it lists too much.
pub async fn fetch(ops: &Ops, instance: &Instance, container: Option<&ContainerKey>) -> Result<Listing> {
    let container = match container {
        Some(container) => container.clone(),
        None => find_for_lists(ops, instance, LIST_KEY).await?,
    };
    let read = |agent| {
        let call = Call { ops, instance, container: container.clone(), agent };
        async move { fetch_all(&call).await }.boxed()
    };
    within(TIMEOUT, read_as_any(ops, instance, read)).await
}

async fn fetch_all(call: &Call<'_>) -> Result<Listing> {
    let description = describe(call).await?;
    let members = ResultMembers::parse(description.get()).ok_or_else(not_mcp)?;
    let capabilities: Capabilities =
        serde_json::from_str(members.capabilities.unwrap_or("{}")).map_err(|_| not_mcp())?;
    let instructions = members.instructions.filter(|text| text.starts_with('"'));
    let instructions = instructions.and_then(|text| Listed::read(DefinitionKind::Instructions, text));
    let mut listing = Listing { definitions: instructions.into_iter().collect(), ttl: time_to_live(&members) };
    let mut left = MAX_RESPONSE_BYTES;
    for kind in capabilities.kinds() {
        list(call, kind, &mut left, &mut listing).await?;
    }
    Ok(listing)
}

/// Returns the server's description of itself. For a legacy server, it is the result of `initialize`, which the toolbox
/// answers from its handshake.
async fn describe(call: &Call<'_>) -> Result<Box<RawValue>> {
    let client = json!({ "name": "waypost", "version": env!("CARGO_PKG_VERSION") });
    let params = json!({ "protocolVersion": NEWEST_LEGACY, "capabilities": {}, "clientInfo": client });
    match call.request("initialize", &params, MAX_RESPONSE_BYTES).await {
        // A server of 2026-07-28 does not support `initialize`.
        Err(error) if error.details.contains_key("server_code") => {
            call.request("server/discover", &json!({}), MAX_RESPONSE_BYTES).await
        }
        result => result,
    }
}

/// Adds the definitions of one kind to `listing`. `left` is the number of bytes that the server may still send.
async fn list(call: &Call<'_>, kind: DefinitionKind, left: &mut usize, listing: &mut Listing) -> Result<()> {
    let listed = &mut listing.definitions;
    let added = call.list(kind, left, |text| {
        let new = Listed::read(kind, text);
        // The first one counts, as for clients that read the list in order.
        listed.extend(new.filter(|new| !listed.iter().any(|other| other.kind == kind && other.name == new.name)));
        match listed.len() > MAX_DEFINITIONS {
            false => Ok(()),
            true => {
                let message = format!("The server lists more than {MAX_DEFINITIONS} tools, prompts and resources.");
                Err(Error::new(Code::ToolServerError, message).with("reason", "too_large"))
            }
        }
    });
    match added.await {
        // Templates are optional, even for a server with resources.
        Err(error) if error.details.get("server_code").is_some_and(|code| *code == METHOD_NOT_FOUND) => Ok(()),
        result => {
            listing.ttl = shorter(listing.ttl, result?);
            Ok(())
        }
    }
}
