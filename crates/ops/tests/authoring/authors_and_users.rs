//! Tests that interleave edits by authors with calls by users. Moving, adding, deleting and renaming steps, publishing
//! and withdrawing never lose a completion, and every user can finish.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use waypost_content::clean;
use waypost_core::chain::StepPosition;
use waypost_core::id::{EndUserId, ServerId, StepId, VersionId, WalkthroughId};
use waypost_core::progress::operations::{ProgressContext, SelectOptions};
use waypost_core::progress::{AttemptState, Outcome, Status, VersionOffer};
use waypost_core::version::Version;
use waypost_core::walkthrough::WalkthroughState;
use waypost_core::{Error, Random};
use waypost_ops::assignments::{self, AssignmentPatch};
use waypost_ops::walkthroughs::draft::{delete_step, move_step, patch_step};
use waypost_ops::walkthroughs::publish::{publish, withdraw};
use waypost_ops::walkthroughs::trash::purge;
use waypost_ops::walkthroughs::{WalkthroughPatch, delete, update};
use waypost_store::progress::{NewEndUser, ProgressKey, list_attempts, list_completions};
use waypost_store::writer::{Decision, ProgressCall, Writer};
use waypost_store::{on, version};

use crate::publishing::format_version;
use crate::{Fixture, content, patch_of, set_up};

/// A random event; its numbers are mapped to existing steps and versions.
#[derive(Debug, Clone)]
enum Event {
    Add(usize),
    Move(usize, usize),
    Rename(usize),
    RenameAll,
    Delete(usize),
    Publish,
    Withdraw(usize),
    Call(usize, UserCall),
}

#[derive(Debug, Clone, Copy)]
enum UserCall {
    Select {
        resume: bool,
        to_latest: bool,
    },
    Next,
    /// `next` with the step at this position in the pinned version.
    NextAt(usize),
    Complete(usize),
    Reset,
}

fn any_events() -> impl Strategy<Value = Vec<Event>> {
    let call = prop_oneof![
        2 => (prop::bool::weighted(0.8), any::<bool>()).prop_map(|(resume, to_latest)| UserCall::Select { resume, to_latest }),
        6 => Just(UserCall::Next),
        2 => (0_usize..9).prop_map(UserCall::NextAt),
        3 => (0_usize..9).prop_map(UserCall::Complete),
        1 => Just(UserCall::Reset),
    ];
    let event = prop_oneof![
        2 => (0_usize..9).prop_map(Event::Add),
        2 => (0_usize..9, 0_usize..9).prop_map(|(step, place)| Event::Move(step, place)),
        1 => (0_usize..9).prop_map(Event::Rename),
        1 => Just(Event::RenameAll),
        1 => (0_usize..9).prop_map(Event::Delete),
        3 => Just(Event::Publish),
        1 => (0_usize..9).prop_map(Event::Withdraw),
        10 => (0_usize..2, call).prop_map(|(user, call)| Event::Call(user, call)),
    ];
    prop::collection::vec(event, 1..45)
}

/// An end user and the steps completed since their last restart.
struct SimulatedUser {
    key: ProgressKey,
    is_known: bool,
    done: BTreeSet<StepId>,
}

/// A walkthrough and its simulated users.
struct Simulation<'a> {
    fixture: &'a Fixture,
    writer: Writer,
    id: WalkthroughId,
    users: Vec<SimulatedUser>,
    /// Each version as it was published, with its formatted text.
    versions: HashMap<VersionId, (Arc<Version>, String)>,
}

impl<'a> Simulation<'a> {
    async fn start(fixture: &'a Fixture, server: &ServerId, writer: Writer) -> Self {
        let title = format!("Life {}", StepId::new(&*fixture.cx.random));
        let (id, _) = fixture.create_with_steps(&title, &["A", "B", "C"]).await;
        let (cx, ops, settings) = (&fixture.cx, &fixture.ops, AssignmentPatch::default());
        assignments::assign(cx, ops, &fixture.org, server, &id, settings).await.unwrap();
        let user = || SimulatedUser {
            key: ProgressKey {
                organization_id: fixture.org.clone(),
                end_user_id: EndUserId::new(fixture.cx.now(), &*fixture.cx.random),
                server_id: server.clone(),
                walkthrough_id: id.clone(),
            },
            is_known: false,
            done: BTreeSet::new(),
        };
        let users = vec![user(), user()];
        let mut simulation = Self { fixture, writer, id, users, versions: HashMap::new() };
        simulation.apply(&Event::Publish).await;
        simulation
    }

