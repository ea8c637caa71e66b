//! Tests of versions: publishing, numbers, withdrawal.

use serde_json::json;
use waypost_content::clean;
use waypost_core::Code;
use waypost_core::chain::StepPosition;
use waypost_core::id::WalkthroughId;
use waypost_core::step::StepContent;
use waypost_core::version::Version;
use waypost_core::walkthrough::{WalkthroughState, WalkthroughType};
use waypost_ops::walkthroughs::draft::{NewStep, StepPatch, add_step, delete_step, move_step, patch_step};
use waypost_ops::walkthroughs::publish::{archive, lint, list_versions, publish, unarchive, unpublish, withdraw};
use waypost_ops::walkthroughs::{WalkthroughPatch, update};
use waypost_store::version;

use crate::{Fixture, content, patch_of, set_up};

async fn load_current_version(fixture: &Fixture, id: &WalkthroughId) -> Option<Version> {
    let version_id = fixture.get_draft(id).await.walkthrough.current_version_id?;
    let mut conn = fixture.ops.store().read().await.unwrap();
    version::find_with_steps(&mut conn, &fixture.org, &version_id).await.unwrap().map(clean::version)
}

/// Formats a version as text for comparison.
pub(crate) fn format_version(version: &Version) -> String {
    format!("{} {} {:?}", version.number, version.title, version.steps())
}

async fn a_version_never_changes(fixture: Fixture) {
    let (id, steps) = fixture.create_with_steps("T", &["A", "B", "C"]).await;
    let before = fixture.config_version().await;
    let first = publish(&fixture.cx, &fixture.ops, fixture.target_at(&id, 4), false).await.unwrap();
    assert_eq!((first.number, first.created), (1, true));
    assert!(fixture.config_version().await > before);
    let head = fixture.get_draft(&id).await.walkthrough;
    assert_eq!((head.state, head.revision), (WalkthroughState::Published, 4), "publishing is not an edit");
    let frozen = format_version(&load_current_version(&fixture, &id).await.unwrap());
    assert!(frozen.starts_with("1 T ") && frozen.contains("Do A."), "{frozen}");

    // Publishing an unchanged draft creates no version and writes nothing.
    let (before, audited) = (fixture.config_version().await, fixture.list_audit_actions().await.len());
    let again = publish(&fixture.cx, &fixture.ops, fixture.target(&id), false).await.unwrap();
    assert_eq!((again.number, again.created, again.version_id), (1, false, first.version_id.clone()));
    assert_eq!((fixture.config_version().await, fixture.list_audit_actions().await.len()), (before, audited));

    move_step(&fixture.cx, &fixture.ops, fixture.target(&id), &steps[2], &StepPosition::First).await.unwrap();
    let change = patch_of(content("Changed"));
    patch_step(&fixture.cx, &fixture.ops, fixture.target(&id), &steps[0], change).await.unwrap();
    delete_step(&fixture.cx, &fixture.ops, fixture.target(&id), &steps[1]).await.unwrap();
    let title = WalkthroughPatch { title: Some("New title".to_owned()), ..WalkthroughPatch::default() };
    update(&fixture.cx, &fixture.ops, fixture.target(&id), title).await.unwrap();
    assert_eq!(
        format_version(&load_current_version(&fixture, &id).await.unwrap()),
        frozen,
        "edits do not change a version"
    );

    assert_eq!(fixture.publish(&id).await, 2);
    let second = load_current_version(&fixture, &id).await.unwrap();
    let titles: Vec<_> = second.steps().iter().map(|step| step.content.title.as_str()).collect();
    assert_eq!((second.title.as_str(), titles), ("New title", vec!["C", "Changed"]));
    assert_eq!((second.steps()[0].ordinal, &second.steps()[0].id), (2, &steps[2]));
    let mut conn = fixture.ops.store().read().await.unwrap();
    let loaded = version::find_with_steps(&mut conn, &fixture.org, &first.version_id).await.unwrap().unwrap();
    assert_eq!(format_version(&clean::version(loaded)), frozen, "a new version does not change an earlier one");
}

