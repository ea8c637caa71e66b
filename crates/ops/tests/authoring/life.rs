//! Authors and users at the same time: reordering, inserting, deleting, renaming, publishing and withdrawing never lose a
//! completion nor strand a user.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use waypost_core::chain::StepPosition;
use waypost_core::id::{EndUserId, ServerId, StepId, VersionId, WalkthroughId};
use waypost_core::progress::operations::{ProgressContext, SelectOptions};
use waypost_core::progress::{AttemptState, Outcome, Status, VersionOffer};
use waypost_core::version::Version;
use waypost_core::walkthrough::WalkthroughState;
use waypost_core::{Error, Random};
use waypost_ops::assignments::{self, AssignmentPatch};
use waypost_ops::walkthroughs::draft::{StepUpdate, delete_step, move_step, update_step};
use waypost_ops::walkthroughs::publish::{publish, withdraw};
use waypost_ops::walkthroughs::trash::purge;
use waypost_ops::walkthroughs::{WalkthroughPatch, delete, update};
use waypost_store::progress::{NewEndUser, ProgressKey, list_attempts, list_completions};
use waypost_store::writer::{Decision, ProgressCall, Writer};
use waypost_store::{on, version};

use crate::publishing::text;
use crate::{World, content, open};

/// What can happen, with raw numbers that are mapped onto what is there.
#[derive(Debug, Clone)]
enum Event {
    Add(usize),
    Move(usize, usize),
    Rename(usize),
    RenameAll,
    Delete(usize),
    Publish,
    Withdraw(usize),
    Call(usize, Ask),
}

#[derive(Debug, Clone, Copy)]
enum Ask {
    Select {
        resume: bool,
        to_latest: bool,
    },
    Next,
    /// `next` with the step at this place of the pinned version.
    NextAt(usize),
    Complete(usize),
    Reset,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let ask = prop_oneof![
        2 => (prop::bool::weighted(0.8), any::<bool>()).prop_map(|(resume, to_latest)| Ask::Select { resume, to_latest }),
        6 => Just(Ask::Next),
        2 => (0_usize..9).prop_map(Ask::NextAt),
        3 => (0_usize..9).prop_map(Ask::Complete),
        1 => Just(Ask::Reset),
    ];
    let event = prop_oneof![
        2 => (0_usize..9).prop_map(Event::Add),
        2 => (0_usize..9, 0_usize..9).prop_map(|(step, place)| Event::Move(step, place)),
        1 => (0_usize..9).prop_map(Event::Rename),
        1 => Just(Event::RenameAll),
        1 => (0_usize..9).prop_map(Event::Delete),
        3 => Just(Event::Publish),
        1 => (0_usize..9).prop_map(Event::Withdraw),
        10 => (0_usize..2, ask).prop_map(|(user, ask)| Event::Call(user, ask)),
    ];
    prop::collection::vec(event, 1..45)
}

/// An end user, and what they have completed since they last began from nothing.
struct User {
    key: ProgressKey,
    is_known: bool,
    done: BTreeSet<StepId>,
}

/// One walkthrough with its users.
struct Life<'a> {
    world: &'a World,
    writer: Writer,
    id: WalkthroughId,
    users: Vec<User>,
    /// Every version as it was when it was published.
    versions: HashMap<VersionId, (Arc<Version>, String)>,
}

impl<'a> Life<'a> {
    async fn begin(world: &'a World, server: &ServerId, writer: Writer) -> Self {
        let title = format!("Life {}", StepId::new(&*world.cx.random));
        let (id, _) = world.with_steps(&title, &["A", "B", "C"]).await;
        let on = (server, &id);
        assignments::assign(&world.cx, &world.ops, &world.org, on, AssignmentPatch::default()).await.unwrap();
        let user = || User {
            key: ProgressKey {
                organization_id: world.org.clone(),
                end_user_id: EndUserId::new(world.cx.now(), &*world.cx.random),
                server_id: server.clone(),
                walkthrough_id: id.clone(),
            },
            is_known: false,
            done: BTreeSet::new(),
        };
        let users = vec![user(), user()];
        let mut life = Self { world, writer, id, users, versions: HashMap::new() };
        life.happen(&Event::Publish).await;
        life
    }

