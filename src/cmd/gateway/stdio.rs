//! Messages on standard input and output, one per line.
//!
//! Invariants: every request is answered exactly once, unless the client cancels it or exits; up to [`MAX_REQUESTS`]
//! requests are sent concurrently; standard output contains nothing but messages, each of which is written as a whole.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use futures::StreamExt;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::codec::{FramedRead, LinesCodec, LinesCodecError};
use tokio_util::sync::CancellationToken;
use waypost_mcp_wire::strict::{MessageKind, Messages};
use waypost_mcp_wire::{INVALID_REQUEST, JsonRpcError};

use super::event_stream;
use super::upload::Endpoint;

/// The maximum size of a message in bytes, as in the gateway.
const MAX_MESSAGE: usize = waypost_gateway::MAX_BODY;
/// The maximum number of messages that are sent concurrently. The next one waits until one of them has ended.
const MAX_REQUESTS: usize = 64;
/// The maximum number of messages that wait to be written.
const QUEUE: usize = 64;

/// The requests that have not ended, by their IDs as JSON text.
type Running = Arc<Mutex<HashMap<String, CancellationToken>>>;

/// Relays messages until `input` ends and all requests have been answered.
///
/// # Errors
/// If `input` cannot be read, or `output` cannot be written.
pub(super) async fn run(
    endpoint: Endpoint,
    input: impl AsyncRead + Unpin,
    output: impl AsyncWrite + Unpin + Send + 'static,
) -> anyhow::Result<()> {
    let (sender, receiver) = mpsc::channel::<Vec<u8>>(QUEUE);
    let (endpoint, running, slots) = (Arc::new(endpoint), Running::default(), Arc::new(Semaphore::new(MAX_REQUESTS)));
    let (mut tasks, mut writer, mut stream) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
    writer.spawn(write(receiver, output));
    stream.spawn(event_stream::keep_open(Arc::clone(&endpoint), sender.clone()));
    let mut lines = FramedRead::new(input, LinesCodec::new_with_max_length(MAX_MESSAGE));
    loop {
        let line = tokio::select! {
            Some(written) = writer.join_next() => return written?,
            Some(_) = tasks.join_next() => continue,
            line = lines.next() => line,
        };
        let text = match line {
            None => break,
            Some(Ok(text)) if text.trim().is_empty() => continue,
            Some(Ok(text)) => text,
            Some(Err(LinesCodecError::MaxLineLengthExceeded)) => {
                let text = format!("The message is larger than {} MiB.", MAX_MESSAGE / (1024 * 1024));
                reject(&sender, &JsonRpcError::new(INVALID_REQUEST, text, None)).await;
                continue;
            }
            Some(Err(LinesCodecError::Io(error))) => return Err(error).context("cannot read standard input"),
        };
        let started = match Started::new(&text, &running) {
            Ok(Some(started)) => started,
            Ok(None) => continue,
            Err(error) => {
                reject(&sender, &error).await;
                continue;
            }
        };
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { break };
        let (endpoint, sender) = (Arc::clone(&endpoint), sender.clone());
        tasks.spawn(async move {
            let _slot = slot;
            let is_request = started.id.is_some();
            started.cancelled.run_until_cancelled(endpoint.send(&text, is_request, &sender)).await;
        });
    }
    drop(sender);
    tasks.join_all().await;
    // Otherwise, the stream would keep the output open.
    stream.shutdown().await;
    writer.join_next().await.unwrap_or(Ok(Ok(())))?
}

/// A message that is being sent.
struct Started {
    /// The ID of a request.
    id: Option<String>,
    cancelled: CancellationToken,
    running: Running,
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(id) = &self.id {
            self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        }
    }
}

