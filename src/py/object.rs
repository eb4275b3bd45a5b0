//! Facts about objects that only the C API tells.

use pyo3::ffi;
use pyo3::prelude::*;

/// Whether the caller's reference is the only one, weak references included: the object can be used again for
/// something else without anybody noticing.
#[inline]
pub(crate) fn is_unshared<T>(_py: Python<'_>, object: &Py<T>) -> bool {
    if cfg!(Py_GIL_DISABLED) {
        // Reference counts are split between threads there; nothing simple tells.
        return false;
    }
    // SAFETY: the object is live.
    if unsafe { ffi::Py_REFCNT(object.as_ptr()) } != 1 {
        return false;
    }
    // SAFETY: the object is live, and so is its type.
    let offset = unsafe { (*ffi::Py_TYPE(object.as_ptr())).tp_weaklistoffset };
    debug_assert!(offset > 0, "the classes that come here say `weakref`");
    // SAFETY: at this offset into the object is the head of its list of weak references.
    let list = unsafe { object.as_ptr().byte_offset(offset).cast::<*mut ffi::PyObject>().read() };
    list.is_null()
}

/// The identity of the calling thread, as `threading.get_ident()` gives it.
#[inline]
pub(crate) fn thread_ident() -> u64 {
    // SAFETY: needs no attachment and touches no object.
    unsafe { ffi::PyThread_get_thread_ident() }
}
