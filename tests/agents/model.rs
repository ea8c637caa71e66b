//! The scripted model (`e2e/agents/model`), which follows a plan and records its input.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::agent::{agents_folder, node_program};
use crate::support::TIMEOUT;

/// A scripted model, killed when it is dropped.
pub struct Model {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    log: PathBuf,
    /// The origin on which it listens.
    pub origin: String,
}

/// The tool calls that a model makes.
pub struct Plan {
    steps: Vec<Value>,
    end: &'static str,
    descriptions: Value,
}

impl Plan {
    /// Creates a plan without calls. The model ends with a text after the last call.
    pub fn new() -> Self {
        Self { steps: Vec::new(), end: "stop", descriptions: json!({}) }
    }

    /// Adds a call. Values that start with `$` refer to the model's input (`e2e/agents/model/plan.mjs`).
    pub fn call(self, tool: &str, arguments: Value) -> Self {
        self.call_times(1, tool, arguments)
    }

    /// Adds the same call several times.
    pub fn call_times(mut self, times: usize, tool: &str, arguments: Value) -> Self {
        self.steps.push(json!({ "tool": tool, "arguments": arguments, "times": times }));
        self
    }

    /// Lets the model find tools by description if no name matches.
    pub fn describe(mut self, tools: &[(String, String)]) -> Self {
        self.descriptions = tools.iter().map(|(name, description)| (name.clone(), json!(description))).collect();
        self
    }

    /// Makes the model never respond after the last call.
    pub fn hang(mut self) -> Self {
        self.end = "hang";
        self
    }
}

/// A model request that contains the server's tools.
pub struct Request(Value);

impl Request {
    /// Returns the model's input apart from tools and results.
    pub fn system(&self) -> &str {
        self.0["system"].as_str().expect("the log entry has the member")
    }

    /// Returns the description of a tool as the model received it.
    pub fn description(&self, tool: &str) -> &str {
        let tools = self.0["tools"].as_array().expect("the log entry has the member");
        let found = tools.iter().find(|candidate| candidate["name"].as_str().is_some_and(|name| name.ends_with(tool)));
        found.and_then(|tool| tool["description"].as_str()).unwrap_or_default()
    }

    /// Returns the tool results that the model has received so far.
    pub fn results(&self) -> Vec<ToolResult<'_>> {
        self.0["results"].as_array().expect("the log entry has the member").iter().map(ToolResult).collect()
    }

    /// Whether the model streamed its response.
    pub fn is_streamed(&self) -> bool {
        self.0["stream"] == true
    }
}

/// A tool result as the model received it.
#[derive(Clone, Copy)]
pub struct ToolResult<'a>(&'a Value);

impl<'a> ToolResult<'a> {
    /// Returns the whole result as text.
    pub fn text(self) -> &'a str {
        self.0["text"].as_str().expect("the log entry has the member")
    }

    /// Returns the structured content of a step result, if the model received it.
    pub fn structured(self) -> Option<&'a Value> {
        Some(&self.0["structured"]).filter(|structured| structured.is_object())
    }

    /// Returns the text block of a step result, if the model received it.
    pub fn block(self) -> Option<&'a str> {
        self.0["block"].as_str()
    }

    /// Returns the ID of the current step in the result.
    pub fn step(self) -> Option<&'a str> {
        self.0["step"].as_str()
    }

    /// Returns the progress handle in the result.
    pub fn handle(self) -> Option<&'a str> {
        self.0["handle"].as_str()
    }

    /// Whether the result shows that the walkthrough is completed.
    pub fn is_completed(self) -> bool {
        let structured = self.structured().is_some_and(|structured| structured["progress"]["status"] == "completed");
        structured || self.block().is_some_and(|block| block.contains("(100%)"))
    }
}

impl Model {
    /// Starts a model with a plan. Its files are `NAME.json` and `NAME.jsonl` in `within`.
    pub async fn start(within: &Path, name: &str, plan: Plan) -> Self {
        let file = within.join(format!("{name}.json"));
        let log = within.join(format!("{name}.jsonl"));
        let plan = json!({ "steps": plan.steps, "end": plan.end, "descriptions": plan.descriptions });
        std::fs::write(&file, plan.to_string()).and_then(|()| std::fs::write(&log, "")).expect("the file is written");
        let mut command = Command::new(node_program());
        command.arg(agents_folder().join("model/main.mjs")).arg(&file).arg(&log);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("Node.js starts");
        let lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let mut model = Self { _child: child, lines, log, origin: String::new() };
        model.origin = model.line("listening on ").await;
        model
    }

    /// Waits until the model withholds its response to a request after the last planned call.
    pub async fn wait_until_held(&mut self) {
        self.line("held").await;
    }

    async fn line(&mut self, start: &str) -> String {
        let line = timeout(2 * TIMEOUT, self.lines.next_line()).await;
        let line = line.unwrap_or_else(|_| panic!("the model prints nothing in time:\n{}", self.text()));
        let line = line.expect("the output is UTF-8").unwrap_or_default();
        let Some(rest) = line.strip_prefix(start) else { panic!("the model printed {line:?}:\n{}", self.text()) };
        rest.to_owned()
    }

    /// Returns the requests that contained the server's tools.
    pub fn requests(&self) -> Vec<Request> {
        let lines = self.text();
        let values = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("the log is JSON"));
        let with_tools = values.filter(|value| {
            let tools = value["tools"].as_array().into_iter().flatten();
            let texts = tools.flat_map(|tool| [tool["name"].as_str(), tool["description"].as_str()]);
            texts.flatten().any(|text| text.contains("walkthrough"))
        });
        with_tools.map(Request).collect()
    }

    /// Returns the model's log.
    pub fn text(&self) -> String {
        std::fs::read_to_string(&self.log).expect("the model has a log")
    }
}
