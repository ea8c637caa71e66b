//! An MCP client for both eras. Checks every response for the properties that all responses share.

use std::collections::HashMap;
use std::fmt;

use axum::body::Body;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use waypost_core::server::{Support, Toolset};
use waypost_ops::servers::ServerSettings;

use crate::app::App;

pub const MODERN: &str = "2026-07-28";
pub const LEGACY: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];
/// Internal terms that must not occur in a response: databases, paths, panics.
const INTERNAL_TERMS: &[&str] =
    &["sqlx", "sqlite", "postgres", "select id", "insert into", "panicked", "/src/", ".rs:", "/root", "rmcp", "serde"];

/// A hand-written HTTP request.
pub struct RawRequest {
    app: App,
    method: Method,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl App {
    /// Creates a well-formed POST request to the loopback host.
    pub fn post(&self, path: &str, body: impl Into<Vec<u8>>) -> RawRequest {
        let headers = [
            ("host", "localhost:8080"),
            ("content-type", "application/json"),
            ("accept", "application/json, text/event-stream"),
        ];
        RawRequest {
            app: self.clone(),
            method: Method::POST,
            path: path.to_owned(),
            headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            body: body.into(),
        }
    }

    /// Creates a request with another method and no body.
    pub fn request(&self, method: Method, path: &str) -> RawRequest {
        RawRequest { method, ..self.post(path, "") }.without("content-type")
    }
}

impl RawRequest {
    /// Sets a header.
    pub fn header(self, name: &str, value: &str) -> Self {
        let mut raw = self.without(name);
        raw.headers.push((name.to_owned(), value.to_owned()));
        raw
    }

    /// Removes a header.
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self
    }

    /// Sets the three MCP headers of a 2026-07-28 request.
    pub fn modern(self, method: &str, name: Option<&str>) -> Self {
        let raw = self.header("mcp-protocol-version", MODERN).header("mcp-method", method);
        match name {
            Some(name) => raw.header("mcp-name", name),
            None => raw,
        }
    }

    pub async fn send(self) -> HttpResponse {
        let is_head = self.method == Method::HEAD;
        let mut request = Request::builder().method(self.method).uri(&self.path);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let response = self.app.send(request.body(Body::from(self.body)).unwrap()).await;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).expect("responses are UTF-8");
        let response = HttpResponse { status, headers, json: serde_json::from_str(&body).ok(), body, app: self.app };
        let is_browser = self.headers.iter().any(|(name, value)| name == "accept" && value.contains("text/html"));
        response.check(self.path.ends_with("/mcp") && !is_head && !is_browser);
        response
    }
}

/// An HTTP response whose body has been read.
#[derive(Clone)]
pub struct HttpResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
    pub json: Option<Value>,
    app: App,
}

impl HttpResponse {
    /// Checks the properties that all responses of the product share.
    fn check(&self, is_mcp: bool) {
        assert!(self.headers.contains_key("x-request-id"), "every response has a request ID");
        let lower = self.body.to_lowercase();
        for word in INTERNAL_TERMS {
            assert!(!lower.contains(word), "`{word}` in: {}", self.body);
        }
        let is_error = self.status.is_client_error() || self.status.is_server_error();
        if is_mcp && is_error && self.status != StatusCode::MISDIRECTED_REQUEST {
            let json = self.json.as_ref().unwrap_or_else(|| panic!("{} without JSON: {}", self.status, self.body));
            assert_eq!(json["jsonrpc"], "2.0", "{self}");
            assert!(json["error"]["code"].is_i64() && json["error"]["message"].is_string(), "{self}");
            assert_eq!(self.headers["content-type"], "application/json", "{self}");
        }
        assert_eq!(
            self.status.is_server_error(),
            self.error_code() == -32_603 && self.status != StatusCode::OK,
            "{self}"
        );
    }

    pub fn json(&self) -> &Value {
        self.json.as_ref().unwrap_or_else(|| panic!("not JSON: {self}"))
    }

    /// Returns the JSON-RPC error code, or 0 if there is no error.
    pub fn error_code(&self) -> i64 {
        self.json.as_ref().and_then(|json| json["error"]["code"].as_i64()).unwrap_or(0)
    }

