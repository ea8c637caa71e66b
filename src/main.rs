//! The `waypost` binary.

use std::process::ExitCode;

/// mimalloc, because requests make many small allocations on several threads, for which the C library's allocator is slow
/// and does not return memory to the operating system.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    waypost::cmd::main()
}
