//! Rust futures that Python awaits.

use crate::harness::{Dropped, Outcome, collect, execute, function, run_main, tests};
use futures_channel::oneshot;
use mioloop::embed;
use pyo3::exceptions::asyncio::CancelledError;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use std::future::pending;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

tests![
    a_value_comes_back,
    a_tuple_and_none_come_back,
    an_error_is_raised,
    a_wake_up_of_another_thread_is_polled_in_the_loops,
    many_wait_at_once_and_nothing_is_left,
    cancelling_the_task_drops_the_future,
    a_time_out_of_pythons_drops_the_future,
    a_panic_is_an_exception,
    a_panic_while_it_is_dropped_is_an_exception,
    it_is_awaited_once,
    it_runs_in_the_tasks_context,
    a_local_future_stays_in_its_thread,
    a_dropped_awaitable_drops_its_future,
    it_looks_like_a_coroutine,
    yielding_lets_others_run,
    one_that_wakes_itself_does_not_hold_up_the_loop,
];

fn a_value_comes_back() -> Outcome {
    Python::attach(|py| {
        let answer = embed::run(&embed::into_awaitable(py, async { Ok(42) })?)?;
        assert_eq!(answer.extract::<i32>()?, 42);
        Ok(())
    })
}

fn a_tuple_and_none_come_back() -> Outcome {
    Python::attach(|py| {
        let pair = function(py, |py| Ok(embed::into_awaitable(py, async { Ok((1, "two")) })?.unbind()))?;
        let nothing = function(py, |py| Ok(embed::into_awaitable(py, async { Ok(()) })?.unbind()))?;
        let code = "async def main():\n    assert await pair() == (1, 'two')\n    assert await nothing() is None";
        run_main(py, code, &[("pair", pair), ("nothing", nothing)])?;
        Ok(())
    })
}

fn an_error_is_raised() -> Outcome {
    Python::attach(|py| {
        let failing = embed::into_awaitable(py, async { Err::<(), _>(PyValueError::new_err("not this one")) })?;
        let error = embed::run(&failing).unwrap_err();
        assert!(error.is_instance_of::<PyValueError>(py));
        assert_eq!(error.value(py).to_string(), "not this one");
        Ok(())
    })
}

fn a_wake_up_of_another_thread_is_polled_in_the_loops() -> Outcome {
    Python::attach(|py| {
        let here = thread::current().id();
        let polls = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&polls);
        let awaitable = embed::into_awaitable(py, async move {
            noted.lock().unwrap().push(thread::current().id());
            for _ in 0..100 {
                let (sender, receiver) = oneshot::channel();
                let sent = thread::spawn(move || {
                    sender.send(thread::current().id()).unwrap();
                });
                assert_ne!(receiver.await.unwrap(), thread::current().id());
                noted.lock().unwrap().push(thread::current().id());
                sent.join().unwrap();
            }
            Ok(())
        })?;
        embed::run(&awaitable)?;
        let polls = polls.lock().unwrap();
        assert_eq!(polls.len(), 101);
        assert!(polls.iter().all(|thread| *thread == here));
        Ok(())
    })
}

fn many_wait_at_once_and_nothing_is_left() -> Outcome {
    const COUNT: usize = 10_000;
    Python::attach(|py| {
        let dropped = Arc::new(AtomicUsize::new(0));
        let senders = Arc::new(Mutex::new(Vec::new()));
        let (kept, counted) = (Arc::clone(&senders), Arc::clone(&dropped));
        let token = py.eval(c"object()", None, None)?.unbind();
        let held = token.clone_ref(py);
        let wait = function(py, move |py| {
            let (sender, receiver) = oneshot::channel();
            kept.lock().unwrap().push(sender);
            let (guard, held) = (Dropped(Arc::clone(&counted)), held.clone_ref(py));
            let future = async move {
                let number: usize = receiver.await.expect("the sender sends");
                drop(guard);
                Python::attach(|py| Ok((number, held.clone_ref(py))))
            };
            Ok(embed::into_awaitable(py, future)?.unbind())
        })?;
        let kept = Arc::clone(&senders);
        let answer = function(py, move |_| {
            let senders = std::mem::take(&mut *kept.lock().unwrap());
            assert_eq!(senders.len(), COUNT);
            // Half from here, half from another thread, mixed.
            let (here, there): (Vec<_>, Vec<_>) =
                senders.into_iter().enumerate().partition(|(index, _)| index % 2 == 0);
            let thread = thread::spawn(move || {
                for (index, sender) in there {
                    sender.send(index).unwrap();
                }
            });
            for (index, sender) in here {
                sender.send(index).unwrap();
            }
            thread.join().unwrap();
            Ok(())
        })?;
        let code = format!(
            "import asyncio\n\
             async def main():\n\
             \x20   tasks = [asyncio.create_task(wait()) for _ in range({COUNT})]\n\
             \x20   await asyncio.sleep(0)\n\
             \x20   answer()\n\
             \x20   answers = await asyncio.gather(*tasks)\n\
             \x20   assert [number for number, _ in answers] == list(range({COUNT}))"
        );
        // The closure holds one more.
        let before = references(&token);
        run_main(py, &code, &[("wait", wait), ("answer", answer)])?;
        assert_eq!(dropped.load(Ordering::SeqCst), COUNT);
        collect(py)?;
        assert!(references(&token) <= before, "{} references are left", references(&token) - before);
        let left =
            execute(py, "import gc\nleft = sum(type(o).__name__ == 'RustFuture' for o in gc.get_objects())", &[])?;
        assert_eq!(left.get_item("left")?.unwrap().extract::<usize>()?, 0);
        Ok(())
    })
}

