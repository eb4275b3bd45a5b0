//! Scheduled callbacks: what handles of both kinds hold.
//!
//! Owns the function, its arguments and its context until the handle is run or cancelled.

use crate::py::call::Args;
use crate::py::cell::OwnerCell;
use crate::py::names;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// What both kinds of handle hold. The callback is None before its first use, and from cancellation on.
#[derive(Debug)]
pub(super) struct Callback {
    pub(super) function: Option<Py<PyAny>>,
    args: Args,
    pub(super) context: Option<Py<PyAny>>,
    is_cancelled: bool,
}

/// What a run of a handle needs, in references of its own: the callback may cancel the handle that it runs from.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) function: Py<PyAny>,
    pub(crate) args: Args,
    pub(crate) context: Py<PyAny>,
}

impl Call {
    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Self {
        Self {
            function: self.function.clone_ref(py),
            args: self.args.clone_ref(py),
            context: self.context.clone_ref(py),
        }
    }

    #[inline]
    pub(crate) fn drop_ref(self, py: Python<'_>) {
        self.function.drop_ref(py);
        self.args.drop_ref(py);
        self.context.drop_ref(py);
    }
}

impl Callback {
    const EMPTY: Self = Self { function: None, args: Args::NONE, context: None, is_cancelled: false };

    #[inline]
    pub(super) fn new(call: Call) -> Self {
        Self { function: Some(call.function), args: call.args, context: Some(call.context), is_cancelled: false }
    }

    /// New references to what is to be called; None if cancelled.
    #[inline]
    pub(super) fn call(&self, py: Python<'_>) -> Option<Call> {
        Some(Call {
            function: self.function.as_ref()?.clone_ref(py),
            args: self.args.clone_ref(py),
            context: self.context.as_ref()?.clone_ref(py),
        })
    }

    /// The references themselves: the handle is not looked at again before it is renewed.
    #[inline]
    pub(super) fn take(&mut self) -> Option<Call> {
        Some(Call {
            function: self.function.take()?,
            args: std::mem::replace(&mut self.args, Args::NONE),
            context: self.context.take()?,
        })
    }

    pub(super) fn cancel(&mut self) -> (Option<Py<PyAny>>, Args) {
        self.is_cancelled = true;
        (self.function.take(), std::mem::replace(&mut self.args, Args::NONE))
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.function)?;
        visit.call(&self.context)?;
        if let Args::Tuple(args) = &self.args {
            visit.call(args)?;
        }
        self.args.iter().try_for_each(|arg| visit.call(arg))
    }
}

/// A cell with a [`Callback`], and the methods of `asyncio.Handle` on it.
#[derive(Debug)]
pub(super) struct CallbackCell(pub(super) OwnerCell<Callback>);

impl CallbackCell {
    pub(super) fn new(call: Call) -> Self {
        Self(OwnerCell::new(Callback::new(call)))
    }

    /// False: it was cancelled before.
    pub(super) fn cancel(&self, py: Python<'_>) -> bool {
        let (was_cancelled, function, args) = self.0.with(py, |callback| {
            let was_cancelled = callback.is_cancelled;
            let (function, args) = callback.cancel();
            (was_cancelled, function, args)
        });
        // What the callback held dies here, outside the cell.
        if let Some(function) = function {
            function.drop_ref(py);
        }
        args.drop_ref(py);
        !was_cancelled
    }

    #[inline]
    pub(super) fn is_cancelled(&self, py: Python<'_>) -> bool {
        self.0.with(py, |callback| callback.is_cancelled)
    }

    pub(super) fn function(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.0.with(py, |callback| callback.function.as_ref().map(|function| function.clone_ref(py)))
    }

    pub(super) fn args<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let args = self.0.with(py, |callback| (!callback.is_cancelled).then(|| callback.args.clone_ref(py)));
        args.map(|args| args.to_tuple(py)).transpose()
    }

    pub(super) fn context(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.0.with(py, |callback| callback.context.as_ref().map(|context| context.clone_ref(py)))
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

    pub(super) fn clear(&self) {
        drop(self.0.try_with(|callback| std::mem::replace(callback, Callback::EMPTY)));
    }
}

/// The text of a callback in asyncio's messages.
pub(crate) fn format_callback(py: Python<'_>, function: &Py<PyAny>, args: &Bound<'_, PyTuple>) -> PyResult<String> {
    names::FORMAT_CALLBACK.get(py)?.call1((function, args))?.extract()
}
