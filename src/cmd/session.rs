//! What commands on the store's contents share: the open store, the operator as the caller, and finding the
//! organisation that is meant.

use anyhow::bail;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use waypost_core::caller::Ctx;
use waypost_core::id::OrganizationId;
use waypost_core::organization::Organization;
use waypost_ops::public_url::PublicUrl;
use waypost_ops::{Ops, organizations};
use waypost_store::Db;

use super::{App, UsageError};

/// A command at work on the store.
pub struct Session {
    /// The acts' store.
    pub ops: Ops,
    /// The operator.
    pub cx: Ctx,
    /// Whether data is printed as JSON.
    pub json: bool,
    /// The origin under which others reach this installation, as far as a command can know it.
    pub public_url: PublicUrl,
    db: Db,
}

impl Session {
    /// Opens the store, runs `work`, and closes the store whatever came of it.
    ///
    /// # Errors
    /// When the store cannot be opened, and whatever `work` fails with.
    pub async fn run<T>(app: &App, work: impl AsyncFnOnce(&Self) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let db = app.open().await?.db;
        let public_url = PublicUrl::new(app.settings.public_url(app.settings.listen.port()));
        let session = Self { ops: Ops::new(db.clone()), cx: Ctx::operator(), json: app.json, public_url, db };
        let outcome = work(&session).await;
        // Folds the log of SQLite back into its file.
        session.db.close().await;
        outcome
    }

    /// The organisation that `--org` names; without it the only one there is.
    ///
    /// # Errors
    /// When there is no such one, or it must be named.
    pub async fn organization(&self, named: Option<&str>) -> anyhow::Result<Organization> {
        if let Some(named) = named {
            return match organizations::find(&self.cx, &self.ops, named).await {
                Ok(organization) => Ok(organization),
                Err(error) if error.code == waypost_core::Code::NotFound => {
                    bail!("there is no organisation `{named}`: `waypost org list` shows them")
                }
                Err(error) => Err(error.into()),
            };
        }
        let mut all = organizations::list(&self.cx, &self.ops).await?;
        match all.len() {
            0 => bail!("there is no organisation yet: make one with `waypost org create SLUG`"),
            1 => Ok(all.remove(0)),
            _ => {
                let slugs: Vec<_> = all.iter().map(|organization| organization.slug.as_str()).collect();
                Err(UsageError(format!("say which organisation with --org SLUG: {}", slugs.join(", "))).into())
            }
        }
    }

    /// Every organisation that a command may mean: the named one, or all.
    ///
    /// # Errors
    /// As [`Session::organization`].
    pub async fn candidates(&self, named: Option<&str>) -> anyhow::Result<Vec<OrganizationId>> {
        if named.is_some() {
            return Ok(vec![self.organization(named).await?.id]);
        }
        let all = organizations::list(&self.cx, &self.ops).await?;
        Ok(all.into_iter().map(|organization| organization.id).collect())
    }
}

/// A refusal in the words of the command line: which thing was not found, and where to look.
pub(super) fn named(error: waypost_core::Error, noun: &str, text: &str, list: &str) -> anyhow::Error {
    if error.code == waypost_core::Code::NotFound {
        return anyhow::anyhow!(
            "there is no {noun} `{}`: `waypost {list} list` shows them",
            super::output::clean(text)
        );
    }
    error.into()
}

/// Reads one of the names of an enum, and lists them in the help.
pub(super) fn one_of<T>(all: &'static [T], name: fn(T) -> &'static str) -> impl TypedValueParser<Value = T>
where
    T: Copy + Send + Sync + std::str::FromStr<Err = String> + 'static,
{
    PossibleValuesParser::new(all.iter().map(|value| name(*value))).try_map(|text| text.parse::<T>())
}
