//! The response of a server to a call, as its agent gets it.

use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use waypost_core::Result;
use waypost_mcp_wire::memory::keep;
use waypost_mcp_wire::rewrite::{Caching, Rewrite};
use waypost_mcp_wire::strict::{ErrorMembers, Message, OwnedMessage, text_of};
use waypost_mcp_wire::{INVALID_PARAMS, MISSING_CAPABILITY, URL_ELICITATION_REQUIRED};

use crate::elicitation::ElicitationPolicy;
use crate::message_text::MessageText;
use crate::reply::server_error;

/// The error code for an unknown resource in revisions before 2026-07-28. It must not be used in 2026-07-28.
const RESOURCE_NOT_FOUND: i64 = -32_002;

/// The `data` of an earlier revision's error for an unknown resource.
#[derive(Deserialize)]
struct UnknownResource {
    uri: String,
}

/// Converts a response of a server to the era of its agent. `raw_id` is the ID of the request as the agent wrote it.
///
/// # Errors
/// `tool_server_error` if the response is an incomplete result, an error with pages that `policy` rejects, or an error
/// with pages for an agent that uses revision 2026-07-28, which does not have this error.
pub(crate) fn convert(
    received: &OwnedMessage,
    (raw_id, is_modern): (&str, bool),
    policy: ElicitationPolicy<'_>,
) -> Result<MessageText> {
    let response = received.message();
    let result_type = text_of(response.result.as_ref().and_then(|result| result.result_type));
    if result_type.as_deref().is_some_and(|kind| kind != "complete") {
        return Err(server_error("The server answers in a way that this gateway does not relay.", "result_type"));
    }
    let is_of_other_era = response.result.is_some() && is_modern != result_type.is_some();
    // A remote server knows the call by a different ID, and an agent that has sent a parked call again has used a new
    // ID.
    let has_other_id = response.raw_id != Some(raw_id);
    let shown = policy.apply_to_error(response.error.as_ref())?;
    match &response.error {
        Some(error) if is_modern && error.code == URL_ELICITATION_REQUIRED => {
            let text = "The server asks the user to open pages first, which needs a session.";
            return Err(server_error(text, "input_required"));
        }
        Some(error) if is_modern && error.code == RESOURCE_NOT_FOUND => {
            return Ok(keep(unknown_resource(error, raw_id), received.text().clone()).into());
        }
        _ => {}
    }
    if !is_of_other_era && !has_other_id && shown.is_empty() {
        return Ok(received.text().clone().into());
    }
    let mut rewrite = Rewrite::new(response);
    if has_other_id {
        rewrite.set_id(raw_id);
    }
    for (elicitation, text) in &shown {
        rewrite.replace(elicitation, text);
    }
    if is_of_other_era && is_modern {
        rewrite.result_to_modern(Some(Caching { ttl_ms: 0, is_public: false }));
    } else if is_of_other_era {
        rewrite.result_to_legacy();
    }
    let pieces = rewrite.finish_shared(received.text()).into_iter();
    Ok(MessageText::new(pieces.map(|piece| keep(piece, received.text().clone())).collect()))
}

/// Returns the error of 2026-07-28 for an unknown resource.
fn unknown_resource(error: &ErrorMembers<'_>, raw_id: &str) -> Bytes {
    let mut object = json!({ "code": INVALID_PARAMS, "message": error.message });
    let data = error.data.and_then(|data| serde_json::from_str::<UnknownResource>(data).ok());
    if let Some(UnknownResource { uri }) = data {
        object["data"] = json!({ "uri": uri });
    }
    format!(r#"{{"jsonrpc":"2.0","id":{raw_id},"error":{object}}}"#).into()
}

/// Returns the HTTP status for a response of a server (2026-07-28, "Missing required client capability").
pub(crate) fn status(response: &Message<'_>, is_modern: bool) -> StatusCode {
    match &response.error {
        Some(error) if is_modern && error.code == MISSING_CAPABILITY => StatusCode::BAD_REQUEST,
        _ => StatusCode::OK,
    }
}
