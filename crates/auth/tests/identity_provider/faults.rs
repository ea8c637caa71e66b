//! Providers that are down, slow, or lie.

use http::StatusCode;
use serde_json::{Value, json};
use waypost_core::server::Server;

use crate::stage::{BROWSER, NOW, Page, Stage, parameter, stage};

/// Nobody was signed in, and the page says why and has ways on.
#[track_caller]
fn refused(page: &Page, why: &str) {
    assert_eq!((page.status, page.session.as_deref()), (StatusCode::BAD_GATEWAY, None), "{}", page.text);
    assert!(page.text.contains(why), "{why}: {}", page.text);
    assert!(page.text.contains("/s/acme-docs/oauth/upstream?request=arq_"), "a way to try again");
    assert!(page.text.contains("http://127.0.0.1:4000/callback?own=1"), "a way back");
    for secret in ["upstream-access", "upstream-refresh", "code-", "geheim", "Client <1>"] {
        assert!(!page.text.contains(secret), "{secret}: {}", page.text);
    }
}

async fn ready(stage: &Stage) -> Server {
    stage.configure(&stage.settings()).await;
    stage.server("acme-docs").await
}

async fn what_the_token_says_is_checked(stage: Stage) {
    let server = ready(&stage).await;
    let seconds = NOW.0 / 1_000;
    for (claims, why) in [
        (json!({"nonce": "another"}), "another sign-in"),
        (json!({"nonce": null}), "another sign-in"),
        (json!({"aud": "somebody"}), "for somebody else"),
        (json!({"aud": ["waypost", "somebody"]}), "for somebody else"),
        (json!({"azp": "somebody"}), "was made for"),
        (json!({"iss": "https://evil.example"}), "of another issuer"),
        (json!({"exp": seconds - 61}), "has expired"),
        (json!({"sub": null}), "gives no tokens"),
        (json!({"sub": ""}), "names nobody"),
    ] {
        stage.provider.set().claims = claims.clone();
        let page = stage.sign_in(&server).await;
        refused(&page, why);
    }
    assert_eq!(stage.count("SELECT count(*) FROM identities").await, 0);
    assert_eq!(stage.count("SELECT count(*) FROM identity_provider_tokens").await, 0);
    // Clocks may differ a little.
    stage.provider.set().claims = json!({"exp": seconds - 30, "azp": "waypost"});
    stage.who(&stage.sign_in(&server).await).await;
}

async fn who_signed_the_token_is_checked(stage: Stage) {
    let server = ready(&stage).await;
    for header in [json!({"alg": "none"}), json!({"alg": "HS256"}), json!({"alg": "HS256", "kid": "key-1"})] {
        stage.provider.set().header = Some(header.clone());
        let page = stage.sign_in(&server).await;
        assert_eq!((page.status, page.session), (StatusCode::BAD_GATEWAY, None), "{header}");
    }
    // Signed with a key that is not the one that it names.
    stage.later(11_000);
    stage.provider.set().header = Some(json!({"alg": "EdDSA", "kid": "key-1"}));
    stage.provider.set().key = 9;
    refused(&stage.sign_in(&server).await, "signature of its token is wrong");
    // Without a token nothing is believed, though there is a userinfo endpoint.
    stage.provider.set().id_token = false;
    refused(&stage.sign_in(&server).await, "no ID token");
    assert_eq!(stage.count("SELECT count(*) FROM identities").await, 0);
}

async fn a_new_key_is_looked_for_but_not_too_often(stage: Stage) {
    let server = ready(&stage).await;
    let before = stage.provider.asked("keys");
    stage.who(&stage.sign_in(&server).await).await;
    stage.who(&stage.sign_in(&server).await).await;
    assert_eq!(stage.provider.asked("keys"), before + 1, "keys are remembered");
    {
        let mut provider = stage.provider.set();
        (provider.key, provider.published) = (2, vec![1, 2]);
    }
    stage.who(&stage.sign_in(&server).await).await;
    assert_eq!(stage.provider.asked("keys"), before + 2, "a new key is looked for at once");
    {
        let mut provider = stage.provider.set();
        (provider.key, provider.published) = (3, vec![1, 2, 3]);
    }
    refused(&stage.sign_in(&server).await, "a key that it does not publish");
    assert_eq!(stage.provider.asked("keys"), before + 2, "looked a moment ago");
    stage.later(10_000);
    stage.who(&stage.sign_in(&server).await).await;
    assert_eq!(stage.provider.asked("keys"), before + 3);
    stage.later(60 * 60 * 1_000);
    stage.provider.set().key = 1;
    stage.who(&stage.sign_in(&server).await).await;
    assert_eq!(stage.provider.asked("keys"), before + 4, "an hour later they are fetched again");
}

async fn userinfo_of_somebody_else_is_not_believed(stage: Stage) {
    let server = ready(&stage).await;
    stage.provider.set().claims = json!({"name": null});
    stage.provider.set().userinfo["sub"] = "bert".into();
    refused(&stage.sign_in(&server).await, "another user than its token");
    stage.provider.set().userinfo["sub"] = "anna".into();
    let who = stage.who(&stage.sign_in(&server).await).await;
    assert_eq!(who.name.as_deref(), Some("Anna"), "from userinfo");
    stage.provider.set().userinfo = Value::Null;
    refused(&stage.sign_in(&server).await, "no JSON object");
}

