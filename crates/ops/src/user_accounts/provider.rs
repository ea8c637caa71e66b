//! Signing in with a provider of the installation: GitHub, Google, or any of OpenID Connect.

use std::net::IpAddr;

use data_encoding::BASE64URL_NOPAD;
use serde_json::json;
use waypost_core::caller::{Caller, Ctx};
use waypost_core::email;
use waypost_core::organization::{SignUpPolicy, User};
use waypost_core::seal::{SealLocation, SecretText};
use waypost_core::secret::hash;
use waypost_core::{Code, Error, Result, name};
use waypost_store::open_rows::{self, LimitedTable, RowLimits};
use waypost_store::user_sign_in::{self, UserSignIn};
use waypost_store::{Tx, system, user as store, user_identity, user_session};

use super::verification::{Verified, verify_address};
use super::{NewUserSession, UserAccounts, record_of_user, sign_ins};
use crate::identity_provider::IdentityProviderContext;
use crate::limits::stored_network;
use crate::user_sessions::Browser;

/// A user has this long to sign in at the provider.
const LIFETIME_MS: i64 = 15 * 60 * 1_000;
/// Users who are kept while they are away: an office behind one address, and the users of a large installation.
const BOUNDS: RowLimits = RowLimits { per_network: 300, per_scope: 5_000, share: 100 };
/// Random bytes in a state, a nonce, a verifier.
const RANDOM_BYTES: usize = 32;

/// A user who is about to leave for a provider.
#[derive(Debug)]
pub struct PendingUserLogin {
    /// The value that brings them back.
    pub state: SecretText,
    /// What the ID token has to repeat.
    pub nonce: String,
    /// PKCE's verifier (RFC 7636, 4.1).
    pub verifier: SecretText,
}

/// A user who came back, in the browser in which they left.
#[derive(Debug)]
pub struct UserLoginCallback {
    /// What the ID token has to repeat.
    pub nonce: String,
    /// PKCE's verifier.
    pub verifier: SecretText,
    /// Where to go on to.
    pub next: String,
}

/// Whom a provider vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderIdentity {
    /// The provider.
    pub issuer: String,
    /// By what it knows the user for good.
    pub subject: String,
    /// Their address; none when the provider does not vouch for it.
    pub email: Option<String>,
    /// What they are called there.
    pub name: Option<String>,
}

