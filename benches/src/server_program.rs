//! The program in the images: the MCP server of `e2e/toolbox`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use tempfile::TempDir;

static PROGRAM: LazyLock<(TempDir, PathBuf, Vec<u8>)> = LazyLock::new(compile);

/// Returns the program, a static executable without dependencies. The first call compiles it.
///
/// # Panics
/// If it cannot be compiled.
pub fn server_program() -> &'static [u8] {
    &PROGRAM.2
}

/// Returns the path of the program.
///
/// # Panics
/// If it cannot be compiled.
pub fn path() -> &'static Path {
    &PROGRAM.1
}

fn compile() -> (TempDir, PathBuf, Vec<u8>) {
    let folder = waypost_testkit::folder();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/toolbox/server.rs");
    let program = folder.path().join("server");
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.args(["--edition", "2024", "-C", "opt-level=s", "-C", "strip=symbols", "-C", "target-feature=+crt-static"]);
    let output = rustc.arg("-o").arg(&program).arg(source).output().expect("rustc starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let content = std::fs::read(&program).expect("rustc wrote the program");
    (folder, program, content)
}
