//! Creation, placement, changes and removal of instances, and the desired state.

use std::collections::BTreeMap;

use serde_json::json;
use waypost_core::deployment::DeploymentState;
use waypost_core::instance::DesiredRun;
use waypost_core::{Code, Error};
use waypost_link::Directory;
use waypost_ops::instances::{self, InstancePatch, NewInstance};
use waypost_ops::toolboxes;
use waypost_toolbox_proto::deployment::ErrorCode;
use waypost_toolbox_proto::desired::{DesiredInstance, DesiredState};
use waypost_toolbox_proto::instance::InstanceState;
use waypost_toolbox_proto::message::{Capacity, DaemonMessage, DeploymentOutcome, Heartbeat, ToolboxEvent};

use crate::fixture::{Fixture, MIB, code, failure, heartbeat, map, report, secret, set_up, version, with};

waypost_testkit::both!(set_up =>
    the_limit_of_instances_is_exact,
    parallel_instances_do_not_exceed_the_budget,
    of_slugs_that_look_alike_one_is_created,
);

waypost_testkit::both!(extended set_up =>
    a_new_instance_is_deployed,
    invalid_instances_are_rejected,
    instances_are_placed_on_toolboxes_with_room,
    only_changes_of_the_specification_are_deployed,
    a_larger_version_needs_room,
    start_stop_and_restart_are_idempotent,
    a_stopped_instance_is_not_started_by_an_update,
    a_removed_instance_disappears_when_its_toolbox_reports_it,
    a_removed_instance_that_its_toolbox_never_had_disappears,
    instances_are_found_by_slug_name_and_id,
);

async fn desired(fixture: &Fixture, daemon: &crate::fixture::Daemon<'_>) -> DesiredState {
    fixture.directory.desired_state(&daemon.id).await.unwrap().unwrap()
}

async fn desired_instance(fixture: &Fixture, daemon: &crate::fixture::Daemon<'_>) -> DesiredInstance {
    desired(fixture, daemon).await.instances.pop().unwrap()
}

async fn a_new_instance_is_deployed(fixture: Fixture) {
    let daemon = fixture.daemon(&fixture.org, "rack").await;
    let view = fixture.create("search").await;
    let (instance, deployment) = (view.instance, view.deployment.unwrap());
    assert_eq!((instance.state, instance.desired), (InstanceState::Deploying, DesiredRun::Running));
    assert_eq!((instance.name.as_str(), instance.generation, instance.observed_generation), ("Search", 1, 0));
    let desired = desired(&fixture, &daemon).await;
    assert_eq!(desired.revision, 2);
    let expected = json!({
        "id": instance.id, "slug": "search", "generation": 1, "deployment_id": deployment.id, "run": true, "restarts": 0,
        "spec": {
            "image": "registry.example/search@sha256:00", "transport": "stdio", "command": null,
            "args": ["--root=/data"], "port": null, "path": null, "environment": { "ROOT": "/data" },
            "secrets": [{ "name": "TOKEN", "as": "file", "version": 1 }], "registry_credentials": false,
            "resources": "light", "egress": ["api.example:443"], "learn_egress": false, "volumes": [],
            "sharing": "shared", "lazy": false, "idle_seconds": null, "max_lifetime_seconds": null
        }
    });
    assert_eq!(serde_json::to_value(&desired.instances[0]).unwrap(), expected);
    assert_eq!(fixture.get(&instance.id).await.deployment, Some(deployment));
    let listed = instances::list(&fixture.cx, &fixture.ops, &fixture.org, None, 9).await.unwrap();
    assert_eq!(listed, [fixture.get(&instance.id).await]);
    let audited = "SELECT count(*) FROM audit_events WHERE act = 'instance.create' AND detail NOT LIKE '%/data%'";
    assert_eq!(fixture.count(audited).await, 1);
}

