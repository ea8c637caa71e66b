//! Reports and events of daemons: they apply once, and to the toolbox's own instances only.

use waypost_core::id::InstanceId;
use waypost_ops::instances::{self, NewInstance};
use waypost_toolbox_proto::instance::{Health, InstanceState};
use waypost_toolbox_proto::message::{DaemonMessage, DeploymentOutcome, InstanceReport, ToolboxEvent};

use crate::fixture::{Fixture, ended, report, secret, set_up, version, with};

waypost_testkit::both!(extended set_up =>
    an_event_is_applied_once,
    a_toolbox_affects_only_its_own_instances,
    state_changes_are_reported,
    a_server_that_flaps_is_reported_once_a_minute,
    crashes_are_recorded_and_bounded,
    rejected_destinations_are_bounded,
    secrets_are_opened_for_the_own_toolbox,
);

fn crashed(id: &InstanceId) -> ToolboxEvent {
    ToolboxEvent::Crashed { instance_id: id.to_string(), exit_code: 137, out_of_memory: true }
}

async fn an_event_is_applied_once(fixture: Fixture) {
    let daemon = fixture.daemon(&fixture.org, "rack").await;
    let id = fixture.create("search").await.instance.id;
    for sequence in [1, 1, 2, 1, 2, 7, 3, 7] {
        daemon.send_numbered(sequence, crashed(&id)).await;
    }
    assert_eq!(fixture.count("SELECT count(*) FROM instance_events").await, 3, "1, 2 and 7");
    assert_eq!(fixture.count("SELECT last_event FROM toolboxes").await, 7);
    // Numbers that the store cannot hold are ignored.
    let answer = daemon.receive(DaemonMessage::Event { sequence: u64::MAX, at: 5, event: crashed(&id) }).await;
    assert_eq!(answer, Some(waypost_toolbox_proto::message::ControlMessage::Acknowledge { sequence: 7 }));
}

async fn a_toolbox_affects_only_its_own_instances(fixture: Fixture) {
    let Fixture { ops, cx, org, other, .. } = &fixture;
    let own = fixture.daemon(org, "own").await;
    let neighbour = fixture.daemon(org, "neighbour").await;
    let stranger = fixture.daemon(other, "stranger").await;
    let new = with(fixture.new_instance("search"), |new| new.toolbox_id = Some(own.id.clone()));
    let view = instances::create(cx, ops, org, &new).await.unwrap();
    let (id, deployment) = (view.instance.id.clone(), view.deployment.clone().unwrap());
    instances::delete(cx, ops, org, &id).await.unwrap();
    let before = fixture.get(&id).await;
    for attacker in [&neighbour, &stranger] {
        attacker.report(&id, 1, InstanceState::Running).await;
        attacker.heartbeat(vec![report(&id, 1, InstanceState::Failed)]).await;
        attacker.send(ended(&deployment, DeploymentOutcome::Complete)).await;
        attacker.send(crashed(&id)).await;
        attacker.send(ToolboxEvent::Removed { instance_id: id.to_string() }).await;
        let destinations = vec!["evil.example:443".to_owned()];
        attacker.send(ToolboxEvent::EgressRejected { instance_id: id.to_string(), destinations }).await;
        assert_eq!(attacker.secrets(&id, 1).await, None);
        // Malformed IDs.
        attacker.send(ToolboxEvent::Removed { instance_id: "../../x".to_owned() }).await;
        attacker.report(&InstanceId::from_store(String::new()), 1, InstanceState::Running).await;
    }
    assert_eq!(fixture.get(&id).await, before);
    assert_eq!(fixture.count("SELECT count(*) FROM instance_events").await, 0);
    // A deployment of another instance of the same toolbox.
    let second = instances::create(cx, ops, org, &NewInstance { slug: "second".into(), ..new }).await.unwrap().instance;
    let foreign = ToolboxEvent::DeploymentEnded {
        deployment_id: deployment.id.to_string(),
        instance_id: second.id.to_string(),
        outcome: DeploymentOutcome::Complete,
    };
    own.send(foreign).await;
    assert_eq!(fixture.instance(&second.id).await, second);
    own.send(ToolboxEvent::Removed { instance_id: id.to_string() }).await;
    assert!(instances::get(cx, ops, org, &id).await.is_err(), "the own toolbox may");
}

