//! Tests of walkthroughs: titles, slugs, lists, access.

use serde_json::json;
use waypost_content::transfer::markdown;
use waypost_core::Code;
use waypost_core::caller::{Caller, Ctx};
use waypost_core::chain::StepPosition;
use waypost_core::id::{ServerId, StepId, WalkthroughId};
use waypost_core::walkthrough::{WalkthroughFields, WalkthroughState, WalkthroughType};
use waypost_ops::walkthroughs::draft::{NewStep, add_step, delete_step, move_step, patch_step};
use waypost_ops::walkthroughs::import::{ImportOptions, import};
use waypost_ops::walkthroughs::{
    EditTarget, NewWalkthrough, WalkthroughListQuery, WalkthroughPatch, create, delete, export, get_draft,
    get_draft_by_slug, list, publish, update,
};
use waypost_store::on;

use crate::{Fixture, content, fields, patch_of, set_up};

async fn a_walkthrough_can_be_created_read_updated_and_deleted(fixture: Fixture) {
    let created = fixture.create("  Install\u{200b} the   CLI ").await;
    assert_eq!((created.title.as_str(), created.slug.as_str()), ("Install\u{200b} the   CLI", "install-the-cli"));
    assert_eq!((created.state, created.revision, created.next_ordinal), (WalkthroughState::Draft, 1, 0));
    assert_eq!(fixture.get_draft(&created.id).await.walkthrough, created);

    let change = WalkthroughPatch {
        title: Some("Set up the CLI".to_owned()),
        description: Some("How to.\u{202e}".to_owned()),
        kind: Some(WalkthroughType::Installer),
        estimated_duration_minutes: Some(Some(15)),
        tags: Some(vec!["cli".to_owned(), " cli ".to_owned(), String::new()]),
        metadata: Some(json!({ "x": [1, null] }).as_object().unwrap().clone()),
        slug: None,
    };
    fixture.clock.advance(1_000);
    let changed = update(&fixture.cx, &fixture.ops, fixture.target_at(&created.id, 1), change.clone()).await.unwrap();
    assert_eq!((changed.title.as_str(), changed.slug.as_str()), ("Set up the CLI", "install-the-cli"));
    assert_eq!((changed.description.as_str(), &changed.tags[..]), ("How to.\u{202e}", &["cli".to_owned()][..]));
    assert_eq!((changed.revision, changed.updated_at.since(created.updated_at)), (2, 1_000));
    assert_eq!(fixture.get_draft(&created.id).await.walkthrough, changed);

    // Repeating an update does not change the revision.
    let again = update(&fixture.cx, &fixture.ops, fixture.target_at(&created.id, 2), change).await.unwrap();
    assert_eq!(again, changed);
    let outdated = update(&fixture.cx, &fixture.ops, fixture.target_at(&created.id, 1), WalkthroughPatch::default())
        .await
        .unwrap_err();
    assert_eq!((outdated.code, &outdated.details["revision"]), (Code::PreconditionFailed, &json!(2)));

    let before = fixture.config_version().await;
    delete(&fixture.cx, &fixture.ops, fixture.target(&created.id)).await.unwrap();
    assert!(fixture.config_version().await > before);
    assert_eq!(get_draft(&fixture.cx, &fixture.ops, &fixture.org, &created.id).await.unwrap_err().code, Code::NotFound);
    assert_eq!(delete(&fixture.cx, &fixture.ops, fixture.target(&created.id)).await.unwrap_err().code, Code::NotFound);
    let audited = fixture.list_audit_actions().await;
    assert_eq!(
        audited.iter().filter(|action| action.starts_with("walkthrough")).collect::<Vec<_>>(),
        ["walkthrough.create", "walkthrough.delete", "walkthrough.update"]
    );
}

