//! `waypost gateway stdio`: the client notices no restart of the gateway.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;
use waypost_core::caller::Ctx;
use waypost_ops::agent_tokens::{self, CreateAgentToken};
use waypost_ops::agents;

use crate::installation::{Installation, TIMEOUT};
use crate::program::{ServeProcess, configure};

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

    async fn request(&mut self, id: u64, method: &str, params: Value) -> Value {
        self.write(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string()).await;
        let response = self.read().await;
        assert_eq!(response["id"], id, "{response}");
        response
    }

    /// Ends the input, and checks that the program ends successfully without a further message.
    async fn finish(mut self) {
        drop(self.input);
        assert_eq!(timeout(TIMEOUT, self.output.next_line()).await.unwrap().unwrap(), None);
        assert!(timeout(TIMEOUT, self.program.wait()).await.unwrap().unwrap().success());
    }
}

async fn serve(installation: &Installation, address: &str) -> ServeProcess {
    let mut command = Command::new(env!("CARGO_BIN_EXE_waypost"));
    configure(&mut command, installation, &["serve", "--listen", address]);
    ServeProcess::run(command, &installation.data_dir()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_gateway_is_not_noticed() {
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
    let listed = client.read().await;
    assert_eq!((&listed["id"], &listed["result"]["tools"]), (&json!(3), &json!([])));
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
        assert!(client.read().await["error"]["code"].as_i64().unwrap() <= -32600, "{text}");
    }
    client.finish().await;
    let mut client = StdioClient::start(&origin, "wpa_invalid");
    let rejected = client.request(1, "tools/list", json!({})).await;
    assert!(rejected["error"]["message"].as_str().unwrap().contains("rejected the token"), "{rejected}");
    client.finish().await;
    program.stop().await;
}
