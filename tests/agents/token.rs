//! Access tokens for agents without an OAuth client. The user signs in with the test's own client.

use data_encoding::BASE64URL_NOPAD;
use reqwest::Client;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use url::Url;
use waypost_outbound::unguarded_client;

use crate::server::Server;
use crate::support::user::SimulatedUser;

const REDIRECT: &str = "http://127.0.0.1:33419/callback";
const VERIFIER: &str = "a-verifier-that-is-long-enough-for-rfc-7636-0123456789";

/// Registers an OAuth client at the server.
pub async fn register(server: &Server) -> Value {
    let metadata = json!({
        "client_name": "Test", "redirect_uris": [REDIRECT], "token_endpoint_auth_method": "none",
        "grant_types": ["authorization_code", "refresh_token"], "response_types": ["code"],
    });
    let request = http().post(format!("{}/oauth/register", server.issuer())).json(&metadata);
    request.send().await.expect("the server responds").json().await.expect("valid JSON")
}

/// Signs the user in and returns an access token for the server.
pub async fn obtain(server: &Server, user: &SimulatedUser) -> String {
    let client = register(server).await;
    let id = client["client_id"].as_str().expect("the client is registered");
    let challenge = BASE64URL_NOPAD.encode(&Sha256::digest(VERIFIER));
    let mut authorize = Url::parse(&format!("{}/oauth/authorize", server.issuer())).expect("a valid URL");
    authorize.query_pairs_mut().extend_pairs([
        ("response_type", "code"),
        ("client_id", id),
        ("redirect_uri", REDIRECT),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
        ("scope", "walk"),
        ("state", "test"),
    ]);
    let drive = Url::parse_with_params(&format!("{}/drive", user.origin), [("url", authorize.as_str())]);
    let callback = http().get(drive.expect("a valid URL")).send().await.expect("the simulated user responds");
    let callback = callback.text().await.expect("the response is text");
    let callback = Url::parse(&callback).unwrap_or_else(|_| panic!("the user cannot sign in: {callback}"));
    let code = callback.query_pairs().find(|(name, _)| name == "code").expect("the request is approved").1.into_owned();
    let form = [
        ("grant_type", "authorization_code"),
        ("client_id", id),
        ("code", &code),
        ("redirect_uri", REDIRECT),
        ("code_verifier", VERIFIER),
    ];
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let request = http().post(format!("{}/oauth/token", server.issuer())).body(body);
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    let response: Value = request.send().await.expect("the server responds").json().await.expect("valid JSON");
    response["access_token"].as_str().unwrap_or_else(|| panic!("no token: {response}")).to_owned()
}

fn http() -> Client {
    unguarded_client().no_proxy().build().expect("the client is built")
}
