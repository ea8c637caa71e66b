//! The sentences that tell an agent what to do after a call.
//!
//! Many clients give their model only `structuredContent`, others only the text block, and some never show the server's
//! `instructions`. Both forms therefore carry the same sentences: what to show, to wait for the user, the next call with
//! its values, notices, and how to keep the handle.

use std::fmt::Write;

use crate::id::WalkthroughId;
use crate::progress::{Notice, ProgressView, Status};
use crate::server::Toolset;
use crate::step::StepContent;

/// How the fields of a step are used. Tool descriptions and prompts state it.
pub const FIELD_USAGE: &str =
    "intro: say it first; context: for you only; operations: do these; content: show as written";
/// The rule against rushing. Tool descriptions and prompts state it.
pub const WAIT_RULE: &str = "Never call it twice in a row without an answer from the user";
/// The rule for anonymous users. Tool descriptions and `instructions` of servers without sign-in state it.
pub const HANDLE_RULE: &str = "Pass progress_handle on EVERY call";

/// The tools that a text may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolFlow {
    /// `select_walkthrough` and `next_walkthrough_step`.
    Guided,
    /// `get_current_step` and `complete_step`.
    Stepwise,
}

impl From<Toolset> for ToolFlow {
    /// A server with both sets recommends the guided tools.
    fn from(toolset: Toolset) -> Self {
        match toolset {
            Toolset::Guided | Toolset::All => Self::Guided,
            Toolset::Stepwise => Self::Stepwise,
        }
    }
}

/// How the user of a call was identified, which determines what is said about the handle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserIdentity {
    /// By a token or a personal URL: there is no handle.
    Known,
    /// By this handle, or by a session that stands for it. A restart of the client loses the session.
    Handle(String),
    /// By nothing, on a server where a handle would identify them.
    Unknown,
}

impl UserIdentity {
    /// The handle to return.
    #[must_use]
    pub fn handle(&self) -> Option<&str> {
        match self {
            Self::Handle(handle) => Some(handle),
            Self::Known | Self::Unknown => None,
        }
    }
}

/// What the sentences refer to.
#[derive(Debug, Clone, Copy)]
pub struct Guide<'a> {
    /// The tools that may be named.
    pub flow: ToolFlow,
    /// The user.
    pub user: &'a UserIdentity,
    /// The walkthrough.
    pub walkthrough_id: &'a WalkthroughId,
    /// Its title.
    pub title: &'a str,
}

/// A call of a tool with its values, as in `next_walkthrough_step(walkthrough_id: "wt_…", progress_handle: "wph_…")`.
/// `arguments` are written as they are; the handle is added if there is one.
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

/// One line of author's text: line feeds become spaces.
#[must_use]
pub fn single_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Why a call without a handle finds nothing, and what to do.
#[must_use]
pub fn unknown_user_message(flow: ToolFlow) -> String {
    let (source, start) = match flow {
        ToolFlow::Guided => ("from select_walkthrough", "select_walkthrough"),
        ToolFlow::Stepwise => ("from the first complete_step result", "get_current_step"),
    };
    format!(
        "No progress_handle was given, so your user is unknown. Pass the one {source}; look for it in your notes (for \
         example AGENTS.md or a .waypost file). If nothing was started yet, begin with {start}."
    )
}

/// The sentence of `message` about the handle; empty if there is nothing to keep.
fn keep_handle(user: &UserIdentity) -> &'static str {
    match user {
        UserIdentity::Handle(_) => {
            "Pass progress_handle on every call, and keep it in your notes (for example AGENTS.md or a .waypost file) to \
             resume after a restart."
        }
        UserIdentity::Known | UserIdentity::Unknown => "",
    }
}

/// The same sentence for the text block, where every byte around a step counts.
fn keep_handle_short(user: &UserIdentity) -> &'static str {
    match user {
        UserIdentity::Handle(_) => {
            " Pass progress_handle every time; keep it in your notes (AGENTS.md, .waypost) to resume."
        }
        UserIdentity::Known | UserIdentity::Unknown => "",
    }
}

