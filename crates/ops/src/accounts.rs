//! Sign-in of end users with Waypost accounts: with a code by email or with a password.
//!
//! Nothing here reveals whether an email address has an account: codes are sent to any email address, the first correct
//! code creates the account, and a password sign-in without an account fails like one with a wrong password, at the
//! same cost in statements and hashes. Attempts are limited as described in [`crate::sign_in_limits`].

use std::fmt;
use std::net::IpAddr;

use serde_json::json;
use waypost_core::access::{Operation, authorize};
use waypost_core::account::{Account, CodePurpose, ISSUER};
use waypost_core::authorization::AuthorizationRequest;
use waypost_core::caller::Ctx;
use waypost_core::id::{AccountId, EmailCodeId, OrganizationId};
use waypost_core::secret::SecretKey;
use waypost_core::{Error, Result, email};
pub use waypost_store::email_code::PendingCode;
use waypost_store::email_code::{CodeCheck, CodeProof, EmailCodeKey, NewEmailCode};
use waypost_store::identity::Identity;
use waypost_store::{
    Tx, account as store, browser_session, email_code, identity, oauth_grant, organization, sign_in_attempt,
};

use crate::Ops;
use crate::audit::{Entry, record};
use crate::authorizations::organization_of;
use crate::browser_sessions;
use crate::codes;
use crate::devices::{self, Device};
use crate::identities::{self, Claims, EndUserIdentity};
use crate::passwords::ChosenPassword;
use crate::sign_in_limits::{ACCOUNT_LIMIT, Attempt, AttemptKind, CountedAttempt, account_limit_error, slot};
use crate::user_accounts::wrong_password;

/// The accounts of end users.
#[derive(Clone)]
pub struct Accounts {
    ops: Ops,
    secret: SecretKey,
}

/// The origin of a sign-in attempt.
#[derive(Debug, Clone, Copy)]
pub struct SignInClient<'a> {
    /// The client's IP address.
    pub address: IpAddr,
    /// The value of the device cookie ([`crate::devices`]). Empty if there is none.
    pub device: &'a str,
}

/// An email address and a password, as entered.
#[derive(Clone, Copy)]
pub struct PasswordSignIn<'a> {
    /// The email address.
    pub email: &'a str,
    /// The password.
    pub password: &'a str,
}

/// A request for a code.
#[derive(Clone, Copy)]
pub struct CodeRequest<'a> {
    /// The entered email address.
    pub email: &'a str,
    /// The purpose of the code.
    pub purpose: CodePurpose,
    /// The password to set once the code verifies the email address.
    pub password: Option<&'a str>,
}

/// A new code to be sent.
pub struct IssuedCode {
    /// The ID of the code, which is not secret.
    pub id: EmailCodeId,
    /// The code: 8 digits.
    pub code: String,
    /// The recipient.
    pub email: String,
    /// Whether the email address has an account. Use it only in the email, never on a page.
    pub has_account: bool,
    /// The name of the organisation.
    pub organization: String,
}

/// A code that a user has entered.
#[derive(Clone, Copy)]
pub struct CodeEntry<'a> {
    /// The ID of the code.
    pub id: &'a str,
    /// The code, as entered.
    pub code: &'a str,
    /// The new password, if the code is for a reset.
    pub new_password: Option<&'a str>,
}

/// A new session.
pub struct NewSession {
    /// The end user and their identity.
    pub signed_in: EndUserIdentity,
    /// The value of the session cookie.
    pub token: String,
    /// The value of the device cookie ([`crate::devices`]).
    pub device: String,
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Accounts")
    }
}

/// Omits the code.
impl fmt::Debug for IssuedCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedCode").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Omits the token.
impl fmt::Debug for NewSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewSession").field("signed_in", &self.signed_in).finish_non_exhaustive()
    }
}

impl Accounts {
    /// Creates the account operations on the database of `ops`. Their limits are shared by the whole process; codes and
    /// device cookies depend on `secret`.
    #[must_use]
    pub fn new(ops: Ops, secret: SecretKey) -> Self {
        Self { ops, secret }
    }

    /// Whether a browser has signed in to an account of this email address before, according to its cookie. The
    /// password may have been changed since. Does not query the database.
    #[must_use]
    pub fn is_known_browser(&self, cx: &Ctx, org: &OrganizationId, address: &str, device: &str) -> bool {
        devices::read(&self.secret, &scope(org, &email::key(address)), device, cx.now()).is_some()
    }

