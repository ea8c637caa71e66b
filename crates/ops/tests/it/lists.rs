//! `list_walkthroughs` computes progress without reading any step.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use waypost_core::progress::Status;
use waypost_core::progress::operations::SelectOptions;
use waypost_ops::identity::Credentials;
use waypost_ops::progress::{self, PlayRequest};
use waypost_ops::walkthroughs::{EditTarget, publish};

use crate::hosted::{Hosted, call, hosted};

waypost_testkit::both!(hosted =>
    a_list_agrees_with_the_status_after_any_history,
    a_list_reads_no_step,
);

/// Histories that are run on each database.
const HISTORIES: usize = 12;

/// Something that happens to a walkthrough or to one of its two users. Numbers are mapped onto what exists.
#[derive(Debug, Clone)]
enum Act {
    Publish(Vec<u32>),
    Withdraw(usize),
    Select { user: usize, resume: bool, to_latest: bool },
    Next { user: usize },
    Complete { user: usize, step: usize },
    Reset { user: usize },
}

fn history() -> impl Strategy<Value = Vec<Act>> {
    let publish = prop::collection::btree_set(0_u32..12, 1..6)
        .prop_flat_map(|set| Just(set.into_iter().collect::<Vec<_>>()).prop_shuffle())
        .prop_map(Act::Publish);
    let select = (0_usize..2, any::<bool>(), any::<bool>());
    let act = prop_oneof![
        2 => publish,
        2 => (0_usize..6).prop_map(Act::Withdraw),
        3 => select.prop_map(|(user, resume, to_latest)| Act::Select { user, resume, to_latest }),
        6 => (0_usize..2).prop_map(|user| Act::Next { user }),
        3 => (0_usize..2, 0_usize..12).prop_map(|(user, step)| Act::Complete { user, step }),
        1 => (0_usize..2).prop_map(|user| Act::Reset { user }),
    ];
    prop::collection::vec(act, 30)
}

fn user(number: usize) -> Credentials {
    Credentials::Tracking(format!("user-{number}"))
}

impl Hosted {
    /// Runs one act. What it refuses, such as a withdrawal of the only version, is part of the history.
    async fn run(&self, act: &Act) {
        let offers = self.offers().await;
        let (call, walkthrough) = (call(), self.walkthrough.as_str());
        let play = |number: usize| PlayRequest { offers: &offers, credentials: user(number), email: None, call: &call };
        match act {
            Act::Publish(ordinals) => {
                let titles: Vec<_> = ordinals.iter().map(|ordinal| format!("Step {ordinal}")).collect();
                self.publish(&titles.iter().map(String::as_str).collect::<Vec<_>>()).await;
            }
            Act::Withdraw(raw) => {
                let numbers = "SELECT CAST(number AS TEXT) FROM versions ORDER BY number".to_owned();
                let numbers = self.texts(numbers).await;
                let number = numbers[raw % numbers.len()].parse().unwrap();
                let target =
                    EditTarget { organization_id: &self.org, walkthrough_id: &self.walkthrough, revision: None };
                let _ = publish::withdraw(&self.cx, &self.ops, target, number, "It was wrong.").await;
            }
            Act::Select { user, resume, to_latest } => {
                let how = SelectOptions { resume: *resume, to_latest: *to_latest, confirmed: true };
                let _ = progress::select(&self.cx, &self.hosting, &play(*user), walkthrough, how).await;
            }
            Act::Next { user } => {
                let _ = progress::advance(&self.cx, &self.hosting, &play(*user), Some(walkthrough), None).await;
            }
            Act::Complete { user: number, step } => {
                let Ok(status) = self.status(&user(*number)).await else { return };
                let steps = status.progress.version.steps();
                let step = steps[step % steps.len()].id.clone();
                let _ = self.complete(&user(*number), &step).await;
            }
            Act::Reset { user } => {
                let _ = progress::reset(&self.cx, &self.hosting, &play(*user), walkthrough).await;
            }
        }
    }
}

async fn a_list_agrees_with_the_status_after_any_history(h: Hosted) {
    // The same histories in every run.
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..HISTORIES {
        let history = history().new_tree(&mut runner).unwrap().current();
        for act in &history {
            h.run(act).await;
            for number in 0..2 {
                // Nothing is offered while every version is withdrawn.
                let listed = h.list(&user(number)).await.unwrap();
                let status = h.status(&user(number)).await;
                assert_eq!(listed.len(), usize::from(status.is_ok()));
                if let Ok(status) = status {
                    let expected = (status.progress.status(), status.progress.percent());
                    assert_eq!(listed, [expected], "after {act:?} of {history:?}");
                    seen.insert(expected.0.as_str());
                }
            }
        }
    }
    assert_eq!(seen.len(), 3, "the histories reach every status: {seen:?}");
}

async fn a_list_reads_no_step(h: Hosted) {
    h.select(&user(0)).await.unwrap();
    h.advance(&user(0)).await.unwrap();
    h.publish(&["Step 0", "Step 1"]).await;
    // A list that reads steps fails without their table.
    h.execute("ALTER TABLE version_steps RENAME TO hidden".to_owned()).await;
    let fresh = h.restart();
    let offers = h.offers().await;
    let call = call();
    let play = PlayRequest { offers: &offers, credentials: user(0), email: None, call: &call };
    let listed = progress::list(&h.cx, &fresh, &play).await.unwrap();
    assert_eq!(listed.rows.iter().map(|row| (row.status, row.percent)).collect::<Vec<_>>(), [(Status::InProgress, 12)]);
    assert_eq!(h.list(&user(1)).await.unwrap(), [(Status::NotStarted, 0)]);
    h.execute("ALTER TABLE hidden RENAME TO version_steps".to_owned()).await;
}
