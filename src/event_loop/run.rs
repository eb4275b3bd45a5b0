//! Running one runnable: the call, its context, and what becomes of an exception.
//!
//! Owns nothing. `SystemExit` and `KeyboardInterrupt` leave the loop; every other exception goes to the loop's
//! exception handler with asyncio's text (`Handle._run`).

use super::Loop;
use super::callback::{CallbackCell, format_callback};
use super::core::{Scratch, error_context};
use super::handle::{Handle, TimerHandle};
use super::owned::Runnable;
use super::source::{Event, Source};
use crate::errors;
use crate::py::call::{Call, call_method1};
use crate::py::context::Entered;
use crate::py::{names, object};
use pyo3::exceptions::{PyKeyboardInterrupt, PySystemExit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// The loop while it runs a batch.
pub(crate) struct Run<'a, 'py> {
    pub(crate) core: &'a Bound<'py, Loop>,
    pub(crate) entered: &'a mut Entered,
    pub(crate) scratch: &'a mut Scratch,
}

impl<'py> Run<'_, 'py> {
    #[inline]
    pub(crate) fn run(&mut self, runnable: Runnable) -> PyResult<()> {
        if self.core.get().is_debug() { self.run_watched(runnable) } else { self.run_plainly(runnable) }
    }

    #[inline]
    fn run_plainly(&mut self, runnable: Runnable) -> PyResult<()> {
        match runnable {
            Runnable::Handle(handle) => self.run_handle(handle),
            Runnable::Timer(timer) => self.run_timer(timer),
            Runnable::Foreign(handle) => self.run_foreign(handle.bind(self.core.py())),
            Runnable::Event(source, event) => self.run_event(&source, event),
            Runnable::Resolve(future) => self.resolve(&future),
            Runnable::Rearm(token) => {
                self.core.get().rearm(self.core.py(), token);
                Ok(())
            }
            Runnable::Narrow(token) => {
                self.core.get().narrow(self.core.py(), token);
                Ok(())
            }
        }
    }

    #[inline]
    fn run_event(&mut self, source: &Source, event: Event) -> PyResult<()> {
        match source.on_event(self, event) {
            Err(error) if !is_exit(self.core.py(), &error) => self.report_event(&error, source),
            outcome => outcome,
        }
    }

    /// Resolves a future, unless it was cancelled meanwhile.
    fn resolve(&mut self, future: &Py<PyAny>) -> PyResult<()> {
        let py = self.core.py();
        let future = future.bind(py);
        match call_method1(future, intern!(py, "set_result"), py.None().bind(py)) {
            Ok(_) => Ok(()),
            Err(_) if future.call_method0(intern!(py, "done"))?.is_truthy()? => Ok(()),
            Err(error) if is_exit(py, &error) => Err(error),
            Err(error) => {
                let message = format!("Exception in callback of {}", errors::repr(future));
                self.call_exception_handler(&error_context(py, &message, &error)?)
            }
        }
    }

    #[cold]
    pub(crate) fn report_event(&mut self, error: &PyErr, source: &Source) -> PyResult<()> {
        let py = self.core.py();
        let text = errors::repr(source.to_object(py).bind(py));
        let context = error_context(py, &format!("Exception in callback of {text}"), error)?;
        self.call_exception_handler(&context)
    }

    #[inline]
    fn run_handle(&mut self, handle: Py<Handle>) -> PyResult<()> {
        let py = self.core.py();
        if !object::is_unshared(py, &handle) {
            return self.run_shared_handle(&handle);
        }
        // Nobody else can see the handle: its parts are taken without new references, and it is used again.
        let call = handle.get().take(py);
        if call.is_empty() {
            call.drop_ref(py);
        } else {
            self.call(call, |py, call| Ok(Py::new(py, Handle::new(call.clone_ref(py)))?.into_any()))?;
        }
        if object::is_unshared(py, &handle) {
            let rest = self.core.get().owned.with(py, |owned| owned.keep_handle(handle));
            if let Some(handle) = rest {
                handle.drop_ref(py);
            }
        } else {
            handle.drop_ref(py);
        }
        Ok(())
    }

    fn run_shared_handle(&mut self, handle: &Py<Handle>) -> PyResult<()> {
        let call = handle.get().call(self.core.py());
        if call.is_empty() {
            return Ok(());
        }
        handle.get().begin_run();
        let outcome = self.call_shown(call, &handle.get().callback, |py, _| Ok(handle.clone_ref(py).into_any()));
        handle.get().end_run();
        outcome
    }

    fn run_timer(&mut self, timer: Py<TimerHandle>) -> PyResult<()> {
        let py = self.core.py();
        let core = self.core.get();
        let is_unshared = object::is_unshared(py, &timer);
        timer.get().end_schedule();
        let call = if is_unshared { timer.get().take(py) } else { timer.get().call(py) };
        if call.is_empty() {
            core.owned.with(py, |owned| owned.timers.note_popped_cancelled());
            call.drop_ref(py);
        } else if is_unshared {
            self.call(call, |py, call| {
                let owner = self.core.clone().unbind();
                Ok(Py::new(py, TimerHandle::new(call.clone_ref(py), timer.get().seconds(), owner))?.into_any())
            })?;
        } else {
            self.call_shown(call, &timer.get().callback, |py, _| Ok(timer.clone_ref(py).into_any()))?;
        }
        if is_unshared {
            core.recycle_timer(py, timer);
        } else {
            timer.drop_ref(py);
        }
        Ok(())
    }

    /// Calls in the callback's context; `handle` gives the handle for the report of an exception.
    #[inline]
    fn call(&mut self, call: Call, handle: impl FnOnce(Python<'py>, &Call) -> PyResult<Py<PyAny>>) -> PyResult<()> {
        let entered = self.enter(&call);
        self.call_entered(entered, call, handle)
    }

    /// As [`Self::call`], for a handle that others have: meanwhile it shows the context that the callback runs in, and
    /// for good if the callback leaves a trace there.
    fn call_shown(
        &mut self,
        call: Call,
        callback: &CallbackCell,
        handle: impl FnOnce(Python<'py>, &Call) -> PyResult<Py<PyAny>>,
    ) -> PyResult<()> {
        let py = self.core.py();
        let entered = self.enter(&call);
        let copy = if entered.is_ok() && call.is_shared() { self.entered.current() } else { None };
        let Some(copy) = copy.map(|copy| copy.clone_ref(py)) else {
            return self.call_entered(entered, call, handle);
        };
        let snapshot = callback.replace_context(py, copy, false);
        let outcome = self.call_entered(entered, call, handle);
        if let Some(snapshot) = snapshot {
            if self.entered.is_copy_untouched(py, &snapshot) {
                if let Some(copy) = callback.replace_context(py, snapshot, true) {
                    copy.drop_ref(py);
                }
            } else {
                snapshot.drop_ref(py);
            }
        }
        outcome
    }

    #[inline]
    fn enter(&mut self, call: &Call) -> PyResult<()> {
        let py = self.core.py();
        match call.context() {
            Some(snapshot) if call.is_shared() => self.entered.switch_to_copy(py, snapshot),
            Some(context) => self.entered.switch(py, context),
            None => Ok(()),
        }
    }

    #[inline]
    fn call_entered(
        &mut self,
        entered: PyResult<()>,
        mut call: Call,
        handle: impl FnOnce(Python<'py>, &Call) -> PyResult<Py<PyAny>>,
    ) -> PyResult<()> {
        let py = self.core.py();
        let outcome = match entered.and_then(|()| call.make(py)) {
            Ok(()) => Ok(()),
            Err(error) => {
                // The handle in the report shows the context that the callback ran in.
                if call.is_shared()
                    && let Some(context) = self.entered.current()
                {
                    drop(call.replace_context(context.clone_ref(py), false));
                }
                self.report_callback(&error, &call, handle)
            }
        };
        call.drop_ref(py);
        outcome
    }

    #[cold]
    fn report_callback(
        &mut self,
        error: &PyErr,
        call: &Call,
        handle: impl FnOnce(Python<'py>, &Call) -> PyResult<Py<PyAny>>,
    ) -> PyResult<()> {
        let py = self.core.py();
        if is_exit(py, error) {
            return Err(error.clone_ref(py));
        }
        let Some(function) = call.function() else { return Ok(()) };
        let message = format!("Exception in callback {}", format_callback(py, function, &call.args(py)?)?);
        let context = error_context(py, &message, error)?;
        context.set_item("handle", handle(py, call)?)?;
        self.call_exception_handler(&context)
    }

    /// Runs a handle made by asyncio's own classes, which report their exceptions themselves.
    fn run_foreign(&mut self, handle: &Bound<'py, PyAny>) -> PyResult<()> {
        let py = self.core.py();
        // It enters its context itself, which fails for one that is entered already.
        self.entered.leave(py)?;
        if is_cancelled(handle)? {
            return Ok(());
        }
        handle.call_method0(intern!(py, "_run")).map(drop)
    }

    /// Hands a report to the loop's exception handler, outside every callback's context.
    pub(crate) fn call_exception_handler(&mut self, context: &Bound<'_, PyDict>) -> PyResult<()> {
        let py = self.core.py();
        self.entered.leave(py)?;
        self.core.call_method1(intern!(py, "call_exception_handler"), (context,)).map(drop)
    }

    /// Debug mode: as `BaseEventLoop._run_once` does it, with the warning for slow callbacks.
    fn run_watched(&mut self, runnable: Runnable) -> PyResult<()> {
        let py = self.core.py();
        let handle = match &runnable {
            Runnable::Handle(handle) => handle.clone_ref(py).into_any(),
            Runnable::Timer(timer) => timer.clone_ref(py).into_any(),
            Runnable::Foreign(handle) => handle.clone_ref(py),
            Runnable::Event(source, _) => source.to_object(py),
            Runnable::Resolve(future) => future.clone_ref(py),
            Runnable::Rearm(_) | Runnable::Narrow(_) => return self.run_plainly(runnable),
        };
        let is_event = matches!(runnable, Runnable::Event(..) | Runnable::Resolve(_));
        // Reports tell where it was made, which only asyncio's own handles know.
        let current = matches!(runnable, Runnable::Foreign(_)).then(|| handle.clone_ref(py));
        let start = Loop::timers_now(self.core)?;
        self.core.setattr(intern!(py, "_current_handle"), current)?;
        let outcome = self.run_plainly(runnable);
        let end = Loop::timers_now(self.core);
        self.entered.leave(py)?;
        self.core.setattr(intern!(py, "_current_handle"), py.None())?;
        outcome?;
        let seconds = errors::seconds(end?.saturating_sub(start));
        let limit: f64 = self.core.getattr(intern!(py, "slow_callback_duration"))?.extract()?;
        if seconds >= limit {
            let text = if is_event {
                handle.bind(py).repr()?.into_any()
            } else {
                names::FORMAT_HANDLE.get(py)?.call1((handle,))?
            };
            let arguments = ("Executing %s took %.3f seconds", text, seconds);
            names::logger(py, "asyncio.base_events")?.call_method1(intern!(py, "warning"), arguments)?;
        }
        Ok(())
    }
}

/// The exceptions that always travel on.
pub(crate) fn is_exit(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PySystemExit>(py) || error.is_instance_of::<PyKeyboardInterrupt>(py)
}

/// Whether one of asyncio's own handles is cancelled.
pub(crate) fn is_cancelled(handle: &Bound<'_, PyAny>) -> PyResult<bool> {
    handle.getattr(intern!(handle.py(), "_cancelled"))?.is_truthy()
}
