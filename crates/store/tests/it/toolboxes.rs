//! Toolboxes, instances and deployments.

use waypost_core::Timestamp;
use waypost_core::agent_secret::PersonalSecret;
use waypost_core::deployment::{Deployment, DeploymentState};
use waypost_core::id::{DeploymentId, InstanceEventId, InstanceId, OrganizationId, ToolSecretId, ToolboxId};
use waypost_core::instance::{Backend, Container, DesiredRun, Instance, InstanceEvent, InstanceEventKind, SecretUse};
use waypost_core::toolbox::Toolbox;
use waypost_store::toolbox::{ClassUse, Joining, NewToken};
use waypost_store::{Db, Tx, deployment, instance, instance_event, instance_source, system, toolbox};
use waypost_toolbox_proto::deployment::{DeploymentError, DeploymentStep, ErrorCode};
use waypost_toolbox_proto::entry::ResourceClass;
use waypost_toolbox_proto::instance::{Health, InstanceState};
use waypost_toolbox_proto::message::{Capacity, Engine};

use crate::fixture::{Fixture, NOW, execute};
use crate::open;

struct TwoWorlds {
    tx: Tx,
    one: Fixture,
    two: Fixture,
}

async fn two_worlds(url: &str) -> TwoWorlds {
    let db: Db = open(url).await;
    let (one, two) = (Fixture::new(1), Fixture::new(2));
    one.seed_with_activity(&db).await;
    two.seed_with_activity(&db).await;
    TwoWorlds { tx: db.begin().await.unwrap(), one, two }
}

fn new_toolbox(organization: &OrganizationId, name: &str) -> Toolbox {
    Toolbox {
        id: ToolboxId::from_store(format!("tbx_{name}")),
        organization_id: organization.clone(),
        name: name.to_owned(),
        join_token_hash: Some(format!("hash-{name}")),
        join_expires_at: Some(NOW.plus(10)),
        public_key: None,
        key_rotation_requested_at: None,
        joined_at: None,
        revoked_at: None,
        version: None,
        engine: None,
        capacity: None,
        last_seen_at: None,
        unresponsive_at: None,
        desired_revision: 1,
        last_event: 0,
        created_at: NOW,
        updated_at: NOW,
    }
}

fn new_instance(organization: &OrganizationId, slug: &str) -> Instance {
    let n = organization.as_str().trim_start_matches("org_");
    Instance {
        id: InstanceId::from_store(format!("ins_{slug}")),
        organization_id: organization.clone(),
        slug: slug.to_owned(),
        name: "Name".to_owned(),
        backend: Backend::Container(Container {
            catalog_version_id: waypost_core::id::CatalogVersionId::from_store(format!("ctv_{n}")),
            toolbox_id: ToolboxId::from_store(format!("tbx_{n}")),
        }),
        desired: DesiredRun::Running,
        state: InstanceState::Deploying,
        generation: 1,
        observed_generation: 0,
        restarts: 0,
        is_removing: false,
        health: None,
        config: serde_json::Map::from_iter([("a".to_owned(), 1.into())]),
        secrets: Vec::new(),
        personal_secrets: vec![PersonalSecret { name: "OWN".to_owned(), is_required: true }],
        learn_egress: true,
        record_contents: true,
        rejected_egress: Vec::new(),
        created_at: NOW,
        updated_at: NOW,
    }
}

fn new_deployment(instance: &Instance, generation: u64) -> Deployment {
    Deployment {
        id: DeploymentId::from_store(format!("dep_{}x{generation}", instance.slug)),
        organization_id: instance.organization_id.clone(),
        instance_id: instance.id.clone(),
        generation,
        catalog_version_id: instance.catalog_version_id().unwrap().clone(),
        config: instance.config.clone(),
        secrets: instance.secrets.clone(),
        personal_secrets: instance.personal_secrets.clone(),
        learn_egress: true,
        state: DeploymentState::Running,
        step: DeploymentStep::Validating,
        error: None,
        started_at: NOW,
        ended_at: None,
    }
}

