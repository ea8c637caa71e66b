//! Tests of joins of anonymous progress.

use waypost_core::authorization::ProgressClaim;
use waypost_core::claim_link::ClaimLink;
use waypost_core::id::EndUserId;
use waypost_core::personal::PersonalId;
use waypost_core::progress::{Attempt, Status};
use waypost_core::random::SeededRandom;
use waypost_core::scope::{Scope, Scopes};
use waypost_core::server::AuthType;
use waypost_core::{Code, Random, Timestamp};
use waypost_ops::identity::{Credentials, Subject};
use waypost_ops::{claim_links, end_users, joins};
use waypost_store::progress::{self as store, ProgressKey};

use crate::hosted::{HostedTest, STEPS, hosted, with_handle, with_token};

impl HostedTest {
    /// Creates an anonymous user who has completed this many steps. Returns their handle.
    async fn create_anonymous_user(&self, steps: u32) -> String {
        let handle = self.select(&Credentials::Nothing).await.unwrap().user.handle().unwrap().to_owned();
        for _ in 0..steps {
            self.advance(&Credentials::Handle(handle.clone())).await.unwrap();
        }
        handle
    }

    async fn count_completed(&self, credentials: &Credentials) -> usize {
        self.status(credentials).await.unwrap().progress.completed()
    }

    /// Returns the attempts of a user with their completions, oldest first.
    async fn history(&self, end_user: &EndUserId) -> Vec<(Attempt, Vec<String>)> {
        let key = ProgressKey {
            organization_id: self.org.clone(),
            end_user_id: end_user.clone(),
            server_id: self.server.clone(),
            walkthrough_id: self.walkthrough.clone(),
        };
        let mut conn = self.ops.store().read().await.unwrap();
        let mut found = Vec::new();
        for attempt in store::list_attempts(&mut conn, &key).await.unwrap() {
            let rows = store::list_completions(&mut conn, &self.org, &attempt.id).await.unwrap();
            found.push((attempt, rows.iter().map(|(step, at)| format!("{step} {at}")).collect()));
        }
        found
    }

    async fn count_events(&self, action: &str) -> usize {
        self.query_texts(format!("SELECT target FROM audit_events WHERE act = '{action}'")).await.len()
    }

    async fn get_only_join(&self) -> waypost_core::join::Join {
        let mut joins = joins::list(&self.cx, &self.ops, &self.org).await.unwrap();
        assert_eq!(joins.len(), 1);
        joins.remove(0)
    }

    async fn find_end_user(&self, handle: &str) -> EndUserId {
        let hash = waypost_core::secret::hash(handle);
        let sql = format!("SELECT end_user_id FROM client_sessions WHERE handle_hash = '{hash}'");
        EndUserId::from_store(self.query_texts(sql).await.remove(0))
    }
}

async fn a_handle_with_a_token_is_joined_once(h: HostedTest) {
    let handle = h.create_anonymous_user(3).await;
    h.set_auth_type(AuthType::PlatformOauth).await;
    let (anna, bert) = (h.create_user("anna").await, h.create_user("bert").await);
    let first = h.select(&with_handle(&anna, &handle)).await.unwrap();
    assert_eq!((first.progress.completed(), first.user.handle()), (3, None), "the next step, and no handle");
    assert_eq!(h.count_completed(&with_token(&anna)).await, 3);
    let started = h.select(&with_handle(&bert, &handle)).await.unwrap();
    assert_eq!(started.progress.completed(), 0, "the handle gives no access to other users");
    h.advance(&with_handle(&anna, &handle)).await.unwrap();
    assert_eq!(h.count_completed(&with_handle(&anna, &handle)).await, 4);
    assert_eq!(
        (h.count_events("join.create").await, h.get_only_join().await.to_end_user_id),
        (1, anna.end_user_id.clone())
    );
    h.set_auth_type(AuthType::None).await;
    let error = h.select(&Credentials::Handle(handle)).await.unwrap_err();
    assert_eq!(error.code, Code::HandleUnknown, "the handle is no longer valid");
}

