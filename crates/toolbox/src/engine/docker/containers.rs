//! Starting, observing and removing containers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bollard::models::{ContainerCreateBody, ContainerInspectResponse, ContainerSummary};
use bollard::query_parameters::{
    CreateContainerOptions, InspectContainerOptions, ListContainersOptions, RemoveContainerOptions,
    StartContainerOptions, StatsOptions, StopContainerOptions, WaitContainerOptions,
};
use futures::{StreamExt, TryStreamExt};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use waypost_toolbox_proto::{ErrorCode, SecretDelivery, Transport};

use super::super::{ContainerRequest, EngineError, NetworkNamespace, ObservedContainer, StartedContainer, Usage};
use super::config::{Placement, check_specification, container_config, network_name};
use super::machine::REQUEST_SECONDS;
use super::{DockerEngine, errors, labels, secrets, volumes};

/// The number of containers that are inspected at the same time.
const PARALLEL_INSPECTIONS: usize = 8;
/// The timeout for a removal that another request has started.
const REMOVAL: Duration = Duration::from_secs(30);

/// A container of this toolbox, as the engine describes it.
pub(super) struct OwnContainer {
    pub observed: ObservedContainer,
    pub name: String,
}

/// The secrets of a container by delivery method.
struct SortedSecrets<'a> {
    files: Vec<(&'a str, &'a str)>,
    environment: BTreeMap<String, String>,
}

impl DockerEngine {
    /// Returns the container with an ID; `None` if it does not exist or does not belong to an instance of this toolbox.
    pub(super) async fn own(&self, container: &str) -> Result<Option<OwnContainer>, EngineError> {
        let is_id = container.len() == 64 && container.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_id {
            return Ok(None);
        }
        match self.docker().inspect_container(container, None::<InspectContainerOptions>).await {
            Ok(response) => Ok(observe(self.toolbox_id(), response)),
            Err(error) if errors::is_not_found(&error) => Ok(None),
            Err(error) => Err(self.error("inspect the container", &error)),
        }
    }

    /// Returns the container with an ID. Fails if it does not exist.
    pub(super) async fn existing(&self, container: &str) -> Result<OwnContainer, EngineError> {
        self.own(container).await?.ok_or_else(|| {
            EngineError::new(ErrorCode::Exited, "The container no longer exists", "Restart the instance.")
        })
    }

    /// Lists the containers of this toolbox or of one of its instances.
    pub(super) async fn own_summaries(&self, instance_id: Option<&str>) -> Result<Vec<ContainerSummary>, EngineError> {
        let mut containers = self.list(instance_id).await?;
        containers.retain(|container| {
            let parsed = container.labels.as_ref().and_then(|labels| labels::parse(self.toolbox_id(), labels));
            parsed.is_some_and(|parsed| instance_id.is_none_or(|wanted| wanted == parsed.instance_id))
        });
        Ok(containers)
    }

    async fn list(&self, instance_id: Option<&str>) -> Result<Vec<ContainerSummary>, EngineError> {
        let filters = Some(labels::filter(self.toolbox_id(), instance_id));
        let options = ListContainersOptions { all: true, filters, ..ListContainersOptions::default() };
        self.docker().list_containers(Some(options)).await.map_err(|error| self.error("list containers", &error))
    }

    pub(super) async fn own_containers(&self, instance_id: Option<&str>) -> Result<Vec<OwnContainer>, EngineError> {
        let ids = self.own_summaries(instance_id).await?.into_iter().filter_map(|container| container.id);
        let containers = futures::stream::iter(ids.map(|id| async move { self.own(&id).await }));
        let containers = containers.buffer_unordered(PARALLEL_INSPECTIONS);
        // Containers that were removed in the meantime are left out.
        let mut containers: Vec<_> = containers.try_filter_map(|own| std::future::ready(Ok(own))).try_collect().await?;
        containers.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(containers)
    }

