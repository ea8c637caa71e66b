//! Signing in with a password.

use serde_json::json;
use waypost_core::caller::Ctx;
use waypost_core::email::{self, Email};
use waypost_core::{Error, Result};
use waypost_store::user::Credentials;
use waypost_store::{Tx, system, user as store, user_session};

use super::{Session, UserAccounts, record_of_user, sign_in, sign_ins};
use crate::tries;
use crate::user_sessions::Browser;

/// An address and a password, as they were typed.
#[derive(Clone, Copy)]
pub struct PasswordSignIn<'a> {
    /// The address.
    pub email: &'a str,
    /// The password.
    pub password: &'a str,
    /// The slug of the organisation that the person wants to go to: if the password fits several unverified accounts of the
    /// address, the one of this organisation is used. Empty for any.
    pub organization: &'a str,
}

impl UserAccounts {
    /// Signs in with a password: to the verified account of the address, or to an unverified one, which is valid for one
    /// organisation.
    ///
    /// # Errors
    /// `invalid_arguments` naming `email` if that is not an address, and `password` if one of the two is wrong;
    /// `rate_limited`, with `retry_after_seconds`, after too many wrong ones; `unavailable` if the database cannot be
    /// reached, or too many passwords are being hashed.
    pub async fn enter_password(&self, cx: &Ctx, typed: PasswordSignIn<'_>, browser: Browser<'_>) -> Result<Session> {
        let email = email::parse(typed.email)?;
        let found = system::find_accounts(&mut self.ops.db.read().await?, &email.key).await?;
        let open = if found.is_empty() {
            self.strangers.begin_try(email.key.clone(), cx.now())?;
            Vec::new()
        } else {
            self.begin_tries(cx, &found, browser).await?
        };
        let hashes = open.iter().filter_map(|account| account.password_hash.clone()).collect();
        let right = self.passwords.find_matching(typed.password, hashes).await?;
        let is_right = |account: &Credentials| account.password_hash.as_ref().is_some_and(|hash| right.contains(hash));
        let fitting: Vec<_> = open.iter().filter(|account| is_right(account)).collect();
        let mut tx = self.ops.db.begin().await?;
        let Some(account) = choose(&mut tx, &fitting, typed.organization).await? else {
            for account in &open {
                sign_ins::failed(cx, &mut tx, &account.user, (browser, "password")).await?;
            }
            tx.commit().await?;
            return Err(tries::wrong());
        };
        let now = store::credentials(&mut tx, &account.user.id).await?;
        if now.is_none_or(|now| now.password_hash != account.password_hash) {
            // It was changed while it was checked.
            return Err(tries::wrong());
        }
        let session = sign_in(cx, &mut tx, &account.user, (browser, "password")).await?;
        tx.commit().await?;
        Ok(session)
    }

    /// Counts a try at each account of an address before the password is checked. Returns the accounts that are not locked.
    async fn begin_tries(&self, cx: &Ctx, found: &[Credentials], browser: Browser<'_>) -> Result<Vec<Credentials>> {
        let mut open = Vec::new();
        let mut tx = self.ops.db.begin().await?;
        for account in found {
            if begin_try(cx, &mut tx, account).await? {
                open.push(account.clone());
            } else {
                sign_ins::failed(cx, &mut tx, &account.user, (browser, "password")).await?;
            }
        }
        tx.commit().await?;
        if open.is_empty() {
            let now = cx.now();
            let until = found.iter().filter_map(|account| account.locked_until).min();
            return Err(tries::locked(until.unwrap_or(now), now));
        }
        Ok(open)
    }

    /// Counts a try at one account before its password is checked.
    ///
    /// # Errors
    /// `rate_limited` while the account is locked.
    pub(super) async fn begin_own_try(&self, cx: &Ctx, found: &Credentials) -> Result<()> {
        let mut tx = self.ops.db.begin().await?;
        if !begin_try(cx, &mut tx, found).await? {
            return Err(tries::locked(found.locked_until.unwrap_or(cx.now()), cx.now()));
        }
        Ok(tx.commit().await?)
    }

    /// The hash of a new password for an account of `address`. All accounts of an address share their salt, so that a
    /// sign-in takes the same time whatever their number.
    pub(super) async fn hash(&self, cx: &Ctx, field: &'static str, password: &str, address: &str) -> Result<String> {
        let Email { key, .. } = email::parse(address)?;
        let accounts = system::find_accounts(&mut self.ops.db.read().await?, &key).await?;
        let like = accounts.into_iter().find_map(|account| account.password_hash);
        let local = address.split('@').next().unwrap_or_default();
        self.passwords.hash_like(&*cx.random, (field, password), &[address, local, "waypost"], like).await
    }
}

/// Counts a try, and locks the account if it was the last one; false if the account is locked already.
async fn begin_try(cx: &Ctx, tx: &mut Tx, found: &Credentials) -> Result<bool> {
    let (user, now) = (&found.user, cx.now());
    let Some(failures) = store::begin_try(tx, &user.id, now).await? else { return Ok(false) };
    if let Some(duration) = tries::lock_ms(failures) {
        store::lock(tx, &user.id, now.plus(duration)).await?;
        let detail = json!({ "failures": failures, "seconds": duration / 1_000 });
        record_of_user(cx, tx, user, ("user.lock", detail)).await?;
    }
    Ok(true)
}

/// The account to sign in to, of those that the password fits, the verified one first.
async fn choose<'a>(tx: &mut Tx, fitting: &[&'a Credentials], slug: &str) -> Result<Option<&'a Credentials>> {
    let first = fitting.first().copied();
    if slug.is_empty() || fitting.len() < 2 || first.is_some_and(|account| account.user.verified_at.is_some()) {
        return Ok(first);
    }
    for account in fitting {
        let memberships = user_session::memberships(tx, &account.user.id).await.map_err(Error::from)?;
        if memberships.iter().any(|it| it.organization.slug == slug) {
            return Ok(Some(account));
        }
    }
    Ok(first)
}
