//! The URLs of a server, the allowed hosts and origins, and the limits (contract, section 3).

use http::{Method, StatusCode};
use insta::assert_snapshot;
use serde_json::json;
use waypost_core::server::{AuthType, SignInPolicy, Toolset};
use waypost_mcp::limits::LimitOptions;
use waypost_ops::servers::{self, ServerSettings};

use crate::app::{App, Server, Setup};
use crate::client::HttpResponse;

async fn set_up() -> (App, Server) {
    let app = App::new().await;
    let server = app.server("acme").await;
    server.walkthrough("Install Acme", &["Download", "Run"]).await;
    (app, server)
}

async fn ping(app: &App, host: &str, path: &str) -> HttpResponse {
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
    app.post(path, body.to_string()).header("host", host).send().await
}

#[tokio::test]
async fn a_server_has_a_path_url_and_a_virtual_host_url() {
    let (app, _server) = set_up().await;
    let mut seen = String::new();
    for (host, path) in [
        ("localhost:8080", "/s/acme/mcp"),
        ("127.0.0.1:9999", "/s/acme/mcp"),
        ("[::1]", "/s/acme/mcp"),
        ("acme.localhost:8080", "/mcp"),
        ("ACME.localhost", "/mcp"),
        ("localhost", "/s/ACME/mcp"),
        ("localhost", "/s/acme/t/ann/mcp"),
        ("acme.localhost", "/t/ann/mcp"),
        ("localhost", "/s/nobody/mcp"),
        ("nobody.localhost", "/mcp"),
        ("localhost", "/mcp"),
        ("localhost", "/t/ann/mcp"),
        ("acme.localhost", "/s/acme/mcp"),
        ("acme.localhost", "/s/acme/t/ann/mcp"),
        ("localhost", "/s/acme/mcp/"),
        ("localhost", "/s/acme"),
        ("localhost", "/s/acme%2Fmcp"),
        ("localhost", "/s/%00/mcp"),
        ("localhost", "/s/a'%20OR%201=1--/mcp"),
        ("localhost", "/"),
        ("a.acme.localhost", "/mcp"),
        ("evil.example", "/s/acme/mcp"),
        ("localhost.evil.example", "/s/acme/mcp"),
        ("", "/s/acme/mcp"),
    ] {
        let response = ping(&app, host, path).await;
        seen.push_str(&format!("{host:22} {path:26} {}\n", response.status.as_u16()));
    }
    assert_snapshot!(seen, @r"
    localhost:8080         /s/acme/mcp                200
    127.0.0.1:9999         /s/acme/mcp                200
    [::1]                  /s/acme/mcp                200
    acme.localhost:8080    /mcp                       200
    ACME.localhost         /mcp                       200
    localhost              /s/ACME/mcp                200
    localhost              /s/acme/t/ann/mcp          200
    acme.localhost         /t/ann/mcp                 200
    localhost              /s/nobody/mcp              404
    nobody.localhost       /mcp                       404
    localhost              /mcp                       404
    localhost              /t/ann/mcp                 404
    acme.localhost         /s/acme/mcp                404
    acme.localhost         /s/acme/t/ann/mcp          404
    localhost              /s/acme/mcp/               200
    localhost              /s/acme                    404
    localhost              /s/acme%2Fmcp              404
    localhost              /s/%00/mcp                 404
    localhost              /s/a'%20OR%201=1--/mcp     404
    localhost              /                          405
    a.acme.localhost       /mcp                       421
    evil.example           /s/acme/mcp                421
    localhost.evil.example /s/acme/mcp                421
                           /s/acme/mcp                421
    ");
    let response = app.post("/s/acme/mcp", "{}").without("host").send().await;
    assert_eq!(response.status, 421, "a request without a host is rejected");
    app.finish().await;
}

#[tokio::test]
async fn every_url_reaches_the_same_server() {
    let (app, server) = set_up().await;
    let started = server.modern().play("select_walkthrough", json!({ "walkthrough_id": "install-acme" })).await;
    let handle = started.handle();
    let virtual_host = server.modern().at_host("acme.localhost", "/mcp").with_handle(&handle);
    assert_eq!(virtual_host.call("next_walkthrough_step", json!({})).await.progress(), "2/2 50%");
    let personal = server.personal("ann");
    personal.call("select_walkthrough", json!({ "walkthrough_id": "install-acme" })).await.ok();
    let virtual_host = personal.at_host("acme.localhost", "/t/ann/mcp");
    assert_eq!(virtual_host.call("next_walkthrough_step", json!({})).await.progress(), "2/2 50%");
    assert_eq!(app.count("SELECT count(*) FROM end_users").await, 2);
    app.finish().await;
}

/// RS-9: 421 for an unknown host.
#[tokio::test]
async fn only_the_host_of_a_non_loopback_public_url_is_served() {
    let app = App::with(Setup { public_url: "https://way.example", ..Setup::default() }).await;
    app.server("acme").await;
    for (host, path, status) in [
        ("way.example", "/s/acme/mcp", 200),
        ("acme.way.example", "/mcp", 200),
        ("way.example:443", "/s/acme/mcp", 200),
        ("localhost", "/s/acme/mcp", 421),
        ("127.0.0.1", "/s/acme/mcp", 421),
        ("acme.localhost", "/mcp", 421),
    ] {
        assert_eq!(ping(&app, host, path).await.status, status, "{host}{path}");
    }
    let forwarded = app.post("/mcp", "{}").header("host", "way.example").header("x-forwarded-host", "acme.way.example");
    assert_eq!(forwarded.send().await.status, 404, "the header of an untrusted proxy is ignored");
    for host in ["way.example", "unknown.example", "localhost"] {
        let health = app.request(Method::GET, "/healthz").header("host", host).send().await;
        assert_eq!(health.body, "ok\n", "the health check accepts any host");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_trusted_proxy_can_set_the_host() {
    let trusted_proxies = vec!["192.0.2.0/24".parse().unwrap()];
    let app = App::with(Setup { public_url: "https://way.example", trusted_proxies, ..Setup::default() }).await;
    app.server("acme").await;
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }).to_string();
    let post = app.post("/mcp", body).header("host", "10.0.0.1").header("x-forwarded-host", "acme.way.example");
    assert_eq!(post.send().await.status, 200);
    app.finish().await;
}

#[tokio::test]
async fn an_old_slug_works_until_it_is_released() {
    let (app, server) = set_up().await;
    let mut user = server.modern();
    user.play("select_walkthrough", json!({ "walkthrough_id": "install-acme" })).await.ok();
    server.update(ServerSettings { slug: Some("acme-two".to_owned()), ..ServerSettings::default() }).await;
    for path in ["/s/acme/mcp", "/s/acme-two/mcp"] {
        assert_eq!(ping(&app, "localhost", path).await.status, 200, "{path}");
    }
    assert_eq!(ping(&app, "acme.localhost", "/mcp").await.status, 200);
    let again = user.call("select_walkthrough", json!({ "walkthrough_id": "install-acme" })).await;
    assert!(again.message().starts_with("Resumed"), "handles work after the rename: {again}");
    let info = user.send("server/discover", json!({})).await;
    assert_eq!(info.result()["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], "acme-two");
    servers::release_slug(app.cx(), &app.ops(), &server.org.id, &server.id, "acme").await.unwrap();
    app.refresh().await;
    assert_eq!(ping(&app, "localhost", "/s/acme/mcp").await.status, 404);
    assert_eq!(ping(&app, "acme.localhost", "/mcp").await.status, 404);
    assert_eq!(ping(&app, "localhost", "/s/acme-two/mcp").await.status, 200);
    let new_owner = app.org("other").await.server("acme").await;
    assert_eq!(
        new_owner.modern().list_tools().await,
        Vec::<String>::new(),
        "the new owner of the slug gets no walkthroughs"
    );
    assert_eq!(user.call("list_walkthroughs", json!({})).await.error_code(), "handle_unknown");
    app.finish().await;
}

#[tokio::test]
async fn a_new_server_responds_immediately_and_a_deleted_one_returns_404() {
    let app = App::new().await;
    let org = app.org("acme").await;
    assert_eq!(ping(&app, "localhost", "/s/acme/mcp").await.status, 404);
    let settings = ServerSettings { toolset: Some(Toolset::All), ..ServerSettings::default() };
    let server = servers::create(app.cx(), &app.ops(), &org.id, "acme", &settings).await.unwrap();
    assert_eq!(ping(&app, "localhost", "/s/acme/mcp").await.status, 200, "without waiting for the poll");
    servers::delete(app.cx(), &app.ops(), &org.id, &server.id).await.unwrap();
    app.refresh().await;
    assert_eq!(ping(&app, "localhost", "/s/acme/mcp").await.status, 404);
    app.finish().await;
}

/// RS-9: 403 for an origin that is not allowed.
#[tokio::test]
async fn browsers_can_call_only_from_allowed_origins() {
    let app = App::with(Setup { public_url: "https://way.example", ..Setup::default() }).await;
    let server = app.server("acme").await;
    let allowed_origins = Some(vec!["https://docs.acme.example".to_owned()]);
    server.update(ServerSettings { allowed_origins, ..ServerSettings::default() }).await;
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }).to_string();
    let mut seen = String::new();
    for origin in [
        "https://way.example",
        "https://acme.way.example",
        "https://docs.acme.example",
        "https://other.way.example",
        "http://way.example",
        "http://localhost:3000",
        "https://evil.example",
        "null",
        "",
    ] {
        let post = app.post("/s/acme/mcp", body.clone()).header("host", "way.example").header("origin", origin);
        let response = post.send().await;
        let echoed = response.header("access-control-allow-origin").unwrap_or("-");
        let preflight = app
            .request(Method::OPTIONS, "/s/acme/mcp")
            .header("host", "way.example")
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "content-type,mcp-protocol-version,mcp-session-id")
            .send()
            .await;
        let (preflight, allow) =
            (preflight.status.as_u16(), preflight.header("access-control-allow-origin").unwrap_or("-"));
        seen.push_str(&format!("{origin:26} {} {echoed} | preflight {preflight} {allow}\n", response.status.as_u16()));
    }
    assert_snapshot!(seen, @r"
    https://way.example        200 https://way.example | preflight 200 https://way.example
    https://acme.way.example   200 https://acme.way.example | preflight 200 https://acme.way.example
    https://docs.acme.example  200 https://docs.acme.example | preflight 200 https://docs.acme.example
    https://other.way.example  403 - | preflight 403 -
    http://way.example         403 - | preflight 403 -
    http://localhost:3000      403 - | preflight 403 -
    https://evil.example       403 - | preflight 403 -
    null                       403 - | preflight 403 -
                               403 - | preflight 403 -
    ");
    let preflight = app
        .request(Method::OPTIONS, "/mcp")
        .header("host", "acme.way.example")
        .header("origin", "https://acme.way.example")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,mcp-param-x")
        .send()
        .await;
    assert_eq!(preflight.header("access-control-allow-headers"), Some("authorization,mcp-param-x"));
    assert_eq!(preflight.header("access-control-allow-methods"), Some("POST"));
    assert_eq!(preflight.header("access-control-allow-credentials"), None, "the endpoint uses no cookies");
    let request = app.post("/s/acme/mcp", body).header("host", "way.example").header("origin", "https://way.example");
    let exposed = request.send().await.header("access-control-expose-headers").unwrap().to_lowercase();
    assert!(exposed.contains("mcp-session-id") && exposed.contains("www-authenticate"), "{exposed}");
    app.finish().await;
}

/// RS-10 of docs/sign-in.md: browsers send preflight requests without a token.
#[tokio::test]
async fn rs10_the_preflight_needs_no_token() {
    const HEADERS: &str = "authorization,content-type,mcp-protocol-version,mcp-method,mcp-name,mcp-session-id,\
                           last-event-id,mcp-param-x";
    let (app, server) = set_up().await;
    let (auth_type, sign_in) = (Some(AuthType::PlatformOauth), Some(SignInPolicy::OnConnect));
    server.update(ServerSettings { auth_type, sign_in, ..ServerSettings::default() }).await;
    for path in [server.path(), "/s/acme/t/ann/mcp".to_owned()] {
        let preflight = app
            .request(Method::OPTIONS, &path)
            .header("origin", "http://localhost:3000")
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", HEADERS)
            .send()
            .await;
        assert_eq!(preflight.status, StatusCode::OK);
        assert_eq!(preflight.header("access-control-allow-origin"), Some("http://localhost:3000"));
        assert_eq!(preflight.header("access-control-allow-headers"), Some(HEADERS));
    }
    app.finish().await;
}

#[tokio::test]
async fn loopback_origins_are_allowed_while_the_public_url_is_loopback() {
    let (app, _server) = set_up().await;
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }).to_string();
    for (origin, status) in [
        ("http://localhost:6274", 200),
        ("http://127.0.0.1:3000", 200),
        ("http://acme.localhost:8080", 200),
        ("http://evil.example", 403),
        ("http://localhost.evil.example", 403),
    ] {
        let response = app.post("/s/acme/mcp", body.clone()).header("origin", origin).send().await;
        assert_eq!(response.status, status, "{origin}");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_tracking_id_has_at_most_128_allowed_characters() {
    let (app, _server) = set_up().await;
    let longest = "a".repeat(128);
    for id in ["a", "Ann.Smith_1~2-3", longest.as_str()] {
        assert_eq!(ping(&app, "localhost", &format!("/s/acme/t/{id}/mcp")).await.status, 200, "{id}");
    }
    let too_long = "a".repeat(129);
    for id in ["", "a%20b", "a%2Fb", "%00", "a+b", "a@b", "%C3%A9", "a;b", too_long.as_str()] {
        assert_eq!(ping(&app, "localhost", &format!("/s/acme/t/{id}/mcp")).await.status, 404, "{id}");
    }
    assert_eq!(ping(&app, "localhost", "/s/acme/t/%41nn/mcp").await.status, 200, "escapes are decoded");
    app.finish().await;
}

#[tokio::test]
async fn a_body_over_1_mib_is_rejected() {
    let (app, _server) = set_up().await;
    let body_of = |bytes: usize| {
        let empty = r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":""}}"#;
        empty.replace("\"\"", &format!("\"{}\"", "a".repeat(bytes - empty.len())))
    };
    let largest = app.post("/s/acme/mcp", body_of(1_048_576)).send().await;
    assert_eq!(largest.status, 200);
    let too_large = app.post("/s/acme/mcp", body_of(1_048_577)).send().await;
    assert_snapshot!(too_large, @r#"
    413 {
      "jsonrpc": "2.0",
      "error": {
        "code": -32600,
        "message": "The body is larger than 1048576 bytes."
      }
    }
    "#);
    app.finish().await;
}

/// Sends pings until one is rate limited, and returns that response.
async fn ping_until_limited(app: &App, path: &str) -> HttpResponse {
    for _ in 0..1_000 {
        let response = ping(app, "localhost", path).await;
        if response.status == 429 {
            return response;
        }
        assert_eq!(response.status, 200);
    }
    panic!("the rate limit is never reached");
}

#[tokio::test]
async fn each_caller_has_a_rate_limit() {
    let limits = LimitOptions { per_caller: 1, burst: 3, ..LimitOptions::OFF };
    let trusted_proxies = vec!["192.0.2.0/24".parse().unwrap()];
    let app = App::with(Setup { limits, trusted_proxies, ..Setup::default() }).await;
    let server = app.server("acme").await;
    server.walkthrough("Install Acme", &["Download", "Run"]).await;
    for _ in 0..3 {
        assert_eq!(ping(&app, "localhost", "/s/acme/mcp").await.status, 200, "the burst is accepted");
    }
    let rejected = ping_until_limited(&app, "/s/acme/mcp").await;
    assert!(rejected.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    assert_snapshot!(rejected, @r#"
    429 {
      "jsonrpc": "2.0",
      "id": 1,
      "error": {
        "code": -31029,
        "message": "Too many calls. Try again after the time in Retry-After."
      }
    }
    "#);
    let ann = server.personal("ann").request("tools/list", json!({})).header("x-forwarded-for", "198.51.100.1");
    assert_eq!(ann.send().await.result()["tools"].as_array().unwrap().len(), 5, "each caller has a separate limit");
    app.advance_clock(60_000).await;
    ping_until_limited(&app, "/s/acme/t/bob/mcp").await;
    ping_until_limited(&app, "/s/acme/t/bob/mcp").await;
    app.stop().await;
    let counts = "SELECT (minute - 29916666) || ' ' || reason || ' ' || count FROM refused_calls ORDER BY minute";
    assert_snapshot!(app.query_lines(counts).await, @r"
    0 rate_limited 1
    1 rate_limited 2
    ");
    app.finish().await;
}

#[tokio::test]
async fn a_server_can_have_a_total_rate_limit() {
    let limits = LimitOptions { per_server: 2, ..LimitOptions::OFF };
    let app = App::with(Setup { limits, ..Setup::default() }).await;
    let org = app.org("acme").await;
    org.server("acme").await;
    org.server("other").await;
    ping_until_limited(&app, "/s/acme/t/a/mcp").await;
    assert_eq!(ping(&app, "localhost", "/s/other/mcp").await.status, 200);
    app.finish().await;
}

#[tokio::test]
async fn clients_behind_a_trusted_proxy_have_separate_limits() {
    let limits = LimitOptions { per_caller: 1, burst: 1, ..LimitOptions::OFF };
    let trusted_proxies = vec!["192.0.2.0/24".parse().unwrap()];
    let app = App::with(Setup { limits, trusted_proxies, ..Setup::default() }).await;
    app.server("acme").await;
    let ping_for = async |forwarded: &str| {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }).to_string();
        app.post("/s/acme/mcp", body).header("x-forwarded-for", forwarded).send().await.status
    };
    let mut rejected = false;
    for _ in 0..1_000 {
        // Entries written by the client come before the entry of the proxy.
        rejected = ping_for("1.2.3.4, 198.51.100.1, 192.0.2.9").await == 429;
        if rejected {
            break;
        }
    }
    assert!(rejected);
    assert_eq!(ping_for("198.51.100.2").await, 200);
    app.finish().await;
}

#[tokio::test]
async fn a_batch_that_hits_the_limit_keeps_earlier_responses() {
    let limits = LimitOptions { per_caller: 1, burst: 3, ..LimitOptions::OFF };
    let app = App::with(Setup { limits, ..Setup::default() }).await;
    app.server("acme").await;
    let ping = |id: usize| json!({ "jsonrpc": "2.0", "id": id, "method": "ping" });
    let mut rejected = 0;
    for _ in 0..100 {
        let batch = json!((0..50).map(ping).collect::<Vec<_>>()).to_string();
        let response = app.post("/s/acme/mcp", batch).send().await;
        if response.status == 429 {
            rejected += 1;
            break;
        }
        let responses = response.json().as_array().unwrap();
        assert_eq!(responses.len(), 50, "one response for each request");
        assert!(responses[0]["result"].is_object(), "{response}");
        rejected += responses.iter().filter(|response| response["error"]["code"] == -31_029).count();
    }
    assert!(rejected > 0);
    app.stop().await;
    app.finish().await;
}
