//! Calling Python without building argument tuples: at once, or later.

use super::traverse::Visit;
use super::{context, names, vectorcall};
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};
use pyo3::{ffi, intern};
use std::ffi::c_int;

/// At most so many arguments are kept and passed without a tuple.
const INLINE: usize = 3;

/// A call that waits: a function, its arguments and the context to make it in.
///
/// ```text
/// parts:  function | first | second | third     the array of a vectorcall, with its scratch place before the arguments
///         function | tuple |        |           more than three arguments
/// ```
///
/// An empty one holds nothing. It is filled and emptied in place: handles are used again, and this is what each turn of
/// the loop does most.
#[derive(Debug, Default)]
pub(crate) struct Call {
    /// Those that are there come first.
    parts: [Option<Py<PyAny>>; 1 + INLINE],
    context: Option<Py<PyAny>>,
    /// The arguments are a tuple.
    is_tuple: bool,
    /// The context is a [`super::context::Snapshot`]: others have it too, so that it is neither entered nor given out.
    is_shared: bool,
}

/// What a [`Call`] is filled with; borrowed but for what had to be made.
pub(crate) struct CallParts<'a, 'py> {
    pub(crate) function: Borrowed<'a, 'py, PyAny>,
    pub(crate) args: &'a [Borrowed<'a, 'py, PyAny>],
    pub(crate) context: Py<PyAny>,
    /// Others have the context too: see [`super::context::Snapshot`].
    pub(crate) is_shared: bool,
    /// The arguments, if there are many.
    tuple: Option<Py<PyAny>>,
}

impl<'a, 'py> CallParts<'a, 'py> {
    #[inline]
    pub(crate) fn new(
        py: Python<'py>,
        function: Borrowed<'a, 'py, PyAny>,
        args: &'a [Borrowed<'a, 'py, PyAny>],
        context: Option<Borrowed<'a, 'py, PyAny>>,
    ) -> PyResult<Self> {
        let context = match context {
            Some(context) => context.to_owned().unbind(),
            None => context::copy_current(py)?,
        };
        let tuple = if args.len() > INLINE { Some(to_tuple(py, args)?) } else { None };
        Ok(Self { function, args, context, is_shared: false, tuple })
    }
}

#[cold]
fn to_tuple(py: Python<'_>, args: &[Borrowed<'_, '_, PyAny>]) -> PyResult<Py<PyAny>> {
    let args = args.iter().map(|arg| arg.as_any());
    Ok(PyTuple::new(py, args.collect::<Vec<_>>())?.into_any().unbind())
}

/// Puts a reference where there is none.
#[inline]
fn put(place: &mut Option<Py<PyAny>>, value: Py<PyAny>) {
    let old = place.replace(value);
    debug_assert!(old.is_none(), "only an empty call is filled");
    // Nothing to drop: the compiler need not look.
    std::mem::forget(old);
}

impl Call {
    pub(crate) fn new(parts: CallParts<'_, '_>) -> Self {
        let mut call = Self::default();
        call.fill(parts);
        call
    }

    /// Fills an empty call. Runs no Python code.
    #[inline]
    pub(crate) fn fill(&mut self, parts: CallParts<'_, '_>) {
        let [function, places @ ..] = &mut self.parts;
        put(function, Bound::clone(&parts.function).unbind());
        put(&mut self.context, parts.context);
        self.is_shared = parts.is_shared;
        match (parts.tuple, parts.args) {
            (Some(tuple), _) => {
                put(&mut places[0], tuple);
                self.is_tuple = true;
                return;
            }
            (None, args) => {
                for (place, arg) in places.iter_mut().zip(args) {
                    put(place, Bound::clone(arg).unbind());
                }
            }
        }
        self.is_tuple = false;
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.parts[0].is_none()
    }

    /// The function and the arguments, leaving the context.
    pub(crate) fn take_parts(&mut self) -> Self {
        Self { parts: std::mem::take(&mut self.parts), context: None, is_tuple: self.is_tuple, is_shared: false }
    }

    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Self {
        let copy = |part: &Option<Py<PyAny>>| part.as_ref().map(|part| part.clone_ref(py));
        let parts = self.parts.each_ref().map(copy);
        Self { parts, context: copy(&self.context), is_tuple: self.is_tuple, is_shared: self.is_shared }
    }

    pub(crate) fn function(&self) -> Option<&Py<PyAny>> {
        self.parts[0].as_ref()
    }

    pub(crate) fn context(&self) -> Option<&Py<PyAny>> {
        self.context.as_ref()
    }

    /// Whether the context is one that others have too.
    #[inline]
    pub(crate) fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// Gives it another context; the one that it had comes back.
    #[inline]
    pub(crate) fn replace_context(&mut self, context: Py<PyAny>, is_shared: bool) -> Option<Py<PyAny>> {
        self.is_shared = is_shared;
        self.context.replace(context)
    }

    /// Lets go of the context, if it is there still.
    pub(crate) fn take_context(&mut self) -> Option<Py<PyAny>> {
        self.context.take()
    }

    /// Every reference that is held.
    pub(crate) fn held(&self) -> impl Iterator<Item = &Py<PyAny>> {
        self.parts.iter().chain([&self.context]).flatten()
    }

