//! How a walkthrough is played: choose, start or resume, show a step, ask, go on, until it is completed.

use std::{
    collections::HashSet,
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
};

use rmcp::model::JsonObject;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::sync::Notify;
use url::Url;

use crate::{
    PlayError, Terminal,
    client::{self, CallError, Client},
    input::InputLines,
    model::{Progress, Step, StepResult, Walkthrough, WalkthroughEntry, WalkthroughPage, WalkthroughStatus},
    screen::{Screen, plural},
    state::HandleFile,
    text::TextStyle,
};

const LIST: &str = "list_walkthroughs";
const SELECT: &str = "select_walkthrough";
const NEXT: &str = "next_walkthrough_step";
const STATUS: &str = "get_walkthrough_status";
/// Pages of a list, and steps of a walkthrough, after which a server is taken to be broken.
const MOST_PAGES: usize = 100;
const MOST_STEPS: usize = 10_000;

/// What to play, and how.
#[derive(Debug, Clone)]
pub struct PlayOptions {
    /// MCP address of the server.
    pub url: Url,
    /// Id or slug; without it the first walkthrough that is not completed.
    pub walkthrough: Option<String>,
    /// Goes through without asking.
    pub yes: bool,
    /// E-mail address for a server that asks for one.
    pub email: Option<String>,
    /// Folder that progress handles are kept in; see [`crate::default_folder`]. Without one nothing is kept.
    pub state_folder: Option<PathBuf>,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The walkthrough is completed.
    Completed,
    /// The user stopped before the end.
    Stopped,
    /// Every walkthrough of the server was completed before.
    NothingLeft,
}

/// The end state.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// Address of the server.
    pub url: String,
    /// The walkthrough, if one was chosen.
    pub walkthrough: Option<Walkthrough>,
    /// How far it is played.
    pub progress: Option<Progress>,
    /// The step to go on with.
    pub step: Option<StepSummary>,
}

/// A step, without its content.
#[derive(Debug, Clone, Serialize)]
pub struct StepSummary {
    /// Id, as the server names it.
    pub id: String,
    /// From 1.
    pub position: u64,
    /// Title.
    pub title: String,
}

impl Report {
    /// Whether the command succeeded: who promised to go through (`yes`) has to have reached the end.
    pub fn is_success(&self, yes: bool) -> bool {
        self.outcome != Outcome::Stopped || !yes
    }
}

/// Plays one walkthrough of the server.
///
/// # Errors
///
/// When the server cannot be reached, is none of walkthroughs, refuses, or does not go on; and when the output is gone.
pub async fn play(options: &PlayOptions, terminal: Terminal<'_>) -> Result<Report, PlayError> {
    let url = client::shown(&options.url);
    let client = tokio::select! {
        client = Client::connect(&options.url) => client?,
        () = terminal.interrupt.notified() => return Ok(report(Outcome::Stopped, url, None)),
    };
    // The fragment never reaches the server, so it does not make another place.
    let mut place = options.url.clone();
    place.set_fragment(None);
    let file = HandleFile::new(options.state_folder.as_deref(), place.as_str());
    let mut player = Player {
        options,
        handle: file.load(),
        file,
        client,
        lines: InputLines::new(terminal.input),
        echo: terminal.echo,
        interrupt: terminal.interrupt,
        screen: Screen::new(terminal.out, terminal.style),
        err: terminal.err,
        kept: true,
        told: None,
        last: None,
    };
    let ended = player.run().await;
    let ended = match ended {
        Err(EarlyExit::Stopped) => player.stop(),
        Err(EarlyExit::Failed(error)) => Err(error),
        Err(EarlyExit::HandleUnknown) => Err(PlayError::HandleLost { url: url.clone() }),
        Ok(outcome) => Ok(outcome),
    };
    let last = player.last.take();
    player.client.close().await;
    ended.map(|outcome| report(outcome, url, last))
}

fn report(outcome: Outcome, url: String, last: Option<StepResult>) -> Report {
    let (mut walkthrough, mut progress, mut step) = (None, None, None);
    if let Some(last) = last {
        step = last.step.map(|step| StepSummary { id: step.id, position: step.position, title: step.title });
        (walkthrough, progress) = (Some(last.walkthrough), Some(last.progress));
    }
    Report { outcome, url, walkthrough, progress, step }
}

