//! The ways out of all containers.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use waypost_toolbox_proto::InstanceSpec;
use waypost_toolbox_proto::message::ToolboxEvent;

use crate::control::Control;
use crate::egress::{Egress, EgressPolicy, EgressRules};
use crate::engine::{NetworkNamespace, ObservedContainer};

/// The interval between reports of rejected destinations.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// The open ways out, by container.
pub(super) struct Ways {
    policy: EgressPolicy,
    open: Mutex<HashMap<String, Way>>,
}

struct Way {
    instance_id: String,
    /// The process of the container: a container that was restarted has another network namespace.
    pid: u32,
    egress: Egress,
}

impl Ways {
    pub(super) fn new(policy: EgressPolicy) -> Self {
        Self { policy, open: Mutex::default() }
    }

    fn open_ways(&self) -> MutexGuard<'_, HashMap<String, Way>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the way out of a container that runs, in its network namespace.
    pub(super) async fn open(
        &self,
        container: &ObservedContainer,
        spec: &InstanceSpec,
        namespace: NetworkNamespace,
    ) -> io::Result<()> {
        let pid = container.pid.ok_or_else(|| io::Error::other("the container does not run"))?;
        if self.open_ways().get(&container.id).is_some_and(|way| way.pid == pid) {
            return Ok(());
        }
        let rules = EgressRules { destinations: spec.egress.clone(), learn: spec.learn_egress };
        let egress = Egress::start(&namespace, &rules, self.policy.clone()).await?;
        let way = Way { instance_id: container.instance_id.clone(), pid, egress };
        self.open_ways().insert(container.id.clone(), way);
        Ok(())
    }

    /// Closes the way out of a container, with all its connections.
    pub(super) fn close(&self, container_id: &str) {
        self.open_ways().remove(container_id);
    }

    /// Reports the destinations that are rejected in learning mode. Runs until it is cancelled.
    pub(super) async fn report_rejections(&self, control: &dyn Control) {
        let mut interval = tokio::time::interval(REPORT_INTERVAL);
        loop {
            interval.tick().await;
            let rejected: Vec<_> = {
                let ways = self.open_ways();
                ways.values().map(|way| (way.instance_id.clone(), way.egress.take_rejected())).collect()
            };
            for (instance_id, destinations) in rejected {
                if !destinations.is_empty() {
                    control.report(ToolboxEvent::EgressRejected { instance_id, destinations });
                }
            }
        }
    }
}
