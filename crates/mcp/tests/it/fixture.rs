//! A hosted server with sign-in, and its endpoint.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use waypost_content::transfer;
use waypost_core::Timestamp;
use waypost_core::caller::Ctx;
use waypost_core::clock::ManualClock;
use waypost_core::id::{EndUserId, OauthGrantId, OrganizationId, ServerId};
use waypost_core::random::SystemRandom;
use waypost_core::scope::Scopes;
use waypost_core::secret::SecretKey;
use waypost_core::server::{AuthType, SignInPolicy, Toolset};
use waypost_mcp::bearer::{Bearer, Challenge};
use waypost_mcp::endpoint::{Endpoint, McpRequest, ProductHandlers, SessionMode};
use waypost_mcp::limits::{LimitOptions, Limits};
use waypost_ops::hosting::{Hosting, HostingOptions};
use waypost_ops::identity::Subject;
use waypost_ops::servers::{self, ServerSettings};
use waypost_ops::walkthroughs::import::{self, ImportOptions};
use waypost_ops::{Ops, organizations};
use waypost_store::{Db, migrate, on};

pub const MODERN: &str = "2026-07-28";
pub const METADATA: &str = "https://guide.example.com/.well-known/oauth-protected-resource/mcp";
/// The challenge if no token was sent.
pub const CHALLENGE: &str =
    r#"Bearer resource_metadata="https://guide.example.com/.well-known/oauth-protected-resource/mcp", scope="walk""#;
pub const WALKTHROUGH: &str = "tour";

pub struct Fixture {
    pub cx: Ctx,
    pub ops: Ops,
    pub hosting: Hosting,
    pub endpoint: Endpoint<ProductHandlers>,
    pub org: OrganizationId,
    pub server: ServerId,
    tasks: waypost_ops::hosting::Tasks,
}

/// A server with `platform_oauth` and all tools, which asks for sign-in when needed.
pub async fn fixture(url: &str) -> Fixture {
    limited(url, LimitOptions::OFF).await
}

/// Like [`fixture`], with rate limits.
pub async fn limited(url: &str, limits: LimitOptions) -> Fixture {
    let db = Db::open(url).await.unwrap();
    migrate::migrate(&db).await.unwrap();
    let clock = Arc::new(ManualClock::new(Timestamp(1_795_000_000_000)));
    let cx = Ctx { clock: clock.clone(), random: Arc::new(SystemRandom), ..Ctx::operator() };
    let options = HostingOptions {
        keys: SecretKey::new([7; 32]).into(),
        version_cache_bytes: 1024 * 1024,
        clock,
        random: Arc::new(SystemRandom),
    };
    let (hosting, tasks) = Hosting::start(db.clone(), options);
    let endpoint = Endpoint::new(
        ProductHandlers,
        hosting.clone(),
        Limits::new(limits, cx.clock.clone()),
        Arc::new(SystemRandom),
        SessionMode::Signed,
        CancellationToken::new(),
    );
    let ops = Ops::new(db);
    let org = organizations::create(&cx, &ops, "acme", None).await.unwrap().id;
    let settings = ServerSettings {
        auth_type: Some(AuthType::PlatformOauth),
        toolset: Some(Toolset::All),
        ..ServerSettings::default()
    };
    let server = servers::create(&cx, &ops, &org, "guide", &settings).await.unwrap().id;
    let step = |title: &str| json!({ "key": title, "title": title, "contentFields": { "version": "v1", "contentForUser": "Do it." } });
    let document = json!({ "version": "1.1", "walkthrough": { "title": "Tour", "type": "course" },
        "steps": [step("One"), step("Two"), step("Three")] });
    let file = transfer::parse("tour.json", &document.to_string()).unwrap();
    let options = ImportOptions { publish: true, server: Some("guide".into()), ..ImportOptions::default() };
    import::import(&cx, &ops, &org, file, options).await.unwrap();
    Fixture { cx, ops, hosting, endpoint, org, server, tasks }
}

/// The endpoint's response.
#[derive(Debug)]
pub struct TestResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
}

impl TestResponse {
    pub fn challenge(&self) -> Option<&str> {
        self.headers.get("www-authenticate").map(|value| value.to_str().unwrap())
    }

