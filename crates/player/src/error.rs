//! Why a walkthrough could not be played, each with what to do about it.

use rmcp::{
    ServiceError,
    service::ClientInitializeError,
    transport::streamable_http_client::{
        AuthRequiredError, HttpStatusError, InsufficientScopeError, StreamableHttpError,
    },
};

use crate::clean;

/// Why it could not be played. The message is one line and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    /// No connection.
    #[error("cannot reach {url}: {why}; is the server running, and is the address right?")]
    Unreachable {
        /// Address that was asked.
        url: String,
        /// Cause.
        why: String,
    },
    /// A connection, but no answer in time.
    #[error("{url} did not answer in time; try again later")]
    Timeout {
        /// Address that was asked.
        url: String,
    },
    /// Something else lives there.
    #[error("{url} is not an MCP address ({why}); check it, most end in /mcp")]
    NotMcp {
        /// Address that was asked.
        url: String,
        /// What came instead.
        why: String,
    },
    /// The server wants to know who asks.
    #[error("{url} needs a sign-in (HTTP {status}), which this player cannot do yet; use an MCP client that can")]
    SignInRequired {
        /// Address that was asked.
        url: String,
        /// 401 or 403.
        status: u16,
    },
    /// The server is too busy or broken.
    #[error("{url} cannot answer now (HTTP {status}); try again {when}")]
    Unavailable {
        /// Address that was asked.
        url: String,
        /// 429 or 5xx.
        status: u16,
        /// When to try again.
        when: String,
    },
    /// The protocol went wrong.
    #[error("{url} answered {what} with an error: {message}")]
    Protocol {
        /// Address that was asked.
        url: String,
        /// What was asked for.
        what: String,
        /// What the server said.
        message: String,
    },
    /// A tool answered with an error.
    #[error("{tool} failed: {message} ({code})")]
    Tool {
        /// Tool that failed.
        tool: &'static str,
        /// Stable code of the error.
        code: String,
        /// What the server said.
        message: String,
    },
    /// There is nothing to play.
    #[error("there are no walkthroughs at {url}")]
    NoWalkthroughs {
        /// Address that was asked.
        url: String,
    },
    /// There is no such walkthrough.
    #[error("there is no walkthrough '{wanted}' at {url}; there is: {offered}")]
    NotFound {
        /// Address that was asked.
        url: String,
        /// What was asked for.
        wanted: String,
        /// What there is.
        offered: String,
    },
    /// An MCP server, but not one of walkthroughs.
    #[error("{url} is an MCP server without walkthroughs: it lacks the tool {tool}")]
    MissingTool {
        /// Address that was asked.
        url: String,
        /// Tool that is missing.
        tool: &'static str,
    },
    /// Only the stepwise tools.
    #[error("{url} offers its walkthroughs stepwise only; this player needs the guided tools (toolset guided or all)")]
    StepwiseOnly {
        /// Address that was asked.
        url: String,
    },
    /// An answer that a program cannot read.
    #[error("{url} answered {tool} in a form that this player cannot read: {why}")]
    InvalidResponse {
        /// Address that was asked.
        url: String,
        /// Tool that was called.
        tool: &'static str,
        /// What is wrong.
        why: String,
    },
    /// The walkthrough does not go on.
    #[error("{url} does not go on after the step '{step}', although it was confirmed; report this to its operator")]
    NoProgress {
        /// Address that was asked.
        url: String,
        /// Step that repeats.
        step: String,
    },
    /// The server forgets every handle that it gives.
    #[error("{url} does not know a handle that it has just given out; report this to its operator")]
    HandleLost {
        /// Address that was asked.
        url: String,
    },
    /// The server wants an e-mail address and nobody is there to be asked.
    #[error("{url} asks for an e-mail address; give one with --email ADDRESS")]
    EmailRequired {
        /// Address that was asked.
        url: String,
    },
    /// The output is gone.
    #[error("cannot write: {0}")]
    Output(#[from] std::io::Error),
}

