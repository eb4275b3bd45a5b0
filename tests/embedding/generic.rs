//! The API of `pyo3-async-runtimes`, generic over its runtime, on the loop's own thread.

use crate::awaiting::quietly;
use crate::harness::{Dropped, Outcome, execute, function, run_main, tests};
use futures_util::StreamExt;
use mioloop::embed;
use mioloop::runtime::{self, LoopRuntime};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3_async_runtimes::generic::{self, ContextExt, Runtime, SpawnLocalExt};
use std::future::pending;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

tests![
    a_future_is_awaited,
    an_error_is_raised,
    it_runs_on_the_loops_thread_without_another,
    cancelling_drops_the_future,
    a_panic_is_an_exception,
    a_future_runs_to_its_end_on_a_loop,
    a_coroutine_is_awaited,
    locals_and_contexts_follow,
    a_future_for_another_loop_finds_its_way,
    what_has_no_loop_is_cancelled,
    local_futures_need_not_be_sent,
    streams_of_async_generators,
    it_serves_asyncios_loop_too,
];

fn a_future_is_awaited() -> Outcome {
    Python::attach(|py| {
        let double = function(py, |py| {
            Ok(runtime::future_into_py(py, async {
                embed::sleep(Duration::from_millis(1)).await?;
                Ok(21 * 2)
            })?
            .unbind())
        })?;
        let code = "import asyncio
async def main():
    return await double() + sum(await asyncio.gather(*(double() for _ in range(100))))";
        assert_eq!(run_main(py, code, &[("double", double)])?.extract::<i32>()?, 101 * 42);
        Ok(())
    })
}

fn an_error_is_raised() -> Outcome {
    Python::attach(|py| {
        let fail = function(py, |py| {
            let future = async { Err::<(), _>(PyValueError::new_err("generic")) };
            Ok(runtime::future_into_py(py, future)?.unbind())
        })?;
        let error = run_main(py, "async def main():\n    await fail()", &[("fail", fail)]).unwrap_err();
        assert_eq!(error.to_string(), "ValueError: generic");
        Ok(())
    })
}

fn threads() -> std::io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

/// Whether there are at most so many threads; the kernel lists one that was joined for a moment more.
fn threads_become(most: usize) -> std::io::Result<bool> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while threads()? > most && Instant::now() < deadline {
        thread::yield_now();
    }
    Ok(threads()? <= most)
}

fn it_runs_on_the_loops_thread_without_another() -> Outcome {
    Python::attach(|py| {
        let here = thread::current().id();
        let look = function(py, move |py| {
            let before = threads().unwrap();
            let future = async move {
                let (sender, receiver) = futures_channel::oneshot::channel();
                let other = thread::spawn(move || sender.send(thread::current().id()));
                assert_ne!(receiver.await.unwrap(), here);
                other.join().unwrap().unwrap();
                assert_eq!(thread::current().id(), here);
                Ok(threads_become(before).unwrap())
            };
            Ok(runtime::future_into_py(py, future)?.unbind())
        })?;
        assert!(run_main(py, "async def main():\n    return await look()", &[("look", look)])?.extract::<bool>()?);
        Ok(())
    })
}

fn cancelling_drops_the_future() -> Outcome {
    Python::attach(|py| {
        let dropped = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&dropped);
        let wait = function(py, move |py| {
            let guard = Dropped(Arc::clone(&counted));
            let future = async move {
                let _guard = guard;
                pending::<PyResult<()>>().await
            };
            Ok(runtime::future_into_py(py, future)?.unbind())
        })?;
        let code = "import asyncio
async def main():
    future = wait()
    await asyncio.sleep(0.001)
    future.cancel()
    await asyncio.wait([future])
    await asyncio.sleep(0.001)";
        run_main(py, code, &[("wait", wait)])?;
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
        Ok(())
    })
}

fn a_panic_is_an_exception() -> Outcome {
    Python::attach(|py| {
        let start = function(py, |py| {
            let future = async {
                embed::yield_now().await;
                if true {
                    panic!("generically");
                }
                Ok(())
            };
            Ok(runtime::future_into_py(py, future)?.unbind())
        })?;
        let error = quietly(|| run_main(py, "async def main():\n    await start()", &[("start", start)])).unwrap_err();
        assert!(error.is_instance_of::<pyo3_async_runtimes::err::RustPanic>(py));
        // Which text comes after that is not for a runtime to say.
        assert!(error.value(py).to_string().starts_with("rust future panicked: "));
        Ok(())
    })
}

