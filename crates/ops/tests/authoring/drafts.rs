//! Tests of the steps of drafts: edits, limits, revisions, and a comparison with a plain list.

use std::collections::HashSet;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;
use waypost_content::transfer::markdown;
use waypost_core::Code;
use waypost_core::chain::StepPosition;
use waypost_core::id::StepId;
use waypost_core::step::StepContent;
use waypost_ops::walkthroughs::draft::{NewStep, StepPatch, add_step, delete_step, move_step, patch_step};
use waypost_ops::walkthroughs::import::{ImportOptions, import};

use crate::{Fixture, content, patch_of, set_up};

async fn steps_can_be_added_updated_moved_and_deleted(fixture: Fixture) {
    let (id, steps) = fixture.create_with_steps("T", &["A", "B", "C"]).await;
    assert_eq!(fixture.list_titles(&id).await, ["A", "B", "C"]);
    assert_eq!(fixture.get_draft(&id).await.walkthrough.revision, 4);

    let position = StepPosition::After(steps[0].clone());
    let new = NewStep { key: Some("x".to_owned()), content: content("X"), position };
    let added = add_step(&fixture.cx, &fixture.ops, fixture.target_at(&id, 4), new.clone()).await.unwrap();
    assert_eq!((added.revision, added.step.ordinal, added.step.next_step_id.as_ref()), (5, 3, Some(&steps[1])));
    assert_eq!(fixture.list_titles(&id).await, ["A", "X", "B", "C"]);
    let taken = add_step(&fixture.cx, &fixture.ops, fixture.target(&id), new).await.unwrap_err();
    assert_eq!((taken.code, &taken.details["field"]), (Code::Conflict, &json!("key")));

    let moved =
        move_step(&fixture.cx, &fixture.ops, fixture.target_at(&id, 5), &steps[2], &StepPosition::First).await.unwrap();
    assert_eq!((moved.revision, moved.step.next_step_id.as_ref()), (6, Some(&steps[0])));
    assert_eq!(fixture.list_titles(&id).await, ["C", "A", "X", "B"]);
    let unmoved =
        move_step(&fixture.cx, &fixture.ops, fixture.target_at(&id, 6), &steps[2], &StepPosition::First).await.unwrap();
    assert_eq!(unmoved.revision, 6, "moving a step to its current position changes nothing");

    let unclean = StepContent { content: "Hi <script>x</script>there\r\n".to_owned(), ..content(" Y\u{202e} ") };
    let change = StepPatch { key: Some(None), ..patch_of(unclean) };
    let changed =
        patch_step(&fixture.cx, &fixture.ops, fixture.target_at(&id, 6), &added.step.id, change.clone()).await.unwrap();
    assert_eq!((changed.revision, changed.step.key.as_ref()), (7, None));
    let stored = (changed.step.content.title.as_str(), changed.step.content.content.as_str());
    assert_eq!(stored, ("Y\u{202e}", "Hi <script>x</script>there\n"), "stored unchanged, except for whitespace");
    let again = patch_step(&fixture.cx, &fixture.ops, fixture.target_at(&id, 7), &added.step.id, change).await.unwrap();
    assert_eq!(again.revision, 7, "the same content changes nothing");

    let deletion = delete_step(&fixture.cx, &fixture.ops, fixture.target_at(&id, 7), &steps[2]).await.unwrap();
    assert_eq!((deletion.deleted.revision, deletion.deleted.position, deletion.after), (8, 1, None));
    assert_eq!(fixture.list_titles(&id).await, ["A", "Y\u{202e}", "B"]);
    let missing = delete_step(&fixture.cx, &fixture.ops, fixture.target(&id), &steps[2]).await.unwrap_err();
    assert_eq!((missing.code, &missing.details["step_id"]), (Code::StepNotFound, &json!(steps[2])));
    assert_eq!(fixture.add_step(&id, "D").await.step.ordinal, 4, "an ordinal is used once");
    assert_eq!(fixture.list_audit_actions().await.iter().filter(|action| action.starts_with("step.")).count(), 8);
}

