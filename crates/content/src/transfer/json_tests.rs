use serde_json::json;

use super::*;

fn step(title: &str) -> Value {
    json!({"title": title, "contentFields": {"version": "v1", "contentForUser": "Do it."}})
}

fn envelope(steps: &[Value]) -> Value {
    json!({"version": "1.1", "walkthrough": {"title": "T"}, "steps": steps})
}

fn read(value: &Value) -> Result<WalkthroughFile> {
    parse("a.json", &value.to_string())
}

fn titles(file: &WalkthroughFile) -> Vec<&str> {
    file.steps.iter().map(|step| step.content.title.as_str()).collect()
}

#[test]
fn every_member_is_read() {
    let file = read(&json!({
        "version": "1.0", "exportedAt": "whenever", "metadata": {"tool": 1}, "extra": [1],
        "walkthrough": {"title": "T", "description": "D", "type": "installer", "status": "published", "slug": "t",
            "estimatedDurationMinutes": 7, "tags": ["x"], "metadata": {"own": true}},
        "steps": [
            {"key": "b", "title": "B", "sectionTitle": "S", "displayOrder": 9, "nextStepReference": null, "odd": null,
                "metadata": {"m": 1}, "contentFields": {"version": "v1", "contentForUser": "u", "introductionForAgent": "i",
                "contextForAgent": "c", "operationsForAgent": "o", "more": "x"}},
            {"title": "A", "displayOrder": 8, "nextStepReference": 0, "metadata": "text",
                "contentFields": {"version": "v1", "contentForUser": "", "contextForAgent": null}},
        ],
    }))
    .expect("valid input");
    assert_eq!((file.title.as_deref(), file.description.as_deref()), (Some("T"), Some("D")));
    assert_eq!((file.kind, file.estimated_duration_minutes), (Some(WalkthroughType::Installer), Some(Some(7))));
    assert_eq!(file.tags.as_deref(), Some(&["x".to_owned()][..]));
    assert_eq!(
        file.metadata.map(Value::Object),
        Some(json!({"own": true, "$unknown": {
            "envelope": {"extra": [1]}, "envelopeMetadata": {"tool": 1}, "walkthrough": {"slug": "t"}}}))
    );
    let [a, b] = &file.steps[..] else { panic!("two steps") };
    assert_eq!((&a.identity, &b.identity), (&StepIdentity::Title, &StepIdentity::Key("b".to_owned())));
    assert_eq!(a.content.metadata["$unknown"], json!({"step": {"metadata": "text"}}));
    assert_eq!(
        Value::Object(b.content.metadata.clone()),
        json!({"m": 1, "$unknown": {"step": {"odd": null}, "contentFields": {"more": "x"}}})
    );
    assert_eq!(b.content.section_title.as_deref(), Some("S"));
    assert_eq!(b.content.operations_for_agent.as_deref(), Some("o"));
    assert_eq!((a.content.context_for_agent.as_deref(), a.source.location()), (None, Some("steps[1]")));
    assert!(file.warnings.is_empty());
}

#[test]
fn a_bare_array_and_a_byte_order_mark_are_accepted() {
    let text = format!("\u{feff}{}", json!([step("A"), step("B")]));
    let file = parse("a.json", &text).expect("valid input");
    assert_eq!((titles(&file), &file.title, &file.metadata), (vec!["A", "B"], &None, &None));
}

#[test]
fn null_clears_a_field() {
    let mut value = envelope(&[]);
    value["walkthrough"] = json!({"title": "T", "description": null, "tags": null, "estimatedDurationMinutes": null});
    let file = read(&value).expect("valid input");
    assert_eq!((file.description, file.tags), (Some(String::new()), Some(vec![])));
    assert_eq!(file.estimated_duration_minutes, Some(None));
}

#[test]
fn references_can_be_keys_only_in_1_1() {
    let mut value = envelope(&[step("B"), step("A")]);
    value["steps"][0]["key"] = "b".into();
    value["steps"][0]["nextStepReference"] = Value::Null;
    value["steps"][1]["nextStepReference"] = "b".into();
    assert_eq!(titles(&read(&value).expect("valid input")), ["A", "B"]);
    value["version"] = "1.0".into();
    let error = read(&value).expect_err("1.0 has indices only");
    assert_eq!(
        (&error.details["field"], &error.details["location"]),
        (&"nextStepReference".into(), &"steps[1]".into())
    );
}

#[test]
fn null_on_every_step_is_not_a_chain() {
    let mut value = envelope(&[step("B"), step("A")]);
    for (at, order) in [(0, 2), (1, 1)] {
        value["steps"][at]["nextStepReference"] = Value::Null;
        value["steps"][at]["displayOrder"] = order.into();
    }
    assert_eq!(titles(&read(&value).expect("valid input")), ["A", "B"]);
}