async fn invalid_instances_are_rejected(fixture: Fixture) {
    let Fixture { ops, cx, org, .. } = &fixture;
    let error = instances::create(cx, ops, org, &fixture.new_instance("a")).await.unwrap_err();
    assert_eq!((error.code, &error.details["reason"]), (Code::Conflict, &json!("no_capacity")), "no toolbox");
    let _daemon = fixture.daemon(org, "rack").await;
    let valid = || fixture.new_instance("search");
    let secrets = |all: &[(&str, waypost_core::id::ToolSecretId)]| -> BTreeMap<_, _> {
        all.iter().map(|(name, id)| ((*name).to_owned(), id.clone())).collect()
    };
    let token = secret(1, "TOKEN");
    let cases: Vec<(&str, NewInstance)> = vec![
        ("slug", NewInstance { slug: "Search".into(), ..valid() }),
        ("slug", NewInstance { slug: "a--b".into(), ..valid() }),
        ("name", NewInstance { name: Some(" ".into()), ..valid() }),
        ("catalog_version_id", with(valid(), |new| new.catalog_version_id = version(2, 1))),
        ("catalog_version_id", with(valid(), |new| new.catalog_version_id = version(1, 9))),
        ("catalog_version_id", with(valid(), |new| new.catalog_version_id = version(1, 3))),
        ("config", with(valid(), |new| new.config = map(json!({})))),
        ("config", with(valid(), |new| new.config = map(json!({ "root": 1 })))),
        ("config", with(valid(), |new| new.config = map(json!({ "root": "/", "path": "/" })))),
        ("config", with(valid(), |new| new.config = map(json!({ "root": "/", "extra": "x" })))),
        ("secrets", NewInstance { secrets: secrets(&[]), ..valid() }),
        ("secrets", NewInstance { secrets: secrets(&[("TOKEN", token.clone()), ("OTHER", token.clone())]), ..valid() }),
        ("secrets", NewInstance { secrets: secrets(&[("TOKEN", secret(2, "TOKEN"))]), ..valid() }),
        ("secrets", with(valid(), |new| new.catalog_version_id = version(1, 2))),
        ("toolbox_id", with(valid(), |new| new.toolbox_id = Some(waypost_core::id::ToolboxId::new(&*cx.random)))),
    ];
    for (field, new) in cases {
        let error = instances::create(cx, ops, org, &new).await.unwrap_err();
        assert_eq!((error.code, &error.details["field"]), (Code::InvalidArguments, &json!(field)), "{new:?} {error}");
    }
    let mismatch = with(valid(), |new| new.config = map(json!({ "root": ["hunter2"] })));
    let error = instances::create(cx, ops, org, &mismatch).await.unwrap_err();
    assert_eq!(error.details["path"], "config.root");
    assert!(!error.message.contains("hunter2"), "{error}");
    let archived = with(valid(), |new| new.catalog_version_id = version(1, 4));
    assert_eq!(code(instances::create(cx, ops, org, &archived).await), Code::Conflict);
    assert_eq!(fixture.count("SELECT count(*) FROM instances").await, 0);
    assert_eq!(fixture.count("SELECT count(*) FROM deployments").await, 0);
    instances::create(cx, ops, org, &valid()).await.unwrap();
}

fn limit_reached(error: &Error) -> bool {
    error.code == Code::Conflict && error.details["reason"] == "instance_limit"
}

async fn the_limit_of_instances_is_exact(fixture: Fixture) {
    let Fixture { cx, org, .. } = &fixture;
    let ops = fixture.ops.clone().with_instance_limit(4);
    let _daemon = fixture.daemon(org, "rack").await;
    let first = fixture.create("first").await.instance;
    let create = |n: u32| {
        let (cx, ops, org, new) = (cx.clone(), ops.clone(), org.clone(), fixture.new_instance(&format!("new-{n}-x")));
        tokio::spawn(async move { instances::create(&cx, &ops, &org, &new).await.map(|_| ()) })
    };
    // 1 and l look alike, so only digits that look like no other one are used.
    let tasks: Vec<_> = (2..10).map(create).collect();
    let mut created = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(()) => created += 1,
            Err(error) => assert!(limit_reached(&error), "{error:?}"),
        }
    }
    assert_eq!(created, 3);
    // An instance that is being removed does not count.
    instances::delete(cx, &ops, org, &first.id).await.unwrap();
    instances::create(cx, &ops, org, &fixture.new_instance("last")).await.unwrap();
    let error = instances::create(cx, &ops, org, &fixture.new_instance("more")).await.unwrap_err();
    assert!(limit_reached(&error), "{error:?}");
    assert_eq!(error.details["limit"], 4);
}

