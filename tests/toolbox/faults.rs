//! Servers that misbehave.

use serde_json::{Value, json};

use crate::image::Image;
use crate::site::{Site, id_of};

waypost_testkit::needs_docker! {
    #[tokio::test(flavor = "multi_thread")]
    async fn servers_that_do_not_answer_fail_after_a_minute_and_leave_nothing_behind_docker() {
        let site = Site::start().await;
        let mut instances = Vec::new();
        // A line that is too long does not count as an answer. `no_mcp` is the error for servers whose answer is not
        // MCP.
        for mode in ["silent", "flood"] {
            let version = site.import(mode, "1", &Image::new(&[mode]), json!({})).await;
            instances.push((mode, id_of(&site.create(mode, &version).await)));
        }
        for (mode, id) in instances {
            let instance = site.deployed(&id).await;
            let deployment = &instance["deployment"];
            let outcome = (&deployment["state"], &deployment["error"]["code"]);
            assert_eq!(outcome, (&json!("failed"), &json!("health_timeout")), "{mode}: {instance}");
            assert_eq!(site.leftovers(&id), [""; 0], "{mode}");
        }
        site.finish().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_server_that_crashes_three_times_is_in_a_crash_loop_docker() {
        let site = Site::start().await;
        let version = site.import("crash", "1", &Image::stdio(), json!({})).await;
        let id = site.deploy("crash", &version).await;
        for _ in 0..3 {
            site.wait_for_link(&id).await;
            let (status, _) = site.call(&id, "exit", json!({ "code": "1" })).await;
            assert!(!status.is_success());
        }
        site.wait_for_state(&id, "crash_loop").await;
        // The server is restarted after a pause. The instance leaves the state when the server has been healthy for
        // five minutes.
        site.wait_for_link(&id).await;
        site.assert_echo(&id, "back").await;
        let events = site.api(http::Method::GET, &format!("/instances/{id}/events"), &Value::Null).await;
        let kinds: Vec<_> = events["items"].as_array().unwrap().iter().map(|event| event["kind"].clone()).collect();
        assert!(kinds.contains(&json!("crashed")), "{events}");
        site.finish().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_call_that_hangs_does_not_delay_others_docker() {
        let site = Site::start().await;
        let fields = json!({ "transport": "streamable_http", "port": 8080 });
        let version = site.import("web", "1", &Image::http(), fields).await;
        let id = site.deploy("web", &version).await;
        let mut hanging = Box::pin(site.call(&id, "hang", json!({ "seconds": "20" })));
        let others = async {
            for number in 0..20 {
                site.assert_echo(&id, &number.to_string()).await;
            }
        };
        tokio::select! {
            () = others => {}
            (status, result) = &mut hanging => panic!("the other calls waited for the hanging one: {status} {result}"),
        }
        let (status, result) = hanging.as_mut().await;
        drop(hanging);
        assert!(status.is_success() && result["content"][0]["text"] == "awake", "{status} {result}");
        site.finish().await;
    }
}
