//! The configuration of containers, which implements the isolation list of the documentation field by field.
//!
//! [`container_config`] sets every field that matters for isolation to a constant, or to a value derived from the
//! resource class. Nothing that a catalogue entry, a configuration or an image contains can change these fields.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use bollard::models::{
    ContainerCreateBody, EndpointSettings, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig,
    Mount, MountBindOptions, MountBindOptionsPropagationEnum, MountType, MountVolumeOptions, NetworkingConfig,
    RestartPolicy, RestartPolicyNameEnum,
};
use waypost_toolbox_proto::{InstanceSpec, Transport};

use super::super::{ContainerRequest, EngineError};
use super::errors::invalid;
use super::labels;
use super::user::User;
use crate::hosts;

/// The folder of secret files in a container.
pub const SECRETS_PATH: &str = "/run/secrets";
/// The HTTP proxy of a container that may connect to the outside.
pub const PROXY: &str = "http://127.0.0.1:3128";
/// The maximum number of processes and threads.
pub const PIDS_LIMIT: i64 = 256;

const MAX_VOLUMES: usize = 16;
const MAX_VALUE: usize = 64 * 1024;
/// Paths that a volume must not contain or be inside of, because the engine or this module mounts something there.
const RESERVED_PATHS: [&str; 10] = [
    "/proc",
    "/sys",
    "/dev",
    "/tmp",
    SECRETS_PATH,
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/etc/passwd",
    "/etc/group",
];

/// The properties of an image that its containers depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageInfo {
    /// The user that the container runs as.
    pub user: User,
    /// The entry point of the image.
    pub entrypoint: Vec<String>,
    /// The paths at which the image needs a volume.
    pub volumes: Vec<String>,
}

/// The placement of a container.
#[derive(Clone, PartialEq, Eq)]
pub struct Placement {
    /// The ID of this toolbox.
    pub toolbox_id: String,
    /// The name of the network.
    pub network: String,
    /// The folder of secret files; `None` if there are none.
    pub secrets_folder: Option<PathBuf>,
    /// The secrets in environment variables.
    pub secret_environment: BTreeMap<String, String>,
}

/// Returns the configuration of a container.
///
/// # Errors
/// Returns an error if a name or path of the specification cannot be used.
pub fn container_config(
    request: &ContainerRequest,
    image: &ImageInfo,
    placement: &Placement,
) -> Result<ContainerCreateBody, EngineError> {
    let spec = &request.spec;
    check_specification(spec)?;
    check_image_volumes(spec, image)?;
    let is_stdio = spec.transport == Transport::Stdio;
    let command = spec.command.as_ref().filter(|command| !command.is_empty());
    // The engine uses the image's arguments if there are none, unless the entry point is set as well.
    let entrypoint = command.or(spec.args.as_ref().map(|_| &image.entrypoint)).cloned();
    Ok(ContainerCreateBody {
        image: Some(spec.image.clone()),
        user: Some(format!("{}:{}", image.user.uid, image.user.gid)),
        entrypoint: entrypoint.filter(|entrypoint| !entrypoint.is_empty()),
        cmd: spec.args.clone(),
        env: Some(environment(spec, &placement.secret_environment)?),
        labels: Some(labels::of_container(&placement.toolbox_id, request)),
        tty: Some(false),
        open_stdin: Some(is_stdio),
        // A new connection can take over after a restart of the daemon.
        stdin_once: Some(false),
        attach_stdin: Some(is_stdio),
        attach_stdout: Some(is_stdio),
        attach_stderr: Some(is_stdio),
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".into()]), ..HealthConfig::default() }),
        networking_config: Some(NetworkingConfig {
            endpoints_config: Some(HashMap::from([(placement.network.clone(), EndpointSettings::default())])),
        }),
        host_config: Some(host_config(request, placement)),
        ..ContainerCreateBody::default()
    })
}

