//! The MCP connection. Prefers the current protocol revision and falls back to the `initialize` handshake of older ones.

use std::{collections::HashSet, net::IpAddr, time::Duration};

use reqwest::{StatusCode, redirect};
use rmcp::{
    ClientLifecycleMode, ClientServiceExt as _, ServiceError,
    model::{
        CallToolRequestParams, CallToolResult, ClientCapabilities, ClientConfig, ErrorCode, Implementation, JsonObject,
        PaginatedRequestParams, ProtocolVersion,
    },
    service::{ClientInitializeError, RoleClient, RunningService},
    transport::{StreamableHttpClientTransport, streamable_http_client::StreamableHttpClientTransportConfig},
};
use serde_json::Value;
use url::{Host, Url};

use crate::{
    clean::{clean_line, clean_value},
    error::{PlayError, truncate},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_TOOL_PAGES: usize = 50;
/// The maximum size of a response or of an event of a stream, so that a faulty server cannot fill the memory. The largest
/// result of Waypost, the status of a walkthrough of 500 steps with titles of 200 characters, is smaller.
const MAX_RESPONSE_BYTES: usize = 4 * 1024 * 1024;
/// The maximum number of bytes of an HTTP error that is not JSON. Only the status is shown.
const MAX_ERROR_BYTES: usize = 4 * 1024;

/// A connection to one server.
pub(crate) struct Client {
    service: RunningService<RoleClient, ClientConfig>,
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

impl Client {
    pub(crate) async fn connect(url: &Url) -> Result<Self, PlayError> {
        let auto = ClientLifecycleMode::Auto {
            preferred_versions: vec![ProtocolVersion::V_2026_07_28],
            legacy_version: Some(ProtocolVersion::LATEST_WITH_INITIALIZE),
        };
        let display_url = display_url(url);
        let connection = async {
            match initialize(url, auto).await {
                // The server supports discovery, but only revisions that require the handshake.
                Err(ClientInitializeError::NoCompatibleProtocolVersion { .. }) => {
                    initialize(url, ClientLifecycleMode::Initialize).await
                }
                result => result,
            }
        };
        match tokio::time::timeout(CALL_TIMEOUT, connection).await {
            Ok(Ok(service)) => Ok(Self { service, url: display_url }),
            Ok(Err(error)) => Err(PlayError::from_connect(&display_url, &error)),
            Err(_) => Err(PlayError::Timeout { url: display_url }),
        }
    }

    /// Returns the URL for messages, without credentials and query.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Returns the names of the tools that the server lists.
    pub(crate) async fn tools(&self) -> Result<HashSet<String>, PlayError> {
        let mut names = HashSet::new();
        let mut cursor = None;
        for _ in 0..MAX_TOOL_PAGES {
            let params = PaginatedRequestParams::default().with_cursor(cursor);
            let page = self.with_timeout("tools/list", self.service.list_tools(Some(params))).await?;
            names.extend(page.tools.into_iter().map(|tool| tool.name.into_owned()));
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        Ok(names)
    }

    /// Calls a tool and returns its result with all strings cleaned.
    pub(crate) async fn call(&self, tool: &'static str, arguments: JsonObject) -> Result<Value, CallError> {
        let params = CallToolRequestParams::new(tool).with_arguments(arguments);
        let result = match tokio::time::timeout(CALL_TIMEOUT, self.service.call_tool(params)).await {
            Ok(Ok(result)) => result,
            Ok(Err(ServiceError::McpError(error))) if error.code == ErrorCode::INVALID_PARAMS => {
                return Err(CallError::UnknownTool);
            }
            Ok(Err(error)) => return Err(CallError::Other(PlayError::from_call(&self.url, tool, &error))),
            Err(_) => return Err(CallError::Other(PlayError::Timeout { url: self.url.clone() })),
        };
        self.parse_result(tool, result)
    }

    fn parse_result(&self, tool: &'static str, result: CallToolResult) -> Result<Value, CallError> {
        let texts: Vec<&str> =
            result.content.iter().filter_map(|block| block.as_text()).map(|block| block.text.as_str()).collect();
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
            CallError::Other(PlayError::InvalidResponse { url: self.url.clone(), tool, reason })
        })
    }

    async fn with_timeout<T>(
        &self,
        method: &str,
        call: impl Future<Output = Result<T, ServiceError>>,
    ) -> Result<T, PlayError> {
        match tokio::time::timeout(CALL_TIMEOUT, call).await {
            Ok(result) => result.map_err(|error| PlayError::from_call(&self.url, method, &error)),
            Err(_) => Err(PlayError::Timeout { url: self.url.clone() }),
        }
    }

    /// Closes the connection. Does not wait long for a server that does not respond.
    pub(crate) async fn close(self) {
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.service.cancel()).await;
    }
}

async fn initialize(
    url: &Url,
    mode: ClientLifecycleMode,
) -> Result<RunningService<RoleClient, ClientConfig>, ClientInitializeError> {
    let http = http_client(url).map_err(|error| ClientInitializeError::ConnectionClosed(error.to_string()))?;
    let config = transport_config(url);
    let transport = StreamableHttpClientTransport::with_client(http, config);
    let client_info = Implementation::new("waypost-walk", env!("CARGO_PKG_VERSION"));
    ClientConfig::new(ClientCapabilities::default(), client_info).serve_with_lifecycle(transport, mode).await
}

fn transport_config(url: &Url) -> StreamableHttpClientTransportConfig {
    let mut config = StreamableHttpClientTransportConfig::with_uri(url.as_str())
        .max_json_response_size(MAX_RESPONSE_BYTES)
        .max_error_response_size(MAX_ERROR_BYTES);
    config.max_sse_event_size = MAX_RESPONSE_BYTES;
    config
}

fn http_client(url: &Url) -> reqwest::Result<reqwest::Client> {
    // Only redirects to the same host that keep the method are followed. Any other would turn the call into a GET or
    // send the handle to another host.
    let policy = redirect::Policy::custom(|attempt| {
        let keeps_method = matches!(attempt.status(), StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
        let is_same_host = attempt.previous().first().is_some_and(|first| first.host() == attempt.url().host());
        if keeps_method && is_same_host && attempt.previous().len() <= 3 { attempt.follow() } else { attempt.stop() }
    });
    #[expect(clippy::disallowed_methods, reason = "connects to the server that the user chose")]
    let builder = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).redirect(policy);
    let builder = if is_loopback(url) { builder.no_proxy() } else { builder };
    builder.build()
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        None => false,
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
