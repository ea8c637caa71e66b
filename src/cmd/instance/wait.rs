//! `--wait`: follows a deployment.

use std::time::Duration;

use anyhow::bail;
use serde_json::Value;
use tokio::time::{Instant, sleep};
use waypost_ops::instances::connect::{NO_AGENT_CONNECTED, NOT_CONNECTED};

use super::show::describe_error;
use crate::cmd::{App, output};
use crate::operator_socket;

/// The interval between two requests for the deployment.
const INTERVAL: Duration = Duration::from_millis(300);
/// The maximum time to wait. A deployment itself has no limit, because pulling an image can take long.
const MAX_WAIT: Duration = Duration::from_secs(30 * 60);
/// The steps of a deployment, in order.
const STEPS: [&str; 6] = ["validating", "preparing", "pulling", "starting", "checking", "complete"];

/// Checks that a process can carry out a deployment, as far as this can be determined: on SQLite, checks that `serve`
/// is running.
///
/// # Errors
/// If it is not running. The message says what to do.
pub(in crate::cmd) fn check_is_served(app: &App, slug: &str) -> anyhow::Result<()> {
    if app.settings.database_url.is_sqlite() && operator_socket::is_dead(&app.settings.data_dir) {
        bail!(
            "`{slug}` is stored, but not deployed, because `waypost serve` is not running: start it, and look at the instance with `waypost instance show {slug}`"
        );
    }
    Ok(())
}

/// Prints each step of a deployment once, until it has ended: to standard output, or with `json` to standard error.
/// `fetch` returns the deployment.
///
/// # Errors
/// If the deployment fails or takes too long. The message contains step, code, cause and next action. Any error of
/// `fetch`.
pub(in crate::cmd) async fn wait(
    json: bool,
    slug: &str,
    fetch: impl AsyncFn() -> anyhow::Result<Value>,
) -> anyhow::Result<()> {
    let (start, mut printed) = (Instant::now(), 0);
    loop {
        let deployment = fetch().await?;
        let text = |name: &str| deployment[name].as_str().unwrap_or_default();
        let is_complete = text("state") == "complete";
        let reached = if is_complete { STEPS.len() } else { reached(text("step")) };
        // Steps that were passed between two requests are printed, too.
        for step in STEPS.get(printed..reached).unwrap_or_default() {
            match json {
                true => eprintln!("{step}"),
                false => output::text(&format!("{step}\n"))?,
            }
        }
        printed = printed.max(reached);
        match text("state") {
            "complete" => return Ok(()),
            "running" if start.elapsed() < MAX_WAIT => sleep(INTERVAL).await,
            "running" => bail!(
                "the deployment of `{slug}` is still running (step `{}`): see it with `waypost instance show {slug}`",
                output::clean(text("step"))
            ),
            state => {
                let reason = describe_error(&deployment["error"]).unwrap_or_else(|| "the reason is unknown".to_owned());
                let result = if state == "rolled_back" { "was rolled back" } else { "failed" };
                bail!("the deployment of `{slug}` {result}: {}", output::clean(&reason));
            }
        }
    }
}

fn is_unconnected(message: &Value) -> bool {
    message == NOT_CONNECTED || message == NO_AGENT_CONNECTED
}

/// Waits until a remote server has answered, or three attempts have failed. `fetch` returns the instance.
///
/// # Errors
/// If the server does not answer. The message contains the reason. Any error of `fetch`.
pub(in crate::cmd) async fn wait_for_remote(
    slug: &str,
    fetch: impl AsyncFn() -> anyhow::Result<Value>,
) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let instance = fetch().await?;
        if instance["state"] == "deploying" && is_unconnected(&instance["health"]["message"]) {
            bail!("the remote server `{slug}` is not connected yet: run `waypost instance connect {slug}`");
        }
        match instance["state"].as_str().unwrap_or_default() {
            "deploying" if start.elapsed() < MAX_WAIT => sleep(INTERVAL).await,
            "running" => return Ok(()),
            state => {
                let reason = instance["health"]["message"].as_str().unwrap_or("the reason is unknown");
                bail!("the remote server `{slug}` has the state {state}: {}", output::clean(reason));
            }
        }
    }
}

/// Returns the number of steps up to `step`. `complete` is only printed for a deployment that is complete.
fn reached(step: &str) -> usize {
    STEPS[..STEPS.len() - 1].iter().position(|name| *name == step).map_or(0, |at| at + 1)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use serde_json::json;

    use super::*;

    async fn follow(states: &[(&str, &str, Value)]) -> (anyhow::Result<()>, usize) {
        let (states, count) = (RefCell::new(states.iter()), RefCell::new(0));
        let fetch = async || {
            *count.borrow_mut() += 1;
            let (state, step, error) = states.borrow_mut().next().expect("the deployment has ended");
            Ok(json!({ "state": state, "step": step, "error": error }))
        };
        let result = wait(true, "search", fetch).await;
        (result, count.take())
    }

    #[tokio::test(start_paused = true)]
    async fn a_deployment_is_followed_until_it_ends() {
        let running = |step| ("running", step, Value::Null);
        let states = [running("validating"), running("pulling"), ("complete", "complete", Value::Null)];
        let (result, count) = follow(&states).await;
        assert_eq!((result.is_ok(), count), (true, 3));
        let error =
            json!({ "step": "checking", "code": "no_mcp", "cause": "No MCP.", "next_action": "Check the image." });
        let (result, _) = follow(&[running("checking"), ("failed", "checking", error.clone())]).await;
        assert_eq!(
            result.unwrap_err().to_string(),
            "the deployment of `search` failed: no_mcp while checking: No MCP. Check the image."
        );
        let (result, _) = follow(&[("rolled_back", "checking", error)]).await;
        assert!(result.unwrap_err().to_string().contains("was rolled back: no_mcp"));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_has_a_time_limit() {
        let fetch = async || Ok(json!({ "state": "running", "step": "pulling", "error": null }));
        let message = wait(true, "search", fetch).await.unwrap_err().to_string();
        assert!(message.contains("is still running (step `pulling`)"), "{message}");
    }

    #[test]
    fn steps_are_counted() {
        assert_eq!(["", "validating", "checking", "complete"].map(reached), [0, 1, 5, 0]);
    }
}
