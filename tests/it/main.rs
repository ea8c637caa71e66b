//! The product over HTTP, in this process: the router that `waypost serve` serves, called without a socket.
//!
//! Each module has the name of what it tests. [`client`] checks on every answer what holds for every answer: errors on
//! an MCP address are JSON-RPC, nothing internal is shown, results have the shape of their era, and what a tool answers
//! fits the schema that it lists. [`app::App::finish`] looks for left-overs.

mod app;
mod client;
mod console;
mod transcript;

mod addresses;
mod bodies;
mod callers;
mod collect_email;
mod contents;
mod decisions;
mod failures;
mod guidance;
mod hidden_text;
mod identity;
mod jobs;
mod listen;
mod many;
mod parallel;
mod play;
mod progress;
mod public_page;
mod recording;
mod rejected;
mod sessions;
mod sign_in;
mod tenancy;
mod tools;
