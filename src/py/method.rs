//! Raw `METH_FASTCALL` methods: what a hot Python method of ours is made of.
//!
//! A `#[pymethods]` function with `*args` builds a tuple for every call; asyncio's C code calls `loop.call_soon` by
//! vectorcall on every step of every task, with the arguments already in an array. [`define`] puts a function on a type
//! that gets this array as it is.

use super::call::is_name;
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::panic::PanicException;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyString, PyTuple, PyType};
use pyo3::{PyClass, ffi};
use std::ffi::CStr;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a raw method was called with: the positional arguments, then the values of the keywords.
#[derive(Clone, Copy)]
pub(crate) struct Arguments<'a, 'py> {
    values: &'a [Borrowed<'a, 'py, PyAny>],
    positional: usize,
    keywords: Option<&'a Bound<'py, PyTuple>>,
    /// The name of the method's class, for error texts.
    class: &'static str,
}

/// Positional arguments, and the value of one keyword.
pub(crate) type Bindings<'a, 'b, 'py> = (&'b [Borrowed<'a, 'py, PyAny>], Option<Borrowed<'a, 'py, PyAny>>);

impl<'a, 'py> Arguments<'a, 'py> {
    #[inline]
    pub(crate) fn positional(&self) -> &'a [Borrowed<'a, 'py, PyAny>] {
        &self.values[..self.positional]
    }

    /// What Python's error texts call the method.
    #[cold]
    fn shown(&self, function: &str) -> String {
        format!("{}.{function}", self.class)
    }

    /// The only argument, by position or by name, or Python's own TypeError.
    #[inline]
    pub(crate) fn only_argument(
        &self,
        function: &str,
        name: &Bound<'py, PyString>,
    ) -> PyResult<Borrowed<'a, 'py, PyAny>> {
        if let ([value], None) = (self.positional(), self.keywords) {
            return Ok(*value);
        }
        let [value] = self.named(function, [name], 0)?;
        value.ok_or_else(|| missing(&self.shown(function), &[name.to_string_lossy().as_ref()]))
    }

    /// The arguments of `function(first, second=None)`, by position or by name, or Python's own TypeError.
    #[inline]
    pub(crate) fn one_or_two(
        &self,
        function: &str,
        names: [&Bound<'py, PyString>; 2],
    ) -> PyResult<(Borrowed<'a, 'py, PyAny>, Option<Borrowed<'a, 'py, PyAny>>)> {
        match (self.positional(), self.keywords) {
            ([first], None) => Ok((*first, None)),
            ([first, second], None) => Ok((*first, Some(*second))),
            _ => self.one_or_two_by_name(function, names),
        }
    }

    #[cold]
    fn one_or_two_by_name(
        &self,
        function: &str,
        names: [&Bound<'py, PyString>; 2],
    ) -> PyResult<(Borrowed<'a, 'py, PyAny>, Option<Borrowed<'a, 'py, PyAny>>)> {
        let mut given = [None; 2];
        if self.positional > given.len() {
            let count = self.positional + 1;
            let function = self.shown(function);
            let text = format!("{function}() takes from 2 to 3 positional arguments but {count} were given");
            return Err(PyTypeError::new_err(text));
        }
        for (place, value) in given.iter_mut().zip(self.positional()) {
            *place = Some(*value);
        }
        let keywords = self.keywords.into_iter().flat_map(PyTupleMethods::iter);
        for (keyword, value) in keywords.zip(&self.values[self.positional..]) {
            match names.iter().position(|name| is_name(&keyword.as_borrowed(), name)) {
                Some(index) if given[index].is_none() => given[index] = Some(*value),
                Some(_) => {
                    let function = self.shown(function);
                    let text = format!("{function}() got multiple values for argument '{keyword}'");
                    return Err(PyTypeError::new_err(text));
                }
                None => {
                    let function = self.shown(function);
                    let text = format!("{function}() got an unexpected keyword argument '{keyword}'");
                    return Err(PyTypeError::new_err(text));
                }
            }
        }
        let [Some(first), second] = given else { return Err(missing(&self.shown(function), &[names[0].to_str()?])) };
        Ok((first, second))
    }

    /// No arguments at all, or Python's own TypeError.
    #[inline]
    pub(crate) fn require_none(&self, function: &str) -> PyResult<()> {
        if self.values.is_empty() { Ok(()) } else { self.named(function, [], 0).map(|[]| ()) }
    }

    /// The values of `names`, by position or by name; all but the last `optional` must be there. Or Python's TypeError.
    #[inline]
    pub(crate) fn named<const N: usize>(
        &self,
        function: &str,
        names: [&Bound<'py, PyString>; N],
        optional: usize,
    ) -> PyResult<[Option<Borrowed<'a, 'py, PyAny>>; N]> {
        let mut given = [None; N];
        if self.positional > N {
            let (most, count) = (N + 1, self.positional + 1);
            let function = self.shown(function);
            let plural = if most == 1 { "" } else { "s" };
            let text = format!("{function}() takes {most} positional argument{plural} but {count} were given");
            return Err(PyTypeError::new_err(text));
        }
        for (place, value) in given.iter_mut().zip(self.positional()) {
            *place = Some(*value);
        }
        if let Some(keywords) = self.keywords {
            for (keyword, value) in keywords.iter().zip(&self.values[self.positional..]) {
                match names.iter().position(|name| is_name(&keyword.as_borrowed(), name)) {
                    Some(index) if given[index].is_none() => given[index] = Some(*value),
                    Some(_) => {
                        let function = self.shown(function);
                        let text = format!("{function}() got multiple values for argument '{keyword}'");
                        return Err(PyTypeError::new_err(text));
                    }
                    None => {
                        let function = self.shown(function);
                        let text = format!("{function}() got an unexpected keyword argument '{keyword}'");
                        return Err(PyTypeError::new_err(text));
                    }
                }
            }
        }
        if given[..N - optional].iter().all(Option::is_some) {
            return Ok(given);
        }
        let absent = names[..N - optional].iter().zip(&given).filter(|(_, value)| value.is_none());
        Err(missing(&self.shown(function), &absent.map(|(name, _)| name.to_str()).collect::<PyResult<Vec<_>>>()?))
    }

    /// Everything, in the order of a vectorcall.
    pub(crate) fn values(&self) -> &'a [Borrowed<'a, 'py, PyAny>] {
        self.values
    }

    pub(crate) fn keywords(&self) -> Option<&'a Bound<'py, PyTuple>> {
        self.keywords
    }

    /// The arguments of `function(*names, *args, context=None)`: the positional ones, and the context unless None.
    ///
    /// `room` is for calls that give some of `names` by keyword: there the positional arguments are put together.
    #[inline]
    pub(crate) fn bind<'b>(
        &self,
        py: Python<'py>,
        function: &str,
        names: &[&str],
        room: &'b mut Vec<Borrowed<'a, 'py, PyAny>>,
    ) -> PyResult<Bindings<'a, 'b, 'py>>
    where
        'a: 'b,
    {
        let last = intern!(py, "context");
        let value = match self.keywords {
            None => None,
            Some(keywords) if is_only(keywords, last) => Some(self.values[self.positional]),
            Some(keywords) => {
                let value = self.bind_keywords(function, names, last, keywords, room)?;
                return Ok((room.as_slice(), value.filter(|value| !value.is_none())));
            }
        };
        if self.positional < names.len() {
            return Err(missing(&self.shown(function), &names[self.positional..]));
        }
        Ok((self.positional(), value.filter(|value| !value.is_none())))
    }

    #[cold]
    fn bind_keywords(
        &self,
        function: &str,
        names: &[&str],
        last: &Bound<'py, PyString>,
        keywords: &Bound<'py, PyTuple>,
        room: &mut Vec<Borrowed<'a, 'py, PyAny>>,
    ) -> PyResult<Option<Borrowed<'a, 'py, PyAny>>> {
        room.extend_from_slice(self.positional());
        let mut given = vec![None; names.len()];
        let mut value = None;
        for (keyword, argument) in keywords.iter_borrowed().zip(&self.values[self.positional..]) {
            if is_name(&keyword, last) {
                value = Some(*argument);
                continue;
            }
            let keyword = keyword.to_string();
            match names.iter().position(|name| *name == keyword) {
                Some(index) if index >= self.positional => given[index] = Some(*argument),
                Some(_) => {
                    let function = self.shown(function);
                    let text = format!("{function}() got multiple values for argument '{keyword}'");
                    return Err(PyTypeError::new_err(text));
                }
                None => {
                    let function = self.shown(function);
                    let text = format!("{function}() got an unexpected keyword argument '{keyword}'");
                    return Err(PyTypeError::new_err(text));
                }
            }
        }
        let wanted = self.positional.min(names.len())..names.len();
        let absent: Vec<&str> =
            wanted.clone().filter(|index| given[*index].is_none()).map(|index| names[index]).collect();
        if !absent.is_empty() {
            return Err(missing(&self.shown(function), &absent));
        }
        room.extend(given[wanted].iter().flatten());
        Ok(value)
    }
}

