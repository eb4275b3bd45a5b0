//! Run it: pip install . examples/extension && python examples/extension/demo.py
//!
//! An extension module for Python with three ways to give asyncio a Rust future:
//!
//! - through tokio, as many extensions do: `pyo3_async_runtimes::tokio`. Nothing here is special to mioloop.
//! - the same functions on the thread of the loop: `mioloop::runtime`.
//! - with less in between: `mioloop::embed`.
//!
//! `Tokio` and `Loop` below name the first two, so that what the benchmark compares is one program.

use futures_channel::mpsc;
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
    use super::{
        ask, embed_nap, embed_wakes, loop_nap, loop_wakes, spawn_wakes, threads, tokio_nap, tokio_panic, tokio_wakes,
    };
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
    /// By a future beside it, which waits for each answer.
    Task,
    /// By another thread, which waits for each answer.
    Thread,
    /// By another thread, which does not wait.
    Stream,
}

impl How {
    fn new(how: &str) -> PyResult<Self> {
        match how {
            "itself" => Ok(Self::Itself),
            "turn" => Ok(Self::Turn),
            "task" => Ok(Self::Task),
            "thread" => Ok(Self::Thread),
            "stream" => Ok(Self::Stream),
            _ => Err(PyValueError::new_err(format!("how is itself, turn, task, thread or stream, not {how}"))),
        }
    }
}

/// What runs the benchmark's futures.
trait Runner: 'static {
    /// Gives up the turn.
    fn turn() -> impl Future<Output = ()> + Send;
    fn spawn(future: impl Future<Output = ()> + Send + 'static) -> PyResult<()>;
}

struct Tokio;

impl Runner for Tokio {
    fn turn() -> impl Future<Output = ()> + Send {
        tokio::task::yield_now()
    }

    fn spawn(future: impl Future<Output = ()> + Send + 'static) -> PyResult<()> {
        drop(tokio::spawn(future));
        Ok(())
    }
}

struct Loop;

impl Runner for Loop {
    fn turn() -> impl Future<Output = ()> + Send {
        embed::yield_now()
    }

    fn spawn(future: impl Future<Output = ()> + Send + 'static) -> PyResult<()> {
        Python::attach(|py| embed::spawn(py, future)).map(drop)
    }
}

fn failed(error: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// Is woken so often.
async fn be_woken<R: Runner>(count: usize, how: How) -> PyResult<usize> {
    match how {
        How::Itself => {
            for _ in 0..count {
                wake_once().await;
            }
        }
        How::Turn => {
            for _ in 0..count {
                R::turn().await;
            }
        }
        How::Task => {
            let (ask, mut asked) = mpsc::unbounded();
            let (answer, mut answered) = mpsc::unbounded();
            R::spawn(async move { while asked.recv().await.is_ok() && answer.unbounded_send(()).is_ok() {} })?;
            for _ in 0..count {
                ask.unbounded_send(()).map_err(failed)?;
                answered.recv().await.map_err(failed)?;
            }
        }
        How::Thread => {
            let (ask, asked) = std::sync::mpsc::channel();
            let (answer, mut answered) = mpsc::unbounded();
            let other = thread::spawn(move || asked.into_iter().try_for_each(|()| answer.unbounded_send(())));
            for _ in 0..count {
                ask.send(()).map_err(failed)?;
                answered.recv().await.map_err(failed)?;
            }
            drop(ask);
            // It has nothing left to do.
            let _ = other.join();
        }
        How::Stream => {
            let (send, mut received) = mpsc::unbounded();
            thread::spawn(move || (0..count).try_for_each(|_| send.unbounded_send(())));
            for _ in 0..count {
                received.recv().await.map_err(failed)?;
            }
        }
    }
    Ok(count)
}

/// The benchmark's future, through tokio.
#[pyfunction]
fn tokio_wakes<'py>(py: Python<'py>, count: usize, how: &str) -> PyResult<Bound<'py, PyAny>> {
    py_tokio::future_into_py(py, be_woken::<Tokio>(count, How::new(how)?))
}

/// The same on the loop's thread, through the same functions of `pyo3-async-runtimes`.
#[pyfunction]
fn loop_wakes<'py>(py: Python<'py>, count: usize, how: &str) -> PyResult<Bound<'py, PyAny>> {
    generic::future_into_py::<LoopRuntime, _, _>(py, be_woken::<Loop>(count, How::new(how)?))
}

/// The same on the loop's thread, with `mioloop::embed`: a task of the loop, as tokio's is one of tokio.
#[pyfunction]
fn spawn_wakes<'py>(py: Python<'py>, count: usize, how: &str) -> PyResult<Bound<'py, PyAny>> {
    let task = embed::spawn(py, be_woken::<Loop>(count, How::new(how)?))?;
    embed::into_awaitable(py, async { task.await? })
}

/// The same in the step of the Python task that awaits it.
#[pyfunction]
fn embed_wakes<'py>(py: Python<'py>, count: usize, how: &str) -> PyResult<Bound<'py, PyAny>> {
    embed::into_awaitable(py, be_woken::<Loop>(count, How::new(how)?))
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
