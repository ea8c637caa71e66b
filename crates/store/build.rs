//! Detects the tools that some tests need.

#[path = "../testkit/probe.rs"]
mod probe;

fn main() {
    probe::emit();
}
