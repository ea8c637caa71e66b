//! Random sequences of events that arrive repeatedly and late have the same effect as the events in order.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::json;
use waypost_core::deployment::DeploymentState;
use waypost_core::id::InstanceId;
use waypost_core::instance::Instance;
use waypost_ops::instances::{self, InstancePatch};
use waypost_toolbox_proto::deployment::{DeploymentStep, ErrorCode};
use waypost_toolbox_proto::instance::InstanceState;
use waypost_toolbox_proto::message::{DeploymentOutcome, ToolboxEvent};

use crate::fixture::{Daemon, Fixture, ended, failure, map, report, set_up};

waypost_testkit::both!(extended set_up => repeated_and_late_events_change_nothing);

/// The number of sequences per database.
const SEQUENCES: usize = 24;

/// Something that happens. Numbers are mapped to existing generations.
#[derive(Debug, Clone)]
enum Step {
    /// The daemon reports a state.
    Report(usize, InstanceState),
    /// A deployment reaches a step.
    Reach(usize, DeploymentStep),
    /// A deployment ends: complete, failed or rolled back.
    End(usize, u8),
    /// A container crashes.
    Crash,
    /// Destinations were rejected.
    Reject(u8),
    /// A user changes the configuration.
    Change,
}

fn step() -> impl Strategy<Value = Step> {
    let states = proptest::sample::select(InstanceState::ALL.to_vec());
    let steps = proptest::sample::select(DeploymentStep::ALL.to_vec());
    prop_oneof![
        4 => (0_usize..4, states).prop_map(|(generation, state)| Step::Report(generation, state)),
        2 => (0_usize..4, steps).prop_map(|(generation, step)| Step::Reach(generation, step)),
        4 => (0_usize..4, 0_u8..3).prop_map(|(generation, outcome)| Step::End(generation, outcome)),
        1 => Just(Step::Crash),
        1 => (0_u8..6).prop_map(Step::Reject),
        2 => Just(Step::Change),
    ]
}

/// For each step, the earlier events that arrive again after it (numbers are mapped to existing ones).
type Plan = Vec<(Step, Vec<usize>)>;

fn plan() -> impl Strategy<Value = Plan> {
    proptest::collection::vec((step(), proptest::collection::vec(any::<usize>(), 0..4)), 1..25)
}

async fn event(fixture: &Fixture, id: &InstanceId, step: &Step) -> Option<ToolboxEvent> {
    let deployments = fixture.deployments(id).await;
    let pick = |at: &usize| &deployments[at % deployments.len()];
    Some(match step {
        Step::Report(at, state) => ToolboxEvent::Instance(report(id, pick(at).generation, *state)),
        Step::Reach(at, step) => ToolboxEvent::DeploymentStep {
            deployment_id: pick(at).id.to_string(),
            instance_id: id.to_string(),
            step: *step,
        },
        Step::End(at, outcome) => {
            let error = failure(ErrorCode::Exited);
            let outcome = match outcome {
                0 => DeploymentOutcome::Complete,
                1 => DeploymentOutcome::Failed { error },
                _ => DeploymentOutcome::RolledBack { error },
            };
            ended(pick(at), outcome)
        }
        Step::Crash => ToolboxEvent::Crashed { instance_id: id.to_string(), exit_code: 1, out_of_memory: false },
        Step::Reject(n) => {
            let destinations = vec![format!("host{n}.example:443")];
            ToolboxEvent::EgressRejected { instance_id: id.to_string(), destinations }
        }
        Step::Change => return None,
    })
}

/// Applies a plan to a new instance. With `repeat`, events arrive repeatedly and late.
async fn run(fixture: &Fixture, daemon: &Daemon<'_>, slug: &str, plan: &Plan, repeat: bool) -> InstanceId {
    let id = fixture.create(slug).await.instance.id;
    let first = fixture.count(&format!("SELECT last_event FROM toolboxes WHERE id = '{}'", daemon.id)).await as u64;
    let mut sent: Vec<ToolboxEvent> = Vec::new();
    for (step, again) in plan {
        match event(fixture, &id, step).await {
            Some(event) => {
                sent.push(event.clone());
                daemon.send_numbered(first + sent.len() as u64, event).await;
            }
            None => {
                let config = Some(map(json!({ "root": format!("/{}", sent.len()) })));
                let patch = InstancePatch { config, ..InstancePatch::default() };
                instances::update(&fixture.cx, &fixture.ops, &fixture.org, &id, &patch).await.unwrap();
            }
        }
        if !repeat || sent.is_empty() {
            continue;
        }
        for at in again {
            let at = at % sent.len();
            daemon.send_numbered(first + at as u64 + 1, sent[at].clone()).await;
        }
    }
    id
}

/// Returns everything that the events can change, without IDs.
async fn outcome(fixture: &Fixture, id: &InstanceId) -> (Instance, Vec<(DeploymentState, DeploymentStep, bool)>, i64) {
    let instance = fixture.instance(id).await;
    check_invariants(&instance);
    let deployments = fixture.deployments(id).await;
    let deployments = deployments.iter().map(|found| (found.state, found.step, found.error.is_some())).collect();
    let events = fixture.count(&format!("SELECT count(*) FROM instance_events WHERE instance_id = '{id}'")).await;
    let plain = Instance { id: InstanceId::from_store(String::new()), slug: String::new(), ..instance };
    (plain, deployments, events)
}

fn check_invariants(instance: &Instance) {
    assert!(instance.observed_generation <= instance.generation, "{instance:?}");
    assert_ne!(instance.state, InstanceState::Removing, "{instance:?}");
}

async fn repeated_and_late_events_change_nothing(fixture: Fixture) {
    let daemon = fixture.daemon(&fixture.org, "rack").await;
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    for _ in 0..SEQUENCES {
        let plan = plan().new_tree(&mut runner).unwrap().current();
        let in_order = run(&fixture, &daemon, "a", &plan, false).await;
        let repeated = run(&fixture, &daemon, "b", &plan, true).await;
        assert_eq!(outcome(&fixture, &in_order).await, outcome(&fixture, &repeated).await, "{plan:?}");
        fixture.execute("DELETE FROM instances".to_owned()).await;
    }
}
