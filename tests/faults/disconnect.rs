//! Clients that disconnect during a request.

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::client::Client;
use crate::installation::Installation;
use crate::load::{Load, LoadUser};
use crate::program::ServeProcess;

/// Sends half a request, a whole request without waiting for the response, or nothing, and disconnects.
async fn disconnect_midway(address: &str, walkthrough: &str, n: usize) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let body = Client::body("next_walkthrough_step", &json!({ "walkthrough_id": walkthrough }));
    let head = format!(
        "POST /s/demo/t/rude-{n}/mcp HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
         accept: application/json, text/event-stream\r\nmcp-protocol-version: 2025-11-25\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let request = format!("{head}{body}");
    let sent = match n % 3 {
        0 => &request[..head.len() + body.len() / 2],
        1 => &request,
        _ => "",
    };
    stream.write_all(sent.as_bytes()).await.unwrap();
    // Resets the connection instead of closing it.
    stream.set_zero_linger().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_disconnect_do_not_affect_others() {
    let installation = Installation::sqlite().await;
    let program = ServeProcess::start(&installation).await;
    let client = program.client();
    let users: Vec<_> = (0..16).map(|n| LoadUser::new(&installation, n)).collect();
    let load = Load::start(users, &client, |failure| panic!("{failure:?}"));
    let url = client.url("x");
    let address = url.split('/').nth(2).unwrap();
    let walkthrough = installation.walkthrough.to_string();
    for n in 0..300 {
        disconnect_midway(address, &walkthrough, n).await;
        load.wait_for((n + 1).min(1_000)).await;
    }
    let mut users = load.finish().await;
    for user in &mut users {
        assert_eq!(user.acknowledged.len(), crate::installation::STEPS);
        user.compare_with_stored(&client).await;
    }
    assert_eq!(client.get("/readyz").await, Some(200));
    program.stop().await;
}
