//! Opening and closing links.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use tokio::time::Instant;
use waypost_link::LinkError;
use waypost_toolbox_proto::message::ControlMessage;

use crate::Control;
use crate::daemon::{hello, socket};

#[tokio::test]
async fn a_link_is_open_until_the_daemon_closes_it() {
    let control = Control::new();
    let toolbox = Control::toolbox();
    assert!(!control.links.is_connected(&toolbox));
    let (mut daemon, accepted) = control.link().await;
    daemon.receive().await;
    assert!(control.links.is_connected(&toolbox));
    assert_eq!(control.links.toolboxes(), std::slice::from_ref(&toolbox));
    drop(daemon);
    assert_eq!(accepted.await.unwrap().unwrap().unwrap(), toolbox);
    assert!(!control.links.is_connected(&toolbox));
}

#[tokio::test]
async fn a_link_is_recorded_while_it_is_open() {
    let control = Control::new();
    let (mut first, first_accepted) = control.link().await;
    first.receive().await;
    assert!(control.directory.state().is_claimed);
    let (mut second, second_accepted) = control.link().await;
    second.receive().await;
    first_accepted.await.unwrap().unwrap().unwrap();
    assert!(control.directory.state().is_claimed, "the end of a link does not release the newer one of this process");
    drop(second);
    second_accepted.await.unwrap().unwrap().unwrap();
    assert!(!control.directory.state().is_claimed);
}

#[tokio::test]
async fn a_link_that_cannot_be_recorded_is_closed() {
    let control = Control::new();
    let (stream, accepted) = control.connect();
    let mut socket = socket(stream).await;
    let challenge = socket.receive().await.unwrap();
    control.directory.state().claim_fails = true;
    socket.send(&hello(&challenge, "tbx_1", 1, None)).await.unwrap();
    socket.receive::<waypost_toolbox_proto::handshake::Welcome>().await.unwrap();
    accepted.await.unwrap().unwrap().unwrap();
    assert!(!control.links.is_connected(&Control::toolbox()));
}

#[tokio::test]
async fn the_newest_link_wins() {
    let control = Control::new();
    let (mut first, first_accepted) = control.link().await;
    first.receive().await;
    let (mut second, _) = control.link().await;
    second.receive().await;
    first.ended().await;
    first_accepted.await.unwrap().unwrap().unwrap();
    assert!(control.links.is_connected(&Control::toolbox()), "the end of the first link does not remove the second");
    let links = control.links.clone();
    let request = crate::daemon::spawn(async move {
        links.request(&Control::toolbox(), Request::new(Bytes::new())).await.map(|response| response.status())
    });
    let mut call = second.call().await;
    call.respond.send_response(http::Response::new(()), true).unwrap();
    assert_eq!(request.await.unwrap().unwrap(), 200);
}

#[tokio::test]
async fn closing_ends_the_link_and_its_requests() {
    let control = Control::new();
    let (mut daemon, accepted) = control.link().await;
    daemon.receive().await;
    let links = control.links.clone();
    let request = crate::daemon::spawn(async move {
        links.request(&Control::toolbox(), Request::new(Bytes::new())).await.map(|_| ())
    });
    daemon.call().await;
    control.links.close(&Control::toolbox());
    assert!(!control.links.is_connected(&Control::toolbox()));
    assert_eq!(request.await.unwrap(), Err(LinkError::Interrupted));
    daemon.ended().await;
    accepted.await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn all_links_are_closed_when_the_process_stops() {
    let control = Control::new();
    let (mut daemon, accepted) = control.link().await;
    daemon.receive().await;
    control.links.close_all();
    daemon.ended().await;
    accepted.await.unwrap().unwrap().unwrap();
    assert!(control.links.toolboxes().is_empty());
}

#[tokio::test]
async fn a_revocation_closes_the_link() {
    let control = Control::new();
    let (mut daemon, accepted) = control.link().await;
    daemon.receive().await;
    control.directory.state().desired = None;
    control.links.notify_desired(&Control::toolbox());
    daemon.ended().await;
    accepted.await.unwrap().unwrap().unwrap();
    assert!(!control.links.is_connected(&Control::toolbox()));
}

#[tokio::test]
async fn a_toolbox_that_is_revoked_during_the_handshake_has_no_link() {
    let control = Control::new();
    control.directory.state().desired = None;
    let (stream, accepted) = control.connect();
    let mut socket = socket(stream).await;
    let challenge = socket.receive().await.unwrap();
    socket.send(&hello(&challenge, "tbx_1", 1, None)).await.unwrap();
    assert_eq!(accepted.await.unwrap().unwrap().unwrap(), Control::toolbox());
    assert!(!control.links.is_connected(&Control::toolbox()));
}

#[tokio::test(start_paused = true)]
async fn a_half_open_connection_is_detected() {
    let control = Control::new();
    let (mut daemon, accepted) = control.link().await;
    daemon.receive().await;
    let start = Instant::now();
    // A daemon that is no longer polled answers no pings, like a machine without power.
    daemon.freeze();
    accepted.await.unwrap().unwrap().unwrap();
    assert!(start.elapsed() <= Duration::from_secs(60), "{:?}", start.elapsed());
    assert!(!control.links.is_connected(&Control::toolbox()));
}

#[tokio::test(start_paused = true)]
async fn an_idle_link_stays_open() {
    let control = Control::new();
    let (mut daemon, _accepted) = control.link().await;
    daemon.receive().await;
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert!(control.links.is_connected(&Control::toolbox()));
    control.links.rotate_key(&Control::toolbox()).unwrap();
    assert_eq!(daemon.receive().await, ControlMessage::RotateKey);
}

#[tokio::test]
async fn without_a_link_everything_fails_at_once() {
    let control = Control::new();
    let error = control.links.request(&Control::toolbox(), Request::new(Bytes::new())).await.unwrap_err();
    assert_eq!(error, LinkError::Offline);
    assert_eq!(control.links.rotate_key(&Control::toolbox()), Err(LinkError::Offline));
    control.links.notify_desired(&Control::toolbox());
    control.links.close(&Control::toolbox());
}