    /// Returns the HTTP status and the JSON-RPC error code.
    pub fn status_and_code(&self) -> (u16, i64) {
        (self.status.as_u16(), self.error_code())
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn result(&self) -> &Value {
        let json = self.json();
        assert!(json["result"].is_object(), "{self}");
        &json["result"]
    }
}

impl fmt::Display for HttpResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = match &self.json {
            Some(json) => format!("{json:#}"),
            None => self.body.clone(),
        };
        write!(f, "{} {}", self.status.as_u16(), self.app.redact(&body))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Era {
    Modern,
    Legacy(&'static str),
}

/// An MCP client.
#[derive(Clone)]
pub struct Client {
    pub app: App,
    pub path: String,
    pub host: String,
    pub era: Era,
    pub session: Option<String>,
    /// The progress handle sent with every call.
    pub handle: Option<String>,
}

impl Client {
    pub fn modern(app: &App, path: String) -> Self {
        let host = "localhost:8080".to_owned();
        Self { app: app.clone(), path, host, era: Era::Modern, session: None, handle: None }
    }

    pub fn legacy(app: &App, path: String, revision: &'static str) -> Self {
        Self { era: Era::Legacy(revision), ..Self::modern(app, path) }
    }

    /// Returns the client with another host and path.
    pub fn at_host(mut self, host: &str, path: &str) -> Self {
        (self.host, self.path) = (host.to_owned(), path.to_owned());
        self
    }

    pub fn with_handle(mut self, handle: &str) -> Self {
        self.handle = Some(handle.to_owned());
        self
    }

    /// Performs the handshake and keeps the session.
    pub async fn connect(mut self) -> Self {
        let Era::Legacy(revision) = self.era else { panic!("2026-07-28 has no handshake") };
        let params = json!({ "protocolVersion": revision, "capabilities": {},
            "clientInfo": { "name": "tester", "version": "1.2" } });
        let response = self.send("initialize", params).await;
        assert_eq!(response.result()["protocolVersion"], revision);
        self.session = response.header("mcp-session-id").map(str::to_owned);
        assert!(self.session.is_some());
        self
    }

    /// Creates a request of this client, for a test to modify.
    pub fn request(&self, method: &str, mut params: Value) -> RawRequest {
        if self.era == Era::Modern {
            params["_meta"] = request_meta();
        }
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let mut raw = self.app.post(&self.path, body.to_string()).header("host", &self.host);
        match self.era {
            Era::Modern => {
                let name = if method == "resources/read" { params["uri"].as_str() } else { params["name"].as_str() };
                let needs_name = matches!(method, "tools/call" | "prompts/get" | "resources/read");
                raw = raw.modern(method, name.filter(|_| needs_name));
            }
            Era::Legacy(revision) if method != "initialize" => raw = raw.header("mcp-protocol-version", revision),
            Era::Legacy(_) => {}
        }
        match &self.session {
            Some(session) => raw.header("mcp-session-id", session),
            None => raw,
        }
    }

    /// Sends a request and checks that the result has the shape of the client's era.
    pub async fn send(&self, method: &str, params: Value) -> HttpResponse {
        let response = self.request(method, params).send().await;
        let is_modern = self.era == Era::Modern;
        assert!(!response.status.is_server_error(), "{response}");
        if let Some(result) = response.json.as_ref().and_then(|json| json.get("result")) {
            assert_eq!(response.json()["id"], 1);
            assert_eq!(result["resultType"] == "complete", is_modern, "resultType: {response}");
            let info = &result["_meta"]["io.modelcontextprotocol/serverInfo"];
            assert_eq!(info.is_object(), is_modern, "serverInfo: {response}");
            let is_cacheable = matches!(method, "server/discover" | "resources/read") || method.ends_with("/list");
            assert_eq!(result["ttlMs"].is_u64(), is_modern && is_cacheable, "ttlMs: {response}");
            assert_eq!(result["cacheScope"].is_string(), is_modern && is_cacheable, "cacheScope: {response}");
            if is_modern {
                assert!(!response.headers.contains_key("mcp-session-id"), "no sessions in this era");
            }
        }
        response
    }

    /// Calls a tool.
    pub async fn call(&self, tool: &str, mut arguments: Value) -> ToolResult {
        if let (Some(handle), None) = (&self.handle, arguments.get("progress_handle")) {
            arguments["progress_handle"] = json!(handle);
        }
        let sent = arguments.to_string();
        let response = self.send("tools/call", json!({ "name": tool, "arguments": arguments })).await;
        ToolResult::new(response, tool, sent).await
    }

    /// Calls a tool and keeps the returned handle, as an agent does.
    pub async fn play(&mut self, tool: &str, arguments: Value) -> ToolResult {
        let result = self.call(tool, arguments).await;
        if let Some(handle) = result.structured["progress_handle"].as_str() {
            self.handle = Some(handle.to_owned());
        }
        result
    }

    /// Returns the names of the listed tools.
    pub async fn list_tools(&self) -> Vec<String> {
        let response = self.send("tools/list", json!({})).await;
        let tools = response.result()["tools"].as_array().unwrap().clone();
        tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
    }
}

/// Returns the `_meta` member of a 2026-07-28 request.
pub fn request_meta() -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": { "name": "tester", "version": "1.2" },
    })
}

