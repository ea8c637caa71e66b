use serde_json::json;

use super::*;
use crate::transfer::{self, folder};

const INDEX: &str = r#"{
  "title": "Ports", "description": "Open one.", "time": "10 minutes",
  "details": {
    "intro": {"title": "Welcome", "text": "intro.md", "background": "setup.sh"},
    "steps": [
      {"title": "Listen", "text": "step1/text.md", "verify": "step1/verify.sh"},
      {"text": "./02-connect.md"},
      {"title": "Gone", "text": "gone.md"},
      {"title": "Out", "text": "../../etc/passwd"}
    ],
    "finish": {"text": "finish.md"},
    "assets": {"host01": []}
  },
  "backend": {"imageid": "ubuntu"}
}"#;

const TEXTS: [(&str, &str); 4] = [
    ("finish.md", "Done."),
    (
        "02-connect.md",
        "# Connect\r\n\r\nRun `nc`{{copy}} or\r\n\r\n```\r\nnc localhost 80\r\n```{{exec interrupt}}\r\n\r\n## More\r\n",
    ),
    ("intro.md", "# Hello\n\nSee `x`{{other}} and {{TRAFFIC_HOST1_80}}."),
    ("step1/text.md", "# Listen\n\n`nc -l 80`{{exec}}"),
];

fn files(index: &'static str) -> Vec<(&'static str, &'static str)> {
    let mut files = TEXTS.to_vec();
    files.push(("index.json", index));
    files
}

#[test]
fn a_scenario_is_parsed_from_its_index() {
    let file = folder::parse("ports", files(INDEX)).expect("valid input");
    assert_eq!((file.title.as_deref(), file.description.as_deref()), (Some("Ports"), Some("Open one.")));
    let steps: Vec<_> = file
        .steps
        .iter()
        .map(|step| {
            (step.identity.key().unwrap_or_default(), step.content.title.as_str(), step.content.content.as_str())
        })
        .collect();
    assert_eq!(
        steps,
        [
            ("intro", "Welcome", "# Hello\n\nSee `x`{{other}} and {{TRAFFIC_HOST1_80}}."),
            ("step1/text", "Listen", "`nc -l 80`"),
            ("connect", "Connect", "Run `nc` or\n\n```\nnc localhost 80\n```\n\n## More"),
            ("finish", "Finish", "Done."),
        ]
    );
    let kept = json!({"killercoda": {
        "time": "10 minutes", "backend": {"imageid": "ubuntu"}, "details": {"assets": {"host01": []}},
    }});
    assert_eq!(file.metadata.clone().map(Value::Object), Some(kept));
    let of_step = Value::Object(file.steps[1].content.metadata.clone());
    assert_eq!(of_step, json!({"killercoda": {"verify": "step1/verify.sh"}}));
    let warnings = file.warnings.join("\n");
    for expected in ["\"gone.md\"", "details.steps[3]", "setup.sh, step1/verify.sh", "TRAFFIC"] {
        assert!(warnings.contains(expected), "{expected} in {warnings}");
    }
}

#[test]
fn several_scenarios_become_a_course() {
    let (one, two) = (
        r#"{"title": "One", "details": {"steps": [{"text": "a.md"}]}}"#,
        r#"{"details": {"intro": {"text": "a.md"}}}"#,
    );
    let files = [("10-b/index.json", two), ("10-b/a.md", "# B\n\nb"), ("2-a/index.json", one), ("2-a/a.md", "a")];
    let file = folder::parse("labs", files).expect("valid input");
    let steps: Vec<_> = file
        .steps
        .iter()
        .map(|step| {
            let StepContent { section_title, title, .. } = &step.content;
            (section_title.as_deref(), title.as_str(), step.identity.key().unwrap_or_default())
        })
        .collect();
    assert_eq!(steps, [(Some("One"), "Step 1", "a/a"), (None, "B", "b/a")]);
    assert_eq!(file.title.as_deref(), Some("Labs"));
}

use waypost_core::step::StepContent;

#[test]
fn rejections_name_file_and_field() {
    let table = [
        (r#"{"details": {"steps": {}}}"#, "details.steps", "ports/index.json"),
        (r#"{"details": {"steps": [1]}}"#, "details.steps[0]", "ports/index.json"),
        (r#"{"details": {"steps": [{"text": 1}]}}"#, "text", "ports/index.json"),
        (r#"{"details": "#, "document", "ports/index.json"),
        (r#"{"title": 1, "details": {}}"#, "title", "ports/index.json"),
        (r#"{"details": {}}"#, "details.steps", "ports"),
        (r#"{"details": {"steps": [{"text": "finish.md"}, {"text": "finish.md"}]}}"#, "path", "ports/finish.md"),
    ];
    for (index, field, name) in table {
        let error = folder::parse("ports", files(index)).expect_err(index);
        assert_eq!((&error.details["field"], &error.details["file"]), (&field.into(), &name.into()), "{error}");
    }
    let alone = transfer::parse("index.json", INDEX).expect_err("missing texts");
    assert!(alone.message.contains("folder"), "{alone}");
}
