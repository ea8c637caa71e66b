//! Says whether this machine has what some of the tests need.

use std::path::Path;

#[path = "crates/testkit/probe.rs"]
mod probe;

fn main() {
    probe::emit();
    println!("cargo::rustc-check-cfg=cfg(have_clients)");
    let without = std::env::var("WAYPOST_TEST_WITHOUT").unwrap_or_default();
    // `e2e/clients/install.sh` writes it when everything else is there. Until then the folder is what changes: a path
    // that does not exist would mean a new build of the crate at every command.
    let installed = "e2e/clients/.installed";
    if Path::new(installed).is_file() {
        println!("cargo::rerun-if-changed={installed}");
        if without.split(',').all(|name| name.trim() != "clients") {
            println!("cargo::rustc-cfg=have_clients");
        }
    } else {
        println!("cargo::rerun-if-changed=e2e/clients");
    }
}
