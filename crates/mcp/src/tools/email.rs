//! The address that some servers ask for: by a form, where the client can show one (2026-07-28, "Multi Round-Trip
//! Requests" and "Elicitation"), else by an argument.

use rmcp::model::{InputRequiredResult, InputResponses, JsonObject};
use serde_json::json;
use waypost_core::email::{self, Email};
use waypost_core::server::Server;
use waypost_core::{Code, Error, Result};

use super::{schema, text};

/// The name of the question and of its only field, and of the argument.
const EMAIL: &str = "email";

/// The address in a call, in the argument or in the answer to the question.
///
/// # Errors
/// `invalid_arguments` when the argument is no address; `email_required` when the user has not answered with one.
pub(super) fn given(arguments: &JsonObject, answers: Option<&InputResponses>) -> Result<Option<Email>> {
    if let Some(address) = text(arguments, EMAIL) {
        return email::parse(address).map(Some);
    }
    let Some(answer) = answers.and_then(|answers| answers.get(EMAIL)) else { return Ok(None) };
    let declined = || {
        let message = "The user has given no e-mail address, and this server asks for one. Tell the user why nothing \
                       begins; when they change their mind, call again with the address as `email`.";
        Error::new(Code::EmailRequired, message).with("field", EMAIL)
    };
    let accepted = answer["action"] == "accept";
    let address = answer["content"][EMAIL].as_str().filter(|_| accepted).ok_or_else(declined)?;
    email::parse(address).map(Some).map_err(|_| declined())
}

/// Whether the call was refused for want of an address, and its user has not been asked.
pub(super) fn is_unasked(error: &Error, answers: Option<&InputResponses>) -> bool {
    error.code == Code::EmailRequired && answers.is_none_or(|answers| !answers.contains_key(EMAIL))
}

/// The question. It carries no state: with the answer the call says all that is to be known.
///
/// # Errors
/// A fault of our own, when rmcp does not know its own form.
pub(super) fn question(server: &Server) -> Result<InputRequiredResult> {
    let product = if server.product_name.is_empty() { &server.name } else { &server.product_name };
    let mut field = schema::email();
    field["title"] = "E-mail address".into();
    let form = json!({ "type": "object", "properties": { EMAIL: field }, "required": [EMAIL] });
    let message = format!("{product} asks for your e-mail address before you begin.");
    let request = json!({
        "method": "elicitation/create",
        "params": { "mode": "form", "message": message, "requestedSchema": form },
    });
    let result = json!({ "resultType": "input_required", "inputRequests": { EMAIL: request } });
    serde_json::from_value(result).map_err(Error::internal)
}
