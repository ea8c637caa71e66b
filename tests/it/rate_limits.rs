//! Rate limits: the caller for which a request is counted, and the limit of new end users.

use axum::body::Body;
use http::{HeaderValue, Method, Request, StatusCode};
use serde_json::json;
use waypost_core::organization::Role;
use waypost_core::personal::PersonalId;
use waypost_core::random::SeededRandom;
use waypost_mcp::limits::LimitOptions;

use crate::app::{App, Server, Setup};
use crate::client::{Client, HttpResponse, RawRequest, ToolResult};
use crate::console::create_key;
use crate::sign_in::create_sign_in_server;

waypost_testkit::both!(extended open => a_session_with_progress_has_its_own_limit, new_end_users_per_address_are_limited);

/// Low limits that a test can exceed quickly.
const FIVE_PER_CALLER: LimitOptions = LimitOptions { per_caller: 5, burst: 5, per_address: 4, per_server: 0 };
/// The number of requests sent at once.
const REQUESTS: usize = 300;
/// A function that creates a request.
type RequestFactory<'a> = Box<dyn Fn() -> RawRequest + 'a>;

async fn open(url: &str) -> App {
    App::open_with(url, setup(FIVE_PER_CALLER)).await
}

/// Returns a setup behind a trusted proxy, so that a test can choose the client address.
fn setup(limits: LimitOptions) -> Setup {
    let trusted_proxies = vec!["192.0.2.0/24".parse().unwrap()];
    Setup { limits, trusted_proxies, new_users: 8, ..Setup::default() }
}

async fn set_up(app: &App) -> Server {
    let server = app.server("acme").await;
    server.walkthrough("Install Acme", &["Download", "Run", "Enjoy"]).await;
    server
}

/// Counts the responses other than 429. Every 429 must have a `Retry-After` header.
fn count_accepted(responses: &[HttpResponse]) -> usize {
    let limited = |response: &&HttpResponse| response.status == 429;
    for response in responses.iter().filter(limited) {
        assert!(response.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1, "{response}");
    }
    responses.iter().filter(|response| response.status != 429).count()
}

/// Sends [`REQUESTS`] requests without advancing the clock.
async fn send_many(request: impl Fn(usize) -> RawRequest) -> Vec<HttpResponse> {
    let mut responses = Vec::new();
    for n in 0..REQUESTS {
        responses.push(request(n).send().await);
    }
    responses
}

fn list_request(client: &Client) -> RawRequest {
    client.request("tools/list", json!({}))
}

async fn select(client: &Client) -> ToolResult {
    client.call("select_walkthrough", json!({ "walkthrough_id": "install-acme" })).await
}

#[tokio::test]
async fn unproven_identities_share_the_limit_of_their_address() {
    let app = App::with(setup(FIVE_PER_CALLER)).await;
    let server = set_up(&app).await;
    let random = SeededRandom::new(9);
    let handles = send_many(|n| {
        let arguments = json!({ "walkthrough_id": "install-acme", "progress_handle": format!("wph_{n}") });
        server.modern().request("tools/list", json!({ "arguments": arguments }))
    });
    assert_eq!(count_accepted(&handles.await), 5, "random handles");
    app.advance_clock(60_000).await;
    assert_eq!(
        count_accepted(&send_many(|n| list_request(&server.personal(&format!("label-{n}")))).await),
        5,
        "random tracking IDs"
    );
    app.advance_clock(60_000).await;
    let personal = send_many(|_| list_request(&server.personal(PersonalId::new(&random).expose()))).await;
    assert_eq!(count_accepted(&personal), 5, "random personal URLs");
    app.advance_clock(60_000).await;
    let network = |n: usize| format!("2001:db8:0:1:{n:x}::{n:x}");
    let many =
        send_many(|n| list_request(&server.personal(&format!("label-{n}"))).header("x-forwarded-for", &network(n)))
            .await;
    assert_eq!(count_accepted(&many), 5, "an IPv6 network is one client");
    let other = list_request(&server.modern()).header("x-forwarded-for", "[2001:db8:0:2::1]:4711").send().await;
    assert_eq!(other.status, 200, "another network has its own limit");
    app.advance_clock(60_000).await;
    let address = |n: usize| format!("198.51.{}.{}:4711", n / 250, n % 250);
    let many = send_many(|n| list_request(&server.personal("ann")).header("x-forwarded-for", &address(n))).await;
    assert_eq!(count_accepted(&many), 5, "one identity has its own limit at every IP address");
    app.finish().await;
}

