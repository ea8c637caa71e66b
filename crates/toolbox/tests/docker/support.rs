//! An engine, a registry and images for the tests. Everything that a test creates has the labels of a separate toolbox,
//! and is removed at the end of the test, even if it fails.

use std::collections::HashMap;
use std::fs;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use bollard::auth::DockerCredentials;
use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{
    CreateImageOptions, ImportImageOptions, InspectContainerOptions, ListContainersOptions, ListNetworksOptions,
    ListVolumesOptions, PushImageOptions, RemoveContainerOptions, RemoveImageOptions, RemoveVolumeOptions,
};
use bollard::{API_DEFAULT_VERSION, Docker};
use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt};
use serde_json::json;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use waypost_toolbox::engine::docker::DockerEngine;
use waypost_toolbox::engine::{ContainerRequest, EngineOptions, Output, OutputChunk};
use waypost_toolbox_proto::desired::SecretMount;
use waypost_toolbox_proto::{InstanceSpec, ResourceClass, SecretDelivery, Sharing, Transport, Volume};

/// The user and the password of the registry with authentication. The Base64 encoding of the password requires the
/// URL-safe alphabet.
pub const CREDENTIALS: (&str, &str) = ("user", "~~~???>>>pw");
const HTPASSWD: &str = "user:$2b$04$geTHixW4LNx7MTf36Si.YeFaNLEUh9ki0d8UPafrr1Z7/09dZ4inC\n";

/// Returns the address of the engine for the tests: `DOCKER_HOST`, or the platform's socket.
pub fn docker_host() -> String {
    std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".into())
}

