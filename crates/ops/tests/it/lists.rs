//! Tests that `list_walkthroughs` computes progress without reading any step.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use waypost_core::progress::Status;
use waypost_core::progress::operations::SelectOptions;
use waypost_ops::identity::Credentials;
use waypost_ops::progress::{self, PlayRequest};
use waypost_ops::walkthroughs::{EditTarget, publish};

use crate::hosted::{HostedTest, call, hosted};

waypost_testkit::both!(extended hosted => a_list_matches_the_status_after_any_history, a_list_reads_no_step);

/// Number of histories per database.
const HISTORIES: usize = 12;

/// An event of a walkthrough or of one of its two users. Numbers are mapped to existing steps and versions.
#[derive(Debug, Clone)]
enum Event {
    Publish(Vec<u32>),
    Withdraw(usize),
    Select { user: usize, resume: bool, to_latest: bool },
    Next { user: usize },
    Complete { user: usize, step: usize },
    Reset { user: usize },
}

fn history() -> impl Strategy<Value = Vec<Event>> {
    let publish = prop::collection::btree_set(0_u32..12, 1..6)
        .prop_flat_map(|set| Just(set.into_iter().collect::<Vec<_>>()).prop_shuffle())
        .prop_map(Event::Publish);
    let select = (0_usize..2, any::<bool>(), any::<bool>());
    let event = prop_oneof![
        2 => publish,
        2 => (0_usize..6).prop_map(Event::Withdraw),
        3 => select.prop_map(|(user, resume, to_latest)| Event::Select { user, resume, to_latest }),
        6 => (0_usize..2).prop_map(|user| Event::Next { user }),
        3 => (0_usize..2, 0_usize..12).prop_map(|(user, step)| Event::Complete { user, step }),
        1 => (0_usize..2).prop_map(|user| Event::Reset { user }),
    ];
    prop::collection::vec(event, 30)
}

fn user(number: usize) -> Credentials {
    Credentials::Tracking(format!("user-{number}"))
}

impl HostedTest {
    /// Applies an event. Rejected operations, such as withdrawing a withdrawn version, are part of the history.
    async fn apply(&self, event: &Event) {
        let offers = self.offers().await;
        let (call, walkthrough) = (call(), self.walkthrough.as_str());
        let play = |number: usize| PlayRequest { offers: &offers, credentials: user(number), email: None, call: &call };
        match event {
            Event::Publish(ordinals) => {
                let titles: Vec<_> = ordinals.iter().map(|ordinal| format!("Step {ordinal}")).collect();
                self.publish(&titles.iter().map(String::as_str).collect::<Vec<_>>()).await;
            }
            Event::Withdraw(raw) => {
                let numbers = "SELECT CAST(number AS TEXT) FROM versions ORDER BY number".to_owned();
                let numbers = self.query_texts(numbers).await;
                let number = numbers[raw % numbers.len()].parse().unwrap();
                let target =
                    EditTarget { organization_id: &self.org, walkthrough_id: &self.walkthrough, revision: None };
                let _ = publish::withdraw(&self.cx, &self.ops, target, number, "It was wrong.").await;
            }
            Event::Select { user, resume, to_latest } => {
                let options = SelectOptions { resume: *resume, to_latest: *to_latest, confirmed: true };
                let _ = progress::select(&self.cx, &self.hosting, &play(*user), walkthrough, options).await;
            }
            Event::Next { user } => {
                let _ = progress::advance(&self.cx, &self.hosting, &play(*user), Some(walkthrough), None).await;
            }
            Event::Complete { user: number, step } => {
                let Ok(status) = self.status(&user(*number)).await else { return };
                let steps = status.progress.version.steps();
                let step = steps[step % steps.len()].id.clone();
                let _ = self.complete(&user(*number), &step).await;
            }
            Event::Reset { user } => {
                let _ = progress::reset(&self.cx, &self.hosting, &play(*user), walkthrough).await;
            }
        }
    }
}

async fn a_list_matches_the_status_after_any_history(hosted: HostedTest) {
    // The same histories in every run.
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..HISTORIES {
        let history = history().new_tree(&mut runner).unwrap().current();
        for event in &history {
            hosted.apply(event).await;
            for number in 0..2 {
                // Nothing is listed while all versions are withdrawn.
                let listed = hosted.list(&user(number)).await.unwrap();
                let status = hosted.status(&user(number)).await;
                assert_eq!(listed.len(), usize::from(status.is_ok()));
                if let Ok(status) = status {
                    let expected = (status.progress.status(), status.progress.percent());
                    assert_eq!(listed, [expected], "after {event:?} of {history:?}");
                    seen.insert(expected.0.as_str());
                }
            }
        }
    }
    assert_eq!(seen.len(), 3, "the histories contain every status: {seen:?}");
}

async fn a_list_reads_no_step(hosted: HostedTest) {
    hosted.select(&user(0)).await.unwrap();
    hosted.advance(&user(0)).await.unwrap();
    hosted.publish(&["Step 0", "Step 1"]).await;
    // Without the table of steps, a list that reads steps fails.
    hosted.execute("ALTER TABLE version_steps RENAME TO hidden".to_owned()).await;
    let restarted = hosted.restart();
    let offers = hosted.offers().await;
    let call = call();
    let play = PlayRequest { offers: &offers, credentials: user(0), email: None, call: &call };
    let listed = progress::list(&hosted.cx, &restarted, &play).await.unwrap();
    assert_eq!(listed.rows.iter().map(|row| (row.status, row.percent)).collect::<Vec<_>>(), [(Status::InProgress, 12)]);
    assert_eq!(hosted.list(&user(1)).await.unwrap(), [(Status::NotStarted, 0)]);
    hosted.execute("ALTER TABLE hidden RENAME TO version_steps".to_owned()).await;
}