    pub(super) async fn start_container(
        &self,
        request: &ContainerRequest,
        secrets: &BTreeMap<String, String>,
    ) -> Result<StartedContainer, EngineError> {
        check_request(request)?;
        let sorted = sort_secrets(request, secrets)?;
        let image = self.image_info(&request.spec.image).await?;
        for volume in self.ensure_volumes(request).await? {
            volumes::own_if_new(&volume, image.user)?;
        }
        let name = format!("waypost-{}-{}", request.slug, super::random_suffix()?);
        let mut placement = Placement {
            toolbox_id: self.toolbox_id().to_owned(),
            network: if request.key.is_none() { network_name(&request.instance_id) } else { name.clone() },
            secrets_folder: None,
            secret_environment: sorted.environment,
        };
        if !sorted.files.is_empty() {
            let files = sorted.files.into_iter();
            let folder: PathBuf = self.inner.secrets.create(&request.instance_id, &name, image.user, files)?;
            placement.secrets_folder = Some(folder);
        }
        let start = async {
            let body = container_config(request, &image, &placement)?;
            self.ensure_network(&request.instance_id, &placement.network).await?;
            self.create_and_start(&name, body, request.spec.transport).await
        };
        match start.await {
            Ok(started) => Ok(started),
            Err(mut error) => {
                self.clean_up(&request.instance_id, &name).await;
                for value in placement.secret_environment.values().filter(|value| value.len() >= 4) {
                    error.cause = error.cause.replace(value.as_str(), "…");
                }
                Err(error)
            }
        }
    }

    async fn create_and_start(
        &self,
        name: &str,
        body: ContainerCreateBody,
        transport: Transport,
    ) -> Result<StartedContainer, EngineError> {
        let options = CreateContainerOptions { name: Some(name.to_owned()), ..CreateContainerOptions::default() };
        let created = self.docker().create_container(Some(options), body).await;
        let id = created.map_err(|error| self.error("create the container", &error))?.id;
        let attached = match transport {
            Transport::Stdio => Some(self.attach_to(&id).await?),
            Transport::StreamableHttp | Transport::Sse => None,
        };
        let started = self.docker().start_container(&id, None::<StartContainerOptions>).await;
        started.map_err(|error| self.error("start the container", &error))?;
        let container = self.existing(&id).await?.observed;
        if attached.is_none() {
            self.unread_logs().insert(id);
        }
        Ok(StartedContainer { container, attached })
    }

    /// Removes the remains of a container that failed to start. Failures are logged; the next reconciliation finds the
    /// container by its labels.
    async fn clean_up(&self, instance_id: &str, name: &str) {
        // The name is random, so the container can only be this one.
        if let Err(error) = self.remove_by_id(name).await {
            tracing::warn!(%error, name, "failed to remove a container that was not started");
        }
        self.inner.secrets.remove(instance_id, name);
        self.remove_own_network(name).await;
    }

    pub(super) async fn stop_container(&self, container: &str, grace: Duration) -> Result<(), EngineError> {
        if self.own(container).await?.is_none_or(|own| !own.observed.running) {
            return Ok(());
        }
        let seconds = grace.as_secs().min(3_600);
        let docker = self.docker().clone().with_timeout(Duration::from_secs(seconds + REQUEST_SECONDS));
        let options = StopContainerOptions { t: i32::try_from(seconds).ok(), signal: None };
        match docker.stop_container(container, Some(options)).await {
            Err(error) if !errors::is_not_found(&error) => Err(self.error("stop the container", &error)),
            _ => Ok(()),
        }
    }

    pub(super) async fn remove_container(&self, container: &str) -> Result<(), EngineError> {
        match self.own(container).await? {
            Some(own) => {
                self.remove_by_id(container).await?;
                self.inner.secrets.remove(&own.observed.instance_id, &own.name);
                if own.observed.key.is_some() {
                    self.remove_own_network(&own.name).await;
                }
            }
            None => tracing::debug!(container, "container to remove does not exist"),
        }
        Ok(())
    }

