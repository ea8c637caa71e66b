//! The token endpoint and revocation: AS-3, AS-6, AS-9, AS-10, AS-13.

use data_encoding::BASE64;
use http::{Request, header};
use serde_json::json;
use waypost_ops::authorizations;

use super::{
    Browser, CALLBACK, OauthClient, Tokens, VERIFIER, encode, path, platform, post_form, post_json, select, send,
};
use crate::app::{App, DAY, open};

waypost_testkit::both!(open =>
    a_code_is_good_once_and_only_for_who_asked,
    a_code_that_comes_again_takes_its_tokens_with_it,
    refresh_tokens_rotate,
    two_refreshes_at_the_same_moment_both_succeed,
    a_stolen_refresh_token_ends_the_grant,
    a_revoked_token_is_dead,
    what_has_expired_is_deleted,
);

fn invalid_grant() -> (u16, String) {
    (400, "invalid_grant".to_owned())
}

/// AS-3: single use, 60 seconds, bound to client, redirect URI and challenge.
async fn a_code_is_good_once_and_only_for_who_asked(app: App) {
    let server = platform(&app, "acme").await;
    let other = platform(&app, "other").await;
    let client = OauthClient::register(&server).await;
    let stranger = OauthClient::register(&server).await;
    let (browser, _) = Browser::signed_in(&server, "anna").await;
    let grant = ("grant_type", "authorization_code");
    let (redirect, verifier) = (("redirect_uri", CALLBACK), ("code_verifier", VERIFIER));
    // Each with a fresh code: what was tried with a wrong proof is used up.
    let code = client.code(&browser, &[]).await;
    let wrong = ("code_verifier", "wrong-verifier-wrong-verifier-wrong-verifier");
    assert_eq!(client.token(&[grant, redirect, ("code", &code), wrong]).await.error(), invalid_grant());
    assert_eq!(client.exchange(&code).await.error(), invalid_grant(), "it was burnt");
    let code = client.code(&browser, &[]).await;
    assert_eq!(stranger.exchange(&code).await.error(), invalid_grant(), "another client's");
    let elsewhere = OauthClient { server: other.clone(), ..client.clone() };
    assert_eq!(elsewhere.exchange(&code).await.error().1, "invalid_client", "another server does not know the client");
    let foreign = ("redirect_uri", "http://127.0.0.1:3999/other");
    assert_eq!(client.token(&[grant, foreign, ("code", &code), verifier]).await.error(), invalid_grant());
    let code = client.code(&browser, &[]).await;
    app.later(60 * 1_000).await;
    assert_eq!(client.exchange(&code).await.error(), invalid_grant(), "60 seconds");
    let code = client.code(&browser, &[]).await;
    app.later(60 * 1_000 - 1).await;
    Tokens::of(&client.exchange(&code).await);
    assert_eq!(client.exchange("wpc_unknown").await.error(), invalid_grant());
    app.finish().await;
}

/// AS-3.
async fn a_code_that_comes_again_takes_its_tokens_with_it(app: App) {
    let server = platform(&app, "acme").await;
    let client = OauthClient::register(&server).await;
    let (browser, _) = Browser::signed_in(&server, "anna").await;
    let code = client.code(&browser, &[]).await;
    let tokens = Tokens::of(&client.exchange(&code).await);
    assert_eq!(client.exchange(&code).await.error(), invalid_grant());
    assert_eq!(client.refresh(&tokens.refresh).await.error(), invalid_grant());
    assert_eq!(select(&server, Some(&tokens.access)).await.status, 401);
    assert_eq!(app.count("SELECT count(*) FROM audit_events WHERE act = 'grant.revoke'").await, 1);
    app.finish().await;
}

/// AS-9.
async fn refresh_tokens_rotate(app: App) {
    let server = platform(&app, "acme").await;
    let client = OauthClient::register(&server).await;
    let stranger = OauthClient::register(&server).await;
    let (browser, _) = Browser::signed_in(&server, "anna").await;
    let first = client.tokens(&browser).await;
    assert_eq!(stranger.refresh(&first.refresh).await.error(), invalid_grant(), "another client's");
    let second = Tokens::of(&client.refresh(&first.refresh).await);
    assert_ne!(first.refresh, second.refresh);
    // The answer was lost: within ten seconds, and before the successor was used, there is another pair.
    app.later(10_000).await;
    let third = Tokens::of(&client.refresh(&first.refresh).await);
    let fourth = Tokens::of(&client.refresh(&second.refresh).await);
    app.later(1).await;
    Tokens::of(&client.refresh(&third.refresh).await);
    for token in [&first.access, &second.access, &third.access, &fourth.access] {
        assert_eq!(select(&server, Some(token)).await.status, 200);
    }
    // Less may be asked for, never more; and what was asked in vain costs nothing.
    let refresh = ("grant_type", "refresh_token");
    let narrow = client.token(&[refresh, ("refresh_token", &fourth.refresh), ("scope", "walk:read")]).await;
    assert_eq!(narrow.json()["scope"], "walk:read");
    let wide = client.exchange(&client.code(&browser, &[("scope", "walk:read")]).await).await;
    let token = Tokens::of(&wide).refresh;
    let more = client.token(&[refresh, ("refresh_token", &token), ("scope", "walk")]).await;
    assert_eq!(more.error(), (400, "invalid_scope".to_owned()));
    Tokens::of(&client.refresh(&token).await);
    app.finish().await;
}