    async fn happen(&mut self, event: &Event) {
        let world = self.world;
        let (cx, ops, at) = (&world.cx, &world.ops, world.target(&self.id));
        let steps = world.get_draft(&self.id).await.steps;
        let step = |n: usize| steps.get(n % steps.len().max(1)).map(|step| step.id.clone());
        world.clock.advance(1_000);
        match *event {
            Event::Add(n) => {
                let added = world.add(&self.id, &format!("Step {n}")).await.step.id;
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
                let change = StepUpdate { content: Some(content(&format!("Renamed at {}", cx.now()))), key: None };
                update_step(cx, ops, at, &id, change).await.unwrap();
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
                let version = Arc::new(self.load(&published.version_id).await);
                let text = text(&version);
                self.versions.entry(published.version_id).or_insert((version, text));
            }
            Event::Withdraw(n) => {
                let number = u32::try_from(n % self.versions.len().max(1) + 1).unwrap();
                // Refused when there is none of this number, or it was withdrawn before.
                let _ = withdraw(cx, ops, at, number, "It was wrong.").await;
            }
            Event::Call(user, ask) => self.call(user, ask).await,
        }
        self.check().await;
    }

    async fn load(&self, id: &VersionId) -> Version {
        let mut conn = self.world.ops.db().read().await.unwrap();
        version::find_with_steps(&mut conn, &self.world.org, id).await.unwrap().unwrap()
    }

    /// What is offered, with the reasons of withdrawn versions; none while nothing is.
    async fn offered(&self) -> Option<(Arc<Version>, HashMap<VersionId, String>)> {
        let mut conn = self.world.ops.db().snapshot().await.unwrap();
        let head = waypost_store::walkthrough::find(&mut conn, &self.world.org, &self.id).await.unwrap().unwrap();
        let listed = version::list(&mut conn, &self.world.org, &self.id).await.unwrap();
        let newest = listed.iter().find(|version| version.withdrawal.is_none()).map(|version| version.id.clone());
        assert_eq!(head.current_version_id, newest, "the head names the newest version that is not withdrawn");
        assert!(head.state != WalkthroughState::Published || newest.is_some());
        if head.state != WalkthroughState::Published {
            return None;
        }
        let reasons = listed.into_iter().filter_map(|version| Some((version.id, version.withdrawal?.reason)));
        Some((Arc::clone(&self.versions[&newest?].0), reasons.collect()))
    }

    async fn call(&mut self, user: usize, ask: Ask) {
        let Some(offered) = self.offered().await else { return };
        let decided = self.send(user, ask, offered).await;
        let Decision::Done(outcome) = decided else {
            assert!(matches!(decided, Decision::Rejected(_)), "every version is in memory");
            return;
        };
        let user = &mut self.users[user];
        user.is_known |= !outcome.change.is_empty();
        let begins_anew = matches!(ask, Ask::Select { resume: false, .. } | Ask::Reset);
        if begins_anew {
            user.done.clear();
        }
        user.done.extend(outcome.completed_step_id.clone());
    }

    async fn send(
        &self,
        user: usize,
        ask: Ask,
        (latest, reasons): (Arc<Version>, HashMap<VersionId, String>),
    ) -> Decision {
        let user = &self.users[user];
        let versions: HashMap<_, _> =
            self.versions.iter().map(|(id, (version, _))| (id.clone(), Arc::clone(version))).collect();
        let (now, random): (_, Arc<dyn Random>) = (self.world.cx.now(), Arc::clone(&self.world.cx.random));
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
                let view = ProgressContext { attempt: pinned, offered: &offered, now, random: &*random };
                let seen = pinned.map_or(&latest, |(_, version)| version);
                match answer(&view, seen, ask) {
                    Ok(outcome) => Decision::Done(Box::new(outcome)),
                    Err(refused) => Decision::Rejected(refused),
                }
            }),
            now,
        };
        self.writer.call(call).await.unwrap()
    }

    /// What must hold after whatever happened.
    async fn check(&self) {
        for (id, (_, frozen)) in &self.versions {
            assert_eq!(&text(&self.load(id).await), frozen, "a version never changes");
        }
        let mut conn = self.world.ops.db().read().await.unwrap();
        for user in &self.users {
            let attempts = list_attempts(&mut conn, &user.key).await.unwrap();
            let Some(attempt) = attempts.iter().find(|attempt| attempt.closed_at.is_none()) else {
                assert!(user.done.is_empty(), "without an attempt nothing is done");
                continue;
            };
            let rows = list_completions(&mut conn, &self.world.org, &attempt.id).await.unwrap();
            let rows: BTreeSet<_> = rows.into_iter().map(|(step, _)| step).collect();
            assert_eq!(rows, user.done, "no completion is lost and none is invented");
            let version = &self.versions[&attempt.version_id].0;
            let done = |step: &waypost_core::version::VersionStep| attempt.completed.contains(step.ordinal);
            for step in version.steps() {
                assert_eq!(done(step), user.done.contains(&step.id), "{} of the pinned version", step.id);
            }
            let all = version.steps().iter().all(done);
            assert_eq!(all, matches!(attempt.state, AttemptState::Completed { .. }), "completed when all is done");
        }
    }

    /// Whoever goes on with what is offered at the end, comes to an end.
    async fn nobody_is_stranded(&mut self) {
        if self.offered().await.is_none() {
            if self.world.get_draft(&self.id).await.steps.is_empty() {
                self.world.add(&self.id, "Last").await;
            }
            self.happen(&Event::Publish).await;
        }
        for user in 0..self.users.len() {
            self.call(user, Ask::Select { resume: true, to_latest: false }).await;
            self.check().await;
            let mut calls = 0;
            while self.status(user).await != Status::Completed {
                self.call(user, Ask::Next).await;
                calls += 1;
                assert!(calls <= 60, "a user does not come to an end");
            }
            self.check().await;
        }
    }

    async fn status(&self, user: usize) -> Status {
        let mut conn = self.world.ops.db().read().await.unwrap();
        let attempts = list_attempts(&mut conn, &self.users[user].key).await.unwrap();
        match attempts.iter().find(|attempt| attempt.closed_at.is_none()).map(|attempt| attempt.state) {
            None => Status::NotStarted,
            Some(AttemptState::InProgress) => Status::InProgress,
            Some(AttemptState::Completed { .. }) => Status::Completed,
        }
    }
}

