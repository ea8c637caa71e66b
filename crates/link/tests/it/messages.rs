//! The control stream.

use std::time::Duration;

use waypost_toolbox_proto::desired::DesiredState;
use waypost_toolbox_proto::message::{Capacity, ControlMessage, DaemonMessage, Heartbeat, ToolboxEvent};

use crate::Control;

fn event(sequence: u64) -> DaemonMessage {
    DaemonMessage::Event { sequence, at: 0, event: ToolboxEvent::Removed { instance_id: "ins_1".into() } }
}

fn heartbeat() -> DaemonMessage {
    DaemonMessage::Heartbeat(Heartbeat {
        version: "1".into(),
        engine: None,
        capacity: Capacity { cpus: 1.0, memory_bytes: 1, disk_free_bytes: 1 },
        desired_revision: 0,
        instances: vec![],
    })
}

fn desired(revision: u64) -> ControlMessage {
    ControlMessage::Desired { state: DesiredState { revision, instances: vec![] } }
}

#[tokio::test]
async fn the_desired_state_is_sent_at_once_and_after_every_change() {
    let control = Control::new();
    let (mut daemon, _) = control.link().await;
    assert_eq!(daemon.receive().await, desired(1));
    for revision in 2..5 {
        control.directory.state().desired = Some(DesiredState { revision, instances: vec![] });
        control.links.notify_desired(&Control::toolbox());
        assert_eq!(daemon.receive().await, desired(revision));
    }
}

#[tokio::test]
async fn messages_are_stored_and_answered_in_order() {
    let control = Control::new();
    let (mut daemon, _) = control.link().await;
    daemon.receive().await;
    let request = DaemonMessage::SecretRequest { request: 7, instance_id: "ins_1".into(), generation: 1, key: None };
    let messages = [heartbeat(), event(1), request, event(2)];
    for message in &messages {
        daemon.send(message).await;
    }
    assert_eq!(daemon.receive().await, ControlMessage::Acknowledge { sequence: 1 });
    assert_eq!(daemon.receive().await, ControlMessage::Secrets { request: 7, secrets: None });
    assert_eq!(daemon.receive().await, ControlMessage::Acknowledge { sequence: 2 });
    assert_eq!(control.directory.wait_for(4).await, messages);
}

/// The link does not know which instances a toolbox has: the directory ignores messages about instances of other
/// toolboxes.
#[tokio::test]
async fn messages_about_other_instances_are_passed_on() {
    let control = Control::new();
    let (mut daemon, _) = control.link().await;
    let foreign = ToolboxEvent::Removed { instance_id: "ins_of_another_toolbox".into() };
    let message = DaemonMessage::Event { sequence: 1, at: 0, event: foreign };
    daemon.send(&message).await;
    assert_eq!(control.directory.wait_for(1).await, [message]);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_cannot_be_stored_is_retried_and_later_ones_wait() {
    let control = Control::new();
    let (mut daemon, _) = control.link().await;
    daemon.receive().await;
    control.directory.state().remaining_failures = 5;
    daemon.send(&event(1)).await;
    daemon.send(&event(2)).await;
    assert_eq!(control.directory.wait_for(2).await, [event(1), event(2)]);
    assert_eq!(control.directory.state().remaining_failures, 0);
    control.directory.state().remaining_failures = 1;
    daemon.send(&heartbeat()).await;
    daemon.send(&event(3)).await;
    assert_eq!(control.directory.wait_for(3).await[2], event(3), "a heartbeat is not repeated");
}

#[tokio::test(start_paused = true)]
async fn the_desired_state_is_sent_after_the_store_has_failed() {
    let control = Control::new();
    let (mut daemon, _) = control.link().await;
    daemon.receive().await;
    control.directory.state().remaining_failures = 3;
    control.links.notify_desired(&Control::toolbox());
    assert_eq!(daemon.receive().await, desired(1));
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_does_not_read_its_answers_is_no_longer_read() {
    let control = Control::new();
    let (mut daemon, _) = control.link().await;
    let flood = async {
        for sequence in 1.. {
            daemon.send(&event(sequence)).await;
        }
    };
    // The paused clock advances only when all tasks are idle.
    let flood = tokio::time::timeout(Duration::from_secs(1), flood).await;
    assert!(flood.is_err());
    let stored = control.directory.state().received.len();
    for sequence in 0..stored as u64 {
        let message = daemon.receive().await;
        assert_eq!(message, if sequence == 0 { desired(1) } else { ControlMessage::Acknowledge { sequence } });
    }
    assert!(control.directory.wait_for(stored + 1).await.len() > stored, "reading continues");
}

#[tokio::test]
async fn an_invalid_message_closes_the_link() {
    let control = Control::new();
    let (mut daemon, accepted) = control.link().await;
    daemon.receive().await;
    daemon.writer.send_line("{\"type\":\"shell\"}\n".into()).await.unwrap();
    accepted.await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_message_that_is_too_long_closes_the_link() {
    let control = Control::new();
    let (mut daemon, accepted) = control.link().await;
    daemon.receive().await;
    // The link may be closed before the rest is sent.
    let _ = daemon.writer.send_line(vec![b' '; 5 * 1024 * 1024].into()).await;
    accepted.await.unwrap().unwrap().unwrap();
}
