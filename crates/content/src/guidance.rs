//! Instructions for agents after a tool call.
//!
//! Many clients pass only `structuredContent` to their model, others only the text block, and some never show the
//! server's `instructions`. Both forms therefore contain the same instructions: what to show, that the agent must wait
//! for the user, the next call with its values, notices, and how to keep the handle.

use std::fmt::Write;

use waypost_core::id::WalkthroughId;
use waypost_core::progress::{Notice, ProgressView, Status};
use waypost_core::server::Toolset;
use waypost_core::step::StepContent;

/// The instructions for using the fields of a step. Part of tool descriptions and prompts.
pub const FIELD_USAGE: &str =
    "intro: say this first; context: for you only; operations: carry these out; content: show verbatim";
/// The rule to wait for the user. Part of tool descriptions and prompts.
pub const WAIT_RULE: &str = "Never call it twice in a row without a reply from the user";
/// The rule for anonymous users. Part of tool descriptions and the `instructions` of servers without sign-in.
pub const HANDLE_RULE: &str = "Pass progress_handle on EVERY call";

/// The set of tools that instructions refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolFlow {
    /// `select_walkthrough` and `next_walkthrough_step`.
    Guided,
    /// `get_current_step` and `complete_step`.
    Stepwise,
}

impl From<Toolset> for ToolFlow {
    /// Returns the set that instructions refer to. For a server with both sets, these are the guided tools.
    fn from(toolset: Toolset) -> Self {
        match toolset {
            Toolset::Guided | Toolset::All => Self::Guided,
            Toolset::Stepwise => Self::Stepwise,
        }
    }
}

/// The identity of the user of a call. Determines the instructions about the handle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserIdentity {
    /// The user is identified by a token or a personal URL; there is no handle.
    Known,
    /// The user is identified by this handle, or by a session that represents it. The session is lost when the client
    /// restarts.
    Handle(String),
    /// The user is not identified, on a server where a handle would identify them.
    Unknown,
}

impl UserIdentity {
    /// Returns the handle, if there is one.
    #[must_use]
    pub fn handle(&self) -> Option<&str> {
        match self {
            Self::Handle(handle) => Some(handle),
            Self::Known | Self::Unknown => None,
        }
    }
}

/// The context of the instructions.
#[derive(Debug, Clone, Copy)]
pub struct Guide<'a> {
    /// The tools that instructions refer to.
    pub flow: ToolFlow,
    /// The user's identity.
    pub user: &'a UserIdentity,
    /// The walkthrough.
    pub walkthrough_id: &'a WalkthroughId,
    /// Its title.
    pub title: &'a str,
}

/// Formats a tool call with its arguments, as in `get_current_step(walkthrough_id: "wt_…", progress_handle: "wph_…")`.
/// The values in `arguments` are written verbatim; the handle is appended if there is one.
#[must_use]
pub fn format_call(tool: &str, arguments: &[(&str, &str)], user: &UserIdentity) -> String {
    let mut text = format!("{tool}(");
    let handle = user.handle().map(|handle| format!("\"{handle}\""));
    let handle = handle.as_deref().map(|handle| ("progress_handle", handle));
    for (number, (name, value)) in arguments.iter().copied().chain(handle).enumerate() {
        let comma = if number == 0 { "" } else { ", " };
        let _ = write!(text, "{comma}{name}: {value}");
    }
    text.push(')');
    text
}

/// Joins an author's text into a single line: each run of white space becomes a space.
#[must_use]
pub fn single_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns the message for a call without a handle, which explains why no progress was found and what to do.
#[must_use]
pub fn unknown_user_message(flow: ToolFlow) -> String {
    let (source, start) = match flow {
        ToolFlow::Guided => ("from select_walkthrough", "select_walkthrough"),
        ToolFlow::Stepwise => ("from the first complete_step result", "get_current_step"),
    };
    format!(
        "No progress_handle was passed, so the user is unknown. Pass the one {source}; check your notes for it (for \
         example AGENTS.md or a .waypost file). If nothing has been started yet, call {start}."
    )
}