/// The result of a tool call.
#[derive(Clone)]
pub struct ToolResult {
    pub response: HttpResponse,
    pub structured: Value,
    pub text: String,
    tool: String,
    sent: String,
}

impl ToolResult {
    async fn new(response: HttpResponse, tool: &str, sent: String) -> Self {
        let Some(result) = response.json.as_ref().and_then(|json| json.get("result")) else {
            return Self { response, structured: Value::Null, text: String::new(), tool: tool.to_owned(), sent };
        };
        response.app.count_call();
        let content = result["content"].as_array().unwrap();
        assert_eq!(content.len(), 1, "one block of text: {response}");
        let text = content[0]["text"].as_str().unwrap().to_owned();
        assert!(serde_json::from_str::<Value>(&text).is_err(), "text is never JSON: {text}");
        let structured = result["structuredContent"].clone();
        assert!(!text.contains(&structured.to_string()), "the text contains no copy of the structured content");
        assert_eq!(result["isError"] == true, structured["error"].is_object(), "{response}");
        let validator = &output_schemas().await[tool];
        if let Err(error) = validator.validate(&structured) {
            panic!("{tool} breaks its outputSchema: {error}\n{response}");
        }
        Self { structured, text, tool: tool.to_owned(), sent, response: response.clone() }
    }

    /// Returns the structured content. Panics if the call failed.
    pub fn ok(&self) -> &Value {
        assert!(self.structured.is_object() && self.structured.get("error").is_none(), "{}", self.response);
        &self.structured
    }

    /// Returns the error code. Panics if the call succeeded.
    pub fn error_code(&self) -> &str {
        self.structured["error"]["code"].as_str().unwrap_or_else(|| panic!("not an error: {}", self.response))
    }

    /// Returns the position of the current step and the percentage, such as `2/3 33%`, or `completed 100%`.
    pub fn progress(&self) -> String {
        let (progress, step) = (&self.ok()["progress"], &self.structured["step"]);
        assert_eq!(step.is_null(), progress["status"] == "completed", "step is null if and only if completed");
        match step["position"].as_u64() {
            Some(position) => format!("{position}/{} {}%", progress["total"], progress["percent"]),
            None => format!("completed {}%", progress["percent"]),
        }
    }

    pub fn handle(&self) -> String {
        self.ok()["progress_handle"].as_str().unwrap_or_else(|| panic!("no handle: {}", self.response)).to_owned()
    }

    pub fn step_id(&self) -> String {
        self.ok()["step"]["id"].as_str().unwrap_or_else(|| panic!("no step: {}", self.response)).to_owned()
    }

    pub fn message(&self) -> &str {
        self.ok()["message"].as_str().unwrap()
    }
}

impl fmt::Display for ToolResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = format!("> {} {}\n{:#}\n---\n{}", self.tool, self.sent, self.structured, self.text);
        f.write_str(&self.response.app.redact(&all))
    }
}

/// Returns validators for the output schemas that the product lists.
async fn output_schemas() -> &'static HashMap<String, jsonschema::Validator> {
    static SCHEMAS: OnceCell<HashMap<String, jsonschema::Validator>> = OnceCell::const_new();
    SCHEMAS
        .get_or_init(|| async {
            let app = App::new().await;
            let settings = ServerSettings {
                toolset: Some(Toolset::All),
                support: Some(Support::Tickets),
                ..ServerSettings::default()
            };
            let server = app.org("schemas").await.server_with("schemas", settings).await;
            server.walkthrough("Any", &["Step"]).await;
            let response = server.modern().send("tools/list", json!({})).await;
            let tools = response.result()["tools"].as_array().unwrap().clone();
            app.finish().await;
            let compile = |tool: &Value| {
                let validator = jsonschema::validator_for(&tool["outputSchema"]).unwrap();
                (tool["name"].as_str().unwrap().to_owned(), validator)
            };
            tools.iter().map(compile).collect()
        })
        .await
}
