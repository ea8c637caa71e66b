//! Connecting to the engine, and the resources of the machine.

use std::path::Path;

use bollard::models::{SystemInfo, SystemVersion};
use bollard::{API_DEFAULT_VERSION, Docker};
use waypost_toolbox_proto::message::{Capacity, Engine};
use waypost_toolbox_proto::runtime::find_vulnerability;

use super::super::{EngineError, EngineOptions, MachineInfo};
use super::errors::{self, unavailable};
use super::{DockerEngine, network};

/// The address of Docker on Linux.
const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";
/// The oldest supported version of the engine.
const OLDEST: (u32, u32) = (20, 10);
/// The timeout of a request to the engine, in seconds. Stopping a container may take longer.
pub const REQUEST_SECONDS: u64 = 120;

/// Connects to an engine and checks that it can be used.
pub async fn connect(options: &EngineOptions) -> Result<(Docker, SystemVersion, SystemInfo), EngineError> {
    check_options(options)?;
    let host = options.docker_host.as_deref().unwrap_or(DEFAULT_HOST);
    let Some(path) = host.strip_prefix("unix://") else {
        let cause = format!("The engine must run on this machine, and {host} is not a Unix socket");
        return Err(unavailable(cause, "Set `--docker-host` to an address such as unix:///var/run/docker.sock."));
    };
    // The client library only checks that the file exists.
    if let Err(error) = tokio::net::UnixStream::connect(path).await {
        return Err(unreachable(path, &error));
    }
    let failed = |error: bollard::errors::Error| errors::request("answer", &error, &[]);
    let docker = Docker::connect_with_unix(path, REQUEST_SECONDS, API_DEFAULT_VERSION).map_err(failed)?;
    let docker = docker.negotiate_version().await.map_err(failed)?;
    let version = docker.version().await.map_err(failed)?;
    let info = docker.info().await.map_err(failed)?;
    check_engine(&version, &info)?;
    if let Some(warning) = runtime(&version, &info).as_deref().and_then(find_vulnerability) {
        tracing::warn!(%warning, "the container runtime may have a known vulnerability");
    }
    Ok((docker, version, info))
}

fn check_options(options: &EngineOptions) -> Result<(), EngineError> {
    let is_id = (1..=64).contains(&options.toolbox_id.len())
        && options.toolbox_id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !is_id {
        return Err(unavailable("The ID of the toolbox is invalid", "Join the machine again."));
    }
    if network::candidates(options.network_pool, "").next().is_none() {
        let cause = format!("The network pool {} is smaller than /28", options.network_pool);
        return Err(unavailable(cause, "Set a larger `network_pool`, such as 10.213.0.0/16."));
    }
    if !rustix::process::geteuid().is_root() {
        return Err(unavailable(
            "The toolbox daemon does not run as root",
            "Run it as root, for example with systemd.",
        ));
    }
    Ok(())
}

/// Returns the error of a socket to which the daemon cannot connect.
fn unreachable(path: &str, error: &std::io::Error) -> EngineError {
    use std::io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied};
    match error.kind() {
        NotFound => unavailable(
            format!("There is no container engine at {path}"),
            "Install Docker Engine 20.10 or later (`apt install docker.io`) and start it, or set `--docker-host`.",
        ),
        ConnectionRefused => unavailable(
            format!("The container engine at {path} does not run"),
            "Start it, for example with `systemctl start docker`.",
        ),
        PermissionDenied => {
            unavailable(format!("The daemon may not use the container engine at {path}"), "Run the daemon as root.")
        }
        kind => unavailable(format!("The container engine at {path} cannot be reached: {kind}"), "Start it."),
    }
}

/// Checks the version and the settings of the engine.
fn check_engine(version: &SystemVersion, info: &SystemInfo) -> Result<(), EngineError> {
    let text = version.version.clone().unwrap_or_default();
    if parse_version(&text).is_none_or(|version| version < OLDEST) {
        let cause = format!("The version of the container engine is `{text}`, and the toolbox needs 20.10 or later");
        return Err(unavailable(cause, "Upgrade Docker Engine."));
    }
    if version.os.as_deref() != Some("linux") {
        return Err(unavailable("The container engine does not run Linux containers", "Use Docker Engine on Linux."));
    }
    if runtime(version, info).is_none() {
        return Err(unavailable("The container engine has no runtime", "Install runc and restart Docker."));
    }
    let options = info.security_options.as_deref().unwrap_or_default();
    let has = |name: &str| options.iter().any(|option| option.split(',').any(|part| part == format!("name={name}")));
    if has("rootless") || has("userns") {
        return Err(unavailable(
            "The container engine maps user IDs (rootless mode or `userns-remap`), which toolboxes do not support",
            "Use Docker Engine in its default mode.",
        ));
    }
    let is_unconfined = options.iter().any(|option| option.split(',').any(|part| part == "profile=unconfined"));
    if !has("seccomp") || is_unconfined {
        return Err(unavailable(
            "The container engine does not filter system calls with seccomp",
            "Remove `seccomp-profile` from /etc/docker/daemon.json, and use a kernel with seccomp.",
        ));
    }
    Ok(())
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Returns the version of the low-level runtime, such as `runc 1.1.5`; `None` if there is none.
fn runtime(version: &SystemVersion, info: &SystemInfo) -> Option<String> {
    let components = version.components.iter().flatten();
    let name = info.default_runtime.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| "runc".into());
    let mut found = components.filter(|component| component.name == name && !component.version.is_empty());
    match found.next() {
        Some(component) => {
            // Debian's packages report their complete version here, which shows the fixes that they contain.
            let package = component.details.as_ref().and_then(|details| details.get("GitCommit"));
            let package = package.filter(|package| package.starts_with(component.version.as_str()));
            Some(format!("{name} {}", package.unwrap_or(&component.version)))
        }
        // Only runc reports its version as a component.
        None => info.runtimes.as_ref()?.contains_key(&name).then_some(name),
    }
}

