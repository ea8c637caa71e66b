//! A server on loopback that requires OAuth, with its authorization server.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::Bytes;
use axum::response::{IntoResponse, Response};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use http::{HeaderMap, Method, StatusCode, Uri, header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use url::{Url, form_urlencoded};

use crate::gateway::tool;

/// The configuration of the server's responses, and the requests that it has received.
#[derive(Default)]
pub struct ServerState {
    base: String,
    /// The access token and the refresh token that are valid.
    pub tokens: Option<(String, String)>,
    /// Whether each connection has its own account: its tokens stay valid when others are issued, each handshake begins
    /// a session, and a tool returns the token of its call.
    pub has_accounts: bool,
    /// Whether accounts see a resource, and the server declares that it announces its changes.
    pub has_resources: bool,
    /// The tokens of the other accounts that are valid.
    others: Vec<(String, String)>,
    /// The access token of each session.
    sessions: Vec<String>,
    /// The number of requests whose token is not that of their session.
    pub mixed: usize,
    /// The tokens of the calls of tools.
    pub calls: Vec<String>,
    /// The tools that the account of an access token lists, if not the tool `find`.
    pub lists: BTreeMap<String, Vec<Value>>,
    /// The access tokens of accounts that may not use the server (403).
    pub forbidden: Vec<String>,
    /// The access tokens of accounts whose calls of tools fail (500).
    pub failing: Vec<String>,
    /// The scope that calls of tools require.
    pub required_scope: Option<String>,
    /// The scope of new tokens, if it is not the requested one.
    pub granted_scope: Option<String>,
    /// The scope of each access token.
    scopes: BTreeMap<String, String>,
    /// The tokens that were revoked, with their types, and the status of the responses.
    pub revocations: Vec<(String, String)>,
    pub revocation_status: u16,
    /// The number of tokens that were issued.
    pub issued: usize,
    /// The refresh tokens that were sent, including invalid ones.
    pub refreshes: Vec<String>,
    /// Whether refresh tokens are rejected.
    pub refuses: bool,
    /// Whether `initialize` needs no token.
    pub is_handshake_open: bool,
    /// The ID and the secret of the only client, which was registered beforehand and uses HTTP Basic authentication.
    pub client: Option<(String, String)>,
    /// Members that replace those of the metadata of the resource and of the authorization server.
    pub resource_metadata: Value,
    pub server_metadata: Value,
    /// The response to requests for metadata of the authorization server, if it is not the metadata.
    pub other_metadata: Option<(u16, String)>,
    /// The authorization request that a user has allowed.
    allowed: Option<BTreeMap<String, String>>,
    /// The paths of all requests, and the header `Authorization` of those to the MCP endpoint.
    pub paths: Vec<String>,
    pub authorizations: Vec<Option<String>>,
}

impl ServerState {
    /// Replaces an access token, so that it is rejected and must be refreshed.
    pub fn expire(&mut self, access: &str) {
        let pairs = self.tokens.iter_mut().chain(&mut self.others);
        pairs.filter(|pair| pair.0 == access).for_each(|pair| "expired".clone_into(&mut pair.0));
    }

    fn remove(&mut self, matches: impl Fn(&(String, String)) -> bool) {
        self.others.retain(|pair| !matches(pair));
        self.tokens.take_if(|pair| matches(pair));
    }

    /// Whether an access token has every word of a scope.
    fn has_scope(&self, access: &str, scope: &str) -> bool {
        let own = self.scopes.get(access).map(String::as_str).unwrap_or_default();
        scope.split(' ').all(|word| own.split(' ').any(|one| one == word))
    }

    fn find(&self, matches: impl Fn(&(String, String)) -> bool) -> Option<&(String, String)> {
        self.tokens.iter().chain(&self.others).find(|pair| matches(pair))
    }
}

#[derive(Clone)]
pub struct Server {
    pub base: String,
    state: Arc<Mutex<ServerState>>,
}

impl Server {
    pub async fn start() -> Self {
        let state: Arc<Mutex<ServerState>> = Arc::default();
        let own = Arc::clone(&state);
        let router = Router::new().fallback(move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| {
            let response = respond(&mut own.lock().unwrap(), &method, &uri, (&headers, &body));
            async move { response }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        state.lock().unwrap().base.clone_from(&base);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { base, state }
    }

    pub fn state(&self) -> MutexGuard<'_, ServerState> {
        self.state.lock().unwrap()
    }

    /// Gives each connection its own account, and supports revocation.
    pub fn add_accounts(&self) {
        let revocation = json!({ "revocation_endpoint": format!("{}/revoke", self.base) });
        let mut state = self.state();
        (state.has_accounts, state.revocation_status, state.server_metadata) = (true, 200, revocation);
    }

    /// Invalidates the tokens of an account at the authorization server.
    pub fn end(&self, access: &str) {
        self.state().remove(|pair| pair.0 == access);
    }

    pub fn url(&self) -> String {
        format!("{}/mcp", self.base)
    }

    pub fn issuer(&self) -> String {
        format!("{}/as", self.base)
    }

    /// Allows the authorization request, and returns the path to which the browser is sent.
    pub fn allow(&self, url: &str) -> String {
        self.allow_scope(url, "use")
    }

    /// Like [`Self::allow`], for a request with this scope.
    pub fn allow_scope(&self, url: &str, scope: &str) -> String {
        let url = Url::parse(url).unwrap();
        assert_eq!(url.path(), "/authorize");
        let request: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
        assert_eq!((&*request["response_type"], &*request["code_challenge_method"]), ("code", "S256"));
        assert_eq!((&request["resource"], &*request["scope"]), (&self.url(), scope));
        assert_eq!(request["redirect_uri"], "http://localhost:8080/connections/callback");
        let path = callback(&request["state"], &[("code", "one-code"), ("iss", &self.issuer())]);
        self.state().allowed = Some(request);
        path
    }

    /// Returns the access token of the last request to the MCP endpoint.
    pub fn last_token(&self) -> Option<String> {
        self.state().authorizations.last().cloned().flatten()
    }
}

/// Returns the path of an authorization response with this state.
pub fn callback(state: &str, parameters: &[(&str, &str)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    format!("/connections/callback?{}", query.append_pair("state", state).extend_pairs(parameters).finish())
}

fn json_response(status: u16, value: &Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    (status, [(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

fn merge(mut value: Value, changes: &Value) -> Value {
    for (name, change) in changes.as_object().into_iter().flatten() {
        match change {
            Value::Null => drop(value.as_object_mut().unwrap().remove(name)),
            change => value[name] = change.clone(),
        }
    }
    value
}

fn respond(state: &mut ServerState, method: &Method, uri: &Uri, (headers, body): (&HeaderMap, &[u8])) -> Response {
    state.paths.push(uri.path().to_owned());
    let base = state.base.clone();
    match (method.as_str(), uri.path()) {
        ("POST", "/mcp") => answer(state, headers, body),
        ("GET", "/.well-known/oauth-protected-resource/mcp") => {
            let metadata =
                json!({ "resource": format!("{base}/mcp"), "authorization_servers": [format!("{base}/as")] });
            json_response(200, &merge(metadata, &state.resource_metadata))
        }
        ("GET", "/.well-known/oauth-authorization-server/as") => {
            if let Some((status, text)) = &state.other_metadata {
                let location = [(header::LOCATION, format!("{base}/elsewhere"))];
                return (StatusCode::from_u16(*status).unwrap(), location, text.clone()).into_response();
            }
            let metadata = json!({
                "issuer": format!("{base}/as"),
                "authorization_endpoint": format!("{base}/authorize"),
                "token_endpoint": format!("{base}/token"),
                "registration_endpoint": format!("{base}/register"),
                "code_challenge_methods_supported": ["S256"],
                "authorization_response_iss_parameter_supported": true,
            });
            json_response(200, &merge(metadata, &state.server_metadata))
        }
        ("POST", "/register") => {
            let request: Value = serde_json::from_slice(body).unwrap();
            assert_eq!(request["redirect_uris"], json!(["http://localhost:8080/connections/callback"]));
            json_response(201, &json!({ "client_id": "client-1", "token_endpoint_auth_method": "none" }))
        }
        ("POST", "/token") => exchange(state, headers, body),
        ("POST", "/revoke") => revoke(state, body),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

fn exchange(state: &mut ServerState, headers: &HeaderMap, body: &[u8]) -> Response {
    let form: BTreeMap<String, String> = form_urlencoded::parse(body).into_owned().collect();
    let refused = json_response(400, &json!({ "error": "invalid_grant", "error_description": "secret text" }));
    assert_eq!(form["resource"], format!("{}/mcp", state.base));
    match &state.client {
        Some((id, secret)) => {
            let expected = format!("Basic {}", BASE64.encode(format!("{id}:{secret}").as_bytes()));
            if headers.get(header::AUTHORIZATION).is_none_or(|sent| sent.as_bytes() != expected.as_bytes()) {
                return json_response(401, &json!({ "error": "invalid_client" }));
            }
        }
        None => assert_eq!(form["client_id"], "client-1"),
    }
    let scope = if form["grant_type"] == "refresh_token" {
        state.refreshes.push(form["refresh_token"].clone());
        let is_own = |pair: &(String, String)| pair.1 == form["refresh_token"];
        if state.find(is_own).is_none() || state.refuses {
            return refused;
        }
        let former = state.find(is_own).map(|pair| pair.0.clone()).unwrap_or_default();
        state.remove(is_own);
        state.scopes.remove(&former).unwrap_or_default()
    } else {
        let Some(allowed) = state.allowed.take() else { return refused };
        let challenge = BASE64URL_NOPAD.encode(&Sha256::digest(form["code_verifier"].as_bytes()));
        assert_eq!((&form["redirect_uri"], &*form["code"]), (&allowed["redirect_uri"], "one-code"));
        assert_eq!(challenge, allowed["code_challenge"]);
        state.granted_scope.clone().unwrap_or_else(|| allowed["scope"].clone())
    };
    state.issued += 1;
    let (access, refresh) = (format!("access-{}", state.issued), format!("refresh-{}", state.issued));
    state.scopes.insert(access.clone(), scope);
    let tokens = json!({
        "access_token": access, "token_type": "Bearer", "expires_in": 3_600, "refresh_token": refresh
    });
    let former = state.tokens.replace((access, refresh));
    if state.has_accounts {
        state.others.extend(former);
    }
    json_response(200, &tokens)
}

/// Revokes a token (RFC 7009).
fn revoke(state: &mut ServerState, body: &[u8]) -> Response {
    let form: BTreeMap<String, String> = form_urlencoded::parse(body).into_owned().collect();
    assert_eq!(form["client_id"], "client-1");
    let token = form["token"].clone();
    state.remove(|pair| pair.0 == token || pair.1 == token);
    state.revocations.push((form["token_type_hint"].clone(), token));
    StatusCode::from_u16(state.revocation_status).unwrap().into_response()
}

/// Responds to an MCP message (2025-11-25, without sessions) with a valid token, otherwise with a challenge.
fn answer(state: &mut ServerState, headers: &HeaderMap, body: &[u8]) -> Response {
    let sent = headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
    state.authorizations.push(sent.clone());
    let token = sent.as_deref().and_then(|sent| sent.strip_prefix("Bearer ")).unwrap_or_default().to_owned();
    let message: Value = serde_json::from_slice(body).unwrap();
    let is_open = state.is_handshake_open && message["method"] == "initialize";
    let metadata = format!("{}/.well-known/oauth-protected-resource/mcp", state.base);
    if !is_open && state.find(|pair| pair.0 == token).is_none() {
        let challenge = format!(r#"Bearer resource_metadata="{metadata}", scope="use""#);
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response();
    }
    if state.forbidden.contains(&token) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let required = state.required_scope.as_deref().filter(|_| message["method"] == "tools/call");
    if let Some(required) = required.filter(|required| !state.has_scope(&token, required)) {
        let challenge =
            format!(r#"Bearer error="insufficient_scope", scope="{required}", resource_metadata="{metadata}""#);
        return (StatusCode::FORBIDDEN, [(header::WWW_AUTHENTICATE, challenge)]).into_response();
    }
    if state.has_accounts {
        return answer_account(state, headers, &message, &token);
    }
    if message["id"].is_null() {
        return StatusCode::ACCEPTED.into_response();
    }
    let result = match message["method"].as_str().unwrap_or_default() {
        "initialize" => json!({ "protocolVersion": "2025-11-25", "capabilities": { "tools": {} },
            "serverInfo": { "name": "s", "version": "1" } }),
        "ping" => json!({}),
        "tools/list" => json!({ "tools": [tool("find", "Finds.")] }),
        "tools/call" => json!({ "content": [] }),
        _ => {
            let error = json!({ "code": -32601, "message": "Unknown." });
            return json_response(200, &json!({ "jsonrpc": "2.0", "id": message["id"], "error": error }));
        }
    };
    json_response(200, &json!({ "jsonrpc": "2.0", "id": message["id"], "result": result }))
}

/// Responds to an MCP message (2025-11-25, with sessions) for the account of an access token.
fn answer_account(state: &mut ServerState, headers: &HeaderMap, message: &Value, token: &str) -> Response {
    const SESSION: &str = "mcp-session-id";
    let method = message["method"].as_str().unwrap_or_default();
    let mut session = headers.get(SESSION).map(|value| value.to_str().unwrap().to_owned());
    if method == "initialize" {
        session = Some(format!("session-{}", state.sessions.len()));
        state.sessions.push(token.to_owned());
    }
    // Messages before the handshake, such as `server/discover`, have no session.
    if let Some(session) = &session {
        let number = session.strip_prefix("session-").and_then(|number| number.parse::<usize>().ok());
        let owner = number.and_then(|number| state.sessions.get(number));
        state.mixed += usize::from(owner.is_none_or(|owner| owner != token));
    }
    if message["id"].is_null() {
        return StatusCode::ACCEPTED.into_response();
    }
    let result = match method {
        "initialize" => {
            let mut capabilities = json!({ "tools": {} });
            if state.has_resources {
                capabilities["resources"] = json!({ "subscribe": true });
            }
            let server = json!({ "name": "s", "version": "1" });
            json!({ "protocolVersion": "2025-11-25", "capabilities": capabilities, "serverInfo": server })
        }
        "resources/list" => json!({ "resources": [{ "uri": "file:///a", "name": "a" }] }),
        "resources/templates/list" => json!({ "resourceTemplates": [] }),
        "resources/read" => json!({ "contents": [{ "uri": "file:///a", "text": token }] }),
        "tools/list" => match state.lists.get(token) {
            Some(tools) => json!({ "tools": tools }),
            None => json!({ "tools": [tool("find", "Finds.")] }),
        },
        "tools/call" => {
            state.calls.push(token.to_owned());
            if state.failing.iter().any(|failing| failing == token) {
                return StatusCode::INTERNAL_SERVER_ERROR.into_response();
            }
            json!({ "content": [{ "type": "text", "text": token }] })
        }
        _ => json!({}),
    };
    let mut response = json_response(200, &json!({ "jsonrpc": "2.0", "id": message["id"], "result": result }));
    response.headers_mut().insert(SESSION, session.unwrap_or_default().parse().unwrap());
    response
}
