//! Finalizers: what an object does, whole still, when nothing can reach it any more (PEP 442).
//!
//! PyO3 knows `Drop`, which comes later: the garbage collector may have emptied the objects around by then, and there is
//! no object any more that a warning could name. [`define_finalizer`] puts `tp_finalize` on a class, which the collector
//! calls before it empties anything, and a `tp_dealloc` that calls it for an object whose last reference goes.
//!
//! Rules: a finalizer is called once in an object's life, or never at the end of the interpreter. It may give the object
//! a new reference; then the object lives on.

use super::recycle::{call_dealloc, replace_dealloc};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::pyclass::boolean_struct::True;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;
use pyo3::{PyClass, ffi};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A class with a finalizer, which nobody can subclass.
pub(crate) trait Finalize: PyClass<Frozen = True> + Sync {
    /// Where the class keeps PyO3's own `tp_dealloc`.
    fn dealloc() -> &'static PyOnceLock<ffi::destructor>;

    /// The finalizer. Its exceptions have nobody to go to: they are reported to `sys.unraisablehook`.
    fn finalize(slf: &Bound<'_, Self>) -> PyResult<()>;
}

/// Puts the slots on the class.
pub(crate) fn define_finalizer<T: Finalize>(class: &Bound<'_, PyType>) {
    replace_dealloc(class, T::dealloc(), dealloc::<T>);
    // SAFETY: the type is live and T's own, and being made: no other thread uses it. It keeps the slot, whose function
    // fits the objects that the type makes.
    unsafe { (*class.as_type_ptr()).tp_finalize = Some(finalize::<T>) };
}

/// Called by CPython when the last reference to an instance of the class is gone.
unsafe extern "C" fn dealloc<T: Finalize>(slf: *mut ffi::PyObject) {
    // SAFETY: as `tp_dealloc` of a Python class calls it: the object is whole, without references, and tracked.
    if unsafe { ffi::PyObject_CallFinalizerFromDealloc(slf) } < 0 {
        // Somebody has it again.
        return;
    }
    // SAFETY: objects die in attached threads; `slf` is what CPython gave.
    unsafe { call_dealloc(Python::assume_attached(), T::dealloc(), slf) };
}

/// Called by the collector, or from [`dealloc`], with a live instance of the class.
unsafe extern "C" fn finalize<T: Finalize>(slf: *mut ffi::PyObject) {
    let action = |py: Python<'_>| {
        // An exception that travels is nothing to the finalizer.
        let travelling = PyErr::take(py);
        // SAFETY: an instance of the class, which the caller keeps alive.
        let object: &Bound<'_, T> = unsafe { Bound::ref_from_ptr(py, &slf).cast_unchecked() };
        let outcome = catch_unwind(AssertUnwindSafe(|| T::finalize(object)));
        let outcome = outcome.unwrap_or_else(|_| Err(PyRuntimeError::new_err("a finalizer has panicked")));
        if let Err(error) = outcome {
            error.write_unraisable(py, Some(object.as_any()));
        }
        if let Some(error) = travelling {
            error.restore(py);
        }
    };
    // None: the interpreter is going down, and nobody listens.
    #[expect(
        clippy::disallowed_methods,
        reason = "a slot has no token, and at the end of the interpreter does nothing"
    )]
    let _: Option<()> = Python::try_attach(action);
}
