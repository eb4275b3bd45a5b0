//! What is queued for the thread of a loop, and what becomes of it there.

use super::task::Task;
use super::{Job, panicked, report};
use crate::py::context::Entered;
use pyo3::intern;
use pyo3::prelude::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Something for the loop's thread to do.
pub(super) enum Item {
    Poll(Arc<Task>),
    /// An asyncio future that an awaited Rust future waits for.
    Resolve(Py<PyAny>),
    Call(Job),
}

impl Item {
    /// Does it. An error leaves the loop.
    pub(super) fn run(self, event_loop: &Bound<'_, PyAny>, entered: &mut Entered) -> PyResult<()> {
        let py = event_loop.py();
        match self {
            Self::Poll(task) => task.poll(event_loop, entered),
            Self::Resolve(future) => {
                entered.leave(py)?;
                resolve(event_loop, future.bind(py))
            }
            Self::Call(call) => {
                entered.leave(py)?;
                match catch_unwind(AssertUnwindSafe(|| call(py))) {
                    Ok(()) => Ok(()),
                    Err(payload) => report(event_loop, "Rust code panicked", &panicked(payload.as_ref())),
                }
            }
        }
    }
}

/// Resolves a future, unless it was cancelled meanwhile.
fn resolve(event_loop: &Bound<'_, PyAny>, future: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = event_loop.py();
    match future.call_method1(intern!(py, "set_result"), (py.None(),)) {
        Ok(_) => Ok(()),
        Err(_) if future.call_method0(intern!(py, "done"))?.is_truthy()? => Ok(()),
        Err(error) => report(event_loop, "Exception in a callback of a Rust future", &error),
    }
}
