use std::fs;

use proptest::prelude::*;
use waypost_toolbox_proto::InstanceState;
use waypost_toolbox_proto::message::{DaemonMessage, DeploymentOutcome, InstanceReport};

use super::*;

fn state_event(instance: &str, generation: u64) -> ToolboxEvent {
    let (id, state) = (instance.to_owned(), InstanceState::Running);
    ToolboxEvent::Instance(InstanceReport { id, generation, state, health: None })
}

fn ended(instance: &str) -> ToolboxEvent {
    let (deployment_id, instance_id) = ("dep_1".to_owned(), instance.to_owned());
    ToolboxEvent::DeploymentEnded { deployment_id, instance_id, outcome: DeploymentOutcome::Complete }
}

fn open(folder: &Path) -> (Queue, QueueWriter) {
    Queue::open(folder, || 7).unwrap()
}

/// Returns the numbers and events that can be sent.
fn sendable(queue: &Queue) -> Vec<(u64, ToolboxEvent)> {
    let lines = queue.next_lines(0, usize::MAX).1;
    let events = lines.iter().map(|line| match serde_json::from_slice(line).unwrap() {
        DaemonMessage::Event { sequence, at: 7, event } => (sequence, event),
        other => panic!("{other:?}"),
    });
    events.collect()
}

fn numbers(queue: &Queue) -> Vec<u64> {
    sendable(queue).into_iter().map(|(number, _)| number).collect()
}

#[tokio::test]
async fn events_are_sent_after_they_are_on_disk_and_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (queue, mut writer) = open(folder.path());
    queue.push(state_event("ins_a", 1));
    queue.push(ended("ins_a"));
    assert_eq!(numbers(&queue), [0; 0], "not on disk yet");
    writer.write().await.unwrap();
    let expected = vec![(1, state_event("ins_a", 1)), (2, ended("ins_a"))];
    assert_eq!(sendable(&queue), expected);
    let (reopened, _) = open(folder.path());
    assert_eq!(sendable(&reopened), expected);
    queue.acknowledge(1);
    writer.write().await.unwrap();
    let (reopened, mut writer) = open(folder.path());
    assert_eq!(numbers(&reopened), [2]);
    reopened.push(ended("ins_b"));
    writer.write().await.unwrap();
    assert!(numbers(&reopened)[1] > 2, "numbers are not reused");
}

#[tokio::test]
async fn numbers_are_not_reused_after_everything_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let (queue, mut writer) = open(folder.path());
    queue.push(ended("ins_a"));
    writer.write().await.unwrap();
    queue.acknowledge(1);
    queue.state().rewrite();
    writer.write().await.unwrap();
    let (queue, mut writer) = open(folder.path());
    assert!(queue.is_empty());
    queue.push(ended("ins_b"));
    writer.write().await.unwrap();
    assert!(numbers(&queue)[0] > 1);
}

#[tokio::test]
async fn an_incomplete_last_record_is_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let (queue, mut writer) = open(folder.path());
    queue.push(ended("ins_a"));
    queue.push(ended("ins_b"));
    writer.write().await.unwrap();
    let path = folder.path().join("queue.jsonl");
    let content = fs::read(&path).unwrap();
    for removed in 1..60 {
        fs::write(&path, &content[..content.len() - removed]).unwrap();
        let (queue, mut writer) = open(folder.path());
        assert_eq!(numbers(&queue), [1], "{removed} bytes removed");
        queue.push(ended("ins_c"));
        writer.write().await.unwrap();
        let reopened = open(folder.path()).0;
        assert_eq!(numbers(&reopened).len(), 2, "{removed} bytes removed");
        assert!(numbers(&reopened)[1] > 2, "a number that may have been sent is not reused");
    }
}

#[tokio::test]
async fn a_lost_file_continues_after_the_numbers_of_the_control_plane() {
    let folder = tempfile::tempdir().unwrap();
    let (queue, mut writer) = open(folder.path());
    queue.push(ended("ins_a"));
    queue.acknowledge(500);
    queue.push(ended("ins_b"));
    writer.write().await.unwrap();
    assert_eq!(numbers(&queue), [501]);
}

#[tokio::test]
async fn events_are_sent_from_memory_if_the_disk_fails() {
    let folder = tempfile::tempdir().unwrap();
    let events = folder.path().join("events");
    let (queue, mut writer) = open(&events);
    fs::remove_dir(&events).unwrap();
    queue.push(ended("ins_a"));
    assert!(writer.write().await.is_err());
    assert_eq!(numbers(&queue), [1]);
    files::create_folder(&events).unwrap();
    queue.push(ended("ins_b"));
    writer.write().await.unwrap();
    assert_eq!(numbers(&open(&events).0), [1, 2]);
}

use crate::files;