/// Returns the part of the configuration that isolates the container.
fn host_config(request: &ContainerRequest, placement: &Placement) -> HostConfig {
    let resources = request.spec.resources;
    let memory = i64::try_from(resources.memory_bytes()).unwrap_or(i64::MAX);
    let nano_cpus = i64::try_from(resources.millicpus()).unwrap_or(i64::MAX).saturating_mul(1_000_000);
    HostConfig {
        privileged: Some(false),
        cap_add: Some(Vec::new()),
        cap_drop: Some(vec!["ALL".into()]),
        // Without `seccomp=…`, the engine uses its own profile.
        security_opt: Some(vec!["no-new-privileges".into()]),
        readonly_rootfs: Some(true),
        tmpfs: Some(HashMap::from([("/tmp".into(), "rw,noexec,nosuid,nodev,size=64m".into())])),
        pids_limit: Some(PIDS_LIMIT),
        memory: Some(memory),
        // This limits the sum of memory and swap, so there is no swap.
        memory_swap: Some(memory),
        nano_cpus: Some(nano_cpus),
        ipc_mode: Some("private".into()),
        pid_mode: Some(String::new()),
        uts_mode: Some(String::new()),
        userns_mode: Some(String::new()),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        network_mode: Some(placement.network.clone()),
        dns: Some(vec!["127.0.0.1".into()]),
        extra_hosts: Some(extra_hosts(&request.spec)),
        devices: Some(Vec::new()),
        device_cgroup_rules: Some(Vec::new()),
        device_requests: Some(Vec::new()),
        group_add: Some(Vec::new()),
        port_bindings: Some(HashMap::new()),
        publish_all_ports: Some(false),
        binds: Some(Vec::new()),
        mounts: Some(mounts(request, placement)),
        auto_remove: Some(false),
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: Some(0) }),
        log_config: Some(log_config(request.spec.transport)),
        ..HostConfig::default()
    }
}

/// Returns the lines of `/etc/hosts` for the allowed names. Some engines do not forward queries of containers on internal
/// networks to the daemon's DNS server (see [`crate::egress`]), so names must resolve without it.
fn extra_hosts(spec: &InstanceSpec) -> Vec<String> {
    hosts::addresses(&spec.egress).into_iter().map(|(name, address)| format!("{name}:{address}")).collect()
}

fn log_config(transport: Transport) -> HostConfigLogConfig {
    let options = [("max-size", "10m"), ("max-file", "1"), ("compress", "false")];
    match transport {
        Transport::Stdio => HostConfigLogConfig { typ: Some("none".into()), config: Some(HashMap::new()) },
        Transport::StreamableHttp | Transport::Sse => HostConfigLogConfig {
            typ: Some("local".into()),
            config: Some(options.map(|(name, value)| (name.to_owned(), value.to_owned())).into()),
        },
    }
}

fn mounts(request: &ContainerRequest, placement: &Placement) -> Vec<Mount> {
    let secrets = placement.secrets_folder.as_ref().map(|folder| Mount {
        typ: Some(MountType::BIND),
        source: Some(folder.to_string_lossy().into_owned()),
        target: Some(SECRETS_PATH.into()),
        read_only: Some(true),
        bind_options: Some(MountBindOptions {
            propagation: Some(MountBindOptionsPropagationEnum::RPRIVATE),
            ..MountBindOptions::default()
        }),
        ..Mount::default()
    });
    let volumes = request.spec.volumes.iter().map(|volume| Mount {
        typ: Some(MountType::VOLUME),
        source: Some(volume_name(&request.instance_id, &volume.name)),
        target: Some(volume.path.clone()),
        read_only: Some(false),
        // Copying the image's files would also copy their owners.
        volume_options: Some(MountVolumeOptions { no_copy: Some(true), ..MountVolumeOptions::default() }),
        ..Mount::default()
    });
    secrets.into_iter().chain(volumes).collect()
}

/// Returns the name of the network for the shared containers of an instance.
pub fn network_name(instance_id: &str) -> String {
    format!("waypost-{instance_id}")
}

/// Returns the name of a volume of an instance.
pub fn volume_name(instance_id: &str, volume: &str) -> String {
    format!("waypost-{instance_id}-{volume}")
}

