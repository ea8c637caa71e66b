//! Concurrent clients of one end user. The result equals that of some serial order, and no call is lost.

use serde_json::json;
use tokio::task::JoinSet;

use crate::app::{App, open};

waypost_testkit::both!(open =>
    concurrent_clients_of_one_user_each_complete_a_step,
    a_step_completed_by_many_clients_advances_once,
    concurrent_first_calls_create_one_user,
);

const SLUG: &str = "many-steps";
const CLIENTS: usize = 8;
const CALLS: usize = 10;

async fn concurrent_clients_of_one_user_each_complete_a_step(app: App) {
    let server = app.server("acme").await;
    let titles: Vec<String> = (0..100).map(|number| format!("Step {number}")).collect();
    let titles: Vec<&str> = titles.iter().map(String::as_str).collect();
    server.walkthrough("Many steps", &titles).await;
    let handle = server.modern().call("select_walkthrough", json!({ "walkthrough_id": SLUG })).await.handle();
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let client = if number % 2 == 0 { server.modern() } else { server.legacy("2025-11-25") };
        let client = client.with_handle(&handle);
        clients.spawn(async move {
            let mut completed = Vec::new();
            for _ in 0..CALLS {
                let result = client.call("next_walkthrough_step", json!({ "walkthrough_id": SLUG })).await;
                completed.push(result.ok()["completed_step_id"].as_str().unwrap().to_owned());
            }
            completed
        });
    }
    let mut completed: Vec<String> = clients.join_all().await.concat();
    completed.sort();
    completed.dedup();
    assert_eq!(completed.len(), CLIENTS * CALLS, "each call completed a different step");
    let status = server.modern().with_handle(&handle);
    let status = status.call("get_walkthrough_status", json!({ "walkthrough_id": SLUG })).await;
    assert_eq!(status.ok()["progress"]["completed"], CLIENTS * CALLS);
    let states: Vec<&str> =
        status.ok()["steps"].as_array().unwrap().iter().map(|step| step["state"].as_str().unwrap()).collect();
    assert!(states[..CLIENTS * CALLS].iter().all(|state| *state == "completed"), "in order, without gaps");
    assert_eq!(app.count("SELECT count(*) FROM step_completions").await, (CLIENTS * CALLS) as i64);
    app.finish().await;
}

async fn a_step_completed_by_many_clients_advances_once(app: App) {
    let server = app.server("acme").await;
    server.walkthrough("Many steps", &["A", "B", "C"]).await;
    let user = server.personal("ann");
    let first = user.call("select_walkthrough", json!({ "walkthrough_id": SLUG })).await.step_id();
    let mut calls = JoinSet::new();
    for _ in 0..CLIENTS {
        let (user, first) = (user.clone(), first.clone());
        calls.spawn(async move { user.call("next_walkthrough_step", json!({ "current_step_id": first })).await });
    }
    let responses = calls.join_all().await;
    let advanced = responses.iter().filter(|result| result.ok()["completed_step_id"] == first).count();
    assert_eq!(advanced, 1);
    assert!(responses.iter().all(|result| result.progress() == "2/3 33%"));
    app.finish().await;
}

async fn concurrent_first_calls_create_one_user(app: App) {
    let server = app.server("acme").await;
    server.walkthrough("Many steps", &["A", "B", "C"]).await;
    let session = server.legacy("2025-06-18").connect().await;
    let mut calls = JoinSet::new();
    for _ in 0..CLIENTS {
        for user in [server.personal("ann"), session.clone()] {
            calls.spawn(async move { user.call("select_walkthrough", json!({ "walkthrough_id": SLUG })).await });
        }
    }
    for result in calls.join_all().await {
        assert_eq!(result.progress(), "1/3 0%");
    }
    assert_eq!(app.count("SELECT count(*) FROM end_users").await, 2);
    assert_eq!(app.count("SELECT count(*) FROM progress").await, 2);
    app.finish().await;
}
