//! The legitimate users: they complete walkthroughs, load lists and pages, and sign in. All requests must succeed.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::client::Connection;
use crate::mcp::{Client, Era};
use crate::plan::histogram;
use crate::process;

/// Number of concurrent users, each with a separate connection. Every four users share a client address.
pub const USERS: usize = 32;
/// Interval between the requests of each user.
const REQUEST_INTERVAL: Duration = Duration::from_millis(250);
/// Interval between sign-ins to the console.
const SIGN_IN_INTERVAL: Duration = Duration::from_secs(30);
/// Maximum number of stored failure messages.
const MAX_MESSAGES: usize = 5;
/// Maximum length of a failure message in characters.
const MAX_MESSAGE_CHARS: usize = 300;

/// The addresses and credentials of the system under test.
#[derive(Debug, Clone)]
pub struct SystemUnderTest {
    /// Main address.
    pub addr: SocketAddr,
    /// Diagnostics address.
    pub diagnostics: SocketAddr,
    /// MCP path of a user, with `{user}` for the tracking ID.
    pub path: String,
    /// ID of the walkthrough.
    pub walkthrough: String,
    /// Email and password of a console user.
    pub account: (String, String),
}

/// The result of the legitimate users.
pub struct Outcome {
    /// Latencies of MCP calls and page requests in microseconds.
    pub calls: Histogram<u64>,
    /// Latencies of sign-ins in microseconds.
    pub sign_ins: Histogram<u64>,
    /// Number of failed requests.
    pub errors: u64,
    /// The first failure messages.
    pub messages: Vec<String>,
}

struct Shared {
    system: SystemUnderTest,
    outcome: Mutex<Outcome>,
}

impl Shared {
    fn record(&self, started: Instant, result: Result<()>, latencies: impl Fn(&mut Outcome) -> &mut Histogram<u64>) {
        let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        latencies(&mut outcome).saturating_record(micros.max(1));
        if let Err(error) = result {
            outcome.errors += 1;
            if outcome.messages.len() < MAX_MESSAGES {
                outcome.messages.push(format!("{error:#}").chars().take(MAX_MESSAGE_CHARS).collect());
            }
        }
    }
}

