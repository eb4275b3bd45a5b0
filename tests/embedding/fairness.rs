//! Futures that wake themselves for ever: what else the loop does meanwhile, and how they end.

use crate::awaiting::quietly;
use crate::harness::{Dropped, Outcome, execute, function, run_main, tests};
use mioloop::embed::{self, RustPanic};
use mioloop::runtime;
use pyo3::prelude::*;
use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

tests![
    restless_futures_starve_nobody,
    slow_polls_take_turns_with_python,
    a_restless_future_is_cancelled,
    one_that_aborts_itself_is_dropped,
    a_panic_after_many_wake_ups_ends_it,
    a_panic_that_is_caught_loses_no_wake_up,
    parts_of_one_future_wake_each_other,
    wakers_that_are_left_over_do_nothing,
    tasks_wake_each_other,
];

/// How a future comes to the loop.
const WAYS: [&str; 3] = ["awaited", "spawned", "generic"];

/// Something that Python awaits.
fn begin(
    py: Python<'_>,
    way: &str,
    future: impl Future<Output = PyResult<usize>> + Send + 'static,
) -> PyResult<Py<PyAny>> {
    let begun = match way {
        "awaited" => embed::into_awaitable(py, future)?,
        "spawned" => {
            let task = embed::spawn(py, future)?;
            embed::into_awaitable(py, async move { task.await? })?
        }
        _ => runtime::future_into_py(py, future)?,
    };
    Ok(begun.unbind())
}

/// Wakes itself until it is told to stop; gives the number of its polls.
async fn restless(yields: bool, slow: Duration, stop: Arc<AtomicBool>) -> PyResult<usize> {
    let mut polls = 0;
    while !stop.load(Ordering::Relaxed) {
        polls += 1;
        let start = Instant::now();
        while start.elapsed() < slow {}
        if yields { embed::yield_now().await } else { wake_once().await }
    }
    Ok(polls)
}

fn wake_once() -> impl Future<Output = ()> + Send {
    let mut is_woken = false;
    poll_fn(move |cx| {
        if std::mem::replace(&mut is_woken, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
}

/// Python's functions to begin one and to stop it.
fn restless_one<'py>(
    py: Python<'py>,
    way: &'static str,
    yields: bool,
    slow: Duration,
) -> PyResult<[(&'static str, Bound<'py, PyAny>); 2]> {
    let flag = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&flag);
    let start = function(py, move |py| begin(py, way, restless(yields, slow, Arc::clone(&stopped))))?;
    let stop = function(py, move |_| {
        flag.store(true, Ordering::Relaxed);
        Ok(())
    })?;
    Ok([("start", start), ("stop", stop)])
}

fn restless_futures_starve_nobody() -> Outcome {
    Python::attach(|py| {
        let wait = function(py, |py| {
            // Woken by another thread.
            let future = async {
                let (sender, receiver) = futures_channel::oneshot::channel();
                std::thread::spawn(move || sender.send(1));
                Ok(receiver.await.unwrap())
            };
            Ok(embed::into_awaitable(py, future)?.unbind())
        })?;
        for way in WAYS {
            for (yields, slow) in [(false, 0), (true, 0), (false, 100), (true, 100)] {
                let [start, stop] = restless_one(py, way, yields, Duration::from_micros(slow))?;
                let code = "import asyncio, socket
async def main():
    loop = asyncio.get_running_loop()
    restless = asyncio.ensure_future(start())
    await asyncio.sleep(0.002)
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        right.setblocking(False)
        loop.call_later(0.001, right.send, b'hello')
        assert await loop.sock_recv(left, 5) == b'hello'
    assert await asyncio.to_thread(lambda: 1) == await wait()
    assert not restless.done()
    stop()
    assert await restless > 0";
                run_main(py, code, &[start, stop, ("wait", wait.clone())])?;
            }
        }
        Ok(())
    })
}

/// Two polls in a turn: after the first the clock is read, after the second the turn is over.
fn slow_polls_take_turns_with_python() -> Outcome {
    Python::attach(|py| {
        for way in WAYS {
            for yields in [false, true] {
                let names = restless_one(py, way, yields, Duration::from_micros(200))?;
                let code = "import asyncio
async def main():
    restless = asyncio.ensure_future(start())
    for _ in range(50):
        await asyncio.sleep(0)
    stop()
    return await restless";
                let polls = run_main(py, code, &names)?.extract::<usize>()?;
                assert!((1..=2 * 50).contains(&polls), "{way}: {polls}");
            }
        }
        Ok(())
    })
}

fn a_restless_future_is_cancelled() -> Outcome {
    Python::attach(|py| {
        for way in WAYS {
            let dropped = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&dropped);
            let start = function(py, move |py| {
                let guard = Dropped(Arc::clone(&counted));
                let future = async move {
                    let _guard = guard;
                    restless(false, Duration::ZERO, Arc::default()).await
                };
                if way != "spawned" {
                    return begin(py, way, future);
                }
                // The task that waits does not own the one that is spawned.
                let task = embed::spawn(py, future)?;
                let aborted = Abort(task);
                let wait = async move {
                    let _aborted = aborted;
                    std::future::pending::<PyResult<usize>>().await
                };
                Ok(embed::into_awaitable(py, wait)?.unbind())
            })?;
            let code = "import asyncio
async def main():
    task = asyncio.ensure_future(start())
    await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    await asyncio.sleep(0.001)";
            run_main(py, code, &[("start", start)])?;
            assert_eq!(dropped.load(Ordering::SeqCst), 1, "{way}");
        }
        Ok(())
    })
}