async fn the_progress_of_both_users_is_merged(h: HostedTest) {
    let steps = h.steps().await;
    let handle = h.create_anonymous_user(0).await;
    let anonymous = Credentials::Handle(handle.clone());
    h.complete(&anonymous, &steps[0]).await.unwrap();
    h.complete(&anonymous, &steps[5]).await.unwrap();
    h.set_auth_type(AuthType::PlatformOauth).await;
    h.publish(&["Step 0", "Step 1", "Step 5", "New"]).await;
    let anna = h.create_user("anna").await;
    h.complete(&with_token(&anna), &steps[1]).await.unwrap();
    h.complete(&with_token(&anna), &steps[0]).await.unwrap();
    let joined = h.status(&with_handle(&anna, &handle)).await.unwrap().progress;
    assert_eq!((joined.version.number, joined.completed(), joined.status()), (2, 3, Status::InProgress));
    let history = h.history(&anna.end_user_id).await;
    assert_eq!((history.len(), history[0].1.len()), (1, 3), "the rows match the set");
    let last = h.advance(&with_token(&anna)).await.unwrap().progress;
    assert_eq!(last.status(), Status::Completed);
}

async fn unknown_and_read_only_credentials_are_ignored(h: HostedTest) {
    let handle = h.create_anonymous_user(2).await;
    h.set_auth_type(AuthType::PlatformOauth).await;
    let anna = h.create_user("anna").await;
    for other in ["wph_nobody", ""] {
        assert_eq!(h.count_completed(&with_handle(&anna, other)).await, 0);
    }
    let reader = Subject { scopes: Scopes::from(Scope::WalkRead), ..anna.clone() };
    assert_eq!(h.count_completed(&with_handle(&reader, &handle)).await, 0, "a read-only scope changes nothing");
    assert_eq!(h.count_events("join.create").await, 0);
    let session = Credentials::Session("wph_of_no_session".into());
    h.select(&Credentials::Subject(anna.clone(), Box::new(session))).await.unwrap();
    assert_eq!(h.count_completed(&with_handle(&anna, &handle)).await, 2);
}

async fn only_a_token_identifies_users_on_a_server_with_sign_in(h: HostedTest) {
    let handle = h.create_anonymous_user(2).await;
    h.set_auth_type(AuthType::PlatformOauth).await;
    let shown = [Credentials::Nothing, Credentials::Handle(handle), Credentials::Tracking("anna".into())];
    for credentials in shown {
        let listed = h.list(&credentials).await.unwrap();
        assert_eq!(listed, [(Status::NotStarted, 0)], "{credentials:?}");
        for error in [h.select(&credentials).await, h.advance(&credentials).await, h.status(&credentials).await] {
            assert_eq!(error.unwrap_err().code, Code::SignInRequired, "{credentials:?}");
        }
    }
    assert_eq!(h.query_texts("SELECT id FROM end_users".into()).await.len(), 1, "no end user was created");
}

async fn a_deleted_user_must_sign_in_again(h: HostedTest) {
    h.set_auth_type(AuthType::PlatformOauth).await;
    let anna = h.create_user("anna").await;
    h.select(&with_token(&anna)).await.unwrap();
    h.execute("DELETE FROM end_users".into()).await;
    assert_eq!(h.select(&with_token(&anna)).await.unwrap_err().code, Code::SignInRequired);
    let handle = with_handle(&anna, "wph_nobody");
    assert_eq!(h.complete(&handle, &h.steps().await[0]).await.unwrap_err().code, Code::SignInRequired);
}

async fn only_one_of_two_concurrent_joins_succeeds(h: HostedTest) {
    for round in 0..6 {
        h.set_auth_type(AuthType::None).await;
        let handle = h.create_anonymous_user(3).await;
        h.set_auth_type(AuthType::PlatformOauth).await;
        let (anna, bert) = (h.create_user(&format!("anna{round}")).await, h.create_user(&format!("bert{round}")).await);
        let (anna, bert) = (with_handle(&anna, &handle), with_handle(&bert, &handle));
        let (a, b) = tokio::join!(h.select(&anna), h.select(&bert));
        let mut done = [a.unwrap().progress.completed(), b.unwrap().progress.completed()];
        done.sort_unstable();
        assert_eq!(done, [0, 3]);
    }
    assert_eq!(h.count_events("join.create").await, 6);
}

