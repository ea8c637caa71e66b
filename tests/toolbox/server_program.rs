//! The program in the images: the MCP server of `e2e/toolbox`.

use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

/// Returns the program, a static executable without dependencies. The first call compiles it.
pub fn server_program() -> &'static [u8] {
    static PROGRAM: LazyLock<Vec<u8>> = LazyLock::new(compile);
    &PROGRAM
}

fn compile() -> Vec<u8> {
    let folder = waypost_testkit::folder();
    let (source, program) =
        (Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/toolbox/server.rs"), folder.path().join("server"));
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.args(["--edition", "2024", "-C", "opt-level=s", "-C", "strip=symbols", "-C", "target-feature=+crt-static"]);
    let output = rustc.arg("-o").arg(&program).arg(source).output().expect("rustc starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::read(program).expect("rustc wrote the program")
}
