//! Detects the tools that some tests need: Node.js and what is installed in `e2e`.

#[path = "crates/testkit/probe.rs"]
mod probe;

fn main() {
    probe::emit_node();
}
