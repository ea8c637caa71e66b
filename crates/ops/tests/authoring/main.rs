//! Tests of the operations for authors, on both databases.

#![expect(clippy::disallowed_methods, reason = "the tests spawn tasks")]

mod authors_and_users;
mod cost;
mod drafts;
mod previews;
mod publishing;
mod revisions;
mod transfer;
mod trash;
mod walkthroughs;

use std::sync::Arc;

use waypost_core::caller::{Caller, Ctx};
use waypost_core::chain::StepPosition;
use waypost_core::clock::{ManualClock, Timestamp};
use waypost_core::id::{OrganizationId, ServerId, StepId, WalkthroughId};
use waypost_core::organization::Role;
use waypost_core::random::SystemRandom;
use waypost_core::step::StepContent;
use waypost_core::walkthrough::{Walkthrough, WalkthroughFields, WalkthroughType};
use waypost_ops::walkthroughs::draft::{NewStep, StepEdit, StepPatch, add_step};
use waypost_ops::walkthroughs::publish::publish;
use waypost_ops::walkthroughs::{Draft, EditTarget, NewWalkthrough, create, get_draft};
use waypost_ops::{Ops, organizations, servers};
use waypost_store::{Db, migrate};

/// Two organisations and a caller with all permissions.
pub(crate) struct Fixture {
    pub(crate) ops: Ops,
    pub(crate) cx: Ctx,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) org: OrganizationId,
    pub(crate) other: OrganizationId,
}

/// Sets up the fixture in the database at `url`.
pub(crate) async fn set_up(url: &str) -> Fixture {
    let db = Db::open(url).await.unwrap();
    migrate::migrate(&db).await.unwrap();
    let ops = Ops::new(db);
    let clock = Arc::new(ManualClock::new(Timestamp(1_795_000_000_000)));
    let cx = Ctx { clock: clock.clone(), random: Arc::new(SystemRandom), ..Ctx::operator() };
    let org = organizations::create(&cx, &ops, "acme", None).await.unwrap().id;
    let other = organizations::create(&cx, &ops, "other", None).await.unwrap().id;
    Fixture { ops, cx, clock, org, other }
}

impl Fixture {
    pub(crate) fn target<'a>(&'a self, id: &'a WalkthroughId) -> EditTarget<'a> {
        EditTarget { organization_id: &self.org, walkthrough_id: id, revision: None }
    }

    pub(crate) fn target_at<'a>(&'a self, id: &'a WalkthroughId, revision: u32) -> EditTarget<'a> {
        EditTarget { revision: Some(revision), ..self.target(id) }
    }

    pub(crate) async fn create(&self, title: &str) -> Walkthrough {
        let new = NewWalkthrough { fields: fields(title), slug: None };
        create(&self.cx, &self.ops, &self.org, new).await.unwrap()
    }

    pub(crate) async fn add_step(&self, id: &WalkthroughId, title: &str) -> StepEdit {
        let new = NewStep { key: None, content: content(title), position: StepPosition::Last };
        add_step(&self.cx, &self.ops, self.target(id), new).await.unwrap()
    }

    /// Creates a walkthrough with steps.
    pub(crate) async fn create_with_steps(&self, title: &str, steps: &[&str]) -> (WalkthroughId, Vec<StepId>) {
        let id = self.create(title).await.id;
        let mut ids = Vec::new();
        for step in steps {
            ids.push(self.add_step(&id, step).await.step.id);
        }
        (id, ids)
    }

    pub(crate) async fn get_draft(&self, id: &WalkthroughId) -> Draft {
        get_draft(&self.cx, &self.ops, &self.org, id).await.unwrap()
    }

    pub(crate) async fn list_titles(&self, id: &WalkthroughId) -> Vec<String> {
        self.get_draft(id).await.steps.into_iter().map(|step| step.content.title).collect()
    }

    pub(crate) async fn publish(&self, id: &WalkthroughId) -> u32 {
        publish(&self.cx, &self.ops, self.target(id), false).await.unwrap().number
    }

    pub(crate) async fn create_server(&self, slug: &str) -> ServerId {
        let settings = servers::ServerSettings::default();
        servers::create(&self.cx, &self.ops, &self.org, slug, &settings).await.unwrap().id
    }

    pub(crate) async fn config_version(&self) -> i64 {
        self.ops.store().read().await.unwrap().config_version().await.unwrap().version
    }

    /// Returns the actions in the organisation's audit log, sorted by name because the order within a millisecond is
    /// not defined.
    pub(crate) async fn list_audit_actions(&self) -> Vec<String> {
        let mut conn = self.ops.store().read().await.unwrap();
        let events = waypost_store::audit::list(&mut conn, &self.org, None, 1_000).await.unwrap();
        let mut actions: Vec<_> = events.into_iter().map(|event| event.act).collect();
        actions.sort();
        actions
    }

    /// Returns the context of a member of `organization`.
    pub(crate) fn member_context(&self, organization: &OrganizationId) -> Ctx {
        let organization_id = organization.clone();
        self.cx.with_caller(Caller::Member { organization_id, role: Role::Member, actor: "usr_test".to_owned() })
    }
}

pub(crate) fn fields(title: &str) -> WalkthroughFields {
    WalkthroughFields {
        title: title.to_owned(),
        description: String::new(),
        kind: WalkthroughType::Course,
        estimated_duration_minutes: None,
        tags: Vec::new(),
        metadata: serde_json::Map::new(),
    }
}

pub(crate) fn content(title: &str) -> StepContent {
    StepContent { title: title.to_owned(), content: format!("Do {title}."), ..StepContent::default() }
}

/// Returns a patch that replaces the whole content of a step.
fn patch_of(content: StepContent) -> StepPatch {
    StepPatch {
        key: None,
        title: Some(content.title),
        section_title: Some(content.section_title),
        content: Some(content.content),
        introduction_for_agent: Some(content.introduction_for_agent),
        context_for_agent: Some(content.context_for_agent),
        operations_for_agent: Some(content.operations_for_agent),
        metadata: Some(content.metadata),
    }
}