async fn toolboxes_are_read_and_written(TwoWorlds { mut tx, one, two }: TwoWorlds) {
    let org = &one.organization;
    assert!(toolbox::lock_organization(&mut tx, org).await.unwrap());
    assert!(!toolbox::lock_organization(&mut tx, &OrganizationId::from_store("org_9".into())).await.unwrap());
    let mut new = new_toolbox(org, "new");
    toolbox::insert(&mut tx, &new).await.unwrap();
    assert_eq!(toolbox::find(&mut tx, org, &new.id).await.unwrap(), Some(new.clone()));
    assert_eq!(toolbox::lock(&mut tx, org, &new.id).await.unwrap(), Some(new.clone()));
    assert_eq!(toolbox::find(&mut tx, &two.organization, &new.id).await.unwrap(), None);
    assert_eq!(toolbox::lock(&mut tx, &two.organization, &new.id).await.unwrap(), None);
    assert_eq!(toolbox::find_by_name(&mut tx, org, "new").await.unwrap(), Some(new.clone()));
    assert_eq!(toolbox::find_by_name(&mut tx, &two.organization, "new").await.unwrap(), None);
    assert_eq!(system::find_toolbox(&mut tx, &new.id).await.unwrap(), Some(new.clone()));
    assert_eq!(system::find_toolbox_by_token(&mut tx, "hash-new").await.unwrap(), Some(new.clone()));
    assert_eq!(system::find_toolbox_by_token(&mut tx, "hash").await.unwrap(), None);
    assert_eq!(toolbox::count(&mut tx, org).await.unwrap(), 2);
    let names = async |tx: &mut Tx, after: Option<&str>, limit: i64| -> Vec<String> {
        toolbox::list(tx, org, after, limit).await.unwrap().into_iter().map(|toolbox| toolbox.name).collect()
    };
    assert_eq!(names(&mut tx, None, 9).await, ["new", "rack"]);
    assert_eq!(names(&mut tx, None, 1).await, ["new"]);
    assert_eq!(names(&mut tx, Some("new"), 9).await, ["rack"]);
    assert!(toolbox::rename(&mut tx, org, &new.id, "other", NOW.plus(1)).await.unwrap());
    assert!(!toolbox::rename(&mut tx, &two.organization, &new.id, "x", NOW).await.unwrap());
    (new.name, new.updated_at) = ("other".to_owned(), NOW.plus(1));
    new.version = Some("1.2".to_owned());
    new.engine = Some(Engine {
        version: "20.10".into(),
        runtime: "1.1".into(),
        os: "linux".into(),
        architecture: "arm64".into(),
    });
    new.capacity = Some(Capacity { cpus: 1.5, memory_bytes: 1 << 40, disk_free_bytes: 7 });
    (new.last_seen_at, new.desired_revision) = (Some(NOW.plus(2)), 9);
    toolbox::update_heartbeat(&mut tx, &new).await.unwrap();
    (new.public_key, new.key_rotation_requested_at) = (Some("key".to_owned()), Some(NOW));
    toolbox::update_link(&mut tx, &new).await.unwrap();
    (new.join_token_hash, new.join_expires_at) = (None, None);
    assert_eq!(toolbox::find(&mut tx, org, &new.id).await.unwrap(), Some(new.clone()));
    toolbox::increment_revision(&mut tx, org, &new.id).await.unwrap();
    toolbox::increment_revision(&mut tx, &two.organization, &new.id).await.unwrap();
    toolbox::set_last_event(&mut tx, org, &new.id, 7).await.unwrap();
    toolbox::request_key_rotation(&mut tx, org, &new.id, NOW.plus(3)).await.unwrap();
    let found = toolbox::find(&mut tx, org, &new.id).await.unwrap().unwrap();
    assert_eq!((found.desired_revision, found.last_event), (10, 7));
    assert_eq!(found.key_rotation_requested_at, Some(NOW.plus(3)));
    let missing = ToolboxId::from_store("tbx_none".into());
    assert_eq!(system::list_toolbox_revisions(&mut tx, &[&new.id, &missing]).await.unwrap(), [(new.id.clone(), 10)]);
    assert!(toolbox::revoke(&mut tx, org, &new.id, NOW.plus(4)).await.unwrap());
    assert!(!toolbox::revoke(&mut tx, org, &new.id, NOW.plus(5)).await.unwrap());
    assert_eq!(system::list_toolbox_revisions(&mut tx, &[&new.id]).await.unwrap(), []);
    let found = toolbox::find(&mut tx, org, &new.id).await.unwrap().unwrap();
    assert_eq!((found.revoked_at, found.join_token_hash, found.join_expires_at), (Some(NOW.plus(4)), None, None));
    assert!(!toolbox::delete(&mut tx, &two.organization, &new.id).await.unwrap());
    assert!(toolbox::delete(&mut tx, org, &new.id).await.unwrap());
}