    /// Creates a code for an email address, to be entered in the browser of `request`.
    ///
    /// # Errors
    /// `invalid_arguments` with `email` or `password`; `rate_limited` if the client address or the account has made too
    /// many attempts, or too many passwords are being hashed; `unavailable` if the database cannot be reached.
    pub async fn create_code(
        &self,
        cx: &Ctx,
        request: &AuthorizationRequest,
        request_code: CodeRequest<'_>,
        client: SignInClient<'_>,
    ) -> Result<IssuedCode> {
        let org = organization_of(request)?;
        authorize(&cx.caller, Operation::EndUserSignIn, org)?;
        let email = email::parse(request_code.email)?;
        let admitted = self.admit(cx, org, &email.key, AttemptKind::Code, client).await?;
        if admitted.is_limited {
            return Err(account_limit_error(AttemptKind::Code));
        }
        let organization = self.organization_name(org).await?;
        let password_hash = match request_code.password {
            Some(password) => {
                let chosen = ChosenPassword { field: "password", password };
                match self.hash(cx, client.address, chosen, &email.address, &organization).await {
                    Ok(hash) => Some(hash),
                    Err(error) => {
                        // No code is created.
                        admitted.counted.refund();
                        return Err(error);
                    }
                }
            }
            None => None,
        };
        let now = cx.now();
        let id = EmailCodeId::new(now, &*cx.random);
        let code = codes::generate(&*cx.random);
        let row = NewEmailCode {
            id: &id,
            organization: org,
            request: &request.id,
            email: &email.address,
            email_key: &email.key,
            purpose: request_code.purpose,
            code_hash: &codes::hash(&self.secret, &id, &code),
            password_hash: password_hash.as_deref(),
            created_at: now,
            expires_at: now.plus(codes::LIFETIME_MS),
        };
        let mut tx = self.ops.store.begin().await?;
        sign_in_attempt::increment(&mut tx, &self.slot(AttemptKind::Code, org, &email.key), now).await?;
        email_code::insert(&mut tx, &row).await?;
        tx.commit().await?;
        let has_account = admitted.account.is_some();
        Ok(IssuedCode { id, code, email: email.address, has_account, organization })
    }

    /// Returns the purpose and the recipient of a code of `request` that can still be entered.
    ///
    /// # Errors
    /// `invalid_arguments` with `code` if it can no longer be entered.
    pub async fn get_code(&self, cx: &Ctx, request: &AuthorizationRequest, id: &str) -> Result<PendingCode> {
        let organization = organization_of(request)?;
        authorize(&cx.caller, Operation::EndUserSignIn, organization)?;
        let id = id.parse().map_err(|_| codes::unusable_code())?;
        let key = EmailCodeKey { organization, request: &request.id, id: &id };
        email_code::find_pending(&mut self.ops.store.read().await?, key, cx.now())
            .await?
            .ok_or_else(codes::unusable_code)
    }

    /// Signs in with a code, which verifies the email address. If the address has no account, an account is created. A
    /// new password, if there is one, is set and signs the account out of every other browser. A correct code is
    /// accepted regardless of the limits by client address and account; an incorrect one counts as a failed sign-in
    /// from the client address `client`.
    ///
    /// # Errors
    /// `invalid_arguments` with `code` if it is incorrect, used, expired, or belongs to another request, and with
    /// `new_password` if the password is not accepted, in which case the code can still be used.
    pub async fn sign_in_with_code(
        &self,
        cx: &Ctx,
        request: &AuthorizationRequest,
        entry: CodeEntry<'_>,
        client: IpAddr,
    ) -> Result<NewSession> {
        let org = organization_of(request)?;
        let code = codes::parse(entry.code)?;
        let count = |account: &str| {
            let attempt = Attempt { kind: AttemptKind::Password, address: client, account };
            self.ops.sign_in_limits.count_attempt(attempt, None, cx.now()).is_ok()
        };
        let open = match self.get_code(cx, request, entry.id).await {
            Err(error) => {
                count("");
                return Err(error);
            }
            Ok(open) => open,
        };
        let id = entry.id.parse().map_err(|_| codes::unusable_code())?;
        let key = EmailCodeKey { organization: org, request: &request.id, id: &id };
        let code_hash = codes::hash(&self.secret, &id, &code);
        // A password is hashed only for a correct code.
        let is_correct = email_code::is_correct(&mut self.ops.store.read().await?, key, &code_hash, cx.now()).await?;
        let organization = self.organization_name(org).await?;
        let new_hash = match (open.purpose, entry.new_password) {
            (CodePurpose::Reset, Some(password)) if is_correct => {
                let chosen = ChosenPassword { field: "new_password", password };
                Some(self.hash(cx, client, chosen, &open.email, &organization).await?)
            }
            (CodePurpose::Reset, Some(_)) => None,
            (CodePurpose::Reset, None) => return Err(Error::invalid("new_password", "Enter a new password.")),
            (CodePurpose::SignIn | CodePurpose::SignUp, _) => None,
        };
        let mut tx = self.ops.store.begin().await?;
        let tried = email_code::verify(&mut tx, key, &code_hash, cx.now()).await?;
        let proof = match tried {
            CodeCheck::Accepted(proof) => proof,
            CodeCheck::Rejected { attempts_left: left } => {
                // The attempt counts.
                tx.commit().await?;
                count(&scope(org, &email::key(&open.email)));
                return Err(codes::wrong_code(left));
            }
            CodeCheck::Invalid => return Err(codes::unusable_code()),
        };
        if open.purpose == CodePurpose::Reset && new_hash.is_none() {
            // Nothing is committed, so the code can still be used.
            return Err(codes::unusable_code());
        }
        let account = find_or_create(cx, &mut tx, org, &proof).await?;
        if let Some(hash) = new_hash.or_else(|| proof.password_hash.clone()) {
            set_password(cx, &mut tx, &account, &hash).await?;
        }
        let session = self.sign_in(cx, &mut tx, &account).await?;
        tx.commit().await?;
        Ok(session)
    }

