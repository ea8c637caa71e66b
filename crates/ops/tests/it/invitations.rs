//! Tests of invitations and of the expiry of API keys.

use std::sync::Arc;

use waypost_core::caller::{Caller, Ctx};
use waypost_core::clock::ManualClock;
use waypost_core::id::UserId;
use waypost_core::invitation::{InvitationState, LIFETIME_MS, MAX_PENDING};
use waypost_core::organization::{ApiKey, Role};
use waypost_core::{Code, Result};
use waypost_ops::api_keys::{self, ApiKeyPatch, CreateApiKey};
use waypost_ops::audit_events::{self, AuditFilter};
use waypost_ops::{Ops, invitations, user_accounts, users};

use crate::fixture::{Fixture, Tenant, set_up};

fn assert_rejected<T: std::fmt::Debug>(result: Result<T>, code: Code, words: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.code, code, "{error}");
    assert!(error.message.contains(words), "{error}");
}

async fn an_email_has_one_pending_invitation(fixture: Fixture) {
    let Fixture { ops, cx } = &fixture;
    let t = fixture.create_tenant("acme").await;
    let org = &t.organization.id;
    let invite = |address: &'static str| invitations::create(cx, ops, org, address, Role::Member);
    let (a, b, c) = tokio::join!(invite("b@x.de"), invite("B@x.de"), invite(" b@X.de "));
    let secrets = [a.unwrap().secret, b.unwrap().secret, c.unwrap().secret];
    assert!(secrets.iter().all(|secret| secret.len() == 43) && secrets[0] != secrets[1] && secrets[1] != secrets[2]);
    let listed = invitations::list(cx, ops, org, None, 10).await.unwrap();
    let open = |state| listed.iter().filter(|view| view.invitation.state(cx.now()) == state).count();
    assert_eq!(
        (open(InvitationState::Pending), open(InvitationState::Revoked)),
        (2, 2),
        "including the invitation of the tenant"
    );
    assert!(listed.iter().all(|view| view.invitation.invited_by == "operator"));
    assert_rejected(invite("Member@acme.de").await, Code::Conflict, "is already a member");
    assert_rejected(invite("nobody").await, Code::InvalidArguments, "email");
    let log = audit_events::list(cx, ops, org, &filter("invitation."), None, 100).await.unwrap();
    assert_eq!(log.len(), 4);
    assert!(!format!("{log:?}").contains(&secrets[2]), "no secret in the log");
}

fn filter(action: &str) -> AuditFilter {
    AuditFilter { action: Some(action.to_owned()), ..AuditFilter::default() }
}

async fn at_most_two_hundred_invitations_are_pending(fixture: Fixture) {
    let t = fixture.create_tenant("acme").await;
    let org = &t.organization.id;
    let clock = Arc::new(ManualClock::new(fixture.cx.now()));
    let (ops, cx) = (&fixture.ops, waypost_core::caller::Ctx { clock: clock.clone(), ..fixture.cx.clone() });
    for n in 1..MAX_PENDING {
        invitations::create(&cx, ops, org, &format!("x{n}@x.de"), Role::Member).await.unwrap();
    }
    let one_more = || invitations::create(&cx, ops, org, "more@x.de", Role::Member);
    assert_rejected(one_more().await, Code::Conflict, "200 invitations are pending");
    invitations::create(&cx, ops, org, "x1@x.de", Role::Admin).await.expect("it replaces a pending invitation");
    invitations::resend(&cx, ops, org, &t.invitation).await.expect("it is already pending");
    invitations::revoke(&cx, ops, org, &t.invitation).await.unwrap();
    one_more().await.unwrap();
    assert_rejected(invitations::resend(&cx, ops, org, &t.invitation).await, Code::Conflict, "200");
    clock.advance(LIFETIME_MS);
    assert_rejected(invitations::resend(&cx, ops, org, &t.invitation).await, Code::Conflict, "revoked");
    let expired = invitations::list(&cx, ops, org, None, 1).await.unwrap().remove(0).invitation;
    assert_eq!(expired.state(cx.now()), InvitationState::Expired);
    let renewed = invitations::resend(&cx, ops, org, &expired.id).await.unwrap().invitation;
    assert_eq!((renewed.state(cx.now()), &renewed.id), (InvitationState::Pending, &expired.id));
}

