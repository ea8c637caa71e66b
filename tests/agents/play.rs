//! Agents that complete the walkthrough, and agents that are killed midway and continue.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::agent::{Agent, RunConfig};
use crate::guidance;
use crate::model::{Model, Plan, Request};
use crate::process::Process;
use crate::server::{STEPS, Server};
use crate::table;

/// The number of steps that are completed when an agent is killed.
pub const STEPS_BEFORE_KILL: usize = 3;

/// The agent completes the walkthrough. The model calls `next_walkthrough_step` without waiting for the user, and its
/// input must tell it to wait.
pub async fn completes(agent: &Agent) {
    let server = Server::demo().await;
    let plan = Plan::new()
        .call("list_walkthroughs", json!({}))
        .call("select_walkthrough", json!({ "walkthrough_id": "$walkthrough_id" }))
        .call_times(STEPS, "next_walkthrough_step", next_arguments());
    let run = Run::start(agent, &server, "only", plan, |model| RunConfig::new(&server.url(), model)).await;
    let requests = run.wait_until_completed().await;
    assert!(
        requests.iter().all(|request| request.is_streamed() == agent.is_streaming()),
        "the agent requests streaming as expected"
    );
    let calls = server.calls().await;
    check_calls(&calls, &["list_walkthroughs", "select_walkthrough"], STEPS);
    guidance::check(agent, &requests, &calls, &server.instructions().await);
    table::record(agent, "Version", &agent.version());
}

/// The agent is configured with a personal URL. Only the configuration is kept.
pub async fn continues_with_personal_url(agent: &Agent) {
    let server = Server::demo().await;
    // As long as the IDs that the public page generates.
    let url = server.personal_url("Zx3kq8vTn0aLw7RbYc5dQe");
    let tools = server.tools(&url).await;
    let begin = Plan::new()
        .describe(&tools)
        .call("list_walkthroughs", json!({}))
        .call("select_walkthrough", json!({ "walkthrough_id": "$walkthrough_id" }))
        .call_times(STEPS_BEFORE_KILL, "next_walkthrough_step", next_arguments())
        .hang();
    let first = Run::start(agent, &server, "first", begin, |model| RunConfig::new(&url, model)).await;
    let at = first.kill_when_held().await.step;
    let rest = Plan::new()
        .describe(&tools)
        .call("list_walkthroughs", json!({}))
        .call("select_walkthrough", json!({ "walkthrough_id": "$walkthrough_id" }))
        .call_times(STEPS - STEPS_BEFORE_KILL, "next_walkthrough_step", next_arguments());
    let second = Run::start(agent, &server, "second", rest, |model| RunConfig::new(&url, model)).await;
    check_continues(&second.wait_until_completed().await, 1, &at);
    check_one_user(&server.calls().await);
    table::record(agent, "Continues with personal URL", "yes");
}

/// The model keeps the handle in its notes and passes it after the restart.
pub async fn continues_with_handle(agent: &Agent) {
    let server = Server::demo().await;
    let begin = Plan::new()
        .call("list_walkthroughs", json!({}))
        .call("select_walkthrough", json!({ "walkthrough_id": "$walkthrough_id" }))
        .call_times(STEPS_BEFORE_KILL, "next_walkthrough_step", next_arguments())
        .hang();
    let first = Run::start(agent, &server, "first", begin, |model| RunConfig::new(&server.url(), model)).await;
    let notes = first.kill_when_held().await;
    let handle = notes.handle.expect("the model is shown a handle");
    let known = json!({ "walkthrough_id": notes.walkthrough, "progress_handle": handle });
    let mut remembered = next_arguments();
    remembered["walkthrough_id"] = known["walkthrough_id"].clone();
    let rest = Plan::new().call("select_walkthrough", known).call_times(
        STEPS - STEPS_BEFORE_KILL,
        "next_walkthrough_step",
        remembered,
    );
    let second = Run::start(agent, &server, "second", rest, |model| RunConfig::new(&server.url(), model)).await;
    check_continues(&second.wait_until_completed().await, 0, &notes.step);
    check_one_user(&server.calls().await);
    table::record(agent, "Continues with handle", "yes");
}

/// Returns arguments for `next_walkthrough_step`, taken from the model's input.
pub fn next_arguments() -> Value {
    json!({
        "walkthrough_id": "$walkthrough_id", "current_step_id": "$current_step_id", "progress_handle": "$progress_handle?",
    })
}

