//! The acts: everything that a caller can do, once, for the pages, the API, the tools and the command line.
//!
//! Every act takes the context first, asks whether the caller may, checks the arguments, and writes what it does and
//! the entry of the audit log in one transaction. What a caller may not know of is "not found". The acts of an end user
//! on a hosted server stand in [`progress`]; they work on a [`hosting::Hosting`].

pub mod accounts;
pub mod activity;
pub mod analytics;
pub mod api_keys;
pub mod assignments;
mod audit;
pub mod audit_events;
pub mod authorizations;
pub mod browser_sessions;
pub mod call_records;
mod checks;
pub mod claim_links;
mod codes;
pub mod devices;
pub mod end_users;
mod fair_queue;
pub mod hosting;
pub mod idempotency;
pub mod identities;
pub mod identity;
pub mod identity_provider;
pub mod invitations;
pub mod job_leases;
pub mod joins;
pub mod limits;
pub mod logos;
pub mod notifications;
pub mod oauth_clients;
pub mod oauth_configs;
pub mod oauth_grants;
pub mod offers;
pub mod organizations;
pub mod overview;
mod passwords;
pub mod progress;
pub mod public_url;
pub mod redirect_uri;
pub mod retention;
pub mod search;
pub mod secrets;
pub mod servers;
pub mod sessions;
mod sign_in_limits;
pub mod ticket_comments;
pub mod tickets;
pub mod try_it;
pub mod user_accounts;
pub mod user_sessions;
pub mod users;
pub mod walkthroughs;
pub mod webhook_deliveries;
pub mod webhooks;

use std::sync::Arc;

use waypost_store::Db;

/// What acts are done on.
#[derive(Debug, Clone)]
pub struct Ops {
    pub(crate) db: Db,
    pub(crate) notifications: notifications::Notifications,
    /// One for the whole process, as are the limits: clones share them.
    pub(crate) passwords: passwords::Passwords,
    pub(crate) sign_in_limits: sign_in_limits::SignInLimits,
}

impl Ops {
    /// Acts on `db`.
    #[must_use]
    pub fn new(db: Db) -> Self {
        Self {
            db,
            notifications: notifications::Notifications::default(),
            passwords: passwords::Passwords::default(),
            sign_in_limits: sign_in_limits::SignInLimits::default(),
        }
    }

    /// The same, with a way to tell people what happened.
    #[must_use]
    pub fn with_notifier(self, notifier: Arc<dyn notifications::Notifier>) -> Self {
        Self { notifications: notifications::Notifications::new(notifier), ..self }
    }

    /// How many passwords this process has hashed.
    #[must_use]
    pub fn hashed_passwords(&self) -> u64 {
        self.passwords.hashed()
    }

    /// The database.
    #[must_use]
    pub fn db(&self) -> &Db {
        &self.db
    }
}
