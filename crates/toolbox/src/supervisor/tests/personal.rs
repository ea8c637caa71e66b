//! Personal secrets: the values of an agent reach only its own container.

use std::time::Duration;

use waypost_toolbox_proto::desired::SecretMount;
use waypost_toolbox_proto::http::agent_key;
use waypost_toolbox_proto::message::{DeploymentOutcome, InstanceSecrets};
use waypost_toolbox_proto::{InstanceSpec, InstanceState, SecretDelivery, Sharing};

use super::fakes::{Daemon, call, spec};
use crate::tasks;

fn mount(name: &str, optional: bool) -> SecretMount {
    SecretMount { name: name.into(), delivery: SecretDelivery::File, version: 0, personal: true, optional }
}

fn personal() -> InstanceSpec {
    let secrets = vec![mount("API_KEY", false), mount("HINT", true)];
    InstanceSpec { secrets, sharing: Sharing::PerAgent, ..spec("good") }
}

/// Sets the values of an agent with which the control plane answers.
fn supply(daemon: &Daemon, agent: &str, version: u64, values: &[(&str, &str)]) {
    let values = values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let secrets = InstanceSecrets { values, registry: None, personal_version: version };
    daemon.control.secrets_of_keys.lock().unwrap().insert(agent_key(agent), secrets);
}

/// Deploys an instance with personal secrets, for which no agent has supplied values.
async fn deployed() -> Daemon {
    let daemon = Daemon::new();
    *daemon.control.secrets.lock().unwrap() = Some(InstanceSecrets::default());
    daemon.add("ins_1", personal());
    assert_eq!(daemon.outcome("dep_ins_1_1").await, DeploymentOutcome::Complete);
    daemon
}

/// Returns the value of the secret in each container, with the agent of the container.
fn values(daemon: &Daemon) -> Vec<(String, Option<String>)> {
    let state = daemon.engine.state();
    let of = |container: &super::engine::FakeContainer| {
        (container.observed.key.clone().unwrap(), container.secrets.get("API_KEY").cloned())
    };
    state.containers.values().map(of).collect()
}

#[tokio::test(start_paused = true)]
async fn a_deployment_is_complete_without_a_container() {
    let daemon = deployed().await;
    daemon.until_state("ins_1", InstanceState::Idle).await;
    assert!(daemon.engine.is_empty());
    let health = daemon.report("ins_1").unwrap().health.unwrap();
    assert!(!health.ok && health.message.unwrap().ends_with("supplied its own values of: API_KEY."));
    supply(&daemon, "agt_1", 1, &[("API_KEY", "one")]);
    daemon.call_with("ins_1", "agent:agt_1", 1).await.unwrap();
    assert_eq!(daemon.state("ins_1"), Some(InstanceState::Running));
    assert!(daemon.report("ins_1").unwrap().health.unwrap().ok);
    // An upgrade is accepted in the same way. It replaces the containers when they are next used.
    daemon.upgrade("ins_1", InstanceSpec { image: "better".into(), ..personal() });
    assert_eq!(daemon.outcome("dep_ins_1_2").await, DeploymentOutcome::Complete);
    assert!(daemon.call_with("ins_1", "agent:agt_1", 1).await.is_ok());
    daemon.until("replaced", |daemon| values(daemon).len() == 1).await;
    assert_eq!(daemon.engine.state().containers.values().next().unwrap().image, "better");
}

#[tokio::test(start_paused = true)]
async fn only_optional_personal_secrets_are_checked_as_usual() {
    let daemon = Daemon::new();
    *daemon.control.secrets.lock().unwrap() = Some(InstanceSecrets::default());
    daemon.add("ins_1", InstanceSpec { secrets: vec![mount("HINT", true)], ..personal() });
    assert_eq!(daemon.outcome("dep_ins_1_1").await, DeploymentOutcome::Complete);
    assert!(
        daemon.engine.state().log.iter().any(|line| line.starts_with("start con1")),
        "a container without an agent"
    );
    assert!(daemon.call_with("ins_1", "agent:agt_1", 0).await.is_ok(), "a value is not needed");
}

