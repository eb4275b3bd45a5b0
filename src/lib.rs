//! mioloop: asyncio's own event loop with its engine replaced by Rust.
//!
//! The crate is the extension module `mioloop._core`. Its folders are layers; each may use those above it in this
//! table, never those below:
//!
//! | layer | folder | what |
//! | --- | --- | --- |
//! | 0 | `sys` | the operating system: every libc call |
//! | 1 | `reactor` | poller, readiness, timers, inbox, outbox, flow: no Python |
//! | 2 | `py`, `errors` | the bridge to Python |
//! | 3 | `event_loop` | the loop itself: one turn, handles, watched descriptors |
//! | 4 | `transport` | streams, datagrams, pipes and listeners |
//! | 4 | `executor`, `resolver` | calls in other threads; addresses in figures |
//! | 4 | `sock` | `sock_*` and sendfile |
//! | 5 | `embed` | Rust futures on the loop, and Python inside a Rust program: the API of the crate |
//! | 5 | `runtime` | the same by the traits of `pyo3-async-runtimes` |
//!
//! The Python class `mioloop.Loop` derives from `event_loop::Loop` and `asyncio.BaseEventLoop`, in this order.

#![deny(missing_docs)]

#[cfg(feature = "embed")]
pub mod embed;
mod errors;
mod event_loop;
mod executor;
mod py;
mod reactor;
mod resolver;
#[cfg(feature = "async-runtimes")]
pub mod runtime;
mod sock;
mod sys;
mod transport;

use pyo3::prelude::*;

/// A new module `mioloop._core`.
#[cfg(feature = "embed")]
fn core_module(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    Ok(pyo3::wrap_pymodule!(_core)(py).into_bound(py).cast_into()?)
}

/// The engine of mioloop.
#[pymodule(gil_used = true)]
mod _core {
    use super::py::vectorcall;
    use super::{event_loop, executor, resolver, sock, transport};
    use pyo3::prelude::*;
    use pyo3::types::PyDict;

    #[pymodule_export]
    use super::event_loop::Loop;
    #[pymodule_export]
    use super::event_loop::handle::{Handle, TimerHandle};
    #[pymodule_export]
    use super::sock::operation::Operation;
    #[pymodule_export]
    use super::sock::sendfile::send_file;
    #[pymodule_export]
    use super::transport::connect::Connecting;
    #[pymodule_export]
    use super::transport::datagram::Datagram;
    #[pymodule_export]
    use super::transport::listener::{Listener, remove_socket_file};
    #[pymodule_export]
    use super::transport::pipe_read::ReadPipe;
    #[pymodule_export]
    use super::transport::pipe_write::WritePipe;
    #[pymodule_export]
    use super::transport::stream::Stream;
    #[pymodule_export]
    use super::transport::tls::Tls;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        let py = module.py();
        vectorcall::prepare();
        event_loop::define_methods(&py.get_type::<Loop>())?;
        transport::connect::define_methods(&py.get_type::<Loop>())?;
        executor::define_methods(&py.get_type::<Loop>())?;
        resolver::define_methods(&py.get_type::<Loop>())?;
        sock::define_methods(&py.get_type::<Loop>())?;
        sock::operation::define_operation(&py.get_type::<Operation>());
        event_loop::handle::define_methods(&py.get_type::<Handle>(), &py.get_type::<TimerHandle>())?;
        transport::datagram::define_methods(&py.get_type::<Datagram>())?;
        transport::pipe_read::define_methods(&py.get_type::<ReadPipe>());
        transport::pipe_write::define_methods(&py.get_type::<WritePipe>())?;
        transport::stream::define_methods(&py.get_type::<Stream>())?;
        transport::tls::define_methods(&py.get_type::<Tls>())
    }

    /// Facts about this build, for bug reports.
    #[pyfunction]
    fn build_info(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
        let info = PyDict::new(py);
        info.set_item("version", env!("CARGO_PKG_VERSION"))?;
        info.set_item("profile", env!("MIOLOOP_PROFILE"))?;
        info.set_item("target", env!("MIOLOOP_TARGET"))?;
        info.set_item("rustc", env!("MIOLOOP_RUSTC"))?;
        info.set_item("pyo3", env!("MIOLOOP_PYO3"))?;
        info.set_item("mio", env!("MIOLOOP_MIO"))?;
        info.set_item(
            "poller",
            if cfg!(any(target_os = "linux", target_os = "android")) { "epoll" } else { "kqueue" },
        )?;
        Ok(info)
    }
}