async fn keys_expire(fixture: Fixture) {
    let t = fixture.create_tenant("acme").await;
    let org = &t.organization.id;
    let clock = Arc::new(ManualClock::new(fixture.cx.now()));
    let (ops, cx) = (&fixture.ops, waypost_core::caller::Ctx { clock: clock.clone(), ..fixture.cx.clone() });
    let new = CreateApiKey { name: "ends", scope: Role::Member, expires_at: Some(cx.now().plus(1_000)) };
    let (key, secret) = api_keys::create(&cx, ops, org, new.clone()).await.unwrap();
    let works = |ops: Ops| {
        let (cx, secret) = (cx.clone(), secret.clone());
        async move { api_keys::authenticate(&cx, &ops, &secret).await.unwrap().is_some() }
    };
    assert!(works(ops.clone()).await);
    clock.advance(1_000);
    assert!(!works(ops.clone()).await);
    let renamed = ApiKeyPatch { name: Some("ended".into()), ..ApiKeyPatch::default() };
    assert_eq!(api_keys::update(&cx, ops, org, &key.id, &renamed).await.unwrap().expires_at, key.expires_at);
    let past = ApiKeyPatch { expires_at: Some(Some(cx.now().plus(-1))), ..ApiKeyPatch::default() };
    assert_rejected(api_keys::update(&cx, ops, org, &key.id, &past).await, Code::InvalidArguments, "future");
    let later = ApiKeyPatch { expires_at: Some(Some(cx.now().plus(1))), ..ApiKeyPatch::default() };
    api_keys::update(&cx, ops, org, &key.id, &later).await.unwrap();
    assert!(works(ops.clone()).await);
    let eleven_years = CreateApiKey { name: "eternal", expires_at: Some(cx.now().plus(4_018 * 86_400_000)), ..new };
    assert_rejected(api_keys::create(&cx, ops, org, eleven_years).await, Code::InvalidArguments, "ten years");
}

/// Creates a member and returns a context with the member as the actor.
async fn create_actor(fixture: &Fixture, t: &Tenant, email: &str, role: Role) -> (Ctx, UserId) {
    let user = users::create(&fixture.cx, &fixture.ops, &t.organization.id, email, role).await.unwrap().user_id;
    let actor = user.to_string();
    (fixture.context(Caller::Member { organization_id: t.organization.id.clone(), role, actor }), user)
}

async fn an_admin_cannot_replace_an_owner_invitation(fixture: Fixture) {
    let t = fixture.create_tenant("acme").await;
    let (ops, org) = (&fixture.ops, &t.organization.id);
    let (admin, _) = create_actor(&fixture, &t, "admin@acme.de", Role::Admin).await;
    let owner = invitations::create(&fixture.cx, ops, org, "boss@x.de", Role::Owner).await.unwrap().invitation;
    let again = invitations::create(&admin, ops, org, "Boss@x.de", Role::Member).await;
    assert_rejected(again, Code::Forbidden, "invitation with the role `owner`");
    let state =
        || async { invitations::get(&fixture.cx, ops, org, &owner.id).await.unwrap().invitation.state(admin.now()) };
    assert_eq!(state().await, InvitationState::Pending);
    assert_rejected(invitations::revoke(&admin, ops, org, &owner.id).await, Code::Forbidden, "higher than yours");
    // An invitation that the admin could revoke is replaced.
    invitations::create(&fixture.cx, ops, org, "b@x.de", Role::Admin).await.unwrap();
    invitations::create(&admin, ops, org, "b@x.de", Role::Member).await.unwrap();
    assert_eq!(state().await, InvitationState::Pending);
}

async fn invitations_are_revoked_with_the_rights_of_the_inviter(fixture: Fixture) {
    let t = fixture.create_tenant("acme").await;
    let (ops, org) = (&fixture.ops, &t.organization.id);
    let (first, first_id) = create_actor(&fixture, &t, "first@acme.de", Role::Owner).await;
    let (second, second_id) = create_actor(&fixture, &t, "second@acme.de", Role::Admin).await;
    let invite =
        async |cx: &Ctx, email: &str, role| invitations::create(cx, ops, org, email, role).await.unwrap().invitation.id;
    let (boss, colleague) =
        (invite(&first, "boss@x.de", Role::Owner).await, invite(&first, "a@x.de", Role::Admin).await);
    let (one, two) = (invite(&second, "1@x.de", Role::Member).await, invite(&second, "2@x.de", Role::Admin).await);
    let state =
        async |id| invitations::get(&fixture.cx, ops, org, id).await.unwrap().invitation.state(fixture.cx.now());
    users::delete(&fixture.cx, ops, org, &second_id).await.unwrap();
    assert_eq!((state(&one).await, state(&two).await), (InvitationState::Revoked, InvitationState::Revoked));
    assert_eq!((state(&boss).await, state(&colleague).await), (InvitationState::Pending, InvitationState::Pending));
    let late = invitations::create(&second, ops, org, "late@x.de", Role::Member).await;
    assert_rejected(late, Code::NotFound, "organisation");
    users::update(&fixture.cx, ops, org, &first_id, Role::Admin).await.unwrap();
    assert_eq!((state(&boss).await, state(&colleague).await), (InvitationState::Revoked, InvitationState::Pending));
    assert_rejected(invitations::create(&first, ops, org, "c@x.de", Role::Owner).await, Code::Forbidden, "is now");
    assert_rejected(invitations::resend(&first, ops, org, &boss).await, Code::Forbidden, "is now");
    let cx = fixture.context(Caller::User { user_id: first_id });
    user_accounts::leave_organization(&cx, ops, org).await.unwrap();
    assert_eq!(state(&colleague).await, InvitationState::Revoked);
    let log = audit_events::list(&fixture.cx, ops, org, &filter("invitation.revoke"), None, 100).await.unwrap();
    assert_eq!(log.len(), 4);
}

