//! Fault injection: the built program runs as a child process on its own database under load from many clients, while
//! it is killed, starved of resources, disconnected or started twice.
//!
//! All tests check one rule: acknowledged changes are stored, and only requested changes are stored.
//! `cargo test --workspace --test faults` takes about a minute. No test sleeps; each wait for an event has a
//! timeout.

#![expect(clippy::disallowed_methods, reason = "the tests start clients and measure how long programs take")]

mod client;
mod connections;
mod disconnect;
mod disk;
mod durability;
mod gateway;
mod gateway_stdio;
mod installation;
mod kill;
#[path = "../support/link_client.rs"]
mod link_client;
mod load;
mod outage;
mod program;
mod proxy;
#[path = "../support/remote_server.rs"]
mod remote_server;
mod replicas;
mod shutdown;
mod start;
mod toolbox_metrics;
