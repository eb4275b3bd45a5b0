//! Starting Python in a Rust program, and running something to its end.
//!
//! Owns nothing: the interpreter is the process's, and is never shut down.

use super::awaitable::into_awaitable_local;
use super::{attached, lock, package};
use crate::errors;
use pyo3::exceptions::{PyFileNotFoundError, PyRuntimeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use std::ffi::OsString;
use std::future::Future;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// How Python is to be started; see [`Builder::start`].
///
/// # Examples
///
/// ```no_run
/// use mioloop::embed::Builder;
///
/// # fn main() -> pyo3::PyResult<()> {
/// let mut builder = Builder::new().arguments(std::env::args_os()).interrupts(true);
/// if let Some(folder) = std::env::var_os("VIRTUAL_ENV") {
///     builder = builder.virtual_environment(folder);
/// }
/// builder.start()
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Builder {
    virtual_environment: Option<PathBuf>,
    module_paths: Vec<PathBuf>,
    arguments: Option<Vec<OsString>>,
    has_interrupts: bool,
}

impl Builder {
    /// Python as it starts by itself: with the packages of the installation that the program was linked to.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the packages of a virtual environment (its folder), which must be of the Python that the program was linked to.
    /// `sys.prefix` and `sys.executable` are set as in a program that the environment's `python` runs.
    #[must_use]
    pub fn virtual_environment(mut self, folder: impl Into<PathBuf>) -> Self {
        self.virtual_environment = Some(folder.into());
        self
    }

    /// Adds a folder with the program's own Python modules, before those that were added earlier (`sys.path`).
    #[must_use]
    pub fn module_path(mut self, folder: impl Into<PathBuf>) -> Self {
        self.module_paths.push(folder.into());
        self
    }

    /// Sets `sys.argv`; the first one is the program's name.
    #[must_use]
    pub fn arguments<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments = Some(arguments.into_iter().map(Into::into).collect());
        self
    }

    /// Whether Ctrl-C raises `KeyboardInterrupt`, as it does in `python` (false: it ends the program). If so, start in the
    /// main thread.
    #[must_use]
    pub fn interrupts(mut self, raises: bool) -> Self {
        self.has_interrupts = raises;
        self
    }

    /// Starts Python, unless it runs already, and makes `import mioloop` find the package of this program.
    ///
    /// The thread that starts it is Python's main thread: `asyncio` handles signals only there.
    ///
    /// # Errors
    ///
    /// `FileNotFoundError`: the virtual environment is not there, or has no packages for this version of Python.
    /// `RuntimeError`: Python is being shut down.
    pub fn start(self) -> PyResult<()> {
        Python::initialize();
        attached(|py| self.prepare(py)).unwrap_or_else(|| Err(PyRuntimeError::new_err("Python is shutting down")))
    }

    fn prepare(&self, py: Python<'_>) -> PyResult<()> {
        let sys = py.import("sys")?;
        if let Some(folder) = &self.virtual_environment {
            enter_environment(py, folder)?;
        }
        for folder in &self.module_paths {
            sys.getattr("path")?.call_method1("insert", (0, text(py, folder)?))?;
        }
        if let Some(arguments) = &self.arguments {
            sys.setattr("argv", PyList::new(py, arguments)?)?;
        }
        if self.has_interrupts {
            let signal = py.import("signal")?;
            signal.call_method1("signal", (signal.getattr("SIGINT")?, signal.getattr("default_int_handler")?))?;
        }
        package::install(py)
    }
}

fn text<'py>(py: Python<'py>, path: &Path) -> PyResult<Bound<'py, PyAny>> {
    errors::path(py, path.as_os_str().as_bytes())
}

