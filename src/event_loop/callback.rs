//! Scheduled callbacks: what handles of both kinds hold.
//!
//! Owns the function, its arguments and its context until the handle is run or cancelled.

use crate::py::call::{Call, CallParts};
use crate::py::cell::OwnerCell;
use crate::py::traverse::Visit;
use crate::py::{context, names};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use std::ffi::c_int;

/// What both kinds of handle hold. The call is empty before its first use, and from the run or cancellation on.
#[derive(Debug, Default)]
pub(super) struct Callback {
    pub(super) call: Call,
    is_cancelled: bool,
}

impl Callback {
    /// The references themselves, to run it once.
    #[inline]
    pub(super) fn take(&mut self) -> Call {
        std::mem::take(&mut self.call)
    }

    /// Arms an emptied callback anew. Runs no Python code.
    #[inline]
    pub(super) fn fill(&mut self, parts: CallParts<'_, '_>) {
        self.is_cancelled = false;
        self.call.fill(parts);
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.call.held().try_for_each(|held| visit.call(held))
    }
}

/// A cell with a [`Callback`], and the methods of `asyncio.Handle` on it.
#[derive(Debug)]
pub(super) struct CallbackCell(pub(super) OwnerCell<Callback>);

impl CallbackCell {
    pub(super) fn new(call: Call) -> Self {
        Self(OwnerCell::new(Callback { call, is_cancelled: false }))
    }

    /// False: it was cancelled before.
    pub(super) fn cancel(&self, py: Python<'_>) -> bool {
        let (was_cancelled, parts) = self.0.with(py, |callback| {
            let was_cancelled = std::mem::replace(&mut callback.is_cancelled, true);
            // The context stays until the handle dies, as in asyncio.
            (was_cancelled, callback.call.take_parts())
        });
        // What the callback held dies here, outside the cell.
        parts.drop_ref(py);
        !was_cancelled
    }

    #[inline]
    pub(super) fn is_cancelled(&self, py: Python<'_>) -> bool {
        self.0.with(py, |callback| callback.is_cancelled)
    }

    pub(super) fn function(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.0.with(py, |callback| callback.call.function().map(|function| function.clone_ref(py)))
    }

    pub(super) fn args<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let call = self.0.with(py, |callback| (!callback.is_cancelled).then(|| callback.call.clone_ref(py)));
        call.map(|call| call.args(py)).transpose()
    }

    pub(super) fn context(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        self.own_context(py)?;
        Ok(self.0.with(py, |callback| callback.call.context().map(|context| context.clone_ref(py))))
    }

    /// New references to what is to be called.
    #[inline]
    pub(super) fn call(&self, py: Python<'_>) -> Call {
        self.0.with(py, |callback| callback.call.clone_ref(py))
    }

    /// Gives it another context, a snapshot or not; the one that it had comes back.
    #[inline]
    pub(super) fn replace_context(&self, py: Python<'_>, context: Py<PyAny>, is_shared: bool) -> Option<Py<PyAny>> {
        self.0.with(py, |callback| callback.call.replace_context(context, is_shared))
    }

    /// Somebody wants to see the context: it can be no snapshot.
    fn own_context(&self, py: Python<'_>) -> PyResult<()> {
        let snapshot = self.0.with(py, |callback| {
            let is_shared = callback.call.is_shared();
            callback.call.context().filter(|_| is_shared).map(|context| context.clone_ref(py))
        });
        if let Some(snapshot) = snapshot {
            let own = context::copy(py, &snapshot)?;
            drop((snapshot, self.replace_context(py, own, false)));
        }
        Ok(())
    }

    /// `<Handle when=... callback>`, as `asyncio.Handle.__repr__`.
    pub(super) fn repr(&self, py: Python<'_>, class: &str, when: Option<f64>) -> PyResult<String> {
        let mut parts = vec![class.to_owned()];
        if self.is_cancelled(py) {
            parts.push("cancelled".to_owned());
        }
        if let Some(when) = when {
            parts.push(format!("when={}", when.into_pyobject(py)?.repr()?));
        }
        if let (Some(function), Some(args)) = (self.function(py), self.args(py)?) {
            parts.push(format_callback(py, &function, &args)?);
        }
        Ok(format!("<{}>", parts.join(" ")))
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.0.try_with(|callback| callback.traverse(visit)).unwrap_or(Ok(()))
    }

    #[inline]
    pub(super) fn traverse_raw(&self, visit: Visit) -> c_int {
        self.0.try_with(|callback| callback.call.traverse_raw(visit)).unwrap_or(0)
    }

    pub(super) fn clear(&self) {
        drop(self.0.try_with(std::mem::take));
    }
}

/// The text of a callback in asyncio's messages.
pub(crate) fn format_callback(py: Python<'_>, function: &Py<PyAny>, args: &Bound<'_, PyTuple>) -> PyResult<String> {
    names::FORMAT_CALLBACK.get(py)?.call1((function, args))?.extract()
}
