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
    // SAFETY: the object is live, its type has a list of weak references (the classes that come here say `weakref`).
    let list = unsafe { ffi::PyObject_GET_WEAKREFS_LISTPTR(object.as_ptr()) };
    // SAFETY: the pointer leads into the object, which is live.
    list.is_null() || unsafe { *list }.is_null()
}

/// The identity of the calling thread, as `threading.get_ident()` gives it.
#[inline]
pub(crate) fn thread_ident() -> u64 {
    // SAFETY: needs no attachment and touches no object.
    u64::from(unsafe { ffi::PyThread_get_thread_ident() })
}