#[tokio::test]
async fn a_full_queue_drops_superseded_states_first() {
    let folder = tempfile::tempdir().unwrap();
    let (queue, mut writer) = open(folder.path());
    queue.push(ended("ins_a"));
    for generation in 1..MAX_EVENTS as u64 {
        queue.push(state_event(if generation % 2 == 0 { "ins_a" } else { "ins_b" }, generation));
    }
    assert_eq!(queue.len(), MAX_EVENTS);
    queue.push(ended("ins_b"));
    writer.write().await.unwrap();
    let last = MAX_EVENTS as u64;
    let expected = vec![
        (1, ended("ins_a")),
        (last - 1, state_event("ins_a", last - 2)),
        (last, state_event("ins_b", last - 1)),
        (last + 1, ended("ins_b")),
    ];
    assert_eq!(sendable(&queue), expected);
    assert_eq!(sendable(&open(folder.path()).0), expected);
}

#[tokio::test]
async fn ends_of_deployments_are_not_dropped_and_the_queue_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let (queue, _writer) = open(folder.path());
    for _ in 0..MAX_EVENTS + 5 {
        queue.push(ended("ins_a"));
    }
    queue.push(state_event("ins_a", 1));
    assert_eq!(queue.len(), MAX_EVENTS + 5, "the ends are kept, and a state has no room");
    for _ in 0..MAX_EVENTS {
        queue.push(ended("ins_a"));
    }
    assert_eq!(queue.len(), 2 * MAX_EVENTS);
}

#[tokio::test]
async fn the_size_of_the_queue_and_of_its_file_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let (queue, mut writer) = open(folder.path());
    let rejected = |length: usize| ToolboxEvent::EgressRejected {
        instance_id: "ins_a".into(),
        destinations: vec!["x".repeat(length)],
    };
    queue.push(rejected(1_000_000));
    assert!(queue.is_empty(), "too large");
    for _ in 0..200 {
        queue.push(rejected(200_000));
    }
    writer.write().await.unwrap();
    let size = |folder: &Path| fs::metadata(folder.join("queue.jsonl")).unwrap().len();
    assert!(size(folder.path()) <= MAX_BYTES as u64 + 1_000, "{}", size(folder.path()));
    queue.acknowledge(1_000);
    writer.write().await.unwrap();
    assert!(size(folder.path()) < 1_000, "{}", size(folder.path()));
}

#[test]
fn only_a_window_of_events_is_sent() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (queue, mut writer) = open(folder.path());
    (0..5).for_each(|_| queue.push(ended("ins_a")));
    runtime.block_on(writer.write()).unwrap();
    let count = |after, max| {
        let (last, lines) = queue.next_lines(after, max);
        (last, lines.len())
    };
    assert_eq!(count(0, 3), (3, 3));
    assert_eq!(count(3, 3), (3, 0));
    queue.acknowledge(2);
    assert_eq!(count(3, 3), (5, 2));
    assert_eq!(count(9, 3), (9, 0));
}

#[derive(Debug, Clone)]
enum Step {
    Push(bool, u8),
    Write,
    Acknowledge(u8),
    Restart,
    Rewrite,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (any::<bool>(), 0_u8..3).prop_map(|(state, instance)| Step::Push(state, instance)),
        2 => Just(Step::Write),
        2 => (0_u8..4).prop_map(Step::Acknowledge),
        1 => Just(Step::Restart),
        1 => Just(Step::Rewrite),
    ];
    prop::collection::vec(step, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// All written events exist after a restart, in order, with the same numbers, which are never reused.
    #[test]
    fn the_file_holds_what_was_written(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (mut queue, mut writer) = open(folder.path());
        let mut written: Vec<(u64, ToolboxEvent)> = Vec::new();
        let mut highest = 0;
        for step in steps {
            match step {
                Step::Push(true, instance) => queue.push(state_event(&format!("ins_{instance}"), 1)),
                Step::Push(false, instance) => queue.push(ended(&format!("ins_{instance}"))),
                Step::Write => {
                    runtime.block_on(writer.write()).unwrap();
                    written = sendable(&queue);
                }
                Step::Acknowledge(count) => {
                    if let Some((number, _)) = sendable(&queue).get(usize::from(count)) {
                        queue.acknowledge(*number);
                        runtime.block_on(writer.write()).unwrap();
                        written = sendable(&queue);
                    }
                }
                Step::Restart => {
                    (queue, writer) = open(folder.path());
                    prop_assert_eq!(&sendable(&queue), &written);
                }
                Step::Rewrite => {
                    queue.state().rewrite();
                    runtime.block_on(writer.write()).unwrap();
                    written = sendable(&queue);
                }
            }
            let new: Vec<_> = numbers(&queue).into_iter().filter(|number| *number > highest).collect();
            prop_assert!(numbers(&queue).is_sorted_by(|a, b| a < b));
            highest = new.last().copied().unwrap_or(highest);
        }
    }
}
