//! Tests of the sign-in of console users.

mod codes;
mod invitations;
mod limits;
mod own;
mod passwords;
mod random;
mod separation;
mod sign_ins;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use waypost_core::account::CodePurpose;
use waypost_core::caller::{Caller, Ctx};
use waypost_core::clock::ManualClock;
use waypost_core::id::{OrganizationId, UserId};
use waypost_core::organization::{Role, SignUpPolicy};
use waypost_core::secret::SecretKey;
use waypost_core::{Error, Result, Timestamp};
use waypost_ops::user_accounts::{
    AccountDetails, IssuedUserCode, NewUserSession, UserAccounts, UserCodeEntry, UserCodeRequest, UserPasswordSignIn,
    create_account_link,
};
use waypost_ops::user_sessions::{self, Browser};
use waypost_ops::{organizations, users};
use waypost_store::audit;

use crate::fixture::{self, Fixture};

pub const PASSWORD: &str = "quartz-banjo-umbrella-42";
pub const OTHER_PASSWORD: &str = "walnut.tractor.opera.19";
pub const MINUTE: i64 = 60_000;
pub const DEVICE: Browser<'_> =
    Browser { user_agent: "Test\r\nSet-Cookie: x", address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)), device: "" };

/// Returns a browser with the client address number `n`.
pub fn at(n: u32) -> Browser<'static> {
    Browser { address: Ipv4Addr::from(0x0a00_0000 + n).into(), ..DEVICE }
}

/// A test fixture for accounts of console users: an organisation without members, and a manual clock.
pub struct UserTest {
    pub fixture: Fixture,
    pub clock: Arc<ManualClock>,
    pub accounts: UserAccounts,
    pub org: OrganizationId,
}

/// Creates the fixture in the database at `url`. Sign-up is by invitation.
pub async fn set_up(url: &str) -> UserTest {
    let fixture = fixture::set_up(url).await;
    let clock = Arc::new(ManualClock::new(Timestamp(1_790_000_000_000)));
    let org = organizations::create(&fixture.cx, &fixture.ops, "acme", None).await.unwrap().id;
    let accounts = UserAccounts::new(fixture.ops.clone(), SecretKey::new([7; 32]), SignUpPolicy::Invite);
    UserTest { fixture, clock, accounts, org }
}

impl UserTest {
    /// Changes the sign-up policy.
    pub fn with_policy(self, sign_up: SignUpPolicy) -> Self {
        let accounts = UserAccounts::new(self.fixture.ops.clone(), SecretKey::new([7; 32]), sign_up);
        Self { accounts, ..self }
    }

    pub fn context(&self, caller: Caller) -> Ctx {
        Ctx { clock: self.clock.clone(), ..self.fixture.context(caller) }
    }

    /// Returns the context of a visitor who is not signed in.
    pub fn visitor_context(&self) -> Ctx {
        self.context(Caller::Visitor)
    }

    pub fn user_context(&self, id: &UserId) -> Ctx {
        self.context(Caller::User { user_id: id.clone() })
    }

    pub fn operator_context(&self) -> Ctx {
        self.context(Caller::Operator)
    }

    /// Creates a member who has never signed in.
    pub async fn create_member(&self, email: &str, role: Role) -> UserId {
        users::create(&self.operator_context(), &self.fixture.ops, &self.org, email, role).await.unwrap().user_id
    }

    /// Creates a member with this password and a verified email.
    pub async fn create_verified_member(&self, email: &str, role: Role, password: &str) -> NewUserSession {
        let session = self.create_unverified_member(email, role, password).await;
        let mut tx = self.fixture.ops.store().begin().await.unwrap();
        waypost_store::user::mark_verified(&mut tx, &session.user.id, self.visitor_context().now()).await.unwrap();
        tx.commit().await.unwrap();
        session
    }

    /// Creates a member with this password through an account link.
    pub async fn create_unverified_member(&self, email: &str, role: Role, password: &str) -> NewUserSession {
        let id = self.create_member(email, role).await;
        let link = create_account_link(&self.operator_context(), &self.fixture.ops, &self.org, &id).await.unwrap();
        let account_details = AccountDetails { name: "Anna", password };
        self.accounts.use_account_link(&self.visitor_context(), &link.token, account_details, DEVICE).await.unwrap()
    }