/// Sessions are free to create, so a session counts as an identity only once it has stored progress.
async fn a_session_with_progress_has_its_own_limit(app: App) {
    let server = set_up(&app).await;
    let mut sessions = Vec::new();
    for _ in 0..5 {
        sessions.push(server.legacy("2025-06-18").connect().await);
    }
    app.advance_clock(60_000).await;
    assert_eq!(
        count_accepted(&send_many(|n| list_request(&sessions[n % 5])).await),
        5,
        "new sessions share the limit of their IP address"
    );
    app.advance_clock(60_000).await;
    for session in &sessions {
        assert_eq!(select(session).await.progress(), "1/3 0%");
    }
    app.advance_clock(60_000).await;
    assert_eq!(
        count_accepted(&send_many(|n| list_request(&sessions[n % 5])).await),
        20,
        "four times the limit of one caller"
    );
    app.advance_clock(60_000).await;
    assert_eq!(count_accepted(&send_many(|_| list_request(&sessions[0])).await), 5, "each session has its own limit");
    assert_eq!(
        list_request(&sessions[1]).send().await.status,
        200,
        "one session does not use up the limit of the others"
    );
    assert_eq!(
        count_accepted(&send_many(|_| list_request(&server.modern())).await),
        5,
        "one session does not use up the limit of new users"
    );
    // Another replica, or this one after a restart, recognises a session after its first call.
    app.finish().await;
}

async fn new_end_users_per_address_are_limited(app: App) {
    let server = set_up(&app).await;
    let users = async |app: &App| app.count("SELECT count(*) FROM end_users").await;
    let mut first = server.modern();
    for n in 0..8 {
        let client = if n == 0 { &mut first } else { &mut server.modern() };
        assert_eq!(
            client.play("select_walkthrough", json!({ "walkthrough_id": "install-acme" })).await.progress(),
            "1/3 0%"
        );
        app.advance_clock(1_000).await;
    }
    for client in [server.modern(), server.personal("label"), server.legacy("2025-06-18").connect().await] {
        let rejected = select(&client).await;
        assert_eq!(rejected.error_code(), "rate_limited");
        assert!(rejected.structured["error"]["retry_after_seconds"].as_u64().unwrap() >= 1, "{rejected}");
        app.advance_clock(1_000).await;
    }
    assert_eq!(users(&app).await, 8);
    assert_eq!(first.call("next_walkthrough_step", json!({})).await.progress(), "2/3 33%", "existing users continue");
    let params = json!({ "name": "select_walkthrough", "arguments": { "walkthrough_id": "install-acme" } });
    let other = server.modern().request("tools/call", params).header("x-forwarded-for", "198.51.100.1").send().await;
    app.count_call();
    assert_eq!(other.result()["isError"], json!(false), "another IP address has its own limit: {other}");
    app.advance_clock(3_600_000 / 8).await;
    assert_eq!(select(&server.modern()).await.progress(), "1/3 0%", "one more after an eighth of an hour");
    assert_eq!(users(&app).await, 10);
    app.finish().await;
}

/// With the default limits, 200 people behind one address can start and continue together.
#[tokio::test]
async fn a_class_of_200_can_share_one_address() {
    let app = App::with(Setup { limits: LimitOptions::default(), ..Setup::default() }).await;
    let server = set_up(&app).await;
    let random = SeededRandom::new(9);
    let class: Vec<Client> = (0..200).map(|_| server.personal(PersonalId::new(&random).expose())).collect();
    // As fast as the limit per address allows: 200 at once, then 100 per second.
    for client in &class {
        assert_eq!(list_request(client).send().await.status, 200);
    }
    app.advance_clock(2_000).await;
    for client in &class {
        assert_eq!(select(client).await.progress(), "1/3 0%");
    }
    // From now on each has a separate limit, and together they stay below the limit per address.
    for at in ["2/3 33%", "3/3 66%", "completed 100%"] {
        for client in &class {
            assert_eq!(client.call("next_walkthrough_step", json!({})).await.progress(), at);
        }
        app.advance_clock(500).await;
    }
    assert_eq!(app.count("SELECT count(*) FROM end_users").await, 200);
    // Uses the rest of the 300 new end users per hour.
    let mut started = 200;
    while select(&server.personal(&format!("late-{started}"))).await.structured["error"].is_null() {
        app.advance_clock(10).await;
        started += 1;
    }
    assert!((300..=305).contains(&started), "{started}");
    app.finish().await;
}

