//! Headers of agents that are forwarded to a server over HTTP in a container.

use http::Method;
use serde_json::{Value, json};

use crate::engine::Engine;
use crate::image::Image;
use crate::site::{Site, id_of};
use crate::support::installation::Installation;
use crate::waypost::{Toolbox, Waypost};

/// The headers that the agent sends in addition to its token.
const SENT: [(&str, &str); 3] = [("X-Tenant", "acme \"1\""), ("x-other", "1"), ("cookie", "session=1")];
/// The response of the tool for a header that the request does not contain.
const NONE: &str = "the request has no such header";

waypost_testkit::needs_docker! {
    #[tokio::test(flavor = "multi_thread")]
    async fn a_server_over_http_receives_only_the_listed_headers_of_agents_docker() {
        let mut installation = Installation::new().await;
        installation.set_env("WAYPOST_GATEWAY_FORWARDED_HEADERS", "X-Tenant".to_owned());
        let waypost = Waypost::start_as(installation).await;
        let toolbox = Toolbox::join(&waypost, "machine").await;
        let site = Site::start_as(Engine::shared(), waypost, toolbox).await;
        let fields = json!({ "transport": "streamable_http", "port": 8080 });
        let version = site.import("web", "1", &Image::http(), fields).await;
        let id = site.deploy("web", &version).await;
        let agent = id_of(&site.api(Method::POST, "/agents", &json!({ "name": "ci" })).await);
        let token = site.api(Method::POST, &format!("/agents/{agent}/tokens"), &json!({})).await;
        let token = token["token"].as_str().expect("a token");
        let grant = json!({ "agent_id": agent, "instance_id": id, "access": "full_access" });
        site.api(Method::POST, "/grants", &grant).await;
        site.api(Method::POST, &format!("/instances/{id}/check-definitions"), &json!({})).await;
        let pending = site.api(Method::GET, "/tool-approvals?state=pending", &Value::Null).await;
        for approval in pending["items"].as_array().expect("approvals") {
            let decision = json!({ "digest": approval["digest"], "class": "read" });
            site.api(Method::POST, &format!("/tool-approvals/{}/approve", id_of(approval)), &decision).await;
        }
        let read = async |header: &str, headers: &[(&str, &str)]| {
            let params = json!({ "name": "web__headers", "arguments": { "header": header } });
            let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
            let answer = site.waypost.post_with("/gateway/mcp", token, headers, &message).await;
            answer["result"]["content"][0]["text"].as_str().map(str::to_owned)
        };
        // An approval takes effect within a second.
        site.poll("the approvals", async || read("host", &[]).await.is_some()).await;
        assert_eq!(read("x-tenant", &SENT).await.as_deref(), Some("acme \"1\""));
        assert_eq!(read("host", &SENT).await.as_deref(), Some("127.0.0.1:8080"));
        for header in ["x-other", "cookie", "authorization", "waypost-forwarded-headers"] {
            assert_eq!(read(header, &SENT).await.as_deref(), Some(NONE), "{header}");
        }
        assert_eq!(read("x-tenant", &[]).await.as_deref(), Some(NONE), "that of an earlier call");
        site.finish().await;
    }
}
