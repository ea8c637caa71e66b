use std::collections::BTreeMap;
use std::time::Duration;

use waypost_toolbox_proto::desired::SecretMount;
use waypost_toolbox_proto::message::{DeploymentOutcome, InstanceSecrets, RegistryCredentials, ToolboxEvent};
use waypost_toolbox_proto::{
    DeploymentError, DeploymentStep, ErrorCode, InstanceSpec, InstanceState, ResourceClass, SecretDelivery, Sharing,
    Transport, Volume,
};

use super::engine::{Behaviour, Fault};
use super::fakes::{Daemon, spec, with_volume};
use crate::reconcile::Resources;

/// A way in which a deployment fails: the behaviour of the server, a fault of the engine, and the error.
type Case = (Option<Behaviour>, Option<Fault>, DeploymentStep, ErrorCode);

fn cases() -> Vec<Case> {
    use DeploymentStep::{Checking, Preparing, Pulling, Starting};
    let server = |behaviour, code| (Some(behaviour), None, Checking, code);
    let engine = |operation, code, step| (None, Some((operation, code)), step, code);
    vec![
        server(Behaviour::Exits, ErrorCode::Exited),
        server(Behaviour::OutOfMemory, ErrorCode::Exited),
        server(Behaviour::NotMcp, ErrorCode::NoMcp),
        server(Behaviour::NoTools, ErrorCode::NoMcp),
        server(Behaviour::NeverAnswers, ErrorCode::HealthTimeout),
        engine("prepare", ErrorCode::DiskFull, Preparing),
        engine("pull", ErrorCode::ImageNotFound, Pulling),
        engine("pull", ErrorCode::ImageDenied, Pulling),
        engine("pull", ErrorCode::ArchitectureMismatch, Pulling),
        engine("pull", ErrorCode::DiskFull, Pulling),
        engine("start", ErrorCode::StartFailed, Starting),
    ]
}

fn prepare(daemon: &Daemon, image: &str, (behaviour, fault, ..): &Case) {
    if let Some(behaviour) = behaviour {
        daemon.behave(image, *behaviour);
    }
    // An image that does not fit is pulled twice.
    let count = if *fault == Some(("pull", ErrorCode::DiskFull)) { 2 } else { 1 };
    daemon.engine.state().faults.extend(fault.iter().flat_map(|fault| std::iter::repeat_n(*fault, count)));
}

fn error(outcome: DeploymentOutcome) -> DeploymentError {
    match outcome {
        DeploymentOutcome::Complete => panic!("the deployment is complete"),
        DeploymentOutcome::Failed { error } | DeploymentOutcome::RolledBack { error } => error,
    }
}

fn with_secret(image: &str) -> InstanceSpec {
    let secret = SecretMount {
        name: "TOKEN".into(),
        delivery: SecretDelivery::File,
        version: 1,
        personal: false,
        optional: false,
    };
    InstanceSpec { secrets: vec![secret], ..spec(image) }
}

fn secrets(name: &str, value: &str) -> InstanceSecrets {
    InstanceSecrets { values: BTreeMap::from([(name.to_owned(), value.to_owned())]), ..InstanceSecrets::default() }
}

#[tokio::test(start_paused = true)]
async fn a_deployment_reports_its_steps_and_completes() {
    let mut daemon = Daemon::new();
    daemon.add("ins_1", spec("good"));
    assert_eq!(daemon.outcome("dep_ins_1_1").await, DeploymentOutcome::Complete);
    let steps: Vec<_> = {
        let events = daemon.control.events.lock().unwrap();
        let steps = events.iter().filter_map(|event| match event {
            ToolboxEvent::DeploymentStep { step, .. } => Some(*step),
            _ => None,
        });
        steps.collect()
    };
    assert_eq!(steps, DeploymentStep::ALL);
    assert_eq!(daemon.states("ins_1"), [InstanceState::Deploying, InstanceState::Running]);
    let report = daemon.report("ins_1").unwrap();
    assert_eq!((report.generation, report.health.map(|health| health.ok)), (1, Some(true)));
    assert_eq!(daemon.call("ins_1", None).await.unwrap(), "con1");
    daemon.stop().await;
    assert_eq!(daemon.engine.running(), ["con1"], "containers keep running");
}