async fn a_token_works_once_and_only_in_time(TwoWorlds { mut tx, one, two }: TwoWorlds) {
    let org = &one.organization;
    let new = new_toolbox(org, "new");
    toolbox::insert(&mut tx, &new).await.unwrap();
    let joining = |token_hash, now| Joining { token_hash, public_key: "key", version: "1", now };
    for (organization, token, now) in
        [(org, "hash-other", NOW), (org, "hash-new", NOW.plus(10)), (&two.organization, "hash-new", NOW)]
    {
        assert!(!toolbox::join(&mut tx, organization, &new.id, joining(token, now)).await.unwrap());
    }
    assert!(toolbox::join(&mut tx, org, &new.id, joining("hash-new", NOW.plus(9))).await.unwrap());
    assert!(!toolbox::join(&mut tx, org, &new.id, joining("hash-new", NOW.plus(9))).await.unwrap());
    let found = toolbox::find(&mut tx, org, &new.id).await.unwrap().unwrap();
    assert_eq!((found.public_key.as_deref(), found.version.as_deref()), (Some("key"), Some("1")));
    assert_eq!((found.joined_at, found.last_seen_at), (Some(NOW.plus(9)), None));
    assert_eq!((found.join_token_hash, found.join_expires_at), (new.join_token_hash, new.join_expires_at), "kept");
}

async fn a_token_is_renewed_until_the_first_heartbeat(TwoWorlds { mut tx, one, two }: TwoWorlds) {
    let org = &one.organization;
    let new = new_toolbox(org, "new");
    toolbox::insert(&mut tx, &new).await.unwrap();
    let joining = Joining { token_hash: "hash-new", public_key: "key", version: "1", now: NOW };
    assert!(toolbox::join(&mut tx, org, &new.id, joining).await.unwrap());
    let token = NewToken { hash: "second", expires_at: NOW.plus(20), now: NOW.plus(1) };
    assert!(!toolbox::renew_token(&mut tx, &two.organization, &new.id, token).await.unwrap());
    assert!(toolbox::renew_token(&mut tx, org, &new.id, token).await.unwrap());
    let renewed = Toolbox {
        join_token_hash: Some("second".into()),
        join_expires_at: Some(NOW.plus(20)),
        updated_at: NOW.plus(1),
        ..new.clone()
    };
    assert_eq!(toolbox::find(&mut tx, org, &new.id).await.unwrap(), Some(renewed.clone()), "without the key");
    assert_eq!(system::list_toolbox_revisions(&mut tx, &[&new.id]).await.unwrap(), []);
    let seen = Toolbox { last_seen_at: Some(NOW), ..renewed };
    toolbox::update_heartbeat(&mut tx, &seen).await.unwrap();
    assert!(!toolbox::renew_token(&mut tx, org, &new.id, token).await.unwrap());
    let revoked = new_toolbox(org, "revoked");
    toolbox::insert(&mut tx, &revoked).await.unwrap();
    toolbox::revoke(&mut tx, org, &revoked.id, NOW).await.unwrap();
    assert!(!toolbox::renew_token(&mut tx, org, &revoked.id, token).await.unwrap());
}