async fn state_changes_are_reported(fixture: Fixture) {
    fixture.subscribe().await;
    let daemon = fixture.daemon(&fixture.org, "rack").await;
    let id = fixture.create("search").await.instance.id;
    daemon.complete(&id).await;
    let unhealthy = |checked_at| {
        let message = Some("The server does\u{200b} not\tanswer.".to_owned());
        let health = Some(Health { ok: false, checked_at, latency_ms: None, message });
        InstanceReport { id: id.to_string(), generation: 1, state: InstanceState::Unhealthy, health }
    };
    for checked_at in 1..4 {
        daemon.heartbeat(vec![unhealthy(checked_at)]).await;
    }
    daemon.send(ToolboxEvent::Instance(unhealthy(3))).await;
    let instance = fixture.instance(&id).await;
    assert_eq!(instance.health.as_ref().unwrap().checked_at, 3);
    assert_eq!(instance.health.unwrap().message.as_deref(), Some("The server does not answer."));
    daemon.report(&id, 1, InstanceState::Running).await;
    daemon.report(&id, 1, InstanceState::CrashLoop).await;
    daemon.report(&id, 1, InstanceState::Removing).await;
    daemon.report(&id, 2, InstanceState::Failed).await;
    daemon.report(&id, 9, InstanceState::Running).await;
    assert_eq!(fixture.instance(&id).await.state, InstanceState::CrashLoop, "impossible reports are ignored");
    let expected = ["deployment.complete", "instance.failed", "instance.unhealthy", "upstream.down"];
    assert_eq!(fixture.webhook_events().await, expected, "one for each change, and one within a minute");
    let events = instances::list_events(&fixture.cx, &fixture.ops, &fixture.org, &id, None, 9).await.unwrap();
    let mut messages: Vec<_> = events.iter().map(|event| event.message.as_str()).collect();
    messages.sort_unstable();
    assert_eq!(messages, ["crash_loop", "running", "running", "unhealthy: The server does not answer."]);
    assert!(events.iter().all(|event| event.created_at <= fixture.cx.now()));
}

async fn a_server_that_flaps_is_reported_once_a_minute(fixture: Fixture) {
    fixture.subscribe().await;
    let daemon = fixture.daemon(&fixture.org, "rack").await;
    let id = fixture.create("search").await.instance.id;
    // A server that has never served calls is not down.
    daemon.report(&id, 1, InstanceState::Failed).await;
    let count = || fixture.count("SELECT count(*) FROM webhook_deliveries WHERE event = 'upstream.down'");
    assert_eq!(count().await, 0);
    fixture.clock.advance(60_001);
    for (after_ms, state, expected) in [
        (0, InstanceState::Running, 0),
        (0, InstanceState::Unhealthy, 1),
        (30_000, InstanceState::Unhealthy, 1),
        (0, InstanceState::CrashLoop, 1),
        (0, InstanceState::Running, 1),
        (29_000, InstanceState::Unhealthy, 1),
        (60_001, InstanceState::Running, 1),
        (0, InstanceState::CrashLoop, 2),
        (60_001, InstanceState::Idle, 2),
        (0, InstanceState::Stopped, 2),
        (0, InstanceState::Running, 2),
        (0, InstanceState::Unhealthy, 3),
    ] {
        fixture.clock.advance(after_ms);
        daemon.report(&id, 1, state).await;
        assert_eq!(count().await, expected, "{state} after {after_ms} ms");
    }
    const PAYLOAD: &str = "SELECT payload FROM webhook_deliveries WHERE event = 'upstream.down' ORDER BY id LIMIT 1";
    let payload = fixture.text(PAYLOAD).await;
    let payload: serde_json::Value = serde_json::from_str(&payload).unwrap();
    assert_eq!(
        (&payload["type"], &payload["data"]["instance"]["state"]),
        (&"upstream.down".into(), &"unhealthy".into())
    );
    assert_eq!(payload["data"]["instance"]["id"], id.as_str());
}

