//! The store: every query is written once for SQLite and PostgreSQL.
//!
//! Functions take the organisation as an argument; [`system`] contains the lookups that run before it is known. Times
//! and random values are passed in. Callers read with [`Db::read`], write in a [`db::Tx`], and change progress through
//! the [`writer::Writer`], which commits many calls at once.

pub mod account;
pub mod activity;
pub mod analytics;
pub mod api_key;
pub mod assignment;
pub mod attempt_counts;
pub mod audit;
pub mod authorization_request;
pub mod backup;
mod batch;
pub mod browser_session;
pub mod config_version;
pub mod counted_call;
pub mod db;
pub mod editing_session;
pub mod email_code;
pub mod email_queue;
pub mod end_user;
pub mod error;
pub mod expired;
pub mod health;
pub mod idempotency;
pub mod identity;
pub mod identity_provider_state;
pub mod identity_provider_token;
pub mod invitation;
pub mod invitation_accept;
pub mod job_lease;
pub mod join;
pub mod logo;
pub mod migrate;
pub mod oauth_client;
pub mod oauth_config;
pub mod oauth_consent;
pub mod oauth_grant;
pub mod offer;
pub mod open_rows;
pub mod organization;
pub mod overview;
pub mod progress;
pub mod recorder;
pub mod retention;
mod row;
pub mod sealed;
pub mod server;
pub mod session;
pub mod sign_in_attempt;
pub mod space;
pub mod sqlite;
pub mod step;
pub mod step_revision;
pub mod system;
pub mod ticket;
pub mod ticket_comment;
pub mod ticket_digest;
pub mod tool_call;
pub mod trash;
pub mod user;
pub mod user_account;
pub mod user_code;
pub mod user_identity;
pub mod user_session;
pub mod user_sign_in;
mod values;
pub mod version;
pub mod walkthrough;
pub mod walkthrough_list;
pub mod webhook;
pub mod webhook_delivery;
pub mod writer;

pub use db::{Conn, Db, Dialect, Tx};
pub use error::{Error, Result};