fn new_loop<'py>(py: Python<'py>, code: &str) -> PyResult<Bound<'py, PyAny>> {
    Ok(execute(py, &format!("import asyncio, mioloop\nloop = {code}()"), &[])?.get_item("loop")?.unwrap())
}

fn a_future_runs_to_its_end_on_a_loop() -> Outcome {
    Python::attach(|py| {
        for class in ["mioloop.Loop", "asyncio.SelectorEventLoop"] {
            let event_loop = new_loop(py, class)?;
            let value = runtime::run_until_complete(&event_loop, async {
                let here = thread::current().id();
                embed::sleep(Duration::from_millis(1)).await?;
                assert_eq!(here, thread::current().id());
                Ok(5)
            })?;
            assert_eq!(value, 5);
            event_loop.call_method0("close")?;
        }
        // What `run` makes is asyncio's own loop.
        assert_eq!(generic::run::<LoopRuntime, _, _>(py, async { Ok(6) })?, 6);
        Ok(())
    })
}

fn a_coroutine_is_awaited() -> Outcome {
    Python::attach(|py| {
        let through = pyo3::types::PyCFunction::new_closure(py, None, None, |args, _| -> PyResult<Py<PyAny>> {
            let py = args.py();
            let future = runtime::into_future(args.get_item(0)?)?;
            Ok(runtime::future_into_py(py, future)?.unbind())
        })?;
        let code = "import asyncio
async def fail():
    raise KeyError('inner')
async def main():
    assert await through(asyncio.sleep(0.001, 'slept')) == 'slept'
    try:
        await through(fail())
    except KeyError as error:
        return str(error)";
        let names = [("through", through.into_any())];
        assert_eq!(run_main(py, code, &names)?.extract::<String>()?, "'inner'");
        Ok(())
    })
}

fn locals_and_contexts_follow() -> Outcome {
    Python::attach(|py| {
        let look = function(py, |py| {
            assert!(LoopRuntime::get_task_locals().is_none());
            let event_loop = runtime::get_current_loop(py)?.unbind();
            let future = async move {
                embed::sleep(Duration::from_millis(1)).await?;
                Python::attach(|py| {
                    assert!(runtime::get_current_loop(py)?.is(event_loop.bind(py)));
                    let variable = py.import("__main__")?.getattr("variable")?;
                    // In the scope's context, without asking for it.
                    let value: String = variable.call_method0("get")?.extract()?;
                    let locals = LoopRuntime::get_task_locals().expect("a scope");
                    let same: String = locals.context(py).call_method1("get", (variable,))?.extract()?;
                    assert_eq!(value, same);
                    Ok(value)
                })
            };
            Ok(runtime::future_into_py(py, future)?.unbind())
        })?;
        let code = "import __main__, asyncio, contextvars
__main__.variable = contextvars.ContextVar('variable')
async def one(name):
    __main__.variable.set(name)
    return await look()
async def main():
    return await asyncio.gather(*map(one, 'abc'))";
        assert_eq!(run_main(py, code, &[("look", look)])?.extract::<Vec<String>>()?, ["a", "b", "c"]);
        Ok(())
    })
}

fn a_future_for_another_loop_finds_its_way() -> Outcome {
    Python::attach(|py| {
        // The loop does not run yet, and nobody's loop runs here.
        let event_loop = new_loop(py, "mioloop.Loop")?;
        let locals = pyo3_async_runtimes::TaskLocals::new(event_loop.clone());
        let main = thread::current().id();
        let future = runtime::future_into_py_with_locals(py, locals, async move {
            for _ in 0..3 {
                embed::sleep(Duration::from_millis(1)).await?;
            }
            Ok(thread::current().id() != main)
        })?;
        // It is polled by the thread that runs the loop.
        let (event_loop, future) = (event_loop.unbind(), future.unbind());
        let elsewhere: bool = py.detach(|| {
            let run = move || {
                Python::attach(|py| -> PyResult<bool> {
                    let value = event_loop.call_method1(py, "run_until_complete", (future,))?.extract(py);
                    event_loop.call_method0(py, "close")?;
                    value
                })
            };
            thread::spawn(run).join().unwrap()
        })?;
        assert!(elsewhere);
        Ok(())
    })
}

