//! Tests of assignments: a change does not affect other assignments, even if others are changed concurrently.

use waypost_core::Code;
use waypost_core::id::{AssignmentId, WalkthroughId};
use waypost_core::organization::Role;
use waypost_ops::assignments::{self, AssignmentPatch, MAX_DISPLAY_ORDER};
use waypost_store::on;

use crate::fixture::{Fixture, Tenant, set_up};

/// Inserts additional walkthroughs and returns their IDs.
async fn insert_walkthroughs(fixture: &Fixture, tenant: &Tenant, count: usize) -> Vec<WalkthroughId> {
    let ids: Vec<_> = (0..count).map(|n| WalkthroughId::from_store(format!("wt_000000000{n:03}"))).collect();
    let mut tx = fixture.ops.store().begin().await.unwrap();
    for (n, id) in ids.iter().enumerate() {
        let sql = sqlx::AssertSqlSafe(format!(
            "INSERT INTO walkthroughs (id, organization_id, title, title_key, slug, description, type, state, tags,
                 metadata, revision, next_ordinal, created_at, updated_at)
             VALUES ('{id}', '{}', 'W{n}', 'w{n}', 'w{n}', '', 'course', 'draft', '[]', '{{}}', 1, 0, 1, 1)",
            tenant.organization.id
        ));
        on!(&mut tx, c => sqlx::raw_sql(sql).execute(c).await.unwrap().rows_affected());
    }
    tx.commit().await.unwrap();
    ids
}

/// Assigns walkthroughs to the tenant's server and returns the IDs of the assignments.
async fn assign_all(fixture: &Fixture, tenant: &Tenant, walkthroughs: &[WalkthroughId]) -> Vec<AssignmentId> {
    let mut ids = Vec::new();
    for id in walkthroughs {
        let (cx, ops, settings) = (&fixture.cx, &fixture.ops, AssignmentPatch::default());
        let assigned = assignments::assign(cx, ops, &tenant.organization.id, &tenant.server.id, id, settings).await;
        ids.push(assigned.unwrap().id);
    }
    ids
}

async fn assignments_can_be_reordered(fixture: Fixture) {
    let (home, other) = (fixture.create_tenant("home").await, fixture.create_tenant("other").await);
    let Fixture { ops, cx } = &fixture;
    let (org, server) = (&home.organization.id, &home.server.id);
    let mut ids = vec![assignments::list(cx, ops, org, server).await.unwrap().remove(0).assignment.id];
    ids.extend(assign_all(&fixture, &home, &insert_walkthroughs(&fixture, &home, 3).await).await);
    let disable = AssignmentPatch { enabled: Some(false), display_order: None };
    assignments::update(cx, ops, org, &ids[2], disable).await.unwrap();
    // The two listed assignments come first; the others follow in their previous order.
    let sorted = assignments::reorder(cx, ops, org, server, &[ids[3].clone(), ids[1].clone()]).await.unwrap();
    assert_eq!(sorted, assignments::list(cx, ops, org, server).await.unwrap());
    let now: Vec<_> = sorted.iter().map(|view| (&view.assignment.id, view.assignment.display_order)).collect();
    assert_eq!(now, [(&ids[3], 1), (&ids[1], 2), (&ids[0], 3), (&ids[2], 4)]);
    assert!(
        sorted.iter().all(|view| view.assignment.enabled != (view.assignment.id == ids[2])),
        "`enabled` does not change"
    );
    // An invalid list changes nothing.
    let foreign = assignments::list(cx, ops, &other.organization.id, &other.server.id).await.unwrap().remove(0);
    for (order, code) in [
        (vec![ids[0].clone(), ids[0].clone()], Code::InvalidArguments),
        (vec![ids[0].clone(), foreign.assignment.id.clone()], Code::NotFound),
        (vec![AssignmentId::from_store("msw_000000000000".to_owned())], Code::NotFound),
    ] {
        assert_eq!(assignments::reorder(cx, ops, org, server, &order).await.unwrap_err().code, code);
    }
    assert_eq!(assignments::list(cx, ops, org, server).await.unwrap(), sorted);
    let listed = assignments::list(cx, ops, &other.organization.id, &other.server.id).await.unwrap();
    assert_eq!(listed, [foreign]);
}

