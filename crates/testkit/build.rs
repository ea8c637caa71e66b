//! Detects PostgreSQL and `strace`, which some tests need.

#[path = "probe.rs"]
mod probe;

fn main() {
    probe::emit();
}
