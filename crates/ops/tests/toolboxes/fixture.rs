//! The fixture: two organisations with catalogues and secrets, and simulated daemons.

use std::collections::BTreeMap;
use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Map, Value, json};
use waypost_core::caller::Ctx;
use waypost_core::clock::{ManualClock, Timestamp};
use waypost_core::deployment::Deployment;
use waypost_core::id::{CatalogVersionId, InstanceId, OrganizationId, ToolSecretId, ToolboxId};
use waypost_core::instance::Instance;
use waypost_core::random::SystemRandom;
use waypost_core::seal::{Keyring, SealLocation, SecretText};
use waypost_core::secret::SecretKey;
use waypost_core::{Code, Result};
use waypost_link::Directory;
use waypost_ops::instances::{CatalogServer, InitialAccess, InstanceView, NewInstance, NewServer};
use waypost_ops::public_url::PublicUrl;
use waypost_ops::toolbox_directory::ToolboxDirectory;
use waypost_ops::webhooks::NewWebhook;
use waypost_ops::{Ops, instances, organizations, tool_secrets, toolboxes, webhooks};
use waypost_outbound::{Outbound, Policy};
use waypost_store::{Db, migrate, on};
use waypost_toolbox_proto::deployment::{DeploymentError, DeploymentStep, ErrorCode};
use waypost_toolbox_proto::handshake::{Challenge, Hello, JoinRequest, Rejection, Versions, signed_text};
use waypost_toolbox_proto::instance::{Health, InstanceState};
use waypost_toolbox_proto::message::{
    Capacity, ControlMessage, DaemonMessage, DeploymentOutcome, Engine, Heartbeat, InstanceReport, InstanceSecrets,
    ToolboxEvent,
};

pub const MIB: u64 = 1024 * 1024;
pub const MINUTE: i64 = 60_000;
const PUBLIC_URL: &str = "https://waypost.example";

/// Two organisations, each with a catalogue entry of two versions and two secrets.
pub struct Fixture {
    pub ops: Ops,
    pub cx: Ctx,
    pub clock: Arc<ManualClock>,
    pub directory: ToolboxDirectory,
    pub org: OrganizationId,
    pub other: OrganizationId,
}

/// A simulated daemon.
pub struct Daemon<'a> {
    fixture: &'a Fixture,
    pub id: ToolboxId,
    pub key: Ed25519KeyPair,
    sequence: std::cell::Cell<u64>,
}

pub async fn set_up(url: &str) -> Fixture {
    let db = Db::open(url).await.unwrap();
    migrate::migrate(&db).await.unwrap();
    let clock = Arc::new(ManualClock::new(Timestamp(1_795_000_000_000)));
    let random = Arc::new(SystemRandom);
    let cx = Ctx { clock: clock.clone(), random: random.clone(), ..Ctx::operator() };
    let outbound = Outbound::new(Policy { allow: Vec::new(), extra_roots_pem: None }).unwrap();
    let ops = Ops::new(db).with_keyring(keyring()).with_outbound(outbound);
    let public_url = PublicUrl::new(PUBLIC_URL.parse().unwrap());
    let directory = ToolboxDirectory::new(ops.clone(), public_url, clock.clone(), random);
    let org = organizations::create(&cx, &ops, "acme", None).await.unwrap().id;
    let other = organizations::create(&cx, &ops, "other", None).await.unwrap().id;
    let fixture = Fixture { ops, cx, clock, directory, org, other };
    fixture.fill_catalog(&fixture.org, 1).await;
    fixture.fill_catalog(&fixture.other, 2).await;
    fixture
}

fn keyring() -> Keyring {
    Keyring::new(&SecretKey::new([7; 32]), None)
}

/// Returns the code of an error.
pub fn code<T: std::fmt::Debug>(result: Result<T>) -> Code {
    result.unwrap_err().code
}

/// Returns the ID of a version: `version` 1 and 2 can be deployed and need the secret `TOKEN`. Of 5 and 6, each agent has its own
/// container; 6 has a volume.
pub fn version(n: u32, version: u32) -> CatalogVersionId {
    CatalogVersionId::from_store(format!("ctv_{n:0>10}v{version:0>5}"))
}