impl UserAccounts {
    /// Notes that the browser of `cookie`, at the address `client`, leaves for `provider`, and goes on to `next` afterwards. If as
    /// many have left as [`BOUNDS`] allows, it replaces an older one.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn begin_login(
        &self,
        cx: &Ctx,
        provider_context: &IdentityProviderContext,
        (provider, cookie, next): (&str, &str, &str),
        client: IpAddr,
    ) -> Result<PendingUserLogin> {
        let random = || {
            let mut bytes = [0_u8; RANDOM_BYTES];
            cx.random.fill(&mut bytes);
            BASE64URL_NOPAD.encode(&bytes)
        };
        let (state, nonce, verifier) = (random(), random(), random());
        let (state_hash, now) = (hash(&state), cx.now());
        let row = UserSignIn {
            code_verifier: provider_context.keyring.seal(&place(&state_hash), verifier.as_bytes(), &*cx.random),
            state_hash,
            browser_hash: hash(cookie),
            provider: provider.to_owned(),
            nonce: nonce.clone(),
            next: next.to_owned(),
            created_at: now,
            expires_at: now.plus(LIFETIME_MS),
        };
        let mut tx = self.ops.db.begin().await?;
        let network = stored_network(&self.secret, client);
        open_rows::evict_excess(&mut tx, LimitedTable::UserSignIns, (provider, &network), BOUNDS).await?;
        user_sign_in::insert(&mut tx, &row, &network).await?;
        tx.commit().await?;
        Ok(PendingUserLogin { state: SecretText::new(state), nonce, verifier: SecretText::new(verifier) })
    }

    /// Takes back who comes from `provider` with `state`, once, in the browser of `cookie`.
    ///
    /// # Errors
    /// `not_found` when the state is unknown, used, expired, or of another browser or provider.
    pub async fn finish_login(
        &self,
        cx: &Ctx,
        provider_context: &IdentityProviderContext,
        (provider, cookie, state): (&str, &str, &str),
    ) -> Result<UserLoginCallback> {
        let state_hash = hash(state);
        let mut tx = self.ops.db.begin().await?;
        let away = user_sign_in::consume(&mut tx, &state_hash, &hash(cookie), cx.now()).await?;
        // Used up whatever comes now.
        tx.commit().await?;
        let away = away.filter(|away| away.provider == provider).ok_or_else(|| Error::not_found("sign-in"))?;
        let verifier =
            provider_context.keyring.open_text(&place(&state_hash), &away.code_verifier).map_err(Error::internal)?;
        Ok(UserLoginCallback { nonce: away.nonce, verifier, next: away.next })
    }

    /// Signs in the user whom a provider vouches for: the one whom it has vouched for before, else the one with the
    /// address, else a new one where everybody may sign up.
    ///
    /// # Errors
    /// `forbidden` when the provider does not vouch for an address, or nobody has it and no account may be made.
    pub async fn sign_in_with_provider(
        &self,
        cx: &Ctx,
        vouched: &ProviderIdentity,
        browser: Browser<'_>,
    ) -> Result<NewUserSession> {
        let error = match self.try_vouched(cx, vouched, browser).await {
            Ok(session) => return Ok(session),
            Err(error) => error,
        };
        if matches!(error.code, Code::Forbidden | Code::Conflict) {
            self.provider_failed(cx, vouched, browser).await?;
        }
        Err(error)
    }

    /// Records a failed sign-in for the accounts that it was meant for, as far as the provider vouches for it: the account that
    /// is linked to this person there, or those of the address. Nobody else knows whom it was for.
    async fn provider_failed(&self, cx: &Ctx, vouched: &ProviderIdentity, browser: Browser<'_>) -> Result<()> {
        let mut tx = self.ops.db.begin().await?;
        let linked = match user_identity::find(&mut tx, &vouched.issuer, &vouched.subject).await? {
            Some(id) => store::find(&mut tx, &id).await?.map(|user| user.email),
            None => None,
        };
        let address = linked.or_else(|| vouched.email.clone()).unwrap_or_default();
        sign_ins::failed(cx, &mut tx, &email::key(&address), (browser, "provider")).await?;
        Ok(tx.commit().await?)
    }

    async fn try_vouched(&self, cx: &Ctx, vouched: &ProviderIdentity, browser: Browser<'_>) -> Result<NewUserSession> {
        let mut tx = self.ops.db.begin().await?;
        let key = (vouched.issuer.as_str(), vouched.subject.as_str());
        let known = match user_identity::find(&mut tx, key.0, key.1).await? {
            Some(id) => store::find(&mut tx, &id).await?.filter(|user| user.verified_at.is_some()),
            None => None,
        };
        let Verified { user, revoked } = match known {
            Some(user) => Verified { user, revoked: false },
            None => {
                let verified = self.user_of_address(cx, &mut tx, vouched).await?;
                if !user_identity::insert(&mut tx, key, &verified.user.id, cx.now()).await? {
                    return Err(Error::new(Code::Conflict, "You are signing in twice at this moment. Try again."));
                }
                verified
            }
        };
        let session = self.sign_in(cx, &mut tx, &user, (browser, "provider")).await?;
        tx.commit().await?;
        Ok(NewUserSession { revoked, ..session })
    }

    async fn user_of_address(&self, cx: &Ctx, tx: &mut Tx, vouched: &ProviderIdentity) -> Result<Verified> {
        let Some(address) = &vouched.email else {
            let message =
                "The provider does not vouch for an e-mail address of yours. Confirm it there, and try again.";
            return Err(Error::new(Code::Forbidden, message));
        };
        let email = email::parse(address)?;
        let name = vouched.name.as_deref().and_then(|text| name::check("name", text).ok());
        if let Some(user) = system::find_verified_user(tx, &email.key).await? {
            forget_password(cx, tx, &user).await?;
        }
        match verify_address(cx, tx, &email, (name, self.sign_up == SignUpPolicy::Open)).await? {
            Some(verified) => Ok(verified),
            None => Err(self.check_sign_up_open().err().unwrap_or_else(|| Error::not_found("user"))),
        }
    }
}

/// The password and the sessions of a verified account end when a provider vouches for its address for the first time:
/// accounts from before version 20 of the schema may have been verified by a link that another person could read.
async fn forget_password(cx: &Ctx, tx: &mut Tx, user: &User) -> Result<()> {
    let found = store::find_credentials(tx, &user.id).await?;
    if found.is_none_or(|found| found.password_hash.is_none()) {
        return Ok(());
    }
    store::clear_password(tx, &user.id).await?;
    let ended = user_session::delete_others(tx, &user.id, None).await?;
    let cx = cx.with_caller(Caller::User { user_id: user.id.clone() });
    record_of_user(&cx, tx, user, ("user.password", json!({ "removed": true, "sessions": ended }))).await
}

fn place(state_hash: &str) -> SealLocation<'_> {
    SealLocation { table: "user_sign_ins", column: "code_verifier", row: state_hash }
}
