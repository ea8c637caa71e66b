//! The scenarios that do not pass, which are listed with their reasons.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::TASKS_PREFIX;
use crate::suite::Report;

/// A scenario that does not pass.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exception {
    scenario: String,
    /// The checks that fail, sorted. Empty if no check succeeds or fails.
    checks: Vec<String>,
    reason: String,
}

/// Returns the exceptions of a revision, which are in a file of `tests/conformance`.
fn read(file: &str, revision: &str) -> Vec<Exception> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance").join(file);
    let mut all: BTreeMap<String, Vec<Exception>> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    all.remove(revision).expect("a list for every revision")
}

/// Checks that every scenario passes, including those that are not in `required`, except the Tasks extension and exactly the
/// exceptions.
pub fn assert_only(file: &str, revision: &str, report: &Report, required: &[String]) {
    let exceptions = read(file, revision);
    let scenarios = report.checks.keys().chain(required).filter(|scenario| !scenario.starts_with(TASKS_PREFIX));
    let mut failed = BTreeMap::new();
    for scenario in scenarios.map(String::as_str) {
        let checks = report.failed_checks(scenario);
        if !checks.is_empty() || report.success_count(scenario) == 0 {
            println!("{scenario}: {}", report.details(scenario));
            failed.insert(scenario.to_owned(), checks.into_iter().map(str::to_owned).collect::<Vec<_>>());
        }
    }
    assert!(exceptions.iter().all(|exception| !exception.reason.is_empty()), "each exception has a reason");
    let checks = |exception: &Exception| (exception.scenario.clone(), exception.checks.clone());
    let expected: BTreeMap<String, Vec<String>> = exceptions.iter().map(checks).collect();
    assert_eq!(failed, expected);
}
