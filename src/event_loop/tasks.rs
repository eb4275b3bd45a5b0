//! `create_task` and `create_future`: asyncio's own C classes, without a Python frame on the way.

use super::Loop;
use super::schedule::raw_method;
use crate::py::call::{call_keywords, is_name};
use crate::py::method::{Arguments, Body, Method};
use crate::py::names;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyTuple;
use std::ffi::CStr;

raw_method!(
    CreateTask,
    c"create_task",
    "create_task($self, coro, **kwargs)\n--\n\nSchedules a coroutine; gives its Task. Takes the keywords of the running Python. Matches BaseEventLoop.create_task.",
    create_task
);

/// `("loop",)`
static LOOP_KEYWORD: PyOnceLock<Py<PyTuple>> = PyOnceLock::new();

fn loop_keyword(py: Python<'_>) -> PyResult<&Bound<'_, PyTuple>> {
    let keyword = LOOP_KEYWORD.get_or_try_init(py, || PyTuple::new(py, [intern!(py, "loop")]).map(Bound::unbind))?;
    Ok(keyword.bind(py))
}

fn create_task<'py>(slf: &Bound<'py, Loop>, arguments: Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = slf.py();
    let core = slf.get();
    let has_factory = core.task_factory.with(py, |factory| factory.is_some());
    let [coroutine] = arguments.positional() else {
        return inherited(slf, &arguments);
    };
    // Factories, debug mode and wrong keywords: the rules of the running Python.
    if has_factory || core.is_debug() || !takes(&arguments, py) {
        return inherited(slf, &arguments);
    }
    core.check_open()?;
    let task = names::TASK.get(py)?;
    let this = slf.as_any().as_borrowed();
    let Some(keywords) = arguments.keywords() else {
        return call_keywords(py, task, &[*coroutine, this], Some(loop_keyword(py)?));
    };
    let mut values = Vec::with_capacity(arguments.values().len() + 1);
    values.extend([*coroutine, this]);
    values.extend_from_slice(&arguments.values()[1..]);
    let names: Vec<_> = std::iter::once(intern!(py, "loop").clone().into_any()).chain(keywords.iter()).collect();
    let keywords = PyTuple::new(py, names)?;
    call_keywords(py, task, &values, Some(&keywords))
}

/// Whether `BaseEventLoop.create_task` of the running Python hands these keywords to Task as they are.
fn takes(arguments: &Arguments<'_, '_>, py: Python<'_>) -> bool {
    let Some(keywords) = arguments.keywords() else {
        return true;
    };
    let is_known = |keyword: Borrowed<'_, '_, PyAny>| {
        is_name(&keyword, intern!(py, "name"))
            || is_name(&keyword, intern!(py, "context"))
            || (cfg!(Py_3_14) && is_name(&keyword, intern!(py, "eager_start")))
    };
    keywords.iter_borrowed().all(is_known)
}

#[cold]
fn inherited<'py>(slf: &Bound<'py, Loop>, arguments: &Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = slf.py();
    let mut values = Vec::with_capacity(arguments.values().len() + 1);
    values.push(slf.as_any().as_borrowed());
    values.extend_from_slice(arguments.values());
    call_keywords(py, names::BASE_CREATE_TASK.get(py)?, &values, arguments.keywords())
}

pub(super) fn create_future<'py>(slf: &Bound<'py, Loop>) -> PyResult<Bound<'py, PyAny>> {
    let py = slf.py();
    call_keywords(py, names::FUTURE.get(py)?, &[slf.as_any().as_borrowed()], Some(loop_keyword(py)?))
}
