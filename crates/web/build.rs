//! Emits `cfg` flags for the tools that some tests need, if they are installed.

#[path = "../testkit/probe.rs"]
mod probe;

fn main() {
    probe::emit();
}
