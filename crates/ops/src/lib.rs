//! The operations: everything that a caller can do, shared by the console, the API, the MCP tools and the command line.
//!
//! Every operation takes the context first, authorizes the caller, validates the arguments, and writes its changes and the
//! audit entry in one transaction. Objects that the caller must not know about are reported as `not_found`. The operations
//! of end users on hosted servers are in [`progress`]; they use a [`hosting::Hosting`].

pub mod accounts;
pub mod activity;
pub mod analytics;
pub mod api_keys;
pub mod assignments;
mod audit;
pub mod audit_events;
pub mod audit_export;
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
pub mod spreadsheet;
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

/// The resources that operations use.
#[derive(Debug, Clone)]
pub struct Ops {
    pub(crate) db: Db,
    pub(crate) notifications: notifications::Notifications,
    /// One per process, like the sign-in limits: clones share them.
    pub(crate) passwords: passwords::Passwords,
    pub(crate) sign_in_limits: sign_in_limits::SignInLimits,
}

impl Ops {
    /// Creates operations on `db`.
    #[must_use]
    pub fn new(db: Db) -> Self {
        Self {
            db,
            notifications: notifications::Notifications::default(),
            passwords: passwords::Passwords::default(),
            sign_in_limits: sign_in_limits::SignInLimits::default(),
        }
    }

    /// Sets the notifier, which sends emails.
    #[must_use]
    pub fn with_notifier(self, notifier: Arc<dyn notifications::Notifier>) -> Self {
        Self { notifications: notifications::Notifications::new(notifier), ..self }
    }

    /// Returns the number of passwords that this process has hashed.
    #[must_use]
    pub fn hashed_passwords(&self) -> u64 {
        self.passwords.hashed()
    }

    /// Returns the database.
    #[must_use]
    pub fn db(&self) -> &Db {
        &self.db
    }
}
