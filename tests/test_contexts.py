"""Context variables: in which context each callback and each method of a protocol runs.

Which context that is has changed between versions of Python, so that the record of a scenario on
stock asyncio of the running Python is what is expected.
"""

import asyncio
import contextvars
import socket

import pytest

import support

variable = contextvars.ContextVar("variable", default="unset")


class Observer(support.Recorder):
    """Notes the value of the variable in each of its methods, and sets it, to see who notices."""

    def __init__(self, name):
        super().__init__()
        self.name = name
        self.seen = []

    def look(self, method):
        self.seen.append((method, variable.get()))
        variable.set(f"{self.name} {method}")

    def connection_made(self, transport):
        self.look("connection_made")
        super().connection_made(transport)

    def data_received(self, data):
        self.look("data_received")
        super().data_received(data)

    def eof_received(self):
        self.look("eof_received")
        return super().eof_received()

    def connection_lost(self, error):
        self.look("connection_lost")
        super().connection_lost(error)

    def pause_writing(self):
        self.look("pause_writing")
        super().pause_writing()

    def resume_writing(self):
        self.look("resume_writing")
        super().resume_writing()


# Scenarios: each returns a record that must be the same on both loops -------------------------


async def client_and_server():
    """A server and a client, each made under a value of its own; the ends differ too."""
    loop = asyncio.get_running_loop()
    made = []

    def factory():
        made.append(Observer("server"))
        made[-1].seen.append(("factory", variable.get()))
        return made[-1]

    variable.set("serving")
    server = await loop.create_server(factory, "127.0.0.1", 0)
    async with support.serving(server):
        for _ in range(2):
            variable.set("connecting")
            client = Observer("client")
            transport, _ = await loop.create_connection(
                lambda client=client: client, "127.0.0.1", support.port_of(server)
            )
            variable.set("writing")
            for number in range(1, 4):
                transport.write(b"x")
                await made[-1].wait_bytes(number)
                made[-1].transport.write(b"y")
                await client.wait_bytes(number)
            variable.set("closing")
            transport.close()
            await client.wait_event("lost")
            await made[-1].wait_event("lost")
            made[-1].seen.append(client.seen)
        return [protocol.seen for protocol in made], variable.get()


async def peer_closes():
    protocol = Observer("ours")
    variable.set("connecting")
    async with support.transport_and_socket(protocol) as (_, peer):
        variable.set("after connecting")
        peer.send(b"data")
        await protocol.wait_bytes(4)
        peer.close()
        await protocol.wait_event("lost")
    return protocol.seen


async def aborting():
    protocol = Observer("ours")
    variable.set("connecting")
    async with support.transport_and_socket(protocol) as (transport, _):
        variable.set("aborting")
        transport.abort()
        await protocol.wait_event("lost")
    return protocol.seen


async def pausing_and_resuming_reading():
    protocol = Observer("ours")
    variable.set("connecting")
    async with support.transport_and_socket(protocol) as (transport, peer):
        peer.send(b"x")
        await protocol.wait_bytes(1)
        variable.set("pausing")
        transport.pause_reading()
        variable.set("resuming")
        transport.resume_reading()
        variable.set("after resuming")
        for number in range(2, 5):
            peer.send(b"x")
            await protocol.wait_bytes(number)
    return protocol.seen


async def setting_the_protocol():
    old, new = Observer("old"), Observer("new")
    variable.set("connecting")
    async with support.transport_and_socket(old) as (transport, peer):
        peer.send(b"x")
        await old.wait_bytes(1)
        variable.set("setting")
        transport.set_protocol(new)
        new.events.append("set")
        peer.send(b"x")
        await new.wait_bytes(1)
    return old.seen, new.seen


async def flow_control():
    protocol = Observer("ours")
    variable.set("connecting")
    async with support.transport_and_socket(protocol, buffers=4096) as (transport, peer):
        variable.set("writing")
        transport.write(bytes(1_000_000))
        variable.set("reading")
        await support.read_exactly(peer, 1_000_000)
        await protocol.wait_event("resume")
    return protocol.seen


async def watching():
    seen = []
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()

    def look(what):
        seen.append((what, variable.get()))
        variable.set("changed")
        counter()

    counter = support.Counter(loop)
    with ours, theirs:
        variable.set("adding a reader")
        loop.add_reader(ours, look, "reader")
        variable.set("sending")
        for _ in range(3):
            theirs.send(b"x")
        await counter.at(2)
        loop.remove_reader(ours)
        variable.set("adding a writer")
        loop.add_writer(ours, look, "writer")
        variable.set("waiting")
        await counter.at(counter.calls + 2)
        loop.remove_writer(ours)
    return [item for index, item in enumerate(seen) if index == 0 or item != seen[index - 1]]


