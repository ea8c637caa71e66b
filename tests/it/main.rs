//! The product over HTTP, in this process: the router that `waypost serve` serves, called without a socket.
//!
//! Each module has the name of what it tests. [`client`] checks on every answer what holds for every answer: errors on
//! an MCP address are JSON-RPC, nothing internal is shown, results have the shape of their era, and what a tool answers
//! fits the schema that it lists. [`app::App::finish`] looks for left-overs.

mod app;
mod client;
mod console;
mod redaction;

mod collect_email;
mod concurrency;
mod guidance;
mod hidden_text;
mod identity;
mod many_walkthroughs;
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
mod tools;
