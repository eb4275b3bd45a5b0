"""Loops and threads: call_soon_threadsafe, wrong-thread checks, several loops."""

import asyncio
import concurrent.futures
import contextvars
import functools
import socket
import threading

import pytest

import support

WRONG_THREAD = "Non-thread-safe operation invoked on an event loop other than the current one"

variable = contextvars.ContextVar("variable", default="unset")


def in_thread(function, *arguments):
    """Call a function in a thread of its own and give back what it returns or raises."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments).result()


# call_soon_threadsafe --------------------------------------------------------------------------


def test_wakes_a_sleeping_loop(loop):
    """The loop has nothing else to wake up for, and every wake-up counts."""
    left = 200
    sleeping = threading.Semaphore(0)

    def woken():
        nonlocal left
        left -= 1
        if left:
            sleeping.release()
        else:
            loop.stop()

    def wake():
        for _ in range(200):
            sleeping.acquire()
            loop.call_soon_threadsafe(woken)

    thread = threading.Thread(target=wake)
    thread.start()
    sleeping.release()
    loop.run_forever()
    thread.join()
    assert left == 0


def test_many_producers_each_in_order(loop):
    ran = [[] for _ in range(4)]

    def produce(index):
        for number in range(5000):
            loop.call_soon_threadsafe(ran[index].append, number)
        loop.call_soon_threadsafe(ended, index)

    def ended(index):
        if all(len(one) == 5000 for one in ran):
            loop.stop()

    threads = [threading.Thread(target=produce, args=[index]) for index in range(4)]
    for thread in threads:
        thread.start()
    loop.run_forever()
    for thread in threads:
        thread.join()
    assert ran == [list(range(5000))] * 4


def test_before_running(loop):
    ran = []
    in_thread(loop.call_soon_threadsafe, ran.append, 1)
    loop.call_soon_threadsafe(ran.append, 2)
    support.spin(loop)
    assert ran == [1, 2]


def test_the_context_of_the_caller(loop):
    seen = []
    given = contextvars.copy_context()
    given.run(variable.set, "given")

    def call():
        variable.set("thread")
        loop.call_soon_threadsafe(lambda: seen.append(variable.get()))
        loop.call_soon_threadsafe(lambda: seen.append(variable.get()), context=given)

    in_thread(call)
    support.spin(loop)
    assert seen == ["thread", "given"]


def test_cancelling_before_it_ran(loop):
    ran = []
    handle = in_thread(loop.call_soon_threadsafe, ran.append, 1)
    handle.cancel()
    support.spin(loop)
    assert ran == []


def test_on_a_closed_loop(loop):
    loop.close()
    with pytest.raises(RuntimeError, match=r"^Event loop is closed$"):
        in_thread(loop.call_soon_threadsafe, int)


def test_closing_races_with_producers(new_loop):
    """Producers get RuntimeError at worst."""
    for _ in range(50):
        loop = new_loop()
        outcomes = []

        def produce(loop=loop, outcomes=outcomes):
            while True:
                outcomes.append(support.outcome(lambda: loop.call_soon_threadsafe(int)))
                if outcomes[-1][0] is not None:
                    return

        thread = threading.Thread(target=produce)
        thread.start()
        support.spin(loop, 5)
        loop.close()
        thread.join()
        assert outcomes[-1] == (RuntimeError, "Event loop is closed")


def test_stopped_by_another_thread(loop):
    thread = threading.Thread(target=loop.call_soon_threadsafe, args=[loop.stop])
    loop.call_soon(thread.start)
    loop.run_forever()
    thread.join()


def test_a_thread_that_waits_for_its_calls_and_one_that_does_not(loop):
    """In turns: what the loop has learned about a thread is wrong as often as right."""
    ran = []
    given = []

    def call(number):
        given.append(number)
        loop.call_soon_threadsafe(ran.append, number)

    def work():
        ended = threading.Semaphore(0)
        for start in range(0, 1000, 100):
            for number in range(start, start + 50):
                call(number)
                loop.call_soon_threadsafe(ended.release)
                assert ended.acquire(timeout=10)
                assert ran[-1] == number
            for number in range(start + 50, start + 100):
                call(number)
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=work)
    thread.start()
    loop.run_forever()
    thread.join()
    assert ran == given == list(range(1000))


def test_many_threads_that_wait_for_their_calls(loop):
    ran = [[] for _ in range(4)]
    left = threading.Barrier(len(ran) + 1)

    def work(mine):
        ended = threading.Semaphore(0)
        for number in range(200):
            loop.call_soon_threadsafe(mine.append, number)
            loop.call_soon_threadsafe(ended.release)
            assert ended.acquire(timeout=10)
            assert mine[-1] == number
        left.wait(10)

    def stop():
        left.wait(10)
        loop.call_soon_threadsafe(loop.stop)

    threads = [threading.Thread(target=work, args=[mine]) for mine in ran]
    threads.append(threading.Thread(target=stop))
    for thread in threads:
        thread.start()
    loop.run_forever()
    for thread in threads:
        thread.join()
    assert ran == [list(range(200))] * len(ran)


async def test_a_sleeping_loop_lets_other_threads_run(loop):
    counted = []

    def count():
        counted.extend(range(100_000))
        loop.call_soon_threadsafe(finished.set_result, None)

    finished = loop.create_future()
    thread = threading.Thread(target=count)
    thread.start()
    await finished
    thread.join()
    assert len(counted) == 100_000


async def test_a_thread_that_keeps_the_interpreter_busy(loop):
    """The loop goes on beside it, at the interpreter's switch interval at worst."""
    going = True

    def spin():
        while going:
            pass

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        for _ in range(20):
            await asyncio.sleep(0.001)
    finally:
        going = False
        thread.join()


