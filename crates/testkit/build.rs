//! Detects PostgreSQL, `strace` and a Docker Engine, which some tests need.

#[path = "probe.rs"]
mod probe;

fn main() {
    probe::emit();
}