async fn parallel_instances_do_not_exceed_the_budget(fixture: Fixture) {
    let Fixture { cx, org, .. } = &fixture;
    let ops = fixture.ops.clone().with_instance_limit(100);
    let daemon = fixture.daemon(org, "rack").await;
    // Four times 80% of it are 1.6 CPUs: three light instances.
    let small = Capacity { cpus: 0.5, memory_bytes: 16 * 1024 * MIB, disk_free_bytes: 1 };
    let beat = Heartbeat { capacity: small, ..heartbeat(Vec::new()) };
    daemon.receive(DaemonMessage::Heartbeat(beat)).await;
    let create = |n: u32| {
        let (cx, ops, org, new) = (cx.clone(), ops.clone(), org.clone(), fixture.new_instance(&format!("new-{n}-x")));
        let toolbox = n.is_multiple_of(2).then(|| daemon.id.clone());
        let new = with(new, |new| new.toolbox_id = toolbox);
        tokio::spawn(async move { instances::create(&cx, &ops, &org, &new).await.map(|_| ()) })
    };
    let tasks: Vec<_> = (2..10).map(create).collect();
    let mut created = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(()) => created += 1,
            Err(error) => assert_eq!(error.details["reason"], "no_capacity", "{error:?}"),
        }
    }
    assert_eq!(created, 3);
}

async fn of_slugs_that_look_alike_one_is_created(fixture: Fixture) {
    let Fixture { ops, cx, org, .. } = &fixture;
    let _daemon = fixture.daemon(org, "rack").await;
    let tasks: Vec<_> = ["burn", "bum", "burn"]
        .into_iter()
        .map(|slug| {
            let (cx, ops, org, new) = (cx.clone(), ops.clone(), org.clone(), fixture.new_instance(slug));
            tokio::spawn(async move { instances::create(&cx, &ops, &org, &new).await.map(|_| ()) })
        })
        .collect();
    let mut created = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(()) => created += 1,
            Err(error) => assert_eq!((error.code, &error.details["field"]), (Code::Conflict, &json!("slug"))),
        }
    }
    assert_eq!(created, 1);
    // Another organisation may use the same slug.
    let theirs = fixture.daemon(&fixture.other, "rack").await;
    let secrets = BTreeMap::from([("TOKEN".to_owned(), secret(2, "TOKEN"))]);
    let new =
        NewInstance { secrets, ..with(fixture.new_instance("burn"), |new| new.catalog_version_id = version(2, 1)) };
    let created = instances::create(cx, ops, &fixture.other, &new).await.unwrap();
    assert_eq!(created.instance.toolbox_id(), Some(&theirs.id));
}

