//! The token endpoint and revocation: AS-3, AS-6, AS-9, AS-10, AS-13.

use data_encoding::BASE64;
use http::{Request, header};
use serde_json::json;
use waypost_ops::authorizations;

use super::{
    CALLBACK, EndUserBrowser, OauthClient, Tokens, VERIFIER, create_sign_in_server, encode_form, oauth_path, post_form,
    post_json, send, start_walkthrough,
};
use crate::app::{App, DAY, open};

waypost_testkit::both!(extended open =>
    a_code_works_once_and_only_for_its_client,
    reusing_a_code_revokes_its_tokens,
    refresh_tokens_rotate,
    two_simultaneous_refreshes_both_succeed,
    reusing_a_refresh_token_revokes_the_grant,
    a_revoked_token_is_rejected,
    expired_rows_are_deleted,
);

fn invalid_grant() -> (u16, String) {
    (400, "invalid_grant".to_owned())
}

/// AS-3: a code is valid once, for 60 seconds, and bound to client, redirect URI and challenge.
async fn a_code_works_once_and_only_for_its_client(app: App) {
    let server = create_sign_in_server(&app, "acme").await;
    let other = create_sign_in_server(&app, "other").await;
    let client = OauthClient::register(&server).await;
    let other_client = OauthClient::register(&server).await;
    let (browser, _) = EndUserBrowser::signed_in(&server, "anna").await;
    let grant = ("grant_type", "authorization_code");
    let (redirect, verifier) = (("redirect_uri", CALLBACK), ("code_verifier", VERIFIER));
    // Each case needs a new code, because a wrong verifier uses the code up.
    let code = client.get_code(&browser, &[]).await;
    let wrong = ("code_verifier", "wrong-verifier-wrong-verifier-wrong-verifier");
    assert_eq!(client.post_token(&[grant, redirect, ("code", &code), wrong]).await.error(), invalid_grant());
    assert_eq!(client.exchange(&code).await.error(), invalid_grant(), "the code is used up");
    let code = client.get_code(&browser, &[]).await;
    assert_eq!(other_client.exchange(&code).await.error(), invalid_grant(), "the code of another client");
    let elsewhere = OauthClient { server: other.clone(), ..client.clone() };
    assert_eq!(elsewhere.exchange(&code).await.error().1, "invalid_client", "another server does not know the client");
    let foreign = ("redirect_uri", "http://127.0.0.1:3999/other");
    assert_eq!(client.post_token(&[grant, foreign, ("code", &code), verifier]).await.error(), invalid_grant());
    let code = client.get_code(&browser, &[]).await;
    app.advance_clock(60 * 1_000).await;
    assert_eq!(client.exchange(&code).await.error(), invalid_grant(), "60 seconds");
    let code = client.get_code(&browser, &[]).await;
    app.advance_clock(60 * 1_000 - 1).await;
    Tokens::from_response(&client.exchange(&code).await);
    assert_eq!(client.exchange("wpc_unknown").await.error(), invalid_grant());
    app.finish().await;
}

/// AS-3.
async fn reusing_a_code_revokes_its_tokens(app: App) {
    let server = create_sign_in_server(&app, "acme").await;
    let client = OauthClient::register(&server).await;
    let (browser, _) = EndUserBrowser::signed_in(&server, "anna").await;
    let code = client.get_code(&browser, &[]).await;
    let tokens = Tokens::from_response(&client.exchange(&code).await);
    assert_eq!(client.exchange(&code).await.error(), invalid_grant());
    assert_eq!(client.refresh(&tokens.refresh).await.error(), invalid_grant());
    assert_eq!(start_walkthrough(&server, Some(&tokens.access)).await.status, 401);
    assert_eq!(app.count("SELECT count(*) FROM audit_events WHERE act = 'grant.revoke'").await, 1);
    app.finish().await;
}