async fn hashes_of_expired_tokens_are_deleted(TwoWorlds { mut tx, one, two }: TwoWorlds) {
    for (fixture, name) in [(&one, "a"), (&two, "b"), (&two, "c")] {
        toolbox::insert(&mut tx, &new_toolbox(&fixture.organization, name)).await.unwrap();
    }
    assert_eq!(toolbox::delete_expired_tokens(&mut tx, NOW.plus(9), 9).await.unwrap(), 0);
    assert_eq!(toolbox::delete_expired_tokens(&mut tx, NOW.plus(10), 2).await.unwrap(), 2);
    assert_eq!(toolbox::delete_expired_tokens(&mut tx, NOW.plus(10), 2).await.unwrap(), 1);
    assert_eq!(toolbox::delete_expired_tokens(&mut tx, NOW.plus(99), 9).await.unwrap(), 0);
    let found = system::find_toolbox(&mut tx, &ToolboxId::from_store("tbx_a".into())).await.unwrap().unwrap();
    assert_eq!((found.join_token_hash, found.join_expires_at), (None, None));
}

async fn missing_heartbeats_are_found_once(TwoWorlds { mut tx, one, .. }: TwoWorlds) {
    let org = &one.organization;
    execute(&mut tx, "UPDATE toolboxes SET revoked_at = 1 WHERE organization_id = 'org_2'".to_owned()).await;
    let id = ToolboxId::from_store("tbx_1".into());
    assert_eq!(toolbox::mark_unresponsive(&mut tx, Timestamp(6), NOW, 9).await.unwrap(), []);
    let found = toolbox::mark_unresponsive(&mut tx, Timestamp(7), NOW, 9).await.unwrap();
    assert_eq!(found.iter().map(|toolbox| &toolbox.id).collect::<Vec<_>>(), [&id]);
    assert_eq!(found[0].unresponsive_at, Some(NOW));
    assert_eq!(toolbox::mark_unresponsive(&mut tx, NOW, NOW, 9).await.unwrap(), []);
    let seen = Toolbox { last_seen_at: Some(Timestamp(8)), ..found[0].clone() };
    toolbox::update_heartbeat(&mut tx, &seen).await.unwrap();
    assert_eq!(toolbox::find(&mut tx, org, &id).await.unwrap().unwrap().unresponsive_at, None);
    assert_eq!(toolbox::mark_unresponsive(&mut tx, NOW, NOW, 9).await.unwrap().len(), 1, "a new outage");
}

