//! Images for tests, built without an engine: one layer with the static server program.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::server_program::server_program;
use crate::tar::{self, File};

/// The media type of a manifest.
pub const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// The media type of an index, which has one manifest for each platform.
pub const INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// A description of an image.
#[derive(Debug, Clone)]
pub struct Image {
    entrypoint: Vec<String>,
    user: String,
    architecture: String,
    labels: Value,
    files: Vec<File>,
    /// The archive of the layer, instead of the files.
    layer: Option<Vec<u8>>,
    environment: Vec<String>,
    in_index: bool,
}

/// An image in the form in which a registry stores it.
pub struct Built {
    /// The configuration and the layer.
    pub blobs: Vec<Vec<u8>>,
    /// The manifest, and the index if the image has one, as pairs of media type and content. The last one identifies
    /// the image.
    pub manifests: Vec<(&'static str, Vec<u8>)>,
}

impl Image {
    /// An image whose server runs in a mode of `e2e/toolbox/server.rs`, such as `["flood"]`, as user 65534.
    pub fn new(arguments: &[&str]) -> Self {
        let program = File { path: "server".to_owned(), mode: 0o755, content: server_program().to_vec() };
        Self {
            entrypoint: ["/server"].iter().chain(arguments).map(|word| (*word).to_owned()).collect(),
            user: "65534:65534".to_owned(),
            architecture: host_architecture().to_owned(),
            labels: json!({}),
            files: vec![program],
            layer: None,
            environment: Vec::new(),
            in_index: false,
        }
    }

    /// A server on standard input and output.
    pub fn stdio() -> Self {
        Self::new(&["stdio"])
    }

    /// A server over Streamable HTTP on port 8080.
    pub fn http() -> Self {
        Self::new(&["http", "8080"])
    }

    /// Replaces the entry point, for example with a program that does not exist.
    pub fn entrypoint(mut self, words: &[&str]) -> Self {
        self.entrypoint = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Replaces the layer with an archive.
    pub fn layer(mut self, archive: Vec<u8>) -> Self {
        self.layer = Some(archive);
        self
    }

    /// Adds an environment variable `NAME=VALUE`.
    pub fn variable(mut self, variable: &str) -> Self {
        self.environment.push(variable.to_owned());
        self
    }

    /// Sets the user, such as `1000:1000`, `0` or the empty string, which also means root.
    pub fn user(mut self, user: &str) -> Self {
        user.clone_into(&mut self.user);
        self
    }

    /// Sets a user by name, such as `root`, and adds an `/etc/passwd` that gives the name this ID.
    pub fn named_user(self, name: &str, id: u32) -> Self {
        let passwd = format!("{name}:x:{id}:{id}::/:/server\n");
        self.file("etc/passwd", 0o644, passwd.as_bytes()).user(name)
    }

    /// Adds a file. The path has no leading slash.
    pub fn file(mut self, path: &str, mode: u32, content: &[u8]) -> Self {
        self.files.push(File { path: path.to_owned(), mode, content: content.to_vec() });
        self
    }

    /// Sets the architecture that the image claims, such as `arm64`. The program stays the same.
    pub fn architecture(mut self, architecture: &str) -> Self {
        architecture.clone_into(&mut self.architecture);
        self
    }

    /// Sets a label.
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels[name] = json!(value);
        self
    }

    /// Puts the manifest into an index, which then identifies the image.
    pub fn in_index(mut self) -> Self {
        self.in_index = true;
        self
    }

    /// Builds the image. Images with different comments have different digests, even if they are otherwise equal.
    pub fn build(&self, comment: &str) -> Built {
        let archive = self.layer.clone().unwrap_or_else(|| tar::archive(&self.files));
        let mut layer = GzEncoder::new(Vec::new(), Compression::fast());
        layer.write_all(&archive).expect("memory is available");
        let layer = layer.finish().expect("memory is available");
        let config = json!({
            "architecture": self.architecture, "os": "linux", "created": "2026-01-01T00:00:00Z", "author": comment,
            "config": { "Entrypoint": self.entrypoint, "User": self.user, "Labels": self.labels, "Env": self.environment },
            "rootfs": { "type": "layers", "diff_ids": [digest(&archive)] },
            "history": [{ "created": "2026-01-01T00:00:00Z", "created_by": "the tests" }],
        });
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": descriptor("application/vnd.docker.container.image.v1+json", &config),
            "layers": [descriptor("application/vnd.docker.image.rootfs.diff.tar.gzip", &layer)],
        });
        let mut manifests = vec![(MANIFEST, manifest.to_string().into_bytes())];
        if self.in_index {
            let mut entry = descriptor(MANIFEST, &manifests[0].1);
            entry["platform"] = json!({ "architecture": self.architecture, "os": "linux" });
            let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry] });
            manifests.push((INDEX, index.to_string().into_bytes()));
        }
        Built { blobs: vec![config, layer], manifests }
    }
}

/// Returns the digest of `content` in the format that registries use.
pub fn digest(content: &[u8]) -> String {
    format!("sha256:{}", data_encoding::HEXLOWER.encode(&Sha256::digest(content)))
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({ "mediaType": media_type, "size": content.len(), "digest": digest(content) })
}

/// Returns the architecture of this machine, as images name it.
pub fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