/// AS-9.
async fn refresh_tokens_rotate(app: App) {
    let server = create_sign_in_server(&app, "acme").await;
    let client = OauthClient::register(&server).await;
    let other_client = OauthClient::register(&server).await;
    let (browser, _) = EndUserBrowser::signed_in(&server, "anna").await;
    let first = client.get_tokens(&browser).await;
    assert_eq!(other_client.refresh(&first.refresh).await.error(), invalid_grant(), "the token of another client");
    let second = Tokens::from_response(&client.refresh(&first.refresh).await);
    assert_ne!(first.refresh, second.refresh);
    // A lost response: within ten seconds, and before the successor is used, another pair is issued.
    app.advance_clock(10_000).await;
    let third = Tokens::from_response(&client.refresh(&first.refresh).await);
    let fourth = Tokens::from_response(&client.refresh(&second.refresh).await);
    app.advance_clock(1).await;
    Tokens::from_response(&client.refresh(&third.refresh).await);
    for token in [&first.access, &second.access, &third.access, &fourth.access] {
        assert_eq!(start_walkthrough(&server, Some(token)).await.status, 200);
    }
    // A refresh can narrow the scope but not widen it. A rejected request does not use the token up.
    let refresh = ("grant_type", "refresh_token");
    let narrow = client.post_token(&[refresh, ("refresh_token", &fourth.refresh), ("scope", "walk:read")]).await;
    assert_eq!(narrow.json()["scope"], "walk:read");
    let wide = client.exchange(&client.get_code(&browser, &[("scope", "walk:read")]).await).await;
    let token = Tokens::from_response(&wide).refresh;
    let more = client.post_token(&[refresh, ("refresh_token", &token), ("scope", "walk")]).await;
    assert_eq!(more.error(), (400, "invalid_scope".to_owned()));
    Tokens::from_response(&client.refresh(&token).await);
    app.finish().await;
}

/// AS-9: a client can have two processes.
async fn two_simultaneous_refreshes_both_succeed(app: App) {
    let server = create_sign_in_server(&app, "acme").await;
    let client = OauthClient::register(&server).await;
    let (browser, _) = EndUserBrowser::signed_in(&server, "anna").await;
    let tokens = client.get_tokens(&browser).await;
    let (one, two) = tokio::join!(client.refresh(&tokens.refresh), client.refresh(&tokens.refresh));
    let (one, two) = (Tokens::from_response(&one), Tokens::from_response(&two));
    assert_ne!(one.refresh, two.refresh);
    for token in [&one.access, &two.access] {
        assert_eq!(start_walkthrough(&server, Some(token)).await.status, 200);
    }
    Tokens::from_response(&client.refresh(&one.refresh).await);
    assert_eq!(app.count("SELECT count(*) FROM audit_events WHERE act = 'grant.revoke'").await, 0);
    app.finish().await;
}

/// AS-9: reuse revokes the whole token family.
async fn reusing_a_refresh_token_revokes_the_grant(app: App) {
    let server = create_sign_in_server(&app, "acme").await;
    let client = OauthClient::register(&server).await;
    let (browser, _) = EndUserBrowser::signed_in(&server, "anna").await;
    for (pause, successor_used) in [(10_001, false), (0, true)] {
        let stolen = client.get_tokens(&browser).await;
        let mut own = Tokens::from_response(&client.refresh(&stolen.refresh).await);
        if successor_used {
            own = Tokens::from_response(&client.refresh(&own.refresh).await);
        }
        app.advance_clock(pause).await;
        assert_eq!(client.refresh(&stolen.refresh).await.error(), invalid_grant());
        assert_eq!(client.refresh(&own.refresh).await.error(), invalid_grant(), "the whole token family is revoked");
        assert_eq!(start_walkthrough(&server, Some(&own.access)).await.status, 401);
    }
    assert_eq!(app.count("SELECT count(*) FROM oauth_grants WHERE revoked_reason = 'refresh_reuse'").await, 2);
    // An unused grant expires after 90 days.
    let idle = client.get_tokens(&browser).await;
    app.advance_clock(90 * DAY).await;
    assert_eq!(client.refresh(&idle.refresh).await.error(), invalid_grant());
    app.finish().await;
}