fn environment(spec: &InstanceSpec, secrets: &BTreeMap<String, String>) -> Result<Vec<String>, EngineError> {
    let mut variables: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, value) in spec.environment.iter().chain(secrets) {
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && name.starts_with(|c: char| !c.is_ascii_digit())
            && name.len() <= 256;
        if !is_name {
            let cause = format!("`{}` is not a valid environment variable name", name.escape_debug());
            return Err(invalid(cause, "Use letters, digits and underscores in the configuration's names."));
        }
        if value.len() > MAX_VALUE || value.contains('\0') {
            let cause =
                format!("The value of the environment variable `{name}` is longer than 64 KiB or contains a NUL byte");
            return Err(invalid(cause, "Use a shorter value without NUL bytes."));
        }
        variables.insert(name, value);
    }
    // In learning mode, the proxy records the destinations that it rejects. It supports only CONNECT, so it cannot be the
    // proxy for plain HTTP: names resolve to relays instead.
    if !spec.egress.is_empty() || spec.learn_egress {
        for name in ["HTTPS_PROXY", "https_proxy"] {
            variables.insert(name, PROXY);
        }
        for name in ["NO_PROXY", "no_proxy"] {
            variables.insert(name, "localhost,127.0.0.1,::1");
        }
    }
    Ok(variables.into_iter().map(|(name, value)| format!("{name}={value}")).collect())
}

/// Checks that an image is identified by digest.
///
/// # Errors
/// Returns an error if it is not.
pub fn check_image(image: &str) -> Result<(), EngineError> {
    let is_valid = image.split_once("@sha256:").is_some_and(|(name, digest)| {
        let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"./:_-".contains(&byte);
        digest.len() == 64
            && digest.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
            && name.len() <= 255
            && name.contains('/')
            && name.bytes().all(is_name_byte)
            && !name.split('/').any(|part| part.is_empty() || part == "." || part == "..")
    });
    if is_valid {
        return Ok(());
    }
    Err(invalid("The image is not identified by a digest", "Use an image such as `host/name@sha256:…`."))
}

/// Checks the names and paths of a specification.
///
/// # Errors
/// Returns an error if one of them cannot be used.
pub fn check_specification(spec: &InstanceSpec) -> Result<(), EngineError> {
    check_image(&spec.image)?;
    check_volumes(spec)?;
    environment(spec, &BTreeMap::new()).map(|_| ())
}

fn check_volumes(spec: &InstanceSpec) -> Result<(), EngineError> {
    let mut names = BTreeSet::new();
    let mut paths = BTreeSet::new();
    if spec.volumes.len() > MAX_VOLUMES {
        return Err(invalid(format!("The entry has more than {MAX_VOLUMES} volumes"), "Remove volumes."));
    }
    for volume in &spec.volumes {
        let is_name = (1..=64).contains(&volume.name.len())
            && volume.name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && volume.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
        if !is_name || !names.insert(&volume.name) {
            let cause = format!("Volume name `{}` is invalid or used more than once", volume.name.escape_debug());
            return Err(invalid(cause, "Use unique names of letters, digits, `.`, `_` and `-`."));
        }
        if !is_volume_path(&volume.path) || !paths.insert(&volume.path) {
            let cause =
                format!("Volume path `{}` is invalid, reserved or used more than once", volume.path.escape_debug());
            return Err(invalid(cause, "Use an absolute path that is not a system path, such as /data."));
        }
    }
    Ok(())
}

/// Checks that the specification has every volume that the image needs. The engine would create missing ones as
/// anonymous volumes.
fn check_image_volumes(spec: &InstanceSpec, image: &ImageInfo) -> Result<(), EngineError> {
    let has_volume = |path: &String| spec.volumes.iter().any(|volume| volume.path == path.trim_end_matches('/'));
    match image.volumes.iter().find(|path| !has_volume(path)) {
        None => Ok(()),
        Some(path) => Err(invalid(
            format!("The image needs a volume at `{}`, which the catalogue entry does not have", path.escape_debug()),
            "Add the volume to the catalogue entry.",
        )),
    }
}

fn is_volume_path(path: &str) -> bool {
    let contains = |outer: &str, inner: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'));
    path.len() <= 255
        && path.len() > 1
        && path.starts_with('/')
        && path[1..].split('/').all(|part| !part.is_empty() && part != "." && part != "..")
        && !path.chars().any(|c| c.is_control() || c == ',' || c == ':')
        && RESERVED_PATHS
            .iter()
            .all(|reserved| path != *reserved && !contains(reserved, path) && !contains(path, reserved))
}

#[cfg(test)]
mod tests;
