//! Tokens at the MCP addresses: RS-1, RS-2, RS-4, RS-5, RS-8.

use http::{Request, header};
use serde_json::json;
use waypost_core::server::{AuthType, SignIn};
use waypost_ops::servers::ServerSettings;

use super::{Browser, OauthClient, Tokens, call, platform, select, send};
use crate::app::{App, open};

waypost_testkit::both!(open =>
    a_token_means_nothing_on_another_server,
    the_user_goes_on_with_every_client,
    an_access_token_lives_an_hour,
    who_was_let_in_by_others_has_to_come_in_again,
);

const CHALLENGE: &str = "Bearer resource_metadata=\"http://localhost:8080/.well-known/oauth-protected-resource/s/acme/mcp\", scope=\"walk\"";

/// RS-5: not in the same organisation, and not in another one.
async fn a_token_means_nothing_on_another_server(app: App) {
    let server = platform(&app, "acme").await;
    let sibling = server.org.server("acme-two").await;
    super::sign_in_needed(&sibling).await;
    let stranger = platform(&app, "other").await;
    let client = OauthClient::register(&server).await;
    let (browser, _) = Browser::signed_in(&server, "anna").await;
    let tokens = client.tokens(&browser).await;
    assert_eq!(select(&server, Some(&tokens.access)).await.status, 200);
    for other in [&sibling, &stranger] {
        let answer = call(other, Some(&tokens.access), "list_walkthroughs", json!({})).await;
        assert_eq!(answer.status, 401);
        assert!(answer.header(header::WWW_AUTHENTICATE).contains("error=\"invalid_token\""));
    }
    // The refresh token is no access token, nor is the code.
    assert_eq!(select(&server, Some(&tokens.refresh)).await.status, 401);
    app.finish().await;
}

/// One end user across clients and servers of an organisation, with what they did.
async fn the_user_goes_on_with_every_client(app: App) {
    let server = platform(&app, "acme").await;
    let (laptop, desktop) = (OauthClient::register(&server).await, OauthClient::register(&server).await);
    let (browser, anna) = Browser::signed_in(&server, "anna").await;
    let (elsewhere, also_anna) = Browser::signed_in(&server, "anna").await;
    let (stranger, bea) = Browser::signed_in(&server, "bea").await;
    assert_eq!(anna, also_anna);
    assert_ne!(anna, bea);
    let laptop = laptop.tokens(&browser).await.access;
    let answer = select(&server, Some(&laptop)).await.json();
    assert_eq!(answer["result"]["structuredContent"]["progress_handle"], json!(null));
    call(&server, Some(&laptop), "next_walkthrough_step", json!({})).await;
    let on_desktop = desktop.tokens(&elsewhere).await.access;
    let position = async |token: &str| {
        select(&server, Some(token)).await.json()["result"]["structuredContent"]["step"]["position"].clone()
    };
    assert_eq!(position(&on_desktop).await, 2);
    let strangers = desktop.tokens(&stranger).await.access;
    assert_eq!(position(&strangers).await, 1);
    app.finish().await;
}

async fn an_access_token_lives_an_hour(app: App) {
    let server = platform(&app, "acme").await;
    let client = OauthClient::register(&server).await;
    let (browser, _) = Browser::signed_in(&server, "anna").await;
    let tokens = client.tokens(&browser).await;
    app.later(60 * 60 * 1_000 - 1).await;
    assert_eq!(select(&server, Some(&tokens.access)).await.status, 200);
    app.later(1).await;
    assert_eq!(select(&server, Some(&tokens.access)).await.status, 401);
    app.finish().await;
}

/// A change of who signs people in ends what was given before, and a browser that another issuer knows is not signed in.
async fn who_was_let_in_by_others_has_to_come_in_again(app: App) {
    let server = platform(&app, "acme").await;
    let client = OauthClient::register(&server).await;
    let (browser, _) = Browser::signed_in(&server, "anna").await;
    let tokens = client.tokens(&browser).await;
    server.set(ServerSettings { auth_type: Some(AuthType::None), ..ServerSettings::default() }).await;
    super::sign_in_needed(&server).await;
    assert_eq!(select(&server, Some(&tokens.access)).await.status, 401);
    assert_eq!(client.refresh(&tokens.refresh).await.error().1, "invalid_grant");
    let elsewhere = Browser::new(&app);
    elsewhere.sign_in_by(&server, "https://id.example", "anna").await;
    let answer = elsewhere.get(&client.authorize(&[])).await;
    assert!(answer.location().starts_with("/s/acme/oauth/sign-in"), "{}", answer.location());
    Tokens::of(&client.exchange(&client.code(&browser, &[]).await).await);
    app.finish().await;
}

/// RS-1 and RS-2: 401 exactly where the call needs an identity, and with a token that is not good always.
#[tokio::test]
async fn a_token_is_asked_for_where_it_is_needed() {
    let app = App::new().await;
    let server = platform(&app, "acme").await;
    for tool in ["select_walkthrough", "next_walkthrough_step", "get_walkthrough_status", "reset_walkthrough_progress"]
    {
        let answer = call(&server, None, tool, json!({ "walkthrough_id": "install-acme" })).await;
        assert_eq!((answer.status.as_u16(), answer.header(header::WWW_AUTHENTICATE)), (401, CHALLENGE), "{tool}");
        assert!(answer.json()["error"]["data"].is_null() && answer.json()["result"].is_null());
    }
    assert_eq!(call(&server, None, "list_walkthroughs", json!({})).await.status, 200);
    let invalid = format!("{CHALLENGE}, error=\"invalid_token\"");
    for token in ["nonsense", "wpt_0000", ""] {
        let answer = call(&server, Some(token), "list_walkthroughs", json!({})).await;
        assert_eq!((answer.status.as_u16(), answer.header(header::WWW_AUTHENTICATE)), (401, &*invalid), "{token}");
    }
    let settings = ServerSettings { sign_in: Some(SignIn::OnConnect), ..ServerSettings::default() };
    server.set(settings).await;
    let answer = call(&server, None, "list_walkthroughs", json!({})).await;
    assert_eq!((answer.status.as_u16(), answer.header(header::WWW_AUTHENTICATE)), (401, CHALLENGE));
    app.finish().await;
}

/// RS-4: a token in the query string is refused, and not looked at.
#[tokio::test]
async fn a_token_comes_in_the_header_only() {
    let app = App::new().await;
    let server = platform(&app, "acme").await;
    let client = OauthClient::register(&server).await;
    let (browser, _) = Browser::signed_in(&server, "anna").await;
    let token = client.tokens(&browser).await.access;
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "name": "list_walkthroughs", "arguments": {} } });
    let request = Request::post(format!("/s/acme/mcp?access_token={token}"))
        .header(header::HOST, "localhost:8080")
        .header(header::CONTENT_TYPE, "application/json");
    let answer = send(&app, request.body(body.to_string().into()).unwrap()).await;
    assert_eq!(answer.status, 401);
    assert!(answer.header(header::WWW_AUTHENTICATE).contains("error=\"invalid_request\""));
    app.finish().await;
}
