use serde_json::json;

use super::*;

fn read(text: &str) -> WalkthroughFile {
    parse("a.md", text).expect("valid input")
}

/// Returns the title and content of each step.
fn steps(file: &WalkthroughFile) -> Vec<(&str, &str)> {
    file.steps.iter().map(|step| (step.content.title.as_str(), step.content.content.as_str())).collect()
}

#[test]
fn the_text_is_split_at_h2() {
    let file = read("# T\n\nAbout *it*.\n\nMore.\n\n## A\nx\n\n### deep\ny\n\nB\n---\n\n    code\n\n## C ##\n");
    assert_eq!((file.title.as_deref(), file.description.as_deref()), (Some("T"), Some("About *it*.\n\nMore.")));
    assert_eq!(steps(&file), [("A", "x\n\n### deep\ny"), ("B", "    code"), ("C", "")]);
    assert!(file.steps.iter().all(|step| step.identity == StepIdentity::Title));
    assert_eq!(file.steps[1].source.location(), Some("line 13"));
    assert_eq!((file.metadata, file.kind, file.default_kind), (None, None, WalkthroughType::Quickstart));
}

#[test]
fn headings_in_fences_are_text() {
    let text = "---\nsidebar_position: 2\n---\n\n# T\n\nIntro\n\n## A\n\n```md title=\"x\" {1-4}\n---\na: 1\n---\n\n# no\n\n## no\n```\n\nend\n\n## B\n> ## no\n";
    let file = read(text);
    assert_eq!(file.steps.len(), 2);
    assert_eq!(file.steps[0].content.content, "```md title=\"x\" {1-4}\n---\na: 1\n---\n\n# no\n\n## no\n```\n\nend");
    assert_eq!(file.metadata.map(Value::Object), Some(json!({"sidebar_position": 2})));
}

#[test]
fn front_matter_is_parsed() {
    let file = read(
        "---\ntitle: T\ndescription: D\ntype: course\ntags: [a, 1]\nestimatedDurationMinutes: 5\nx: {y: 1}\nmetadata: {z: 2}\n---\n## A\nx",
    );
    assert_eq!((file.title.as_deref(), file.description.as_deref()), (Some("T"), Some("D")));
    assert_eq!((file.kind, file.estimated_duration_minutes), (Some(WalkthroughType::Course), Some(Some(5))));
    assert_eq!(file.tags, Some(vec!["a".to_owned(), "1".to_owned()]));
    assert_eq!(file.metadata.map(Value::Object), Some(json!({"x": {"y": 1}, "z": 2})));
}

#[test]
fn duplicate_titles_and_descriptions_are_kept() {
    let file = read("---\ntitle: Other\ndescription: D\n---\nbadge\n\n# T\ntext\n## A\nx");
    assert_eq!((file.title.as_deref(), file.description.as_deref()), (Some("T"), Some("D\n\nbadge\n\ntext")));
    assert_eq!(file.metadata.map(Value::Object), Some(json!({"title": "Other"})));
    assert_eq!(file.warnings.len(), 1);
}

#[test]
fn a_file_without_h2_has_one_step() {
    let file = read("# T\n\nDo it.\n");
    assert_eq!(
        (file.title.as_deref(), file.description.as_deref(), steps(&file)),
        (Some("T"), None, vec![("T", "Do it.")])
    );
    let file = read("---\ntitle: T\n---\nDo it.\n");
    assert_eq!((file.title.as_deref(), steps(&file)), (Some("T"), vec![("T", "Do it.")]));
}

#[test]
fn a_further_h1_begins_a_section() {
    let file = read("# T\n## A\n# S\n## B\n# R\nhello\n## C\n#\n## D\n");
    let sections: Vec<_> =
        file.steps.iter().map(|s| (s.content.title.as_str(), s.content.section_title.as_deref())).collect();
    assert_eq!(sections, [("A", None), ("B", Some("S")), ("R", Some("R")), ("C", Some("R")), ("D", None)]);
    assert_eq!(file.steps[2].content.content, "hello");
}

