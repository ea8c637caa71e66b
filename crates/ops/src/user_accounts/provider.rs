//! Sign-in with an identity provider of the installation: GitHub, Google, or any OpenID Connect provider.

use std::net::IpAddr;

use serde_json::json;
use url::Url;
use waypost_content::name;
use waypost_core::caller::{Caller, Ctx};
use waypost_core::email;
use waypost_core::organization::{SignUpPolicy, User};
use waypost_core::seal::SealLocation;
use waypost_core::secret::hash;
use waypost_core::{Code, Error, Result};
use waypost_store::row_limits::{self, LimitedTable, RowLimits};
use waypost_store::user_sign_in::{self, UserSignIn};
use waypost_store::{Tx, system, user as store, user_identity, user_session};

use super::sign_ins::{self, SignInOrigin};
use super::verification::{VerifiedAccount, verify_address};
use super::{NewUserSession, UserAccounts, record_for_user};
use crate::limits::stored_network;
use crate::login::{self, LoginOptions, LoginProvider, LoginSecrets, StartedLogin};
use crate::user_sessions::Browser;

/// The time that a user has to sign in with the provider.
const LIFETIME_MS: i64 = 15 * 60 * 1_000;
/// The limits of pending logins: sufficient for an office behind one address, and for the users of a large
/// installation.
const BOUNDS: RowLimits = RowLimits { per_network: 300, per_scope: 5_000, share: 100 };

/// A request to start a login of a console user.
#[derive(Debug, Clone, Copy)]
pub struct UserLoginRequest<'a> {
    /// The provider's name in URLs.
    pub key: &'a str,
    /// The provider.
    pub provider: &'a LoginProvider,
    /// The cookie of the browser.
    pub cookie: &'a str,
    /// The path to which the user is redirected after the sign-in.
    pub next: &'a str,
    /// The client's IP address.
    pub client: IpAddr,
}

/// A login whose user has returned from the provider in the browser that started it.
#[derive(Debug)]
pub struct UserLoginCallback {
    /// The secrets of the login.
    pub secrets: LoginSecrets,
    /// The path to which the user is redirected after the sign-in.
    pub next: String,
}

/// A user's identity as verified by a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderIdentity {
    /// The issuer.
    pub issuer: String,
    /// The provider's permanent identifier for the user.
    pub subject: String,
    /// The email address. `None` if the provider has not verified it.
    pub email: Option<String>,
    /// The name.
    pub name: Option<String>,
}

impl UserAccounts {
    /// Starts a login and returns the URL to which the browser is redirected. If [`BOUNDS`] is reached, replaces an
    /// older login.
    ///
    /// # Errors
    /// `internal` if the provider's URLs are not valid; any error of the store.
    pub async fn begin_login(&self, cx: &Ctx, login: UserLoginRequest<'_>) -> Result<Url> {
        let UserLoginRequest { key, provider, cookie, next, client } = login;
        let StartedLogin { url, state, secrets } = login::begin_login(provider, LoginOptions::default(), &*cx.random)?;
        let (state_hash, now) = (hash(state.expose()), cx.now());
        let row = UserSignIn {
            code_verifier: self.ops.keyring()?.seal(
                &place(&state_hash),
                secrets.verifier.expose().as_bytes(),
                &*cx.random,
            ),
            state_hash,
            browser_hash: hash(cookie),
            provider: key.to_owned(),
            nonce: secrets.nonce,
            next: next.to_owned(),
            created_at: now,
            expires_at: now.plus(LIFETIME_MS),
        };
        let mut tx = self.ops.store.begin().await?;
        let network = stored_network(&self.secret, client);
        row_limits::evict_excess(&mut tx, LimitedTable::UserSignIns, key, &network, BOUNDS).await?;
        user_sign_in::insert(&mut tx, &row, &network).await?;
        tx.commit().await?;
        Ok(url)
    }

    /// Finishes the login with `provider` and `state` in the browser with `cookie`. Each state works once.
    ///
    /// # Errors
    /// `not_found` if the state is unknown, used, expired, or belongs to another browser or provider.
    pub async fn finish_login(&self, cx: &Ctx, provider: &str, cookie: &str, state: &str) -> Result<UserLoginCallback> {
        let state_hash = hash(state);
        let mut tx = self.ops.store.begin().await?;
        let login = user_sign_in::consume(&mut tx, &state_hash, &hash(cookie), cx.now()).await?;
        // The state is consumed regardless of the result.
        tx.commit().await?;
        let login = login.filter(|login| login.provider == provider).ok_or_else(|| Error::not_found("sign-in"))?;
        let verifier =
            self.ops.keyring()?.open_text(&place(&state_hash), &login.code_verifier).map_err(Error::internal)?;
        Ok(UserLoginCallback { secrets: LoginSecrets { nonce: login.nonce, verifier }, next: login.next })
    }

