//! Definitions of tool servers and their approvals.

use waypost_core::id::{CatalogVersionId, InstanceId, ToolApprovalId};
use waypost_core::tool_definition::{ApprovalState, Class, DefinitionKind, ToolDefinition};
use waypost_store::tool_definition::{self, Content, Filter};
use waypost_store::{Tx, organization};

use crate::fixture::{Fixture, NOW};
use crate::open;

struct TwoWorlds {
    tx: Tx,
    one: Fixture,
    two: Fixture,
}

async fn two_worlds(url: &str) -> TwoWorlds {
    let db = open(url).await;
    let (one, two) = (Fixture::new(1), Fixture::new(2));
    one.seed_with_activity(&db).await;
    two.seed_with_activity(&db).await;
    TwoWorlds { tx: db.begin().await.unwrap(), one, two }
}

fn id(text: &str) -> ToolApprovalId {
    ToolApprovalId::from_store(text.to_owned())
}

fn instance() -> InstanceId {
    InstanceId::from_store("ins_1".to_owned())
}

fn definition(fixture: &Fixture, name: &str, digest: &str) -> ToolDefinition {
    ToolDefinition {
        id: id(&format!("apr_{name}_{digest}")),
        organization_id: fixture.organization.clone(),
        instance_id: instance(),
        catalog_version_id: Some(CatalogVersionId::from_store("ctv_1".to_owned())),
        kind: DefinitionKind::Tool,
        name: name.to_owned(),
        digest: digest.to_owned(),
        definition: format!("{{\"name\":\"{name}\"}}"),
        problem: None,
        is_current: true,
        state: ApprovalState::Pending,
        class: None,
        reason: None,
        decided_by: None,
        decided_at: None,
        first_seen_at: NOW,
    }
}

async fn definitions_are_found_and_listed(TwoWorlds { mut tx, one, two }: TwoWorlds) {
    let org = &one.organization;
    let new = ToolDefinition { problem: Some("not_canonical".to_owned()), ..definition(&one, "write", "d1") };
    tool_definition::insert(&mut tx, &new).await.unwrap();
    assert_eq!(tool_definition::find(&mut tx, org, &new.id).await.unwrap().as_ref(), Some(&new));
    assert_eq!(tool_definition::find(&mut tx, &two.organization, &new.id).await.unwrap(), None);
    let all = tool_definition::list(&mut tx, org, Filter::default(), 10).await.unwrap();
    assert_eq!(all.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), ["apr_1", "apr_write_d1"]);
    let after = Filter { after: Some(&all[0].id), ..Filter::default() };
    assert_eq!(tool_definition::list(&mut tx, org, after, 10).await.unwrap(), std::slice::from_ref(&new));
    let pending = Filter { state: Some(ApprovalState::Pending), instance: Some(&new.instance_id), after: None };
    assert_eq!(tool_definition::list(&mut tx, org, pending, 1).await.unwrap().len(), 1);
    let approved = Filter { state: Some(ApprovalState::Approved), ..Filter::default() };
    assert_eq!(tool_definition::list(&mut tx, org, approved, 10).await.unwrap(), []);
    let other = InstanceId::from_store("ins_2".to_owned());
    let foreign = Filter { instance: Some(&other), ..Filter::default() };
    assert_eq!(tool_definition::list(&mut tx, org, foreign, 10).await.unwrap(), []);
    assert!(tool_definition::insert(&mut tx, &ToolDefinition { id: id("apr_x"), ..new }).await.is_err(), "unique");
}

async fn only_current_and_approved_definitions_are_usable(TwoWorlds { mut tx, one, two }: TwoWorlds) {
    let org = &one.organization;
    let (old, new) = (definition(&one, "a", "d1"), definition(&one, "a", "d2"));
    tool_definition::insert(&mut tx, &old).await.unwrap();
    tool_definition::insert(&mut tx, &new).await.unwrap();
    let approved = ToolDefinition {
        state: ApprovalState::Approved,
        class: Some(Class::Read),
        decided_by: Some("usr_1".to_owned()),
        decided_at: Some(NOW.plus(1)),
        ..old
    };
    let foreign = ToolDefinition { organization_id: two.organization.clone(), ..approved.clone() };
    assert!(!tool_definition::update_approval(&mut tx, &foreign).await.unwrap());
    assert!(tool_definition::update_approval(&mut tx, &approved).await.unwrap());
    assert_eq!(tool_definition::list_usable(&mut tx, org).await.unwrap(), std::slice::from_ref(&approved));
    assert_eq!(tool_definition::list_usable(&mut tx, &two.organization).await.unwrap(), []);
    assert_eq!(tool_definition::find_previous(&mut tx, &new).await.unwrap().as_ref(), Some(&approved));
    assert_eq!(tool_definition::find_previous(&mut tx, &approved).await.unwrap(), None);

    tool_definition::set_current(&mut tx, &two.organization, &[&approved.id], false).await.unwrap();
    assert_eq!(tool_definition::list_usable(&mut tx, org).await.unwrap().len(), 1, "another organisation");
    tool_definition::set_current(&mut tx, org, &[&approved.id], false).await.unwrap();
    assert_eq!(tool_definition::list_usable(&mut tx, org).await.unwrap(), []);
    let seen = tool_definition::list_seen(&mut tx, org, &instance()).await.unwrap();
    let current: Vec<_> = seen.iter().map(|row| (row.digest.as_str(), row.is_current)).collect();
    assert_eq!(current, [("d0", true), ("d1", false), ("d2", true)]);

    let rejected =
        ToolDefinition { state: ApprovalState::Rejected, reason: Some("No.".to_owned()), class: None, ..approved };
    assert!(tool_definition::update_approval(&mut tx, &rejected).await.unwrap());
    let previous = tool_definition::find_previous(&mut tx, &new).await.unwrap().unwrap();
    assert_eq!((previous.digest.as_str(), previous.reason.as_deref()), ("d1", Some("No.")), "the one before");
    tool_definition::delete(&mut tx, org, &[&rejected.id]).await.unwrap();
    assert_eq!(tool_definition::find(&mut tx, org, &rejected.id).await.unwrap(), None);
}