    async fn remove_by_id(&self, container: &str) -> Result<(), EngineError> {
        self.unread_logs().remove(container);
        let options = RemoveContainerOptions { force: true, v: true, link: false };
        match self.docker().remove_container(container, Some(options)).await {
            Ok(()) => Ok(()),
            Err(error) if errors::is_not_found(&error) => Ok(()),
            // Another request is removing it.
            Err(error) if errors::has_status(&error, 409) => {
                let options = WaitContainerOptions { condition: "removed".into() };
                let mut removed = Box::pin(self.docker().wait_container(container, Some(options)));
                let _ = tokio::time::timeout(REMOVAL, removed.next()).await;
                match self.docker().inspect_container(container, None::<InspectContainerOptions>).await {
                    Err(error) if errors::is_not_found(&error) => Ok(()),
                    _ => Err(self.error("remove the container", &error)),
                }
            }
            Err(error) => Err(self.error("remove the container", &error)),
        }
    }

    /// Removes what an interrupted daemon has left behind: containers from which an image was read, and secret files
    /// and networks without a container.
    pub(super) async fn remove_leftovers(&self) -> Result<(), EngineError> {
        let mut names = Vec::new();
        for container in self.list(None).await? {
            let labels = container.labels.unwrap_or_default();
            let is_own = labels.get(labels::TOOLBOX).is_some_and(|id| id == self.toolbox_id());
            match container.id {
                Some(id) if is_own && labels.get(labels::PROBE).is_some_and(|probe| !probe.is_empty()) => {
                    self.remove_by_id(&id).await?;
                }
                _ => {
                    let own = container.names.into_iter().flatten();
                    names.extend(own.map(|name| name.trim_start_matches('/').to_owned()));
                }
            }
        }
        for (instance, container) in self.inner.secrets.list() {
            if !names.contains(&container) {
                self.inner.secrets.remove(&instance, &container);
            }
        }
        self.remove_unused_networks(&names).await
    }

    pub(super) async fn container_usage(&self, container: &str) -> Result<Usage, EngineError> {
        self.existing(container).await?;
        let options = StatsOptions { stream: false, one_shot: true };
        let mut stats = Box::pin(self.docker().stats(container, Some(options)));
        match stats.next().await {
            Some(Ok(stats)) => Ok(super::streams::usage(&stats)),
            Some(Err(error)) => Err(self.error("measure the container", &error)),
            None => Err(errors::unavailable("The container engine sent no statistics", "Check the log of Docker.")),
        }
    }

    pub(super) async fn open_namespace(&self, container: &str) -> Result<NetworkNamespace, EngineError> {
        let exited = || EngineError::new(ErrorCode::Exited, "The container does not run", "Restart the instance.");
        let before = self.existing(container).await?.observed;
        let pid = before.pid.ok_or_else(exited)?;
        let namespace = NetworkNamespace::of_process(pid).map_err(|error| {
            tracing::warn!(%error, container, "failed to open the network namespace of a container");
            // Not `engine_unavailable`: the engine answers, so waiting for it does not help.
            EngineError::new(
                ErrorCode::StartFailed,
                "The toolbox cannot enter the network of the container",
                "Run the toolbox as root in the PID namespace of the machine.",
            )
        })?;
        // If the container is still running with the same process, the file does not belong to another process with a
        // reused ID.
        let after = self.existing(container).await?.observed;
        if after.pid != before.pid || after.started_at != before.started_at {
            return Err(exited());
        }
        Ok(namespace)
    }
}

/// Checks a request before anything is created for it.
pub(super) fn check_request(request: &ContainerRequest) -> Result<(), EngineError> {
    check_instance_id(&request.instance_id)?;
    check_specification(&request.spec)?;
    let is_slug = (1..=24).contains(&request.slug.len())
        && request.slug.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let is_short = request.key.iter().chain([&request.digest]).all(|text| text.len() <= 256);
    if is_slug && is_short {
        return Ok(());
    }
    Err(errors::invalid("The slug, the key or the digest of the instance is invalid", "Upgrade the toolbox."))
}

