//! Rust futures that run as tasks of the loop, and the remote control of the loop.

use crate::awaiting::quietly;
use crate::harness::{Dropped, Outcome, execute, function, run_main, tests};
use mioloop::embed::{self, JoinError, Remote};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use std::cell::Cell;
use std::future::pending;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

tests![
    tasks_give_their_results,
    a_task_needs_a_loop,
    tasks_run_in_order_and_beside_python,
    a_local_task_shares_what_cannot_be_sent,
    an_aborted_task_is_dropped,
    a_dropped_handle_lets_the_task_run,
    a_panic_goes_to_the_handle,
    a_panic_of_a_detached_task_is_reported,
    a_task_has_a_copy_of_the_context,
    other_threads_post_and_spawn,
    a_post_that_panics_is_reported,
    calls_of_a_thread_keep_their_order,
    other_loops_serve_too,
    a_loop_of_another_thread_is_found,
    debug_mode_changes_nothing,
];

/// What other threads may have: it does not compile otherwise.
const _: () = {
    const fn may_be_sent_and_shared<T: Send + Sync + Clone>() {}
    const fn may_be_sent<T: Send>() {}
    may_be_sent_and_shared::<Remote>();
    may_be_sent::<embed::JoinHandle<u8>>();
    may_be_sent::<embed::PyFuture>();
    may_be_sent::<embed::Sleep>();
};

fn tasks_give_their_results() -> Outcome {
    let sum = embed::block_on(async {
        let parts: Vec<_> = Python::attach(|py| {
            (0..1000).map(|number| embed::spawn(py, async move { number })).collect::<PyResult<_>>()
        })?;
        let mut sum = 0;
        for part in parts {
            sum += part.await?;
        }
        PyResult::Ok(sum)
    })??;
    assert_eq!(sum, 499_500);
    Ok(())
}

fn a_task_needs_a_loop() -> Outcome {
    Python::attach(|py| {
        let error = embed::spawn(py, async {}).unwrap_err();
        assert!(error.is_instance_of::<PyRuntimeError>(py));
        assert_eq!(error.value(py).to_string(), "no running event loop");
        assert!(Remote::current(py).is_err());
        Ok(())
    })
}

fn tasks_run_in_order_and_beside_python() -> Outcome {
    Python::attach(|py| {
        let log = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&log);
        let start = function(py, move |py| {
            for number in 0..3 {
                let log = Arc::clone(&noted);
                embed::spawn(py, async move {
                    for turn in 0..2000 {
                        log.lock().unwrap().push((turn, number));
                        embed::yield_now().await;
                    }
                })?;
            }
            Ok(())
        })?;
        let code = "import asyncio
async def main():
    start()
    turns = 0
    for _ in range(20):
        await asyncio.sleep(0)
        turns += 1
    return turns";
        run_main(py, code, &[("start", start)])?;
        let log = log.lock().unwrap();
        let expected: Vec<_> = (0..2000).flat_map(|turn| (0..3).map(move |number| (turn, number))).collect();
        assert!(expected.starts_with(&log));
        // Sixty-four or so in a turn of the loop, not all of them.
        assert!((10 * 64..100 * 64).contains(&log.len()), "{}", log.len());
        Ok(())
    })
}

fn a_local_task_shares_what_cannot_be_sent() -> Outcome {
    let count = embed::block_on(async {
        let count = Rc::new(Cell::new(0));
        let tasks = Python::attach(|py| {
            (0..10)
                .map(|_| {
                    let count = Rc::clone(&count);
                    embed::spawn_local(py, async move {
                        embed::yield_now().await;
                        count.set(count.get() + 1);
                        Rc::clone(&count)
                    })
                })
                .collect::<PyResult<Vec<_>>>()
        })?;
        for task in tasks {
            assert!(Rc::ptr_eq(&task.await?, &count));
        }
        PyResult::Ok(count.get())
    })??;
    assert_eq!(count, 10);
    Ok(())
}

fn an_aborted_task_is_dropped() -> Outcome {
    let dropped = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&dropped);
    embed::block_on(async move {
        let guard = Dropped(Arc::clone(&counted));
        let task = Python::attach(|py| {
            embed::spawn(py, async move {
                let _guard = guard;
                pending::<()>().await;
            })
        })?;
        embed::yield_now().await;
        assert!(!task.is_finished());
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        assert_eq!(counted.load(Ordering::SeqCst), 1);
        // One that has ended keeps its result.
        let ended = Python::attach(|py| embed::spawn(py, async { 5 }))?;
        embed::sleep(Duration::from_millis(1)).await?;
        assert!(ended.is_finished());
        ended.abort();
        assert_eq!(ended.await?, 5);
        PyResult::Ok(())
    })??;
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
    Ok(())
}

