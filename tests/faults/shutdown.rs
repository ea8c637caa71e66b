//! SIGTERM under load: open requests are completed, open streams end with a result, all calls are recorded, and the
//! program exits in time.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde_json::json;
use waypost_store::{Db, on};

use crate::client::Client;
use crate::installation::Installation;
use crate::load::{Load, LoadUser, total_acknowledged};
use crate::program::ServeProcess;

/// The maximum duration of a shutdown.
pub const LIMIT: Duration = Duration::from_secs(10);

async fn assert_clean_shutdown(installation: Installation) {
    let mut program = ServeProcess::start(&installation).await;
    let client = program.client();
    let users = (0..32).map(|n| LoadUser::new(&installation, n)).collect();
    let load = Load::start(users, &client, |failure| assert!(failure.is_gone(), "{failure:?}"));
    // Reads use another queue, which must be flushed too.
    let read =
        |n| tokio::spawn(read_until_gone(client.clone(), format!("reader-{n}"), installation.walkthrough.to_string()));
    let readers: Vec<_> = (0..8).map(read).collect();
    load.wait_for(300).await;
    let streams = [client.listen().await, client.listen().await];
    let started = Instant::now();
    program.terminate();
    let status = program.exit().await;
    assert!(started.elapsed() < LIMIT, "shutdown took {:?}", started.elapsed());
    assert_eq!(status.code(), Some(0), "{}", program.log());
    for stream in streams {
        let text = stream.read_all().await.expect("the stream ends with a complete response");
        assert!(text.contains("notifications/subscriptions/acknowledged"), "{text}");
        assert!(text.contains(r#""resultType":"complete""#), "{text}");
    }
    let users = load.finish().await;
    let mut completed: HashSet<String> = users.iter().flat_map(|user| user.requests.clone()).collect();
    for reader in readers {
        completed.extend(reader.await.unwrap());
    }
    let recorded = recorded(&installation).await;
    let missing: Vec<_> = completed.difference(&recorded).collect();
    assert!(missing.is_empty(), "{} of {} calls are not recorded: {missing:?}", missing.len(), completed.len());
    // Every request that the server read got a response. Requests that arrived too late had no effect.
    installation.check(total_acknowledged(&users)).await;
    let log = program.log();
    assert!(!log.contains("\"ERROR\"") && !log.contains("\"WARN\""), "{log}");
}

async fn read_until_gone(client: Client, user: String, walkthrough: String) -> Vec<String> {
    // Calls of an end user always get a row. Calls of unidentified callers may only be counted.
    let selected = client.call(&user, "select_walkthrough", json!({ "walkthrough_id": walkthrough })).await.unwrap();
    let mut completed = vec![selected.request_id];
    loop {
        match client.call(&user, "list_walkthroughs", json!({})).await {
            Ok(answer) => completed.push(answer.request_id),
            Err(failure) => {
                assert!(failure.is_gone(), "{failure:?}");
                return completed;
            }
        }
    }
}

async fn recorded(installation: &Installation) -> HashSet<String> {
    let db = Db::open(&installation.url).await.unwrap();
    let sql = "SELECT request_id FROM tool_calls";
    let ids: Vec<String> = on!(&mut db.read().await.unwrap(), c => sqlx::query_scalar(sql).fetch_all(c).await.unwrap());
    db.close().await;
    ids.into_iter().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_finishes_and_records_calls_on_sqlite() {
    assert_clean_shutdown(Installation::sqlite().await).await;
}

waypost_testkit::needs_postgres! {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn shutdown_finishes_and_records_calls_on_postgres() {
        assert_clean_shutdown(Installation::postgres().await).await;
    }
}
