//! What goes wrong between a command and the API, each in one line that says what to do.

use std::error::Error as StdError;
use std::io;

use reqwest::{Response, StatusCode, header};
use serde_json::Value;

use crate::cmd::output::clean;

/// The API refused, in its own words.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    code: String,
    message: String,
}

impl ApiError {
    /// Whether what was asked for is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self.code.as_str(), "not_found" | "walkthrough_not_found")
    }

    /// The same refusal in other words.
    pub fn reworded(mut self, words: impl FnOnce(&str) -> String) -> Self {
        self.message = words(&self.message);
        self
    }
}

/// An answer that is no success.
pub fn refused(origin: &str, response: &Response, body: Option<Value>) -> anyhow::Error {
    let status = response.status();
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(clean);
    if status.is_redirection() {
        let to = header(header::LOCATION).unwrap_or_default();
        return anyhow::anyhow!(
            "{origin} sends its visitors on to {to}: say that address with --url, without its path"
        );
    }
    // Whatever stands before Waypost has errors of its own, without a code.
    let text = |name: &str| body.as_ref().and_then(|body| body.get(name)).and_then(Value::as_str).map(clean);
    let (Some(code), Some(detail)) = (text("code"), text("detail")) else {
        let hint = match status {
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
                "is that the address of Waypost, and not too old?"
            }
            StatusCode::MISDIRECTED_REQUEST => "say the public URL of the installation, as its servers know it",
            _ if status.is_server_error() => "is Waypost running behind that address?",
            _ => "is that the address of Waypost?",
        };
        return anyhow::anyhow!("{origin} answered {status}: {hint}");
    };
    let message = match status {
        StatusCode::UNAUTHORIZED => {
            format!(
                "{origin} does not take this API key: it is mistyped, deleted or has ended; the console makes another one"
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

/// An answer that is not the API's.
pub fn strange(origin: &str) -> anyhow::Error {
    anyhow::anyhow!("what {origin} answers is not Waypost's API: is that the right address?")
}

/// No answer, or not a whole one.
pub fn lost(error: &reqwest::Error, origin: &str) -> anyhow::Error {
    let (mut why, mut tls) = (String::new(), false);
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(current) = cause {
        // The deepest cause is the one that names the reason.
        why = clean(current.to_string().split(" (os error").next().unwrap_or_default());
        cause = current.source();
        if let Some(outer) = current.downcast_ref::<io::Error>() {
            // The only invalid data before a connection stands is what the TLS library refuses.
            tls |= outer.kind() == io::ErrorKind::InvalidData;
            // `source` of an I/O error skips the error that it was made of.
            cause = outer.get_ref().map(|inner| inner as &(dyn StdError + 'static)).or(cause);
        }
    }
    match (error.is_connect(), error.is_timeout()) {
        (true, false) if tls => anyhow::anyhow!(
            "no encrypted connection to {origin} ({why}): for a certificate authority of your own set `outbound_ca_file`; where there is no TLS, say http://"
        ),
        (true, _) => {
            anyhow::anyhow!("cannot reach {origin} ({why}): is the URL right, and `waypost serve` running there?")
        }
        (false, true) => anyhow::anyhow!(
            "{origin} took too long to answer: whether it was done is not known, so look before you say it again"
        ),
        (false, false) => anyhow::anyhow!(
            "the connection to {origin} broke off ({why}): whether it was done is not known, so look before you say it again"
        ),
    }
}
