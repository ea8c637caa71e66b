//! `waypost`: MCP platform, one binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    waypost::cmd::main()
}