impl DockerEngine {
    pub(super) async fn machine(&self) -> Result<MachineInfo, EngineError> {
        // The engine may have been upgraded.
        let docker = self.docker().clone().negotiate_version().await;
        let docker = docker.map_err(|error| self.error("answer", &error))?;
        let (version, info) =
            tokio::try_join!(docker.version(), docker.info()).map_err(|error| self.error("answer", &error))?;
        check_engine(&version, &info)?;
        let unsigned = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok()).unwrap_or_default();
        Ok(MachineInfo {
            engine: Engine {
                runtime: runtime(&version, &info).unwrap_or_default(),
                version: version.version.unwrap_or_default(),
                os: version.os.unwrap_or_default(),
                architecture: version.arch.unwrap_or_default(),
            },
            capacity: Capacity {
                cpus: info.ncpu.map_or(0.0, |cpus| u32::try_from(cpus).unwrap_or_default().into()),
                memory_bytes: unsigned(info.mem_total),
                disk_free_bytes: self.disk_free().unwrap_or_default(),
            },
        })
    }

    /// Returns the free disk space of the engine; `None` if it is unknown.
    pub(super) fn disk_free(&self) -> Option<u64> {
        // A daemon that runs in a container cannot access the engine's folder, but its root is on the same file system.
        let root = &self.inner.docker_root;
        let folder = if Path::new(root).is_dir() { root } else { "/" };
        let stat = rustix::fs::statvfs(folder).ok()?;
        Some(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::{Runtime, SystemVersionComponents};

    use super::*;

    fn engine(version: &str) -> (SystemVersion, SystemInfo) {
        let component = SystemVersionComponents { name: "runc".into(), version: "1.1.5".into(), details: None };
        let version = SystemVersion {
            version: Some(version.into()),
            os: Some("linux".into()),
            components: Some(vec![component]),
            ..SystemVersion::default()
        };
        let security_options = Some(vec!["name=seccomp,profile=default".into()]);
        (version, SystemInfo { security_options, ..SystemInfo::default() })
    }

    #[test]
    fn old_and_unsuitable_engines_are_rejected() {
        for (version, ok) in
            [("20.10.24+dfsg1", true), ("28.2.2", true), ("19.03.1", false), ("20.9", false), ("dev", false)]
        {
            let (version, info) = engine(version);
            assert_eq!(check_engine(&version, &info).is_ok(), ok, "{version:?}");
        }
        for option in ["name=rootless", "name=userns"] {
            let (version, mut info) = engine("28.0.0");
            info.security_options.get_or_insert_default().push(option.into());
            assert!(check_engine(&version, &info).unwrap_err().cause.contains("user IDs"));
        }
        let (version, mut info) = engine("28.0.0");
        info.security_options = Some(vec!["name=seccomp,profile=unconfined".into()]);
        assert!(check_engine(&version, &info).unwrap_err().cause.contains("seccomp"));
        assert!(check_engine(&version, &SystemInfo::default()).unwrap_err().cause.contains("seccomp"));
    }

    #[test]
    fn the_runtime_is_reported() {
        let (mut version, mut info) = engine("28.0.0");
        for (commit, expected) in [
            (None, "runc 1.1.5"),
            (Some("v1.1.5-0-gf19387a6"), "runc 1.1.5"),
            (Some("1.1.5+ds1-1+deb12u1"), "runc 1.1.5+ds1-1+deb12u1"),
        ] {
            for component in version.components.iter_mut().flatten() {
                component.details = commit.map(|commit| [("GitCommit".to_owned(), commit.to_owned())].into());
            }
            assert_eq!(runtime(&version, &info).as_deref(), Some(expected));
        }
        info.default_runtime = Some("runsc".into());
        assert_eq!(runtime(&version, &info), None);
        info.runtimes = Some([("runsc".to_owned(), Runtime::default())].into());
        assert_eq!(runtime(&version, &info).as_deref(), Some("runsc"));
    }
}
