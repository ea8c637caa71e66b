//! Clients and browsers that send planted secrets and receive issued ones.

use std::collections::BTreeMap;

use data_encoding::{BASE64, BASE64URL_NOPAD};
use http::{StatusCode, header};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use url::Url;
use waypost_outbound::unguarded_client;

use super::ServeProcess;

const CALLBACK: &str = "http://127.0.0.1:3999/callback";
const VERIFIER: &str = "planted-verifier-CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const EMAIL: &str = "planted.person@example.com";
const PASSWORD: &str = "planted Violet umbrella 9417 kiosk";
const NEW_PASSWORD: &str = "planted Amber staircase 2836 lagoon";
const WRONG_PASSWORD: &str = "planted-Wrong-password-5512";
const STATE: &str = "planted state/8b1f&c0de";
const BAD_TOKEN: &str = "wpt_planted0badtoken0planted0badtoken0planted0badtoken00";
const QUERY_TOKEN: &str = "wpt_planted0querytoken0planted0query0planted0querytoken";
const COOKIE: &str = "planted-cookie-5f3759df";
const HANDLE: &str = "hdl_planted0handle0planted0handle0planted";
const SESSION: &str = "planted-session-3141592653589793";
const TRACKING: &str = "planted-tracking-27182818";

/// Every kind of secret that the traffic must contain.
pub const SECRET_KINDS: [&str; 18] = [
    "planted",
    "session",
    "tracking id",
    "personal ID",
    "verifier",
    "email",
    "password",
    "cookie",
    "form token",
    "one-time code",
    "wrong one-time code",
    "client secret",
    "basic credentials",
    "code",
    "wrong code",
    "access token",
    "refresh token",
    "state",
];

/// A value that must not be logged.
#[derive(Debug, PartialEq, Eq)]
pub struct Secret {
    pub kind: &'static str,
    pub value: String,
}

impl Secret {
    pub fn new(kind: &'static str, value: &str) -> Self {
        Self { kind, value: value.to_owned() }
    }
}

/// A response whose body has been read.
struct HttpResponse {
    status: StatusCode,
    location: String,
    session: String,
    body: String,
}

impl HttpResponse {
    #[track_caller]
    fn assert_status(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        self
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    fn between(&self, start: &str) -> Option<String> {
        let (_, rest) = self.body.split_once(start)?;
        Some(rest.split('"').next().unwrap().replace("&amp;", "&").replace("&#38;", "&"))
    }

    /// Returns a query parameter of the redirect target.
    fn parameter(&self, name: &str) -> String {
        let base = Url::parse("http://localhost/").unwrap();
        let url = base.join(&self.location).unwrap();
        let found = url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
        found.unwrap_or_else(|| panic!("no {name} in {:?}: {}", self.location, self.body))
    }
}

/// A registered client with its secret.
struct Client {
    id: String,
    secret: String,
}

/// A pair of tokens.
struct Tokens {
    access: String,
    refresh: String,
}

/// The traffic of one user in several browsers, and the secrets in it.
pub struct Traffic {
    http: reqwest::Client,
    port: u16,
    cookies: BTreeMap<String, String>,
    /// The secrets so far.
    pub secrets: Vec<Secret>,
    /// The number of requests so far.
    pub sent: usize,
}

fn encode(form: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish()
}

impl Traffic {
    pub fn new(port: u16) -> Self {
        let http = unguarded_client().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let mut traffic = Self { http, port, cookies: BTreeMap::new(), secrets: Vec::new(), sent: 0 };
        traffic.record("email", EMAIL);
        traffic.record("email", "planted.person");
        traffic.record("verifier", VERIFIER);
        traffic.record("state", STATE);
        traffic.record("tracking id", TRACKING);
        for password in [PASSWORD, NEW_PASSWORD, WRONG_PASSWORD] {
            traffic.record("password", password);
        }
        for planted in [BAD_TOKEN, QUERY_TOKEN, COOKIE, HANDLE, SESSION] {
            traffic.record("planted", planted);
        }
        traffic
    }