async fn each_change_to_a_draft_creates_a_new_version(fixture: Fixture) {
    let (id, steps) = fixture.create_with_steps("T", &["A"]).await;
    assert_eq!(fixture.publish(&id).await, 1);
    let mut expected = 1;
    let head = WalkthroughPatch::default;
    for change in [
        WalkthroughPatch { title: Some("U".to_owned()), ..head() },
        WalkthroughPatch { description: Some("d".to_owned()), ..head() },
        WalkthroughPatch { kind: Some(WalkthroughType::Quickstart), ..head() },
        WalkthroughPatch { estimated_duration_minutes: Some(Some(1)), ..head() },
        WalkthroughPatch { tags: Some(vec!["t".to_owned()]), ..head() },
        WalkthroughPatch { metadata: Some(json!({ "m": 1 }).as_object().unwrap().clone()), ..head() },
    ] {
        update(&fixture.cx, &fixture.ops, fixture.target(&id), change).await.unwrap();
        expected += 1;
        assert_eq!(fixture.publish(&id).await, expected);
    }
    let mut now = content("A");
    for n in 0..6 {
        let text = Some("x".to_owned());
        match n {
            0 => now.title = "B".to_owned(),
            1 => now.section_title = text,
            2 => now.content = "x".to_owned(),
            3 => now.introduction_for_agent = text,
            4 => now.context_for_agent = text,
            _ => now.operations_for_agent = text,
        }
        let change = patch_of(now.clone());
        patch_step(&fixture.cx, &fixture.ops, fixture.target(&id), &steps[0], change).await.unwrap();
        expected += 1;
        assert_eq!(fixture.publish(&id).await, expected, "{n}");
    }
    // Keys and slugs are not part of a version.
    let change = StepPatch { key: Some(Some("k".to_owned())), ..StepPatch::default() };
    patch_step(&fixture.cx, &fixture.ops, fixture.target(&id), &steps[0], change).await.unwrap();
    let slug = WalkthroughPatch { slug: Some("other".to_owned()), ..WalkthroughPatch::default() };
    update(&fixture.cx, &fixture.ops, fixture.target(&id), slug).await.unwrap();
    assert_eq!(fixture.publish(&id).await, expected);
    let numbers: Vec<_> = list_versions(&fixture.cx, &fixture.ops, &fixture.org, &id).await.unwrap();
    assert_eq!(
        numbers.iter().map(|version| version.number).collect::<Vec<_>>(),
        (1..=expected).rev().collect::<Vec<_>>()
    );
}

async fn publishing_requires_the_fields_of_the_type(fixture: Fixture) {
    let id = fixture.create("T").await.id;
    let publish_error = || async { publish(&fixture.cx, &fixture.ops, fixture.target(&id), false).await.unwrap_err() };
    assert_eq!(publish_error().await.code, Code::WalkthroughEmpty);
    let bare = StepContent { title: "Bare".to_owned(), ..StepContent::default() };
    let new = NewStep { key: None, content: bare, position: StepPosition::Last };
    let step = add_step(&fixture.cx, &fixture.ops, fixture.target(&id), new).await.unwrap().step.id;
    let error = publish_error().await;
    assert_eq!((error.code, &error.details["field"]), (Code::InvalidArguments, &json!("content")));
    assert!(error.message.contains("step 1 \"Bare\"") && error.message.contains("`content`"), "{}", error.message);

    let mut now = content("Bare");
    for (kind, missing) in [
        (WalkthroughType::Installer, Some("operations_for_agent")),
        (WalkthroughType::Troubleshooting, Some("context_for_agent")),
        (WalkthroughType::Integration, Some("context_for_agent")),
        (WalkthroughType::Course, None),
    ] {
        let change = patch_of(now.clone());
        patch_step(&fixture.cx, &fixture.ops, fixture.target(&id), &step, change).await.unwrap();
        let change = WalkthroughPatch { kind: Some(kind), ..WalkthroughPatch::default() };
        update(&fixture.cx, &fixture.ops, fixture.target(&id), change).await.unwrap();
        match missing {
            Some(field) => assert_eq!(publish_error().await.details["field"], json!(field), "{kind}"),
            None => assert_eq!(fixture.publish(&id).await, 1),
        }
    }
    now.content = "Run `rm \u{202e}x`".to_owned();
    let change = patch_of(now);
    patch_step(&fixture.cx, &fixture.ops, fixture.target(&id), &step, change).await.unwrap();
    let error = publish_error().await;
    assert_eq!((error.code, &error.details["step_id"]), (Code::ConfirmationRequired, &json!(step)));
    let findings = lint(&fixture.cx, &fixture.ops, &fixture.org, &id).await.unwrap();
    assert!(findings.iter().any(|finding| finding.message.contains("U+202E")), "{findings:?}");
    let published = publish(&fixture.cx, &fixture.ops, fixture.target(&id), true).await.unwrap();
    assert_eq!(published.number, 2);
}

