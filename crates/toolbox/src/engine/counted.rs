//! An engine that counts its operations.

use std::collections::BTreeMap;
use std::time::Duration;

use waypost_toolbox_proto::message::RegistryCredentials;

use super::{
    Attached, ContainerRequest, Engine, EngineError, Exits, MachineInfo, NetworkNamespace, ObservedContainer, Output,
    StartedContainer, Usage,
};

/// Counts the operations of an engine, by outcome.
#[derive(Debug, Clone)]
pub struct CountedEngine<E>(pub E);

/// Counts an operation that has ended, and returns its result.
fn count<T>(operation: &'static str, result: Result<T, EngineError>) -> Result<T, EngineError> {
    let outcome = result.as_ref().map_or_else(|error| error.code.as_str(), |_| "ok");
    metrics::counter!("waypost_daemon_engine_operations_total", "operation" => operation, "outcome" => outcome)
        .increment(1);
    result
}

impl<E: Engine> Engine for CountedEngine<E> {
    async fn info(&self) -> Result<MachineInfo, EngineError> {
        count("info", self.0.info().await)
    }

    async fn containers(&self) -> Result<Vec<ObservedContainer>, EngineError> {
        count("containers", self.0.containers().await)
    }

    async fn instances(&self) -> Result<Vec<String>, EngineError> {
        count("instances", self.0.instances().await)
    }

    async fn pull(&self, image: &str, credentials: Option<&RegistryCredentials>) -> Result<(), EngineError> {
        count("pull", self.0.pull(image, credentials).await)
    }

    async fn prepare(&self, request: &ContainerRequest) -> Result<(), EngineError> {
        count("prepare", self.0.prepare(request).await)
    }

    async fn start(
        &self,
        request: &ContainerRequest,
        secrets: &BTreeMap<String, String>,
    ) -> Result<StartedContainer, EngineError> {
        count("start", self.0.start(request, secrets).await)
    }

    async fn attach(&self, container: &str) -> Result<Attached, EngineError> {
        count("attach", self.0.attach(container).await)
    }

    async fn stop(&self, container: &str, grace: Duration) -> Result<(), EngineError> {
        count("stop", self.0.stop(container, grace).await)
    }

    async fn remove(&self, container: &str) -> Result<(), EngineError> {
        count("remove", self.0.remove(container).await)
    }

    async fn remove_instance(&self, instance_id: &str, volumes: bool) -> Result<(), EngineError> {
        count("remove_instance", self.0.remove_instance(instance_id, volumes).await)
    }

    async fn remove_volumes(&self, instance_id: &str, generation: u64, keep: &[String]) -> Result<(), EngineError> {
        count("remove_volumes", self.0.remove_volumes(instance_id, generation, keep).await)
    }

    async fn network_namespace(&self, container: &str) -> Result<NetworkNamespace, EngineError> {
        count("network_namespace", self.0.network_namespace(container).await)
    }

    async fn usage(&self, container: &str) -> Result<Usage, EngineError> {
        count("usage", self.0.usage(container).await)
    }

    async fn logs(&self, container: &str) -> Result<Output, EngineError> {
        count("logs", self.0.logs(container).await)
    }

    async fn exits(&self) -> Result<Exits, EngineError> {
        count("exits", self.0.exits().await)
    }

    async fn remove_unused_images(&self, bytes: u64) -> Result<(), EngineError> {
        count("remove_unused_images", self.0.remove_unused_images(bytes).await)
    }
}
