//! Clients that an admin has registered at the authorization server beforehand.

use http::Method;
use serde_json::{Value, json};

use super::server::Server;
use super::{HOUR, MINUTE, Stage};

/// The client secret.
const SECRET: &str = "s3cr3t";

impl Stage {
    /// Creates a secret, and returns its ID.
    async fn create_secret(&self) -> Value {
        // Files with secrets end with a line break.
        let secret = json!({ "name": "CLIENT_SECRET", "value": format!("{SECRET}\n") });
        self.api.post("/secrets", secret).await.assert_status(201).json()["id"].take()
    }

    /// Changes the client of the instance.
    async fn set_client(&self, client_id: &Value, client_secret_id: &Value) -> crate::console::ConsoleResponse {
        let remote = json!({ "url": self.server.url(), "oauth": true, "client_id": client_id,
            "client_secret_id": client_secret_id });
        let path = format!("/instances/{}", self.id);
        self.api.call(Method::PATCH, &path, Some(json!({ "remote": remote }))).await
    }
}

/// Makes the server accept only this client with this secret.
fn accept_only(server: &Server, id: &str, secret: &str) {
    let mut state = server.state();
    state.client = Some((id.to_owned(), secret.to_owned()));
    state.server_metadata = json!({ "registration_endpoint": null,
        "token_endpoint_auth_methods_supported": ["private_key_jwt", "client_secret_post", "client_secret_basic"] });
}