async fn no_progress_is_lost_during_a_join(h: HostedTest) {
    let steps = h.steps().await;
    for round in 0..6 {
        h.set_auth_type(AuthType::None).await;
        let handle = h.create_anonymous_user(0).await;
        // The previous offers, as in a process that has not loaded the change yet.
        let before = h.offers().await;
        h.set_auth_type(AuthType::PlatformOauth).await;
        let anna = h.create_user(&format!("anna{round}")).await;
        let anonymous = Credentials::Handle(handle.clone());
        let advancing = async {
            let mut acknowledged = 0;
            while acknowledged < 4 && h.advance_with(&before, &anonymous).await.is_ok() {
                acknowledged += 1;
            }
            acknowledged
        };
        let (own, joining) = (with_token(&anna), with_handle(&anna, &handle));
        let completing = async {
            for step in &steps[5..] {
                h.complete(&own, step).await.unwrap();
            }
        };
        let (acknowledged, (), joined) = tokio::join!(advancing, completing, h.status(&joining));
        joined.unwrap();
        let (attempt, rows) = h.history(&anna.end_user_id).await.remove(0);
        for ordinal in (0..acknowledged).chain(5..STEPS) {
            assert!(attempt.completed.contains(ordinal), "round {round}: {ordinal} of {acknowledged} is lost");
        }
        assert_eq!(rows.len(), attempt.completed.len(), "the rows match the set");
        let from = h.history(&h.find_end_user(&handle).await).await;
        assert!(from.iter().all(|(attempt, _)| attempt.closed_at.is_some()));
    }
}

async fn an_undo_restores_both_users(h: HostedTest) {
    let (steps, handle) = (h.steps().await, h.create_anonymous_user(4).await);
    let from = h.find_end_user(&handle).await;
    h.set_auth_type(AuthType::PlatformOauth).await;
    let anna = h.create_user("anna").await;
    h.complete(&with_token(&anna), &steps[6]).await.unwrap();
    let before = (h.history(&anna.end_user_id).await, h.history(&from).await);
    h.clock.advance(1_000);
    assert_eq!(h.count_completed(&with_handle(&anna, &handle)).await, 5);
    let join = h.get_only_join().await;
    let undone = joins::undo(&h.cx, &h.ops, &h.org, &join.id).await.unwrap();
    assert!(undone.undone_at.is_some());
    assert_eq!((h.history(&anna.end_user_id).await, h.history(&from).await), before);
    assert_eq!(h.count_events("join.undo").await, 1);
    h.clock.advance(1_000);
    let (one, two) =
        tokio::join!(joins::undo(&h.cx, &h.ops, &h.org, &join.id), joins::undo(&h.cx, &h.ops, &h.org, &join.id));
    assert_eq!((&one.unwrap(), &two.unwrap()), (&undone, &undone), "another undo changes nothing");
    assert_eq!((h.history(&anna.end_user_id).await, h.history(&from).await), before);
    assert_eq!(h.count_events("join.undo").await, 1);
    // Anna's client continues to present the handle, but another user may own it.
    let later = Subject { grant_id: waypost_core::id::OauthGrantId::from_store("ogr_later".into()), ..anna };
    assert_eq!(h.count_completed(&with_handle(&later, &handle)).await, 1);
    assert_eq!(h.count_completed(&with_handle(&h.create_user("bert").await, &handle)).await, 4);
}

/// An undo also restores random progress of both users.
async fn an_undo_restores_random_progress(h: HostedTest) {
    let (steps, random) = (h.steps().await, SeededRandom::new(11));
    for case in 0..10 {
        let mut masks = [0_u8; 2];
        random.fill(&mut masks);
        if case % 3 == 0 {
            masks[case % 2] = 0xff;
        }
        let selected = |mask: u8| {
            steps.iter().enumerate().filter(move |(index, _)| mask & (1 << index) != 0).map(|(_, step)| step)
        };
        h.set_auth_type(AuthType::None).await;
        let handle = h.create_anonymous_user(0).await;
        for step in selected(masks[0]) {
            h.complete(&Credentials::Handle(handle.clone()), step).await.unwrap();
        }
        h.set_auth_type(AuthType::PlatformOauth).await;
        let (anna, from) = (h.create_user(&format!("anna{case}")).await, h.find_end_user(&handle).await);
        for step in selected(masks[1]) {
            h.complete(&with_token(&anna), step).await.unwrap();
        }
        let before = (h.history(&anna.end_user_id).await, h.history(&from).await);
        h.clock.advance(1_000);
        let done = h.count_completed(&with_handle(&anna, &handle)).await;
        assert_eq!(done as u32, (masks[0] | masks[1]).count_ones(), "{masks:?}");
        let join = joins::list(&h.cx, &h.ops, &h.org).await.unwrap().remove(0);
        joins::undo(&h.cx, &h.ops, &h.org, &join.id).await.unwrap();
        let mut after = (h.history(&anna.end_user_id).await, h.history(&from).await);
        if masks[1] == 0 {
            // The attempt that the join created remains as an empty attempt in the history.
            let (created, rows) = after.0.remove(0);
            assert!(created.closed_at.is_some() && created.completed.is_empty() && rows.is_empty(), "{masks:?}");
        }
        assert_eq!(after, before, "{masks:?}");
    }
}

