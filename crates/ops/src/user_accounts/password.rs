//! Signing in with a password.

use std::net::IpAddr;

use waypost_core::caller::Ctx;
use waypost_core::email::{self, Email};
use waypost_core::{Error, Result};
use waypost_store::user::UserCredentials;
use waypost_store::{Tx, system, user as store, user_session};

use super::limits::{Admitted, check_account};
use super::{NewUserSession, UserAccounts, sign_ins};
use crate::sign_in_limits::AttemptKind;
use crate::user_sessions::Browser;

/// An address and a password, as they were typed.
#[derive(Clone, Copy)]
pub struct UserPasswordSignIn<'a> {
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
    /// organisation. A failure costs the same statements and hashes whatever accounts the address has.
    ///
    /// # Errors
    /// `invalid_arguments` naming `email` if that is not an address, and `password` if one of the two is wrong;
    /// `rate_limited`, with `retry_after_seconds`, after too many failures, or if too many passwords are being hashed;
    /// `unavailable` if the database cannot be reached.
    pub async fn sign_in_with_password(
        &self,
        cx: &Ctx,
        typed: UserPasswordSignIn<'_>,
        browser: Browser<'_>,
    ) -> Result<NewUserSession> {
        let email = email::parse(typed.email)?;
        let admitted = self.admit(cx, &email.key, (AttemptKind::Password, browser)).await?;
        if let Err(limited) = check_account(&admitted, AttemptKind::Password) {
            self.password_failed(cx, &email.key, browser).await?;
            return Err(limited);
        }
        let Admitted { accounts, counted, .. } = admitted;
        let hashes = accounts.iter().filter_map(|account| account.password_hash.clone()).collect();
        let right = match self.ops.passwords.find_matching(browser.address, typed.password, hashes).await {
            Ok(right) => right,
            Err(error) => {
                // Nothing was checked.
                counted.refund();
                return Err(error);
            }
        };
        let is_right =
            |account: &UserCredentials| account.password_hash.as_ref().is_some_and(|hash| right.contains(hash));
        let fitting: Vec<_> = accounts.iter().filter(|account| is_right(account)).collect();
        if fitting.is_empty() {
            self.password_failed(cx, &email.key, browser).await?;
            return Err(wrong());
        }
        let mut tx = self.ops.db.begin().await?;
        let account = choose(&mut tx, &fitting, typed.organization).await?.ok_or_else(wrong)?;
        let now = store::find_credentials(&mut tx, &account.user.id).await?;
        if now.is_none_or(|now| now.password_hash != account.password_hash) {
            // It was changed while it was checked.
            return Err(wrong());
        }
        let session = self.sign_in(cx, &mut tx, &account.user, (browser, "password")).await?;
        tx.commit().await?;
        counted.refund();
        Ok(session)
    }

    /// Counts and records a failure at the accounts of an address, if there are any.
    async fn password_failed(&self, cx: &Ctx, email_key: &str, browser: Browser<'_>) -> Result<()> {
        let mut tx = self.ops.db.begin().await?;
        self.count(cx, &mut tx, (AttemptKind::Password, email_key)).await?;
        sign_ins::failed(cx, &mut tx, email_key, (browser, "password")).await?;
        Ok(tx.commit().await?)
    }

    /// The hash of a new password for an account of `address`. All accounts of an address share their salt, so that a
    /// sign-in takes the same time whatever their number.
    ///
    /// # Errors
    /// `invalid_arguments` naming `field`; `rate_limited` if too many passwords are being hashed.
    pub(super) async fn hash(
        &self,
        cx: &Ctx,
        client: IpAddr,
        (field, password): (&'static str, &str),
        address: &str,
    ) -> Result<String> {
        let Email { key, .. } = email::parse(address)?;
        let accounts = system::list_accounts(&mut self.ops.db.read().await?, &key).await?;
        let like = accounts.into_iter().find_map(|account| account.password_hash);
        let local = address.split('@').next().unwrap_or_default();
        let about = [address, local, "waypost"];
        self.ops.passwords.hash_like((&*cx.random, client), (field, password), &about, like).await
    }
}

pub(crate) fn wrong() -> Error {
    Error::invalid("password", "The e-mail address or the password is wrong.")
}

/// The account to sign in to, of those that the password fits, the verified one first.
async fn choose<'a>(tx: &mut Tx, fitting: &[&'a UserCredentials], slug: &str) -> Result<Option<&'a UserCredentials>> {
    let first = fitting.first().copied();
    if slug.is_empty() || fitting.len() < 2 || first.is_some_and(|account| account.user.verified_at.is_some()) {
        return Ok(first);
    }
    for account in fitting {
        let memberships = user_session::list_memberships(tx, &account.user.id).await.map_err(Error::from)?;
        if memberships.iter().any(|it| it.organization.slug == slug) {
            return Ok(Some(account));
        }
    }
    Ok(first)
}