async fn withdrawing_restores_the_newest_remaining_version(fixture: Fixture) {
    let (id, _) = fixture.create_with_steps("T", &["A"]).await;
    for (step, number) in [("B", 1), ("C", 2), ("D", 3)] {
        fixture.add_step(&id, step).await;
        assert_eq!(fixture.publish(&id).await, number);
    }
    let withdraw_version = |number: u32| {
        let fixture = &fixture;
        let id = &id;
        async move { withdraw(&fixture.cx, &fixture.ops, fixture.target(id), number, " It was\u{200b} wrong. ").await }
    };
    for reason in ["", " \u{200b} ", &"x".repeat(501)] {
        let error = withdraw(&fixture.cx, &fixture.ops, fixture.target(&id), 1, reason).await.unwrap_err();
        assert_eq!(error.details["field"], json!("reason"));
    }
    assert_eq!(withdraw_version(9).await.unwrap_err().code, Code::NotFound);
    let before = fixture.config_version().await;
    withdraw_version(2).await.unwrap();
    assert!(fixture.config_version().await > before);
    assert_eq!(load_current_version(&fixture, &id).await.unwrap().number, 3);
    assert_eq!(withdraw_version(2).await.unwrap_err().code, Code::Conflict);
    let head = withdraw_version(3).await.unwrap();
    assert_eq!(
        (load_current_version(&fixture, &id).await.unwrap().number, head.state),
        (1, WalkthroughState::Published)
    );
    let listed = list_versions(&fixture.cx, &fixture.ops, &fixture.org, &id).await.unwrap();
    let reasons: Vec<_> = listed.iter().map(|v| v.withdrawal.as_ref().map(|w| w.reason.as_str())).collect();
    assert_eq!(reasons, [Some("It was wrong."), Some("It was wrong."), None]);
    let head = withdraw_version(1).await.unwrap();
    assert_eq!((head.state, head.current_version_id), (WalkthroughState::Draft, None));
    // A withdrawn version is never served again, and its number is not used again.
    assert_eq!(fixture.publish(&id).await, 4);
    assert_eq!(fixture.get_draft(&id).await.walkthrough.state, WalkthroughState::Published);
}

async fn state_transitions_are_enforced(fixture: Fixture) {
    use WalkthroughState::{Archived, Draft, Published};
    let (id, _) = fixture.create_with_steps("T", &["A"]).await;
    let (cx, ops, at) = (&fixture.cx, &fixture.ops, fixture.target(&id));
    assert_eq!(unpublish(cx, ops, at).await.unwrap().state, Draft);
    fixture.publish(&id).await;
    assert_eq!(unpublish(cx, ops, at).await.unwrap().state, Draft);
    assert_eq!(fixture.publish(&id).await, 1, "publishing again after unpublishing restores the version");
    let before = fixture.config_version().await;
    assert_eq!(archive(cx, ops, at).await.unwrap().state, Archived);
    assert!(fixture.config_version().await > before);
    assert_eq!(archive(cx, ops, at).await.unwrap().state, Archived);
    assert_eq!(unpublish(cx, ops, at).await.unwrap_err().code, Code::Conflict);
    assert_eq!(publish(cx, ops, at, false).await.unwrap_err().code, Code::Conflict);
    assert_eq!(unarchive(cx, ops, at).await.unwrap().state, Draft);
    assert_eq!(fixture.publish(&id).await, 1);
    assert_eq!(unarchive(cx, ops, at).await.unwrap().state, Published);
}

waypost_testkit::both!(extended set_up =>
    a_version_never_changes,
    each_change_to_a_draft_creates_a_new_version,
    publishing_requires_the_fields_of_the_type,
    withdrawing_restores_the_newest_remaining_version,
    state_transitions_are_enforced,
);
