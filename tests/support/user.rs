//! Simulates the user of an external client program: an HTTP server on loopback that replaces the client's browser.
//!
//! - `GET /open?url=…` acts like a browser: it signs in and opens the client's callback URL.
//! - `GET /drive?url=…` signs in and returns the callback URL as text, for clients that do not listen.
//! - `GET /sign-ins` returns the number of sign-ins so far.
//! - `GET /code?email=…` returns the one-time code in the next email to an address, `GET /link?email=…` the link.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use http::{StatusCode, Uri};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use url::{Url, form_urlencoded};
use waypost_outbound::unguarded_client;

use super::mailbox::Mailbox;
use super::user_agent::{Decision, UserAgent};

/// A simulated user. The server stops on drop.
pub struct SimulatedUser {
    /// The origin, such as `http://127.0.0.1:40001`.
    pub origin: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    agent: UserAgent,
    mailbox: Mailbox,
    http: reqwest::Client,
    sign_ins: AtomicUsize,
}

impl SimulatedUser {
    /// Starts a user with this email who allows every request.
    pub async fn start(email: &str, mailbox: Mailbox) -> Self {
        #[expect(clippy::disallowed_methods, reason = "connects to the server under test")]
        let http = unguarded_client().no_proxy().build().expect("the client is built");
        let agent = UserAgent::new(email, mailbox.clone());
        let shared = Arc::new(Shared { agent, mailbox, http, sign_ins: AtomicUsize::new(0) });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is available");
        let origin = format!("http://{}", listener.local_addr().expect("the listener is bound"));
        let router = Router::new()
            .route("/open", get(open))
            .route("/drive", get(drive))
            .route("/sign-ins", get(sign_ins))
            .route("/code", get(code))
            .route("/link", get(link))
            .with_state(shared.clone());
        #[expect(clippy::disallowed_methods, reason = "serves or reads until the test ends")]
        let task = tokio::spawn(async move { axum::serve(listener, router).await.expect("the server runs") });
        Self { origin, shared, task }
    }

    /// Returns the secrets that the user has received.
    pub fn secrets(&self) -> Vec<String> {
        self.shared.agent.secrets()
    }

    /// Returns the number of sign-ins so far.
    pub fn sign_ins(&self) -> usize {
        self.shared.sign_ins.load(Ordering::Relaxed)
    }
}

impl Drop for SimulatedUser {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type HandlerResult = Result<String, (StatusCode, String)>;

/// Returns a query parameter.
fn parameter(uri: &Uri, name: &str) -> Result<String, (StatusCode, String)> {
    let mut pairs = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let value = pairs.find_map(|(key, value)| (key == name).then(|| value.into_owned()));
    value.ok_or_else(|| log_failure(format!("{uri} has no {name}")))
}

async fn drive(State(shared): State<Arc<Shared>>, uri: Uri) -> HandlerResult {
    shared.sign_ins.fetch_add(1, Ordering::Relaxed);
    let url = Url::parse(&parameter(&uri, "url")?).map_err(|error| log_failure(format!("{uri}: {error}")))?;
    shared.agent.sign_in(&url, Decision::Allow).await.map(String::from).map_err(log_failure)
}

/// Responds immediately, like a command that opens a browser: some clients start listening only after it returns.
async fn open(shared: State<Arc<Shared>>, uri: Uri) -> StatusCode {
    #[expect(clippy::disallowed_methods, reason = "serves or reads until the test ends")]
    tokio::spawn(async move {
        let http = shared.http.clone();
        let Ok(client) = drive(shared, uri).await else { return };
        if let Err(reason) = open_callback(&http, &client).await {
            log_failure(format!("{client}: {reason}"));
        }
    });
    StatusCode::ACCEPTED
}

/// Opens the callback URL. Retries until the client listens.
async fn open_callback(http: &reqwest::Client, client: &str) -> Result<(), String> {
    let mut retries = tokio::time::interval(Duration::from_millis(50));
    let opened = timeout(super::TIMEOUT, async {
        loop {
            retries.tick().await;
            match http.get(client).send().await {
                Err(error) if error.is_connect() => {}
                response => return response,
            }
        }
    });
    let response =
        opened.await.map_err(|_| "the client does not listen".to_owned())?.map_err(|error| format!("{error:?}"))?;
    let status = response.status();
    if status.is_success() { Ok(()) } else { Err(format!("{status}: {}", response.text().await.unwrap_or_default())) }
}

async fn sign_ins(State(shared): State<Arc<Shared>>) -> String {
    shared.sign_ins.load(Ordering::Relaxed).to_string()
}

async fn code(State(shared): State<Arc<Shared>>, uri: Uri) -> HandlerResult {
    shared.mailbox.next_code(&parameter(&uri, "email")?).await.map_err(log_failure)
}

async fn link(State(shared): State<Arc<Shared>>, uri: Uri) -> HandlerResult {
    shared.mailbox.next_link(&parameter(&uri, "email")?).await.map_err(log_failure)
}

/// Logs a failure to standard error, because a client may hide its browser's output, and returns it as a response.
fn log_failure(reason: String) -> (StatusCode, String) {
    eprintln!("the simulated user failed: {reason}");
    (StatusCode::BAD_GATEWAY, reason)
}