fn a_dropped_handle_lets_the_task_run() -> Outcome {
    let ran = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&ran);
    embed::block_on(async move {
        let guard = Dropped(counted);
        drop(Python::attach(|py| {
            embed::spawn(py, async move {
                embed::sleep(Duration::from_millis(1)).await.unwrap();
                drop(guard);
            })
        })?);
        embed::sleep(Duration::from_millis(5)).await
    })??;
    assert_eq!(ran.load(Ordering::SeqCst), 1);
    Ok(())
}

fn a_panic_goes_to_the_handle() -> Outcome {
    let error = quietly(|| {
        embed::block_on(async {
            let task = Python::attach(|py| embed::spawn(py, async { panic!("at the disco") }))?;
            let error: JoinError = task.await.unwrap_err();
            assert!(error.is_panic() && !error.is_cancelled());
            assert_eq!(error.to_string(), "the Rust future panicked");
            PyResult::Ok(error)
        })
    })??;
    assert_eq!(*error.into_panic().downcast::<&str>().unwrap(), "at the disco");
    Ok(())
}

/// What the exception handler of a loop is told while `start` has run.
fn reports(py: Python<'_>, start: Bound<'_, PyAny>) -> PyResult<Vec<(String, String)>> {
    let code = "import asyncio
async def main():
    told = []
    handler = lambda loop, context: told.append((context['message'], str(context['exception'])))
    asyncio.get_running_loop().set_exception_handler(handler)
    start()
    await asyncio.sleep(0.005)
    return told";
    quietly(|| run_main(py, code, &[("start", start)]))?.extract()
}

fn a_panic_of_a_detached_task_is_reported() -> Outcome {
    Python::attach(|py| {
        let start = function(py, |py| {
            drop(embed::spawn(py, async {
                embed::yield_now().await;
                panic!("nobody listens");
            })?);
            Ok(())
        })?;
        assert_eq!(reports(py, start)?, [("Rust future panicked".to_owned(), "nobody listens".to_owned())]);
        Ok(())
    })
}

fn a_task_has_a_copy_of_the_context() -> Outcome {
    Python::attach(|py| {
        let globals = execute(py, "import contextvars\nvariable = contextvars.ContextVar('variable', default=0)", &[])?;
        let variable = globals.get_item("variable")?.unwrap();
        let asked = variable.clone().unbind();
        let (sender, receiver) = mpsc::channel();
        let start = function(py, move |py| {
            let (variable, sender) = (asked.clone_ref(py), sender.clone());
            drop(embed::spawn(py, async move {
                for step in 0..3 {
                    let value = Python::attach(|py| {
                        let value: i32 = variable.call_method0(py, "get").unwrap().extract(py).unwrap();
                        variable.call_method1(py, "set", (value + 1,)).unwrap();
                        value
                    });
                    sender.send((step, value)).unwrap();
                    embed::sleep(Duration::from_millis(1)).await.unwrap();
                }
            })?);
            Ok(())
        })?;
        let code = "import asyncio
async def main():
    variable.set(10)
    start()
    variable.set(20)
    start()
    await asyncio.sleep(0.02)
    return variable.get()";
        let names = [("variable", variable), ("start", start.clone())];
        assert_eq!(run_main(py, code, &names)?.extract::<i32>()?, 20);
        drop((start, names));
        let mut seen: Vec<(i32, i32)> = receiver.try_iter().collect();
        seen.sort_unstable();
        assert_eq!(seen, [(0, 10), (0, 20), (1, 11), (1, 21), (2, 12), (2, 22)]);
        Ok(())
    })
}

fn other_threads_post_and_spawn() -> Outcome {
    embed::block_on(async {
        let here = thread::current().id();
        let remote = Python::attach(Remote::current)?;
        let (sender, receiver) = futures_channel::oneshot::channel();
        let other = remote.clone();
        let thread = thread::spawn(move || {
            // Nothing here attaches to the interpreter.
            other.post(move |_| sender.send(thread::current().id()).unwrap()).unwrap();
            let task = other.spawn(async {
                embed::sleep(Duration::from_millis(1)).await.unwrap();
                thread::current().id()
            });
            assert!(!other.is_closed());
            task
        });
        assert_eq!(receiver.await.unwrap(), here);
        let task = thread.join().unwrap();
        assert_eq!(task.await?, here);
        PyResult::Ok(())
    })??;
    Ok(())
}

fn a_post_that_panics_is_reported() -> Outcome {
    Python::attach(|py| {
        let start = function(py, |py| Ok(Remote::current(py)?.post(|_| panic!("in a call"))?))?;
        assert_eq!(reports(py, start)?, [("Rust code panicked".to_owned(), "in a call".to_owned())]);
        Ok(())
    })
}

