//! Property tests for all formats: parsing never panics, exports round-trip, and repeated imports change nothing.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::export::{ExportStep, export_json};
use super::export_markdown::export_markdown;
use super::file::WalkthroughFile;
use super::plan::{ImportPlan, plan};
use super::{folder, json, lint, markdown};
use crate::markdown::normalize_line_endings;
use waypost_core::clock::Timestamp;
use waypost_core::id::StepId;
use waypost_core::step::{Step, StepContent};
use waypost_core::walkthrough::{WalkthroughFields, WalkthroughState, WalkthroughType};

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        proptest::num::f64::NORMAL.prop_map(Value::from),
        "\\PC{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::vec((name(), inner), 0..3)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Generates known and arbitrary names.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{1,4}",
        prop::sample::select(vec![
            "$unknown",
            "own",
            "step",
            "contentFields",
            "envelope",
            "envelopeMetadata",
            "walkthrough",
            "metadata",
            "title",
            "key",
            "version",
            "steps",
            "displayOrder",
            "nextStepReference",
            "contentForUser",
            "slug",
            "<<",
            "",
            "true",
            "~",
            "a\u{85}b",
        ])
        .prop_map(str::to_owned),
    ]
}

fn members() -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::vec((name(), value()), 0..4).prop_map(|members| members.into_iter().collect())
}

fn title() -> impl Strategy<Value = String> {
    prop_oneof!["[A-C]", "[a-z][A-Za-z#*_`<&\\\\\\[\\] é-]{0,8}[a-zß]"]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["\\PC{0,20}", "([#`~> a-c.\r\n-]|```|## ){0,20}"]
}

fn content() -> impl Strategy<Value = StepContent> {
    let optional = || prop::option::of(text());
    (title(), prop::option::of(title()), text(), optional(), optional(), optional(), members()).prop_map(
        |(title, section_title, content, introduction, context, operations, metadata)| StepContent {
            title,
            section_title,
            content,
            introduction_for_agent: introduction,
            context_for_agent: context,
            operations_for_agent: operations,
            metadata,
        },
    )
}

/// Generates content that is hard to represent in a Markdown file.
fn hard_content() -> impl Strategy<Value = StepContent> {
    const LINES: &[&str] = &[
        "# H1",
        "## H2",
        "### H3",
        "###### H6",
        "#",
        "##",
        "Setext",
        "===",
        "---",
        "***",
        "```",
        "```sh",
        "````",
        "~~~",
        "```agent-context",
        "```agent-operations",
        "```walkthrough-step",
        "key: x",
        "<!--",
        "-->",
        "<!-- note -->",
        "<div>",
        "</div>",
        "<script>",
        "<pre>",
        "a<br>b",
        "<details><summary>x</summary>",
        "- item",
        "1. one",
        "> quote",
        "> ## quoted",
        "    code",
        "\ttab",
        "  ",
        "",
        "",
        "text",
        "two  ",
        "| a | b |",
        "|---|---|",
        "[r]: /x",
        "[^1]: note",
        "[^1]",
        "<port>",
        "\u{feff}",
        "\u{200b}",
        "日本語",
        "title: x",
        "...",
        "<!-- walkthrough-content -->",
        "<!-- /walkthrough-content -->",
        "<!-- walkthrough-content 2 -->",
        "<!-- /walkthrough-content 2 -->",
        "\\",
        "&lt;",
    ];
    let text = || {
        let line = (prop::sample::select(LINES), prop::sample::select(vec!["\n", "\n", "\n", "\r\n", "\r", ""]));
        prop::collection::vec(line, 0..14)
            .prop_map(|lines| lines.into_iter().map(|(line, end)| format!("{line}{end}")).collect::<String>())
    };
    let optional = move || prop::option::of(text());
    (hard_title(), prop::option::of(hard_title()), text(), optional(), optional(), optional(), members()).prop_map(
        |(title, section_title, content, introduction, context, operations, metadata)| StepContent {
            title,
            section_title,
            content,
            introduction_for_agent: introduction,
            context_for_agent: context,
            operations_for_agent: operations,
            metadata,
        },
    )
}

