//! Walkthroughs in third-party formats can be completed after an import from disk, an import through the API (as on
//! the console's import page), and a round trip through Markdown.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::remote::RunningServer;

/// The repository's own fixtures, one per format.
const FIXTURES: [&str; 6] =
    ["tour", "tour/.tours/around.tour", "scenario", "skills", "course", "docs/write-a-recipe.md"];
/// The third-party samples in the folder `WAYPOST_TEST_SAMPLES`.
const SAMPLES: [&str; 8] = [
    "codetour",
    "codetour/intro.tour",
    "mastra-course",
    "github-skills",
    "killercoda",
    "killercoda/openfeature-demo",
    "docusaurus",
    "docusaurus/create-a-document.md",
];

fn fixtures_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/imports")
}

fn samples_folder() -> PathBuf {
    waypost_testkit::samples_folder(Path::new(env!("CARGO_MANIFEST_DIR")))
}

/// Imports a file directly into the database or through the API. Returns the report.
fn import(server: &RunningServer, through_api: bool, file: &Path, title: &str, slug: &str) -> Value {
    let file = file.to_str().unwrap();
    let words = ["walkthrough", "import", file, "--title", title, "--server", slug, "--publish"];
    if through_api { server.run_json(&words) } else { server.workspace.run_json(&words) }
}

/// Completes the only walkthrough of a server over MCP.
fn play(server: &RunningServer, slug: &str) {
    let url = format!("{}/s/{slug}/mcp", server.url);
    let walk = ["walk", &url, "--yes", "--json"];
    let output = server.workspace.command(&walk).env("HOME", server.workspace.path(slug)).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{slug}: {out}{err}");
}

/// Checks that the walkthrough of a file can be completed, and that neither a second import nor an import of its
/// Markdown export changes it. Then imports the file through the API as a new walkthrough and completes that one too.
fn check_sample(server: &RunningServer, number: usize, file: &Path) {
    let title = format!("Sample {number}");
    let slug = format!("sample-{number}");
    server.workspace.run_ok(&["server", "create", &slug, "--org", "acme"]);
    let created = import(server, false, file, &title, &slug);
    assert_eq!((&created["created"], &created["published_version"]), (&json!(true), &json!(1)), "{}", file.display());
    play(server, &slug);
    let again = import(server, true, file, &title, &slug);
    assert_eq!((&again["id"], &again["changed"]), (&created["id"], &json!(false)), "{}: {again}", file.display());

    let id = created["id"].as_str().unwrap();
    let copy = server.workspace.path(&format!("{slug}.md"));
    server.workspace.run_ok(&["walkthrough", "export", id, "--output", copy.to_str().unwrap()]);
    let remote = server.run_ok(&["walkthrough", "export", id, "--format", "markdown"]);
    assert_eq!(remote, crate::redact(&std::fs::read_to_string(&copy).unwrap(), server.workspace.path("").as_path()));
    let same = server.workspace.run_json(&["walkthrough", "import", copy.to_str().unwrap()]);
    assert_eq!((&same["id"], &same["changed"]), (&created["id"], &json!(false)), "{}: {same}", file.display());

    // Imports the file through the API as a new walkthrough, as the import page does.
    let (title, slug) = (format!("Page {number}"), format!("page-{number}"));
    server.workspace.run_ok(&["server", "create", &slug, "--org", "acme"]);
    let created = import(server, true, file, &title, &slug);
    assert_eq!((&created["created"], &created["published_version"]), (&json!(true), &json!(1)), "{}", file.display());
    play(server, &slug);
}

#[test]
fn fixtures_can_be_completed() {
    let server = RunningServer::new();
    for (number, file) in FIXTURES.iter().enumerate() {
        check_sample(&server, number, &fixtures_folder().join(file));
    }
}

#[test]
#[cfg_attr(not(have_samples), ignore = "only with samples in WAYPOST_TEST_SAMPLES")]
fn third_party_samples_can_be_completed() {
    let samples = samples_folder();
    let server = RunningServer::new();
    for (number, file) in SAMPLES.iter().enumerate() {
        check_sample(&server, number, &samples.join(file));
    }
}

#[test]
fn skipped_parts_are_reported() {
    let server = RunningServer::new();
    let scenario = fixtures_folder().join("scenario");
    let report = server.workspace.run_json(&["walkthrough", "import", scenario.to_str().unwrap(), "--dry-run"]);
    let warnings = report["warnings"].to_string();
    assert!(warnings.contains("prepare.sh, step1-verify.sh"), "{warnings}");
    let skills = fixtures_folder().join("skills");
    let report = server.workspace.run_json(&["walkthrough", "import", skills.to_str().unwrap(), "--dry-run"]);
    assert!(report["warnings"].to_string().contains(".github/ISSUE_TEMPLATE/report.md: skipped"), "{report}");
}
