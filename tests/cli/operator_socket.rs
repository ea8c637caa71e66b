//! The operator's socket of a running `serve`, and the commands that need it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::Workspace;
use crate::remote::RunningServer;

impl Workspace {
    fn socket(&self) -> PathBuf {
        self.path("waypost-data/serve.sock")
    }
}

/// Sends a request to the API and returns the status and the body.
fn send(mut stream: impl Read + Write, method: &str, path: &str, headers: &str, body: &str) -> (u16, Value) {
    let length = body.len();
    write!(
        stream,
        "{method} /api/v1/{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_default())
}

impl RunningServer {
    fn send_to_socket(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, Value) {
        send(UnixStream::connect(self.workspace.socket()).unwrap(), method, path, headers, body)
    }

    fn send_to_port(&self, path: &str, headers: &str) -> (u16, Value) {
        let address = self.url.strip_prefix("http://").unwrap();
        send(TcpStream::connect(address).unwrap(), "GET", path, headers, "")
    }
}

#[test]
fn the_operator_is_the_caller_in_the_selected_organization() {
    let server = RunningServer::new();
    server.workspace.run_ok(&["org", "create", "other"]);
    let metadata = std::fs::symlink_metadata(server.workspace.socket()).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    let (status, organizations) = server.send_to_socket("GET", "organizations", "", "");
    let slugs: Vec<_> =
        organizations["items"].as_array().unwrap().iter().map(|organization| &organization["slug"]).collect();
    assert_eq!((status, slugs), (200, vec![&json!("acme"), &json!("other")]));
    // Resources belong to an organisation, which must be selected.
    let (status, problem) = server.send_to_socket("GET", "servers", "", "");
    assert_eq!((status, &problem["code"]), (422, &json!("invalid_arguments")), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("`Waypost-Organization`"), "{problem}");
    let (status, problem) = server.send_to_socket("GET", "servers", "Waypost-Organization: gone\r\n", "");
    assert_eq!((status, &problem["code"]), (404, &json!("not_found")));
    let acme = "Waypost-Organization: acme\r\n";
    let (status, created) = server.send_to_socket("POST", "servers", acme, "{\"slug\": \"acme-docs\"}");
    assert_eq!(status, 201, "{created}");
    let list = |organization: &str| {
        let header = format!("Waypost-Organization: {organization}\r\n");
        let (status, mut servers) = server.send_to_socket("GET", "servers", &header, "");
        assert_eq!(status, 200);
        servers["items"].take().as_array().unwrap().len()
    };
    assert_eq!((list("acme"), list("other")), (1, 0));
    let path = format!("servers/{}", created["id"].as_str().unwrap());
    assert_eq!(server.send_to_socket("GET", &path, "Waypost-Organization: other\r\n", "").0, 404);
    // A key is ignored: it changes neither the caller nor the organisation.
    let key = format!("Authorization: Bearer wpk_unknown\r\n{acme}");
    assert_eq!(server.send_to_socket("GET", &path, &key, "").0, 200);
    let audit = server.workspace.run_json(&["audit", "list", "--org", "acme", "--act", "server."]);
    let entry = &audit["items"][0];
    assert_eq!((&entry["act"], &entry["actor"]), (&json!("server.create"), &json!("operator")), "{audit}");
}

#[test]
fn a_response_is_not_repeated_for_another_organization() {
    let server = RunningServer::new();
    server.workspace.run_ok(&["org", "create", "other"]);
    let create = |organization: &str| {
        let headers = format!("Waypost-Organization: {organization}\r\nIdempotency-Key: one\r\n");
        server.send_to_socket(
            "POST",
            "webhooks",
            &headers,
            "{\"url\": \"https://example.com/\", \"events\": [\"ticket.created\"]}",
        )
    };
    let (status, created) = create("acme");
    assert_eq!(status, 201, "{created}");
    assert_eq!(create("acme"), (201, created));
    let (status, problem) = create("other");
    assert_eq!((status, &problem["code"]), (422, &json!("invalid_arguments")), "{problem}");
}

#[test]
fn requests_to_the_port_never_have_operator_rights() {
    let server = RunningServer::new();
    for headers in [
        "",
        "Waypost-Organization: acme\r\n",
        "Waypost-Organization: acme\r\nX-Forwarded-For: 127.0.0.1\r\n",
        "Authorization: operator\r\nWaypost-Organization: acme\r\n",
        "Authorization: Bearer operator\r\nWaypost-Organization: acme\r\n",
        "Cookie: waypost_session=operator\r\nWaypost-Organization: acme\r\n",
    ] {
        for path in ["organizations", "servers", "audit-events"] {
            let (status, problem) = server.send_to_port(path, headers);
            assert_eq!((status, &problem["code"]), (401, &json!("sign_in_required")), "{path} {headers}");
        }
    }
    // Only the API is available on the socket.
    let stream = UnixStream::connect(server.workspace.socket()).unwrap();
    assert_eq!(send(stream, "GET", "../../login", "", "").0, 404);
    assert_eq!(server.send_to_socket("GET", "gone", "", "").0, 404);
}

#[test]
fn the_socket_is_removed_on_exit_and_replaced_after_a_crash() {
    let mut server = RunningServer::new();
    let socket = server.workspace.socket();
    server.stop();
    assert!(!socket.exists(), "removed on SIGTERM");
    // A killed process leaves its socket behind, on which no process listens.
    drop(UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    server.restart();
    assert_eq!(server.send_to_socket("GET", "organizations", "", "").0, 200);
    server.stop();
    // A file that is not a socket is not deleted, and a socket with a listener is not taken over.
    std::fs::write(&socket, "mine").unwrap();
    server.restart();
    assert_eq!(std::fs::read_to_string(&socket).unwrap(), "mine");
    assert!(server.read_log().contains("exists and is not a socket"), "{}", server.read_log());
    server.stop();
    std::fs::remove_file(&socket).unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    server.restart();
    assert!(server.read_log().contains("another process listens on the socket"), "{}", server.read_log());
    server.stop();
    assert!(socket.exists(), "the socket of the other process is left");
    drop(listener);
}

#[test]
fn commands_that_need_the_link_need_a_running_server() {
    let workspace = Workspace::new();
    workspace.run_ok(&["org", "create", "acme"]);
    for arguments in [&["logs", "search"][..], &["tools", "search"], &["call", "search", "find"], &["stats", "search"]]
    {
        let message = workspace.run_err(1, &[&["instance"], arguments].concat());
        assert_eq!(
            message,
            "error: this command needs a running `waypost serve`, and none uses the data directory ./waypost-data: start it, choose its data directory with --data-dir, or use --url\n",
            "{arguments:?}"
        );
    }
    let long = "d".repeat(120);
    let message = workspace.run_err(1, &["instance", "tools", "search", "--data-dir", &long]);
    assert!(message.contains("serve.sock has 131 bytes, but the operating system allows only 107"), "{message}");
    let message = workspace.run_err(2, &["instance", "call", "search", "find", "[]"]);
    assert!(message.contains("must be a JSON object"), "{message}");
}
