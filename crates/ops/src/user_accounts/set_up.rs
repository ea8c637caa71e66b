//! The first owner: by a link that `serve` prints while nobody has ever signed in.

use data_encoding::BASE64URL_NOPAD;
use serde_json::json;
use waypost_core::caller::{Caller, Ctx};
use waypost_core::organization::{Role, User};
use waypost_core::secret::SecretKey;
use waypost_core::{Code, Error, Result, email, name};
use waypost_store::{Tx, system, user as store};

use super::verification::{Verified, verify_address};
use super::{NewUserSession, UserAccounts};
use crate::Ops;
use crate::audit::{Entry, record};
use crate::user_sessions::Browser;

/// The token of an installation is this signature.
const PURPOSE: &str = "console.set_up";

/// What the first owner says of themselves.
#[derive(Clone, Copy)]
pub struct NewOwner<'a> {
    /// Their address.
    pub email: &'a str,
    /// What they want to be called.
    pub name: &'a str,
    /// Their password.
    pub password: &'a str,
}

/// The token of the set-up link; none when somebody has signed in before. It needs no table, because it is made from the
/// installation's key, and works once, because whoever uses it is the first to sign in.
///
/// # Errors
/// When the store fails.
pub async fn set_up_token(ops: &Ops, secret: &SecretKey) -> Result<Option<String>> {
    if system::has_account(&mut ops.db.read().await?).await? {
        return Ok(None);
    }
    Ok(Some(BASE64URL_NOPAD.encode(&secret.sign(PURPOSE, b""))))
}

impl UserAccounts {
    /// Whether the installation can be set up with `token`.
    ///
    /// # Errors
    /// `not_found` when the token is another one, or somebody has signed in before.
    pub async fn check_set_up(&self, token: &str) -> Result<()> {
        self.check_set_up_token(token)?;
        if system::has_account(&mut self.ops.db.read().await?).await? {
            return Err(gone());
        }
        Ok(())
    }

    fn check_set_up_token(&self, token: &str) -> Result<()> {
        let signature = BASE64URL_NOPAD.decode(token.as_bytes()).map_err(|_| gone())?;
        if self.secret.verify(PURPOSE, b"", &signature) { Ok(()) } else { Err(gone()) }
    }

    /// Makes the first owner and signs them in. Every organisation without an owner becomes theirs.
    ///
    /// # Errors
    /// As [`Self::check_set_up`]; `invalid_arguments` naming `email`, `name` or `password`.
    pub async fn set_up(
        &self,
        cx: &Ctx,
        token: &str,
        owner: NewOwner<'_>,
        browser: Browser<'_>,
    ) -> Result<NewUserSession> {
        self.check_set_up(token).await?;
        let email = email::parse(owner.email)?;
        let name = name::check("name", owner.name)?;
        let hash = self.hash(cx, browser.address, ("password", owner.password), &email.address).await?;
        let mut tx = self.ops.db.begin().await?;
        system::lock_set_up(&mut tx).await?;
        if system::has_account(&mut tx).await? {
            return Err(gone());
        }
        // The link is the operator's own, and nobody else can have used an account of this address: nobody has signed in.
        let verified = verify_address(cx, &mut tx, &email, (Some(name), true)).await?;
        let Verified { user, .. } = verified.ok_or_else(|| Error::internal("the first owner was not created"))?;
        store::set_password(&mut tx, &user.id, &hash).await?;
        own_the_ownerless(cx, &mut tx, &user).await?;
        let session = self.sign_in(cx, &mut tx, &user, (browser, "set_up")).await?;
        tx.commit().await?;
        Ok(session)
    }
}

async fn own_the_ownerless(cx: &Ctx, tx: &mut Tx, user: &User) -> Result<()> {
    let cx = cx.with_caller(Caller::User { user_id: user.id.clone() });
    for organization in system::list_organizations_without_owner(tx).await? {
        let detail = json!({ "email": user.email, "role": Role::Owner.as_str(), "by": "set_up" });
        let entry = if store::set_role(tx, &organization, &user.id, Role::Owner).await? {
            Entry { action: "member.update", target: user.id.as_str(), detail }
        } else {
            store::add_member(tx, &organization, &user.id, Role::Owner, cx.now()).await?;
            Entry { action: "member.create", target: user.id.as_str(), detail }
        };
        record(&cx, tx, &organization, entry).await?;
    }
    Ok(())
}

fn gone() -> Error {
    let message =
        "This link does not set anything up: it is another installation's, or somebody has signed in here before.";
    Error::new(Code::NotFound, message)
}
