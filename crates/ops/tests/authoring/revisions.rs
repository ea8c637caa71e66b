//! Tests of a draft's history: it contains exactly the collapsed revisions of all users, and restoring a revision loses
//! nothing.

use std::collections::HashMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;
use waypost_content::transfer::markdown;
use waypost_core::caller::{Caller, Ctx};
use waypost_core::chain::StepPosition;
use waypost_core::id::{StepId, WalkthroughId};
use waypost_core::organization::Role;
use waypost_core::revision::{COLLAPSE_MS, MAX_REVISION_BYTES, MAX_REVISIONS, RETENTION_MS, StepRevisionOperation};
use waypost_core::step::StepContent;
use waypost_core::{Clock, Code, Timestamp};
use waypost_ops::walkthroughs::draft::{NewStep, add_step, delete_step, move_step, patch_step, restore_step};
use waypost_ops::walkthroughs::import::{ImportOptions, import};
use waypost_ops::walkthroughs::revisions::{self, delete_expired};
use waypost_ops::walkthroughs::versions::restore;
use waypost_store::on;

use crate::{Fixture, content, patch_of, set_up};

const MINUTE: i64 = 60_000;

fn member_context_of(fixture: &Fixture, n: usize) -> Ctx {
    let organization_id = fixture.org.clone();
    fixture.cx.with_caller(Caller::Member { organization_id, role: Role::Member, actor: format!("usr_{n}") })
}

#[derive(Debug, Clone)]
enum Operation {
    Edit(usize, u8),
    Restore(usize, usize),
    Delete(usize),
    RestoreDeleted(usize),
    Move(usize),
    Import(u8),
}

fn any_operations() -> impl Strategy<Value = Vec<(usize, i64, Operation)>> {
    let operation = prop_oneof![
        10 => (0_usize..3, 0_u8..5).prop_map(|(step, text)| Operation::Edit(step, text)),
        3 => (0_usize..3, 0_usize..9).prop_map(|(step, number)| Operation::Restore(step, number)),
        1 => (0_usize..3).prop_map(Operation::Delete),
        2 => (0_usize..3).prop_map(Operation::RestoreDeleted),
        1 => (0_usize..3).prop_map(Operation::Move),
        1 => (0_u8..5).prop_map(Operation::Import),
    ];
    let minutes = prop_oneof![5 => 0_i64..4, 2 => 4_i64..12, 1 => 25_i64..40];
    prop::collection::vec((0_usize..3, minutes, operation), 1..30)
}

/// A revision as the model expects it.
#[derive(Debug, Clone, PartialEq)]
struct ExpectedRevision {
    operation: StepRevisionOperation,
    actor: String,
    text: String,
    created_at: Timestamp,
    updated_at: Timestamp,
    restored_from: Option<u32>,
}

/// The expected state. For each step: its ID, whether it is in the draft, and its revisions. For each step and user:
/// the time of the last edit. Also the number of audit entries.
#[derive(Default)]
struct Model {
    steps: Vec<(StepId, bool, Vec<ExpectedRevision>)>,
    last_edits: HashMap<(usize, String), Timestamp>,
    audited: usize,
}

impl Model {
    fn push(&mut self, step: usize, operation: StepRevisionOperation, actor: &str, text: &str, now: Timestamp) {
        self.steps[step].2.push(ExpectedRevision {
            operation,
            actor: actor.to_owned(),
            text: text.to_owned(),
            created_at: now,
            updated_at: now,
            restored_from: None,
        });
    }

    fn text(&self, step: usize) -> String {
        self.steps[step].2.last().unwrap().text.clone()
    }

    fn edit_step(&mut self, step: usize, actor: &str, text: &str, now: Timestamp) {
        if self.text(step) == text {
            return;
        }
        let last_edit = self.last_edits.insert((step, actor.to_owned()), now);
        self.audited += usize::from(last_edit.is_none_or(|last| now.since(last) >= 30 * MINUTE));
        let last = self.steps[step].2.last_mut().unwrap();
        if last.operation == StepRevisionOperation::Edit
            && last.actor == actor
            && now.since(last.created_at) < COLLAPSE_MS
        {
            (last.text, last.updated_at) = (text.to_owned(), now);
        } else {
            self.push(step, StepRevisionOperation::Edit, actor, text, now);
        }
    }
}

