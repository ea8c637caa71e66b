//! Errors of the player. Messages say what happened and, where possible, what to do.

use waypost_outbound::Error as TransportError;
use waypost_upstream::Error as UpstreamError;

use crate::clean::clean_line;

/// The reason why a walkthrough could not be played. The message is one line.
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

    /// Converts the error of a failed request. `request` names it in the message.
    pub(crate) fn from_upstream(url: &str, request: &str, error: &UpstreamError) -> Self {
        let url = url.to_owned();
        match error {
            UpstreamError::Transport(TransportError::Timeout { .. }) | UpstreamError::Timeout => Self::Timeout { url },
            UpstreamError::Transport(TransportError::TooLarge { limit, .. }) => {
                Self::ResponseTooLarge { url, max_kib: limit / 1024 }
            }
            UpstreamError::MessageTooLarge { limit } => Self::ResponseTooLarge { url, max_kib: limit / 1024 },
            UpstreamError::Transport(TransportError::Unreachable { failure, cause, .. }) => {
                let reason = cause.as_ref().map_or_else(|| failure.to_string(), |cause| truncate(cause));
                Self::Unreachable { url, reason }
            }
            UpstreamError::Transport(error) => Self::Unreachable { url, reason: truncate(&error.to_string()) },
            UpstreamError::Status { status, retry_after, .. } => Self::from_status(url, status.as_u16(), *retry_after),
            UpstreamError::ContentType { content_type } => {
                let reason = content_type
                    .as_deref()
                    .map_or("no content type".to_owned(), |kind| format!("content type {}", clean_line(kind)));
                Self::NotMcp { url, reason }
            }
            UpstreamError::Rpc(_)
            | UpstreamError::InvalidResponse(_)
            | UpstreamError::InvalidRequest(_)
            | UpstreamError::UnsupportedRevision
            | UpstreamError::TooManyMessages { .. }
            | UpstreamError::OutOfMemory(_)
            | UpstreamError::SessionLost => {
                Self::Protocol { url, request: request.to_owned(), message: truncate(&error.to_string()) }
            }
        }
    }

    fn from_status(url: String, status: u16, retry_after: Option<u32>) -> Self {
        match status {
            401 | 403 => Self::SignInRequired { url, status },
            429 | 500..=599 => {
                let when = retry_after.map_or("later".to_owned(), |seconds| format!("in {seconds} s"));
                Self::Unavailable { url, status, when }
            }
            301 | 302 | 303 | 307 | 308 => {
                Self::NotMcp { url, reason: format!("HTTP {status}: redirect to another URL") }
            }
            421 => Self::NotMcp { url, reason: "HTTP 421: unknown host name".to_owned() },
            _ => Self::NotMcp { url, reason: format!("HTTP {status}") },
        }
    }
}

/// Returns the cleaned text, truncated to 300 characters.
pub(crate) fn truncate(text: &str) -> String {
    let line = clean_line(text);
    match line.char_indices().nth(300) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
