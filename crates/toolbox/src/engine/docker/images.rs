//! Images, which are always identified by digest, pulled if they are not present, and removed when disk space runs low.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bollard::auth::DockerCredentials;
use bollard::models::{ContainerCreateBody, HostConfig, ImageInspect};
use bollard::query_parameters::{
    CreateContainerOptions, CreateImageOptions, DownloadFromContainerOptions, RemoveContainerOptions,
    RemoveImageOptions,
};
use data_encoding::BASE64URL;
use futures::{StreamExt, TryStreamExt};
use http::HeaderValue;
use tokio::time::Instant;
use waypost_toolbox_proto::ErrorCode;
use waypost_toolbox_proto::message::RegistryCredentials;

use super::super::EngineError;
use super::config::{ImageInfo, check_image};
use super::user::{ImageUser, NOBODY, User, first_file};
use super::{DockerEngine, errors, labels};

/// The time without any progress after which a pull fails.
const PULL_STALL: Duration = Duration::from_secs(120);
/// The maximum duration of a pull.
const PULL_LIMIT: Duration = Duration::from_secs(30 * 60);
/// The maximum size of `/etc/passwd` and `/etc/group` of an image.
const MAX_FILE: usize = 1024 * 1024;
/// The time for which an image is not removed after it was needed.
const PROTECTION: Duration = Duration::from_secs(10 * 60);
/// The maximum number of images that are remembered.
const MAX_IMAGES: usize = 10_000;

/// The images that this daemon has pulled, in the order of their last use. Only these are ever removed.
#[derive(Debug)]
pub struct PulledImages {
    file: PathBuf,
    images: Mutex<Vec<String>>,
    /// The times at which images were last needed for a deployment, whose container may not exist yet.
    needed: Mutex<HashMap<String, Instant>>,
}

impl PulledImages {
    /// Reads the list. If it cannot be read, it is empty, so its images are kept forever.
    pub fn open(data_dir: &Path) -> Self {
        let file = data_dir.join("images.json");
        let images = match fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!(%error, "the list of pulled images is damaged");
                Vec::new()
            }),
            Err(_) => Vec::new(),
        };
        Self { file, images: Mutex::new(images), needed: Mutex::default() }
    }

    /// Protects an image from removal for [`PROTECTION`], during which its container is created.
    fn protect(&self, image: &str) {
        let mut needed = self.needed.lock().unwrap_or_else(PoisonError::into_inner);
        needed.retain(|_, since| since.elapsed() < PROTECTION);
        needed.insert(image.to_owned(), Instant::now());
    }

    fn is_protected(&self, image: &str) -> bool {
        let needed = self.needed.lock().unwrap_or_else(PoisonError::into_inner);
        needed.get(image).is_some_and(|since| since.elapsed() < PROTECTION)
    }

    /// Adds an image, or marks it as the most recently used one.
    pub fn add(&self, image: &str) {
        self.change(|images| {
            images.retain(|known| known != image);
            images.push(image.to_owned());
        });
    }

    /// Marks an image as the most recently used one if this daemon has pulled it.
    pub fn touch(&self, image: &str) {
        let is_known = self.list().iter().rev().skip(1).any(|known| known == image);
        if is_known {
            self.add(image);
        }
    }

    /// Removes an image from the list.
    pub fn forget(&self, image: &str) {
        self.change(|images| images.retain(|known| known != image));
    }

    /// Returns the images. The most recently used one is last.
    pub fn list(&self) -> Vec<String> {
        self.images.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut Vec<String>)) {
        let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut images);
        let excess = images.len().saturating_sub(MAX_IMAGES);
        images.drain(..excess);
        if let Err(error) = write_atomically(&self.file, &serde_json::to_vec(&*images).unwrap_or_default()) {
            tracing::warn!(%error, "failed to store the list of pulled images");
        }
    }
}

fn write_atomically(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = file.with_extension("json.new");
    let mut output = fs::File::create(&temporary)?;
    output.write_all(bytes)?;
    output.sync_all()?;
    fs::rename(&temporary, file)
}

impl DockerEngine {
    pub(super) async fn pull_image(
        &self,
        image: &str,
        credentials: Option<&RegistryCredentials>,
    ) -> Result<(), EngineError> {
        check_image(image)?;
        self.inner.images.protect(image);
        if let Some(present) = self.inspect_image(image).await? {
            self.check_platform(image, &present)?;
            self.inner.images.touch(image);
            return Ok(());
        }
        // The image is added before the pull: otherwise, a crash after the pull would keep it forever.
        let known = self.inner.images.list().contains(&image.to_owned());
        self.inner.images.add(image);
        let pulled = match tokio::time::timeout(PULL_LIMIT, self.run_pull(image, credentials)).await {
            Ok(result) => result,
            Err(_) => Err(stalled(image)),
        };
        if let Err(error) = pulled {
            // Another pull of the same image may be running, or may have added it.
            if !known {
                self.inner.images.forget(image);
            }
            return Err(error);
        }
        self.inner.images.protect(image);
        let present = self.inspect_image(image).await?.ok_or_else(|| not_present(image))?;
        self.check_platform(image, &present)
    }