fn references(object: &Py<PyAny>) -> isize {
    Python::attach(|py| py.import("sys")?.call_method1("getrefcount", (object,))?.extract()).unwrap()
}

/// A function that gives an awaitable that never ends, and the count of those that were dropped.
fn endless(py: Python<'_>) -> PyResult<(Bound<'_, PyAny>, Arc<AtomicUsize>)> {
    let dropped = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&dropped);
    let wait = function(py, move |py| {
        let guard = Dropped(Arc::clone(&counted));
        let future = async move {
            let _guard = guard;
            pending::<PyResult<()>>().await
        };
        Ok(embed::into_awaitable(py, future)?.unbind())
    })?;
    Ok((wait, dropped))
}

fn cancelling_the_task_drops_the_future() -> Outcome {
    Python::attach(|py| {
        let (wait, dropped) = endless(py)?;
        let seen = Arc::clone(&dropped);
        let count = function(py, move |_| Ok(seen.load(Ordering::SeqCst)))?;
        let code = "import asyncio
async def around():
    await wait()
async def main():
    for make in (wait, around):
        task = asyncio.create_task(make())
        await asyncio.sleep(0.001)
        before = count()
        assert not task.done()
        task.cancel('because')
        try:
            await task
        except asyncio.CancelledError as error:
            assert error.args == ('because',)
        assert task.cancelled() and count() == before + 1
    assert 'RustFuture' in repr(asyncio.create_task(wait()))";
        run_main(py, code, &[("wait", wait), ("count", count)])?;
        collect(py)?;
        assert_eq!(dropped.load(Ordering::SeqCst), 3);
        Ok(())
    })
}

fn a_time_out_of_pythons_drops_the_future() -> Outcome {
    Python::attach(|py| {
        let (wait, dropped) = endless(py)?;
        let code = "import asyncio
async def main():
    try:
        await asyncio.wait_for(wait(), 0.005)
    except TimeoutError:
        return 'late'";
        assert_eq!(run_main(py, code, &[("wait", wait)])?.extract::<String>()?, "late");
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
        Ok(())
    })
}

/// Runs something whose panics are expected, without their texts.
pub(crate) fn quietly<R>(action: impl FnOnce() -> R) -> R {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let value = action();
    std::panic::set_hook(hook);
    value
}