fn text(title: usize, n: u8) -> StepContent {
    StepContent { content: format!("Text {n}"), ..content(&format!("S{title}")) }
}

async fn apply(fixture: &Fixture, id: &WalkthroughId, model: &mut Model, user: usize, operation: &Operation) {
    let (cx, actor, now) = (member_context_of(fixture, user), format!("usr_{user}"), fixture.clock.now());
    let (ops, target) = (&fixture.ops, fixture.target(id));
    match *operation {
        Operation::Edit(step, n) if model.steps[step].1 => {
            let change = patch_of(text(step, n));
            patch_step(&cx, ops, target, &model.steps[step].0, change).await.unwrap();
            model.edit_step(step, &actor, &text(step, n).content, now);
        }
        Operation::Restore(step, number) => {
            let count = model.steps[step].2.len();
            let expected_text = model.steps[step].2[number % count].text.clone();
            let number = u32::try_from(number % count + 1).unwrap();
            let is_in_draft = model.steps[step].1;
            let before = model.text(step);
            let restored = revisions::restore(&cx, ops, target, &model.steps[step].0, number).await.unwrap();
            assert_eq!(restored.step.content.content, expected_text, "exactly the content of the revision");
            if !is_in_draft || before != expected_text {
                model.push(step, StepRevisionOperation::Restore, &actor, &expected_text, now);
                model.steps[step].2.last_mut().unwrap().restored_from = Some(number);
            }
            model.steps[step].1 = true;
        }
        Operation::Delete(step) if model.steps[step].1 => {
            delete_step(&cx, ops, target, &model.steps[step].0).await.unwrap();
            let text = model.text(step);
            model.push(step, StepRevisionOperation::Delete, &actor, &text, now);
            model.steps[step].1 = false;
        }
        Operation::RestoreDeleted(step) if !model.steps[step].1 => {
            let new = NewStep { key: None, content: text(step, 9), position: StepPosition::Last };
            restore_step(&cx, ops, target, &model.steps[step].0, new).await.unwrap();
            model.push(step, StepRevisionOperation::Restore, &actor, "Text 9", now);
            model.steps[step].1 = true;
        }
        Operation::Move(step) if model.steps[step].1 => {
            move_step(&cx, ops, target, &model.steps[step].0, &StepPosition::First).await.unwrap();
        }
        Operation::Import(n) if model.steps[0].1 => {
            let title = fixture.get_draft(id).await.walkthrough.title;
            let file = markdown::parse("f.md", &format!("# {title}\n\n## S0\n\nText {n}\n")).unwrap();
            let options = ImportOptions { id: Some(id.clone()), replace: true, ..ImportOptions::default() };
            import(&cx, ops, &fixture.org, file, options).await.unwrap();
            for step in [1, 2].into_iter().filter(|step| model.steps[*step].1).collect::<Vec<_>>() {
                let text = model.text(step);
                model.push(step, StepRevisionOperation::Delete, &actor, &text, now);
                model.steps[step].1 = false;
            }
            if model.text(0) != format!("Text {n}") {
                model.push(0, StepRevisionOperation::Import, &actor, &format!("Text {n}"), now);
            }
        }
        _ => {}
    }
}