/// The names tuple with which asyncio's C code calls `call_soon` on every step of every task. Its string is no interned
/// one, so it is compared once, and kept to be known by its identity.
static ASYNCIO_KEYWORDS: PyOnceLock<Py<PyTuple>> = PyOnceLock::new();

/// Whether `name`, which is "context" here, is the only keyword.
#[inline]
fn is_only(keywords: &Bound<'_, PyTuple>, name: &Bound<'_, PyString>) -> bool {
    let py = keywords.py();
    if ASYNCIO_KEYWORDS.get(py).is_some_and(|known| known.is(keywords)) {
        return true;
    }
    let Ok(keyword) = keywords.get_borrowed_item(0) else { return false };
    if keywords.len() != 1 || !is_name(&keyword, name) {
        return false;
    }
    if !keyword.is(name) {
        ASYNCIO_KEYWORDS.get_or_init(py, || keywords.clone().unbind());
    }
    true
}

/// Python's TypeError for arguments that are not there.
#[cold]
fn missing(function: &str, names: &[&str]) -> PyErr {
    let quoted: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
    let (plural, list) = match quoted.as_slice() {
        [one] => ("", one.clone()),
        [first, second] => ("s", format!("{first} and {second}")),
        many => ("s", many.join(", ")),
    };
    let count = names.len();
    PyTypeError::new_err(format!("{function}() missing {count} required positional argument{plural}: {list}"))
}

