//! Resource changes that a server in a container announces.

use serde_json::{Value, json};

use crate::site::Site;
use crate::support::TIMEOUT;

/// The URI for agents of a resource of a template of `server-everything`.
const URI: &str = "wp+everything:demo://resource/dynamic/text/1";
/// The tool that turns simulated changes on and off.
const TOOL: &str = "everything__toggle-subscriber-updates";

/// Subscribes to a resource of `server-everything` as an agent, makes the server change it, and waits until the agent
/// is notified.
pub async fn receive_update(site: &Site, token: &str) {
    let listen = json!({
        "jsonrpc": "2.0", "id": "updates", "method": "subscriptions/listen",
        "params": { "notifications": { "resourceSubscriptions": [URI] } },
    });
    let mut stream = site.waypost.open_modern("/gateway/mcp", token, (json!({}), listen)).await;
    let mut received = String::new();
    wait_for(&mut stream, &mut received, "notifications/subscriptions/acknowledged").await;
    // The server announces changes only to subscribers. The simulated changes are turned off again for the rest of the
    // test.
    toggle(site, token, "Started").await;
    let update = wait_for(&mut stream, &mut received, "notifications/resources/updated").await;
    toggle(site, token, "Stopped").await;
    assert_eq!(update["params"]["uri"], URI, "{update}");
    assert_eq!(update["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], "updates", "{update}");
}

/// Turns the simulated changes on or off.
async fn toggle(site: &Site, token: &str, expected: &str) {
    let params = json!({ "name": TOOL, "arguments": {} });
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    let response = site.waypost.post("/gateway/mcp", token, &message).await;
    let text = response["result"]["content"][0]["text"].as_str().unwrap_or_default();
    assert!(text.starts_with(expected), "{response}");
}

/// Returns the next message with this method.
async fn wait_for(stream: &mut reqwest::Response, received: &mut String, method: &str) -> Value {
    let waiting = async {
        loop {
            while let Some((line, rest)) = received.split_once('\n') {
                let message =
                    line.strip_prefix("data: ").map(|data| serde_json::from_str::<Value>(data).expect("JSON"));
                *received = rest.to_owned();
                if let Some(message) = message.filter(|message| message["method"] == method) {
                    return message;
                }
            }
            let chunk = stream.chunk().await.expect("the stream is readable").expect("the stream is open");
            received.push_str(std::str::from_utf8(&chunk).expect("text"));
        }
    };
    tokio::time::timeout(TIMEOUT, waiting).await.unwrap_or_else(|_| panic!("no {method} after {received}"))
}