async fn assert_history_matches(fixture: &Fixture, operations: &[(usize, i64, Operation)]) {
    let title = format!("T {}", StepId::new(&*fixture.cx.random));
    let id = fixture.create(&title).await.id;
    let mut model = Model::default();
    for step in 0..3 {
        let new = NewStep { key: None, content: text(step, 0), position: StepPosition::Last };
        let added = add_step(&fixture.cx, &fixture.ops, fixture.target(&id), new).await.unwrap();
        model.steps.push((added.step.id, true, Vec::new()));
        model.push(step, StepRevisionOperation::Add, "operator", "Text 0", fixture.clock.now());
    }
    let count_updates = |actions: Vec<String>| actions.iter().filter(|action| *action == "step.update").count();
    let before = count_updates(fixture.list_audit_actions().await);
    for (user, minutes, operation) in operations {
        fixture.clock.advance(minutes * MINUTE);
        apply(fixture, &id, &mut model, *user, operation).await;
    }
    for (step, is_in_draft, expected) in &model.steps {
        let (cx, ops, org) = (&fixture.cx, &fixture.ops, &fixture.org);
        let page = revisions::list(cx, ops, org, &id, step, None, Some(200)).await.unwrap();
        let mut found = Vec::new();
        for listed in page.items.iter().rev() {
            let number = listed.info.number;
            let (_, revision) = revisions::get(cx, ops, org, &id, step, number).await.unwrap();
            assert_eq!(revision.info, listed.info);
            assert_eq!(number as usize, found.len() + 1, "numbered without gaps");
            found.push(ExpectedRevision {
                operation: listed.info.operation,
                actor: listed.info.actor.clone(),
                text: revision.content.content,
                created_at: listed.info.created_at,
                updated_at: listed.info.updated_at,
                restored_from: listed.info.restored_from,
            });
        }
        assert_eq!(&found, expected);
        let draft = fixture.get_draft(&id).await;
        let own = draft.steps.iter().find(|own| own.id == *step);
        assert_eq!(own.map(|own| own.content.content.clone()), is_in_draft.then(|| found.last().unwrap().text.clone()));
        assert_eq!(page.items.iter().filter(|listed| listed.info.is_current).count(), usize::from(*is_in_draft));
    }
    assert_eq!(
        count_updates(fixture.list_audit_actions().await) - before,
        model.audited,
        "one entry per editing session and step"
    );
}

async fn history_contains_the_collapsed_edits(fixture: Fixture) {
    let mut runner = TestRunner::new(Config { cases: 8, failure_persistence: None, ..Config::default() });
    let handle = tokio::runtime::Handle::current();
    let result = runner.run(&any_operations(), |operations| {
        tokio::task::block_in_place(|| handle.block_on(assert_history_matches(&fixture, &operations)));
        Ok(())
    });
    result.unwrap();
}

async fn edit_step(fixture: &Fixture, id: &WalkthroughId, step: &StepId, text: &str) {
    let change = patch_of(StepContent { content: text.to_owned(), ..content("A") });
    patch_step(&fixture.cx, &fixture.ops, fixture.target(id), step, change).await.unwrap();
}

async fn list_revision_numbers(fixture: &Fixture, id: &WalkthroughId, step: &StepId) -> Vec<u32> {
    let page = revisions::list(&fixture.cx, &fixture.ops, &fixture.org, id, step, None, Some(200)).await.unwrap();
    page.items.into_iter().map(|listed| listed.info.number).collect()
}

async fn revisions_are_kept_for_90_days(fixture: Fixture) {
    let (id, steps) = fixture.create_with_steps("T", &["A", "B"]).await;
    let (a, b) = (&steps[0], &steps[1]);
    for n in 0..3 {
        fixture.clock.advance(COLLAPSE_MS);
        edit_step(&fixture, &id, a, &format!("Text {n}")).await;
    }
    delete_step(&fixture.cx, &fixture.ops, fixture.target(&id), b).await.unwrap();
    // Revisions superseded more than 90 days ago are deleted. The revision that was current 90 days ago is kept.
    fixture.clock.advance(RETENTION_MS - COLLAPSE_MS);
    edit_step(&fixture, &id, a, "New").await;
    assert_eq!(list_revision_numbers(&fixture, &id, a).await, [5, 4, 3, 2, 1]);
    fixture.clock.advance(1);
    assert_eq!(delete_expired(fixture.ops.store(), &*fixture.clock).await.unwrap(), 2);
    assert_eq!(list_revision_numbers(&fixture, &id, a).await, [5, 4, 3]);
    assert_eq!(
        list_revision_numbers(&fixture, &id, b).await,
        [2, 1],
        "the history of a deleted step is kept for the same time"
    );
    fixture.clock.advance(RETENTION_MS + 1);
    while delete_expired(fixture.ops.store(), &*fixture.clock).await.unwrap() > 0 {}
    assert_eq!(list_revision_numbers(&fixture, &id, a).await, [5], "the current revision is kept");
    let deleted = revisions::list_deleted(&fixture.cx, &fixture.ops, &fixture.org, &id).await.unwrap();
    assert_eq!(deleted, []);
    fixture.clock.advance(COLLAPSE_MS);
    edit_step(&fixture, &id, a, "Newer").await;
    assert_eq!(list_revision_numbers(&fixture, &id, a).await, [6, 5]);
}

