//! An agent that uses the gateway for a scenario, and answers what the server asks it for.

use reqwest::{RequestBuilder, Response};
use serde_json::{Map, Value, json};
use waypost_mcp_wire::revision::MODERN;
use waypost_outbound::unguarded_client;

/// The maximum number of times that a request is sent again with the input that the server wants.
const MAX_ROUNDS: usize = 5;

/// An agent with a session, and without one for requests of 2026-07-28.
pub struct Agent {
    http: reqwest::Client,
    url: String,
    token: String,
    session: String,
}

impl Agent {
    /// Begins a session at the gateway's `url`. The agent answers forms.
    pub async fn begin(url: &str, token: &str) -> Result<Self, String> {
        let http = unguarded_client().no_proxy().build().unwrap();
        let mut agent = Self { http, url: url.to_owned(), token: token.to_owned(), session: String::new() };
        let params = json!({ "protocolVersion": "2025-11-25", "capabilities": { "elicitation": {} },
            "clientInfo": { "name": "conformance", "version": "1" } });
        let response = agent.post(&message("initialize", &params)).send().await.map_err(text)?;
        let session = response.headers().get("mcp-session-id").and_then(|id| id.to_str().ok());
        agent.session = session.ok_or("the gateway begins no session")?.to_owned();
        Ok(agent)
    }

    fn post(&self, body: &Value) -> RequestBuilder {
        let request = self.http.post(&self.url).bearer_auth(&self.token).json(body);
        request.header("accept", "application/json, text/event-stream")
    }

    /// Sends a request in the session. Returns its result.
    ///
    /// # Errors
    /// The error of the response.
    pub async fn request(&self, method: &str, params: Value) -> Result<Value, String> {
        let request = self.post(&message(method, &params)).header("mcp-protocol-version", "2025-11-25");
        let response = request.header("mcp-session-id", &self.session).send().await.map_err(text)?;
        self.read(response).await
    }

    /// Calls a tool in the session.
    ///
    /// # Errors
    /// The error of the response.
    pub async fn call(&self, tool: &str, arguments: &Value) -> Result<Value, String> {
        self.request("tools/call", json!({ "name": tool, "arguments": arguments })).await
    }

    /// Returns the members `name` of the definitions in a list.
    ///
    /// # Errors
    /// The error of the response.
    pub async fn list(&self, method: &str, member: &str, name: &str) -> Result<Vec<String>, String> {
        let result = self.request(method, json!({})).await?;
        let items = result[member].as_array().ok_or("there is no list")?;
        Ok(items.iter().filter_map(|item| item[name].as_str()).map(str::to_owned).collect())
    }

    /// Calls a tool with 2026-07-28, and sends the input that the server wants.
    ///
    /// # Errors
    /// The error of the response.
    pub async fn call_modern(&self, tool: &str) -> Result<Value, String> {
        let meta = json!({ "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientCapabilities": { "elicitation": { "form": {} } } });
        let mut params = json!({ "name": tool, "arguments": {}, "_meta": meta });
        for _ in 0..MAX_ROUNDS {
            let request = self.post(&message("tools/call", &params)).header("mcp-protocol-version", MODERN);
            let request = request.header("mcp-method", "tools/call").header("mcp-name", tool);
            let result = self.read(request.send().await.map_err(text)?).await?;
            if result["resultType"] != "input_required" {
                return Ok(result);
            }
            let requests = result["inputRequests"].as_object().ok_or("the server asks for nothing")?;
            let answers = requests.iter().map(|(key, request)| (key.clone(), accept(&request["params"])));
            params["inputResponses"] = Value::Object(answers.collect());
            if let Some(state) = result.get("requestState") {
                params["requestState"] = state.clone();
            }
        }
        Err(format!("the server wants input more than {MAX_ROUNDS} times"))
    }

    /// Reads messages until the response, and answers the requests before it.
    async fn read(&self, mut response: Response) -> Result<Value, String> {
        let is_stream = response.headers()["content-type"].as_bytes().starts_with(b"text/event-stream");
        if !is_stream {
            return result_of(response.json().await.map_err(text)?);
        }
        let mut buffer = String::new();
        while let Some(chunk) = response.chunk().await.map_err(text)? {
            buffer.push_str(&String::from_utf8_lossy(&chunk));
            while let Some((event, rest)) = buffer.split_once("\n\n") {
                let data: String = event.lines().filter_map(|line| line.strip_prefix("data:")).collect();
                buffer = rest.to_owned();
                let Ok(message) = serde_json::from_str::<Value>(&data) else { continue };
                if message["method"].is_null() {
                    return result_of(message);
                }
                if message["method"] == "elicitation/create" {
                    self.respond(&message).await?;
                }
            }
        }
        Err("the stream ended before the response".to_owned())
    }

    async fn respond(&self, request: &Value) -> Result<(), String> {
        let response = json!({ "jsonrpc": "2.0", "id": request["id"], "result": accept(&request["params"]) });
        let sent = self.post(&response).header("mcp-protocol-version", "2025-11-25");
        let sent = sent.header("mcp-session-id", &self.session).send().await.map_err(text)?;
        if sent.status().is_success() { Ok(()) } else { Err(format!("the response was rejected: {}", sent.status())) }
    }
}

fn message(method: &str, params: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params })
}

fn result_of(mut message: Value) -> Result<Value, String> {
    if message["result"].is_object() { Ok(message["result"].take()) } else { Err(message.to_string()) }
}

/// Accepts a form, with the default of every field (SEP-1034).
fn accept(params: &Value) -> Value {
    let fields = params["requestedSchema"]["properties"].as_object().into_iter().flatten();
    let content: Map<String, Value> = fields
        .map(|(name, schema)| (name.clone(), schema.get("default").cloned().unwrap_or(Value::Bool(true))))
        .collect();
    json!({ "action": "accept", "content": content })
}

fn text(error: reqwest::Error) -> String {
    format!("{error:?}")
}
