//! The C library's allocator.

use std::hint::black_box;
use std::sync::Once;

/// Larger than any block that a read asks for (bytes).
const LARGE: usize = 1024 * 1024;

/// Lets the allocator keep the memory of large blocks, for all of the process.
///
/// At first, glibc maps each block of 128 KiB and more by itself and unmaps it when it is freed: for every large read two
/// or three system calls, and fresh pages to be zeroed. It gives that up, for blocks of up to the same size, when one is
/// freed; a program that runs for a while does it sooner or later. Elsewhere this does next to nothing.
pub(crate) fn keep_large_blocks() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| drop(black_box(Vec::<u8>::with_capacity(LARGE))));
}