/// Joins the sentences that are not empty.
fn join(sentences: impl IntoIterator<Item = String>) -> String {
    let sentences: Vec<_> = sentences.into_iter().filter(|sentence| !sentence.is_empty()).collect();
    sentences.join(" ")
}

/// What the notices say to a person who sees no tools; `None` if there is nothing to say.
#[must_use]
pub fn user_notice(notices: &[Notice]) -> Option<String> {
    let sentences = notices.iter().filter_map(|notice| match notice {
        Notice::Replaced { percent, completed, total } => {
            Some(format!("Replaced the attempt at {percent} % ({completed} of {total} steps); its history is kept."))
        }
        Notice::Moved { from } => {
            Some(format!("Moved from version {from}; every step that still exists stays completed."))
        }
        Notice::Withdrawn { from, reason } => Some(format!(
            "Version {from} was withdrawn by its author: {}. This is the newest version.",
            single_line(reason).trim_end_matches('.')
        )),
        Notice::NewerVersion { number } => Some(format!("A newer version ({number}) exists.")),
        Notice::StepAlreadyCompleted => Some("That step was completed before; nothing changed.".to_owned()),
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
    /// A call on this walkthrough.
    fn call(&self, tool: &str, more: &[(&str, &str)]) -> String {
        let id = format!("\"{}\"", self.walkthrough_id);
        let arguments = [&[("walkthrough_id", id.as_str())], more].concat();
        format_call(tool, &arguments, self.user)
    }

    /// The title in quotation marks.
    fn name(&self) -> String {
        format!("\"{}\"", single_line(self.title))
    }

    /// The call that shows the current step.
    fn show(&self) -> String {
        match self.flow {
            ToolFlow::Guided => self.call("select_walkthrough", &[]),
            ToolFlow::Stepwise => self.call("get_current_step", &[]),
        }
    }

    /// The call that starts a completed walkthrough again.
    fn again(&self) -> String {
        match self.flow {
            ToolFlow::Guided => self.call("select_walkthrough", &[("resume_if_exists", "false"), ("confirm", "true")]),
            ToolFlow::Stepwise => self.call("reset_walkthrough_progress", &[("confirm", "true")]),
        }
    }

    /// The call that moves to the newest version. Short, because the notice comes with every step.
    fn newest(&self) -> &'static str {
        match self.flow {
            ToolFlow::Guided => "select_walkthrough with use_version \"latest\"",
            ToolFlow::Stepwise => "move_to_latest_version",
        }
    }

    /// The call that completes `step`.
    fn complete(&self, step: &str) -> String {
        let step = format!("\"{step}\"");
        match self.flow {
            ToolFlow::Guided => self.call("next_walkthrough_step", &[("current_step_id", &step)]),
            ToolFlow::Stepwise => self.call("complete_step", &[("step_id", &step)]),
        }
    }

    /// What the notices say.
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
                "Replaced the attempt at {percent} % ({completed} of {total} steps); its history is kept. Started {name}."
            ),
            Notice::AlreadyCompleted => format!(
                "{name} is completed already. To go through it again, ask the user, then call {}. list_walkthroughs shows \
                 what else there is.",
                self.again()
            ),
            Notice::StepAlreadyCompleted => "That step was completed before; nothing changed.".to_owned(),
            Notice::Moved { from } => {
                format!("Moved from version {from}; every step that still exists stays completed.")
            }
            Notice::AlreadyNewest => "This is the newest version already; nothing changed.".to_owned(),
            Notice::Withdrawn { from, reason } => format!(
                "Version {from} was withdrawn by its author: {}. This is the newest version; no step was completed by \
                 this call. Tell the user before going on.",
                single_line(reason).trim_end_matches('.')
            ),
            Notice::NewerVersion { number } => {
                format!("A newer version ({number}) exists; {} moves to it.", self.newest())
            }
            Notice::JustCompleted => format!(
                "{name} is completed. Tell the user. list_walkthroughs shows what else there is; {} starts it again.",
                self.again()
            ),
            Notice::Reset => format!("The progress in {name} is reset; its history is kept."),
        }
    }

    /// The order to show the step and to wait, and the next call.
    fn wait(&self, content: &str, step: &str) -> String {
        format!("Show {content} and stop. Only when the user says it is done, call {}.", self.complete(step))
    }

    /// `message` of a step result.
    #[must_use]
    pub fn step_message(&self, progress: &ProgressView, notices: &[Notice]) -> String {
        let current = progress.current().map(|index| &progress.version.steps()[index]);
        let unknown = if *self.user == UserIdentity::Unknown { unknown_user_message(self.flow) } else { String::new() };
        let (fields, wait) = match current {
            Some(step) => (use_of_fields(&step.content), self.wait("<content> (step.content)", step.id.as_str())),
            None => (String::new(), String::new()),
        };
        join([self.notices(notices), unknown, fields, wait, keep_handle(self.user).to_owned()])
    }

    /// The last lines of the text block of a step result: `section` is the name of the section with the content.
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

    /// `message` of a result that shows progress and no step.
    #[must_use]
    pub fn status_message(&self, progress: &ProgressView, notices: &[Notice]) -> String {
        let next = match (progress.status(), progress.current()) {
            (Status::Completed, _) | (_, None) => String::new(),
            (Status::NotStarted, _) if *self.user == UserIdentity::Unknown => unknown_user_message(self.flow),
            (Status::NotStarted, _) => {
                format!("{} is not started. Call {} to show its first step.", self.name(), self.show())
            }
            (Status::InProgress, Some(index)) => {
                let title = single_line(&progress.version.steps()[index].content.title);
                let (position, total) = (index + 1, progress.version.step_count());
                format!("The current step is {position} of {total}, \"{title}\". Call {} to show it.", self.show())
            }
        };
        join([self.notices(notices), next, keep_handle(self.user).to_owned()])
    }

    /// `message` of a reset.
    #[must_use]
    pub fn reset_message(&self) -> String {
        let next = format!("Call {} to start it again, or list_walkthroughs to see all.", self.show());
        join([self.notice(&Notice::Reset), next, keep_handle(self.user).to_owned()])
    }
}

