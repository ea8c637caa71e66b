//! Support for tests with a real process: an installation whose `waypost serve` prints its emails, a user agent that
//! submits the sign-in forms, and client metadata documents over HTTPS.

pub mod documents;
pub mod form;
pub mod installation;
pub mod mailbox;
pub mod user;
pub mod user_agent;

use std::time::Duration;

/// The timeout after which an operation counts as hanging.
pub const TIMEOUT: Duration = Duration::from_secs(60);
