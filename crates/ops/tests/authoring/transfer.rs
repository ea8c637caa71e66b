//! Tests of imports and exports.

use serde_json::{Value, json};
use waypost_content::clean;
use waypost_content::transfer::file::WalkthroughFile;
use waypost_content::transfer::{json as json_file, markdown};
use waypost_core::Code;
use waypost_core::id::{OrganizationId, StepId, WalkthroughId};
use waypost_core::walkthrough::{WalkthroughState, WalkthroughType};
use waypost_ops::assignments;
use waypost_ops::walkthroughs::export::{export, export_as_markdown};
use waypost_ops::walkthroughs::get_draft;
use waypost_ops::walkthroughs::import::{ImportOptions, ImportReport, import, lint_file};
use waypost_ops::walkthroughs::publish::archive;
use waypost_ops::walkthroughs::versions::get;
use waypost_store::version;

use crate::{Fixture, set_up};

const THREE: &str = "# Guide\n\nWhat it is.\n\n## One\n\nDo one.\n\n## Two\n\nDo two.\n\n## Three\n\nDo three.\n";

fn file(text: &str) -> WalkthroughFile {
    markdown::parse("guide.md", text).unwrap()
}

async fn import_ok(fixture: &Fixture, text: &str, options: ImportOptions) -> ImportReport {
    import(&fixture.cx, &fixture.ops, &fixture.org, file(text), options).await.unwrap()
}

async fn import_err(fixture: &Fixture, text: &str, options: ImportOptions) -> waypost_core::Error {
    import(&fixture.cx, &fixture.ops, &fixture.org, file(text), options).await.unwrap_err()
}

async fn list_step_ids(fixture: &Fixture, id: &WalkthroughId) -> Vec<StepId> {
    fixture.get_draft(id).await.steps.into_iter().map(|step| step.id).collect()
}

