//! The setup link, which `serve` prints until the first sign-in. It creates the first owner.

use std::sync::atomic::Ordering;

use data_encoding::BASE64URL_NOPAD;
use serde_json::json;
use waypost_content::name;
use waypost_core::caller::{Caller, Ctx};
use waypost_core::organization::{Role, User};
use waypost_core::secret::SecretKey;
use waypost_core::{Code, Error, Result, email};
use waypost_store::{Tx, system, user as store};

use super::sign_ins::SignInOrigin;
use super::verification::{VerifiedAccount, verify_address};
use super::{NewUserSession, UserAccounts};
use crate::Ops;
use crate::audit::{Entry, record};
use crate::passwords::ChosenPassword;
use crate::user_sessions::Browser;

/// The purpose of the signature that serves as the token of the setup link.
const PURPOSE: &str = "console.set_up";

/// The details of the first owner.
#[derive(Clone, Copy)]
pub struct NewOwner<'a> {
    /// The email address.
    pub email: &'a str,
    /// The name.
    pub name: &'a str,
    /// The password.
    pub password: &'a str,
}

/// Returns the token of the setup link. Returns `None` after the first sign-in. The token needs no table, because it
/// is derived from the installation's key, and works once, because its use is the first sign-in.
///
/// # Errors
/// Any error of the store.
pub async fn set_up_token(ops: &Ops, secret: &SecretKey) -> Result<Option<String>> {
    if system::has_account(&mut ops.store.read().await?).await? {
        return Ok(None);
    }
    Ok(Some(BASE64URL_NOPAD.encode(&secret.sign(PURPOSE, b""))))
}

impl UserAccounts {
    /// Whether the installation is set up: a user has signed in before.
    ///
    /// # Errors
    /// Any error of the store.
    pub async fn is_set_up(&self) -> Result<bool> {
        // An account that has been used is never deleted, so `true` needs no second query. The sign-in page, which
        // anyone can load, calls this function for every request.
        if self.is_set_up.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let is_set_up = self.has_account().await?;
        self.is_set_up.store(is_set_up, Ordering::Relaxed);
        Ok(is_set_up)
    }

    async fn has_account(&self) -> Result<bool> {
        Ok(system::has_account(&mut self.ops.store.read().await?).await?)
    }

    /// Checks that the installation can be set up with `token`.
    ///
    /// # Errors
    /// `not_found` if the token is wrong, or a user has signed in before.
    pub async fn check_set_up(&self, token: &str) -> Result<()> {
        self.check_set_up_token(token)?;
        if self.has_account().await? {
            return Err(not_usable());
        }
        Ok(())
    }

    fn check_set_up_token(&self, token: &str) -> Result<()> {
        let signature = BASE64URL_NOPAD.decode(token.as_bytes()).map_err(|_| not_usable())?;
        if self.secret.verify(PURPOSE, b"", &signature) { Ok(()) } else { Err(not_usable()) }
    }

    /// Creates the first owner, signs them in, and makes them the owner of every organisation without one.
    ///
    /// # Errors
    /// The same as for [`Self::check_set_up`]; `invalid_arguments` with `email`, `name` or `password`.
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
        let password = ChosenPassword { field: "password", password: owner.password };
        let hash = self.hash(cx, browser.address, password, &email.address).await?;
        let mut tx = self.ops.store.begin().await?;
        system::lock_set_up(&mut tx).await?;
        if system::has_account(&mut tx).await? {
            return Err(not_usable());
        }
        // Only the operator has the link, and no one else can have used an account of this email address, because no
        // one has signed in.
        let verified = verify_address(cx, &mut tx, &email, Some(name), true).await?;
        let VerifiedAccount { user, .. } =
            verified.ok_or_else(|| Error::internal("the first owner was not created"))?;
        store::set_password(&mut tx, &user.id, &hash).await?;
        own_organizations_without_owner(cx, &mut tx, &user).await?;
        let session = self.sign_in(cx, &mut tx, &user, SignInOrigin { browser, by: "set_up" }).await?;
        tx.commit().await?;
        Ok(session)
    }
}

async fn own_organizations_without_owner(cx: &Ctx, tx: &mut Tx, user: &User) -> Result<()> {
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

fn not_usable() -> Error {
    let message =
        "This setup link is not valid: it belongs to another installation, or the installation is already set up.";
    Error::new(Code::NotFound, message)
}