async fn titles_and_slugs_are_unique(fixture: Fixture) {
    let first = fixture.create("Straße").await;
    let new = |title: &str, slug: Option<&str>| NewWalkthrough { fields: fields(title), slug: slug.map(str::to_owned) };
    let taken = create(&fixture.cx, &fixture.ops, &fixture.org, new(" STRASSE ", None)).await.unwrap_err();
    assert_eq!((taken.code, &taken.details["field"]), (Code::Conflict, &json!("title")));
    assert_eq!(taken.details["walkthrough_id"], json!(first.id));
    // Another organisation can use the same title.
    create(&fixture.cx, &fixture.ops, &fixture.other, new("Straße", None)).await.unwrap();

    let second = fixture.create("Strasse!").await;
    assert_eq!((first.slug.as_str(), second.slug.as_str()), ("strasse", "strasse-2"));
    let long = "a-very-long-title ".repeat(6);
    let slugs = [fixture.create(&long).await.slug, fixture.create(&format!("{long}!")).await.slug];
    assert!(slugs[0] != slugs[1] && slugs.iter().all(|slug| slug.len() <= 60), "{slugs:?}");

    let slug = |slug: &str| WalkthroughPatch { slug: Some(slug.to_owned()), ..WalkthroughPatch::default() };
    let taken = update(&fixture.cx, &fixture.ops, fixture.target(&second.id), slug("strasse")).await.unwrap_err();
    assert_eq!((taken.code, &taken.details["field"]), (Code::Conflict, &json!("slug")));
    for invalid in ["", "-a", "a-", "A", "a b", "ä", &"x".repeat(61)] {
        let error = update(&fixture.cx, &fixture.ops, fixture.target(&second.id), slug(invalid)).await.unwrap_err();
        assert_eq!((error.code, &error.details["field"]), (Code::InvalidArguments, &json!("slug")), "{invalid}");
    }
    let before = fixture.config_version().await;
    let changed = update(&fixture.cx, &fixture.ops, fixture.target(&second.id), slug("road")).await.unwrap();
    assert_eq!((changed.slug.as_str(), changed.revision), ("road", 2));
    assert!(fixture.config_version().await > before, "the new slug is served immediately");
    let draft = get_draft_by_slug(&fixture.cx, &fixture.ops, &fixture.org, "road").await.unwrap();
    assert_eq!(draft.walkthrough.id, second.id);

    let title = WalkthroughPatch { title: Some("straSSe".to_owned()), ..WalkthroughPatch::default() };
    let renamed = update(&fixture.cx, &fixture.ops, fixture.target(&first.id), title.clone()).await.unwrap();
    assert_eq!(renamed.title, "straSSe", "a walkthrough can change the case of its title");
    let taken = update(&fixture.cx, &fixture.ops, fixture.target(&second.id), title).await.unwrap_err();
    assert_eq!(taken.code, Code::Conflict);
}

async fn exceeded_limits_are_reported(fixture: Fixture) {
    let new = |fields: WalkthroughFields| NewWalkthrough { fields, slug: None };
    let big = json!({ "x": "y".repeat(70_000) }).as_object().unwrap().clone();
    let cases = [
        ("title", WalkthroughFields { title: " \u{200b} ".to_owned(), ..fields("") }),
        ("title", fields(&"x".repeat(201))),
        ("description", WalkthroughFields { description: "x".repeat(65_537), ..fields("T") }),
        ("tags", WalkthroughFields { tags: (0..101).map(|n| n.to_string()).collect(), ..fields("T") }),
        ("tags", WalkthroughFields { tags: vec!["x".repeat(201)], ..fields("T") }),
        ("metadata", WalkthroughFields { metadata: big, ..fields("T") }),
    ];
    for (field, fields) in cases {
        let error = create(&fixture.cx, &fixture.ops, &fixture.org, new(fields)).await.unwrap_err();
        assert_eq!((error.code, &error.details["field"]), (Code::InvalidArguments, &json!(field)));
        assert!(error.message.contains(field), "{}", error.message);
    }
    create(&fixture.cx, &fixture.ops, &fixture.org, new(fields(&"ä".repeat(200)))).await.unwrap();

    const FILL: &str = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 19999)
        INSERT INTO walkthroughs (id, organization_id, title, title_key, slug, description, type, state, tags, metadata,
            revision, next_ordinal, created_at, updated_at)
        SELECT 'wt_' || i, $1, 'W' || i, 'w' || i, 'w' || i, '', 'course', 'draft', '[]', '{}', 1, 0, 0, 0 FROM n";
    let mut tx = fixture.ops.store().begin().await.unwrap();
    on!(&mut tx, c => sqlx::query(FILL).bind(fixture.org.as_str()).execute(c).await.unwrap().rows_affected());
    tx.commit().await.unwrap();
    let error = create(&fixture.cx, &fixture.ops, &fixture.org, new(fields("One more"))).await.unwrap_err();
    assert_eq!(error.code, Code::Conflict);
    assert!(error.message.contains("20000"), "{}", error.message);
}

async fn lists_are_paginated(fixture: Fixture) {
    for title in ["b", "Ä", "a", "Z", "c"] {
        fixture.create(title).await;
    }
    let mut seen = Vec::new();
    let mut cursor = None;
    loop {
        let query = WalkthroughListQuery { limit: Some(2), cursor, ..WalkthroughListQuery::default() };
        let page = list(&fixture.cx, &fixture.ops, &fixture.org, query).await.unwrap();
        assert!(page.items.len() <= 2);
        seen.extend(page.items.into_iter().map(|row| row.walkthrough.title));
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["a", "b", "c", "Z", "Ä"]);
    let query = WalkthroughListQuery { state: Some(WalkthroughState::Published), ..WalkthroughListQuery::default() };
    assert!(list(&fixture.cx, &fixture.ops, &fixture.org, query).await.unwrap().items.is_empty());
    for (field, query) in [
        ("limit", WalkthroughListQuery { limit: Some(0), ..WalkthroughListQuery::default() }),
        ("limit", WalkthroughListQuery { limit: Some(201), ..WalkthroughListQuery::default() }),
        ("cursor", WalkthroughListQuery { cursor: Some("?".to_owned()), ..WalkthroughListQuery::default() }),
    ] {
        let error = list(&fixture.cx, &fixture.ops, &fixture.org, query).await.unwrap_err();
        assert_eq!(error.details["field"], json!(field));
    }
}