/// Every kind of request to an MCP URL is limited.
#[tokio::test]
async fn requests_other_than_calls_are_limited() {
    let app = App::with(setup(FIVE_PER_CALLER)).await;
    let server = set_up(&app).await;
    let path = server.path();
    let batch = json!([{ "jsonrpc": "2.0", "id": 1, "method": "ping" }]).to_string();
    let modern = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }).to_string();
    let response = json!({ "jsonrpc": "2.0", "id": 1, "result": {} }).to_string();
    let kinds: [(&str, u16, RequestFactory<'_>); 8] = [
        ("GET", 405, Box::new(|| app.request(Method::GET, &path))),
        ("DELETE", 405, Box::new(|| app.request(Method::DELETE, &path))),
        ("no JSON", 400, Box::new(|| app.post(&path, "{"))),
        ("too large", 413, Box::new(|| app.post(&path, vec![b' '; 1_048_577]))),
        ("unknown session", 404, Box::new(|| app.post(&path, modern.clone()).header("mcp-session-id", "x.y"))),
        ("wrong era", 400, Box::new(|| app.post(&path, modern.clone()).header("mcp-protocol-version", "2026-07-28"))),
        ("wrong batch", 400, Box::new(|| app.post(&path, batch.clone()).header("mcp-protocol-version", "2025-06-18"))),
        ("response", 202, Box::new(|| app.post(&path, response.clone()))),
    ];
    for (kind, status, request) in kinds {
        let responses = send_many(|_| request()).await;
        assert_eq!(responses[0].status, status, "{kind}: {}", responses[0]);
        assert_eq!(count_accepted(&responses), 5, "{kind}");
        app.advance_clock(60_000).await;
    }
    app.finish().await;
}

/// All other requests are limited per address: unknown servers, removed endpoints, pages.
#[tokio::test]
async fn requests_outside_mcp_are_limited_per_address() {
    let app = App::with(setup(FIVE_PER_CALLER)).await;
    let server = set_up(&app).await;
    assert_eq!(list_request(&server.modern()).send().await.status, 200, "the server is now cached");
    let paths =
        ["/s/unknown/mcp", "/s/acme/sse", "/login", "/.well-known/oauth-authorization-server/s/acme", "/nowhere"];
    for path in paths {
        app.count_requests("198.51.100.1", 12_000 - 10);
        let send = || app.request(Method::GET, path).header("x-forwarded-for", "198.51.100.1").send();
        for _ in 0..10 {
            assert_ne!(send().await.status, 429, "{path}");
        }
        let limited = send().await;
        assert_eq!(limited.status, 429, "{path}");
        assert!(limited.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1, "{limited}");
        let other = app.request(Method::GET, path).header("x-forwarded-for", "198.51.100.2").send().await;
        assert_ne!(other.status, 429, "{path}");
        app.advance_clock(60_000).await;
    }
    app.finish().await;
}

