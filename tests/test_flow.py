"""Flow control: water marks, pause_writing and resume_writing, pause_reading and resume_reading."""

import asyncio
import sys

import pytest

import support

HIGH, LOW = 64 * 1024, 16 * 1024
SMALL = 4096


@pytest.fixture
def pair(loop, kind):
    """connect(protocol): a transport of small buffers, and the socket at its other end."""
    return lambda protocol: support.transport_and_socket(protocol, kind, SMALL)


# Water marks -----------------------------------------------------------------------------------


async def test_the_limits_of_asyncio(loop, pair):
    """A low-water mark of 16 bytes, instead of 16 KiB, has been reported elsewhere."""
    async with pair(support.Recorder()) as (transport, _):
        assert transport.get_write_buffer_limits() == (LOW, HIGH)
        assert transport.get_write_buffer_size() == 0


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (LOW, HIGH)),
        ({"high": 1000}, (250, 1000)),
        ({"low": 1000}, (1000, 4000)),
        ({"high": 1000, "low": 10}, (10, 1000)),
        ({"high": 1000, "low": 1000}, (1000, 1000)),
        ({"high": 0}, (0, 0)),
        ({"high": None, "low": None}, (LOW, HIGH)),
        ({"high": 0, "low": 0}, (0, 0)),
    ],
)
async def test_setting_limits(loop, pair, given, expected):
    async with pair(support.Recorder()) as (transport, _):
        assert transport.set_write_buffer_limits(**given) is None
        assert transport.get_write_buffer_limits() == expected
        transport.set_write_buffer_limits()
        assert transport.get_write_buffer_limits() == (LOW, HIGH)


WRONG_LIMITS = [{"high": 10, "low": 11}, {"high": -1}, {"low": -1}, {"high": 5, "low": -5}]


@pytest.mark.parametrize("limits", WRONG_LIMITS)
def test_wrong_limits(loop, model, limits):
    async def refused():
        protocol = support.Recorder()
        async with support.transport_and_socket(protocol) as (transport, _):
            found = support.outcome(lambda: transport.set_write_buffer_limits(**limits))
            assert transport.get_write_buffer_limits() == (LOW, HIGH)
            return found

    expected = model.run_until_complete(refused())
    assert expected[0] is ValueError
    assert loop.run_until_complete(refused()) == expected


async def test_limits_by_position(loop, pair):
    async with pair(support.Recorder()) as (transport, _):
        transport.set_write_buffer_limits(2000, 1000)
        assert transport.get_write_buffer_limits() == (1000, 2000)


# Writing ---------------------------------------------------------------------------------------


async def test_pausing_and_resuming(loop, pair):
    """The protocol is paused within `write`, so that a `drain` that follows waits."""
    protocol = support.Recorder()
    async with pair(protocol) as (transport, peer):
        transport.write(bytes(1_000_000))
        assert protocol.events == ["made", "pause"]
        assert transport.get_write_buffer_size() > HIGH
        transport.write(b"more")
        assert protocol.events == ["made", "pause"]
        assert len(await support.read_exactly(peer, 1_000_004)) == 1_000_004
        await protocol.wait_event("resume")
        assert protocol.events == ["made", "pause", "resume"]
        assert transport.get_write_buffer_size() <= LOW


