//! Python inside a Rust program: its package, its environment, its arguments.

use crate::harness::{Outcome, execute, run_main, tests};
use mioloop::embed::{self, Builder};
use pyo3::exceptions::{PyFileNotFoundError, PyRuntimeError, PyZeroDivisionError};
use pyo3::prelude::*;
use std::path::PathBuf;

tests![
    the_package_is_the_programs_own,
    every_module_is_in_the_program,
    tracebacks_show_lines_of_the_package,
    a_coroutine_runs_to_its_end,
    an_exception_is_an_error,
    two_loops_at_once_are_refused,
    starting_twice_is_no_error,
    what_is_no_environment_is_an_error,
    packages_of_an_environment_are_found,
    modules_and_arguments_are_the_programs,
];

fn the_package_is_the_programs_own() -> Outcome {
    Python::attach(|py| {
        let code = "import mioloop, mioloop._core, sys
assert mioloop.__spec__.origin == '<mioloop>/__init__.py', mioloop.__spec__
assert mioloop._core.Loop in mioloop.Loop.__mro__
assert mioloop.__version__ == mioloop._core.build_info()['version']
assert mioloop.EventLoopPolicy.__name__ == 'EventLoopPolicy' or sys.version_info >= (3, 16)
try:
    import mioloop.nothing
except ImportError:
    pass
else:
    raise AssertionError";
        execute(py, code, &[])?;
        Ok(())
    })
}

fn every_module_is_in_the_program() -> Outcome {
    for file in std::fs::read_dir("python/mioloop")? {
        let file = file?.file_name().into_string().unwrap_or_default();
        let Some(name) = file.strip_suffix(".py") else { continue };
        let is_command = name == "__main__" || name.starts_with("_command");
        if name != "__init__" && !is_command {
            Python::attach(|py| py.import(format!("mioloop.{name}")).map(drop))?;
        }
    }
    Ok(())
}

fn tracebacks_show_lines_of_the_package() -> Outcome {
    Python::attach(|py| {
        let code = "import mioloop, traceback
try:
    mioloop.run(1)
except (TypeError, ValueError):
    text = traceback.format_exc()
assert 'return runner.run(main)' in text and '<mioloop>/__init__.py' in text, text";
        execute(py, code, &[])?;
        Ok(())
    })
}

fn a_coroutine_runs_to_its_end() -> Outcome {
    Python::attach(|py| {
        let code = "import asyncio, mioloop
async def main():
    assert isinstance(asyncio.get_running_loop(), mioloop.Loop)
    return await asyncio.sleep(0.001, 'end')";
        assert_eq!(run_main(py, code, &[])?.extract::<String>()?, "end");
        Ok(())
    })
}

fn an_exception_is_an_error() -> Outcome {
    Python::attach(|py| {
        let error = run_main(py, "async def main():\n    1 / 0", &[]).unwrap_err();
        assert!(error.is_instance_of::<PyZeroDivisionError>(py));
        Ok(())
    })
}

fn two_loops_at_once_are_refused() -> Outcome {
    let error = embed::block_on(async { embed::block_on(async {}) })?.unwrap_err();
    Python::attach(|py| {
        assert!(error.is_instance_of::<PyRuntimeError>(py));
        assert_eq!(error.value(py).to_string(), "asyncio.run() cannot be called from a running event loop");
    });
    Ok(())
}

fn starting_twice_is_no_error() -> Outcome {
    embed::start()?;
    Python::attach(|py| {
        let code = "import sys\ncount = sum(type(f).__name__ == 'EmbeddedModules' for f in sys.meta_path)";
        let globals = execute(py, code, &[])?;
        assert_eq!(globals.get_item("count")?.unwrap().extract::<usize>()?, 1);
        Ok(())
    })
}

fn what_is_no_environment_is_an_error() -> Outcome {
    let error = Builder::new().virtual_environment("/no/such/folder").start().unwrap_err();
    Python::attach(|py| assert!(error.is_instance_of::<PyFileNotFoundError>(py), "{error}"));
    Ok(())
}

/// A folder of this test's own.
fn folder(name: &str) -> std::io::Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("mioloop-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn packages_of_an_environment_are_found() -> Outcome {
    let folder = folder("environment")?;
    let made = Python::attach(|py| {
        let code = "import sysconfig, pathlib
places = dict.fromkeys(['base', 'platbase', 'installed_base', 'installed_platbase'], str(folder))
packages = pathlib.Path(sysconfig.get_path('purelib', 'venv', places))
packages.mkdir(parents=True)
(packages / 'only_there.py').write_text('value = 17')
(folder / 'pyvenv.cfg').write_text('home = /usr/bin')";
        execute(py, code, &[("folder", py.import("pathlib")?.call_method1("Path", (&folder,))?)]).map(drop)
    });
    made?;
    Builder::new().virtual_environment(&folder).start()?;
    Python::attach(|py| {
        let code = "import only_there, sys\nresult = only_there.value, sys.prefix, sys.executable";
        let globals = execute(py, code, &[])?;
        let (value, prefix, executable): (i32, PathBuf, PathBuf) = globals.get_item("result")?.unwrap().extract()?;
        assert_eq!((value, prefix, executable), (17, folder.clone(), folder.join("bin/python")));
        PyResult::Ok(())
    })?;
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

fn modules_and_arguments_are_the_programs() -> Outcome {
    let folder = folder("modules")?;
    std::fs::write(folder.join("of_the_program.py"), "async def main():\n    import sys\n    return sys.argv")?;
    Builder::new().module_path(&folder).arguments(["program", "--option"]).start()?;
    Python::attach(|py| {
        let main = py.import("of_the_program")?.call_method0("main")?;
        assert_eq!(embed::run(&main)?.extract::<Vec<String>>()?, ["program", "--option"]);
        PyResult::Ok(())
    })?;
    std::fs::remove_dir_all(folder)?;
    Ok(())
}
