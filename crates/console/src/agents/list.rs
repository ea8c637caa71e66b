//! The list of agents.

use askama::Template;
use axum::extract::{Query, State};
use serde::Deserialize;
use url::form_urlencoded;
use waypost_core::agent::{AgentKind, AgentState};
use waypost_core::{Code, Error, Timestamp};
use waypost_ops::agents::{self, AgentView};

use crate::Console;
use crate::form::Form;
use crate::layout::{CurrentOrganization, Layout};
use crate::session::Member;
use crate::view::{self, FormError, PageError, PageResult};

/// The number of agents per page.
const LIMIT: u32 = 50;

/// The cursor of the list: the name of the last agent of the previous page.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct ListQuery {
    after: String,
}

#[derive(Template)]
#[template(path = "agents/list.html")]
struct AgentsPage {
    layout: Layout,
    org: CurrentOrganization,
    form_error: FormError,
    agents: Vec<AgentView>,
    next: Option<String>,
    is_later_page: bool,
    entered_name: String,
    now: Timestamp,
}

impl AgentsPage {
    /// Returns the number of active tokens.
    fn active_tokens(&self, view: &AgentView) -> usize {
        view.tokens.iter().filter(|token| token.is_active(self.now)).count()
    }
}

fn page_error(member: &Member) -> impl Fn(Error) -> PageError + use<> {
    let layout = member.layout.clone().with_section("agents");
    move |error| PageError::from(error).with_layout(layout.clone())
}

async fn load(console: &Console, member: &Member, after: &str) -> Result<AgentsPage, PageError> {
    let Member { cx, organization_id, org, layout } = member;
    let cursor = Some(after).filter(|name| !name.is_empty());
    let found = agents::list(cx, console.ops(), organization_id, cursor, LIMIT + 1).await;
    let mut agents = found.map_err(page_error(member))?;
    let has_more = agents.len() > LIMIT as usize;
    agents.truncate(LIMIT as usize);
    let next = agents.last().filter(|_| has_more).map(|last| {
        let query = form_urlencoded::Serializer::new(String::new()).append_pair("after", &last.agent.name).finish();
        org.path(&format!("agents?{query}"))
    });
    Ok(AgentsPage {
        layout: layout.clone().with_section("agents"),
        org: org.clone(),
        form_error: FormError::default(),
        agents,
        next,
        is_later_page: cursor.is_some(),
        entered_name: String::new(),
        now: cx.now(),
    })
}

pub(super) async fn show(State(console): State<Console>, member: Member, Query(query): Query<ListQuery>) -> PageResult {
    Ok(view::page(&load(&console, &member, &query.after).await?))
}

/// The form for a new agent.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct NewAgent {
    name: String,
}

pub(super) async fn create(
    State(console): State<Console>,
    member: Member,
    Form(NewAgent { name }): Form<NewAgent>,
) -> PageResult {
    match agents::create(&member.cx, console.ops(), &member.organization_id, &name).await {
        Ok(created) => {
            let message = "Agent created. Create a token for it, and grant it access to an instance.";
            Ok(view::redirect_with_flash(&member.org.path(&format!("agents/{}", created.agent.id)), message))
        }
        Err(error) => {
            let (status, form_error) = FormError::from_error(locate_name(error)).map_err(page_error(&member))?;
            let page = load(&console, &member, "").await?;
            Ok(view::html(status, &AgentsPage { form_error, entered_name: name, ..page }))
        }
    }
}

/// Assigns a conflict to the field `name`: the name is already taken.
pub(super) fn locate_name(error: Error) -> Error {
    if error.code == Code::Conflict { error.with("field", "name") } else { error }
}
