use serde_json::json;

use super::*;
use crate::transfer;

const TOUR: &str = r####"{
  "$schema": "https://aka.ms/codetour-schema",
  "title": "Around the code",
  "description": "What is where",
  "nextTour": "2 - Tests",
  "steps": [
    {"description": "### Hello\n\nWelcome.\n\n>> npm install\n\nDone.", "odd": {"x": [1]}},
    {"file": "src/main.rs", "line": 12, "description": "It begins here.", "commands": ["workbench.action.files.save"]},
    {"directory": "src", "title": "The folder", "description": "# Not the title\n\nAll of it."},
    {"uri": "https://example.com/a", "pattern": "^fn main", "description": "A"},
    {"file": "src/lib.rs", "selection": {"start": {"line": 1, "character": 2}, "end": {"line": 3, "character": 4}}, "description": ""}
  ]
}"####;

fn contexts(file: &WalkthroughFile) -> Vec<&str> {
    file.steps.iter().map(|step| step.content.context_for_agent.as_deref().unwrap_or_default()).collect()
}

#[test]
fn a_tour_becomes_a_walkthrough() {
    let file = transfer::parse("around.tour", TOUR).expect("valid input");
    assert_eq!((file.title.as_deref(), file.description.as_deref()), (Some("Around the code"), Some("What is where")));
    let titles: Vec<_> = file.steps.iter().map(|step| step.content.title.as_str()).collect();
    assert_eq!(titles, ["Hello", "main.rs", "The folder", "a", "lib.rs"]);
    let contents: Vec<_> = file.steps.iter().map(|step| step.content.content.as_str()).collect();
    assert_eq!(
        contents,
        [
            "Welcome.\n\n```sh\nnpm install\n```\n\nDone.",
            "It begins here.",
            "# Not the title\n\nAll of it.",
            "A",
            "Look at the file `src/lib.rs`.",
        ]
    );
    let contexts = contexts(&file);
    assert_eq!(contexts[0], "");
    assert!(contexts[1].starts_with("This step refers to the file `src/main.rs`, line 12, in"), "{}", contexts[1]);
    assert!(contexts[1].ends_with("\n- workbench.action.files.save"), "{}", contexts[1]);
    assert!(contexts[3].contains("the URL `https://example.com/a`, the line that matches"), "{}", contexts[3]);
    assert!(contexts[4].contains("from line 1, column 2 to line 3, column 4"), "{}", contexts[4]);
    assert_eq!(Value::Object(file.steps[0].content.metadata.clone()), json!({"codetour": {"odd": {"x": [1]}}}));
    let kept = json!({"codetour": {"$schema": "https://aka.ms/codetour-schema", "nextTour": "2 - Tests"}});
    assert_eq!(file.metadata.map(Value::Object), Some(kept));
}

#[test]
fn a_folder_of_tours_becomes_a_course() {
    let one = r#"{"title": "One", "steps": [{"description": "a", "title": "A"}]}"#;
    let two = r#"{"title": "Two", "steps": [{"description": "b", "title": "B"}]}"#;
    let files = [(".tours/10-two.tour", two), (".tours/2-one.tour", one), ("README.md", "# T"), ("docs/x.md", "x")];
    let file = transfer::folder::parse("my-code", files).expect("valid input");
    let steps: Vec<_> =
        file.steps.iter().map(|step| (step.content.section_title.as_deref(), step.content.title.as_str())).collect();
    assert_eq!(steps, [(Some("One"), "A"), (Some("Two"), "B")]);
    assert_eq!((file.title.as_deref(), file.warnings.len()), (Some("T"), 1), "{:?}", file.warnings);
    let alone = transfer::folder::parse("my-code", [(".tours/one.tour", one)]).expect("valid input");
    assert_eq!((alone.title.as_deref(), alone.steps[0].content.section_title.as_deref()), (Some("One"), None));
}

#[test]
fn rejections_name_step_and_field() {
    let table = [
        ("{}", "steps"),
        ("[]", "document"),
        ("{", "document"),
        (r#"{"title": "T", "steps": []}"#, "steps"),
        (r#"{"title": 5, "steps": []}"#, "title"),
        (r#"{"title": "T", "steps": [1]}"#, "steps[0]"),
        (r#"{"title": "T", "steps": [{"description": 1}]}"#, "description"),
        (r#"{"title": "T", "steps": [{"description": "x", "file": 1}]}"#, "file"),
        (r#"{"title": "T", "steps": [{"description": "x", "title": " "}]}"#, "title"),
    ];
    for (text, field) in table {
        let error = transfer::parse("a.tour", text).expect_err(text);
        assert_eq!((&error.details["field"], &error.details["file"]), (&field.into(), &"a.tour".into()), "{error}");
    }
}
