//! The Python package `mioloop` inside a Rust program: its modules are in the executable.
//!
//! Owns the texts of the modules, and the finder that Python's import system asks for them. The command line
//! (`python -m mioloop`) and the integrations with other packages are not among them. The finder stands first,
//! so that an installed wheel, which has an engine of its own, does not mix with the one of the program.

use pyo3::exceptions::PyImportError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyModule};

/// The modules in Python: name, text.
const MODULES: [(&str, &str); 9] = [
    ("mioloop", include_str!("../../python/mioloop/__init__.py")),
    ("mioloop._as_uvloop", include_str!("../../python/mioloop/_as_uvloop.py")),
    ("mioloop._connect", include_str!("../../python/mioloop/_connect.py")),
    ("mioloop._loop", include_str!("../../python/mioloop/_loop.py")),
    ("mioloop._metrics", include_str!("../../python/mioloop/_metrics.py")),
    ("mioloop._policy", include_str!("../../python/mioloop/_policy.py")),
    ("mioloop._processes", include_str!("../../python/mioloop/_processes.py")),
    ("mioloop._signals", include_str!("../../python/mioloop/_signals.py")),
    ("mioloop._stalls", include_str!("../../python/mioloop/_stalls.py")),
];
const PACKAGE: &str = "mioloop";
const ENGINE: &str = "mioloop._core";

fn text_of(name: &str) -> Option<&'static str> {
    MODULES.iter().find(|(module, _)| *module == name).map(|(_, text)| *text)
}

/// Where tracebacks say that a module is.
fn file_of(name: &str) -> String {
    let file = name.rsplit('.').next().filter(|_| name != PACKAGE).unwrap_or("__init__");
    format!("<mioloop>/{file}.py")
}

/// Finds and loads the modules: a meta path finder and a loader of Python's.
#[pyclass(frozen, name = "EmbeddedModules", module = "mioloop")]
struct Finder;

#[pymethods]
impl Finder {
    /// `importlib.abc.MetaPathFinder.find_spec`
    #[pyo3(signature = (name, path=None, target=None))]
    fn find_spec<'py>(
        slf: &Bound<'py, Self>,
        name: &str,
        path: Option<&Bound<'py, PyAny>>,
        target: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        // Neither says where these modules are.
        let _ = (path, target);
        let py = slf.py();
        if name != ENGINE && text_of(name).is_none() {
            return Ok(None);
        }
        let keywords = PyDict::new(py);
        keywords.set_item("origin", file_of(name))?;
        keywords.set_item("is_package", name == PACKAGE)?;
        let machinery = py.import("importlib.machinery")?;
        machinery.call_method("ModuleSpec", (name, slf), Some(&keywords)).map(Some)
    }

    /// `importlib.abc.Loader.create_module`
    fn create_module<'py>(&self, spec: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyModule>>> {
        let py = spec.py();
        let name: String = spec.getattr(intern!(py, "name"))?.extract()?;
        Ok(if name == ENGINE { Some(crate::core_module(py)?) } else { None })
    }

    /// `importlib.abc.Loader.exec_module`
    fn exec_module(&self, module: &Bound<'_, PyModule>) -> PyResult<()> {
        let py = module.py();
        let name = module.name()?.to_string();
        let Some(text) = text_of(&name) else { return Ok(()) };
        let builtins = py.import("builtins")?;
        let keywords = PyDict::new(py);
        keywords.set_item("dont_inherit", true)?;
        let code = builtins.call_method("compile", (text, file_of(&name), "exec"), Some(&keywords))?;
        builtins.call_method1("exec", (code, module.dict())).map(drop)
    }

    /// `importlib.abc.InspectLoader.get_source`: the lines of tracebacks.
    fn get_source(&self, name: &str) -> PyResult<&'static str> {
        text_of(name).ok_or_else(|| PyImportError::new_err(format!("no module named {name:?} in this program")))
    }

    /// `importlib.abc.InspectLoader.is_package`
    fn is_package(&self, name: &str) -> bool {
        name == PACKAGE
    }
}

/// Makes `import mioloop` find the package of this program, unless one has been imported already.
pub(super) fn install(py: Python<'_>) -> PyResult<()> {
    let sys = py.import("sys")?;
    if sys.getattr("modules")?.contains(PACKAGE)? {
        return Ok(());
    }
    let finders = sys.getattr("meta_path")?;
    for finder in finders.try_iter()? {
        if finder?.is_instance_of::<Finder>() {
            return Ok(());
        }
    }
    finders.call_method1("insert", (0, Bound::new(py, Finder)?)).map(drop)
}