async fn instances_are_read_and_written(TwoWorlds { mut tx, one, two }: TwoWorlds) {
    let org = &one.organization;
    let secret = SecretUse { name: "API_KEY".into(), secret_id: ToolSecretId::from_store("sec_1".into()), version: 2 };
    let mut new = Instance { secrets: vec![secret.clone()], ..new_instance(org, "new") };
    let toolbox = new.toolbox_id().unwrap().clone();
    instance::insert(&mut tx, &new, "skeleton").await.unwrap();
    assert_eq!(instance::find(&mut tx, org, &new.id).await.unwrap(), Some(new.clone()));
    assert_eq!(instance::find(&mut tx, &two.organization, &new.id).await.unwrap(), None);
    assert_eq!(instance::find_by_slug(&mut tx, org, "new").await.unwrap(), Some(new.clone()));
    assert_eq!(instance::find_by_slug(&mut tx, &two.organization, "new").await.unwrap(), None);
    let skeleton = async |tx: &mut Tx, org, text| instance::find_slug_by_skeleton(tx, org, text).await.unwrap();
    assert_eq!(skeleton(&mut tx, org, "skeleton").await.as_deref(), Some("new"));
    assert_eq!(skeleton(&mut tx, &two.organization, "skeleton").await, None);
    let second = SecretUse { name: "AAA".into(), version: 1, ..secret.clone() };
    new.secrets = vec![second, SecretUse { version: 1, ..secret }];
    new.name = "Other".to_owned();
    (new.desired, new.state, new.is_removing) = (DesiredRun::Stopped, InstanceState::CrashLoop, true);
    (new.generation, new.observed_generation, new.restarts) = (4, 3, 2);
    new.health = Some(Health { ok: false, checked_at: 5, latency_ms: None, message: Some("no".into()) });
    new.record_contents = false;
    (new.learn_egress, new.rejected_egress) = (false, vec!["a.example:443".to_owned()]);
    new.config = serde_json::Map::from_iter([("b".to_owned(), "ü\u{0000}".into())]);
    new.updated_at = NOW.plus(1);
    instance::update(&mut tx, &new).await.unwrap();
    instance::replace_secrets(&mut tx, &new).await.unwrap();
    assert_eq!(instance::find(&mut tx, org, &new.id).await.unwrap(), Some(new.clone()));
    let foreign = Instance { organization_id: two.organization.clone(), name: "Stolen".into(), ..new.clone() };
    instance::update(&mut tx, &foreign).await.unwrap();
    assert_eq!(instance::find(&mut tx, org, &new.id).await.unwrap(), Some(new.clone()));
    let slugs = async |tx: &mut Tx, after: Option<&str>, limit: i64| -> Vec<String> {
        instance::list(tx, org, after, limit).await.unwrap().into_iter().map(|found| found.slug).collect()
    };
    assert_eq!(slugs(&mut tx, None, 9).await, ["new", "search"]);
    assert_eq!(slugs(&mut tx, Some("new"), 9).await, ["search"]);
    assert_eq!(slugs(&mut tx, None, 1).await, ["new"]);
    assert_eq!(instance::count(&mut tx, org).await.unwrap(), 1, "without those that are being removed");
    assert_eq!(instance::list_by_toolbox(&mut tx, org, &toolbox).await.unwrap().len(), 2);
    assert_eq!(instance::list_by_toolbox(&mut tx, &two.organization, &toolbox).await.unwrap(), []);
    let class_use = ClassUse { class: ResourceClass::Medium, instances: 2 };
    assert_eq!(toolbox::list_use(&mut tx, org, None).await.unwrap(), [(toolbox.clone(), class_use)]);
    let of_toolbox = toolbox::list_use(&mut tx, org, Some(&toolbox)).await.unwrap();
    assert_eq!(of_toolbox, [(toolbox.clone(), class_use)]);
    assert_eq!(toolbox::list_use(&mut tx, &two.organization, Some(&toolbox)).await.unwrap(), []);
    assert!(!instance::delete(&mut tx, &two.organization, &new.id).await.unwrap());
    assert!(instance::delete(&mut tx, org, &new.id).await.unwrap());
    instance::delete_by_toolbox(&mut tx, &two.organization, &toolbox).await.unwrap();
    assert_eq!(slugs(&mut tx, None, 9).await, ["search"]);
    instance::delete_by_toolbox(&mut tx, org, &toolbox).await.unwrap();
    assert!(slugs(&mut tx, None, 9).await.is_empty());
}

async fn the_state_of_a_rotation_is_kept(TwoWorlds { mut tx, one, two }: TwoWorlds) {
    let org = &one.organization;
    let (secret, id) = (ToolSecretId::from_store("sec_1".into()), InstanceId::from_store("ins_1".into()));
    // The worlds' secrets have version 2, and their instances use version 1.
    assert_eq!(instance::list_rotating_secrets(&mut tx, 9).await.unwrap().len(), 2);
    assert_eq!(instance::list_rotating_secrets(&mut tx, 1).await.unwrap(), [(org.clone(), secret.clone())]);
    let user = async |tx: &mut Tx| instance::list_secret_users(tx, org, &secret).await.unwrap().pop().unwrap();
    let found = user(&mut tx).await;
    assert_eq!((found.instance_id, found.is_outdated, found.is_deploying), (id.clone(), true, false));
    assert_eq!(instance::list_secret_users(&mut tx, &two.organization, &secret).await.unwrap(), []);
    let mut moved = instance::find(&mut tx, org, &id).await.unwrap().unwrap();
    let before = moved.clone();
    (moved.secrets[0].version, moved.generation) = (2, 2);
    instance::update(&mut tx, &moved).await.unwrap();
    instance::replace_secrets(&mut tx, &moved).await.unwrap();
    deployment::insert(&mut tx, &new_deployment(&moved, 2)).await.unwrap();
    let found = user(&mut tx).await;
    assert_eq!((found.is_outdated, found.is_deploying), (false, true));
    // Without a recorded attempt, it is due again after a rollback.
    instance::replace_secrets(&mut tx, &before).await.unwrap();
    assert!(user(&mut tx).await.is_outdated);
    instance::replace_secrets(&mut tx, &moved).await.unwrap();
    instance::mark_rotation_attempted(&mut tx, org, &id).await.unwrap();
    instance::replace_secrets(&mut tx, &before).await.unwrap();
    assert!(!user(&mut tx).await.is_outdated);
    execute(&mut tx, "UPDATE tool_secrets SET version = 3".to_owned()).await;
    assert!(user(&mut tx).await.is_outdated, "after the next rotation");
    execute(&mut tx, "UPDATE instances SET desired = 'stopped'".to_owned()).await;
    assert_eq!(instance::list_rotating_secrets(&mut tx, 9).await.unwrap(), []);
    assert_eq!(instance::list_secret_users(&mut tx, org, &secret).await.unwrap(), []);
}

