//! Objects that are awaited like coroutines: what `send`, `throw` and `close` of such an object do, and the two slots of an
//! `await` as raw functions.
//!
//! `await thing` calls `am_await` once and `tp_iternext` at each step; a step that ends the thing with None answers NULL
//! without an exception, and one with a value sets StopIteration. PyO3's own slot functions would count the attachment
//! to the interpreter at each call, and build each StopIteration from a tuple of arguments.

use super::method::guarded;
use pyo3::exceptions::{PyRuntimeError, PyStopIteration, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::boolean_struct::True;
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

/// How far an object has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    New,
    Running,
    Waiting,
    Done,
}

impl Phase {
    /// The word in its `repr()`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Done => "done",
        }
    }
}

/// A class whose objects can be awaited. It must define `__await__` and `__next__` in `#[pymethods]` too: Python's ABCs
/// look for them, and PyO3 makes the places of the slots.
pub(crate) trait Awaitable: PyClass<Frozen = True> + Sync {
    fn phase(&self, py: Python<'_>) -> Phase;
    /// Goes on; an error, too, ends it.
    fn step<'py>(slf: &Bound<'py, Self>) -> PyResult<Step<'py>>;
    /// Ends it where it is; an error if it is running or done.
    fn abandon(slf: &Bound<'_, Self>) -> PyResult<()>;
}

/// It is running already.
#[cold]
pub(crate) fn executing() -> PyErr {
    PyValueError::new_err("coroutine already executing")
}

/// It is done already.
#[cold]
pub(crate) fn reused() -> PyErr {
    PyRuntimeError::new_err("cannot reuse already awaited coroutine")
}

/// `__await__`.
#[inline]
pub(crate) fn begin<'py, T: Awaitable>(slf: &Bound<'py, T>) -> PyResult<Bound<'py, T>> {
    match slf.get().phase(slf.py()) {
        Phase::New => Ok(slf.clone()),
        Phase::Running | Phase::Waiting => Err(PyRuntimeError::new_err("coroutine is being awaited already")),
        Phase::Done => Err(reused()),
    }
}

/// `__next__`.
pub(crate) fn next<'py, T: Awaitable>(slf: &Bound<'py, T>) -> PyResult<Bound<'py, PyAny>> {
    match T::step(slf)? {
        Step::Wait(future) => Ok(future),
        Step::Done(value) => Err(PyStopIteration::new_err((value.map(Bound::unbind),))),
    }
}

/// `send`: only None can be sent at first, and nobody looks at what is sent later.
pub(crate) fn send<'py, T: Awaitable>(slf: &Bound<'py, T>, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    if !value.is_none() && slf.get().phase(slf.py()) == Phase::New {
        return Err(PyTypeError::new_err("can't send non-None value to a just-started coroutine"));
    }
    next(slf)
}

/// `throw`, in each of its three forms: what cancelling does.
pub(crate) fn throw<T: Awaitable>(
    slf: &Bound<'_, T>,
    typ: &Bound<'_, PyAny>,
    val: Option<&Bound<'_, PyAny>>,
    tb: Option<&Bound<'_, PyAny>>,
) -> PyResult<Py<PyAny>> {
    let py = slf.py();
    let exception = match (typ.cast::<PyType>(), val) {
        (Ok(_), Some(val)) if val.is_instance(typ)? => val.clone(),
        (Ok(class), Some(val)) => class.call1((val,))?,
        (Ok(class), None) => class.call0()?,
        (Err(_), _) => typ.clone(),
    };
    if let Some(tb) = tb {
        exception.setattr(intern!(py, "__traceback__"), tb)?;
    }
    T::abandon(slf)?;
    Err(PyErr::from_value(exception))
}

/// `close`.
pub(crate) fn close<T: Awaitable>(slf: &Bound<'_, T>) -> PyResult<()> {
    if slf.get().phase(slf.py()) == Phase::Done { Ok(()) } else { T::abandon(slf) }
}

/// What a destructor does: it may run while an exception travels, and its own errors have nobody to go to.
pub(crate) fn end_unseen(py: Python<'_>, action: impl FnOnce() -> PyResult<()>) {
    let travelling = PyErr::take(py);
    if let Err(error) = action() {
        error.write_unraisable(py, None);
    }
    if let Some(error) = travelling {
        error.restore(py);
    }
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
        Ok(begin(slf)?.into_ptr())
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
