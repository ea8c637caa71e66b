//! What the tests of sign-in share: an installation whose `waypost serve` runs as a child process and prints its mail,
//! a user agent that goes through the sign-in pages without a person, and clients' metadata documents over https.

pub mod documents;
pub mod form;
pub mod installation;
pub mod mailbox;
pub mod user;
pub mod user_agent;

use std::time::Duration;

/// How long anything that is waited for may take before it counts as hanging.
pub const TIMEOUT: Duration = Duration::from_secs(60);