/// AS-13 (RFC 7009).
async fn a_revoked_token_is_rejected(app: App) {
    let server = create_sign_in_server(&app, "acme").await;
    let client = OauthClient::register(&server).await;
    let other_client = OauthClient::register(&server).await;
    let (browser, _) = EndUserBrowser::signed_in(&server, "anna").await;
    let revoke = async |client: &OauthClient, token: &str| {
        let form = [("token", token), ("token_type_hint", "nonsense"), ("client_id", client.id.as_str())];
        post_form(&app, &oauth_path(&server, "revoke"), &form).await
    };
    let tokens = client.get_tokens(&browser).await;
    assert_eq!(
        revoke(&other_client, &tokens.refresh).await.status,
        200,
        "the response reveals nothing about other clients' tokens"
    );
    assert_eq!(start_walkthrough(&server, Some(&tokens.access)).await.status, 200);
    assert_eq!(revoke(&client, &tokens.access).await.status, 200);
    assert_eq!(start_walkthrough(&server, Some(&tokens.access)).await.status, 401, "the token is revoked immediately");
    let next = Tokens::from_response(&client.refresh(&tokens.refresh).await);
    assert_eq!(revoke(&client, &next.refresh).await.status, 200);
    assert_eq!(client.refresh(&next.refresh).await.error(), invalid_grant());
    assert_eq!(start_walkthrough(&server, Some(&next.access)).await.status, 401);
    assert_eq!(revoke(&client, "wpt_unknown").await.status, 200);
    assert_eq!(
        post_form(&app, &oauth_path(&server, "revoke"), &[("client_id", &client.id)]).await.error().1,
        "invalid_request"
    );
    app.finish().await;
}

/// AS-6 and AS-10: RFC 6749, section 5.2, and RFC 8707.
#[tokio::test]
async fn malformed_requests_are_rejected() {
    let app = App::new().await;
    let server = create_sign_in_server(&app, "acme").await;
    create_sign_in_server(&app, "other").await;
    let client = OauthClient::register(&server).await;
    let (browser, _) = EndUserBrowser::signed_in(&server, "anna").await;
    let code = client.get_code(&browser, &[]).await;
    let grant = ("grant_type", "authorization_code");
    for (form, error) in [
        (&[][..], "invalid_request"),
        (&[("grant_type", "password"), ("username", "a")], "unsupported_grant_type"),
        (&[("grant_type", "client_credentials")], "unsupported_grant_type"),
        (&[grant], "invalid_request"),
        (&[grant, ("code", &*code)], "invalid_request"),
        (&[grant, ("code", &*code), ("code", "x"), ("code_verifier", VERIFIER)], "invalid_request"),
        (&[grant, ("code", &*code), ("code_verifier", VERIFIER), ("resource", "https://x.example")], "invalid_target"),
        (
            &[grant, ("code", &*code), ("code_verifier", VERIFIER), ("resource", "http://localhost:8080/s/other/mcp")],
            "invalid_target",
        ),
        (&[("grant_type", "refresh_token")], "invalid_request"),
        (&[("grant_type", "refresh_token"), ("refresh_token", "wpr_x"), ("scope", "admin")], "invalid_scope"),
    ] {
        assert_eq!(client.post_token(form).await.error(), (400, error.to_owned()), "{form:?}");
    }
    let json = post_json(&app, &oauth_path(&server, "token"), &json!({ "grant_type": "authorization_code" })).await;
    assert_eq!(json.error(), (400, "invalid_request".to_owned()));
    Tokens::from_response(&client.exchange(&code).await);
    app.finish().await;
}