async fn instances_are_placed_on_toolboxes_with_room(fixture: Fixture) {
    let Fixture { ops, cx, org, clock, .. } = &fixture;
    let small = fixture.daemon(org, "small").await;
    let large = fixture.daemon(org, "large").await;
    let capacity = |gib: u64| Capacity { cpus: 8.0, memory_bytes: gib * 1024 * MIB, disk_free_bytes: 1 };
    let beat = |gib| DaemonMessage::Heartbeat(Heartbeat { capacity: capacity(gib), ..heartbeat(Vec::new()) });
    small.receive(beat(1)).await;
    large.receive(beat(4)).await;
    assert_eq!(fixture.create("a").await.instance.toolbox_id(), Some(&large.id));
    let chosen = with(fixture.new_instance("b"), |new| new.toolbox_id = Some(small.id.clone()));
    assert_eq!(instances::create(cx, ops, org, &chosen).await.unwrap().instance.toolbox_id(), Some(&small.id));
    let full = with(fixture.new_instance("c"), |new| new.toolbox_id = Some(small.id.clone()));
    let error = instances::create(cx, ops, org, &full).await.unwrap_err();
    assert_eq!(error.details["reason"], "no_capacity");
    assert_eq!(error.details["toolboxes"][0]["reason"], "512 MiB of memory are required, 307 MiB are free");
    clock.advance(4 * crate::fixture::MINUTE);
    small.receive(beat(1)).await;
    let error = instances::create(cx, ops, org, &fixture.new_instance("c")).await.unwrap_err();
    let reasons: Vec<_> = error.details["toolboxes"].as_array().unwrap().iter().map(|found| &found["name"]).collect();
    assert_eq!(reasons, ["large", "small"]);
    assert!(error.message.contains("`large`: its heartbeats are missing"), "{error}");
    // A toolbox without a machine can be chosen, and waits for one.
    let (pending, _) = toolboxes::create(cx, ops, org, "pending").await.unwrap();
    let waiting = with(fixture.new_instance("d"), |new| new.toolbox_id = Some(pending.toolbox.id.clone()));
    let waiting = instances::create(cx, ops, org, &waiting).await.unwrap().instance;
    instances::delete(cx, ops, org, &waiting.id).await.unwrap();
    assert_eq!(code(instances::get(cx, ops, org, &waiting.id).await), Code::NotFound, "removed at once");
    toolboxes::revoke(cx, ops, org, &small.id).await.unwrap();
    assert_eq!(code(instances::create(cx, ops, org, &full).await), Code::Conflict);
}

async fn only_changes_of_the_specification_are_deployed(fixture: Fixture) {
    let Fixture { ops, cx, org, .. } = &fixture;
    let daemon = fixture.daemon(org, "rack").await;
    let id = fixture.create("search").await.instance.id;
    daemon.complete(&id).await;
    let update = async |patch: InstancePatch| instances::update(cx, ops, org, &id, &patch).await;
    let before = desired(&fixture, &daemon).await.revision;
    let renamed = update(InstancePatch { name: Some("Other".into()), ..InstancePatch::default() }).await.unwrap();
    assert_eq!((renamed.instance.name.as_str(), renamed.instance.generation), ("Other", 1));
    let same = InstancePatch {
        config: Some(map(json!({ "root": "/data" }))),
        catalog_version_id: Some(version(1, 1)),
        secrets: Some(fixture.new_instance("x").secrets),
        personal_secrets: Some(Default::default()),
        learn_egress: Some(false),
        record_contents: Some(true),
        name: Some("Other".into()),
        remote: None,
    };
    update(same).await.unwrap();
    update(InstancePatch::default()).await.unwrap();
    assert_eq!(desired(&fixture, &daemon).await.revision, before, "nothing to deploy");
    assert_eq!(fixture.deployments(&id).await.len(), 1);
    let config = map(json!({ "root": "/other" }));
    let changed = update(InstancePatch { config: Some(config), ..InstancePatch::default() }).await.unwrap();
    assert_eq!((changed.instance.generation, changed.instance.observed_generation), (2, 1));
    assert_eq!(changed.instance.state, InstanceState::Running, "the old container serves calls");
    assert_eq!(changed.deployment.unwrap().generation, 2);
    let found = desired(&fixture, &daemon).await;
    assert_eq!(found.revision, before + 1);
    assert_eq!(found.instances[0].spec.args.as_deref(), Some(&["--root=/other".to_owned()][..]));
    let learned = update(InstancePatch { learn_egress: Some(true), ..InstancePatch::default() }).await.unwrap();
    assert_eq!(learned.instance.generation, 3);
    let all = fixture.deployments(&id).await;
    assert_eq!(all[1].error.as_ref().unwrap().code, ErrorCode::Interrupted, "replaced");
    let secrets = BTreeMap::from([("TOKEN".to_owned(), secret(1, "SPARE")), ("EXTRA".to_owned(), secret(1, "TOKEN"))]);
    let changed = update(InstancePatch { secrets: Some(secrets), ..InstancePatch::default() }).await.unwrap();
    assert_eq!(changed.instance.secrets.len(), 2);
    for invalid in [
        InstancePatch { config: Some(map(json!({}))), ..InstancePatch::default() },
        InstancePatch { config: Some(map(json!({ "root": true }))), ..InstancePatch::default() },
        InstancePatch { secrets: Some(BTreeMap::new()), ..InstancePatch::default() },
        InstancePatch { catalog_version_id: Some(version(2, 1)), ..InstancePatch::default() },
        InstancePatch { name: Some(String::new()), ..InstancePatch::default() },
    ] {
        assert_eq!(code(update(invalid).await), Code::InvalidArguments);
    }
    assert_eq!(
        code(update(InstancePatch { catalog_version_id: Some(version(1, 4)), ..InstancePatch::default() }).await),
        Code::Conflict
    );
    let audited = "SELECT count(*) FROM audit_events WHERE act = 'instance.update'";
    assert_eq!(fixture.count(audited).await, 5);
    let audited = "SELECT count(*) FROM audit_events WHERE act = 'instance.record_contents'";
    assert_eq!(fixture.count(audited).await, 1);
}