async fn a_provider_that_refuses_or_answers_nonsense(stage: Stage) {
    let server = ready(&stage).await;
    for (status, answer, why) in [
        (StatusCode::BAD_REQUEST, json!({"error": "invalid_grant"}), "invalid_grant"),
        (StatusCode::UNAUTHORIZED, json!({"error": "invalid_client", "error_description": "geheim"}), "invalid_client"),
        (StatusCode::BAD_REQUEST, json!({"error": "geheim"}), "says no"),
        (StatusCode::OK, json!(["code-1"]), "gives no tokens"),
        (StatusCode::FOUND, json!({}), "gives no tokens"),
        (StatusCode::INTERNAL_SERVER_ERROR, json!("upstream-access"), "gives no tokens"),
    ] {
        stage.provider.set().token = Some((status, answer));
        refused(&stage.sign_in(&server).await, why);
    }
}

async fn a_provider_that_is_down(stage: Stage) {
    let server = ready(&stage).await;
    // Port 9 of loopback: nobody listens there.
    stage.execute("UPDATE oauth_configs SET token_endpoint = 'http://127.0.0.1:9/token'").await;
    let page = stage.sign_in(&server).await;
    refused(&page, "Acme ID does not answer");
    refused(&page, "cannot be reached");
    // An address of the inside that somebody put there: not even tried.
    stage.execute("UPDATE oauth_configs SET token_endpoint = 'https://169.254.169.254/token'").await;
    refused(&stage.sign_in(&server).await, "not on the public internet");
}

/// Time is moved on while the provider is asked, and nothing else waits then.
#[tokio::test(flavor = "current_thread")]
async fn a_provider_that_is_slow() {
    let folder = waypost_testkit::folder();
    let stage = stage(&waypost_testkit::sqlite_url(&folder)).await;
    let server = ready(&stage).await;
    stage.provider.set().hangs = true;
    refused(&stage.sign_in(&server).await, "did not respond in time");
}

async fn what_comes_back_instead_of_a_code(stage: Stage) {
    let server = ready(&stage).await;
    let back = async |query: &str| {
        let request = stage.request(&server, true).await;
        let target = stage.leave(&server, &request).await;
        let path = format!("callback?{query}&state={}", parameter(&target, "state"));
        (stage.get(&server, &path, BROWSER).await, request)
    };
    // RFC 6749, 4.1.2.1: the user said no, and so Waypost tells the client, who gets its own state and the issuer.
    let (page, request) = back("error=access_denied&error_description=%3Cb%3E").await;
    assert_eq!(
        page.location.as_deref(),
        Some(
            "http://127.0.0.1:4000/callback?own=1&error=access_denied&state=of+the+client\
             &iss=http%3A%2F%2Flocalhost%3A8080%2Fs%2Facme-docs"
        )
    );
    let over = stage.get(&server, &format!("upstream?request={}", request.id), BROWSER).await;
    assert_eq!(over.status, StatusCode::BAD_REQUEST, "the request is closed");
    let (page, _) = back("error=%3Cscript%3E").await;
    refused(&page, "refuses the sign-in");
    assert!(!page.text.contains("<script>"));
    refused(&back("code=").await.0, "");
    refused(&back("foo=bar").await.0, "no code");
    // RFC 9207: an answer of another provider.
    refused(&back("code=x&iss=https%3A%2F%2Fevil.example").await.0, "another identity provider");
    assert_eq!(stage.provider.asked("token"), 1, "with the empty code only");
    let request = stage.request(&server, true).await;
    let target = stage.leave(&server, &request).await;
    let code = stage.provider.approve(&target);
    let query = format!("callback?code={code}&iss={}&state={}", stage.provider.issuer, parameter(&target, "state"));
    stage.who(&stage.get(&server, &query, BROWSER).await).await;
}

async fn another_provider_meanwhile(stage: Stage) {
    let server = ready(&stage).await;
    let request = stage.request(&server, true).await;
    let target = stage.leave(&server, &request).await;
    let code = stage.provider.approve(&target);
    let other = waypost_ops::oauth_configs::Settings { name: Some("Other".into()), ..stage.settings() };
    stage.configure(&other).await;
    let settings = waypost_ops::servers::ServerSettings { oauth_config: Some("Other".into()), ..Default::default() };
    let changed = waypost_ops::servers::update(&stage.cx, &stage.ops, &stage.organization, &server.id, &settings);
    changed.await.unwrap();
    stage.poll().await;
    let path = format!("callback?code={code}&state={}", parameter(&target, "state"));
    assert_eq!(stage.get(&server, &path, BROWSER).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(stage.provider.asked("token"), 0);
}

waypost_testkit::both!(stage =>
    what_the_token_says_is_checked,
    who_signed_the_token_is_checked,
    a_new_key_is_looked_for_but_not_too_often,
    userinfo_of_somebody_else_is_not_believed,
    a_provider_that_refuses_or_answers_nonsense,
    a_provider_that_is_down,
    what_comes_back_instead_of_a_code,
    another_provider_meanwhile,
);