/// Runs a test with a separate toolbox, and removes everything that it leaves behind.
pub fn run<F: Future<Output = ()>>(test: impl FnOnce(&'static Bed) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        // A reference with a static lifetime makes the tests shorter. The leak does not matter, because the process
        // ends soon.
        let bed: &'static Bed = Box::leak(Box::new(Bed::new().await));
        let result = AssertUnwindSafe(test(bed)).catch_unwind().await;
        bed.clean_up().await;
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
}

/// The resources that a test uses.
pub struct Bed {
    pub docker: Docker,
    pub engine: DockerEngine,
    pub options: EngineOptions,
    registry: Registry,
    folder: TempDir,
    images: std::sync::Mutex<Vec<String>>,
}

impl Bed {
    async fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = tempfile::tempdir().unwrap();
        let id = format!("{}x{number}", std::process::id());
        let options = EngineOptions {
            toolbox_id: format!("tbx_test{id}"),
            docker_host: Some(docker_host()),
            data_dir: folder.path().to_owned(),
            secrets_dir: PathBuf::from("/dev/shm").join(format!("waypost-test-{id}")),
            network_pool: "10.213.0.0/16".parse().unwrap(),
        };
        let docker = Docker::connect_with_unix(&docker_host(), 60, API_DEFAULT_VERSION).unwrap();
        let docker = docker.negotiate_version().await.unwrap();
        let registry = Registry::start(folder.path(), "open", false).await;
        let engine = DockerEngine::connect(options.clone()).await.unwrap();
        Self { docker, engine, options, registry, folder, images: std::sync::Mutex::default() }
    }

    /// Starts a registry that serves the same images to users with a password.
    pub async fn private_registry(&self) -> Registry {
        Registry::start(self.folder.path(), "private", true).await
    }

    /// Returns the folder of the secret files.
    pub fn secrets(&self) -> PathBuf {
        self.options.secrets_dir.join(&self.options.toolbox_id)
    }

    /// Builds an image with the test program, pushes it, removes it from the engine, and returns its name by digest.
    pub async fn image(&self, name: &str, instructions: &[&str]) -> String {
        let passwd = b"root:x:0:0::/:/bin/sh\nadmin:x:0:0::/:/bin/sh\napp:x:1234:1235::/:/bin/sh\n";
        // The file with the name makes the digests of the images distinct.
        let files =
            [("probe", probe(), 0o755), ("etc/passwd", passwd.as_slice(), 0o644), ("name", name.as_bytes(), 0o644)];
        let mut changes = vec!["ENTRYPOINT [\"/probe\"]".to_owned(), "CMD [\"echo\"]".to_owned()];
        changes.extend(instructions.iter().map(|text| (*text).to_owned()));
        let options = CreateImageOptions {
            from_src: Some("-".into()),
            repo: Some(self.repository(name)),
            tag: Some("latest".into()),
            changes,
            ..CreateImageOptions::default()
        };
        let body = bollard::body_full(archive(&files));
        self.docker.create_image(Some(options), Some(body), None).try_collect::<Vec<_>>().await.unwrap();
        self.push(name).await
    }

    /// Builds an image for another architecture.
    pub async fn foreign_image(&self, name: &str, architecture: &str) -> String {
        let layer = archive(&[("name", name.as_bytes(), 0o644)]);
        let digest = data_encoding::HEXLOWER.encode(&Sha256::digest(&layer));
        let config = json!({
            "architecture": architecture, "os": "linux", "config": {}, "history": [],
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
        });
        let tag = format!("{}:latest", self.repository(name));
        let manifest = json!([{"Config": "config.json", "RepoTags": [tag], "Layers": ["layer.tar"]}]);
        let (config, manifest) = (config.to_string(), manifest.to_string());
        let files = [("config.json", config.as_bytes()), ("manifest.json", manifest.as_bytes()), ("layer.tar", &layer)];
        let body = bollard::body_full(archive(&files.map(|(name, content)| (name, content, 0o644))));
        let loaded = self.docker.import_image(ImportImageOptions::default(), body, None);
        loaded.try_collect::<Vec<_>>().await.unwrap();
        self.push(name).await
    }

    fn repository(&self, name: &str) -> String {
        format!("{}/{name}", self.registry.address)
    }

    async fn push(&self, name: &str) -> String {
        let repository = self.repository(name);
        let options = PushImageOptions { tag: Some("latest".into()), platform: None };
        let pushed = self.docker.push_image(&repository, Some(options), Some(DockerCredentials::default()));
        pushed.try_collect::<Vec<_>>().await.unwrap();
        let tagged = format!("{repository}:latest");
        let image = self.docker.inspect_image(&tagged).await.unwrap();
        let digest = image.repo_digests.unwrap().into_iter().find(|digest| digest.starts_with(&repository)).unwrap();
        let options = RemoveImageOptions { force: true, ..RemoveImageOptions::default() };
        self.docker.remove_image(&tagged, Some(options), None).await.unwrap();
        let _ = self.docker.remove_image(&digest, None::<RemoveImageOptions>, None).await;
        self.images.lock().unwrap().push(digest.clone());
        digest
    }

    /// Returns a request for a container of an instance of this test.
    pub fn request(&self, instance: &str, spec: InstanceSpec) -> ContainerRequest {
        ContainerRequest {
            instance_id: format!("ins_{}{instance}", self.options.toolbox_id),
            slug: "test".into(),
            generation: 1,
            key: None,
            digest: "digest".into(),
            personal_version: 0,
            spec,
        }
    }

    pub async fn inspect(&self, container: &str) -> ContainerInspectResponse {
        self.docker.inspect_container(container, None::<InspectContainerOptions>).await.unwrap()
    }

    /// Counts the containers, networks, volumes and secret files of the toolbox.
    pub async fn counts(&self) -> (usize, usize, usize, usize) {
        let containers = ListContainersOptions { all: true, filters: Some(self.filter()), ..Default::default() };
        let networks = ListNetworksOptions { filters: Some(self.filter()) };
        let volumes = ListVolumesOptions { filters: Some(self.filter()) };
        (
            self.docker.list_containers(Some(containers)).await.unwrap().len(),
            self.docker.list_networks(Some(networks)).await.unwrap().len(),
            self.docker.list_volumes(Some(volumes)).await.unwrap().volumes.unwrap_or_default().len(),
            fs::read_dir(self.secrets()).map_or(0, Iterator::count),
        )
    }

    fn filter(&self) -> HashMap<String, Vec<String>> {
        HashMap::from([("label".into(), vec![format!("dev.waypost.toolbox={}", self.options.toolbox_id)])])
    }

    async fn clean_up(&self) {
        let options = ListContainersOptions { all: true, filters: Some(self.filter()), ..Default::default() };
        for container in self.docker.list_containers(Some(options)).await.unwrap() {
            let options = RemoveContainerOptions { force: true, v: true, link: false };
            let _ = self.docker.remove_container(&container.id.unwrap(), Some(options)).await;
        }
        let options = ListNetworksOptions { filters: Some(self.filter()) };
        for network in self.docker.list_networks(Some(options)).await.unwrap() {
            let _ = self.docker.remove_network(&network.id.unwrap()).await;
        }
        let options = ListVolumesOptions { filters: Some(self.filter()) };
        for volume in self.docker.list_volumes(Some(options)).await.unwrap().volumes.unwrap_or_default() {
            let _ = self.docker.remove_volume(&volume.name, None::<RemoveVolumeOptions>).await;
        }
        let images = std::mem::take(&mut *self.images.lock().unwrap());
        for image in images {
            let _ = self.docker.remove_image(&image, None::<RemoveImageOptions>, None).await;
        }
        let _ = fs::remove_dir_all(&self.options.secrets_dir);
        let _ = fs::remove_dir_all(self.folder.path());
        self.registry.stop().await;
    }
}

/// A registry on a free port of the loopback interface.
pub struct Registry {
    pub address: String,
    process: tokio::sync::Mutex<Child>,
}