impl Started {
    /// Parses a message. Returns `None` if there is nothing to send: a cancellation only ends the request here, and the
    /// gateway cancels the call when the connection is closed.
    ///
    /// # Errors
    /// If the message is invalid or ambiguous, or a request with this ID has not ended.
    fn new(text: &str, running: &Running) -> Result<Option<Self>, JsonRpcError> {
        let message = match Messages::read(text.as_bytes())? {
            Messages::Single(message) => message,
            Messages::Batch(_) => {
                let text = "Invalid Request: the gateway accepts one message per line, no batches.";
                return Err(JsonRpcError::new(INVALID_REQUEST, text, None));
            }
        };
        let mut requests = running.lock().unwrap_or_else(PoisonError::into_inner);
        if message.method.as_deref() == Some("notifications/cancelled") {
            let id = message.params.request_id.unwrap_or_default();
            if let Some(cancelled) = requests.get(id) {
                cancelled.cancel();
            }
            return Ok(None);
        }
        let id = message.raw_id.filter(|_| message.kind == MessageKind::Request).map(str::to_owned);
        let cancelled = CancellationToken::new();
        if let Some(id) = &id {
            if requests.contains_key(id) {
                let text = "Invalid Request: a request with this ID has not ended.";
                return Err(JsonRpcError::new(INVALID_REQUEST, text, message.id()));
            }
            requests.insert(id.clone(), cancelled.clone());
        }
        Ok(Some(Self { id, cancelled, running: Arc::clone(running) }))
    }
}

async fn reject(sender: &mpsc::Sender<Vec<u8>>, error: &JsonRpcError) {
    // Fails only if the output is closed, which ends the loop.
    let _ = sender.send(error.to_json().to_string().into_bytes()).await;
}

