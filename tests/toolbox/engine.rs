//! A small Docker Engine API client for tests: it inspects the daemon's work from outside, and does not need the
//! `docker` command.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use data_encoding::BASE64URL;
use serde_json::{Value, json};
use url::form_urlencoded::Serializer;

use crate::attach::Attached;
use crate::support::TIMEOUT;

/// The label of all objects that a test creates itself.
const TEST_LABEL: &str = "dev.waypost.test";

/// A Docker Engine.
#[derive(Debug, Clone)]
pub struct Engine {
    socket: PathBuf,
}

/// An error response from the engine.
#[derive(Debug)]
pub struct ErrorResponse {
    /// The HTTP status. 200 if a pull failed after it began.
    pub status: u16,
    /// The engine's message.
    pub message: String,
}

impl Engine {
    /// Returns the engine at `DOCKER_HOST`, which other programs use as well.
    pub fn shared() -> Self {
        Self::at(&waypost_testkit::docker_socket().expect("DOCKER_HOST is a Unix socket"))
    }

    /// Returns the engine with this socket.
    pub fn at(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Returns the URL of the engine, for `--docker-host`.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Whether something listens on the socket.
    pub fn is_running(&self) -> bool {
        UnixStream::connect(&self.socket).is_ok()
    }

    /// Sends a request and returns the JSON of the response, or `null`.
    ///
    /// # Panics
    /// If the engine rejects the request.
    pub fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        self.try_call(method, path, body).unwrap_or_else(|error| panic!("{method} {path}: {error:?}"))
    }

    /// Sends a request and returns the JSON of the response, or `null`.
    pub fn try_call(&self, method: &str, path: &str, body: &Value) -> Result<Value, ErrorResponse> {
        let (status, text) = self.send(method, path, "", body);
        let value = serde_json::from_str(&text).unwrap_or(Value::Null);
        if status < 400 {
            return Ok(value);
        }
        Err(ErrorResponse { status, message: value["message"].as_str().unwrap_or(&text).to_owned() })
    }

    /// Pulls an image, with a user name and a password if the registry needs them.
    pub fn pull(&self, reference: &str, credentials: Option<(&str, &str)>) -> Result<(), ErrorResponse> {
        let (name, digest) = reference.split_once('@').expect("a reference by digest");
        let query = Serializer::new(String::new()).extend_pairs([("fromImage", name), ("tag", digest)]).finish();
        let auth = credentials.map(|(user, password)| {
            let auth = json!({ "username": user, "password": password }).to_string();
            format!("X-Registry-Auth: {}\r\n", BASE64URL.encode(auth.as_bytes()))
        });
        let path = format!("/images/create?{query}");
        let (status, text) = self.send("POST", &path, &auth.unwrap_or_default(), &Value::Null);
        let failed = text.lines().find(|line| status >= 400 || line.contains("\"errorDetail\""));
        failed.map_or(Ok(()), |line| Err(ErrorResponse { status, message: line.to_owned() }))
    }

    /// Starts a container.
    pub fn start(&self, id: &str) {
        self.call("POST", &format!("/containers/{id}/start"), &Value::Null);
    }

    /// Kills a container with SIGKILL.
    pub fn kill(&self, id: &str) {
        self.call("POST", &format!("/containers/{id}/kill"), &Value::Null);
    }

    /// Waits until a container has exited, and returns its exit code.
    pub fn wait(&self, id: &str) -> i64 {
        let result = self.call("POST", &format!("/containers/{id}/wait"), &Value::Null);
        result["StatusCode"].as_i64().expect("an exit code")
    }

    /// Returns everything that the engine knows about a container.
    pub fn inspect(&self, id: &str) -> Value {
        self.call("GET", &format!("/containers/{id}/json"), &Value::Null)
    }

    /// Returns everything that the engine knows about an image.
    pub fn inspect_image(&self, reference: &str) -> Value {
        self.call("GET", &format!("/images/{reference}/json"), &Value::Null)
    }