    async fn apply(&mut self, event: &Event) {
        let fixture = self.fixture;
        let (cx, ops, at) = (&fixture.cx, &fixture.ops, fixture.target(&self.id));
        let steps = fixture.get_draft(&self.id).await.steps;
        let step = |n: usize| steps.get(n % steps.len().max(1)).map(|step| step.id.clone());
        fixture.clock.advance(1_000);
        match *event {
            Event::Add(n) => {
                let added = fixture.add_step(&self.id, &format!("Step {n}")).await.step.id;
                if let Some(before) = step(n) {
                    move_step(cx, ops, at, &added, &StepPosition::After(before)).await.unwrap();
                }
            }
            Event::Move(n, to) => {
                let Some((moved, before)) = step(n).zip(step(to)) else { return };
                let place = if moved == before { StepPosition::First } else { StepPosition::After(before) };
                move_step(cx, ops, at, &moved, &place).await.unwrap();
            }
            Event::Rename(n) => {
                let Some(id) = step(n) else { return };
                let change = patch_of(content(&format!("Renamed at {}", cx.now())));
                patch_step(cx, ops, at, &id, change).await.unwrap();
            }
            Event::RenameAll => {
                let title = Some(format!("Renamed {} at {}", self.id, cx.now()));
                update(cx, ops, at, WalkthroughPatch { title, ..WalkthroughPatch::default() }).await.unwrap();
            }
            Event::Delete(n) => {
                let Some(id) = step(n) else { return };
                delete_step(cx, ops, at, &id).await.unwrap();
            }
            Event::Publish => {
                let published = publish(cx, ops, at, false).await;
                assert_eq!(published.is_err(), steps.is_empty());
                let Ok(published) = published else { return };
                let version = Arc::new(self.load_version(&published.version_id).await);
                let text = format_version(&version);
                self.versions.entry(published.version_id).or_insert((version, text));
            }
            Event::Withdraw(n) => {
                let number = u32::try_from(n % self.versions.len().max(1) + 1).unwrap();
                // Rejected if there is no version with this number or it is already withdrawn.
                let _ = withdraw(cx, ops, at, number, "It was wrong.").await;
            }
            Event::Call(user, call) => self.call(user, call).await,
        }
        self.assert_invariants().await;
    }

    async fn load_version(&self, id: &VersionId) -> Version {
        let mut conn = self.fixture.ops.store().read().await.unwrap();
        clean::version(version::find_with_steps(&mut conn, &self.fixture.org, id).await.unwrap().unwrap())
    }

    /// Returns the offered version and the reasons of withdrawn versions, or `None` if nothing is published.
    async fn load_current_offer(&self) -> Option<(Arc<Version>, HashMap<VersionId, String>)> {
        let mut conn = self.fixture.ops.store().snapshot().await.unwrap();
        let head = waypost_store::walkthrough::find(&mut conn, &self.fixture.org, &self.id).await.unwrap().unwrap();
        let listed = version::list(&mut conn, &self.fixture.org, &self.id).await.unwrap();
        let newest = listed.iter().find(|version| version.withdrawal.is_none()).map(|version| version.id.clone());
        assert_eq!(head.current_version_id, newest, "the current version is the newest that is not withdrawn");
        assert!(head.state != WalkthroughState::Published || newest.is_some());
        if head.state != WalkthroughState::Published {
            return None;
        }
        let reasons = listed.into_iter().filter_map(|version| Some((version.id, version.withdrawal?.reason)));
        Some((Arc::clone(&self.versions[&newest?].0), reasons.collect()))
    }

