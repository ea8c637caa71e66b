//! The email that some servers ask for: in a form if the client supports forms (2026-07-28, "Multi Round-Trip
//! Requests" and "Elicitation"), otherwise as an argument.

use rmcp::model::{InputRequiredResult, InputResponses, JsonObject};
use serde_json::json;
use waypost_core::email::{self, Email};
use waypost_core::server::Server;
use waypost_core::{Code, Error, Result};

use super::{schema, text};

/// The name of the input request, of its only field, and of the argument.
const EMAIL: &str = "email";

/// Reads the email from the argument or from the user's response to the form.
///
/// # Errors
/// `invalid_arguments` if the argument is not a valid email; `email_required` if the user declined the form or entered
/// no valid email.
pub(super) fn read(arguments: &JsonObject, responses: Option<&InputResponses>) -> Result<Option<Email>> {
    if let Some(email) = text(arguments, EMAIL) {
        return email::parse(email).map(Some);
    }
    let Some(response) = responses.and_then(|responses| responses.get(EMAIL)) else { return Ok(None) };
    let declined = || {
        let message = "The user did not provide an email address, which this server requires. Tell the user why the \
                       walkthrough cannot start. If they change their mind, call again with `email`.";
        Error::new(Code::EmailRequired, message).with("field", EMAIL)
    };
    let is_accepted = response["action"] == "accept";
    let email = response["content"][EMAIL].as_str().filter(|_| is_accepted).ok_or_else(declined)?;
    email::parse(email).map(Some).map_err(|_| declined())
}

/// Whether the call failed because the email is missing, and the user has not been asked for it.
pub(super) fn can_ask(error: &Error, responses: Option<&InputResponses>) -> bool {
    error.code == Code::EmailRequired && responses.is_none_or(|responses| !responses.contains_key(EMAIL))
}

/// Returns the form that asks for the email. It needs no state: the repeated call contains everything.
///
/// # Errors
/// `internal` if rmcp cannot parse the form.
pub(super) fn form(server: &Server) -> Result<InputRequiredResult> {
    let product = if server.product_name.is_empty() { &server.name } else { &server.product_name };
    let mut field = schema::email();
    field["title"] = "Email address".into();
    let form = json!({ "type": "object", "properties": { EMAIL: field }, "required": [EMAIL] });
    let message = format!("{product} asks for your email address before you start.");
    let request = json!({
        "method": "elicitation/create",
        "params": { "mode": "form", "message": message, "requestedSchema": form },
    });
    let result = json!({ "resultType": "input_required", "inputRequests": { EMAIL: request } });
    serde_json::from_value(result).map_err(Error::internal)
}
