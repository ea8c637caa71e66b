//! Dynamic registration (RFC 7591): AS-8.

use serde_json::json;

use super::{CALLBACK, create_sign_in_server, oauth_path, post_json};
use crate::app::{App, open};

waypost_testkit::both!(extended open => registration_returns_the_client_metadata, invalid_registrations_are_rejected);

async fn registration_returns_the_client_metadata(app: App) {
    let server = create_sign_in_server(&app, "acme").await;
    let metadata = json!({
        "client_name": "  Evil\u{202e}name\n",
        "redirect_uris": [CALLBACK],
        "application_type": "native",
        "token_endpoint_auth_method": "none",
        "grant_types": ["authorization_code", "refresh_token", "something"],
        "response_types": ["code"],
        "logo_uri": "https://example.com/logo.svg",
        "unknown": { "a": 1 },
    });
    let response = post_json(&app, &oauth_path(&server, "register"), &metadata).await;
    assert_eq!(response.status, 201);
    let mut client = response.json();
    let id = client["client_id"].take();
    assert!(id.as_str().unwrap().starts_with("client_"), "{id}");
    assert_eq!(
        client,
        json!({
            "client_id": null,
            "client_id_issued_at": 1_795_000_000,
            "client_name": "Evilname",
            "redirect_uris": [CALLBACK],
            "application_type": "native",
            "token_endpoint_auth_method": "none",
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
        })
    );
    let confidential =
        post_json(&app, &oauth_path(&server, "register"), &json!({ "redirect_uris": [CALLBACK] })).await.json();
    assert_eq!(confidential["token_endpoint_auth_method"], "client_secret_basic", "RFC 7591, section 2");
    assert!(confidential["client_secret"].as_str().unwrap().len() > 30);
    assert_eq!(confidential["client_secret_expires_at"], 0);
    app.finish().await;
}

async fn invalid_registrations_are_rejected(app: App) {
    let server = create_sign_in_server(&app, "acme").await;
    let uri = "invalid_redirect_uri";
    let metadata = "invalid_client_metadata";
    for (body, code) in [
        (json!({}), uri),
        (json!({ "redirect_uris": [] }), uri),
        (json!({ "redirect_uris": vec![CALLBACK; 21] }), uri),
        (json!({ "redirect_uris": ["http://app.example/cb"] }), uri),
        (json!({ "redirect_uris": [CALLBACK, "javascript:alert(1)"] }), uri),
        (json!({ "redirect_uris": ["https://app.example/cb#x"] }), uri),
        (json!({ "redirect_uris": ["myapp://callback"] }), uri),
        (json!({ "redirect_uris": ["cursor://evil.example/callback"] }), uri),
        (json!({ "redirect_uris": ["https://app.example;sandbox/cb"] }), uri),
        (json!({ "redirect_uris": [CALLBACK], "token_endpoint_auth_method": "private_key_jwt" }), metadata),
        (json!({ "redirect_uris": [CALLBACK], "grant_types": ["client_credentials"] }), metadata),
        (json!({ "redirect_uris": [CALLBACK], "response_types": ["token"] }), metadata),
        (json!({ "redirect_uris": [CALLBACK], "application_type": "toaster" }), metadata),
        (json!({ "redirect_uris": "x" }), metadata),
        (json!([1]), metadata),
    ] {
        let response = post_json(&app, &oauth_path(&server, "register"), &body).await;
        assert_eq!(response.error(), (400, code.to_owned()), "{body}");
    }
    assert_eq!(app.count("SELECT count(*) FROM oauth_clients").await, 0);
    let mut last = 201;
    for _ in 0..400 {
        let body = json!({ "redirect_uris": [CALLBACK] });
        last = post_json(&app, &oauth_path(&server, "register"), &body).await.status.as_u16();
        if last != 201 {
            break;
        }
    }
    assert_eq!(last, 429, "registrations are limited per IP address");
    app.finish().await;
}
