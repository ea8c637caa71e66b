//! The context of commands on the database: the open store, the operator as caller, and the lookup of organisations.

use anyhow::bail;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use waypost_core::SystemRandom;
use waypost_core::caller::Ctx;
use waypost_core::id::OrganizationId;
use waypost_core::organization::Organization;
use waypost_ops::public_url::PublicUrl;
use waypost_ops::{Ops, organizations};
use waypost_outbound::Outbound;
use waypost_store::Db;

use super::{App, UsageError};
use crate::{outbound, storage};

/// The session of a command that works on the database.
pub struct Session {
    /// The store for operations.
    pub ops: Ops,
    /// The operator's context.
    pub cx: Ctx,
    /// Whether data is printed as JSON.
    pub json: bool,
    /// The public URL of this installation, according to the settings.
    pub public_url: PublicUrl,
    db: Db,
}

impl Session {
    /// Opens the store, runs `work`, and closes the store in any case.
    ///
    /// # Errors
    /// If the store cannot be opened, or any error of `work`.
    pub async fn run<T>(app: &App, work: impl AsyncFnOnce(&Self) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let db = app.open().await?.db;
        let public_url = PublicUrl::new(app.settings.public_url(app.settings.listen.port()));
        let session = Self {
            ops: Ops::new(db.clone())
                .with_toolboxes(app.settings.toolbox_switch())
                .with_console_origin(public_url.origin()),
            cx: Ctx::operator(),
            json: app.json,
            public_url,
            db,
        };
        let outcome = work(&session).await;
        // Checkpoints the write-ahead log of SQLite.
        session.db.close().await;
        outcome
    }

    /// Returns operations that can send requests to URLs that users specify, and seal and open secrets.
    ///
    /// # Errors
    /// If the settings for outgoing requests are invalid, or the secret key cannot be read.
    pub fn connected_ops(&self, app: &App) -> anyhow::Result<Ops> {
        let outbound = Outbound::new(outbound::policy(&app.settings, false)?)?;
        let keyring = storage::keys(&app.settings, &SystemRandom)?.keyring();
        Ok(self.ops.clone().with_outbound(outbound).with_keyring(keyring))
    }

    /// Returns operations for a deletion that afterwards revokes tokens at other servers, if possible. The deletion
    /// must not fail because of settings that only the revocation needs.
    pub fn deleting_ops(&self, app: &App) -> Ops {
        self.connected_ops(app).unwrap_or_else(|error| {
            eprintln!("warning: tokens of remote servers are not revoked: {error:#}");
            self.ops.clone()
        })
    }

    /// Returns the organisation given by `--org`; without it, the only organisation.
    ///
    /// # Errors
    /// If the organisation does not exist, or there are several and `--org` is missing.
    pub async fn organization(&self, name: Option<&str>) -> anyhow::Result<Organization> {
        if let Some(name) = name {
            return match organizations::resolve(&self.cx, &self.ops, name).await {
                Ok(organization) => Ok(organization),
                Err(error) if error.code == waypost_core::Code::NotFound => {
                    bail!("there is no organisation `{name}`: run `waypost org list` to see all")
                }
                Err(error) => Err(error.into()),
            };
        }
        let mut all = organizations::list(&self.cx, &self.ops).await?;
        match all.len() {
            0 => bail!("there is no organisation yet: create one with `waypost org create SLUG`"),
            1 => Ok(all.remove(0)),
            _ => {
                let slugs: Vec<_> = all.iter().map(|organization| organization.slug.as_str()).collect();
                Err(UsageError(format!(
                    "there are several organisations, choose one with --org SLUG: {}",
                    slugs.join(", ")
                ))
                .into())
            }
        }
    }

    /// Returns the IDs of the organisations to search: the one given by `--org`, or all.
    ///
    /// # Errors
    /// See [`Session::organization`].
    pub async fn candidates(&self, name: Option<&str>) -> anyhow::Result<Vec<OrganizationId>> {
        if name.is_some() {
            return Ok(vec![self.organization(name).await?.id]);
        }
        let all = organizations::list(&self.cx, &self.ops).await?;
        Ok(all.into_iter().map(|organization| organization.id).collect())
    }
}

/// Replaces a `not_found` error with a message that names the object and the command that lists all objects.
pub(super) fn not_found_message(error: waypost_core::Error, noun: &str, text: &str, list: &str) -> anyhow::Error {
    if error.code == waypost_core::Code::NotFound {
        return anyhow::anyhow!(
            "there is no {noun} `{}`: run `waypost {list} list` to see all",
            super::output::clean(text)
        );
    }
    error.into()
}

/// Parses the name of an enum variant; the help lists all names.
pub(super) fn one_of<T>(all: &'static [T], name: fn(T) -> &'static str) -> impl TypedValueParser<Value = T>
where
    T: Copy + Send + Sync + std::str::FromStr<Err = String> + 'static,
{
    PossibleValuesParser::new(all.iter().map(|value| name(*value))).try_map(|text| text.parse::<T>())
}
