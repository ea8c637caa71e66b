//! The rows of operations on walkthroughs.

use waypost_content::transfer;
use waypost_core::Error;
use waypost_core::chain::StepPosition;
use waypost_core::id::{StepId, WalkthroughId};
use waypost_core::step::StepContent;
use waypost_ops::walkthroughs;
use waypost_ops::walkthroughs::bulk::{BulkAction, WalkthroughBulkAction};
use waypost_ops::walkthroughs::draft::{NewStep, StepPatch};
use waypost_ops::walkthroughs::import::ImportOptions;
use waypost_ops::walkthroughs::preview::PreviewPoint;
use waypost_ops::walkthroughs::{EditTarget, NewWalkthrough, WalkthroughListQuery, WalkthroughPatch};

use super::Access;
use super::rows::{Call, Row, row};
use crate::fixture::Tenant;

/// Returns the tenant's walkthrough, for an edit at any revision.
pub fn target(t: &Tenant) -> EditTarget<'_> {
    EditTarget { organization_id: &t.organization.id, walkthrough_id: &t.walkthrough, revision: None }
}

pub async fn drafts(call: Call<'_>) -> Vec<Row> {
    let Call { cx, ops, tenant: t, .. } = call;
    let (org, id, target) = (&t.organization.id, &t.walkthrough, target(t));
    let step = &StepId::from_store("ws_0".into());
    let new = || NewStep { key: None, content: StepContent::default(), position: StepPosition::Last };
    rows! {
        Member walkthroughs::draft::add_step(cx, ops, target, new());
        Member walkthroughs::draft::restore_step(cx, ops, target, step, new());
        Member walkthroughs::draft::duplicate_step(cx, ops, target, step);
        Member walkthroughs::draft::get_step(cx, ops, org, id, step);
        Member walkthroughs::draft::patch_step(cx, ops, target, step, StepPatch::default());
        Member walkthroughs::draft::move_step(cx, ops, target, step, &StepPosition::First);
        Member walkthroughs::draft::delete_step(cx, ops, target, step);
        Member walkthroughs::preview::render(cx, ops, org, id, PreviewPoint::After(0));
        Member walkthroughs::preview::render_all(cx, ops, org, id);
        Member walkthroughs::revisions::list(cx, ops, org, id, step, None, None);
        Member walkthroughs::revisions::get(cx, ops, org, id, step, 1);
        Member walkthroughs::revisions::list_deleted(cx, ops, org, id);
        Member walkthroughs::revisions::restore(cx, ops, target, step, 1);
    }
}

pub async fn walkthroughs(call: Call<'_>) -> Vec<Row> {
    let Call { cx, operator, ops, tenant: t, new, .. } = call;
    let (org, id, target) = (&t.organization.id, &t.walkthrough, target(t));
    let head = walkthroughs::get_draft(operator, ops, org, id).await.unwrap().walkthrough;
    let fields = |title: &str| NewWalkthrough { fields: head.fields(), slug: Some(format!("{new}-{title}")) };
    let file = transfer::parse("tour.md", "# Tour\n\n## Step\n\nDo it.\n").unwrap();
    let missing = WalkthroughId::new(&*cx.random).to_string();
    let mut rows = rows! {
        Member walkthroughs::create(cx, ops, org, fields("a"));
        Member walkthroughs::create_with_steps(cx, ops, org, fields("b"), Vec::new());
        Member walkthroughs::duplicate(cx, ops, org, id, None);
        Member walkthroughs::list(cx, ops, org, WalkthroughListQuery::default());
        Member walkthroughs::describe(cx, ops, org, head.clone());
        Member walkthroughs::get(cx, ops, org, id);
        Member walkthroughs::get_draft(cx, ops, org, id);
        Member walkthroughs::get_draft_by_slug(cx, ops, org, "w");
        Member walkthroughs::update(cx, ops, target, WalkthroughPatch::default());
        Member walkthroughs::export::export(cx, ops, org, id);
        Member walkthroughs::export::export_as_markdown(cx, ops, org, id);
        Member walkthroughs::import::import(cx, ops, org, file, ImportOptions::default());
    };
    // These return one result for each walkthrough.
    let action = BulkAction::new(WalkthroughBulkAction::Archive, None).unwrap();
    let done = walkthroughs::bulk::run(cx, ops, org, &action, vec![(missing.clone(), None)]).await;
    let done = done.and_then(|mut results| results.remove(0).result);
    rows.push(row(Access::Member, &["walkthroughs", "bulk", "run"], done));
    let summaries = walkthroughs::impact::summarize(cx, ops, org, &[missing]).await;
    let hidden = Error::not_found("organisation");
    let summary = summaries.and_then(|mut summaries| match summaries.remove(0).problem {
        Some(problem) if problem == hidden.message => Err(hidden),
        _ => Ok(()),
    });
    rows.push(row(Access::Member, &["walkthroughs", "impact", "summarize"], summary));
    rows
}

pub async fn versions(call: Call<'_>) -> Vec<Row> {
    let Call { cx, ops, tenant: t, .. } = call;
    let (org, id, target) = (&t.organization.id, &t.walkthrough, target(t));
    rows! {
        Member walkthroughs::publish::publish(cx, ops, target, false);
        Member walkthroughs::publish::lint(cx, ops, org, id);
        Member walkthroughs::publish::list_versions(cx, ops, org, id);
        Member walkthroughs::publish::withdraw(cx, ops, target, 1, "wrong");
        Member walkthroughs::publish::archive(cx, ops, target);
        Member walkthroughs::publish::unarchive(cx, ops, target);
        Member walkthroughs::publish::unpublish(cx, ops, target);
        Member walkthroughs::versions::list(cx, ops, org, id);
        Member walkthroughs::versions::get(cx, ops, org, id, 1);
        Member walkthroughs::versions::compare(cx, ops, org, id, 1, None);
        Member walkthroughs::versions::get_impact(cx, ops, org, id);
        Member walkthroughs::versions::restore(cx, ops, target, 1);
    }
}
