use serde_json::json;

use super::*;

fn read(files: &[(&str, &str)]) -> WalkthroughFile {
    parse("my-course", files.iter().copied()).expect("valid input")
}

/// Returns the section, title and identity of each step.
fn steps(file: &WalkthroughFile) -> Vec<(&str, &str, &str)> {
    file.steps
        .iter()
        .map(|step| {
            let section = step.content.section_title.as_deref().unwrap_or_default();
            (section, step.content.title.as_str(), step.identity.key().unwrap_or_default())
        })
        .collect()
}

#[test]
fn files_are_ordered_by_number_and_identified_by_path() {
    let file = read(&[
        ("10-last/01-end.md", "# The end\n\nBye."),
        ("02-first_agent/10-ten.md", "Text only."),
        ("02-first_agent/2-two.md", "## Step two\n\nx"),
        ("02-first_agent/x-review.MD", "# Review"),
        ("./02-first_agent/README.md", "# Welcome"),
        ("00-start.md", "\u{feff}# Start\n\n## Deep\n\ntext"),
        ("LICENSE.md", "# License"),
        ("notes.txt", "x"),
        ("image.png", ""),
        (".git/a.md", "x"),
        ("02-first_agent/03-empty.md", " \n"),
        ("CHANGELOG.md", "# Changes"),
    ]);
    assert_eq!(
        steps(&file),
        [
            ("", "Start", "start"),
            ("First agent", "Welcome", "first_agent/README"),
            ("First agent", "Two", "first_agent/two"),
            ("First agent", "Ten", "first_agent/ten"),
            ("First agent", "Review", "first_agent/x-review"),
            ("Last", "The end", "last/end"),
        ]
    );
    assert_eq!(file.steps[0].content.content, "## Deep\n\ntext");
    assert_eq!(file.steps[2].content.content, "## Step two\n\nx");
    assert_eq!((file.title.as_deref(), file.description), (Some("My course"), None));
    assert_eq!(file.default_kind, WalkthroughType::Course);
    assert_eq!(file.warnings.len(), 2, "{:?}", file.warnings);
    assert!(file.warnings.iter().any(|warning| warning.contains("my-course/02-first_agent/03-empty.md")));
}

#[test]
fn the_readme_has_the_walkthroughs_fields() {
    let file = read(&[("ReadMe.md", "---\ntype: installer\nx: 1\n---\n# T\n\nAbout.\n\n## More\n"), ("01-a.md", "a")]);
    assert_eq!((file.title.as_deref(), file.description.as_deref()), (Some("T"), Some("About.\n\n## More")));
    assert_eq!((file.kind, file.steps.len()), (Some(WalkthroughType::Installer), 1));
    assert_eq!(file.metadata.map(serde_json::Value::Object), Some(json!({"x": 1})));
}

#[test]
fn front_matter_applies_to_a_step() {
    let file = read(&[
        ("1-a.md", "---\ntitle: Said\nsidebar_position: 2\nsection: S\n---\n\ntext"),
        ("2-b.md", "---\ntitle: Said\nkey: k\n---\n# Heading\n\n```agent-operations\nls\n```\n"),
    ]);
    assert_eq!(steps(&file), [("S", "Said", "a"), ("", "Heading", "k")]);
    assert_eq!(serde_json::Value::Object(file.steps[0].content.metadata.clone()), json!({"sidebar_position": 2}));
    assert_eq!(serde_json::Value::Object(file.steps[1].content.metadata.clone()), json!({"title": "Said"}));
    assert_eq!(file.steps[1].content.operations_for_agent.as_deref(), Some("ls"));
}

#[test]
fn renumbering_keeps_the_identity() {
    let before = read(&[("01-s/01-a.md", "x"), ("01-s/02-b.md", "x")]);
    let after = read(&[("3-s/07-a.md", "x"), ("3-s/05-b.md", "x")]);
    assert_eq!(before.steps[0].identity, after.steps[1].identity);
    assert_eq!(before.steps[1].identity, StepIdentity::Path("s/b".to_owned()));
}

#[test]
fn composed_and_decomposed_names_are_equal() {
    let composed = read(&[("01-caf\u{e9}.md", "x")]);
    let decomposed = read(&[("01-cafe\u{301}.md", "x")]);
    assert_eq!(composed.steps[0].identity, decomposed.steps[0].identity);
}

#[test]
fn files_with_the_same_identity_are_rejected() {
    let error = parse("c", [("01-s/01-a.md", "x"), ("02-s/09-a.md", "y")]).expect_err("duplicate identities");
    assert!(error.message.contains("c/01-s/01-a.md") && error.message.contains("c/02-s/09-a.md"), "{error}");
    assert_eq!((&error.details["field"], &error.details["file"]), (&"path".into(), &"c/02-s/09-a.md".into()));
}

#[test]
fn rejections_name_the_file() {
    type Row<'a> = (&'a [(&'a str, &'a str)], &'a str, &'a str);
    let large = "x".repeat(64 * 1024 + 1);
    let table: &[Row<'_>] = &[
        (&[], "steps", "c"),
        (&[("README.md", "# T\n\ntext")], "steps", "c"),
        (&[("a.md", "---\nx: [\n---\ntext")], "front matter", "c/a.md"),
        (&[("a.md", &large)], "content", "c/a.md"),
        (&[("a.md", "#\n\nx")], "title", "c/a.md"),
        (&[("README.md", "---\ntype: x\n---\n"), ("a.md", "x")], "type", "c/README.md"),
    ];
    for (files, field, name) in table {
        let error = parse("c", files.iter().copied()).expect_err(name);
        assert_eq!((&error.details["field"], &error.details["file"]), (&(*field).into(), &(*name).into()), "{error}");
    }
}

#[test]
fn numbered_files_in_dot_folders_are_steps() {
    let file = read(&[
        ("README.md", "# T"),
        (".github/steps/x-review.md", "## Finish\n\nx"),
        (".github/steps/10-b.md", "b"),
        (".github/steps/2-a.md", "a"),
        (".github/ISSUE_TEMPLATE/bug.md", "x"),
        (".lessons/01-basics/1-c.md", "c"),
        (".hidden.md", "x"),
        (".git/1-a.md", "x"),
        ("a/node_modules/b/1-readme.md", "x"),
    ]);
    assert_eq!(
        steps(&file),
        [
            ("", "A", ".github/steps/a"),
            ("", "B", ".github/steps/b"),
            ("", "X review", ".github/steps/x-review"),
            ("Basics", "C", ".lessons/basics/c"),
        ]
    );
    let expected = "my-course/.github/ISSUE_TEMPLATE/bug.md: skipped, because it does not look like a step.";
    assert_eq!(file.warnings, [expected]);
}
