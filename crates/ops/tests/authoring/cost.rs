//! Tests that the cost of edits does not depend on the other steps: every edit sends as many statements in a draft of
//! 500 steps as in one of four, and succeeds although the rows of the other steps cannot be read.

use waypost_content::transfer::markdown;
use waypost_core::Code;
use waypost_core::chain::StepPosition;
use waypost_core::id::{StepId, WalkthroughId};
use waypost_core::step::StepContent;
use waypost_ops::walkthroughs::draft::{
    NewStep, StepEdit, StepPatch, add_step, delete_step, get_step, move_step, patch_step,
};
use waypost_ops::walkthroughs::import::{ImportOptions, import};
use waypost_ops::walkthroughs::preview::{self, PreviewPoint};
use waypost_ops::walkthroughs::{self, get_draft};
use waypost_store::db::{Dialect, count_statements};
use waypost_store::on;

use crate::{Fixture, content, set_up};

/// Creates a walkthrough with `count` steps and makes every step but those at `readable` unreadable: their metadata is
/// not JSON, so reading the content of one of them fails.
async fn create_unreadable(fixture: &Fixture, count: usize, readable: &[usize]) -> (WalkthroughId, Vec<StepId>) {
    let title = format!("{count} steps");
    let text = (0..count).fold(format!("# {title}\n"), |text, n| format!("{text}\n## Step {n}\n\nDo it.\n"));
    let file = markdown::parse("long.md", &text).unwrap();
    let report = import(&fixture.cx, &fixture.ops, &fixture.org, file, ImportOptions::default()).await.unwrap();
    let id = report.id.unwrap();
    let steps: Vec<_> = fixture.get_draft(&id).await.steps.into_iter().map(|step| step.id).collect();
    let kept: Vec<_> = readable.iter().map(|&at| steps[at].as_str()).collect();
    let sql = "UPDATE steps SET metadata = '{' WHERE walkthrough_id = $1 AND id NOT IN ($2, $3)";
    let mut tx = fixture.ops.store().begin().await.unwrap();
    let broken = on!(&mut tx, c => sqlx::query(sql)
        .bind(id.as_str()).bind(kept[0]).bind(kept[1]).execute(c).await.unwrap().rows_affected());
    tx.commit().await.unwrap();
    assert_eq!(broken, count as u64 - 2);
    assert!(get_draft(&fixture.cx, &fixture.ops, &fixture.org, &id).await.is_err(), "reading every step fails");
    (id, steps)
}

/// Performs every kind of edit in a draft of `count` steps. Returns the number of statements of each, by name.
async fn count_per_edit(fixture: &Fixture, count: usize) -> Vec<(&'static str, usize)> {
    let (cx, ops) = (&fixture.cx, &fixture.ops);
    let middle = count / 2;
    let (id, steps) = create_unreadable(fixture, count, &[middle, count - 1]).await;
    let (step, last) = (&steps[middle], &steps[count - 1]);
    let new = |position| NewStep { key: Some("new".to_owned()), content: content("New"), position };
    let patch = || StepPatch { content: Some("Typed.".to_owned()), ..StepPatch::default() };
    let check = |edit: StepEdit, position: usize| assert_eq!(edit.position, position);
    let mut costs = Vec::new();

    // The first edit of a step also creates its history, so the second edit is counted.
    patch_step(cx, ops, fixture.target(&id), step, patch()).await.unwrap();
    let typed = StepPatch { content: Some("Typed on.".to_owned()), ..StepPatch::default() };
    let (edit, cost) = count_statements(patch_step(cx, ops, fixture.target(&id), step, typed)).await;
    check(edit.unwrap(), middle + 1);
    costs.push(("change a field", cost));
    let keyed = StepPatch { key: Some(Some("own".to_owned())), ..StepPatch::default() };
    let (edit, cost) = count_statements(patch_step(cx, ops, fixture.target(&id), step, keyed)).await;
    check(edit.unwrap(), middle + 1);
    costs.push(("change the key", cost));
    let (edit, cost) = count_statements(get_step(cx, ops, &fixture.org, &id, step)).await;
    check(edit.unwrap(), middle + 1);
    costs.push(("read", cost));
    let (edit, cost) = count_statements(move_step(cx, ops, fixture.target(&id), step, &StepPosition::First)).await;
    check(edit.unwrap(), 1);
    costs.push(("move", cost));
    let typed = content("Typed");
    let point = PreviewPoint::Step(last.clone(), Some(Box::new(typed.clone())));
    let (shown, cost) = count_statements(preview::render(cx, ops, &fixture.org, &id, point)).await;
    let shown = shown.unwrap();
    assert_eq!((shown.step.unwrap().content, shown.total), (typed, count));
    costs.push(("preview", cost));
    // Must come before the insertions, because a walkthrough can have at most 500 steps.
    let (deletion, cost) = count_statements(delete_step(cx, ops, fixture.target(&id), last)).await;
    check(deletion.unwrap().deleted, count);
    costs.push(("delete", cost));
    let position = StepPosition::After(steps[0].clone());
    let (edit, cost) = count_statements(add_step(cx, ops, fixture.target(&id), new(position))).await;
    let added = edit.unwrap();
    assert_eq!((added.position, added.step.next_step_id.as_ref()), (3, Some(&steps[1])));
    costs.push(("insert", cost));
    delete_step(cx, ops, fixture.target(&id), &added.step.id).await.unwrap();
    let (edit, cost) = count_statements(add_step(cx, ops, fixture.target(&id), new(StepPosition::Last))).await;
    check(edit.unwrap(), count);
    costs.push(("append", cost));
    let (walkthrough, cost) = count_statements(walkthroughs::get(cx, ops, &fixture.org, &id)).await;
    assert_eq!(walkthrough.unwrap().first_step_id.as_ref(), Some(step));
    costs.push(("poll", cost));
    costs
}

