//! Tests of the resolution of tags, against a registry on loopback.

use std::sync::{Arc, Mutex};

use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use waypost_core::catalog::Source;
use waypost_core::id::OrganizationId;
use waypost_core::seal::{Keyring, SecretText};
use waypost_core::secret::SecretKey;
use waypost_core::{Code, Error};
use waypost_ops::catalog::{self, EntryFile, ImportChange, ImportReport};
use waypost_ops::{Ops, tool_secrets};
use waypost_outbound::{Outbound, Policy};

use crate::fixture::{Fixture, set_up};

waypost_testkit::both!(extended set_up =>
    a_tag_is_resolved_once,
    a_registry_with_tokens_is_used,
    a_registry_with_passwords_is_used,
    the_digest_is_computed_if_the_registry_does_not_send_it,
    failures_of_registries_are_explained,
    registries_in_private_networks_are_rejected,
    a_registry_with_its_own_authority_needs_its_certificate,
    credentials_are_a_secret_of_the_organisation,
);

const ANN: &str = "Basic YW5uOnNlY3JldA==";

/// The response to a request: status, headers and body.
type Reply = (u16, String, String);
type Answer = Arc<dyn Fn(&str, &str, &str) -> Reply + Send + Sync>;

/// A registry that answers each request with a function of its method, path and `Authorization`.
struct Registry {
    host: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Registry {
    async fn start(answer: impl Fn(&str, &str, &str) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen(None, Arc::new(answer)).await
    }

    /// Starts a registry with TLS. Also returns its certificate in PEM, which is its own authority.
    async fn start_tls(answer: impl Fn(&str, &str, &str) -> Reply + Send + Sync + 'static) -> (Self, Vec<u8>) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
        let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        (Self::listen(Some(acceptor), Arc::new(answer)).await, certificate.pem().into_bytes())
    }

    async fn listen(tls: Option<TlsAcceptor>, answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = requests.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, log, answer) = (tls.clone(), log.clone(), answer.clone());
                tokio::spawn(async move {
                    let mut first = [0];
                    if stream.peek(&mut first).await.is_err() {
                        return;
                    }
                    // The first byte of a TLS handshake (RFC 8446, section 5.1).
                    let is_handshake = first[0] == 22;
                    match tls {
                        Some(tls) if is_handshake => {
                            // A client that does not trust the certificate ends the handshake.
                            if let Ok(stream) = tls.accept(stream).await {
                                respond(stream, &log, &answer).await;
                            }
                        }
                        Some(_) => log.lock().unwrap().push("plain HTTP".to_owned()),
                        None if is_handshake => {}
                        None => respond(stream, &log, &answer).await,
                    }
                });
            }
        });
        Self { host, requests }
    }

    fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }
}

/// Reads one request, logs it, and sends the response.
async fn respond(stream: impl AsyncRead + AsyncWrite + Unpin, log: &Mutex<Vec<String>>, answer: &Answer) {
    let mut stream = BufReader::new(stream);
    let mut head = Vec::new();
    while let Some(line) = read_line(&mut stream).await.filter(|line| !line.is_empty()) {
        head.push(line);
    }
    let Some(words) = head.first().map(|line| line.split(' ').collect::<Vec<_>>()) else { return };
    let [method, path, ..] = words[..] else { return };
    let field = |name: &str| {
        let lines = head.iter().filter_map(|line| line.split_once(": "));
        let mut lines = lines.filter(|(field, _)| field.eq_ignore_ascii_case(name));
        lines.next().map_or("", |(_, value)| value).to_owned()
    };
    log.lock().unwrap().push(format!("{method} {path} {}", field("authorization")).trim().to_owned());
    let (status, headers, body) = answer(method, path, &field("authorization"));
    let accept = field("accept");
    assert!(accept.contains("image.index.v1") || accept == "application/json", "{accept}");
    let length = body.len();
    let body = if method == "HEAD" { "" } else { &body };
    let text = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}");
    let _ = stream.get_mut().write_all(text.as_bytes()).await;
    let _ = stream.get_mut().shutdown().await;
}

async fn read_line(stream: &mut (impl AsyncBufRead + Unpin)) -> Option<String> {
    let mut line = Vec::new();
    stream.read_until(b'\n', &mut line).await.ok()?;
    Some(std::str::from_utf8(&line).ok()?.trim_end().to_owned())
}