/// RFC 6749, section 2.3.1.
#[tokio::test]
async fn a_confidential_client_must_authenticate() {
    let app = App::new().await;
    let server = create_sign_in_server(&app, "acme").await;
    let (browser, _) = EndUserBrowser::signed_in(&server, "anna").await;
    for (method, other) in
        [("client_secret_basic", "client_secret_post"), ("client_secret_post", "client_secret_basic")]
    {
        let metadata = json!({ "redirect_uris": [CALLBACK], "token_endpoint_auth_method": method });
        let registered = post_json(&app, &oauth_path(&server, "register"), &metadata).await.json();
        let secret = registered["client_secret"].as_str().unwrap();
        let id = registered["client_id"].as_str().unwrap().to_owned();
        let client = OauthClient { server: server.clone(), id, callback: CALLBACK };
        let code = client.get_code(&browser, &[]).await;
        let form = [("grant_type", "authorization_code"), ("code", &*code), ("code_verifier", VERIFIER)];
        let exchange = async |method: &str, secret: &str| {
            let mut form = form.to_vec();
            let mut request = Request::post(oauth_path(&server, "token")).header(header::HOST, "localhost:8080");
            if method == "client_secret_basic" {
                let credentials = BASE64.encode(format!("{}:{secret}", client.id).as_bytes());
                request = request.header(header::AUTHORIZATION, format!("Basic {credentials}"));
            } else {
                form.extend([("client_id", client.id.as_str()), ("client_secret", secret)]);
            }
            let request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
            send(&app, request.body(encode_form(&form).into()).unwrap()).await
        };
        let invalid_client = (401, "invalid_client".to_owned());
        let response = exchange(method, "wrong").await;
        assert_eq!(response.error(), invalid_client);
        assert!(response.header(header::WWW_AUTHENTICATE).starts_with("Basic "));
        assert_eq!(exchange(other, secret).await.error(), invalid_client, "only the registered method is accepted");
        assert_eq!(client.exchange(&code).await.error(), invalid_client, "a secret is required");
        Tokens::from_response(&exchange(method, secret).await);
    }
    app.finish().await;
}

/// Most rows are deleted an hour after they expire. A client is deleted if it was never used, or not for half a year.
async fn expired_rows_are_deleted(app: App) {
    let server = create_sign_in_server(&app, "acme").await;
    let (client, _unused) = (OauthClient::register(&server).await, OauthClient::register(&server).await);
    app.advance_clock(1).await;
    let (browser, _) = EndUserBrowser::signed_in(&server, "anna").await;
    let tokens = client.get_tokens(&browser).await;
    let count_remaining = async || {
        authorizations::delete_expired(app.db(), &*app.cx().clock).await.unwrap();
        app.query_lines(
            "SELECT (SELECT count(*) FROM authorization_requests) || ' ' || (SELECT count(*) FROM access_tokens) || ' '
                || (SELECT count(*) FROM browser_sessions) || ' ' || (SELECT count(*) FROM oauth_grants) || ' '
                || (SELECT count(*) FROM authorization_codes) || ' ' || (SELECT count(*) FROM refresh_tokens) || ' '
                || (SELECT count(*) FROM oauth_clients)",
        )
        .await
    };
    assert_eq!(count_remaining().await, "1 1 1 1 1 1 2");
    app.advance_clock(2 * 60 * 60 * 1_000 + 1).await;
    assert_eq!(
        count_remaining().await,
        "0 0 1 1 1 1 2",
        "requests expire after half an hour, access tokens after an hour"
    );
    app.advance_clock(DAY).await;
    assert_eq!(count_remaining().await, "0 0 1 1 1 1 1", "an unused client");
    Tokens::from_response(&client.refresh(&tokens.refresh).await);
    app.advance_clock(31 * DAY).await;
    assert_eq!(count_remaining().await, "0 0 0 1 1 2 1", "the browser session");
    app.advance_clock(60 * DAY).await;
    assert_eq!(count_remaining().await, "0 0 0 0 0 0 1", "the grant with its codes and tokens");
    app.advance_clock(90 * DAY).await;
    assert_eq!(count_remaining().await, "0 0 0 0 0 0 0");
    app.finish().await;
}

/// RFC 6749, sections 4.1.2.1 and 5.2.
#[tokio::test]
async fn a_database_outage_returns_temporarily_unavailable() {
    let app = App::new().await;
    let server = create_sign_in_server(&app, "acme").await;
    let client = OauthClient::register(&server).await;
    app.db().close().await;
    let response = client.exchange("wpc_x").await;
    assert_eq!(response.error(), (503, "temporarily_unavailable".to_owned()));
    let response = post_json(&app, &oauth_path(&server, "register"), &json!({ "redirect_uris": [CALLBACK] })).await;
    assert_eq!(response.error(), (503, "temporarily_unavailable".to_owned()));
    assert_eq!(
        EndUserBrowser::new(&app).get(&client.authorize_path(&[])).await.status,
        503,
        "an error page, because the client cannot be looked up"
    );
    app.stop().await;
}