    /// Signs in with a password. A failure costs the same statements and hashes whether or not the email address has an
    /// account.
    ///
    /// # Errors
    /// `invalid_arguments` with `email` if it is malformed, and with `password` if the email address or password is
    /// incorrect; `rate_limited`, with `retry_after_seconds`, after too many failures, or if too many passwords are
    /// being hashed; `unavailable` if the database cannot be reached.
    pub async fn sign_in_with_password(
        &self,
        cx: &Ctx,
        org: &OrganizationId,
        credentials: PasswordSignIn<'_>,
        client: SignInClient<'_>,
    ) -> Result<NewSession> {
        authorize(&cx.caller, Operation::EndUserSignIn, org)?;
        let email = email::parse(credentials.email)?;
        let Admission { account, counted, is_limited } =
            self.admit(cx, org, &email.key, AttemptKind::Password, client).await?;
        let mut is_correct = false;
        if !is_limited {
            let hash = account.as_ref().and_then(|account| account.password_hash.as_deref());
            is_correct = match self.ops.passwords.verify(client.address, credentials.password, hash).await {
                Ok(is_correct) => is_correct,
                Err(error) => {
                    // Nothing was verified.
                    counted.refund();
                    return Err(error);
                }
            };
        }
        let mut tx = self.ops.store.begin().await?;
        let Some(account) = account.filter(|_| is_correct) else {
            sign_in_attempt::increment(&mut tx, &self.slot(AttemptKind::Password, org, &email.key), cx.now()).await?;
            tx.commit().await?;
            return Err(if is_limited { account_limit_error(AttemptKind::Password) } else { wrong_password() });
        };
        let now = store::find_by_email(&mut tx, org, &email.key).await?;
        if now.is_none_or(|now| now.password_hash != account.password_hash) {
            // The password was changed in the meantime.
            return Err(wrong_password());
        }
        let session = self.sign_in(cx, &mut tx, &account).await?;
        tx.commit().await?;
        counted.refund();
        Ok(session)
    }

    /// Counts an attempt before anything is checked. Returns it with the account of the email address.
    async fn admit(
        &self,
        cx: &Ctx,
        org: &OrganizationId,
        email_key: &str,
        kind: AttemptKind,
        client: SignInClient<'_>,
    ) -> Result<Admission> {
        let scope = scope(org, email_key);
        let attempt = Attempt { kind, address: client.address, account: &scope };
        let begin = |device: Option<&Device>| self.ops.sign_in_limits.count_attempt(attempt, device, cx.now());
        let claimed = devices::read(&self.secret, &scope, client.device, cx.now());
        let early = if claimed.is_none() { Some(begin(None)?) } else { None };
        let mut conn = self.ops.store.read().await?;
        let account = store::find_by_email(&mut conn, org, email_key).await?;
        let attempts = sign_in_attempt::count(&mut conn, &self.slot(kind, org, email_key), cx.now()).await?;
        drop(conn);
        let is_current = |device: &Device| {
            account.as_ref().is_some_and(|account| device.is_current(&self.secret, account.password_hash.as_deref()))
        };
        let counted = match early {
            Some(counted) => counted,
            None => begin(claimed.filter(is_current).as_ref())?,
        };
        let is_limited = attempts >= ACCOUNT_LIMIT && !counted.is_from_device();
        Ok(Admission { account, counted, is_limited })
    }

