//! A simple model of an engine and of the daemon around [`reconcile`].

use waypost_toolbox_proto::{DeploymentError, DeploymentStep, ErrorCode, Transport, Volume};

use super::super::*;

/// A simple model of an engine and of the daemon around [`reconcile`], in which acts take time and can fail.
pub(super) struct World {
    pub(super) desired: Option<DesiredInstance>,
    pub(super) containers: Vec<Container>,
    pub(super) memory: Memory,
    pub(super) attempts: BTreeMap<Key, Attempts>,
    pub(super) demand: BTreeSet<Key>,
    pub(super) budget: Resources,
    pub(super) now: Duration,
    pub(super) flights: Vec<Act>,
    pub(super) next_id: usize,
    pub(super) reports: Vec<String>,
}

pub(super) const LIMITS: KeyLimits = KeyLimits { containers: 3, idle: Duration::from_secs(600) };

#[derive(Debug, Clone)]
pub(super) enum Command {
    /// Performs the acts of the plan.
    Launch,
    /// Ends one act that is in progress.
    Land {
        index: usize,
        success: bool,
    },
    Crash(usize),
    Probe {
        index: usize,
        success: bool,
    },
    Call(u8),
    Advance(u64),
    Desire(Change),
    /// Kills the daemon. `memory` tells whether its memory is lost, and `lands` which of the acts in progress the
    /// engine completes nevertheless.
    Kill {
        memory: bool,
        lands: u8,
    },
}

#[derive(Debug, Clone)]
pub(super) enum Change {
    Run(bool),
    Generation {
        image: u8,
        volumes: bool,
    },
    Secret,
    Restart,
    Remove,
    /// The change that the control plane makes after a rollback.
    Restore,
}

pub(super) fn spec(image: u8, sharing: Sharing, lazy: bool, volumes: bool) -> InstanceSpec {
    InstanceSpec {
        image: format!("registry/image@sha256:{image}"),
        transport: Transport::Stdio,
        command: None,
        args: None,
        port: None,
        path: None,
        environment: BTreeMap::new(),
        secrets: Vec::new(),
        registry_credentials: false,
        resources: ResourceClass::Light,
        egress: Vec::new(),
        learn_egress: false,
        volumes: if volumes { vec![Volume { name: "data".into(), path: "/data".into() }] } else { Vec::new() },
        sharing,
        lazy,
        idle_seconds: None,
        max_lifetime_seconds: None,
        extra: serde_json::Map::new(),
    }
}

pub(super) fn instance(spec: InstanceSpec) -> DesiredInstance {
    DesiredInstance {
        id: "ins_1".into(),
        slug: "one".into(),
        generation: 1,
        deployment_id: "dep_1".into(),
        run: true,
        restarts: 0,
        spec,
    }
}

fn error(code: ErrorCode) -> DeploymentError {
    DeploymentError { step: DeploymentStep::Checking, code, cause: "It failed.".into(), next_action: "Fix it.".into() }
}

impl World {
    pub(super) fn new(desired: DesiredInstance, budget: u64) -> Self {
        Self {
            desired: Some(desired),
            containers: Vec::new(),
            memory: Memory::default(),
            attempts: BTreeMap::new(),
            demand: BTreeSet::new(),
            budget: Resources { memory_bytes: budget * ResourceClass::Light.memory_bytes(), millicpus: budget * 500 },
            now: Duration::from_secs(1_000),
            flights: Vec::new(),
            next_id: 0,
            reports: Vec::new(),
        }
    }

    fn free(&self) -> Resources {
        let used = self.containers.iter().filter(|container| container.phase != Phase::Exited).count() as u64;
        Resources {
            memory_bytes: self.budget.memory_bytes.saturating_sub(used * ResourceClass::Light.memory_bytes()),
            millicpus: self.budget.millicpus.saturating_sub(used * 500),
        }
    }

