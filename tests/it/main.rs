//! Tests of the product over HTTP in the test process. The router of `waypost serve` is called without a socket.
//!
//! Each module is named after the feature that it tests. [`client`] checks for every response that errors on an MCP URL
//! are JSON-RPC, that no internal details are shown, that results have the format of their era, and that tool results
//! match the listed schema. [`app::App::finish`] checks the invariants of the database.

#![expect(clippy::disallowed_methods, reason = "the tests start servers and clients")]

mod app;
mod client;
mod console;
mod daemon;
mod redaction;

mod collect_email;
mod concurrency;
mod crates;
mod docs;
mod gateway;
mod guidance;
mod hidden_text;
mod identity;
#[path = "../support/link_client.rs"]
mod link_client;
mod many_walkthroughs;
mod modules;
mod play;
mod progress;
mod prompts_and_resources;
mod protocol_revisions;
mod public_page;
mod rate_limits;
mod readiness;
mod recording;
mod rejected_calls;
mod request_bodies;
mod server_urls;
mod sessions;
mod sign_in;
mod subscriptions;
mod tenancy;
mod tool_errors;
mod toolbox_link;
mod tools;
