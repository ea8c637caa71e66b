//! The egress of all containers.

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

/// The containers whose egress is open.
pub(super) struct EgressTable {
    policy: EgressPolicy,
    /// The open egress by container ID.
    open: Mutex<HashMap<String, ContainerEgress>>,
}

/// The open egress of a container.
struct ContainerEgress {
    instance_id: String,
    /// The process ID of the container: a restarted container has another network namespace.
    pid: u32,
    egress: Egress,
}

impl EgressTable {
    pub(super) fn new(policy: EgressPolicy) -> Self {
        Self { policy, open: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, ContainerEgress>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the egress of a running container in its network namespace.
    pub(super) async fn open(
        &self,
        container: &ObservedContainer,
        spec: &InstanceSpec,
        namespace: NetworkNamespace,
    ) -> io::Result<()> {
        let pid = container.pid.ok_or_else(|| io::Error::other("the container does not run"))?;
        if self.lock().get(&container.id).is_some_and(|open| open.pid == pid) {
            return Ok(());
        }
        let rules = EgressRules { destinations: spec.egress.clone(), learn: spec.learn_egress };
        let egress = Egress::start(&namespace, &rules, self.policy.clone()).await?;
        let opened = ContainerEgress { instance_id: container.instance_id.clone(), pid, egress };
        self.lock().insert(container.id.clone(), opened);
        Ok(())
    }

    /// Closes the egress of a container, with all its connections.
    pub(super) fn close(&self, container_id: &str) {
        self.lock().remove(container_id);
    }

    /// Periodically reports the destinations that were rejected in learning mode. Runs until it is cancelled.
    pub(super) async fn report_rejections(&self, control: &dyn Control) {
        let mut interval = tokio::time::interval(REPORT_INTERVAL);
        loop {
            interval.tick().await;
            let rejected: Vec<_> = {
                let open = self.lock();
                open.values().map(|one| (one.instance_id.clone(), one.egress.take_rejected())).collect()
            };
            for (instance_id, destinations) in rejected {
                if !destinations.is_empty() {
                    control.report(ToolboxEvent::EgressRejected { instance_id, destinations });
                }
            }
        }
    }
}