fn a_panic_is_an_exception() -> Outcome {
    Python::attach(|py| {
        let panicking = embed::into_awaitable(py, async {
            embed::yield_now().await;
            if true {
                panic!("this number is {}", 13);
            }
            Ok(())
        })?;
        let error = quietly(|| embed::run(&panicking)).unwrap_err();
        assert!(error.is_instance_of::<embed::RustPanic>(py));
        assert_eq!(error.value(py).to_string(), "this number is 13");
        Ok(())
    })
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

fn a_panic_while_it_is_dropped_is_an_exception() -> Outcome {
    Python::attach(|py| {
        let wait = function(py, |py| {
            let guard = PanicsWhenDropped;
            let future = async move {
                let _guard = guard;
                pending::<PyResult<()>>().await
            };
            Ok(embed::into_awaitable(py, future)?.unbind())
        })?;
        let code = "import asyncio
async def main():
    task = asyncio.create_task(wait())
    await asyncio.sleep(0.001)
    task.cancel()
    try:
        await task
    except BaseException as error:
        return type(error).__name__, str(error)";
        let caught: (String, String) = quietly(|| run_main(py, code, &[("wait", wait)]))?.extract()?;
        assert_eq!(caught, ("RustPanic".to_owned(), "dropped".to_owned()));
        Ok(())
    })
}

fn it_is_awaited_once() -> Outcome {
    Python::attach(|py| {
        let awaitable = embed::into_awaitable(py, async { Ok(1) })?;
        embed::run(&awaitable)?;
        let error = embed::run(&awaitable).unwrap_err();
        assert!(error.is_instance_of::<PyRuntimeError>(py));
        assert_eq!(error.value(py).to_string(), "cannot reuse already awaited coroutine");
        Ok(())
    })
}

fn it_runs_in_the_tasks_context() -> Outcome {
    Python::attach(|py| {
        let globals = execute(py, "import contextvars\nvariable = contextvars.ContextVar('variable')", &[])?;
        let variable = globals.get_item("variable")?.unwrap();
        let asked = variable.clone().unbind();
        let look = function(py, move |py| {
            let variable = asked.clone_ref(py);
            let future = async move {
                let get = || Python::attach(|py| variable.call_method0(py, "get")?.extract::<i32>(py));
                let first = get()?;
                embed::sleep(Duration::from_millis(1)).await?;
                Python::attach(|py| variable.call_method1(py, "set", (first + 100,)))?;
                Ok((first, get()?))
            };
            Ok(embed::into_awaitable(py, future)?.unbind())
        })?;
        let code = "import asyncio
async def one(number):
    variable.set(number)
    answer = await look()
    # The same task, the same context.
    assert variable.get() == number + 100
    return answer
async def main():
    variable.set(0)
    answers = await asyncio.gather(*map(one, range(5)))
    assert answers == [(number, number + 100) for number in range(5)], answers
    assert variable.get() == 0";
        run_main(py, code, &[("variable", variable), ("look", look)])?;
        Ok(())
    })
}

fn a_local_future_stays_in_its_thread() -> Outcome {
    Python::attach(|py| {
        let dropped = Arc::new(AtomicUsize::new(0));
        let local = |value: i32| {
            let (shared, guard) = (Rc::new(value), Dropped(Arc::clone(&dropped)));
            embed::into_awaitable_local(py, async move {
                let _guard = guard;
                embed::sleep(Duration::from_millis(1)).await?;
                Ok(*shared)
            })
        };
        assert_eq!(embed::run(&local(7)?)?.extract::<i32>()?, 7);
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
        // Awaited elsewhere, and dropped elsewhere: its own thread drops it.
        let (moved, lost) = (local(8)?.unbind(), local(9)?.unbind());
        let error = py.detach(|| {
            let thread = thread::spawn(move || {
                Python::attach(|py| {
                    drop(lost.into_bound(py));
                    embed::run(moved.bind(py)).unwrap_err()
                })
            });
            thread.join().unwrap()
        });
        assert_eq!(error.value(py).to_string(), "this Rust future belongs to another thread");
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
        drop(local(10)?);
        assert_eq!(dropped.load(Ordering::SeqCst), 4);
        Ok(())
    })
}

fn a_dropped_awaitable_drops_its_future() -> Outcome {
    Python::attach(|py| {
        let (wait, dropped) = endless(py)?;
        drop(wait.call0()?);
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
        wait.call0()?.call_method0("close")?;
        assert_eq!(dropped.load(Ordering::SeqCst), 2);
        let error = wait.call0()?.call_method1("throw", (py.get_type::<CancelledError>(),)).unwrap_err();
        assert!(error.is_instance_of::<CancelledError>(py));
        assert_eq!(dropped.load(Ordering::SeqCst), 3);
        Ok(())
    })
}

fn it_looks_like_a_coroutine() -> Outcome {
    Python::attach(|py| {
        let (wait, _) = endless(py)?;
        let code = "import asyncio, collections.abc
it = wait()
assert isinstance(it, collections.abc.Coroutine) and asyncio.iscoroutine(it)
assert repr(it) == '<RustFuture new>' and it.__name__ == 'RustFuture'
try:
    it.send(1)
except TypeError as error:
    assert str(error) == \"can't send non-None value to a just-started coroutine\"
else:
    raise AssertionError
try:
    it.send(None)
except RuntimeError as error:
    assert str(error) == 'no running event loop'
else:
    raise AssertionError
assert repr(it) == '<RustFuture done>'
it.close()";
        execute(py, code, &[("wait", wait)])?;
        Ok(())
    })
}

fn yielding_lets_others_run() -> Outcome {
    Python::attach(|py| {
        let yielding = function(py, |py| {
            let future = async {
                for _ in 0..1000 {
                    embed::yield_now().await;
                }
                Ok(())
            };
            Ok(embed::into_awaitable(py, future)?.unbind())
        })?;
        let code = "import asyncio
async def main():
    count = 0
    task = asyncio.create_task(yielding())
    while not task.done():
        await asyncio.sleep(0)
        count += 1
    return count";
        assert!(run_main(py, code, &[("yielding", yielding)])?.extract::<usize>()? >= 1000);
        Ok(())
    })
}

fn one_that_wakes_itself_does_not_hold_up_the_loop() -> Outcome {
    Python::attach(|py| {
        let waking = function(py, |py| {
            let mut left = 100_000;
            let future = std::future::poll_fn(move |cx| {
                left -= 1;
                if left == 0 {
                    return std::task::Poll::Ready(Ok(()));
                }
                cx.waker().wake_by_ref();
                std::task::Poll::Pending
            });
            Ok(embed::into_awaitable(py, future)?.unbind())
        })?;
        let code = "import asyncio
async def main():
    count = 0
    task = asyncio.create_task(waking())
    while not task.done():
        await asyncio.sleep(0)
        count += 1
    return count";
        // A thousand polls in a turn, fewer where they take longer than 50 µs.
        let turns = run_main(py, code, &[("waking", waking)])?.extract::<usize>()?;
        assert!(turns >= 90, "{turns}");
        Ok(())
    })
}
