//! Plays a walkthrough: selects it, starts or resumes it, then shows and completes one step after another.

use std::{
    collections::HashSet,
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
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
/// Limits on the pages of a list and the steps of a walkthrough, beyond which the server is considered broken.
const MAX_PAGES: usize = 100;
const MAX_STEPS: usize = 10_000;

/// Options for playing a walkthrough.
#[derive(Debug, Clone)]
pub struct PlayOptions {
    /// MCP URL of the server.
    pub url: Url,
    /// ID or slug of the walkthrough; by default, the first one that is not completed.
    pub walkthrough: Option<String>,
    /// Whether to play without prompting.
    pub yes: bool,
    /// Email of the user, for servers that require one.
    pub email: Option<String>,
    /// Folder in which progress handles are stored; see [`crate::default_folder`]. `None` stores nothing.
    pub state_folder: Option<PathBuf>,
}

/// The outcome of playing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The walkthrough is completed.
    Completed,
    /// The user stopped before the end.
    Stopped,
    /// All walkthroughs of the server were already completed.
    NothingLeft,
}

/// The final state.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The outcome.
    pub outcome: Outcome,
    /// URL of the server.
    pub url: String,
    /// The walkthrough, if one was selected.
    pub walkthrough: Option<Walkthrough>,
    /// The user's progress.
    pub progress: Option<Progress>,
    /// The current step.
    pub step: Option<StepSummary>,
}

/// A step, without its content.
#[derive(Debug, Clone, Serialize)]
pub struct StepSummary {
    /// ID assigned by the server.
    pub id: String,
    /// Position, starting at 1.
    pub position: u64,
    /// Title.
    pub title: String,
}

impl Report {
    /// Whether the command succeeded. With `yes`, stopping before the end is a failure.
    pub fn is_success(&self, yes: bool) -> bool {
        self.outcome != Outcome::Stopped || !yes
    }
}

/// Plays one walkthrough of the server.
///
/// # Errors
///
/// If the server cannot be reached, has no walkthroughs, returns an error or does not advance, or if the output cannot
/// be written.
pub async fn play(options: &PlayOptions, terminal: Terminal<'_>) -> Result<Report, PlayError> {
    let url = client::display_url(&options.url);
    let client = tokio::select! {
        client = Client::connect(&options.url) => client?,
        () = terminal.interrupt.notified() => return Ok(report(Outcome::Stopped, url, None)),
    };
    // The fragment is never sent to the server, so URLs that differ only in their fragment share a handle.
    let mut server_url = options.url.clone();
    server_url.set_fragment(None);
    let file = HandleFile::new(options.state_folder.as_deref(), server_url.as_str());
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
        is_handle_stored: true,
        last_notice: None,
        last: None,
    };
    let result = match player.run().await {
        Err(EarlyExit::Stopped) => player.stop(),
        Err(EarlyExit::Failed(error)) => Err(error),
        Err(EarlyExit::HandleUnknown) => Err(PlayError::HandleLost { url: url.clone() }),
        Ok(outcome) => Ok(outcome),
    };
    let last = player.last.take();
    player.client.close().await;
    result.map(|outcome| report(outcome, url, last))
}

fn report(outcome: Outcome, url: String, last: Option<StepResult>) -> Report {
    let (mut walkthrough, mut progress, mut step) = (None, None, None);
    if let Some(last) = last {
        step = last.step.map(|step| StepSummary { id: step.id, position: step.position, title: step.title });
        (walkthrough, progress) = (Some(last.walkthrough), Some(last.progress));
    }
    Report { outcome, url, walkthrough, progress, step }
}

/// The reason why playing ends early.
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
    is_handle_stored: bool,
    /// The most recent notice. The server may repeat it with every step.
    last_notice: Option<String>,
    /// The most recent step result.
    last: Option<StepResult>,
}

impl Player<'_, '_> {
    async fn run(&mut self) -> Result<Outcome, EarlyExit> {
        let has_guided_tools = self.has_guided_tools().await?;
        match self.attempt(has_guided_tools).await {
            Err(EarlyExit::HandleUnknown) => {
                self.confirm_restart().await?;
                self.attempt(has_guided_tools).await
            }
            result => result,
        }
    }

    /// Whether the server lists the guided tools. A server without walkthroughs may list none and still respond to
    /// `list_walkthroughs`.
    async fn has_guided_tools(&mut self) -> Result<bool, EarlyExit> {
        let tools = tokio::select! {
            tools = self.client.tools() => tools?,
            () = self.interrupt.notified() => return Err(EarlyExit::Stopped),
        };
        let has_guided_tools = tools.contains(SELECT) && tools.contains(NEXT);
        if !has_guided_tools && tools.contains("complete_step") {
            return Err(PlayError::StepwiseOnly { url: self.url() }.into());
        }
        Ok(has_guided_tools)
    }