/// Returns the instruction about the handle for `message`. Returns an empty string if there is no handle.
fn keep_handle(user: &UserIdentity) -> &'static str {
    match user {
        UserIdentity::Handle(_) => {
            "Pass progress_handle on every call, and save it in your notes (for example AGENTS.md or a .waypost file) to \
             resume after a restart."
        }
        UserIdentity::Known | UserIdentity::Unknown => "",
    }
}

/// Returns a shorter form of the instruction for the text block, because the fixed text around a step is limited.
fn keep_handle_short(user: &UserIdentity) -> &'static str {
    match user {
        UserIdentity::Handle(_) => {
            " Pass progress_handle on every call; save it in your notes (AGENTS.md, .waypost) to resume."
        }
        UserIdentity::Known | UserIdentity::Unknown => "",
    }
}

/// Joins the non-empty sentences.
fn join(sentences: impl IntoIterator<Item = String>) -> String {
    let sentences: Vec<_> = sentences.into_iter().filter(|sentence| !sentence.is_empty()).collect();
    sentences.join(" ")
}

/// Returns the notices as text for a user, without references to tools. Returns `None` if there is nothing to report.
#[must_use]
pub fn user_notice(notices: &[Notice]) -> Option<String> {
    let sentences = notices.iter().filter_map(|notice| match notice {
        Notice::Replaced { percent, completed, total } => {
            Some(format!("Replaced the attempt at {percent}% ({completed} of {total} steps); its history is kept."))
        }
        Notice::Moved { from } => {
            Some(format!("Moved from version {from}; completed steps that still exist stay completed."))
        }
        Notice::Withdrawn { from, reason } => Some(format!(
            "Version {from} was withdrawn by its author: {}. This is the newest version.",
            single_line(reason).trim_end_matches('.')
        )),
        Notice::NewerVersion { number } => Some(format!("A newer version ({number}) is available.")),
        Notice::StepAlreadyCompleted => Some("That step was already completed; nothing changed.".to_owned()),
        Notice::Started
        | Notice::Resumed
        | Notice::Reset
        | Notice::AlreadyCompleted
        | Notice::AlreadyNewest
        | Notice::JustCompleted => None,
    });
    let text = join(sentences);
    (!text.is_empty()).then_some(text)
}