fn digest(number: u8) -> String {
    format!("sha256:{}", format!("{number:02x}").repeat(32))
}

fn found(number: u8) -> Reply {
    (200, format!("Docker-Content-Digest: {}\r\n", digest(number)), "{}".to_owned())
}

fn status(status: u16) -> Reply {
    (status, String::new(), "{}".to_owned())
}

struct Stage {
    fixture: Fixture,
    ops: Ops,
    org: OrganizationId,
}

/// Creates an organisation whose requests may reach loopback.
async fn stage(fixture: Fixture, allow: &[&str]) -> Stage {
    let allow = allow.iter().map(|text| text.parse().unwrap()).collect();
    let outbound = Outbound::new(Policy { allow, extra_roots_pem: None }).unwrap();
    let keyring = Keyring::new(&SecretKey::new([1; 32]), None);
    let ops = fixture.ops.clone().with_outbound(outbound).with_keyring(keyring);
    let org = fixture.create_tenant("acme").await.organization.id;
    Stage { fixture, ops, org }
}

impl Stage {
    async fn new(fixture: Fixture) -> Self {
        stage(fixture, &["127.0.0.0/8=tools"]).await
    }

    async fn import_entry(&self, changes: Value) -> Result<ImportReport, Error> {
        let mut entry = json!({ "slug": "search", "name": "S", "version": "1", "transport": "stdio" });
        for (name, value) in changes.as_object().unwrap() {
            entry[name] = value.clone();
        }
        let file = EntryFile::parse("entry.json", &entry.to_string()).unwrap();
        catalog::import(&self.fixture.cx, &self.ops, &self.org, &file).await
    }

    async fn import(&self, image: &str) -> Result<ImportReport, Error> {
        self.import_entry(json!({ "source": { "image": image } })).await
    }

    async fn create_secret(&self, name: &str, value: &str) {
        let value = SecretText::new(value);
        tool_secrets::create(&self.fixture.cx, &self.ops, &self.org, name, &value).await.unwrap();
    }
}

