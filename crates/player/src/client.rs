//! The MCP connection: the modern revision first, the handshake of older ones where the server knows no other.

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
    clean,
    error::{PlayError, short},
};

const CONNECT: Duration = Duration::from_secs(10);
const CALL: Duration = Duration::from_secs(60);
const GOODBYE: Duration = Duration::from_secs(2);
const TOOL_PAGES: usize = 50;

/// A connection to one server.
pub(crate) struct Client {
    service: RunningService<RoleClient, ClientConfig>,
    url: String,
}

/// A call that brought no success.
#[derive(Debug)]
pub(crate) enum CallError {
    /// The tool said no, with a code.
    Tool { code: String, message: String },
    /// There is no such tool.
    NoSuchTool,
    /// Everything else.
    Failed(PlayError),
}

impl Client {
    pub(crate) async fn connect(url: &Url) -> Result<Self, PlayError> {
        let auto = ClientLifecycleMode::Auto {
            preferred_versions: vec![ProtocolVersion::V_2026_07_28],
            legacy_version: Some(ProtocolVersion::LATEST_WITH_INITIALIZE),
        };
        let shown = shown(url);
        let connection = async {
            match greet(url, auto).await {
                // The server knows discovery, but offers only revisions that begin with a handshake.
                Err(ClientInitializeError::NoCompatibleProtocolVersion { .. }) => {
                    greet(url, ClientLifecycleMode::Initialize).await
                }
                greeted => greeted,
            }
        };
        match tokio::time::timeout(CALL, connection).await {
            Ok(Ok(service)) => Ok(Self { service, url: shown }),
            Ok(Err(error)) => Err(PlayError::from_connect(&shown, &error)),
            Err(_) => Err(PlayError::Timeout { url: shown }),
        }
    }

    /// The address for messages: without a password and without a query.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The names of the tools that the server lists.
    pub(crate) async fn tools(&self) -> Result<HashSet<String>, PlayError> {
        let mut names = HashSet::new();
        let mut cursor = None;
        for _ in 0..TOOL_PAGES {
            let params = PaginatedRequestParams::default().with_cursor(cursor);
            let page = self.bounded("tools/list", self.service.list_tools(Some(params))).await?;
            names.extend(page.tools.into_iter().map(|tool| tool.name.into_owned()));
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        Ok(names)
    }

    /// Calls a tool; what comes back is clean.
    pub(crate) async fn call(&self, tool: &'static str, arguments: JsonObject) -> Result<Value, CallError> {
        let params = CallToolRequestParams::new(tool).with_arguments(arguments);
        let result = match tokio::time::timeout(CALL, self.service.call_tool(params)).await {
            Ok(Ok(result)) => result,
            Ok(Err(ServiceError::McpError(error))) if error.code == ErrorCode::INVALID_PARAMS => {
                return Err(CallError::NoSuchTool);
            }
            Ok(Err(error)) => return Err(CallError::Failed(PlayError::from_call(&self.url, tool, &error))),
            Err(_) => return Err(CallError::Failed(PlayError::Timeout { url: self.url.clone() })),
        };
        self.read(tool, result)
    }

    fn read(&self, tool: &'static str, result: CallToolResult) -> Result<Value, CallError> {
        let texts: Vec<&str> =
            result.content.iter().filter_map(|block| block.as_text()).map(|block| block.text.as_str()).collect();
        let said = texts.join("\n");
        // A server of an older revision has no structured content, and may have put the same JSON into the text.
        let value = result.structured_content.or_else(|| serde_json::from_str(&said).ok().filter(Value::is_object));
        let value = value.map(clean::value);
        if result.is_error == Some(true) {
            let error = value.as_ref().map(|value| &value["error"]);
            let member = |name: &str| error.and_then(|error| error[name].as_str()).map(clean::line);
            let message = member("message").unwrap_or_else(|| clean::line(&said));
            return Err(CallError::Tool { code: member("code").unwrap_or_else(|| "error".to_owned()), message });
        }
        value.ok_or_else(|| {
            let why = match clean::line(&said) {
                said if said.is_empty() => "no structured content".to_owned(),
                said => format!("text only. It says: {}", short(&said)),
            };
            CallError::Failed(PlayError::InvalidResponse { url: self.url.clone(), tool, why })
        })
    }

    async fn bounded<T>(
        &self,
        what: &str,
        call: impl Future<Output = Result<T, ServiceError>>,
    ) -> Result<T, PlayError> {
        match tokio::time::timeout(CALL, call).await {
            Ok(result) => result.map_err(|error| PlayError::from_call(&self.url, what, &error)),
            Err(_) => Err(PlayError::Timeout { url: self.url.clone() }),
        }
    }

    /// Ends the connection; a server that does not let go is left behind.
    pub(crate) async fn close(self) {
        let _ = tokio::time::timeout(GOODBYE, self.service.cancel()).await;
    }
}

async fn greet(
    url: &Url,
    mode: ClientLifecycleMode,
) -> Result<RunningService<RoleClient, ClientConfig>, ClientInitializeError> {
    let http = http_client(url).map_err(|error| ClientInitializeError::ConnectionClosed(error.to_string()))?;
    let config = StreamableHttpClientTransportConfig::with_uri(url.as_str());
    let transport = StreamableHttpClientTransport::with_client(http, config);
    let me = Implementation::new("waypost-walk", env!("CARGO_PKG_VERSION"));
    ClientConfig::new(ClientCapabilities::default(), me).serve_with_lifecycle(transport, mode).await
}

fn http_client(url: &Url) -> reqwest::Result<reqwest::Client> {
    // A redirect that keeps the method is followed on the same host; any other would turn the call into a GET or
    // send the handle to somebody else.
    let policy = redirect::Policy::custom(|attempt| {
        let keeps = matches!(attempt.status(), StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
        let same = attempt.previous().first().is_some_and(|first| first.host() == attempt.url().host());
        if keeps && same && attempt.previous().len() <= 3 { attempt.follow() } else { attempt.stop() }
    });
    let builder = reqwest::Client::builder().connect_timeout(CONNECT).redirect(policy);
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

/// An address without what may be secret in it.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    let _ = url.set_password(None);
    let _ = url.set_username("");
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}
