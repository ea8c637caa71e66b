//! Deleted walkthroughs are found nowhere but in the trash, and come back as they were.

use waypost_core::Code;
use waypost_core::caller::Caller;
use waypost_core::organization::Role;
use waypost_core::transfer::markdown;
use waypost_core::walkthrough::WalkthroughState;
use waypost_ops::assignments::{self, AssignmentPatch};
use waypost_ops::walkthroughs::import::{ImportOptions, import};
use waypost_ops::walkthroughs::trash::{KEPT_MS, list_deleted, purge, purge_expired, restore};
use waypost_ops::walkthroughs::{WalkthroughListQuery, delete, get_draft, get_draft_by_slug, list};

use crate::{World, open};

async fn what_is_deleted_is_hidden_and_comes_back(world: World) {
    let (cx, ops, org) = (&world.cx, &world.ops, &world.org);
    let server = world.server("acme-docs").await;
    let (id, _) = world.with_steps("Straße", &["A", "B"]).await;
    world.publish(&id).await;
    assignments::assign(cx, ops, org, (&server, &id), AssignmentPatch::default()).await.unwrap();
    let before = world.get_draft(&id).await;
    let placed = assignments::list(cx, ops, org, &server).await.unwrap();

    let version = world.config_version().await;
    delete(cx, ops, world.target(&id)).await.unwrap();
    assert!(world.config_version().await > version, "servers are told");
    assert_eq!(get_draft(cx, ops, org, &id).await.unwrap_err().code, Code::NotFound);
    assert_eq!(get_draft_by_slug(cx, ops, org, "strasse").await.unwrap_err().code, Code::NotFound);
    assert_eq!(list(cx, ops, org, WalkthroughListQuery::default()).await.unwrap().items, []);
    assert_eq!(assignments::list(cx, ops, org, &server).await.unwrap(), []);
    let again = assignments::assign(cx, ops, org, (&server, &id), AssignmentPatch::default()).await;
    assert_eq!(again.unwrap_err().code, Code::WalkthroughNotFound);
    let trash = list_deleted(cx, ops, org).await.unwrap();
    assert_eq!((trash.len(), &trash[0].walkthrough), (1, &before.walkthrough));
    assert_eq!((trash[0].deleted_by.as_str(), trash[0].deleted_at), ("operator", cx.now()));
    assert_eq!(list_deleted(cx, ops, &world.other).await.unwrap(), []);

    restore(cx, ops, org, &id).await.unwrap();
    assert_eq!(world.get_draft(&id).await, before, "the same ID, state, slug, title and steps");
    assert_eq!(assignments::list(cx, ops, org, &server).await.unwrap(), placed);
    assert_eq!(restore(cx, ops, org, &id).await.unwrap_err().code, Code::Conflict, "it is not in the trash");
    assert_eq!(list_deleted(cx, ops, org).await.unwrap(), []);
}

async fn title_and_slug_are_free_meanwhile(world: World) {
    let (cx, ops, org) = (&world.cx, &world.ops, &world.org);
    let first = world.create("Straße").await;
    delete(cx, ops, world.target(&first.id)).await.unwrap();
    // An import by title makes a new one; one by ID says where it is.
    let file = || markdown::parse("f.md", "# STRASSE\n\n## A\n\nDo it.\n").unwrap();
    let imported = import(cx, ops, org, file(), ImportOptions::default()).await.unwrap();
    assert!(imported.created && imported.id.as_ref() != Some(&first.id) && imported.slug == "strasse");
    let by_id = ImportOptions { id: Some(first.id.clone()), ..ImportOptions::default() };
    let refused = import(cx, ops, org, file(), by_id).await.unwrap_err();
    assert!(refused.code == Code::Conflict && refused.message.contains("in the trash"), "{refused:?}");
    // Several with one title can be in the trash.
    delete(cx, ops, world.target(imported.id.as_ref().unwrap())).await.unwrap();
    let third = world.create("Strasse").await;
    assert_eq!(third.slug, "strasse");
    let restored = restore(cx, ops, org, &first.id).await.unwrap();
    assert_eq!((restored.title.as_str(), restored.slug.as_str()), ("Straße (restored)", "strasse-restored"));
    let restored = restore(cx, ops, org, imported.id.as_ref().unwrap()).await.unwrap();
    assert_eq!(restored.title, "STRASSE (restored 2)");
    assert_eq!(world.get_draft(&restored.id).await.walkthrough, restored);
}

async fn only_admins_delete_permanently(world: World) {
    let (cx, ops, org) = (&world.cx, &world.ops, &world.org);
    let id = world.create("T").await.id;
    assert_eq!(purge(cx, ops, org, &id).await.unwrap_err().code, Code::NotFound, "it is not in the trash");
    let (member, stranger) = (world.member(org), world.member(&world.other));
    delete(&member, ops, world.target(&id)).await.unwrap();
    assert_eq!(purge(&member, ops, org, &id).await.unwrap_err().code, Code::Forbidden);
    for refused in [
        purge(&stranger, ops, org, &id).await.unwrap_err(),
        restore(&stranger, ops, org, &id).await.unwrap_err(),
        restore(cx, ops, &world.other, &id).await.unwrap_err(),
        purge(cx, ops, &world.other, &id).await.unwrap_err(),
    ] {
        assert_eq!(refused.code, Code::NotFound);
    }
    let organization_id = org.clone();
    let admin = Caller::Member { organization_id, role: Role::Admin, actor: "usr_admin".to_owned() };
    purge(&cx.with_caller(admin), ops, org, &id).await.unwrap();
    assert_eq!(restore(cx, ops, org, &id).await.unwrap_err().code, Code::NotFound);
}

async fn the_trash_is_emptied_after_30_days(world: World) {
    let (cx, ops, org) = (&world.cx, &world.ops, &world.org);
    let stays = world.create("Stays").await.id;
    let mut deleted = Vec::new();
    for n in 0..7 {
        let id = world.create(&format!("T {n}")).await.id;
        delete(cx, ops, world.target(&id)).await.unwrap();
        deleted.push(id);
    }
    world.clock.advance(KEPT_MS);
    let later = world.create("Later").await.id;
    delete(cx, ops, world.target(&later)).await.unwrap();
    assert_eq!(purge_expired(cx, ops).await.unwrap(), 0, "30 days are not over");
    world.clock.advance(1);
    restore(cx, ops, org, &deleted[0]).await.unwrap();
    assert_eq!(purge_expired(cx, ops).await.unwrap(), 5, "a few at a time");
    assert_eq!(purge_expired(cx, ops).await.unwrap(), 1);
    assert_eq!(purge_expired(cx, ops).await.unwrap(), 0);
    let left = list_deleted(cx, ops, org).await.unwrap();
    assert_eq!(left.iter().map(|it| &it.walkthrough.id).collect::<Vec<_>>(), [&later]);
    assert_eq!(world.get_draft(&stays).await.walkthrough.state, WalkthroughState::Draft);
    assert_eq!(world.get_draft(&deleted[0]).await.walkthrough.title, "T 0");
    assert_eq!(world.audited().await.iter().filter(|act| *act == "walkthrough.purge").count(), 6);
}

waypost_testkit::both!(open =>
    what_is_deleted_is_hidden_and_comes_back,
    title_and_slug_are_free_meanwhile,
    only_admins_delete_permanently,
    the_trash_is_emptied_after_30_days,
);
