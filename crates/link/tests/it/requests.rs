//! Requests to the daemon.

use std::sync::Arc;

use bytes::Bytes;
use h2::Reason;
use http::{Request, Response, StatusCode};
use tokio::task::JoinHandle;
use waypost_core::id::ToolboxId;
use waypost_link::{Body, BodyError, BoxFuture, Forward, LinkError};
use waypost_link_io::send;

use crate::Control;
use crate::daemon::{Daemon, spawn};

/// The size of a large body, in bytes.
const LARGE: usize = 3_000_000;

async fn open(control: &Control) -> Daemon {
    let (mut daemon, _) = control.link().await;
    daemon.receive().await;
    daemon
}

fn request(control: &Control, request: Request<Bytes>) -> JoinHandle<Result<Response<Body>, LinkError>> {
    let links = control.links.clone();
    spawn(async move { links.request(&Control::toolbox(), request).await })
}

#[tokio::test]
async fn requests_and_responses_are_complete() {
    let control = Control::new();
    let mut daemon = open(&control).await;
    let body = Bytes::from(vec![7; LARGE]);
    let sent =
        Request::post("/v1/instances/ins_1/mcp?a=b").header("waypost-timeout-ms", "5").body(body.clone()).unwrap();
    let response = request(&control, sent);
    let mut call = daemon.call().await;
    assert_eq!(call.request.uri(), "http://toolbox/v1/instances/ins_1/mcp?a=b");
    assert_eq!(call.request.headers()["waypost-timeout-ms"], "5");
    let received = Body::new(call.request.into_body()).read_to_end(LARGE).await.unwrap();
    assert_eq!(received, body);
    let mut stream = call.respond.send_response(Response::new(()), false).unwrap();
    let echo = spawn(async move {
        send(&mut stream, received).await.unwrap();
        stream.send_data(Bytes::new(), true).unwrap();
    });
    let response = response.await.unwrap().unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.into_body().read_to_end(LARGE).await.unwrap(), body);
    echo.await.unwrap();
}

/// Another replica, which answers every request with its path.
struct OtherReplica;

impl Forward for OtherReplica {
    fn forward<'a>(
        &'a self,
        toolbox: &'a ToolboxId,
        request: Request<Bytes>,
    ) -> BoxFuture<'a, Result<Response<Body>, LinkError>> {
        let answer = Bytes::from(format!("{toolbox} {}", request.uri()));
        let chunks = futures::stream::iter([Ok(answer), Ok(Bytes::from_static(b" end"))]);
        Box::pin(async move { Ok(Response::new(Body::forwarded(chunks))) })
    }
}

