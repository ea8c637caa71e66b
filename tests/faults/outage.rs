//! PostgreSQL becomes unavailable under load and recovers: no call hangs, no acknowledged step is lost, no stale data
//! is served.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::time::timeout;
use waypost_core::caller::Ctx;
use waypost_ops::assignments::{self, AssignmentPatch};
use waypost_store::Db;

use crate::client::{Client, Failure};
use crate::installation::{Installation, TIMEOUT};
use crate::load::{Load, LoadUser, total_acknowledged};
use crate::program::{SERVE, ServeProcess, waypost_command};
use crate::proxy::{Network, Proxy};

/// The maximum duration of a call while the database is unavailable.
const MAX_LATENCY: Duration = Duration::from_secs(6);
/// The maximum age of served offers, plus a margin for the test.
const MAX_AGE: Duration = Duration::from_millis(1_000 + 500);
/// The number of users, which exceeds the number of database connections.
const USERS: usize = 48;

async fn survives_outage(network: Network) {
    let mut installation = Installation::postgres().await;
    let direct = std::mem::take(&mut installation.url);
    let proxy = Proxy::start(&direct).await;
    installation.url.clone_from(&proxy.url);
    let program = ServeProcess::run(waypost_command(&installation, SERVE), &installation.data_dir()).await;
    installation.url = direct;
    let client = program.client();
    let users = (0..USERS).map(|n| LoadUser::new(&installation, n)).collect();
    let load = Load::start(users, &client, |failure| {
        let Failure::Refused { code, message, after, .. } = failure else { panic!("{failure:?}") };
        assert!(code == "unavailable" && message.contains("Try again"), "{failure:?}");
        assert!(*after < MAX_LATENCY, "{failure:?}");
    });
    load.wait_for(500).await;

    proxy.set(network);
    assert_nothing_stale(&client).await;
    let users = load.finish().await;
    assert!(users.iter().any(|user| user.is_pending), "calls were in progress");
    assert_eq!((client.get("/readyz").await, client.get("/healthz").await), (Some(503), Some(200)));
    assert_all_calls_fail(&client, &installation).await;
    let (cx, ops) = (Ctx::operator(), installation.ops().await);
    let (organization, server, walkthrough) =
        (&installation.organization, &installation.server, &installation.walkthrough);
    assignments::unassign(&cx, &ops, organization, server, walkthrough).await.unwrap();

    proxy.set(Network::Up);
    let back = async {
        while client.get("/readyz").await != Some(200) {}
        // Once it is ready, the first responses are up to date.
        assert_eq!(client.tools().await.unwrap(), 0);
        assignments::assign(&cx, &ops, organization, server, walkthrough, AssignmentPatch::default()).await.unwrap();
        while client.tools().await.unwrap() == 0 {}
    };
    timeout(TIMEOUT, back).await.expect("the server recovers without a restart");
    let mut users = users;
    for user in &mut users {
        user.compare_with_stored(&client).await;
        user.goal = user.acknowledged.len() + 3;
    }
    let load = Load::start(users, &client, |failure| panic!("{failure:?}"));
    let users = load.finish().await;
    ops.store().close().await;
    program.stop().await;
    installation.check(total_acknowledged(&users)).await;
}

/// Tool lists are served from memory, but for at most one second after the last contact with the database.
async fn assert_nothing_stale(client: &Client) {
    let since = Instant::now();
    loop {
        let elapsed = since.elapsed();
        match client.tools().await {
            Ok(_) => assert!(elapsed < MAX_AGE, "the tool list is still served after {elapsed:?}"),
            Err(failure) => {
                assert!(failure.is_unavailable(), "{failure:?}");
                break;
            }
        }
    }
}

/// Checks that many concurrent calls of all kinds fail quickly.
async fn assert_all_calls_fail(client: &Client, installation: &Installation) {
    let calls = (0..64).map(|n| {
        let (client, walkthrough) = (client.clone(), installation.walkthrough.to_string());
        tokio::spawn(async move {
            let tool = ["next_walkthrough_step", "list_walkthroughs", "select_walkthrough"][n % 3];
            let arguments = if n % 3 == 1 { json!({}) } else { json!({ "walkthrough_id": walkthrough }) };
            client.call(&format!("user-{n}"), tool, arguments).await
        })
    });
    for call in calls.collect::<Vec<_>>() {
        let failure = call.await.unwrap().unwrap_err();
        let Failure::Refused { code, after, .. } = &failure else { panic!("{failure:?}") };
        assert!(code == "unavailable" && *after < MAX_LATENCY, "{failure:?}");
    }
}

waypost_testkit::needs_postgres! {
    /// If all connections of a pool are lost silently, new ones replace them.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn lost_connections_are_replaced() {
        let proxy = Proxy::start(&waypost_testkit::postgres_url()).await;
        let db = Db::open(&proxy.url).await.unwrap();
        let Db::Postgres(pool) = &db else { panic!("the database is not PostgreSQL") };
        let count = pool.options().get_max_connections();
        let all = futures::future::try_join_all((0..count).map(|_| db.read())).await.unwrap();
        proxy.drop_silently(count as usize).await;
        drop(all);
        proxy.set(Network::Up);
        db.read().await.expect("a new connection is opened in time");
    }
}

waypost_testkit::needs_postgres! {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn survives_refused_connections() {
        survives_outage(Network::Refused).await;
    }
}

waypost_testkit::needs_postgres! {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn survives_a_silent_network() {
        survives_outage(Network::Silent).await;
    }
}
