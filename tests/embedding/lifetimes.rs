//! Futures, wakers and handles that outlive their loop, and loops that die in other ways than by `close()`.

use crate::crossing::wait;
use crate::harness::{Dropped, Outcome, collect, execute, function, run_main, tests};
use futures_channel::oneshot;
use mioloop::embed::{self, Closed, JoinHandle, Remote};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::thread;
use std::time::Duration;

tests![
    a_closed_loop_drops_its_futures,
    wakers_may_outlive_the_loop,
    a_closed_loop_refuses_work,
    a_coroutine_outlives_its_loop,
    a_loop_that_is_dropped_takes_its_futures_along,
    a_loop_may_run_many_times_and_in_other_threads,
    many_loops_leave_no_descriptors,
];

fn a_closed_loop_drops_its_futures() -> Outcome {
    let dropped = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&dropped);
    let tasks: Vec<JoinHandle<()>> = embed::block_on(async move {
        Python::attach(|py| {
            let forever = || {
                let guard = Dropped(Arc::clone(&counted));
                async move {
                    let _guard = guard;
                    pending::<()>().await;
                }
            };
            PyResult::Ok(vec![embed::spawn(py, forever())?, embed::spawn_local(py, forever())?])
        })
    })??;
    assert_eq!(dropped.load(Ordering::SeqCst), 2);
    for task in tasks {
        assert!(task.is_finished());
        task.abort();
        assert!(wait(task).unwrap_err().is_cancelled());
    }
    Ok(())
}

/// A future that gives its waker away.
async fn give_waker(place: Arc<Mutex<Option<Waker>>>) {
    std::future::poll_fn(|cx| {
        *place.lock().unwrap() = Some(cx.waker().clone());
        std::task::Poll::<()>::Pending
    })
    .await;
}

fn wakers_may_outlive_the_loop() -> Outcome {
    Python::attach(|py| {
        let (spawned, awaited) = (Arc::<Mutex<Option<Waker>>>::default(), Arc::<Mutex<Option<Waker>>>::default());
        let places = (Arc::clone(&spawned), Arc::clone(&awaited));
        let start = function(py, move |py| {
            drop(embed::spawn(py, give_waker(Arc::clone(&places.0)))?);
            let place = Arc::clone(&places.1);
            Ok(embed::into_awaitable(py, async move {
                give_waker(place).await;
                Ok(())
            })?
            .unbind())
        })?;
        for looping in
            ["import mioloop\nloop = mioloop.new_event_loop()", "import asyncio\nloop = asyncio.SelectorEventLoop()"]
        {
            let code = format!(
                "{looping}\nasync def main():\n    global task\n    task = loop.create_task(start())\n    await __import__('asyncio').sleep(0.005)\nloop.run_until_complete(main())\ntask.cancel()\nloop.run_until_complete(__import__('asyncio').wait([task]))\nloop.close()"
            );
            execute(py, &code, &[("start", start.clone())])?;
            let wakers = [spawned.lock().unwrap().take().unwrap(), awaited.lock().unwrap().take().unwrap()];
            wakers.iter().for_each(Waker::wake_by_ref);
            thread::spawn(move || wakers.into_iter().for_each(Waker::wake)).join().unwrap();
        }
        Ok(())
    })
}

fn a_closed_loop_refuses_work() -> Outcome {
    let remote = embed::block_on(async { Python::attach(Remote::current) })??;
    assert!(remote.is_closed());
    assert_eq!(remote.post(|_| unreachable!("the loop is closed")), Err(Closed));
    assert!(wait(remote.spawn(async { 1 })).unwrap_err().is_cancelled());
    let error = wait(remote.run_coroutine(|py| Ok(py.None()))).unwrap_err();
    Python::attach(|py| {
        assert!(error.is_instance_of::<PyRuntimeError>(py));
        assert_eq!(error.value(py).to_string(), "Event loop is closed");
    });
    Ok(())
}

fn a_coroutine_outlives_its_loop() -> Outcome {
    Python::attach(|py| {
        let place = Arc::new(Mutex::new(None));
        let kept = Arc::clone(&place);
        let keep = function(py, move |py| {
            let forever = py.import("asyncio")?.call_method0("get_running_loop")?.call_method0("create_future")?;
            *kept.lock().unwrap() = Some(embed::into_future(&forever)?);
            Ok(())
        })?;
        run_main(py, "async def main():\n    keep()", &[("keep", keep)])?;
        collect(py)?;
        let future = place.lock().unwrap().take().unwrap();
        let error = py.detach(|| wait(future)).unwrap_err();
        assert_eq!(error.value(py).to_string(), "Event loop is closed");
        Ok(())
    })
}

