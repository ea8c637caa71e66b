//! The load of one connection: users select a walkthrough and complete its steps. Every response is checked.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use tokio::sync::{mpsc, watch};

use crate::client::Connection;
use crate::mcp::Client;
use crate::plan::{Limit, Op, Plan, histogram};

/// The result of one connection.
pub struct ConnectionReport {
    pub(crate) latencies: Histogram<u64>,
    pub(crate) other_calls: u64,
    pub(crate) players: Vec<Player>,
}

/// A user: the MCP client and the acknowledged progress.
pub struct Player {
    client: Client,
    step: Option<String>,
    completed: u32,
    total: u32,
    pub(crate) advances: u32,
    arguments: String,
}

impl Player {
    /// Creates the user with the given number within the leg.
    async fn new(plan: &Plan, connection: &mut Connection, name: &str, number: usize) -> Result<Self> {
        let mut client = Client::new(plan.path.replace("{user}", name), plan.era);
        if let Some(tokens) = &plan.tokens {
            client.sign_in(&tokens.get(number)?);
        }
        client.connect(connection).await?;
        let arguments = format!(r#"{{"walkthrough_id":"{}"}}"#, plan.walkthrough);
        Ok(Self { client, step: None, completed: 0, total: 0, advances: 0, arguments })
    }

    /// Starts the walkthrough.
    async fn select(&mut self, connection: &mut Connection) -> Result<()> {
        let outcome = self.client.call(connection, "select_walkthrough", &self.arguments).await?;
        let result = outcome.structured_content.context("select: no structured content")?;
        let progress = result.progress.context("select: no progress")?;
        let (completed, total) = (progress.completed, progress.total);
        ensure!(completed == 0 && total > 0, "select: a new user has completed {completed} of {total} steps");
        self.total = progress.total;
        self.step = Some(result.step.context("select: no step")?.id.into_owned());
        Ok(())
    }

    /// Completes the current step and stores the next one.
    async fn next(&mut self, plan: &Plan, connection: &mut Connection) -> Result<()> {
        let current = self.step.take().context("next: there is no current step")?;
        let arguments = format!(r#"{{"walkthrough_id":"{}","current_step_id":"{current}"}}"#, plan.walkthrough);
        let outcome = self.client.call(connection, "next_walkthrough_step", &arguments).await?;
        let result = outcome.structured_content.context("next: no structured content")?;
        let progress = result.progress.context("next: no progress")?;
        if plan.constant {
            ensure!(result.step.is_some(), "next: the constant result has no step");
            self.step = Some(current);
            return Ok(());
        }
        ensure!(result.completed_step_id.as_deref() == Some(current.as_str()), "next: another step was completed");
        self.advances += 1;
        ensure!(progress.completed == self.completed + 1, "next: {} completed", progress.completed);
        self.completed = progress.completed;
        self.step = result.step.map(|step| step.id.into_owned());
        ensure!(self.step.is_none() == (self.completed == self.total), "next: the walkthrough ends at the wrong step");
        Ok(())
    }

    async fn list(&mut self, connection: &mut Connection) -> Result<()> {
        let outcome = self.client.call(connection, "list_walkthroughs", "{}").await?;
        let rows = outcome.structured_content.and_then(|result| result.walkthroughs);
        ensure!(rows.is_some_and(|rows| !rows.is_empty()), "list: empty");
        Ok(())
    }

    async fn status(&mut self, connection: &mut Connection) -> Result<()> {
        let outcome = self.client.call(connection, "get_walkthrough_status", &self.arguments).await?;
        let progress = outcome.structured_content.and_then(|result| result.progress).context("status: no progress")?;
        if progress.completed != self.completed {
            bail!("{} advances were acknowledged, but the server reports {}", self.completed, progress.completed);
        }
        Ok(())
    }
}

/// A connection and its users.
struct Worker {
    plan: Rc<Plan>,
    index: usize,
    connection: Connection,
    waiting: VecDeque<Player>,
    finished: Vec<Player>,
    created: usize,
    other_calls: u64,
}

/// Prepares the users of a connection, waits for the start and plays until the limit.
pub async fn work(
    plan: Rc<Plan>,
    index: usize,
    ready: mpsc::UnboundedSender<()>,
    mut started: watch::Receiver<Option<Instant>>,
) -> Result<ConnectionReport> {
    let connection = Connection::open(plan.addr).await?;
    let mut worker =
        Worker { plan, index, connection, waiting: VecDeque::new(), finished: Vec::new(), created: 0, other_calls: 0 };
    for _ in 0..worker.plan.users.max(1) {
        let player = worker.prepare().await?;
        worker.waiting.push_back(player);
    }
    worker.other_calls = 0;
    ready.send(())?;
    drop(ready);
    let start = started.wait_for(Option::is_some).await?.context("no start")?;
    let latencies = worker.measure(start).await?;
    let mut players = worker.finished;
    players.extend(worker.waiting);
    Ok(ConnectionReport { latencies, other_calls: worker.other_calls, players })
}

impl Worker {
    /// Creates a user who is ready for the measured operation.
    async fn prepare(&mut self) -> Result<Player> {
        let name = format!("{}-{}-{}", self.plan.user_prefix, self.index, self.created);
        let number = self.index + self.created * self.plan.connections;
        self.created += 1;
        let mut player = Player::new(&self.plan, &mut self.connection, &name, number).await?;
        if self.plan.constant {
            player.step = Some("ws_ba9876543210".to_owned());
        } else if self.plan.op != Op::Select {
            player.select(&mut self.connection).await?;
            self.other_calls += 1;
        }
        if self.plan.op == Op::Status && !self.plan.constant {
            player.next(&self.plan, &mut self.connection).await?;
            self.other_calls += 1;
        }
        Ok(player)
    }

    async fn measure(&mut self, start: Instant) -> Result<Histogram<u64>> {
        let mut latencies = histogram();
        let mut player = self.waiting.pop_front().context("no user")?;
        loop {
            let is_finished = match self.plan.limit {
                Limit::Seconds(seconds) => start.elapsed().as_secs_f64() >= seconds,
                Limit::Calls(calls) => latencies.len() >= calls,
            };
            if is_finished {
                self.finished.push(player);
                return Ok(latencies);
            }
            if self.is_exhausted(&player) {
                let next = match self.waiting.pop_front() {
                    Some(next) => next,
                    None => self.prepare().await?,
                };
                self.finished.push(std::mem::replace(&mut player, next));
            }
            let before = Instant::now();
            let connection = &mut self.connection;
            match self.plan.op {
                Op::Next => player.next(&self.plan, connection).await?,
                Op::List => player.list(connection).await?,
                Op::Select => player.select(connection).await?,
                Op::Status => player.status(connection).await?,
            }
            let micros = u64::try_from(before.elapsed().as_micros())?;
            latencies.record(micros.max(1))?;
        }
    }

    /// Whether the user cannot perform the measured operation again.
    fn is_exhausted(&self, player: &Player) -> bool {
        match self.plan.op {
            Op::Next => player.step.is_none(),
            Op::Select => player.step.is_some(),
            Op::List | Op::Status => false,
        }
    }
}

/// Compares the progress of some users on the server with the acknowledged progress. A difference is an error.
pub async fn verify(plan: &Plan, players: Vec<Player>) -> Result<usize> {
    let played: Vec<Player> = players.into_iter().filter(|player| player.total > 0).collect();
    let stride = (played.len() / plan.verify.max(1)).max(1);
    let mut connection = Connection::open(plan.addr).await?;
    let mut verified = 0;
    for mut player in played.into_iter().step_by(stride).take(plan.verify) {
        player.status(&mut connection).await.context("verification")?;
        verified += 1;
    }
    Ok(verified)
}
