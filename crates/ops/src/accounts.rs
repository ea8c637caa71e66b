//! Signing in with Waypost's own accounts: by a code that comes by mail, or by a password.
//!
//! Nothing here tells whether an address has an account. Codes go to every address, the first right one makes the
//! account, and an address without one is refused, and locked, like one with a wrong password.

use std::fmt;

use serde_json::json;
use waypost_core::access::{Act, authorize};
use waypost_core::account::{Account, CodePurpose, ISSUER};
use waypost_core::authorization::AuthorizationRequest;
use waypost_core::caller::Ctx;
use waypost_core::id::{AccountId, EmailCodeId, OrganizationId};
use waypost_core::secret::SecretKey;
use waypost_core::{Error, Result, email};
pub use waypost_store::email_code::Open;
use waypost_store::email_code::{Key, NewCode, Proof, Tried};
use waypost_store::identity::Identity;
use waypost_store::{Tx, account as store, browser_session, email_code, identity, oauth_grant, organization};

use crate::Ops;
use crate::audit::{Entry, record};
use crate::browser_sessions;
use crate::codes;
use crate::identities::{self, Claims, SignedIn};
use crate::passwords::Passwords;
use crate::tries::{self, Strangers};

/// A code can be entered this long.
pub const CODE_LIFETIME_MS: i64 = 10 * 60 * 1_000;

/// Signing in with the accounts of this installation.
#[derive(Clone)]
pub struct Accounts {
    ops: Ops,
    secret: SecretKey,
    passwords: Passwords,
    strangers: Strangers<(OrganizationId, String)>,
}

/// What somebody asked for on a page.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The address that they typed.
    pub email: &'a str,
    /// What the code shall be for.
    pub purpose: CodePurpose,
    /// The password to set when the code proves the address.
    pub password: Option<&'a str>,
}

/// A code that was made, to be sent.
pub struct Made {
    /// The code's id: no secret.
    pub id: EmailCodeId,
    /// The code: 8 digits.
    pub code: String,
    /// Where it goes.
    pub email: String,
    /// Whether the address has an account: for the mail, never for the page.
    pub has_account: bool,
    /// The name of the organisation.
    pub organization: String,
}

/// What somebody entered.
#[derive(Clone, Copy)]
pub struct Entered<'a> {
    /// Which code it should be: the id that the page got.
    pub id: &'a str,
    /// The code, as it was typed.
    pub code: &'a str,
    /// A new password to set.
    pub new_password: Option<&'a str>,
}

/// Somebody has signed in.
pub struct Session {
    /// Who.
    pub signed_in: SignedIn,
    /// The value of the session's cookie.
    pub token: String,
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Accounts")
    }
}

/// Never shows the code.
impl fmt::Debug for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Made").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Never shows the token.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("signed_in", &self.signed_in).finish_non_exhaustive()
    }
}

impl Accounts {
    /// Accounts on the database of `ops`; codes are hashed with `secret`. One for the whole process: it counts how many
    /// passwords are hashed at once.
    #[must_use]
    pub fn new(ops: Ops, secret: SecretKey) -> Self {
        Self { ops, secret, passwords: Passwords::default(), strangers: Strangers::default() }
    }

    /// Makes a code for an address, to be entered in the browser of `request`.
    ///
    /// # Errors
    /// `invalid_arguments` naming `email` or `password`; `rate_limited` when the address had its codes for this hour;
    /// `unavailable` when the database is away, or too many passwords are being hashed.
    pub async fn make_code(&self, cx: &Ctx, request: &AuthorizationRequest, asked: Asked<'_>) -> Result<Made> {
        let org = &request.organization_id;
        authorize(&cx.caller, Act::EndUserSignIn, org)?;
        let email = email::parse(asked.email)?;
        let organization = self.organization_name(org).await?;
        let password_hash = match asked.password {
            Some(password) => Some(self.hash(cx, "password", password, (&email.address, &organization)).await?),
            None => None,
        };
        let now = cx.now();
        let id = EmailCodeId::new(now, &*cx.random);
        let code = codes::new(&*cx.random);
        let row = NewCode {
            id: &id,
            organization: org,
            request: &request.id,
            email: &email.address,
            email_key: &email.key,
            purpose: asked.purpose,
            code_hash: &codes::hash(&self.secret, &id, &code),
            password_hash: password_hash.as_deref(),
            created_at: now,
            expires_at: now.plus(CODE_LIFETIME_MS),
        };
        let mut tx = self.ops.db.begin().await?;
        if !email_code::insert(&mut tx, &row).await? {
            return Err(codes::too_many());
        }
        let has_account = store::find_by_email(&mut tx, org, &email.key).await?.is_some();
        tx.commit().await?;
        Ok(Made { id, code, email: email.address, has_account, organization })
    }

