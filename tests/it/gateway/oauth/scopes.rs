//! Calls that require a scope that the connection does not have.

use serde_json::{Value, json};

use super::server::callback;
use super::{HOUR, MINUTE, Stage, state_of};

impl Stage {
    /// Calls the tool, checks that the scope is insufficient, and returns the error message.
    async fn lack_scope(&self) -> String {
        let answer = self.call().await;
        assert_eq!(answer["error"]["data"]["reason"], "insufficient_scope", "{answer}");
        answer["error"]["message"].as_str().unwrap().to_owned()
    }

    /// Returns the scope that the connection of the organisation lacks.
    async fn required_scope(&self) -> Value {
        let listed = self.api.get(&format!("/instances/{}/connections", self.id)).await;
        listed["items"][0]["required_scope"].clone()
    }

    /// Connects the instance again with this scope.
    async fn connect_with(&self, scope: &str) {
        let path = self.server.allow_scope(&self.authorization_url().await, scope);
        self.admin.get(&path).await.assert_redirect(&format!("/o/acme/instances/{}", self.id));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_without_the_scope_says_where_to_connect_again() {
    let stage = Stage::connected().await;
    let page = format!("/o/acme/instances/{}", stage.id);
    assert_eq!(stage.required_scope().await, Value::Null);
    stage.admin.get_page(&page).await.assert_lacks("Missing scope");
    stage.server.state().required_scope = Some("write:files".to_owned());
    // More calls than the number of failures that opens the circuit breaker.
    for _ in 0..12 {
        let message = stage.lack_scope().await;
        assert!(message.contains("`write:files`"), "{message}");
        assert!(message.contains(&format!("http://localhost:8080{page}")), "{message}");
    }
    assert_eq!(stage.server.state().refreshes, [""; 0], "another token with the same scope does not help");
    assert_eq!(stage.required_scope().await, "write:files");
    stage.admin.get_page(&page).await.assert_contains("Missing scope").assert_contains("write:files");
    // The next connection requests both scopes, and calls use it at once.
    stage.connect_with("write:files use").await;
    assert_eq!(stage.call().await["result"], json!({ "content": [] }));
    assert_eq!(stage.required_scope().await, Value::Null);
    stage.check().await;
    assert_eq!(stage.instance().await["state"], "running");
    // A refresh keeps the scope, and so does a further connection.
    stage.api.app.advance_clock(HOUR - 5 * MINUTE).await;
    assert_eq!(stage.refresh().await, (1, 0));
    stage.connect_with("write:files use").await;
    // Without a connection, only the scope that the server states is requested.
    let path = format!("/instances/{}/connections/shared", stage.id);
    stage.api.call(http::Method::DELETE, &path, None).await.assert_status(204);
    stage.connect_with("use").await;
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_error_does_not_suggest_connecting_again_for_a_scope_that_was_not_granted() {
    let stage = Stage::connected().await;
    {
        let mut state = stage.server.state();
        (state.required_scope, state.granted_scope) = (Some("admin".to_owned()), Some("use".to_owned()));
    }
    assert!(stage.lack_scope().await.contains("connected again"));
    stage.connect_with("admin use").await;
    let message = stage.lack_scope().await;
    assert!(message.contains("`admin`") && message.contains("asked for it already"), "{message}");
    assert!(!message.contains("http://"), "{message}");
    assert_eq!(stage.required_scope().await, Value::Null);
    // A server that requires another scope each time is treated differently, and the stored scopes are limited.
    for number in 0..3 {
        stage.server.state().required_scope = Some(format!("more-{number}"));
        assert!(stage.lack_scope().await.contains("http://"));
    }
    assert_eq!(stage.required_scope().await, "more-2 more-1 more-0");
    let long = "x".repeat(2_000);
    stage.server.state().required_scope = Some(format!("{long} more-2"));
    stage.lack_scope().await;
    assert_eq!(stage.required_scope().await, format!("{long} more-2 more-1 more-0"));
    stage.server.state().required_scope = Some("y".repeat(2_045));
    stage.lack_scope().await;
    assert_eq!(stage.required_scope().await, "y".repeat(2_045), "what does not fit is forgotten");
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scope_that_the_authorization_server_rejects_is_forgotten() {
    let stage = Stage::connected().await;
    stage.server.state().required_scope = Some("nonsense".to_owned());
    stage.lack_scope().await;
    let reject = async |iss: &str| {
        let state = state_of(&stage.authorization_url().await);
        stage.admin.get(&callback(&state, &[("error", "invalid_scope"), ("iss", iss)])).await
    };
    reject("https://evil.example").await.assert_status(502);
    assert_eq!(stage.required_scope().await, "nonsense", "another issuer changes nothing");
    reject(&stage.server.issuer()).await.assert_status(409).assert_contains("no longer asked for");
    assert_eq!(stage.required_scope().await, Value::Null);
    stage.connect_with("use").await;
    // The scope that the server itself states cannot be forgotten.
    reject(&stage.server.issuer()).await.assert_status(409).assert_contains("that the server states");
    stage.finish().await;
}
