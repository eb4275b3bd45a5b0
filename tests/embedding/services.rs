//! Timers, time-outs and descriptors.

use crate::harness::{Outcome, collect, function, run_main, tests};
use mioloop::embed::{self, AsyncFd};
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyTimeoutError};
use pyo3::prelude::*;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::task::{Context, Waker};
use std::thread;
use std::time::{Duration, Instant};

tests![
    sleeping_takes_its_time,
    timers_end_in_their_order,
    a_sleep_needs_a_loop,
    a_dropped_sleep_leaves_no_timer,
    a_time_out_drops_what_is_late,
    a_descriptor_is_read_and_written,
    two_wait_for_one_descriptor,
    a_dropped_wait_leaves_no_reader,
    a_file_cannot_be_watched,
    sockets_of_rust_serve_beside_python,
];

fn sleeping_takes_its_time() -> Outcome {
    for milliseconds in [0, 1, 20] {
        let duration = Duration::from_millis(milliseconds);
        let start = Instant::now();
        embed::block_on(embed::sleep(duration))??;
        assert!(start.elapsed() >= duration);
    }
    Ok(())
}

fn timers_end_in_their_order() -> Outcome {
    let order = embed::block_on(async {
        let (sender, receiver) = std::sync::mpsc::channel();
        let tasks: Vec<_> = Python::attach(|py| {
            [30, 10, 20, 0]
                .into_iter()
                .map(|milliseconds| {
                    let sender = sender.clone();
                    embed::spawn(py, async move {
                        embed::sleep(Duration::from_millis(milliseconds)).await.unwrap();
                        sender.send(milliseconds).unwrap();
                    })
                })
                .collect::<PyResult<_>>()
        })?;
        for task in tasks {
            task.await?;
        }
        PyResult::Ok(receiver.try_iter().collect::<Vec<_>>())
    })??;
    assert_eq!(order, [0, 10, 20, 30]);
    Ok(())
}

fn a_sleep_needs_a_loop() -> Outcome {
    let mut sleep = std::pin::pin!(embed::sleep(Duration::from_secs(1)));
    let polled = sleep.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    let std::task::Poll::Ready(Err(error)) = polled else { panic!("it waits for nobody") };
    Python::attach(|py| assert!(error.is_instance_of::<PyRuntimeError>(py)));
    Ok(())
}

fn a_dropped_sleep_leaves_no_timer() -> Outcome {
    Python::attach(|py| {
        let nap = function(py, |py| {
            Ok(embed::into_awaitable(py, async { embed::sleep(Duration::from_secs(3600)).await })?.unbind())
        })?;
        let code = "import asyncio, gc
async def main():
    tasks = [asyncio.create_task(nap()) for _ in range(10)]
    await asyncio.sleep(0)
    handles = [o for o in gc.get_objects() if isinstance(o, asyncio.TimerHandle) and 'RustSignal' in repr(o)]
    assert len(handles) == 10, handles
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert all(handle.cancelled() for handle in handles)";
        run_main(py, code, &[("nap", nap)])?;
        Ok(())
    })
}

fn a_time_out_drops_what_is_late() -> Outcome {
    embed::block_on(async {
        let start = Instant::now();
        let error = embed::timeout(Duration::from_millis(2), embed::sleep(Duration::from_secs(60))).await.unwrap_err();
        Python::attach(|py| assert!(error.is_instance_of::<PyTimeoutError>(py)));
        assert!(start.elapsed() >= Duration::from_millis(2) && start.elapsed() < Duration::from_secs(30));
        assert_eq!(embed::timeout(Duration::from_secs(60), async { 1 }).await?, 1);
        PyResult::Ok(())
    })??;
    Ok(())
}

fn pair() -> PyResult<(AsyncFd<UnixStream>, AsyncFd<UnixStream>)> {
    let (one, other) = UnixStream::pair()?;
    one.set_nonblocking(true)?;
    other.set_nonblocking(true)?;
    Ok((AsyncFd::new(one), AsyncFd::new(other)))
}

