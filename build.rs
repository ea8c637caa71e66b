//! Says whether this machine has what some of the tests need.

#[path = "crates/testkit/probe.rs"]
mod probe;

fn main() {
    probe::emit();
    probe::emit_node();
}
