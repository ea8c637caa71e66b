//! The pages of toolboxes and instances in Chromium, with a real machine.

use std::path::Path;
use std::process::Stdio;

use serde_json::json;
use tokio::process::Command;
use waypost_testkit::TempDir;

use crate::engine::Engine;
use crate::image::Image;
use crate::leak::assert_nothing_left;
use crate::registry::Registry;
use crate::waypost::Waypost;

waypost_testkit::needs_docker! {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[allow(unused_attributes, reason = "without Docker and without a browser, the test is ignored for two reasons")]
    #[cfg_attr(not(have_browser), ignore = "needs Chromium and the packages of e2e/browser")]
    async fn a_toolbox_is_added_and_a_server_is_deployed_called_and_stopped_docker() {
        let (engine, registry, waypost) = (Engine::shared(), Registry::start().await, Waypost::start().await);
        let image = registry.push("echo", &Image::stdio()).await;
        let entry = json!({
            "slug": "echo", "name": "Echo", "version": "1", "source": { "image": image }, "transport": "stdio",
            "resources": "light",
        });
        let (status, imported) = waypost.api(http::Method::POST, "/catalog/import", &entry).await;
        assert!(status.is_success(), "{imported}");
        let project = Path::new(env!("CARGO_MANIFEST_DIR"));
        let browser = waypost_testkit::browser(project).expect("the build script found the browser");
        let data = waypost_testkit::folder();
        let secrets = TempDir::new_in("/dev/shm").expect("a folder in memory can be created");
        let screenshots =
            std::env::var_os("SCREENSHOTS").unwrap_or_else(|| std::env::temp_dir().join("waypost-screenshots").into());
        let config = json!({
            "chromium": browser.chromium, "url": waypost.origin, "setup": waypost.set_up_path().await,
            "waypost": env!("CARGO_BIN_EXE_waypost"), "docker": engine.host(), "data": data.path(),
            "secrets": secrets.path(), "screenshots": screenshots.to_string_lossy(),
        });
        let mut command = Command::new(browser.node);
        command.arg(project.join("e2e/console/toolbox.mjs")).arg(config.to_string()).stdin(Stdio::null());
        command.env("NO_PROXY", "127.0.0.1,localhost").env("no_proxy", "127.0.0.1,localhost").kill_on_drop(true);
        let output = command.output().await.expect("Node.js starts");
        let output_text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}\n{output_text}", output.status);
        print!("{output_text}");
        let toolboxes = waypost.api(http::Method::GET, "/toolboxes", &serde_json::Value::Null).await.1;
        let id = toolboxes["items"][0]["id"].as_str().expect("a toolbox");
        assert_nothing_left(&engine, id, secrets.path());
        engine.remove_images_of(registry.address());
    }
}