    async fn attempt(&mut self, has_guided_tools: bool) -> Result<Outcome, EarlyExit> {
        let entries = self.list().await?;
        if entries.is_empty() {
            return Err(PlayError::NoWalkthroughs { url: self.url() }.into());
        }
        if !has_guided_tools {
            return Err(PlayError::MissingTool { url: self.url(), tool: SELECT }.into());
        }
        let Some(entry) = self.choose(&entries)? else {
            let all = plural(entries.len() as u64, "walkthrough");
            self.screen.line(&format!("Nothing left to play: {all} completed."))?;
            return Ok(Outcome::NothingLeft);
        };
        self.screen.title(&entry)?;
        let result = self.select(&entry).await?;
        if result.step.is_none() && result.progress.is_completed() {
            self.screen.line("")?;
            self.screen.line("You have already completed this walkthrough.")?;
            return Ok(Outcome::Completed);
        }
        if result.progress.completed > 0 {
            let (done, total) = (result.progress.completed, plural(result.progress.total, "step"));
            self.screen.line("")?;
            self.screen.paragraph(&format!("Resuming: {done} of {total} completed."), TextStyle::BOLD)?;
        }
        let result = self.play_steps(result).await?;
        self.screen.completed(&result.walkthrough.title, &result.progress)?;
        if self.options.walkthrough.is_none()
            && let Some(next) = entries.iter().find(|other| other.id != entry.id && !other.is_completed())
        {
            self.screen.paragraph(
                &format!("Next walkthrough: {}. Run the same command to start it.", next.title),
                TextStyle::PLAIN,
            )?;
        }
        Ok(Outcome::Completed)
    }