/// Checks the ID of an instance, which becomes part of names and paths.
pub(super) fn check_instance_id(id: &str) -> Result<(), EngineError> {
    let is_id = (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if is_id { Ok(()) } else { Err(errors::invalid("The ID of the instance is invalid", "Upgrade the toolbox.")) }
}

fn sort_secrets<'a>(
    request: &'a ContainerRequest,
    values: &'a BTreeMap<String, String>,
) -> Result<SortedSecrets<'a>, EngineError> {
    let mut sorted = SortedSecrets { files: Vec::new(), environment: BTreeMap::new() };
    for mount in &request.spec.secrets {
        secrets::check_name(&mount.name)?;
        let value = match values.get(&mount.name) {
            Some(value) => value,
            None if mount.personal && mount.optional => continue,
            None => return Err(secrets::missing(&mount.name)),
        };
        match mount.delivery {
            SecretDelivery::File => sorted.files.push((&mount.name, value)),
            SecretDelivery::Env => {
                sorted.environment.insert(mount.name.clone(), value.clone());
            }
            SecretDelivery::Header => {
                return Err(errors::invalid(
                    "A secret of the instance is the header of a remote server",
                    "Upgrade the toolbox.",
                ));
            }
        }
    }
    Ok(sorted)
}

/// Returns the observed state of a container; `None` if it does not belong to an instance of this toolbox.
fn observe(toolbox_id: &str, response: ContainerInspectResponse) -> Option<OwnContainer> {
    let labels = response.config?.labels.unwrap_or_default();
    let labels = labels::parse(toolbox_id, &labels)?;
    let state = response.state.unwrap_or_default();
    let running = state.running.unwrap_or_default();
    let started_at = state.started_at.as_deref().and_then(milliseconds);
    let name = response.name?.trim_start_matches('/').to_owned();
    let network = response.host_config.and_then(|config| config.network_mode);
    // Earlier versions of the daemon started the containers of all agents in one network. Without the digest, a container is
    // outdated and is replaced.
    let is_separate = labels.key.is_none() || network.as_ref() == Some(&name);
    let observed = ObservedContainer {
        id: response.id?,
        instance_id: labels.instance_id,
        generation: labels.generation,
        key: labels.key,
        digest: if is_separate { labels.digest } else { String::new() },
        personal_version: labels.personal_version,
        resources: labels.resources,
        running,
        started_at,
        exit_code: state.exit_code.filter(|_| !running && started_at.is_some()),
        out_of_memory: state.oom_killed.unwrap_or_default(),
        pid: state.pid.filter(|_| running).and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0),
    };
    Some(OwnContainer { observed, name })
}

/// Parses a time of the engine as milliseconds since the Unix epoch; `None` if it is the zero time.
fn milliseconds(text: &str) -> Option<i64> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok().filter(|time| *time > 0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn containers_of_agents_in_the_network_of_their_instance_are_outdated() {
        let digest = |key: &str, network: &str| {
            let response = json!({
                "Id": "1", "Name": "/waypost-time-0123456789abcdef", "HostConfig": {"NetworkMode": network},
                "Config": {"Labels": {
                    "dev.waypost.toolbox": "tbx_1", "dev.waypost.instance": "ins_1", "dev.waypost.generation": "1",
                    "dev.waypost.key": key, "dev.waypost.digest": "d1", "dev.waypost.resources": "light",
                    "dev.waypost.probe": "",
                }},
            });
            observe("tbx_1", serde_json::from_value(response).unwrap()).unwrap().observed.digest
        };
        assert_eq!(digest("", "waypost-ins_1"), "d1");
        assert_eq!(digest("agt_1", "waypost-time-0123456789abcdef"), "d1");
        for shared in ["waypost-ins_1", "waypost-time-fedcba9876543210", ""] {
            assert_eq!(digest("agt_1", shared), "", "{shared}");
        }
    }

    #[test]
    fn times_of_the_engine_are_parsed() {
        assert_eq!(milliseconds("2026-11-24T20:10:00.123456789Z"), Some(1_795_551_000_123));
        assert_eq!(milliseconds("2026-11-24T21:10:00+01:00"), Some(1_795_551_000_000));
        assert_eq!(milliseconds("0001-01-01T00:00:00Z"), None);
        assert_eq!(milliseconds(""), None);
    }
}