async fn a_key_can_neither_extend_nor_duplicate_itself(fixture: Fixture) {
    let t = fixture.create_tenant("acme").await;
    let (Fixture { ops, cx }, org) = (&fixture, &t.organization.id);
    let day = |n: i64| Some(cx.now().plus(n * 86_400_000));
    let new = |name, scope, expires_at| CreateApiKey { name, scope, expires_at };
    let (own, _) = api_keys::create(cx, ops, org, new("own", Role::Admin, day(10))).await.unwrap();
    let by = |key: &ApiKey| {
        let actor = key.id.to_string();
        fixture.context(Caller::Member { organization_id: org.clone(), role: Role::Admin, actor })
    };
    let with_own = by(&own);
    for (scope, expires_at) in [
        (Role::Admin, day(10)),
        (Role::Admin, day(11)),
        (Role::Admin, None),
        (Role::Member, day(11)),
        (Role::Member, None),
        (Role::Owner, day(1)),
    ] {
        let created = api_keys::create(&with_own, ops, org, new("copy", scope, expires_at)).await;
        assert_eq!(created.unwrap_err().code, Code::Forbidden, "{scope} {expires_at:?}");
    }
    let to = |scope, expires_at| ApiKeyPatch { scope, expires_at, ..ApiKeyPatch::default() };
    for changes in [to(None, Some(day(11))), to(None, Some(None)), to(Some(Role::Owner), None)] {
        let changed = api_keys::update(&with_own, ops, org, &own.id, &changes).await;
        assert_eq!(changed.unwrap_err().code, Code::Forbidden, "{changes:?}");
    }
    let (weak, weak_secret) = api_keys::create(&with_own, ops, org, new("weak", Role::Member, day(10))).await.unwrap();
    let (short, short_secret) = api_keys::create(&with_own, ops, org, new("short", Role::Admin, day(9))).await.unwrap();
    let raised = api_keys::update(&with_own, ops, org, &weak.id, &to(Some(Role::Admin), None)).await;
    assert_rejected(raised, Code::Forbidden, "fewer rights");
    assert_rejected(
        api_keys::update(&with_own, ops, org, &short.id, &to(None, Some(None))).await,
        Code::Forbidden,
        "earlier expiry",
    );
    assert_rejected(
        api_keys::update(&by(&short), ops, org, &own.id, &to(None, Some(None))).await,
        Code::Forbidden,
        "extend",
    );
    // A user may do all of this. If a key loses rights, the keys created with it lose them, too.
    api_keys::update(cx, ops, org, &own.id, &to(Some(Role::Member), Some(day(5)))).await.unwrap();
    let now = async |id| api_keys::get(cx, ops, org, id).await.unwrap();
    let (weak, short) = (now(&weak.id).await, now(&short.id).await);
    assert_eq!((weak.scope, weak.expires_at), (Role::Member, day(5)));
    assert_eq!((short.scope, short.expires_at), (Role::Member, day(5)));
    let works = async |secret: &str| api_keys::authenticate(cx, ops, secret).await.unwrap().is_some();
    assert!(works(&weak_secret).await && works(&short_secret).await);
    api_keys::delete(cx, ops, org, &own.id).await.unwrap();
    assert!(!works(&weak_secret).await && !works(&short_secret).await, "they end with the key that created them");
    let created = api_keys::create(&with_own, ops, org, new("late", Role::Member, day(1))).await;
    assert_rejected(created, Code::NotFound, "API key");
}

waypost_testkit::both!(extended set_up =>
    an_email_has_one_pending_invitation,
    at_most_two_hundred_invitations_are_pending,
    keys_expire,
    an_admin_cannot_replace_an_owner_invitation,
    invitations_are_revoked_with_the_rights_of_the_inviter,
    a_key_can_neither_extend_nor_duplicate_itself,
);
