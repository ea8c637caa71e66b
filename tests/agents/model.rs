//! The scripted model (`e2e/agents/model`), which plays a plan and records what it was shown.

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
    /// Where it listens.
    pub origin: String,
}

/// The calls of a model.
pub struct Plan {
    steps: Vec<Value>,
    end: &'static str,
    descriptions: Value,
}

impl Plan {
    /// A plan without calls; the model stops with a text after the last one.
    pub fn new() -> Self {
        Self { steps: Vec::new(), end: "stop", descriptions: json!({}) }
    }

    /// Adds a call. Values that start with `$` refer to what the model was shown (`e2e/agents/model/plan.mjs`).
    pub fn call(self, tool: &str, arguments: Value) -> Self {
        self.call_times(1, tool, arguments)
    }

    /// Adds the same call several times.
    pub fn call_times(mut self, times: usize, tool: &str, arguments: Value) -> Self {
        self.steps.push(json!({ "tool": tool, "arguments": arguments, "times": times }));
        self
    }

    /// Lets the model find tools by their descriptions if it does not find them by their names.
    pub fn describe(mut self, tools: &[(String, String)]) -> Self {
        self.descriptions = tools.iter().map(|(name, description)| (name.clone(), json!(description))).collect();
        self
    }

    /// Lets the model never answer after the last call.
    pub fn hang(mut self) -> Self {
        self.end = "hang";
        self
    }
}

/// A request that the model received, with the tools of the server in it.
pub struct Request(Value);

impl Request {
    /// Everything that the model was told beside tools and results.
    pub fn system(&self) -> &str {
        self.0["system"].as_str().expect("it is recorded")
    }

    /// The description of a tool as the model was shown it.
    pub fn description(&self, tool: &str) -> &str {
        let tools = self.0["tools"].as_array().expect("they are recorded");
        let found = tools.iter().find(|it| it["name"].as_str().is_some_and(|name| name.ends_with(tool)));
        found.and_then(|it| it["description"].as_str()).unwrap_or_default()
    }

    /// The tool results that the model was shown so far.
    pub fn results(&self) -> Vec<ToolResult<'_>> {
        self.0["results"].as_array().expect("they are recorded").iter().map(ToolResult).collect()
    }

    /// Whether the model was streaming its answer.
    pub fn is_streamed(&self) -> bool {
        self.0["stream"] == true
    }
}

/// A tool result as the model was shown it.
#[derive(Clone, Copy)]
pub struct ToolResult<'a>(&'a Value);

impl<'a> ToolResult<'a> {
    /// All of it as text.
    pub fn text(self) -> &'a str {
        self.0["text"].as_str().expect("it is recorded")
    }

    /// The structured content of a step result, if the model was shown it.
    pub fn structured(self) -> Option<&'a Value> {
        Some(&self.0["structured"]).filter(|it| it.is_object())
    }

    /// The text block of a step result, if the model was shown it.
    pub fn block(self) -> Option<&'a str> {
        self.0["block"].as_str()
    }

    /// The ID of the current step that it names.
    pub fn step(self) -> Option<&'a str> {
        self.0["step"].as_str()
    }

    /// The progress handle that it names.
    pub fn handle(self) -> Option<&'a str> {
        self.0["handle"].as_str()
    }

    /// Whether the model can see that the walkthrough is completed.
    pub fn is_completed(self) -> bool {
        let structured = self.structured().is_some_and(|it| it["progress"]["status"] == "completed");
        structured || self.block().is_some_and(|it| it.contains("(100 %)"))
    }
}

impl Model {
    /// Starts a model with a plan; its files are `NAME.json` and `NAME.jsonl` in `folder`.
    pub async fn start(within: &Path, name: &str, plan: Plan) -> Self {
        let file = within.join(format!("{name}.json"));
        let log = within.join(format!("{name}.jsonl"));
        let plan = json!({ "steps": plan.steps, "end": plan.end, "descriptions": plan.descriptions });
        std::fs::write(&file, plan.to_string())
            .and_then(|()| std::fs::write(&log, ""))
            .expect("the folder takes files");
        let mut command = Command::new(node_program());
        command.arg(agents_folder().join("model/main.mjs")).arg(&file).arg(&log);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("Node starts");
        let lines = BufReader::new(child.stdout.take().expect("its output is a pipe")).lines();
        let mut model = Self { _child: child, lines, log, origin: String::new() };
        model.origin = model.line("listening on ").await;
        model
    }

    /// Waits until an agent asks for more than the plan has.
    pub async fn wait_until_held(&mut self) {
        self.line("held").await;
    }

    async fn line(&mut self, start: &str) -> String {
        let line = timeout(2 * TIMEOUT, self.lines.next_line()).await;
        let line = line.unwrap_or_else(|_| panic!("the model waits for requests:\n{}", self.text()));
        let line = line.expect("its output is text").unwrap_or_default();
        let Some(rest) = line.strip_prefix(start) else { panic!("the model says {line:?}:\n{}", self.text()) };
        rest.to_owned()
    }

    /// The requests that had the server's tools.
    pub fn requests(&self) -> Vec<Request> {
        let lines = self.text();
        let values = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("the log is JSON"));
        let with_tools = values.filter(|it| {
            let tools = it["tools"].as_array().into_iter().flatten();
            let texts = tools.flat_map(|tool| [tool["name"].as_str(), tool["description"].as_str()]);
            texts.flatten().any(|text| text.contains("walkthrough"))
        });
        with_tools.map(Request).collect()
    }

    /// Its log.
    pub fn text(&self) -> String {
        std::fs::read_to_string(&self.log).expect("the model has a log")
    }
}
