//! Emailed codes to sign in, to create an account, or to set a new password. Each code is bound to the browser that
//! requested it.

use std::fmt;

use waypost_content::name;
use waypost_core::account::CodePurpose;
use waypost_core::caller::Ctx;
use waypost_core::email::{self, Email};
use waypost_core::id::{OrganizationId, UserCodeId};
use waypost_core::organization::SignUpPolicy;
use waypost_core::secret::hash;
use waypost_core::{Code, Error, Result};
use waypost_store::email_code::{CodeCheck, CodeProof, PendingCode};
use waypost_store::user_code::{self, NewUserCode, UserCodeKey};
use waypost_store::{Tx, system};

use super::limits::check_account;
use super::sign_ins::{self, SignInOrigin};
use super::verification::{VerifiedAccount, verify_address};
use super::{NewUserSession, UserAccounts, set_password};
use crate::codes;
use crate::passwords::ChosenPassword;
use crate::sign_in_limits::{Attempt, AttemptKind};
use crate::user_sessions::Browser;

pub(super) const CLOSED: &str = "Sign-up is closed on this installation.";

/// A request for a code.
#[derive(Clone, Copy)]
pub struct UserCodeRequest<'a> {
    /// The entered email address.
    pub email: &'a str,
    /// The purpose of the code.
    pub purpose: CodePurpose,
    /// The password to set once the code verifies the email address.
    pub password: Option<&'a str>,
    /// The cookie of the browser. The code can only be entered there.
    pub cookie: &'a str,
}

/// A new code to be sent.
pub struct IssuedUserCode {
    /// The ID of the code, which is not secret.
    pub id: UserCodeId,
    /// The code: 8 digits.
    pub code: String,
    /// The recipient.
    pub email: String,
    /// The purpose of the code.
    pub purpose: CodePurpose,
    /// Whether a user has this email address. Use it only in the email, never on a page.
    pub has_user: bool,
    /// An organisation of the user, for the email queue. Must not be shown on a page. `None` if the user has none.
    pub organization_id: Option<OrganizationId>,
}

/// Omits the code.
impl fmt::Debug for IssuedUserCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedUserCode").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A code that a user has entered.
#[derive(Clone, Copy)]
pub struct UserCodeEntry<'a> {
    /// The ID of the code.
    pub id: &'a str,
    /// The code, as entered.
    pub code: &'a str,
    /// The cookie of the browser.
    pub cookie: &'a str,
    /// The name of the new user. Used only for a sign-up.
    pub name: &'a str,
    /// The new password, if the code is for a reset.
    pub new_password: &'a str,
}

impl UserAccounts {
    /// Creates a code for an email address, whether or not a user has it: both cases cost the same.
    ///
    /// # Errors
    /// `forbidden` for a sign-up if it is not open; `invalid_arguments` with `email` or `password`; `rate_limited` if
    /// the client address or the account has made too many attempts, or too many passwords are being hashed;
    /// `unavailable` if the database cannot be reached.
    pub async fn create_code(
        &self,
        cx: &Ctx,
        request: UserCodeRequest<'_>,
        browser: Browser<'_>,
    ) -> Result<IssuedUserCode> {
        if request.purpose == CodePurpose::SignUp {
            self.check_sign_up_open()?;
        }
        let email = email::parse(request.email)?;
        let admitted = self.admit(cx, &email.key, AttemptKind::Code, browser).await?;
        check_account(&admitted, AttemptKind::Code)?;
        let password_hash = match request.password {
            Some(password) => match self
                .hash(cx, browser.address, ChosenPassword { field: "password", password }, &email.address)
                .await
            {
                Ok(hash) => Some(hash),
                Err(error) => {
                    // No code is created.
                    admitted.counted.refund();
                    return Err(error);
                }
            },
            None => None,
        };
        let now = cx.now();
        let id = UserCodeId::new(now, &*cx.random);
        let code = codes::generate(&*cx.random);
        let row = NewUserCode {
            id: &id,
            email: &email.address,
            email_key: &email.key,
            purpose: request.purpose,
            browser_hash: &hash(request.cookie),
            code_hash: &codes::hash(&self.secret, &id, &code),
            password_hash: password_hash.as_deref(),
            created_at: now,
            expires_at: now.plus(codes::LIFETIME_MS),
        };
        let mut tx = self.ops.store.begin().await?;
        self.count(cx, &mut tx, AttemptKind::Code, &email.key).await?;
        user_code::insert(&mut tx, &row).await?;
        let organization_id = system::find_organization_by_email(&mut tx, &email.key).await?;
        tx.commit().await?;
        let has_user = !admitted.accounts.is_empty();
        Ok(IssuedUserCode { id, code, email: email.address, purpose: request.purpose, has_user, organization_id })
    }

    /// Checks that anyone may sign up.
    ///
    /// # Errors
    /// `forbidden` if sign-up is not open.
    pub fn check_sign_up_open(&self) -> Result<()> {
        let message = match self.sign_up {
            SignUpPolicy::Open => return Ok(()),
            SignUpPolicy::Invite => "Sign-up is by invitation only. Ask an owner of your organisation to invite you.",
            SignUpPolicy::Closed => CLOSED,
        };
        Err(Error::new(Code::Forbidden, message))
    }