fn image(report: &ImportReport) -> &str {
    match &report.entry.versions.iter().find(|version| version.id == report.version_id).unwrap().definition.source {
        Source::Image(image) => image,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_rejected(result: Result<ImportReport, Error>, code: Code, words: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.code, code, "{error}");
    assert!(error.message.contains(words) && !error.message.contains("secret:"), "{error}");
    assert!(error.message.starts_with("entry.json: "), "{error}");
    assert!(error.details["file"] == "entry.json" && error.details.contains_key("field"), "{error:?}");
}

async fn a_tag_is_resolved_once(fixture: Fixture) {
    let stage = Stage::new(fixture).await;
    let current = Arc::new(Mutex::new(1));
    let moved = current.clone();
    let registry = Registry::start(move |_, _, _| found(*current.lock().unwrap())).await;
    let host = &registry.host;
    let first = stage.import(&format!("{host}/team/search:1.2")).await.unwrap();
    assert_eq!((first.change, image(&first)), (ImportChange::Created, &*format!("{host}/team/search@{}", digest(1))));
    let definition = &first.entry.versions[0].definition;
    assert_eq!(definition.image_tag.as_deref(), Some("1.2"));
    assert_eq!(registry.take_requests(), ["HEAD /v2/team/search/manifests/1.2"]);
    // The tag moves. The version keeps its digest, and its registry is not asked again.
    *moved.lock().unwrap() = 2;
    let again = stage.import(&format!("{host}/team/search:1.2")).await.unwrap();
    assert_eq!((again.change, image(&again)), (ImportChange::Unchanged, image(&first)));
    assert_eq!(registry.take_requests(), [""; 0]);
    // The digest itself is the same content; another tag is not, unless it has the same digest.
    let same = stage.import(&format!("{host}/team/search@{}", digest(1))).await.unwrap();
    assert_eq!(same.change, ImportChange::Unchanged);
    let other = stage.import(&format!("{host}/team/search")).await;
    assert_rejected(other, Code::Conflict, "entry.json: version `1`");
}

async fn a_registry_with_tokens_is_used(fixture: Fixture) {
    let stage = Stage::new(fixture).await;
    let host = Arc::new(Mutex::new(String::new()));
    let own = host.clone();
    let registry = Registry::start(move |_, path, authorization| {
        let host = own.lock().unwrap().clone();
        match (path.split('?').next().unwrap(), authorization) {
            ("/token", ANN) => (200, String::new(), json!({ "access_token": "private" }).to_string()),
            ("/token", "") => (200, String::new(), json!({ "token": "public" }).to_string()),
            ("/token", _) => status(401),
            ("/v2/open/manifests/1", "Bearer public") | ("/v2/closed/manifests/1", "Bearer private") => found(3),
            (_, "") => (
                401,
                format!(
                    "WWW-Authenticate: Bearer realm=\"http://{host}/token\",service=\"registry\",scope=\"x:y:z\"\r\n"
                ),
                "{}".to_owned(),
            ),
            _ => status(403),
        }
    })
    .await;
    *host.lock().unwrap() = registry.host.clone();
    let report = stage.import(&format!("{}/open:1", registry.host)).await.unwrap();
    assert!(image(&report).ends_with(&digest(3)));
    let token = "GET /token?service=registry&scope=repository%3Aopen%3Apull";
    let manifest = "HEAD /v2/open/manifests/1";
    assert_eq!(registry.take_requests(), [manifest, token, &format!("{manifest} Bearer public")]);
    let closed = json!({ "slug": "closed", "source": { "image": format!("{}/closed:1", registry.host) } });
    assert_rejected(
        stage.import_entry(closed.clone()).await,
        Code::ImageDenied,
        "For a private image, create a secret",
    );
    stage.create_secret("REGISTRY", "ann:secret").await;
    stage.create_secret("WRONG", "ann:wrong-secret").await;
    let with_secret = |name: &str| {
        let mut entry = closed.clone();
        entry["registry_secret"] = json!(name);
        entry
    };
    let denied = stage.import_entry(with_secret("WRONG")).await;
    assert_rejected(denied, Code::ImageDenied, "whether the credentials in `registry_secret` are valid");
    registry.take_requests();
    let report = stage.import_entry(with_secret("REGISTRY")).await.unwrap();
    assert!(image(&report).ends_with(&digest(3)));
    let requests = registry.take_requests();
    assert_eq!(requests[0], "HEAD /v2/closed/manifests/1", "no credentials before a challenge");
    assert!(requests[1].ends_with(ANN) && requests[2].ends_with("Bearer private"), "{requests:?}");
}

async fn a_registry_with_passwords_is_used(fixture: Fixture) {
    let stage = Stage::new(fixture).await;
    let registry = Registry::start(|_, _, authorization| match authorization {
        ANN => found(4),
        _ => (401, "WWW-Authenticate: Basic realm=\"r\"\r\n".to_owned(), String::new()),
    })
    .await;
    let image_name = format!("{}/x:1", registry.host);
    assert_rejected(stage.import(&image_name).await, Code::ImageDenied, "denied access to the image");
    stage.create_secret("REGISTRY", "ann:secret").await;
    let entry = json!({ "source": { "image": image_name }, "registry_secret": "REGISTRY" });
    assert!(image(&stage.import_entry(entry).await.unwrap()).ends_with(&digest(4)));
}

async fn the_digest_is_computed_if_the_registry_does_not_send_it(fixture: Fixture) {
    let stage = Stage::new(fixture).await;
    let registry =
        Registry::start(|_, _, _| (200, "Docker-Content-Digest: md5:00\r\n".to_owned(), "abc".to_owned())).await;
    let report = stage.import(&format!("{}/x:1", registry.host)).await.unwrap();
    // FIPS 180-4: the digest of "abc".
    let digest = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert!(image(&report).ends_with(digest), "{}", image(&report));
    assert_eq!(registry.take_requests(), ["HEAD /v2/x/manifests/1", "GET /v2/x/manifests/1"]);
}

async fn failures_of_registries_are_explained(fixture: Fixture) {
    let stage = Stage::new(fixture).await;
    let bearer = |realm: &str| (401, format!("WWW-Authenticate: Bearer realm=\"{realm}\"\r\n"), String::new());
    let private = bearer("http://10.0.0.1/token");
    let broken = bearer("not a URL");
    let registry =
        Registry::start(move |_, path, _| match path.trim_start_matches("/v2/").split('/').next().unwrap() {
            "missing" => status(404),
            "closed" => status(403),
            "busy" => status(429),
            "down" => status(500),
            "digest-auth" => (401, "WWW-Authenticate: Digest realm=\"r\"\r\n".to_owned(), String::new()),
            "private-realm" => private.clone(),
            "broken-realm" => broken.clone(),
            "loop" => (302, format!("Location: {path}\r\n"), String::new()),
            "large" => (200, String::new(), "x".repeat(5 * 1024 * 1024)),
            other => panic!("{other}"),
        })
        .await;
    for (name, code, words) in [
        ("missing", Code::ImageNotFound, "The registry has no image `127.0.0.1:"),
        ("closed", Code::ImageDenied, "denied access"),
        ("busy", Code::InvalidArguments, "it limits the number of requests. Try again later"),
        ("down", Code::InvalidArguments, "it returned status 500"),
        ("digest-auth", Code::InvalidArguments, "a kind of authentication that is not supported"),
        ("private-realm", Code::InvalidArguments, "is not on the public internet"),
        ("broken-realm", Code::InvalidArguments, "no valid realm"),
        ("loop", Code::InvalidArguments, "redirects too many times"),
        ("large", Code::InvalidArguments, "larger than"),
    ] {
        assert_rejected(stage.import(&format!("{}/{name}:1", registry.host)).await, code, words);
    }
    let listed = catalog::list(&stage.fixture.cx, &stage.ops, &stage.org, 10, None).await.unwrap();
    assert!(listed.items.is_empty(), "nothing was stored");
    // A port on which nothing listens.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert_rejected(stage.import(&format!("{free}/x:1")).await, Code::InvalidArguments, "cannot be reached");
}

async fn registries_in_private_networks_are_rejected(fixture: Fixture) {
    let registry = Registry::start(|_, _, _| found(1)).await;
    let image = format!("{}/x:1", registry.host);
    let stage = stage(fixture, &["127.0.0.0/8=webhooks", "127.0.0.0/8=tools@other"]).await;
    assert_rejected(stage.import(&image).await, Code::InvalidArguments, "is not on the public internet");
    assert_rejected(stage.import("169.254.169.254/x:1").await, Code::InvalidArguments, "is not on the public internet");
    assert_eq!(registry.take_requests(), [""; 0]);
}

async fn a_registry_with_its_own_authority_needs_its_certificate(fixture: Fixture) {
    let stage = Stage::new(fixture).await;
    let (registry, certificate) = Registry::start_tls(|_, _, _| found(5)).await;
    let image_name = format!("{}/x:1", registry.host);
    let rejected = stage.import(&image_name).await;
    assert_rejected(rejected, Code::InvalidArguments, "add it to the setting `outbound_ca_file`");
    assert_eq!(registry.take_requests(), [""; 0], "plain HTTP is not tried");
    let allow = vec!["127.0.0.0/8=tools".parse().unwrap()];
    let outbound = Outbound::new(Policy { allow, extra_roots_pem: Some(certificate) }).unwrap();
    let stage = Stage { ops: stage.ops.clone().with_outbound(outbound), ..stage };
    assert!(image(&stage.import(&image_name).await.unwrap()).ends_with(&digest(5)));
    assert_eq!(registry.take_requests(), ["HEAD /v2/x/manifests/1"]);
}

async fn credentials_are_a_secret_of_the_organisation(fixture: Fixture) {
    let stage = Stage::new(fixture).await;
    let registry = Registry::start(|_, _, _| found(1)).await;
    let by_tag = json!({ "source": { "image": format!("{}/x:1", registry.host) }, "registry_secret": "REGISTRY" });
    let by_digest =
        json!({ "source": { "image": format!("r.example/x@{}", digest(1)) }, "registry_secret": "REGISTRY" });
    for entry in [&by_tag, &by_digest] {
        let missing = stage.import_entry(entry.clone()).await;
        assert_rejected(
            missing,
            Code::InvalidArguments,
            "names the secret `REGISTRY`, which does not exist. Create it",
        );
    }
    stage.create_secret("REGISTRY", "no colon").await;
    assert_rejected(stage.import_entry(by_tag).await, Code::InvalidArguments, "is not `USERNAME:PASSWORD`");
    assert_eq!(registry.take_requests(), [""; 0]);
    stage.import_entry(by_digest).await.unwrap();
}
