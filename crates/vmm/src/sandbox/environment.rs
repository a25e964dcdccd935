//! The environment, in which the starter of a machine may have secrets that do not belong to it.
#![expect(unsafe_code, reason = "writes over the strings that the kernel put on the stack")]

use libc::{c_char, clearenv, strlen};

unsafe extern "C" {
    /// environ(7).
    static environ: *const *mut c_char;
}

/// Empties the environment, and writes over what was in it, which is memory of the process for as
/// long as it runs. To be called by one that has read what it wants to know.
///
/// # Safety
///
/// The process has one thread.
pub unsafe fn forget() {
    // SAFETY: by the caller's word nobody reads or changes the environment meanwhile. The array ends in a
    // null pointer, each other pointer is to a string that ends in a zero byte, and all are writable:
    // the kernel and setenv(3) put them on the stack or the heap. Rust keeps no reference to them.
    unsafe {
        let mut entry = environ;
        while !entry.is_null() && !(*entry).is_null() {
            std::ptr::write_bytes(*entry, 0, strlen(*entry));
            entry = entry.add(1);
        }
        clearenv();
    }
}
