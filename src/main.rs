//! `waypost`: MCP platform, one binary.

use std::process::ExitCode;

/// Requests are many small allocations on several threads, which the C library's allocator neither serves fast nor gives
/// back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    waypost::cmd::main()
}
