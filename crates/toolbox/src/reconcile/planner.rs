//! The rules of [`super::reconcile`].

use std::collections::BTreeSet;
use std::time::Duration;

use waypost_toolbox_proto::desired::{DesiredInstance, InstanceSpec};
use waypost_toolbox_proto::{ErrorCode, ResourceClass, Sharing};

use super::{
    Act, CHECK_KEY, Container, Deployment, Key, Phase, Plan, Refusal, Removal, Resources, Serving, Situation, Target,
    check_key, digest, has_key,
};

/// The pause before a start that failed because of the budget is retried.
const CAPACITY_PAUSE: Duration = Duration::from_secs(5);

/// Returns the next acts.
pub(super) fn plan(situation: &Situation<'_>) -> Plan {
    let mut planner = Planner { s: situation, plan: Plan::default(), free: situation.free };
    match situation.desired {
        None => planner.push(Act::RemoveInstance),
        Some(desired) => planner.instance(desired),
    }
    planner.plan
}

/// Whether a deployment can be checked. It cannot if there are required personal secrets, because the container of the
/// check has no agent. Such a specification is accepted without a check, like that of a stopped instance. The values of
/// an agent are not used for the check, because one agent with wrong values would then prevent every deployment.
fn is_checkable(spec: &InstanceSpec) -> bool {
    spec.required_personal_secrets().next().is_none()
}

struct Planner<'a> {
    s: &'a Situation<'a>,
    plan: Plan,
    free: Resources,
}

impl<'a> Planner<'a> {
    fn push(&mut self, act: Act) {
        self.plan.acts.push(act);
    }

    fn wake(&mut self, at: Duration) {
        // The time must not be in the past: the caller would otherwise call again at once, in an endless loop.
        let at = at.max(self.s.now + Duration::from_millis(1));
        self.plan.wake = Some(self.plan.wake.map_or(at, |wake| wake.min(at)));
    }

    fn refuse_all(&mut self, refusal: &Refusal) {
        self.plan.refused.extend(self.s.demand.iter().map(|key| (key.clone(), refusal.clone())));
    }

    fn remove(&mut self, container: &Container, how: Removal) {
        let is_planned = |act: &Act| matches!(act, Act::Remove { container: id, .. } if *id == container.id);
        if !container.is_removing && !self.plan.acts.iter().any(is_planned) {
            let how = if container.phase == Phase::Exited { Removal::Discard } else { how };
            self.push(Act::Remove { container: container.id.clone(), how });
        }
    }

    /// Takes the resources of a container from the budget, if there are enough.
    fn fits(&mut self, class: ResourceClass) -> bool {
        let rest = self.free.checked_sub(Resources::of(class));
        self.free = rest.unwrap_or(self.free);
        rest.is_some()
    }

    fn instance(&mut self, desired: &'a DesiredInstance) {
        let memory = self.s.memory;
        let target = memory.target(desired, &digest(&desired.spec));
        if memory.deploying.is_some() && memory.deploying.as_ref() != target.deployment() {
            self.push(Act::Interrupt);
        } else if !desired.run {
            self.stopped(desired, &target);
        } else {
            match target {
                Target::Deploy(deployment) if memory.is_finished() => self.deploy(desired, &deployment),
                _ => self.settled(desired),
            }
        }
    }

    /// Handles an instance that should be stopped. A deployment does not start it: the new specification is accepted
    /// without a check, and the deployment is complete.
    fn stopped(&mut self, desired: &DesiredInstance, target: &Target) {
        self.refuse_all(&Refusal::Stopped);
        let memory = self.s.memory;
        if !self.s.containers.is_empty() {
            for container in self.s.containers {
                self.remove(container, Removal::Stop);
            }
        } else if !memory.is_finished() {
            self.push(Act::Finish);
        } else if let Target::Deploy(deployment) = target {
            self.push(Act::Complete(deployment.clone()));
        } else if memory.restarts < desired.restarts || memory.asleep {
            self.push(Act::Restarted);
        }
    }