    /// What a code of `request` is for, and where it was sent, while it can be entered.
    ///
    /// # Errors
    /// `invalid_arguments` naming `code` when it cannot be entered any more.
    pub async fn find_code(&self, cx: &Ctx, request: &AuthorizationRequest, id: &str) -> Result<Open> {
        authorize(&cx.caller, Act::EndUserSignIn, &request.organization_id)?;
        let id = id.parse().map_err(|_| codes::gone())?;
        let key = Key { organization: &request.organization_id, request: &request.id, id: &id };
        email_code::find_open(&mut self.ops.db.read().await?, key, cx.now()).await?.ok_or_else(codes::gone)
    }

    /// Signs in with a code: the address is proved by it, gets an account if it has none, and the new password if there
    /// is one. Every other browser of the account is signed out by a new password.
    ///
    /// # Errors
    /// `invalid_arguments` naming `code` when it is wrong, used up, expired, or was sent for another request, and
    /// naming `new_password` when that cannot be taken: then the code can still be entered.
    pub async fn enter_code(&self, cx: &Ctx, request: &AuthorizationRequest, entered: Entered<'_>) -> Result<Session> {
        let org = &request.organization_id;
        let open = self.find_code(cx, request, entered.id).await?;
        let code = codes::read(entered.code)?;
        let id = entered.id.parse().map_err(|_| codes::gone())?;
        let organization = self.organization_name(org).await?;
        let new_hash = match (open.purpose, entered.new_password) {
            (CodePurpose::Reset, Some(password)) => {
                Some(self.hash(cx, "new_password", password, (&open.email, &organization)).await?)
            }
            (CodePurpose::Reset, None) => return Err(Error::invalid("new_password", "Type a new password.")),
            (CodePurpose::SignIn | CodePurpose::SignUp, _) => None,
        };
        let key = Key { organization: org, request: &request.id, id: &id };
        let mut tx = self.ops.db.begin().await?;
        let tried = email_code::enter(&mut tx, key, &codes::hash(&self.secret, &id, &code), cx.now()).await?;
        let proof = match tried {
            Tried::Right(proof) => proof,
            Tried::Wrong { left } => {
                // The try counts.
                tx.commit().await?;
                return Err(codes::wrong(left));
            }
            Tried::Gone => return Err(codes::gone()),
        };
        let account = find_or_create(cx, &mut tx, org, &proof).await?;
        store::unlock(&mut tx, org, &account.id, cx.now()).await?;
        if let Some(hash) = new_hash.or_else(|| proof.password_hash.clone()) {
            set_password(cx, &mut tx, &account, &hash).await?;
        }
        let session = sign_in(cx, &mut tx, &account).await?;
        tx.commit().await?;
        Ok(session)
    }

    /// Signs in with a password.
    ///
    /// # Errors
    /// `invalid_arguments` naming `email` when that is no address, and `password` when one of the two is wrong;
    /// `rate_limited`, with `retry_after_seconds`, after too many wrong ones; `unavailable` when the database is away,
    /// or too many passwords are being hashed.
    pub async fn enter_password(
        &self,
        cx: &Ctx,
        org: &OrganizationId,
        address: &str,
        password: &str,
    ) -> Result<Session> {
        authorize(&cx.caller, Act::EndUserSignIn, org)?;
        let email = email::parse(address)?;
        let account = store::find_by_email(&mut self.ops.db.read().await?, org, &email.key).await?;
        match &account {
            Some(account) => self.begin_try(cx, account).await?,
            None => self.strangers.begin_try((org.clone(), email.key.clone()), cx.now())?,
        }
        let hash = account.as_ref().and_then(|account| account.password_hash.as_deref());
        let right = self.passwords.verify(password, hash).await?;
        let Some(account) = account.filter(|_| right) else { return Err(tries::wrong()) };
        let mut tx = self.ops.db.begin().await?;
        let now = store::find_by_email(&mut tx, org, &email.key).await?;
        if now.is_none_or(|now| now.password_hash != account.password_hash) {
            // It was changed while we looked at it.
            return Err(tries::wrong());
        }
        store::unlock(&mut tx, org, &account.id, cx.now()).await?;
        let session = sign_in(cx, &mut tx, &account).await?;
        tx.commit().await?;
        Ok(session)
    }