async fn a_history_has_a_limited_size(fixture: Fixture) {
    let (id, steps) = fixture.create_with_steps("T", &["A"]).await;
    let scope = waypost_store::step_revision::DraftScope { organization_id: &fixture.org, walkthrough_id: &id };
    let mut large = 0;
    while large * 65_000 < MAX_REVISION_BYTES + 3 * 65_000 {
        large += 1;
        fixture.clock.advance(COLLAPSE_MS);
        edit_step(&fixture, &id, &steps[0], &format!("{large} {}", "x".repeat(65_000))).await;
    }
    let kept = list_revision_numbers(&fixture, &id, &steps[0]).await;
    assert!(kept.len() as u64 * 65_000 <= MAX_REVISION_BYTES && kept.len() > 120, "{}", kept.len());
    assert_eq!(u64::from(kept[0]), large + 1, "the newest revisions are kept");
    let mut tx = fixture.ops.store().begin().await.unwrap();
    let deleted = waypost_store::step_revision::trim(&mut tx, scope, 3, u64::MAX >> 1, [&steps[0]]).await.unwrap();
    assert_eq!(deleted as usize, kept.len() - 3);
    let deleted = waypost_store::step_revision::trim(&mut tx, scope, MAX_REVISIONS, 1, [&steps[0]]).await.unwrap();
    assert_eq!(deleted, 2, "the newest revision is kept regardless of its size");
}

/// For a draft created before revisions were stored, the first change also stores the previous content as a revision.
async fn steps_without_history_keep_their_content(fixture: Fixture) {
    let (id, steps) = fixture.create_with_steps("T", &["A", "B"]).await;
    let mut tx = fixture.ops.store().begin().await.unwrap();
    on!(&mut tx, c => sqlx::query("DELETE FROM step_revisions").execute(c).await.unwrap().rows_affected());
    tx.commit().await.unwrap();
    assert_eq!(list_revision_numbers(&fixture, &id, &steps[0]).await, Vec::<u32>::new());
    edit_step(&fixture, &id, &steps[0], "New").await;
    delete_step(&fixture.cx, &fixture.ops, fixture.target(&id), &steps[1]).await.unwrap();
    for (step, operation) in [(&steps[0], StepRevisionOperation::Edit), (&steps[1], StepRevisionOperation::Delete)] {
        let page = revisions::list(&fixture.cx, &fixture.ops, &fixture.org, &id, step, None, None).await.unwrap();
        let operations: Vec<_> = page.items.iter().map(|listed| listed.info.operation).collect();
        assert_eq!(operations, [operation, StepRevisionOperation::Baseline]);
        assert_eq!(page.items[1].info.actor, "");
    }
    let restored = revisions::restore(&fixture.cx, &fixture.ops, fixture.target(&id), &steps[0], 1).await.unwrap();
    assert_eq!(restored.step.content, content("A"));
}

