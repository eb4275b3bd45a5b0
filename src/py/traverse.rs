//! Raw `tp_traverse`: how the garbage collector looks into objects that there may be very many of.
//!
//! The one that `#[pymethods]` makes counts itself in, twice, and expects panics: five times the work of the visits
//! themselves, for each handle in each collection. [`define_traverse`] puts a plain one in its place.

use pyo3::prelude::*;
use pyo3::pyclass::boolean_struct::True;
use pyo3::types::PyType;
use pyo3::{PyClass, ffi};
use std::ffi::{c_int, c_void};

/// A class with a raw traversal. It visits what `__traverse__` does, and like it calls nothing of Python's.
pub(crate) trait Traverse: PyClass<Frozen = True> + Sync {
    /// Shows each reference that is held to `visit`, until that answers other than 0; gives the last answer.
    fn traverse_raw(&self, visit: Visit) -> c_int;
}

/// The collector's visitor.
#[derive(Clone, Copy)]
pub(crate) struct Visit {
    function: ffi::visitproc,
    argument: *mut c_void,
}

impl Visit {
    /// Shows one reference to the collector.
    #[inline]
    pub(crate) fn call<T>(&self, object: &Py<T>) -> c_int {
        // SAFETY: the collector gave the two for each other; the reference is live.
        unsafe { (self.function)(object.as_ptr(), self.argument) }
    }
}

/// Puts the raw traversal on its class, which nobody can subclass.
pub(crate) fn define_traverse<T: Traverse>(class: &Bound<'_, PyType>) {
    // SAFETY: the type is live and T's own; it keeps the slot, whose function fits the objects that the type makes. No
    // other thread collects meanwhile: the module is being made.
    unsafe { (*class.as_type_ptr()).tp_traverse = Some(enter::<T>) };
}

/// Called by the collector with an instance of the class.
unsafe extern "C" fn enter<T: Traverse>(
    slf: *mut ffi::PyObject,
    function: ffi::visitproc,
    argument: *mut c_void,
) -> c_int {
    // SAFETY: an object of a type that is made at run time holds a reference to it, which is live.
    let answer = unsafe { function(ffi::Py_TYPE(slf).cast(), argument) };
    if answer != 0 {
        return answer;
    }
    // SAFETY: the collector runs in attached threads; nothing here makes or drops a reference.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: `slf` is live, and an instance of the class: the slot is in no other type.
    let slf: &Bound<'_, T> = unsafe { Bound::ref_from_ptr(py, &slf).cast_unchecked() };
    slf.get().traverse_raw(Visit { function, argument })
}
