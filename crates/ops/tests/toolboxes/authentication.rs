//! The handshake of links.

use waypost_core::id::ToolboxId;
use waypost_link::Directory;
use waypost_ops::toolboxes;
use waypost_toolbox_proto::handshake::{Hello, Rejection, Versions};
use waypost_toolbox_proto::message::ControlMessage;

use crate::fixture::{Fixture, challenge, hello, new_key, public_key, set_up};

waypost_testkit::both!(extended set_up =>
    only_the_owner_of_the_key_opens_a_link,
    a_key_is_replaced,
);

async fn only_the_owner_of_the_key_opens_a_link(fixture: Fixture) {
    let Fixture { ops, cx, org, directory, .. } = &fixture;
    let daemon = fixture.daemon(org, "rack").await;
    let (pending, _) = toolboxes::create(cx, ops, org, "pending").await.unwrap();
    let challenge = challenge();
    let valid = hello(&challenge, &daemon.id, &daemon.key, None);
    assert_eq!(directory.authenticate(&challenge, &valid).await, Ok(daemon.id.clone()));
    let found = toolboxes::get(cx, ops, org, &daemon.id).await.unwrap().toolbox;
    assert_eq!(found.version.as_deref(), Some("0.2.0"));
    let other = new_key();
    let unknown = ToolboxId::from_store("tbx_0123456789abcdef".into());
    let invalid = [
        ("another key", hello(&challenge, &daemon.id, &other, None)),
        ("an unknown toolbox", hello(&challenge, &unknown, &daemon.key, None)),
        ("a pending toolbox", hello(&challenge, &pending.toolbox.id, &daemon.key, None)),
        ("no ID", Hello { toolbox_id: "rack".into(), ..valid.clone() }),
        ("another toolbox", Hello { toolbox_id: pending.toolbox.id.to_string(), ..valid.clone() }),
        ("another origin", Hello { origin: "https://evil.example".into(), ..valid.clone() }),
        ("another spelling of the origin", Hello { origin: "https://waypost.example/".into(), ..valid.clone() }),
        ("an added key", Hello { next_public_key: Some(public_key(&other)), ..valid.clone() }),
        ("a malformed signature", Hello { signature: "AA".into(), ..valid.clone() }),
        ("an empty signature", Hello { signature: String::new(), ..valid.clone() }),
    ];
    for (case, hello) in invalid {
        assert_eq!(directory.authenticate(&challenge, &hello).await, Err(Rejection::Unauthorized), "{case}");
    }
    let mut replayed = challenge.clone();
    replayed.nonce = "other".to_owned();
    assert_eq!(directory.authenticate(&replayed, &valid).await, Err(Rejection::Unauthorized));
    let newer = Versions { oldest: 100, newest: 101 };
    let hello = Hello { protocol: newer, ..valid.clone() };
    assert_eq!(directory.authenticate(&challenge, &hello).await, Err(Rejection::IncompatibleVersion));
    let hello = Hello { protocol: newer, signature: "AA".into(), ..valid };
    assert_eq!(directory.authenticate(&challenge, &hello).await, Err(Rejection::Unauthorized));
}

async fn a_key_is_replaced(fixture: Fixture) {
    let Fixture { ops, cx, org, .. } = &fixture;
    let daemon = fixture.daemon(org, "rack").await;
    assert_eq!(daemon.heartbeat(Vec::new()).await, None);
    toolboxes::rotate_key(cx, ops, org, &daemon.id).await.unwrap();
    for _ in 0..2 {
        assert_eq!(daemon.heartbeat(Vec::new()).await, Some(ControlMessage::RotateKey));
    }
    let next = new_key();
    daemon.authenticate(&daemon.key, Some(&next)).await.unwrap();
    assert_eq!(daemon.heartbeat(Vec::new()).await, None, "the request is fulfilled");
    assert_eq!(daemon.authenticate(&daemon.key, None).await, Err(Rejection::Unauthorized), "the old key is invalid");
    assert_eq!(daemon.authenticate(&daemon.key, Some(&new_key())).await, Err(Rejection::Unauthorized));
    daemon.authenticate(&next, None).await.unwrap();
    assert_eq!(fixture.count("SELECT count(*) FROM audit_events WHERE act = 'toolbox.rotate_key'").await, 1);
}
