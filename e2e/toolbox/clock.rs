//! A library for `LD_PRELOAD` that moves the wall clock of a program by `CLOCK_OFFSET` seconds, for tests with a machine
//! whose clock is wrong. `rustc --crate-type cdylib` compiles it. The monotonic clock stays as it is.

use std::ffi::{CStr, c_char, c_int, c_long};

#[repr(C)]
pub struct Timespec {
    seconds: c_long,
    nanoseconds: c_long,
}

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn getenv(name: *const c_char) -> *const c_char;
}

#[cfg(target_arch = "x86_64")]
const CLOCK_GETTIME: c_long = 228;
#[cfg(target_arch = "aarch64")]
const CLOCK_GETTIME: c_long = 113;

const CLOCK_REALTIME: c_int = 0;

/// clock_gettime(2), which replaces that of the C library.
///
/// # Safety
/// `time` must be a valid pointer, as for the original.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: c_int, time: *mut Timespec) -> c_int {
    // SAFETY: the arguments are those of the caller.
    let result = unsafe { syscall(CLOCK_GETTIME, clock, time) };
    if result == 0 && clock == CLOCK_REALTIME {
        // SAFETY: the kernel has written to the pointer.
        unsafe { (*time).seconds += offset() };
    }
    result as c_int
}

fn offset() -> c_long {
    // SAFETY: the environment is not changed while the program runs.
    let value = unsafe { getenv(c"CLOCK_OFFSET".as_ptr()) };
    if value.is_null() {
        return 0;
    }
    // SAFETY: getenv(3) returns a string.
    unsafe { CStr::from_ptr(value) }.to_str().ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}