#[test]
fn blocks_are_extracted_from_the_content() {
    let file = read(
        "# T\n## A\n```walkthrough-step\nkey: a\nsection: S\nlevel: 3\n```\nbefore\n\n```agent-context\nctx\n\nmore\n```\nafter\n\n~~~agent-operations\n```sh\nls\n```\n~~~\n```agent-introduction\n```\n",
    );
    let StepContent {
        content,
        section_title,
        introduction_for_agent,
        context_for_agent,
        operations_for_agent,
        metadata,
        ..
    } = &file.steps[0].content;
    assert_eq!(content, "before\n\nafter");
    assert_eq!(section_title.as_deref(), Some("S"));
    assert_eq!(introduction_for_agent.as_deref(), Some(""));
    assert_eq!(context_for_agent.as_deref(), Some("ctx\n\nmore"));
    assert_eq!(operations_for_agent.as_deref(), Some("```sh\nls\n```"));
    assert_eq!(Value::Object(metadata.clone()), json!({"level": 3}));
    assert_eq!(file.steps[0].identity, StepIdentity::Key("a".to_owned()));
}

#[test]
fn rejections_name_file_step_and_field() {
    let long = format!("# T\n## {}\n", "x".repeat(201));
    let large = format!("# T\n## A\n{}\n", "x".repeat(64 * 1024 + 1));
    let many = format!("# T\n{}", "## A\n".repeat(501));
    let table = [
        ("", "steps", None),
        ("# T\n", "steps", None),
        ("only text", "title", None),
        ("#\n## A\n", "title", None),
        ("---\ntype: lesson\n---\n# T\n## A", "type", None),
        ("---\ntitle: 5\n---\n## A", "title", None),
        ("---\nestimated_duration_minutes: soon\n---\n## A", "estimated_duration_minutes", None),
        ("---\ntags: {a: 1}\n---\n## A", "tags", None),
        ("---\na: [\n---\n## A", "front matter", None),
        ("---\njust text\n---\n## A", "front matter", None),
        ("# T\n## A\n##\nx", "title", Some("step 2")),
        (&long, "title", Some("step 1")),
        (&large, "content", Some("step 1")),
        (&many, "steps", None),
        ("# T\n## A\n```agent-context\n```\n```agent-context\n```\n", "agent-context", Some("step 1")),
        ("# T\n## A\n```walkthrough-step\n- x\n```\n", "walkthrough-step", Some("step 1")),
        ("# T\n## A\n```walkthrough-step\nkey: ''\n```\n", "key", Some("step 1")),
        (
            "# T\n## A\n```walkthrough-step\ncontext_for_agent: x\n```\n```agent-context\n```\n",
            "agent-context",
            Some("step 1"),
        ),
        (
            "# T\n## A\n```walkthrough-step\nkey: a\n```\n## B\n```walkthrough-step\nkey: a\n```\n",
            "key",
            Some("step 2"),
        ),
    ];
    for (text, field, step) in table {
        let error = parse("a.md", text).expect_err(text);
        assert_eq!((&error.details["field"], &error.details["file"]), (&field.into(), &"a.md".into()), "{error}");
        let label = error.details.get("step").and_then(Value::as_str);
        assert!(
            label.is_some() == step.is_some() && label.unwrap_or_default().starts_with(step.unwrap_or_default()),
            "{error}"
        );
    }
}

#[test]
fn windows_line_endings_are_accepted() {
    let file = read(
        "---\r\ntags: [a]\r\n---\r\n# T\r\n\r\nD\r\n\r\n## A\r\n\r\nx\r\ny\r\n\r\n```agent-context\r\nc\r\n```\r\n",
    );
    assert_eq!((file.title.as_deref(), file.description.as_deref()), (Some("T"), Some("D")));
    assert_eq!(steps(&file), [("A", "x\ny")]);
    assert_eq!(file.steps[0].content.context_for_agent.as_deref(), Some("c"));
}

#[test]
fn a_file_with_only_headings_is_rejected_quickly() {
    let text = "# T\n".to_owned() + &"## A\n".repeat(50_000);
    assert_eq!(parse("a.md", &text).expect_err("too many steps").details["field"], "steps");
}