/// Each row changes one member of a valid file and has the field that the rejection must name.
#[test]
fn rejections_name_file_step_and_field() {
    let long = "x".repeat(201);
    let large = "x".repeat(64 * 1024 + 1);
    let deep: Value = serde_json::from_str(&format!("{}{}", "[".repeat(70), "]".repeat(70))).expect("nested arrays");
    let table = [
        ("/version", json!("2.0"), "version"),
        ("/version", json!(1.1), "version"),
        ("/version", json!(null), "version"),
        ("/walkthrough", json!(null), "walkthrough"),
        ("/walkthrough", json!([]), "walkthrough"),
        ("/walkthrough/title", json!(5), "walkthrough.title"),
        ("/walkthrough/title", json!(" "), "walkthrough.title"),
        ("/walkthrough/title", json!(long), "walkthrough.title"),
        ("/walkthrough/description", json!(5), "walkthrough.description"),
        ("/walkthrough/description", json!(large), "walkthrough.description"),
        ("/walkthrough/type", json!("lesson"), "walkthrough.type"),
        ("/walkthrough/tags", json!("a"), "walkthrough.tags"),
        ("/walkthrough/tags", json!(["a", 1]), "walkthrough.tags[1]"),
        ("/walkthrough/estimatedDurationMinutes", json!("5"), "walkthrough.estimatedDurationMinutes"),
        ("/walkthrough/estimatedDurationMinutes", json!(-1), "walkthrough.estimatedDurationMinutes"),
        ("/walkthrough/estimatedDurationMinutes", json!(1.5), "walkthrough.estimatedDurationMinutes"),
        ("/walkthrough/metadata", json!([]), "walkthrough.metadata"),
        ("/walkthrough/metadata", json!({"x": deep}), "walkthrough.metadata.x"),
        ("/walkthrough/odd", deep.clone(), "walkthrough.odd"),
        ("/metadata", json!("x"), "metadata"),
        ("/steps", json!(null), "steps"),
        ("/steps", json!({}), "steps"),
        ("/steps/1", json!("x"), "steps[1]"),
        ("/steps/1/key", json!(1), "key"),
        ("/steps/1/key", json!(""), "key"),
        ("/steps/1/title", json!(null), "title"),
        ("/steps/1/title", json!(1), "title"),
        ("/steps/1/title", json!(""), "title"),
        ("/steps/1/title", json!(long), "title"),
        ("/steps/1/sectionTitle", json!(1), "sectionTitle"),
        ("/steps/1/sectionTitle", json!(long), "sectionTitle"),
        ("/steps/1/displayOrder", json!("1"), "displayOrder"),
        ("/steps/1/nextStepReference", json!(true), "nextStepReference"),
        ("/steps/1/nextStepReference", json!(7), "nextStepReference"),
        ("/steps/1/contentFields", json!(null), "contentFields"),
        ("/steps/1/contentFields", json!("x"), "contentFields"),
        ("/steps/1/contentFields/version", json!("v2"), "contentFields.version"),
        ("/steps/1/contentFields/version", json!(null), "contentFields.version"),
        ("/steps/1/contentFields/contentForUser", json!(null), "contentFields.contentForUser"),
        ("/steps/1/contentFields/contentForUser", json!(1), "contentFields.contentForUser"),
        ("/steps/1/contentFields/contentForUser", json!(large), "contentFields.contentForUser"),
        ("/steps/1/contentFields/contextForAgent", json!([]), "contentFields.contextForAgent"),
        ("/steps/1/contentFields/operationsForAgent", json!(large), "contentFields.operationsForAgent"),
        ("/steps/1/odd", deep, "odd"),
    ];
    for (pointer, value, field) in table {
        let mut file = envelope(&[step("A"), step("Second")]);
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
        match file.pointer_mut(parent).expect("a parent") {
            Value::Object(members) => _ = members.insert(name.to_owned(), value),
            Value::Array(items) => items[name.parse::<usize>().expect("an index")] = value,
            other => panic!("{other}"),
        }
        let error = read(&file).expect_err(pointer);
        assert_eq!(error.details["field"], field, "{pointer}: {error}");
        assert_eq!(error.details["file"], "a.json", "{pointer}");
        assert!(error.message.starts_with("a.json: ") && error.message.contains(field), "{pointer}: {error}");
        if pointer.starts_with("/steps/1") {
            assert_eq!(error.details["location"], "steps[1]", "{pointer}");
            assert!(error.message.contains("step 2"), "{pointer}: {error}");
        }
    }
}

#[test]
fn invalid_documents_are_rejected() {
    for text in ["", "  \n", "5", "null", "\"x\"", "{", "[{]", "{\"a\": 1,}", "\u{0}"] {
        assert_eq!(parse("a.json", text).expect_err(text).details["field"], "document", "{text}");
    }
    let error = parse("a.json", "{\n  \"version\": }").expect_err("a missing value");
    assert_eq!((&error.details["line"], &error.details["column"]), (&2.into(), &14.into()), "{error}");
    let error = parse("a.json", &"[".repeat(100_000)).expect_err("excessive nesting");
    assert!(error.message.contains("recursion limit"), "{error}");
}

#[test]
fn a_walkthrough_has_at_most_500_steps() {
    let steps = |count| vec![step("A"); count];
    assert_eq!(read(&envelope(&steps(500))).expect("500 steps").steps.len(), 500);
    assert_eq!(read(&envelope(&steps(501))).expect_err("501 steps").details["field"], "steps");
}

#[test]
fn the_last_of_duplicate_members_is_used() {
    let text = r#"[{"title": "A", "title": "B", "contentFields": {"version": "v1", "contentForUser": "x"}}]"#;
    assert_eq!(titles(&parse("a.json", text).expect("valid input")), ["B"]);
}
