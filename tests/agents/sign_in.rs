//! Agents that play on a server whose users sign in, are killed in the middle and continue without another sign-in.

use serde_json::json;

use crate::agent::{Agent, Given, SignIn};
use crate::model::Plan;
use crate::play::{BEFORE, Run, check_continues, check_one_user, next};
use crate::process::Process;
use crate::server::{STEPS, Server};
use crate::support::user::User;
use crate::{table, token};

/// The agent signs in once, in the way that it has; both processes have the same home folder.
pub async fn continues(agent: &Agent) {
    let (server, user) = Server::with_sign_in(agent.server_sign_in).await;
    let asked = when_asked(agent, &server, &user).await;
    let home = server.installation.folder().join("home");
    let token = match agent.sign_in {
        SignIn::Header => Some(token::mint(&server, &user).await),
        SignIn::Command(_) | SignIn::Client | SignIn::Program => None,
    };
    let before = user.sign_ins();
    if matches!(agent.sign_in, SignIn::Command(_)) {
        log_in(agent, &server, &user).await;
    }
    let given = |model: &str| Given {
        url: server.url(),
        model: model.to_owned(),
        token: token.clone(),
        user: (agent.sign_in != SignIn::Header).then(|| user.origin.clone()),
    };
    let begin = Plan::new()
        .call("list_walkthroughs", json!({}))
        .call("select_walkthrough", json!({ "walkthrough_id": "$walkthrough_id" }))
        .calls(BEFORE, "next_walkthrough_step", next())
        .hang();
    let at = Run::start_in(home.clone(), agent, "first", begin, given).await.kill_when_held().await;
    assert_eq!(at.handle, None, "a user who is signed in needs no handle");
    let rest = Plan::new()
        .call("list_walkthroughs", json!({}))
        .call("select_walkthrough", json!({ "walkthrough_id": "$walkthrough_id" }))
        .calls(STEPS - BEFORE, "next_walkthrough_step", next());
    let second = Run::start_in(home, agent, "second", rest, given).await;
    check_continues(&second.completes().await, 1, &at.step);
    check_one_user(&server.calls().await);
    let once = if agent.sign_in == SignIn::Header { before } else { before + 1 };
    assert_eq!(user.sign_ins(), once, "what the agent kept is enough");
    let with = match agent.sign_in {
        SignIn::Command(command) => format!("`{command}`, in a browser"),
        SignIn::Client => "its OAuth client, in a browser".to_owned(),
        SignIn::Program => "its OAuth client, in a browser, before it connects".to_owned(),
        SignIn::Header => "an access token in `headers`".to_owned(),
    };
    table::record(agent, "Signs in with", &with);
    let asked = match agent.server_sign_in {
        Some(setting) => format!("{asked}; needs `sign_in` `{setting}`"),
        None => asked.to_owned(),
    };
    table::record(agent, "Asked to sign in", &asked);
    table::record(agent, "Continues signed in", "yes");
}

/// Signs in with the agent's own command and waits until it has ended.
async fn log_in(agent: &Agent, server: &Server, user: &User) {
    let home = server.installation.folder().join("home");
    std::fs::create_dir_all(&home).expect("the folder takes folders");
    let given = Given {
        url: server.url(),
        // It asks the model nothing.
        model: "http://127.0.0.1:9".to_owned(),
        token: None,
        user: Some(user.origin.clone()),
    };
    let before = user.sign_ins();
    let mut process = Process::start_with_input(agent.login(&home, &given), &home);
    if let SignIn::Command("/mcp auth NAME") = agent.sign_in {
        process.answer("Do you want to continue? [Y/n]:", "y\n").await;
    }
    let status = process.end().await;
    assert_eq!(user.sign_ins(), before + 1, "{status}\n{}", process.output());
}

/// When an agent that is not signed in is asked to: when it connects, or when a call needs it.
async fn when_asked(agent: &Agent, server: &Server, user: &User) -> &'static str {
    let list = Plan::new().call("list_walkthroughs", json!({}));
    let origin = (agent.sign_in == SignIn::Client).then(|| user.origin.clone());
    let given = |model: &str| Given { user: origin, ..Given::new(&server.url(), model) };
    let before = user.sign_ins();
    let run = Run::start(agent, server, "unknown", list, given).await;
    let requests = run.ends().await;
    let is_listed = requests.iter().any(|it| !it.results().is_empty());
    if is_listed && user.sign_ins() == before { "when needed" } else { "on connect" }
}
