//! The gateway in front of a server in a container, with commands for every step and an agent that connects over the
//! network.

use serde_json::{Value, json};

use crate::engine::Engine;
use crate::image::Image;
use crate::leak::assert_nothing_left;
use crate::registry::Registry;
use crate::waypost::{Toolbox, Waypost};

/// An agent.
struct Agent<'a> {
    waypost: &'a Waypost,
    token: String,
}

impl Agent<'_> {
    async fn request(&self, method: &str, params: Value) -> Value {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        self.waypost.post("/gateway/mcp", &self.token, &body).await
    }

    async fn tools(&self) -> Vec<String> {
        let listed = self.request("tools/list", json!({})).await;
        let tools = listed["result"]["tools"].as_array().unwrap_or_else(|| panic!("no tools in {listed}"));
        tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
    }

    /// Calls the tool `ask` with a request of 2026-07-28.
    async fn ask(&self, input: Value) -> Value {
        let mut params = json!({ "name": "echo__ask", "arguments": { "question": "Who?" } });
        params.as_object_mut().unwrap().extend(input.as_object().cloned().unwrap());
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
        self.waypost.post_modern("/gateway/mcp", &self.token, (json!({ "elicitation": {} }), message)).await
    }

    async fn call(&self, tool: &str, arguments: Value) -> Value {
        self.request("tools/call", json!({ "name": tool, "arguments": arguments })).await
    }
}

waypost_testkit::needs_docker! {
    #[tokio::test(flavor = "multi_thread")]
    async fn an_agent_uses_a_deployed_server_through_the_gateway_docker() {
        let (engine, registry, waypost) = (Engine::shared(), Registry::start().await, Waypost::start().await);
        let mut toolbox = Toolbox::join(&waypost, "machine").await;
        toolbox.run(&engine).await;
        let folder = waypost_testkit::folder();
        let path = folder.path().join("echo.json");
        let entry = json!({
            "slug": "echo", "name": "Echo", "version": "1", "transport": "stdio", "resources": "light",
            "source": { "image": registry.push("echo", &Image::stdio()).await },
        });
        std::fs::write(&path, entry.to_string()).unwrap();
        waypost.run(&["catalog", "import", path.to_str().unwrap(), "--org", "acme"]).await;
        waypost.run(&["instance", "create", "echo", "--org", "acme", "--entry", "echo", "--wait"]).await;

        waypost.run(&["agent", "create", "ci", "--org", "acme"]).await;
        let token = waypost.run(&["agent", "token", "ci", "--org", "acme", "--json"]).await;
        let token: Value = serde_json::from_str(&token).unwrap();
        let agent = Agent { waypost: &waypost, token: token["token"].as_str().expect("a token").to_owned() };
        waypost.run(&["grant", "add", "--agent", "ci", "--instance", "echo", "--access", "read_only", "--org", "acme"]).await;
        assert_eq!(agent.tools().await, [""; 0], "nothing is approved");

        let checked = waypost.run(&["approval", "check", "echo", "--org", "acme", "--json"]).await;
        let checked: Value = serde_json::from_str(&checked).unwrap();
        assert!(checked["pending"].as_u64().is_some_and(|pending| pending > 0), "{checked}");
        let pending = waypost.run(&["approval", "list", "--state", "pending", "--org", "acme", "--json"]).await;
        let pending: Value = serde_json::from_str(&pending).unwrap();
        let echo = pending["items"].as_array().into_iter().flatten().find(|approval| approval["name"] == "echo").expect("the tool waits");
        let id = echo["id"].as_str().unwrap();
        let shown = waypost.run(&["approval", "show", id, "--org", "acme"]).await;
        assert!(shown.contains("inputSchema") && shown.ends_with("}\n"), "{shown}");
        waypost.run(&["approval", "approve", id, "--class", "read", "--org", "acme"]).await;
        let listed = async { while agent.tools().await != ["echo__echo"] { tokio::task::yield_now().await } };
        tokio::time::timeout(crate::support::TIMEOUT, listed).await.expect("an approval takes effect");
        let answer = agent.call("echo__echo", json!({ "text": "hello" })).await;
        assert_eq!(answer["result"]["content"][0]["text"], "hello", "{answer}");
        // The server asks the agent during a call.
        let ask = pending["items"].as_array().into_iter().flatten().find(|approval| approval["name"] == "ask").expect("the tool waits");
        waypost.run(&["approval", "approve", ask["id"].as_str().unwrap(), "--class", "read", "--org", "acme"]).await;
        let listed = async { while agent.tools().await.len() < 2 { tokio::task::yield_now().await } };
        tokio::time::timeout(crate::support::TIMEOUT, listed).await.expect("an approval takes effect");
        let asked = agent.ask(json!({})).await;
        let question = &asked["result"]["inputRequests"]["input"];
        assert_eq!((&question["method"], &question["params"]["message"]), (&json!("elicitation/create"), &json!("[echo] Who?")), "{asked}");
        let input = json!({ "action": "accept", "content": { "name": "Ada" } });
        let answered = agent.ask(json!({ "inputResponses": { "input": input }, "requestState": asked["result"]["requestState"] })).await;
        let response = answered["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text in {answered}"));
        assert_eq!(serde_json::from_str::<Value>(response).unwrap(), json!({ "jsonrpc": "2.0", "id": "ask", "result": input }));
        let refused = agent.call("echo__ask", json!({ "question": "Who?" })).await;
        let refused = refused["result"]["content"][0]["text"].as_str().unwrap_or_default();
        assert!(refused.contains("-32601"), "an agent without a session cannot be asked: {refused}");

        let unknown = agent.call("echo__escape", json!({})).await;
        assert_eq!(unknown["error"], json!({ "code": -32602, "message": "Unknown tool" }));

        waypost.run(&["approval", "reject", id, "--reason", "No longer needed", "--org", "acme"]).await;
        let rejected = async { while agent.tools().await != ["echo__ask"] { tokio::task::yield_now().await } };
        tokio::time::timeout(crate::support::TIMEOUT, rejected).await.expect("a rejection takes effect");
        assert_eq!(agent.call("echo__echo", json!({ "text": "x" })).await["error"]["message"], "Unknown tool");

        waypost.run(&["instance", "delete", "echo", "--org", "acme", "--yes"]).await;
        let mut interval = tokio::time::interval(std::time::Duration::from_millis(100));
        let removed = async {
            while waypost.run(&["instance", "list", "--org", "acme"]).await.contains("echo") {
                interval.tick().await;
            }
        };
        tokio::time::timeout(crate::support::TIMEOUT, removed).await.expect("the instance is removed");
        let grants: Value =
            serde_json::from_str(&waypost.run(&["grant", "list", "--org", "acme", "--json"]).await).unwrap();
        assert_eq!(grants["items"], json!([]), "grants are deleted with their instance");
        toolbox.stop().await;
        assert_nothing_left(&engine, &toolbox.id, toolbox.secrets());
        engine.remove_images_of(registry.address());
    }
}