/// AS-9: a client may have two processes.
async fn two_refreshes_at_the_same_moment_both_succeed(app: App) {
    let server = platform(&app, "acme").await;
    let client = OauthClient::register(&server).await;
    let (browser, _) = Browser::signed_in(&server, "anna").await;
    let tokens = client.tokens(&browser).await;
    let (one, two) = tokio::join!(client.refresh(&tokens.refresh), client.refresh(&tokens.refresh));
    let (one, two) = (Tokens::of(&one), Tokens::of(&two));
    assert_ne!(one.refresh, two.refresh);
    for token in [&one.access, &two.access] {
        assert_eq!(select(&server, Some(token)).await.status, 200);
    }
    Tokens::of(&client.refresh(&one.refresh).await);
    assert_eq!(app.count("SELECT count(*) FROM audit_events WHERE act = 'grant.revoke'").await, 0);
    app.finish().await;
}

/// AS-9: reuse ends the family, for the thief and for the owner.
async fn a_stolen_refresh_token_ends_the_grant(app: App) {
    let server = platform(&app, "acme").await;
    let client = OauthClient::register(&server).await;
    let (browser, _) = Browser::signed_in(&server, "anna").await;
    for (pause, successor_used) in [(10_001, false), (0, true)] {
        let stolen = client.tokens(&browser).await;
        let mut own = Tokens::of(&client.refresh(&stolen.refresh).await);
        if successor_used {
            own = Tokens::of(&client.refresh(&own.refresh).await);
        }
        app.later(pause).await;
        assert_eq!(client.refresh(&stolen.refresh).await.error(), invalid_grant());
        assert_eq!(client.refresh(&own.refresh).await.error(), invalid_grant(), "the whole family");
        assert_eq!(select(&server, Some(&own.access)).await.status, 401);
    }
    assert_eq!(app.count("SELECT count(*) FROM oauth_grants WHERE revoked_reason = 'refresh_reuse'").await, 2);
    // And a grant that nobody refreshes ends after 90 days.
    let idle = client.tokens(&browser).await;
    app.later(90 * DAY).await;
    assert_eq!(client.refresh(&idle.refresh).await.error(), invalid_grant());
    app.finish().await;
}

/// AS-13 (RFC 7009).
async fn a_revoked_token_is_dead(app: App) {
    let server = platform(&app, "acme").await;
    let client = OauthClient::register(&server).await;
    let stranger = OauthClient::register(&server).await;
    let (browser, _) = Browser::signed_in(&server, "anna").await;
    let revoke = async |client: &OauthClient, token: &str| {
        let form = [("token", token), ("token_type_hint", "nonsense"), ("client_id", client.id.as_str())];
        post_form(&app, &path(&server, "revoke"), &form).await
    };
    let tokens = client.tokens(&browser).await;
    assert_eq!(revoke(&stranger, &tokens.refresh).await.status, 200, "says nothing of others' tokens");
    assert_eq!(select(&server, Some(&tokens.access)).await.status, 200);
    assert_eq!(revoke(&client, &tokens.access).await.status, 200);
    assert_eq!(select(&server, Some(&tokens.access)).await.status, 401, "at once");
    let next = Tokens::of(&client.refresh(&tokens.refresh).await);
    assert_eq!(revoke(&client, &next.refresh).await.status, 200);
    assert_eq!(client.refresh(&next.refresh).await.error(), invalid_grant());
    assert_eq!(select(&server, Some(&next.access)).await.status, 401);
    assert_eq!(revoke(&client, "wpt_unknown").await.status, 200);
    assert_eq!(
        post_form(&app, &path(&server, "revoke"), &[("client_id", &client.id)]).await.error().1,
        "invalid_request"
    );
    app.finish().await;
}

/// AS-6 and AS-10: RFC 6749, section 5.2, and RFC 8707.
#[tokio::test]
async fn what_is_malformed_is_refused() {
    let app = App::new().await;
    let server = platform(&app, "acme").await;
    platform(&app, "other").await;
    let client = OauthClient::register(&server).await;
    let (browser, _) = Browser::signed_in(&server, "anna").await;
    let code = client.code(&browser, &[]).await;
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
        assert_eq!(client.token(form).await.error(), (400, error.to_owned()), "{form:?}");
    }
    let json = post_json(&app, &path(&server, "token"), &json!({ "grant_type": "authorization_code" })).await;
    assert_eq!(json.error(), (400, "invalid_request".to_owned()));
    Tokens::of(&client.exchange(&code).await);
    app.finish().await;
}

