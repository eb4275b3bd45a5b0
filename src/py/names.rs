//! Every object of the standard library that Rust needs, one line each.
//!
//! Each is imported when it is first asked for and kept for the life of the process. Nothing else in the crate caches
//! Python objects globally, so that a per-interpreter table can take this one's place.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyString;

/// An attribute of a module, imported once.
pub(crate) struct Name {
    module: &'static str,
    attribute: &'static str,
    object: PyOnceLock<Py<PyAny>>,
}

impl Name {
    const fn new(module: &'static str, attribute: &'static str) -> Self {
        Self { module, attribute, object: PyOnceLock::new() }
    }

    /// The object itself.
    #[inline]
    pub(crate) fn get<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyAny>> {
        if let Some(object) = self.object.get(py) {
            return Ok(object.bind(py));
        }
        self.import(py)
    }

    #[cold]
    fn import<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyAny>> {
        let mut object = py.import(self.module)?.into_any();
        for part in self.attribute.split('.') {
            object = object.getattr(part)?;
        }
        Ok(self.object.get_or_init(py, || object.unbind()).bind(py))
    }
}

pub(crate) static BASE_CREATE_TASK: Name = Name::new("asyncio.base_events", "BaseEventLoop.create_task");
pub(crate) static BUFFERED_PROTOCOL: Name = Name::new("asyncio", "BufferedProtocol");
pub(crate) static FORMAT_CALLBACK: Name = Name::new("asyncio.format_helpers", "_format_callback_source");
pub(crate) static FORMAT_HANDLE: Name = Name::new("asyncio.base_events", "_format_handle");
pub(crate) static GET_ASYNCGEN_HOOKS: Name = Name::new("sys", "get_asyncgen_hooks");
pub(crate) static SET_ASYNCGEN_HOOKS: Name = Name::new("sys", "set_asyncgen_hooks");
pub(crate) static SET_RESULT_UNLESS_CANCELLED: Name = Name::new("asyncio.futures", "_set_result_unless_cancelled");
pub(crate) static SOCKET: Name = Name::new("socket", "socket");
pub(crate) static TIMER_HANDLE: Name = Name::new("asyncio.events", "TimerHandle");
pub(crate) static TRANSPORT: Name = Name::new("asyncio.transports", "_FlowControlMixin");
pub(crate) static TRANSPORT_SOCKET: Name = Name::new("asyncio.trsock", "TransportSocket");

/// A module of asyncio whose attributes are looked up at each use, as asyncio's own code does: programs replace them.
pub(crate) struct Module {
    name: &'static str,
    object: PyOnceLock<Py<PyModule>>,
}

impl Module {
    const fn new(name: &'static str) -> Self {
        Self { name, object: PyOnceLock::new() }
    }

    /// What stands under the name now.
    #[inline]
    pub(crate) fn get<'py>(&self, py: Python<'py>, attribute: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyAny>> {
        let module = self.object.get_or_try_init(py, || py.import(self.name).map(Bound::unbind))?;
        module.bind(py).getattr(attribute)
    }
}

pub(crate) static EVENTS: Module = Module::new("asyncio.events");
pub(crate) static FUTURES: Module = Module::new("asyncio.futures");
pub(crate) static TASKS: Module = Module::new("asyncio.tasks");

/// The logger under the name by which a module of asyncio knows it; looked up each time, as that module does.
pub(crate) fn logger<'py>(py: Python<'py>, module: &str) -> PyResult<Bound<'py, PyAny>> {
    py.import(module)?.getattr("logger")
}
