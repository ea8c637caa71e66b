//! Files in and out.

use serde_json::{Value, json};
use waypost_core::Code;
use waypost_core::id::{OrganizationId, StepId, WalkthroughId};
use waypost_core::transfer::file::WalkthroughFile;
use waypost_core::transfer::{json as json_file, markdown};
use waypost_core::walkthrough::{WalkthroughState, WalkthroughType};
use waypost_ops::assignments;
use waypost_ops::walkthroughs::export::{export, export_as_markdown};
use waypost_ops::walkthroughs::get_draft;
use waypost_ops::walkthroughs::import::{ImportOptions, ImportReport, import, lint_file};
use waypost_ops::walkthroughs::publish::archive;
use waypost_ops::walkthroughs::versions::get;
use waypost_store::version;

use crate::{World, open};

const THREE: &str = "# Guide\n\nWhat it is.\n\n## One\n\nDo one.\n\n## Two\n\nDo two.\n\n## Three\n\nDo three.\n";

fn file(text: &str) -> WalkthroughFile {
    markdown::parse("guide.md", text).unwrap()
}

async fn bring(world: &World, text: &str, options: ImportOptions) -> ImportReport {
    import(&world.cx, &world.ops, &world.org, file(text), options).await.unwrap()
}

async fn refused(world: &World, text: &str, options: ImportOptions) -> waypost_core::Error {
    import(&world.cx, &world.ops, &world.org, file(text), options).await.unwrap_err()
}

async fn ids(world: &World, id: &WalkthroughId) -> Vec<StepId> {
    world.get_draft(id).await.steps.into_iter().map(|step| step.id).collect()
}