/// Returns the fields of the configuration form.
fn fields<'a>(url: &'a str, client_id: &'a str, client_secret_id: &'a str) -> [(&'a str, &'a str); 7] {
    [
        ("name", "Far"),
        ("url", url),
        ("transport", "streamable_http"),
        ("oauth", "true"),
        ("connection", "shared"),
        ("client_id", client_id),
        ("client_secret_id", client_secret_id),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_an_admin_has_registered_is_used() {
    let stage = Stage::new().await;
    accept_only(&stage.server, "waypost-1", SECRET);
    stage.begin().await.assert_status(502).assert_contains("no_registration");
    let secret = stage.create_secret().await;
    let changed = stage.set_client(&json!("waypost-1"), &secret).await.assert_status(200).json();
    assert_eq!(
        (&changed["remote"]["client_id"], &changed["remote"]["client_secret_id"]),
        (&json!("waypost-1"), &secret)
    );
    assert!(stage.authorization_url().await.contains("client_id=waypost-1&"));
    stage.connect().await;
    assert!(!stage.server.state().paths.iter().any(|path| path == "/register"));
    // The form of the console shows the client ID, and not the secret.
    let page = format!("/o/acme/instances/{}/configuration", stage.id);
    let shown = stage.admin.get_page(&page).await;
    shown.assert_contains("waypost-1").assert_contains("/connections/callback").assert_lacks(SECRET);
    // A rotated secret is used for the next refresh.
    let path = format!("/secrets/{}", secret.as_str().unwrap());
    stage.api.post(&format!("{path}/rotate"), json!({ "value": "rotated" })).await.assert_status(200);
    accept_only(&stage.server, "waypost-1", "rotated");
    stage.api.app.advance_clock(HOUR - 5 * MINUTE).await;
    assert_eq!(stage.refresh().await, (1, 0));
    // A secret in use cannot be deleted. Another client ends the connection.
    stage.api.call(Method::DELETE, &path, None).await.assert_status(409).assert_contains("`far`");
    stage.set_client(&Value::Null, &Value::Null).await.assert_status(200);
    assert_eq!(stage.api.app.count("SELECT count(*) FROM remote_connections").await, 0);
    stage.api.call(Method::DELETE, &path, None).await.assert_status(204);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changing_a_secret_at_the_authorization_server_first_does_not_end_the_connection() {
    let stage = Stage::new().await;
    accept_only(&stage.server, "waypost-1", SECRET);
    let secret = stage.create_secret().await;
    stage.set_client(&json!("waypost-1"), &secret).await.assert_status(200);
    stage.connect().await;
    accept_only(&stage.server, "waypost-1", "rotated");
    stage.api.app.advance_clock(HOUR - 5 * MINUTE).await;
    assert_eq!(stage.refresh().await, (0, 1));
    assert_eq!(stage.api.app.count("SELECT count(*) FROM remote_connections").await, 1);
    assert_eq!(stage.instance().await["state"], "running");
    let path = format!("/secrets/{}/rotate", secret.as_str().unwrap());
    stage.api.post(&path, json!({ "value": "rotated" })).await.assert_status(200);
    // The lease of the failed refresh expires.
    stage.api.app.advance_clock(MINUTE).await;
    assert_eq!(stage.refresh().await, (1, 0));
    assert_eq!(stage.server.state().refreshes, ["refresh-1"], "the grant was not used before");
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_cannot_be_used_is_rejected() {
    let stage = Stage::new().await;
    let secret = stage.create_secret().await;
    let (id, unknown) = (json!("waypost-1"), json!("sec_01j00000000000000000000000"));
    for (client_id, client_secret_id, field) in [
        (&Value::Null, &secret, "client_id"),
        (&json!(""), &Value::Null, "client_id"),
        (&json!("a\u{e4}"), &Value::Null, "client_id"),
        (&json!("x".repeat(2_049)), &Value::Null, "client_id"),
        (&id, &json!(SECRET), "client_secret_id"),
        (&id, &unknown, "client_secret_id"),
    ] {
        let response = stage.set_client(client_id, client_secret_id).await;
        let problem = response.assert_status(422).assert_lacks(SECRET).json();
        assert_eq!(problem["field"], field, "{problem}");
    }
    // Only servers that require OAuth have clients.
    let new = json!({ "slug": "two", "remote": { "url": stage.server.url(), "client_id": "waypost-1" } });
    stage.api.post("/instances", new).await.assert_status(422).assert_contains("requires OAuth");
    stage.set_client(&id, &secret).await.assert_status(200);
    stage.server.state().server_metadata = json!({ "token_endpoint_auth_methods_supported": ["private_key_jwt"] });
    stage.begin().await.assert_status(502).assert_contains("auth_method");
    // A public client needs no secret, and a wrong secret is reported.
    stage.set_client(&json!("client-1"), &Value::Null).await.assert_status(200);
    stage.connect().await;
    accept_only(&stage.server, "waypost-1", "another");
    stage.set_client(&id, &secret).await.assert_status(200);
    let path = stage.server.allow(&stage.authorization_url().await);
    stage.admin.get(&path).await.assert_status(502).assert_contains("rejected the request");
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_forms_of_the_console_set_the_client() {
    let stage = Stage::new().await;
    let secret = stage.create_secret().await;
    let secret = secret.as_str().unwrap();
    let page = format!("/o/acme/instances/{}/configuration", stage.id);
    let url = stage.server.url();
    let rejected = stage.admin.post(&page, &fields("", "waypost-1", secret)).await;
    rejected.assert_status(422).assert_contains("Enter the URL again");
    let rejected = stage.admin.post(&page, &fields(&url, "", secret)).await;
    rejected.assert_status(422).assert_contains("Enter the ID of the client");
    stage.admin.post(&page, &fields(&url, "waypost-1", secret)).await.assert_status(303);
    let client = async || stage.instance().await["remote"]["client_id"].clone();
    assert_eq!(client().await, "waypost-1");
    // If the URL is not entered again, the client is kept.
    stage.admin.post(&page, &fields("", "waypost-1", secret)).await.assert_status(303);
    assert_eq!(client().await, "waypost-1");
    stage.admin.post(&page, &fields(&url, "", "")).await.assert_status(303);
    assert_eq!(client().await, Value::Null);
    stage.finish().await;
}