async fn write(mut messages: mpsc::Receiver<Vec<u8>>, mut output: impl AsyncWrite + Unpin) -> anyhow::Result<()> {
    while let Some(mut message) = messages.recv().await {
        message.push(b'\n');
        output.write_all(&message).await?;
        output.flush().await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::body::{Body, Bytes};
    use axum::response::{IntoResponse, Response};
    use http::StatusCode;
    use serde_json::{Value, json};
    use tokio::io::{AsyncBufReadExt, BufReader};

    use super::*;

    /// Relays messages to a server that sends one of the `responses` per request, and the last one for all further
    /// requests. Returns the messages that the client receives, in any order, and the number of requests.
    async fn relay(responses: Vec<fn(&Value) -> Response>, messages: &[Value]) -> (Vec<Value>, usize) {
        let count = Arc::new(AtomicUsize::new(0));
        let own = Arc::clone(&count);
        let router = axum::Router::new().fallback(move |body: Bytes| {
            let at = own.fetch_add(1, Ordering::SeqCst).min(responses.len() - 1);
            let response = responses[at](&serde_json::from_slice(&body).unwrap());
            async move { response }
        });
        let (endpoint, _server) = serve(router).await;
        let (output, written) = tokio::io::duplex(1 << 20);
        let input: String = messages.iter().map(|message| format!("{message}\n")).collect();
        run(endpoint, input.as_bytes(), written).await.unwrap();
        let (mut answers, mut lines) = (Vec::new(), BufReader::new(output).lines());
        while let Some(line) = lines.next_line().await.unwrap() {
            answers.push(serde_json::from_str(&line).unwrap());
        }
        (answers, count.load(Ordering::SeqCst))
    }

    /// Starts a server, which runs until it is dropped.
    async fn serve(router: axum::Router) -> (Endpoint, JoinSet<std::io::Result<()>>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/gateway/mcp", listener.local_addr().unwrap()).parse().unwrap();
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await });
        (Endpoint::new(url, "wpa_x", None).unwrap(), server)
    }

    fn ok(request: &Value) -> Response {
        // A message that spans several lines.
        let text = format!("{{\"jsonrpc\":\"2.0\",\n\"id\":{},\n\"result\":{{}}}}", request["id"]);
        ([("content-type", "application/json")], text).into_response()
    }

    fn broken(_: &Value) -> Response {
        let chunks = futures::stream::iter([Ok(Bytes::from_static(b": open\n\n")), Err(std::io::Error::other("lost"))]);
        ([("content-type", "text/event-stream")], Body::from_stream(chunks)).into_response()
    }

    fn request(id: u64, method: &str) -> Value {
        json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": { "name": "a" } })
    }

    #[tokio::test]
    async fn a_call_that_may_have_been_processed_is_not_repeated() {
        for lost in [broken, |_: &Value| StatusCode::BAD_GATEWAY.into_response()] {
            let (answers, count) = relay(vec![lost, ok], &[request(1, "tools/call")]).await;
            assert_eq!((answers.len(), count, &answers[0]["error"]["code"]), (1, 1, &json!(-32603)));
            let (answers, count) = relay(vec![lost, ok], &[request(1, "tools/list")]).await;
            assert_eq!((answers, count), (vec![json!({ "jsonrpc": "2.0", "id": 1, "result": {} })], 2));
        }
        let unavailable = |_: &Value| StatusCode::SERVICE_UNAVAILABLE.into_response();
        assert_eq!(relay(vec![unavailable, ok], &[request(1, "tools/call")]).await.1, 2, "it was not processed");
        let unauthorized = |_: &Value| StatusCode::UNAUTHORIZED.into_response();
        let (answers, count) = relay(vec![unauthorized], &[request(1, "tools/list")]).await;
        assert_eq!((answers[0]["id"].clone(), count), (json!(1), 1));
    }

    #[tokio::test]
    async fn the_error_of_a_gateway_that_is_switched_off_is_passed_on() {
        const ERROR: &str =
            r#"{"jsonrpc":"2.0","error":{"code":-31403,"message":"Switched off.","data":{"reason":"gateway_off"}}}"#;
        let off = |_: &Value| (StatusCode::FORBIDDEN, [("content-type", "application/json")], ERROR).into_response();
        let (answers, count) = relay(vec![off], &[request(1, "tools/call")]).await;
        let mut expected: Value = serde_json::from_str(ERROR).unwrap();
        expected["id"] = json!(1);
        assert_eq!((answers, count), (vec![expected], 1));
    }

    #[tokio::test]
    async fn messages_after_the_handshake_contain_its_session_id() {
        let router = axum::Router::new().fallback(|headers: http::HeaderMap, body: Bytes| async move {
            let message: Value = serde_json::from_slice(&body).unwrap();
            let session = headers.get("mcp-session-id").map(|id| id.to_str().unwrap().to_owned());
            let result = json!({ "session": session, "protocolVersion": "2025-11-25" });
            let text = json!({ "jsonrpc": "2.0", "id": message["id"], "result": result }).to_string();
            ([("content-type", "application/json"), ("mcp-session-id", "s1")], text)
        });
        let (endpoint, _server) = serve(router).await;
        let (mut input, read) = tokio::io::duplex(1 << 20);
        let (output, written) = tokio::io::duplex(1 << 20);
        let mut relay = JoinSet::new();
        relay.spawn(run(endpoint, read, written));
        let mut answers = BufReader::new(output).lines();
        for (method, session) in [("initialize", Value::Null), ("ping", json!("s1")), ("initialize", Value::Null)] {
            input.write_all(format!("{}\n", request(1, method)).as_bytes()).await.unwrap();
            let answer: Value = serde_json::from_str(&answers.next_line().await.unwrap().unwrap()).unwrap();
            assert_eq!(answer["result"]["session"], session, "{method}");
        }
    }

    #[tokio::test]
    async fn every_request_is_answered_once() {
        let mut messages: Vec<_> = (0..200).map(|id| request(id, "ping")).collect();
        messages.push(json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
        let (answers, count) = relay(vec![ok], &messages).await;
        let mut ids: Vec<_> = answers.iter().map(|answer| answer["id"].as_u64().unwrap()).collect();
        ids.sort_unstable();
        assert_eq!((ids, count), ((0..200).collect(), 201));
    }
}