/// All operations are rejected for members of another organisation and for MCP clients.
async fn other_callers_are_rejected(fixture: Fixture) {
    let (id, steps) = fixture.create_with_steps("T", &["A", "B"]).await;
    fixture.publish(&id).await;
    let client =
        Caller::Client { organization_id: fixture.org.clone(), server_id: ServerId::from_store("srv_1".into()) };
    for (cx, expected) in
        [(fixture.member_context(&fixture.other), Code::NotFound), (fixture.cx.with_caller(client), Code::Forbidden)]
    {
        for (name, code) in run_all_operations(&cx, &fixture, &id, &steps[0]).await {
            assert_eq!(code, Some(expected), "{name}");
        }
    }
    // An organisation cannot access another organisation's walkthrough.
    let cx = fixture.member_context(&fixture.other);
    let foreign = EditTarget { organization_id: &fixture.other, walkthrough_id: &id, revision: None };
    assert_eq!(get_draft(&cx, &fixture.ops, &fixture.other, &id).await.unwrap_err().code, Code::NotFound);
    assert_eq!(delete(&cx, &fixture.ops, foreign).await.unwrap_err().code, Code::NotFound);
    assert_eq!(delete_step(&cx, &fixture.ops, foreign, &steps[0]).await.unwrap_err().code, Code::NotFound);
    assert_eq!(publish::publish(&cx, &fixture.ops, foreign, false).await.unwrap_err().code, Code::NotFound);
    // A member can run all operations.
    for (name, code) in run_all_operations(&fixture.member_context(&fixture.org), &fixture, &id, &steps[0]).await {
        assert_eq!(code, None, "{name}");
    }
}

async fn run_all_operations(
    cx: &Ctx,
    fixture: &Fixture,
    id: &WalkthroughId,
    step: &StepId,
) -> Vec<(&'static str, Option<Code>)> {
    let (ops, org, target) = (&fixture.ops, &fixture.org, fixture.target(id));
    let code = |error: waypost_core::Error| error.code;
    let file = markdown::parse("f.md", "# F\n\n## A\n\nx\n").unwrap();
    let options = ImportOptions { title: Some("F".to_owned()), ..ImportOptions::default() };
    let new = NewStep { key: None, content: content("N"), position: StepPosition::First };
    let change = patch_of(content("C"));
    let patch = WalkthroughPatch { description: Some("d".to_owned()), ..WalkthroughPatch::default() };
    let created = NewWalkthrough { fields: fields("Created"), slug: None };
    vec![
        ("create", create(cx, ops, org, created).await.err().map(code)),
        ("get_draft", get_draft(cx, ops, org, id).await.err().map(code)),
        ("get_draft_by_slug", get_draft_by_slug(cx, ops, org, "t").await.err().map(code)),
        ("list", list(cx, ops, org, WalkthroughListQuery::default()).await.err().map(code)),
        ("update", update(cx, ops, target, patch).await.err().map(code)),
        ("add_step", add_step(cx, ops, target, new).await.err().map(code)),
        ("patch_step", patch_step(cx, ops, target, step, change).await.err().map(code)),
        ("move_step", move_step(cx, ops, target, step, &StepPosition::Last).await.err().map(code)),
        ("delete_step", delete_step(cx, ops, target, step).await.err().map(code)),
        ("lint", publish::lint(cx, ops, org, id).await.err().map(code)),
        ("list_versions", publish::list_versions(cx, ops, org, id).await.err().map(code)),
        ("publish", publish::publish(cx, ops, target, false).await.err().map(code)),
        ("withdraw", publish::withdraw(cx, ops, target, 1, "Wrong").await.err().map(code)),
        ("archive", publish::archive(cx, ops, target).await.err().map(code)),
        ("unarchive", publish::unarchive(cx, ops, target).await.err().map(code)),
        ("unpublish", publish::unpublish(cx, ops, target).await.err().map(code)),
        ("export", export::export(cx, ops, org, id).await.err().map(code)),
        ("import", import(cx, ops, org, file, options).await.err().map(code)),
        ("delete", delete(cx, ops, target).await.err().map(code)),
    ]
}

waypost_testkit::both!(extended set_up =>
    a_walkthrough_can_be_created_read_updated_and_deleted,
    titles_and_slugs_are_unique,
    exceeded_limits_are_reported,
    lists_are_paginated,
    other_callers_are_rejected,
);