/// Aborts a task when it is dropped.
struct Abort<T>(embed::JoinHandle<T>);

impl<T> Drop for Abort<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn one_that_aborts_itself_is_dropped() -> Outcome {
    let dropped = Arc::new(AtomicUsize::new(0));
    let guard = Dropped(Arc::clone(&dropped));
    embed::block_on(async move {
        let own: Arc<Mutex<Option<embed::JoinHandle<()>>>> = Arc::default();
        let seen = Arc::clone(&own);
        let task = Python::attach(|py| {
            embed::spawn(py, async move {
                let _guard = guard;
                loop {
                    seen.lock().unwrap().as_ref().unwrap().abort();
                    embed::yield_now().await;
                }
            })
        })?;
        *own.lock().unwrap() = Some(task);
        embed::sleep(Duration::from_millis(1)).await?;
        let task = own.lock().unwrap().take().unwrap();
        assert!(task.await.unwrap_err().is_cancelled());
        PyResult::Ok(())
    })??;
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
    Ok(())
}

async fn panics_after(count: usize) -> PyResult<usize> {
    for _ in 0..count {
        wake_once().await;
    }
    panic!("after {count}")
}

fn a_panic_after_many_wake_ups_ends_it() -> Outcome {
    Python::attach(|py| {
        for count in [1, 100, 10_000] {
            let panicking = embed::into_awaitable(py, panics_after(count))?;
            let error = quietly(|| embed::run(&panicking)).unwrap_err();
            assert!(error.is_instance_of::<RustPanic>(py));
            let joined = quietly(|| {
                embed::block_on(
                    async move { Python::attach(|py| embed::spawn(py, panics_after(count))).unwrap().await },
                )
            })?;
            assert_eq!(*joined.unwrap_err().into_panic().downcast::<String>().unwrap(), format!("after {count}"));
            // Nothing of it is left in this thread.
            let [start, stop] = restless_one(py, "awaited", true, Duration::ZERO)?;
            let code = "import asyncio
async def main():
    restless = asyncio.ensure_future(start())
    for _ in range(100):
        await asyncio.sleep(0)
    stop()
    return await restless";
            assert!(run_main(py, code, &[start, stop])?.extract::<usize>()? <= 102);
        }
        Ok(())
    })
}

/// In a scope of pyo3-async-runtimes' a part is polled again in place: what it woke must be polled too.
fn a_panic_that_is_caught_loses_no_wake_up() -> Outcome {
    Python::attach(|py| {
        let start = function(py, |py| {
            let locals = runtime::get_current_locals(py)?;
            let mut inner = Box::pin(runtime::scope(locals, async {
                wake_once().await;
                if true {
                    panic!("inside");
                }
            }));
            let mut is_over = false;
            let outer = poll_fn(move |cx| {
                if is_over {
                    return Poll::Ready(Ok(1));
                }
                cx.waker().wake_by_ref();
                let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| inner.as_mut().poll(cx)));
                is_over = polled.is_err();
                Poll::Pending
            });
            begin(py, "awaited", outer)
        })?;
        let value = quietly(|| run_main(py, "async def main():\n    return await start()", &[("start", start)]))?;
        assert_eq!(value.extract::<usize>()?, 1);
        Ok(())
    })
}

