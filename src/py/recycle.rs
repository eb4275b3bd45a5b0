//! Objects that are used again instead of dying.
//!
//! The loop takes back what only it has a reference to. What a program holds dies when the program lets go of it, at some
//! place of its own: only `tp_dealloc` comes by there. [`define_recycling`] puts one in the place of PyO3's, which is
//! called for those that are not wanted.

use pyo3::prelude::*;
use pyo3::pyclass::boolean_struct::True;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;
use pyo3::{PyClass, ffi};

/// A class whose objects may be used again. Nobody can subclass it, and it says `weakref`.
pub(crate) trait Recycle: PyClass<Frozen = True> + Sync {
    /// Where the class keeps PyO3's own `tp_dealloc`.
    fn dealloc() -> &'static PyOnceLock<ffi::destructor>;

    /// Whether there is use for the object. Calls nothing of Python's, and waits for nobody.
    fn is_wanted(&self, py: Python<'_>) -> bool;

    /// Takes the object, whose last reference this is, to be used again.
    fn recycle(py: Python<'_>, object: Py<Self>);
}

/// Inside an implementation of [`Recycle`] or `Finalize`: the place for PyO3's `tp_dealloc` of the class.
macro_rules! own_dealloc {
    () => {
        fn dealloc() -> &'static ::pyo3::sync::PyOnceLock<::pyo3::ffi::destructor> {
            static DEALLOC: ::pyo3::sync::PyOnceLock<::pyo3::ffi::destructor> = ::pyo3::sync::PyOnceLock::new();
            &DEALLOC
        }
    };
}
pub(crate) use own_dealloc;

/// Puts the slot on the class.
pub(crate) fn define_recycling<T: Recycle>(class: &Bound<'_, PyType>) {
    if cfg!(Py_GIL_DISABLED) {
        // Reference counts are split between threads there.
        return;
    }
    replace_dealloc(class, T::dealloc(), enter::<T>);
}

/// Puts a function in the place of PyO3's `tp_dealloc`, which is kept at `original`.
pub(super) fn replace_dealloc(
    class: &Bound<'_, PyType>,
    original: &'static PyOnceLock<ffi::destructor>,
    function: ffi::destructor,
) {
    let class_object = class.as_type_ptr();
    // SAFETY: the type is live and the caller's own, and being made: no other thread uses it. It keeps the slot, whose
    // function fits the objects that the type makes.
    unsafe {
        if let Some(dealloc) = (*class_object).tp_dealloc {
            original.get_or_init(class.py(), || dealloc);
            (*class_object).tp_dealloc = Some(function);
        }
    }
}

/// Calls what [`replace_dealloc`] has kept.
///
/// # Safety
///
/// As CPython calls `tp_dealloc`: with an object of the class that has no references any more.
pub(super) unsafe fn call_dealloc(
    py: Python<'_>,
    original: &'static PyOnceLock<ffi::destructor>,
    object: *mut ffi::PyObject,
) {
    if let Some(dealloc) = original.get(py) {
        // SAFETY: what CPython would have called.
        unsafe { dealloc(object) };
    }
}

/// Called by CPython when the last reference to an instance of the class is gone.
unsafe extern "C" fn enter<T: Recycle>(slf: *mut ffi::PyObject) {
    // SAFETY: objects die in attached threads.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: its memory is whole still, and nothing below outlives this function.
    let object: &Bound<'_, T> = unsafe { Bound::ref_from_ptr(py, &slf).cast_unchecked() };
    if super::object::has_weak_references(object) || !object.get().is_wanted(py) {
        // SAFETY: it is what CPython gave.
        unsafe { call_dealloc(py, T::dealloc(), slf) };
        return;
    }
    // SAFETY: as the free lists of CPython and PyO3 do it: one reference, and one more to the class...
    unsafe { ffi::PyObject_Init(slf, ffi::Py_TYPE(slf)) };
    // SAFETY: ... which the object has from its first life. The collector tracks it still.
    unsafe { ffi::Py_DECREF(ffi::Py_TYPE(slf).cast()) };
    // SAFETY: the reference that was just made, to an instance of the class.
    T::recycle(py, unsafe { Bound::from_owned_ptr(py, slf).cast_into_unchecked().unbind() });
}