async fn the_same_file_again_changes_nothing(world: World) {
    let options = ImportOptions { publish: true, ..ImportOptions::default() };
    let first = bring(&world, THREE, options.clone()).await;
    assert!(first.created && first.changed && first.published_new, "{first:?}");
    assert_eq!((first.title.as_str(), first.revision, first.published_version), ("Guide", 1, Some(1)));
    let id = first.id.clone().unwrap();
    let (draft, audited, config) = (world.get_draft(&id).await, world.audited().await, world.config_version().await);
    assert_eq!(draft.steps.iter().map(|step| step.ordinal).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(draft.walkthrough.description, "What it is.");
    assert_eq!(audited[audited.len() - 2..], ["walkthrough.import", "walkthrough.publish"]);

    world.clock.advance(1_000);
    let again = bring(&world, THREE, options).await;
    assert!(!again.created && !again.changed && !again.published_new, "{again:?}");
    assert_eq!((again.id.as_ref(), again.revision, again.published_version), (Some(&id), 1, Some(1)));
    assert_eq!((world.get_draft(&id).await, world.audited().await), (draft, audited));
    assert_eq!(world.config_version().await, config);
}

async fn an_edited_file_keeps_the_ids_of_steps(world: World) {
    let id = bring(&world, THREE, ImportOptions::default()).await.id.unwrap();
    let before = ids(&world, &id).await;
    let edited = "# Guide\n\n## Zero\n\nNew.\n\n## Three\n\nDo three.\n\n## One\n\nDo one better.\n";
    let report = bring(&world, edited, ImportOptions::default()).await;
    assert!(report.changed && !report.created && report.revision == 2, "{report:?}");
    assert_eq!(world.titles(&id).await, ["Zero", "Three", "One"]);
    let after = world.get_draft(&id).await;
    assert_eq!((&after.steps[1].id, &after.steps[2].id), (&before[2], &before[0]));
    assert_eq!((after.steps[0].ordinal, after.walkthrough.next_ordinal), (3, 4), "an ordinal is given once");
    assert_eq!(after.steps[2].content.content.trim(), "Do one better.");

    // Two comes back as a new step: the draft has forgotten it.
    bring(&world, THREE, ImportOptions::default()).await;
    let back = world.get_draft(&id).await;
    assert_eq!(back.steps.iter().map(|step| step.ordinal).collect::<Vec<_>>(), [0, 4, 2]);
}

async fn another_walkthrough_needs_replace(world: World) {
    let id = bring(&world, THREE, ImportOptions::default()).await.id.unwrap();
    let other = "# Guide\n\n## Alpha\n\nx\n\n## Beta\n\nx\n\n## One\n\nx\n";
    let error = refused(&world, other, ImportOptions::default()).await;
    assert_eq!((error.code, &error.details["file"]), (Code::ConfirmationRequired, &json!("guide.md")));
    assert!(error.message.contains("1 of the 3 steps") && error.message.contains("--replace"), "{}", error.message);
    assert_eq!(world.titles(&id).await, ["One", "Two", "Three"]);
    let options = ImportOptions { replace: true, ..ImportOptions::default() };
    assert!(bring(&world, other, options).await.changed);
    assert_eq!(world.titles(&id).await, ["Alpha", "Beta", "One"]);
}

async fn a_dry_run_writes_nothing(world: World) {
    let options = ImportOptions { dry_run: true, publish: true, ..ImportOptions::default() };
    let audited = world.audited().await;
    let report = bring(&world, THREE, options.clone()).await;
    assert!(report.created && report.dry_run && report.id.is_none() && report.plan.contains("+ step 1"), "{report:?}");
    assert_eq!((report.published_version, world.audited().await), (Some(1), audited));
    let id = bring(&world, THREE, ImportOptions::default()).await.id.unwrap();
    let before = world.get_draft(&id).await;
    let report = bring(&world, &THREE.replace("Do two.", "Do it."), options.clone()).await;
    assert!(report.changed && report.plan.contains("~ step 2") && report.id.as_ref() == Some(&id), "{report:?}");
    assert_eq!(world.get_draft(&id).await, before);
    // It refuses what the import would refuse.
    let empty = "# Guide\n\n## One\n\n## Two\n\nDo two.\n";
    let error = refused(&world, empty, options).await;
    assert_eq!((&error.details["file"], &error.details["field"]), (&json!("guide.md"), &json!("content")));
    assert!(error.message.starts_with("guide.md: ") && error.message.contains("step 1 \"One\""), "{}", error.message);
}

async fn a_walkthrough_is_found_by_id_or_title(world: World) {
    let id = bring(&world, THREE, ImportOptions::default()).await.id.unwrap();
    let titled = |title: &str| ImportOptions { title: Some(title.to_owned()), ..ImportOptions::default() };
    let same = bring(&world, THREE, titled(" GUIDE ")).await;
    assert_eq!((same.id.as_ref(), same.title.as_str(), same.created), (Some(&id), "GUIDE", false));
    let other = bring(&world, THREE, titled("Other")).await;
    assert!(other.created && other.id.as_ref() != Some(&id));

    let by_id = |id: &WalkthroughId| ImportOptions { id: Some(id.clone()), ..ImportOptions::default() };
    let renamed = bring(&world, &THREE.replace("# Guide", "# Manual"), by_id(&id)).await;
    assert_eq!((renamed.id.as_ref(), renamed.title.as_str(), renamed.slug.as_str()), (Some(&id), "Manual", "guide"));
    let error = refused(&world, &THREE.replace("# Guide", "# Other"), by_id(&id)).await;
    assert_eq!((error.code, &error.details["field"]), (Code::Conflict, &json!("title")));
    let unknown = WalkthroughId::from_store("wt_0000000000000000".to_owned());
    assert_eq!(refused(&world, THREE, by_id(&unknown)).await.code, Code::NotFound);
    let foreign = import(&world.cx, &world.ops, &world.other, file(THREE), by_id(&id)).await.unwrap_err();
    assert_eq!(foreign.code, Code::NotFound);
    archive(&world.cx, &world.ops, world.target(&id)).await.unwrap();
    let publish = ImportOptions { publish: true, ..by_id(&id) };
    assert_eq!(refused(&world, THREE, publish).await.code, Code::Conflict);
}

async fn it_is_placed_on_a_server_once(world: World) {
    let server = world.server("docs1").await;
    let options = ImportOptions { server: Some("docs1".to_owned()), ..ImportOptions::default() };
    assert!(bring(&world, THREE, options.clone()).await.assigned);
    assert!(!bring(&world, THREE, options.clone()).await.assigned);
    assert!(bring(&world, "# Second\n\n## One\n\nx\n", options.clone()).await.assigned);
    let listed = assignments::list(&world.cx, &world.ops, &world.org, &server).await.unwrap();
    let placed: Vec<_> = listed.iter().map(|l| (l.title.as_str(), l.assignment.display_order)).collect();
    assert_eq!(placed, [("Guide", 1), ("Second", 2)]);

    // An unknown server: nothing at all is written.
    let nowhere = ImportOptions { server: Some("nowhere".to_owned()), ..ImportOptions::default() };
    let error = refused(&world, "# Third\n\n## One\n\nx\n", nowhere).await;
    assert_eq!((error.code, &error.details["field"]), (Code::NotFound, &json!("server")));
    let foreign = import(&world.cx, &world.ops, &world.other, file(THREE), options).await.unwrap_err();
    assert_eq!(foreign.code, Code::NotFound);
    let third = waypost_ops::walkthroughs::get_draft_by_slug(&world.cx, &world.ops, &world.org, "third").await;
    assert_eq!(third.unwrap_err().code, Code::NotFound);
}

async fn texts_are_kept_and_served_clean(world: World) {
    let text = "# G\u{202e}uide\n\n## O\u{200b}ne\n\n<b>Do</b> fast<br>slow <script>x()</script>with `<b>`.\n";
    let report = bring(&world, text, ImportOptions { publish: true, ..ImportOptions::default() }).await;
    assert_eq!(report.title, "G\u{202e}uide");
    let told = "guide.md: step 1 \"O\\u{200b}ne\", `content`: changes when it is served: ";
    assert!(report.warnings.iter().any(|warning| warning.starts_with(told)), "{:?}", report.warnings);
    let id = report.id.unwrap();
    let draft = world.get_draft(&id).await;
    let typed = "<b>Do</b> fast<br>slow <script>x()</script>with `<b>`.";
    assert_eq!(
        (draft.steps[0].content.title.as_str(), draft.steps[0].content.content.as_str()),
        ("O\u{200b}ne", typed)
    );
    let mut conn = world.ops.db().read().await.unwrap();
    let version = draft.walkthrough.current_version_id.clone().unwrap();
    let served = version::find_with_steps(&mut conn, &world.org, &version).await.unwrap().unwrap();
    drop(conn);
    assert_eq!((served.title.as_str(), served.steps()[0].content.title.as_str()), ("Guide", "One"));
    assert_eq!(served.steps()[0].content.content, "Do fast  \nslow with `<b>`.");
    // The original comes back: from the version, and in every export.
    let (_, steps) = get(&world.cx, &world.ops, &world.org, &id, 1).await.unwrap();
    assert_eq!(steps[0].content.content, typed);
    let json = export(&world.cx, &world.ops, &world.org, &id).await.unwrap();
    assert_eq!(json["steps"][0]["contentFields"]["contentForUser"], typed);
    let markdown = export_as_markdown(&world.cx, &world.ops, &world.org, &id).await.unwrap();
    let again = ImportOptions { publish: true, ..ImportOptions::default() };
    let back = import(&world.cx, &world.ops, &world.org, markdown::parse("back.md", &markdown).unwrap(), again.clone());
    let back = back.await.unwrap();
    assert!(!back.changed && !back.published_new && back.id == Some(id.clone()), "{back:?}");
    assert!(!bring(&world, text, again).await.changed);
    // Titles are the same if they are when they are served.
    let other = bring(&world, "# Guide\n\n## One\n\nx\n", ImportOptions::default()).await;
    assert_eq!((other.id, other.steps[0].change), (Some(id), "updated"));
    assert!(bring(&world, &THREE.replace('\n', "\r\n"), ImportOptions::default()).await.warnings.is_empty());
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

/// What an export says, but for the time of it and the state of the walkthrough.
async fn exported(world: &World, organization: &OrganizationId, id: &WalkthroughId) -> Value {
    let mut value = export(&world.cx, &world.ops, organization, id).await.unwrap();
    value.as_object_mut().unwrap().remove("exportedAt").unwrap();
    value["walkthrough"].as_object_mut().unwrap().remove("status").unwrap();
    value
}

async fn an_export_makes_the_same_elsewhere(world: World) {
    let parse = |value: &Value| json_file::parse("set-up.json", &value.to_string()).unwrap();
    let options = || ImportOptions { publish: true, ..ImportOptions::default() };
    let here = import(&world.cx, &world.ops, &world.org, parse(&envelope()), options()).await.unwrap().id.unwrap();
    let first = exported(&world, &world.org, &here).await;
    assert_eq!(
        (&first["version"], &first["x-envelope"], &first["steps"][0]["x-step"]),
        (&json!("1.1"), &json!({ "a": [1] }), &json!(1))
    );
    assert_eq!(first["steps"][0]["contentFields"]["contextForAgent"], json!("ctx <port>"));

    let there = import(&world.cx, &world.ops, &world.other, parse(&first), options()).await.unwrap();
    assert_eq!((there.created, there.published_version), (true, Some(1)));
    let there = there.id.unwrap();
    assert_eq!(exported(&world, &world.other, &there).await, first);
    let (a, b) = (world.get_draft(&here).await, get_draft(&world.cx, &world.ops, &world.other, &there).await.unwrap());
    assert_eq!(a.walkthrough.fields(), b.walkthrough.fields());
    assert_eq!((b.walkthrough.kind, b.walkthrough.state), (WalkthroughType::Installer, WalkthroughState::Published));
    assert!(a.steps.iter().zip(&b.steps).all(|(a, b)| a.content == b.content && a.id != b.id));

    // Back where it came from, it changes nothing.
    let back = import(&world.cx, &world.ops, &world.org, parse(&first), options()).await.unwrap();
    assert!(!back.changed && !back.published_new, "{back:?}");
    assert_eq!(world.get_draft(&here).await, a);
    // And the file that it first came from does not either.
    let again = import(&world.cx, &world.ops, &world.org, parse(&envelope()), options()).await.unwrap();
    assert!(!again.changed, "{again:?}");
}

waypost_testkit::both!(open =>
    the_same_file_again_changes_nothing,
    an_edited_file_keeps_the_ids_of_steps,
    another_walkthrough_needs_replace,
    a_dry_run_writes_nothing,
    a_walkthrough_is_found_by_id_or_title,
    it_is_placed_on_a_server_once,
    texts_are_kept_and_served_clean,
    an_export_makes_the_same_elsewhere,
);
