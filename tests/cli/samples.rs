//! Walkthroughs in the formats of others play to their end: imported from the disk and through the API, as the console's
//! import page does it, and after a detour over Markdown.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::remote::Served;

/// Our own fixtures: one of each format.
const OWN: [&str; 6] = ["tour", "tour/.tours/around.tour", "scenario", "skills", "course", "docs/write-a-recipe.md"];
/// What others have written, where it is found.
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

fn own() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/imports")
}

/// The folder of the samples, which only some machines have.
fn samples() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/imports");
    let found = std::env::var_os("WAYPOST_TEST_SAMPLES").map_or(beside, PathBuf::from);
    if found.is_dir() {
        return Some(found);
    }
    eprintln!("skipped: there are no samples in {}", found.display());
    None
}

/// Imports with the words of the command line, on the database or through the API, and gives the report.
fn import(served: &Served, through_api: bool, file: &Path, title: &str, server: &str) -> Value {
    let file = file.to_str().unwrap();
    let words = ["walkthrough", "import", file, "--title", title, "--server", server, "--publish"];
    if through_api { served.json(&words) } else { served.place.json(&words) }
}

/// Plays the only walkthrough of a server over MCP, to its end.
fn play(served: &Served, server: &str) {
    let url = format!("{}/s/{server}/mcp", served.url);
    let walk = ["walk", &url, "--yes", "--json"];
    let output = served.place.command(&walk).env("HOME", served.place.path(server)).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{server}: {out}{err}");
}

/// Everything that is promised of a file: it plays, a second import changes nothing, and so does its Markdown.
fn check(served: &Served, number: usize, file: &Path) {
    let title = format!("Sample {number}");
    let server = format!("sample-{number}");
    served.place.fine(&["server", "create", &server, "--org", "acme"]);
    let made = import(served, false, file, &title, &server);
    assert_eq!((&made["created"], &made["published_version"]), (&json!(true), &json!(1)), "{}", file.display());
    play(served, &server);
    let again = import(served, true, file, &title, &server);
    assert_eq!((&again["id"], &again["changed"]), (&made["id"], &json!(false)), "{}: {again}", file.display());

    let id = made["id"].as_str().unwrap();
    let copy = served.place.path(&format!("{server}.md"));
    served.place.fine(&["walkthrough", "export", id, "--output", copy.to_str().unwrap()]);
    let there = served.fine(&["walkthrough", "export", id, "--format", "markdown"]);
    assert_eq!(there, crate::scrub(&std::fs::read_to_string(&copy).unwrap(), served.place.path("").as_path()));
    let same = served.place.json(&["walkthrough", "import", copy.to_str().unwrap()]);
    assert_eq!((&same["id"], &same["changed"]), (&made["id"], &json!(false)), "{}: {same}", file.display());

    // As from the page: sent as a form, for somebody who has none of it.
    let (title, server) = (format!("Page {number}"), format!("page-{number}"));
    served.place.fine(&["server", "create", &server, "--org", "acme"]);
    let made = import(served, true, file, &title, &server);
    assert_eq!((&made["created"], &made["published_version"]), (&json!(true), &json!(1)), "{}", file.display());
    play(served, &server);
}

#[test]
fn own_fixtures_play_to_their_end() {
    let served = Served::new();
    for (number, file) in OWN.iter().enumerate() {
        check(&served, number, &own().join(file));
    }
}

#[test]
fn samples_of_others_play_to_their_end() {
    let Some(samples) = samples() else { return };
    let served = Served::new();
    for (number, file) in SAMPLES.iter().enumerate() {
        check(&served, number, &samples.join(file));
    }
}

#[test]
fn what_is_not_taken_over_is_said() {
    let served = Served::new();
    let scenario = own().join("scenario");
    let report = served.place.json(&["walkthrough", "import", scenario.to_str().unwrap(), "--dry-run"]);
    let warnings = report["warnings"].to_string();
    assert!(warnings.contains("prepare.sh, step1-verify.sh"), "{warnings}");
    let skills = own().join("skills");
    let report = served.place.json(&["walkthrough", "import", skills.to_str().unwrap(), "--dry-run"]);
    assert!(report["warnings"].to_string().contains(".github/ISSUE_TEMPLATE/report.md: passed over"), "{report}");
}
