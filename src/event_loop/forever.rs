//! A run of the loop: what `run_forever()` sets up, its turns, and what it puts back.
//!
//! Owns nothing. Setting up and putting back are `BaseEventLoop._run_forever_setup`'s and `_run_forever_cleanup`'s.

use super::Loop;
use super::core::Turns;
use crate::py::{names, object};
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use std::sync::atomic::Ordering;

impl Loop {
    /// Runs until it is stopped.
    pub(super) fn run(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let core = slf.get();
        core.check_open()?;
        core.check_not_running(py)?;
        let track = intern!(py, "_set_coroutine_origin_tracking");
        slf.call_method1(track, (core.is_debug(),))?;
        let hooks = names::GET_ASYNCGEN_HOOKS.get(py)?.call0()?;
        let first_iteration = slf.getattr(intern!(py, "_asyncgen_firstiter_hook"))?;
        let finalizer = slf.getattr(intern!(py, "_asyncgen_finalizer_hook"))?;
        let set_hooks = names::SET_ASYNCGEN_HOOKS.get(py)?;
        let set_running_loop = names::EVENTS.get(py, intern!(py, "_set_running_loop"))?;
        let hooks = hooks.cast_into::<PyTuple>()?;
        set_hooks.call1((first_iteration, finalizer))?;
        set_running_loop.call1((slf,))?;
        core.thread.store(object::thread_ident(), Ordering::Relaxed);
        let outcome = Self::run_turns(slf);
        core.is_stopping.store(false, Ordering::Relaxed);
        core.thread.store(0, Ordering::Relaxed);
        let cleaned = set_running_loop.call1((py.None(),)).map(drop);
        let cleaned = cleaned.and(slf.call_method1(track, (false,)).map(drop));
        let cleaned = cleaned.and(set_hooks.call1(hooks).map(drop));
        outcome.and(cleaned)
    }

    /// The checks of `BaseEventLoop._check_running`.
    fn check_not_running(&self, py: Python<'_>) -> PyResult<()> {
        if self.thread.load(Ordering::Relaxed) != 0 {
            return Err(PyRuntimeError::new_err("This event loop is already running"));
        }
        if !names::EVENTS.get(py, intern!(py, "_get_running_loop"))?.call0()?.is_none() {
            return Err(PyRuntimeError::new_err("Cannot run the event loop while another loop is running"));
        }
        Ok(())
    }

    fn run_turns(slf: &Bound<'_, Self>) -> PyResult<()> {
        let shared = slf.get().shared(slf.py())?;
        let core = slf.get();
        // Its buffers serve one run after the other.
        let mut turns = core.turns.with(slf.py(), Option::take).unwrap_or_else(|| Box::new(Turns::new()));
        Self::look_at_class(slf);
        core.ask_kernel(slf.py());
        core.metrics.begin_run();
        let outcome = loop {
            if let Err(error) = Self::turn(slf, &shared, &mut turns) {
                break Err(error);
            }
            if core.is_stopping() {
                break Ok(());
            }
        };
        let outcome = outcome.and(turns.entered.forget(slf.py()));
        drop(core.owned.with(slf.py(), |owned| owned.snapshot.take()));
        core.metrics.end_run();
        core.turns.with(slf.py(), |place| *place = Some(turns));
        outcome
    }
}
