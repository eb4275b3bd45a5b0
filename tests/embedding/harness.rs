//! The harness: finds the tests that were asked for, runs them one after the other, and says what became of them.

use mioloop::embed;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::error::Error;
use std::ffi::CString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

pub(crate) type Outcome = Result<(), Box<dyn Error + Send + Sync>>;
/// A test: its name, and what it does.
pub(crate) type Test = (&'static str, fn() -> Outcome);

/// So long may a test take.
const LIMIT: Duration = Duration::from_secs(60);

/// Makes the list of a module's tests.
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        pub(crate) const TESTS: &[crate::harness::Test] = &[$((concat!(module_path!(), "::", stringify!($name)), $name)),*];
    };
}
pub(crate) use tests;

pub(crate) fn run(tests: &[Test]) -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let mut failed = 0;
    let mut count = 0;
    for (name, test) in tests {
        let name = name.trim_start_matches("embedding::");
        if !wanted.is_empty() && !wanted.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        count += 1;
        let watch = watch(name);
        let outcome = catch_unwind(AssertUnwindSafe(test));
        drop(watch);
        match outcome {
            Ok(Ok(())) => eprintln!("test {name} ... ok"),
            Ok(Err(error)) => {
                failed += 1;
                eprintln!("test {name} ... FAILED: {error}");
            }
            // The panic has been printed.
            Err(_) => {
                failed += 1;
                eprintln!("test {name} ... FAILED");
            }
        }
    }
    eprintln!("{} of {count} embedding tests passed", count - failed);
    if failed == 0 && count > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Ends the process if a test hangs.
fn watch(name: &str) -> mpsc::Sender<()> {
    let (sender, receiver) = mpsc::channel();
    let name = name.to_owned();
    thread::spawn(move || {
        if receiver.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("test {name} ... hangs");
            std::process::exit(101);
        }
    });
    sender
}

/// Runs Python code with names given to it, and gives its global names.
pub(crate) fn execute<'py>(
    py: Python<'py>,
    code: &str,
    names: &[(&str, Bound<'py, PyAny>)],
) -> PyResult<Bound<'py, PyDict>> {
    let globals = PyDict::new(py);
    for (name, value) in names {
        globals.set_item(name, value)?;
    }
    py.run(&CString::new(code)?, Some(&globals), None)?;
    Ok(globals)
}

/// Runs the coroutine `main()` of Python code on a new loop.
pub(crate) fn run_main<'py>(
    py: Python<'py>,
    code: &str,
    names: &[(&str, Bound<'py, PyAny>)],
) -> PyResult<Bound<'py, PyAny>> {
    let globals = execute(py, code, names)?;
    let main = globals.get_item("main")?.expect("the code has a main()").call0()?;
    embed::run(&main)
}

/// A Python function of a Rust closure without arguments.
pub(crate) fn function<'py, T>(
    py: Python<'py>,
    action: impl Fn(Python<'_>) -> PyResult<T> + Send + Sync + 'static,
) -> PyResult<Bound<'py, PyAny>>
where
    T: for<'any> IntoPyObject<'any>,
{
    let call = move |args: &Bound<'_, pyo3::types::PyTuple>, _: Option<&Bound<'_, PyDict>>| -> PyResult<Py<PyAny>> {
        use pyo3::IntoPyObjectExt;
        action(args.py())?.into_py_any(args.py())
    };
    Ok(pyo3::types::PyCFunction::new_closure(py, None, None, call)?.into_any())
}

/// Has Python collect what nobody refers to.
pub(crate) fn collect(py: Python<'_>) -> PyResult<()> {
    let gc = py.import("gc")?;
    for _ in 0..3 {
        gc.call_method0("collect")?;
    }
    Ok(())
}

/// Notes its drop.
pub(crate) struct Dropped(pub(crate) std::sync::Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}