    /// Creates a session for an account whose owner has just authenticated.
    async fn sign_in(&self, cx: &Ctx, tx: &mut Tx, account: &Account) -> Result<NewSession> {
        let claims = Claims {
            issuer: ISSUER.to_owned(),
            subject: account.id.as_str().to_owned(),
            email: Some(account.email.clone()),
            email_verified: true,
            name: None,
            picture_url: None,
        };
        let org = &account.organization_id;
        let signed_in = identities::sign_in(cx, tx, org, &claims, false).await?;
        let token = browser_sessions::create(cx, tx, org, &signed_in).await?;
        let current = store::find_by_email(tx, org, &email::key(&account.email)).await?;
        let password_hash = current.and_then(|account| account.password_hash);
        let scope = scope(org, &email::key(&account.email));
        let device = devices::issue(&self.secret, &*cx.random, &scope, password_hash.as_deref(), cx.now());
        Ok(NewSession { signed_in, token, device })
    }

    fn slot(&self, kind: AttemptKind, org: &OrganizationId, email_key: &str) -> String {
        slot(&self.secret, kind, &scope(org, email_key))
    }

    async fn hash(
        &self,
        cx: &Ctx,
        client: IpAddr,
        password: ChosenPassword<'_>,
        address: &str,
        organization: &str,
    ) -> Result<String> {
        let local = address.split('@').next().unwrap_or_default();
        self.ops.passwords.hash(&*cx.random, client, password, &[address, local, organization, "waypost"]).await
    }

    async fn organization_name(&self, org: &OrganizationId) -> Result<String> {
        let organization = organization::find(&mut self.ops.store.read().await?, org).await?;
        Ok(organization.ok_or_else(|| Error::not_found("organisation"))?.name)
    }
}

/// A counted attempt with the account of its email address.
struct Admission {
    account: Option<Account>,
    counted: CountedAttempt,
    /// Whether the account has reached its daily limit, which does not apply to known browsers.
    is_limited: bool,
}

/// Returns the key by which limits and cookies identify an end user's account in an organisation. It contains a space,
/// so it never equals the email address of a console user.
fn scope(org: &OrganizationId, email_key: &str) -> String {
    format!("{org} {email_key}")
}

async fn find_or_create(cx: &Ctx, tx: &mut Tx, org: &OrganizationId, proof: &CodeProof) -> Result<Account> {
    if let Some(account) = store::find_by_email(tx, org, &proof.email_key).await? {
        return Ok(account);
    }
    let account = Account {
        id: AccountId::new(&*cx.random),
        organization_id: org.clone(),
        email: proof.email.clone(),
        password_hash: None,
        created_at: cx.now(),
    };
    if store::insert(tx, &account, &proof.email_key).await? {
        let detail = json!({ "purpose": proof.purpose.as_str() });
        record(cx, tx, org, Entry { action: "account.create", target: account.id.as_str(), detail }).await?;
        return Ok(account);
    }
    // The same email address was verified concurrently.
    let account = store::find_by_email(tx, org, &proof.email_key).await?;
    account.ok_or_else(|| Error::internal("an account exists but cannot be found"))
}

/// Sets a password and ends all sessions and grants, because someone who knew the old password may have created them.
async fn set_password(cx: &Ctx, tx: &mut Tx, account: &Account, hash: &str) -> Result<()> {
    let org = &account.organization_id;
    store::set_password(tx, org, &account.id, hash, cx.now()).await?;
    let identity = identity::find(tx, org, ISSUER, account.id.as_str()).await?;
    let mut ended = (0, 0);
    if let Some(Identity { end_user_id, .. }) = identity {
        let browsers = browser_session::delete_for_end_user(tx, org, &end_user_id).await?;
        let clients = oauth_grant::revoke_for_end_user(tx, org, &end_user_id, "new_password", cx.now()).await?;
        ended = (browsers, clients);
    }
    let detail = json!({ "first": account.password_hash.is_none(), "browsers": ended.0, "grants": ended.1 });
    record(cx, tx, org, Entry { action: "account.password", target: account.id.as_str(), detail }).await
}
