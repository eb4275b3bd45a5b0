//! Run it: cargo run --features embed --example embed -- 8080
//!
//! A Rust service with a Python handler: HTTP on the port (0: any free one), and a Rust future that ticks on the same
//! thread. With a second argument, so many requests end it; without, Ctrl-C does.

#![expect(clippy::disallowed_methods, reason = "a program of its own: it attaches")]

use mioloop::embed;
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The service's Python part: a plain protocol that reads a request and writes an answer.
const SERVICE: &std::ffi::CStr = cr#"
import asyncio

class Http(asyncio.Protocol):
    def __init__(self, served):
        self.served = served

    def connection_made(self, transport):
        self.transport = transport
        self.received = b""

    def data_received(self, data):
        self.received += data
        while b"\r\n\r\n" in self.received:
            head, _, self.received = self.received.partition(b"\r\n\r\n")
            path = head.split()[1].decode()
            body = f"{path} at tick {ticks()}\n".encode()
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            self.served()

async def serve(port, limit):
    over = asyncio.Event()
    count = 0
    def served():
        nonlocal count
        count += 1
        if count == limit:
            over.set()
    server = await asyncio.get_running_loop().create_server(lambda: Http(served), "127.0.0.1", port)
    async with server:
        print("serving on port", server.sockets[0].getsockname()[1], flush=True)
        await ticking()
        await over.wait()
"#;

/// Counts, ten times a second.
async fn tick(ticks: Arc<AtomicU64>) -> PyResult<()> {
    loop {
        embed::sleep(Duration::from_millis(100)).await?;
        ticks.fetch_add(1, Ordering::Relaxed);
    }
}

#[pymodule]
mod service {
    use super::{AtomicU64, Ordering, embed, tick};
    use pyo3::prelude::*;
    use std::sync::{Arc, LazyLock};

    static TICKS: LazyLock<Arc<AtomicU64>> = LazyLock::new(Arc::default);

    /// How often the Rust future has ticked.
    #[pyfunction]
    fn ticks() -> u64 {
        TICKS.load(Ordering::Relaxed)
    }

    /// Starts the Rust future, and comes back at once.
    #[pyfunction]
    fn ticking(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        embed::into_awaitable(py, async {
            Python::attach(|py| embed::spawn(py, tick(Arc::clone(&TICKS))))?;
            Ok(())
        })
    }
}

fn main() -> PyResult<()> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u32>().ok());
    let (port, limit) = (arguments.next().flatten().unwrap_or(0), arguments.next().flatten());
    embed::Builder::new().interrupts(true).start()?;
    Python::attach(|py| {
        let module = pyo3::wrap_pymodule!(service)(py).into_bound(py);
        let globals = module.getattr("__dict__")?.cast_into()?;
        py.run(SERVICE, Some(&globals), None)?;
        match embed::run(&module.call_method1("serve", (port, limit))?) {
            Err(error) if error.is_instance_of::<PyKeyboardInterrupt>(py) => Ok(()),
            outcome => outcome.map(drop),
        }
    })
}
