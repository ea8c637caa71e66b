//! Errors of the REST API client. Every message is one line and says what to do.

use std::error::Error as StdError;
use std::io;

use reqwest::{Response, StatusCode, header};
use serde_json::Value;

use crate::cmd::output::clean;

/// An error returned by the API, with the API's message.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    code: String,
    message: String,
}

impl ApiError {
    /// Whether the requested object does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self.code.as_str(), "not_found" | "walkthrough_not_found")
    }

    /// Returns the error with another message.
    pub fn map_message(mut self, map: impl FnOnce(&str) -> String) -> Self {
        self.message = map(&self.message);
        self
    }
}

/// Converts a non-2xx response.
pub fn from_response(origin: &str, response: &Response, body: Option<Value>) -> anyhow::Error {
    let status = response.status();
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(clean);
    if status.is_redirection() {
        let target = header(header::LOCATION).unwrap_or_default();
        return anyhow::anyhow!("{origin} redirects to {target}: pass that URL with --url, without its path");
    }
    // Errors of a proxy in front of Waypost have no code.
    let text = |name: &str| body.as_ref().and_then(|body| body.get(name)).and_then(Value::as_str).map(clean);
    let (Some(code), Some(detail)) = (text("code"), text("detail")) else {
        let hint = match status {
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
                "check that the URL is the URL of Waypost and that Waypost is not too old"
            }
            StatusCode::MISDIRECTED_REQUEST => "use the public URL of the installation",
            _ if status.is_server_error() => "check that Waypost is running behind that URL",
            _ => "check that the URL is the URL of Waypost",
        };
        return anyhow::anyhow!("{origin} returned {status}: {hint}");
    };
    let message = match status {
        StatusCode::UNAUTHORIZED => {
            format!(
                "{origin} rejected the API key: it is mistyped, deleted or expired; create another one in the console"
            )
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => match header(header::RETRY_AFTER) {
            Some(seconds) => format!("{detail} Try again in {seconds} s."),
            None => detail,
        },
        _ => detail,
    };
    ApiError { code, message }.into()
}

/// Returns the error for a response that does not match the API.
pub fn not_an_api_response(origin: &str) -> anyhow::Error {
    anyhow::anyhow!("the response of {origin} is not from Waypost's API: check the URL")
}

/// Converts the event with which a stream reports its error.
pub fn from_event(event: &Value) -> anyhow::Error {
    let text = |name: &str| clean(event[name].as_str().unwrap_or_default());
    ApiError { code: text("code"), message: text("detail") }.into()
}

/// Converts an error in the middle of a stream.
pub fn connection_lost(error: &reqwest::Error, origin: &str) -> anyhow::Error {
    let reason = if error.is_timeout() { "it sent nothing for a minute" } else { "it was closed" };
    anyhow::anyhow!("the connection to {origin} was lost ({reason}): run the command again")
}

/// Converts an error that occurred before a complete response was received.
pub fn connection_error(error: &reqwest::Error, origin: &str) -> anyhow::Error {
    let (mut reason, mut is_tls) = (String::new(), false);
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(current) = cause {
        // The innermost cause contains the reason.
        reason = clean(current.to_string().split(" (os error").next().unwrap_or_default());
        cause = current.source();
        if let Some(outer) = current.downcast_ref::<io::Error>() {
            // Before a connection is established, only the TLS library reports invalid data.
            is_tls |= outer.kind() == io::ErrorKind::InvalidData;
            // `source` of an I/O error skips the wrapped error.
            cause = outer.get_ref().map(|inner| inner as &(dyn StdError + 'static)).or(cause);
        }
    }
    match (error.is_connect(), error.is_timeout()) {
        (true, false) if is_tls => anyhow::anyhow!(
            "no secure connection to {origin} ({reason}): for a private certificate authority, set `outbound_ca_file`; without TLS, use http://"
        ),
        (true, _) => {
            anyhow::anyhow!("cannot reach {origin} ({reason}): check the URL and that `waypost serve` is running there")
        }
        (false, true) => anyhow::anyhow!(
            "{origin} did not respond in time: the operation may have been completed, so check before you retry"
        ),
        (false, false) => anyhow::anyhow!(
            "the connection to {origin} was lost ({reason}): the operation may have been completed, so check before you retry"
        ),
    }
}