fn what_has_no_loop_is_cancelled() -> Outcome {
    let (sender, receiver) = futures_channel::oneshot::channel::<()>();
    let task = LoopRuntime::spawn(async move {
        let _ = receiver.await;
    });
    assert!(!task.is_finished());
    sender.send(()).unwrap();
    assert!(crate::crossing::wait(task).unwrap_err().is_cancelled());
    // One that needs no loop is done at once.
    assert!(crate::crossing::wait(LoopRuntime::spawn(async {})).is_ok());
    assert!(crate::crossing::wait(LoopRuntime::spawn_blocking(|| ())).is_ok());
    let panicked = quietly(|| LoopRuntime::spawn_blocking(|| panic!("here")));
    assert!(crate::crossing::wait(panicked).unwrap_err().is_panic());
    Python::attach(|py| {
        let error = runtime::future_into_py(py, async { Ok(()) }).unwrap_err();
        assert!(error.is_instance_of::<PyRuntimeError>(py));
        Ok(())
    })
}

#[expect(deprecated, reason = "upstream doubts that they are of use; here they are")]
fn local_futures_need_not_be_sent() -> Outcome {
    Python::attach(|py| {
        let start = function(py, |py| {
            let shared = Rc::new(30);
            let future = async move {
                embed::sleep(Duration::from_millis(1)).await?;
                Ok(*shared + 1)
            };
            Ok(generic::local_future_into_py::<LoopRuntime, _, i32>(py, future)?.unbind())
        })?;
        assert_eq!(
            run_main(py, "async def main():\n    return await start()", &[("start", start)])?.extract::<i32>()?,
            31
        );
        drop(LoopRuntime::spawn_local(async {}));
        Ok(())
    })
}

fn streams_of_async_generators() -> Outcome {
    let code = "import asyncio
async def numbers():
    for number in range(50):
        if number % 10 == 0:
            await asyncio.sleep(0)
        yield number";
    Python::attach(|py| {
        let event_loop = new_loop(py, "mioloop.Loop")?;
        let generator = execute(py, code, &[])?.get_item("numbers")?.unwrap().unbind();
        let sums = runtime::run_until_complete(&event_loop, async move {
            let (first, second) = Python::attach(|py| {
                let first = generic::into_stream_v1::<LoopRuntime>(generator.bind(py).call0()?)?;
                let second = generic::into_stream_v2::<LoopRuntime>(generator.bind(py).call0()?)?;
                PyResult::Ok((first, second))
            })?;
            let mut sums = (0, 0);
            let mut first = std::pin::pin!(first);
            while let Some(item) = first.next().await {
                let item = item?;
                sums.0 += Python::attach(|py| item.extract::<i32>(py))?;
            }
            let mut second = std::pin::pin!(second);
            while let Some(item) = second.next().await {
                sums.1 += Python::attach(|py| item.extract::<i32>(py))?;
            }
            Ok(sums)
        })?;
        assert_eq!(sums, (1225, 1225));
        event_loop.call_method0("close")?;
        Ok(())
    })
}

fn it_serves_asyncios_loop_too() -> Outcome {
    Python::attach(|py| {
        let start = function(py, |py| {
            let future = async {
                let (sender, receiver) = futures_channel::oneshot::channel();
                thread::spawn(move || sender.send(9));
                Ok(receiver.await.unwrap())
            };
            Ok(runtime::future_into_py(py, future)?.unbind())
        })?;
        let code = "import asyncio
async def main():
    return sum(await asyncio.gather(*(start() for _ in range(50))))
loop = asyncio.SelectorEventLoop()
total = loop.run_until_complete(main())
loop.close()";
        let globals = execute(py, code, &[("start", start)])?;
        assert_eq!(globals.get_item("total")?.unwrap().extract::<i32>()?, 450);
        Ok(())
    })
}