fn a_descriptor_is_read_and_written() -> Outcome {
    const SIZE: usize = 4 << 20;
    let received = embed::block_on(async {
        let (sender, receiver) = pair()?;
        let writing = Python::attach(|py| {
            embed::spawn(py, async move {
                let data = vec![7; SIZE];
                let mut sent = 0;
                while sent < SIZE {
                    sent += sender.write_with(|mut socket| socket.write(&data[sent..])).await?;
                }
                PyResult::Ok(())
            })
        })?;
        let mut received = 0;
        let mut room = vec![0; 64 * 1024];
        loop {
            match receiver.read_with(|mut socket| socket.read(&mut room)).await? {
                0 => break,
                count => received += count,
            }
        }
        writing.await??;
        PyResult::Ok(received)
    })??;
    assert_eq!(received, SIZE);
    Ok(())
}

fn two_wait_for_one_descriptor() -> Outcome {
    embed::block_on(async {
        let (here, there) = pair()?;
        let here = std::sync::Arc::new(here);
        let waiting: Vec<_> = Python::attach(|py| {
            (0..2)
                .map(|_| {
                    let here = std::sync::Arc::clone(&here);
                    embed::spawn(py, async move { here.readable().await })
                })
                .collect::<PyResult<_>>()
        })?;
        here.writable().await?;
        embed::sleep(Duration::from_millis(1)).await?;
        assert!(waiting.iter().all(|task| !task.is_finished()));
        there.get_ref().write_all(b"x")?;
        for task in waiting {
            task.await??;
        }
        PyResult::Ok(())
    })??;
    Ok(())
}

fn a_dropped_wait_leaves_no_reader() -> Outcome {
    embed::block_on(async {
        let (here, there) = pair()?;
        let late = embed::timeout(Duration::from_millis(1), here.readable()).await;
        assert!(late.is_err());
        let removed: bool = Python::attach(|py| {
            let event_loop = py.import("asyncio")?.call_method0("get_running_loop")?;
            let fd = std::os::fd::AsRawFd::as_raw_fd(here.get_ref());
            event_loop.call_method1("remove_reader", (fd,))?.extract()
        })?;
        assert!(!removed);
        // And it can be waited for again.
        there.get_ref().write_all(b"x")?;
        here.readable().await
    })??;
    Ok(())
}

fn a_file_cannot_be_watched() -> Outcome {
    let error = embed::block_on(async {
        let file = AsyncFd::new(std::fs::File::open("Cargo.toml")?);
        file.readable().await
    })?
    .unwrap_err();
    Python::attach(|py| assert!(error.is_instance_of::<PyOSError>(py), "{error}"));
    Ok(())
}

/// A server in Rust and clients in Python, on one loop.
fn sockets_of_rust_serve_beside_python() -> Outcome {
    Python::attach(|py| {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let here = thread::current().id();
        let listener = std::sync::Mutex::new(Some(listener));
        let start = function(py, move |py| {
            let Some(listener) = listener.lock().unwrap().take() else { return Ok(()) };
            let listener = AsyncFd::new(listener);
            embed::spawn(py, async move {
                loop {
                    let (client, _) = listener.read_with(std::net::TcpListener::accept).await?;
                    client.set_nonblocking(true)?;
                    let client = AsyncFd::new(client);
                    let serve = async move {
                        let mut room = [0; 1024];
                        loop {
                            let count = client.read_with(|mut socket| socket.read(&mut room)).await?;
                            if count == 0 {
                                return PyResult::Ok(());
                            }
                            assert_eq!(thread::current().id(), here);
                            let answer = room[..count].to_ascii_uppercase();
                            client.write_with(|mut socket| socket.write_all(&answer)).await?;
                        }
                    };
                    drop(Python::attach(|py| embed::spawn(py, serve))?);
                }
                #[expect(unreachable_code, reason = "it tells the type")]
                PyResult::Ok(())
            })?;
            Ok(())
        })?;
        let code = "import asyncio
async def client(number):
    reader, writer = await asyncio.open_connection('127.0.0.1', port)
    for turn in range(20):
        writer.write(b'hello %d\\n' % number)
        assert await reader.readline() == b'HELLO %d\\n' % number
    writer.close()
    await writer.wait_closed()
async def main():
    start()
    await asyncio.gather(*map(client, range(20)))";
        run_main(py, code, &[("start", start), ("port", port.into_pyobject(py)?.into_any())])?;
        collect(py)?;
        Ok(())
    })
}
