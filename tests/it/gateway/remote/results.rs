//! Large results, which the gateway does not copy.

use http_body_util::BodyExt;

use super::*;
use crate::gateway::remote::server::Fault;

/// Calls the tool as an agent of 2026-07-28 or of a revision with a handshake, and returns the unparsed response.
async fn call(stage: &Stage, is_modern: bool) -> String {
    let mut params = json!({ "name": "far__find", "arguments": {} });
    let mut headers = Vec::new();
    if is_modern {
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        headers = vec![("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", "far__find")];
    }
    let message = json!({ "jsonrpc": "2.0", "id": "x", "method": "tools/call", "params": params });
    let response = stage.send(Method::POST, &headers, message.to_string()).await;
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_result_is_relayed_unchanged_in_both_protocol_eras() {
    let members = format!("\n \"content\":[], \"long\":\"{}\",\n \"n\":1.0}}", r"\u00e9é".repeat(20_000));
    let with = |added: &str| format!("{{{added}{members}");
    let (complete, caching) = (r#""resultType":"complete","#, r#""ttlMs":0,"cacheScope":"private","#);
    let response = |result: &str| format!(r#"{{"jsonrpc":"2.0","result":{result},"id":"x"}}"#);
    for is_modern in [false, true] {
        let (stage, server) = (Stage::new().await, Server::start().await);
        let own = with(if is_modern { complete } else { "" });
        server.set(|state| (state.is_modern, state.result) = (is_modern, own.clone()));
        stage.ready(&server.url).await;
        // The members that the other era does not have are removed, and those that it requires are added.
        let (legacy, modern) =
            (response(&with("")), if is_modern { own } else { with(&format!("{complete}{caching}")) });
        let text = call(&stage, false).await;
        assert!(text == legacy, "{}", text.get(..200).unwrap_or_default());
        let text = call(&stage, true).await;
        assert!(text == response(&modern), "{}", text.get(..200).unwrap_or_default());
        // Each event has one line.
        server.set(|state| state.fault = Some(Fault::Logs));
        let text = call(&stage, false).await;
        let events: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        assert_eq!(events.len(), 2, "{}", text.get(..200).unwrap_or_default());
        let log: Value = serde_json::from_str(events[0]).unwrap();
        assert_eq!(log["method"], "notifications/message");
        assert!(events[1] == legacy.replace('\n', " "), "{}", events[1].get(..200).unwrap_or_default());
        stage.api.app.clone().finish().await;
    }
}
