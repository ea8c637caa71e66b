//! The setting `outbound_allow` of a running server: which organisations can send webhooks to loopback.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Child, Stdio};

use serde_json::json;

use crate::Workspace;

/// A running `serve`, killed on drop.
struct ServeProcess(Child);

impl Drop for ServeProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn webhooks_reach_loopback_only_for_the_allowed_organisation() {
    let workspace = Workspace::new();
    let key = |slug: &str| {
        workspace.run_ok(&["org", "create", slug]);
        let key = workspace.run_json(&["key", "create", "--org", slug, "--name", "test"]);
        key["key"].as_str().unwrap().to_owned()
    };
    let (acme, other) = (key("acme"), key("other"));
    let serve = ["serve", "--listen", "127.0.0.1:0", "--diagnostics-listen", "off"];
    let mut command = workspace.command(&serve);
    command.env("WAYPOST_OUTBOUND_ALLOW", "127.0.0.0/8=sign-in, 127.0.0.1=webhooks@acme, 127.0.0.0/8=tools@other");
    let mut serve = ServeProcess(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut out = BufReader::new(serve.0.stdout.take().unwrap()).lines().map_while(Result::ok);
    let origin = out.find_map(|line| line.strip_prefix("listening on ").map(str::to_owned)).unwrap();
    let receiver = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", receiver.local_addr().unwrap());
    let post = async |key: &str, path: &str, body: serde_json::Value| {
        let client = waypost_outbound::unguarded_client().build().unwrap();
        let request = client.post(format!("{origin}/api/v1{path}")).bearer_auth(key).json(&body);
        let result = request.send().await.unwrap();
        (result.status().as_u16(), result.json::<serde_json::Value>().await.unwrap())
    };
    let new = json!({ "url": url, "events": ["ticket.created"] });
    let (status, rejected) = post(&other, "/webhooks", new.clone()).await;
    assert_eq!((status, &rejected["field"]), (422, &json!("url")), "{rejected}");
    assert!(rejected["detail"].as_str().unwrap().contains("outbound_allow"), "{rejected}");
    let (status, created) = post(&acme, "/webhooks", new).await;
    assert_eq!(status, 201, "{created}");
    let (status, sent) = post(&acme, &format!("/webhooks/{}/test", created["id"].as_str().unwrap()), json!({})).await;
    assert_eq!(status, 201, "{sent}");
    let (mut connection, _) = receiver.accept().unwrap();
    let mut start = [0; 15];
    connection.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"POST /hook HTTP");
    connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
}
