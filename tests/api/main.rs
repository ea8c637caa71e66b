//! Tests the REST API against its OpenAPI document with schemathesis (`e2e/api`): no server errors and no
//! undocumented behaviour.

#![expect(clippy::expect_used, reason = "a test cannot continue after a failure")]

#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod support;

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

use support::installation::Installation;

/// The maximum number of cases per operation and phase.
const MAX_EXAMPLES: &str = "12";
/// The checks for every response. Validation of values is left to the tests of each operation, because the document
/// cannot express every rule.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
                      response_schema_conformance,unsupported_method,ignored_auth";
/// The time limit for the whole run.
const TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// Uses an owner's key, so that every operation is tried.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(have_schemathesis), ignore = "needs schemathesis: bash e2e/api/install.sh")]
async fn the_api_matches_its_openapi_document() {
    let mut installation = Installation::new().await;
    installation.create_server("rockets", &[]).await;
    let key =
        installation.run(&["key", "create", "--org", "acme", "--name", "tester", "--scope", "owner", "--json"]).await;
    let key: Value = serde_json::from_str(&key).expect("the command prints JSON");
    let key = key["key"].as_str().expect("the response contains the key").to_owned();
    let program = installation.serve().await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/api");
    let mut command = Command::new(folder.join(".venv/bin/schemathesis"));
    command.arg("run").arg(format!("{}/api/v1/openapi.json", program.origin));
    command.arg("--header").arg(format!("Authorization: Bearer {key}"));
    command.args(["--max-examples", MAX_EXAMPLES, "--seed", "1", "--checks", CHECKS, "--generation-database", "none"]);
    command.args(["--no-color", "--continue-on-failure", "--no-shrink", "--warnings", "off"]);
    // Deleting the key's own organisation would make all other operations fail.
    command.args(["--exclude-operation-id", "delete_organization"]);
    command.current_dir(installation.folder()).stdin(Stdio::null()).kill_on_drop(true);
    command.env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1");
    let output =
        timeout(TIMEOUT, command.output()).await.expect("the process ends in time").expect("schemathesis starts");
    let report = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{report}\n{}", installation.log());
    println!("{report}");
}