    /// Signs in the user of a provider's identity: the linked user, otherwise the user with the email address,
    /// otherwise a new user if anyone may sign up.
    ///
    /// # Errors
    /// `forbidden` if the provider has not verified an email address, or if no user has it and no account may be
    /// created; `conflict` if another sign-in with the same identity is in progress.
    pub async fn sign_in_with_provider(
        &self,
        cx: &Ctx,
        identity: &ProviderIdentity,
        browser: Browser<'_>,
    ) -> Result<NewUserSession> {
        let error = match self.try_sign_in(cx, identity, browser).await {
            Ok(session) => return Ok(session),
            Err(error) => error,
        };
        if matches!(error.code, Code::Forbidden | Code::Conflict) {
            self.record_failure(cx, identity, browser).await?;
        }
        Err(error)
    }

    /// Records a failed sign-in for the affected accounts, as far as the provider has verified the identity: the linked
    /// account, or the accounts of the email address. Otherwise the affected account is unknown.
    async fn record_failure(&self, cx: &Ctx, identity: &ProviderIdentity, browser: Browser<'_>) -> Result<()> {
        let mut tx = self.ops.store.begin().await?;
        let linked = match user_identity::find(&mut tx, &identity.issuer, &identity.subject).await? {
            Some(id) => store::find(&mut tx, &id).await?.map(|user| user.email),
            None => None,
        };
        let address = linked.or_else(|| identity.email.clone()).unwrap_or_default();
        sign_ins::record_failure(cx, &mut tx, &email::key(&address), SignInOrigin { browser, by: "provider" }).await?;
        Ok(tx.commit().await?)
    }

    async fn try_sign_in(&self, cx: &Ctx, identity: &ProviderIdentity, browser: Browser<'_>) -> Result<NewUserSession> {
        let mut tx = self.ops.store.begin().await?;
        let (issuer, subject) = (identity.issuer.as_str(), identity.subject.as_str());
        let known = match user_identity::find(&mut tx, issuer, subject).await? {
            Some(id) => store::find(&mut tx, &id).await?.filter(|user| user.verified_at.is_some()),
            None => None,
        };
        let VerifiedAccount { user, revoked } = match known {
            Some(user) => VerifiedAccount { user, revoked: false },
            None => {
                let verified = self.user_by_email(cx, &mut tx, identity).await?;
                if !user_identity::insert(&mut tx, issuer, subject, &verified.user.id, cx.now()).await? {
                    return Err(Error::new(Code::Conflict, "Another sign-in of yours is in progress. Try again."));
                }
                verified
            }
        };
        let session = self.sign_in(cx, &mut tx, &user, SignInOrigin { browser, by: "provider" }).await?;
        tx.commit().await?;
        Ok(NewUserSession { revoked, ..session })
    }

    async fn user_by_email(&self, cx: &Ctx, tx: &mut Tx, identity: &ProviderIdentity) -> Result<VerifiedAccount> {
        let Some(address) = &identity.email else {
            let message = "Your provider has not verified your email. Verify it there, then try again.";
            return Err(Error::new(Code::Forbidden, message));
        };
        let email = email::parse(address)?;
        let name = identity.name.as_deref().and_then(|text| name::check("name", text).ok());
        if let Some(user) = system::find_verified_user(tx, &email.key).await? {
            remove_password(cx, tx, &user).await?;
        }
        match verify_address(cx, tx, &email, name, self.sign_up == SignUpPolicy::Open).await? {
            Some(verified) => Ok(verified),
            None => Err(self.check_sign_up_open().err().unwrap_or_else(|| Error::not_found("user"))),
        }
    }
}

/// Removes the password and the sessions of a verified account when a provider verifies its email address for the first
/// time: accounts from before version 20 of the schema may have been verified by a link that another person could read.
async fn remove_password(cx: &Ctx, tx: &mut Tx, user: &User) -> Result<()> {
    let credentials = store::find_credentials(tx, &user.id).await?;
    if credentials.is_none_or(|credentials| credentials.password_hash.is_none()) {
        return Ok(());
    }
    store::clear_password(tx, &user.id).await?;
    let ended = user_session::delete_others(tx, &user.id, None).await?;
    let cx = cx.with_caller(Caller::User { user_id: user.id.clone() });
    record_for_user(&cx, tx, user, "user.password", json!({ "removed": true, "sessions": ended })).await
}

fn place(state_hash: &str) -> SealLocation<'_> {
    SealLocation { table: "user_sign_ins", column: "code_verifier", row: state_hash }
}