    fn record(&mut self, kind: &'static str, value: &str) {
        let secret = Secret::new(kind, value);
        if !self.secrets.contains(&secret) {
            self.secrets.push(secret);
        }
    }

    /// Sends all traffic, in several browsers.
    pub async fn run_all(&mut self, program: &mut ServeProcess) {
        let client = self.register().await;
        self.new_browser();
        let tokens = self.sign_up(program, &client).await;
        self.call_with_tokens(&tokens).await;
        self.refresh(&client, tokens).await;
        self.new_browser();
        let tokens = self.sign_in_with_password(&client).await;
        self.revoke(&client, &tokens).await;
        self.new_browser();
        self.sign_in_with_code(program, &client).await;
        self.new_browser();
        self.reset_password(program, &client).await;
        self.new_browser();
        self.visit_public_page(&client).await;
    }

    /// Continues in a new browser, which has only a cookie of another program.
    fn new_browser(&mut self) {
        self.cookies = BTreeMap::from([("planted".to_owned(), COOKIE.to_owned())]);
    }

    fn request(&self, method: http::Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("http://127.0.0.1:{}{path}", self.port));
        request.header(header::HOST, format!("localhost:{}", self.port))
    }

    async fn send(&mut self, request: RequestBuilder) -> HttpResponse {
        self.sent += 1;
        let response = request.send().await.unwrap();
        for line in response.headers().get_all(header::SET_COOKIE) {
            let (name, value) = line.to_str().unwrap().split(';').next().unwrap().split_once('=').unwrap();
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
        for value in self.cookies.values().filter(|value| !value.is_empty()).cloned().collect::<Vec<_>>() {
            self.record("cookie", &value);
        }
        let header = |name: &str| response.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
        let (location, session) = (header("location"), header("mcp-session-id"));
        let response =
            HttpResponse { status: response.status(), location, session, body: response.text().await.unwrap() };
        if let Some(token) = response.between("name=\"csrf\" value=\"") {
            self.record("form token", &token);
        }
        response
    }

    fn browser(&self, method: http::Method, path: &str) -> RequestBuilder {
        let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        self.request(method, path).header(header::COOKIE, cookies.join("; "))
    }

    async fn get(&mut self, path: &str) -> HttpResponse {
        self.send(self.browser(http::Method::GET, path)).await
    }

    /// Follows redirects within the product.
    async fn follow(&mut self, mut response: HttpResponse) -> HttpResponse {
        while response.status == StatusCode::SEE_OTHER && response.location.starts_with('/') {
            response = self.get(&response.location).await;
        }
        response
    }

    /// Submits the form of `page` with the action `name`.
    async fn submit_form(&mut self, page: &HttpResponse, name: &str, form: &[(&str, &str)]) -> HttpResponse {
        let action = page.between(&format!("action=\"/s/acme-docs/oauth/{name}?"));
        let action = action.unwrap_or_else(|| panic!("no form for {name}: {}", page.body));
        let mut fields = vec![("csrf", page.between("name=\"csrf\" value=\"").unwrap())];
        fields.extend(page.between("name=\"sent\" value=\"").map(|sent| ("sent", sent)));
        let fields = fields.iter().map(|(name, value)| (*name, value.as_str()));
        let body = encode(&fields.chain(form.iter().copied()).collect::<Vec<_>>());
        let request = self.browser(http::Method::POST, &format!("/s/acme-docs/oauth/{name}?{action}"));
        let request = request.header(header::ORIGIN, format!("http://localhost:{}", self.port));
        self.send(request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded").body(body)).await
    }

    async fn register(&mut self) -> Client {
        let metadata = json!({ "client_name": "Test client", "redirect_uris": [CALLBACK],
            "token_endpoint_auth_method": "client_secret_basic" });
        let request = self.request(http::Method::POST, "/s/acme-docs/oauth/register");
        let request = request.header(header::CONTENT_TYPE, "application/json").body(metadata.to_string());
        let client = self.send(request).await.assert_status(201).json();
        let text = |name: &str| client[name].as_str().unwrap().to_owned();
        let client = Client { id: text("client_id"), secret: text("client_secret") };
        self.record("client secret", &client.secret);
        self.record("basic credentials", &BASE64.encode(format!("{}:{}", client.id, client.secret).as_bytes()));
        client
    }

    /// Starts an authorization request and follows its redirects to the page.
    async fn authorize(&mut self, client: &Client) -> HttpResponse {
        self.authorize_at(client, "/s/acme-docs/mcp").await
    }

    /// Like `authorize`, for a client that uses another URL of the server.
    async fn authorize_at(&mut self, client: &Client, path: &str) -> HttpResponse {
        let resource = format!("http://localhost:{}{path}", self.port);
        let challenge = BASE64URL_NOPAD.encode(&Sha256::digest(VERIFIER));
        let query = encode(&[
            ("response_type", "code"),
            ("client_id", &client.id),
            ("redirect_uri", CALLBACK),
            ("state", STATE),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
            ("resource", &resource),
            ("login_hint", EMAIL),
        ]);
        let response = self.get(&format!("/s/acme-docs/oauth/authorize?{query}")).await;
        self.follow(response).await.assert_status(200)
    }

    /// A visitor uses the personal URL that the public page shows, then a server that requires sign-in.
    async fn visit_public_page(&mut self, client: &Client) {
        let request = self.browser(http::Method::GET, "/s/acme-open").header(header::ACCEPT, "text/html");
        let page = self.send(request).await.assert_status(200);
        let (_, rest) = page.body.split_once("/s/acme-open/t/").unwrap();
        let id = rest.split('/').next().unwrap().to_owned();
        assert!(id.starts_with("pu_"), "{id}");
        self.record("personal ID", &id);
        let request = self.browser(http::Method::GET, &format!("/s/acme-open/t/{id}/mcp"));
        self.send(request.header(header::ACCEPT, "text/html")).await.assert_status(200);
        self.start_walkthrough(&format!("/s/acme-open/t/{id}/mcp"), None).await.assert_status(200);
        self.start_walkthrough(&format!("/s/acme-docs/t/{id}/mcp"), None).await.assert_status(401);
        self.authorize_at(client, &format!("/s/acme-docs/t/{id}/mcp")).await;
    }

    /// Starts an authorization request and opens another of its pages.
    async fn open_page(&mut self, client: &Client, name: &str) -> HttpResponse {
        let request = self.authorize(client).await.between("?request=").unwrap();
        self.get(&format!("/s/acme-docs/oauth/{name}?request={request}")).await.assert_status(200)
    }

    /// Allows the client on the consent page that follows.
    async fn allow(&mut self, redirect: HttpResponse) -> HttpResponse {
        let consent = self.follow(redirect).await.assert_status(200);
        self.submit_form(&consent, "consent", &[("decision", "allow")]).await
    }

    /// Records and returns the authorization code of the callback.
    fn take_code(&mut self, callback: &HttpResponse) -> String {
        assert!(
            callback.location.starts_with(CALLBACK),
            "{}: {} {}",
            callback.status,
            callback.location,
            callback.body
        );
        assert_eq!(callback.parameter("state"), STATE);
        let code = callback.parameter("code");
        self.record("code", &code);
        code
    }

    async fn take_one_time_code(&mut self, program: &mut ServeProcess) -> (String, String) {
        let code = program.next_mail_code().await;
        assert!(code.len() == 8 && code.bytes().all(|byte| byte.is_ascii_digit()), "{code}");
        let wrong: String = code.bytes().map(|digit| char::from(b'0' + (digit - b'0' + 1) % 10)).collect();
        self.record("one-time code", &code);
        self.record("wrong one-time code", &wrong);
        (code, wrong)
    }

    async fn sign_up(&mut self, program: &mut ServeProcess, client: &Client) -> Tokens {
        let page = self.open_page(client, "sign-up").await;
        self.submit_form(&page, "sign-up", &[("email", EMAIL), ("password", "planted1")]).await.assert_status(422);
        let sent =
            self.submit_form(&page, "sign-up", &[("email", EMAIL), ("password", PASSWORD)]).await.assert_status(303);
        let page = self.follow(sent).await.assert_status(200);
        let (code, wrong) = self.take_one_time_code(program).await;
        let page =
            self.submit_form(&page, "sign-in/code", &[("email", EMAIL), ("code", &wrong)]).await.assert_status(422);
        let redirect =
            self.submit_form(&page, "sign-in/code", &[("email", EMAIL), ("code", &code)]).await.assert_status(303);
        let callback = self.allow(redirect).await;
        let code = self.take_code(&callback);
        let bad = format!("wpc_{}", code.chars().skip(4).map(|c| if c == 'a' { 'b' } else { 'a' }).collect::<String>());
        self.record("wrong code", &bad);
        self.exchange(client, &bad).await.assert_status(400);
        let response = self.exchange(client, &code).await;
        self.take_tokens(response)
    }

    async fn sign_in_with_password(&mut self, client: &Client) -> Tokens {
        let page = self.open_page(client, "sign-in/password").await;
        let wrong = [("email", EMAIL), ("password", WRONG_PASSWORD)];
        let page = self.submit_form(&page, "sign-in/password", &wrong).await.assert_status(422);
        let redirect = self
            .submit_form(&page, "sign-in/password", &[("email", EMAIL), ("password", PASSWORD)])
            .await
            .assert_status(303);
        let callback = self.allow(redirect).await;
        let code = self.take_code(&callback);
        let response = self.exchange(client, &code).await;
        self.take_tokens(response)
    }

    /// Signs in with the link in the email. Then the client exchanges its authorization code twice.
    async fn sign_in_with_code(&mut self, program: &mut ServeProcess, client: &Client) {
        let page = self.authorize(client).await;
        let sent = self.submit_form(&page, "sign-in/code", &[("email", EMAIL)]).await.assert_status(303);
        let link = sent.location.replace("sign-in/code", "sign-in/link");
        self.follow(sent).await.assert_status(200);
        let (code, _) = self.take_one_time_code(program).await;
        let page = self.get(&format!("{link}&code={code}")).await.assert_status(200);
        let redirect =
            self.submit_form(&page, "sign-in/link", &[("email", EMAIL), ("code", &code)]).await.assert_status(303);
        let callback = self.allow(redirect).await;
        let code = self.take_code(&callback);
        let response = self.exchange(client, &code).await;
        let tokens = self.take_tokens(response);
        self.exchange(client, &code).await.assert_status(400);
        self.start_walkthrough("/s/acme-docs/mcp", Some(&tokens.access)).await.assert_status(401);
    }

    async fn reset_password(&mut self, program: &mut ServeProcess, client: &Client) {
        let page = self.open_page(client, "sign-in/forgotten").await;
        let sent = self.submit_form(&page, "sign-in/forgotten", &[("email", EMAIL)]).await.assert_status(303);
        let page = self.follow(sent).await.assert_status(200);
        let (code, wrong) = self.take_one_time_code(program).await;
        let new_password = ("new_password", NEW_PASSWORD);
        let page = self.submit_form(&page, "sign-in/reset", &[("code", &wrong), new_password]).await.assert_status(422);
        let redirect =
            self.submit_form(&page, "sign-in/reset", &[("code", &code), new_password]).await.assert_status(303);
        let callback = self.allow(redirect).await;
        self.take_code(&callback);
    }

    async fn post_form(&mut self, name: &str, client: &Client, form: &[(&str, &str)]) -> HttpResponse {
        let request = self.request(http::Method::POST, &format!("/s/acme-docs/oauth/{name}"));
        let request = request.basic_auth(&client.id, Some(&client.secret));
        self.send(request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded").body(encode(form))).await
    }

    async fn exchange(&mut self, client: &Client, code: &str) -> HttpResponse {
        let (grant, redirect) = (("grant_type", "authorization_code"), ("redirect_uri", CALLBACK));
        self.post_form("token", client, &[grant, redirect, ("code", code), ("code_verifier", VERIFIER)]).await
    }

    fn take_tokens(&mut self, response: HttpResponse) -> Tokens {
        let body = response.assert_status(200).json();
        let text = |name: &str| body[name].as_str().unwrap().to_owned();
        let tokens = Tokens { access: text("access_token"), refresh: text("refresh_token") };
        self.record("access token", &tokens.access);
        self.record("refresh token", &tokens.refresh);
        tokens
    }

    /// Rotates the refresh token twice and reuses the first one, which revokes the grant. Also sends the client secret
    /// in the body.
    async fn refresh(&mut self, client: &Client, first: Tokens) {
        let secret = [("client_id", client.id.as_str()), ("client_secret", client.secret.as_str())];
        let mut token = first.refresh.clone();
        for _ in 0..2 {
            let form = [("grant_type", "refresh_token"), ("refresh_token", &token)];
            let response = self.post_form("token", client, &form).await;
            token = self.take_tokens(response).refresh;
        }
        let form = [("grant_type", "refresh_token"), ("refresh_token", first.refresh.as_str())];
        self.post_form("token", client, &[form, secret].concat()).await.assert_status(400);
        self.post_form("token", client, &form).await.assert_status(400);
        self.start_walkthrough("/s/acme-docs/mcp", Some(&first.access)).await;
    }

    async fn revoke(&mut self, client: &Client, tokens: &Tokens) {
        self.start_walkthrough("/s/acme-docs/mcp", Some(&tokens.access)).await.assert_status(200);
        self.post_form("revoke", client, &[("token", &tokens.access)]).await.assert_status(200);
        self.start_walkthrough("/s/acme-docs/mcp", Some(&tokens.access)).await.assert_status(401);
        self.post_form("revoke", client, &[("token", &tokens.refresh)]).await.assert_status(200);
        self.post_form("revoke", client, &[("token", BAD_TOKEN)]).await.assert_status(200);
    }

    /// Calls tools with a valid token and with invalid ones, at every kind of URL.
    async fn call_with_tokens(&mut self, tokens: &Tokens) {
        let personal = format!("/s/acme-docs/t/{TRACKING}/mcp");
        for path in ["/s/acme-docs/mcp", &personal] {
            self.start_walkthrough(path, Some(&tokens.access)).await.assert_status(200);
            self.start_walkthrough(path, Some(BAD_TOKEN)).await.assert_status(401);
            self.start_walkthrough(path, None).await.assert_status(401);
            self.start_walkthrough(&format!("{path}?access_token={QUERY_TOKEN}"), Some(&tokens.access))
                .await
                .assert_status(401);
        }
        self.start_walkthrough("/s/acme-open/mcp", Some(&tokens.access)).await.assert_status(200);
        self.initialize(&tokens.access).await;
        self.start_walkthrough(&format!("/s/acme-open/t/{TRACKING}/mcp?access_token={QUERY_TOKEN}"), None)
            .await
            .assert_status(200);
    }

    /// Creates a session and uses it, then uses an invalid one.
    async fn initialize(&mut self, token: &str) {
        let message = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": { "name": "Test client", "version": "1" },
        } });
        let request = self.request(http::Method::POST, "/s/acme-docs/mcp").bearer_auth(token);
        let response =
            self.send(request.header(header::CONTENT_TYPE, "application/json").body(message.to_string())).await;
        let session = response.assert_status(200).session;
        self.record("session", &session);
        for (session, status) in [(session.as_str(), 200), (SESSION, 404)] {
            let request = self.tool_call("/s/acme-docs/mcp").bearer_auth(token).header("mcp-session-id", session);
            self.send(request).await.assert_status(status);
        }
    }

    /// Starts the walkthrough with a progress handle and, if given, an access token.
    async fn start_walkthrough(&mut self, path: &str, token: Option<&str>) -> HttpResponse {
        let mut request = self.tool_call(path);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        self.send(request).await
    }

    fn tool_call(&self, path: &str) -> RequestBuilder {
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
            "name": "select_walkthrough",
            "arguments": { "walkthrough_id": "hello", "progress_handle": HANDLE },
        } });
        let request = self.browser(http::Method::POST, path).header(header::CONTENT_TYPE, "application/json");
        request.header("mcp-protocol-version", "2025-11-25").body(message.to_string())
    }
}
