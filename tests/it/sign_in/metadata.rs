//! Metadata: RS-3, AS-1, AS-2.

use http::header;
use serde_json::json;
use waypost_auth::client::document::availability::ClientDocumentsMode;

use super::{EndUserBrowser, OauthClient, create_sign_in_server};
use crate::app::{App, Setup, open};

waypost_testkit::both!(extended open => servers_without_sign_in_have_no_metadata);

async fn servers_without_sign_in_have_no_metadata(app: App) {
    app.server("plain").await;
    let browser = EndUserBrowser::new(&app);
    for path in [
        "/.well-known/oauth-protected-resource/s/plain/mcp",
        "/.well-known/oauth-authorization-server/s/plain",
        "/.well-known/openid-configuration/s/plain",
        "/.well-known/oauth-authorization-server/s/nobody",
        "/.well-known/oauth-authorization-server",
        "/s/plain/oauth/authorize",
    ] {
        assert_eq!(browser.get(path).await.status, 404, "{path}");
    }
    app.finish().await;
}

#[tokio::test]
async fn client_documents_can_be_switched_off() {
    let app = App::with(Setup { client_documents: ClientDocumentsMode::Off, ..Setup::default() }).await;
    let server = create_sign_in_server(&app, "acme").await;
    let browser = EndUserBrowser::new(&app);
    let metadata = browser.get("/.well-known/oauth-authorization-server/s/acme").await.json();
    assert_eq!(metadata["client_id_metadata_document_supported"], false);
    let client = OauthClient::register(&server).await;
    assert_eq!(browser.get(&client.authorize_path(&[])).await.status, 303, "a registered client");
    let rejected = browser.get(&client.authorize_path(&[("client_id", "https://client.example/client.json")])).await;
    assert_eq!(rejected.status, 400);
    assert!(rejected.body.contains("does not accept client metadata documents"), "{}", rejected.body);
    assert!(rejected.body.contains("must register with this server instead"), "{}", rejected.body);
    app.finish().await;
}

/// AS-1 and AS-2: the issuer equals, byte for byte, the value from which clients derive the metadata URL.
#[tokio::test]
async fn authorization_server_metadata_matches_the_requested_issuer() {
    let app = App::new().await;
    create_sign_in_server(&app, "acme").await;
    let browser = EndUserBrowser::new(&app);
    let response = browser.get("/.well-known/oauth-authorization-server/s/acme").await;
    assert_eq!(
        response.json(),
        json!({
            "issuer": "http://localhost:8080/s/acme",
            "authorization_endpoint": "http://localhost:8080/s/acme/oauth/authorize",
            "token_endpoint": "http://localhost:8080/s/acme/oauth/token",
            "registration_endpoint": "http://localhost:8080/s/acme/oauth/register",
            "revocation_endpoint": "http://localhost:8080/s/acme/oauth/revoke",
            "scopes_supported": ["walk", "walk:read"],
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "token_endpoint_auth_methods_supported": ["none", "client_secret_basic", "client_secret_post"],
            "revocation_endpoint_auth_methods_supported": ["none", "client_secret_basic", "client_secret_post"],
            "code_challenge_methods_supported": ["S256"],
            "prompt_values_supported": ["none", "login", "consent"],
            "authorization_response_iss_parameter_supported": true,
            "client_id_metadata_document_supported": true,
        })
    );
    for path in ["/.well-known/openid-configuration/s/acme", "/s/acme/.well-known/openid-configuration"] {
        assert_eq!(browser.get(path).await.json(), response.json(), "{path}");
    }
    app.finish().await;
}

/// RS-3: `resource` is exactly the URL whose metadata is requested: a path URL, a virtual host URL or a personal URL.
/// All origins are allowed.
#[tokio::test]
async fn each_resource_url_has_its_own_metadata() {
    let app = App::with(Setup { public_url: "https://way.example", ..Setup::default() }).await;
    create_sign_in_server(&app, "acme").await;
    for (host, path, resource, issuer) in [
        ("way.example", "/s/acme/mcp", "https://way.example/s/acme/mcp", "https://way.example/s/acme"),
        ("way.example", "/s/acme/t/ann/mcp", "https://way.example/s/acme/t/ann/mcp", "https://way.example/s/acme"),
        ("acme.way.example", "/mcp", "https://acme.way.example/mcp", "https://acme.way.example"),
        ("acme.way.example", "", "https://acme.way.example/mcp", "https://acme.way.example"),
        ("acme.way.example", "/t/a~b/mcp", "https://acme.way.example/t/a~b/mcp", "https://acme.way.example"),
    ] {
        let uri = format!("/.well-known/oauth-protected-resource{path}");
        let request = http::Request::get(uri).header(header::HOST, host).header(header::ORIGIN, "https://any.example");
        let response = super::send(&app, request.body(axum::body::Body::empty()).unwrap()).await;
        assert_eq!(response.header(header::ACCESS_CONTROL_ALLOW_ORIGIN), "*");
        assert_eq!(
            response.json(),
            json!({
                "resource": resource,
                "resource_name": "acme",
                "authorization_servers": [issuer],
                "scopes_supported": ["walk"],
                "bearer_methods_supported": ["header"],
            })
        );
        let well_known = if path.starts_with("/s/") {
            "/.well-known/oauth-authorization-server/s/acme"
        } else {
            "/.well-known/oauth-authorization-server"
        };
        let request = http::Request::get(well_known).header(header::HOST, host);
        let metadata = super::send(&app, request.body(axum::body::Body::empty()).unwrap()).await.json();
        assert_eq!(metadata["issuer"], issuer, "AS-1");
        for endpoint in ["authorization_endpoint", "token_endpoint", "registration_endpoint", "revocation_endpoint"] {
            assert!(metadata[endpoint].as_str().unwrap().starts_with(&format!("{issuer}/oauth/")), "AS-15: https");
        }
    }
    app.finish().await;
}