pub fn secret(n: u32, name: &str) -> ToolSecretId {
    ToolSecretId::from_store(format!("sec_{n:0>10}{name:0>6}"))
}

/// Returns an instance to create with a change to its container.
pub fn with(mut new: NewInstance, change: impl FnOnce(&mut CatalogServer)) -> NewInstance {
    if let NewServer::Catalog(container) = &mut new.server {
        change(container);
    }
    new
}

impl Fixture {
    /// Runs SQL statements.
    pub async fn execute(&self, sql: String) {
        let mut tx = self.ops.store().begin().await.unwrap();
        on!(&mut tx, c => sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(c).await.unwrap().rows_affected());
        tx.commit().await.unwrap();
    }

    /// Returns the result of a query for a number.
    pub async fn count(&self, sql: &str) -> i64 {
        let mut conn = self.ops.store().read().await.unwrap();
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        on!(&mut conn, c => sqlx::query_scalar(sql).fetch_one(c).await.unwrap())
    }

    pub async fn text(&self, sql: &str) -> String {
        let mut conn = self.ops.store().read().await.unwrap();
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        on!(&mut conn, c => sqlx::query_scalar(sql).fetch_one(c).await.unwrap())
    }

    async fn fill_catalog(&self, org: &OrganizationId, n: u32) {
        let definition = |resources: &str, extra: Value| {
            let mut definition = json!({
                "source": { "image": "registry.example/search@sha256:00" },
                "transport": "stdio",
                "args": ["--root=${config.root}"],
                "config_schema": { "type": "object", "properties": { "root": { "type": "string" } } },
                "secrets": [
                    { "name": "TOKEN", "description": "", "required": true, "as": "file" },
                    { "name": "EXTRA", "description": "", "required": false, "as": "env" },
                ],
                "resources": resources,
                "egress": ["api.example:443"],
                "volumes": [],
                "sharing": "shared",
                "lazy": false,
            });
            definition.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            definition.to_string()
        };
        let entry = |name: &str, state: &str| {
            format!(
                "INSERT INTO catalog_entries VALUES ('cat_{name}{n}', '{org}', '{name}', 'Search', '', '[]', NULL, NULL,
                     '{state}', 1, 1);"
            )
        };
        let row = |number: u32, name: &str, definition: String| {
            let id = version(n, number);
            format!(
                "INSERT INTO catalog_versions VALUES ('{id}', '{org}', 'cat_{name}{n}', '{number}', '{definition}', 1, NULL);"
            )
        };
        let package = json!({ "source": { "package": { "registry": "npm", "name": "x", "version": "1" } } });
        let mut sql = entry("search", "published") + &entry("old", "archived");
        sql += &row(1, "search", definition("light", json!({})));
        sql += &row(2, "search", definition("heavy", json!({ "registry_secret": "REGISTRY" })));
        sql += &row(3, "search", definition("light", package));
        sql += &row(4, "old", definition("light", json!({})));
        sql += &row(5, "search", definition("light", json!({ "sharing": "per_agent" })));
        let volumes = json!([{ "name": "data", "path": "/data" }]);
        sql += &row(6, "search", definition("light", json!({ "sharing": "per_agent", "volumes": volumes })));
        for (name, value) in [("TOKEN", "hunter2"), ("SPARE", "correct horse")] {
            let id = secret(n, name);
            let sealed = seal(&id, value);
            sql += &format!("INSERT INTO tool_secrets VALUES ('{id}', '{org}', '{name}', '{sealed}', 1, 1, NULL);");
        }
        self.execute(sql).await;
    }

    /// Replaces the value of a secret.
    pub async fn rotate_secret(&self, id: &ToolSecretId, value: &str) {
        tool_secrets::rotate(&self.cx, &self.ops, &self.org, id, &SecretText::new(value)).await.unwrap();
    }

    /// Subscribes a webhook to all events.
    pub async fn subscribe(&self) {
        let events = waypost_core::webhook::WebhookEvent::SUBSCRIBABLE.to_vec();
        let new = NewWebhook { url: "https://hook.example".into(), description: String::new(), events };
        webhooks::create(&self.cx, &self.ops, &self.org, &new).await.unwrap();
    }

    /// Returns the types of the enqueued webhook events, ordered by name.
    pub async fn webhook_events(&self) -> Vec<String> {
        let mut conn = self.ops.store().read().await.unwrap();
        const SQL: &str = "SELECT event FROM webhook_deliveries ORDER BY event";
        on!(&mut conn, c => sqlx::query_scalar(SQL).fetch_all(c).await.unwrap())
    }

    /// Creates a toolbox in `org` and lets a daemon join and send its first heartbeat.
    pub async fn daemon(&self, org: &OrganizationId, name: &str) -> Daemon<'_> {
        let (_, token) = toolboxes::create(&self.cx, &self.ops, org, name).await.unwrap();
        let key = new_key();
        let request = join_request(token.token.expose(), &key);
        let joined = toolboxes::join(&self.cx, &self.ops, &request).await.unwrap();
        let daemon =
            Daemon { fixture: self, id: joined.toolbox_id.parse().unwrap(), key, sequence: std::cell::Cell::new(0) };
        daemon.heartbeat(Vec::new()).await;
        daemon
    }

    /// Returns an instance to create.
    pub fn new_instance(&self, slug: &str) -> NewInstance {
        NewInstance {
            slug: slug.to_owned(),
            name: None,
            server: NewServer::Catalog(CatalogServer {
                catalog_version_id: version(1, 1),
                toolbox_id: None,
                config: map(json!({ "root": "/data" })),
                personal_secrets: Default::default(),
                learn_egress: false,
            }),
            secrets: BTreeMap::from([("TOKEN".to_owned(), secret(1, "TOKEN"))]),
            access: InitialAccess::default(),
        }
    }

    /// Creates an instance whose deployment has not ended.
    pub async fn create(&self, slug: &str) -> InstanceView {
        instances::create(&self.cx, &self.ops, &self.org, &self.new_instance(slug)).await.unwrap()
    }

    pub async fn get(&self, id: &InstanceId) -> InstanceView {
        instances::get(&self.cx, &self.ops, &self.org, id).await.unwrap()
    }

    pub async fn instance(&self, id: &InstanceId) -> Instance {
        self.get(id).await.instance
    }

    pub async fn deployments(&self, id: &InstanceId) -> Vec<Deployment> {
        waypost_ops::deployments::list(&self.cx, &self.ops, &self.org, id, None, 100).await.unwrap()
    }
}