async fn single_assignments_stay_within_the_organisation(fixture: Fixture) {
    let (home, other) = (fixture.create_tenant("home").await, fixture.create_tenant("other").await);
    let Fixture { ops, cx } = &fixture;
    let (org, other_org) = (&home.organization.id, &other.organization.id);
    let own = assignments::list(cx, ops, org, &home.server.id).await.unwrap().remove(0);
    let id = own.assignment.id.clone();
    let member = fixture.member_context(org, Role::Member);
    assert_eq!(assignments::get(&member, ops, org, &id).await.unwrap(), own);
    let assignments = assignments::list_for_walkthrough(&member, ops, org, &home.walkthrough).await.unwrap();
    assert_eq!(assignments, std::slice::from_ref(&own));
    let outsider = fixture.member_context(other_org, Role::Owner);
    let later = AssignmentPatch { display_order: Some(9), enabled: Some(false) };
    for org in [org, other_org] {
        let errors = [
            assignments::get(&outsider, ops, org, &id).await.unwrap_err(),
            assignments::update(&outsider, ops, org, &id, later).await.unwrap_err(),
            assignments::delete(&outsider, ops, org, &id).await.unwrap_err(),
            assignments::list_for_walkthrough(&outsider, ops, org, &home.walkthrough).await.unwrap_err(),
            assignments::reorder(&outsider, ops, org, &home.server.id, &[]).await.unwrap_err(),
            assignments::list_candidates(&outsider, ops, org, &home.server.id, "", 9).await.unwrap_err(),
        ];
        assert!(errors.iter().all(|error| error.code == Code::NotFound), "{errors:?}");
    }
    assert_eq!(assignments::get(cx, ops, org, &id).await.unwrap(), own);
    let too_far = AssignmentPatch { display_order: Some(MAX_DISPLAY_ORDER + 1), enabled: None };
    let error = assignments::update(cx, ops, org, &id, too_far).await.unwrap_err();
    assert_eq!(error.details["field"], "display_order");
    assignments::delete(&member, ops, org, &id).await.unwrap();
    assert_eq!(assignments::delete(&member, ops, org, &id).await.unwrap_err().code, Code::NotFound);
    let candidates = assignments::list_candidates(&member, ops, org, &home.server.id, "W", 9).await.unwrap();
    assert_eq!(candidates[0].id, home.walkthrough);
}

/// Reorders, updates and creates assignments concurrently. The result contains every successful change.
async fn concurrent_changes_are_all_kept(fixture: Fixture) {
    let home = fixture.create_tenant("home").await;
    let Fixture { ops, cx } = &fixture;
    let (org, server) = (&home.organization.id, &home.server.id);
    let all = insert_walkthroughs(&fixture, &home, 16).await;
    let (existing, new) = all.split_at(8);
    let ids = assign_all(&fixture, &home, existing).await;
    let mut tasks = Vec::new();
    for n in 0..8 {
        let (cx, ops, org, server) = (cx.clone(), ops.clone(), org.clone(), server.clone());
        let (mut order, one, added) = (ids.clone(), ids[n].clone(), new[n].clone());
        order.rotate_left(n);
        tasks.push(tokio::spawn(async move {
            let disable = AssignmentPatch { enabled: Some(false), display_order: None };
            let (ordered, updated, assigned) = tokio::join!(
                assignments::reorder(&cx, &ops, &org, &server, &order),
                assignments::update(&cx, &ops, &org, &one, disable),
                assignments::assign(&cx, &ops, &org, &server, &added, AssignmentPatch::default()),
            );
            (ordered.unwrap(), updated.unwrap(), assigned.unwrap())
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let now = assignments::list(cx, ops, org, server).await.unwrap();
    assert_eq!(now.len(), 17, "no new assignment is lost");
    for view in &now {
        let is_disabled = ids.contains(&view.assignment.id);
        assert_eq!(view.assignment.enabled, !is_disabled, "no update is lost: {view:?}");
    }
    let mut positions: Vec<_> = now.iter().map(|view| view.assignment.display_order).collect();
    positions.dedup();
    assert_eq!(positions.len(), 17, "all positions are different");
    // The order of the eight is one of the requested orders.
    let order: Vec<_> =
        now.iter().filter(|view| ids.contains(&view.assignment.id)).map(|view| &view.assignment.id).collect();
    let was_requested = (0..8).any(|n| {
        let mut rotated = ids.clone();
        rotated.rotate_left(n);
        rotated.iter().collect::<Vec<_>>() == order
    });
    assert!(was_requested, "{order:?}");
}

waypost_testkit::both!(set_up => concurrent_changes_are_all_kept);
waypost_testkit::both!(extended set_up =>
    assignments_can_be_reordered,
    single_assignments_stay_within_the_organisation,
);
