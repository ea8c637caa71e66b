//! Detects the tools that some of the tests need.

#[path = "../testkit/probe.rs"]
mod probe;

fn main() {
    probe::emit();
}