async fn outdated_revisions_are_rejected(fixture: Fixture) {
    let (id, steps) = fixture.create_with_steps("T", &["A"]).await;
    let (cx, ops, old) = (&fixture.cx, &fixture.ops, fixture.target_at(&id, 1));
    let new = NewStep { key: None, content: content("B"), position: StepPosition::Last };
    let change = patch_of(content("C"));
    let errors = [
        add_step(cx, ops, old, new).await.unwrap_err(),
        patch_step(cx, ops, old, &steps[0], change).await.unwrap_err(),
        move_step(cx, ops, old, &steps[0], &StepPosition::First).await.unwrap_err(),
        delete_step(cx, ops, old, &steps[0]).await.unwrap_err(),
    ];
    assert!(errors.iter().all(|error| error.code == Code::PreconditionFailed && error.details["revision"] == json!(2)));
    assert_eq!(fixture.list_titles(&id).await, ["A"]);
}

/// Of several edits of the same revision, one succeeds and the others are rejected.
async fn one_of_several_concurrent_edits_succeeds(fixture: Fixture) {
    let (id, steps) = fixture.create_with_steps("T", &["A"]).await;
    let mut tasks = Vec::new();
    for n in 0..6 {
        let (cx, ops, org, id, step) =
            (fixture.cx.clone(), fixture.ops.clone(), fixture.org.clone(), id.clone(), steps[0].clone());
        tasks.push(tokio::spawn(async move {
            let target =
                waypost_ops::walkthroughs::EditTarget { organization_id: &org, walkthrough_id: &id, revision: Some(2) };
            let change = patch_of(content(&format!("by {n}")));
            patch_step(&cx, &ops, target, &step, change).await
        }));
    }
    let mut accepted = Vec::new();
    for task in tasks {
        match task.await.unwrap() {
            Ok(edited) => accepted.push(edited.step.content.title),
            Err(error) => assert_eq!(error.code, Code::PreconditionFailed, "{error:?}"),
        }
    }
    assert_eq!(accepted.len(), 1);
    assert_eq!(fixture.list_titles(&id).await, accepted);
    assert_eq!(fixture.get_draft(&id).await.walkthrough.revision, 3);
}

async fn exceeded_limits_are_reported(fixture: Fixture) {
    let id = fixture.create("T").await.id;
    let long = |n: usize| Some("x".repeat(n));
    let cases = [
        ("title", content("\u{200b}")),
        ("title", content(&"x".repeat(201))),
        ("section_title", StepContent { section_title: long(201), ..content("A") }),
        ("content", StepContent { content: "x".repeat(65_537), ..content("A") }),
        ("introduction_for_agent", StepContent { introduction_for_agent: long(65_537), ..content("A") }),
        ("context_for_agent", StepContent { context_for_agent: long(65_537), ..content("A") }),
        ("operations_for_agent", StepContent { operations_for_agent: long(65_537), ..content("A") }),
    ];
    for (field, content) in cases {
        let new = NewStep { key: None, content, position: StepPosition::Last };
        let error = add_step(&fixture.cx, &fixture.ops, fixture.target(&id), new).await.unwrap_err();
        assert_eq!((error.code, &error.details["field"]), (Code::InvalidArguments, &json!(field)));
    }
    let new = NewStep { key: Some(" x".to_owned()), content: content("A"), position: StepPosition::Last };
    let error = add_step(&fixture.cx, &fixture.ops, fixture.target(&id), new).await.unwrap_err();
    assert_eq!(error.details["field"], json!("key"));

    let text = (0..500).fold("# Full\n".to_owned(), |text, n| format!("{text}\n## Step {n}\n\nDo it.\n"));
    let file = markdown::parse("full.md", &text).unwrap();
    let full =
        import(&fixture.cx, &fixture.ops, &fixture.org, file, ImportOptions::default()).await.unwrap().id.unwrap();
    let new = NewStep { key: None, content: content("One more"), position: StepPosition::Last };
    let error = add_step(&fixture.cx, &fixture.ops, fixture.target(&full), new).await.unwrap_err();
    assert_eq!(error.code, Code::Conflict);
    assert!(error.message.contains("500"), "{}", error.message);
    assert_eq!(fixture.get_draft(&full).await.steps.len(), 500);
}

