//! Calling Python without building argument tuples.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};

/// At most so many arguments are kept and passed without a tuple.
pub(crate) const INLINE: usize = 3;

/// The arguments of a scheduled callback.
#[derive(Debug)]
pub(crate) enum Args {
    /// The first `count` are there.
    Inline([Option<Py<PyAny>>; INLINE]),
    /// More than [`INLINE`].
    Tuple(Py<PyTuple>),
}

impl Args {
    pub(crate) const NONE: Self = Self::Inline([None, None, None]);

    /// Takes new references to the arguments.
    #[inline]
    pub(crate) fn new<'py>(py: Python<'py>, args: &[Borrowed<'_, 'py, PyAny>]) -> PyResult<Self> {
        let keep = |index: usize| args.get(index).map(|arg| (*arg).to_owned().unbind());
        if args.len() <= INLINE {
            return Ok(Self::Inline([keep(0), keep(1), keep(2)]));
        }
        Ok(Self::Tuple(PyTuple::new(py, args.iter().map(|arg| (*arg).to_owned()))?.unbind()))
    }

    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Self {
        match self {
            Self::Inline(args) => Self::Inline(args.each_ref().map(|arg| arg.as_ref().map(|arg| arg.clone_ref(py)))),
            Self::Tuple(args) => Self::Tuple(args.clone_ref(py)),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Py<PyAny>> {
        match self {
            Self::Inline(args) => args.as_slice(),
            Self::Tuple(_) => &[],
        }
        .iter()
        .flatten()
    }

    /// The tuple that asyncio's own handles keep.
    pub(crate) fn to_tuple<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        match self {
            Self::Inline(_) => PyTuple::new(py, self.iter().collect::<Vec<_>>()),
            Self::Tuple(args) => Ok(args.bind(py).clone()),
        }
    }

    #[inline]
    pub(crate) fn drop_ref(self, py: Python<'_>) {
        match self {
            Self::Inline(args) => args.into_iter().flatten().for_each(|arg| arg.drop_ref(py)),
            Self::Tuple(args) => args.drop_ref(py),
        }
    }

    /// Calls `callable` with these arguments.
    #[inline]
    pub(crate) fn call<'py>(&self, py: Python<'py>, callable: &Py<PyAny>) -> PyResult<Bound<'py, PyAny>> {
        match self {
            Self::Inline(args) => {
                let pointer = |index: usize| args[index].as_ref().map_or(std::ptr::null_mut(), Py::as_ptr);
                let stack = [std::ptr::null_mut(), pointer(0), pointer(1), pointer(2)];
                let count = args.iter().take_while(|arg| arg.is_some()).count();
                // SAFETY: the first `count` pointers after the scratch place are live references.
                unsafe { vectorcall(py, callable.as_ptr(), &stack, count) }
            }
            Self::Tuple(args) => callable.bind(py).call1(args.bind(py)),
        }
    }
}

/// # Safety
///
/// `stack[1..=count]` are live references; `stack[0]` is scratch space of the callee.
#[inline]
unsafe fn vectorcall<'py>(
    py: Python<'py>,
    callable: *mut ffi::PyObject,
    stack: &[*mut ffi::PyObject],
    count: usize,
) -> PyResult<Bound<'py, PyAny>> {
    debug_assert!(count < stack.len());
    let flags = count | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET;
    // SAFETY: by the contract above; the place before the first argument may be written, as the flag says.
    let answer = unsafe { ffi::PyObject_Vectorcall(callable, stack.as_ptr().add(1), flags, std::ptr::null_mut()) };
    // SAFETY: a new reference, or NULL with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(py, answer) }
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
    let answer = unsafe { ffi::PyObject_Vectorcall(callable.as_ptr(), args.as_ptr().cast(), positional, keywords) };
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
    let answer = unsafe { ffi::PyObject_VectorcallMethod(name.as_ptr(), args, flags, std::ptr::null_mut()) };
    // SAFETY: a new reference, or NULL with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(object.py(), answer) }
}