    fn deploy(&mut self, desired: &DesiredInstance, deployment: &Deployment) {
        let memory = self.s.memory;
        if memory.deploying.is_none() {
            self.refuse_all(&Refusal::Deploying);
            return self.push(Act::Begin(deployment.clone()));
        }
        let serving = memory.serving.as_ref();
        let has_volumes = |spec: &InstanceSpec| !spec.volumes.is_empty();
        let is_exclusive = has_volumes(&desired.spec) || serving.is_some_and(|serving| has_volumes(&serving.spec));
        // The containers with the new specification. There is more than one only if the memory was lost.
        let is_new = |container: &Container| {
            container.generation == deployment.container_generation
                && container.digest == deployment.digest
                && has_key(container, &desired.spec)
        };
        let mut others = 0;
        for container in self.s.containers.iter().filter(|container| !is_new(container)) {
            let is_serving = serving.is_some_and(|serving| serving.owns(container));
            if container.phase == Phase::Exited || !is_serving {
                self.discard(container, &desired.spec);
            } else if is_exclusive {
                self.remove(container, Removal::Drain);
            }
            others += 1;
        }
        let redeploys_same = serving.is_some_and(|serving| {
            serving.generation == deployment.container_generation && serving.digest == deployment.digest
        });
        match serving {
            Some(serving) if !is_exclusive && !redeploys_same => self.maintain(serving),
            _ => self.refuse_all(&Refusal::Deploying),
        }
        if !is_exclusive || others == 0 {
            self.candidate(desired, deployment);
        }
    }

    /// Starts and checks the container of a deployment, until it can serve calls.
    fn candidate(&mut self, desired: &DesiredInstance, deployment: &Deployment) {
        if !is_checkable(&desired.spec) {
            return self.push(Act::Complete(deployment.clone()));
        }
        let mut candidates =
            self.s.containers.iter().filter(|container| deployment.owns(container, &desired.spec)).collect::<Vec<_>>();
        candidates.sort_by_key(|container| (container.phase == Phase::Ready, container.started));
        let Some(candidate) = candidates.pop() else {
            let act = match self.fits(desired.spec.resources) {
                true => Act::Start { key: check_key(&desired.spec), deploy: true },
                false => Act::NoCapacity,
            };
            return self.push(act);
        };
        match candidate.phase {
            _ if candidate.is_removing => {}
            Phase::Starting | Phase::Checking => {}
            Phase::Started => self.push(Act::Check { container: candidate.id.clone(), deploy: true }),
            Phase::Ready => self.push(Act::Complete(deployment.clone())),
            Phase::Exited => self.remove(candidate, Removal::Discard),
        }
    }

    /// Removes a container that does not serve calls.
    fn discard(&mut self, container: &Container, spec: &InstanceSpec) {
        // A server with volumes may be writing to them.
        let how = if spec.volumes.is_empty() && container.calls == 0 { Removal::Discard } else { Removal::Drain };
        self.remove(container, how);
    }

    fn settled(&mut self, desired: &DesiredInstance) {
        let memory = self.s.memory;
        let mut strays = 0;
        for container in self.s.containers {
            let is_serving = memory.serving.as_ref().is_some_and(|serving| serving.owns(container));
            let is_check = container.key.as_deref() == Some(CHECK_KEY);
            if container.phase == Phase::Exited {
                self.remove(container, Removal::Discard);
            } else if !is_serving && container.phase == Phase::Ready {
                // The container served calls until now.
                self.remove(container, Removal::Drain);
            } else if !is_serving || is_check {
                self.discard(container, &desired.spec);
            }
            strays += usize::from(!is_serving || is_check);
        }
        let Some(serving) = &memory.serving else {
            self.refuse_all(if memory.is_finished() { &Refusal::Failed } else { &Refusal::Deploying });
            match (strays, memory.is_finished()) {
                (0, false) => self.push(Act::Finish),
                (0, true) if memory.restarts < desired.restarts => self.push(Act::Restarted),
                _ => {}
            }
            return;
        };
        if memory.is_finished() && memory.restarts < desired.restarts {
            return self.restart();
        }
        let is_exclusive = !serving.spec.volumes.is_empty() || !desired.spec.volumes.is_empty();
        if is_exclusive && strays > 0 {
            return self.refuse_all(&Refusal::Deploying);
        }
        self.maintain(serving);
        if !memory.is_finished() && strays == 0 && self.is_restored(serving) {
            self.push(Act::Finish);
        }
    }

    /// Whether, after a failed deployment, the previous specification serves calls again, as far as possible.
    fn is_restored(&self, serving: &Serving) -> bool {
        let error = self.s.memory.verdict.as_ref().and_then(|verdict| verdict.error.as_ref());
        error.is_none_or(|error| error.code == ErrorCode::Interrupted)
            || serving.is_on_demand()
            || self.s.memory.asleep
            || self.s.containers.iter().any(|container| serving.owns(container) && container.phase == Phase::Ready)
            // It cannot be started at the moment.
            || self.plan.acts.is_empty() && self.s.containers.is_empty()
    }

    /// Stops all containers. Calls wait until the containers have started again.
    fn restart(&mut self) {
        for container in self.s.containers {
            self.remove(container, Removal::Stop);
        }
        if self.s.containers.is_empty() {
            self.push(Act::Restarted);
        }
    }