    /// Counts a try before it is made, and locks the account when it was the last one.
    async fn begin_try(&self, cx: &Ctx, account: &Account) -> Result<()> {
        let (org, now) = (&account.organization_id, cx.now());
        let mut tx = self.ops.db.begin().await?;
        let Some(failures) = store::begin_try(&mut tx, org, &account.id, now).await? else {
            return Err(tries::locked(account.locked_until.unwrap_or(now), now));
        };
        if let Some(duration) = tries::lock_ms(failures) {
            store::lock(&mut tx, org, &account.id, now.plus(duration)).await?;
            let detail = json!({ "failures": failures, "seconds": duration / 1_000 });
            let entry = Entry { act: "account.lock", target: account.id.as_str(), detail };
            record(cx, &mut tx, org, entry).await?;
        }
        Ok(tx.commit().await?)
    }

    async fn hash(
        &self,
        cx: &Ctx,
        field: &'static str,
        password: &str,
        (address, organization): (&str, &str),
    ) -> Result<String> {
        let local = address.split('@').next().unwrap_or_default();
        self.passwords.hash(&*cx.random, field, password, &[address, local, organization, "waypost"]).await
    }

    async fn organization_name(&self, org: &OrganizationId) -> Result<String> {
        let organization = organization::get(&mut self.ops.db.read().await?, org).await?;
        Ok(organization.ok_or_else(|| Error::not_found("organisation"))?.name)
    }
}

async fn find_or_create(cx: &Ctx, tx: &mut Tx, org: &OrganizationId, proof: &Proof) -> Result<Account> {
    if let Some(account) = store::find_by_email(tx, org, &proof.email_key).await? {
        return Ok(account);
    }
    let account = Account {
        id: AccountId::new(&*cx.random),
        organization_id: org.clone(),
        email: proof.email.clone(),
        password_hash: None,
        locked_until: None,
        created_at: cx.now(),
    };
    if store::insert(tx, &account, &proof.email_key).await? {
        let detail = json!({ "purpose": proof.purpose.as_str() });
        record(cx, tx, org, Entry { act: "account.create", target: account.id.as_str(), detail }).await?;
        return Ok(account);
    }
    // Somebody else has just proved the same address.
    let account = store::find_by_email(tx, org, &proof.email_key).await?;
    account.ok_or_else(|| Error::internal("an account is there and cannot be found"))
}

/// Sets a password, and ends what whoever knew the old one may have begun.
async fn set_password(cx: &Ctx, tx: &mut Tx, account: &Account, hash: &str) -> Result<()> {
    let org = &account.organization_id;
    store::set_password(tx, org, &account.id, hash, cx.now()).await?;
    let identity = identity::find(tx, org, ISSUER, account.id.as_str()).await?;
    let mut ended = (0, 0);
    if let Some(Identity { end_user_id, .. }) = identity {
        let browsers = browser_session::delete_of_end_user(tx, org, &end_user_id).await?;
        let clients = oauth_grant::revoke_of_end_user(tx, org, &end_user_id, "new_password", cx.now()).await?;
        ended = (browsers, clients);
    }
    let detail = json!({ "first": account.password_hash.is_none(), "browsers": ended.0, "grants": ended.1 });
    record(cx, tx, org, Entry { act: "account.password", target: account.id.as_str(), detail }).await
}

async fn sign_in(cx: &Ctx, tx: &mut Tx, account: &Account) -> Result<Session> {
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
    Ok(Session { signed_in, token })
}
