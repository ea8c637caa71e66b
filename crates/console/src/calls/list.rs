//! The page of the call log, and its rows, which are polled.

use std::fmt::Display;
use std::str::FromStr;

use askama::Template;
use axum::extract::{Query, State};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use url::form_urlencoded::Serializer;
use waypost_core::analytics::DAY_MS;
use waypost_core::call::{CallOutcome, MAX_TOOL};
use waypost_core::id::CallId;
use waypost_core::{Error, Result};
use waypost_ops::calls::{self, CallPage, ListCalls};

use super::rows::{CallRows, Names, label};
use crate::Console;
use crate::form::parse_day;
use crate::layout::{CurrentOrganization, Layout};
use crate::live;
use crate::session::Member;
use crate::view::{self, FormError, PageError, PageResult};

/// The number of calls per page.
const LIMIT: u32 = 50;

/// The filter, as query parameters.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct CallQuery {
    agent: String,
    instance: String,
    tool: String,
    outcome: String,
    from: String,
    to: String,
    /// The cursor of an earlier page.
    before: String,
    /// `off` if the page does not follow new calls.
    live: String,
}

/// Parses a selected value. Returns `None` if it is empty.
fn selected<T: FromStr>(field: &str, text: &str, noun: &str) -> Result<Option<T>> {
    let parsed = (!text.is_empty()).then(|| text.parse());
    parsed.transpose().map_err(|_| Error::invalid(field, format!("Select one of the {noun}.")))
}

impl CallQuery {
    fn parse(&self) -> Result<ListCalls> {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Ok(ListCalls {
            agent_id: selected("agent", &self.agent, "agents")?,
            instance_id: selected("instance", &self.instance, "instances")?,
            tool: text(self.tool.trim()),
            outcome: selected("outcome", &self.outcome, "outcomes")?,
            since: parse_day("from", &self.from)?,
            // The last day is included.
            until: parse_day("to", &self.to)?.map(|time| time.plus(DAY_MS)),
            limit: LIMIT,
            cursor: text(&self.before),
        })
    }

    fn filter(&self) -> [(&'static str, &str); 6] {
        [
            ("agent", &self.agent),
            ("instance", &self.instance),
            ("tool", &self.tool),
            ("outcome", &self.outcome),
            ("from", &self.from),
            ("to", &self.to),
        ]
    }

    /// Returns the filter as a query string with one additional pair.
    fn query(&self, name: &str, value: &str) -> String {
        let pairs = self.filter().into_iter().chain([(name, value)]);
        Serializer::new(String::new()).extend_pairs(pairs.filter(|(_, value)| !value.is_empty())).finish()
    }

    fn is_empty(&self) -> bool {
        self.filter().into_iter().all(|(_, value)| value.is_empty())
    }
}

fn with_query(path: String, query: &str) -> String {
    if query.is_empty() { path } else { format!("{path}?{query}") }
}

/// Returns the options of a filter: values and labels. A selected value that no longer exists is added as deleted.
fn options(
    all: &'static str,
    known: impl Iterator<Item = (impl Display, String)>,
    value: &str,
) -> Vec<(String, String)> {
    let mut options = vec![(String::new(), all.to_owned())];
    options.extend(known.map(|(value, label)| (value.to_string(), label)));
    if options.iter().all(|(known, _)| known != value) {
        options.push((value.to_owned(), format!("deleted ({value})")));
    }
    options
}

#[derive(Template)]
#[template(path = "calls/list.html")]
struct CallsPage {
    layout: Layout,
    org: CurrentOrganization,
    form_error: FormError,
    fields: CallQuery,
    agents: Vec<(String, String)>,
    instances: Vec<(String, String)>,
    outcomes: Vec<(String, String)>,
    rows: CallRows,
    older: Option<String>,
    max_tool: usize,
}

impl CallsPage {
    /// Returns the path of this page with the filter and one additional pair.
    fn path(&self, name: &str, value: &str) -> String {
        with_query(self.org.path("calls"), &self.fields.query(name, value))
    }

    fn rows_path(&self) -> String {
        with_query(self.org.path("calls/rows"), &self.fields.query("", ""))
    }

    fn is_first_page(&self) -> bool {
        self.fields.before.is_empty()
    }

    /// Whether new calls appear on the page.
    fn is_live(&self) -> bool {
        self.is_first_page() && self.fields.live != "off" && self.form_error.message.is_empty()
    }
}

async fn find(console: &Console, member: &Member, fields: &CallQuery) -> Result<CallPage> {
    calls::list(&member.cx, console.ops(), &member.organization_id, &fields.parse()?).await
}

pub(super) fn page_error(member: &Member) -> impl Fn(Error) -> PageError + use<> {
    let layout = member.layout.clone().with_section("calls");
    move |error| PageError::from(error).with_layout(layout.clone())
}

pub(super) async fn show(
    State(console): State<Console>,
    member: Member,
    Query(mut fields): Query<CallQuery>,
) -> PageResult {
    // With a malformed cursor, the page starts at the newest call.
    if fields.before.parse::<CallId>().is_err() {
        fields.before.clear();
    }
    let Member { cx, organization_id, org, layout } = &member;
    let (status, form_error, page) = match find(&console, &member, &fields).await {
        Ok(page) => (StatusCode::OK, FormError::default(), page),
        Err(error) => {
            let (status, form_error) = FormError::from_error(error).map_err(page_error(&member))?;
            (status, form_error, CallPage { items: Vec::new(), next_cursor: None })
        }
    };
    let names = Names::load(cx, &console, organization_id).await.map_err(page_error(&member))?;
    let older = page.next_cursor.map(|cursor| format!("{}?{}", org.path("calls"), fields.query("before", &cursor)));
    let outcomes = CallOutcome::ALL.iter().map(|outcome| (outcome.as_str(), label(*outcome).to_owned()));
    let page = CallsPage {
        layout: layout.clone().with_section("calls"),
        org: org.clone(),
        form_error,
        agents: options("All", names.agents.iter().map(|(id, name)| (id, name.clone())), &fields.agent),
        instances: options("All", names.instances.iter().map(|(id, slug)| (id, slug.clone())), &fields.instance),
        outcomes: options("All", outcomes, &fields.outcome),
        rows: CallRows::new(org, &names, page.items),
        older,
        max_tool: MAX_TOOL,
        fields,
    };
    Ok(view::html(status, &page))
}

/// Renders the newest calls that match the filter.
pub(super) async fn rows(
    State(console): State<Console>,
    member: Member,
    Query(fields): Query<CallQuery>,
    headers: HeaderMap,
) -> PageResult {
    let rows = async {
        let page = find(&console, &member, &CallQuery { before: String::new(), ..fields }).await?;
        let names = Names::load(&member.cx, &console, &member.organization_id).await?;
        Ok(CallRows::new(&member.org, &names, page.items))
    };
    Ok(live::fragment(&headers, &rows.await.map_err(page_error(&member))?))
}