impl Registry {
    async fn start(folder: &Path, name: &str, authenticated: bool) -> Self {
        let htpasswd = folder.join("htpasswd");
        fs::write(&htpasswd, HTPASSWD).unwrap();
        let auth = if authenticated {
            format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", htpasswd.display())
        } else {
            String::new()
        };
        let config = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:0\n{auth}",
            folder.join("registry").display()
        );
        let file = folder.join(format!("{name}.yml"));
        fs::write(&file, config).unwrap();
        let mut process = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let address = loop {
            let line = lines.next_line().await.unwrap().expect("the registry ended");
            if let Some((_, rest)) = line.split_once("listening on ") {
                break rest.split(|c: char| c != '.' && c != ':' && !c.is_ascii_digit()).next().unwrap().to_owned();
            }
        };
        // The pipe must stay open, and its content must be read.
        tokio::task::spawn_blocking(move || futures::executor::block_on(drain(lines)));
        Self { address, process: tokio::sync::Mutex::new(process) }
    }

    /// Kills the process.
    pub async fn stop(&self) {
        let _ = self.process.lock().await.kill().await;
    }
}

async fn drain(mut lines: tokio::io::Lines<BufReader<tokio::process::ChildStderr>>) {
    while let Ok(Some(_)) = lines.next_line().await {}
}

/// Compiles the test program.
fn probe() -> &'static [u8] {
    static PROBE: OnceLock<Vec<u8>> = OnceLock::new();
    PROBE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("probe");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/docker/probe.rs");
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let status = std::process::Command::new(rustc)
            .args([
                "--edition=2021",
                "-Cpanic=abort",
                "-Copt-level=1",
                "-Cstrip=symbols",
                "-Ctarget-feature=+crt-static",
                "-o",
            ])
            .args([&program, &source])
            .status();
        assert!(status.unwrap().success(), "the test program could not be compiled");
        fs::read(program).unwrap()
    })
}

/// Writes files as a tar archive.
fn archive(files: &[(&str, &[u8], u32)]) -> Bytes {
    let mut archive = Vec::new();
    for (name, content, mode) in files {
        let mut header = [0_u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..108].copy_from_slice(format!("{mode:07o}\0").as_bytes());
        header[108..116].copy_from_slice(b"0000000\0");
        header[116..124].copy_from_slice(b"0000000\0");
        header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
        header[136..148].copy_from_slice(b"00000000000\0");
        header[148..156].fill(b' ');
        header[156] = b'0';
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend_from_slice(&header);
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive.into()
}

/// Returns a specification that runs the test program.
pub fn spec(image: &str, transport: Transport, args: &[&str]) -> InstanceSpec {
    InstanceSpec {
        image: image.to_owned(),
        transport,
        command: None,
        args: Some(args.iter().map(|text| (*text).to_owned()).collect()),
        port: None,
        path: None,
        environment: [("CONFIG".to_owned(), "value".to_owned())].into(),
        secrets: Vec::new(),
        registry_credentials: false,
        resources: ResourceClass::Light,
        egress: Vec::new(),
        learn_egress: false,
        volumes: Vec::new(),
        sharing: Sharing::Shared,
        lazy: false,
        idle_seconds: None,
        max_lifetime_seconds: None,
        extra: serde_json::Map::new(),
    }
}

/// Adds secrets as a file and as an environment variable, and a volume.
pub fn with_everything(mut spec: InstanceSpec) -> InstanceSpec {
    spec.secrets = vec![
        SecretMount {
            name: "TOKEN".into(),
            delivery: SecretDelivery::File,
            version: 1,
            personal: false,
            optional: false,
        },
        SecretMount {
            name: "API_KEY".into(),
            delivery: SecretDelivery::Env,
            version: 1,
            personal: false,
            optional: false,
        },
    ];
    spec.volumes = vec![Volume { name: "data".into(), path: "/data".into() }];
    spec
}

/// Returns the values of the secrets.
pub fn secret_values() -> std::collections::BTreeMap<String, String> {
    [("TOKEN", "file-hunter2"), ("API_KEY", "env-hunter2")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

/// Reads standard output up to a line that starts with a prefix, and returns everything read.
pub async fn read_until(output: &mut Output, prefix: &str) -> String {
    let mut text = String::new();
    while !text.lines().any(|line| line.starts_with(prefix)) {
        match output.next().await {
            Some(Ok(OutputChunk::Stdout(bytes))) => text.push_str(&String::from_utf8_lossy(&bytes)),
            Some(Ok(OutputChunk::Stderr(_))) => {}
            Some(Err(error)) => panic!("{error:?} after {text}"),
            None => panic!("the output ended after {text}"),
        }
    }
    text
}

/// Reads standard output and standard error to the end.
pub async fn read_all(output: Output) -> String {
    let chunks = output.map(|chunk| match chunk {
        Ok(OutputChunk::Stdout(bytes) | OutputChunk::Stderr(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => format!("{error:?}"),
    });
    chunks.collect().await
}
