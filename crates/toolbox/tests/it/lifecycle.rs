//! Connecting, reconnecting, keys and the desired state.

use std::time::Duration;

use tokio::time::Instant;
use waypost_toolbox::control::Control;
use waypost_toolbox::identity::Identity;
use waypost_toolbox::link::Status;
use waypost_toolbox_proto::desired::DesiredState;

use crate::control_plane::{ControlPlane, Cut};
use crate::machine::{Machine, event};

#[tokio::test(start_paused = true)]
async fn heartbeats_are_sent_at_once_and_every_minute() {
    let control = ControlPlane::new();
    let start = Instant::now();
    let machine = Machine::online(&control).await;
    control.store.wait_until(|store| store.heartbeats.len() == 1).await;
    assert!(start.elapsed() < Duration::from_secs(1));
    control.store.wait_until(|store| store.heartbeats.len() == 4).await;
    assert_eq!(start.elapsed().as_secs(), 180);
    assert_eq!(control.store.state().heartbeats[1..], [1, 1, 1], "the revision of the desired state");
    machine.link.stop().await;
}

#[tokio::test(start_paused = true)]
async fn reconnects_with_pauses_of_at_most_half_a_minute() {
    let control = ControlPlane::new();
    control.set_down(true);
    let machine = Machine::new(&control);
    let start = Instant::now();
    machine.start(&control);
    tokio::time::sleep(Duration::from_secs(600)).await;
    let attempts = control.connections();
    assert!((24..50).contains(&attempts), "{attempts} attempts in ten minutes");
    control.set_down(false);
    machine.wait_for(&Status::Online).await;
    assert!(start.elapsed() <= Duration::from_secs(631));
    // A link that is lost after a long time is opened again at once.
    tokio::time::sleep(Duration::from_secs(120)).await;
    let lost = Instant::now();
    control.links.close(&ControlPlane::toolbox());
    machine.wait_for(&Status::Connecting).await;
    machine.wait_for(&Status::Online).await;
    assert!(lost.elapsed() <= Duration::from_millis(501), "{:?}", lost.elapsed());
    machine.link.stop().await;
    assert!(!control.links.is_connected(&ControlPlane::toolbox()));
}

#[tokio::test(start_paused = true)]
async fn a_rejected_key_is_tried_again_every_five_minutes() {
    let control = ControlPlane::new();
    let machine = Machine::new(&control);
    let public_key = std::mem::take(&mut control.store.state().public_key);
    machine.start(&control);
    machine.link.status().wait_for(|status| matches!(status, Status::Unauthorized(_))).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3_590)).await;
    let attempts = control.connections();
    assert!((12..=13).contains(&attempts), "{attempts} attempts in an hour");
    control.store.state().public_key = public_key;
    machine.wait_for(&Status::Online).await;
    machine.link.stop().await;
}

#[tokio::test(start_paused = true)]
async fn two_machines_with_one_identity_do_not_flood_the_control_plane() {
    let control = ControlPlane::new();
    let first = Machine::new(&control);
    let second = Machine::new(&control);
    std::fs::copy(first.folder.path().join("identity.json"), second.folder.path().join("identity.json")).unwrap();
    control.store.state().public_key = {
        let identity = Identity::load(first.folder.path()).unwrap();
        identity.public_key().to_owned()
    };
    let second = second.restart().await;
    first.start(&control);
    second.start(&control);
    tokio::time::sleep(Duration::from_secs(600)).await;
    let connections = control.connections();
    assert!((10..150).contains(&connections), "{connections} connections in ten minutes");
    first.link.stop().await;
    second.link.stop().await;
}

