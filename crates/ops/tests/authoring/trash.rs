//! Tests of the trash: deleted walkthroughs are hidden and can be restored unchanged.

use waypost_content::transfer::markdown;
use waypost_core::Code;
use waypost_core::caller::Caller;
use waypost_core::organization::Role;
use waypost_core::walkthrough::WalkthroughState;
use waypost_ops::assignments::{self, AssignmentPatch};
use waypost_ops::walkthroughs::import::{ImportOptions, import};
use waypost_ops::walkthroughs::trash::{RETENTION_MS, list_deleted, purge, purge_expired, restore};
use waypost_ops::walkthroughs::{WalkthroughListQuery, delete, get_draft, get_draft_by_slug, list};

use crate::{Fixture, set_up};

async fn deleted_walkthroughs_are_hidden_and_can_be_restored(fixture: Fixture) {
    let (cx, ops, org) = (&fixture.cx, &fixture.ops, &fixture.org);
    let server = fixture.create_server("acme-docs").await;
    let (id, _) = fixture.create_with_steps("Straße", &["A", "B"]).await;
    fixture.publish(&id).await;
    assignments::assign(cx, ops, org, &server, &id, AssignmentPatch::default()).await.unwrap();
    let before = fixture.get_draft(&id).await;
    let assigned = assignments::list(cx, ops, org, &server).await.unwrap();

    let version = fixture.config_version().await;
    delete(cx, ops, fixture.target(&id)).await.unwrap();
    assert!(fixture.config_version().await > version, "servers reload their offers");
    assert_eq!(get_draft(cx, ops, org, &id).await.unwrap_err().code, Code::NotFound);
    assert_eq!(get_draft_by_slug(cx, ops, org, "strasse").await.unwrap_err().code, Code::NotFound);
    assert_eq!(list(cx, ops, org, WalkthroughListQuery::default()).await.unwrap().items, []);
    assert_eq!(assignments::list(cx, ops, org, &server).await.unwrap(), []);
    let again = assignments::assign(cx, ops, org, &server, &id, AssignmentPatch::default()).await;
    assert_eq!(again.unwrap_err().code, Code::WalkthroughNotFound);
    let trash = list_deleted(cx, ops, org).await.unwrap();
    assert_eq!((trash.len(), &trash[0].walkthrough), (1, &before.walkthrough));
    assert_eq!((trash[0].deleted_by.as_str(), trash[0].deleted_at), ("operator", cx.now()));
    assert_eq!(list_deleted(cx, ops, &fixture.other).await.unwrap(), []);

    restore(cx, ops, org, &id).await.unwrap();
    assert_eq!(fixture.get_draft(&id).await, before, "the same ID, state, slug, title and steps");
    assert_eq!(assignments::list(cx, ops, org, &server).await.unwrap(), assigned);
    assert_eq!(
        restore(cx, ops, org, &id).await.unwrap_err().code,
        Code::Conflict,
        "the walkthrough is not in the trash"
    );
    assert_eq!(list_deleted(cx, ops, org).await.unwrap(), []);
}

async fn title_and_slug_of_a_deleted_walkthrough_can_be_reused(fixture: Fixture) {
    let (cx, ops, org) = (&fixture.cx, &fixture.ops, &fixture.org);
    let first = fixture.create("Straße").await;
    delete(cx, ops, fixture.target(&first.id)).await.unwrap();
    // An import by title creates a new walkthrough; an import by ID reports that it is in the trash.
    let file = || markdown::parse("f.md", "# STRASSE\n\n## A\n\nDo it.\n").unwrap();
    let imported = import(cx, ops, org, file(), ImportOptions::default()).await.unwrap();
    assert!(imported.created && imported.id.as_ref() != Some(&first.id) && imported.slug == "strasse");
    let by_id = ImportOptions { id: Some(first.id.clone()), ..ImportOptions::default() };
    let rejected = import(cx, ops, org, file(), by_id).await.unwrap_err();
    assert!(rejected.code == Code::Conflict && rejected.message.contains("in the trash"), "{rejected:?}");
    // The trash can contain several walkthroughs with the same title.
    delete(cx, ops, fixture.target(imported.id.as_ref().unwrap())).await.unwrap();
    let third = fixture.create("Strasse").await;
    assert_eq!(third.slug, "strasse");
    let restored = restore(cx, ops, org, &first.id).await.unwrap();
    assert_eq!((restored.title.as_str(), restored.slug.as_str()), ("Straße (restored)", "strasse-restored"));
    let restored = restore(cx, ops, org, imported.id.as_ref().unwrap()).await.unwrap();
    assert_eq!(restored.title, "STRASSE (restored 2)");
    assert_eq!(fixture.get_draft(&restored.id).await.walkthrough, restored);
}

