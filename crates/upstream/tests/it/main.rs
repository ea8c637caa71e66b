//! Tests the client against servers of both eras, and against faulty servers.

#![expect(clippy::disallowed_methods, reason = "the tests start servers and reach them on loopback addresses")]

mod client;
mod connection;
mod faults;
mod server;
mod sse;
