"""What `loop.sock_*` returns: a coroutine for asyncio, and an object that keeps nothing alive."""

import asyncio
import gc
import inspect
import socket
import sys
import weakref

import pytest

import support


@pytest.fixture
def pair(kind):
    """Two connected sockets with small buffers."""
    ours, theirs = support.socket_pair(kind, buffers=32768)
    with ours, theirs:
        yield ours, theirs


# Coroutines --------------------------------------------------------------------------------------


async def test_they_are_coroutines(loop, pair):
    ours, theirs = pair
    theirs.send(b"abcdef")
    call = loop.sock_recv(ours, 1)
    assert asyncio.iscoroutine(call)
    assert inspect.isawaitable(call)
    assert await asyncio.create_task(call) == b"a"
    assert await asyncio.ensure_future(loop.sock_recv(ours, 1)) == b"b"
    assert await asyncio.wait_for(loop.sock_recv(ours, 1), 10) == b"c"
    assert await asyncio.shield(loop.sock_recv(ours, 1)) == b"d"
    assert await asyncio.gather(loop.sock_recv(ours, 1), loop.sock_recv(ours, 1)) == [b"e", b"f"]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(loop.sock_recv(ours, 1), 0.001)
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(loop.sock_sendall(theirs, b"x"), name="sending")
        receiving = group.create_task(loop.sock_recv(ours, 1))
    assert (sending.result(), receiving.result()) == (None, b"x")


def test_they_can_be_what_a_loop_runs(loop, kind):
    ours, theirs = support.socket_pair(kind)
    with ours, theirs:
        theirs.send(b"hello")
        assert loop.run_until_complete(loop.sock_recv(ours, 10)) == b"hello"


async def test_the_repr_of_a_task(loop, pair):
    ours, _ = pair
    task = asyncio.create_task(loop.sock_recv(ours, 1))
    await support.turns(2)
    assert "sock_recv()" in repr(task)
    assert "sock_recv" in repr(task.get_coro())
    assert task.get_stack() is not None
    task.cancel()
    await asyncio.wait([task])


async def test_nothing_happens_before_it_is_awaited(loop, pair):
    ours, theirs = pair
    theirs.send(b"hello")
    call = loop.sock_recv(ours, 10)
    assert ours.recv(10) == b"hello"
    theirs.send(b"again")
    assert await call == b"again"


async def test_a_call_that_is_never_awaited(loop, pair):
    ours, _ = pair
    call = loop.sock_recv(ours, 1)
    with pytest.warns(RuntimeWarning, match=r"coroutine '\w+.sock_recv' was never awaited"):
        del call
    call = loop.sock_recv(ours, 1)
    call.close()
    call.close()


async def test_a_call_is_awaited_once(loop, pair):
    ours, theirs = pair
    theirs.send(b"hello")
    call = loop.sock_recv(ours, 1)
    await call
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        await call
    call = loop.sock_sendall(ours, b"x")
    with pytest.raises(TypeError, match="can't send non-None value to a just-started coroutine"):
        call.send(1)
    with pytest.raises(StopIteration) as caught:
        call.send(None)
    assert caught.value.value is None


async def test_exceptions_thrown_in(loop, pair):
    ours, _ = pair
    call = loop.sock_recv(ours, 1)
    with pytest.raises(ZeroDivisionError):
        call.throw(ZeroDivisionError())
    call = loop.sock_recv(ours, 1)
    assert asyncio.isfuture(call.send(None))
    with pytest.raises(LookupError) as caught:
        call.throw(LookupError("x"))
    assert caught.value.args == ("x",)
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        call.send(None)
    # asyncio forgets it when the future is done, which nobody waits for any more.
    loop.remove_reader(ours)


async def test_results_that_are_tuples(loop):
    """They are results, not the arguments of a StopIteration."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)
    with ours, theirs:
        theirs.send(b"x")
        call = loop.sock_recvfrom(ours, 1)
        with pytest.raises(StopIteration) as caught:
            call.send(None)
        assert caught.value.value == (b"x", None)


# Objects -----------------------------------------------------------------------------------------


async def test_a_socket_is_not_kept(loop, kind):
    """Neither by its calls nor by the loop: it is closed when it is dropped."""
    ours, theirs = support.socket_pair(kind)
    with theirs:
        receiving = asyncio.ensure_future(loop.sock_recv(ours, 1))
        await support.turns(2)
        theirs.send(b"x")
        await receiving
        del receiving
        await support.turns(1)
        seen = weakref.ref(ours)
        with pytest.warns(ResourceWarning):
            del ours
        assert seen() is None


async def test_a_call_is_collected(loop, pair):
    """Also one that holds itself."""
    ours, _ = pair

    class Data(bytearray):
        pass

    data = Data(1)
    data.call = loop.sock_recv_into(ours, data)
    data.call.close()
    data.call = loop.sock_recv_into(ours, data)
    seen = weakref.ref(data)
    del data
    with pytest.warns(RuntimeWarning, match="never awaited"):
        gc.collect()
    # The record of the warning held the call, which from Python 3.15 on is still seen then.
    gc.collect()
    assert seen() is None


async def test_calls_keep_no_references(loop, pair):
    ours, theirs = pair
    data, buffer = b"x" * 100, bytearray(100)

    def counts():
        return [sys.getrefcount(thing) for thing in (ours, theirs, data, buffer, loop)]

    async def work():
        for _ in range(20):
            receiving = asyncio.ensure_future(loop.sock_recv_into(ours, buffer))
            await asyncio.sleep(0)
            await loop.sock_sendall(theirs, data)
            await receiving
            await loop.sock_sendall(ours, data)
            await loop.sock_recv(theirs, 100)

    await work()
    before = counts()
    await work()
    assert counts() == before
