//! Sign-in with a password.

use std::net::IpAddr;

use waypost_core::caller::Ctx;
use waypost_core::email::{self, Email};
use waypost_core::{Error, Result};
use waypost_store::user::UserCredentials;
use waypost_store::{Tx, system, user as store, user_session};

use super::limits::{Admission, check_account};
use super::sign_ins::{self, SignInOrigin};
use super::{NewUserSession, UserAccounts};
use crate::passwords::ChosenPassword;
use crate::sign_in_limits::AttemptKind;
use crate::user_sessions::Browser;

/// An email address and a password, as entered.
#[derive(Clone, Copy)]
pub struct UserPasswordSignIn<'a> {
    /// The email address.
    pub email: &'a str,
    /// The password.
    pub password: &'a str,
    /// The slug of the organisation that the user wants to open. If the password matches several unverified accounts of
    /// the email address, the account of this organisation is used. Empty for any.
    pub organization: &'a str,
}

impl UserAccounts {
    /// Signs in to the verified account of the email address, or to an unverified one, which is valid for one
    /// organisation. A failure takes the same statements and hashes regardless of which accounts the email address has.
    ///
    /// # Errors
    /// `invalid_arguments` with `email` if it is malformed, and with `password` if the email address or password is
    /// incorrect; `rate_limited`, with `retry_after_seconds`, after too many failures, or if too many passwords are
    /// being hashed; `unavailable` if the database cannot be reached.
    pub async fn sign_in_with_password(
        &self,
        cx: &Ctx,
        credentials: UserPasswordSignIn<'_>,
        browser: Browser<'_>,
    ) -> Result<NewUserSession> {
        let email = email::parse(credentials.email)?;
        let admitted = self.admit(cx, &email.key, AttemptKind::Password, browser).await?;
        if let Err(limited) = check_account(&admitted, AttemptKind::Password) {
            self.record_wrong_password(cx, &email.key, browser).await?;
            return Err(limited);
        }
        let Admission { accounts, counted, .. } = admitted;
        let hashes = accounts.iter().filter_map(|account| account.password_hash.clone()).collect();
        let matching_hashes =
            match self.ops.passwords.find_matching(browser.address, credentials.password, hashes).await {
                Ok(hashes) => hashes,
                Err(error) => {
                    // Nothing was verified.
                    counted.refund();
                    return Err(error);
                }
            };
        let is_match = |account: &UserCredentials| {
            account.password_hash.as_ref().is_some_and(|hash| matching_hashes.contains(hash))
        };
        let matching_accounts: Vec<_> = accounts.iter().filter(|account| is_match(account)).collect();
        if matching_accounts.is_empty() {
            self.record_wrong_password(cx, &email.key, browser).await?;
            return Err(wrong_password());
        }
        let mut tx = self.ops.store.begin().await?;
        let account =
            select_account(&mut tx, &matching_accounts, credentials.organization).await?.ok_or_else(wrong_password)?;
        let current = store::find_credentials(&mut tx, &account.user.id).await?;
        if current.is_none_or(|current| current.password_hash != account.password_hash) {
            // The password was changed in the meantime.
            return Err(wrong_password());
        }
        let session = self.sign_in(cx, &mut tx, &account.user, SignInOrigin { browser, by: "password" }).await?;
        tx.commit().await?;
        counted.refund();
        Ok(session)
    }

    /// Counts a failure, and records it for the accounts of the email address, if there are any.
    async fn record_wrong_password(&self, cx: &Ctx, email_key: &str, browser: Browser<'_>) -> Result<()> {
        let mut tx = self.ops.store.begin().await?;
        self.count(cx, &mut tx, AttemptKind::Password, email_key).await?;
        sign_ins::record_failure(cx, &mut tx, email_key, SignInOrigin { browser, by: "password" }).await?;
        Ok(tx.commit().await?)
    }

    /// Returns the hash of a new password for an account of `address`. All accounts of an email address share their
    /// salt, so that a sign-in takes the same time regardless of their number.
    ///
    /// # Errors
    /// `invalid_arguments` with `field`; `rate_limited` if too many passwords are being hashed.
    pub(super) async fn hash(
        &self,
        cx: &Ctx,
        client: IpAddr,
        password: ChosenPassword<'_>,
        address: &str,
    ) -> Result<String> {
        let Email { key, .. } = email::parse(address)?;
        let accounts = system::list_accounts(&mut self.ops.store.read().await?, &key).await?;
        let like = accounts.into_iter().find_map(|account| account.password_hash);
        let local = address.split('@').next().unwrap_or_default();
        let about = [address, local, "waypost"];
        self.ops.passwords.hash_like(&*cx.random, client, password, &about, like).await
    }
}

pub(crate) fn wrong_password() -> Error {
    Error::invalid("password", "The email or password is incorrect. Check both and try again.")
}

/// Selects the account to sign in to among those that match the password, the verified one first.
async fn select_account<'a>(
    tx: &mut Tx,
    matching_accounts: &[&'a UserCredentials],
    slug: &str,
) -> Result<Option<&'a UserCredentials>> {
    let first = matching_accounts.first().copied();
    if slug.is_empty() || matching_accounts.len() < 2 || first.is_some_and(|account| account.user.verified_at.is_some())
    {
        return Ok(first);
    }
    for account in matching_accounts {
        let memberships = user_session::list_memberships(tx, &account.user.id).await.map_err(Error::from)?;
        if memberships.iter().any(|membership| membership.organization.slug == slug) {
            return Ok(Some(account));
        }
    }
    Ok(first)
}
