//! `waypost call`: the gateway's call log.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;
use waypost_core::call::{Call, CallOutcome, ContentText};
use waypost_core::id::{AgentId, InstanceId, OrganizationId};
use waypost_core::{Clock, Error, SystemClock, Timestamp};
use waypost_ops::calls::{self, CallDetail, ListCalls, MAX_PAGE};

use super::audit::parse_time;
use super::grant::find_instance;
use super::session::{Session, not_found_message, one_of};
use super::user::Org;
use super::{App, agent, output};

/// The interval between two requests with `--follow`.
const INTERVAL: Duration = Duration::from_secs(1);
/// The maximum delay in milliseconds with which a call appears in the log: replicas write in batches, and their clocks
/// differ.
const OVERLAP_MS: i64 = 10_000;
/// The JSON members of a call.
pub(super) const MEMBERS: &[&str] = &[
    "id",
    "at",
    "agent_id",
    "instance_id",
    "method",
    "tool",
    "outcome",
    "duration_ms",
    "upstream_ms",
    "request_bytes",
    "response_bytes",
    "argument_shape",
];

/// Subcommands of `waypost call`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List the calls of agents through the gateway, newest first.
    List {
        #[command(flatten)]
        options: ListOptions,
        #[command(flatten)]
        org: Org,
    },
    /// Show a call, with its arguments and its result if they were recorded. Reading them is recorded in the audit log.
    Show {
        /// ID of the call.
        call: String,
        #[command(flatten)]
        org: Org,
    },
}

/// The calls to list.
#[derive(Debug, clap::Args)]
pub struct ListOptions {
    /// Only calls of this agent (name or ID).
    #[arg(long)]
    pub(super) agent: Option<String>,
    /// Only calls of this instance (slug, name or ID).
    #[arg(long)]
    pub(super) instance: Option<String>,
    /// Only calls of the tool, prompt or resource with this original name.
    #[arg(long)]
    pub(super) tool: Option<String>,
    /// Only calls with this outcome.
    #[arg(long, value_parser = one_of(CallOutcome::ALL, CallOutcome::as_str))]
    pub(super) outcome: Option<CallOutcome>,
    /// Only calls that ended at or after this time (RFC 3339).
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(super) since: Option<Timestamp>,
    /// Only calls that ended before this time (RFC 3339).
    #[arg(long, value_name = "TIME", value_parser = parse_time, conflicts_with = "follow")]
    pub(super) until: Option<Timestamp>,
    /// Maximum number of calls; with `--follow`, of those that have already ended.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) limit: u32,
    /// Print calls as they end, oldest first, until the command is interrupted.
    #[arg(short, long)]
    pub(super) follow: bool,
}

impl Command {
    /// Returns the organisation given by `--org`.
    pub(super) fn organization(&self) -> Option<&str> {
        let (Self::List { org, .. } | Self::Show { org, .. }) = self;
        org.org.as_deref()
    }
}

/// Runs the command.
///
/// # Errors
/// If the operation is rejected.
pub async fn run(app: &App, session: &Session, command: Command) -> anyhow::Result<()> {
    let Session { cx, ops, json, .. } = session;
    let organization = session.organization(command.organization()).await?.id;
    let options = match command {
        Command::List { options, .. } => options,
        Command::Show { call, .. } => {
            let id = call.parse().map_err(|_| Error::not_found("call"));
            // Opens the sealed contents.
            let ops = session.connected_ops(app)?;
            let found = async { calls::get(cx, &ops, &organization, &id?).await }.await;
            let found = found.map_err(|error| not_found_message(error, "call", &call, "call"))?;
            return print_detail(*json, detail_to_json(&found));
        }
    };
    let filter = find_targets(session, &organization, &options).await?;
    let fetch = async |page: PageRequest| {
        let query = ListCalls { since: page.since, limit: page.limit, cursor: page.cursor, ..filter.clone() };
        let found = calls::list(cx, ops, &organization, &query).await?;
        Ok((found.items.iter().map(to_json).collect(), found.next_cursor))
    };
    print_calls(*json, &options, fetch).await
}

/// Returns the filter for the given options. The IDs of deleted agents and instances are accepted, because the log
/// outlives them.
async fn find_targets(
    session: &Session,
    organization: &OrganizationId,
    options: &ListOptions,
) -> anyhow::Result<ListCalls> {
    let agent_id = match options.agent.as_deref().map(|text| (text, text.parse::<AgentId>())) {
        None => None,
        Some((_, Ok(id))) => Some(id),
        Some((name, Err(_))) => Some(agent::find(session, organization, name).await?.agent.id),
    };
    let instance_id = match options.instance.as_deref().map(|text| (text, text.parse::<InstanceId>())) {
        None => None,
        Some((_, Ok(id))) => Some(id),
        Some((name, Err(_))) => Some(find_instance(session, organization, name).await?),
    };
    let (tool, outcome, until) = (options.tool.clone(), options.outcome, options.until);
    Ok(ListCalls { agent_id, instance_id, tool, outcome, until, ..ListCalls::default() })
}

