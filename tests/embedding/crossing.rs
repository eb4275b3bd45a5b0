//! Python awaitables in Rust, and cancelling across the border.

use crate::harness::{Outcome, execute, function, run_main, tests};
use mioloop::embed::{self, Remote};
use pyo3::exceptions::asyncio::CancelledError;
use pyo3::exceptions::{PyKeyError, PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

tests![
    a_coroutine_gives_its_result,
    a_coroutine_gives_its_exception,
    what_cannot_be_awaited_is_a_type_error,
    dropping_the_future_cancels_the_task,
    cancelling_goes_through_rust_and_back,
    a_cancelled_task_is_an_error,
    there_and_back_many_times,
    a_coroutine_sees_the_context_of_the_rust_task,
    other_threads_run_coroutines,
    another_thread_waits_without_a_loop,
];

fn coroutine<'py>(py: Python<'py>, code: &str) -> PyResult<Bound<'py, PyAny>> {
    let globals = execute(py, code, &[])?;
    globals.get_item("work")?.expect("the code has a work()").call0()
}

fn a_coroutine_gives_its_result() -> Outcome {
    let answer: i32 = embed::block_on(async {
        let code = "import asyncio\nasync def work():\n    await asyncio.sleep(0.001)\n    return 42";
        let future = Python::attach(|py| embed::into_future(&coroutine(py, code)?))?;
        let answer = future.await?;
        Python::attach(|py| answer.extract(py))
    })??;
    assert_eq!(answer, 42);
    Ok(())
}

fn a_coroutine_gives_its_exception() -> Outcome {
    let error = embed::block_on(async {
        let code = "async def work():\n    raise KeyError('which')";
        Python::attach(|py| embed::into_future(&coroutine(py, code)?))?.await.map(drop)
    })?
    .unwrap_err();
    Python::attach(|py| {
        assert!(error.is_instance_of::<PyKeyError>(py));
        assert!(error.traceback(py).is_some());
        Ok(())
    })
}

fn what_cannot_be_awaited_is_a_type_error() -> Outcome {
    let error = embed::block_on(async { Python::attach(|py| embed::into_future(py.None().bind(py))) })?.unwrap_err();
    Python::attach(|py| {
        assert!(error.is_instance_of::<PyTypeError>(py));
        let error = embed::into_future(py.None().bind(py)).unwrap_err();
        assert!(error.is_instance_of::<PyRuntimeError>(py));
        Ok(())
    })
}

fn dropping_the_future_cancels_the_task() -> Outcome {
    let told: Vec<String> = embed::block_on(async {
        let code = "import asyncio
told = []
async def work():
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        told.append('cancelled')
        raise";
        let globals = Python::attach(|py| execute(py, code, &[]).map(Bound::unbind))?;
        let work = |py: Python<'_>| embed::into_future(&globals.bind(py).get_item("work")?.unwrap().call0()?);
        let future = Python::attach(work)?;
        embed::sleep(Duration::from_millis(1)).await?;
        drop(future);
        embed::sleep(Duration::from_millis(1)).await?;
        let future = Python::attach(work)?;
        let late = embed::timeout(Duration::from_millis(1), future).await;
        assert!(late.is_err());
        embed::sleep(Duration::from_millis(1)).await?;
        Python::attach(|py| globals.bind(py).get_item("told")?.unwrap().extract())
    })??;
    assert_eq!(told, ["cancelled", "cancelled"]);
    Ok(())
}

/// Python awaits Rust awaits Python: cancelling the outer task cancels the inner one.
fn cancelling_goes_through_rust_and_back() -> Outcome {
    Python::attach(|py| {
        let code = "import asyncio
told = []
async def inner():
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        told.append('inner')
        raise
async def main():
    task = asyncio.create_task(through(inner))
    await asyncio.sleep(0.001)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        told.append('outer')
    await asyncio.sleep(0.001)
    return told";
        let through = pyo3::types::PyCFunction::new_closure(py, None, None, |args, _| -> PyResult<Py<PyAny>> {
            let inner = args.get_item(0)?.unbind();
            let py = args.py();
            let future = async move {
                let future = Python::attach(|py| embed::into_future(&inner.bind(py).call0()?))?;
                future.await
            };
            Ok(embed::into_awaitable(py, future)?.unbind())
        })?;
        let told: Vec<String> = run_main(py, code, &[("through", through.into_any())])?.extract()?;
        assert_eq!(told, ["outer", "inner"]);
        Ok(())
    })
}