    pub async fn sign_in_with_password(&self, email: &str, password: &str) -> Result<NewUserSession> {
        self.sign_in_to_organization(email, password, "").await
    }

    /// Signs in from another browser.
    pub async fn sign_in_with_password_from(
        &self,
        browser: Browser<'_>,
        email: &str,
        password: &str,
    ) -> Result<NewUserSession> {
        let credentials = UserPasswordSignIn { email, password, organization: "" };
        self.accounts.sign_in_with_password(&self.visitor_context(), credentials, browser).await
    }

    /// Signs in to open an organisation.
    pub async fn sign_in_to_organization(
        &self,
        email: &str,
        password: &str,
        organization: &str,
    ) -> Result<NewUserSession> {
        self.accounts
            .sign_in_with_password(
                &self.visitor_context(),
                UserPasswordSignIn { email, password, organization },
                DEVICE,
            )
            .await
    }

    /// Signs in with a code by email.
    pub async fn sign_in_with_code(&self, email: &str) -> NewUserSession {
        let issued = self.request_code(email, CodePurpose::SignIn, None).await.unwrap();
        self.enter_code(issued.id.as_str(), &issued.code).await.unwrap()
    }

    /// Returns the slugs of the organisations that a session can access. Returns `None` if the session has ended.
    pub async fn list_accessible_slugs(&self, token: &str) -> Option<Vec<String>> {
        let (cx, ops) = (self.visitor_context(), &self.fixture.ops);
        let session = user_sessions::find(&cx, ops, token).await.unwrap()?;
        let cx = self.user_context(&session.user_id);
        let memberships = user_sessions::list_memberships(&cx, ops).await.unwrap();
        Some(memberships.into_iter().map(|membership| membership.organization.slug).collect())
    }

    pub async fn request_code(
        &self,
        email: &str,
        purpose: CodePurpose,
        password: Option<&str>,
    ) -> Result<IssuedUserCode> {
        let request = UserCodeRequest { email, purpose, password, cookie: "browser" };
        self.accounts.create_code(&self.visitor_context(), request, DEVICE).await
    }

    /// Requests a sign-in code from another browser.
    pub async fn request_code_from(&self, browser: Browser<'_>, email: &str) -> Result<IssuedUserCode> {
        let request = UserCodeRequest { email, purpose: CodePurpose::SignIn, password: None, cookie: "browser" };
        self.accounts.create_code(&self.visitor_context(), request, browser).await
    }

    pub async fn enter_code(&self, id: &str, code: &str) -> Result<NewUserSession> {
        let entry = UserCodeEntry { id, code, cookie: "browser", name: "Berta", new_password: OTHER_PASSWORD };
        self.accounts.sign_in_with_code(&self.visitor_context(), entry, DEVICE).await
    }

    /// Whether a session is active.
    pub async fn is_active(&self, session: &NewUserSession) -> bool {
        user_sessions::find(&self.visitor_context(), &self.fixture.ops, &session.token).await.unwrap().is_some()
    }

    /// Returns the action and the actor of the audit events, oldest first.
    pub async fn list_events(&self) -> Vec<(String, String)> {
        let mut conn = self.fixture.ops.store().read().await.unwrap();
        let mut events = audit::list(&mut conn, &self.org, None, 1_000).await.unwrap();
        events.reverse();
        for event in &events {
            let text = format!("{event:?}");
            assert!(!text.contains(PASSWORD) && !text.contains(OTHER_PASSWORD) && !text.contains("argon"), "{text}");
        }
        events.into_iter().map(|event| (event.act, event.actor)).collect()
    }

    pub async fn count_events(&self, action: &str) -> usize {
        self.list_events().await.iter().filter(|(recorded, _)| recorded == action).count()
    }
}

#[track_caller]
pub fn assert_rejected<T: std::fmt::Debug>(result: Result<T>, field: &str, words: &str) -> Error {
    let error = result.unwrap_err();
    let named = error.details.get("field").and_then(|field| field.as_str()).unwrap_or_default();
    assert_eq!(named, field, "{error}");
    assert!(error.message.contains(words), "{error}");
    error
}
