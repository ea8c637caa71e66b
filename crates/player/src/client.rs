//! The MCP connection of the player, with results cleaned for the terminal.

use std::{collections::HashSet, time::Duration};

use serde::Deserialize;
use serde_json::{Map, Value};
use url::Url;
use waypost_mcp_wire::INVALID_PARAMS;
use waypost_outbound::{Route, StreamLimits};
use waypost_upstream::{ConnectOptions, Error, Identity};

use crate::{
    clean::{clean_line, clean_value},
    error::{PlayError, truncate},
};

/// The timeouts of a call, and the maximum size of a response, so that a faulty server cannot exhaust the memory. The
/// largest result of Waypost, the status of a walkthrough of 500 steps with titles of 200 characters, is smaller.
const LIMITS: StreamLimits =
    StreamLimits { max_bytes: 4 * 1024 * 1024, idle: Duration::from_secs(60), timeout: Duration::from_secs(60) };
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_TOOL_PAGES: usize = 50;

/// A connection to one server.
pub(crate) struct Client {
    upstream: waypost_upstream::Client,
    url: String,
}

/// The error of a tool call.
#[derive(Debug)]
pub(crate) enum CallError {
    /// The tool returned an error result with a code.
    Tool { code: String, message: String },
    /// The tool does not exist.
    UnknownTool,
    /// Any other error.
    Other(PlayError),
}

/// The result of `tools/list`.
#[derive(Deserialize)]
struct ToolPage {
    tools: Vec<Tool>,
    #[serde(default, rename = "nextCursor")]
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
struct Tool {
    name: String,
}

/// The result of `tools/call`.
#[derive(Deserialize)]
struct ToolResult {
    #[serde(default)]
    content: Vec<ContentBlock>,
    #[serde(default, rename = "structuredContent")]
    structured_content: Option<Value>,
    #[serde(default, rename = "isError")]
    is_error: Option<bool>,
}

#[derive(Deserialize)]
struct ContentBlock {
    #[serde(default)]
    text: Option<String>,
}

impl Client {
    pub(crate) async fn connect(url: &Url) -> Result<Self, PlayError> {
        let display_url = display_url(url);
        let failed = |error: &Error| PlayError::from_upstream(&display_url, "the handshake", error);
        #[expect(clippy::disallowed_methods, reason = "connects to the server that the user chose")]
        let route = Route::unguarded(url).map_err(|error| failed(&error.into()))?;
        let identity = Identity { name: "waypost-walk", version: env!("CARGO_PKG_VERSION") };
        let options = ConnectOptions { url: url.clone(), route, identity, limits: LIMITS };
        let upstream = waypost_upstream::Client::connect(options).await.map_err(|error| failed(&error))?;
        Ok(Self { upstream, url: display_url })
    }

    /// Returns the URL for messages, without credentials, query and fragment.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Returns the names of the tools that the server lists.
    pub(crate) async fn tools(&self) -> Result<HashSet<String>, PlayError> {
        const METHOD: &str = "tools/list";
        let mut names = HashSet::new();
        let mut params = Map::new();
        for _ in 0..MAX_TOOL_PAGES {
            let result = self.upstream.request(METHOD, params.clone()).await;
            let result = result.map_err(|error| PlayError::from_upstream(&self.url, METHOD, &error))?;
            let page: ToolPage = serde_json::from_str(result.get()).map_err(|error| PlayError::Protocol {
                url: self.url.clone(),
                request: METHOD.to_owned(),
                message: truncate(&error.to_string()),
            })?;
            names.extend(page.tools.into_iter().map(|tool| tool.name));
            match page.next_cursor {
                Some(cursor) => params.insert("cursor".to_owned(), cursor.into()),
                None => break,
            };
        }
        Ok(names)
    }

    /// Calls a tool and returns its result with all strings cleaned.
    pub(crate) async fn call(&self, tool: &'static str, arguments: Map<String, Value>) -> Result<Value, CallError> {
        let params = [("name", tool.into()), ("arguments", arguments.into())];
        let params = params.map(|(name, value): (&str, Value)| (name.to_owned(), value)).into_iter().collect();
        let result = match self.upstream.request("tools/call", params).await {
            Ok(result) => result,
            Err(Error::Rpc(error)) if error.code == INVALID_PARAMS => return Err(CallError::UnknownTool),
            Err(error) => return Err(CallError::Other(PlayError::from_upstream(&self.url, tool, &error))),
        };
        match serde_json::from_str(result.get()) {
            Ok(result) => self.parse_result(tool, result),
            Err(error) => Err(CallError::Other(self.invalid(tool, truncate(&error.to_string())))),
        }
    }

    fn parse_result(&self, tool: &'static str, result: ToolResult) -> Result<Value, CallError> {
        let texts: Vec<&str> = result.content.iter().filter_map(|block| block.text.as_deref()).collect();
        let text = texts.join("\n");
        // A server with an older revision has no structured content but may send the same JSON as text.
        let value = result.structured_content.or_else(|| serde_json::from_str(&text).ok().filter(Value::is_object));
        let value = value.map(clean_value);
        if result.is_error == Some(true) {
            let error = value.as_ref().map(|value| &value["error"]);
            let member = |name: &str| error.and_then(|error| error[name].as_str()).map(clean_line);
            let message = member("message").unwrap_or_else(|| clean_line(&text));
            return Err(CallError::Tool { code: member("code").unwrap_or_else(|| "error".to_owned()), message });
        }
        value.ok_or_else(|| {
            let reason = match clean_line(&text) {
                text if text.is_empty() => "no structured content".to_owned(),
                text => format!("only text: {}", truncate(&text)),
            };
            CallError::Other(self.invalid(tool, reason))
        })
    }

    fn invalid(&self, tool: &'static str, reason: String) -> PlayError {
        PlayError::InvalidResponse { url: self.url.clone(), tool, reason }
    }

    /// Closes the connection. Waits at most [`CLOSE_TIMEOUT`] for the server.
    pub(crate) async fn close(self) {
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.upstream.close()).await;
    }
}

/// Returns the URL without parts that may be secret.
pub(crate) fn display_url(url: &Url) -> String {
    let mut url = url.clone();
    let _ = url.set_password(None);
    let _ = url.set_username("");
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}