async fn deleting_a_user_deletes_the_joined_users(h: HostedTest) {
    let handle = h.create_anonymous_user(1).await;
    let tracked = Credentials::Tracking("customer-7".into());
    h.select(&tracked).await.unwrap();
    h.set_auth_type(AuthType::PlatformOauth).await;
    let anna = h.create_user("anna").await;
    h.select(&with_handle(&anna, &handle)).await.unwrap();
    let server = h.offers().await.server.clone();
    let claim = signed("customer-7", h.cx.now());
    joins::claim_progress(&h.cx, &h.hosting, &server, &anna.end_user_id, &claim).await.unwrap().unwrap();
    end_users::delete(&h.cx, &h.ops, &h.org, &anna.end_user_id).await.unwrap();
    let remaining = h.query_texts("SELECT coalesce(tracking_id, '-') FROM end_users".into()).await;
    assert_eq!(remaining, ["customer-7"], "the tracking ID of the organisation remains");
}

async fn a_late_undo_keeps_newer_progress(h: HostedTest) {
    let (steps, handle) = (h.steps().await, h.create_anonymous_user(3).await);
    h.set_auth_type(AuthType::PlatformOauth).await;
    let anna = h.create_user("anna").await;
    h.select(&with_handle(&anna, &handle)).await.unwrap();
    h.clock.advance(1_000);
    h.complete(&with_token(&anna), &steps[7]).await.unwrap();
    joins::undo(&h.cx, &h.ops, &h.org, &h.get_only_join().await.id).await.unwrap();
    let (attempt, rows) = h.history(&anna.end_user_id).await.remove(0);
    assert_eq!((attempt.completed, attempt.closed_at, rows.len()), ([7].into_iter().collect(), None, 1));
    h.set_auth_type(AuthType::None).await;
    assert_eq!(h.count_completed(&Credentials::Handle(handle)).await, 3, "the handle is valid again");
}

async fn a_joined_session_starts_with_new_progress(h: HostedTest) {
    let session = Credentials::Session("wph_of_a_session".into());
    let handle = h.select(&session).await.unwrap().user.handle().unwrap().to_owned();
    h.advance(&session).await.unwrap();
    h.set_auth_type(AuthType::PlatformOauth).await;
    let anna = h.create_user("anna").await;
    assert_eq!(h.count_completed(&Credentials::Subject(anna, Box::new(session.clone()))).await, 1);
    h.set_auth_type(AuthType::None).await;
    let fresh = h.select(&session).await.unwrap();
    assert_eq!(fresh.progress.completed(), 0);
    assert_ne!(fresh.user.handle(), Some(handle.as_str()));
    assert_eq!(h.count_completed(&Credentials::Handle(fresh.user.handle().unwrap().to_owned())).await, 0);
}