/// Generates a single line that begins and ends with a visible character.
fn hard_title() -> impl Strategy<Value = String> {
    let characters = "[ -~\t¡-ÿ\u{7f}\u{85}\u{200b}\u{202e}\u{2028}\u{feff}\u{e0041}😀]{0,12}";
    let markup = prop::sample::select(vec![
        "# ", " #", "1. ", "- ", "> ", "```", "---", "[a](b)", "![i](x)", "<b>", "&amp;", "\\", ":x:",
    ]);
    (markup, characters, prop::sample::select(vec!["", "a", "\\", "#", " ##"]))
        .prop_map(|(markup, text, end)| format!("{markup}{text}{end}").trim().to_owned())
        .prop_filter("a title is not blank", |title| !title.is_empty())
}

fn fields() -> impl Strategy<Value = WalkthroughFields> {
    let kind = prop::sample::select(WalkthroughType::ALL.to_vec());
    let minutes = prop::option::of(0_u32..=0x7fff_ffff);
    let tags = prop::collection::vec(prop_oneof!["\\PC{0,5}", hard_title()], 0..3);
    (prop_oneof![title(), hard_title()], text(), kind, minutes, tags, members()).prop_map(
        |(title, description, kind, estimated_duration_minutes, tags, metadata)| WalkthroughFields {
            title,
            description,
            kind,
            estimated_duration_minutes,
            tags,
            metadata,
        },
    )
}

fn keyed() -> impl Strategy<Value = Vec<(String, StepContent)>> {
    prop::collection::hash_map("[a-z/-]{0,8}[a-z]", content(), 0..6).prop_map(|steps| steps.into_iter().collect())
}

fn export(fields: &WalkthroughFields, steps: &[(String, StepContent)]) -> Value {
    let steps = steps.iter().map(|(key, content)| ExportStep { key, content });
    export_json(fields, steps, WalkthroughState::Draft, Timestamp(0))
}

/// Returns the draft after an import.
fn apply(plan: &ImportPlan) -> Vec<Step> {
    let id = |index: usize| StepId::from_store(format!("ws_{index:012}"));
    let step = |(index, step): (usize, &super::plan::PlannedStep)| Step {
        id: step.existing.clone().unwrap_or_else(|| id(index)),
        ordinal: u32::try_from(index).unwrap_or_default(),
        key: step.key.clone(),
        next_step_id: (index + 1 < plan.steps.len()).then(|| id(index + 1)),
        content: step.content.clone(),
    };
    plan.steps.iter().enumerate().map(step).collect()
}