impl Daemon<'_> {
    pub async fn receive(&self, message: DaemonMessage) -> Option<ControlMessage> {
        self.fixture.directory.receive(&self.id, message).await.unwrap()
    }

    pub async fn heartbeat(&self, instances: Vec<InstanceReport>) -> Option<ControlMessage> {
        self.receive(DaemonMessage::Heartbeat(heartbeat(instances))).await
    }

    /// Sends an event with the next number.
    pub async fn send(&self, event: ToolboxEvent) {
        let sequence = self.sequence.get() + 1;
        self.sequence.set(sequence);
        self.send_numbered(sequence, event).await;
    }

    /// Sends an event and checks the acknowledgement.
    pub async fn send_numbered(&self, sequence: u64, event: ToolboxEvent) {
        let answer = self.receive(DaemonMessage::Event { sequence, at: 5, event }).await;
        let highest = self.sequence.get().max(sequence);
        self.sequence.set(highest);
        assert!(answer == Some(ControlMessage::Acknowledge { sequence: highest }), "{answer:?}");
    }

    pub async fn report(&self, id: &InstanceId, generation: u64, state: InstanceState) {
        self.send(ToolboxEvent::Instance(report(id, generation, state))).await;
    }

    /// Ends the current deployment of an instance.
    pub async fn end(&self, id: &InstanceId, outcome: DeploymentOutcome) {
        let deployment = self.fixture.get(id).await.deployment.unwrap();
        self.send(ended(&deployment, outcome)).await;
    }

    /// Completes the current deployment of an instance.
    pub async fn complete(&self, id: &InstanceId) {
        self.end(id, DeploymentOutcome::Complete).await;
        let generation = self.fixture.instance(id).await.generation;
        self.report(id, generation, InstanceState::Running).await;
    }

    /// Requests the values of an instance's secrets, by name.
    pub async fn secrets(&self, id: &InstanceId, generation: u64) -> Option<BTreeMap<String, String>> {
        self.secrets_for(id, generation, None).await.map(|secrets| secrets.values)
    }

    /// Requests the secrets for the container of an instance with a key.
    pub async fn secrets_for(&self, id: &InstanceId, generation: u64, key: Option<&str>) -> Option<InstanceSecrets> {
        let (instance_id, key) = (id.to_string(), key.map(str::to_owned));
        let message = DaemonMessage::SecretRequest { request: 3, instance_id, generation, key };
        match self.receive(message).await {
            Some(ControlMessage::Secrets { request: 3, secrets }) => secrets,
            answer => panic!("{answer:?}"),
        }
    }

    /// Authenticates with `key`, and presents a new public key.
    pub async fn authenticate(
        &self,
        key: &Ed25519KeyPair,
        next: Option<&Ed25519KeyPair>,
    ) -> Result<ToolboxId, Rejection> {
        let challenge = challenge();
        let hello = hello(&challenge, &self.id, key, next);
        self.fixture.directory.authenticate(&challenge, &hello).await
    }
}

