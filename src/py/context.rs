//! `contextvars`: copying contexts, and running callbacks in them.

use pyo3::prelude::*;
use pyo3::{PyErr, ffi};

/// A new copy of the current context (`contextvars.copy_context()`).
#[inline]
pub(crate) fn copy_current(py: Python<'_>) -> PyResult<Py<PyAny>> {
    // SAFETY: attached; the call gives a new reference, or NULL with an exception set.
    let copy = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_CopyCurrent()) };
    copy.map(Bound::unbind)
}

/// A new copy of `context`.
pub(crate) fn copy(py: Python<'_>, context: &Py<PyAny>) -> PyResult<Py<PyAny>> {
    // SAFETY: attached; the call checks the type itself and gives a new reference, or NULL with an exception set.
    let copy = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_Copy(context.as_ptr())) };
    copy.map(Bound::unbind)
}

/// The context that the thread is in on behalf of the running loop.
///
/// Entering and leaving costs as much as a small callback. Callbacks of one context often follow each other (the steps
/// of one task, the reads of one connection), so a context is left only when another one is needed.
#[derive(Debug, Default)]
pub(crate) struct Entered {
    current: Option<Py<PyAny>>,
}

impl Entered {
    /// Makes `context` the current one; on an error (it is entered elsewhere) no context of ours is entered.
    #[inline]
    pub(crate) fn switch(&mut self, py: Python<'_>, context: &Py<PyAny>) -> PyResult<()> {
        if self.current.as_ref().is_some_and(|current| current.is(context)) {
            return Ok(());
        }
        self.leave(py)?;
        // SAFETY: attached; PyContext_Enter checks the type itself.
        if unsafe { ffi::PyContext_Enter(context.as_ptr()) } != 0 {
            return Err(PyErr::fetch(py));
        }
        self.current = Some(context.clone_ref(py));
        Ok(())
    }

    /// Leaves the context that was entered, if any.
    #[inline]
    pub(crate) fn leave(&mut self, py: Python<'_>) -> PyResult<()> {
        let Some(context) = self.current.take() else {
            return Ok(());
        };
        // SAFETY: attached; this context was entered by `switch` on this thread.
        let answer = unsafe { ffi::PyContext_Exit(context.as_ptr()) };
        context.drop_ref(py);
        if answer == 0 { Ok(()) } else { Err(PyErr::fetch(py)) }
    }
}
