"""TLS fed by the byte: the same input here and on stock asyncio, compared in every observable.

There is no socket: `tls_sides.Side` is one end over a recorded transport, and the test decides what
arrives when. The two hand-shakes cannot be the same bytes, but they have the same lengths.
"""

from __future__ import annotations

import ssl

import hypothesis
import pytest
from hypothesis import strategies as st

import tls_sides

SETTINGS = hypothesis.settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)

SIZES = st.sampled_from([1, 2, 100, 1000, 5000, 16384, 16385, 40000, 70000])
OPERATIONS = st.one_of(
    st.tuples(st.just("deliver"), st.sampled_from([1, 3, 5, 6, 100, 1500, 30000, 200000])),
    st.tuples(st.just("peer writes"), SIZES),
    st.tuples(st.just("write"), SIZES),
    st.tuples(st.just("write lines"), st.lists(SIZES, max_size=4)),
    st.tuples(st.sampled_from(["pause", "resume", "full", "room"]), st.none()),
)
ENDINGS = st.sampled_from(
    ["peer closes", "peer closes and ends", "close", "abort", "end", "reset", "garbage", "nothing"]
)


@pytest.fixture
def contexts(certificate):
    """(the server's context, the client's)."""
    return certificate.server_context(), certificate.client_context()


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def of_each_version(request, contexts):
    """As `contexts`, once for each hand-shake there is."""
    contexts[1].minimum_version = contexts[1].maximum_version = request.param
    return contexts


@pytest.fixture(params=["server", "client"])
def server_side(request):
    return request.param == "server"


@pytest.fixture(params=["data", "buffered"])
def buffered(request):
    return request.param == "buffered"


def operate(side, operation, argument):
    """Do one operation to a side; nothing where it makes no sense."""
    if operation in ("deliver", "peer writes", "peer closes", "garbage"):
        operate_peer(side, operation, argument)
    elif operation in ("end", "reset", "full", "room"):
        if not side.below.lost:
            operate_below(side, operation)
    elif side.transport is not None:
        operate_transport(side, operation, argument)


def operate_peer(side, operation, argument):
    peer = side.peer
    match operation:
        case "deliver":
            side.deliver(argument)
        case "peer writes":
            peer.step(lambda: peer.tls.write(b"p" * argument))
        case "peer closes":
            peer.step(peer.tls.unwrap)
            side.deliver(len(peer.outgoing))
        case "garbage":
            peer.outgoing += b"\x17\x03\x03\x00\x40" + b"x" * 64
            side.deliver(len(peer.outgoing))


def operate_below(side, operation):
    below = side.below
    match operation:
        case "end":
            side.do(lambda: side.log.append(("stays", bool(below.protocol.eof_received()))))
            # Unless it is asked to stay, a transport closes at the end of its stream.
            if ("stays", True) not in side.log:
                side.do(below.close)
        case "reset":
            side.do(lambda: below.lose(ConnectionResetError(104, "Connection reset by peer")))
        case "full" if not below.is_full:
            below.is_full = True
            side.do(below.protocol.pause_writing)
        case "room" if below.is_full:
            below.is_full = False
            side.do(below.protocol.resume_writing)


def operate_transport(side, operation, argument):
    transport = side.transport
    match operation:
        case "write":
            side.do(lambda: transport.write(b"w" * argument))
        case "write lines":
            side.do(lambda: transport.writelines([b"l" * size for size in argument]))
        case "pause":
            side.do(transport.pause_reading)
        case "resume":
            side.do(transport.resume_reading)
        case "close" | "abort":
            # Asked when it runs: asyncio's transport cannot be looked at once it is closed twice.
            side.do(lambda: transport.is_closing() or getattr(transport, operation)())


def story(loop, contexts, server_side, buffered, inside, operations, ending):
    """What can be observed of one end in the course of the operations."""
    side = tls_sides.Side(loop, contexts, server_side, buffered, inside)
    side.exchange()
    for operation, argument in operations:
        operate(side, operation, argument)
    for last in ending:
        operate(side, last, None)
    if ending:
        operate(side, "resume", None)
        operate(side, "room", None)
        side.deliver(len(side.peer.outgoing))
    side.exchange()
    side.finish()
    log = side.log
    loop.set_exception_handler(None)
    upgraded = [entry for entry in log if entry[0] == "upgraded"]
    if not upgraded or upgraded[0][1] is not type(None):
        # asyncio does not tell the protocol of a connection that is lost in this hand-shake.
        log = [entry for entry in log if entry[0] != "lost"]
    return log, bytes(side.peer.received)


HAND_SHAKE = [("deliver", 100_000)] * 3


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("size", [1, 7, 100])
def test_a_hand_shake_and_data_in_small_pieces(
    loop, model, of_each_version, server_side, buffered, inside, size
):
    stories = []
    for which in (loop, model):
        operations = [("deliver", size)] * (6000 // size)
        operations += [("peer writes", 1000), *[("deliver", size)] * (1100 // size)]
        operations += [("write", 500), ("write", 20)]
        arguments = (of_each_version, server_side, buffered, inside)
        stories.append(story(which, *arguments, operations, ["close", "peer closes"]))
    assert stories[0] == stories[1]
    assert stories[0][1] == b"w" * 520


@pytest.mark.parametrize("inside", [True, False])
def test_any_course_of_events(loop, model, contexts, server_side, buffered, inside):
    @SETTINGS
    @hypothesis.given(st.lists(OPERATIONS, max_size=25), st.lists(ENDINGS, max_size=3))
    def compare(operations, endings):
        operations = [*HAND_SHAKE, *operations]
        endings = [part for ending in endings for part in ending.split(" and ")]
        endings = ["end" if part == "ends" else part for part in endings]
        arguments = (contexts, server_side, buffered, inside, operations, endings)
        ours, theirs = story(loop, *arguments), story(model, *arguments)
        assert ours == theirs

    compare()


def test_any_end_anywhere_in_the_hand_shake(loop, model, contexts, server_side):
    @SETTINGS
    @hypothesis.given(
        st.lists(st.integers(1, 1500), max_size=12),
        st.sampled_from(["reset", "end", "garbage", "peer closes", "nothing"]),
    )
    def compare(cuts, ending):
        operations = [("deliver", cut) for cut in cuts]
        arguments = (contexts, server_side, False, True, operations, [ending])
        assert story(loop, *arguments) == story(model, *arguments)

    compare()


@pytest.mark.parametrize("ending", ["reset", "end", "garbage"])
def test_an_end_at_every_state_of_the_hand_shake(loop, model, of_each_version, server_side, ending):
    for place in range(0, 3000, 149):
        operations = [("deliver", 149)] * (place // 149)
        arguments = (of_each_version, server_side, False, True, operations, [ending])
        assert story(loop, *arguments) == story(model, *arguments)


def test_writes_of_a_turn_share_a_record(mioloop_only, loop, contexts, server_side):
    """One call below, one record, and no more of it than all of them need."""
    side = tls_sides.Side(loop, contexts, server_side, False, True)
    side.exchange()
    for operation, argument in HAND_SHAKE:
        operate(side, operation, argument)
    writes = []
    write, side.below.write = side.below.write, lambda data: (writes.append(data), write(data))
    side.do(lambda: [side.transport.write(b"w" * 100) for _ in range(10)])
    (written,) = writes
    assert written[:3] == b"\x17\x03\x03"
    assert len(written) == 5 + int.from_bytes(written[3:5], "big") < 1100
    assert side.peer.received == b"w" * 1000
    side.finish()