/// How to use the fields that this step has, by their names in the structured content.
fn use_of_fields(content: &StepContent) -> String {
    let has = |field: &Option<String>| field.as_ref().is_some_and(|text| !text.is_empty());
    let uses = [
        (has(&content.introduction_for_agent), "introduction_for_agent: say it first"),
        (has(&content.context_for_agent), "context_for_agent: for you only"),
        (has(&content.operations_for_agent), "operations_for_agent: do these"),
    ];
    let uses: Vec<&str> = uses.into_iter().filter_map(|(is_there, text)| is_there.then_some(text)).collect();
    if uses.is_empty() { String::new() } else { format!("Of step, {}; content: show as written.", uses.join("; ")) }
}

/// A walkthrough that `message` of a list can name.
#[derive(Debug, Clone, Copy)]
pub struct WalkthroughChoice<'a> {
    /// The walkthrough.
    pub walkthrough_id: &'a WalkthroughId,
    /// Its title.
    pub title: &'a str,
    /// The user's status in it.
    pub status: Status,
}

/// `message` of a list that is not empty.
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
    let resume = started
        .map(|choice| format!("\"{}\" is in progress: {} resumes it.", single_line(choice.title), with_id(choice)));
    let choose = match choices {
        [only] if started.is_none() => format!("To begin, call {}.", with_id(only)),
        [_] => String::new(),
        _ => format!("Ask the user which one, then call {}.", format_call(tool, &[("walkthrough_id", "its id")], user)),
    };
    let more = if has_more { "There are more: call list_walkthroughs again with cursor next_cursor." } else { "" };
    let unknown = if *user == UserIdentity::Unknown {
        "No progress_handle was given, so your user is unknown: if your notes (for example AGENTS.md or a .waypost file) \
         have one, pass it."
    } else {
        ""
    };
    join([resume.unwrap_or_default(), choose, more.to_owned(), unknown.to_owned(), keep_handle(user).to_owned()])
}

/// `message` of a search that found nothing in a server with `total` walkthroughs.
#[must_use]
pub fn no_match_message(query: &str, total: usize) -> String {
    format!("Nothing matches \"{}\". Without query there are {total}.", single_line(query))
}