async fn a_larger_version_needs_room(fixture: Fixture) {
    let Fixture { ops, cx, org, .. } = &fixture;
    let daemon = fixture.daemon(org, "rack").await;
    let id = fixture.create("search").await.instance.id;
    fixture.execute(format!("UPDATE tool_secrets SET name = 'REGISTRY' WHERE id = '{}'", secret(1, "SPARE"))).await;
    let beat = |gib: u64| {
        let capacity = Capacity { cpus: 8.0, memory_bytes: gib * 1024 * MIB, disk_free_bytes: 1 };
        DaemonMessage::Heartbeat(Heartbeat { capacity, ..heartbeat(Vec::new()) })
    };
    let patch = InstancePatch { catalog_version_id: Some(version(1, 2)), ..InstancePatch::default() };
    daemon.receive(beat(2)).await;
    let error = instances::update(cx, ops, org, &id, &patch).await.unwrap_err();
    assert_eq!(error.details["reason"], "no_capacity");
    // 80% of 2.5 GiB are 2 GiB: the instance's own 512 MiB become free.
    daemon.receive(beat(3)).await;
    let updated = instances::update(cx, ops, org, &id, &patch).await.unwrap().instance;
    assert_eq!((updated.generation, updated.state), (2, InstanceState::Deploying));
    assert!(desired_instance(&fixture, &daemon).await.spec.registry_credentials);
}

async fn start_stop_and_restart_are_idempotent(fixture: Fixture) {
    let Fixture { ops, cx, org, .. } = &fixture;
    let daemon = fixture.daemon(org, "rack").await;
    let id = fixture.create("search").await.instance.id;
    daemon.complete(&id).await;
    let before = desired(&fixture, &daemon).await.revision;
    assert_eq!(instances::start(cx, ops, org, &id).await.unwrap().instance.desired, DesiredRun::Running);
    assert_eq!(desired(&fixture, &daemon).await.revision, before, "it is running");
    for _ in 0..2 {
        assert_eq!(instances::stop(cx, ops, org, &id).await.unwrap().instance.desired, DesiredRun::Stopped);
        let found = desired(&fixture, &daemon).await;
        assert_eq!((found.revision, found.instances[0].run), (before + 1, false));
    }
    for _ in 0..2 {
        assert_eq!(instances::start(cx, ops, org, &id).await.unwrap().instance.generation, 1);
        let found = desired(&fixture, &daemon).await;
        assert_eq!((found.revision, found.instances[0].run), (before + 2, true));
    }
    let restarted = instances::restart(cx, ops, org, &id).await.unwrap().instance;
    assert_eq!((restarted.restarts, restarted.generation), (1, 1));
    assert_eq!(desired_instance(&fixture, &daemon).await.restarts, 1);
    instances::stop(cx, ops, org, &id).await.unwrap();
    assert_eq!(instances::restart(cx, ops, org, &id).await.unwrap().instance.desired, DesiredRun::Running);
    let audited =
        "SELECT count(*) FROM audit_events WHERE act IN ('instance.start', 'instance.stop', 'instance.restart')";
    assert_eq!(fixture.count(audited).await, 5);
    // A failed deployment is repeated by a restart.
    let failed = fixture.create("failed").await.instance.id;
    daemon.end(&failed, DeploymentOutcome::Failed { error: failure(ErrorCode::NoMcp) }).await;
    assert_eq!(fixture.instance(&failed).await.state, InstanceState::Failed);
    let again = instances::restart(cx, ops, org, &failed).await.unwrap().instance;
    assert_eq!((again.state, again.generation), (InstanceState::Deploying, 2));
}

