//! Errors of the player. Every message says what to do.

use rmcp::{
    ServiceError,
    service::ClientInitializeError,
    transport::streamable_http_client::{
        AuthRequiredError, HttpStatusError, InsufficientScopeError, StreamableHttpError,
    },
};

use crate::clean::clean_line;

/// The reason why a walkthrough could not be played. The message is one line and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    /// The connection failed.
    #[error("cannot reach {url}: {reason}; check the URL and that the server is running")]
    Unreachable {
        /// The URL of the server.
        url: String,
        /// The cause.
        reason: String,
    },
    /// The server did not respond in time.
    #[error("{url} did not respond in time; try again later")]
    Timeout {
        /// The URL of the server.
        url: String,
    },
    /// The URL is not an MCP endpoint.
    #[error("{url} is not an MCP endpoint ({reason}); check the URL, most end in /mcp")]
    NotMcp {
        /// The URL of the server.
        url: String,
        /// The response that was received instead.
        reason: String,
    },
    /// The server requires the user to sign in.
    #[error(
        "{url} requires signing in (HTTP {status}), which `waypost walk` does not support yet; use another MCP client"
    )]
    SignInRequired {
        /// The URL of the server.
        url: String,
        /// 401 or 403.
        status: u16,
    },
    /// The server is overloaded or broken.
    #[error("{url} is unavailable (HTTP {status}); try again {when}")]
    Unavailable {
        /// The URL of the server.
        url: String,
        /// 429 or 5xx.
        status: u16,
        /// When to try again, such as `in 5 s`.
        when: String,
    },
    /// The server returned a protocol error.
    #[error("{url} returned an error for {request}: {message}")]
    Protocol {
        /// The URL of the server.
        url: String,
        /// The request that failed.
        request: String,
        /// The server's message.
        message: String,
    },
    /// A tool returned an error.
    #[error("{tool} failed: {message} ({code})")]
    Tool {
        /// The tool that failed.
        tool: &'static str,
        /// The error code.
        code: String,
        /// The server's message.
        message: String,
    },
    /// The server offers no walkthroughs.
    #[error("{url} offers no walkthroughs")]
    NoWalkthroughs {
        /// The URL of the server.
        url: String,
    },
    /// The requested walkthrough does not exist.
    #[error("{url} offers no walkthrough '{walkthrough}'; available: {available}")]
    NotFound {
        /// The URL of the server.
        url: String,
        /// The requested ID or slug.
        walkthrough: String,
        /// The walkthroughs that the server offers.
        available: String,
    },
    /// The MCP server has no walkthrough tools.
    #[error("{url} is an MCP server without walkthroughs: the tool {tool} is missing")]
    MissingTool {
        /// The URL of the server.
        url: String,
        /// The missing tool.
        tool: &'static str,
    },
    /// The server has only the stepwise tools.
    #[error("{url} offers only the stepwise tools; `waypost walk` needs the toolset `guided` or `all`")]
    StepwiseOnly {
        /// The URL of the server.
        url: String,
    },
    /// The result of a tool cannot be parsed.
    #[error("{url} returned an unsupported result for {tool}: {reason}")]
    InvalidResponse {
        /// The URL of the server.
        url: String,
        /// The tool that was called.
        tool: &'static str,
        /// The problem.
        reason: String,
    },
    /// A response is larger than the player accepts.
    #[error("{url} returned a response of more than {max_kib} KiB; report this to its operator")]
    ResponseTooLarge {
        /// The URL of the server.
        url: String,
        /// The maximum size in KiB.
        max_kib: usize,
    },
    /// The server does not advance to the next step.
    #[error("{url} did not advance after step '{step}' was completed; report this to its operator")]
    NoProgress {
        /// The URL of the server.
        url: String,
        /// The step that repeats.
        step: String,
    },
    /// The server rejects a handle that it has just issued.
    #[error("{url} rejected a progress handle that it has just issued; report this to its operator")]
    HandleLost {
        /// The URL of the server.
        url: String,
    },
    /// The server requires an email, and the player runs without prompts.
    #[error("{url} requires an email; pass it with --email ADDRESS")]
    EmailRequired {
        /// The URL of the server.
        url: String,
    },
    /// The output cannot be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] std::io::Error),
}