#[tokio::test(start_paused = true)]
async fn a_failed_first_deployment_leaves_nothing_behind() {
    for volumes in [false, true] {
        for case in cases() {
            let daemon = Daemon::new();
            prepare(&daemon, "bad", &case);
            daemon.add("ins_1", if volumes { with_volume("bad") } else { spec("bad") });
            let before = tokio::time::Instant::now();
            let outcome = daemon.outcome("dep_ins_1_1").await;
            assert!(matches!(outcome, DeploymentOutcome::Failed { .. }), "{case:?} {outcome:?}");
            assert!(before.elapsed() < Duration::from_secs(70), "{case:?}");
            let error = error(outcome);
            assert_eq!((error.step, error.code), (case.2, case.3), "{error:?}");
            assert!(error.cause.ends_with('.'), "{error:?}");
            assert!(!error.next_action.is_empty());
            assert!(daemon.engine.is_empty(), "{case:?}");
            assert_eq!(daemon.supervisor.allocated(), Resources::default());
            assert_eq!(daemon.state("ins_1"), Some(InstanceState::Failed));
            // The deployment is not retried.
            let starts = daemon.engine.state().log.len();
            tokio::time::sleep(Duration::from_secs(3_600)).await;
            assert_eq!(daemon.engine.state().log.len(), starts);
            assert_eq!(daemon.outcomes("dep_ins_1_1").len(), 1);
            assert_eq!(daemon.call("ins_1", None).await.unwrap_err().status, 409);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_upgrade_is_rolled_back() {
    for volumes in [false, true] {
        for case in cases() {
            let make = |image| if volumes { with_volume(image) } else { spec(image) };
            let daemon = Daemon::new();
            daemon.add("ins_1", make("good"));
            daemon.outcome("dep_ins_1_1").await;
            prepare(&daemon, "bad", &case);
            daemon.upgrade("ins_1", make("bad"));
            let outcome = daemon.outcome("dep_ins_1_2").await;
            assert!(matches!(outcome, DeploymentOutcome::RolledBack { .. }), "{case:?} {outcome:?}");
            let error = error(outcome);
            assert_eq!((error.step, error.code), (case.2, case.3), "{error:?}");
            let report = daemon.report("ins_1").unwrap();
            assert_eq!((report.state, report.generation), (InstanceState::Running, 1), "{case:?}");
            let running = daemon.engine.running();
            assert_eq!(running.len(), 1, "{case:?}");
            assert_eq!(running[0] == "con1", !volumes, "only an instance with volumes is stopped first: {case:?}");
            assert_eq!(daemon.engine.state().containers.len(), 1, "{case:?}");
            assert_eq!(daemon.engine.state().volumes.len(), usize::from(volumes), "volumes are kept");
            assert_eq!(daemon.call("ins_1", None).await.unwrap(), running[0]);
            // The control plane restores the specification. Nothing happens.
            daemon.edit("ins_1", |instance| instance.spec = make("good"));
            tokio::time::sleep(Duration::from_secs(600)).await;
            assert_eq!(daemon.engine.running(), running, "{case:?}");
            assert_eq!(daemon.outcomes("dep_ins_1_2").len(), 1);
        }
    }
}

fn with_volumes(image: &str, names: &[&str]) -> InstanceSpec {
    let volume = |name: &&str| Volume { name: (*name).to_owned(), path: format!("/{name}") };
    InstanceSpec { volumes: names.iter().map(volume).collect(), ..spec(image) }
}

fn volumes(daemon: &Daemon) -> Vec<String> {
    daemon.engine.state().volumes.keys().map(|(_, name)| name.clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_failed_upgrade_removes_the_volumes_that_it_created() {
    let daemon = Daemon::new();
    daemon.behave("bad", Behaviour::NotMcp);
    daemon.add("ins_1", with_volumes("good", &["data"]));
    daemon.outcome("dep_ins_1_1").await;
    daemon.upgrade("ins_1", with_volumes("bad", &["data", "new"]));
    assert!(matches!(daemon.outcome("dep_ins_1_2").await, DeploymentOutcome::RolledBack { .. }));
    assert_eq!(volumes(&daemon), ["data"], "removed before the outcome is reported");
    // A volume of an earlier version is kept, because it contains files.
    daemon.upgrade("ins_1", with_volumes("good", &["other"]));
    assert_eq!(daemon.outcome("dep_ins_1_3").await, DeploymentOutcome::Complete);
    daemon.upgrade("ins_1", with_volumes("bad", &["data", "new", "other"]));
    assert!(matches!(daemon.outcome("dep_ins_1_4").await, DeploymentOutcome::RolledBack { .. }));
    assert_eq!(volumes(&daemon), ["data", "other"]);
    // A superseded deployment does not leave any volumes behind either.
    daemon.behave("slow", Behaviour::NeverAnswers);
    daemon.upgrade("ins_1", with_volumes("slow", &["new", "other"]));
    daemon.until("created", |daemon| volumes(daemon).len() == 3).await;
    daemon.upgrade("ins_1", with_volumes("good", &["other"]));
    assert_eq!(daemon.outcome("dep_ins_1_6").await, DeploymentOutcome::Complete);
    assert_eq!(volumes(&daemon), ["data", "other"]);
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_cannot_be_removed_does_not_block_the_instance() {
    let daemon = Daemon::new();
    daemon.behave("bad", Behaviour::NotMcp);
    daemon.add("ins_1", spec("good"));
    daemon.outcome("dep_ins_1_1").await;
    for _ in 0..3 {
        daemon.engine.state().faults.push_back(("remove_volumes", ErrorCode::StartFailed));
    }
    daemon.upgrade("ins_1", with_volume("bad"));
    assert!(matches!(daemon.outcome("dep_ins_1_2").await, DeploymentOutcome::RolledBack { .. }));
    assert_eq!(volumes(&daemon), ["data"]);
    daemon.until_state("ins_1", InstanceState::Running).await;
    daemon.remove("ins_1");
    daemon.until("removed", |daemon| daemon.engine.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_stopped_instance_is_not_started_by_a_deployment() {
    let daemon = Daemon::new();
    daemon.add("ins_1", spec("one"));
    daemon.outcome("dep_ins_1_1").await;
    daemon.edit("ins_1", |instance| instance.run = false);
    daemon.until_state("ins_1", InstanceState::Stopped).await;
    daemon.behave("two", Behaviour::NotMcp);
    daemon.upgrade("ins_1", spec("two"));
    assert_eq!(daemon.outcome("dep_ins_1_2").await, DeploymentOutcome::Complete, "accepted, not checked");
    let report = daemon.report("ins_1").unwrap();
    assert_eq!((report.state, report.generation), (InstanceState::Stopped, 2));
    assert!(daemon.engine.running().is_empty());
    daemon.behave("two", Behaviour::Healthy);
    daemon.edit("ins_1", |instance| instance.run = true);
    daemon.until_state("ins_1", InstanceState::Running).await;
    assert_eq!(daemon.engine.state().containers.values().map(|found| found.image.clone()).collect::<Vec<_>>(), ["two"]);
    assert_eq!(daemon.outcomes("dep_ins_1_2").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_switches_when_the_new_container_is_healthy() {
    let daemon = Daemon::new();
    daemon.add("ins_1", spec("one"));
    daemon.outcome("dep_ins_1_1").await;
    daemon.upgrade("ins_1", spec("two"));
    // The old container serves calls until the new one does.
    let mut answers = Vec::new();
    while daemon.outcomes("dep_ins_1_2").is_empty() {
        answers.push(daemon.call("ins_1", None).await.unwrap());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    answers.dedup();
    assert_eq!(answers, ["con1", "con2"]);
    assert_eq!(daemon.engine.running(), ["con2"]);
    assert_eq!(daemon.report("ins_1").unwrap().generation, 2);
    assert!(!daemon.states("ins_1").contains(&InstanceState::Unhealthy));
}

#[tokio::test(start_paused = true)]
async fn an_instance_with_volumes_never_has_two_containers() {
    let daemon = Daemon::new();
    daemon.add("ins_1", with_volume("one"));
    daemon.outcome("dep_ins_1_1").await;
    daemon.upgrade("ins_1", with_volume("two"));
    while daemon.outcomes("dep_ins_1_2").is_empty() {
        assert!(daemon.engine.running().len() <= 1);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(daemon.engine.running(), ["con2"]);
}

#[tokio::test(start_paused = true)]
async fn calls_in_progress_finish_before_the_old_container_stops() {
    let daemon = Daemon::new();
    daemon.add("ins_1", spec("one"));
    daemon.outcome("dep_ins_1_1").await;
    let gate = daemon.servers.gate.acquire_many(1_000).await.unwrap();
    let call = {
        let supervisor = daemon.supervisor.clone();
        crate::tasks::spawn("call", super::fakes::call(supervisor, "ins_1".to_owned(), None))
    };
    tokio::time::sleep(Duration::from_millis(5)).await;
    daemon.upgrade("ins_1", spec("two"));
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(daemon.engine.running(), ["con1", "con2"]);
    drop(gate);
    assert_eq!(call.await.unwrap().unwrap().unwrap(), "con1");
    daemon.outcome("dep_ins_1_2").await;
    assert_eq!(daemon.engine.running(), ["con2"]);
}

#[tokio::test(start_paused = true)]
async fn the_error_quotes_standard_error_with_secrets_masked() {
    let daemon = Daemon::new();
    *daemon.control.secrets.lock().unwrap() = Some(secrets("TOKEN", "hunter2-hunter2"));
    for (index, behaviour) in [Behaviour::Exits, Behaviour::NeverAnswers, Behaviour::NotMcp].into_iter().enumerate() {
        daemon.behave("bad", behaviour);
        let id = format!("ins_{index}");
        daemon.add(&id, with_secret("bad"));
        let error = error(daemon.outcome(&format!("dep_{id}_1")).await);
        assert!(error.cause.contains("starting with [\"[secret]\"]"), "{error:?}");
        assert!(behaviour != Behaviour::Exits || error.cause.contains("code 3"), "{error:?}");
    }
    let lines = daemon.sink.lines.lock().unwrap();
    assert!(lines.len() >= 3 && !lines.iter().any(|line| line.contains("hunter2")), "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn missing_secrets_fail_the_deployment() {
    let daemon = Daemon::new();
    daemon.add("ins_1", with_secret("good"));
    let error_1 = error(daemon.outcome("dep_ins_1_1").await);
    assert_eq!((error_1.step, error_1.code), (DeploymentStep::Preparing, ErrorCode::SecretMissing));
    *daemon.control.secrets.lock().unwrap() = Some(secrets("OTHER", "value"));
    daemon.add("ins_2", with_secret("good"));
    let error_2 = error(daemon.outcome("dep_ins_2_1").await);
    assert_eq!(error_2.code, ErrorCode::SecretMissing);
    assert!(error_2.cause.contains("TOKEN"), "{error_2:?}");
    *daemon.control.is_offline.lock().unwrap() = true;
    daemon.add("ins_3", with_secret("good"));
    assert_eq!(error(daemon.outcome("dep_ins_3_1").await).code, ErrorCode::ToolboxOffline);
    assert!(daemon.engine.is_empty());
}

#[tokio::test(start_paused = true)]
async fn images_are_pulled_with_credentials_and_enough_disk_space() {
    let daemon = Daemon::new();
    let registry = RegistryCredentials { username: "robot".into(), password: "hunter2-hunter2".into() };
    *daemon.control.secrets.lock().unwrap() =
        Some(InstanceSecrets { registry: Some(registry.clone()), ..InstanceSecrets::default() });
    daemon.engine.state().disk_free = 1 << 20;
    daemon.add("ins_1", InstanceSpec { registry_credentials: true, ..spec("good") });
    assert_eq!(daemon.outcome("dep_ins_1_1").await, DeploymentOutcome::Complete);
    let state = daemon.engine.state();
    assert_eq!(state.pulled, [Some(registry)]);
    assert_eq!(state.log[..2], ["remove_unused_images", "pull good"]);
}

#[tokio::test(start_paused = true)]
async fn a_server_over_http_needs_a_port() {
    let daemon = Daemon::new();
    daemon.add("ins_1", InstanceSpec { transport: Transport::StreamableHttp, ..spec("good") });
    assert_eq!(error(daemon.outcome("dep_ins_1_1").await).code, ErrorCode::ConfigInvalid);
    let transport = Transport::StreamableHttp;
    daemon.add("ins_2", InstanceSpec { transport, port: Some(8080), ..spec("good") });
    assert_eq!(daemon.outcome("dep_ins_2_1").await, DeploymentOutcome::Complete);
}

#[tokio::test(start_paused = true)]
async fn a_newer_generation_interrupts_a_deployment() {
    let daemon = Daemon::new();
    daemon.behave("slow", Behaviour::NeverAnswers);
    daemon.add("ins_1", spec("slow"));
    tokio::time::sleep(Duration::from_secs(5)).await;
    daemon.upgrade("ins_1", spec("good"));
    assert_eq!(daemon.outcome("dep_ins_1_2").await, DeploymentOutcome::Complete);
    let interrupted = daemon.outcomes("dep_ins_1_1");
    assert_eq!(interrupted.len(), 1);
    assert_eq!(error(interrupted[0].clone()).code, ErrorCode::Interrupted);
    assert_eq!(daemon.engine.running(), ["con2"]);
}

#[tokio::test(start_paused = true)]
async fn a_rotated_secret_replaces_the_container_without_a_deployment() {
    let daemon = Daemon::new();
    *daemon.control.secrets.lock().unwrap() = Some(secrets("TOKEN", "old-value"));
    daemon.add("ins_1", with_secret("good"));
    daemon.outcome("dep_ins_1_1").await;
    let events = daemon.control.events.lock().unwrap().len();
    // The new value does not work, so the old container is kept.
    daemon.engine.state().faults.push_back(("connect", ErrorCode::StartFailed));
    daemon.behave("good", Behaviour::NotMcp);
    daemon.edit("ins_1", |instance| instance.spec.secrets[0].version = 2);
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(daemon.engine.running(), ["con1"]);
    daemon.behave("good", Behaviour::Healthy);
    *daemon.control.secrets.lock().unwrap() = Some(secrets("TOKEN", "new-value"));
    daemon.edit("ins_1", |instance| instance.spec.secrets[0].version = 3);
    daemon.until("replaced", |daemon| daemon.engine.running() == ["con3"]).await;
    assert_eq!(daemon.engine.state().containers["con3"].secrets["TOKEN"], "new-value");
    assert_eq!(daemon.control.events.lock().unwrap().len(), events, "the state did not change");
}

#[tokio::test(start_paused = true)]
async fn stop_start_and_restart_are_idempotent() {
    let daemon = Daemon::new();
    daemon.add("ins_1", spec("good"));
    daemon.outcome("dep_ins_1_1").await;
    for _ in 0..2 {
        daemon.edit("ins_1", |instance| instance.run = false);
        daemon.until_state("ins_1", InstanceState::Stopped).await;
        assert!(daemon.engine.state().containers.is_empty());
        assert_eq!(daemon.call("ins_1", None).await.unwrap_err().status, 409);
    }
    for _ in 0..2 {
        daemon.edit("ins_1", |instance| instance.run = true);
        daemon.until_state("ins_1", InstanceState::Running).await;
        assert_eq!(daemon.engine.running(), ["con2"]);
    }
    daemon.edit("ins_1", |instance| instance.restarts = 5);
    daemon.until("restarted", |daemon| daemon.engine.running() == ["con3"]).await;
    daemon.until_state("ins_1", InstanceState::Running).await;
    assert_eq!(daemon.crashes(), 0);
    assert!(!daemon.states("ins_1").contains(&InstanceState::Unhealthy));
    // A new generation of a stopped instance is used at its next start.
    daemon.edit("ins_1", |instance| instance.run = false);
    daemon.upgrade("ins_1", spec("new"));
    assert_eq!(daemon.outcome("dep_ins_1_2").await, DeploymentOutcome::Complete);
    assert!(daemon.engine.state().containers.is_empty());
    daemon.edit("ins_1", |instance| instance.run = true);
    daemon.until_state("ins_1", InstanceState::Running).await;
    assert!(daemon.engine.state().log.contains(&"start con4 new".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn the_grace_period_ends_a_server_that_ignores_the_signal() {
    let daemon = Daemon::new();
    daemon.add("ins_1", spec("good"));
    daemon.outcome("dep_ins_1_1").await;
    daemon.engine.state().stop_delay = Duration::from_secs(3_600);
    let before = tokio::time::Instant::now();
    daemon.edit("ins_1", |instance| instance.run = false);
    daemon.until_state("ins_1", InstanceState::Stopped).await;
    assert!((Duration::from_secs(30)..Duration::from_secs(31)).contains(&before.elapsed()));
}

#[tokio::test(start_paused = true)]
async fn removing_leaves_nothing() {
    for volumes in [false, true] {
        for delay in [0, 15, 40, 60, 75, 100, 3_000] {
            let daemon = Daemon::new();
            daemon.until("connected", |daemon| daemon.supervisor.machine().is_some()).await;
            daemon.add("ins_1", if volumes { with_volume("good") } else { spec("good") });
            tokio::time::sleep(Duration::from_millis(delay)).await;
            daemon.remove("ins_1");
            daemon.until("removed", |daemon| daemon.supervisor.reports().is_empty()).await;
            assert!(daemon.engine.is_empty(), "{delay}");
            assert_eq!(daemon.supervisor.allocated(), Resources::default());
            assert!(!daemon.dir.path().join("instances/ins_1").exists());
            let events = daemon.control.events.lock().unwrap();
            let removed = events.iter().filter(|event| matches!(event, ToolboxEvent::Removed { .. })).count();
            assert!(removed <= 1 && (removed == 1 || delay == 0), "{delay} {events:?}");
            assert!(daemon.sink.open.lock().unwrap().is_empty());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_deployment_per_key_is_checked_with_a_container_that_is_removed() {
    let daemon = Daemon::new();
    daemon.add("ins_1", InstanceSpec { sharing: Sharing::PerSession, ..spec("good") });
    assert_eq!(daemon.outcome("dep_ins_1_1").await, DeploymentOutcome::Complete);
    assert!(daemon.engine.state().containers.is_empty());
    assert_eq!(daemon.state("ins_1"), Some(InstanceState::Idle));
    assert_eq!(daemon.call("ins_1", None).await.unwrap_err().status, 409);
    assert_eq!(daemon.call("ins_1", Some("ses_1")).await.unwrap(), "con2");
    daemon.upgrade("ins_1", InstanceSpec { sharing: Sharing::PerSession, ..spec("better") });
    daemon.outcome("dep_ins_1_2").await;
    assert!(daemon.engine.running().is_empty());
    assert_eq!(daemon.call("ins_1", Some("ses_1")).await.unwrap(), "con4");
}

#[tokio::test(start_paused = true)]
async fn the_budget_is_exact_under_concurrency() {
    let daemon = Daemon::new();
    let capacity = Resources { memory_bytes: 4 * ResourceClass::Medium.memory_bytes(), millicpus: 64_000 };
    daemon.engine.state().capacity = capacity;
    daemon.add("ins_first", spec("good"));
    daemon.outcome("dep_ins_first_1").await;
    daemon.remove("ins_first");
    daemon.until("removed", |daemon| daemon.supervisor.reports().is_empty()).await;
    daemon.change(|instances| {
        for index in 0..20 {
            instances.push(waypost_toolbox_proto::DesiredInstance {
                id: format!("ins_{index}"),
                slug: format!("s{index}"),
                generation: 1,
                deployment_id: format!("dep_{index}"),
                run: true,
                restarts: 0,
                spec: InstanceSpec { resources: ResourceClass::Medium, ..spec("good") },
            });
        }
    });
    let mut complete = 0;
    for index in 0..20 {
        match daemon.outcome(&format!("dep_{index}")).await {
            DeploymentOutcome::Complete => complete += 1,
            outcome => assert_eq!(error(outcome).code, ErrorCode::NoCapacity),
        }
    }
    // A quarter of a GiB is reserved for the machine.
    assert_eq!(complete, 3);
    assert_eq!(daemon.engine.state().peak.memory_bytes, 3 * ResourceClass::Medium.memory_bytes());
    // An upgrade needs resources for both containers.
    let id = daemon.supervisor.reports().into_iter().find(|report| report.state == InstanceState::Running).unwrap().id;
    daemon.edit(&id, |instance| {
        instance.generation = 2;
        instance.deployment_id = "dep_upgrade".into();
        instance.spec = InstanceSpec { resources: ResourceClass::Medium, ..spec("new") };
    });
    let outcome = daemon.outcome("dep_upgrade").await;
    assert!(matches!(outcome, DeploymentOutcome::RolledBack { .. }));
    assert_eq!(error(outcome).code, ErrorCode::NoCapacity);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_exits_without_initialize_is_started_once_more() {
    let daemon = Daemon::new();
    daemon.behave("old", Behaviour::NeedsInitialize);
    daemon.add("ins_1", spec("old"));
    assert_eq!(daemon.outcome("dep_ins_1_1").await, DeploymentOutcome::Complete);
    assert_eq!((daemon.engine.running(), daemon.crashes()), (vec!["con2".to_owned()], 0));
    // It is started once more only.
    daemon.servers.always_restart.store(true, std::sync::atomic::Ordering::Relaxed);
    daemon.add("ins_2", spec("old"));
    assert_eq!(error(daemon.outcome("dep_ins_2_1").await).code, ErrorCode::NoMcp);
    assert_eq!(daemon.engine.state().log.iter().filter(|line| line.starts_with("start")).count(), 4);
}