/// The body of a raw method of the class `T`.
pub(crate) type Body<T> = for<'a, 'py> fn(&'a Bound<'py, T>, Arguments<'a, 'py>) -> PyResult<Bound<'py, PyAny>>;

/// Names a [`Body`] at the type level, so that each method gets its own C function.
pub(crate) trait Method {
    /// The class whose method it is.
    type Class: PyClass;
    /// Its name in Python.
    const NAME: &'static CStr;
    /// Its docstring.
    const DOC: &'static CStr;
    /// What it does.
    const BODY: Body<Self::Class>;
}

/// Puts the method on its type.
pub(crate) fn define<M: Method>(class: &Bound<'_, PyType>) -> PyResult<()> {
    let py = class.py();
    let definition = Box::leak(Box::new(ffi::PyMethodDef {
        ml_name: M::NAME.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: enter::<M> },
        ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
        ml_doc: M::DOC.as_ptr(),
    }));
    // SAFETY: the type is live; the definition lives for ever.
    let descriptor = unsafe { ffi::PyDescr_NewMethod(class.as_type_ptr(), definition) };
    // SAFETY: a new reference, or NULL with an exception set.
    let descriptor = unsafe { Bound::from_owned_ptr_or_err(py, descriptor)? };
    class.setattr(M::NAME.to_string_lossy().as_ref(), descriptor)
}

/// Called by CPython. The method descriptor has checked that `slf` is an instance of the class.
unsafe extern "C" fn enter<M: Method>(
    slf: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: ffi::Py_ssize_t,
    kwnames: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython calls its methods from attached threads. Attaching once more would only count that, for `Py`'s
    // destructor: so a body that may be called outside a running loop gives references away or says `drop_ref`. What
    // an error path drops there dies with the next call of ours.
    let py = unsafe { Python::assume_attached() };
    let body = || {
        // SAFETY: `slf` is a live reference of the caller, to an instance of the class.
        let slf: &Bound<'_, PyAny> = unsafe { Bound::ref_from_ptr(py, &slf) };
        // SAFETY: the descriptor has checked the type.
        let slf: &Bound<'_, M::Class> = unsafe { slf.cast_unchecked() };
        let keywords: Option<&Bound<'_, PyTuple>> =
                // SAFETY: NULL or a tuple of the caller's.
                (!kwnames.is_null()).then(|| unsafe { Bound::ref_from_ptr(py, &kwnames).cast_unchecked() });
        let positional = nargs.unsigned_abs();
        let count = positional + keywords.map_or(0, PyTupleMethods::len);
        let values: &[Borrowed<'_, '_, PyAny>] = if count == 0 {
            &[]
        } else {
            // SAFETY: `count` live references follow; Borrowed is a transparent pointer to an object.
            unsafe { std::slice::from_raw_parts(args.cast(), count) }
        };
        let class = <M::Class as PyClass>::NAME;
        M::BODY(slf, Arguments { values, positional, keywords, class }).map(Bound::into_ptr)
    };
    guarded(py, body)
}

/// Runs what C has called: an error is set, and a panic, which must not unwind into C, becomes one.
#[inline]
pub(super) fn guarded(py: Python<'_>, body: impl FnOnce() -> PyResult<*mut ffi::PyObject>) -> *mut ffi::PyObject {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            error.restore(py);
            std::ptr::null_mut()
        }
        Err(payload) => {
            panic_error(payload.as_ref()).restore(py);
            std::ptr::null_mut()
        }
    }
}

#[cold]
fn panic_error(payload: &(dyn std::any::Any + Send)) -> PyErr {
    let text = payload
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "panic from Rust code".to_owned());
    PanicException::new_err(text)
}
