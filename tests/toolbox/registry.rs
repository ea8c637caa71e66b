//! A registry on this machine: Debian's `docker-registry` on a free port, with its images in a temporary folder.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

use http::StatusCode;
use http::header::{CONTENT_TYPE, LOCATION};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use reqwest::{Certificate, Client, RequestBuilder, Response};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use url::Url;
use waypost_outbound::unguarded_client;
use waypost_testkit::TempDir;

use crate::engine::Engine;
use crate::image::{Image, digest};
use crate::support::TIMEOUT;

/// The user name and password of a registry with credentials.
pub const CREDENTIALS: (&str, &str) = ("puller", "correct-horse");
/// The password file with [`CREDENTIALS`], in bcrypt.
const PASSWORDS: &str = "puller:$2y$05$abcdefghijklmnopqrstuuZ0Fx87Pb/Aqb0E90lfvCwzXnaFKUHpS\n";

/// The options with which a registry is started.
pub struct Options {
    /// The address. An engine accepts any certificate and plain HTTP only from 127.0.0.0/8.
    pub address: IpAddr,
    /// Whether requests need [`CREDENTIALS`].
    pub with_credentials: bool,
    /// Whether the registry uses TLS, with a certificate from its own authority.
    pub with_tls: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { address: Ipv4Addr::LOCALHOST.into(), with_credentials: false, with_tls: false }
    }
}

/// A running registry. On drop, it is killed, and the images that the shared engine has pulled from it are removed.
pub struct Registry {
    _child: Child,
    _folder: TempDir,
    options: Options,
    address: String,
    client: Client,
    /// The certificate of the registry's authority, in PEM format.
    pub authority: Option<String>,
}

impl Registry {
    /// Starts a registry over HTTP, without credentials, on loopback.
    pub async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    /// Starts a registry.
    pub async fn start_with(options: Options) -> Self {
        let folder = waypost_testkit::folder();
        let path = folder.path();
        let mut config = json!({
            "version": "0.1", "log": { "level": "info" },
            "storage": { "filesystem": { "rootdirectory": path.join("data") } },
            "http": { "addr": format!("{}:0", options.address), "secret": "of the tests" },
        });
        let mut client = unguarded_client().no_proxy();
        let mut authority = None;
        if options.with_tls {
            let pem = write_certificates(path, options.address);
            config["http"]["tls"] = json!({ "certificate": path.join("cert.pem"), "key": path.join("key.pem") });
            client = client.tls_certs_only([Certificate::from_pem(pem.as_bytes()).expect("a valid certificate")]);
            authority = Some(pem);
        }
        if options.with_credentials {
            std::fs::write(path.join("passwords"), PASSWORDS).expect("the file is written");
            config["auth"]["htpasswd"] = json!({ "realm": "tests", "path": path.join("passwords") });
        }
        // JSON is YAML.
        std::fs::write(path.join("config.yml"), config.to_string()).expect("the file is written");
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(path.join("config.yml")).stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).kill_on_drop(true).spawn().expect("docker-registry starts");
        let address = timeout(TIMEOUT, read_address(&mut child)).await.expect("the registry listens in time");
        let client = client.build().expect("a valid client");
        Self { _child: child, _folder: folder, options, address, client, authority }
    }

    /// Returns `HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Returns the reference `HOST:PORT/NAME@sha256:…` of an image that the registry does not have.
    pub fn missing(&self, name: &str) -> String {
        format!("{}/{name}@{}", self.address, digest(name.as_bytes()))
    }

    /// Pushes an image under the tag `latest` and returns its reference `HOST:PORT/NAME@sha256:…`.
    pub async fn push(&self, name: &str, image: &Image) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        // An engine stores images with the same content only once, and tests must not remove images of other tests.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let built = image.build(&format!("test {} of process {}", number, std::process::id()));
        for blob in built.blobs {
            self.push_blob(name, blob).await;
        }
        let mut reference = String::new();
        for (media_type, manifest) in built.manifests {
            reference = digest(&manifest);
            for name_or_digest in [&reference, "latest"] {
                let request = self.client.put(self.url(&format!("{name}/manifests/{name_or_digest}")));
                let request = request.header(CONTENT_TYPE, media_type).body(manifest.clone());
                self.send(request, StatusCode::CREATED).await;
            }
        }
        format!("{}/{name}@{reference}", self.address)
    }

    async fn push_blob(&self, name: &str, content: Vec<u8>) {
        let start = self.client.post(self.url(&format!("{name}/blobs/uploads/")));
        let response = self.send(start, StatusCode::ACCEPTED).await;
        let location = response.headers()[LOCATION].to_str().expect("a URL");
        let mut location = response.url().join(location).expect("a URL");
        location.query_pairs_mut().append_pair("digest", &digest(&content));
        self.send(self.client.put(location).body(content), StatusCode::CREATED).await;
    }

    async fn send(&self, mut request: RequestBuilder, expected: StatusCode) -> Response {
        if self.options.with_credentials {
            request = request.basic_auth(CREDENTIALS.0, Some(CREDENTIALS.1));
        }
        let response = request.send().await.expect("the registry responds");
        let (url, status) = (response.url().clone(), response.status());
        if status == expected {
            return response;
        }
        panic!("{url}: {status} {}", response.text().await.unwrap_or_default())
    }

    fn url(&self, path: &str) -> Url {
        let scheme = if self.options.with_tls { "https" } else { "http" };
        Url::parse(&format!("{scheme}://{}/v2/{path}", self.address)).expect("a URL")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let engine = Engine::shared();
        if engine.is_running() {
            engine.remove_images_of(&self.address);
        }
    }
}