impl PlayError {
    /// Whether the same call may succeed when it is made again at once.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Timeout { .. })
    }

    /// From a connection that was not made.
    pub(crate) fn from_connect(url: &str, error: &ClientInitializeError) -> Self {
        match error {
            ClientInitializeError::TransportError { error, .. } => from_transport(url, error.error.as_ref()),
            ClientInitializeError::LegacyFallbackFailed { discover, fallback } => {
                match Self::from_connect(url, fallback) {
                    // The second attempt only finds the connection closed after the first one found out why.
                    Self::Protocol { .. } => Self::from_connect(url, discover),
                    found => found,
                }
            }
            ClientInitializeError::JsonRpcError(error) => from_message(url, "the greeting", &error.message),
            other => from_message(url, "the greeting", &other.to_string()),
        }
    }

    /// From a call that brought no result.
    pub(crate) fn from_call(url: &str, what: &str, error: &ServiceError) -> Self {
        match error {
            ServiceError::TransportSend(error) => from_transport(url, error.error.as_ref()),
            ServiceError::Timeout { .. } => Self::Timeout { url: url.to_owned() },
            ServiceError::McpError(error) => from_message(url, what, &error.message),
            other => from_message(url, what, &other.to_string()),
        }
    }
}

fn from_transport(url: &str, error: &(dyn std::error::Error + 'static)) -> PlayError {
    let mut current = Some(error);
    while let Some(cause) = current {
        if let Some(found) = from_cause(url, cause) {
            return found;
        }
        current = cause.source();
    }
    from_message(url, "the request", &error.to_string())
}

fn from_cause(url: &str, cause: &(dyn std::error::Error + 'static)) -> Option<PlayError> {
    let url = url.to_owned();
    if cause.is::<AuthRequiredError>() {
        return Some(PlayError::SignInRequired { url, status: 401 });
    }
    if cause.is::<InsufficientScopeError>() {
        return Some(PlayError::SignInRequired { url, status: 403 });
    }
    if let Some(error) = cause.downcast_ref::<HttpStatusError>() {
        let seconds = error.retry_after.as_deref().and_then(|after| after.parse::<u32>().ok());
        let when = seconds.map_or("later".to_owned(), |seconds| format!("in {seconds} s"));
        return Some(PlayError::Unavailable { url, status: error.status, when });
    }
    if let Some(error) = cause.downcast_ref::<reqwest::Error>() {
        return Some(match error.is_timeout() && !error.is_connect() {
            true => PlayError::Timeout { url },
            false => PlayError::Unreachable { url, why: innermost(error) },
        });
    }
    match cause.downcast_ref::<StreamableHttpError<reqwest::Error>>()? {
        StreamableHttpError::HttpStatus(error) => from_cause(&url, error),
        StreamableHttpError::Client(error) => from_cause(&url, error),
        StreamableHttpError::UnexpectedServerResponse(text) => Some(from_message(&url, "the request", text)),
        StreamableHttpError::UnexpectedContentType(kind) => {
            let why =
                kind.as_deref().map_or("no content type".to_owned(), |kind| format!("it sent {}", clean::line(kind)));
            Some(PlayError::NotMcp { url, why })
        }
        _ => None,
    }
}

/// Sorts out a text: the transport reports most statuses of HTTP only in words, as `HTTP 404 Not Found: …`.
fn from_message(url: &str, what: &str, message: &str) -> PlayError {
    let url = url.to_owned();
    let status = message.split("HTTP ").nth(1).and_then(|rest| rest.get(..3)).and_then(|code| code.parse::<u16>().ok());
    match status {
        Some(status @ (401 | 403)) => PlayError::SignInRequired { url, status },
        Some(status @ (301 | 302 | 303 | 307 | 308)) => {
            PlayError::NotMcp { url, why: format!("HTTP {status}: it points to another address") }
        }
        Some(421) => PlayError::NotMcp { url, why: "HTTP 421: the server does not know this host name".to_owned() },
        Some(status @ 400..=499) => PlayError::NotMcp { url, why: format!("HTTP {status}") },
        _ => PlayError::Protocol { url, what: what.to_owned(), message: short(message) },
    }
}

/// The deepest cause is the one that names the reason: `Connection refused`, not `error sending request`.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut current = error;
    while let Some(source) = current.source() {
        current = source;
    }
    short(&current.to_string())
}

pub(crate) fn short(text: &str) -> String {
    let line = clean::line(text);
    match line.char_indices().nth(300) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