async fn a_rejection_ends_the_approvals_of_the_same_instance_kind_and_name(TwoWorlds { mut tx, one, two }: TwoWorlds) {
    let org = &one.organization;
    let approved = |name: &str, digest: &str| ToolDefinition {
        state: ApprovalState::Approved,
        class: Some(Class::Write),
        ..definition(&one, name, digest)
    };
    let rejected = ToolDefinition {
        state: ApprovalState::Rejected,
        reason: Some("No.".to_owned()),
        decided_by: Some("usr_1".to_owned()),
        decided_at: Some(NOW.plus(1)),
        ..definition(&one, "a", "d1")
    };
    let earlier = [approved("a", "d3"), approved("a", "d2")];
    let others = [
        definition(&one, "a", "pending"),
        approved("b", "d2"),
        ToolDefinition { id: id("apr_prompt"), kind: DefinitionKind::Prompt, ..approved("a", "d2") },
    ];
    for row in [&rejected].into_iter().chain(&earlier).chain(&others) {
        tool_definition::insert(&mut tx, row).await.unwrap();
    }
    let foreign = ToolDefinition { organization_id: two.organization.clone(), ..rejected.clone() };
    assert_eq!(tool_definition::reject_others(&mut tx, &foreign).await.unwrap(), [""; 0]);
    assert_eq!(tool_definition::reject_others(&mut tx, &rejected).await.unwrap(), ["d2", "d3"]);
    for row in earlier {
        let expected = ToolDefinition { id: row.id, digest: row.digest, ..rejected.clone() };
        assert_eq!(tool_definition::find(&mut tx, org, &expected.id).await.unwrap(), Some(expected));
    }
    for row in others {
        assert_eq!(tool_definition::find(&mut tx, org, &row.id).await.unwrap(), Some(row));
    }
    assert_eq!(tool_definition::reject_others(&mut tx, &rejected).await.unwrap(), [""; 0], "already");
}

async fn definitions_with_the_same_content_are_found(TwoWorlds { mut tx, one, two }: TwoWorlds) {
    let new = definition(&one, "a", "d1");
    tool_definition::insert(&mut tx, &new).await.unwrap();
    tool_definition::insert(&mut tx, &definition(&one, "a", "d2")).await.unwrap();
    let version = new.catalog_version_id.as_ref().unwrap();
    let content = Content { catalog_version: version, kind: new.kind, name: &new.name, digest: &new.digest };
    let found = tool_definition::list_by_content(&mut tx, &one.organization, content).await.unwrap();
    assert_eq!(found, std::slice::from_ref(&new));
    for other in [
        Content { kind: DefinitionKind::Prompt, ..content },
        Content { name: "b", ..content },
        Content { digest: "d3", ..content },
        Content { catalog_version: &CatalogVersionId::from_store("ctv_2".to_owned()), ..content },
    ] {
        assert_eq!(tool_definition::list_by_content(&mut tx, &one.organization, other).await.unwrap(), []);
    }
    assert_eq!(tool_definition::list_by_content(&mut tx, &two.organization, content).await.unwrap(), []);
    let other_version = CatalogVersionId::from_store("ctv_2".to_owned());
    for organization in [&two.organization, &one.organization] {
        let before = tool_definition::list_by_content(&mut tx, &one.organization, content).await.unwrap();
        assert_eq!(before, std::slice::from_ref(&new), "not changed by another organisation");
        tool_definition::set_catalog_version(&mut tx, organization, &[&new.id], &other_version).await.unwrap();
    }
    assert_eq!(tool_definition::list_by_content(&mut tx, &one.organization, content).await.unwrap(), []);
    let seen = tool_definition::list_seen(&mut tx, &one.organization, &instance()).await.unwrap();
    let moved = seen.into_iter().filter(|row| row.catalog_version_id.as_ref() == Some(&other_version));
    assert_eq!(moved.map(|row| (row.id, row.is_pending)).collect::<Vec<_>>(), [(new.id.clone(), true)]);
    let resource = ToolDefinition { kind: DefinitionKind::Resource, ..definition(&one, "notes://1", "d4") };
    tool_definition::insert(&mut tx, &resource).await.unwrap();
    let quarantined = tool_definition::list_quarantined_resources(&mut tx, &one.organization).await.unwrap();
    assert_eq!(quarantined, [(instance(), "notes://1".to_owned())]);
    assert_eq!(tool_definition::list_quarantined_resources(&mut tx, &two.organization).await.unwrap(), []);
    let approved = ToolDefinition { state: ApprovalState::Approved, class: Some(Class::Read), ..resource };
    assert!(tool_definition::update_approval(&mut tx, &approved).await.unwrap());
    assert_eq!(tool_definition::list_quarantined_resources(&mut tx, &one.organization).await.unwrap(), []);
    assert!(organization::delete(&mut tx, &one.organization).await.unwrap());
    assert_eq!(tool_definition::find(&mut tx, &one.organization, &new.id).await.unwrap(), None);
}

waypost_testkit::both!(two_worlds =>
    definitions_are_found_and_listed,
    only_current_and_approved_definitions_are_usable,
    a_rejection_ends_the_approvals_of_the_same_instance_kind_and_name,
    definitions_with_the_same_content_are_found,
);