async fn a_removed_instance_disappears_when_its_toolbox_reports_it(fixture: Fixture) {
    let Fixture { ops, cx, org, .. } = &fixture;
    let daemon = fixture.daemon(org, "rack").await;
    let id = fixture.create("search").await.instance.id;
    let removed = || ToolboxEvent::Removed { instance_id: id.to_string() };
    daemon.send(removed()).await;
    assert_eq!(fixture.instance(&id).await.state, InstanceState::Deploying, "it should exist");
    for _ in 0..2 {
        instances::delete(cx, ops, org, &id).await.unwrap();
        assert_eq!(fixture.instance(&id).await.state, InstanceState::Removing);
        assert!(desired(&fixture, &daemon).await.instances.is_empty());
    }
    daemon.report(&id, 1, InstanceState::Running).await;
    assert_eq!(fixture.instance(&id).await.state, InstanceState::Removing);
    assert_eq!(daemon.secrets(&id, 1).await, None);
    for outcome in [
        instances::start(cx, ops, org, &id).await,
        instances::stop(cx, ops, org, &id).await,
        instances::restart(cx, ops, org, &id).await,
        instances::update(cx, ops, org, &id, &InstancePatch::default()).await,
    ] {
        assert_eq!(code(outcome), Code::Conflict);
    }
    assert_eq!(fixture.count("SELECT count(*) FROM audit_events WHERE act = 'instance.delete'").await, 1);
    daemon.send(removed()).await;
    assert_eq!(code(instances::get(cx, ops, org, &id).await), Code::NotFound);
    assert_eq!(fixture.count("SELECT count(*) FROM deployments").await, 0);
    // A lost machine: the toolbox is revoked while it removes an instance.
    let lost = fixture.create("lost").await.instance.id;
    instances::delete(cx, ops, org, &lost).await.unwrap();
    toolboxes::revoke(cx, ops, org, &daemon.id).await.unwrap();
    assert_eq!(code(instances::get(cx, ops, org, &lost).await), Code::NotFound);
}

async fn a_stopped_instance_is_not_started_by_an_update(fixture: Fixture) {
    let Fixture { ops, cx, org, .. } = &fixture;
    let daemon = fixture.daemon(org, "rack").await;
    let id = fixture.create("search").await.instance.id;
    daemon.complete(&id).await;
    instances::stop(cx, ops, org, &id).await.unwrap();
    daemon.report(&id, 1, InstanceState::Stopped).await;
    let change = async |root: &str| {
        let patch = InstancePatch { config: Some(map(json!({ "root": root }))), ..InstancePatch::default() };
        instances::update(cx, ops, org, &id, &patch).await.unwrap()
    };
    let changed = change("/two").await;
    assert_eq!((changed.instance.desired, changed.instance.state), (DesiredRun::Stopped, InstanceState::Stopped));
    assert_eq!(changed.deployment.unwrap().state, DeploymentState::Running, "until the toolbox has accepted it");
    let found = desired_instance(&fixture, &daemon).await;
    assert_eq!((found.run, found.generation), (false, 2));
    // In the order in which the daemon reports.
    daemon.report(&id, 2, InstanceState::Stopped).await;
    daemon.end(&id, DeploymentOutcome::Complete).await;
    let view = fixture.get(&id).await;
    assert_eq!(view.deployment.unwrap().state, DeploymentState::Complete);
    assert_eq!((view.instance.state, view.instance.observed_generation), (InstanceState::Stopped, 2));
    // Also if it had failed before.
    instances::start(cx, ops, org, &id).await.unwrap();
    fixture.execute("UPDATE instances SET state = 'failed'".to_owned()).await;
    instances::stop(cx, ops, org, &id).await.unwrap();
    assert_eq!(change("/three").await.instance.state, InstanceState::Deploying);
    daemon.end(&id, DeploymentOutcome::Complete).await;
    assert_eq!(fixture.instance(&id).await.state, InstanceState::Stopped);
    let started = instances::start(cx, ops, org, &id).await.unwrap();
    assert_eq!((started.instance.generation, started.deployment.unwrap().state), (3, DeploymentState::Complete));
    daemon.report(&id, 3, InstanceState::Running).await;
    assert_eq!(fixture.instance(&id).await.state, InstanceState::Running);
}

