//! The gateway's call log, directly on the database and through the REST API.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

use serde_json::json;

use crate::Workspace;
use crate::remote::RunningServer;

/// Calls a tool that does not exist, and waits for the answer.
fn call(server: &RunningServer, token: &str, tool: &str) {
    let params = json!({ "name": tool, "arguments": { "query": "hunter2" } });
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }).to_string();
    let mut stream = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).unwrap();
    let length = body.len();
    write!(
        stream,
        "POST /gateway/mcp HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.contains("Unknown tool"), "{text}");
}

#[test]
fn calls_are_listed_and_followed() {
    let mut server = RunningServer::new();
    let created = server.run_json(&["agent", "create", "Crawler"]);
    let token = server.run_json(&["agent", "token", "Crawler"]);
    let token = token["token"].as_str().unwrap();
    server.assert_same(&["call", "list"]);

    // A process that follows the log prints each call once.
    let mut command = server.workspace.command(&["call", "list", "--follow", "--outcome", "denied", "--json"]);
    let mut follower = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    for tool in ["first__tool", "second__tool"] {
        call(&server, token, tool);
        let printed: serde_json::Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!((&printed["tool"], &printed["agent_id"]), (&json!(tool), &created["id"]));
        assert_eq!(printed["argument_shape"], json!({ "query": "string" }));
    }
    follower.kill().unwrap();
    follower.wait().unwrap();

    let id = created["id"].as_str().unwrap();
    for arguments in [
        &["call", "list"][..],
        &["call", "list", "--agent", "Crawler", "--limit", "1"],
        &["call", "list", "--agent", id, "--outcome", "ok"],
        &["call", "list", "--tool", "first__tool", "--since", "2026-01-31T00:00:00Z"],
        &["call", "list", "--until", "2026-01-31T00:00:00Z"],
        &["call", "list", "--agent", "Gone"],
        &["call", "list", "--instance", "gone"],
    ] {
        server.assert_same(arguments);
    }
    let tools = |arguments: &[&str]| {
        let items = server.run_json(&[&["call", "list"], arguments].concat())["items"].take();
        items.as_array().unwrap().iter().map(|call| call["tool"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(tools(&["--agent", "Crawler"]), ["second__tool", "first__tool"]);
    assert_eq!(tools(&["--tool", "first__tool"]), ["first__tool"]);
    assert_eq!(tools(&["--limit", "1"]), ["second__tool"]);
    let shown = server.run_json(&["call", "list", "--limit", "1"])["items"][0].take();
    let shown_id = shown["id"].as_str().unwrap();
    server.assert_same(&["call", "show", shown_id]);
    let detail = server.run_json(&["call", "show", shown_id]);
    assert_eq!((&detail["tool"], &detail["contents"]), (&shown["tool"], &json!(null)));
    for unknown in ["cal_0123456789abcdef01234567", "x"] {
        server.assert_same(&["call", "show", unknown]);
    }
    // The denied calls reached no instance.
    assert_eq!(server.run_json(&["agent", "connections"])["items"], json!([]));
    server.assert_same(&["agent", "connections"]);
    // The log outlives the agent.
    server.run_ok(&["agent", "delete", "Crawler", "--yes"]);
    assert_eq!(tools(&["--agent", id]).len(), 2);
    server.stop();
}

#[test]
fn invalid_filters_are_rejected() {
    let workspace = Workspace::new();
    workspace.run_ok(&["org", "create", "acme"]);
    assert_eq!(workspace.run_ok(&["call", "list"]), "No entries.\n");
    let err = |code, arguments: &[&str]| workspace.run_err(code, &[&["call", "list"], arguments].concat());
    assert!(
        err(2, &["--outcome", "lost"])
            .contains("[possible values: ok, tool_error, denied, failed, timed_out, cancelled]")
    );
    assert!(err(2, &["--since", "yesterday"]).contains("expected a time in RFC 3339 format"));
    assert!(err(2, &["--limit", "0"]).contains("0 is not in 1..=10000"));
    assert!(err(2, &["--until", "2026-01-31T00:00:00Z", "--follow"]).contains("cannot be used with"));
    assert!(err(1, &["--tool", &"x".repeat(257)]).contains("`tool` can have at most 256 characters"));
}