    async fn call(&mut self, user: usize, call: UserCall) {
        let Some((latest, reasons)) = self.load_current_offer().await else { return };
        let decided = self.send(user, call, latest, reasons).await;
        let Decision::Done(outcome) = decided else {
            assert!(matches!(decided, Decision::Rejected(_)), "all versions are loaded");
            return;
        };
        let user = &mut self.users[user];
        user.is_known |= !outcome.change.is_empty();
        let is_restart = matches!(call, UserCall::Select { resume: false, .. } | UserCall::Reset);
        if is_restart {
            user.done.clear();
        }
        user.done.extend(outcome.completed_step_id.clone());
    }

    async fn send(
        &self,
        user: usize,
        call: UserCall,
        latest: Arc<Version>,
        reasons: HashMap<VersionId, String>,
    ) -> Decision {
        let user = &self.users[user];
        let versions: HashMap<_, _> =
            self.versions.iter().map(|(id, (version, _))| (id.clone(), Arc::clone(version))).collect();
        let (now, random): (_, Arc<dyn Random>) = (self.fixture.cx.now(), Arc::clone(&self.fixture.cx.random));
        let new_end_user = (!user.is_known).then(|| NewEndUser {
            id: user.key.end_user_id.clone(),
            organization_id: user.key.organization_id.clone(),
            tracking_id: None,
            claimed_email: None,
            is_test: false,
            created_at: now,
        });
        let call = ProgressCall {
            key: user.key.clone(),
            new_end_user,
            new_session: None,
            client_name: None,
            tool_call: None,
            deliveries: None,
            decide: Box::new(move |attempt| {
                let pinned = attempt.map(|attempt| (attempt, &versions[&attempt.version_id]));
                let withdrawal = attempt.and_then(|attempt| reasons.get(&attempt.version_id).cloned());
                let offered = VersionOffer { latest: Arc::clone(&latest), withdrawal };
                let context = ProgressContext { attempt: pinned, offered: &offered, now, random: &*random };
                let version = pinned.map_or(&latest, |(_, version)| version);
                match decide_call(&context, version, call) {
                    Ok(outcome) => Decision::Done(Box::new(outcome)),
                    Err(rejected) => Decision::Rejected(rejected),
                }
            }),
            now,
        };
        self.writer.call(call).await.unwrap()
    }

    /// Asserts the invariants that hold after every event.
    async fn assert_invariants(&self) {
        for (id, (_, frozen)) in &self.versions {
            assert_eq!(&format_version(&self.load_version(id).await), frozen, "a version never changes");
        }
        let mut conn = self.fixture.ops.store().read().await.unwrap();
        for user in &self.users {
            let attempts = list_attempts(&mut conn, &user.key).await.unwrap();
            let Some(attempt) = attempts.iter().find(|attempt| attempt.closed_at.is_none()) else {
                assert!(user.done.is_empty(), "without an attempt, no steps are completed");
                continue;
            };
            let rows = list_completions(&mut conn, &self.fixture.org, &attempt.id).await.unwrap();
            let rows: BTreeSet<_> = rows.into_iter().map(|(step, _)| step).collect();
            assert_eq!(rows, user.done, "no completion is lost or added");
            let version = &self.versions[&attempt.version_id].0;
            let done = |step: &waypost_core::version::VersionStep| attempt.completed.contains(step.ordinal);
            for step in version.steps() {
                assert_eq!(done(step), user.done.contains(&step.id), "{} of the pinned version", step.id);
            }
            let all = version.steps().iter().all(done);
            assert_eq!(
                all,
                matches!(attempt.state, AttemptState::Completed { .. }),
                "the attempt is completed when all steps are"
            );
        }
    }

    /// Asserts that every user can finish with the version that is offered at the end.
    async fn assert_all_users_can_finish(&mut self) {
        if self.load_current_offer().await.is_none() {
            if self.fixture.get_draft(&self.id).await.steps.is_empty() {
                self.fixture.add_step(&self.id, "Last").await;
            }
            self.apply(&Event::Publish).await;
        }
        for user in 0..self.users.len() {
            self.call(user, UserCall::Select { resume: true, to_latest: false }).await;
            self.assert_invariants().await;
            let mut calls = 0;
            while self.status(user).await != Status::Completed {
                self.call(user, UserCall::Next).await;
                calls += 1;
                assert!(calls <= 60, "a user cannot finish");
            }
            self.assert_invariants().await;
        }
    }