impl Guide<'_> {
    /// Formats a call on this walkthrough.
    fn call(&self, tool: &str, more: &[(&str, &str)]) -> String {
        let id = format!("\"{}\"", self.walkthrough_id);
        let arguments = [&[("walkthrough_id", id.as_str())], more].concat();
        format_call(tool, &arguments, self.user)
    }

    /// Returns the title in quotation marks.
    fn name(&self) -> String {
        format!("\"{}\"", single_line(self.title))
    }

    /// Formats the call that shows the current step.
    fn show(&self) -> String {
        match self.flow {
            ToolFlow::Guided => self.call("select_walkthrough", &[]),
            ToolFlow::Stepwise => self.call("get_current_step", &[]),
        }
    }

    /// Formats the call that restarts a completed walkthrough.
    fn restart(&self) -> String {
        match self.flow {
            ToolFlow::Guided => self.call("select_walkthrough", &[("resume_if_exists", "false"), ("confirm", "true")]),
            ToolFlow::Stepwise => self.call("reset_walkthrough_progress", &[("confirm", "true")]),
        }
    }

    /// Describes the call that moves to the newest version. Short, because this notice accompanies every step.
    fn newest(&self) -> &'static str {
        match self.flow {
            ToolFlow::Guided => "select_walkthrough with use_version \"latest\"",
            ToolFlow::Stepwise => "move_to_latest_version",
        }
    }

    /// Formats the call that completes `step`.
    fn complete(&self, step: &str) -> String {
        let step = format!("\"{step}\"");
        match self.flow {
            ToolFlow::Guided => self.call("next_walkthrough_step", &[("current_step_id", &step)]),
            ToolFlow::Stepwise => self.call("complete_step", &[("step_id", &step)]),
        }
    }

    /// Returns the notices as text for the agent.
    #[must_use]
    pub fn notices(&self, notices: &[Notice]) -> String {
        join(notices.iter().map(|notice| self.notice(notice)))
    }

    fn notice(&self, notice: &Notice) -> String {
        let name = self.name();
        match notice {
            Notice::Started => format!("Started {name}."),
            Notice::Resumed => format!("Resumed {name}."),
            Notice::Replaced { percent, completed, total } => format!(
                "Replaced the attempt at {percent}% ({completed} of {total} steps); its history is kept. Started {name}."
            ),
            Notice::AlreadyCompleted => format!(
                "{name} is already completed. To repeat it, ask the user first, then call {}. Call list_walkthroughs to see \
                 what else is available.",
                self.restart()
            ),
            Notice::StepAlreadyCompleted => "That step was already completed; nothing changed.".to_owned(),
            Notice::Moved { from } => {
                format!("Moved from version {from}; completed steps that still exist stay completed.")
            }
            Notice::AlreadyNewest => "This is already the newest version; nothing changed.".to_owned(),
            Notice::Withdrawn { from, reason } => format!(
                "Version {from} was withdrawn by its author: {}. This is the newest version; this call completed no step. \
                 Tell the user before you continue.",
                single_line(reason).trim_end_matches('.')
            ),
            Notice::NewerVersion { number } => {
                format!("A newer version ({number}) is available; {} moves to it.", self.newest())
            }
            Notice::JustCompleted => format!(
                "{name} is completed. Tell the user. Call list_walkthroughs to see what else is available, or {} to restart it.",
                self.restart()
            ),
            Notice::Reset => format!("Progress in {name} was reset; its history is kept."),
        }
    }

    /// Returns the instruction to show the step and wait, with the next call.
    fn wait(&self, content: &str, step: &str) -> String {
        format!("Show {content} and stop. Only when the user says it is done, call {}.", self.complete(step))
    }

    /// Returns the `message` of a step result.
    #[must_use]
    pub fn step_message(&self, progress: &ProgressView, notices: &[Notice]) -> String {
        let current = progress.current().map(|index| &progress.version.steps()[index]);
        let unknown = if *self.user == UserIdentity::Unknown { unknown_user_message(self.flow) } else { String::new() };
        let (fields, wait) = match current {
            Some(step) => (field_usage(&step.content), self.wait("<content> (step.content)", step.id.as_str())),
            None => (String::new(), String::new()),
        };
        join([self.notices(notices), unknown, fields, wait, keep_handle(self.user).to_owned()])
    }

    /// Returns the last lines of the text block of a step result. `section` is the name of the section with the
    /// content.
    #[must_use]
    pub fn step_text(&self, progress: &ProgressView, section: &str) -> String {
        let wait = match progress.current() {
            Some(index) => {
                let step = &progress.version.steps()[index];
                self.wait(&format!("<{section}>"), step.id.as_str())
            }
            None => String::new(),
        };
        let unknown = if *self.user == UserIdentity::Unknown {
            format!("\n{}", unknown_user_message(self.flow))
        } else {
            String::new()
        };
        format!("{wait}{}{unknown}", keep_handle_short(self.user)).trim().to_owned()
    }

    /// Returns the `message` of a result that shows progress without a step.
    #[must_use]
    pub fn status_message(&self, progress: &ProgressView, notices: &[Notice]) -> String {
        let next = match (progress.status(), progress.current()) {
            (Status::Completed, _) | (_, None) => String::new(),
            (Status::NotStarted, _) if *self.user == UserIdentity::Unknown => unknown_user_message(self.flow),
            (Status::NotStarted, _) => {
                format!("{} has not been started. Call {} to show its first step.", self.name(), self.show())
            }
            (Status::InProgress, Some(index)) => {
                let title = single_line(&progress.version.steps()[index].content.title);
                let (position, total) = (index + 1, progress.version.step_count());
                format!("The current step is {position} of {total}, \"{title}\". Call {} to show it.", self.show())
            }
        };
        join([self.notices(notices), next, keep_handle(self.user).to_owned()])
    }

    /// Returns the `message` of a reset.
    #[must_use]
    pub fn reset_message(&self) -> String {
        let next = format!("Call {} to start it again, or list_walkthroughs to see all walkthroughs.", self.show());
        join([self.notice(&Notice::Reset), next, keep_handle(self.user).to_owned()])
    }
}

