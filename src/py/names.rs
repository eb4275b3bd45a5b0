//! Every object of the standard library that Rust needs, one line each.
//!
//! Each is imported when it is first asked for and kept for the life of the process. Nothing else in the crate caches
//! Python objects globally, so that a per-interpreter table can take this one's place.

use pyo3::intern;
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

    /// Whether an object is this one; false before it is first asked for.
    #[inline]
    pub(crate) fn is(&self, py: Python<'_>, object: &Py<PyAny>) -> bool {
        self.object.get(py).is_some_and(|known| known.is(object))
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

pub(crate) static AF_INET: Name = Name::new("socket", "AF_INET");
pub(crate) static AF_INET6: Name = Name::new("socket", "AF_INET6");
pub(crate) static AUDIT: Name = Name::new("sys", "audit");
pub(crate) static BASE_CREATE_TASK: Name = Name::new("asyncio.base_events", "BaseEventLoop.create_task");
pub(crate) static BASE_RUN_IN_EXECUTOR: Name = Name::new("asyncio.base_events", "BaseEventLoop.run_in_executor");
pub(crate) static BUFFERED_PROTOCOL: Name = Name::new("asyncio", "BufferedProtocol");
pub(crate) static CANCELLED_ERROR: Name = Name::new("asyncio", "CancelledError");
pub(crate) static CERTIFICATE_ERROR: Name = Name::new("ssl", "CertificateError");
#[cfg(feature = "embed")]
pub(crate) static CONTEXT: Name = Name::new("contextvars", "Context");
pub(crate) static CREATE_TLS_CONTEXT: Name = Name::new("asyncio.sslproto", "_create_transport_context");
pub(crate) static FUTURE: Name = Name::new("asyncio.futures", "Future");
pub(crate) static DATAGRAM_TRANSPORT: Name = Name::new("asyncio.selector_events", "_SelectorDatagramTransport");
pub(crate) static FORMAT_CALLBACK: Name = Name::new("asyncio.format_helpers", "_format_callback_source");
pub(crate) static FORMAT_HANDLE: Name = Name::new("asyncio.base_events", "_format_handle");
pub(crate) static FUTURES_CANCELLED_ERROR: Name = Name::new("concurrent.futures", "CancelledError");
pub(crate) static FUTURES_EXIT_LOCK: Name = Name::new("concurrent.futures.thread", "_global_shutdown_lock");
pub(crate) static FUTURES_INVALID_STATE_ERROR: Name = Name::new("concurrent.futures", "InvalidStateError");
pub(crate) static GETADDRINFO: Name = Name::new("socket", "getaddrinfo");
pub(crate) static GETNAMEINFO: Name = Name::new("socket", "getnameinfo");
pub(crate) static GET_ASYNCGEN_HOOKS: Name = Name::new("sys", "get_asyncgen_hooks");
pub(crate) static GET_SWITCH_INTERVAL: Name = Name::new("sys", "getswitchinterval");
pub(crate) static MEMORY_BIO: Name = Name::new("ssl", "MemoryBIO");
pub(crate) static READ_TRANSPORT: Name = Name::new("asyncio", "ReadTransport");
pub(crate) static SELECTOR_LOOP: Name = Name::new("asyncio", "SelectorEventLoop");
pub(crate) static SENDFILE_NOT_AVAILABLE: Name = Name::new("asyncio", "SendfileNotAvailableError");
pub(crate) static SET_ASYNCGEN_HOOKS: Name = Name::new("sys", "set_asyncgen_hooks");
pub(crate) static SET_RESULT_UNLESS_CANCELLED: Name = Name::new("asyncio.futures", "_set_result_unless_cancelled");
pub(crate) static SOCK_DGRAM: Name = Name::new("socket", "SOCK_DGRAM");
pub(crate) static SOCK_RAW: Name = Name::new("socket", "SOCK_RAW");
pub(crate) static SOCK_STREAM: Name = Name::new("socket", "SOCK_STREAM");
pub(crate) static SOCKET: Name = Name::new("socket", "socket");
pub(crate) static SSL_ERROR: Name = Name::new("ssl", "SSLError");
pub(crate) static SSL_OBJECT: Name = Name::new("ssl", "SSLObject");
pub(crate) static SSL_SYSCALL_ERROR: Name = Name::new("ssl", "SSLSyscallError");
pub(crate) static SSL_WANT_READ_ERROR: Name = Name::new("ssl", "SSLWantReadError");
pub(crate) static STRERROR: Name = Name::new("os", "strerror");
pub(crate) static TASK: Name = Name::new("asyncio.tasks", "Task");
pub(crate) static THREAD: Name = Name::new("threading", "Thread");
pub(crate) static SOCKET_FAMILY: Name = Name::new("_socket", "socket.family");
pub(crate) static SOCKET_PROTOCOL: Name = Name::new("_socket", "socket.proto");
pub(crate) static SOCKET_TYPE: Name = Name::new("_socket", "socket.type");
pub(crate) static TIMER_HANDLE: Name = Name::new("asyncio.events", "TimerHandle");
pub(crate) static TLS_TRANSPORT: Name = Name::new("asyncio.sslproto", "_SSLProtocolTransport");
pub(crate) static TRANSPORT: Name = Name::new("asyncio.transports", "_FlowControlMixin");
pub(crate) static TRANSPORT_SOCKET: Name = Name::new("asyncio.trsock", "TransportSocket");
pub(crate) static WARN: Name = Name::new("warnings", "warn");

/// A module whose attributes are looked up at each use, as asyncio's own code does: programs replace them.
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
        let module = module.bind(py);
        // Straight from the module's dictionary: a quarter of the cost of asking the module.
        match module.dict().get_item(attribute)? {
            Some(object) => Ok(object),
            None => module.getattr(attribute),
        }
    }
}

