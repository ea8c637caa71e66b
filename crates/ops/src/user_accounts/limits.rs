//! Limits of sign-in attempts of console users, and their known browsers.

use waypost_core::caller::Ctx;
use waypost_core::email;
use waypost_core::organization::User;
use waypost_core::{Error, Result};
use waypost_store::user::UserCredentials;
use waypost_store::{Tx, sign_in_attempt, system, user as store};

use super::UserAccounts;
use crate::devices::{self, Device};
use crate::sign_in_limits::{ACCOUNT_LIMIT, Attempt, AttemptKind, CountedAttempt, account_limit_error, slot};
use crate::user_sessions::Browser;

/// A counted attempt with the accounts of its email address.
pub(super) struct Admission {
    /// The accounts.
    pub(super) accounts: Vec<UserCredentials>,
    /// The counted attempt.
    pub(super) counted: CountedAttempt,
    /// Whether the account has reached its daily limit, which does not apply to known browsers.
    pub(super) is_limited: bool,
}

impl UserAccounts {
    /// Whether a browser has signed in to an account of this email address before, according to its cookie. The
    /// password may have been changed since. Does not query the database.
    #[must_use]
    pub fn is_known_browser(&self, cx: &Ctx, address: &str, device: &str) -> bool {
        self.claimed(cx, &email::key(address), device).is_some()
    }

    fn claimed(&self, cx: &Ctx, email_key: &str, device: &str) -> Option<Device> {
        devices::read(&self.secret, email_key, device, cx.now())
    }

    /// Counts an attempt before anything is checked, and returns the accounts of the email address.
    ///
    /// # Errors
    /// `rate_limited` if the client address has made too many attempts. In this case, the database is not queried.
    pub(super) async fn admit(
        &self,
        cx: &Ctx,
        email_key: &str,
        kind: AttemptKind,
        browser: Browser<'_>,
    ) -> Result<Admission> {
        let attempt = Attempt { kind, address: browser.address, account: email_key };
        let begin = |device: Option<&Device>| self.ops.sign_in_limits.count_attempt(attempt, device, cx.now());
        let claimed = self.claimed(cx, email_key, browser.device);
        let early = if claimed.is_none() { Some(begin(None)?) } else { None };
        let mut conn = self.ops.store.read().await?;
        let accounts = system::list_accounts(&mut conn, email_key).await?;
        let attempts = sign_in_attempt::count(&mut conn, &slot(&self.secret, kind, email_key), cx.now()).await?;
        drop(conn);
        let is_current = |device: &Device| {
            accounts.iter().any(|account| device.is_current(&self.secret, account.password_hash.as_deref()))
        };
        let counted = match early {
            Some(counted) => counted,
            None => begin(claimed.filter(is_current).as_ref())?,
        };
        let is_limited = attempts >= ACCOUNT_LIMIT && !counted.is_from_device();
        Ok(Admission { accounts, counted, is_limited })
    }

    /// Counts an attempt at the account of an email address for this day, whether or not the account exists.
    pub(super) async fn count(&self, cx: &Ctx, tx: &mut Tx, kind: AttemptKind, email_key: &str) -> Result<()> {
        sign_in_attempt::increment(tx, &slot(&self.secret, kind, email_key), cx.now()).await?;
        Ok(())
    }

    /// Returns the device cookie for a browser that has just signed in.
    pub(super) async fn new_device(&self, cx: &Ctx, tx: &mut Tx, user: &User) -> Result<String> {
        let credentials = store::find_credentials(tx, &user.id).await?;
        let password_hash = credentials.and_then(|credentials| credentials.password_hash);
        let account = email::key(&user.email);
        Ok(devices::issue(&self.secret, &*cx.random, &account, password_hash.as_deref(), cx.now()))
    }
}

/// Rejects an attempt at an account that has reached its daily limit.
pub(super) fn check_account(admitted: &Admission, kind: AttemptKind) -> Result<(), Error> {
    if admitted.is_limited { Err(account_limit_error(kind)) } else { Ok(()) }
}