/// Returns the instructions for using the fields that this step has, by their names in the structured content.
fn field_usage(content: &StepContent) -> String {
    let has = |field: &Option<String>| field.as_ref().is_some_and(|text| !text.is_empty());
    let uses = [
        (has(&content.introduction_for_agent), "introduction_for_agent: say this first"),
        (has(&content.context_for_agent), "context_for_agent: for you only"),
        (has(&content.operations_for_agent), "operations_for_agent: carry these out"),
    ];
    let uses: Vec<&str> = uses.into_iter().filter_map(|(is_present, text)| is_present.then_some(text)).collect();
    if uses.is_empty() { String::new() } else { format!("In step, {}; content: show verbatim.", uses.join("; ")) }
}

/// A walkthrough that the `message` of a list can refer to.
#[derive(Debug, Clone, Copy)]
pub struct WalkthroughChoice<'a> {
    /// The walkthrough.
    pub walkthrough_id: &'a WalkthroughId,
    /// Its title.
    pub title: &'a str,
    /// The user's status in the walkthrough.
    pub status: Status,
}

/// Returns the `message` of a non-empty list.
#[must_use]
pub fn list_message(flow: ToolFlow, user: &UserIdentity, choices: &[WalkthroughChoice<'_>], has_more: bool) -> String {
    let tool = match flow {
        ToolFlow::Guided => "select_walkthrough",
        ToolFlow::Stepwise => "get_current_step",
    };
    let with_id = |choice: &WalkthroughChoice<'_>| {
        let id = format!("\"{}\"", choice.walkthrough_id);
        format_call(tool, &[("walkthrough_id", id.as_str())], user)
    };
    let started = choices.iter().find(|choice| choice.status == Status::InProgress);
    let resume = started.map(|choice| {
        format!("\"{}\" is in progress; call {} to resume it.", single_line(choice.title), with_id(choice))
    });
    let choose = match choices {
        [only] if started.is_none() => format!("To begin, call {}.", with_id(only)),
        [_] => String::new(),
        _ => format!(
            "Ask the user which one to start, then call {}.",
            format_call(tool, &[("walkthrough_id", "its id")], user)
        ),
    };
    let more =
        if has_more { "There are more: call list_walkthroughs again and pass next_cursor as cursor." } else { "" };
    let unknown = if *user == UserIdentity::Unknown {
        "No progress_handle was passed, so the user is unknown. If your notes (for example AGENTS.md or a .waypost file) \
         contain one, pass it."
    } else {
        ""
    };
    join([resume.unwrap_or_default(), choose, more.to_owned(), unknown.to_owned(), keep_handle(user).to_owned()])
}

/// Returns the `message` of a search without results on a server with `total` walkthroughs.
#[must_use]
pub fn no_match_message(query: &str, total: usize) -> String {
    let all = if total == 1 { "see the only walkthrough".to_owned() } else { format!("see all {total} walkthroughs") };
    format!("No walkthrough matches \"{}\". Omit query to {all}.", single_line(query))
}