async fn deployments_are_read_and_written(TwoWorlds { mut tx, one, two }: TwoWorlds) {
    let org = &one.organization;
    let secret_id = ToolSecretId::from_store("sec_1".into());
    let secrets = vec![SecretUse { name: "API_KEY".into(), secret_id, version: 1 }];
    let new = Instance { generation: 3, secrets, ..new_instance(org, "new") };
    instance::insert(&mut tx, &new, "new").await.unwrap();
    let mut all = Vec::new();
    for generation in 1..=3 {
        all.push(new_deployment(&new, generation));
        deployment::insert(&mut tx, &all[all.len() - 1]).await.unwrap();
    }
    let error = DeploymentError {
        step: DeploymentStep::Pulling,
        code: ErrorCode::ImageNotFound,
        cause: "There is no such image.".into(),
        next_action: "Check the digest.".into(),
    };
    (all[1].state, all[1].step) = (DeploymentState::RolledBack, DeploymentStep::Pulling);
    (all[1].error, all[1].ended_at) = (Some(error), Some(NOW.plus(1)));
    deployment::update(&mut tx, &all[1]).await.unwrap();
    deployment::update(&mut tx, &Deployment { organization_id: two.organization.clone(), ..all[0].clone() })
        .await
        .unwrap();
    let id = &new.id;
    assert_eq!(deployment::find(&mut tx, org, id, &all[1].id).await.unwrap(), Some(all[1].clone()));
    assert_eq!(deployment::find(&mut tx, &two.organization, id, &all[1].id).await.unwrap(), None);
    let other = InstanceId::from_store("ins_1".into());
    assert_eq!(deployment::find(&mut tx, org, &other, &all[1].id).await.unwrap(), None);
    assert_eq!(deployment::find_by_generation(&mut tx, org, id, 1).await.unwrap(), Some(all[0].clone()));
    assert_eq!(deployment::find_by_generation(&mut tx, &two.organization, id, 1).await.unwrap(), None);
    let newest: Vec<_> = all.iter().rev().cloned().collect();
    assert_eq!(deployment::list(&mut tx, org, id, None, 9).await.unwrap(), newest);
    assert_eq!(deployment::list(&mut tx, org, id, Some(3), 1).await.unwrap(), newest[1..2]);
    assert_eq!(deployment::list(&mut tx, &two.organization, id, None, 9).await.unwrap(), []);
    let current = deployment::list_current(&mut tx, org, &[id, &other]).await.unwrap();
    assert_eq!(current.iter().filter(|found| found.instance_id == *id).collect::<Vec<_>>(), [&all[2]]);
    assert_eq!(current.len(), 2);
    assert_eq!(deployment::list_current(&mut tx, &two.organization, &[id]).await.unwrap(), []);
    deployment::prune(&mut tx, org, id, 1, 1).await.unwrap();
    let kept: Vec<_> =
        deployment::list(&mut tx, org, id, None, 9).await.unwrap().iter().map(|found| found.generation).collect();
    assert_eq!(kept, [3, 1], "the newest and the serving one");
}

