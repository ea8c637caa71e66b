//! A machine whose clock is wrong.
//!
//! The daemon runs with a library that shifts its wall clock by an hour from the start: links, deployments, calls,
//! logs, statistics and the handling of crashes still work. The library replaces a function of the C library, so it has
//! no effect on the static program of releases; the code that uses the clock is the same in both.

use std::path::Path;
use std::process::Command;

use http::Method;
use serde_json::{Value, json};
use waypost_core::Timestamp;

use crate::image::Image;
use crate::site::Site;

const HOUR_MS: i64 = 3_600_000;

/// Compiles the library into a folder, and returns its path.
fn clock_library(folder: &Path) -> String {
    let (source, library) =
        (Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/toolbox/clock.rs"), folder.join("libclock.so"));
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.args(["--edition", "2024", "--crate-type", "cdylib", "-C", "opt-level=s", "-o"]).arg(&library).arg(source);
    let output = rustc.output().expect("rustc starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    library.to_str().expect("UTF-8").to_owned()
}

fn time(value: &Value) -> i64 {
    Timestamp::from_rfc3339(value.as_str().unwrap_or_else(|| panic!("no time: {value}"))).expect("a time").0
}

impl Site {
    /// Checks that the daemon's clock is about `offset` ms off, and that the control plane uses its own.
    async fn assert_clocks(&self, id: &str, offset: i64) {
        let status: Value = serde_json::from_str(&self.toolbox.status().await).expect("JSON");
        let toolbox = self.api(Method::GET, &format!("/toolboxes/{}", self.toolbox.id), &Value::Null).await;
        let instance = self.api(Method::GET, &format!("/instances/{id}"), &Value::Null).await;
        let seen = time(&toolbox["last_seen_at"]);
        let is_close = |time: i64, expected: i64| (time - expected).abs() < HOUR_MS / 4;
        assert!(is_close(time(&status["since"]), seen + offset), "{status} {toolbox}");
        assert!(is_close(time(&instance["deployment"]["ended_at"]), seen), "{instance} {toolbox}");
        assert_eq!(toolbox["state"], "online", "{toolbox}");
    }

    /// Makes the server write a line with this text to its log, and waits until the log of the instance contains it.
    async fn assert_logged(&self, id: &str, text: &str) {
        let (_, logged) = self.call(id, "log", json!({ "text": text })).await;
        assert_eq!(logged["isError"], false, "{logged}");
        let path = format!("/instances/{id}/logs?tail=50");
        self.poll("the line", async || self.api(Method::GET, &path, &Value::Null).await.to_string().contains(text))
            .await;
    }
}

waypost_testkit::needs_docker! {
    #[tokio::test(flavor = "multi_thread")]
    async fn a_machine_with_a_clock_that_is_an_hour_off_works_docker() {
        let mut site = Site::start().await;
        let folder = waypost_testkit::folder();
        let preload = format!("LD_PRELOAD={}", clock_library(folder.path()));
        let version = site.import("clock", "1", &Image::stdio(), json!({})).await;
        let id = site.deploy("clock", &version).await;
        // The clock goes one hour forward, and then two hours back, while the same container runs.
        for (name, hours) in [("ahead", 1), ("behind", -1)] {
            let container = site.container(&id);
            site.toolbox.stop().await;
            let offset = hours * HOUR_MS;
            site.toolbox.wrap(&["env", &preload, &format!("CLOCK_OFFSET={}", offset / 1_000)]);
            site.toolbox.run(&site.engine.clone()).await;
            site.wait_for_link(&id).await;
            site.assert_echo(&id, name).await;
            assert_eq!(site.container(&id), container, "the container is kept");
            site.assert_clocks(&id, offset).await;
            site.assert_logged(&id, name).await;
            let stats = site.api(Method::GET, &format!("/instances/{id}/stats"), &Value::Null).await;
            assert!(stats["items"].is_array(), "{stats}");
            // A new deployment and a crash.
            let other = site.deploy(name, &version).await;
            site.assert_echo(&other, name).await;
            site.assert_clocks(&other, offset).await;
            let container = site.container(&other);
            site.engine.kill(&container);
            site.wait_for(&other, "another container", |_| {
                site.containers(&other).iter().any(|found| found["Id"] != *container && found["State"] == "running")
            })
            .await;
            site.wait_for_state(&other, "running").await;
            site.wait_for_link(&other).await;
            site.assert_echo(&other, "restarted").await;
            site.delete(&other).await;
        }
        site.finish().await;
    }
}
