//! Two processes on one PostgreSQL database: both notice every change in time, and no call is lost.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;
use waypost_content::transfer;
use waypost_core::caller::Ctx;
use waypost_ops::assignments::{self, AssignmentPatch};
use waypost_ops::servers;
use waypost_ops::walkthroughs::import::{self, ImportOptions};
use waypost_ops::walkthroughs::{EditTarget, publish};

use crate::client::Client;
use crate::installation::{Installation, STEPS, walkthrough};
use crate::load::LoadUser;
use crate::program::ServeProcess;

/// The maximum delay until every process notices a change, plus a margin for the test.
const MAX_DELAY: Duration = Duration::from_millis(1_000 + 500);

/// Polls both processes until they offer this version to a new end user, or nothing if `version` is `None`.
async fn assert_both_see(clients: [&Client; 2], what: &str, version: Option<u64>) {
    let since = Instant::now();
    for client in clients {
        loop {
            let elapsed = since.elapsed();
            let answer = client.call("newcomer", "list_walkthroughs", json!({})).await.unwrap();
            if answer.content["walkthroughs"][0]["version"].as_u64() == version {
                break;
            }
            assert!(elapsed < MAX_DELAY, "{what}: not noticed after {elapsed:?}: {}", answer.content);
        }
    }
}

waypost_testkit::needs_postgres! {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn both_replicas_see_changes() {
        let installation = Installation::postgres().await;
        let (one, two) = tokio::join!(ServeProcess::start(&installation), ServeProcess::start(&installation));
        let (a, b) = (one.client(), two.client());
        let both = [&a, &b];
        let (cx, ops) = (Ctx::operator(), installation.ops().await);
        let (organization, server) = (&installation.organization, &installation.server);
        let id = &installation.walkthrough;
        let target = EditTarget { organization_id: organization, walkthrough_id: id, revision: None };
        let placement = |enabled| AssignmentPatch { enabled: Some(enabled), ..AssignmentPatch::default() };

        // Progress started through one process continues through the other.
        let mut user = LoadUser::new(&installation, 1);
        user.select(&a).await.unwrap();
        for n in 0..6 {
            user.advance(both[n % 2]).await.unwrap();
        }
        assert_both_see(both, "the start", Some(1)).await;
        assignments::assign(&cx, &ops, organization, server, id, placement(false)).await.unwrap();
        assert_both_see(both, "disabled", None).await;
        assignments::assign(&cx, &ops, organization, server, id, placement(true)).await.unwrap();
        assert_both_see(both, "enabled", Some(1)).await;
        assignments::unassign(&cx, &ops, organization, server, id).await.unwrap();
        assert_both_see(both, "unassigned", None).await;
        assignments::assign(&cx, &ops, organization, server, id, placement(true)).await.unwrap();
        assert_both_see(both, "assigned", Some(1)).await;
        publish::unpublish(&cx, &ops, target).await.unwrap();
        assert_both_see(both, "unpublished", None).await;
        publish::publish(&cx, &ops, target, false).await.unwrap();
        assert_both_see(both, "published", Some(1)).await;
        let off = servers::ServerSettings { walkthrough_tools_enabled: Some(false), ..servers::ServerSettings::default() };
        servers::update(&cx, &ops, organization, server, &off).await.unwrap();
        assert_both_see(both, "switched off", None).await;
        let on = servers::ServerSettings { walkthrough_tools_enabled: Some(true), ..servers::ServerSettings::default() };
        servers::update(&cx, &ops, organization, server, &on).await.unwrap();
        assert_both_see(both, "switched on", Some(1)).await;
        let file = transfer::parse("long.json", &walkthrough("Renamed step")).unwrap();
        let options = ImportOptions { publish: true, ..ImportOptions::default() };
        import::import(&cx, &ops, organization, file, options).await.unwrap();
        assert_both_see(both, "published again", Some(2)).await;
        publish::withdraw(&cx, &ops, target, 2, "It names a command that deletes too much.").await.unwrap();
        assert_both_see(both, "withdrawn", Some(1)).await;

        // The progress is unchanged afterwards.
        for client in both {
            assert_eq!(user.stored(client).await, user.acknowledged);
        }
        // A new server is available immediately on both processes.
        servers::create(&cx, &ops, organization, "brand-new", &servers::ServerSettings::default()).await.unwrap();
        for client in both {
            assert_eq!(client.get("/s/brand-new/mcp").await, Some(405));
            assert_eq!(client.get("/s/no-such-server/mcp").await, Some(404));
        }
        ops.store().close().await;
        one.stop().await;
        two.stop().await;
        installation.check(6).await;
    }
}

waypost_testkit::needs_postgres! {
    /// Clients of both processes act concurrently for the same end users.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn calls_through_both_replicas_have_a_serial_order() {
        const USERS: usize = 6;
        const TASKS: usize = 24;
        const CALLS: usize = 30;
        let installation = Installation::postgres().await;
        let (one, two) = tokio::join!(ServeProcess::start(&installation), ServeProcess::start(&installation));
        let clients = [one.client(), two.client()];
        let mut tasks = Vec::new();
        for task in 0..TASKS {
            let (client, walkthrough) = (clients[task % 2].clone(), installation.walkthrough.to_string());
            tasks.push(tokio::spawn(async move {
                let mut completed = Vec::new();
                for n in 0..CALLS {
                    let user = (task + n) % USERS;
                    let name = format!("user-{user}");
                    // All clients start at once. Each end user is created only once.
                    let arguments = json!({ "walkthrough_id": walkthrough });
                    if n < USERS {
                        client.call(&name, "select_walkthrough", arguments.clone()).await.unwrap();
                    }
                    let answer = client.call(&name, "next_walkthrough_step", arguments).await.unwrap();
                    completed.push((user, answer.content["completed_step_id"].as_str().unwrap().to_owned()));
                }
                completed
            }));
        }
        let mut reported: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for task in tasks {
            for (user, step) in task.await.unwrap() {
                reported.entry(user).or_default().push(step);
            }
        }
        assert_eq!(reported.len(), USERS);
        for (user, mut steps) in reported {
            let advances = TASKS * CALLS / USERS;
            assert!(advances < STEPS && steps.len() == advances);
            // The result equals a serial order: each step was completed by exactly one call.
            let mut stored = LoadUser::new(&installation, user).stored(&clients[user % 2]).await;
            steps.sort();
            stored.sort();
            assert_eq!(steps, stored, "user {user}");
        }
        one.stop().await;
        two.stop().await;
        installation.check(TASKS * CALLS).await;
    }
}