async fn edits_cost_the_same_in_short_and_in_long_drafts(fixture: Fixture) {
    let (short, long) = (count_per_edit(&fixture, 4).await, count_per_edit(&fixture, 500).await);
    assert_eq!(short, long);
    let cost = |name: &str| long.iter().find(|(other, _)| *other == name).map(|(_, cost)| *cost).unwrap();
    assert_eq!(cost("poll"), 1);
    assert!(cost("change a field") <= 14 && cost("insert") <= 14 && cost("move") <= 14, "{long:?}");
}

/// The order of the steps is read from an index alone, as SQLite's query plan shows. PostgreSQL chooses the plan by the
/// table's size, and stores long strings outside the row in any case.
async fn the_order_is_read_from_an_index(fixture: Fixture) {
    let (_, steps) = fixture.create_with_steps("T", &["A", "B"]).await;
    assert_eq!(steps.len(), 2);
    let mut conn = fixture.ops.store().read().await.unwrap();
    if conn.dialect() == Dialect::Sqlite {
        let sql = format!("EXPLAIN QUERY PLAN {}", waypost_store::step::links_sql(Dialect::Sqlite));
        let waypost_store::db::Raw::Sqlite(raw) = conn.raw() else { unreachable!() };
        let plan: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind("org").bind("wt").fetch_all(raw).await.unwrap();
        assert_eq!(plan.len(), 1, "{plan:?}");
        assert!(plan[0].3.contains("USING COVERING INDEX steps_chain"), "{plan:?}");
    }
}

async fn the_limit_on_steps_holds_for_concurrent_additions(fixture: Fixture) {
    let text = (0..498).fold("# Nearly full\n".to_owned(), |text, n| format!("{text}\n## Step {n}\n\nDo it.\n"));
    let file = markdown::parse("full.md", &text).unwrap();
    let report = import(&fixture.cx, &fixture.ops, &fixture.org, file, ImportOptions::default()).await.unwrap();
    let id = report.id.unwrap();
    let additions = (0..6).map(|n| {
        let new = NewStep { key: None, content: content(&format!("New {n}")), position: StepPosition::First };
        add_step(&fixture.cx, &fixture.ops, fixture.target(&id), new)
    });
    let results = futures::future::join_all(additions).await;
    let rejected: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).map(|error| error.code).collect();
    assert_eq!(rejected, [Code::Conflict; 4]);
    assert_eq!(fixture.get_draft(&id).await.steps.len(), 500);
}

async fn of_concurrent_additions_with_the_same_key_one_succeeds(fixture: Fixture) {
    let (id, _) = fixture.create_with_steps("T", &["A"]).await;
    let additions = (0..4).map(|n| {
        let content = StepContent { title: format!("New {n}"), ..StepContent::default() };
        let new = NewStep { key: Some("same".to_owned()), content, position: StepPosition::Last };
        add_step(&fixture.cx, &fixture.ops, fixture.target(&id), new)
    });
    let results = futures::future::join_all(additions).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    let rejected = results.iter().filter_map(|result| result.as_ref().err());
    assert!(rejected.clone().all(|error| error.code == Code::Conflict), "{results:?}");
}

waypost_testkit::both!(set_up =>
    the_limit_on_steps_holds_for_concurrent_additions,
    of_concurrent_additions_with_the_same_key_one_succeeds,
);
waypost_testkit::both!(extended set_up =>
    edits_cost_the_same_in_short_and_in_long_drafts,
    the_order_is_read_from_an_index,
);
