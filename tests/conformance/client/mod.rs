//! The suite's scenarios for clients, with the upstream client of the gateway: each server of the suite is a remote server, which
//! an agent uses through the gateway. The suite starts `e2e/conformance/client.mjs`, which passes the scenario to this process.

mod agent;
mod scenario;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use axum::Json;
use axum::Router;
use axum::routing::post;
use http::StatusCode;
use tokio::sync::{Barrier, Semaphore};

use self::scenario::{Installation, Scenario};
use crate::{exceptions, server, suite};

/// The number of scenarios at a time. The servers of all scenarios run in one process.
const CONCURRENT: usize = 2;

/// The context that the scenarios share.
struct Driver {
    installation: Installation,
    /// The number of scenarios that have begun.
    begun: AtomicUsize,
    /// The suite starts all clients at once. Until it has done so, its servers answer slowly.
    all_started: Barrier,
    turns: Semaphore,
}

/// Starts the endpoint that runs `count` scenarios, and returns its URL.
async fn start_driver(installation: Installation, count: usize) -> String {
    let driver = Driver {
        installation,
        begun: AtomicUsize::new(0),
        all_started: Barrier::new(count),
        turns: Semaphore::new(CONCURRENT),
    };
    let driver = Arc::new(driver);
    let run = move |Json(scenario): Json<Scenario>| {
        let driver = Arc::clone(&driver);
        async move {
            driver.all_started.wait().await;
            let _turn = driver.turns.acquire().await.unwrap();
            let number = driver.begun.fetch_add(1, Ordering::Relaxed);
            let started = Instant::now();
            let outcome = driver.installation.run(number, &scenario).await;
            println!("{}: {:.1} s, {outcome:?}", scenario.name, started.elapsed().as_secs_f64());
            match outcome {
                Ok(()) => (StatusCode::OK, "done".to_owned()),
                Err(reason) => (StatusCode::CONFLICT, reason),
            }
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/", post(run))).await });
    url
}

/// Checks that every scenario for clients of a revision passes, also those that the suite does not count, apart from exactly the
/// exceptions.
async fn passes_except_listed(revision: &str) {
    let product = server::with_open_gateway().await;
    let installation = Installation { ops: product.ops.clone(), origin: product.server.url.clone() };
    let scenarios = suite::scenarios_of_clients(revision).await;
    let driver = start_driver(installation, scenarios.len()).await;
    let report = suite::run_client(&driver, &["--requirements", revision]).await;
    println!("{}", report.output);
    assert!(scenarios.len() >= 25, "{revision} has only {scenarios:?}");
    assert_eq!(report.checks.len(), scenarios.len(), "every scenario has a report");
    exceptions::assert_only("client_exceptions.json", revision, &report, &scenarios);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(have_conformance), ignore = "needs the MCP conformance suite")]
async fn the_upstream_client_passes_2025_11_25() {
    passes_except_listed("2025-11-25").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(have_conformance), ignore = "needs the MCP conformance suite")]
async fn the_upstream_client_passes_2026_07_28() {
    passes_except_listed("2026-07-28").await;
}
