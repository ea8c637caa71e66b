//! `waypost gateway stdio`: the client is notified of changes, and does not notice a restart of the gateway or the end
//! of its session.

use std::process::Stdio;

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use waypost_core::caller::Ctx;
use waypost_ops::agent_tokens::{self, CreateAgentToken};
use waypost_ops::organizations::{self, OrganizationPatch};
use waypost_ops::{agents, remote_checks};
use waypost_outbound::unguarded_client;

use crate::gateway;
use crate::installation::{Installation, TIMEOUT};
use crate::program::{ServeProcess, configure};
use crate::remote_server::RemoteServer;

struct StdioClient {
    program: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl StdioClient {
    fn start(origin: &str, token: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_waypost"));
        command.args(["gateway", "stdio", "--url", origin]).env("WAYPOST_AGENT_TOKEN", token);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut program = command.spawn().unwrap();
        let (input, output) = (program.stdin.take().unwrap(), program.stdout.take().unwrap());
        Self { program, input, output: BufReader::new(output).lines() }
    }

    async fn write(&mut self, message: &str) {
        self.input.write_all(format!("{message}\n").as_bytes()).await.unwrap();
    }

    async fn read(&mut self) -> Value {
        let line = timeout(TIMEOUT, self.output.next_line()).await.expect("a message arrives").unwrap().unwrap();
        serde_json::from_str(&line).unwrap()
    }

    /// Returns the next message that is not a notification.
    async fn read_response(&mut self) -> Value {
        loop {
            let message = self.read().await;
            if message["method"].is_null() {
                return message;
            }
        }
    }

    async fn request(&mut self, id: u64, method: &str, params: Value) -> Value {
        self.write(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string()).await;
        let response = self.read_response().await;
        assert_eq!(response["id"], id, "{response}");
        response
    }

    /// Closes the input, and checks that the program exits successfully without a further response.
    async fn finish(mut self) {
        drop(self.input);
        while let Some(line) = timeout(TIMEOUT, self.output.next_line()).await.unwrap().unwrap() {
            let message: Value = serde_json::from_str(&line).unwrap();
            assert!(message["method"].is_string(), "{message}");
        }
        assert!(timeout(TIMEOUT, self.program.wait()).await.unwrap().unwrap().success());
    }
}

async fn serve(installation: &Installation, address: &str) -> ServeProcess {
    let mut command = Command::new(env!("CARGO_BIN_EXE_waypost"));
    configure(&mut command, installation, &["serve", "--listen", address]);
    ServeProcess::run(command, &installation.data_dir()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_does_not_notice_a_restart_of_the_gateway() {
    let installation = Installation::sqlite().await;
    let (cx, ops, org) = (Ctx::operator(), installation.ops().await, &installation.organization);
    let agent = agents::create(&cx, &ops, org, "ci").await.unwrap().agent;
    let new = CreateAgentToken { name: "main", expires_at: None };
    let (_, token) = agent_tokens::create(&cx, &ops, org, &agent.id, new).await.unwrap();
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let origin = format!("http://{address}");
    let mut client = StdioClient::start(&origin, token.expose());
    // The gateway is not running yet.
    let params =
        json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } });
    let request = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params });
    client.write(&request.to_string()).await;
    let program = serve(&installation, &address).await;
    let initialized = client.read().await;
    assert_eq!((&initialized["id"], &initialized["result"]["protocolVersion"]), (&json!(1), &json!("2025-11-25")));
    client.write(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
    assert_eq!(client.request(2, "tools/list", json!({})).await["result"]["tools"], json!([]));
    program.kill().await;
    client.write(r#"{"jsonrpc":"2.0","id":3,"method":"tools/list","params":{}}"#).await;
    // A request that the client cancels is not answered.
    client.write(r#"{"jsonrpc":"2.0","id":4,"method":"ping"}"#).await;
    client.write(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":4}}"#).await;
    let program = serve(&installation, &address).await;
    // The lists may have changed meanwhile.
    let (mut listed, mut methods) = (Value::Null, Vec::new());
    while listed.is_null() || methods.len() < 3 {
        let message = client.read().await;
        match message["method"].as_str() {
            Some(method) => methods.push(method.to_owned()),
            None => listed = message,
        }
    }
    assert_eq!((&listed["id"], &listed["result"]["tools"]), (&json!(3), &json!([])));
    assert_eq!(methods, ["tools", "prompts", "resources"].map(|list| format!("notifications/{list}/list_changed")));
    let meta = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {} });
    let discovered = client.request(5, "server/discover", json!({ "_meta": meta })).await;
    assert_eq!(discovered["result"]["supportedVersions"], json!(["2026-07-28"]), "headers are added");
    let unknown = client.request(6, "tools/call", json!({ "name": "a\nb", "_meta": meta })).await;
    assert_eq!(unknown["error"]["code"], -32602);
    for text in
        ["{", r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#]
    {
        client.write(text).await;
        assert!(client.read_response().await["error"]["code"].as_i64().unwrap() <= -32600, "{text}");
    }
    client.finish().await;
    let mut client = StdioClient::start(&origin, "wpa_invalid");
    let rejected = client.request(1, "tools/list", json!({})).await;
    assert!(rejected["error"]["message"].as_str().unwrap().contains("rejected the token"), "{rejected}");
    client.finish().await;
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_receives_an_error_while_the_gateway_is_switched_off() {
    let installation = Installation::sqlite().await;
    let (cx, ops) = (Ctx::operator(), installation.ops().await);
    let token = gateway::create_agent(&cx, &ops, &installation, ("ci", &[])).await;
    let program = gateway::serve(&installation).await;
    let mut client = StdioClient::start(program.origin(), &token);
    let mut id = 0;
    for is_on in [false, true] {
        let patch = OrganizationPatch { gateway_enabled: Some(is_on), ..OrganizationPatch::default() };
        organizations::update(&cx, &ops, &installation.organization, &patch).await.unwrap();
        // The program notices the change of another process within a second.
        let answer = async {
            loop {
                id += 1;
                let answer = client.request(id, "tools/list", json!({})).await;
                if answer["result"].is_object() == is_on {
                    break answer;
                }
            }
        };
        let answer = timeout(TIMEOUT, answer).await.expect("the switch takes effect");
        if !is_on {
            let error = &answer["error"];
            assert_eq!(error["data"]["reason"], "gateway_off", "{answer}");
            assert!(error["message"].as_str().unwrap().contains("switched off for this organisation"), "{answer}");
        }
    }
    client.finish().await;
    ops.store().close().await;
    program.stop().await;
}

/// A proxy in front of the gateway that records the sessions of streams.
struct SessionProxy {
    origin: String,
    /// The sessions whose streams were opened.
    streams: watch::Receiver<Vec<String>>,
    task: JoinHandle<()>,
}

impl Drop for SessionProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl SessionProxy {
    async fn start(gateway: &str) -> Self {
        let (sender, streams) = watch::channel(Vec::new());
        let (http, gateway) = (unguarded_client().no_proxy().build().unwrap(), gateway.to_owned());
        let router = axum::Router::new().fallback(move |method: Method, headers: HeaderMap, body: Bytes| {
            let (http, gateway, sender) = (http.clone(), gateway.clone(), sender.clone());
            async move {
                let session = headers.get("mcp-session-id").map(|id| id.to_str().unwrap().to_owned());
                let is_stream = method == Method::GET;
                let request = http.request(method, format!("{gateway}/gateway/mcp")).body(body);
                let response = forward(request, &headers).await;
                if is_stream && response.status() == StatusCode::OK {
                    sender.send_modify(|streams| streams.extend(session));
                }
                response
            }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { origin, streams, task }
    }

    /// Waits until this number of streams has been opened. Returns the session of the last one.
    async fn wait_for_streams(&mut self, count: usize) -> String {
        let streams = timeout(TIMEOUT, self.streams.wait_for(|streams| streams.len() >= count)).await;
        streams.expect("a stream is opened").unwrap().last().unwrap().clone()
    }
}

/// Sends a request with the headers of the client, and returns its response as it arrives.
async fn forward(mut request: reqwest::RequestBuilder, headers: &HeaderMap) -> Response {
    for name in ["accept", "authorization", "content-type", "mcp-protocol-version", "mcp-session-id"] {
        if let Some(value) = headers.get(name) {
            request = request.header(name, value);
        }
    }
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let chunks = futures::stream::unfold(response, |mut response| async move {
        let chunk = response.chunk().await.transpose()?;
        Some((chunk, response))
    });
    let mut forwarded = (status, Body::from_stream(chunks)).into_response();
    for name in ["content-type", "mcp-session-id"] {
        if let Some(value) = headers.get(name) {
            forwarded.headers_mut().insert(name, value.clone());
        }
    }
    forwarded
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_announced_and_an_ended_session_is_replaced() {
    let (installation, server) = (Installation::sqlite().await, RemoteServer::start().await);
    let (cx, ops) = (Ctx::operator(), gateway::open_ops(&installation).await);
    let instance = gateway::create_instance(&cx, &ops, &installation, "far", &server.url()).await;
    remote_checks::check_due(&cx, &ops).await.unwrap();
    let token = gateway::create_agent(&cx, &ops, &installation, ("ci", &[instance])).await;
    let program = gateway::serve(&installation).await;
    let mut proxy = SessionProxy::start(program.origin()).await;
    let mut client = StdioClient::start(&proxy.origin, &token);
    let params =
        json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } });
    let initialized = client.request(1, "initialize", params).await;
    assert_eq!(initialized["result"]["capabilities"]["tools"], json!({ "listChanged": true }));
    client.write(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
    let session = proxy.wait_for_streams(1).await;
    assert_eq!(client.request(2, "tools/list", json!({})).await["result"]["tools"], json!([]));

    assert_eq!(gateway::approve_all(&cx, &ops, &installation).await, 1);
    let changed = json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" });
    assert_eq!(client.read().await, changed);
    let listed = client.request(3, "tools/list", json!({})).await;
    assert_eq!(listed["result"]["tools"][0]["name"], "far__echo", "{listed}");

    let http = unguarded_client().no_proxy().build().unwrap();
    let end = http.delete(format!("{}/gateway/mcp", program.origin())).bearer_auth(&token);
    let ended = end.header("mcp-session-id", &session).send().await.unwrap();
    assert_eq!(ended.status(), StatusCode::NO_CONTENT);
    client
        .write(r#"{"jsonrpc":"2.0","id":4,"method":"tools/call","params":{"name":"far__echo","arguments":{"n":1}}}"#)
        .await;
    // The lists may have changed, which is announced when the new stream is open.
    let (mut called, mut is_told) = (Value::Null, false);
    while called.is_null() || !is_told {
        let message = client.read().await;
        is_told |= message == changed;
        if message["method"].is_null() {
            called = message;
        }
    }
    assert_eq!((&called["id"], &called["result"]["structuredContent"]), (&json!(4), &json!({ "n": 1 })), "{called}");
    assert_eq!(server.calls(), [r#"{"n":1}"#]);
    assert_ne!(proxy.wait_for_streams(2).await, session);
    client.finish().await;
    ops.store().close().await;
    program.stop().await;
}
