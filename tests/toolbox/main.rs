//! Toolboxes with a real Docker Engine and a real registry: the built program runs as a child process, and servers run
//! in containers from images that the tests push.
//!
//! Tests that need an engine are declared with `waypost_testkit::needs_docker!`, those that kill one with
//! `needs_dockerd!`. The engine is shared with other programs, so tests use only the objects that they have created,
//! and remove them. No test sleeps; each wait for an event has a timeout.

#![expect(clippy::disallowed_methods, reason = "the tests start clients and threads of their own")]

mod attach;
mod browser;
mod changed_definitions;
mod clocks;
mod commands;
mod console;
mod deploy;
mod diagnostics;
mod egress;
mod engine;
mod faults;
mod forged;
mod forwarded_headers;
mod gateway;
mod harness;
mod image;
mod isolation;
mod leak;
#[path = "../support/link_client.rs"]
mod link_client;
mod links;
mod listeners;
mod netns;
mod own_engine;
mod registry;
mod relay;
#[path = "../support/remote_server.rs"]
mod remote_server;
mod replicas;
mod restart;
mod secrets;
mod server_program;
mod site;
mod steps;
mod tar;
mod third_party;
mod waypost;

#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod support;
