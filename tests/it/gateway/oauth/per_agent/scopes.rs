//! Calls that require a scope that the connection of one agent does not have.

use serde_json::{Value, json};

use super::{OWN_PAGE, Stage, TestPerson};

impl Stage {
    /// Returns the scope that each connection lacks, by the name of its agent.
    async fn required_scopes(&self) -> Value {
        let listed = self.api.get(&format!("/instances/{}/connections", self.id)).await;
        let items = listed["items"].as_array().unwrap().iter();
        items.map(|item| (item["agent_name"].as_str().unwrap().to_owned(), item["required_scope"].clone())).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_agent_asks_for_the_scope_that_its_own_calls_require() {
    let stage = Stage::both_connected().await;
    stage.server.state().required_scope = Some("write".to_owned());
    let page = format!("http://localhost:8080/o/acme/instances/{}/connections", stage.id);
    for _ in 0..12 {
        let (reason, message) = stage.fail(&stage.one.token).await;
        assert_eq!(reason, "insufficient_scope");
        assert!(message.contains("`write`") && message.contains(&page), "{message}");
    }
    assert_eq!(stage.required_scopes().await, json!({ "one": "write", "two": null }));
    let shown = stage.admin.get_page(&format!("/o/acme/instances/{}/connections", stage.id)).await;
    shown.assert_contains("needs the scope <bdi>write</bdi>");
    let started = stage.begin(&format!("?agent_id={}", stage.one.id)).await.assert_status(200).json();
    let done = stage.server.allow_scope(started["authorization_url"].as_str().unwrap(), "write use");
    stage.admin.get(&done).await.assert_status(303);
    assert_eq!(stage.call(&stage.one.token).await, "access-3");
    assert_eq!(stage.fail(&stage.two.token).await.0, "insufficient_scope", "the scope of another agent is not used");
    assert_eq!(stage.required_scopes().await, json!({ "one": null, "two": "write" }));
    assert_eq!(stage.instance().await["state"], "running");
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_are_told_to_connect_their_own_account_again() {
    let stage = Stage::connected().await;
    let bob = TestPerson::new(&stage, "bob@acme.example").await;
    stage.grant(bob.agent.as_str()).await;
    bob.connect(&stage).await;
    stage.server.state().required_scope = Some("write".to_owned());
    let (reason, message) = stage.fail(&bob.token).await;
    assert_eq!(reason, "insufficient_scope");
    assert!(message.contains("`write`") && message.contains(&format!("http://localhost:8080{OWN_PAGE}")), "{message}");
    let browser = &bob.person.browser;
    browser.get_page(OWN_PAGE).await.assert_contains("Missing scope");
    let done = stage.server.allow_scope(&bob.authorization_url(&stage).await, "write use");
    browser.get(&done).await.assert_redirect(OWN_PAGE);
    browser.get_page(OWN_PAGE).await.assert_lacks("Missing scope");
    assert_eq!(stage.call(&bob.token).await, "access-3");
    stage.finish().await;
}