/// It was created and deleted while the toolbox was offline, so the daemon reports no removal.
async fn a_removed_instance_that_its_toolbox_never_had_disappears(fixture: Fixture) {
    let Fixture { ops, cx, org, .. } = &fixture;
    let daemon = fixture.daemon(org, "rack").await;
    let kept = fixture.create("kept").await.instance.id;
    let removed = fixture.create("removed").await.instance.id;
    instances::delete(cx, ops, org, &removed).await.unwrap();
    let revision = desired(&fixture, &daemon).await.revision;
    let beat = async |beat: Heartbeat| {
        daemon.receive(DaemonMessage::Heartbeat(beat)).await;
        instances::get(cx, ops, org, &removed).await.is_ok()
    };
    let outdated = Heartbeat { desired_revision: revision - 1, ..heartbeat(Vec::new()) };
    assert!(beat(outdated).await, "the daemon has not seen the removal yet");
    let current = |reports| Heartbeat { desired_revision: revision, ..heartbeat(reports) };
    assert!(beat(Heartbeat { engine: None, ..current(Vec::new()) }).await, "the daemon does not know what exists");
    assert!(beat(current(vec![report(&removed, 1, InstanceState::Removing)])).await, "it is being removed");
    assert!(!beat(current(Vec::new())).await);
    assert_eq!(fixture.instance(&kept).await.state, InstanceState::Deploying, "it should exist");
}

async fn instances_are_found_by_slug_name_and_id(fixture: Fixture) {
    let Fixture { ops, cx, org, .. } = &fixture;
    let daemon = fixture.daemon(org, "rack").await;
    let named = |slug: &str, name: &str| NewInstance { name: Some(name.into()), ..fixture.new_instance(slug) };
    let a = instances::create(cx, ops, org, &named("a", "First")).await.unwrap().instance.id;
    instances::create(cx, ops, org, &named("b", "Twin")).await.unwrap();
    instances::create(cx, ops, org, &named("c", "Twin")).await.unwrap();
    for text in ["a", "First", a.as_str()] {
        assert_eq!(instances::resolve(cx, ops, org, text).await.unwrap().instance.id, a, "{text}");
    }
    assert_eq!(code(instances::resolve(cx, ops, org, "Twin").await), Code::Conflict);
    assert_eq!(code(instances::resolve(cx, ops, org, "None").await), Code::NotFound);
    assert_eq!(code(instances::resolve(cx, ops, &fixture.other, a.as_str()).await), Code::NotFound);
    let slugs = async |after, limit| -> Vec<String> {
        let found = instances::list(cx, ops, org, after, limit).await.unwrap();
        found.into_iter().map(|view| view.instance.slug).collect()
    };
    assert_eq!(slugs(None, 2).await, ["a", "b"]);
    assert_eq!(slugs(Some("b"), 2).await, ["c"]);
    assert_eq!(instances::list_by_toolbox(cx, ops, org, &daemon.id).await.unwrap().len(), 3);
    assert_eq!(code(instances::list_by_toolbox(cx, ops, &fixture.other, &daemon.id).await), Code::NotFound);
}