async fn crashes_are_recorded_and_bounded(fixture: Fixture) {
    let daemon = fixture.daemon(&fixture.org, "rack").await;
    let id = fixture.create("search").await.instance.id;
    for _ in 0..510 {
        daemon.send(crashed(&id)).await;
    }
    assert_eq!(fixture.count("SELECT count(*) FROM instance_events").await, 500);
    let events = instances::list_events(&fixture.cx, &fixture.ops, &fixture.org, &id, None, 2).await.unwrap();
    let expected = "The container exited with code 137, because it exceeded its memory limit.";
    assert_eq!(events[0].message, expected);
    let older =
        instances::list_events(&fixture.cx, &fixture.ops, &fixture.org, &id, Some(&events[0].id), 1).await.unwrap();
    assert_eq!(older, [events[1].clone()]);
}

async fn rejected_destinations_are_bounded(fixture: Fixture) {
    let daemon = fixture.daemon(&fixture.org, "rack").await;
    let id = fixture.create("search").await.instance.id;
    let send = async |destinations: Vec<String>| {
        daemon.send(ToolboxEvent::EgressRejected { instance_id: id.to_string(), destinations }).await;
    };
    send(vec!["B.example:443".into(), "a.example:80".into(), "b.example:443".into(), "<script>".into()]).await;
    send(vec!["a.example:80".into(), "c.example:1".into()]).await;
    let found = fixture.instance(&id).await.rejected_egress;
    assert_eq!(found, ["b.example:443", "a.example:80", "c.example:1"]);
    send((0..150).map(|n| format!("x{n}.example:443")).collect()).await;
    let found = fixture.instance(&id).await.rejected_egress;
    assert_eq!((found.len(), found[0].as_str(), found[99].as_str()), (100, "b.example:443", "x96.example:443"));
}

async fn secrets_are_opened_for_the_own_toolbox(fixture: Fixture) {
    let Fixture { ops, cx, org, .. } = &fixture;
    let daemon = fixture.daemon(org, "rack").await;
    let id = fixture.create("search").await.instance.id;
    assert_eq!(daemon.secrets(&id, 1).await, Some([("TOKEN".to_owned(), "hunter2".to_owned())].into()));
    assert_eq!(daemon.secrets(&id, 2).await, None, "there is no such generation");
    // With the credentials of a registry.
    fixture.execute(format!("UPDATE tool_secrets SET name = 'REGISTRY' WHERE id = '{}'", secret(1, "SPARE"))).await;
    let new = with(fixture.new_instance("private"), |new| new.catalog_version_id = version(1, 2));
    let private = instances::create(cx, ops, org, &new).await.unwrap().instance.id;
    assert_eq!(daemon.secrets(&private, 1).await, None, "the credentials are malformed");
    fixture.rotate_secret(&secret(1, "SPARE"), "robot:pass:word\n").await;
    let request =
        DaemonMessage::SecretRequest { request: 1, instance_id: private.to_string(), generation: 1, key: None };
    let Some(waypost_toolbox_proto::message::ControlMessage::Secrets { secrets: Some(secrets), .. }) =
        daemon.receive(request).await
    else {
        panic!("secrets are expected")
    };
    let registry = secrets.registry.unwrap();
    assert_eq!((registry.username.as_str(), registry.password.as_str()), ("robot", "pass:word"));
    // A value that the installation's keys do not open.
    fixture.execute(format!("UPDATE tool_secrets SET value = 'x' WHERE id = '{}'", secret(1, "TOKEN"))).await;
    assert_eq!(daemon.secrets(&id, 1).await, None);
}
