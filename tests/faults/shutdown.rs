//! SIGTERM under load: open requests are answered, open streams end with a result, everything is recorded, and it is over soon.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde_json::json;
use waypost_store::{Db, on};

use crate::client::Client;
use crate::install::Install;
use crate::load::{Load, User, total};
use crate::program::Program;

/// How long the program may take to stop.
pub const LIMIT: Duration = Duration::from_secs(10);

async fn everything_is_finished_and_recorded(install: Install) {
    let mut program = Program::start(&install).await;
    let client = program.client();
    let users = (0..32).map(|n| User::new(&install, n)).collect();
    let load = Load::start(users, &client, |failure| assert!(failure.is_gone(), "{failure:?}"));
    // Reads go through another queue, which has to be emptied as well.
    let read = |n| tokio::spawn(read(client.clone(), format!("reader-{n}"), install.walkthrough.to_string()));
    let readers: Vec<_> = (0..8).map(read).collect();
    load.reach(300).await;
    let streams = [client.listen().await, client.listen().await];
    let told = Instant::now();
    program.terminate();
    let status = program.exit().await;
    assert!(told.elapsed() < LIMIT, "it took {:?}", told.elapsed());
    assert_eq!(status.code(), Some(0), "{}", program.log());
    for stream in streams {
        let text = stream.read_all().await.expect("the stream ends as a response does");
        assert!(text.contains("notifications/subscriptions/acknowledged"), "{text}");
        assert!(text.contains(r#""resultType":"complete""#), "{text}");
    }
    let users = load.finish().await;
    let mut answered: HashSet<String> = users.iter().flat_map(|user| user.requests.clone()).collect();
    for reader in readers {
        answered.extend(reader.await.unwrap());
    }
    let recorded = recorded(&install).await;
    let missing: Vec<_> = answered.difference(&recorded).collect();
    assert!(missing.is_empty(), "{} of {} calls are not recorded: {missing:?}", missing.len(), answered.len());
    // A request that was read was answered: only those that came too late got nothing, and nothing was done for them.
    install.check(total(&users)).await;
    let log = program.log();
    assert!(!log.contains("\"ERROR\"") && !log.contains("\"WARN\""), "{log}");
}

async fn read(client: Client, user: String, walkthrough: String) -> Vec<String> {
    // Each call of a known user has a row.
    let selected = client.call(&user, "select_walkthrough", json!({ "walkthrough_id": walkthrough })).await.unwrap();
    let mut answered = vec![selected.request_id];
    loop {
        match client.call(&user, "list_walkthroughs", json!({})).await {
            Ok(answer) => answered.push(answer.request_id),
            Err(failure) => {
                assert!(failure.is_gone(), "{failure:?}");
                return answered;
            }
        }
    }
}

async fn recorded(install: &Install) -> HashSet<String> {
    let db = Db::open(&install.url).await.unwrap();
    let sql = "SELECT request_id FROM tool_calls";
    let ids: Vec<String> = on!(&mut db.read().await.unwrap(), c => sqlx::query_scalar(sql).fetch_all(c).await.unwrap());
    db.close().await;
    ids.into_iter().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite() {
    everything_is_finished_and_recorded(Install::sqlite().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(have_postgres), ignore = "needs PostgreSQL")]
async fn postgres() {
    everything_is_finished_and_recorded(Install::postgres().await).await;
}