fn to_json(call: &Call) -> Value {
    json!({
        "id": call.id,
        "at": call.at.rfc3339(),
        "agent_id": call.agent_id,
        "instance_id": call.instance_id,
        "method": call.method,
        "tool": call.tool,
        "outcome": call.outcome,
        "duration_ms": call.duration_ms,
        "upstream_ms": call.upstream_ms,
        "request_bytes": call.request_bytes,
        "response_bytes": call.response_bytes,
        "argument_shape": serde_json::from_str::<Value>(&call.argument_shape).unwrap_or_default(),
    })
}

/// Returns a call with its contents, with the same members as in the API.
fn detail_to_json(detail: &CallDetail) -> Value {
    let text = |text: &Option<ContentText>| {
        text.as_ref().map(|text| json!({ "text": text.text, "truncated": text.is_truncated }))
    };
    let contents = detail.contents.as_ref().map(|contents| {
        json!({
            "arguments": text(&contents.arguments),
            "result": text(&contents.result),
            "error": text(&contents.error),
        })
    });
    let mut call = to_json(&detail.call);
    call["contents"] = contents.unwrap_or_default();
    call
}

/// Prints a call with its contents.
///
/// # Errors
/// If standard output is closed.
pub(super) fn print_detail(json: bool, mut detail: Value) -> anyhow::Result<()> {
    if json {
        return output::json(&detail);
    }
    let contents = detail["contents"].take();
    if let Some(members) = detail.as_object_mut() {
        members.remove("contents");
        for name in ["arguments", "result", "error"] {
            let part = &contents[name];
            let end = if part["truncated"] == true { "… (truncated)" } else { "" };
            let text = part["text"].as_str().map(|text| format!("{text}{end}"));
            // Without contents, the lines are omitted: an empty line would mean that nothing was sent.
            if !contents.is_null() {
                members.insert(name.to_owned(), json!(text));
            }
        }
    }
    output::object(false, &detail)
}

/// A request for a page of calls, newest first.
#[derive(Debug, Clone, Default)]
pub(super) struct PageRequest {
    pub(super) since: Option<Timestamp>,
    pub(super) cursor: Option<String>,
    pub(super) limit: u32,
}

/// Prints the calls. With `--follow`, continues to print new calls until an error occurs. `fetch` returns a page and
/// the cursor of the next one.
///
/// # Errors
/// Any error of `fetch`; if standard output is closed.
pub(super) async fn print_calls(
    json: bool,
    options: &ListOptions,
    fetch: impl AsyncFn(PageRequest) -> anyhow::Result<(Vec<Value>, Option<String>)>,
) -> anyhow::Result<()> {
    let found = collect(&fetch, options.since, options.limit).await?;
    if !options.follow {
        let columns = &["at", "outcome", "tool", "duration_ms", "agent_id", "instance_id", "argument_shape"];
        return output::list(json, columns, found);
    }
    let mut printed = PrintedCalls::new(SystemClock.now(), options.limit);
    let mut found = printed.add(found);
    loop {
        for call in found.iter().rev() {
            output::text(&line(json, call))?;
        }
        sleep(INTERVAL).await;
        found = printed.add(collect(&fetch, Some(printed.since), u32::MAX).await?);
    }
}

/// Reads pages until `limit` calls have been read, or there are no more.
async fn collect(
    fetch: &impl AsyncFn(PageRequest) -> anyhow::Result<(Vec<Value>, Option<String>)>,
    since: Option<Timestamp>,
    limit: u32,
) -> anyhow::Result<Vec<Value>> {
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let missing = limit.saturating_sub(u32::try_from(found.len()).unwrap_or(u32::MAX));
        let (items, next) = fetch(PageRequest { since, cursor, limit: missing.min(MAX_PAGE) }).await?;
        let is_last = items.is_empty() || next.is_none();
        found.extend(items);
        if is_last || found.len() >= limit as usize {
            return Ok(found);
        }
        cursor = next;
    }
}

/// The calls that `--follow` has printed. Calls can be added to the log a few seconds late, so those of the last ten seconds
/// are read again.
#[derive(Debug)]
struct PrintedCalls {
    /// The time from which the log is read again.
    since: Timestamp,
    /// The printed calls since then.
    ids: HashSet<String>,
    /// The limit of the first request. `None` after it.
    limit: Option<u32>,
    /// The oldest call that was printed, if the first request did not return all earlier calls.
    first: Option<String>,
}