async fn restored_steps_return_to_their_position(fixture: Fixture) {
    let (id, steps) = fixture.create_with_steps("T", &["A", "B", "C", "D"]).await;
    let target = fixture.target(&id);
    for step in [&steps[2], &steps[1], &steps[0]] {
        delete_step(&fixture.cx, &fixture.ops, target, step).await.unwrap();
        fixture.clock.advance(1);
    }
    let deleted = revisions::list_deleted(&fixture.cx, &fixture.ops, &fixture.org, &id).await.unwrap();
    let titles: Vec<_> = deleted.iter().map(|step| step.revision.info.title.as_str()).collect();
    assert_eq!(titles, ["A", "B", "C"], "the most recently deleted step is first");
    for step in &deleted {
        revisions::restore(&fixture.cx, &fixture.ops, target, &step.id, step.revision.info.number).await.unwrap();
    }
    assert_eq!(fixture.list_titles(&id).await, ["A", "B", "C", "D"]);
    assert_eq!(fixture.get_draft(&id).await.steps.iter().map(|step| step.ordinal).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!(revisions::list_deleted(&fixture.cx, &fixture.ops, &fixture.org, &id).await.unwrap(), []);
    // If the preceding step no longer exists, the step is added at the end.
    delete_step(&fixture.cx, &fixture.ops, target, &steps[1]).await.unwrap();
    delete_step(&fixture.cx, &fixture.ops, target, &steps[0]).await.unwrap();
    revisions::restore(&fixture.cx, &fixture.ops, target, &steps[1], 1).await.unwrap();
    assert_eq!(fixture.list_titles(&id).await, ["C", "D", "B"]);
}

async fn restores_are_rejected_like_any_edit(fixture: Fixture) {
    let (id, steps) = fixture.create_with_steps("T", &["A"]).await;
    let restore_error = |cx: Ctx, revision, number| {
        let (ops, target) =
            (fixture.ops.clone(), waypost_ops::walkthroughs::EditTarget { revision, ..fixture.target(&id) });
        let step = steps[0].clone();
        async move { revisions::restore(&cx, &ops, target, &step, number).await.unwrap_err() }
    };
    assert_eq!(restore_error(fixture.cx.clone(), Some(1), 1).await.code, Code::PreconditionFailed);
    let unknown = restore_error(fixture.cx.clone(), None, 7).await;
    assert_eq!((unknown.code, &unknown.details["number"]), (Code::NotFound, &json!(7)));
    assert_eq!(restore_error(fixture.member_context(&fixture.other), None, 1).await.code, Code::NotFound);
    let outsider = fixture.member_context(&fixture.other);
    assert_eq!(
        revisions::list(&outsider, &fixture.ops, &fixture.org, &id, &steps[0], None, None).await.unwrap_err().code,
        Code::NotFound
    );
    let error = revisions::get(&fixture.cx, &fixture.ops, &fixture.other, &id, &steps[0], 1).await.unwrap_err();
    assert_eq!(error.code, Code::NotFound);
    let unknown_step = StepId::new(&*fixture.cx.random);
    let error =
        revisions::list(&fixture.cx, &fixture.ops, &fixture.org, &id, &unknown_step, None, None).await.unwrap_err();
    assert_eq!(error.code, Code::StepNotFound);
}

async fn restoring_a_version_loses_no_edits(fixture: Fixture) {
    let (id, steps) = fixture.create_with_steps("T", &["A"]).await;
    fixture.publish(&id).await;
    edit_step(&fixture, &id, &steps[0], "Unpublished").await;
    restore(&fixture.cx, &fixture.ops, fixture.target(&id), 1).await.unwrap();
    assert_eq!(fixture.get_draft(&id).await.steps[0].content, content("A"));
    let restored = revisions::restore(&fixture.cx, &fixture.ops, fixture.target(&id), &steps[0], 2).await.unwrap();
    assert_eq!(restored.step.content.content, "Unpublished");
}

async fn the_history_is_paginated(fixture: Fixture) {
    let (id, steps) = fixture.create_with_steps("T", &["A"]).await;
    for n in 0..4 {
        fixture.clock.advance(COLLAPSE_MS);
        edit_step(&fixture, &id, &steps[0], &format!("Text {n}")).await;
    }
    let page = |before, limit| {
        let (cx, ops, org, id, step) = (&fixture.cx, &fixture.ops, &fixture.org, &id, &steps[0]);
        async move { revisions::list(cx, ops, org, id, step, before, Some(limit)).await }
    };
    let first = page(None, 2).await.unwrap();
    assert_eq!((first.items[0].info.number, first.items[1].info.number, first.next_before), (5, 4, Some(4)));
    let last = page(first.next_before, 3).await.unwrap();
    assert_eq!((last.items.len(), last.items[2].info.number, last.next_before), (3, 1, None));
    assert_eq!(page(None, 0).await.unwrap_err().code, Code::InvalidArguments);
    assert_eq!(page(None, 201).await.unwrap_err().code, Code::InvalidArguments);
}

waypost_testkit::both!(extended set_up =>
    history_contains_the_collapsed_edits,
    revisions_are_kept_for_90_days,
    a_history_has_a_limited_size,
    steps_without_history_keep_their_content,
    restored_steps_return_to_their_position,
    restores_are_rejected_like_any_edit,
    restoring_a_version_loses_no_edits,
    the_history_is_paginated,
);