/// Two parts of one future that hand each other the turn: each is woken by the other only.
fn parts_of_one_future_wake_each_other() -> Outcome {
    const COUNT: usize = 5_000;
    Python::attach(|py| {
        for way in WAYS {
            let start = function(py, move |py| {
                let locals = runtime::get_current_locals(py)?;
                let turn: Arc<Mutex<(usize, [Option<Waker>; 2])>> = Arc::default();
                let part = |which: usize| {
                    let turn = Arc::clone(&turn);
                    let part = poll_fn(move |cx| {
                        let mut turn = turn.lock().unwrap();
                        if turn.0 >= COUNT {
                            return Poll::Ready(());
                        }
                        if turn.0 % 2 == which {
                            turn.0 += 1;
                            if let Some(other) = turn.1[1 - which].take() {
                                other.wake();
                            }
                        }
                        turn.1[which] = Some(cx.waker().clone());
                        Poll::Pending
                    });
                    runtime::scope(locals.clone(), part)
                };
                let (mut one, mut two) = (Box::pin(part(0)), Box::pin(part(1)));
                let counted = Arc::clone(&turn);
                let both = poll_fn(move |cx| {
                    if one.as_mut().poll(cx).is_ready() || two.as_mut().poll(cx).is_ready() {
                        return Poll::Ready(Ok(counted.lock().unwrap().0));
                    }
                    Poll::Pending
                });
                begin(py, way, both)
            })?;
            let value = run_main(py, "async def main():\n    return await start()", &[("start", start)])?;
            assert_eq!(value.extract::<usize>()?, COUNT);
        }
        Ok(())
    })
}

fn wakers_that_are_left_over_do_nothing() -> Outcome {
    Python::attach(|py| {
        for way in WAYS {
            let wakers: Arc<Mutex<Vec<Waker>>> = Arc::default();
            let kept = Arc::clone(&wakers);
            let start = function(py, move |py| {
                let kept = Arc::clone(&kept);
                let mut left = 3;
                let future = poll_fn(move |cx| {
                    kept.lock().unwrap().push(cx.waker().clone());
                    left -= 1;
                    cx.waker().wake_by_ref();
                    if left == 0 { Poll::Ready(Ok(7)) } else { Poll::Pending }
                });
                begin(py, way, future)
            })?;
            let wake = function(py, move |_| {
                for waker in &*wakers.lock().unwrap() {
                    waker.wake_by_ref();
                }
                Ok(())
            })?;
            let code = "import asyncio
async def main():
    assert await start() == 7
    wake()
    await asyncio.sleep(0.001)
    wake()
import mioloop
mioloop.run(main())
wake()";
            execute(py, code, &[("start", start), ("wake", wake)])?;
        }
        Ok(())
    })
}

/// Two tasks and a channel each way: every wake-up is another task's.
fn tasks_wake_each_other() -> Outcome {
    const COUNT: usize = 10_000;
    let turns = embed::block_on(async {
        let turn: Arc<Mutex<(usize, [Option<Waker>; 2])>> = Arc::default();
        let tasks = [0, 1].map(|which| {
            let turn = Arc::clone(&turn);
            let player = poll_fn(move |cx| {
                let mut turn = turn.lock().unwrap();
                if turn.0 % 2 == which {
                    turn.0 += 1;
                    if let Some(other) = turn.1[1 - which].take() {
                        other.wake();
                    }
                }
                turn.1[which] = Some(cx.waker().clone());
                if turn.0 >= COUNT { Poll::Ready(()) } else { Poll::Pending }
            });
            Python::attach(|py| embed::spawn(py, player)).unwrap()
        });
        for task in tasks {
            task.await?;
        }
        PyResult::Ok(turn.lock().unwrap().0)
    })??;
    assert!(turns >= COUNT);
    Ok(())
}