fn answer(view: &ProgressContext<'_>, seen: &Version, ask: Ask) -> Result<Outcome, Error> {
    let step = |n: usize| seen.steps()[n % seen.step_count()].id.clone();
    match ask {
        Ask::Select { resume, to_latest } => view.select(SelectOptions { resume, to_latest, confirmed: true }),
        Ask::Next => view.advance(None),
        Ask::NextAt(n) => view.advance(Some(&step(n))),
        Ask::Complete(n) => view.complete(&step(n)),
        Ask::Reset => view.reset(),
    }
}

async fn no_completion_is_lost_and_nobody_stranded(world: World) {
    let server = world.server("life").await;
    let (writer, _tasks) = Writer::start(world.ops.db().clone(), Arc::clone(&world.cx.random));
    let mut runner = TestRunner::new(Config { cases: 8, failure_persistence: None, ..Config::default() });
    let handle = tokio::runtime::Handle::current();
    let result = runner.run(&events(), |events| {
        tokio::task::block_in_place(|| {
            handle.block_on(async {
                let mut life = Life::begin(&world, &server, writer.clone()).await;
                for event in &events {
                    life.happen(event).await;
                }
                life.nobody_is_stranded().await;
            });
        });
        Ok(())
    });
    result.unwrap();
}

/// Deleting takes versions, assignments and everybody's progress along, and nothing else.
async fn deleting_takes_everything_along(world: World) {
    let server = world.server("life").await;
    let (writer, _tasks) = Writer::start(world.ops.db().clone(), Arc::clone(&world.cx.random));
    let mut life = Life::begin(&world, &server, writer.clone()).await;
    let mut other = Life::begin(&world, &server, writer).await;
    for life in [&mut life, &mut other] {
        life.call(0, Ask::Next).await;
        for ask in [Ask::Select { resume: true, to_latest: false }, Ask::Next, Ask::Complete(2)] {
            life.call(0, ask).await;
        }
        life.happen(&Event::Add(0)).await;
        life.happen(&Event::Publish).await;
    }
    let counts = |counted: &'static [&'static str]| {
        let db = world.ops.db().clone();
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
    delete(&world.cx, &world.ops, world.target(&life.id)).await.unwrap();
    assert_eq!(counts(TABLES).await, before, "the trash keeps everything");
    purge(&world.cx, &world.ops, &world.org, &life.id).await.unwrap();
    let after = counts(TABLES).await;
    assert_eq!(after, before.iter().map(|count| count / 2).collect::<Vec<_>>(), "{TABLES:?}");
    assert!(after.iter().all(|count| *count > 0));
    other.check().await;
    assert_eq!(other.status(0).await, Status::InProgress);
}

waypost_testkit::both!(open =>
    no_completion_is_lost_and_nobody_stranded,
    deleting_takes_everything_along,
);
