mod model;

use proptest::prelude::*;

use self::model::{Change, Command, World, instance, spec};
use super::*;

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        2 => any::<bool>().prop_map(Change::Run),
        3 => (0_u8..4, prop::bool::weighted(0.3)).prop_map(|(image, volumes)| Change::Generation { image, volumes }),
        1 => Just(Change::Secret),
        1 => Just(Change::Restart),
        1 => Just(Change::Remove),
        2 => Just(Change::Restore),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        8 => Just(Command::Launch),
        8 => (0_usize..8, prop::bool::weighted(0.8)).prop_map(|(index, success)| Command::Land { index, success }),
        1 => (0_usize..4).prop_map(Command::Crash),
        1 => (0_usize..4, any::<bool>()).prop_map(|(index, success)| Command::Probe { index, success }),
        2 => any::<u8>().prop_map(Command::Call),
        1 => (0_u64..400).prop_map(Command::Advance),
        2 => change().prop_map(Command::Desire),
        1 => (prop::bool::weighted(0.2), any::<u8>()).prop_map(|(memory, lands)| Command::Kill { memory, lands }),
    ]
}

fn first() -> impl Strategy<Value = InstanceSpec> {
    let sharing = prop_oneof![3 => Just(Sharing::Shared), 1 => Just(Sharing::PerAgent)];
    let seconds = || prop::option::weighted(0.3, 30_u64..300);
    (sharing, any::<bool>(), prop::bool::weighted(0.3), seconds(), seconds()).prop_map(
        |(sharing, lazy, volumes, idle_seconds, max_lifetime_seconds)| InstanceSpec {
            idle_seconds,
            max_lifetime_seconds,
            ..spec(0, sharing, lazy, volumes)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Invariants 1 to 4 hold for every sequence of changes, faults and kills.
    #[test]
    fn every_history_converges(
        first in first(), budget in 1_u64..6, commands in prop::collection::vec(command(), 0..80)
    ) {
        let mut world = World::new(instance(first), budget);
        for command in commands {
            world.run(command);
        }
        world.settle();
        world.is_converged();
        let plan = world.plan();
        prop_assert!(plan.acts.is_empty() || world.desired.is_none());
        prop_assert_eq!(plan, world.plan());
    }

    /// Any set of containers, including those of unknown generations, converges.
    #[test]
    fn every_observed_state_converges(
        first in first(), run in any::<bool>(), kept in prop::collection::vec((0_u64..4, 0_u8..3, 0_u8..4, any::<bool>()), 0..6)
    ) {
        let mut world = World::new(DesiredInstance { generation: 2, run, ..instance(first.clone()) }, 8);
        for (index, (generation, image, key, runs)) in kept.into_iter().enumerate() {
            world.containers.push(Container {
                id: format!("old{index}"),
                key: key.checked_sub(1).map(|key| format!("agent{key}")),
                generation,
                digest: if image == 0 { digest(&first) } else { image.to_string() },
                phase: if runs { Phase::Started } else { Phase::Exited },
                is_removing: false,
                started: Duration::ZERO,
                age: Duration::from_secs(generation * 60),
                last_used: world.now,
                calls: 0,
                healthy_since: None,
            });
        }
        world.settle();
        world.is_converged();
        prop_assert!(world.reports.len() == 1 && world.reports[0].ends_with("Complete"), "{:?}", world.reports);
    }

    /// A container with the desired specification is not replaced when the daemon restarts, even if its memory was
    /// lost.
    #[test]
    fn a_restart_of_the_daemon_keeps_containers(first in first(), memory in any::<bool>()) {
        let mut world = World::new(instance(first), 6);
        world.settle();
        world.run(Command::Call(0));
        world.settle();
        let ids = |world: &World| world.containers.iter().map(|c| c.id.clone()).collect::<Vec<_>>();
        let before = ids(&world);
        world.kill(memory, 0);
        world.settle();
        prop_assert_eq!(before, ids(&world));
    }

    /// An instance that is not desired is removed, regardless of its state.
    #[test]
    fn an_instance_that_is_not_desired_is_removed(first in first(), commands in prop::collection::vec(command(), 0..30)) {
        let mut world = World::new(instance(first), 4);
        for command in commands {
            world.run(command);
        }
        world.desired = None;
        prop_assert_eq!(reconcile(&world.situation()).acts, [Act::RemoveInstance]);
    }
}

#[test]
fn a_failed_upgrade_is_rolled_back_once_and_not_repeated() {
    for volumes in [false, true] {
        let mut world = World::new(instance(spec(0, Sharing::Shared, false, volumes)), 4);
        world.settle();
        world.change(&Change::Generation { image: 1, volumes });
        while world.memory.verdict.as_ref().is_none_or(|verdict| verdict.error.is_none()) {
            world.launch();
            // Only the check of the new container fails.
            let check = world.flights.iter().position(|act| match act {
                Act::Check { container, deploy: true } => {
                    world.containers.iter().any(|c| c.id == *container && c.phase == Phase::Checking)
                }
                _ => false,
            });
            match check {
                Some(check) => world.land(check, false),
                None if !world.flights.is_empty() => world.land(0, true),
                None => {}
            }
        }
        world.settle();
        world.is_converged();
        assert_eq!(world.reports.len(), 2, "{:?}", world.reports);
        assert!(world.reports[1].starts_with("dep_2 RolledBack"), "{:?}", world.reports);
        assert_eq!(world.memory.serving.as_ref().unwrap().generation, 1);
        let restored = &world.containers[0].id;
        assert_eq!(restored == "c0", !volumes, "only an instance with volumes has a new container");
        // The control plane restores the specification; then a secret changes.
        world.change(&Change::Restore);
        assert_eq!(world.plan().acts, []);
        world.change(&Change::Secret);
        world.settle();
        world.is_converged();
        assert_eq!(world.reports.len(), 2, "a rotation is not reported as a deployment");
        assert_eq!(world.containers[0].generation, 1);
    }
}

#[test]
fn a_superseded_deployment_is_interrupted() {
    let mut world = World::new(instance(spec(0, Sharing::Shared, false, false)), 4);
    world.launch();
    world.launch();
    world.change(&Change::Generation { image: 1, volumes: false });
    world.settle();
    world.is_converged();
    assert_eq!(world.reports.len(), 2);
    assert!(world.reports[0].starts_with("dep_1 Failed") && world.reports[0].contains("Interrupted"));
    assert_eq!(world.reports[1], "dep_2 Complete");
}

#[test]
fn a_failed_instance_is_tried_again_by_a_restart() {
    let mut world = World::new(instance(spec(0, Sharing::Shared, false, false)), 0);
    world.settle();
    assert_eq!(state(&world.situation()), InstanceState::Failed);
    world.budget = Resources { memory_bytes: 1 << 40, millicpus: 1 << 20 };
    assert_eq!(world.plan().acts, []);
    world.change(&Change::Restart);
    world.settle();
    world.is_converged();
    assert_eq!(state(&world.situation()), InstanceState::Running);
    assert_eq!(world.reports.len(), 1, "the deployment ended once: {:?}", world.reports);
}

#[test]
fn the_digest_ignores_members_without_a_value() {
    let mut one = spec(0, Sharing::Shared, false, false);
    let digest_before = digest(&one);
    one.extra.insert("later".into(), Value::Null);
    assert_eq!(digest(&one), digest_before);
    one.args = Some(Vec::new());
    assert_ne!(digest(&one), digest_before, "no arguments are not the image's arguments");
}

#[test]
fn the_oldest_container_is_replaced_when_its_lifetime_ends() {
    let mut first = spec(0, Sharing::Shared, false, false);
    first.max_lifetime_seconds = Some(100);
    let mut world = World::new(instance(first), 4);
    world.settle();
    let end = world.plan().wake.unwrap();
    assert_eq!(end, world.containers[0].started + Duration::from_secs(100));
    world.now = end;
    assert_eq!(world.plan().acts, [Act::Start { key: None, deploy: false }]);
    world.settle();
    world.is_converged();
    assert_eq!(world.containers[0].id, "c1");
}