async fn deployments_on_offline_toolboxes_are_found(TwoWorlds { mut tx, one, two }: TwoWorlds) {
    for fixture in [&one, &two] {
        let new =
            new_instance(&fixture.organization, &format!("new{}", fixture.organization.as_str().replace('_', "")));
        instance::insert(&mut tx, &new, &new.slug).await.unwrap();
        deployment::insert(&mut tx, &new_deployment(&new, 1)).await.unwrap();
    }
    execute(&mut tx, format!("UPDATE toolboxes SET last_seen_at = {} WHERE id = 'tbx_2'", NOW.0 + 5)).await;
    execute(&mut tx, "UPDATE toolboxes SET last_seen_at = NULL WHERE id = 'tbx_1'".to_owned()).await;
    assert_eq!(deployment::list_offline(&mut tx, NOW, 9).await.unwrap(), [], "it has just started");
    let found = deployment::list_offline(&mut tx, NOW.plus(1), 9).await.unwrap();
    let ids: Vec<_> = found.iter().map(|found| (found.toolbox_id.as_str(), found.instance_id.as_str())).collect();
    assert_eq!(ids, [("tbx_1", "ins_neworg1")]);
    assert_eq!(deployment::list_offline(&mut tx, NOW.plus(9), 9).await.unwrap().len(), 2);
    assert_eq!(deployment::list_offline(&mut tx, NOW.plus(9), 1).await.unwrap().len(), 1);
}

async fn events_are_bounded(TwoWorlds { mut tx, one, two }: TwoWorlds) {
    let org = &one.organization;
    let id = InstanceId::from_store("ins_1".into());
    let event = |n: i64| InstanceEvent {
        id: InstanceEventId::from_store(format!("iev_x{n}")),
        organization_id: org.clone(),
        instance_id: id.clone(),
        kind: InstanceEventKind::Crashed,
        message: format!("{n}"),
        created_at: NOW.plus(n),
    };
    for n in 1..=5 {
        instance_event::insert(&mut tx, &event(n), 3).await.unwrap();
    }
    let all = instance_event::list(&mut tx, org, &id, None, 9).await.unwrap();
    assert_eq!(all, [event(5), event(4), event(3)]);
    assert_eq!(instance_event::list(&mut tx, org, &id, Some(&event(5).id), 1).await.unwrap(), [event(4)]);
    assert_eq!(instance_event::list(&mut tx, &two.organization, &id, None, 9).await.unwrap(), []);
    let other = InstanceId::from_store("ins_2".into());
    let others = instance_event::list(&mut tx, &two.organization, &other, None, 9).await.unwrap();
    assert_eq!(others.len(), 1, "those of other instances are kept");
}

async fn sources_are_read(TwoWorlds { mut tx, one, two }: TwoWorlds) {
    let (org, other) = (&one.organization, &two.organization);
    let version = waypost_core::id::CatalogVersionId::from_store("ctv_1".into());
    let found = instance_source::find(&mut tx, org, &version).await.unwrap().unwrap();
    assert_eq!((found.entry_slug.as_str(), found.entry_name.as_str()), ("search", "Search"));
    assert_eq!(found.version.definition.registry_secret.as_deref(), Some("REGISTRY"));
    assert_eq!(instance_source::find(&mut tx, other, &version).await.unwrap(), None);
    let (mine, theirs) = (ToolSecretId::from_store("sec_1".into()), ToolSecretId::from_store("sec_2".into()));
    let secrets = instance_source::list_secrets(&mut tx, org, &[&mine, &theirs]).await.unwrap();
    let secrets: Vec<_> = secrets.iter().map(|secret| (secret.id.as_str(), secret.version)).collect();
    assert_eq!(secrets, [("sec_1", 2)]);
    let by_name = instance_source::find_secret_by_name(&mut tx, org, "TOKEN").await.unwrap().unwrap();
    assert_eq!((by_name.id.as_str(), by_name.value.as_str()), ("sec_1", "sealed"));
    assert_eq!(instance_source::find_secret_by_name(&mut tx, org, "OTHER").await.unwrap(), None);
}

waypost_testkit::both!(two_worlds =>
    toolboxes_are_read_and_written,
    a_token_works_once_and_only_in_time,
    a_token_is_renewed_until_the_first_heartbeat,
    hashes_of_expired_tokens_are_deleted,
    missing_heartbeats_are_found_once,
    instances_are_read_and_written,
    the_state_of_a_rotation_is_kept,
    deployments_are_read_and_written,
    deployments_on_offline_toolboxes_are_found,
    events_are_bounded,
    sources_are_read,
);
