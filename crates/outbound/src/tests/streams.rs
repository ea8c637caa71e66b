//! Responses that are read as a stream: the same checks as for complete responses, and limits on size and time.

use http::{HeaderMap, Method};
use tokio::time::Instant;

use super::server::{Reply, Server, response};
use super::*;
use crate::{OutboundRequest, StreamLimits, StreamResponse};

const STREAM: StreamLimits =
    StreamLimits { max_bytes: 1024, idle: Duration::from_secs(10), timeout: Duration::from_secs(10) };
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

fn get(url: &Url) -> OutboundRequest {
    OutboundRequest { method: Method::GET, url: url.clone(), headers: HeaderMap::new(), body: Vec::new() }
}

async fn read(mut response: StreamResponse) -> Result<String, Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
    }
    Ok(String::from_utf8(body).unwrap())
}

#[tokio::test]
async fn a_chunk_is_available_before_the_body_is_complete() {
    let server = Server::start("127.0.0.1", |_| Reply::Hold(format!("{CHUNKED}5\r\nfirst\r\n"))).await;
    let request = OutboundRequest { method: Method::POST, body: b"payload".to_vec(), ..get(&server.url("/a?b=c")) };
    let mut response = route_allowing(&["127.0.0.0/8"]).open(request, STREAM).await.unwrap();
    assert_eq!(response.status, 200);
    assert_eq!(&response.chunk().await.unwrap().unwrap()[..], b"first");
    let [request] = &server.received()[..] else { panic!("expected exactly one request") };
    assert!(request.starts_with("POST /a?b=c HTTP/1.1\r\n") && request.ends_with("\r\n\r\npayload"), "{request}");
}

#[tokio::test]
async fn size_idle_time_and_total_time_are_limited() {
    let server = Server::start("127.0.0.1", |request| {
        let kib = format!("400\r\n{}\r\n", "x".repeat(1024));
        match request.split(' ').nth(1).unwrap() {
            "/fits" => Reply::Close(format!("{CHUNKED}{kib}0\r\n\r\n")),
            "/announced" => Reply::Hold("HTTP/1.1 200 OK\r\nContent-Length: 1025\r\n\r\n".to_owned()),
            "/too-large" => Reply::Hold(format!("{CHUNKED}{kib}1\r\nx\r\n")),
            "/silent" => Reply::Hold(String::new()),
            _ => Reply::Hold(format!("{CHUNKED}5\r\nfirst\r\n")),
        }
    })
    .await;
    let outbound = route_allowing(&["127.0.0.0/8"]);
    let body = async |path: &str, limits| read(outbound.open(get(&server.url(path)), limits).await?).await;
    assert_eq!(body("/fits", STREAM).await.unwrap().len(), 1024);
    for path in ["/announced", "/too-large"] {
        let error = body(path, STREAM).await.unwrap_err();
        assert!(matches!(error, Error::TooLarge { limit: 1024, .. }), "{path}: {error:?}");
    }
    let short = Duration::from_millis(100);
    for (path, limits) in [
        ("/silent", StreamLimits { timeout: short, ..STREAM }),
        ("/stalled", StreamLimits { timeout: short, ..STREAM }),
        ("/stalled", StreamLimits { idle: short, ..STREAM }),
    ] {
        let since = Instant::now();
        let error = body(path, limits).await.unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }), "{path}: {error:?}");
        assert!(since.elapsed() < Duration::from_secs(5), "{path}: {:?}", since.elapsed());
    }
}

/// As in the tests of `lookup`: the connection uses the address that was checked, and each connection is checked.
#[tokio::test]
async fn streams_connect_only_to_checked_addresses() {
    let [good, bad] = Server::start_two(["127.0.0.2", "127.0.0.1"], ["checked", "inside"]).await;
    let lookup = Arc::new(ScriptedLookup::new(&[&["127.0.0.2"], &["127.0.0.1"], &["127.0.0.2", "127.0.0.1"]]));
    let outbound = route_with_lookup(policy_allowing(&["127.0.0.2/32"]), lookup);
    let target = url(&format!("http://rebinding.example:{}/", good.port()));
    assert_eq!(read(outbound.open(get(&target), STREAM).await.unwrap()).await.unwrap(), "checked");
    for target in [&target, &target, &bad.url("/"), &url("https://10.1.2.3/"), &url("https://[::1]/")] {
        let error = outbound.open(get(target), STREAM).await.unwrap_err();
        assert!(matches!(error, Error::AddressNotAllowed { .. }), "{target}: {error:?}");
    }
    let error = outbound.open(get(&url("http://8.8.8.8/")), STREAM).await.unwrap_err();
    assert!(matches!(error, Error::HttpNotAllowed { .. }), "{error:?}");
    assert_eq!((good.received().len(), bad.received().len()), (1, 0));
}

#[tokio::test]
async fn redirects_are_returned() {
    let server = Server::start("127.0.0.1", |_| response("307 Temporary", "Location: http://10.0.0.1/\r\n", "")).await;
    let response = route_allowing(&["127.0.0.0/8"]).open(get(&server.url("/")), STREAM).await.unwrap();
    assert_eq!((response.status.as_u16(), response.headers["location"].to_str().unwrap()), (307, "http://10.0.0.1/"));
    assert_eq!(server.received().len(), 1);
}

#[tokio::test]
async fn a_route_without_a_guard_reaches_private_addresses() {
    let server = Server::start("127.0.0.1", |_| response("200 OK", "", "inside")).await;
    let target = server.url("/");
    let route = Route::unguarded(&target).unwrap();
    assert_eq!(read(route.open(get(&target), STREAM).await.unwrap()).await.unwrap(), "inside");
    assert!(route.check_url(&url("http://8.8.8.8/")).is_ok());
    assert!(matches!(route.check_url(&url("file:///etc/passwd")), Err(Error::InvalidUrl { .. })));
    assert_ne!(route.scope(), route_allowing(&[]).scope());
}