/// A run of an agent with its own model.
pub struct Run {
    process: Process,
    model: Model,
}

/// The notes that a model has kept when its agent is killed.
pub struct Notes {
    pub walkthrough: String,
    pub step: String,
    pub handle: Option<String>,
}

impl RunConfig {
    /// Creates a configuration without sign-in.
    pub fn new(url: &str, model: &str) -> Self {
        Self { url: url.to_owned(), model: model.to_owned(), token: None, user: None }
    }
}

impl Run {
    /// Starts the agent with an empty home folder.
    pub async fn start(
        agent: &Agent,
        server: &Server,
        name: &str,
        plan: Plan,
        config: impl FnOnce(&str) -> RunConfig,
    ) -> Self {
        Self::start_in(server.installation.folder().join(name), agent, name, plan, config).await
    }

    /// Starts the agent with a home folder that can contain its earlier state.
    pub async fn start_in(
        home: PathBuf,
        agent: &Agent,
        name: &str,
        plan: Plan,
        config: impl FnOnce(&str) -> RunConfig,
    ) -> Self {
        std::fs::create_dir_all(&home).expect("the folder is created");
        let model = Model::start(home.parent().expect("the path has a parent folder"), name, plan).await;
        let command = agent.command(&home, &config(&model.origin));
        Self { process: Process::start(command, &home), model }
    }

    /// Waits until the agent exits. Returns the model's requests.
    pub async fn wait_for_exit(mut self) -> Vec<Request> {
        self.process.wait().await;
        self.model.requests()
    }

    /// Waits until the agent exits with a completed walkthrough. Returns the model's requests.
    pub async fn wait_until_completed(mut self) -> Vec<Request> {
        let status = self.process.wait().await;
        let details = || format!("{status}\n{}\n{}", self.process.output(), self.model.text());
        assert!(status.success(), "{}", details());
        let requests = self.model.requests();
        let last = requests.last().and_then(|request| request.results().last().map(|result| result.is_completed()));
        assert_eq!(last, Some(true), "{}", details());
        requests
    }

    /// Waits until the model withholds its response, then kills the agent.
    pub async fn kill_when_held(mut self) -> Notes {
        tokio::select! {
            () = self.model.wait_until_held() => {}
            status = self.process.wait() => {
                panic!("the process ended before it was killed: {status}\n{}\n{}", self.process.output(), self.model.text());
            }
        }
        let requests = self.model.requests();
        self.process.kill().await;
        let results = requests.last().expect("the model received a request").results();
        let last = *results.last().unwrap_or_else(|| panic!("no results:\n{}", self.model.text()));
        let text = results.iter().map(|result| result.text()).find_map(|text| text.find("wt_").map(|at| &text[at..]));
        let id: String =
            text.unwrap_or_default().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        Notes {
            walkthrough: id,
            step: last.step().unwrap_or_else(|| panic!("no current step:\n{}", self.model.text())).to_owned(),
            handle: last.handle().map(str::to_owned),
        }
    }
}

/// Checks that the result of call `index` of the new process has the step at which the first process was killed.
pub fn check_continues(requests: &[Request], index: usize, step: &str) {
    let results = requests.last().expect("the model received a request").results();
    assert_eq!(results[index].step(), Some(step), "{}", results[index].text());
    // No step is completed twice or skipped.
    assert_eq!(results.len(), index + 1 + STEPS - STEPS_BEFORE_KILL);
}

/// Checks that the server recorded the calls in `first` and then one call per step, all successful.
fn check_calls(calls: &[Value], first: &[&str], steps: usize) {
    let recorded: Vec<_> = calls.iter().map(|call| (call["tool"].as_str(), call["outcome"].as_str())).collect();
    let tools = first.iter().copied().chain(std::iter::repeat_n("next_walkthrough_step", steps));
    let expected: Vec<_> = tools.map(|tool| (Some(tool), Some("ok"))).collect();
    assert_eq!(recorded, expected);
}

/// Checks that all recorded progress belongs to one end user and that every call succeeded.
pub fn check_one_user(calls: &[Value]) {
    let writes: Vec<_> = calls.iter().filter(|call| call["tool"] != "list_walkthroughs").collect();
    assert!(writes.iter().all(|write| write["outcome"] == "ok"), "{calls:#?}");
    assert!(writes[0]["end_user_id"].is_string(), "{calls:#?}");
    assert!(writes.iter().all(|write| write["end_user_id"] == writes[0]["end_user_id"]), "{calls:#?}");
}