    async fn status(&self, user: usize) -> Status {
        let mut conn = self.fixture.ops.store().read().await.unwrap();
        let attempts = list_attempts(&mut conn, &self.users[user].key).await.unwrap();
        match attempts.iter().find(|attempt| attempt.closed_at.is_none()).map(|attempt| attempt.state) {
            None => Status::NotStarted,
            Some(AttemptState::InProgress) => Status::InProgress,
            Some(AttemptState::Completed { .. }) => Status::Completed,
        }
    }
}

fn decide_call(context: &ProgressContext<'_>, version: &Version, call: UserCall) -> Result<Outcome, Error> {
    let step = |n: usize| version.steps()[n % version.step_count()].id.clone();
    match call {
        UserCall::Select { resume, to_latest } => context.select(SelectOptions { resume, to_latest, confirmed: true }),
        UserCall::Next => context.advance(None),
        UserCall::NextAt(n) => context.advance(Some(&step(n))),
        UserCall::Complete(n) => context.complete(&step(n)),
        UserCall::Reset => context.reset(),
    }
}

async fn no_completion_is_lost_and_every_user_can_finish(fixture: Fixture) {
    let server = fixture.create_server("life").await;
    let (writer, _tasks) = Writer::start(fixture.ops.store().clone(), Arc::clone(&fixture.cx.random));
    let mut runner = TestRunner::new(Config { cases: 8, failure_persistence: None, ..Config::default() });
    let handle = tokio::runtime::Handle::current();
    let result = runner.run(&any_events(), |events| {
        tokio::task::block_in_place(|| {
            handle.block_on(async {
                let mut simulation = Simulation::start(&fixture, &server, writer.clone()).await;
                for event in &events {
                    simulation.apply(event).await;
                }
                simulation.assert_all_users_can_finish().await;
            });
        });
        Ok(())
    });
    result.unwrap();
}

/// Purging deletes versions, assignments and all progress of the walkthrough, and nothing else.
async fn purging_deletes_all_related_rows(fixture: Fixture) {
    let server = fixture.create_server("life").await;
    let (writer, _tasks) = Writer::start(fixture.ops.store().clone(), Arc::clone(&fixture.cx.random));
    let mut simulation = Simulation::start(&fixture, &server, writer.clone()).await;
    let mut other = Simulation::start(&fixture, &server, writer).await;
    for simulation in [&mut simulation, &mut other] {
        simulation.call(0, UserCall::Next).await;
        for call in [UserCall::Select { resume: true, to_latest: false }, UserCall::Next, UserCall::Complete(2)] {
            simulation.call(0, call).await;
        }
        simulation.apply(&Event::Add(0)).await;
        simulation.apply(&Event::Publish).await;
    }
    let counts = |counted: &'static [&'static str]| {
        let db = fixture.ops.store().clone();
        async move {
            let mut conn = db.read().await.unwrap();
            let mut counts = Vec::new();
            for table in counted {
                let sql = format!("SELECT count(*) FROM {table}");
                let count: i64 =
                    on!(&mut conn, c => sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(c).await.unwrap());
                counts.push(count);
            }
            counts
        }
    };
    const TABLES: &[&str] =
        &["walkthroughs", "steps", "versions", "version_steps", "assignments", "progress", "step_completions"];
    let before = counts(TABLES).await;
    delete(&fixture.cx, &fixture.ops, fixture.target(&simulation.id)).await.unwrap();
    assert_eq!(counts(TABLES).await, before, "moving to the trash deletes no rows");
    purge(&fixture.cx, &fixture.ops, &fixture.org, &simulation.id).await.unwrap();
    let after = counts(TABLES).await;
    assert_eq!(after, before.iter().map(|count| count / 2).collect::<Vec<_>>(), "{TABLES:?}");
    assert!(after.iter().all(|count| *count > 0));
    other.assert_invariants().await;
    assert_eq!(other.status(0).await, Status::InProgress);
}

waypost_testkit::both!(extended set_up =>
    no_completion_is_lost_and_every_user_can_finish,
    purging_deletes_all_related_rows,
);