#[tokio::test]
async fn the_desired_state_is_stored_and_older_ones_are_ignored() {
    let control = ControlPlane::new();
    let machine = Machine::new(&control);
    assert_eq!(*machine.link.desired().borrow(), None, "not a state without instances");
    machine.start(&control);
    let mut desired = machine.link.desired();
    let state = |revision| DesiredState { revision, instances: vec![] };
    desired.wait_for(|current| *current == Some(state(1))).await.unwrap();
    let change = |revision| {
        control.store.state().desired = Some(state(revision));
        control.links.notify_desired(&ControlPlane::toolbox());
    };
    change(5);
    desired.wait_for(|current| *current == Some(state(5))).await.unwrap();
    change(4);
    // When the answer arrives, the older state has been received as well.
    machine.link.secrets("ins_1", 1, None).await;
    assert_eq!(*desired.borrow(), Some(state(5)));
    let machine = machine.restart().await;
    assert_eq!(*machine.link.desired().borrow(), Some(state(5)), "known without a link");
}

#[tokio::test(start_paused = true)]
async fn the_key_is_rotated() {
    let control = ControlPlane::new();
    let machine = Machine::online(&control).await;
    let old = control.store.state().public_key.clone();
    let start = Instant::now();
    control.links.rotate_key(&ControlPlane::toolbox()).unwrap();
    control.store.wait_until(|store| store.accepted == 2).await;
    machine.wait_for(&Status::Online).await;
    assert!(start.elapsed() < Duration::from_millis(500), "reconnects at once");
    assert_ne!(control.store.state().public_key, old);
    let machine = machine.restart().await;
    let identity = Identity::load(machine.folder.path()).unwrap();
    assert!(!identity.is_rotating());
    assert_eq!(identity.public_key(), control.store.state().public_key);
    machine.start(&control);
    machine.wait_for(&Status::Online).await;
    machine.link.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_rotation_whose_answer_is_lost_is_finished() {
    for is_restarted in [false, true] {
        let control = ControlPlane::new();
        let mut machine = Machine::online(&control).await;
        control.store.state().lose_next_welcome = true;
        control.links.rotate_key(&ControlPlane::toolbox()).unwrap();
        control.store.wait_until(|store| store.accepted == 2).await;
        if is_restarted {
            machine = machine.restart().await;
            machine.start(&control);
        }
        control.store.wait_until(|store| store.accepted == 3).await;
        machine.wait_for(&Status::Online).await;
        assert_eq!(control.store.state().rejected, 1, "the current key was tried first");
        let identity = Identity::load(machine.folder.path()).unwrap();
        assert_eq!(identity.public_key(), control.store.state().public_key);
        assert!(!identity.is_rotating());
        machine.link.stop().await;
    }
}

#[tokio::test]
async fn secrets_reach_the_requests_that_asked_for_them() {
    let control = ControlPlane::new();
    let machine = Machine::new(&control);
    let waiting =
        futures::future::join_all((0..100).map(|i| machine.link.secrets(["ins_a", "ins_b"][i % 2], i as u64, None)));
    machine.start(&control);
    for (i, secrets) in waiting.await.into_iter().enumerate() {
        assert_eq!(secrets.unwrap().values["TOKEN"], format!("{}/{i}", ["ins_a", "ins_b"][i % 2]));
    }
    assert_eq!(machine.link.secrets("ins_unknown", 1, None).await, None);
    machine.link.stop().await;
}

#[tokio::test(start_paused = true)]
async fn secrets_are_requested_again_after_the_link_was_lost() {
    let control = ControlPlane::new();
    let machine = Machine::new(&control);
    // The handshake needs about 900 bytes.
    control.cut((0..8).map(|i| Cut::FromDaemon(800 + 50 * i)).collect());
    machine.start(&control);
    assert!(machine.link.secrets("ins_a", 1, None).await.is_some());
    machine.link.stop().await;
}

#[tokio::test]
async fn events_wait_for_the_link_and_survive_a_restart() {
    let control = ControlPlane::new();
    control.set_down(true);
    let machine = Machine::new(&control);
    machine.start(&control);
    machine.link.report(event(1));
    let machine = machine.restart().await;
    control.set_down(false);
    machine.link.report(event(2));
    machine.start(&control);
    control.store.wait_until(|store| store.events.len() == 2).await;
    let events: Vec<_> = control.store.state().events.iter().map(|(_, event)| event.clone()).collect();
    assert_eq!(events, [event(1), event(2)]);
    machine.link.stop().await;
}