/// Makes this program one of the virtual environment.
fn enter_environment(py: Python<'_>, folder: &Path) -> PyResult<()> {
    let base = text(py, folder)?;
    let places = PyDict::new(py);
    for name in ["base", "platbase", "installed_base", "installed_platbase"] {
        places.set_item(name, &base)?;
    }
    let packages = py.import("sysconfig")?.call_method1("get_path", ("purelib", "venv", places))?;
    let is_there: bool = py.import("os.path")?.call_method1("isdir", (&packages,))?.extract()?;
    if !folder.join("pyvenv.cfg").exists() || !is_there {
        let version = py.version_info();
        let message = format!(
            "{} is no virtual environment for Python {}.{}: there is no {packages}",
            folder.display(),
            version.major,
            version.minor
        );
        return Err(PyFileNotFoundError::new_err(message));
    }
    let sys = py.import("sys")?;
    sys.setattr("prefix", &base)?;
    sys.setattr("exec_prefix", &base)?;
    sys.setattr("executable", text(py, &folder.join("bin").join("python"))?)?;
    py.import("site")?.call_method1("addsitedir", (packages,)).map(drop)
}

/// Starts Python as it is, unless it runs already, and makes `import mioloop` find the package of this program:
/// `Builder::new().start()`.
///
/// # Errors
///
/// `RuntimeError`: Python is being shut down.
pub fn start() -> PyResult<()> {
    Builder::new().start()
}

/// Runs a coroutine to its end on a new loop of mioloop's, and gives what it returns: `mioloop.run(main)`.
///
/// The loop is closed at the end; before that, what is left of its tasks is cancelled, as `asyncio.run` does it.
///
/// - `main`: a coroutine, or what [`into_awaitable`](super::into_awaitable) gives.
///
/// # Errors
///
/// Whatever the coroutine raises. `RuntimeError`: a loop runs in this thread already. `ImportError`: Python was not
/// started by [`start`], and no mioloop is installed.
///
/// # Examples
///
/// ```
/// use mioloop::embed;
/// use pyo3::prelude::*;
///
/// # fn main() -> PyResult<()> {
/// embed::start()?;
/// Python::attach(|py| {
///     let scope = pyo3::types::PyDict::new(py);
///     py.run(c"import asyncio\nasync def double(number):\n    await asyncio.sleep(0)\n    return 2 * number", Some(&scope), None)?;
///     let coroutine = py.eval(c"double(21)", Some(&scope), None)?;
///     assert_eq!(embed::run(&coroutine)?.extract::<i32>()?, 42);
///     Ok(())
/// })
/// # }
/// ```
pub fn run<'py>(main: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = main.py();
    let outcome = py.import(intern!(py, "mioloop"))?.call_method1(intern!(py, "run"), (main,));
    flush(py);
    outcome
}

/// Python is not shut down at the end of the program, which is when it writes out what was printed.
fn flush(py: Python<'_>) {
    let streams = ["stdout", "stderr"];
    let flushed = py
        .import("sys")
        .and_then(|sys| streams.iter().try_for_each(|name| sys.getattr(*name)?.call_method0("flush").map(drop)));
    // A stream that cannot be written to, or that the program has put something else for.
    drop(flushed);
}

/// Runs a Rust future to its end on a new loop of mioloop's, in this thread, and gives its value.
///
/// The future is the loop's main task: whatever it starts on the loop, in Rust or in Python, runs beside it, and is
/// cancelled at its end.
///
/// - `future`: what to run; it stays in this thread.
///
/// # Errors
///
/// `KeyboardInterrupt` or `asyncio.CancelledError`: it was cancelled. [`RustPanic`](super::RustPanic): it panicked. `RuntimeError`: a
/// loop runs in this thread already, or Python is not there. `ImportError`: as for [`run`].
///
/// # Examples
///
/// ```
/// use mioloop::embed;
///
/// # fn main() -> pyo3::PyResult<()> {
/// embed::start()?;
/// assert_eq!(embed::block_on(async { 6 * 7 })?, 42);
/// # Ok(())
/// # }
/// ```
pub fn block_on<F>(future: F) -> PyResult<F::Output>
where
    F: Future + 'static,
{
    let place = Arc::new(Mutex::new(None));
    let result = Arc::clone(&place);
    let ran = attached(|py| {
        let main = into_awaitable_local(py, async move {
            let value = future.await;
            *lock(&place) = Some(value);
            Ok(())
        })?;
        run(&main).map(drop)
    });
    ran.unwrap_or_else(|| Err(PyRuntimeError::new_err("there is no Python: call embed::start() first")))?;
    let value = lock(&result).take();
    value.ok_or_else(|| PyRuntimeError::new_err("the future was dropped before its end"))
}