fn calls_of_a_thread_keep_their_order() -> Outcome {
    const COUNT: usize = 20_000;
    embed::block_on(async {
        let remote = Python::attach(Remote::current)?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let threads: Vec<_> = (0..3)
            .map(|name| {
                let (remote, seen) = (remote.clone(), Arc::clone(&seen));
                thread::spawn(move || {
                    for number in 0..COUNT {
                        let seen = Arc::clone(&seen);
                        remote.post(move |_| seen.lock().unwrap().push((name, number))).unwrap();
                    }
                })
            })
            .collect();
        while seen.lock().unwrap().len() < 3 * COUNT {
            embed::sleep(Duration::from_millis(1)).await?;
        }
        for thread in threads {
            thread.join().unwrap();
        }
        let seen = seen.lock().unwrap();
        for name in 0..3 {
            let own = seen.iter().filter(|(other, _)| *other == name).map(|(_, number)| *number);
            assert!(own.eq(0..COUNT));
        }
        PyResult::Ok(())
    })??;
    Ok(())
}

/// asyncio's own loop: the same futures, told through a socket.
fn other_loops_serve_too() -> Outcome {
    Python::attach(|py| {
        let wait = function(py, |py| {
            let future = async {
                let remote = Python::attach(Remote::current)?;
                let (sender, receiver) = futures_channel::oneshot::channel();
                let task = Python::attach(|py| embed::spawn(py, async move { receiver.await.unwrap() }))?;
                thread::spawn(move || remote.post(move |_| sender.send(3).unwrap()));
                embed::sleep(Duration::from_millis(1)).await?;
                Ok(task.await? + embed::timeout(Duration::from_secs(5), async { 4 }).await?)
            };
            Ok(embed::into_awaitable(py, future)?.unbind())
        })?;
        let code = "import asyncio
async def many():
    return sum(await asyncio.gather(*(wait() for _ in range(100))))
loop = asyncio.SelectorEventLoop()
total = loop.run_until_complete(many())
loop.run_until_complete(loop.shutdown_default_executor())
loop.close()";
        let globals = execute(py, code, &[("wait", wait)])?;
        assert_eq!(globals.get_item("total")?.unwrap().extract::<i32>()?, 700);
        let closed = Remote::of(&globals.get_item("loop")?.unwrap()).unwrap_err();
        assert_eq!(closed.value(py).to_string(), "Event loop is closed");
        Ok(())
    })
}

/// Loops that run in another thread already, when Rust hears of them for the first time.
fn a_loop_of_another_thread_is_found() -> Outcome {
    Python::attach(|py| {
        for class in ["mioloop.Loop", "asyncio.SelectorEventLoop"] {
            let code = format!(
                "import asyncio, mioloop, threading
loop = {class}()
thread = threading.Thread(target=loop.run_forever)
thread.start()"
            );
            let globals = execute(py, &code, &[])?;
            let event_loop = globals.get_item("loop")?.unwrap();
            let remote = Remote::of(&event_loop)?;
            let (there, value) = py.detach(move || -> PyResult<_> {
                let there = crate::crossing::wait(remote.spawn(async { thread::current().id() }))?;
                let nap =
                    remote.run_coroutine(|py| Ok(py.import("asyncio")?.call_method1("sleep", (0.001, 3))?.unbind()));
                Ok((there, crate::crossing::wait(nap)?))
            })?;
            assert_ne!(there, thread::current().id());
            assert_eq!(value.extract::<i32>(py)?, 3);
            execute(
                py,
                "loop.call_soon_threadsafe(loop.stop)\nthread.join()\nloop.close()",
                &[("loop", event_loop), ("thread", globals.get_item("thread")?.unwrap())],
            )?;
        }
        Ok(())
    })
}

fn debug_mode_changes_nothing() -> Outcome {
    Python::attach(|py| {
        let work = function(py, |py| {
            let task = embed::spawn(py, async {
                let (sender, receiver) = futures_channel::oneshot::channel();
                thread::spawn(move || sender.send(5));
                embed::sleep(Duration::from_millis(1)).await?;
                Ok::<_, PyErr>(receiver.await.unwrap())
            })?;
            Ok(embed::into_awaitable(py, async move { task.await? })?.unbind())
        })?;
        let code = "import asyncio
async def main():
    asyncio.get_running_loop().set_debug(True)
    return sum(await asyncio.gather(*(work() for _ in range(20))))";
        assert_eq!(run_main(py, code, &[("work", work)])?.extract::<i32>()?, 100);
        Ok(())
    })
}
