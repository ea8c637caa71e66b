use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use waypost_toolbox_proto::{InstanceSpec, InstanceState, Sharing};

use super::engine::Behaviour;
use super::fakes::{Daemon, call, spec, with_volume};
use crate::reconcile::{KeyLimits, Resources};
use crate::supervisor::Settings;

fn lazy(image: &str) -> InstanceSpec {
    InstanceSpec { lazy: true, idle_seconds: Some(60), ..spec(image) }
}

/// Deploys an instance and waits until it is idle.
async fn idle(spec: InstanceSpec) -> Daemon {
    let daemon = Daemon::new();
    daemon.add("ins_1", spec);
    daemon.outcome("dep_ins_1_1").await;
    daemon.until_state("ins_1", InstanceState::Idle).await;
    assert!(daemon.engine.state().containers.is_empty());
    daemon
}

async fn call_often(daemon: &Daemon, count: usize) -> Vec<Result<String, u16>> {
    let calls = (0..count).map(|_| {
        let supervisor = daemon.supervisor.clone();
        crate::tasks::spawn("call", call(supervisor, "ins_1".to_owned(), None))
    });
    let results = join_all(calls).await.into_iter();
    results.map(|result| result.unwrap().unwrap().map_err(|failure| failure.status)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_hundred_first_calls_start_one_container() {
    let daemon = idle(lazy("good")).await;
    let answers = call_often(&daemon, 100).await;
    assert_eq!(answers, vec![Ok("con2".to_owned()); 100]);
    let connections = [&daemon.servers.connections, &daemon.servers.shared_connections];
    let connections = connections.map(|count| count.load(std::sync::atomic::Ordering::Relaxed));
    assert_eq!(connections, [2, 2], "all callers share a container");
    assert_eq!(daemon.engine.running(), ["con2"]);
    assert_eq!(daemon.state("ins_1"), Some(InstanceState::Running));
    // Without calls, the container is stopped after a minute.
    let before = tokio::time::Instant::now();
    daemon.until_state("ins_1", InstanceState::Idle).await;
    assert!((Duration::from_secs(59)..Duration::from_secs(62)).contains(&before.elapsed()));
    assert!(daemon.engine.state().containers.is_empty());
    assert_eq!(daemon.crashes(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_running_call_keeps_a_container() {
    let daemon = idle(lazy("good")).await;
    let gate = daemon.servers.gate.acquire_many(1_000).await.unwrap();
    let supervisor = daemon.supervisor.clone();
    let messages = supervisor.call("ins_1", Bytes::from_static(b"hello"), Duration::from_secs(5).into()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(daemon.engine.running(), ["con2"]);
    // Dropping the messages cancels the call.
    drop(messages);
    assert_eq!(daemon.servers.running_calls.load(std::sync::atomic::Ordering::Relaxed), 0);
    drop(gate);
    daemon.until_state("ins_1", InstanceState::Idle).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_notifications_neither_starts_a_container_nor_keeps_it() {
    let daemon = idle(lazy("good")).await;
    let open = |instance: &'static str| daemon.supervisor.notifications(instance, BTreeSet::new());
    let status = async |instance| open(instance).await.err().map(|failure| failure.status);
    assert_eq!(status("ins_1").await, Some(409));
    assert_eq!(daemon.engine.running(), [""; 0]);
    daemon.call("ins_1", None).await.unwrap();
    let stream = open("ins_1").await.ok().unwrap();
    daemon.until_state("ins_1", InstanceState::Idle).await;
    assert!(daemon.engine.state().containers.is_empty());
    drop(stream);
    // The announcements of an agent's container are not passed on.
    daemon.add("ins_2", InstanceSpec { sharing: Sharing::PerAgent, ..spec("good") });
    daemon.outcome("dep_ins_2_1").await;
    daemon.call("ins_2", Some("a")).await.unwrap();
    assert_eq!((status("ins_2").await, status("ins_3").await), (Some(404), Some(404)));
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_is_not_lazy_sleeps_and_wakes_too() {
    let daemon = idle(InstanceSpec { idle_seconds: Some(60), ..spec("good") }).await;
    assert_eq!(daemon.call("ins_1", None).await.unwrap(), "con2");
    daemon.until_state("ins_1", InstanceState::Idle).await;
    daemon.edit("ins_1", |instance| instance.restarts = 1);
    daemon.until_state("ins_1", InstanceState::Running).await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_lazy_start_answers_every_call() {
    let daemon = idle(lazy("good")).await;
    daemon.behave("good", Behaviour::NotMcp);
    let answers = call_often(&daemon, 50).await;
    assert_eq!(answers, vec![Err(503); 50]);
    daemon.until("removed", |daemon| daemon.engine.state().containers.is_empty()).await;
    daemon.behave("good", Behaviour::Healthy);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(daemon.call("ins_1", None).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn running_and_waiting_calls_are_limited() {
    let settings = Settings { running_calls: 4, waiting_calls: 8, ..Settings::default() };
    let daemon = Daemon::with(settings);
    daemon.add("ins_1", spec("good"));
    daemon.outcome("dep_ins_1_1").await;
    let gate = daemon.servers.gate.acquire_many(1_000).await.unwrap();
    let results = async { call_often(&daemon, 20).await };
    let open = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(daemon.servers.running_calls.load(std::sync::atomic::Ordering::Relaxed), 4);
        drop(gate);
    };
    let (results, ()) = tokio::join!(results, open);
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 12);
    assert_eq!(results.iter().filter(|result| **result == Err(429)).count(), 8);
    // The calls have released their places: as many can run again.
    assert!(call_often(&daemon, 12).await.iter().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_its_caller_does_not_block_other_calls() {
    let daemon = Daemon::with(Settings { running_calls: 1, waiting_calls: 1, ..Settings::default() });
    daemon.add("ins_1", spec("good"));
    daemon.outcome("dep_ins_1_1").await;
    let gate = daemon.servers.gate.acquire_many(1_000).await.unwrap();
    let send = |text: &'static str| {
        let (supervisor, message) = (daemon.supervisor.clone(), Bytes::from_static(text.as_bytes()));
        async move {
            supervisor.call("ins_1", message, Duration::from_secs(1).into()).await.map_err(|failure| failure.status)
        }
    };
    let (asking, running) = (send("ask").await.unwrap(), send("hello").await.unwrap());
    assert_eq!(send("hello").await.err(), Some(504), "it waits for the second call only");
    drop(running);
    assert!(send("hello").await.is_ok());
    drop((asking, gate));
}

#[tokio::test(start_paused = true)]
async fn calls_that_cannot_be_served_have_a_status() {
    let daemon = Daemon::new();
    assert_eq!(daemon.call("ins_1", None).await.unwrap_err().status, 404);
    daemon.behave("slow", Behaviour::NeverAnswers);
    daemon.add("ins_1", spec("slow"));
    daemon.until_state("ins_1", InstanceState::Deploying).await;
    assert_eq!(daemon.call("ins_1", None).await.unwrap_err().status, 503);
    daemon.upgrade("ins_1", lazy("good"));
    daemon.until_state("ins_1", InstanceState::Idle).await;
    daemon.behave("good", Behaviour::NeverAnswers);
    assert_eq!(daemon.call("ins_1", None).await.unwrap_err().status, 504);
}

#[tokio::test(start_paused = true)]
async fn each_key_has_its_own_container_up_to_a_limit() {
    let key_limits = KeyLimits { containers: 3, idle: Duration::from_secs(600) };
    let daemon = Daemon::with(Settings { key_limits, ..Settings::default() });
    daemon.add("ins_1", InstanceSpec { sharing: Sharing::PerAgent, ..spec("good") });
    daemon.outcome("dep_ins_1_1").await;
    let mut containers = Vec::new();
    for key in ["a", "b", "c", "a", "b", "c"] {
        containers.push(daemon.call("ins_1", Some(key)).await.unwrap());
    }
    assert_eq!(containers[..3], containers[3..]);
    assert_eq!(daemon.engine.running().len(), 3);
    assert_eq!(daemon.call("ins_1", Some("d")).await.unwrap_err().status, 503);
    // One of the containers stays in use. The others are removed when they are idle.
    for _ in 0..14 {
        tokio::time::sleep(Duration::from_secs(60)).await;
        daemon.call("ins_1", Some("a")).await.unwrap();
    }
    assert_eq!(daemon.engine.running(), [containers[0].clone()]);
    assert!(daemon.call("ins_1", Some("d")).await.is_ok());
    // A crash of one container does not affect the others.
    daemon.engine.crash(&containers[0], 1, false);
    daemon.until("crashed", |daemon| daemon.crashes() == 1).await;
    assert!(daemon.call("ins_1", Some("d")).await.is_ok());
    assert_ne!(daemon.call("ins_1", Some("a")).await.unwrap(), containers[0]);
    assert_eq!(daemon.servers.shared_connections.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_container_is_replaced_at_the_end_of_its_lifetime() {
    for volumes in [false, true] {
        let base = if volumes { with_volume("good") } else { spec("good") };
        let daemon = Daemon::new();
        daemon.add("ins_1", InstanceSpec { max_lifetime_seconds: Some(600), ..base });
        daemon.outcome("dep_ins_1_1").await;
        tokio::time::sleep(Duration::from_secs(595)).await;
        assert_eq!(daemon.engine.running(), ["con1"]);
        let mut failures = 0;
        for _ in 0..1_000 {
            failures += usize::from(daemon.call("ins_1", None).await.is_err());
            let running = daemon.engine.running().len();
            assert!(running <= 2 && (!volumes || running <= 1));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(failures, 0, "volumes: {volumes}");
        assert_eq!(daemon.engine.running(), ["con2"]);
        assert_eq!(daemon.crashes(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lazy_start_without_budget_is_refused() {
    let daemon = idle(lazy("good")).await;
    // The machine has become smaller. The toolbox detects this when it starts the next container.
    daemon.engine.state().capacity = Resources { memory_bytes: 1 << 20, millicpus: 100 };
    daemon.add("ins_2", spec("good"));
    daemon.outcome("dep_ins_2_1").await;
    assert_eq!(daemon.call("ins_1", None).await.unwrap_err().status, 503);
}