async fn a_tracking_id_is_claimed_once(h: HostedTest) {
    let tracked = Credentials::Tracking("customer-7".into());
    h.select(&tracked).await.unwrap();
    h.advance(&tracked).await.unwrap();
    h.set_auth_type(AuthType::PlatformOauth).await;
    let (anna, bert) = (h.create_user("anna").await, h.create_user("bert").await);
    let server = h.offers().await.server.clone();
    let claim = |user: &Subject, id: &'static str| {
        let (h, server, user) = (&h, &server, user.end_user_id.clone());
        async move { joins::claim_progress(&h.cx, &h.hosting, server, &user, &signed(id, h.cx.now())).await.unwrap() }
    };
    let is_claimable = |id: &'static str| {
        let (h, server) = (&h, &server);
        async move { joins::is_claimable(&h.cx, &h.hosting, server, &signed(id, h.cx.now())).await.unwrap() }
    };
    assert!(is_claimable("customer-7").await && !is_claimable("nobody").await);
    assert_eq!(claim(&anna, "nobody").await, None);
    let (a, b) = tokio::join!(claim(&anna, "customer-7"), claim(&bert, "customer-7"));
    assert!(a.is_some() != b.is_some(), "exactly one of them succeeds");
    let (winner, loser) = if a.is_some() { (anna, bert) } else { (bert, anna) };
    assert!(!is_claimable("customer-7").await);
    assert_eq!((h.count_completed(&with_token(&winner)).await, h.count_completed(&with_token(&loser)).await), (1, 0));
    assert_eq!(claim(&winner, "customer-7").await, None, "once per server");
}

/// Returns the claim of a link that was signed at `issued_at`.
fn signed(label: &str, issued_at: Timestamp) -> ProgressClaim {
    ProgressClaim { tracking_id: label.to_owned(), issued_at: Some(issued_at) }
}

/// Creates a claim link for a label. Returns its URL segment.
async fn create_link(h: &HostedTest, label: &str) -> String {
    let key = h.hosting.secret();
    claim_links::create(&h.cx, &h.ops, key, &h.org, &h.server, label, 60_000).await.unwrap().1.segment()
}

async fn a_label_can_only_be_claimed_with_a_signed_link(h: HostedTest) {
    let tracked = Credentials::Tracking("customer-7".into());
    h.select(&tracked).await.unwrap();
    h.set_auth_type(AuthType::PlatformOauth).await;
    let server = h.offers().await.server.clone();
    let verify = |segment: String| {
        let (h, server) = (&h, &server);
        async move {
            let claim = joins::verify_claim(&h.cx, &h.hosting, server, &segment).await.unwrap();
            claim.map(|claim| claim.tracking_id)
        }
    };
    let signed = create_link(&h, "customer-7").await;
    assert_eq!(verify(signed.clone()).await.as_deref(), Some("customer-7"));
    assert_eq!(verify(create_link(&h, "nobody").await).await.as_deref(), Some("nobody"), "there is nothing to claim");
    let personal = PersonalId::new(&SeededRandom::new(3));
    let stored = waypost_core::personal::stored_form(personal.expose()).into_owned();
    assert_eq!(verify(personal.expose().to_owned()).await, Some(stored), "the holder of a generated ID may claim it");
    let forged = signed.replace("customer-7", "customer-8");
    for guess in ["customer-7", "customer-8", "nobody", "claim~customer-7", &forged, &signed[..signed.len() - 1]] {
        assert_eq!(verify(guess.to_owned()).await, None, "{guess}");
    }
    // A signature is valid for one server of one organisation only.
    let (org, id) = (&h.org, waypost_core::id::ServerId::from_store("srv_other".to_owned()));
    let other_link = ClaimLink::sign(h.hosting.secret(), org, &id, "customer-7", h.cx.now(), 60_000);
    assert_eq!(verify(other_link.segment()).await, None);
    let test = ClaimLink::sign(h.hosting.secret(), org, &h.server, "test~usr_1", h.cx.now(), 60_000);
    assert_eq!(verify(test.segment()).await, None, "tests of the console cannot be claimed");
    h.clock.advance(60_000);
    assert_eq!(verify(signed).await, None, "expired");
    let details = h.query_texts("SELECT detail FROM audit_events WHERE act = 'claim_link.create'".into()).await;
    assert_eq!(details.len(), 2);
    assert!(
        details.iter().all(|detail| !detail.contains("customer-7") && detail.contains("tracking_id_length")),
        "{details:?}"
    );
}