async def streams():
    seen = []

    async def serve(reader, writer):
        seen.append(("serving", variable.get()))
        variable.set("server changed")
        writer.write(await reader.readline())
        seen.append(("served", variable.get()))
        writer.close()

    variable.set("starting")
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        for _ in range(2):
            variable.set("connecting")
            reader, writer = await asyncio.open_connection("127.0.0.1", support.port_of(server))
            variable.set("writing")
            writer.write(b"line\n")
            seen.append((await reader.readline(), variable.get()))
            writer.close()
            await writer.wait_closed()
    return seen


SCENARIOS = [
    client_and_server,
    peer_closes,
    aborting,
    pausing_and_resuming_reading,
    setting_the_protocol,
    flow_control,
    watching,
    streams,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_as_on_asyncio(loop, model, scenario):
    expected = contextvars.copy_context().run(model.run_until_complete, scenario())
    found = contextvars.copy_context().run(loop.run_until_complete, scenario())
    assert found == expected
    assert variable.get() == "unset"


# Callbacks -----------------------------------------------------------------------------------


def contexts():
    """Two contexts, each with a value of its own."""
    made = [contextvars.copy_context(), contextvars.copy_context()]
    for number, context in enumerate(made):
        context.run(variable.set, number)
    return made


def test_callbacks_run_in_the_context_they_are_given(loop):
    seen = []

    def look(*arguments):
        seen.append((arguments, variable.get()))
        variable.set("changed")

    first, second = contexts()
    loop.call_soon(look, context=first)
    loop.call_soon(look, 1, context=second)
    loop.call_soon(look, 1, 2)
    loop.call_later(0, look, "later", context=contexts()[1])
    loop.call_soon_threadsafe(look, "safe", context=contexts()[0])
    support.spin(loop, 2)
    assert sorted(seen, key=str) == sorted(
        [((), 0), ((1,), 1), ((1, 2), "unset"), (("later",), 1), (("safe",), 0)], key=str
    )
    assert first[variable] == second[variable] == "changed"
    assert variable.get() == "unset"


def test_callbacks_of_one_context_see_each_other(loop):
    """A run of callbacks in the same context is one context, and so is the next run of it."""
    seen = []

    def look(number):
        seen.append((number, variable.get()))
        variable.set(number)

    first, second = contexts()
    for number, context in enumerate((first, first, second, first, second)):
        loop.call_soon(look, number + 10, context=context)
    support.spin(loop)
    assert seen == [(10, 0), (11, 10), (12, 1), (13, 11), (14, 12)]


def test_a_context_is_left_after_an_exception(loop, reports):
    seen = []

    def fail():
        variable.set("changed")
        raise ValueError("on purpose")

    context = contexts()[0]
    loop.call_soon(fail, context=context)
    loop.call_soon(lambda: seen.append(variable.get()))
    loop.call_soon(lambda: seen.append(variable.get()), context=context)
    support.spin(loop)
    assert seen == ["unset", "changed"]
    assert len(reports.take()) == 1
    assert context.run(variable.get) == "changed"


@pytest.mark.parametrize("exception", [SystemExit, KeyboardInterrupt])
def test_a_context_is_left_when_the_loop_is(loop, exception):
    def leave():
        raise exception

    context = contexts()[0]
    loop.call_soon(leave, context=context)
    with pytest.raises(exception):
        loop.run_forever()
    assert variable.get() == "unset"
    assert context.run(variable.get) == 0


def test_a_context_that_is_entered_already(loop, reports, caplog):
    """It cannot be entered again, which is told: to the handler if that needs no such context."""
    context = contexts()[0]
    ran = []

    def run():
        loop.call_soon(ran.append, 1, context=context)
        support.spin(loop)

    context.run(run)
    loop.call_soon(ran.append, 2)
    support.spin(loop)
    assert ran == [2]
    logged = [record.exc_info[1] for record in caplog.records]
    reported = [report["exception"] for report in reports.take()]
    assert [type(error) for error in logged + reported] == [RuntimeError]


async def test_a_callback_may_use_contexts_itself(loop):
    seen = []
    first, second = contexts()

    def inner():
        second.run(lambda: seen.append(variable.get()))
        seen.append(variable.get())

    loop.call_soon(inner, context=first)
    loop.call_soon(inner, context=first)
    await support.turns()
    assert seen == [1, 0, 1, 0]


async def test_tasks_keep_to_their_contexts(loop):
    async def work(name):
        variable.set(name)
        for _ in range(5):
            await asyncio.sleep(0)
            assert variable.get() == name
        return variable.get()

    assert await asyncio.gather(*(work(name) for name in range(20))) == list(range(20))
    assert variable.get() == "unset"


async def test_done_callbacks_and_their_contexts(loop):
    seen = []
    future = loop.create_future()
    variable.set("adding")
    future.add_done_callback(lambda future: seen.append(variable.get()))
    future.add_done_callback(lambda future: seen.append(variable.get()), context=contexts()[1])
    variable.set("setting")
    future.set_result(None)
    await support.turns()
    assert seen == ["adding", 1]