    /// The structured content of a tool's result.
    pub fn structured(&self) -> &Value {
        assert_eq!(self.status, StatusCode::OK, "{self:?}");
        &self.body["result"]["structuredContent"]
    }
}

/// A request that tests can change.
pub struct TestRequest {
    pub method: Method,
    pub uri: &'static str,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
    pub tracking_id: Option<&'static str>,
}

impl TestRequest {
    pub fn post(body: impl Into<String>) -> Self {
        let headers = vec![("host", "guide.example.com".to_owned()), ("content-type", "application/json".to_owned())];
        Self { method: Method::POST, uri: "/mcp", headers, body: body.into(), tracking_id: None }
    }

    /// Creates a request of 2026-07-28.
    pub fn modern(method: &str, mut params: Value) -> Self {
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        let body = json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params });
        let request = Self::post(body.to_string()).header("mcp-protocol-version", MODERN).header("mcp-method", method);
        match params["name"].as_str().or(params["uri"].as_str()) {
            Some(name) => request.header("mcp-name", name),
            None => request,
        }
    }

    /// Creates a request of a revision with a handshake.
    pub fn legacy(method: &str, params: Value) -> Self {
        let body = json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params });
        Self::post(body.to_string())
    }

    pub fn tool(name: &str, arguments: Value) -> Self {
        Self::modern("tools/call", json!({ "name": name, "arguments": arguments }))
    }

    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

pub fn challenge() -> Challenge {
    Challenge { resource_metadata: METADATA.to_owned() }
}

impl Fixture {
    pub async fn set(&self, settings: ServerSettings) {
        servers::update(&self.cx, &self.ops, &self.org, &self.server, &settings).await.unwrap();
    }

    pub async fn sign_in(&self, sign_in: SignInPolicy) {
        self.set(ServerSettings { sign_in: Some(sign_in), ..ServerSettings::default() }).await;
    }

    /// Creates a user and returns a valid token of this user.
    pub async fn token(&self, name: &str, scopes: Scopes) -> Bearer {
        let end_user_id = EndUserId::from_store(format!("eu_{name}"));
        let sql = format!(
            "INSERT INTO end_users (id, organization_id, created_at) VALUES ('{end_user_id}', '{}', 1)",
            self.org
        );
        let mut tx = self.ops.store().begin().await.unwrap();
        on!(&mut tx, c => sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(c).await.unwrap().rows_affected());
        tx.commit().await.unwrap();
        let grant_id = OauthGrantId::from_store(format!("ogr_{name}"));
        Bearer::Valid { subject: Subject { end_user_id, grant_id, scopes }, challenge: challenge() }
    }

    pub async fn send(&self, bearer: &Bearer, test_request: TestRequest) -> TestResponse {
        self.hosting.offer_cache().poll().await.unwrap();
        let mcp_request = McpRequest {
            offers: self.hosting.offer_cache().get("guide").await.unwrap(),
            tracking_id: test_request.tracking_id.map(str::to_owned),
            bearer: bearer.clone(),
            address: IpAddr::from([192, 0, 2, 7]),
            request_id: "req_test".to_owned(),
        };
        let mut request = Request::builder().method(test_request.method).uri(test_request.uri);
        for (name, value) in test_request.headers {
            request = request.header(name, value);
        }
        let response = self.endpoint.handle(request.body(Body::from(test_request.body)).unwrap(), &mcp_request).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        TestResponse { status: parts.status, headers: parts.headers, body }
    }

    /// Stops the server and returns the number of rejected requests by reason.
    pub async fn rejections(self) -> Vec<(String, i64)> {
        let db = self.ops.store().clone();
        let Self { hosting, endpoint, tasks, .. } = self;
        drop((hosting, endpoint));
        tasks.finish().await;
        let mut conn = db.read().await.unwrap();
        const SQL: &str =
            "SELECT reason, CAST(sum(count) AS BIGINT) FROM refused_calls GROUP BY reason ORDER BY reason";
        on!(&mut conn, c => sqlx::query_as(SQL).fetch_all(c).await.unwrap())
    }
}