/// RFC 6749, section 2.3.1.
#[tokio::test]
async fn a_confidential_client_proves_who_it_is() {
    let app = App::new().await;
    let server = platform(&app, "acme").await;
    let (browser, _) = Browser::signed_in(&server, "anna").await;
    for (method, other) in
        [("client_secret_basic", "client_secret_post"), ("client_secret_post", "client_secret_basic")]
    {
        let metadata = json!({ "redirect_uris": [CALLBACK], "token_endpoint_auth_method": method });
        let registered = post_json(&app, &path(&server, "register"), &metadata).await.json();
        let secret = registered["client_secret"].as_str().unwrap();
        let id = registered["client_id"].as_str().unwrap().to_owned();
        let client = OauthClient { server: server.clone(), id, callback: CALLBACK };
        let code = client.code(&browser, &[]).await;
        let form = [("grant_type", "authorization_code"), ("code", &*code), ("code_verifier", VERIFIER)];
        let ask = async |method: &str, secret: &str| {
            let mut form = form.to_vec();
            let mut request = Request::post(path(&server, "token")).header(header::HOST, "localhost:8080");
            if method == "client_secret_basic" {
                let credentials = BASE64.encode(format!("{}:{secret}", client.id).as_bytes());
                request = request.header(header::AUTHORIZATION, format!("Basic {credentials}"));
            } else {
                form.extend([("client_id", client.id.as_str()), ("client_secret", secret)]);
            }
            let request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
            send(&app, request.body(encode(&form).into()).unwrap()).await
        };
        let invalid_client = (401, "invalid_client".to_owned());
        let answer = ask(method, "wrong").await;
        assert_eq!(answer.error(), invalid_client);
        assert!(answer.header(header::WWW_AUTHENTICATE).starts_with("Basic "));
        assert_eq!(ask(other, secret).await.error(), invalid_client, "in the way that it registered");
        assert_eq!(client.exchange(&code).await.error(), invalid_client, "not without a secret");
        Tokens::of(&ask(method, secret).await);
    }
    app.finish().await;
}

/// Rows go some time after they have ended; a client goes when it never came back, or not for half a year.
async fn what_has_expired_is_deleted(app: App) {
    let server = platform(&app, "acme").await;
    let (client, _unused) = (OauthClient::register(&server).await, OauthClient::register(&server).await);
    app.later(1).await;
    let (browser, _) = Browser::signed_in(&server, "anna").await;
    let tokens = client.tokens(&browser).await;
    let left = async || {
        authorizations::delete_expired(app.db(), &*app.cx().clock).await.unwrap();
        app.lines(
            "SELECT (SELECT count(*) FROM authorization_requests) || ' ' || (SELECT count(*) FROM access_tokens) || ' '
                || (SELECT count(*) FROM browser_sessions) || ' ' || (SELECT count(*) FROM oauth_grants) || ' '
                || (SELECT count(*) FROM authorization_codes) || ' ' || (SELECT count(*) FROM refresh_tokens) || ' '
                || (SELECT count(*) FROM oauth_clients)",
        )
        .await
    };
    assert_eq!(left().await, "1 1 1 1 1 1 2");
    app.later(2 * 60 * 60 * 1_000 + 1).await;
    assert_eq!(left().await, "0 0 1 1 1 1 2", "requests after half an hour, access tokens after one, and one more");
    app.later(DAY).await;
    assert_eq!(left().await, "0 0 1 1 1 1 1", "a client that never came back");
    Tokens::of(&client.refresh(&tokens.refresh).await);
    app.later(31 * DAY).await;
    assert_eq!(left().await, "0 0 0 1 1 2 1", "the browser's session");
    app.later(60 * DAY).await;
    assert_eq!(left().await, "0 0 0 0 0 0 1", "a grant with all that came of it");
    app.later(90 * DAY).await;
    assert_eq!(left().await, "0 0 0 0 0 0 0");
    app.finish().await;
}

/// RFC 6749, sections 4.1.2.1 and 5.2: the database is away.
#[tokio::test]
async fn says_so_when_it_cannot_answer() {
    let app = App::new().await;
    let server = platform(&app, "acme").await;
    let client = OauthClient::register(&server).await;
    app.db().close().await;
    let answer = client.exchange("wpc_x").await;
    assert_eq!(answer.error(), (503, "temporarily_unavailable".to_owned()));
    let answer = post_json(&app, &path(&server, "register"), &json!({ "redirect_uris": [CALLBACK] })).await;
    assert_eq!(answer.error(), (503, "temporarily_unavailable".to_owned()));
    assert_eq!(
        Browser::new(&app).get(&client.authorize(&[])).await.status,
        503,
        "a page: nothing is known of the client"
    );
    app.stop().await;
}
