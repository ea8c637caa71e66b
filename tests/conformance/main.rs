//! Runs the official conformance suite, `@modelcontextprotocol/conformance`, against servers with the product's router: one
//! with the fixtures that the suite requires, the same one through the gateway, and the product itself with its demo. The
//! scenarios for authorization servers run against `waypost serve`.
//!
//! `npm ci` in `e2e/conformance` installs the suite. `WAYPOST_CONFORMANCE` names another installation folder.

#![expect(clippy::disallowed_methods, reason = "the tests start servers and clients")]

mod authorization;
mod client;
mod exceptions;
mod fixtures;
mod gateway;
mod server;
mod suite;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod support;

use suite::Report;

/// Prefix of the scenarios of the Tasks extension, which Waypost does not support. The suite runs them but does not
/// count them.
const TASKS_PREFIX: &str = "tasks-";

/// Scenarios that call fixtures by name, so they do not apply to the product.
const WITH_FIXTURES: &[&str] = &[
    "elicitation-sep1034-defaults",
    "elicitation-sep1330-enums",
    "http-custom-header-server-validation",
    "input-required-result-basic-elicitation",
    "input-required-result-basic-list-roots",
    "input-required-result-basic-sampling",
    "input-required-result-capability-check",
    "input-required-result-ignore-extra-params",
    "input-required-result-missing-input-response",
    "input-required-result-multi-round",
    "input-required-result-multiple-input-requests",
    "input-required-result-non-tool-request",
    "input-required-result-request-state",
    "input-required-result-result-type",
    "input-required-result-tampered-state",
    "input-required-result-validate-input",
    "json-schema-2020-12",
    "logging-set-level",
    "prompts-get-embedded-resource",
    "prompts-get-simple",
    "prompts-get-with-args",
    "prompts-get-with-image",
    "resources-read-binary",
    "resources-read-text",
    "resources-subscribe",
    "resources-templates-read",
    "resources-unsubscribe",
    "server-sse-polling",
    "tools-call-audio",
    "tools-call-elicitation",
    "tools-call-embedded-resource",
    "tools-call-error",
    "tools-call-image",
    "tools-call-mixed-content",
    "tools-call-sampling",
    "tools-call-simple-text",
    "tools-call-with-logging",
    "tools-call-with-progress",
];

/// Checks of `server-stateless` that call fixtures. On the product they fail as "not testable".
const CHECKS_WITH_FIXTURES: &[&str] = &[
    "sep-2575-http-server-no-independent-requests-on-stream",
    "sep-2575-missing-capability-http-400",
    "sep-2575-server-no-log-without-loglevel",
    "sep-2575-server-rejects-undeclared-capability",
    // The product has no tool that changes a list. `tests/it/subscriptions.rs` tests the notifications.
    "sep-2575-server-sends-prompts-list-changed-on-subscription",
    "sep-2575-server-sends-tools-list-changed-on-subscription",
];

fn assert_passes(report: &Report, scenario: &str, faults: &[&str]) {
    assert_eq!(report.failed_checks(scenario), faults, "{scenario}: {}", report.details(scenario));
    assert!(report.success_count(scenario) > 0, "{scenario} has no successful checks: {}", report.details(scenario));
}

/// Checks that every scenario of a revision passes on the fixtures, including optional ones except the Tasks
/// extension.
async fn passes_with_fixtures(revision: &str) {
    let server = server::with_fixtures().await;
    let report = suite::run(&server.url, &["--requirements", revision]).await;
    println!("{}", report.summary());
    assert!(report.succeeded, "{}", report.output);
    let required = suite::required(revision).await;
    assert!(required.len() >= 30, "{revision} requires only {required:?}");
    for scenario in report.checks.keys().chain(&required).filter(|scenario| !scenario.starts_with(TASKS_PREFIX)) {
        assert_passes(&report, scenario, &[]);
    }
}

/// Checks that exactly the `expected` scenarios of a revision apply to the product, and that they pass.
async fn passes_without_fixtures(revision: &str, expected: &[&str]) {
    let server = server::with_demo().await;
    let report = suite::run(&server.url, &["--suite", "all", "--spec-version", revision]).await;
    println!("{}", report.summary());
    let applies = |scenario: &str| !WITH_FIXTURES.contains(&scenario) && !scenario.starts_with(TASKS_PREFIX);
    let applicable: Vec<&str> = report.checks.keys().map(String::as_str).filter(|scenario| applies(scenario)).collect();
    assert_eq!(applicable, expected);
    for scenario in applicable {
        let faults = if scenario == "server-stateless" { CHECKS_WITH_FIXTURES } else { &[] };
        assert_passes(&report, scenario, faults);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(have_conformance), ignore = "needs the MCP conformance suite")]
async fn fixtures_pass_2025_11_25() {
    passes_with_fixtures("2025-11-25").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(have_conformance), ignore = "needs the MCP conformance suite")]
async fn fixtures_pass_2026_07_28() {
    passes_with_fixtures("2026-07-28").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(have_conformance), ignore = "needs the MCP conformance suite")]
async fn product_passes_2025_06_18() {
    let scenarios = [
        "completion-complete",
        "ping",
        "prompts-list",
        "resources-list",
        "server-initialize",
        "server-session-lifecycle",
        "tools-list",
    ];
    passes_without_fixtures("2025-06-18", &scenarios).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(have_conformance), ignore = "needs the MCP conformance suite")]
async fn product_passes_2025_11_25() {
    let scenarios = [
        "completion-complete",
        "dns-rebinding-protection",
        "ping",
        "prompts-list",
        "resources-list",
        "server-initialize",
        "server-session-lifecycle",
        "server-sse-multiple-streams",
        "tools-list",
    ];
    passes_without_fixtures("2025-11-25", &scenarios).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(have_conformance), ignore = "needs the MCP conformance suite")]
async fn product_passes_2026_07_28() {
    let scenarios = [
        "caching",
        "completion-complete",
        "dns-rebinding-protection",
        "http-header-validation",
        "input-required-result-unsupported-methods",
        "prompts-list",
        "resources-list",
        "sep-2164-resource-not-found",
        "server-sse-multiple-streams",
        "server-stateless",
        "tools-list",
    ];
    passes_without_fixtures("2026-07-28", &scenarios).await;
}

/// Shows that nothing passes without a server; otherwise the tests above would prove nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(have_conformance), ignore = "needs the MCP conformance suite")]
async fn nothing_passes_on_a_dead_port() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/s/demo/mcp", listener.local_addr().unwrap());
    drop(listener);
    for revision in ["2025-11-25", "2026-07-28"] {
        let report = suite::run(&url, &["--requirements", revision]).await;
        assert!(!report.succeeded, "{}", report.summary());
        assert!(!report.checks.is_empty());
        let passed =
            |scenario: &&String| report.failed_checks(scenario).is_empty() && report.success_count(scenario) > 0;
        let passed: Vec<_> = report.checks.keys().filter(passed).collect();
        assert!(passed.is_empty(), "{passed:?}");
    }
}