/// Checks that importing again, and importing an export, changes nothing.
fn check_idempotent(file: &WalkthroughFile) -> Result<(), TestCaseError> {
    let fields = file.fields(Some("T"), None).expect("a title is given");
    let first = plan(None, &fields, file.steps.clone());
    let draft = apply(&first);
    let again = file.fields(Some("T"), Some(&fields)).expect("a title is given");
    let second = plan(Some((&fields, &draft)), &again, file.steps.clone());
    prop_assert!(second.is_unchanged() && !second.needs_replace(), "{}", second);

    let exported = export_json(&fields, &draft, WalkthroughState::Published, Timestamp(1)).to_string();
    let read = json::parse("export.json", &exported).expect("an export is valid");
    let again = read.fields(None, Some(&fields)).expect("an export has a title");
    let third = plan(Some((&fields, &draft)), &again, read.steps);
    prop_assert!(third.is_unchanged(), "{}", third);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn exports_round_trip(fields in fields(), steps in keyed()) {
        let exported = export(&fields, &steps);
        let file = json::parse("a.json", &exported.to_string()).expect("an export is valid");
        prop_assert_eq!(file.fields(None, None).expect("an export has a title"), fields);
        let read: Vec<_> =
            file.steps.iter().map(|step| (step.identity.key().unwrap_or_default().to_owned(), step.content.clone())).collect();
        prop_assert_eq!(&read, &steps);
        check_idempotent(&file)?;
    }

    #[test]
    fn unknown_members_are_written_back(
        envelope in members(), walkthrough in members(), metadata in members(),
        step in members(), content in members(), own in members(),
    ) {
        let with = |known: Value, unknown: &Map<String, Value>| {
            let Value::Object(known) = known else { unreachable!("an object") };
            let mut all = unknown.clone();
            all.extend(known);
            Value::Object(all)
        };
        let fields = with(json!({"version": "v1", "contentForUser": "x"}), &content);
        let step = with(json!({"title": "A", "key": "k", "contentFields": fields, "displayOrder": 0,
            "nextStepReference": null, "sectionTitle": null}), &step);
        let known = json!({"title": "T", "description": "", "type": "course", "status": "draft", "tags": [], "metadata": own,
            "estimatedDurationMinutes": null});
        let file = with(json!({"version": "1.1", "exportedAt": "1970-01-01T00:00:00.000Z", "metadata": metadata,
            "walkthrough": with(known, &walkthrough),
            "steps": [step]}), &envelope);
        let read = json::parse("a.json", &file.to_string()).expect("valid input");
        let steps: Vec<_> = read.steps.iter().map(|s| ("k".to_owned(), s.content.clone())).collect();
        let written = export(&read.fields(None, None).expect("it has a title"), &steps);
        for (name, value) in file.as_object().expect("an object") {
            if !matches!(name.as_str(), "steps") {
                prop_assert_eq!(&written[name], value, "{}", name);
            }
        }
        check_idempotent(&read)?;
    }

    #[test]
    fn any_text_is_accepted_or_rejected(text in any::<String>(), other in text()) {
        for text in [&text, &other] {
            let _ = (json::parse("a.json", text).is_ok(), super::parse("a", text).is_ok());
            if let Ok(file) = markdown::parse("a.md", text) {
                check_idempotent(&file)?;
            }
            let _ = folder::parse("a", [(text.as_str(), other.as_str()), ("1-a.md", text.as_str())]).is_ok();
        }
    }

    #[test]
    fn markdown_exports_round_trip(fields in fields(), steps in keyed(), hard in prop::collection::vec(hard_content(), 1..6)) {
        let hard = hard.into_iter().enumerate().map(|(index, content)| (format!("hard-{index}"), content));
        let steps: Vec<_> = steps.into_iter().chain(hard).collect();
        let exported = steps.iter().map(|(key, content)| ExportStep { key, content });
        let text = export_markdown(&fields, exported).expect("every walkthrough can be exported");
        let read = markdown::parse("a.md", &text).expect("an export is valid");
        let lines = |text: &str| normalize_line_endings(text).into_owned();
        prop_assert_eq!(
            read.fields(None, None).expect("it has a title"),
            WalkthroughFields { description: lines(&fields.description), ..fields }
        );
        let keys: Vec<_> = read.steps.iter().map(|step| step.identity.key().unwrap_or_default().to_owned()).collect();
        prop_assert_eq!(keys, steps.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>());
        let read: Vec<_> = read.steps.into_iter().map(|step| step.content).collect();
        let agent = |text: Option<String>| text.as_deref().map(lines);
        let steps: Vec<_> = steps
            .into_iter()
            .map(|(_, content)| StepContent {
                content: lines(&content.content),
                introduction_for_agent: agent(content.introduction_for_agent),
                context_for_agent: agent(content.context_for_agent),
                operations_for_agent: agent(content.operations_for_agent),
                ..content
            })
            .collect();
        prop_assert_eq!(&read, &steps);
        // Git may have converted the file to Windows line endings.
        let again = markdown::parse("a.md", &text.replace('\n', "\r\n")).expect("line endings do not matter");
        prop_assert_eq!(again.steps.into_iter().map(|step| step.content).collect::<Vec<_>>(), steps);
    }

    #[test]
    fn any_json_is_accepted_or_rejected(value in value(), steps in prop::collection::vec((members(), members()), 0..4)) {
        let _ = json::parse("a.json", &value.to_string()).is_ok();
        let step = |(mut step, mut fields): (Map<String, Value>, Map<String, Value>)| {
            fields.entry("version").or_insert_with(|| "v1".into());
            fields.entry("contentForUser").or_insert_with(|| "x".into());
            step.entry("title").or_insert_with(|| "A".into());
            step.entry("contentFields").or_insert(Value::Object(fields));
            Value::Object(step)
        };
        let steps: Vec<_> = steps.into_iter().map(step).collect();
        match json::parse("a.json", &Value::from(steps).to_string()) {
            Ok(file) => check_idempotent(&file)?,
            Err(error) => prop_assert!(error.message.starts_with("a.json: ") && error.details.contains_key("field")),
        }
    }

    #[test]
    fn importing_markdown_is_idempotent(blocks in prop::collection::vec(markdown_block(), 0..12)) {
        let text = format!("---\nx: 1\n---\n# T\n{}", blocks.concat());
        if let Ok(file) = markdown::parse("a.md", &text) {
            let _ = lint::lint(WalkthroughType::Course, file.steps.iter().map(|step| &step.content));
            check_idempotent(&file)?;
        }
        if let Ok(file) = folder::parse("a", [("1-s/2-a.md", text.as_str()), ("b.md", "x")]) {
            check_idempotent(&file)?;
        }
    }
}

