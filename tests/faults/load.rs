//! Simulated users who play a walkthrough and remember the acknowledged steps.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::client::{Client, Failure};
use crate::installation::{Installation, STEPS, TIMEOUT};

/// A simulated user who remembers every acknowledged step.
pub struct LoadUser {
    /// The tracking ID.
    pub name: String,
    walkthrough: String,
    /// Whether calls pass the ID of the current step, which makes retries safe.
    sends_step_id: bool,
    current: Option<String>,
    /// The acknowledged steps, in order.
    pub acknowledged: Vec<String>,
    /// The request IDs of the acknowledged calls, as recorded.
    pub requests: Vec<String>,
    /// Whether the outcome of the last call is unknown.
    pub is_pending: bool,
    /// The number of steps after which the user stops.
    pub goal: usize,
}

impl LoadUser {
    /// Creates a user without progress.
    pub fn new(installation: &Installation, n: usize) -> Self {
        Self {
            name: format!("user-{n}"),
            walkthrough: installation.walkthrough.to_string(),
            sends_step_id: n.is_multiple_of(2),
            current: None,
            acknowledged: Vec::new(),
            requests: Vec::new(),
            is_pending: false,
            goal: STEPS,
        }
    }

    /// Starts or resumes the walkthrough.
    pub async fn select(&mut self, client: &Client) -> Result<(), Failure> {
        let arguments = json!({ "walkthrough_id": self.walkthrough });
        let answer = client.call(&self.name, "select_walkthrough", arguments).await?;
        self.current = answer.content["step"]["id"].as_str().map(str::to_owned);
        Ok(())
    }

    /// Completes the current step.
    pub async fn advance(&mut self, client: &Client) -> Result<(), Failure> {
        let mut arguments = json!({ "walkthrough_id": self.walkthrough });
        if self.sends_step_id {
            arguments["current_step_id"] = json!(self.current);
        }
        self.is_pending = true;
        let answer = client.call(&self.name, "next_walkthrough_step", arguments).await?;
        self.is_pending = false;
        if let Some(step) = answer.content["completed_step_id"].as_str() {
            self.acknowledged.push(step.to_owned());
            self.requests.push(answer.request_id);
        }
        self.current = answer.content["step"]["id"].as_str().map(str::to_owned);
        Ok(())
    }

    /// Checks that all acknowledged steps are stored in order, plus at most the one step whose call got no response.
    /// Afterwards, the stored steps count as acknowledged.
    pub async fn compare_with_stored(&mut self, client: &Client) {
        let stored = self.stored(client).await;
        let acknowledged_count = self.acknowledged.len();
        assert!(
            stored.starts_with(&self.acknowledged),
            "{}: acknowledged {acknowledged_count}, stored {}",
            self.name,
            stored.len()
        );
        let maximum = acknowledged_count + usize::from(self.is_pending);
        assert!(stored.len() <= maximum, "{}: {} steps are stored, {maximum} were requested", self.name, stored.len());
        self.acknowledged = stored;
        self.is_pending = false;
    }

    /// Returns the completed steps that the server reports, which must have no gaps.
    pub async fn stored(&self, client: &Client) -> Vec<String> {
        let arguments = json!({ "walkthrough_id": self.walkthrough });
        let answer = client.call(&self.name, "get_walkthrough_status", arguments).await.unwrap();
        let steps = answer.content["steps"].as_array().unwrap();
        assert_eq!(steps.len(), STEPS);
        let done: Vec<_> = steps.iter().take_while(|step| step["state"] == "completed").map(step_id).collect();
        assert_eq!(answer.content["progress"]["completed"], json!(done.len()), "completions have no gaps");
        done
    }
}

fn step_id(step: &Value) -> String {
    step["id"].as_str().unwrap().to_owned()
}

/// Users who play concurrently, each in its own task.
pub struct Load {
    tasks: JoinSet<LoadUser>,
    acknowledged: Arc<AtomicUsize>,
    more: Arc<Notify>,
}

impl Load {
    /// Starts all users. Each plays until its goal or its first failure, which is passed to `expect`.
    pub fn start(users: Vec<LoadUser>, client: &Client, expect: impl Fn(&Failure) + Clone + Send + 'static) -> Self {
        let (acknowledged, more) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let mut tasks = JoinSet::new();
        for mut user in users {
            let (client, expect) = (client.clone(), expect.clone());
            let (acknowledged, more) = (Arc::clone(&acknowledged), Arc::clone(&more));
            tasks.spawn(async move {
                let walk = async {
                    user.select(&client).await?;
                    while user.current.is_some() && user.acknowledged.len() < user.goal {
                        user.advance(&client).await?;
                        acknowledged.fetch_add(1, Ordering::Relaxed);
                        more.notify_one();
                    }
                    Ok(())
                };
                if let Err(failure) = walk.await {
                    expect(&failure);
                }
                user
            });
        }
        Self { tasks, acknowledged, more }
    }

    /// Waits until `advances` steps have been acknowledged since the start.
    pub async fn wait_for(&self, advances: usize) {
        let reached = async {
            while self.acknowledged.load(Ordering::Relaxed) < advances {
                self.more.notified().await;
            }
        };
        timeout(TIMEOUT, reached).await.expect("the load makes progress in time");
    }

    /// Waits until every user has stopped.
    pub async fn finish(self) -> Vec<LoadUser> {
        let mut tasks = self.tasks;
        let joined = async {
            let mut users = Vec::new();
            while let Some(user) = tasks.join_next().await {
                users.push(user.expect("the user's task does not panic"));
            }
            users
        };
        let mut users = timeout(TIMEOUT, joined).await.expect("the load ends in time");
        users.sort_by_key(|user| user.name[5..].parse::<usize>().unwrap());
        users
    }
}

/// Returns the number of acknowledged steps of all users.
pub fn total_acknowledged(users: &[LoadUser]) -> usize {
    users.iter().map(|user| user.acknowledged.len()).sum()
}
