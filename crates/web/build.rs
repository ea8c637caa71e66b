//! Says whether this machine has what some of the tests need.

#[path = "../testkit/probe.rs"]
mod probe;

fn main() {
    probe::emit();
}