fn a_cancelled_task_is_an_error() -> Outcome {
    let error = embed::block_on(async {
        let code =
            "import asyncio\nasync def work():\n    asyncio.current_task().cancel()\n    await asyncio.sleep(60)";
        Python::attach(|py| embed::into_future(&coroutine(py, code)?))?.await.map(drop)
    })?
    .unwrap_err();
    Python::attach(|py| assert!(error.is_instance_of::<CancelledError>(py)));
    Ok(())
}

fn there_and_back_many_times() -> Outcome {
    Python::attach(|py| {
        let down = pyo3::types::PyCFunction::new_closure(py, None, None, |args, _| -> PyResult<Py<PyAny>> {
            let (up, depth): (Py<PyAny>, usize) = args.extract()?;
            let py = args.py();
            let future = async move {
                embed::yield_now().await;
                let future = Python::attach(|py| embed::into_future(&up.bind(py).call1((depth,))?))?;
                future.await
            };
            Ok(embed::into_awaitable(py, future)?.unbind())
        })?;
        let code = "async def up(depth):
    return 0 if depth == 0 else 1 + await down(up, depth - 1)
async def main():
    return await up(100)";
        assert_eq!(run_main(py, code, &[("down", down.into_any())])?.extract::<usize>()?, 100);
        Ok(())
    })
}

fn a_coroutine_sees_the_context_of_the_rust_task() -> Outcome {
    Python::attach(|py| {
        let start = function(py, |py| {
            let handle = embed::spawn(py, async {
                let code = "import __main__\nasync def work():\n    return __main__.variable.get()";
                let future = Python::attach(|py| embed::into_future(&coroutine(py, code)?))?;
                let value = future.await?;
                Python::attach(|py| value.extract::<String>(py))
            })?;
            Ok(embed::into_awaitable(py, async move { handle.await? })?.unbind())
        })?;
        let code = "import __main__, contextvars
__main__.variable = contextvars.ContextVar('variable')
async def main():
    __main__.variable.set('seen')
    return await start()";
        assert_eq!(run_main(py, code, &[("start", start)])?.extract::<String>()?, "seen");
        Ok(())
    })
}

fn other_threads_run_coroutines() -> Outcome {
    embed::block_on(async {
        let remote = Python::attach(Remote::current)?;
        let (sender, receiver) = futures_channel::oneshot::channel();
        let thread = thread::spawn(move || {
            let code = "import asyncio\nasync def work():\n    await asyncio.sleep(0.001)\n    return 'done'";
            let future = remote.run_coroutine(move |py| coroutine(py, code).map(Bound::unbind));
            let failing = remote.run_coroutine(|_| Err(PyKeyError::new_err("no coroutine")));
            sender.send((future, failing)).unwrap();
        });
        let (future, failing) = receiver.await.unwrap();
        thread.join().unwrap();
        let answer = future.await?;
        let error = failing.await.unwrap_err();
        Python::attach(|py| {
            assert_eq!(answer.extract::<String>(py)?, "done");
            assert!(error.is_instance_of::<PyKeyError>(py));
            PyResult::Ok(())
        })
    })??;
    Ok(())
}

/// A future of the loop's, waited for by a thread that has no runtime at all.
fn another_thread_waits_without_a_loop() -> Outcome {
    let (ask, asked) = mpsc::channel::<Remote>();
    let thread = thread::spawn(move || {
        let remote = asked.recv().unwrap();
        let code = "import asyncio\nasync def work():\n    await asyncio.sleep(0.001)\n    return 5";
        let future = remote.run_coroutine(move |py| coroutine(py, code).map(Bound::unbind));
        let outcome = wait(future);
        let value: i32 = Python::attach(|py| outcome.unwrap().extract(py).unwrap());
        (value, wait(remote.spawn(async { 6 })).unwrap())
    });
    embed::block_on(async move {
        ask.send(Python::attach(Remote::current)?).unwrap();
        while !thread.is_finished() {
            embed::sleep(Duration::from_millis(1)).await?;
        }
        assert_eq!(thread.join().unwrap(), (5, 6));
        PyResult::Ok(())
    })??;
    Ok(())
}

/// The smallest runtime: parks the thread.
pub(crate) fn wait<F: Future>(future: F) -> F::Output {
    struct Unpark(thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Unpark(thread::current())).into();
    let mut future = std::pin::pin!(future);
    loop {
        if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
            return value;
        }
        thread::park();
    }
}
