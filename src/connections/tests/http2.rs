//! HTTP/2: the same limits as for HTTP/1, and those specific to it.

use http_body_util::{BodyExt, Empty, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::TokioExecutor;
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::task::JoinHandle;

use super::*;

type Requests = SendRequest<http_body_util::combinators::BoxBody<Bytes, Infallible>>;

async fn connect(port: &Port) -> (Requests, JoinHandle<hyper::Result<()>>) {
    let io = TokioIo::new(port.open(HERE).0);
    let (requests, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    (requests, tokio::spawn(connection))
}

fn request(path: &str) -> Request<http_body_util::combinators::BoxBody<Bytes, Infallible>> {
    Request::get(format!("http://a{path}")).body(Empty::new().boxed()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let port = Port::new(limits());
    let (mut requests, connection) = connect(&port).await;
    let response = requests.send_request(request("/")).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
    let since = Instant::now();
    connection.await.unwrap().unwrap();
    assert_eq!(since.elapsed().as_secs(), 75);

    let (mut requests, connection) = connect(&port).await;
    let _stream = requests.send_request(request("/silent")).await.unwrap();
    tokio::time::sleep(5 * HOUR).await;
    assert!(!connection.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stalls_is_rejected() {
    let port = Port::new(limits());
    let (mut requests, connection) = connect(&port).await;
    let body = http_body_util::StreamBody::new(
        futures::stream::iter([Ok(http_body::Frame::data(Bytes::from_static(b"x")))]).chain(futures::stream::pending()),
    );
    let upload = Request::post("http://a/length").body(BodyExt::boxed(body)).unwrap();
    let since = Instant::now();
    let response = requests.send_request(upload).await.unwrap();
    assert_eq!((response.status(), since.elapsed().as_secs()), (StatusCode::REQUEST_TIMEOUT, 5));
    assert!(!connection.is_finished(), "other requests of the connection continue");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_accept_its_response_is_disconnected() {
    let port = Port::new(limits());
    let io = TokioIo::new(port.open(HERE).0);
    let mut client = http2::Builder::new(TokioExecutor::new());
    let (mut requests, connection) = client.initial_stream_window_size(1_000).handshake(io).await.unwrap();
    let connection = tokio::spawn(connection);
    let response = requests.send_request(request("/large")).await.unwrap();
    let since = Instant::now();
    let _ = connection.await.unwrap();
    assert_eq!(since.elapsed().as_secs(), 60);
    drop(response);
}

#[tokio::test(start_paused = true)]
async fn the_number_of_concurrent_requests_is_limited() {
    let running = Arc::new(AtomicU8::new(0));
    let mut limits = limits();
    limits.http2_streams = 3;
    let port = Port::new(limits);
    let (requests, _connection) = connect(&port).await;
    let mut open = Vec::new();
    for _ in 0..10 {
        let (mut requests, running) = (requests.clone(), Arc::clone(&running));
        open.push(tokio::spawn(async move {
            let response = requests.send_request(request("/silent")).await;
            running.fetch_add(1, Ordering::SeqCst);
            response
        }));
    }
    tokio::time::sleep(SECOND).await;
    assert_eq!(running.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_cancels_its_requests_is_disconnected() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let port = Port::new(limits());
    let (mut requests, connection) = connect(&port).await;
    let mut cancelled = 0;
    while !connection.is_finished() && cancelled < 1_000 {
        let _ = tokio::time::timeout(Duration::from_millis(1), requests.send_request(request("/never"))).await;
        cancelled += 1;
    }
    assert!((100..=110).contains(&cancelled), "{cancelled}");
    let text = recorder.handle().render();
    assert!(text.contains(r#"waypost_connections_closed_total{port="main",reason="resets"} 1"#), "{text}");

    let (mut requests, connection) = connect(&port).await;
    for _ in 0..300 {
        let response = requests.send_request(request("/")).await.unwrap();
        response.into_body().collect().await.unwrap();
        let _ = tokio::time::timeout(Duration::from_millis(1), requests.send_request(request("/never"))).await;
        let response = requests.send_request(request("/")).await.unwrap();
        response.into_body().collect().await.unwrap();
    }
    assert!(!connection.is_finished(), "a client that also reads responses may cancel requests without limit");
}

#[tokio::test(start_paused = true)]
async fn a_header_list_that_is_too_large_is_rejected_with_431() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let port = Port::new(limits());
    let (mut requests, _connection) = connect(&port).await;
    let mut large = request("/");
    large.headers_mut().insert("cookie", "a".repeat(40_000).parse().unwrap());
    // The client library respects the announced limit, which is higher than the enforced one.
    let response = requests.send_request(large).await.unwrap();
    assert_eq!(response.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    let text = recorder.handle().render();
    assert!(text.contains(r#"waypost_requests_rejected_total{port="main",reason="header_size"} 1"#), "{text}");
    let full = Request::post("http://a/length").body(Full::from("four").boxed()).unwrap();
    let response = requests.send_request(full).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "4");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_violates_the_protocol_is_disconnected_and_counted() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let mut client = Port::new(limits()).open(HERE);
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    // A SETTINGS frame, and a DATA frame on a stream that was never opened (RFC 9113, section 5.1).
    client.send([0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
    client.send([0, 0, 1, 0, 0, 0, 0, 0, 1, 0]).await;
    let mut response = Vec::new();
    client.0.read_to_end(&mut response).await.unwrap();
    let text = recorder.handle().render();
    assert!(text.contains(r#"waypost_connections_closed_total{port="main",reason="protocol_error"} 1"#), "{text}");
}

/// The library rejects requests beyond the announced limit. A client that continues is disconnected.
#[tokio::test(start_paused = true)]
async fn a_client_that_exceeds_the_number_of_requests_is_disconnected_and_counted() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let limits = ConnectionLimits { http2_streams: 3, ..limits() };
    let refused = limits.http2_resets + 1;
    let mut client = Port::new(limits).open(HERE);
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    client.send([0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
    // GET http://a/never (RFC 7541, section 6).
    let head = [b"\x82\x86\x01\x01a\x04\x06", &b"/never"[..]].concat();
    for stream in 0..3 + refused {
        let length = u8::try_from(head.len()).unwrap();
        let frame = [&[0, 0, length, 1, 0x5][..], &(2 * stream + 1).to_be_bytes(), &head].concat();
        assert!(client.0.write_all(&frame).await.is_ok(), "{stream}");
    }
    let mut response = Vec::new();
    client.0.read_to_end(&mut response).await.unwrap();
    let reset = [0, 0, 4, 3, 0];
    let resets = response.windows(reset.len()).filter(|bytes| *bytes == reset).count();
    assert_eq!(resets, usize::try_from(refused - 1).unwrap());
    let text = recorder.handle().render();
    assert!(text.contains(r#"waypost_connections_closed_total{port="main",reason="protocol_error"} 1"#), "{text}");
}