impl PlayError {
    /// Whether an immediate retry may succeed.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Timeout { .. })
    }

    /// Converts the error of a failed connection attempt.
    pub(crate) fn from_connect(url: &str, error: &ClientInitializeError) -> Self {
        match error {
            ClientInitializeError::TransportError { error, .. } => from_transport(url, error.error.as_ref()),
            ClientInitializeError::LegacyFallbackFailed { discover, fallback } => {
                match Self::from_connect(url, fallback) {
                    // The fallback only reports that the connection is closed; the first attempt has the cause.
                    Self::Protocol { .. } => Self::from_connect(url, discover),
                    error => error,
                }
            }
            ClientInitializeError::JsonRpcError(error) => from_message(url, "the handshake", &error.message),
            other => from_message(url, "the handshake", &other.to_string()),
        }
    }

    /// Converts the error of a failed request.
    pub(crate) fn from_call(url: &str, request: &str, error: &ServiceError) -> Self {
        match error {
            ServiceError::TransportSend(error) => from_transport(url, error.error.as_ref()),
            ServiceError::Timeout { .. } => Self::Timeout { url: url.to_owned() },
            ServiceError::McpError(error) => from_message(url, request, &error.message),
            other => from_message(url, request, &other.to_string()),
        }
    }
}

fn from_transport(url: &str, error: &(dyn std::error::Error + 'static)) -> PlayError {
    let mut current = Some(error);
    while let Some(cause) = current {
        if let Some(error) = from_cause(url, cause) {
            return error;
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
            false => PlayError::Unreachable { url, reason: innermost(error) },
        });
    }
    match cause.downcast_ref::<StreamableHttpError<reqwest::Error>>()? {
        StreamableHttpError::HttpStatus(error) => from_cause(&url, error),
        StreamableHttpError::Client(error) => from_cause(&url, error),
        StreamableHttpError::UnexpectedServerResponse(text) => Some(from_message(&url, "the request", text)),
        StreamableHttpError::ResponseBodyTooLarge { max_size } => {
            Some(PlayError::ResponseTooLarge { url, max_kib: max_size / 1024 })
        }
        StreamableHttpError::UnexpectedContentType(kind) => {
            let reason = kind
                .as_deref()
                .map_or("no content type".to_owned(), |kind| format!("content type {}", clean_line(kind)));
            Some(PlayError::NotMcp { url, reason })
        }
        _ => None,
    }
}

/// Derives an error from a message: the transport reports most HTTP statuses only as text, such as
/// `HTTP 404 Not Found: …`.
fn from_message(url: &str, request: &str, message: &str) -> PlayError {
    let url = url.to_owned();
    let status = message.split("HTTP ").nth(1).and_then(|rest| rest.get(..3)).and_then(|code| code.parse::<u16>().ok());
    match status {
        Some(status @ (401 | 403)) => PlayError::SignInRequired { url, status },
        Some(status @ (301 | 302 | 303 | 307 | 308)) => {
            PlayError::NotMcp { url, reason: format!("HTTP {status}: redirect to another URL") }
        }
        Some(421) => PlayError::NotMcp { url, reason: "HTTP 421: unknown host name".to_owned() },
        Some(status @ 400..=499) => PlayError::NotMcp { url, reason: format!("HTTP {status}") },
        _ => PlayError::Protocol { url, request: request.to_owned(), message: truncate(message) },
    }
}

/// Returns the message of the innermost cause: `Connection refused`, not `error sending request`.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut current = error;
    while let Some(source) = current.source() {
        current = source;
    }
    truncate(&current.to_string())
}

/// Returns the cleaned text, truncated to 300 characters.
pub(crate) fn truncate(text: &str) -> String {
    let line = clean_line(text);
    match line.char_indices().nth(300) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
