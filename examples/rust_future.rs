//! Run it: cargo run --features embed --example rust_future
//!
//! Rust futures and Python coroutines that await each other, on one thread: values, errors, time-outs and cancelling.

#![expect(clippy::disallowed_methods, clippy::print_stdout, reason = "a program of its own: it attaches, and prints")]

use futures_channel::oneshot;
use mioloop::embed::{self, Remote};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use std::thread;
use std::time::Duration;

const SCRIPT: &std::ffi::CStr = c"
import asyncio

async def greet(name):
    await asyncio.sleep(0.01)
    return f'hello {name}'

async def never():
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        print('Python: cancelled by Rust')
        raise

async def double(future):
    return 2 * await future
";

async fn story(script: Py<PyAny>) -> PyResult<()> {
    // A coroutine's result, in Rust.
    let greeting = Python::attach(|py| embed::into_future(&script.bind(py).call_method1("greet", ("Rust",))?))?;
    println!("Rust: {}", greeting.await?);

    // A Rust future, awaited by Python, awaited by Rust. Another thread completes it; this one polls it.
    let main = thread::current().id();
    let remote = Python::attach(Remote::current)?;
    let answer = async move {
        let (sender, receiver) = oneshot::channel();
        thread::spawn(move || {
            remote.post(move |_| {
                // An error: nobody waits any more.
                let _ = sender.send(21);
            })
        });
        let answer = receiver.await.map_err(|_| PyRuntimeError::new_err("the loop is gone"))?;
        assert_eq!(thread::current().id(), main);
        Ok(answer)
    };
    let double = Python::attach(|py| {
        let awaitable = embed::into_awaitable(py, answer)?;
        embed::into_future(&script.bind(py).call_method1("double", (awaitable,))?)
    })?;
    println!("Rust: Python says {}", double.await?);

    // A time-out drops the Rust side, which cancels the Python side.
    let never = Python::attach(|py| embed::into_future(&script.bind(py).call_method0("never")?))?;
    let late = embed::timeout(Duration::from_millis(10), never).await;
    println!("Rust: {}", late.map_or_else(|error| error.to_string(), |_| "in time".to_owned()));
    embed::sleep(Duration::from_millis(1)).await
}

fn main() -> PyResult<()> {
    embed::start()?;
    let script = Python::attach(|py| {
        PyModule::from_code(py, SCRIPT, c"story.py", c"story").map(|module| module.into_any().unbind())
    })?;
    embed::block_on(story(script))?
}
