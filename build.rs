//! Detects optional test dependencies on this machine.

#[path = "crates/testkit/probe.rs"]
mod probe;

fn main() {
    probe::emit();
    probe::emit_node();
}