async fn importing_the_same_file_again_changes_nothing(fixture: Fixture) {
    let options = ImportOptions { publish: true, ..ImportOptions::default() };
    let first = import_ok(&fixture, THREE, options.clone()).await;
    assert!(first.created && first.changed && first.published_new, "{first:?}");
    assert_eq!((first.title.as_str(), first.revision, first.published_version), ("Guide", 1, Some(1)));
    let id = first.id.clone().unwrap();
    let (draft, audited, config) =
        (fixture.get_draft(&id).await, fixture.list_audit_actions().await, fixture.config_version().await);
    assert_eq!(draft.steps.iter().map(|step| step.ordinal).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(draft.walkthrough.description, "What it is.");
    assert_eq!(audited[audited.len() - 2..], ["walkthrough.import", "walkthrough.publish"]);

    fixture.clock.advance(1_000);
    let again = import_ok(&fixture, THREE, options).await;
    assert!(!again.created && !again.changed && !again.published_new, "{again:?}");
    assert_eq!((again.id.as_ref(), again.revision, again.published_version), (Some(&id), 1, Some(1)));
    assert_eq!((fixture.get_draft(&id).await, fixture.list_audit_actions().await), (draft, audited));
    assert_eq!(fixture.config_version().await, config);
}

async fn an_edited_file_keeps_step_ids(fixture: Fixture) {
    let id = import_ok(&fixture, THREE, ImportOptions::default()).await.id.unwrap();
    let before = list_step_ids(&fixture, &id).await;
    let edited = "# Guide\n\n## Zero\n\nNew.\n\n## Three\n\nDo three.\n\n## One\n\nDo one better.\n";
    let report = import_ok(&fixture, edited, ImportOptions::default()).await;
    assert!(report.changed && !report.created && report.revision == 2, "{report:?}");
    assert_eq!(fixture.list_titles(&id).await, ["Zero", "Three", "One"]);
    let after = fixture.get_draft(&id).await;
    assert_eq!((&after.steps[1].id, &after.steps[2].id), (&before[2], &before[0]));
    assert_eq!((after.steps[0].ordinal, after.walkthrough.next_ordinal), (3, 4), "an ordinal is used once");
    assert_eq!(after.steps[2].content.content.trim(), "Do one better.");

    // "Two" is added as a new step because the draft no longer contains it.
    import_ok(&fixture, THREE, ImportOptions::default()).await;
    let back = fixture.get_draft(&id).await;
    assert_eq!(back.steps.iter().map(|step| step.ordinal).collect::<Vec<_>>(), [0, 4, 2]);
}

async fn importing_another_walkthrough_requires_replace(fixture: Fixture) {
    let id = import_ok(&fixture, THREE, ImportOptions::default()).await.id.unwrap();
    let other = "# Guide\n\n## Alpha\n\nx\n\n## Beta\n\nx\n\n## One\n\nx\n";
    let error = import_err(&fixture, other, ImportOptions::default()).await;
    assert_eq!((error.code, &error.details["file"]), (Code::ConfirmationRequired, &json!("guide.md")));
    assert!(error.message.contains("1 of the 3 steps") && error.message.contains("--replace"), "{}", error.message);
    assert_eq!(fixture.list_titles(&id).await, ["One", "Two", "Three"]);
    let options = ImportOptions { replace: true, ..ImportOptions::default() };
    assert!(import_ok(&fixture, other, options).await.changed);
    assert_eq!(fixture.list_titles(&id).await, ["Alpha", "Beta", "One"]);
}

async fn a_dry_run_writes_nothing(fixture: Fixture) {
    let options = ImportOptions { dry_run: true, publish: true, ..ImportOptions::default() };
    let audited = fixture.list_audit_actions().await;
    let report = import_ok(&fixture, THREE, options.clone()).await;
    assert!(report.created && report.dry_run && report.id.is_none() && report.plan.contains("+ step 1"), "{report:?}");
    assert_eq!((report.published_version, fixture.list_audit_actions().await), (Some(1), audited));
    let id = import_ok(&fixture, THREE, ImportOptions::default()).await.id.unwrap();
    let before = fixture.get_draft(&id).await;
    let report = import_ok(&fixture, &THREE.replace("Do two.", "Do it."), options.clone()).await;
    assert!(report.changed && report.plan.contains("~ step 2") && report.id.as_ref() == Some(&id), "{report:?}");
    assert_eq!(fixture.get_draft(&id).await, before);
    // A dry run rejects the same files as an import.
    let empty = "# Guide\n\n## One\n\n## Two\n\nDo two.\n";
    let error = import_err(&fixture, empty, options).await;
    assert_eq!((&error.details["file"], &error.details["field"]), (&json!("guide.md"), &json!("content")));
    assert!(error.message.starts_with("guide.md: ") && error.message.contains("step 1 \"One\""), "{}", error.message);
}

async fn a_walkthrough_is_found_by_id_or_title(fixture: Fixture) {
    let id = import_ok(&fixture, THREE, ImportOptions::default()).await.id.unwrap();
    let titled = |title: &str| ImportOptions { title: Some(title.to_owned()), ..ImportOptions::default() };
    let same = import_ok(&fixture, THREE, titled(" GUIDE ")).await;
    assert_eq!((same.id.as_ref(), same.title.as_str(), same.created), (Some(&id), "GUIDE", false));
    let other = import_ok(&fixture, THREE, titled("Other")).await;
    assert!(other.created && other.id.as_ref() != Some(&id));

    let by_id = |id: &WalkthroughId| ImportOptions { id: Some(id.clone()), ..ImportOptions::default() };
    let renamed = import_ok(&fixture, &THREE.replace("# Guide", "# Manual"), by_id(&id)).await;
    assert_eq!((renamed.id.as_ref(), renamed.title.as_str(), renamed.slug.as_str()), (Some(&id), "Manual", "guide"));
    let error = import_err(&fixture, &THREE.replace("# Guide", "# Other"), by_id(&id)).await;
    assert_eq!((error.code, &error.details["field"]), (Code::Conflict, &json!("title")));
    let unknown = WalkthroughId::from_store("wt_0000000000000000".to_owned());
    assert_eq!(import_err(&fixture, THREE, by_id(&unknown)).await.code, Code::NotFound);
    let foreign = import(&fixture.cx, &fixture.ops, &fixture.other, file(THREE), by_id(&id)).await.unwrap_err();
    assert_eq!(foreign.code, Code::NotFound);
    archive(&fixture.cx, &fixture.ops, fixture.target(&id)).await.unwrap();
    let publish = ImportOptions { publish: true, ..by_id(&id) };
    assert_eq!(import_err(&fixture, THREE, publish).await.code, Code::Conflict);
}

async fn an_import_assigns_a_walkthrough_once(fixture: Fixture) {
    let server = fixture.create_server("docs1").await;
    let options = ImportOptions { server: Some("docs1".to_owned()), ..ImportOptions::default() };
    assert!(import_ok(&fixture, THREE, options.clone()).await.assigned);
    assert!(!import_ok(&fixture, THREE, options.clone()).await.assigned);
    assert!(import_ok(&fixture, "# Second\n\n## One\n\nx\n", options.clone()).await.assigned);
    let listed = assignments::list(&fixture.cx, &fixture.ops, &fixture.org, &server).await.unwrap();
    let assigned: Vec<_> = listed.iter().map(|l| (l.title.as_str(), l.assignment.display_order)).collect();
    assert_eq!(assigned, [("Guide", 1), ("Second", 2)]);

    // With an unknown server, nothing is written.
    let unknown_server = ImportOptions { server: Some("nowhere".to_owned()), ..ImportOptions::default() };
    let error = import_err(&fixture, "# Third\n\n## One\n\nx\n", unknown_server).await;
    assert_eq!((error.code, &error.details["field"]), (Code::NotFound, &json!("server")));
    let foreign = import(&fixture.cx, &fixture.ops, &fixture.other, file(THREE), options).await.unwrap_err();
    assert_eq!(foreign.code, Code::NotFound);
    let third = waypost_ops::walkthroughs::get_draft_by_slug(&fixture.cx, &fixture.ops, &fixture.org, "third").await;
    assert_eq!(third.unwrap_err().code, Code::NotFound);
}

async fn texts_are_stored_unchanged_and_served_cleaned(fixture: Fixture) {
    let text = "# G\u{202e}uide\n\n## O\u{200b}ne\n\n<b>Do</b> fast<br>slow <script>x()</script>with `<b>`.\n";
    let report = import_ok(&fixture, text, ImportOptions { publish: true, ..ImportOptions::default() }).await;
    assert_eq!(report.title, "G\u{202e}uide");
    let expected = "guide.md: step 1 \"O\\u{200b}ne\", `content` changes when it is served: ";
    assert!(report.warnings.iter().any(|warning| warning.starts_with(expected)), "{:?}", report.warnings);
    let id = report.id.unwrap();
    let draft = fixture.get_draft(&id).await;
    let original = "<b>Do</b> fast<br>slow <script>x()</script>with `<b>`.";
    assert_eq!(
        (draft.steps[0].content.title.as_str(), draft.steps[0].content.content.as_str()),
        ("O\u{200b}ne", original)
    );
    let mut conn = fixture.ops.store().read().await.unwrap();
    let version = draft.walkthrough.current_version_id.clone().unwrap();
    let served = clean::version(version::find_with_steps(&mut conn, &fixture.org, &version).await.unwrap().unwrap());
    drop(conn);
    assert_eq!((served.title.as_str(), served.steps()[0].content.title.as_str()), ("Guide", "One"));
    assert_eq!(served.steps()[0].content.content, "Do fast  \nslow with `<b>`.");
    // The version and every export contain the original text.
    let (_, steps) = get(&fixture.cx, &fixture.ops, &fixture.org, &id, 1).await.unwrap();
    assert_eq!(steps[0].content.content, original);
    let json = export(&fixture.cx, &fixture.ops, &fixture.org, &id).await.unwrap();
    assert_eq!(json["steps"][0]["contentFields"]["contentForUser"], original);
    let markdown = export_as_markdown(&fixture.cx, &fixture.ops, &fixture.org, &id).await.unwrap();
    let again = ImportOptions { publish: true, ..ImportOptions::default() };
    let back =
        import(&fixture.cx, &fixture.ops, &fixture.org, markdown::parse("back.md", &markdown).unwrap(), again.clone());
    let back = back.await.unwrap();
    assert!(!back.changed && !back.published_new && back.id == Some(id.clone()), "{back:?}");
    assert!(!import_ok(&fixture, text, again).await.changed);
    // Titles match if their served forms are equal.
    let other = import_ok(&fixture, "# Guide\n\n## One\n\nx\n", ImportOptions::default()).await;
    assert_eq!((other.id, other.steps[0].change), (Some(id), "updated"));
    assert!(import_ok(&fixture, &THREE.replace('\n', "\r\n"), ImportOptions::default()).await.warnings.is_empty());
    assert!(!lint_file(&file("# T\n\n## Empty\n")).unwrap().is_empty());
}

fn envelope() -> Value {
    json!({
        "version": "1.1", "x-envelope": { "a": [1] },
        "walkthrough": {
            "title": "Set up", "description": "All of it", "type": "installer", "status": "published",
            "estimatedDurationMinutes": 7, "tags": ["a", "b"], "metadata": { "k": null }, "x-head": true
        },
        "steps": [
            { "key": "first", "title": "First", "sectionTitle": "Begin", "x-step": 1,
              "contentFields": { "version": "v1", "contentForUser": "Do *it*.", "introductionForAgent": "Say hi",
                "contextForAgent": "ctx <port>", "operationsForAgent": "run", "x-field": "y" },
              "displayOrder": 3, "nextStepReference": 1 },
            { "title": "Second", "contentFields": { "version": "v1", "contentForUser": "Go.", "operationsForAgent": "go" },
              "displayOrder": 4, "nextStepReference": null }
        ],
        "metadata": { "tool": "x" }
    })
}

/// Exports a walkthrough without the time of the export and the walkthrough's state.
async fn export_comparable(fixture: &Fixture, organization: &OrganizationId, id: &WalkthroughId) -> Value {
    let mut value = export(&fixture.cx, &fixture.ops, organization, id).await.unwrap();
    value.as_object_mut().unwrap().remove("exportedAt").unwrap();
    value["walkthrough"].as_object_mut().unwrap().remove("status").unwrap();
    value
}

async fn an_export_can_be_imported_elsewhere(fixture: Fixture) {
    let parse = |value: &Value| json_file::parse("set-up.json", &value.to_string()).unwrap();
    let options = || ImportOptions { publish: true, ..ImportOptions::default() };
    let original_id =
        import(&fixture.cx, &fixture.ops, &fixture.org, parse(&envelope()), options()).await.unwrap().id.unwrap();
    let first = export_comparable(&fixture, &fixture.org, &original_id).await;
    assert_eq!(
        (&first["version"], &first["x-envelope"], &first["steps"][0]["x-step"]),
        (&json!("1.1"), &json!({ "a": [1] }), &json!(1))
    );
    assert_eq!(first["steps"][0]["contentFields"]["contextForAgent"], json!("ctx <port>"));

    let imported = import(&fixture.cx, &fixture.ops, &fixture.other, parse(&first), options()).await.unwrap();
    assert_eq!((imported.created, imported.published_version), (true, Some(1)));
    let copy_id = imported.id.unwrap();
    assert_eq!(export_comparable(&fixture, &fixture.other, &copy_id).await, first);
    let (a, b) = (
        fixture.get_draft(&original_id).await,
        get_draft(&fixture.cx, &fixture.ops, &fixture.other, &copy_id).await.unwrap(),
    );
    assert_eq!(a.walkthrough.fields(), b.walkthrough.fields());
    assert_eq!((b.walkthrough.kind, b.walkthrough.state), (WalkthroughType::Installer, WalkthroughState::Published));
    assert!(a.steps.iter().zip(&b.steps).all(|(a, b)| a.content == b.content && a.id != b.id));

    // Importing the export into its own organisation changes nothing.
    let back = import(&fixture.cx, &fixture.ops, &fixture.org, parse(&first), options()).await.unwrap();
    assert!(!back.changed && !back.published_new, "{back:?}");
    assert_eq!(fixture.get_draft(&original_id).await, a);
    // Importing the original file again changes nothing.
    let again = import(&fixture.cx, &fixture.ops, &fixture.org, parse(&envelope()), options()).await.unwrap();
    assert!(!again.changed, "{again:?}");
}

waypost_testkit::both!(set_up => an_import_assigns_a_walkthrough_once);
waypost_testkit::both!(extended set_up =>
    importing_the_same_file_again_changes_nothing,
    an_edited_file_keeps_step_ids,
    importing_another_walkthrough_requires_replace,
    a_dry_run_writes_nothing,
    a_walkthrough_is_found_by_id_or_title,
    texts_are_stored_unchanged_and_served_cleaned,
    an_export_can_be_imported_elsewhere,
);
