//! Invitations: one per address, two hundred at most, and who is in needs none; keys that end.

use std::sync::Arc;

use waypost_core::clock::ManualClock;
use waypost_core::invitation::{InvitationState, LIFETIME_MS, MAX_PENDING};
use waypost_core::organization::Role;
use waypost_core::{Code, Result};
use waypost_ops::api_keys::{self, Changes, NewKey};
use waypost_ops::audit_events::{self, Filter};
use waypost_ops::{Ops, invitations};

use crate::stage::{Stage, stage};

fn refused<T: std::fmt::Debug>(result: Result<T>, code: Code, words: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.code, code, "{error}");
    assert!(error.message.contains(words), "{error}");
}

async fn one_address_has_one(stage: Stage) {
    let Stage { ops, cx } = &stage;
    let t = stage.tenant("acme").await;
    let org = &t.organization.id;
    let invite = |address: &'static str| invitations::create(cx, ops, org, address, Role::Member);
    let (a, b, c) = tokio::join!(invite("b@x.de"), invite("B@x.de"), invite(" b@X.de "));
    let secrets = [a.unwrap().secret, b.unwrap().secret, c.unwrap().secret];
    assert!(secrets.iter().all(|secret| secret.len() == 43) && secrets[0] != secrets[1] && secrets[1] != secrets[2]);
    let listed = invitations::list(cx, ops, org, None, 10).await.unwrap();
    let open = |state| listed.iter().filter(|it| it.invitation.state(cx.now()) == state).count();
    assert_eq!((open(InvitationState::Pending), open(InvitationState::Revoked)), (2, 2), "with the stage's");
    assert!(listed.iter().all(|it| it.invitation.invited_by == "operator"));
    refused(invite("Member@acme.de").await, Code::Conflict, "is a member already");
    refused(invite("nobody").await, Code::InvalidArguments, "email");
    let log = audit_events::list(cx, ops, org, &act("invitation."), (None, 100)).await.unwrap();
    assert_eq!(log.len(), 4);
    assert!(!format!("{log:?}").contains(&secrets[2]), "no secret in the log");
}

fn act(act: &str) -> Filter {
    Filter { act: Some(act.to_owned()), ..Filter::default() }
}

async fn two_hundred_are_open_at_most(stage: Stage) {
    let t = stage.tenant("acme").await;
    let org = &t.organization.id;
    let clock = Arc::new(ManualClock::new(stage.cx.now()));
    let (ops, cx) = (&stage.ops, waypost_core::caller::Ctx { clock: clock.clone(), ..stage.cx.clone() });
    for n in 1..MAX_PENDING {
        invitations::create(&cx, ops, org, &format!("x{n}@x.de"), Role::Member).await.unwrap();
    }
    let one_more = || invitations::create(&cx, ops, org, "more@x.de", Role::Member);
    refused(one_more().await, Code::Conflict, "200 invitations are open");
    invitations::create(&cx, ops, org, "x1@x.de", Role::Admin).await.expect("replaces one");
    invitations::resend(&cx, ops, org, &t.invitation).await.expect("it is open already");
    invitations::revoke(&cx, ops, org, &t.invitation).await.unwrap();
    one_more().await.unwrap();
    refused(invitations::resend(&cx, ops, org, &t.invitation).await, Code::Conflict, "200");
    clock.advance(LIFETIME_MS);
    refused(invitations::resend(&cx, ops, org, &t.invitation).await, Code::Conflict, "taken back");
    let expired = invitations::list(&cx, ops, org, None, 1).await.unwrap().remove(0).invitation;
    assert_eq!(expired.state(cx.now()), InvitationState::Expired);
    let renewed = invitations::resend(&cx, ops, org, &expired.id).await.unwrap().invitation;
    assert_eq!((renewed.state(cx.now()), &renewed.id), (InvitationState::Pending, &expired.id));
}

async fn keys_end(stage: Stage) {
    let t = stage.tenant("acme").await;
    let org = &t.organization.id;
    let clock = Arc::new(ManualClock::new(stage.cx.now()));
    let (ops, cx) = (&stage.ops, waypost_core::caller::Ctx { clock: clock.clone(), ..stage.cx.clone() });
    let new = NewKey { name: "ends", scope: Role::Member, expires_at: Some(cx.now().plus(1_000)) };
    let (key, secret) = api_keys::create(&cx, ops, org, new.clone()).await.unwrap();
    let works = |ops: Ops| {
        let (cx, secret) = (cx.clone(), secret.clone());
        async move { api_keys::authenticate(&cx, &ops, &secret).await.unwrap().is_some() }
    };
    assert!(works(ops.clone()).await);
    clock.advance(1_000);
    assert!(!works(ops.clone()).await);
    let renamed = Changes { name: Some("ended".into()), ..Changes::default() };
    assert_eq!(api_keys::update(&cx, ops, org, &key.id, &renamed).await.unwrap().expires_at, key.expires_at);
    let past = Changes { expires_at: Some(Some(cx.now().plus(-1))), ..Changes::default() };
    refused(api_keys::update(&cx, ops, org, &key.id, &past).await, Code::InvalidArguments, "future");
    let later = Changes { expires_at: Some(Some(cx.now().plus(1))), ..Changes::default() };
    api_keys::update(&cx, ops, org, &key.id, &later).await.unwrap();
    assert!(works(ops.clone()).await);
    let eleven_years = NewKey { name: "eternal", expires_at: Some(cx.now().plus(4_018 * 86_400_000)), ..new };
    refused(api_keys::create(&cx, ops, org, eleven_years).await, Code::InvalidArguments, "ten years");
}

waypost_testkit::both!(stage => one_address_has_one, two_hundred_are_open_at_most, keys_end);
