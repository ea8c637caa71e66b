use std::time::Duration;

use tokio::time::{sleep, timeout};
use waypost_toolbox_proto::message::DeploymentOutcome;
use waypost_toolbox_proto::{ErrorCode, InstanceSpec, InstanceState, Sharing, Volume};

use super::engine::Behaviour;
use super::fakes::{Daemon, spec, with_volume};
use crate::reconcile::Resources;

async fn running(spec: InstanceSpec) -> Daemon {
    let daemon = Daemon::new();
    daemon.add("ins_1", spec);
    daemon.outcome("dep_ins_1_1").await;
    daemon
}

/// Waits until the instance is running, and checks that exactly one container, with this image, exists and serves
/// calls.
async fn check_running(daemon: &Daemon, image: &str) {
    daemon.until_state("ins_1", InstanceState::Running).await;
    daemon.until("one container", |daemon| daemon.engine.state().containers.len() == 1).await;
    let container = daemon.call("ins_1", None).await.unwrap();
    let state = daemon.engine.state();
    assert_eq!(state.containers[&container].image, image);
    drop(state);
    assert_eq!(daemon.supervisor.allocated(), Resources::of(waypost_toolbox_proto::ResourceClass::Light));
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_the_daemon_keeps_everything() {
    for memory in [true, false] {
        let mut daemon = running(spec("good")).await;
        daemon.stop().await;
        if !memory {
            std::fs::remove_dir_all(daemon.dir.path().join("instances")).unwrap();
        }
        daemon.start();
        check_running(&daemon, "good").await;
        assert_eq!(daemon.engine.running(), ["con1"]);
        let outcomes = daemon.outcomes("dep_ins_1_1");
        assert!(outcomes.iter().all(|outcome| *outcome == DeploymentOutcome::Complete));
        assert_eq!(outcomes.len(), if memory { 1 } else { 2 });
        assert_eq!(daemon.sink.open.lock().unwrap()["con1"], 2, "the egress is opened again");
    }
}

#[tokio::test(start_paused = true)]
async fn containers_per_key_survive_a_restart_of_the_daemon() {
    for memory in [true, false] {
        let mut daemon = running(InstanceSpec { sharing: Sharing::PerAgent, ..spec("good") }).await;
        let containers =
            [daemon.call("ins_1", Some("a")).await.unwrap(), daemon.call("ins_1", Some("b")).await.unwrap()];
        daemon.stop().await;
        if !memory {
            std::fs::remove_dir_all(daemon.dir.path().join("instances")).unwrap();
        }
        daemon.start();
        daemon.until_state("ins_1", InstanceState::Running).await;
        daemon.until("cleaned up", |daemon| daemon.engine.running().len() == 2).await;
        for (key, container) in ["a", "b"].into_iter().zip(containers) {
            assert_eq!(daemon.call("ins_1", Some(key)).await.unwrap(), container);
        }
    }
}

/// The process ID of a container could later be reused for another process.
#[tokio::test(start_paused = true)]
async fn the_network_namespace_of_a_container_is_opened_once() {
    let transport = waypost_toolbox_proto::Transport::StreamableHttp;
    let mut daemon = running(InstanceSpec { transport, port: Some(80), ..spec("good") }).await;
    let opened = |daemon: &Daemon| daemon.engine.state().namespaces["con1"];
    for _ in 0..3 {
        let before = daemon.servers.connections.load(std::sync::atomic::Ordering::Relaxed);
        daemon.engine.cut("con1");
        let connections = |daemon: &Daemon| daemon.servers.connections.load(std::sync::atomic::Ordering::Relaxed);
        daemon.until("connected again", |daemon| connections(daemon) > before).await;
    }
    assert_eq!(opened(&daemon), 1);
    daemon.stop().await;
    daemon.start();
    check_running(&daemon, "good").await;
    assert_eq!(opened(&daemon), 2, "once by each process of the daemon");
}

/// Kills the daemon at every point of a deployment, and starts it again.
#[tokio::test(start_paused = true)]
async fn a_deployment_continues_after_a_kill_at_any_point() {
    for volumes in [false, true] {
        let make = |image: &str| if volumes { with_volume(image) } else { spec(image) };
        let mut kills = 0;
        for after in 1.. {
            let mut daemon = Daemon::new();
            daemon.until("connected", |daemon| daemon.supervisor.machine().is_some()).await;
            let points = daemon.engine.state().points;
            daemon.engine.state().kill_after = Some(points + after);
            daemon.add("ins_1", make("good"));
            let killed = {
                let deadline = Duration::from_secs(100);
                let done = daemon.outcome("dep_ins_1_1");
                tokio::select! {
                    () = daemon.engine.killed.notified() => true,
                    _ = timeout(deadline, done) => false,
                }
            };
            daemon.stop().await;
            kills += usize::from(killed);
            daemon.start();
            check_running(&daemon, "good").await;
            daemon.until("reported", |daemon| !daemon.outcomes("dep_ins_1_1").is_empty()).await;
            assert!(daemon.outcomes("dep_ins_1_1").iter().all(|outcome| *outcome == DeploymentOutcome::Complete));
            // Nothing is left after the removal.
            daemon.remove("ins_1");
            daemon.until("removed", |daemon| daemon.supervisor.reports().is_empty()).await;
            assert!(daemon.engine.is_empty());
            if !killed {
                break;
            }
        }
        assert!(kills >= 8, "{kills}");
    }
}

/// Kills the daemon at every point of an upgrade that fails or succeeds, and starts it again.
#[tokio::test(start_paused = true)]
async fn an_upgrade_continues_after_a_kill_at_any_point() {
    for (volumes, behaviour) in [
        (false, Behaviour::Healthy),
        (false, Behaviour::NotMcp),
        (false, Behaviour::Exits),
        (true, Behaviour::Healthy),
        (true, Behaviour::NotMcp),
        (true, Behaviour::Exits),
    ] {
        let make = |image: &str| if volumes { with_volume(image) } else { spec(image) };
        let mut kills = 0;
        for after in 1.. {
            let mut daemon = running(make("old")).await;
            daemon.behave("new", behaviour);
            let points = daemon.engine.state().points;
            daemon.engine.state().kill_after = Some(points + after);
            let mut new = make("new");
            new.volumes.extend(volumes.then(|| Volume { name: "more".into(), path: "/more".into() }));
            daemon.upgrade("ins_1", new);
            let killed = tokio::select! {
                () = daemon.engine.killed.notified() => true,
                _ = daemon.outcome("dep_ins_1_2") => false,
            };
            daemon.stop().await;
            kills += usize::from(killed);
            daemon.start();
            let outcome = daemon.outcome("dep_ins_1_2").await;
            let image = if behaviour == Behaviour::Healthy { "new" } else { "old" };
            check_running(&daemon, image).await;
            let is_expected = match outcome {
                DeploymentOutcome::Complete => behaviour == Behaviour::Healthy,
                DeploymentOutcome::RolledBack { .. } => behaviour != Behaviour::Healthy,
                DeploymentOutcome::Failed { .. } => false,
            };
            assert!(is_expected, "{outcome:?} {volumes} {behaviour:?} {after}");
            let expected = usize::from(volumes) + usize::from(volumes && behaviour == Behaviour::Healthy);
            assert_eq!(daemon.engine.state().volumes.len(), expected, "{behaviour:?} {after}");
            if !volumes && behaviour != Behaviour::Healthy {
                assert_eq!(daemon.engine.running(), ["con1"], "the old container was never stopped");
            }
            if !killed {
                break;
            }
        }
        assert!(kills >= 8, "{kills}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_removal_continues_after_a_kill_at_any_point() {
    for after in 1.. {
        let mut daemon = running(with_volume("good")).await;
        let points = daemon.engine.state().points;
        daemon.engine.state().kill_after = Some(points + after);
        daemon.remove("ins_1");
        let killed = tokio::select! {
            () = daemon.engine.killed.notified() => true,
            () = daemon.until("removed", |daemon| daemon.supervisor.reports().is_empty()) => false,
        };
        daemon.stop().await;
        daemon.start();
        daemon.until("removed", |daemon| daemon.engine.is_empty()).await;
        daemon.until("no folder", |daemon| !daemon.dir.path().join("instances/ins_1").exists()).await;
        if !killed {
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_restarts_with_its_containers_is_attached_again() {
    let daemon = running(spec("good")).await;
    daemon.engine.go_down(false);
    daemon.until("noticed", |daemon| daemon.supervisor.machine().is_none()).await;
    sleep(Duration::from_secs(30)).await;
    daemon.engine.come_up();
    daemon.until("connected", |daemon| daemon.supervisor.machine().is_some()).await;
    check_running(&daemon, "good").await;
    assert_eq!((daemon.engine.running(), daemon.crashes()), (vec!["con1".to_owned()], 0));
    assert_eq!(daemon.states("ins_1"), [InstanceState::Deploying, InstanceState::Running]);
}

#[tokio::test(start_paused = true)]
async fn containers_that_ended_with_the_engine_are_started_again() {
    for volumes in [false, true] {
        let daemon = running(if volumes { with_volume("good") } else { spec("good") }).await;
        for _ in 0..4 {
            daemon.engine.go_down(true);
            sleep(Duration::from_secs(20)).await;
            daemon.engine.come_up();
            daemon.until("running", |daemon| daemon.engine.running().len() == 1).await;
            check_running(&daemon, "good").await;
        }
        assert_eq!(daemon.crashes(), 0, "the server has not crashed");
        assert!(!daemon.states("ins_1").contains(&InstanceState::CrashLoop));
    }
}

/// Restarts the engine at every point of an upgrade.
#[tokio::test(start_paused = true)]
async fn a_deployment_survives_a_restart_of_the_engine() {
    for (kills, delay) in [false, true].into_iter().flat_map(|kills| (0..20).map(move |step| (kills, step * 7))) {
        let daemon = running(spec("old")).await;
        daemon.upgrade("ins_1", spec("new"));
        sleep(Duration::from_millis(delay)).await;
        daemon.engine.go_down(kills);
        sleep(Duration::from_secs(10)).await;
        daemon.engine.come_up();
        let outcome = daemon.outcome("dep_ins_1_2").await;
        assert_eq!(outcome, DeploymentOutcome::Complete, "{kills} {delay}");
        check_running(&daemon, "new").await;
    }
}

#[tokio::test(start_paused = true)]
async fn without_an_engine_a_deployment_fails_after_a_minute() {
    let daemon = Daemon::new();
    daemon.engine.go_down(false);
    daemon.add("ins_1", spec("good"));
    let DeploymentOutcome::Failed { error } = daemon.outcome("dep_ins_1_1").await else { panic!("it cannot succeed") };
    assert_eq!(error.code, ErrorCode::EngineUnavailable);
    assert_eq!(daemon.state("ins_1"), Some(InstanceState::Failed));
    daemon.engine.come_up();
    daemon.upgrade("ins_1", spec("good"));
    assert_eq!(daemon.outcome("dep_ins_1_2").await, DeploymentOutcome::Complete);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_touched_before_the_desired_state_is_known() {
    let mut daemon = running(spec("good")).await;
    daemon.stop().await;
    daemon.desired = tokio::sync::watch::Sender::new(None);
    daemon.start();
    sleep(Duration::from_secs(600)).await;
    assert_eq!(daemon.engine.running(), ["con1"]);
    // The exit of a container in the meantime is detected later.
    daemon.engine.crash("con1", 1, false);
    sleep(Duration::from_secs(10)).await;
    daemon.add("ins_1", spec("good"));
    check_running(&daemon, "good").await;
    assert_eq!(daemon.engine.running(), ["con2"]);
}

#[tokio::test(start_paused = true)]
async fn an_outdated_desired_state_is_ignored() {
    let daemon = running(spec("good")).await;
    daemon.desired.send_replace(Some(waypost_toolbox_proto::DesiredState::default()));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(daemon.engine.running(), ["con1"]);
}

#[tokio::test(start_paused = true)]
async fn instances_that_are_not_desired_are_removed_at_the_start() {
    let mut daemon = running(with_volume("good")).await;
    daemon.stop().await;
    daemon.change(Vec::clear);
    daemon.start();
    daemon.until("removed", |daemon| daemon.engine.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn the_log_is_withheld_until_the_secrets_are_known() {
    use waypost_toolbox_proto::SecretDelivery;
    use waypost_toolbox_proto::desired::SecretMount;
    use waypost_toolbox_proto::message::InstanceSecrets;

    let secret = SecretMount {
        name: "TOKEN".into(),
        delivery: SecretDelivery::File,
        version: 1,
        personal: false,
        optional: false,
    };
    let daemon = Daemon::new();
    let values = [("TOKEN".to_owned(), "hunter2-hunter2".to_owned())].into();
    *daemon.control.secrets.lock().unwrap() = Some(InstanceSecrets { values, ..InstanceSecrets::default() });
    daemon.add("ins_1", InstanceSpec { secrets: vec![secret], ..spec("good") });
    daemon.outcome("dep_ins_1_1").await;
    let mut daemon = daemon;
    daemon.stop().await;
    let before = daemon.sink.lines.lock().unwrap().len();
    *daemon.control.is_offline.lock().unwrap() = true;
    daemon.start();
    daemon.until_state("ins_1", InstanceState::Running).await;
    assert_eq!(daemon.call("ins_1", None).await.unwrap(), "con1");
    assert_eq!(daemon.sink.lines.lock().unwrap().len(), before, "not written unmasked");
    daemon.stop().await;
    *daemon.control.is_offline.lock().unwrap() = false;
    daemon.start();
    daemon.until("written", |daemon| daemon.sink.lines.lock().unwrap().len() > before).await;
    assert!(!daemon.sink.lines.lock().unwrap().iter().any(|line| line.contains("hunter2")));
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_task_of_an_instance_is_contained() {
    let daemon = running(spec("good")).await;
    daemon.add("ins_2", spec("good"));
    daemon.outcome("dep_ins_2_1").await;
    daemon.sink.panics.store(true, std::sync::atomic::Ordering::Relaxed);
    sleep(Duration::from_secs(60)).await;
    assert!(!daemon.sink.panics.load(std::sync::atomic::Ordering::Relaxed));
    for id in ["ins_1", "ins_2"] {
        daemon.until_state(id, InstanceState::Running).await;
        assert!(daemon.call(id, None).await.is_ok());
    }
    assert_eq!(daemon.engine.running(), ["con1", "con2"], "containers are kept");
    assert_eq!(daemon.supervisor.allocated().millicpus, 1_000);
}

/// Kills the daemon at every point of a first deployment that fails, and starts it again.
#[tokio::test(start_paused = true)]
async fn a_failed_first_deployment_leaves_nothing_after_a_kill_at_any_point() {
    for behaviour in [Behaviour::NotMcp, Behaviour::Exits] {
        for after in 1.. {
            let mut daemon = Daemon::new();
            daemon.behave("bad", behaviour);
            daemon.until("connected", |daemon| daemon.supervisor.machine().is_some()).await;
            let points = daemon.engine.state().points;
            daemon.engine.state().kill_after = Some(points + after);
            daemon.add("ins_1", with_volume("bad"));
            let killed = tokio::select! {
                () = daemon.engine.killed.notified() => true,
                _ = daemon.outcome("dep_ins_1_1") => false,
            };
            daemon.stop().await;
            daemon.start();
            let outcome = daemon.outcome("dep_ins_1_1").await;
            assert!(matches!(outcome, DeploymentOutcome::Failed { .. }), "{outcome:?}");
            daemon.until("nothing is left", |daemon| daemon.engine.is_empty()).await;
            daemon.until_state("ins_1", InstanceState::Failed).await;
            if !killed {
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_check_that_hangs_ends_with_the_engine() {
    let transport = waypost_toolbox_proto::Transport::StreamableHttp;
    let daemon = Daemon::new();
    daemon.behave("slow", Behaviour::NeverAnswers);
    daemon.add("ins_1", InstanceSpec { transport, port: Some(80), ..spec("slow") });
    daemon.until("checking", |daemon| daemon.engine.running().len() == 1).await;
    sleep(Duration::from_secs(5)).await;
    daemon.engine.go_down(true);
    daemon.behave("slow", Behaviour::Healthy);
    sleep(Duration::from_secs(5)).await;
    daemon.engine.come_up();
    assert_eq!(daemon.outcome("dep_ins_1_1").await, DeploymentOutcome::Complete);
    check_running(&daemon, "slow").await;
}

#[tokio::test(start_paused = true)]
async fn a_rollback_ends_even_if_the_old_version_no_longer_starts() {
    let daemon = running(with_volume("old")).await;
    daemon.behave("new", Behaviour::NotMcp);
    daemon.behave("old", Behaviour::Exits);
    daemon.upgrade("ins_1", with_volume("new"));
    let outcome = timeout(Duration::from_secs(60), daemon.outcome("dep_ins_1_2")).await.expect("ends");
    assert!(matches!(outcome, DeploymentOutcome::RolledBack { .. }), "{outcome:?}");
    daemon.until_state("ins_1", InstanceState::CrashLoop).await;
    {
        let state = daemon.engine.state();
        let position = |line: &str| state.log.iter().position(|found| found == line).unwrap();
        assert!(position("stop con2") < position("remove con2"), "it may have been writing");
    }
    daemon.behave("old", Behaviour::Healthy);
    daemon.until_state("ins_1", InstanceState::Running).await;
    assert_eq!(daemon.report("ins_1").unwrap().generation, 1);
}
