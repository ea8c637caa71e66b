//! The circuit breaker of servers in containers that agents share, and in containers for each agent or session.

use serde_json::json;

use super::Stage;
use super::personal::{another, call_as};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timeouts_of_one_agent_affect_others_only_if_they_share_its_container() {
    for (sharing, is_shared) in [("shared", true), ("per_agent", false), ("per_session", false)] {
        let stage = Stage::with_sharing(sharing).await.ready().await;
        let (_, token) = another(&stage).await;
        // The daemon responds with this status if the server does not respond in time.
        stage.set(|server| server.status = Some(504));
        for _ in 0..5 {
            assert_eq!(stage.call("search__find", json!({})).await["error"]["data"]["reason"], "timeout", "{sharing}");
        }
        stage.set(|server| server.status = None);
        stage.received();
        assert_eq!(stage.call("search__find", json!({})).await["error"]["data"]["reason"], "circuit_open", "{sharing}");
        let other = call_as(&stage, &token).await;
        match is_shared {
            true => assert_eq!(other["error"]["data"]["reason"], "circuit_open", "{other}"),
            false => assert_eq!(other["result"]["n"], 1.0, "{sharing}: {other}"),
        }
        assert_eq!(stage.received().len(), usize::from(!is_shared), "{sharing}");
        stage.finish().await;
    }
}