impl PrintedCalls {
    fn new(now: Timestamp, limit: u32) -> Self {
        Self { since: now.plus(-OVERLAP_MS), ids: HashSet::new(), limit: Some(limit), first: None }
    }

    /// Adds all calls since [`Self::since`], newest first, and returns those that were not printed.
    fn add(&mut self, mut calls: Vec<Value>) -> Vec<Value> {
        let id = |call: &Value| call["id"].as_str().unwrap_or_default().to_owned();
        if self.limit.take().is_some_and(|limit| calls.len() >= limit as usize) {
            self.first = calls.last().map(id);
        }
        let newest = calls.first().and_then(|call| Timestamp::from_rfc3339(call["at"].as_str()?));
        self.since = self.since.max(newest.unwrap_or(self.since).plus(-OVERLAP_MS));
        let ids = calls.iter().map(id).collect();
        calls
            .retain(|call| !self.ids.contains(&id(call)) && self.first.as_ref().is_none_or(|first| id(call) >= *first));
        self.ids = ids;
        calls
    }
}

/// Formats a call on one line.
fn line(json: bool, call: &Value) -> String {
    if json {
        return format!("{call}\n");
    }
    let text = |name: &str| output::clean(call[name].as_str().unwrap_or("-"));
    format!(
        "{} {:<10} {:>6} ms {} {} {} {}\n",
        text("at"),
        text("outcome"),
        call["duration_ms"].as_i64().unwrap_or_default(),
        text("agent_id"),
        text("instance_id"),
        text("tool"),
        output::clean(&call["argument_shape"].to_string())
    )
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// A call with an ID that sorts by its time.
    fn call(at: i64) -> Value {
        json!({ "id": format!("cal_{at:06}"), "at": Timestamp(at).rfc3339() })
    }

    fn times(calls: &[Value]) -> Vec<i64> {
        calls.iter().map(|call| call["id"].as_str().unwrap()[4..].parse().unwrap()).collect()
    }

    #[test]
    fn a_call_is_printed_once_even_if_it_is_added_late() {
        let mut printed = PrintedCalls::new(Timestamp(0), 9);
        let listed = |times: &[i64]| times.iter().map(|at| call(*at)).collect::<Vec<_>>();
        assert_eq!(times(&printed.add(listed(&[20_000, 10_000]))), [20_000, 10_000]);
        assert_eq!(printed.since, Timestamp(10_000));
        assert_eq!(times(&printed.add(listed(&[20_001, 20_000, 15_000, 10_000]))), [20_001, 15_000]);
        assert_eq!(printed.since, Timestamp(10_001));
        assert_eq!(times(&printed.add(listed(&[20_001, 20_000, 15_000]))), Vec::<i64>::new());
        assert_eq!((printed.ids.len(), printed.since), (3, Timestamp(10_001)));
    }

    #[test]
    fn calls_beyond_the_limit_are_not_printed_later() {
        let mut printed = PrintedCalls::new(Timestamp(0), 1);
        assert_eq!(times(&printed.add(vec![call(5)])), [5]);
        assert_eq!(times(&printed.add(vec![call(6), call(5), call(4)])), [6]);
    }

    #[tokio::test]
    async fn pages_are_read_up_to_the_limit() {
        let requests = RefCell::new(Vec::new());
        let fetch = async |page: PageRequest| {
            requests.borrow_mut().push((page.cursor.clone(), page.limit));
            let start = page.cursor.map_or(1_000, |cursor| cursor.parse::<i64>().unwrap());
            let end = (start - i64::from(page.limit)).max(700);
            let next = (end > 700).then(|| end.to_string());
            Ok(((end..start).rev().map(call).collect(), next))
        };
        let found = collect(&fetch, None, 250).await.unwrap();
        assert_eq!(times(&found), (750..1_000).rev().collect::<Vec<_>>());
        assert_eq!(requests.take(), [(None, 200), (Some("800".to_owned()), 50)]);
        assert_eq!(collect(&fetch, None, u32::MAX).await.unwrap().len(), 300, "the list ends");
    }

    #[test]
    fn a_line_has_no_control_characters() {
        let call = json!({ "at": "T", "outcome": "denied", "duration_ms": 3, "agent_id": "agt_1", "instance_id": null,
            "tool": "a\u{1b}[2J", "argument_shape": { "q": "string" } });
        assert_eq!(line(false, &call), "T denied          3 ms agt_1 - a\u{fffd}[2J {\"q\":\"string\"}\n");
        assert_eq!(line(true, &call), format!("{call}\n"));
    }
}
