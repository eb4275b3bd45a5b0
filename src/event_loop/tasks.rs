//! `create_task` and `create_future`: asyncio's own C classes, without a Python frame on the way.

use super::Loop;
use super::schedule::raw_method;
use crate::py::call::{call_keywords, is_name};
use crate::py::method::{Arguments, Body, Method};
use crate::py::names;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};
use std::ffi::CStr;

raw_method!(
    CreateTask,
    c"create_task",
    "create_task($self, coro, **kwargs)\n--\n\nSchedules a coroutine; gives its Task. Takes the keywords of the running Python. Matches BaseEventLoop.create_task.",
    create_task
);

raw_method!(
    CreateFuture,
    c"create_future",
    "create_future($self)\n--\n\nA Future of this loop. Matches BaseEventLoop.create_future.",
    create_future
);

/// As many keywords as any Python's `create_task` hands on.
const MOST_KEYWORDS: usize = 3;

/// `("loop",)`
static LOOP_KEYWORD: PyOnceLock<Py<PyTuple>> = PyOnceLock::new();

/// Makes a future or task: `class(*positional, loop=slf)`.
///
/// asyncio's C classes get their keywords as a dictionary, which a call by vector would make anew each time. Only they
/// get one that is kept: a class of a program's could change it. A closed loop keeps nothing that refers to it.
#[inline]
fn make<'py>(
    slf: &Bound<'py, Loop>,
    class: &Bound<'py, PyAny>,
    is_own: bool,
    positional: Option<Borrowed<'_, 'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = slf.py();
    if is_own && !slf.get().is_closed() {
        let known = |known: &Py<PyDict>| known.bind(py).clone();
        let known = slf.get().owned.with(py, |owned| owned.loop_keyword.as_ref().map(known));
        let keyword = known.map_or_else(|| keep_loop_keyword(slf), Ok)?;
        return match positional {
            Some(argument) => class.call((argument,), Some(&keyword)),
            None => class.call((), Some(&keyword)),
        };
    }
    let name = LOOP_KEYWORD.get_or_try_init(py, || PyTuple::new(py, [intern!(py, "loop")]).map(Bound::unbind))?;
    let this = slf.as_any().as_borrowed();
    match positional {
        Some(argument) => call_keywords(py, class, &[argument, this], Some(name.bind(py))),
        None => call_keywords(py, class, &[this], Some(name.bind(py))),
    }
}

#[cold]
fn keep_loop_keyword<'py>(slf: &Bound<'py, Loop>) -> PyResult<Bound<'py, PyDict>> {
    let py = slf.py();
    let keyword = PyDict::new(py);
    keyword.set_item(intern!(py, "loop"), slf)?;
    let kept = keyword.clone().unbind();
    // It was empty: a loop is its thread's.
    drop(slf.get().owned.with(py, |owned| owned.loop_keyword.replace(kept)));
    Ok(keyword)
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
    let task = &names::TASKS.get(py, intern!(py, "Task"))?;
    let this = slf.as_any().as_borrowed();
    let Some(keywords) = arguments.keywords() else {
        return make(slf, task, task.is(names::TASK.get(py)?), Some(*coroutine));
    };
    let names = core.task_keywords_with_loop(keywords)?;
    let given = &arguments.values()[1..];
    let mut values = [this; 2 + MOST_KEYWORDS];
    values[0] = *coroutine;
    values[2..2 + given.len()].copy_from_slice(given);
    call_keywords(py, task, &values[..2 + given.len()], Some(&names))
}

impl Loop {
    /// `("loop", *keywords)`. A call site passes the same tuple each time: the last answer is kept.
    fn task_keywords_with_loop<'py>(&self, keywords: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyTuple>> {
        let py = keywords.py();
        let known = self.task_keywords.with(py, |last| {
            last.as_ref().filter(|(given, _)| given.is(keywords)).map(|(_, names)| names.clone_ref(py))
        });
        if let Some(names) = known {
            return Ok(names.into_bound(py));
        }
        let names: Vec<_> = std::iter::once(intern!(py, "loop").clone().into_any()).chain(keywords.iter()).collect();
        let names = PyTuple::new(py, names)?;
        let entry = (keywords.clone().unbind(), names.clone().unbind());
        drop(self.task_keywords.with(py, |last| last.replace(entry)));
        Ok(names)
    }
}

/// Whether `BaseEventLoop.create_task` of the running Python hands these keywords to Task as they are.
fn takes(arguments: &Arguments<'_, '_>, py: Python<'_>) -> bool {
    let Some(keywords) = arguments.keywords() else { return true };
    let known = [intern!(py, "name"), intern!(py, "context"), intern!(py, "eager_start")];
    let known = if cfg!(Py_3_14) { &known[..] } else { &known[..2] };
    let is_known = |keyword: Borrowed<'_, '_, PyAny>| {
        known.iter().any(|name| keyword.is(*name)) || known.iter().any(|name| is_name(&keyword, name))
    };
    keywords.len() <= MOST_KEYWORDS && keywords.iter_borrowed().all(is_known)
}

#[cold]
fn inherited<'py>(slf: &Bound<'py, Loop>, arguments: &Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = slf.py();
    let mut values = Vec::with_capacity(arguments.values().len() + 1);
    values.push(slf.as_any().as_borrowed());
    values.extend_from_slice(arguments.values());
    call_keywords(py, names::BASE_CREATE_TASK.get(py)?, &values, arguments.keywords())
}

fn create_future<'py>(slf: &Bound<'py, Loop>, arguments: Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    arguments.require_none("create_future")?;
    new_future(slf)
}

/// A future of the loop.
#[inline]
pub(crate) fn new_future<'py>(slf: &Bound<'py, Loop>) -> PyResult<Bound<'py, PyAny>> {
    let py = slf.py();
    let class = names::FUTURES.get(py, intern!(py, "Future"))?;
    make(slf, &class, class.is(names::FUTURE.get(py)?), None)
}
