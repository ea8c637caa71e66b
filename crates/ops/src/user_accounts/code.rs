//! Codes by mail: to sign in, to make an account, to set a new password. Each belongs to the browser that asked for it.

use std::fmt;

use waypost_core::account::CodePurpose;
use waypost_core::caller::Ctx;
use waypost_core::email::{self, Email};
use waypost_core::id::{OrganizationId, UserCodeId};
use waypost_core::organization::SignUpPolicy;
use waypost_core::secret::hash;
use waypost_core::{Code, Error, Result, name};
use waypost_store::email_code::{CodeCheck, CodeProof, PendingCode};
use waypost_store::user_code::{self, NewUserCode, UserCodeKey};
use waypost_store::{Tx, system};

use super::limits::check_account;
use super::verification::{Verified, verify_address};
use super::{NewUserSession, UserAccounts, set_password, sign_ins};
use crate::accounts::CODE_LIFETIME_MS;
use crate::codes;
use crate::sign_in_limits::{Attempt, AttemptKind};
use crate::user_sessions::Browser;

pub(super) const CLOSED: &str = "No new accounts are made here.";

/// What somebody asked for on a page.
#[derive(Clone, Copy)]
pub struct UserCodeRequest<'a> {
    /// The address that they typed.
    pub email: &'a str,
    /// What the code shall be for.
    pub purpose: CodePurpose,
    /// The password to set when the code proves the address.
    pub password: Option<&'a str>,
    /// What names their browser: the code can be entered there only.
    pub cookie: &'a str,
}

/// A code that was made, to be sent.
pub struct IssuedUserCode {
    /// The code's id: no secret.
    pub id: UserCodeId,
    /// The code: 8 digits.
    pub code: String,
    /// Where it goes.
    pub email: String,
    /// What was asked for.
    pub purpose: CodePurpose,
    /// Whether somebody has this address: for the mail, never for the page.
    pub has_user: bool,
    /// An organisation of theirs, for the queue of emails; never for the page. `None` if they have none.
    pub organization_id: Option<OrganizationId>,
}

/// Never shows the code.
impl fmt::Debug for IssuedUserCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedUserCode").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What somebody entered.
#[derive(Clone, Copy)]
pub struct UserCodeEntry<'a> {
    /// Which code it should be: the id that the page got.
    pub id: &'a str,
    /// The code, as it was typed.
    pub code: &'a str,
    /// What names their browser.
    pub cookie: &'a str,
    /// What a new user wants to be called.
    pub name: &'a str,
    /// A new password to set, when that was asked for.
    pub new_password: &'a str,
}

impl UserAccounts {
    /// Makes a code for an address, whether somebody has it or not: both cost the same.
    ///
    /// # Errors
    /// `forbidden` for sign-up when nobody may make an account for themselves; `invalid_arguments` naming `email` or
    /// `password`; `rate_limited` when the client address or the account had too many, or too many passwords are being hashed;
    /// `unavailable` when the database is away.
    pub async fn create_code(
        &self,
        cx: &Ctx,
        asked: UserCodeRequest<'_>,
        browser: Browser<'_>,
    ) -> Result<IssuedUserCode> {
        if asked.purpose == CodePurpose::SignUp {
            self.check_sign_up_open()?;
        }
        let email = email::parse(asked.email)?;
        let admitted = self.admit(cx, &email.key, (AttemptKind::Code, browser)).await?;
        check_account(&admitted, AttemptKind::Code)?;
        let password_hash = match asked.password {
            Some(password) => match self.hash(cx, browser.address, ("password", password), &email.address).await {
                Ok(hash) => Some(hash),
                Err(error) => {
                    // No code is made.
                    admitted.counted.refund();
                    return Err(error);
                }
            },
            None => None,
        };
        let now = cx.now();
        let id = UserCodeId::new(now, &*cx.random);
        let code = codes::new(&*cx.random);
        let row = NewUserCode {
            id: &id,
            email: &email.address,
            email_key: &email.key,
            purpose: asked.purpose,
            browser_hash: &hash(asked.cookie),
            code_hash: &codes::hash(&self.secret, &id, &code),
            password_hash: password_hash.as_deref(),
            created_at: now,
            expires_at: now.plus(CODE_LIFETIME_MS),
        };
        let mut tx = self.ops.db.begin().await?;
        self.count(cx, &mut tx, (AttemptKind::Code, &email.key)).await?;
        user_code::insert(&mut tx, &row).await?;
        let organization_id = system::find_organization_by_email(&mut tx, &email.key).await?;
        tx.commit().await?;
        let has_user = !admitted.accounts.is_empty();
        Ok(IssuedUserCode { id, code, email: email.address, purpose: asked.purpose, has_user, organization_id })
    }

    /// Sees that everybody may make an account for themselves.
    ///
    /// # Errors
    /// `forbidden` when not.
    pub fn check_sign_up_open(&self) -> Result<()> {
        let message = match self.sign_up {
            SignUpPolicy::Open => return Ok(()),
            SignUpPolicy::Invite => "Accounts here are made by invitation. Ask an owner of your organisation for one.",
            SignUpPolicy::Closed => CLOSED,
        };
        Err(Error::new(Code::Forbidden, message))
    }