/// Why playing ends early.
enum EarlyExit {
    Stopped,
    HandleUnknown,
    Failed(PlayError),
}

impl From<PlayError> for EarlyExit {
    fn from(error: PlayError) -> Self {
        Self::Failed(error)
    }
}

impl From<io::Error> for EarlyExit {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.into())
    }
}

struct Player<'o, 't> {
    options: &'o PlayOptions,
    client: Client,
    file: HandleFile,
    handle: Option<String>,
    lines: InputLines,
    echo: bool,
    interrupt: Arc<Notify>,
    screen: Screen<'t>,
    err: &'t mut (dyn Write + Send),
    /// Whether the handle could be stored.
    kept: bool,
    /// The last notice of the server, which it may repeat with every step.
    told: Option<String>,
    /// The last state that the server gave.
    last: Option<StepResult>,
}

impl Player<'_, '_> {
    async fn run(&mut self) -> Result<Outcome, EarlyExit> {
        let guided = self.is_guided().await?;
        match self.attempt(guided).await {
            Err(EarlyExit::HandleUnknown) => {
                self.start_afresh().await?;
                self.attempt(guided).await
            }
            ended => ended,
        }
    }

    /// A server that lists no tool of walkthroughs may still have an empty list of them.
    async fn is_guided(&mut self) -> Result<bool, EarlyExit> {
        let tools = tokio::select! {
            tools = self.client.tools() => tools?,
            () = self.interrupt.notified() => return Err(EarlyExit::Stopped),
        };
        let guided = tools.contains(SELECT) && tools.contains(NEXT);
        if !guided && tools.contains("complete_step") {
            return Err(PlayError::StepwiseOnly { url: self.url() }.into());
        }
        Ok(guided)
    }

    async fn attempt(&mut self, guided: bool) -> Result<Outcome, EarlyExit> {
        let entries = self.list().await?;
        if entries.is_empty() {
            return Err(PlayError::NoWalkthroughs { url: self.url() }.into());
        }
        if !guided {
            return Err(PlayError::MissingTool { url: self.url(), tool: SELECT }.into());
        }
        let Some(entry) = self.choose(&entries)? else {
            let all = plural(entries.len() as u64, "walkthrough");
            self.screen.line(&format!("Everything here is completed ({all})."))?;
            return Ok(Outcome::NothingLeft);
        };
        self.screen.title(&entry)?;
        let result = self.select(&entry).await?;
        if result.step.is_none() && result.progress.is_completed() {
            self.screen.line("")?;
            self.screen.line("You have completed this walkthrough already.")?;
            return Ok(Outcome::Completed);
        }
        if result.progress.completed > 0 {
            let (done, total) = (result.progress.completed, plural(result.progress.total, "step"));
            self.screen.line("")?;
            self.screen.paragraph(&format!("You go on where you stopped: {done} of {total} done."), TextStyle::BOLD)?;
        }
        let end = self.steps(result).await?;
        self.screen.completed(&end.walkthrough.title, &end.progress)?;
        if self.options.walkthrough.is_none()
            && let Some(next) = entries.iter().find(|other| other.id != entry.id && !other.is_completed())
        {
            self.screen.paragraph(
                &format!("Next here: {}. Run the same command to start it.", next.title),
                TextStyle::PLAIN,
            )?;
        }
        Ok(Outcome::Completed)
    }

