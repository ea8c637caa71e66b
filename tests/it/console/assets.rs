//! Which responses are compressed.

use axum::body::Body;
use http::{Method, Request, header};

use super::ConsoleBrowser;
use crate::app::App;

/// The length of a compressed response reveals its content. Static files are the same for everyone; other responses
/// can contain a secret next to text chosen by an attacker (BREACH).
#[tokio::test]
async fn only_static_files_are_compressed() {
    let app = App::new().await;
    let server = app.org("acme").await.server("acme").await;
    server.walkthrough("Install Acme", &["Download", "Unpack"]).await;
    let browser = ConsoleBrowser::owner(&server.org).await;
    let get = async |path: &str| {
        let accepts = "gzip, deflate, br, zstd";
        let request =
            Request::get(path).header(header::ACCEPT, "text/html, */*").header(header::ACCEPT_ENCODING, accepts);
        browser.send(request.body(Body::empty()).unwrap()).await
    };
    let plain = browser.get_page("/assets/console.css").await;
    assert_eq!((plain.header("content-encoding"), plain.header("vary")), ("", "accept-encoding"));
    let file = get("/assets/console.css").await;
    assert_eq!((file.header("content-encoding"), file.header("vary")), ("gzip", "accept-encoding"));
    let length = |response: &super::ConsoleResponse| response.header("content-length").parse::<usize>().unwrap();
    assert!(length(&file) * 2 < length(&plain), "{} of {}", length(&file), length(&plain));
    for path in [
        "/login",
        "/o/acme",
        "/o/acme/settings",
        "/o/acme/walkthroughs",
        "/api/v1/servers",
        "/api/v1/openapi.json",
        "/nowhere",
    ] {
        assert_eq!(get(path).await.header("content-encoding"), "", "{path}");
    }
    for path in ["/s/acme", "/s/acme/mcp"] {
        let page = app.request(Method::GET, path).header("accept", "text/html").header("accept-encoding", "gzip");
        let page = page.send().await;
        assert_eq!((page.status.as_u16(), page.header("content-encoding")), (200, None), "{path}");
    }
    app.finish().await;
}