/// Reads the log until the registry listens, and returns `HOST:PORT`. Continues to read the log in the background.
async fn read_address(child: &mut Child) -> String {
    let mut lines = BufReader::new(child.stderr.take().expect("stderr is piped")).lines();
    let mut log = String::new();
    while let Some(line) = lines.next_line().await.expect("the log is text") {
        if let Some((_, rest)) = line.split_once("msg=\"listening on ") {
            let address = rest.split(['"', ',']).next().expect("an address").to_owned();
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return address;
        }
        log.push_str(&line);
        log.push('\n');
    }
    panic!("the registry does not start: {log}")
}

/// Creates an authority and a certificate for `address` in a folder, and returns the authority's certificate.
fn write_certificates(folder: &Path, address: IpAddr) -> String {
    let mut params = CertificateParams::new(Vec::new()).expect("no invalid names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().expect("the key is generated");
    let authority = CertifiedIssuer::self_signed(params, key).expect("the certificate is signed");
    let key = KeyPair::generate().expect("the key is generated");
    let params = CertificateParams::new(vec![address.to_string()]).expect("a valid address");
    let certificate = params.signed_by(&key, &authority).expect("the certificate is signed");
    std::fs::write(folder.join("cert.pem"), certificate.pem()).expect("the file is written");
    std::fs::write(folder.join("key.pem"), key.serialize_pem()).expect("the file is written");
    authority.pem()
}

/// Makes the engines of this machine trust the authority of a registry, until it is dropped.
pub struct Trust {
    folder: std::path::PathBuf,
}

impl Trust {
    /// Adds the authority of the registry to `/etc/docker/certs.d`. Engines read it for each pull.
    pub fn of(registry: &Registry) -> Self {
        let folder = Path::new("/etc/docker/certs.d").join(registry.address());
        std::fs::create_dir_all(&folder).expect("root may write");
        let authority = registry.authority.as_ref().expect("the registry uses TLS");
        std::fs::write(folder.join("ca.crt"), authority).expect("root may write");
        Self { folder }
    }
}

impl Drop for Trust {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
        // Succeeds only if the folder is empty.
        let _ = std::fs::remove_dir("/etc/docker/certs.d");
    }
}