/// The value of one agent never reaches the container of another agent, in a long history of new values, calls and
/// crashes.
#[tokio::test(start_paused = true)]
async fn the_value_of_an_agent_reaches_only_its_own_container() {
    let daemon = deployed().await;
    let agents = ["agt_1", "agt_2", "agt_3"];
    let mut versions = [0_u64; 3];
    for step in 0..90_usize {
        let at = (step * 7 + step / 5) % 3;
        let agent = agents[at];
        if step < 3 || step % 4 == 0 {
            // The versions are counted for the instance, so they do not reveal which agent changed a value.
            versions[at] = u64::try_from(step).unwrap() + 1;
            supply(&daemon, agent, versions[at], &[("API_KEY", &format!("{agent} {}", versions[at]))]);
        }
        if step % 11 == 0
            && let Some(container) = daemon.engine.running().first()
        {
            daemon.engine.crash(container, 1, false);
            tokio::time::sleep(Duration::from_secs(400)).await;
        }
        let called = (at + step) % 3;
        if versions[called] == 0 {
            continue;
        }
        let key = agent_key(agents[called]);
        let container = daemon.call_with("ins_1", &key, versions[called]).await.unwrap();
        for (key, value) in values(&daemon) {
            let value = value.unwrap();
            assert_eq!(key, agent_key(value.split_once(' ').unwrap().0), "step {step}");
        }
        let value = daemon.engine.state().containers[&container].secrets["API_KEY"].clone();
        assert_eq!(value, format!("{} {}", agents[called], versions[called]), "the newest value, step {step}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_value_replaces_only_the_container_of_its_agent() {
    let daemon = deployed().await;
    for (agent, version) in [("agt_1", 1), ("agt_2", 2)] {
        supply(&daemon, agent, version, &[("API_KEY", agent)]);
        daemon.call_with("ins_1", &agent_key(agent), version).await.unwrap();
    }
    let first = daemon.call_with("ins_1", "agent:agt_1", 1).await.unwrap();
    let second = daemon.call_with("ins_1", "agent:agt_2", 2).await.unwrap();
    // A running call is not interrupted.
    let gate = daemon.servers.gate.acquire_many(1_000).await.unwrap();
    let running = call(daemon.supervisor.clone(), "ins_1".to_owned(), Some("agent:agt_1".to_owned()));
    let running = tasks::spawn("call", running);
    daemon.until("runs", |daemon| daemon.servers.running_calls.load(std::sync::atomic::Ordering::Relaxed) == 1).await;
    supply(&daemon, "agt_1", 3, &[("API_KEY", "new")]);
    let next = tasks::spawn("call", {
        let supervisor = daemon.supervisor.clone();
        async move { super::fakes::call_with(supervisor, "ins_1".to_owned(), (Some("agent:agt_1".to_owned()), 3)).await }
    });
    daemon.until("started", |daemon| daemon.engine.running().len() == 3).await;
    drop(gate);
    assert_eq!(running.await.unwrap().unwrap().unwrap(), first);
    let replaced = next.await.unwrap().unwrap().unwrap();
    assert_ne!(replaced, first);
    assert_eq!(daemon.engine.state().containers[&replaced].secrets["API_KEY"], "new");
    // Calls with an earlier version, such as those from another replica, use the new container as well.
    assert_eq!(daemon.call_with("ins_1", "agent:agt_1", 1).await.unwrap(), replaced);
    assert_eq!(
        daemon.call_with("ins_1", "agent:agt_2", 2).await.unwrap(),
        second,
        "the other agent keeps its container"
    );
    daemon.until("drained", |daemon| daemon.engine.running().len() == 2).await;
    assert_eq!(daemon.crashes(), 0);
}

/// After the control plane has been restored from a backup, its versions may be lower than before. A call is still
/// served, after a limited number of starts.
#[tokio::test(start_paused = true)]
async fn a_version_that_is_never_reached_does_not_start_containers_forever() {
    let daemon = deployed().await;
    supply(&daemon, "agt_1", 1, &[("API_KEY", "one")]);
    assert!(daemon.call_with("ins_1", "agent:agt_1", 9).await.is_ok());
    let starts = daemon.engine.state().log.iter().filter(|line| line.starts_with("start")).count();
    assert!(starts <= 3, "{starts}");
}

#[tokio::test(start_paused = true)]
async fn a_container_without_a_required_value_does_not_start() {
    let daemon = deployed().await;
    supply(&daemon, "agt_1", 1, &[("HINT", "no key")]);
    for key in ["agent:agt_1", "agent:agt_2", "api:usr_1"] {
        for _ in 0..5 {
            let failure = daemon.call_with("ins_1", key, 1).await.unwrap_err();
            assert_eq!(failure.status, 503);
            assert!(failure.message.contains("API_KEY"), "{}", failure.message);
        }
    }
    assert!(daemon.engine.running().is_empty());
    // Once the value is supplied, the next call does not wait for the end of the pause after failures.
    supply(&daemon, "agt_1", 2, &[("API_KEY", "one")]);
    assert!(daemon.call_with("ins_1", "agent:agt_1", 2).await.is_ok());
    assert!(daemon.call_with("ins_1", "agent:agt_2", 1).await.is_err());
}

/// The log of a container is withheld if its secret values are no longer known.
#[tokio::test(start_paused = true)]
async fn a_restarted_daemon_masks_the_values_in_its_containers() {
    let mut daemon = deployed().await;
    supply(&daemon, "agt_1", 1, &[("API_KEY", "hunter2-hunter2")]);
    let container = daemon.call_with("ins_1", "agent:agt_1", 1).await.unwrap();
    assert_eq!(daemon.engine.state().containers[&container].observed.personal_version, 1);
    daemon.stop().await;
    let before = daemon.sink.lines.lock().unwrap().len();
    // The value was replaced in the meantime, so the value in the container is unknown.
    supply(&daemon, "agt_1", 2, &[("API_KEY", "another")]);
    daemon.start();
    daemon.until_state("ins_1", InstanceState::Running).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(daemon.sink.lines.lock().unwrap().len(), before, "not written unmasked");
    let replaced = daemon.call_with("ins_1", "agent:agt_1", 2).await.unwrap();
    assert_ne!(replaced, container);
    assert_eq!(daemon.engine.state().containers[&replaced].secrets["API_KEY"], "another");
    assert!(!daemon.sink.lines.lock().unwrap().iter().any(|line| line.contains("hunter2")));
}
