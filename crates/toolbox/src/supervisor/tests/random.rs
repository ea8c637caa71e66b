//! Random operations and faults, after which the observed state must be the desired one.

use std::time::Duration;

use proptest::prelude::*;
use tokio::time::sleep;
use waypost_toolbox_proto::{InstanceSpec, InstanceState, Sharing};

use super::engine::Behaviour;
use super::fakes::{Daemon, call, spec, with_volume};
use crate::reconcile::Resources;

#[derive(Debug, Clone)]
enum Operation {
    Add(u8, u8),
    Remove(u8),
    Upgrade(u8, u8),
    Run(u8, bool),
    Restart(u8),
    Rotate(u8),
    Behave(u8, u8),
    Crash(u8),
    Cut(u8),
    Call(u8, u8),
    Sleep(u16),
    Chaos(u8),
    Engine { kills: bool, millis: u16 },
    Daemon,
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation::*;
    prop_oneof![
        4 => (0..4_u8, any::<u8>()).prop_map(|(id, kind)| Add(id, kind)),
        2 => (0..4_u8).prop_map(Remove),
        3 => (0..4_u8, any::<u8>()).prop_map(|(id, kind)| Upgrade(id, kind)),
        3 => (0..4_u8, any::<bool>()).prop_map(|(id, run)| Run(id, run)),
        1 => (0..4_u8).prop_map(Restart),
        1 => (0..4_u8).prop_map(Rotate),
        2 => (0..3_u8, any::<u8>()).prop_map(|(image, kind)| Behave(image, kind)),
        2 => any::<u8>().prop_map(Crash),
        1 => any::<u8>().prop_map(Cut),
        6 => (0..4_u8, 0..6_u8).prop_map(|(id, key)| Call(id, key)),
        8 => (0..2_000_u16).prop_map(Sleep),
        1 => (0..30_u8).prop_map(Chaos),
        1 => (any::<bool>(), 0..20_000_u16).prop_map(|(kills, millis)| Engine { kills, millis }),
        1 => Just(Daemon),
    ]
}

fn kind(kind: u8) -> InstanceSpec {
    let image = format!("image{}", kind % 3);
    let base = if kind & 4 == 0 { spec(&image) } else { with_volume(&image) };
    InstanceSpec {
        sharing: if kind & 8 == 0 { Sharing::Shared } else { Sharing::PerAgent },
        lazy: kind & 16 != 0,
        idle_seconds: (kind & 32 != 0).then_some(20),
        max_lifetime_seconds: (kind & 64 != 0).then_some(45),
        ..base
    }
}

fn behaviour(kind: u8) -> Behaviour {
    let all =
        [Behaviour::Exits, Behaviour::NotMcp, Behaviour::NeverAnswers, Behaviour::OutOfMemory, Behaviour::NoTools];
    all.get(usize::from(kind % 10)).copied().unwrap_or_default()
}

async fn perform(daemon: &mut Daemon, operation: Operation, seed: u64) {
    let id = |number: u8| format!("ins_{number}");
    let has = |daemon: &Daemon, id: &str| {
        daemon.desired.borrow().iter().flat_map(|state| &state.instances).any(|found| found.id == id)
    };
    let pick = |daemon: &Daemon, index: u8| {
        let running = daemon.engine.running();
        (!running.is_empty()).then(|| running[usize::from(index) % running.len()].clone())
    };
    match operation {
        Operation::Add(number, spec) if !has(daemon, &id(number)) => daemon.add(&id(number), kind(spec)),
        Operation::Remove(number) => daemon.remove(&id(number)),
        Operation::Upgrade(number, spec) if has(daemon, &id(number)) => daemon.upgrade(&id(number), kind(spec)),
        Operation::Run(number, run) if has(daemon, &id(number)) => daemon.edit(&id(number), |found| found.run = run),
        Operation::Restart(number) if has(daemon, &id(number)) => daemon.edit(&id(number), |found| found.restarts += 1),
        Operation::Rotate(number) if has(daemon, &id(number)) => daemon.edit(&id(number), |found| {
            let count = found.spec.environment.len();
            found.spec.environment.insert(format!("N{count}"), String::new());
        }),
        Operation::Behave(image, kind) => daemon.behave(&format!("image{image}"), behaviour(kind)),
        Operation::Crash(index) => {
            if let Some(container) = pick(daemon, index) {
                daemon.engine.crash(&container, 1, index % 2 == 0);
            }
        }
        Operation::Cut(index) => {
            if let Some(container) = pick(daemon, index) {
                daemon.engine.cut(&container);
            }
        }
        Operation::Call(number, key) => {
            let work = call(daemon.supervisor.clone(), id(number), Some(format!("agt_{key}")));
            _ = crate::tasks::spawn("call", work);
        }
        Operation::Sleep(millis) => sleep(Duration::from_millis(u64::from(millis).pow(2) / 50)).await,
        Operation::Chaos(percent) => daemon.engine.state().chaos = (u64::from(percent), seed),
        Operation::Engine { kills, millis } => {
            daemon.engine.go_down(kills);
            sleep(Duration::from_millis(u64::from(millis))).await;
            daemon.engine.come_up();
        }
        Operation::Daemon => {
            daemon.stop().await;
            // The open egress ends with the process.
            daemon.sink.open.lock().unwrap().clear();
            daemon.start();
        }
        _ => {}
    }
}

