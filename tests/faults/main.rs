//! What happens when something fails: the built program runs as a child process on a database of its own, is driven
//! over loopback by many clients at once, and is killed, starved, cut off and started twice meanwhile.
//!
//! The one rule behind all of it: what was acknowledged is there afterwards, and what is there was asked for.
//! `cargo test --features slow-tests --test faults` runs them, in about a minute.
//! No test waits by the clock; where one waits for an event, a timeout bounds how long the event may take.

mod client;
mod connections;
mod disconnect;
mod disk;
mod durability;
mod installation;
mod kill;
mod load;
mod outage;
mod program;
mod proxy;
mod replicas;
mod shutdown;
mod start;
