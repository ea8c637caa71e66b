//! A test fixture for accounts of end users: two tenants and a manual clock.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use waypost_core::account::CodePurpose;
use waypost_core::audit::AuditEvent;
use waypost_core::authorization::AuthorizationRequest;
use waypost_core::caller::{Caller, Ctx};
use waypost_core::clock::ManualClock;
use waypost_core::id::{AuthorizationRequestId, OrganizationId};
use waypost_core::secret::SecretKey;
use waypost_core::{Result, Timestamp};
use waypost_ops::accounts::{Accounts, CodeEntry, CodeRequest, IssuedCode, NewSession, PasswordSignIn, SignInClient};
use waypost_ops::authorizations;
use waypost_store::audit;

use crate::fixture::{self, Fixture, Tenant};

pub const MINUTE: i64 = 60_000;
pub const CLIENT: SignInClient<'_> = SignInClient { address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)), device: "" };

/// Returns a client with the address number `n`.
pub fn at(n: u32) -> SignInClient<'static> {
    SignInClient { address: Ipv4Addr::from(0x0a00_0000 + n).into(), ..CLIENT }
}

/// Returns an authorization request on a tenant's server.
pub fn authorization_request(cx: &Ctx, tenant: &Tenant) -> AuthorizationRequest {
    let now = cx.now();
    AuthorizationRequest {
        id: AuthorizationRequestId::new(now, &*cx.random),
        issuer_id: (&tenant.server).into(),
        issuer: "https://way.example/s/one".into(),
        client_id: "client".into(),
        client_name: "Client".into(),
        redirect_uri: "http://127.0.0.1/cb".into(),
        state: None,
        scope: "walk".into(),
        resource: "https://way.example/s/one/mcp".into(),
        claim: None,
        code_challenge: "challenge".into(),
        prompt: None,
        login_hint: None,
        created_at: now,
        expires_at: now.plus(24 * 60 * MINUTE),
        consented_at: None,
    }
}

pub struct AccountTest {
    pub fixture: Fixture,
    pub clock: Arc<ManualClock>,
    pub accounts: Accounts,
    pub one: Tenant,
    pub two: Tenant,
}

pub async fn set_up_accounts(url: &str) -> AccountTest {
    let fixture = fixture::set_up(url).await;
    let (one, two) = (fixture.create_tenant("one").await, fixture.create_tenant("two").await);
    let accounts = Accounts::new(fixture.ops.clone(), SecretKey::new([7; 32]));
    AccountTest { fixture, clock: Arc::new(ManualClock::new(Timestamp(1_790_000_000_000))), accounts, one, two }
}

impl AccountTest {
    /// Returns the context of a browser on a tenant's server.
    pub fn client_context(&self, tenant: &Tenant) -> Ctx {
        let (organization_id, server_id) = (tenant.organization.id.clone(), tenant.server.id.clone());
        Ctx { clock: self.clock.clone(), ..self.fixture.context(Caller::Client { organization_id, server_id }) }
    }

    /// Creates an authorization request on a tenant's server.
    pub async fn create_request(&self, tenant: &Tenant) -> AuthorizationRequest {
        let request = authorization_request(&self.client_context(tenant), tenant);
        authorizations::create(&self.fixture.ops, &request, "browser", "network").await.unwrap();
        request
    }

    pub async fn request_code(
        &self,
        request: &AuthorizationRequest,
        code_request: CodeRequest<'_>,
    ) -> Result<IssuedCode> {
        let tenant =
            if request.issuer_id.organization_id() == Some(&self.one.organization.id) { &self.one } else { &self.two };
        self.accounts.create_code(&self.client_context(tenant), request, code_request, CLIENT).await
    }

    /// Requests a sign-in code from another client address.
    pub async fn request_code_from(&self, client: SignInClient<'_>, email: &str) -> Result<IssuedCode> {
        let request = self.create_request(&self.one).await;
        let code_request = CodeRequest { email, purpose: CodePurpose::SignIn, password: None };
        self.accounts.create_code(&self.client_context(&self.one), &request, code_request, client).await
    }

    /// Requests a sign-in code.
    pub async fn request_sign_in_code(&self, request: &AuthorizationRequest, email: &str) -> IssuedCode {
        self.request_code(request, CodeRequest { email, purpose: CodePurpose::SignIn, password: None }).await.unwrap()
    }

    pub async fn enter_code(&self, request: &AuthorizationRequest, id: &str, code: &str) -> Result<NewSession> {
        let entry = CodeEntry { id, code, new_password: None };
        self.accounts.sign_in_with_code(&self.client_context(&self.one), request, entry, CLIENT.address).await
    }

    /// Signs in with a code in the first tenant.
    pub async fn sign_in_with_code(&self, email: &str) -> NewSession {
        let request = self.create_request(&self.one).await;
        let issued = self.request_sign_in_code(&request, email).await;
        self.enter_code(&request, issued.id.as_str(), &issued.code).await.unwrap()
    }

    /// Creates an account with a password in the first tenant.
    pub async fn sign_up(&self, email: &str, password: &str) -> NewSession {
        let request = self.create_request(&self.one).await;
        let code_request = CodeRequest { email, purpose: CodePurpose::SignUp, password: Some(password) };
        let issued = self.request_code(&request, code_request).await.unwrap();
        self.enter_code(&request, issued.id.as_str(), &issued.code).await.unwrap()
    }

    pub async fn sign_in_with_password(&self, email: &str, password: &str) -> Result<NewSession> {
        self.sign_in_with_password_from(CLIENT, email, password).await
    }

    /// Signs in from another client address.
    pub async fn sign_in_with_password_from(
        &self,
        client: SignInClient<'_>,
        email: &str,
        password: &str,
    ) -> Result<NewSession> {
        let cx = self.client_context(&self.one);
        let credentials = PasswordSignIn { email, password };
        self.accounts.sign_in_with_password(&cx, &self.one.organization.id, credentials, client).await
    }

    /// Returns the audit events of an organisation, oldest first.
    pub async fn list_events(&self, organization: &OrganizationId) -> Vec<AuditEvent> {
        let mut conn = self.fixture.ops.store().read().await.unwrap();
        let mut events = audit::list(&mut conn, organization, None, 1_000).await.unwrap();
        events.reverse();
        events
    }

    /// Returns the number of audit events of the first tenant with this action.
    pub async fn count_events(&self, action: &str) -> usize {
        self.list_events(&self.one.organization.id).await.iter().filter(|event| event.act == action).count()
    }
}
