//! The handshake, and which daemons are accepted.

use std::time::Duration;

use tokio::time::Instant;
use waypost_link_io::SocketError;
use waypost_toolbox_proto::handshake::{Challenge, Hello, Rejection, Versions, Welcome};

use crate::daemon::{hello, key, socket};
use crate::{Control, rejection};

/// Answers the challenge of a new connection with the result of `answer`, and returns the response.
async fn answer(control: &Control, answer: impl FnOnce(&Challenge) -> Hello) -> Welcome {
    let (stream, accepted) = control.connect();
    let mut socket = socket(stream).await;
    let challenge = socket.receive().await.unwrap();
    socket.send(&answer(&challenge)).await.unwrap();
    let welcome = socket.receive().await.unwrap();
    if let Welcome::Rejected { reason, .. } = &welcome {
        let end = socket.receive::<Welcome>().await;
        assert!(matches!(end, Err(SocketError::Closed)), "the connection is closed: {end:?}");
        drop(socket);
        assert_eq!(rejection(accepted).await, format!("the link was rejected: {reason:?}"));
    }
    welcome
}

fn reason(welcome: Welcome) -> Rejection {
    match welcome {
        Welcome::Rejected { reason, .. } => reason,
        Welcome::Accepted { .. } => panic!("accepted"),
    }
}

#[tokio::test]
async fn accepts_the_key_of_the_toolbox() {
    let control = Control::new();
    let (_daemon, _) = control.link().await;
    assert_eq!(control.directory.state().versions, ["9.9.9"]);
}

#[tokio::test]
async fn rejects_unknown_toolboxes_other_keys_and_other_origins() {
    let control = Control::new();
    let rejected = [
        answer(&control, |challenge| hello(challenge, "tbx_2", 1, None)).await,
        answer(&control, |challenge| hello(challenge, "tbx_1", 2, None)).await,
        answer(&control, |challenge| Hello { signature: "AA".into(), ..hello(challenge, "tbx_1", 1, None) }).await,
        answer(&control, |challenge| Hello {
            origin: "https://evil.example".into(),
            ..hello(challenge, "tbx_1", 1, None)
        })
        .await,
    ];
    for welcome in &rejected {
        assert_eq!(welcome, &rejected[0], "which of the reasons applies is not revealed");
        assert_eq!(reason(welcome.clone()), Rejection::Unauthorized);
    }
    assert!(!control.links.is_connected(&Control::toolbox()));
}

#[tokio::test]
async fn an_answer_cannot_be_replayed_on_another_connection() {
    let control = Control::new();
    let mut recorded = None;
    let accepted = answer(&control, |challenge| recorded.insert(hello(challenge, "tbx_1", 1, None)).clone()).await;
    assert_eq!(accepted, Welcome::Accepted { version: 1 });
    let replayed = answer(&control, |_| recorded.unwrap()).await;
    assert_eq!(reason(replayed), Rejection::Unauthorized);
}

#[tokio::test]
async fn an_incompatible_version_is_rejected_with_a_clear_message() {
    let control = Control::new();
    let protocol = Versions { oldest: 7, newest: 8 };
    let welcome = answer(&control, |challenge| Hello { protocol, ..hello(challenge, "tbx_1", 1, None) }).await;
    let Welcome::Rejected { reason, message } = welcome else { panic!() };
    assert_eq!(reason, Rejection::IncompatibleVersion);
    assert!(message.ends_with("Upgrade the control plane."), "{message}");
    assert!(control.directory.state().versions.is_empty());
}

#[tokio::test]
async fn an_unavailable_store_is_not_an_invalid_key() {
    let control = Control::new();
    control.directory.state().remaining_failures = 1;
    let welcome = answer(&control, |challenge| hello(challenge, "tbx_1", 1, None)).await;
    assert_eq!(reason(welcome), Rejection::Unavailable);
}

#[tokio::test]
async fn the_next_key_replaces_the_current_one() {
    let control = Control::new();
    let (_, next) = key(2);
    let rotate = answer(&control, |challenge| hello(challenge, "tbx_1", 1, Some(next.clone()))).await;
    assert_eq!(rotate, Welcome::Accepted { version: 1 });
    let old = answer(&control, |challenge| hello(challenge, "tbx_1", 1, None)).await;
    assert_eq!(reason(old), Rejection::Unauthorized);
    let new = answer(&control, |challenge| hello(challenge, "tbx_1", 2, None)).await;
    assert_eq!(new, Welcome::Accepted { version: 1 });
}

#[tokio::test]
async fn messages_that_are_too_long_or_of_another_kind_end_the_handshake() {
    let control = Control::new();
    for message in ["x".repeat(5_000), "hello".to_owned()] {
        let (stream, accepted) = control.connect();
        let mut socket = socket(stream).await;
        let _: Challenge = socket.receive().await.unwrap();
        socket.send(&message).await.unwrap();
        assert_eq!(rejection(accepted).await, "the handshake failed: the peer sent an invalid message");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_handshake_times_out() {
    let control = Control::new();
    let start = Instant::now();
    let (_stream, accepted) = control.connect();
    assert_eq!(rejection(accepted).await, "the handshake was not complete in time");
    assert_eq!(start.elapsed(), Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn the_number_of_handshakes_is_limited() {
    let control = Control::new();
    let mut streams: Vec<_> = (0..256).map(|_| control.connect()).collect();
    for (stream, _) in streams.iter_mut() {
        // The challenge arrives once the handshake has begun.
        tokio::io::AsyncReadExt::read_u8(stream).await.unwrap();
    }
    let (_stream, accepted) = control.connect();
    assert_eq!(rejection(accepted).await, "too many handshakes are in progress");
    for (_, accepted) in streams.drain(..) {
        assert_eq!(rejection(accepted).await, "the handshake was not complete in time");
    }
    control.link().await;
}
