//! Detects the tools that some tests need.

#[path = "crates/testkit/probe.rs"]
mod probe;

fn main() {
    probe::emit();
    probe::emit_node();
}