    pub(super) fn situation(&self) -> Situation<'_> {
        Situation {
            desired: self.desired.as_ref(),
            containers: &self.containers,
            memory: &self.memory,
            attempts: &self.attempts,
            demand: &self.demand,
            free: self.free(),
            limits: LIMITS,
            now: self.now,
        }
    }

    pub(super) fn plan(&self) -> Plan {
        if self.flights.contains(&Act::RemoveInstance) || self.flights.contains(&Act::Finish) {
            return Plan::default();
        }
        reconcile(&self.situation())
    }

    fn get(&mut self, id: &str) -> &mut Container {
        self.containers.iter_mut().find(|container| container.id == id).expect("acts concern existing containers")
    }

    pub(super) fn launch(&mut self) -> usize {
        let plan = self.plan();
        for (key, _) in &plan.refused {
            self.demand.remove(key);
        }
        let count = plan.acts.len();
        for act in plan.acts {
            self.check(&act);
            self.perform(act);
        }
        let used = self.containers.iter().filter(|container| container.phase != Phase::Exited).count() as u64;
        assert!(used * 500 <= self.budget.millicpus, "the budget is exceeded");
        count
    }

    /// Checks the invariants that concern one act.
    fn check(&mut self, act: &Act) {
        let desired = self.desired.clone();
        match act {
            Act::Complete(deployment) => {
                let desired = desired.unwrap();
                let is_ready = |c: &Container| c.phase == Phase::Ready && deployment.owns(c, &desired.spec);
                assert!(!desired.run || self.containers.iter().any(is_ready), "completed without a ready container");
            }
            Act::Start { key, deploy: false } => {
                let is_idle = self.flights.iter().any(|act| match act {
                    Act::Remove { container, how: Removal::Idle } => {
                        self.containers.iter().any(|c| c.id == *container && c.key == *key)
                    }
                    _ => false,
                });
                // Another container may have been started for a call in the meantime, and may now be replaced.
                let is_idle = is_idle && (key.is_some() || self.memory.asleep);
                assert!(!is_idle || self.demand.contains(key), "an idle container was replaced");
            }
            Act::Remove { container, how } => {
                let removed = self.get(container).clone();
                assert!(!removed.is_removing, "removed twice");
                let Some(desired) = desired else { return };
                let Some(serving) = self.memory.serving.clone().filter(|serving| serving.owns(&removed)) else {
                    return;
                };
                let has_successor = self.containers.iter().any(|c| {
                    c.id != removed.id
                        && c.key == removed.key
                        && c.phase == Phase::Ready
                        && !c.is_removing
                        && serving.owns(c)
                });
                let is_exclusive = !desired.spec.volumes.is_empty() || !serving.spec.volumes.is_empty();
                assert!(
                    removed.phase != Phase::Ready
                        || has_successor
                        || is_exclusive
                        || !desired.run
                        || desired.restarts > self.memory.restarts
                        || removed.key.as_deref() == Some(CHECK_KEY)
                        || *how == Removal::Idle && removed.calls == 0,
                    "removed a serving container without a successor: {removed:?}"
                );
            }
            _ => {}
        }
    }

    fn perform(&mut self, act: Act) {
        match &act {
            Act::Begin(deployment) => self.memory.begin(deployment.clone(), self.containers.is_empty()),
            Act::Interrupt => self.memory.interrupt(),
            Act::NoCapacity => self.memory.fail(error(ErrorCode::NoCapacity)),
            Act::Complete(deployment) => {
                self.memory.complete(deployment.clone(), self.desired.as_ref().unwrap());
                self.attempts.clear();
            }
            Act::Restarted => {
                self.memory.restarted(self.desired.as_ref().unwrap().restarts);
                self.attempts.clear();
            }
            Act::Start { key, deploy } => {
                let (generation, digest) = match (deploy, &self.memory) {
                    (true, Memory { deploying: Some(d), .. }) => (d.container_generation, d.digest.clone()),
                    (false, Memory { serving: Some(s), .. }) => (s.generation, s.digest.clone()),
                    _ => panic!("nothing to start"),
                };
                if key.is_none() && !deploy {
                    self.memory.set_asleep(false);
                }
                let id = format!("c{}", self.next_id);
                self.next_id += 1;
                self.containers.push(Container {
                    id: id.clone(),
                    key: key.clone(),
                    generation,
                    digest,
                    phase: Phase::Starting,
                    is_removing: false,
                    started: self.now,
                    age: Duration::ZERO,
                    last_used: self.now,
                    calls: 0,
                    healthy_since: None,
                });
                // The act in progress contains the ID of the container and `deploy`.
                self.flights.push(Act::Check { container: id, deploy: *deploy });
            }
            Act::Check { container, .. } => {
                let container = self.get(container);
                assert_eq!(container.phase, Phase::Started, "checked twice");
                container.phase = Phase::Checking;
                self.flights.push(act);
            }
            Act::Remove { container, how } => {
                let container = self.get(container);
                container.is_removing = true;
                if *how == Removal::Idle && container.key.is_none() {
                    self.memory.set_asleep(true);
                }
                self.flights.push(act);
            }
            Act::Finish | Act::RemoveInstance => self.flights.push(act),
        }
    }

    pub(super) fn land(&mut self, index: usize, success: bool) {
        match self.flights.swap_remove(index) {
            Act::Check { container: id, deploy } => {
                let Some(container) = self.containers.iter_mut().find(|container| container.id == id) else { return };
                let (key, was) = (container.key.clone(), container.phase);
                match (was, success) {
                    (Phase::Starting, true) => container.phase = Phase::Started,
                    (Phase::Starting, false) => self.containers.retain(|container| container.id != id),
                    (Phase::Checking, true) => {
                        container.phase = Phase::Ready;
                        container.healthy_since = Some(self.now);
                        self.demand.remove(&key);
                    }
                    (_, true) => {}
                    (_, false) => container.phase = Phase::Exited,
                }
                let is_current = self.memory.deploying.is_some() && deploy;
                if !success && is_current {
                    self.memory.fail(error(ErrorCode::Exited));
                } else if !success && !deploy {
                    self.attempts.entry(key).or_default().failed(self.now, "It failed.");
                }
            }
            Act::Remove { container: id, .. } => {
                let Some(container) = self.containers.iter_mut().find(|container| container.id == id) else { return };
                if success {
                    self.containers.retain(|container| container.id != id);
                    self.flights.retain(|act| !matches!(act, Act::Check { container, .. } if *container == id));
                } else {
                    container.is_removing = false;
                }
            }
            Act::Finish if success => {
                if let Some((id, outcome)) = self.memory.finish() {
                    self.reports.push(format!("{id} {outcome:?}"));
                }
            }
            Act::RemoveInstance if success => {
                self.containers.clear();
                self.flights.clear();
                self.memory = Memory::default();
            }
            _ => {}
        }
    }

    pub(super) fn run(&mut self, command: Command) {
        match command {
            Command::Launch => {
                if !(self.desired.is_none() && self.containers.is_empty()) {
                    self.launch();
                }
            }
            Command::Land { index, success } => {
                if !self.flights.is_empty() {
                    self.land(index % self.flights.len(), success);
                }
            }
            Command::Crash(index) => self.crash(index),
            Command::Probe { index, success } => {
                if let Some(container) = self.containers.iter_mut().filter(|c| c.phase == Phase::Ready).nth(index % 4) {
                    container.healthy_since = success.then_some(self.now);
                }
            }
            Command::Call(key) => {
                let shared = self.memory.serving.as_ref().is_none_or(|s| s.spec.sharing == Sharing::Shared);
                let key = (!shared).then(|| format!("agent{}", key % 5));
                let is_ready = |c: &&mut Container| c.key == key && c.phase == Phase::Ready && !c.is_removing;
                match self.containers.iter_mut().find(is_ready) {
                    Some(container) => container.last_used = self.now,
                    None => _ = self.demand.insert(key),
                }
            }
            Command::Advance(seconds) => self.now += Duration::from_secs(seconds),
            Command::Desire(change) => self.change(&change),
            Command::Kill { memory, lands } => self.kill(memory, lands),
        }
    }

    fn crash(&mut self, index: usize) {
        let is_live = |c: &&mut Container| matches!(c.phase, Phase::Ready | Phase::Started);
        let now = self.now;
        if let Some(container) = self.containers.iter_mut().filter(is_live).nth(index % 4) {
            container.phase = Phase::Exited;
            container.healthy_since = None;
            self.attempts.entry(container.key.clone()).or_default().crashed(now, "It exited.");
        }
    }

    pub(super) fn change(&mut self, change: &Change) {
        let Some(desired) = &mut self.desired else { return };
        match change {
            Change::Run(run) => desired.run = *run,
            Change::Generation { image, volumes } => {
                desired.generation += 1;
                desired.deployment_id = format!("dep_{}", desired.generation);
                let old = &desired.spec;
                let (idle, lifetime) = (old.idle_seconds, old.max_lifetime_seconds);
                desired.spec = InstanceSpec {
                    idle_seconds: idle,
                    max_lifetime_seconds: lifetime,
                    ..spec(*image, old.sharing, old.lazy, *volumes)
                };
            }
            Change::Secret => {
                let count = desired.spec.environment.len();
                desired.spec.environment.insert(format!("N{count}"), String::new());
            }
            Change::Restart => desired.restarts += 1,
            Change::Remove => self.desired = None,
            Change::Restore => {
                let failed = self.memory.verdict.as_ref().is_some_and(|v| v.error.is_some() && v.finished);
                if let Some(serving) = self.memory.serving.as_ref().filter(|_| failed) {
                    desired.spec = serving.spec.clone();
                }
            }
        }
    }

    pub(super) fn kill(&mut self, memory: bool, lands: u8) {
        for (index, act) in std::mem::take(&mut self.flights).into_iter().enumerate() {
            let lands = lands >> (index % 8) & 1 == 1;
            match act {
                Act::Remove { container, .. } if lands => self.containers.retain(|c| c.id != container),
                Act::Check { container, .. } if !lands => {
                    self.containers.retain(|c| c.id != container || c.phase != Phase::Starting);
                }
                _ => {}
            }
        }
        for container in &mut self.containers {
            container.is_removing = false;
            container.calls = 0;
            container.healthy_since = None;
            if container.phase != Phase::Exited {
                container.phase = Phase::Started;
            }
        }
        self.attempts.clear();
        self.demand.clear();
        if memory {
            self.memory = Memory::default();
        }
    }

    /// Performs acts, all of which succeed, until there are none left.
    pub(super) fn settle(&mut self) {
        for _ in 0..400 {
            if self.desired.is_none() && self.containers.is_empty() && self.flights.is_empty() {
                return;
            }
            let launched = self.launch();
            if !self.flights.is_empty() {
                self.land(0, true);
            } else if launched == 0 {
                let attempts = self.attempts.values().map(Attempts::next_start).filter(|at| *at > self.now);
                let plan = self.plan();
                assert_eq!(plan.acts, [], "acts after convergence");
                match attempts.max() {
                    Some(at) => self.now = at,
                    None => return,
                }
            }
        }
        panic!("does not converge: {:#?} {:#?} {:?}", self.containers, self.memory, self.flights);
    }

    /// Checks that the observed state is the desired one.
    pub(super) fn is_converged(&self) {
        let containers = &self.containers;
        let Some(desired) = &self.desired else { return assert!(containers.is_empty()) };
        assert!(self.memory.deploying.is_none() && self.memory.is_finished());
        assert_eq!(self.memory.target(desired, &digest(&desired.spec)), Target::Settled);
        assert_eq!(self.memory.restarts, desired.restarts);
        let Some(serving) = &self.memory.serving else {
            assert!(containers.is_empty());
            let expected = if desired.run { InstanceState::Failed } else { InstanceState::Stopped };
            return assert_eq!(state(&self.situation()), expected);
        };
        if !desired.run {
            assert!(containers.is_empty());
            return assert_eq!(state(&self.situation()), InstanceState::Stopped);
        }
        assert!(
            containers.iter().all(|c| serving.owns(c) && c.phase == Phase::Ready && !c.is_removing),
            "{containers:?}"
        );
        let keys: BTreeSet<&Key> = containers.iter().map(|c| &c.key).collect();
        assert_eq!(keys.len(), containers.len(), "two containers for one key");
        let must_run = !serving.is_on_demand() && !self.memory.asleep;
        let is_full = self.free().checked_sub(Resources::of(ResourceClass::Light)).is_none();
        assert!(!must_run || is_full || containers.len() == 1, "not running");
        assert!(containers.len() <= LIMITS.containers);
    }
}
