//! Errors on their way to Python, and the small conversions that reports need.
//!
//! The only place where an [`std::io::Error`] becomes an `OSError`: always with errno and the system's text, so that
//! Python picks the subclass (`ConnectionResetError`, `PermissionError`, ...).

use crate::py::names;
use pyo3::exceptions::{PyOSError, PyResourceWarning};
use pyo3::prelude::*;
use pyo3::types::IntoPyDict;
use std::io;

/// The OSError of a system call's error.
pub(crate) fn os_error(py: Python<'_>, error: &io::Error) -> PyErr {
    match error.raw_os_error() {
        Some(number) => {
            let text = names::STRERROR.get(py).and_then(|strerror| strerror.call1((number,)));
            text.map_or_else(|failure| failure, |text| PyOSError::new_err((number, text.unbind())))
        }
        None => PyOSError::new_err(error.to_string()),
    }
}

/// Warns of a transport that nobody closed, as asyncio's do in `__del__`.
pub(crate) fn warn_unclosed(transport: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = transport.py();
    let text = format!("unclosed transport {}", repr(transport));
    let keywords = [("source", transport)].into_py_dict(py)?;
    names::WARN.get(py)?.call((text, py.get_type::<PyResourceWarning>()), Some(&keywords)).map(drop)
}

/// The repr of an object, or a stand-in if it has none that works.
pub(crate) fn repr(object: &Bound<'_, PyAny>) -> String {
    object.repr().map_or_else(|_| "<object without repr>".to_owned(), |text| text.to_string())
}

/// Nanoseconds as Python's clock gives them: seconds.
#[expect(clippy::cast_precision_loss, reason = "Python's time.monotonic() rounds in the same way")]
pub(crate) fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

/// A path of the file system as `os.fsdecode` gives it.
pub(crate) fn path<'py>(py: Python<'py>, path: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    use std::os::unix::ffi::OsStrExt;
    Ok(std::ffi::OsStr::from_bytes(path).into_pyobject(py)?.into_any())
}

/// The exception object of an error, with its traceback: before Python 3.12 the two are apart until they are joined.
pub(crate) fn exception<'py>(py: Python<'py>, error: &PyErr) -> PyResult<Bound<'py, PyAny>> {
    let exception = error.value(py).clone().into_any();
    if cfg!(not(Py_3_12)) {
        exception.setattr(pyo3::intern!(py, "__traceback__"), error.traceback(py))?;
    }
    Ok(exception)
}
