//! Notifications for one account must not reach other agents, so there is no stream for a server with a connection for
//! each agent.

use http_body_util::BodyExt;
use serde_json::{Value, json};
use waypost_core::id::InstanceId;
use waypost_ops::instances::server_stream::{ServerStream, can_have_stream};

use super::Stage;

const RESOURCE: &str = "wp+far:file:///a";

impl Stage {
    /// Sends a request in a session (none if `session` is empty). Returns the ID of the session that it begins, and the
    /// response.
    async fn request_in(&self, session: &str, method: &str, params: Value) -> (Option<String>, Value) {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
        let mut request = http::Request::post("/gateway/acme/mcp")
            .header("host", "localhost:8080")
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {}", self.one.token));
        if !session.is_empty() {
            request = request.header("mcp-session-id", session);
        }
        let response = self.api.app.send(request.body(body.into()).unwrap()).await;
        let begun = response.headers().get("mcp-session-id").map(|id| id.to_str().unwrap().to_owned());
        let text = response.into_body().collect().await.unwrap().to_bytes();
        (begun, serde_json::from_slice(&text).unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_resources_are_not_announced_to_agents_with_their_own_accounts() {
    let stage = Stage::new().await;
    stage.server.state().has_resources = true;
    stage.connect(&stage.one).await;
    stage.check().await;
    stage.approve().await;
    let (session, begun) = stage.request_in("", "initialize", json!({})).await;
    assert_eq!(begun["result"]["capabilities"]["resources"], json!({ "listChanged": true }));
    let session = session.unwrap();
    let (_, read) = stage.request_in(&session, "resources/read", json!({ "uri": RESOURCE })).await;
    assert!(read["result"].is_object(), "{read}");
    let (_, refused) = stage.request_in(&session, "resources/subscribe", json!({ "uri": RESOURCE })).await;
    assert_eq!(refused["error"]["data"]["reason"], "not_supported", "{refused}");
    assert!(refused["error"]["message"].as_str().unwrap().contains("its own connection"), "{refused}");
    // No stream can be opened either, even if one was open before the mode was changed.
    let (organization, ops) = (&stage.api.org.id, stage.api.app.running_ops());
    let id: InstanceId = stage.id.parse().unwrap();
    let instance = waypost_ops::instances::get(stage.api.app.cx(), &ops, organization, &id).await.unwrap().instance;
    assert!(!can_have_stream(&instance));
    assert!(ServerStream::open(&ops, &instance, &Default::default()).await.unwrap().is_none());
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definitions_of_the_first_account_cannot_be_approved_in_advance() {
    let stage = Stage::new().await;
    let create = async |slug: &str, connection: &str| {
        let remote = json!({ "url": stage.server.url(), "oauth": true, "connection": connection });
        let new = json!({ "slug": slug, "remote": remote, "approve": { "class": "write" } });
        stage.api.post("/instances", new).await
    };
    create("near", "shared").await.assert_status(202);
    create("other", "per_agent").await.assert_status(422).assert_contains("approved in advance");
    let url = stage.server.url();
    let fields = [("slug", "form"), ("url", &url), ("transport", "streamable_http"), ("oauth", "true")];
    let fields: Vec<_> =
        fields.into_iter().chain([("connection", "per_agent"), ("approve", "true"), ("class", "write")]).collect();
    let shown = stage.admin.post("/o/acme/instances/connect", &fields).await;
    shown.assert_status(422).assert_contains("approved in advance");
    stage.finish().await;
}