    /// Returns the purpose and the recipient of a code that can be entered in the browser with `cookie`.
    ///
    /// # Errors
    /// `invalid_arguments` with `code` if it can no longer be entered, or not in this browser.
    pub async fn get_code(&self, cx: &Ctx, id: &str, cookie: &str) -> Result<PendingCode> {
        let id = id.parse().map_err(|_| codes::unusable_code())?;
        let key = UserCodeKey { id: &id, browser_hash: &hash(cookie) };
        user_code::find_pending(&mut self.ops.store.read().await?, key, cx.now())
            .await?
            .ok_or_else(codes::unusable_code)
    }

    /// Signs in with a code, which verifies the email address. A sign-up creates the user; a new password ends all
    /// earlier sessions. A correct code is accepted regardless of the limits by client address and account; an
    /// incorrect one counts as a failed sign-in.
    ///
    /// # Errors
    /// `invalid_arguments` with `code` if it is incorrect, used, expired, or was requested in another browser; with
    /// `name` or `new_password` if these are not valid, in which case the code can still be used.
    pub async fn sign_in_with_code(
        &self,
        cx: &Ctx,
        entry: UserCodeEntry<'_>,
        browser: Browser<'_>,
    ) -> Result<NewUserSession> {
        let code = codes::parse(entry.code)?;
        let open = match self.get_code(cx, entry.id, entry.cookie).await {
            Ok(open) => open,
            Err(error) if error.code == Code::InvalidArguments => {
                self.record_unusable_code(cx, entry.id, browser).await?;
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        let id = entry.id.parse().map_err(|_| codes::unusable_code())?;
        let key = UserCodeKey { id: &id, browser_hash: &hash(entry.cookie) };
        let code_hash = codes::hash(&self.secret, &id, &code);
        // A password is hashed only for a correct code.
        let is_correct = user_code::is_correct(&mut self.ops.store.read().await?, key, &code_hash, cx.now()).await?;
        let (mut name, mut new_hash) = (None, None);
        match open.purpose {
            CodePurpose::SignIn => {}
            CodePurpose::SignUp => name = Some(name::check("name", entry.name)?),
            CodePurpose::Reset if is_correct => {
                let password = ChosenPassword { field: "new_password", password: entry.new_password };
                new_hash = Some(self.hash(cx, browser.address, password, &open.email).await?);
            }
            CodePurpose::Reset => {}
        }
        let mut tx = self.ops.store.begin().await?;
        let tried = user_code::verify(&mut tx, key, &code_hash, cx.now()).await?;
        let mut proof = match tried {
            CodeCheck::Accepted(proof) => proof,
            CodeCheck::Rejected { attempts_left: left } => {
                // The attempt counts.
                let email_key = email::key(&open.email);
                sign_ins::record_failure(cx, &mut tx, &email_key, SignInOrigin { browser, by: "code" }).await?;
                tx.commit().await?;
                self.count_failure(cx, &email_key, browser);
                return Err(codes::wrong_code(left));
            }
            CodeCheck::Invalid => return Err(codes::unusable_code()),
        };
        if open.purpose == CodePurpose::Reset && new_hash.is_none() {
            // Nothing is committed, so the code can still be used.
            return Err(codes::unusable_code());
        }
        let password_hash = new_hash.or_else(|| proof.password_hash.take());
        let Some(VerifiedAccount { user, revoked }) = self.verify_proof(cx, &mut tx, &proof, name).await? else {
            // The code is consumed, although there is no account for it.
            tx.commit().await?;
            return Err(codes::unusable_code());
        };
        if let Some(hash) = password_hash {
            set_password(cx, &mut tx, &user, &hash, None).await?;
        }
        let session = self.sign_in(cx, &mut tx, &user, SignInOrigin { browser, by: "code" }).await?;
        tx.commit().await?;
        Ok(NewUserSession { revoked, ..session })
    }

    /// Records a failed sign-in with a code that cannot be used: it is used, expired, replaced, unknown, or bound to
    /// another browser. The failure is recorded for the accounts of the code's recipient; an unknown code has none.
    /// Beyond the limit of the client address, nothing is recorded.
    async fn record_unusable_code(&self, cx: &Ctx, id: &str, browser: Browser<'_>) -> Result<()> {
        if !self.count_failure(cx, "", browser) {
            return Ok(());
        }
        let mut tx = self.ops.store.begin().await?;
        let address = match id.parse() {
            Ok(id) => user_code::find_email_key(&mut tx, &id).await?,
            Err(_) => None,
        };
        if let Some(email_key) = address {
            sign_ins::record_failure(cx, &mut tx, &email_key, SignInOrigin { browser, by: "code" }).await?;
            tx.commit().await?;
        }
        Ok(())
    }

    /// Counts an incorrect code as a failed sign-in from the client address. Returns `false` if the limit was already
    /// reached.
    fn count_failure(&self, cx: &Ctx, account: &str, browser: Browser<'_>) -> bool {
        let attempt = Attempt { kind: AttemptKind::Password, address: browser.address, account };
        self.ops.sign_in_limits.count_attempt(attempt, None, cx.now()).is_ok()
    }

    /// Returns the account of the verified email address. Returns `None` if there is none and this code cannot create
    /// one.
    async fn verify_proof(
        &self,
        cx: &Ctx,
        tx: &mut Tx,
        proof: &CodeProof,
        name: Option<String>,
    ) -> Result<Option<VerifiedAccount>> {
        let email = Email { address: proof.email.clone(), key: proof.email_key.clone() };
        let create = name.is_some() && self.sign_up == SignUpPolicy::Open;
        verify_address(cx, tx, &email, name, create).await
    }
}
