//! Agents on a server with sign-in: each is killed midway and continues without signing in again.

use serde_json::json;

use crate::agent::{Agent, RunConfig, SignIn};
use crate::model::Plan;
use crate::play::{Run, STEPS_BEFORE_KILL, check_continues, check_one_user, next_arguments};
use crate::process::Process;
use crate::server::{STEPS, Server};
use crate::support::user::SimulatedUser;
use crate::{table, token};

/// The agent signs in once with its own method. Both processes share a home folder.
pub async fn continues(agent: &Agent) {
    let (server, user) = Server::with_sign_in(agent.server_sign_in).await;
    let prompted = detect_sign_in_prompt(agent, &server, &user).await;
    let home = server.installation.folder().join("home");
    let token = match agent.sign_in {
        SignIn::Header => Some(token::obtain(&server, &user).await),
        SignIn::Command(_) | SignIn::Client | SignIn::Program => None,
    };
    let before = user.sign_ins();
    if matches!(agent.sign_in, SignIn::Command(_)) {
        log_in(agent, &server, &user).await;
    }
    let config = |model: &str| RunConfig {
        url: server.url(),
        model: model.to_owned(),
        token: token.clone(),
        user: (agent.sign_in != SignIn::Header).then(|| user.origin.clone()),
    };
    let begin = Plan::new()
        .call("list_walkthroughs", json!({}))
        .call("select_walkthrough", json!({ "walkthrough_id": "$walkthrough_id" }))
        .call_times(STEPS_BEFORE_KILL, "next_walkthrough_step", next_arguments())
        .hang();
    let at = Run::start_in(home.clone(), agent, "first", begin, config).await.kill_when_held().await;
    assert_eq!(at.handle, None, "a signed-in user needs no handle");
    let rest = Plan::new()
        .call("list_walkthroughs", json!({}))
        .call("select_walkthrough", json!({ "walkthrough_id": "$walkthrough_id" }))
        .call_times(STEPS - STEPS_BEFORE_KILL, "next_walkthrough_step", next_arguments());
    let second = Run::start_in(home, agent, "second", rest, config).await;
    check_continues(&second.wait_until_completed().await, 1, &at.step);
    check_one_user(&server.calls().await);
    let once = if agent.sign_in == SignIn::Header { before } else { before + 1 };
    assert_eq!(user.sign_ins(), once, "the agent's stored tokens are sufficient");
    let method = match agent.sign_in {
        SignIn::Command(command) => format!("`{command}`, in a browser"),
        SignIn::Client => "its OAuth client, in a browser".to_owned(),
        SignIn::Program => "its OAuth client, in a browser, before it connects".to_owned(),
        SignIn::Header => "an access token in `headers`".to_owned(),
    };
    table::record(agent, "Signs in with", &method);
    let prompted = match agent.server_sign_in {
        Some(setting) => format!("{prompted}; needs `sign_in` `{setting}`"),
        None => prompted.to_owned(),
    };
    table::record(agent, "Asked to sign in", &prompted);
    table::record(agent, "Continues signed in", "yes");
}

/// Signs in with the agent's own command and waits until it exits.
async fn log_in(agent: &Agent, server: &Server, user: &SimulatedUser) {
    let home = server.installation.folder().join("home");
    std::fs::create_dir_all(&home).expect("the folder is created");
    let config = RunConfig {
        url: server.url(),
        // The command does not call the model.
        model: "http://127.0.0.1:9".to_owned(),
        token: None,
        user: Some(user.origin.clone()),
    };
    let before = user.sign_ins();
    let mut process = Process::start_with_input(agent.sign_in_command(&home, &config), &home);
    if let SignIn::Command("/mcp auth NAME") = agent.sign_in {
        process.answer_prompt("Do you want to continue? [Y/n]:", "y\n").await;
    }
    let status = process.wait().await;
    assert_eq!(user.sign_ins(), before + 1, "{status}\n{}", process.output());
}

/// Determines when an agent is asked to sign in: on connect, or when a call needs it.
async fn detect_sign_in_prompt(agent: &Agent, server: &Server, user: &SimulatedUser) -> &'static str {
    let list = Plan::new().call("list_walkthroughs", json!({}));
    let origin = (agent.sign_in == SignIn::Client).then(|| user.origin.clone());
    let config = |model: &str| RunConfig { user: origin, ..RunConfig::new(&server.url(), model) };
    let before = user.sign_ins();
    let run = Run::start(agent, server, "unknown", list, config).await;
    let requests = run.wait_for_exit().await;
    let is_listed = requests.iter().any(|request| !request.results().is_empty());
    if is_listed && user.sign_ins() == before { "when needed" } else { "on connect" }
}