    async fn list(&mut self) -> Result<Vec<WalkthroughEntry>, EarlyExit> {
        let mut entries = Vec::new();
        let mut cursor: Option<String> = None;
        for _ in 0..MAX_PAGES {
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
        let Some(name) = &self.options.walkthrough else {
            return Ok(entries.iter().find(|entry| !entry.is_completed()).cloned());
        };
        let matches = |entry: &&WalkthroughEntry| entry.id == *name || entry.slug.as_ref() == Some(name);
        match entries.iter().find(matches) {
            Some(entry) => Ok(Some(entry.clone())),
            None => {
                let available: Vec<&str> = entries.iter().map(WalkthroughEntry::name).collect();
                Err(PlayError::NotFound { url: self.url(), walkthrough: name.clone(), available: available.join(", ") })
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
                arguments["email"] = json!(self.prompt("This server requires your email: ").await?);
                self.call(SELECT, arguments).await?
            }
            result => result?,
        };
        self.accept(result)
    }

    /// Shows and completes one step after another until there is no further step.
    async fn play_steps(&mut self, mut result: StepResult) -> Result<StepResult, EarlyExit> {
        let mut seen = HashSet::new();
        while let Some(step) = result.step.clone() {
            // Prevents an endless loop if the server repeats a step.
            if seen.len() >= MAX_STEPS || !seen.insert(step.id.clone()) {
                return Err(self.no_progress(&step));
            }
            self.screen.step(&step, &result.progress)?;
            self.confirm(&step, &result).await?;
            result = self.advance(&result.walkthrough.id, &step).await?;
        }
        if result.progress.is_completed() {
            return Ok(result);
        }
        let reason = "it has no step, but the walkthrough is not completed".to_owned();
        Err(PlayError::InvalidResponse { url: self.url(), tool: NEXT, reason }.into())
    }

    async fn confirm(&mut self, step: &Step, result: &StepResult) -> Result<(), EarlyExit> {
        if self.options.yes {
            return Ok(());
        }
        loop {
            self.screen.keys()?;
            match self.prompt("").await?.to_lowercase().as_str() {
                "" | "n" | "next" => return Ok(()),
                "b" | "back" => self.screen.step(step, &result.progress)?,
                "s" | "status" => {
                    let arguments = json!({ "walkthrough_id": result.walkthrough.id });
                    let status: WalkthroughStatus = self.call(STATUS, arguments).await?;
                    self.screen.status(&status.progress, &status.steps)?;
                }
                "q" | "quit" => return Err(EarlyExit::Stopped),
                _ => self.screen.line("Press Enter, or type b, s or q.")?,
            }
        }
    }

    /// Completes a step. If the server returns the same step again, requests the status and completes the current step.
    /// Fails if the server does not advance then either.
    async fn advance(&mut self, walkthrough: &str, step: &Step) -> Result<StepResult, EarlyExit> {
        let has_advanced = |result: &StepResult| result.step.as_ref().is_none_or(|next| next.id != step.id);
        let mut result = self.complete(walkthrough, &step.id).await?;
        if !has_advanced(&result) {
            let status: Result<WalkthroughStatus, EarlyExit> =
                self.call(STATUS, json!({ "walkthrough_id": walkthrough })).await;
            let current = match status {
                Ok(status) => status.steps.into_iter().find(|step| step.state == "current").map(|step| step.id),
                Err(EarlyExit::Failed(_)) => None,
                Err(exit) => return Err(exit),
            };
            result = self.complete(walkthrough, current.as_deref().unwrap_or(&step.id)).await?;
        }
        if has_advanced(&result) { self.accept(result) } else { Err(self.no_progress(step)) }
    }

    /// Completes a step. Safe to retry: the call changes nothing if the step is already completed.
    async fn complete(&mut self, walkthrough: &str, step: &str) -> Result<StepResult, EarlyExit> {
        let arguments = json!({ "walkthrough_id": walkthrough, "current_step_id": step });
        match self.call(NEXT, arguments.clone()).await {
            Err(EarlyExit::Failed(error)) if error.is_transient() => self.call(NEXT, arguments).await,
            // The walkthrough is also played in another client: continue at the current step.
            Err(EarlyExit::Failed(PlayError::Tool { code, .. })) if code == "step_mismatch" => {
                self.call(SELECT, json!({ "walkthrough_id": walkthrough })).await
            }
            result => result,
        }
    }

    /// Stores a result as the current state and shows its notice if it is new.
    fn accept(&mut self, result: StepResult) -> Result<StepResult, EarlyExit> {
        let notice = result.notice.as_deref().map(str::trim).filter(|notice| !notice.is_empty());
        if let Some(notice) = notice
            && self.last_notice.as_deref() != Some(notice)
        {
            self.screen.line("")?;
            self.screen.paragraph(notice, TextStyle::DIM)?;
            self.last_notice = Some(notice.to_owned());
        }
        self.last = Some(result.clone());
        Ok(result)
    }

    /// Asks whether to start again after the server rejected the handle, and deletes the handle.
    async fn confirm_restart(&mut self) -> Result<(), EarlyExit> {
        self.screen.paragraph("The server no longer has your progress. It may have expired.", TextStyle::BOLD)?;
        if !self.options.yes {
            let input = self.prompt("Start from the beginning? [Y/n] ").await?.to_lowercase();
            if !matches!(input.as_str(), "" | "y" | "yes") {
                return Err(EarlyExit::Stopped);
            }
        }
        self.file.delete()?;
        (self.handle, self.last_notice, self.last) = (None, None, None);
        self.screen.line("")?;
        Ok(())
    }

    /// Tells the user whether their progress is saved.
    fn stop(&mut self) -> Result<Outcome, PlayError> {
        self.screen.line("")?;
        let is_personal = self.options.url.path().contains("/t/");
        let message = match (&self.last, &self.handle) {
            (None, _) => "Stopped.",
            (_, Some(_)) if self.is_handle_stored => "Your progress is saved. Run the same command to continue.",
            (_, None) if is_personal => "Your progress is saved. Run the same command to continue.",
            _ => "Stopped. Your progress could not be saved.",
        };
        self.screen.line(message)?;
        Ok(Outcome::Stopped)
    }

    async fn prompt(&mut self, question: &str) -> Result<String, EarlyExit> {
        self.screen.prompt(question)?;
        let input = tokio::select! {
            input = self.lines.next() => input?,
            () = self.interrupt.notified() => None,
        };
        if input.is_none() || !self.echo {
            self.screen.line("")?;
        }
        input.ok_or(EarlyExit::Stopped)
    }

    /// Calls a tool with the stored handle, stores the handle it returns, and parses the result.
    async fn call<T: DeserializeOwned>(&mut self, tool: &'static str, arguments: Value) -> Result<T, EarlyExit> {
        let mut arguments: Map<String, Value> = arguments.as_object().cloned().unwrap_or_default();
        if let Some(handle) = &self.handle {
            arguments.insert("progress_handle".to_owned(), json!(handle));
        }
        let result = tokio::select! {
            result = self.client.call(tool, arguments) => result,
            () = self.interrupt.notified() => return Err(EarlyExit::Stopped),
        };
        let value = match result {
            Ok(value) => value,
            Err(CallError::Other(error)) => return Err(error.into()),
            Err(CallError::UnknownTool) => return Err(PlayError::MissingTool { url: self.url(), tool }.into()),
            Err(CallError::Tool { code, .. }) if code == "handle_unknown" && self.handle.is_some() => {
                return Err(EarlyExit::HandleUnknown);
            }
            Err(CallError::Tool { code, message }) => return Err(PlayError::Tool { tool, code, message }.into()),
        };
        if let Some(handle) = value["progress_handle"].as_str().filter(|handle| !handle.is_empty()) {
            self.store_handle(handle)?;
        }
        serde_json::from_value(value)
            .map_err(|error| PlayError::InvalidResponse { url: self.url(), tool, reason: error.to_string() }.into())
    }

    /// Stores the handle. Only warns if that fails, because the walkthrough can still be completed in this session.
    fn store_handle(&mut self, handle: &str) -> io::Result<()> {
        if self.handle.as_deref() == Some(handle) {
            return Ok(());
        }
        self.handle = Some(handle.to_owned());
        let saved = self.file.save(handle);
        self.is_handle_stored = saved.is_ok();
        match saved {
            Ok(()) => Ok(()),
            Err(error) => writeln!(self.err, "warning: your progress cannot be saved on this machine: {error}"),
        }
    }

    fn no_progress(&self, step: &Step) -> EarlyExit {
        PlayError::NoProgress { url: self.url(), step: step.title.clone() }.into()
    }

    fn url(&self) -> String {
        self.client.url().to_owned()
    }
}
