//! Facts about objects that only the C API tells.

use pyo3::prelude::*;
use pyo3::types::{PyInt, PyString, PyType};
use pyo3::{PyClass, ffi};
use std::ffi::c_int;

unsafe extern "C" {
    /// Looks up what `object.name()` would call: 1, and a method of the type that is not bound; or 0, and anything else,
    /// or NULL with an exception set. What it finds is a new reference.
    fn _PyObject_GetMethod(
        object: *mut ffi::PyObject,
        name: *mut ffi::PyObject,
        method: *mut *mut ffi::PyObject,
    ) -> c_int;
    /// What the type has under a name, borrowed, or NULL without an exception.
    fn _PyType_Lookup(class: *mut ffi::PyTypeObject, name: *mut ffi::PyObject) -> *mut ffi::PyObject;
}

/// Whether `object.name(...)` calls this very function of its class: no subclass, instance or program hides it.
#[inline]
pub(crate) fn calls(object: &Bound<'_, PyAny>, name: &Bound<'_, PyString>, function: &Py<PyAny>) -> bool {
    let mut method = std::ptr::null_mut();
    // SAFETY: both are live; `method` is valid for writes.
    let found = unsafe { _PyObject_GetMethod(object.as_ptr(), name.as_ptr(), &raw mut method) };
    if method.is_null() {
        // There is no such attribute.
        drop(PyErr::take(object.py()));
        return false;
    }
    let is_it = found == 1 && method == function.as_ptr();
    // SAFETY: the new reference that the call gave.
    unsafe { ffi::Py_DECREF(method) };
    is_it
}

/// Whether the object's class has this very object under the name.
#[inline]
pub(crate) fn has_in_class(object: &Bound<'_, PyAny>, name: &Bound<'_, PyString>, value: &Py<PyAny>) -> bool {
    // SAFETY: both are live; nothing runs between the look-up and the comparison.
    unsafe { _PyType_Lookup(ffi::Py_TYPE(object.as_ptr()), name.as_ptr()) == value.as_ptr() }
}

/// Whether the object's class has the same under the name as that class.
#[inline]
pub(crate) fn has_same_in_class(
    object: &Bound<'_, PyAny>,
    name: &Bound<'_, PyString>,
    class: &Bound<'_, PyType>,
) -> bool {
    // SAFETY: all are live; nothing runs between the look-ups and the comparison.
    unsafe {
        _PyType_Lookup(ffi::Py_TYPE(object.as_ptr()), name.as_ptr())
            == _PyType_Lookup(class.as_type_ptr(), name.as_ptr())
    }
}

/// Sets or deletes (None) an attribute in the way of `object.__setattr__()`.
pub(crate) fn store_attribute(
    object: &Bound<'_, PyAny>,
    name: &Bound<'_, PyAny>,
    value: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    let value = value.map_or(std::ptr::null_mut(), Bound::as_ptr);
    // SAFETY: all are live; NULL stands for deleting.
    match unsafe { ffi::PyObject_GenericSetAttr(object.as_ptr(), name.as_ptr(), value) } {
        0 => Ok(()),
        _ => Err(PyErr::fetch(object.py())),
    }
}

/// Whether the object is an instance of this very class, not of a subclass.
#[inline]
pub(crate) fn is_exactly(object: &Bound<'_, PyAny>, class: &Py<PyAny>) -> bool {
    object.get_type_ptr().cast() == class.as_ptr()
}

/// A new object of a class with a dictionary.
///
/// Before Python 3.13 that dictionary is made between the object's allocation and its content, and making it may start
/// the garbage collector, which would look into an object with nothing in it. So it is off meanwhile.
pub(crate) fn new_with_dictionary<T: PyClass<BaseType = PyAny>>(py: Python<'_>, content: T) -> PyResult<Bound<'_, T>> {
    // SAFETY: attached; nothing of Python's runs before the collector is on again.
    let was_on = unsafe { ffi::PyGC_Disable() } == 1;
    let object = Bound::new(py, content);
    if was_on {
        // SAFETY: attached.
        unsafe { ffi::PyGC_Enable() };
    }
    object
}

/// Whether the caller's reference is the only one, weak references included: the object can be used again for
/// something else without anybody noticing.
#[inline]
pub(crate) fn is_unshared<T>(py: Python<'_>, object: &Py<T>) -> bool {
    if cfg!(Py_GIL_DISABLED) {
        // Reference counts are split between threads there; nothing simple tells.
        return false;
    }
    // SAFETY: the object is live.
    let references = unsafe { ffi::Py_REFCNT(object.as_ptr()) };
    references == 1 && !has_weak_references(object.bind(py))
}

/// Whether there are weak references to an object of a class that says `weakref`.
#[inline]
pub(super) fn has_weak_references<T>(object: &Bound<'_, T>) -> bool {
    // SAFETY: the object is live, and so is its type.
    let offset = unsafe { (*ffi::Py_TYPE(object.as_ptr())).tp_weaklistoffset };
    debug_assert!(offset > 0, "the classes that come here say `weakref`");
    // SAFETY: at this offset into the object is the head of its list of weak references.
    let list = unsafe { object.as_ptr().byte_offset(offset).cast::<*mut ffi::PyObject>().read() };
    !list.is_null()
}

/// An int as a float, or Python's OverflowError.
#[inline]
pub(crate) fn int_as_float(int: &Bound<'_, PyInt>) -> PyResult<f64> {
    // SAFETY: the object is live, and an int.
    let value = unsafe { ffi::PyLong_AsDouble(int.as_ptr()) };
    // -1 stands for an error too.
    if value < 0.0
        && let Some(error) = PyErr::take(int.py())
    {
        return Err(error);
    }
    Ok(value)
}

/// The identity of the calling thread, as `threading.get_ident()` gives it.
#[inline]
pub(crate) fn thread_ident() -> u64 {
    // SAFETY: needs no attachment and touches no object.
    unsafe { ffi::PyThread_get_thread_ident() }
}
