//! The server that the agents use, and its recorded calls.

use reqwest::Client;
use serde_json::{Value, json};
use waypost_outbound::unguarded_client;

use crate::support::installation::{Installation, ServeProcess};
use crate::support::user::SimulatedUser;

/// The number of steps of the demo's first walkthrough.
pub const STEPS: usize = 8;

/// A running server with the demo walkthrough.
pub struct Server {
    pub installation: Installation,
    program: ServeProcess,
    key: String,
    path: &'static str,
    http: Client,
}

impl Server {
    /// Starts `waypost serve --demo`, which needs no sign-in.
    pub async fn demo() -> Self {
        let mut installation = Installation::empty();
        let program = installation.serve_demo().await;
        Self::new(installation, program, "demo", "/s/demo").await
    }

    /// Starts a server whose users sign in with emails that `serve` prints, and a simulated user. `sign_in` is the
    /// setting of the server; `None` means the default.
    pub async fn with_sign_in(sign_in: Option<&str>) -> (Self, SimulatedUser) {
        let mut installation = Installation::new().await;
        let setting = sign_in.map(|value| ["--sign-in", value]);
        let arguments =
            [&["--auth-type", "platform_oauth"][..], setting.as_ref().map_or(&[], |arguments| &arguments[..])].concat();
        installation.create_server("tour", &arguments).await;
        let program = installation.serve().await;
        let user = SimulatedUser::start("ada@example.com", installation.mailbox.clone()).await;
        (Self::new(installation, program, "acme", "/s/tour").await, user)
    }

    async fn new(installation: Installation, program: ServeProcess, organization: &str, path: &'static str) -> Self {
        let arguments = ["key", "create", "--org", organization, "--name", "test", "--json"];
        let key: Value = serde_json::from_str(&installation.run(&arguments).await).expect("the command prints JSON");
        let key = key["key"].as_str().expect("the response contains the key").to_owned();
        let http = unguarded_client().no_proxy().build().expect("the client is built");
        Self { installation, program, key, path, http }
    }

    /// Returns the MCP URL.
    pub fn url(&self) -> String {
        format!("{}/mcp", self.issuer())
    }

    /// Returns the personal URL for a tracking ID.
    pub fn personal_url(&self, tracking_id: &str) -> String {
        format!("{}/t/{tracking_id}/mcp", self.issuer())
    }

    /// Returns the issuer.
    pub fn issuer(&self) -> String {
        format!("{}{}", self.program.origin, self.path)
    }

    /// Returns the recorded tool calls, oldest first.
    pub async fn calls(&self) -> Vec<Value> {
        let url = format!("{}/api/v1/tool-calls?limit=100", self.program.origin);
        let response = self.http.get(url).bearer_auth(&self.key).send().await.expect("the API responds");
        let page: Value = response.error_for_status().expect("the key is valid").json().await.expect("valid JSON");
        let mut calls = page["items"].as_array().expect("the response is a page").clone();
        calls.reverse();
        calls
    }

    /// Returns the `instructions` for clients.
    pub async fn instructions(&self) -> String {
        let client = json!({ "name": "test", "version": "1" });
        let params = json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client });
        let result = self.send_request(&self.url(), "initialize", params).await;
        result["instructions"].as_str().expect("the response has instructions").to_owned()
    }

    /// Returns the names and descriptions of the tools at a URL.
    pub async fn tools(&self, url: &str) -> Vec<(String, String)> {
        let result = self.send_request(url, "tools/list", json!({})).await;
        let text = |value: &Value| value.as_str().expect("the value is a string").to_owned();
        let tools = result["tools"].as_array().expect("the response lists tools");
        tools.iter().map(|tool| (text(&tool["name"]), text(&tool["description"]))).collect()
    }

    async fn send_request(&self, url: &str, method: &str, params: Value) -> Value {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let accept = "application/json, text/event-stream";
        let request = self.http.post(url).header("accept", accept).json(&request);
        let response: Value = request.send().await.expect("the server responds").json().await.expect("valid JSON");
        response["result"].clone()
    }
}