pub(crate) static CONSTANTS: Module = Module::new("asyncio.constants");
pub(crate) static EVENTS: Module = Module::new("asyncio.events");
pub(crate) static FUTURES: Module = Module::new("asyncio.futures");
pub(crate) static SOCKETS: Module = Module::new("socket");
pub(crate) static TASKS: Module = Module::new("asyncio.tasks");

/// The logger under the name by which a module of asyncio knows it; looked up each time, as that module does.
pub(crate) fn logger<'py>(py: Python<'py>, module: &str) -> PyResult<Bound<'py, PyAny>> {
    py.import(module)?.getattr(intern!(py, "logger"))
}

/// `sys.getswitchinterval()`, in nanoseconds.
pub(crate) fn switch_interval(py: Python<'_>) -> PyResult<u64> {
    let seconds: f64 = GET_SWITCH_INTERVAL.get(py)?.call0()?.extract()?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturating is what is wanted")]
    Ok((seconds * 1e9) as u64)
}

/// asyncio's stream classes, and those of their functions whose work is done in Rust.
pub(crate) struct Streams {
    pub(crate) protocol: Py<PyAny>,
    pub(crate) data_received: Py<PyAny>,
    /// The property `_stream_reader`.
    pub(crate) stream_reader: Py<PyAny>,
    pub(crate) reader: Py<PyAny>,
    pub(crate) feed_data: Py<PyAny>,
    pub(crate) wakeup_waiter: Py<PyAny>,
}

static STREAMS: PyOnceLock<Option<Streams>> = PyOnceLock::new();

/// asyncio's streams; None where a program had put functions of its own there before this module was imported.
#[inline]
pub(crate) fn streams(py: Python<'_>) -> Option<&Streams> {
    STREAMS.get_or_init(py, || find_streams(py).ok().flatten()).as_ref()
}

#[cold]
fn find_streams(py: Python<'_>) -> PyResult<Option<Streams>> {
    let module = py.import("asyncio.streams")?;
    let (protocol, reader) = (module.getattr("StreamReaderProtocol")?, module.getattr("StreamReader")?);
    let data_received = protocol.getattr("data_received")?;
    let stream_reader = protocol.getattr("_stream_reader")?;
    let (feed_data, wakeup_waiter) = (reader.getattr("feed_data")?, reader.getattr("_wakeup_waiter")?);
    // Code tells what it was compiled from, whatever was assigned or wrapped since.
    let file = module.getattr("FlowControlMixin")?.getattr("pause_writing")?.getattr("__code__")?;
    let file = file.getattr("co_filename")?;
    let is_own = |function: &Bound<'_, PyAny>, name: &str| -> PyResult<bool> {
        let code = function.getattr("__code__")?;
        Ok(code.getattr("co_qualname")?.eq(name)? && code.getattr("co_filename")?.eq(&file)?)
    };
    let are_own = is_own(&data_received, "StreamReaderProtocol.data_received")?
        && is_own(&stream_reader.getattr("fget")?, "StreamReaderProtocol._stream_reader")?
        && is_own(&feed_data, "StreamReader.feed_data")?
        && is_own(&wakeup_waiter, "StreamReader._wakeup_waiter")?;
    Ok(are_own.then(|| Streams {
        protocol: protocol.unbind(),
        data_received: data_received.unbind(),
        stream_reader: stream_reader.unbind(),
        reader: reader.unbind(),
        feed_data: feed_data.unbind(),
        wakeup_waiter: wakeup_waiter.unbind(),
    }))
}