/// All requests except MCP calls and health probes count towards this limit, on any host.
#[tokio::test]
async fn all_requests_except_mcp_and_probes_share_a_limit() {
    let app = App::with(setup(FIVE_PER_CALLER)).await;
    let server = set_up(&app).await;
    create_sign_in_server(&app, "secure").await;
    assert_eq!(list_request(&server.modern()).send().await.status, 200, "the server is now cached");
    // The requests that created the servers count as well.
    app.advance_clock(60_000).await;
    app.count_requests("192.0.2.7", 12_000 - 1);
    assert_eq!(app.request(Method::GET, "/nowhere").send().await.status, 404);
    let browser = "text/html,*/*";
    let main = "localhost:8080";
    for (method, host, path) in [
        (Method::GET, main, "/login"),
        (Method::GET, main, "/login/with/github"),
        (Method::GET, main, "/logo.png"),
        (Method::HEAD, main, "/s/acme"),
        (Method::GET, main, "/s/ACME"),
        (Method::GET, main, "/s/acme/logo.png"),
        (Method::GET, main, "/s/acme/mcp"),
        (Method::GET, main, "/s/ACME/mcp"),
        (Method::GET, main, "/mcp"),
        (Method::GET, "acme.localhost:8080", "/"),
        (Method::GET, "acme.localhost:8080", "/mcp"),
        (Method::GET, "acme.localhost:8080", "/login"),
        (Method::GET, main, "/s/secure/oauth/sign-in"),
        (Method::GET, main, "/s/secure/oauth/logo.png"),
        (Method::OPTIONS, main, "/s/secure/oauth/token"),
        (Method::OPTIONS, main, "/s/acme/mcp"),
        (Method::DELETE, main, "/.well-known/oauth-authorization-server/s/secure"),
        (Method::PUT, main, "/api/v1/servers"),
        (Method::GET, main, "/api/openapi.json"),
        (Method::GET, "evil.example", "/s/acme"),
        (Method::POST, "evil.example", "/s/acme/mcp"),
    ] {
        let response = app.request(method.clone(), path).header("host", host).header("accept", browser).send().await;
        assert_eq!(response.status, 429, "{method} {host} {path}");
    }
    let mut two_hosts = Request::get("/login").header("host", main).body(Body::empty()).unwrap();
    two_hosts.headers_mut().append("host", HeaderValue::from_static(main));
    assert_eq!(app.send(two_hosts).await.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(app.request(Method::GET, "/healthz").send().await.status, 200);
    assert_eq!(list_request(&server.modern()).send().await.status, 200);
    app.finish().await;
}

#[tokio::test]
async fn a_request_without_a_client_address_is_rejected() {
    let app = App::with(setup(FIVE_PER_CALLER)).await;
    set_up(&app).await;
    for path in ["/s/acme/mcp", "/login", "/api/v1/servers", "/s/acme", "/healthz"] {
        let request = Request::get(path).header("host", "localhost:8080").body(Body::empty()).unwrap();
        assert_eq!(app.send_without_peer(request).await.status(), StatusCode::INTERNAL_SERVER_ERROR, "{path}");
    }
    app.finish().await;
}

/// RFC 9112, section 3.2.
#[tokio::test]
async fn a_request_with_two_host_headers_is_rejected() {
    let app = App::with(setup(FIVE_PER_CALLER)).await;
    set_up(&app).await;
    for path in ["/s/acme/mcp", "/s/acme", "/login", "/api/v1/servers", "/s/acme/oauth/token", "/nowhere", "/healthz"] {
        for second in ["localhost:8080", "evil.example"] {
            let mut request = Request::get(path).header("host", "localhost:8080").body(Body::empty()).unwrap();
            request.headers_mut().append("host", HeaderValue::from_static(second));
            assert_eq!(app.send(request).await.status(), StatusCode::BAD_REQUEST, "{path} {second}");
        }
    }
    app.finish().await;
}

/// Entries of `X-Forwarded-For` written by the client are ignored.
#[tokio::test]
async fn forged_forwarded_entries_are_ignored() {
    let app = App::with(setup(FIVE_PER_CALLER)).await;
    let server = set_up(&app).await;
    for broken in ["unknown", "", "_hidden", "198.51.100.7:port"] {
        let forged = |n: usize| format!("203.0.{}.{}, {broken}, 192.0.2.9", n / 250, n % 250);
        let responses = send_many(|n| list_request(&server.modern()).header("x-forwarded-for", &forged(n))).await;
        assert_eq!(count_accepted(&responses), 5, "{broken:?}: the peer's IP address is used");
        app.advance_clock(60_000).await;
    }
    for entry in ["198.51.100.7:PORT", "[2001:db8::7]:PORT", "198.51.100.7"] {
        let forged = |n: usize| format!("203.0.{}.{}, {}", n / 250, n % 250, entry.replace("PORT", &n.to_string()));
        let responses = send_many(|n| list_request(&server.modern()).header("x-forwarded-for", &forged(n))).await;
        assert_eq!(count_accepted(&responses), 5, "{entry}: the proxy's entry is used");
        assert_eq!(
            list_request(&server.modern()).send().await.status,
            200,
            "{entry}: the peer's IP address is not used"
        );
        app.advance_clock(60_000).await;
    }
    app.finish().await;
}

/// The limit also applies to chunked bodies without a known length.
#[tokio::test]
async fn a_body_over_1_mib_is_rejected_on_every_route() {
    let app = App::new().await;
    let server = create_sign_in_server(&app, "acme").await;
    server.org.server("open").await;
    let key = create_key(&app, &server.org.id, Role::Owner).await;
    let logo = format!("/api/v1/organizations/{}/logo", server.org.id);
    for (method, path) in [
        (Method::POST, "/s/open/mcp"),
        (Method::POST, "/s/acme/oauth/token"),
        (Method::POST, "/s/acme/oauth/register"),
        (Method::POST, "/login"),
        (Method::POST, "/o/acme/settings/logo"),
        (Method::POST, "/api/v1/servers"),
        (Method::POST, "/api/v1/walkthroughs/import?filename=a.md"),
        (Method::PUT, &logo),
        (Method::POST, "/nowhere"),
    ] {
        let status = async |body: Body| {
            let form = path == "/login" || path.ends_with("/token");
            let kind = if form { "application/x-www-form-urlencoded" } else { "application/json" };
            let request = Request::builder()
                .method(&method)
                .uri(path)
                .header("host", "localhost:8080")
                .header("sec-fetch-site", "same-origin")
                .header("authorization", format!("Bearer {key}"))
                .header("content-type", if path.contains("import") { "application/octet-stream" } else { kind });
            app.send(request.body(body).unwrap()).await.status().as_u16()
        };
        assert_ne!(status(Body::from(vec![b'a'; 1_048_576])).await, 413, "{path}");
        assert_eq!(status(Body::from(vec![b'a'; 1_048_577])).await, 413, "{path}");
        if path != "/nowhere" && !path.starts_with("/o/") {
            let pieces = (0..17).map(|_| Ok::<_, std::io::Error>(vec![b'a'; 65_536]));
            assert_eq!(status(Body::from_stream(futures::stream::iter(pieces))).await, 413, "{path}, in chunks");
        }
    }
    app.finish().await;
}