#[tokio::test]
async fn a_request_without_a_link_is_forwarded() {
    let mut control = Control::new();
    control.links = control.links.with_forward(Arc::new(OtherReplica));
    let forwarded = request(&control, Request::get("/path").body(Bytes::new()).unwrap()).await.unwrap().unwrap();
    assert_eq!(forwarded.into_body().read_to_end(LARGE).await.unwrap(), "tbx_1 /path end");
    let here = control.links.request_here(&Control::toolbox(), Request::new(Bytes::new())).await;
    assert_eq!(here.map(|_| ()), Err(LinkError::Offline), "a forwarded request is not forwarded again");
    let mut daemon = open(&control).await;
    let response = request(&control, Request::new(Bytes::new()));
    daemon.call().await.respond.send_response(Response::new(()), true).unwrap();
    assert!(response.await.unwrap().unwrap().into_body().read_to_end(LARGE).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_error_from_the_daemon_is_a_response() {
    let control = Control::new();
    let mut daemon = open(&control).await;
    let response = request(&control, Request::new(Bytes::new()));
    let mut call = daemon.call().await;
    let mut status = Response::new(());
    *status.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    call.respond.send_response(status, true).unwrap();
    assert_eq!(response.await.unwrap().unwrap().status(), 429);
}

#[tokio::test]
async fn dropping_a_request_or_its_body_cancels_the_call() {
    let control = Control::new();
    let mut daemon = open(&control).await;
    let waiting = request(&control, Request::new(Bytes::new()));
    let call = daemon.call().await;
    waiting.abort();
    assert_eq!(call.cancelled().await, Reason::CANCEL);

    let response = request(&control, Request::new(Bytes::new()));
    let mut call = daemon.call().await;
    let mut stream = call.respond.send_response(Response::new(()), false).unwrap();
    let mut body = response.await.unwrap().unwrap().into_body();
    send(&mut stream, Bytes::from_static(b"first")).await.unwrap();
    assert_eq!(body.chunk().await.unwrap().unwrap(), "first");
    drop(body);
    let reason = std::future::poll_fn(|cx| stream.poll_reset(cx)).await.unwrap();
    assert_eq!(reason, Reason::CANCEL);
}

#[tokio::test]
async fn a_response_that_is_not_read_stops_its_sender_but_not_the_others() {
    let control = Control::new();
    let mut daemon = open(&control).await;
    let mut stalled = Vec::new();
    for _ in 0..100 {
        let response = request(&control, Request::new(Bytes::new()));
        let mut call = daemon.call().await;
        let mut stream = call.respond.send_response(Response::new(()), false).unwrap();
        let sender = spawn(async move {
            let result = send(&mut stream, Bytes::from(vec![0; LARGE])).await;
            let _ = stream.send_data(Bytes::new(), true);
            result
        });
        stalled.push((response.await.unwrap().unwrap().into_body(), sender));
    }
    let response = request(&control, Request::new(Bytes::new()));
    let mut call = daemon.call().await;
    let mut stream = call.respond.send_response(Response::new(()), false).unwrap();
    let sender = spawn(async move {
        send(&mut stream, Bytes::from(vec![1; LARGE])).await.unwrap();
        stream.send_data(Bytes::new(), true).unwrap();
    });
    let body = response.await.unwrap().unwrap().into_body();
    assert_eq!(body.read_to_end(LARGE).await.unwrap().len(), LARGE);
    sender.await.unwrap();
    assert!(stalled.iter().all(|(_, sender)| !sender.is_finished()), "their responses have not been read");
    let (body, sender) = stalled.pop().unwrap();
    assert_eq!(body.read_to_end(LARGE).await.unwrap().len(), LARGE);
    sender.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_response_that_is_cut_off_is_an_error() {
    let control = Control::new();
    let mut daemon = open(&control).await;
    let response = request(&control, Request::new(Bytes::new()));
    let mut call = daemon.call().await;
    let mut stream = call.respond.send_response(Response::new(()), false).unwrap();
    let mut body = response.await.unwrap().unwrap().into_body();
    send(&mut stream, Bytes::from_static(b"first")).await.unwrap();
    assert_eq!(body.chunk().await.unwrap().unwrap(), "first");
    drop(daemon);
    assert_eq!(body.chunk().await, Err(BodyError::Interrupted));
}

#[tokio::test]
async fn bodies_are_limited() {
    let control = Control::new();
    let mut daemon = open(&control).await;
    let response = request(&control, Request::new(Bytes::new()));
    let mut call = daemon.call().await;
    let mut stream = call.respond.send_response(Response::new(()), false).unwrap();
    let body = response.await.unwrap().unwrap().into_body();
    spawn(async move { send(&mut stream, Bytes::from(vec![0; LARGE])).await });
    assert_eq!(body.read_to_end(1_000).await, Err(BodyError::TooLarge));
}

#[tokio::test]
async fn many_requests_run_at_the_same_time() {
    let control = Control::new();
    let mut daemon = open(&control).await;
    let requests: Vec<_> = (0..1_000).map(|_| request(&control, Request::new(Bytes::from_static(b"x")))).collect();
    for _ in 0..1_000 {
        let mut call = daemon.call().await;
        call.respond.send_response(Response::new(()), true).unwrap();
    }
    for request in requests {
        assert_eq!(request.await.unwrap().unwrap().status(), 200);
    }
}