async fn only_admins_delete_permanently(fixture: Fixture) {
    let (cx, ops, org) = (&fixture.cx, &fixture.ops, &fixture.org);
    let id = fixture.create("T").await.id;
    assert_eq!(purge(cx, ops, org, &id).await.unwrap_err().code, Code::NotFound, "the walkthrough is not in the trash");
    let (member, outsider) = (fixture.member_context(org), fixture.member_context(&fixture.other));
    delete(&member, ops, fixture.target(&id)).await.unwrap();
    assert_eq!(purge(&member, ops, org, &id).await.unwrap_err().code, Code::Forbidden);
    for rejected in [
        purge(&outsider, ops, org, &id).await.unwrap_err(),
        restore(&outsider, ops, org, &id).await.unwrap_err(),
        restore(cx, ops, &fixture.other, &id).await.unwrap_err(),
        purge(cx, ops, &fixture.other, &id).await.unwrap_err(),
    ] {
        assert_eq!(rejected.code, Code::NotFound);
    }
    let organization_id = org.clone();
    let admin = Caller::Member { organization_id, role: Role::Admin, actor: "usr_admin".to_owned() };
    purge(&cx.with_caller(admin), ops, org, &id).await.unwrap();
    assert_eq!(restore(cx, ops, org, &id).await.unwrap_err().code, Code::NotFound);
}

async fn the_trash_is_emptied_after_30_days(fixture: Fixture) {
    let (cx, ops, org) = (&fixture.cx, &fixture.ops, &fixture.org);
    let kept = fixture.create("Kept").await.id;
    let mut deleted = Vec::new();
    for n in 0..7 {
        let id = fixture.create(&format!("T {n}")).await.id;
        delete(cx, ops, fixture.target(&id)).await.unwrap();
        deleted.push(id);
    }
    fixture.clock.advance(RETENTION_MS);
    let later = fixture.create("Later").await.id;
    delete(cx, ops, fixture.target(&later)).await.unwrap();
    assert_eq!(purge_expired(cx, ops).await.unwrap(), 0, "30 days have not passed");
    fixture.clock.advance(1);
    restore(cx, ops, org, &deleted[0]).await.unwrap();
    assert_eq!(purge_expired(cx, ops).await.unwrap(), 5, "at most five at once");
    assert_eq!(purge_expired(cx, ops).await.unwrap(), 1);
    assert_eq!(purge_expired(cx, ops).await.unwrap(), 0);
    let remaining = list_deleted(cx, ops, org).await.unwrap();
    assert_eq!(remaining.iter().map(|trashed| &trashed.walkthrough.id).collect::<Vec<_>>(), [&later]);
    assert_eq!(fixture.get_draft(&kept).await.walkthrough.state, WalkthroughState::Draft);
    assert_eq!(fixture.get_draft(&deleted[0]).await.walkthrough.title, "T 0");
    assert_eq!(fixture.list_audit_actions().await.iter().filter(|action| *action == "walkthrough.purge").count(), 6);
}

waypost_testkit::both!(extended set_up =>
    deleted_walkthroughs_are_hidden_and_can_be_restored,
    title_and_slug_of_a_deleted_walkthrough_can_be_reused,
    only_admins_delete_permanently,
    the_trash_is_emptied_after_30_days,
);
