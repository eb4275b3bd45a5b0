//! Run it: pip install . examples/extension && python examples/extension/demo.py
//!
//! An extension module for Python with three ways to give asyncio a Rust future:
//!
//! - through tokio, as many extensions do: `pyo3_async_runtimes::tokio`. Nothing here is special to mioloop.
//! - the same functions on the thread of the loop: `mioloop::runtime`.
//! - with less in between: `mioloop::embed`.
//!
//! `Tokio` and `Loop` below name the first two, so that what the benchmark compares is one program.

use mioloop::embed;
use mioloop::runtime::LoopRuntime;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3_async_runtimes::{generic, tokio as py_tokio};
use std::future::Future;
use std::task::Poll;
use std::thread;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The module.
#[pymodule]
mod example_extension {
    #[pymodule_export]
    use super::{ask, embed_nap, embed_wakes, loop_nap, loop_wakes, threads, tokio_nap, tokio_panic, tokio_wakes};
}

/// Sends a message to a server by a socket of tokio's, and gives all that it answers.
#[pyfunction]
fn ask(py: Python<'_>, host: String, port: u16, message: Vec<u8>) -> PyResult<Bound<'_, PyAny>> {
    py_tokio::future_into_py(py, async move {
        let mut stream = tokio::net::TcpStream::connect((host, port)).await?;
        stream.write_all(&message).await?;
        stream.shutdown().await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok(answer)
    })
}

fn duration(seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds).map_err(|error| PyValueError::new_err(error.to_string()))
}

/// Sleeps on tokio's timers; gives the value.
#[pyfunction]
fn tokio_nap(py: Python<'_>, seconds: f64, value: Py<PyAny>) -> PyResult<Bound<'_, PyAny>> {
    let duration = duration(seconds)?;
    py_tokio::future_into_py(py, async move {
        tokio::time::sleep(duration).await;
        Ok(value)
    })
}

/// Sleeps on the loop's timers; gives the value. An asyncio future, which begins at once.
#[pyfunction]
fn loop_nap(py: Python<'_>, seconds: f64, value: Py<PyAny>) -> PyResult<Bound<'_, PyAny>> {
    let duration = duration(seconds)?;
    mioloop::runtime::future_into_py(py, async move {
        embed::sleep(duration).await?;
        Ok(value)
    })
}

/// Sleeps on the loop's timers; gives the value. A coroutine, which begins when it is awaited.
#[pyfunction]
fn embed_nap(py: Python<'_>, seconds: f64, value: Py<PyAny>) -> PyResult<Bound<'_, PyAny>> {
    let duration = duration(seconds)?;
    embed::into_awaitable(py, async move {
        embed::sleep(duration).await?;
        Ok(value)
    })
}

/// Panics in a thread of tokio's.
#[pyfunction]
fn tokio_panic(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    py_tokio::future_into_py(py, async {
        tokio::task::yield_now().await;
        if true {
            panic!("a panic of the example's");
        }
        Ok(())
    })
}

/// Gives up its turn once: it is woken, and polled again.
async fn wake_once() {
    let mut is_woken = false;
    let once = std::future::poll_fn(|cx| {
        if std::mem::replace(&mut is_woken, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    });
    once.await;
}

/// How a future is woken.
#[derive(Clone, Copy)]
enum How {
    /// By itself, while it is polled.
    Itself,
    /// When its runtime has let others have their turn.
    Turn,
    /// By another thread, which waits for each answer.
    Thread,
}

impl How {
    fn new(how: &str) -> PyResult<Self> {
        match how {
            "itself" => Ok(Self::Itself),
            "turn" => Ok(Self::Turn),
            "thread" => Ok(Self::Thread),
            _ => Err(PyValueError::new_err(format!("how is itself, turn or thread, not {how}"))),
        }
    }
}

/// Is woken so often. `turn`: what gives up the turn in this runtime.
async fn be_woken<T: Future<Output = ()>>(count: usize, how: How, turn: fn() -> T) -> PyResult<usize> {
    match how {
        How::Itself => {
            for _ in 0..count {
                wake_once().await;
            }
        }
        How::Turn => {
            for _ in 0..count {
                turn().await;
            }
        }
        How::Thread => {
            let (ask, asked) = std::sync::mpsc::channel::<futures_channel::oneshot::Sender<()>>();
            let other = thread::spawn(move || asked.into_iter().try_for_each(|sender| sender.send(())));
            for _ in 0..count {
                let (sender, receiver) = futures_channel::oneshot::channel();
                ask.send(sender).map_err(|error| PyValueError::new_err(error.to_string()))?;
                receiver.await.map_err(|error| PyValueError::new_err(error.to_string()))?;
            }
            drop(ask);
            // It has nothing left to do.
            let _ = other.join();
        }
    }
    Ok(count)
}

/// The benchmark's future, through tokio.
#[pyfunction]
fn tokio_wakes<'py>(py: Python<'py>, count: usize, how: &str) -> PyResult<Bound<'py, PyAny>> {
    py_tokio::future_into_py(py, be_woken(count, How::new(how)?, tokio::task::yield_now))
}

/// The same on the loop's thread, through the same functions of `pyo3-async-runtimes`.
#[pyfunction]
fn loop_wakes<'py>(py: Python<'py>, count: usize, how: &str) -> PyResult<Bound<'py, PyAny>> {
    generic::future_into_py::<LoopRuntime, _, _>(py, be_woken(count, How::new(how)?, embed::yield_now))
}

/// The same on the loop's thread, with `mioloop::embed`.
#[pyfunction]
fn embed_wakes<'py>(py: Python<'py>, count: usize, how: &str) -> PyResult<Bound<'py, PyAny>> {
    embed::into_awaitable(py, be_woken(count, How::new(how)?, embed::yield_now))
}

/// The names of the threads that polled: one future of each kind, in the order tokio, loop, embed.
#[pyfunction]
fn threads(py: Python<'_>) -> PyResult<(Bound<'_, PyAny>, Bound<'_, PyAny>, Bound<'_, PyAny>)> {
    fn look() -> impl Future<Output = PyResult<String>> + Send {
        async {
            wake_once().await;
            Ok(format!("{:?}", thread::current().id()))
        }
    }
    Ok((
        py_tokio::future_into_py(py, look())?,
        mioloop::runtime::future_into_py(py, look())?,
        embed::into_awaitable(py, look())?,
    ))
}
