//! Joining over HTTP.

use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use waypost_toolbox::identity::Identity;
use waypost_toolbox::join::{Join, JoinError, join};
use waypost_toolbox::tasks;
use waypost_toolbox_proto::handshake::JoinRequest;

/// Starts a server that responds with the given statuses and bodies, and records the requests.
async fn start_server(responses: Vec<(&'static str, &'static str)>) -> (String, Arc<Mutex<Vec<JoinRequest>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let received = Arc::new(Mutex::new(Vec::new()));
    let requests = received.clone();
    tasks::spawn("server", async move {
        for (status, body) in responses {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            let request = loop {
                assert!(stream.read_buf(&mut request).await.unwrap() > 0);
                let text = String::from_utf8_lossy(&request);
                assert!("POST /toolbox/join HTTP/1.1".starts_with(&text[..text.len().min(20)]), "{text}");
                if let Some(request) = text.split_once("\r\n\r\n").and_then(|(_, body)| serde_json::from_str(body).ok())
                {
                    break request;
                }
            };
            requests.lock().unwrap().push(request);
            let length = body.len();
            let response = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
            stream.write_all(response.as_bytes()).await.unwrap();
        }
    });
    (url, received)
}

fn request(url: &str, data_dir: &Path) -> Join {
    Join { url: url.to_owned(), token: "wpt_token\n".to_owned(), data_dir: data_dir.to_owned(), ca_pem: None }
}

const JOINED: (&str, &str) = ("200 OK", r#"{"toolbox_id": "tbx_1", "name": "rack"}"#);

#[tokio::test]
async fn joins_once() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let (url, received) = start_server(vec![JOINED]).await;
    let identity = join(request(&url, &data_dir)).await.unwrap();
    assert_eq!(
        (identity.toolbox_id.as_str(), identity.name.as_str(), identity.origin()),
        ("tbx_1", "rack", url.clone())
    );
    let stored = Identity::load(&data_dir).unwrap();
    let sent = received.lock().unwrap().remove(0);
    assert_eq!((sent.token.as_str(), sent.public_key.as_str()), ("wpt_token", stored.public_key()));
    let files: Vec<_> = std::fs::read_dir(&data_dir).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(files, ["identity.json"]);
    let error = join(request(&url, &data_dir)).await.unwrap_err();
    assert!(matches!(error, JoinError::AlreadyJoined { .. }));
    let text = error.to_string();
    assert!(text.contains("tbx_1") && text.contains("rack") && text.contains("identity.json"), "{text}");
}

#[tokio::test]
async fn a_repeated_join_sends_the_same_key() {
    let folder = tempfile::tempdir().unwrap();
    let (url, received) = start_server(vec![("502 Bad Gateway", "<html>"), ("200 OK", "not JSON"), JOINED]).await;
    assert!(matches!(join(request(&url, folder.path())).await, Err(JoinError::Rejected { status: 502, .. })));
    assert!(matches!(join(request(&url, folder.path())).await, Err(JoinError::Response)));
    join(request(&url, folder.path())).await.unwrap();
    let received = received.lock().unwrap();
    assert!(received.iter().all(|request| request.public_key == received[0].public_key));
}

#[tokio::test]
async fn the_message_of_the_control_plane_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let problem = r#"{"code": "forbidden", "detail": "The token has expired. Create another one."}"#;
    let (url, _) = start_server(vec![("403 Forbidden", problem)]).await;
    let error = join(request(&url, folder.path())).await.unwrap_err().to_string();
    assert!(error.ends_with("status 403: The token has expired. Create another one."), "{error}");
    assert!(Identity::load(folder.path()).is_err());
}

#[tokio::test]
async fn plain_http_to_another_machine_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(join(request("http://192.0.2.1", folder.path())).await, Err(JoinError::Url(_))));
}
