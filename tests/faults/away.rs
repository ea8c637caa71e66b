//! PostgreSQL goes away under load and comes back: nobody hangs, nothing acknowledged is lost, nothing stale is served.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::time::timeout;
use waypost_core::caller::Ctx;
use waypost_ops::assignments::{self, AssignmentPatch};
use waypost_store::Db;

use crate::client::{Client, Failure};
use crate::install::{Install, PATIENCE};
use crate::load::{Load, User, total};
use crate::program::{Program, SERVE, waypost};
use crate::proxy::{Network, Proxy};

/// How long a call may take while the database is away.
const PROMPT: Duration = Duration::from_secs(6);
/// How old what a server offers may be, and how long noticing may take this test.
const FRESH: Duration = Duration::from_millis(1_000 + 500);
/// More than there are connections to the database, and than calls in a group.
const USERS: usize = 48;

async fn goes_away(network: Network) {
    let mut install = Install::postgres().await;
    let direct = std::mem::take(&mut install.url);
    let proxy = Proxy::start(&direct).await;
    install.url.clone_from(&proxy.url);
    let program = Program::run(waypost(&install, SERVE), &install.data_dir()).await;
    install.url = direct;
    let client = program.client();
    let users = (0..USERS).map(|n| User::new(&install, n)).collect();
    let load = Load::start(users, &client, |failure| {
        let Failure::Refused { code, message, after, .. } = failure else { panic!("{failure:?}") };
        assert!(code == "unavailable" && message.contains("Try again"), "{failure:?}");
        assert!(*after < PROMPT, "{failure:?}");
    });
    load.reach(500).await;

    proxy.set(network);
    nothing_stale(&client).await;
    let users = load.finish().await;
    assert!(users.iter().any(|user| user.open), "calls were under way");
    assert_eq!((client.get("/readyz").await, client.get("/healthz").await), (Some(503), Some(200)));
    refuses_everybody(&client, &install).await;
    let (cx, ops) = (Ctx::operator(), install.ops().await);
    let (organization, server, walkthrough) = (&install.organization, &install.server, &install.walkthrough);
    assignments::unassign(&cx, &ops, organization, server, walkthrough).await.unwrap();

    proxy.set(Network::Up);
    let back = async {
        while client.get("/readyz").await != Some(200) {}
        // It is ready; the first answers are of the present, and not of before.
        assert_eq!(client.tools().await.unwrap(), 0);
        assignments::assign(&cx, &ops, organization, (server, walkthrough), AssignmentPatch::default()).await.unwrap();
        while client.tools().await.unwrap() == 0 {}
    };
    timeout(PATIENCE, back).await.expect("it is back without a new start");
    let mut users = users;
    for user in &mut users {
        user.compare(&client).await;
        user.goal = user.acknowledged.len() + 3;
    }
    let load = Load::start(users, &client, |failure| panic!("{failure:?}"));
    let users = load.finish().await;
    ops.db().close().await;
    program.stop().await;
    install.check(total(&users)).await;
}

/// Lists of tools come from memory. A second after the database was last seen they do not.
async fn nothing_stale(client: &Client) {
    let since = Instant::now();
    loop {
        let asked = since.elapsed();
        match client.tools().await {
            Ok(_) => assert!(asked < FRESH, "what was offered {asked:?} ago is still served"),
            Err(failure) => {
                assert!(failure.is_unavailable(), "{failure:?}");
                break;
            }
        }
    }
}

/// Also many calls at once are told soon, whatever they ask for.
async fn refuses_everybody(client: &Client, install: &Install) {
    let calls = (0..64).map(|n| {
        let (client, walkthrough) = (client.clone(), install.walkthrough.to_string());
        tokio::spawn(async move {
            let tool = ["next_walkthrough_step", "list_walkthroughs", "select_walkthrough"][n % 3];
            let arguments = if n % 3 == 1 { json!({}) } else { json!({ "walkthrough_id": walkthrough }) };
            client.call(&format!("user-{n}"), tool, arguments).await
        })
    });
    for call in calls.collect::<Vec<_>>() {
        let failure = call.await.unwrap().unwrap_err();
        let Failure::Refused { code, after, .. } = &failure else { panic!("{failure:?}") };
        assert!(code == "unavailable" && *after < PROMPT, "{failure:?}");
    }
}

/// All connections of a pool are lost without a word: they do not keep their places from new ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(have_postgres), ignore = "needs PostgreSQL")]
async fn dead_connections_make_room() {
    let proxy = Proxy::start(&waypost_testkit::postgres_url()).await;
    let db = Db::open(&proxy.url).await.unwrap();
    let Db::Postgres(pool) = &db else { panic!("PostgreSQL") };
    let count = pool.options().get_max_connections();
    let all = futures::future::try_join_all((0..count).map(|_| db.read())).await.unwrap();
    proxy.lose(count as usize).await;
    drop(all);
    proxy.set(Network::Up);
    db.read().await.expect("a new connection in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(have_postgres), ignore = "needs PostgreSQL")]
async fn connections_are_refused() {
    goes_away(Network::Refused).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(have_postgres), ignore = "needs PostgreSQL")]
async fn the_network_is_silent() {
    goes_away(Network::Silent).await;
}