    /// What a code is for, and where it was sent, while it can be entered in the browser of `cookie`.
    ///
    /// # Errors
    /// `invalid_arguments` naming `code` when it cannot be entered any more, or not there.
    pub async fn get_code(&self, cx: &Ctx, id: &str, cookie: &str) -> Result<PendingCode> {
        let id = id.parse().map_err(|_| codes::gone())?;
        let key = UserCodeKey { id: &id, browser_hash: &hash(cookie) };
        user_code::find_pending(&mut self.ops.db.read().await?, key, cx.now()).await?.ok_or_else(codes::gone)
    }

    /// Signs in with a code: it proves the address. Whoever signs up becomes a user; a new password ends all sessions
    /// before. No limit by client address or account rejects a right code; a wrong one counts as a failed sign-in.
    ///
    /// # Errors
    /// `invalid_arguments` naming `code` when it is wrong, used up, expired, or was sent for another browser; and naming
    /// `name` or `new_password` when these cannot be taken: then the code can still be entered.
    pub async fn sign_in_with_code(
        &self,
        cx: &Ctx,
        entered: UserCodeEntry<'_>,
        browser: Browser<'_>,
    ) -> Result<NewUserSession> {
        let code = codes::read(entered.code)?;
        let open = match self.get_code(cx, entered.id, entered.cookie).await {
            Ok(open) => open,
            Err(error) if error.code == Code::InvalidArguments => {
                self.unknown_code(cx, entered.id, browser).await?;
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        let id = entered.id.parse().map_err(|_| codes::gone())?;
        let key = UserCodeKey { id: &id, browser_hash: &hash(entered.cookie) };
        let code_hash = codes::hash(&self.secret, &id, &code);
        // Only for a right code is a password hashed.
        let is_right = user_code::is_correct(&mut self.ops.db.read().await?, key, &code_hash, cx.now()).await?;
        let (mut called, mut new_hash) = (None, None);
        match open.purpose {
            CodePurpose::SignIn => {}
            CodePurpose::SignUp => called = Some(name::check("name", entered.name)?),
            CodePurpose::Reset if is_right => {
                let password = ("new_password", entered.new_password);
                new_hash = Some(self.hash(cx, browser.address, password, &open.email).await?);
            }
            CodePurpose::Reset => {}
        }
        let mut tx = self.ops.db.begin().await?;
        let tried = user_code::verify(&mut tx, key, &code_hash, cx.now()).await?;
        let mut proof = match tried {
            CodeCheck::Accepted(proof) => proof,
            CodeCheck::Rejected { attempts_left: left } => {
                // The try counts.
                let email_key = email::key(&open.email);
                sign_ins::failed(cx, &mut tx, &email_key, (browser, "code")).await?;
                tx.commit().await?;
                self.is_counted(cx, &email_key, browser);
                return Err(codes::wrong(left));
            }
            CodeCheck::Invalid => return Err(codes::gone()),
        };
        if open.purpose == CodePurpose::Reset && new_hash.is_none() {
            // Nothing is committed: the code can still be entered.
            return Err(codes::gone());
        }
        let password_hash = new_hash.or_else(|| proof.password_hash.take());
        let Some(Verified { user, revoked }) = self.verify_proof(cx, &mut tx, &proof, called).await? else {
            // The code is consumed; it was sent to nobody.
            tx.commit().await?;
            return Err(codes::gone());
        };
        if let Some(hash) = password_hash {
            set_password(cx, &mut tx, &user, (&hash, None)).await?;
        }
        let session = self.sign_in(cx, &mut tx, &user, (browser, "code")).await?;
        tx.commit().await?;
        Ok(NewUserSession { revoked, ..session })
    }

    /// Records that a code was entered that cannot be used: it is used up, expired, replaced, of another browser, or unknown. It
    /// belongs to the accounts of the address that it was sent to; one that was never made belongs to nobody. Beyond the limit of
    /// the client address, nothing is recorded.
    async fn unknown_code(&self, cx: &Ctx, id: &str, browser: Browser<'_>) -> Result<()> {
        if !self.is_counted(cx, "", browser) {
            return Ok(());
        }
        let mut tx = self.ops.db.begin().await?;
        let address = match id.parse() {
            Ok(id) => user_code::find_email_key(&mut tx, &id).await?,
            Err(_) => None,
        };
        if let Some(email_key) = address {
            sign_ins::failed(cx, &mut tx, &email_key, (browser, "code")).await?;
            tx.commit().await?;
        }
        Ok(())
    }

    /// Counts a wrong code as a failed sign-in of the client address; false if that had too many already.
    fn is_counted(&self, cx: &Ctx, account: &str, browser: Browser<'_>) -> bool {
        let attempt = Attempt { kind: AttemptKind::Password, address: browser.address, account };
        self.ops.sign_in_limits.count_attempt(attempt, None, cx.now()).is_ok()
    }

    /// The account of the address that was proved; `None` if it has none, and this may not create one.
    async fn verify_proof(
        &self,
        cx: &Ctx,
        tx: &mut Tx,
        proof: &CodeProof,
        name: Option<String>,
    ) -> Result<Option<Verified>> {
        let email = Email { address: proof.email.clone(), key: proof.email_key.clone() };
        let create = name.is_some() && self.sign_up == SignUpPolicy::Open;
        verify_address(cx, tx, &email, (name, create)).await
    }
}