    /// Attaches to the standard input, output and error of a container.
    pub fn attach(&self, id: &str) -> Attached {
        let mut stream = self.connect();
        let path = format!("/containers/{id}/attach?stream=1&stdin=1&stdout=1&stderr=1");
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n"
        )
        .expect("the engine reads");
        let mut stream = BufReader::new(stream);
        let status = read_head(&mut stream);
        assert_eq!(status, 101, "the engine attaches to {id}");
        Attached::new(stream)
    }

    /// Returns the containers with a label `NAME=VALUE`, including stopped ones.
    pub fn containers(&self, label: &str) -> Vec<Value> {
        as_list(self.call("GET", &format!("/containers/json?all=true&{}", label_filter(label)), &Value::Null))
    }

    /// Returns the networks with a label.
    pub fn networks(&self, label: &str) -> Vec<Value> {
        as_list(self.call("GET", &format!("/networks?{}", label_filter(label)), &Value::Null))
    }

    /// Returns the volumes with a label.
    pub fn volumes(&self, label: &str) -> Vec<Value> {
        as_list(self.call("GET", &format!("/volumes?{}", label_filter(label)), &Value::Null)["Volumes"].take())
    }

    /// Removes the images that were pulled from a registry `HOST:PORT`. Ignores errors, because a container may still
    /// use an image.
    pub fn remove_images_of(&self, registry: &str) {
        for image in as_list(self.call("GET", "/images/json", &Value::Null)) {
            let references = image["RepoDigests"].as_array().into_iter().flatten().filter_map(Value::as_str);
            for reference in references.filter(|reference| reference.starts_with(&format!("{registry}/"))) {
                let _ = self.try_call("DELETE", &format!("/images/{reference}"), &Value::Null);
            }
        }
    }

    /// Removes the containers, networks and volumes with a label, as far as possible.
    pub fn remove_labelled(&self, label: &str) {
        if !self.is_running() {
            return;
        }
        let remove = |path: String| {
            let _ = self.try_call("DELETE", &path, &Value::Null);
        };
        let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
        for container in self.containers(label) {
            remove(format!("/containers/{}?force=true&v=true", text(&container, "Id")));
        }
        for network in self.networks(label) {
            remove(format!("/networks/{}", text(&network, "Id")));
        }
        for volume in self.volumes(label) {
            remove(format!("/volumes/{}", text(&volume, "Name")));
        }
    }

    /// Returns the host's address in a network of the engine, which only this machine can reach.
    pub fn host_address(&self, network: &str) -> String {
        let network = self.call("GET", &format!("/networks/{network}"), &Value::Null);
        network["IPAM"]["Config"][0]["Gateway"].as_str().expect("the network has a gateway").to_owned()
    }

    /// Sends an HTTP/1.0 request, because its response ends with the connection. Returns the status and the body.
    fn send(&self, method: &str, path: &str, headers: &str, body: &Value) -> (u16, String) {
        let mut stream = self.connect();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: docker\r\nContent-Type: application/json\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
        )
        .expect("the engine reads");
        let mut stream = BufReader::new(stream);
        let status = read_head(&mut stream);
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("the engine responds in time");
        (status, text)
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.socket);
        let stream = stream.unwrap_or_else(|error| panic!("no engine on {}: {error}", self.socket.display()));
        stream.set_read_timeout(Some(TIMEOUT)).expect("a valid timeout");
        stream
    }
}

/// Reads the head of a response and returns the status.
fn read_head(stream: &mut impl BufRead) -> u16 {
    let mut first = String::new();
    stream.read_line(&mut first).expect("the engine responds in time");
    let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
    let mut line = String::from("first");
    while !line.trim().is_empty() {
        line.clear();
        stream.read_line(&mut line).expect("the engine responds in time");
    }
    status.unwrap_or_else(|| panic!("not a response: {first}"))
}

fn label_filter(label: &str) -> String {
    let filters = json!({ "label": [label] }).to_string();
    Serializer::new(String::new()).append_pair("filters", &filters).finish()
}

fn as_list(value: Value) -> Vec<Value> {
    match value {
        Value::Array(list) => list,
        Value::Null => Vec::new(),
        other => panic!("not a list: {other}"),
    }
}

/// Containers, networks and volumes that a test creates without the daemon. Removed on drop.
pub struct Scratch {
    engine: Engine,
    label: String,
}

impl Scratch {
    /// Returns an empty set.
    pub fn new(engine: &Engine) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { engine: engine.clone(), label: format!("{}-{number}", std::process::id()) }
    }

    /// Creates a container and returns its ID. `config` is the request body.
    pub fn container(&self, config: Value) -> String {
        self.create("/containers/create", config)
    }

    /// Creates a network and returns its ID.
    pub fn network(&self, mut config: Value) -> String {
        config["Name"] = json!(format!("waypost-test-{}", self.label));
        self.create("/networks/create", config)
    }

    /// Creates a volume and returns its name.
    pub fn volume(&self, mut config: Value) -> String {
        let name = format!("waypost-test-{}", self.label);
        config["Name"] = json!(name);
        config["Labels"][TEST_LABEL] = json!(self.label);
        self.engine.call("POST", "/volumes/create", &config);
        name
    }

    fn create(&self, path: &str, mut config: Value) -> String {
        config["Labels"][TEST_LABEL] = json!(self.label);
        self.engine.call("POST", path, &config)["Id"].as_str().expect("an ID").to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.engine.remove_labelled(&format!("{TEST_LABEL}={}", self.label));
    }
}

/// A guard for the images that were pulled from a registry `HOST:PORT`. Removes them on drop if the engine is running.
pub struct RegistryImages {
    engine: Engine,
    registry: String,
}

impl RegistryImages {
    /// Creates a guard for the images of the registry.
    pub fn new(engine: &Engine, registry: &str) -> Self {
        Self { engine: engine.clone(), registry: registry.to_owned() }
    }
}

impl Drop for RegistryImages {
    fn drop(&mut self) {
        if self.engine.is_running() {
            self.engine.remove_images_of(&self.registry);
        }
    }
}