# The wrong thread ------------------------------------------------------------------------------

CALLS = {
    "call_soon": lambda loop: loop.call_soon(int),
    "call_later": lambda loop: loop.call_later(0, int),
    "call_at": lambda loop: loop.call_at(0, int),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_wrong_thread_in_debug_mode(loop, call):
    async def main():
        found = await loop.run_in_executor(None, support.outcome, lambda: call(loop))
        assert found == (RuntimeError, WRONG_THREAD)
        assert support.outcome(lambda: call(loop)) == (None, "")

    loop.set_debug(True)
    loop.run_until_complete(main())


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_any_thread_may_prepare_a_loop_that_does_not_run(loop, call):
    loop.set_debug(True)
    in_thread(call, loop)
    support.spin(loop)


async def test_the_right_call_from_the_wrong_thread_in_debug_mode(loop):
    loop.set_debug(True)
    finished = loop.create_future()
    thread = threading.Thread(target=loop.call_soon_threadsafe, args=[finished.set_result, None])
    thread.start()
    await finished
    thread.join()


async def test_the_wrong_thread_breaks_nothing(loop):
    """Outside debug mode nothing is checked; it may be refused, and must not crash or hang."""
    ours, theirs = support.socket_pair("unix")
    async with support.transport_and_socket(support.Recorder()) as (transport, _):
        calls = [
            *(functools.partial(call, loop) for call in CALLS.values()),
            lambda: loop.add_reader(ours, int),
            lambda: loop.remove_reader(ours),
            lambda: loop.call_later(1000, int).cancel(),
            lambda: transport.write(b"x"),
            lambda: transport.get_write_buffer_size(),
            lambda: transport.is_closing(),
            lambda: transport.pause_reading(),
            lambda: transport.resume_reading(),
            lambda: loop.create_future(),
            lambda: loop.time(),
            lambda: repr(loop) + repr(transport),
        ]

        def disturb():
            return {support.outcome(call)[0] for _ in range(300) for call in calls}

        disturbing = asyncio.ensure_future(asyncio.to_thread(disturb))
        while not disturbing.done():
            await support.turns()
        assert await disturbing <= {None, RuntimeError}
    loop.remove_reader(ours)
    ours.close()
    theirs.close()
    await asyncio.sleep(0.001)


async def test_connections_need_no_threads(loop):
    """Nor do listeners and watched descriptors."""
    pairs = [support.socket_pair("unix") for _ in range(20)]
    server = await loop.create_server(support.Echo, "127.0.0.1", 0)
    async with support.serving(server):
        before = support.thread_ids()
        protocols = [support.Recorder() for _ in pairs]
        for protocol, (ours, _) in zip(protocols, pairs, strict=True):
            loop.add_reader(ours, int)
            sock = socket.create_connection(server.sockets[0].getsockname())
            transport, _ = await loop.create_connection(lambda p=protocol: p, sock=sock)
            transport.write(b"hello")
        for protocol in protocols:
            await protocol.wait_bytes(5)
        assert support.thread_ids() <= before
        for protocol, (ours, theirs) in zip(protocols, pairs, strict=True):
            protocol.transport.close()
            await protocol.wait_event("lost")
            loop.remove_reader(ours)
            ours.close()
            theirs.close()


# Several loops ---------------------------------------------------------------------------------


def test_made_run_and_closed_in_different_threads(new_loop):
    loop = in_thread(new_loop)
    assert in_thread(loop.run_until_complete, asyncio.sleep(0, 5)) == 5
    assert loop.run_until_complete(asyncio.sleep(0, 6)) == 6
    in_thread(loop.close)
    assert loop.is_closed()


def test_not_from_two_threads_at_once(loop):
    async def main():
        found = await loop.run_in_executor(None, support.outcome, loop.run_forever)
        assert found == (RuntimeError, "This event loop is already running")

    loop.run_until_complete(main())


def test_a_loop_beside_a_loop(new_loop):
    """Two loops in two threads talk by sockets and by each other's call_soon_threadsafe."""
    loops = [new_loop(), new_loop()]
    sockets = support.socket_pair("unix")
    data = support.payload(1_000_000)

    async def send():
        transport, protocol = await loops[0].create_connection(support.Recorder, sock=sockets[0])
        transport.write(data)
        asked = asyncio.run_coroutine_threadsafe(asyncio.sleep(0, 5), loops[1])
        assert await asyncio.wrap_future(asked) == 5
        transport.write_eof()
        await protocol.wait_event("lost")

    async def receive():
        _, protocol = await loops[1].create_connection(support.Recorder, sock=sockets[1])
        await protocol.wait_event("lost")
        assert protocol.data == data

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        receiver = pool.submit(loops[1].run_until_complete, receive())
        pool.submit(loops[0].run_until_complete, send()).result()
        receiver.result()


def test_loops_in_many_threads(new_loop):
    async def work():
        total = 0
        for number in range(200):
            total += await asyncio.sleep(0, number)
        return total

    def body():
        loop = new_loop()
        try:
            return loop.run_until_complete(work())
        finally:
            loop.close()

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        calls = [pool.submit(body) for _ in range(64)]
        assert [call.result() for call in calls] == [19900] * 64
