//! Events arrive exactly once and in order, regardless of where connections are cut.

use std::time::Duration;

use proptest::prelude::*;
use waypost_toolbox::control::Control;

use crate::control_plane::{ControlPlane, Cut};
use crate::machine::{Machine, event};

const EVENTS: u64 = 60;

async fn replay(cuts: Vec<Cut>, restarts: Vec<u64>) -> Result<(), TestCaseError> {
    let control = ControlPlane::new();
    control.cut(cuts);
    let mut machine = Machine::new(&control);
    machine.start(&control);
    for number in 1..=EVENTS {
        machine.link.report(event(number));
        // Gives the link time to send some events before the next ones.
        tokio::task::yield_now().await;
        if restarts.contains(&number) {
            machine = machine.restart().await;
            machine.start(&control);
        }
    }
    control.store.wait_until(|store| store.events.len() as u64 >= EVENTS).await;
    while machine.link.unacknowledged_events() > 0 {
        // The clock is paused: it advances when all tasks are idle.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    machine.link.stop().await;
    let state = control.store.state();
    let events: Vec<_> = state.events.iter().map(|(_, event)| event.clone()).collect();
    prop_assert_eq!(events, (1..=EVENTS).map(event).collect::<Vec<_>>());
    prop_assert!(state.events.is_sorted_by(|(a, _), (b, _)| a < b));
    Ok(())
}

fn cut() -> impl Strategy<Value = Cut> {
    prop_oneof![
        1 => (0_usize..1_000).prop_map(Cut::FromDaemon),
        4 => (800_usize..9_000).prop_map(Cut::FromDaemon),
        4 => (400_usize..2_500).prop_map(Cut::ToDaemon),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn events_arrive_once_and_in_order(
        cuts in prop::collection::vec(cut(), 0..12),
        restarts in prop::collection::vec(1..EVENTS, 0..3),
    ) {
        // The clock is paused, so the pauses before connections take no time.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(replay(cuts, restarts))?;
    }
}

#[tokio::test]
async fn more_events_than_may_wait_for_an_acknowledgement_arrive() {
    let control = ControlPlane::new();
    let machine = Machine::new(&control);
    for number in 1..=5_000 {
        machine.link.report(event(number));
    }
    machine.start(&control);
    control.store.wait_until(|store| store.events.len() == 5_000).await;
    assert_eq!(control.store.state().arrived, 5_000);
    machine.link.stop().await;
}