fn a_loop_that_is_dropped_takes_its_futures_along() -> Outcome {
    Python::attach(|py| {
        for class in ["mioloop.Loop", "asyncio.SelectorEventLoop"] {
            let dropped = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&dropped);
            // Held by nobody but the loop: a spawned future, and a task that waits for one.
            let senders = Arc::new(Mutex::new(Vec::new()));
            let kept = Arc::clone(&senders);
            let start = function(py, move |py| {
                let waits = || {
                    let (sender, receiver) = oneshot::channel::<()>();
                    kept.lock().unwrap().push(sender);
                    let guard = Dropped(Arc::clone(&counted));
                    async move {
                        let _guard = guard;
                        let _ = receiver.await;
                    }
                };
                drop(embed::spawn(py, waits())?);
                let guard = Dropped(Arc::clone(&counted));
                drop(embed::spawn(py, async move {
                    let _guard = guard;
                    drop(embed::sleep(Duration::from_secs(3600)).await);
                })?);
                let awaited = waits();
                Ok(embed::into_awaitable(py, async move {
                    awaited.await;
                    Ok(())
                })?
                .unbind())
            })?;
            let code = format!(
                "import asyncio, mioloop, warnings
loop = {class}()
async def main():
    asyncio.ensure_future(start())
    await asyncio.sleep(0.002)
loop.run_until_complete(main())
loop.set_exception_handler(lambda loop, context: None)
del loop"
            );
            let warnings = py.import("warnings")?;
            warnings.call_method1("simplefilter", ("ignore", py.get_type::<pyo3::exceptions::PyResourceWarning>()))?;
            execute(py, &code, &[("start", start)])?;
            collect(py)?;
            warnings.call_method0("resetwarnings")?;
            assert_eq!(dropped.load(Ordering::SeqCst), 3, "{class}");
            drop(senders);
        }
        Ok(())
    })
}

fn a_loop_may_run_many_times_and_in_other_threads() -> Outcome {
    Python::attach(|py| {
        let place = Arc::new(Mutex::new(None::<oneshot::Sender<i32>>));
        let kept = Arc::clone(&place);
        let start = function(py, move |py| {
            let (sender, receiver) = oneshot::channel();
            *kept.lock().unwrap() = Some(sender);
            let task = embed::spawn(py, async move { (receiver.await.unwrap(), thread::current().id()) })?;
            Ok(embed::into_awaitable(py, async move {
                let (number, thread) = task.await?;
                assert_eq!(thread, thread::current().id());
                Ok(number)
            })?
            .unbind())
        })?;
        let kept = Arc::clone(&place);
        let answer = function(py, move |_| {
            let sender = kept.lock().unwrap().take().unwrap();
            assert_eq!(sender.send(8), Ok(()));
            Ok(())
        })?;
        let code = "import asyncio, mioloop, threading
loop = mioloop.new_event_loop()
async def begin():
    global task
    task = asyncio.create_task(start())
    await asyncio.sleep(0.001)
loop.run_until_complete(begin())
answer()
values = []
thread = threading.Thread(target=lambda: values.append(loop.run_until_complete(task)))
thread.start()
thread.join()
loop.close()";
        let globals = execute(py, code, &[("start", start), ("answer", answer)])?;
        assert_eq!(globals.get_item("values")?.unwrap().extract::<Vec<i32>>()?, [8]);
        Ok(())
    })
}

fn many_loops_leave_no_descriptors() -> Outcome {
    Python::attach(|py| {
        let start = function(py, |py| {
            drop(embed::spawn(py, pending::<()>())?);
            Ok(())
        })?;
        let code = "import asyncio, gc, mioloop, os
async def main():
    start()
    await asyncio.sleep(0)
def count(make):
    for _ in range(20):
        loop = make()
        loop.run_until_complete(main())
        loop.close()
    del loop
    gc.collect()
    return len(os.listdir('/proc/self/fd' if os.path.isdir('/proc') else '/dev/fd'))
results = [count(make) - count(make) for make in (mioloop.new_event_loop, asyncio.SelectorEventLoop)]";
        let globals = execute(py, code, &[("start", start)])?;
        assert_eq!(globals.get_item("results")?.unwrap().extract::<Vec<i32>>()?, [0, 0]);
        Ok(())
    })
}