async def test_nothing_is_paused_below_the_mark(loop, pair):
    protocol = support.Recorder()
    async with pair(protocol) as (transport, peer):
        for _ in range(HIGH // 1024):
            transport.write(bytes(1024))
        assert transport.get_write_buffer_size() <= HIGH
        assert len(await support.read_exactly(peer, HIGH)) == HIGH
        assert protocol.events == ["made"]


async def test_every_pause_has_its_resume(loop, pair):
    protocol = support.Recorder()
    async with pair(protocol) as (transport, peer):
        transport.set_write_buffer_limits(high=20_000, low=5000)
        reading = asyncio.ensure_future(support.read_exactly(peer, 10_000_000))
        for _ in range(100):
            transport.write(bytes(100_000))
            await protocol.wait(
                lambda: protocol.events.count("pause") == protocol.events.count("resume")
            )
            assert transport.get_write_buffer_size() <= 5000
        assert len(await reading) == 10_000_000
    events = [event for event in protocol.events if event in ("pause", "resume")]
    assert events == ["pause", "resume"] * 100


async def test_resumed_at_the_low_mark_and_not_before(loop, pair):
    sizes = []

    class Measuring(support.Recorder):
        def resume_writing(self):
            super().resume_writing()
            sizes.append(self.transport.get_write_buffer_size())

    protocol = Measuring()
    async with pair(protocol) as (transport, peer):
        transport.set_write_buffer_limits(high=1_000_000, low=300_000)
        transport.write(bytes(1_500_000))
        assert protocol.events == ["made", "pause"]
        await support.read_exactly(peer, 1_500_000)
        await protocol.wait_event("resume")
        assert 0 < sizes[0] <= 300_000 or sizes == [0]


async def test_a_high_mark_of_nothing(loop, pair):
    """Everything that the kernel does not take at once pauses the protocol; the rest does not."""
    protocol = support.Recorder()
    async with pair(protocol) as (transport, peer):
        transport.set_write_buffer_limits(high=0)
        transport.write(b"small")
        assert protocol.events == ["made"]
        assert transport.get_write_buffer_size() == 0
        transport.write(bytes(1_000_000))
        assert protocol.events == ["made", "pause"]
        await support.read_exactly(peer, 1_000_005)
        await protocol.wait_event("resume")
        assert transport.get_write_buffer_size() == 0


async def test_writelines_pauses_too(loop, pair, loop_name):
    if loop_name == "asyncio" and (3, 12) <= sys.version_info < (3, 14):
        pytest.skip("asyncio forgets it in early versions of 3.12 and 3.13")
    protocol = support.Recorder()
    async with pair(protocol) as (transport, peer):
        transport.writelines([bytes(100_000)] * 10)
        assert protocol.events == ["made", "pause"]
        await support.read_exactly(peer, 1_000_000)
        await protocol.wait_event("resume")


async def test_the_size_counts_what_waits(loop, pair):
    async with pair(support.Recorder()) as (transport, peer):
        transport.write(bytes(1_000_000))
        await support.turns(3)
        first = transport.get_write_buffer_size()
        assert 0 < first < 1_000_000
        transport.write(bytes(1000))
        transport.writelines([bytes(10), bytes(5)])
        assert 1015 < transport.get_write_buffer_size() <= first + 1015
        received = await support.read_exactly(peer, 1_001_015)
        assert len(received) == 1_001_015
        assert transport.get_write_buffer_size() == 0


async def test_writing_from_resume_writing(loop, pair):
    class Endless(support.Recorder):
        left = 20

        def resume_writing(self):
            super().resume_writing()
            if self.left:
                self.left -= 1
                self.transport.write(bytes(200_000))

    protocol = Endless()
    async with pair(protocol) as (transport, peer):
        transport.write(bytes(200_000))
        assert len(await support.read_exactly(peer, 21 * 200_000)) == 21 * 200_000
        await protocol.wait(lambda: protocol.events.count("resume") == 21)
        assert protocol.events.count("pause") == 21


async def test_closing_from_pause_writing(loop, pair):
    class Impatient(support.Recorder):
        def pause_writing(self):
            super().pause_writing()
            self.transport.abort()

    protocol = Impatient()
    async with pair(protocol) as (transport, _):
        transport.write(bytes(1_000_000))
        transport.write(bytes(1_000_000))
        await protocol.wait_event("lost")
        assert transport.get_write_buffer_size() == 0
    assert protocol.events == ["made", "pause", "lost"]


@pytest.mark.parametrize("name", ["pause_writing", "resume_writing"])
async def test_failing_flow_control_is_reported(loop, pair, reports, name):
    """The connection goes on, as in asyncio."""

    def fail():
        raise ValueError("on purpose")

    protocol = support.Recorder()
    async with pair(protocol) as (transport, peer):
        setattr(protocol, name, fail)
        transport.set_protocol(protocol)
        transport.write(bytes(1_000_000))
        assert len(await support.read_exactly(peer, 1_000_000)) == 1_000_000
        await support.turns(3)
        context = reports.take_one()
        assert context["message"] == f"protocol.{name}() failed"
        assert isinstance(context["exception"], ValueError)
        assert context["transport"] is transport
        assert context["protocol"] is protocol
        transport.write(b"end")
        assert await support.read_exactly(peer, 3) == b"end"


async def test_drain_waits_for_the_reader(loop, kind):
    ours, theirs = support.socket_pair(kind, SMALL)
    _, writer = await asyncio.open_connection(sock=ours)
    with theirs:
        writer.write(bytes(1_000_000))
        draining = asyncio.ensure_future(writer.drain())
        await support.turns(5)
        assert not draining.done()
        await support.read_exactly(theirs, 1_000_000)
        await draining
        await writer.drain()
        writer.close()
        await writer.wait_closed()


# Reading ---------------------------------------------------------------------------------------


async def test_pause_reading(loop, pair):
    protocol = support.Recorder()
    async with pair(protocol) as (transport, peer):
        assert transport.is_reading() is True
        assert transport.pause_reading() is None
        assert transport.is_reading() is False
        peer.send(b"waits")
        await support.turns(10)
        assert protocol.data == b""
        assert transport.resume_reading() is None
        assert transport.is_reading() is True
        assert await protocol.wait_bytes(5) == b"waits"


async def test_pausing_twice_and_resuming_twice(loop, pair):
    protocol = support.Recorder()
    async with pair(protocol) as (transport, peer):
        transport.resume_reading()
        transport.pause_reading()
        transport.pause_reading()
        peer.send(b"data")
        await support.turns(3)
        assert protocol.data == b""
        transport.resume_reading()
        transport.resume_reading()
        assert await protocol.wait_bytes(4) == b"data"


async def test_pausing_and_resuming_at_once(loop, pair):
    """Readiness that was noticed must not get lost in between."""
    protocol = support.Recorder()
    async with pair(protocol) as (transport, peer):
        for number in range(1, 50):
            peer.send(b"x")
            for _ in range(number % 4):
                transport.pause_reading()
                transport.resume_reading()
            await protocol.wait_bytes(number)


async def test_data_that_came_before_the_pause_is_read_after_it(loop, pair):
    protocol = support.Recorder()
    async with pair(protocol) as (transport, peer):
        for number in range(1, 20):
            peer.send(b"x")
            await support.turns(number % 3)
            transport.pause_reading()
            await support.turns(number % 4)
            transport.resume_reading()
            await protocol.wait_bytes(number)


async def test_pausing_in_connection_made(loop, pair):
    class Paused(support.Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.pause_reading()
            assert not transport.is_reading()

    protocol = Paused()
    async with pair(protocol) as (transport, peer):
        peer.send(b"data")
        await support.turns(5)
        assert not transport.is_reading()
        assert protocol.data == b""
        transport.resume_reading()
        assert await protocol.wait_bytes(4) == b"data"


async def test_pausing_in_data_received(loop, pair):
    """Nothing more comes, even of what the kernel already has."""

    class Stopping(support.Recorder):
        calls = 0

        def data_received(self, data):
            self.calls += 1
            self.transport.pause_reading()
            super().data_received(data)

    protocol = Stopping()
    async with pair(protocol) as (transport, peer):
        sending = asyncio.ensure_future(loop.sock_sendall(peer, bytes(2_000_000)))
        while len(protocol.data) < 2_000_000:
            calls = protocol.calls
            await protocol.wait(lambda calls=calls: protocol.calls > calls)
            await support.turns(2)
            assert protocol.calls == calls + 1
            transport.resume_reading()
        await sending


async def test_the_end_waits_too(loop, pair):
    protocol = support.Recorder()
    async with pair(protocol) as (transport, peer):
        transport.pause_reading()
        peer.send(b"last")
        peer.close()
        await support.turns(10)
        assert protocol.events == ["made"]
        transport.resume_reading()
        await protocol.wait_event("lost")
    assert protocol.events == ["made", "data", "eof", "lost"]
    assert protocol.data == b"last"


async def test_pausing_after_the_end(loop, pair):
    protocol = support.Recorder()
    async with pair(protocol) as (transport, _):
        transport.close()
        transport.pause_reading()
        transport.resume_reading()
        await protocol.wait_event("lost")
        transport.pause_reading()
        transport.resume_reading()
        assert not transport.is_reading()


async def test_writing_while_reading_is_paused(loop, pair):
    protocol = support.Recorder()
    async with pair(protocol) as (transport, peer):
        transport.pause_reading()
        peer.send(b"waits")
        transport.write(bytes(500_000))
        assert len(await support.read_exactly(peer, 500_000)) == 500_000
        assert protocol.data == b""
        transport.resume_reading()
        await protocol.wait_bytes(5)


async def test_a_paused_reader_slows_the_sender(loop, pair):
    """What waits is bounded by the buffers of the kernel."""
    protocol = support.Recorder()
    async with pair(protocol) as (transport, peer):
        transport.pause_reading()
        sent = 0
        for _ in range(20):
            sent += support.fill(peer)
            await support.turns(3)
        assert sent < 10_000_000
        transport.resume_reading()
        assert len(await protocol.wait_bytes(sent)) == sent