    /// Maintains the containers of the specification that serves calls.
    fn maintain(&mut self, serving: &'a Serving) {
        let keys: BTreeSet<&Key> = match serving.spec.sharing {
            Sharing::Shared => [&None].into(),
            _ => {
                let existing = self.s.containers.iter().filter(|container| serving.owns(container));
                let demand = self.s.demand.iter().filter(|key| key.is_some());
                existing.map(|container| &container.key).chain(demand).collect()
            }
        };
        // The sharing has changed since these calls began.
        let is_shared = serving.spec.sharing == Sharing::Shared;
        let outdated = self.s.demand.iter().filter(|key| key.is_none() != is_shared);
        self.plan.refused.extend(outdated.map(|key| (key.clone(), Refusal::Deploying)));
        let is_check = |key: &Key| key.as_deref() == Some(CHECK_KEY);
        for key in keys.into_iter().filter(|key| !is_check(key)) {
            self.maintain_key(serving, key);
        }
    }

    fn maintain_key(&mut self, serving: &Serving, key: &Key) {
        let mut own: Vec<&Container> =
            self.s.containers.iter().filter(|container| serving.owns(container) && container.key == *key).collect();
        own.sort_by_key(|container| std::cmp::Reverse(container.started));
        let has_volumes = !serving.spec.volumes.is_empty();
        let is_blocked = has_volumes && !own.is_empty();
        own.retain(|container| container.phase != Phase::Exited && !container.is_removing);
        if own.is_empty() {
            let is_wanted = self.s.demand.contains(key) || !serving.is_on_demand() && !self.s.memory.asleep;
            if is_wanted && !is_blocked {
                self.start(serving, key);
            }
            return;
        }
        for container in own.iter().filter(|container| container.phase == Phase::Started) {
            self.push(Act::Check { container: container.id.clone(), deploy: false });
        }
        let Some(main) = own.iter().position(|container| container.phase == Phase::Ready) else { return };
        for older in &own[main + 1..] {
            if older.phase != Phase::Checking && older.phase != Phase::Started {
                self.remove(older, Removal::Drain);
            }
        }
        self.expire(serving, own[main], main > 0);
    }

    /// Removes or replaces a container that is idle or too old.
    fn expire(&mut self, serving: &Serving, container: &Container, has_successor: bool) {
        let spec = &serving.spec;
        let now = self.s.now;
        let idle = match spec.idle_seconds {
            Some(seconds) => Some(Duration::from_secs(seconds.max(1))),
            None => (spec.sharing != Sharing::Shared).then_some(self.s.limits.idle),
        };
        if let Some(idle) = idle.filter(|_| container.calls == 0) {
            if now >= container.last_used + idle {
                return self.remove(container, Removal::Idle);
            }
            self.wake(container.last_used + idle);
        }
        let Some(lifetime) = spec.max_lifetime_seconds else { return };
        let end = (container.started + Duration::from_secs(lifetime.max(1))).saturating_sub(container.age);
        if now < end {
            return self.wake(end);
        }
        if serving.is_on_demand() {
            if container.calls == 0 {
                self.remove(container, Removal::Idle);
            }
        } else if !spec.volumes.is_empty() {
            self.remove(container, Removal::Drain);
        } else if !has_successor {
            self.start(serving, &container.key);
        }
    }

    /// Starts a container of the specification that serves calls, unless it must wait.
    fn start(&mut self, serving: &Serving, key: &Key) {
        let attempts = self.s.attempts.get(key).filter(|attempts| self.s.now < attempts.next_start());
        let refusal = if let Some(attempts) = attempts {
            self.wake(attempts.next_start());
            let retry_in = attempts.next_start() - self.s.now;
            Refusal::Crashed { retry_in, message: attempts.message().to_owned() }
        } else if key.is_some() && self.keys() >= self.s.limits.containers {
            Refusal::TooManyContainers
        } else if self.fits(serving.spec.resources) {
            return self.push(Act::Start { key: key.clone(), deploy: false });
        } else {
            self.wake(self.s.now + CAPACITY_PAUSE);
            Refusal::NoCapacity
        };
        if self.s.demand.contains(key) {
            self.plan.refused.push((key.clone(), refusal));
        }
    }

    /// Returns the number of containers with keys, including those that are about to start.
    fn keys(&self) -> usize {
        let starts = self.plan.acts.iter().filter(|act| matches!(act, Act::Start { key: Some(_), deploy: false }));
        self.s.containers.iter().filter(|container| container.key.is_some()).count() + starts.count()
    }
}