/// Runs all users for `duration`.
pub async fn run_users(system: &SystemUnderTest, duration: Duration) -> Result<Outcome> {
    let outcome = Outcome { calls: histogram(), sign_ins: histogram(), errors: 0, messages: Vec::new() };
    let shared = Arc::new(Shared { system: system.clone(), outcome: Mutex::new(outcome) });
    let mut tasks = JoinSet::new();
    for user in 0..USERS {
        tasks.spawn(run_walker(Arc::clone(&shared), user));
    }
    tasks.spawn(request_pages(Arc::clone(&shared)));
    tasks.spawn(sign_in_repeatedly(Arc::clone(&shared)));
    tokio::time::sleep(duration).await;
    tasks.shutdown().await;
    let shared = Arc::into_inner(shared).context("a task still uses the results")?;
    Ok(shared.outcome.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn address(last: usize) -> IpAddr {
    IpAddr::from([127, 0, 1, u8::try_from(1 + last).unwrap_or(255)])
}

fn ticks(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// A user who selects the walkthrough, completes step by step, and requests lists and status in between.
struct Walker {
    client: Client,
    connection: Connection,
    step: Option<String>,
    completed: u32,
    calls: u64,
}

impl Walker {
    async fn new(system: &SystemUnderTest, user: usize) -> Result<Self> {
        let connection = Connection::open_from(address(user / 4), system.addr).await?;
        let client = Client::new(system.path.replace("{user}", &process::random_hex(12)?), Era::Modern);
        Ok(Self { client, connection, step: None, completed: 0, calls: 0 })
    }

    async fn send_request(&mut self, system: &SystemUnderTest) -> Result<()> {
        self.calls += 1;
        let walkthrough = format!(r#"{{"walkthrough_id":"{}""#, system.walkthrough);
        let (client, connection) = (&mut self.client, &mut self.connection);
        if self.calls.is_multiple_of(7) {
            let outcome = client.call(connection, "list_walkthroughs", "{}").await?;
            let rows = outcome.structured_content.and_then(|result| result.walkthroughs);
            ensure!(rows.is_some_and(|rows| !rows.is_empty()), "the list is empty");
            return Ok(());
        }
        if self.calls.is_multiple_of(5) {
            let outcome = client.call(connection, "get_walkthrough_status", &format!("{walkthrough}}}")).await?;
            let progress = outcome.structured_content.and_then(|result| result.progress).context("no progress")?;
            ensure!(progress.completed == self.completed, "{} steps instead of {}", progress.completed, self.completed);
            return Ok(());
        }
        let (tool, arguments) = match &self.step {
            Some(step) => ("next_walkthrough_step", format!(r#"{walkthrough},"current_step_id":"{step}"}}"#)),
            None => ("select_walkthrough", format!("{walkthrough}}}")),
        };
        let outcome = client.call(connection, tool, &arguments).await?;
        let result = outcome.structured_content.context("no structured content")?;
        let progress = result.progress.context("no progress")?;
        let expected = self.completed + u32::from(self.step.is_some());
        ensure!(progress.completed == expected, "{} steps instead of {expected}", progress.completed);
        self.completed = expected;
        self.step = result.step.map(|step| step.id.into_owned());
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.completed > 0 && self.step.is_none()
    }
}

async fn run_walker(shared: Arc<Shared>, user: usize) {
    let mut ticks = ticks(REQUEST_INTERVAL);
    let mut walker = None;
    loop {
        ticks.tick().await;
        let started = Instant::now();
        let result = async {
            if walker.as_ref().is_none_or(Walker::is_done) {
                walker = Some(Walker::new(&shared.system, user).await?);
            }
            walker.as_mut().context("no user")?.send_request(&shared.system).await
        };
        let result = result.await.context("a call");
        if result.is_err() {
            walker = None;
        }
        shared.record(started, result, |outcome| &mut outcome.calls);
    }
}

/// Requests pages and health probes on new connections, like browsers and load balancers.
async fn request_pages(shared: Arc<Shared>) {
    let mut ticks = ticks(Duration::from_secs(1));
    loop {
        ticks.tick().await;
        for (addr, path) in [
            (shared.system.addr, "/login"),
            (shared.system.addr, "/readyz"),
            (shared.system.diagnostics, "/readyz"),
            (shared.system.diagnostics, "/metrics"),
        ] {
            let started = Instant::now();
            let result = async {
                let mut connection = Connection::open_from(address(100), addr).await?;
                let status = connection.get(path).await?.status;
                ensure!(status == 200, "status {status}");
                Ok(())
            };
            let result = result.await.with_context(|| format!("{addr}{path}"));
            shared.record(started, result, |outcome| &mut outcome.calls);
        }
    }
}

async fn sign_in_repeatedly(shared: Arc<Shared>) {
    let mut ticks = ticks(SIGN_IN_INTERVAL);
    loop {
        ticks.tick().await;
        let started = Instant::now();
        let result = sign_in(&shared.system).await.context("a sign-in");
        shared.record(started, result, |outcome| &mut outcome.sign_ins);
    }
}

async fn sign_in(system: &SystemUnderTest) -> Result<()> {
    let (email, password) = &system.account;
    let body = format!("email={}&password={password}", email.replace('@', "%40"));
    let status = post_form(system.addr, "/login", &body).await?;
    ensure!(status == 303, "status {status}");
    Ok(())
}

/// Submits a console form like a browser. Returns the status.
pub async fn post_form(addr: SocketAddr, path: &str, body: &str) -> Result<u16> {
    let mut connection = Connection::open_from(address(101), addr).await?;
    let headers =
        format!("Content-Type: application/x-www-form-urlencoded\r\nOrigin: http://{}\r\n", connection.host());
    Ok(connection.post(path, &headers, body).await?.status)
}