    /// Shows the collector every reference that is held.
    #[inline]
    pub(crate) fn traverse_raw(&self, visit: Visit) -> c_int {
        for part in &self.parts {
            let Some(part) = part else { break };
            let answer = visit.call(part);
            if answer != 0 {
                return answer;
            }
        }
        self.context.as_ref().map_or(0, |context| visit.call(context))
    }

    /// The tuple that asyncio's own handles keep.
    pub(crate) fn args<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let args = || self.parts[1..].iter().flatten();
        match args().next() {
            Some(tuple) if self.is_tuple => Ok(tuple.bind(py).clone().cast_into()?),
            _ => PyTuple::new(py, args().collect::<Vec<_>>()),
        }
    }

    #[inline]
    pub(crate) fn drop_ref(self, py: Python<'_>) {
        for part in self.parts {
            let Some(part) = part else { break };
            part.drop_ref(py);
        }
        if let Some(context) = self.context {
            context.drop_ref(py);
        }
    }

    /// Makes the call, in whatever context is current; an empty one is not called.
    #[inline]
    pub(crate) fn make(&mut self, py: Python<'_>) -> PyResult<()> {
        let [Some(function), args @ ..] = &mut self.parts else { return Ok(()) };
        if self.is_tuple {
            return self.make_with_tuple(py);
        }
        if let [Some(future), Some(result), None] = args
            && names::SET_RESULT_UNLESS_CANCELLED.is(py, function)
        {
            return wake_sleeper(future.bind(py), result.bind(py));
        }
        let count = args.iter().take_while(|arg| arg.is_some()).count();
        let flags = count | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET;
        // SAFETY: the first `count` places hold references that stay while the call lasts (an Option of a Py is a
        // pointer, NULL for None). The callee may write to the place before them, the function's own, and puts back what
        // was there before it returns.
        let answer = unsafe {
            let function = function.as_ptr();
            let args = self.parts.as_mut_ptr().add(1).cast::<*mut ffi::PyObject>();
            vectorcall::call(function, args, flags, std::ptr::null_mut())
        };
        if answer.is_null() {
            return Err(PyErr::fetch(py));
        }
        // SAFETY: a new reference, which nobody wants.
        unsafe { ffi::Py_DECREF(answer) };
        Ok(())
    }

    #[cold]
    fn make_with_tuple(&self, py: Python<'_>) -> PyResult<()> {
        let Some(function) = self.function() else { return Ok(()) };
        function.bind(py).call1(self.args(py)?).map(drop)
    }
}

/// What asyncio's `_set_result_unless_cancelled` does, without a frame of Python's: `asyncio.sleep()` schedules it.
fn wake_sleeper<'py>(future: &Bound<'py, PyAny>, result: &Bound<'py, PyAny>) -> PyResult<()> {
    let py = future.py();
    if future.call_method0(intern!(py, "cancelled"))?.is_truthy()? {
        return Ok(());
    }
    call_method1(future, intern!(py, "set_result"), result).map(drop)
}

/// Calls `callable(*args, **kwargs)`: `args` holds the values of `keywords` after the positional arguments.
pub(crate) fn call_keywords<'py>(
    py: Python<'py>,
    callable: &Bound<'py, PyAny>,
    args: &[Borrowed<'_, 'py, PyAny>],
    keywords: Option<&Bound<'py, PyTuple>>,
) -> PyResult<Bound<'py, PyAny>> {
    let positional = args.len() - keywords.map_or(0, PyTupleMethods::len);
    let keywords = keywords.map_or(std::ptr::null_mut(), Bound::as_ptr);
    // SAFETY: Borrowed is a transparent pointer to a live object; the values of the keywords follow the positionals.
    let answer = unsafe { vectorcall::call(callable.as_ptr(), args.as_ptr().cast(), positional, keywords) };
    // SAFETY: a new reference, or NULL with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(py, answer) }
}

/// Whether a keyword is this name: pointers first, since both are interned in nearly every call.
#[inline]
pub(crate) fn is_name(keyword: &Borrowed<'_, '_, PyAny>, name: &Bound<'_, PyString>) -> bool {
    keyword.is(name) || keyword.eq(name).unwrap_or(false)
}

/// Calls `object.name(arg)` without making a bound method.
#[inline]
pub(crate) fn call_method1<'py>(
    object: &Bound<'py, PyAny>,
    name: &Bound<'py, PyString>,
    arg: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let stack = [std::ptr::null_mut(), object.as_ptr(), arg.as_ptr()];
    let flags = 2 | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET;
    let args = stack[1..].as_ptr();
    // SAFETY: two live references after a scratch place, as the flag says.
    let answer = unsafe { vectorcall::call_method(name.as_ptr(), args, flags, std::ptr::null_mut()) };
    // SAFETY: a new reference, or NULL with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(object.py(), answer) }
}

/// Calls `object.name(first, second)` without making a bound method.
#[inline]
pub(crate) fn call_method2<'py>(
    object: &Bound<'py, PyAny>,
    name: &Bound<'py, PyString>,
    first: &Bound<'py, PyAny>,
    second: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let stack = [std::ptr::null_mut(), object.as_ptr(), first.as_ptr(), second.as_ptr()];
    let flags = 3 | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET;
    let args = stack[1..].as_ptr();
    // SAFETY: three live references after a scratch place, as the flag says.
    let answer = unsafe { vectorcall::call_method(name.as_ptr(), args, flags, std::ptr::null_mut()) };
    // SAFETY: a new reference, or NULL with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(object.py(), answer) }
}