    async fn list(&mut self) -> Result<Vec<WalkthroughEntry>, EarlyExit> {
        let mut entries = Vec::new();
        let mut cursor: Option<String> = None;
        for _ in 0..MOST_PAGES {
            let arguments = cursor.map_or(json!({}), |cursor| json!({ "cursor": cursor }));
            let page: WalkthroughPage = self.call(LIST, arguments).await?;
            entries.extend(page.walkthroughs);
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        Ok(entries)
    }

    fn choose(&self, entries: &[WalkthroughEntry]) -> Result<Option<WalkthroughEntry>, PlayError> {
        let Some(wanted) = &self.options.walkthrough else {
            return Ok(entries.iter().find(|entry| !entry.is_completed()).cloned());
        };
        let is_wanted = |entry: &&WalkthroughEntry| entry.id == *wanted || entry.slug.as_ref() == Some(wanted);
        match entries.iter().find(is_wanted) {
            Some(entry) => Ok(Some(entry.clone())),
            None => {
                let offered: Vec<&str> = entries.iter().map(WalkthroughEntry::name).collect();
                Err(PlayError::NotFound { url: self.url(), wanted: wanted.clone(), offered: offered.join(", ") })
            }
        }
    }

    async fn select(&mut self, entry: &WalkthroughEntry) -> Result<StepResult, EarlyExit> {
        let mut arguments = json!({ "walkthrough_id": entry.id });
        if let Some(email) = &self.options.email {
            arguments["email"] = json!(email);
        }
        let result = match self.call(SELECT, arguments.clone()).await {
            Err(EarlyExit::Failed(PlayError::Tool { code, .. })) if code == "email_required" => {
                if self.options.yes {
                    return Err(PlayError::EmailRequired { url: self.url() }.into());
                }
                arguments["email"] = json!(self.answer("This server asks for your e-mail address: ").await?);
                self.call(SELECT, arguments).await?
            }
            result => result?,
        };
        self.arrive(result)
    }

    /// Shows a step, asks, goes on; until there is no step any more.
    async fn steps(&mut self, mut result: StepResult) -> Result<StepResult, EarlyExit> {
        let mut done = HashSet::new();
        while let Some(step) = result.step.clone() {
            // A server that turns in a circle would be followed for ever.
            if done.len() >= MOST_STEPS || !done.insert(step.id.clone()) {
                return Err(self.stuck(&step));
            }
            self.screen.step(&step, &result.progress)?;
            self.confirm(&step, &result).await?;
            result = self.advance(&result.walkthrough.id, &step).await?;
        }
        if result.progress.is_completed() {
            return Ok(result);
        }
        let why = "there is no step, and it is not completed".to_owned();
        Err(PlayError::InvalidResponse { url: self.url(), tool: NEXT, why }.into())
    }

    async fn confirm(&mut self, step: &Step, result: &StepResult) -> Result<(), EarlyExit> {
        if self.options.yes {
            return Ok(());
        }
        loop {
            self.screen.keys()?;
            match self.answer("").await?.to_lowercase().as_str() {
                "" | "n" | "next" => return Ok(()),
                "b" | "back" => self.screen.step(step, &result.progress)?,
                "s" | "status" => {
                    let arguments = json!({ "walkthrough_id": result.walkthrough.id });
                    let status: WalkthroughStatus = self.call(STATUS, arguments).await?;
                    self.screen.status(&status.progress, &status.steps)?;
                }
                "q" | "quit" => return Err(EarlyExit::Stopped),
                _ => self.screen.line("Please answer with Enter, b, s or q.")?,
            }
        }
    }

    /// Completes a step. One that the server then shows again is completed once more, as the current step of the
    /// server's own status; after that it is stuck.
    async fn advance(&mut self, walkthrough: &str, step: &Step) -> Result<StepResult, EarlyExit> {
        let moved = |result: &StepResult| result.step.as_ref().is_none_or(|next| next.id != step.id);
        let mut result = self.complete(walkthrough, &step.id).await?;
        if !moved(&result) {
            let status: Result<WalkthroughStatus, EarlyExit> =
                self.call(STATUS, json!({ "walkthrough_id": walkthrough })).await;
            let current = match status {
                Ok(status) => status.steps.into_iter().find(|step| step.state == "current").map(|step| step.id),
                Err(EarlyExit::Failed(_)) => None,
                Err(halt) => return Err(halt),
            };
            result = self.complete(walkthrough, current.as_deref().unwrap_or(&step.id)).await?;
        }
        if moved(&result) { self.arrive(result) } else { Err(self.stuck(step)) }
    }

    /// Safe to repeat: with the id of a step that is completed already the call changes nothing.
    async fn complete(&mut self, walkthrough: &str, step: &str) -> Result<StepResult, EarlyExit> {
        let arguments = json!({ "walkthrough_id": walkthrough, "current_step_id": step });
        match self.call(NEXT, arguments.clone()).await {
            Err(EarlyExit::Failed(error)) if error.is_passing() => self.call(NEXT, arguments).await,
            // The same walkthrough is played elsewhere too: go on from where it stands now.
            Err(EarlyExit::Failed(PlayError::Tool { code, .. })) if code == "step_mismatch" => {
                self.call(SELECT, json!({ "walkthrough_id": walkthrough })).await
            }
            result => result,
        }
    }

    /// Takes a result as the state of things, and shows what the server says about it.
    fn arrive(&mut self, result: StepResult) -> Result<StepResult, EarlyExit> {
        let notice = result.notice.as_deref().map(str::trim).filter(|notice| !notice.is_empty());
        if let Some(notice) = notice
            && self.told.as_deref() != Some(notice)
        {
            self.screen.line("")?;
            self.screen.paragraph(notice, TextStyle::DIM)?;
            self.told = Some(notice.to_owned());
        }
        self.last = Some(result.clone());
        Ok(result)
    }

    async fn start_afresh(&mut self) -> Result<(), EarlyExit> {
        self.screen
            .paragraph("This server does not know your place any more; it may have expired.", TextStyle::BOLD)?;
        if !self.options.yes {
            let answer = self.answer("Start from the beginning? [Y/n] ").await?.to_lowercase();
            if !matches!(answer.as_str(), "" | "y" | "yes") {
                return Err(EarlyExit::Stopped);
            }
        }
        self.file.forget()?;
        (self.handle, self.told, self.last) = (None, None, None);
        self.screen.line("")?;
        Ok(())
    }

    /// What the user leaves with.
    fn stop(&mut self) -> Result<Outcome, PlayError> {
        self.screen.line("")?;
        let personal = self.options.url.path().contains("/t/");
        let words = match (&self.last, &self.handle) {
            (None, _) => "Stopped.",
            (_, Some(_)) if self.kept => "Your place is kept. Run the same command to go on.",
            (_, None) if personal => "Your place is kept. Run the same command to go on.",
            _ => "Stopped. Your place could not be kept.",
        };
        self.screen.line(words)?;
        Ok(Outcome::Stopped)
    }

    async fn answer(&mut self, question: &str) -> Result<String, EarlyExit> {
        self.screen.ask(question)?;
        let answer = tokio::select! {
            answer = self.lines.next() => answer?,
            () = self.interrupt.notified() => None,
        };
        if answer.is_none() || !self.echo {
            self.screen.line("")?;
        }
        answer.ok_or(EarlyExit::Stopped)
    }

    /// Calls a tool with the handle, keeps the handle that comes back, and reads the result.
    async fn call<T: DeserializeOwned>(&mut self, tool: &'static str, arguments: Value) -> Result<T, EarlyExit> {
        let mut arguments: JsonObject = arguments.as_object().cloned().unwrap_or_default();
        if let Some(handle) = &self.handle {
            arguments.insert("progress_handle".to_owned(), json!(handle));
        }
        let called = tokio::select! {
            called = self.client.call(tool, arguments) => called,
            () = self.interrupt.notified() => return Err(EarlyExit::Stopped),
        };
        let value = match called {
            Ok(value) => value,
            Err(CallError::Failed(error)) => return Err(error.into()),
            Err(CallError::NoSuchTool) => return Err(PlayError::MissingTool { url: self.url(), tool }.into()),
            Err(CallError::Tool { code, .. }) if code == "handle_unknown" && self.handle.is_some() => {
                return Err(EarlyExit::HandleUnknown);
            }
            Err(CallError::Tool { code, message }) => return Err(PlayError::Tool { tool, code, message }.into()),
        };
        if let Some(handle) = value["progress_handle"].as_str().filter(|handle| !handle.is_empty()) {
            self.keep(handle)?;
        }
        serde_json::from_value(value)
            .map_err(|error| PlayError::InvalidResponse { url: self.url(), tool, why: error.to_string() }.into())
    }

    /// A handle that cannot be stored is a warning: the walkthrough can be played to its end without.
    fn keep(&mut self, handle: &str) -> io::Result<()> {
        if self.handle.as_deref() == Some(handle) {
            return Ok(());
        }
        self.handle = Some(handle.to_owned());
        let saved = self.file.save(handle);
        self.kept = saved.is_ok();
        match saved {
            Ok(()) => Ok(()),
            Err(error) => writeln!(self.err, "warning: your place cannot be kept on this machine: {error}"),
        }
    }

    fn stuck(&self, step: &Step) -> EarlyExit {
        PlayError::NoProgress { url: self.url(), step: step.title.clone() }.into()
    }

    fn url(&self) -> String {
        self.client.url().to_owned()
    }
}
