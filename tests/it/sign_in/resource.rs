//! Tokens at MCP URLs: RS-1, RS-2, RS-4, RS-5, RS-8.

use http::{Request, header};
use serde_json::json;
use waypost_core::server::{AuthType, SignInPolicy};
use waypost_ops::servers::ServerSettings;

use super::{EndUserBrowser, OauthClient, Tokens, call_tool, create_sign_in_server, send, start_walkthrough};
use crate::app::{App, open};

waypost_testkit::both!(extended open =>
    a_token_is_invalid_on_other_servers,
    a_user_continues_in_every_client,
    an_access_token_expires_after_an_hour,
    changing_the_sign_in_method_invalidates_tokens,
);

const CHALLENGE: &str = "Bearer resource_metadata=\"http://localhost:8080/.well-known/oauth-protected-resource/s/acme/mcp\", scope=\"walk\"";

/// RS-5: neither servers of the same organisation nor those of another accept the token.
async fn a_token_is_invalid_on_other_servers(app: App) {
    let server = create_sign_in_server(&app, "acme").await;
    let sibling = server.org.server("acme-two").await;
    super::require_sign_in(&sibling).await;
    let foreign = create_sign_in_server(&app, "other").await;
    let client = OauthClient::register(&server).await;
    let (browser, _) = EndUserBrowser::signed_in(&server, "anna").await;
    let tokens = client.get_tokens(&browser).await;
    assert_eq!(start_walkthrough(&server, Some(&tokens.access)).await.status, 200);
    for other in [&sibling, &foreign] {
        let response = call_tool(other, Some(&tokens.access), "list_walkthroughs", json!({})).await;
        assert_eq!(response.status, 401);
        assert!(response.header(header::WWW_AUTHENTICATE).contains("error=\"invalid_token\""));
    }
    // A refresh token is not accepted as an access token.
    assert_eq!(start_walkthrough(&server, Some(&tokens.refresh)).await.status, 401);
    app.finish().await;
}

/// An end user keeps their progress across the clients of a server.
async fn a_user_continues_in_every_client(app: App) {
    let server = create_sign_in_server(&app, "acme").await;
    let (laptop, desktop) = (OauthClient::register(&server).await, OauthClient::register(&server).await);
    let (browser, anna) = EndUserBrowser::signed_in(&server, "anna").await;
    let (elsewhere, also_anna) = EndUserBrowser::signed_in(&server, "anna").await;
    let (other_user, bea) = EndUserBrowser::signed_in(&server, "bea").await;
    assert_eq!(anna, also_anna);
    assert_ne!(anna, bea);
    let laptop = laptop.get_tokens(&browser).await.access;
    let response = start_walkthrough(&server, Some(&laptop)).await.json();
    assert_eq!(response["result"]["structuredContent"]["progress_handle"], json!(null));
    call_tool(&server, Some(&laptop), "next_walkthrough_step", json!({})).await;
    let on_desktop = desktop.get_tokens(&elsewhere).await.access;
    let position = async |token: &str| {
        start_walkthrough(&server, Some(token)).await.json()["result"]["structuredContent"]["step"]["position"].clone()
    };
    assert_eq!(position(&on_desktop).await, 2);
    let their_token = desktop.get_tokens(&other_user).await.access;
    assert_eq!(position(&their_token).await, 1);
    app.finish().await;
}

async fn an_access_token_expires_after_an_hour(app: App) {
    let server = create_sign_in_server(&app, "acme").await;
    let client = OauthClient::register(&server).await;
    let (browser, _) = EndUserBrowser::signed_in(&server, "anna").await;
    let tokens = client.get_tokens(&browser).await;
    app.advance_clock(60 * 60 * 1_000 - 1).await;
    assert_eq!(start_walkthrough(&server, Some(&tokens.access)).await.status, 200);
    app.advance_clock(1).await;
    assert_eq!(start_walkthrough(&server, Some(&tokens.access)).await.status, 401);
    app.finish().await;
}

/// Changing the sign-in method invalidates existing tokens. A browser session of another issuer is not accepted.
async fn changing_the_sign_in_method_invalidates_tokens(app: App) {
    let server = create_sign_in_server(&app, "acme").await;
    let client = OauthClient::register(&server).await;
    let (browser, _) = EndUserBrowser::signed_in(&server, "anna").await;
    let tokens = client.get_tokens(&browser).await;
    server.update(ServerSettings { auth_type: Some(AuthType::None), ..ServerSettings::default() }).await;
    super::require_sign_in(&server).await;
    assert_eq!(start_walkthrough(&server, Some(&tokens.access)).await.status, 401);
    assert_eq!(client.refresh(&tokens.refresh).await.error().1, "invalid_grant");
    let elsewhere = EndUserBrowser::new(&app);
    elsewhere.sign_in_with_issuer(&server, "https://id.example", "anna").await;
    let response = elsewhere.get(&client.authorize_path(&[])).await;
    assert!(response.location().starts_with("/s/acme/oauth/sign-in"), "{}", response.location());
    Tokens::from_response(&client.exchange(&client.get_code(&browser, &[]).await).await);
    app.finish().await;
}

/// RS-1 and RS-2: 401 only if the call needs an identity, and always for an invalid token.
#[tokio::test]
async fn a_token_is_required_where_identity_is_needed() {
    let app = App::new().await;
    let server = create_sign_in_server(&app, "acme").await;
    for tool in ["select_walkthrough", "next_walkthrough_step", "get_walkthrough_status", "reset_walkthrough_progress"]
    {
        let response = call_tool(&server, None, tool, json!({ "walkthrough_id": "install-acme" })).await;
        assert_eq!((response.status.as_u16(), response.header(header::WWW_AUTHENTICATE)), (401, CHALLENGE), "{tool}");
        assert!(response.json()["error"]["data"].is_null() && response.json()["result"].is_null());
    }
    assert_eq!(call_tool(&server, None, "list_walkthroughs", json!({})).await.status, 200);
    let invalid = format!("{CHALLENGE}, error=\"invalid_token\"");
    for token in ["nonsense", "wpt_0000", ""] {
        let response = call_tool(&server, Some(token), "list_walkthroughs", json!({})).await;
        assert_eq!((response.status.as_u16(), response.header(header::WWW_AUTHENTICATE)), (401, &*invalid), "{token}");
    }
    let settings = ServerSettings { sign_in: Some(SignInPolicy::OnConnect), ..ServerSettings::default() };
    server.update(settings).await;
    let response = call_tool(&server, None, "list_walkthroughs", json!({})).await;
    assert_eq!((response.status.as_u16(), response.header(header::WWW_AUTHENTICATE)), (401, CHALLENGE));
    app.finish().await;
}

/// RS-4: a token in the query string is rejected without being evaluated.
#[tokio::test]
async fn a_token_in_the_query_string_is_rejected() {
    let app = App::new().await;
    let server = create_sign_in_server(&app, "acme").await;
    let client = OauthClient::register(&server).await;
    let (browser, _) = EndUserBrowser::signed_in(&server, "anna").await;
    let token = client.get_tokens(&browser).await.access;
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "name": "list_walkthroughs", "arguments": {} } });
    let request = Request::post(format!("/s/acme/mcp?access_token={token}"))
        .header(header::HOST, "localhost:8080")
        .header(header::CONTENT_TYPE, "application/json");
    let response = send(&app, request.body(body.to_string().into()).unwrap()).await;
    assert_eq!(response.status, 401);
    assert!(response.header(header::WWW_AUTHENTICATE).contains("error=\"invalid_request\""));
    app.finish().await;
}
