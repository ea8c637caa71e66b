//! The domain logic of Waypost, without I/O: identifiers, time, callers, access, errors, models, secrets, and progress.
//! The clock and the random number generator are passed in.

pub mod access;
pub mod account;
pub mod analytics;
pub mod assignment;
pub mod audit;
pub mod authorization;
pub mod caller;
pub mod catalog;
pub mod chain;
pub mod claim_link;
pub mod clock;
pub mod deployment;
pub mod email;
pub mod error;
pub mod event;
pub mod id;
pub mod impact;
pub mod instance;
pub mod invitation;
pub mod join;
pub mod oauth_client;
pub mod oauth_config;
pub mod oauth_error;
pub mod oauth_grant;
pub mod organization;
pub mod personal;
pub mod progress;
pub mod random;
pub mod revision;
pub mod scope;
pub mod seal;
pub mod secret;
pub mod server;
pub mod slug;
pub mod step;
pub mod ticket;
pub mod tool_definition;
pub mod tool_secret;
pub mod toolbox;
pub mod version;
pub mod walkthrough;
pub mod webhook;

pub use clock::{Clock, SystemClock, Timestamp};
pub use error::{Code, Error, Result};
pub use random::{Random, SystemRandom};
