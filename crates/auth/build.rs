//! Detects whether this machine provides what some of the tests need.

#[path = "../testkit/probe.rs"]
mod probe;

fn main() {
    probe::emit();
}
