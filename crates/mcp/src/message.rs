//! Reads just enough of a request body to route it, before rmcp parses it completely.

use serde::Deserialize;
use serde_json::value::RawValue;
use waypost_mcp_wire::{Body, Envelope, INVALID_PARAMS, JsonRpcError, RequestId, RoutingParams};

/// The parts of a message that the endpoint reads.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Message {
    /// The request's ID. `None` for a notification or a response.
    pub(crate) id: Option<RequestId>,
    /// The method. `None` for a response.
    pub(crate) method: Option<String>,
    /// Whether the message declares a protocol version in `_meta`, as 2026-07-28 requires.
    pub(crate) is_modern: bool,
    /// `params.protocolVersion` of `initialize`.
    pub(crate) requested_version: Option<String>,
    /// `params.clientInfo` of `initialize`, or `clientInfo` in `_meta`.
    pub(crate) client: Option<(String, String)>,
    /// `params.name` or `params.uri`: the tool, prompt or resource.
    pub(crate) name: Option<String>,
    /// `params.arguments.progress_handle`, which identifies the caller for rate limits.
    pub(crate) handle: Option<String>,
}

/// The content of a request body.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum RequestBody {
    /// One message.
    Single(Box<Message>),
    /// A batch (2025-03-26 only): each message with its own JSON text.
    Batch(Vec<(Message, String)>),
}

impl RequestBody {
    /// Returns the messages in order.
    pub(crate) fn messages(&self) -> impl Iterator<Item = &Message> {
        let (single, batch) = match self {
            Self::Single(message) => (Some(&**message), None),
            Self::Batch(batch) => (None, Some(batch)),
        };
        single.into_iter().chain(batch.into_iter().flatten().map(|(message, _)| message))
    }

    /// Returns the ID of a single request. `None` for a batch.
    pub(crate) fn id(&self) -> Option<&RequestId> {
        match self {
            Self::Single(message) => message.id.as_ref(),
            Self::Batch(_) => None,
        }
    }
}

/// Reads a request body.
///
/// # Errors
/// A [`JsonRpcError`] if the body is not JSON or not a JSON-RPC message.
pub(crate) fn peek(bytes: &[u8]) -> Result<RequestBody, JsonRpcError> {
    Ok(match Body::parse(bytes)? {
        Body::Single(envelope) => RequestBody::Single(Box::new(message(&envelope)?)),
        Body::Batch(batch) => {
            let messages = batch.iter().map(|envelope| Ok((message(envelope)?, envelope.text.to_owned())));
            RequestBody::Batch(messages.collect::<Result<_, _>>()?)
        }
    })
}

fn message(envelope: &Envelope<'_>) -> Result<Message, JsonRpcError> {
    let RoutingParams { is_modern, requested_version, client, name, arguments } = envelope.routing_params()?;
    let handle = arguments.map(progress_handle).transpose().map_err(|_| {
        JsonRpcError::new(INVALID_PARAMS, "Invalid params: `progress_handle` is repeated.", envelope.id.clone())
    })?;
    Ok(Message {
        id: envelope.id.clone(),
        method: envelope.method.as_deref().map(str::to_owned),
        is_modern,
        requested_version,
        client,
        name,
        // An empty handle counts as absent (docs/mcp.md, "Tools").
        handle: handle.flatten().filter(|handle| !handle.is_empty()),
    })
}

/// Returns the handle in the arguments of a tool. A handle of another type counts as missing.
fn progress_handle(arguments: &RawValue) -> serde_json::Result<Option<String>> {
    #[derive(Deserialize)]
    struct Arguments<'a> {
        #[serde(borrow)]
        progress_handle: Option<&'a RawValue>,
    }
    if !arguments.get().starts_with('{') {
        return Ok(None);
    }
    let arguments: Arguments<'_> = serde_json::from_str(arguments.get())?;
    Ok(arguments.progress_handle.and_then(|handle| serde_json::from_str(handle.get()).ok()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn call(arguments: &str) -> Result<RequestBody, JsonRpcError> {
        let params = format!(r#"{{"name":"x","arguments":{arguments}}}"#);
        peek(format!(r#"{{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{params}}}"#).as_bytes())
    }

    #[test]
    fn the_handle_is_read() {
        let cases = [
            (json!({ "progress_handle": "wph_1", "other": { "progress_handle": "x" } }), Some("wph_1")),
            (json!({ "progress_handle": "" }), None),
            (json!({ "progress_handle": 7 }), None),
            (json!({}), None),
            (json!([]), None),
        ];
        for (arguments, expected) in cases {
            let Ok(RequestBody::Single(message)) = call(&arguments.to_string()) else { panic!("a message") };
            assert_eq!(message.handle.as_deref(), expected, "{arguments}");
        }
        let error = call(r#"{"progress_handle":"wph_1","progress_handle":"wph_2"}"#).unwrap_err();
        assert_eq!((error.code, error.id), (INVALID_PARAMS, Some(RequestId::Text("a".to_owned()))));
    }
}