/// Checks the state of every instance against the containers.
fn check(daemon: &Daemon) -> Result<(), String> {
    let desired = daemon.desired.borrow().clone().unwrap_or_default();
    let reports = daemon.supervisor.reports();
    let engine = daemon.engine.state();
    if reports.len() != desired.instances.len() {
        return Err(format!("{} reports for {} instances", reports.len(), desired.instances.len()));
    }
    for (id, container) in &engine.containers {
        if !desired.instances.iter().any(|instance| instance.id == container.observed.instance_id) {
            return Err(format!("{id} belongs to no instance"));
        }
    }
    let networks = engine.networks.iter().chain(engine.volumes.keys().map(|(instance, _)| instance));
    if let Some(id) = networks.into_iter().find(|id| !desired.instances.iter().any(|instance| instance.id == **id)) {
        return Err(format!("something of {id} is left"));
    }
    for instance in &desired.instances {
        let own = engine.containers.values().filter(|container| container.observed.instance_id == instance.id);
        let (running, exited): (Vec<_>, Vec<_>) = own.partition(|container| container.observed.running);
        let report = reports.iter().find(|report| report.id == instance.id).ok_or("no report")?;
        let keys = running.iter().filter(|container| container.observed.key.is_some()).count();
        let count = running.len();
        let is_valid = exited.is_empty()
            && match report.state {
                InstanceState::Running => count == 1 || keys == count && count > 0,
                InstanceState::Stopped => count == 0 && !instance.run,
                InstanceState::Failed => count == 0 && instance.run,
                InstanceState::Idle => count == 0 && instance.run,
                _ => false,
            };
        if !is_valid {
            return Err(format!("{report:?}: {count} running, {} exited", exited.len()));
        }
    }
    let light = Resources::of(waypost_toolbox_proto::ResourceClass::Light);
    let count = engine.containers.len() as u64;
    let expected = Resources { memory_bytes: light.memory_bytes * count, millicpus: light.millicpus * count };
    if daemon.supervisor.allocated() != expected {
        return Err(format!("{:?} are reserved for {count} containers", daemon.supervisor.allocated()));
    }
    Ok(())
}

async fn run(operations: Vec<Operation>, seed: u64) {
    let mut daemon = Daemon::new();
    for operation in operations {
        perform(&mut daemon, operation, seed).await;
    }
    // From now on, no operation fails.
    {
        let mut state = daemon.engine.state();
        state.chaos = (0, seed);
        state.faults.clear();
        state.behaviours.clear();
    }
    daemon.engine.come_up();
    let mut result = Ok(());
    for _ in 0..2_000 {
        sleep(Duration::from_secs(1)).await;
        result = check(&daemon);
        if result.is_ok() {
            break;
        }
    }
    if let Err(error) = result {
        panic!("{error}\n{:#?}\n{:#?}", daemon.supervisor.reports(), daemon.engine.state().log);
    }
    // Nothing leaks.
    daemon.change(Vec::clear);
    daemon.until("removed", |daemon| daemon.supervisor.reports().is_empty() && daemon.engine.is_empty()).await;
    assert_eq!(daemon.supervisor.allocated(), Resources::default());
    assert_eq!(std::fs::read_dir(daemon.dir.path().join("instances")).map_or(0, Iterator::count), 0);
    assert!(daemon.sink.open.lock().unwrap().is_empty(), "{:?}", daemon.sink.open.lock().unwrap());
    daemon.stop().await;
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn every_history_of_operations_and_faults_converges(
        operations in prop::collection::vec(operation(), 0..60), seed in any::<u64>()
    ) {
        runtime().block_on(run(operations, seed));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 0, ..ProptestConfig::with_cases(2) })]

    #[test]
    fn a_thousand_operations_leak_nothing(operations in prop::collection::vec(operation(), 1_000), seed in any::<u64>()) {
        runtime().block_on(run(operations, seed));
    }
}