#[derive(Debug, Clone)]
enum Edit {
    Add(usize),
    Move(usize, usize),
    Change(usize),
    Delete(usize),
}

fn any_edits() -> impl Strategy<Value = Vec<Edit>> {
    let edit = prop_oneof![
        4 => (0_usize..20).prop_map(Edit::Add),
        3 => (0_usize..20, 0_usize..20).prop_map(|(step, to)| Edit::Move(step, to)),
        1 => (0_usize..20).prop_map(Edit::Change),
        2 => (0_usize..20).prop_map(Edit::Delete),
    ];
    prop::collection::vec(edit, 1..25)
}

/// Random edits change the stored chain in the same way as a list, and no ordinal is used twice.
async fn random_edits_match_a_list(fixture: Fixture) {
    let mut runner = TestRunner::new(Config { cases: 5, failure_persistence: None, ..Config::default() });
    let handle = tokio::runtime::Handle::current();
    let result = runner.run(&any_edits(), |edits| {
        tokio::task::block_in_place(|| handle.block_on(assert_matches_list(&fixture, &edits)));
        Ok(())
    });
    result.unwrap();
}

async fn assert_matches_list(fixture: &Fixture, edits: &[Edit]) {
    let id = fixture.create(&format!("T {}", waypost_core::id::StepId::new(&*fixture.cx.random))).await.id;
    let mut list: Vec<(StepId, String)> = Vec::new();
    let mut ordinals = HashSet::new();
    let mut revision = 1;
    for (n, edit) in edits.iter().enumerate() {
        let target = fixture.target_at(&id, revision);
        let position = |index: usize| match index {
            0..3 => StepPosition::First,
            3..6 => StepPosition::Last,
            _ if list.is_empty() => StepPosition::Last,
            _ => StepPosition::After(list[index % list.len()].0.clone()),
        };
        match *edit {
            Edit::Add(index) => {
                let (title, position) = (format!("Step {n}"), position(index));
                let new = NewStep { key: None, content: content(&title), position: position.clone() };
                let added = add_step(&fixture.cx, &fixture.ops, target, new).await.unwrap();
                assert!(ordinals.insert(added.step.ordinal), "an ordinal is used once");
                insert_step(&mut list, (added.step.id, title), &position);
                revision = added.revision;
            }
            _ if list.is_empty() => continue,
            Edit::Move(step, index) => {
                let (step, position) = (step % list.len(), position(index));
                if position == StepPosition::After(list[step].0.clone()) {
                    continue;
                }
                let moved = move_step(&fixture.cx, &fixture.ops, target, &list[step].0, &position).await.unwrap();
                let step = list.remove(step);
                insert_step(&mut list, step, &position);
                revision = moved.revision;
            }
            Edit::Change(step) => {
                let (step, title) = (step % list.len(), format!("Changed {n}"));
                let change = patch_of(content(&title));
                let changed = patch_step(&fixture.cx, &fixture.ops, target, &list[step].0, change).await.unwrap();
                list[step].1 = title;
                revision = changed.revision;
            }
            Edit::Delete(step) => {
                let step = list.remove(step % list.len());
                revision = delete_step(&fixture.cx, &fixture.ops, target, &step.0).await.unwrap().deleted.revision;
            }
        }
        let draft = fixture.get_draft(&id).await;
        let stored: Vec<_> = draft.steps.into_iter().map(|step| (step.id, step.content.title)).collect();
        assert_eq!(stored, list);
        assert_eq!(draft.walkthrough.revision, revision);
    }
}

fn insert_step(list: &mut Vec<(StepId, String)>, step: (StepId, String), position: &StepPosition) {
    let at = match position {
        StepPosition::First => 0,
        StepPosition::Last => list.len(),
        StepPosition::After(id) => list.iter().position(|(other, _)| other == id).unwrap() + 1,
    };
    list.insert(at, step);
}

waypost_testkit::both!(set_up => one_of_several_concurrent_edits_succeeds);
waypost_testkit::both!(extended set_up =>
    steps_can_be_added_updated_moved_and_deleted,
    outdated_revisions_are_rejected,
    exceeded_limits_are_reported,
    random_edits_match_a_list,
);