fn seal(id: &ToolSecretId, value: &str) -> String {
    let location = SealLocation { table: "tool_secrets", column: "value", row: id.as_str() };
    keyring().seal(&location, value.as_bytes(), &SystemRandom)
}

pub fn map(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

pub fn new_key() -> Ed25519KeyPair {
    let document = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
    Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap()
}

pub fn public_key(key: &Ed25519KeyPair) -> String {
    BASE64URL_NOPAD.encode(key.public_key().as_ref())
}

pub fn join_request(token: &str, key: &Ed25519KeyPair) -> JoinRequest {
    JoinRequest {
        token: token.to_owned(),
        public_key: public_key(key),
        protocol: Versions::OWN,
        version: "0.1.0".to_owned(),
    }
}

pub fn challenge() -> Challenge {
    Challenge { nonce: "nonce".to_owned(), protocol: Versions::OWN }
}

pub fn hello(challenge: &Challenge, id: &ToolboxId, key: &Ed25519KeyPair, next: Option<&Ed25519KeyPair>) -> Hello {
    let next_public_key = next.map(public_key);
    let text = signed_text(&challenge.nonce, id.as_str(), PUBLIC_URL, next_public_key.as_deref());
    Hello {
        toolbox_id: id.to_string(),
        origin: PUBLIC_URL.to_owned(),
        signature: BASE64URL_NOPAD.encode(key.sign(text.as_bytes()).as_ref()),
        protocol: Versions::OWN,
        version: "0.2.0".to_owned(),
        next_public_key,
    }
}

pub fn heartbeat(instances: Vec<InstanceReport>) -> Heartbeat {
    let engine =
        Engine { version: "20.10".into(), runtime: "1.1".into(), os: "linux".into(), architecture: "amd64".into() };
    Heartbeat {
        version: "0.1.0".to_owned(),
        engine: Some(engine),
        capacity: Capacity { cpus: 8.0, memory_bytes: 16 * 1024 * MIB, disk_free_bytes: 1 },
        desired_revision: 1,
        instances,
    }
}

pub fn report(id: &InstanceId, generation: u64, state: InstanceState) -> InstanceReport {
    let health =
        Some(Health { ok: state == InstanceState::Running, checked_at: 4, latency_ms: Some(2), message: None });
    InstanceReport { id: id.to_string(), generation, state, health }
}

pub fn failure(code: ErrorCode) -> DeploymentError {
    let (cause, next_action) = ("It failed.".to_owned(), "Fix it.".to_owned());
    DeploymentError { step: DeploymentStep::Checking, code, cause, next_action }
}

pub fn ended(deployment: &Deployment, outcome: DeploymentOutcome) -> ToolboxEvent {
    ToolboxEvent::DeploymentEnded {
        deployment_id: deployment.id.to_string(),
        instance_id: deployment.instance_id.to_string(),
        outcome,
    }
}