    async fn run_pull(&self, image: &str, credentials: Option<&RegistryCredentials>) -> Result<(), EngineError> {
        let docker = match credentials {
            // bollard encodes the header with the wrong alphabet, so some passwords would be corrupted.
            Some(credentials) => {
                let header = registry_auth(image, credentials)?;
                self.docker().clone().with_request_modifier(move |mut request| {
                    request.headers_mut().insert("X-Registry-Auth", header.clone());
                    request
                })
            }
            None => self.docker().clone(),
        };
        let options = CreateImageOptions { from_image: Some(image.to_owned()), ..CreateImageOptions::default() };
        let mut progress = Box::pin(docker.create_image(Some(options), None, None));
        loop {
            let item = tokio::time::timeout(PULL_STALL, progress.next()).await.map_err(|_| stalled(image))?;
            match item {
                None => return Ok(()),
                Some(Err(error)) => return Err(errors::pull(image, &error, self.certs_dir())),
                Some(Ok(info)) => {
                    if let Some(message) = info.error_detail.and_then(|detail| detail.message) {
                        return Err(errors::pull_message(image, &message, self.certs_dir()));
                    }
                }
            }
        }
    }

    /// Returns the folder with the certificate authorities of registries. `None` if the daemon cannot access the
    /// engine's files, because it runs in a container.
    fn certs_dir(&self) -> Option<&'static Path> {
        Path::new(&self.inner.docker_root).is_dir().then(|| Path::new(errors::CERTS_DIR))
    }

    /// Returns an image; `None` if it is not present.
    async fn inspect_image(&self, image: &str) -> Result<Option<ImageInspect>, EngineError> {
        match self.docker().inspect_image(image).await {
            Ok(image) => Ok(Some(image)),
            Err(error) if errors::is_not_found(&error) => Ok(None),
            Err(error) => Err(self.error("inspect the image", &error)),
        }
    }

    fn check_platform(&self, image: &str, present: &ImageInspect) -> Result<(), EngineError> {
        let has = format!("{}/{}", self.inner.platform.0, self.inner.platform.1);
        let of = |value: &Option<String>| value.clone().unwrap_or_default();
        let (os, architecture) = (of(&present.os), of(&present.architecture));
        let matches = |value: &str, own: &str| value.is_empty() || value == own;
        if matches(&os, &self.inner.platform.0) && matches(&architecture, &self.inner.platform.1) {
            return Ok(());
        }
        Err(errors::architecture(image, &format!("{os}/{architecture}"), &has))
    }

    /// Returns the properties of an image that is present. The resolved user never changes, so it is cached by image
    /// ID.
    pub(super) async fn image_info(&self, image: &str) -> Result<ImageInfo, EngineError> {
        let present = self.inspect_image(image).await?.ok_or_else(|| not_present(image))?;
        self.check_platform(image, &present)?;
        self.inner.images.touch(image);
        let id = present.id.clone().unwrap_or_default();
        let config = present.config.unwrap_or_default();
        let user = match ImageUser::parse(config.user.as_deref().unwrap_or_default())? {
            None => NOBODY,
            Some(user) => match user.numeric() {
                Some(user) => user,
                None => self.resolve_user(&id, image, &user).await?,
            },
        };
        Ok(ImageInfo {
            user,
            entrypoint: config.entrypoint.unwrap_or_default(),
            volumes: config.volumes.unwrap_or_default(),
        })
    }

    async fn resolve_user(&self, id: &str, image: &str, user: &ImageUser) -> Result<User, EngineError> {
        let cached = || self.inner.users.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(user) = cached().get(id) {
            return Ok(*user);
        }
        let [passwd, groups] = self.read_files(image, ["/etc/passwd", "/etc/group"]).await?;
        let user = user.resolve(&passwd, &groups)?;
        let mut cache = cached();
        if cache.len() >= MAX_IMAGES {
            cache.clear();
        }
        cache.insert(id.to_owned(), user);
        Ok(user)
    }

    /// Reads files of an image from a container that is never started. A file that does not exist is empty.
    async fn read_files<const N: usize>(&self, image: &str, paths: [&str; N]) -> Result<[String; N], EngineError> {
        let name = format!("waypost-probe-{}", super::random_suffix()?);
        let options = CreateContainerOptions { name: Some(name.clone()), ..CreateContainerOptions::default() };
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            user: Some(format!("{}:{}", NOBODY.uid, NOBODY.gid)),
            // A container of an image without a command cannot be created without one.
            entrypoint: Some(vec!["/never-started".into()]),
            network_disabled: Some(true),
            labels: Some(labels::of_probe(self.toolbox_id())),
            host_config: Some(HostConfig {
                network_mode: Some("none".into()),
                readonly_rootfs: Some(true),
                cap_drop: Some(vec!["ALL".into()]),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let result = match self.docker().create_container(Some(options), body).await {
            Ok(_) => self.download_files(&name, paths).await,
            Err(error) => Err(self.error("read the image", &error)),
        };
        let options = RemoveContainerOptions { force: true, v: true, link: false };
        if let Err(error) = self.docker().remove_container(&name, Some(options)).await
            && !errors::is_not_found(&error)
        {
            tracing::warn!(%error, "failed to remove the container that an image was read from");
        }
        result
    }

    async fn download_files<const N: usize>(
        &self,
        container: &str,
        paths: [&str; N],
    ) -> Result<[String; N], EngineError> {
        let mut files = [const { String::new() }; N];
        for (file, path) in files.iter_mut().zip(paths) {
            let options = DownloadFromContainerOptions { path: path.to_owned() };
            let chunks = self.docker().download_from_container(container, Some(options));
            let archive = chunks.try_fold(Vec::new(), |mut archive, chunk| {
                // Data beyond the limit is dropped, so the last line may be incomplete.
                let space = MAX_FILE.saturating_sub(archive.len());
                archive.extend_from_slice(&chunk[..chunk.len().min(space)]);
                std::future::ready(Ok(archive))
            });
            match archive.await {
                Ok(archive) => *file = String::from_utf8_lossy(first_file(&archive).unwrap_or_default()).into_owned(),
                Err(error) if errors::is_not_found(&error) => {}
                Err(error) => return Err(self.error("read the image", &error)),
            }
        }
        Ok(files)
    }

    /// Removes images that this daemon has pulled and that no container uses, until `bytes` of disk space are free.
    pub(super) async fn free_disk(&self, bytes: u64) -> Result<(), EngineError> {
        let used = self.own_summaries(None).await?;
        let used: Vec<String> = used.into_iter().filter_map(|container| container.image).collect();
        for image in self.inner.images.list() {
            if self.disk_free().is_none_or(|free| free >= bytes) {
                return Ok(());
            }
            if used.contains(&image) || self.inner.images.is_protected(&image) {
                continue;
            }
            // Without `force`, the engine keeps an image that any container uses.
            match self.docker().remove_image(&image, None::<RemoveImageOptions>, None).await {
                Ok(_) => self.inner.images.forget(&image),
                Err(error) if errors::is_not_found(&error) => self.inner.images.forget(&image),
                Err(error) if errors::has_status(&error, 409) => {}
                Err(error) => return Err(self.error("remove an image", &error)),
            }
        }
        Ok(())
    }
}

fn registry_auth(image: &str, credentials: &RegistryCredentials) -> Result<HeaderValue, EngineError> {
    let credentials = DockerCredentials {
        username: Some(credentials.username.clone()),
        password: Some(credentials.password.clone()),
        serveraddress: image.split('/').next().map(str::to_owned),
        ..DockerCredentials::default()
    };
    let json = serde_json::to_vec(&credentials).unwrap_or_default();
    let mut header = HeaderValue::from_str(&BASE64URL.encode(&json))
        .map_err(|_| errors::invalid("The credentials of the registry cannot be used", "Set them again."))?;
    header.set_sensitive(true);
    Ok(header)
}

fn stalled(image: &str) -> EngineError {
    let host = image.split('/').next().unwrap_or_default();
    EngineError::new(
        ErrorCode::ImageNotFound,
        format!("Pulling the image from registry {host} took too long"),
        "Check the machine's network and the registry, and deploy again.",
    )
}

fn not_present(image: &str) -> EngineError {
    let name = image.split('@').next().unwrap_or_default();
    EngineError::new(
        ErrorCode::ImageNotFound,
        format!("The image {name} is not present on the toolbox"),
        "Deploy again, so that the image is pulled.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pulled_images_are_ordered_by_their_last_use() {
        let folder = tempfile::tempdir().unwrap();
        let images = PulledImages::open(folder.path());
        for image in ["a", "b", "c"] {
            images.add(image);
        }
        images.touch("a");
        images.touch("unknown");
        images.forget("b");
        assert_eq!(images.list(), ["c", "a"]);
        assert_eq!(PulledImages::open(folder.path()).list(), ["c", "a"]);
        fs::write(folder.path().join("images.json"), "{").unwrap();
        assert!(PulledImages::open(folder.path()).list().is_empty());
    }

    #[test]
    fn credentials_are_encoded_for_urls() {
        let credentials = RegistryCredentials { username: "ü~?>".into(), password: "~~~???>>>ÿÿÿ".into() };
        let header = registry_auth("registry.example:5000/a/b@sha256:0", &credentials).unwrap();
        let json = BASE64URL.decode(header.as_bytes()).unwrap();
        let decoded: DockerCredentials = serde_json::from_slice(&json).unwrap();
        assert_eq!(decoded.password, Some(credentials.password));
        assert_eq!(decoded.serveraddress.as_deref(), Some("registry.example:5000"));
        assert!(header.is_sensitive());
    }
}
