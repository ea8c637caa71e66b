use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use waypost_toolbox_proto::message::ToolboxEvent;
use waypost_toolbox_proto::{DeploymentStep, InstanceState};

use super::engine::Behaviour;
use super::fakes::{Daemon, Probe, spec};

async fn running() -> Daemon {
    let daemon = Daemon::new();
    daemon.add("ins_1", spec("good"));
    daemon.outcome("dep_ins_1_1").await;
    daemon
}

/// Crashes the container as soon as it serves calls, and returns the time until the next one was started.
async fn crash(daemon: &Daemon) -> Duration {
    daemon.until("ready", |daemon| daemon.engine.running().len() == 1).await;
    let deadline = Instant::now() + Duration::from_secs(1_000);
    while daemon.call("ins_1", None).await.is_err() {
        assert!(Instant::now() < deadline);
        sleep(Duration::from_millis(10)).await;
    }
    let container = daemon.engine.running().remove(0);
    daemon.engine.crash(&container, 1, false);
    let before = Instant::now();
    daemon.until("started again", |daemon| daemon.engine.running().len() == 1).await;
    before.elapsed()
}

#[tokio::test(start_paused = true)]
async fn three_crashes_in_five_minutes_make_a_crash_loop() {
    let daemon = running().await;
    let mut delays = Vec::new();
    for _ in 0..10 {
        delays.push(crash(&daemon).await.as_secs());
    }
    assert_eq!(delays, [0, 0, 5, 10, 20, 40, 80, 160, 300, 300]);
    assert_eq!(daemon.state("ins_1"), Some(InstanceState::CrashLoop));
    assert_eq!(daemon.crashes(), 10);
    // Five healthy minutes end it.
    let before = Instant::now();
    daemon.until_state("ins_1", InstanceState::Running).await;
    assert!((Duration::from_secs(299)..Duration::from_secs(302)).contains(&before.elapsed()), "{:?}", before.elapsed());
    assert_eq!(crash(&daemon).await.as_secs(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_server_is_restarted_at_once_after_crashes_that_are_far_apart() {
    let daemon = running().await;
    for _ in 0..5 {
        sleep(Duration::from_secs(400)).await;
        assert_eq!(crash(&daemon).await.as_secs(), 0);
        daemon.until_state("ins_1", InstanceState::Running).await;
    }
    assert!(!daemon.states("ins_1").contains(&InstanceState::CrashLoop));
}

#[tokio::test(start_paused = true)]
async fn a_restart_ends_a_crash_loop() {
    let daemon = running().await;
    for _ in 0..6 {
        crash(&daemon).await;
    }
    daemon.behave("good", Behaviour::Exits);
    let container = daemon.engine.running().remove(0);
    daemon.engine.crash(&container, 1, false);
    daemon.until("crashed", |daemon| daemon.crashes() == 7).await;
    let failure = daemon.call("ins_1", None).await.unwrap_err();
    assert!(failure.status == 503 && failure.message.contains("starts again in"), "{failure:?}");
    daemon.behave("good", Behaviour::Healthy);
    daemon.edit("ins_1", |instance| instance.restarts += 1);
    let before = Instant::now();
    daemon.until_state("ins_1", InstanceState::Running).await;
    assert!(before.elapsed() < Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_crash_because_of_the_memory_limit_is_reported() {
    let daemon = running().await;
    daemon.engine.crash("con1", 137, true);
    daemon.until("crashed", |daemon| daemon.crashes() == 1).await;
    let expected = ToolboxEvent::Crashed { instance_id: "ins_1".into(), exit_code: 137, out_of_memory: true };
    assert!(daemon.control.events.lock().unwrap().contains(&expected));
}

#[tokio::test(start_paused = true)]
async fn three_failed_probes_make_a_server_unhealthy_and_two_successful_ones_healthy() {
    let daemon = running().await;
    sleep(Duration::from_secs(45)).await;
    let health = daemon.report("ins_1").unwrap().health.unwrap();
    assert_eq!((health.ok, health.latency_ms), (true, Some(3)));
    daemon.servers.probe.send_replace(Probe::Fails);
    let before = Instant::now();
    daemon.until_state("ins_1", InstanceState::Unhealthy).await;
    assert!((Duration::from_secs(60)..=Duration::from_secs(91)).contains(&before.elapsed()));
    let health = daemon.report("ins_1").unwrap().health.unwrap();
    assert_eq!((health.ok, health.message.as_deref()), (false, Some("It failed.")));
    daemon.servers.probe.send_replace(Probe::Ok);
    let before = Instant::now();
    daemon.until_state("ins_1", InstanceState::Running).await;
    assert!((Duration::from_secs(30)..=Duration::from_secs(61)).contains(&before.elapsed()));
    let states = [InstanceState::Deploying, InstanceState::Running, InstanceState::Unhealthy, InstanceState::Running];
    assert_eq!(daemon.states("ins_1"), states);
    assert_eq!(daemon.engine.running(), ["con1"], "an unhealthy server is not restarted");
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_hangs_does_not_block_the_next() {
    let daemon = running().await;
    daemon.servers.probe.send_replace(Probe::Hangs);
    daemon.until_state("ins_1", InstanceState::Unhealthy).await;
    let before = daemon.servers.probes.load(Ordering::Relaxed);
    sleep(Duration::from_secs(300)).await;
    assert_eq!(daemon.servers.probes.load(Ordering::Relaxed) - before, 10);
    assert!(daemon.call("ins_1", None).await.is_ok(), "calls are not blocked either");
    daemon.servers.probe.send_replace(Probe::Ok);
    daemon.until_state("ins_1", InstanceState::Running).await;
}

#[tokio::test(start_paused = true)]
async fn resource_usage_is_sampled_every_30_seconds() {
    let daemon = running().await;
    sleep(Duration::from_secs(300)).await;
    let samples = daemon.sink.samples.lock().unwrap()["con1"];
    assert!((10..=11).contains(&samples), "{samples}");
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_is_opened_again_without_a_restart() {
    let daemon = running().await;
    for _ in 0..3 {
        daemon.engine.cut("con1");
        assert_eq!(daemon.call("ins_1", None).await.unwrap(), "con1");
        sleep(Duration::from_secs(1)).await;
    }
    daemon.engine.cut("con1");
    daemon.until("attached", |daemon| daemon.engine.state().attached["con1"] == 5).await;
    assert_eq!((daemon.engine.running(), daemon.crashes()), (vec!["con1".to_owned()], 0));
    let events = daemon.control.events.lock().unwrap();
    let checks = events
        .iter()
        .filter(|event| matches!(event, ToolboxEvent::DeploymentStep { step: DeploymentStep::Checking, .. }));
    assert_eq!(checks.count(), 1);
}