async fn links_require_a_label_and_a_limited_lifetime(h: HostedTest) {
    h.set_auth_type(AuthType::PlatformOauth).await;
    let personal = PersonalId::new(&SeededRandom::new(3));
    for (label, lifetime, field) in [
        ("", 1, "tracking_id"),
        ("a b", 1, "tracking_id"),
        ("test~usr_1", 1, "tracking_id"),
        ("claim~ann", 1, "tracking_id"),
        (personal.expose(), 1, "tracking_id"),
        ("ann", 0, "expires_in_hours"),
        ("ann", 720 * 3_600_000 + 1, "expires_in_hours"),
    ] {
        let created = claim_links::create(&h.cx, &h.ops, h.hosting.secret(), &h.org, &h.server, label, lifetime).await;
        assert_eq!(created.unwrap_err().details["field"], field, "{label} {lifetime}");
    }
    assert_eq!(h.count_events("claim_link.create").await, 0);
}

/// A leaked link: after the claim is undone, earlier links no longer work, but a new one does.
async fn undoing_a_claim_invalidates_earlier_links(h: HostedTest) {
    let tracked = Credentials::Tracking("customer-7".into());
    h.select(&tracked).await.unwrap();
    h.advance(&tracked).await.unwrap();
    h.set_auth_type(AuthType::PlatformOauth).await;
    let (anna, bert) = (h.create_user("anna").await, h.create_user("bert").await);
    let server = h.offers().await.server.clone();
    let claim = |user: &Subject, claim: ProgressClaim| {
        let (h, server, user) = (&h, &server, user.end_user_id.clone());
        async move { joins::claim_progress(&h.cx, &h.hosting, server, &user, &claim).await.unwrap() }
    };
    let verify = async |segment: &str| joins::verify_claim(&h.cx, &h.hosting, &server, segment).await.unwrap();
    let leaked = create_link(&h, "customer-7").await;
    // Bert has presented the link and has not consented yet.
    let open_request = verify(&leaked).await.unwrap();
    let join = claim(&bert, open_request.clone()).await.unwrap();
    h.clock.advance(1_000);
    joins::undo(&h.cx, &h.ops, &h.org, &join).await.unwrap();
    h.clock.advance(1_000);
    assert_eq!(verify(&leaked).await, None);
    for user in [&anna, &bert] {
        assert_eq!(claim(user, open_request.clone()).await, None, "an earlier request");
        assert!(!joins::is_claimable(&h.cx, &h.hosting, &server, &open_request).await.unwrap());
    }
    let fresh = create_link(&h, "customer-7").await;
    let fresh = verify(&fresh).await.unwrap();
    let unsigned = ProgressClaim { issued_at: None, ..fresh.clone() };
    assert!(!joins::is_claimable(&h.cx, &h.hosting, &server, &unsigned).await.unwrap());
    assert_eq!(claim(&anna, unsigned).await, None, "a label requires a link");
    assert!(claim(&anna, fresh).await.is_some());
    assert_eq!((h.count_completed(&with_token(&anna)).await, h.count_completed(&with_token(&bert)).await), (1, 0));
    let listed = joins::list_page(&h.cx, &h.ops, &h.org, None, 1).await.unwrap();
    assert_eq!((listed.len(), listed[0].tracking_id.as_deref()), (1, Some("customer-7")));
    assert_eq!(listed[0].join.to_end_user_id, anna.end_user_id);
    let older = joins::list_page(&h.cx, &h.ops, &h.org, Some(&listed[0].join.id), 5).await.unwrap();
    assert_eq!(older.iter().map(|summary| &summary.join.id).collect::<Vec<_>>(), [&join]);
}

waypost_testkit::both!(hosted =>
    a_handle_with_a_token_is_joined_once,
    only_one_of_two_concurrent_joins_succeeds,
    a_tracking_id_is_claimed_once,
);
waypost_testkit::both!(extended hosted =>
    the_progress_of_both_users_is_merged,
    unknown_and_read_only_credentials_are_ignored,
    only_a_token_identifies_users_on_a_server_with_sign_in,
    a_deleted_user_must_sign_in_again,
    no_progress_is_lost_during_a_join,
    an_undo_restores_both_users,
    an_undo_restores_random_progress,
    deleting_a_user_deletes_the_joined_users,
    a_late_undo_keeps_newer_progress,
    a_joined_session_starts_with_new_progress,
    a_label_can_only_be_claimed_with_a_signed_link,
    links_require_a_label_and_a_limited_lifetime,
    undoing_a_claim_invalidates_earlier_links,
);