fn markdown_block() -> impl Strategy<Value = String> {
    prop_oneof![
        title().prop_map(|title| format!("## {title}\n\n")),
        title().prop_map(|title| format!("# {title}\n")),
        title().prop_map(|title| format!("{title}\n---\n")),
        text().prop_map(|text| format!("{text}\n\n")),
        text().prop_map(|text| format!("```agent-context\n{text}\n```\n")),
        "[a-z]{1,2}".prop_map(|key| format!("```walkthrough-step\nkey: {key}\nmore: [1]\n```\n")),
        Just("> ## quoted\n\n- item\n\n      ## code\n".to_owned()),
    ]
}

/// Fragments of Markdown files, including difficult ones.
const PIECES: &[&str] = &[
    "# ",
    "## ",
    "### ",
    "a",
    "word",
    "\n",
    "\n",
    "\n\n",
    "```",
    "~~~",
    "```walkthrough-step\n",
    "```agent-context\n",
    "---\n",
    "===\n",
    "key: a\n",
    "x: .nan\n",
    "y: 1e400\n",
    "z: 0x1F\n",
    "<<: {a: 1}\n",
    "title: x\n",
    "section: \"a\\nb\"\n",
    "metadata: {b: 1}\n",
    "? [a]\n: b\n",
    "- ",
    "> ",
    "    ",
    "\t",
    "<div>",
    "<!--",
    "-->",
    "<!-- walkthrough-content -->\n",
    "<!-- /walkthrough-content -->\n",
    "`",
    "*",
    "_",
    "[a]",
    "[a]: b\n",
    "[^1]: ",
    "\\",
    "&amp;",
    "&",
    "\u{a0}",
    "\u{85}",
    "\u{feff}",
    "\u{200b}",
    "\u{2028}",
    "\u{1b}",
    "\u{fffe}",
    "\u{1fffe}",
    "\u{e000}",
    "|",
    "|---|",
    "1. ",
    "#",
    " #",
    "<b>",
    "é",
    "😀",
    "!",
    "\"",
    "'",
    "~",
    "agent-introduction",
    "...",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn imported_markdown_can_be_exported_again(
        start in prop::sample::select(vec!["", "---\n", "# T\n## A\n"]),
        pieces in prop::collection::vec(prop::sample::select(PIECES), 0..30),
    ) {
        if let Ok(file) = markdown::parse("a.md", &(start.to_owned() + &pieces.concat())) {
            let fields = file.fields(Some("T"), None).expect("a title is given");
            let keys: Vec<_> = (0..file.steps.len()).map(|at| format!("k{at}")).collect();
            let steps = file.steps.iter().zip(&keys).map(|(step, key)| ExportStep { key, content: &step.content });
            let text = export_markdown(&fields, steps).expect("every walkthrough can be exported");
            let read = markdown::parse("b.md", &text).expect("an export is valid");
            let contents: Vec<_> = read.steps.iter().map(|step| &step.content).collect();
            prop_assert_eq!(contents, file.steps.iter().map(|step| &step.content).collect::<Vec<_>>());
        }
    }
}
