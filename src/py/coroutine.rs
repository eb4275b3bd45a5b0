//! Objects that are awaited like coroutines, with the two slots of an `await` as raw functions.
//!
//! `await thing` calls `am_await` once and `tp_iternext` at each step; a step that ends the thing with None answers NULL
//! without an exception, and one with a value sets StopIteration. PyO3's own slot functions would count the attachment
//! to the interpreter at each call, and build each StopIteration from a tuple of arguments.

use super::method::guarded;
use pyo3::prelude::*;
use pyo3::types::{PyTuple, PyType};
use pyo3::{PyClass, ffi};

/// What one step came to.
#[derive(Debug)]
pub(crate) enum Step<'py> {
    /// A future to wait for.
    Wait(Bound<'py, PyAny>),
    /// The result; None is Python's.
    Done(Option<Bound<'py, PyAny>>),
}

/// A class whose objects can be awaited. It must define `__await__` and `__next__` in `#[pymethods]` too: Python's ABCs
/// look for them, and PyO3 makes the places of the slots.
pub(crate) trait Awaitable: PyClass {
    /// Whether awaiting may begin.
    fn begin(slf: &Bound<'_, Self>) -> PyResult<()>;
    /// Goes on.
    fn step<'py>(slf: &Bound<'py, Self>) -> PyResult<Step<'py>>;
}

/// Puts the raw functions in the slots of the class.
pub(crate) fn define_slots<T: Awaitable>(class: &Bound<'_, PyType>) {
    let class = class.as_type_ptr();
    // SAFETY: the type is live and was made by PyO3 as a heap type of this process; nothing of it has been cached yet,
    // since slots are looked up at each call.
    let (class, methods) = unsafe { (&mut *class, &mut *(*class).tp_as_async) };
    methods.am_await = Some(enter_await::<T>);
    class.tp_iternext = Some(enter_next::<T>);
}

unsafe extern "C" fn enter_await<T: Awaitable>(slf: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: CPython calls slots from attached threads; see `method::enter` for what that means to destructors.
    let py = unsafe { Python::assume_attached() };
    guarded(py, || {
        // SAFETY: `slf` is a live reference of the caller, to an instance of the class that has the slot.
        let slf: &Bound<'_, T> = unsafe { Bound::ref_from_ptr(py, &slf).cast_unchecked() };
        T::begin(slf)?;
        Ok(slf.clone().into_ptr())
    })
}

unsafe extern "C" fn enter_next<T: Awaitable>(slf: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: as above.
    let py = unsafe { Python::assume_attached() };
    guarded(py, || {
        // SAFETY: as above.
        let slf: &Bound<'_, T> = unsafe { Bound::ref_from_ptr(py, &slf).cast_unchecked() };
        match T::step(slf)? {
            Step::Wait(future) => Ok(future.into_ptr()),
            Step::Done(None) => Ok(std::ptr::null_mut()),
            Step::Done(Some(value)) => {
                stop(&value)?;
                Ok(std::ptr::null_mut())
            }
        }
    })
}

/// Sets StopIteration with this value.
#[inline]
fn stop(value: &Bound<'_, PyAny>) -> PyResult<()> {
    // SAFETY: a static of the interpreter, live as long as it is.
    let class = unsafe { ffi::PyExc_StopIteration };
    if value.is_instance_of::<PyTuple>() {
        // It would be taken for the arguments of the exception.
        let py = value.py();
        // SAFETY: both are live.
        let error = unsafe { ffi::PyObject_CallOneArg(class, value.as_ptr()) };
        // SAFETY: a new reference, or NULL with an exception set.
        let error = unsafe { Bound::from_owned_ptr_or_err(py, error)? };
        // SAFETY: both are live.
        unsafe { ffi::PyErr_SetObject(class, error.as_ptr()) };
    } else {
        // SAFETY: both are live. The value is no exception: those that are raised do not come here.
        unsafe { ffi::PyErr_SetObject(class, value.as_ptr()) };
    }
    Ok(())
}
