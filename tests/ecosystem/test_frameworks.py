"""Frameworks over the loop: tornado, Twisted's reactor, Django Channels, gRPC."""

import asyncio
import contextlib
import sys

import programs
import support
from programs import HOST, library

LOOPS = {"asyncio": "asyncio.SelectorEventLoop", "mioloop": "mioloop.new_event_loop"}


async def test_tornado(loop):
    web = library("tornado.web")
    httpclient = library("tornado.httpclient")
    httpserver = library("tornado.httpserver")
    netutil = library("tornado.netutil")
    websocket = library("tornado.websocket")

    class Hello(web.RequestHandler):
        async def get(self, name):
            await asyncio.sleep(0)
            self.write(f"hello, {name}")

        async def post(self, name):
            self.write(str(len(self.request.body)))

    class Echo(websocket.WebSocketHandler):
        async def on_message(self, message):
            await self.write_message(message.upper())

    application = web.Application([(r"/hello/(.*)", Hello), ("/echo", Echo)])
    server = httpserver.HTTPServer(application)
    sockets = netutil.bind_sockets(0, HOST)
    server.add_sockets(sockets)
    port = sockets[0].getsockname()[1]
    client = httpclient.AsyncHTTPClient(force_instance=True, max_clients=20)
    try:
        address = f"http://{HOST}:{port}/hello"
        found = await asyncio.gather(*(client.fetch(f"{address}/{n}") for n in range(100)))
        assert [answer.body for answer in found] == [b"hello, %d" % n for n in range(100)]
        body = support.payload(500_000)
        kind = {"Content-Type": "application/octet-stream"}
        answer = await client.fetch(f"{address}/x", method="POST", body=body, headers=kind)
        assert answer.body == b"500000"
        connection = await websocket.websocket_connect(f"ws://{HOST}:{port}/echo")
        for number in range(50):
            await connection.write_message(f"message {number}")
            assert await connection.read_message() == f"MESSAGE {number}"
        connection.close()
        assert await connection.read_message() is None
    finally:
        client.close()
        server.stop()
        await server.close_all_connections()
        await support.turns(10)


def python(loop_name, code, folder, *options):
    """Run code that makes its loop by `new_loop`; gives what it prints."""
    path = folder / "program.py"
    path.write_text(f"import asyncio, mioloop, app\nnew_loop = {LOOPS[loop_name]}\n{code}")
    words = [sys.executable, *options, str(path)]
    with programs.running(words, folder, env=programs.environment(), cwd=folder) as program:
        status = program.process.wait(50)
        assert status == 0, program.printed
        return program.printed


TWISTED = """
from twisted.internet import asyncioreactor
asyncioreactor.install(new_loop())
from twisted.internet import defer, endpoints, protocol, reactor, task, threads
from twisted.internet.utils import getProcessOutput
from twisted.protocols.basic import LineReceiver
import sys

class Echo(LineReceiver):
    def lineReceived(self, line):
        self.sendLine(line.upper())

class Ask(LineReceiver):
    def connectionMade(self):
        self.heard, self.done = [], defer.Deferred()
        for number in range(100):
            self.sendLine(b"line %d" % number)
    def lineReceived(self, line):
        self.heard.append(line)
        if len(self.heard) == 100:
            self.transport.loseConnection()
    def connectionLost(self, reason):
        self.done.callback(self.heard)

class Datagrams(protocol.DatagramProtocol):
    heard = None
    def datagramReceived(self, data, peer):
        self.heard.callback(data)

@defer.inlineCallbacks
def main(reactor):
    factory = protocol.Factory.forProtocol(Echo)
    port = yield endpoints.TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
    number = port.getHost().port
    asks = []
    for _ in range(10):
        point = endpoints.TCP4ClientEndpoint(reactor, "127.0.0.1", number)
        asks.append((yield endpoints.connectProtocol(point, Ask())))
    for ask in asks:
        heard = yield ask.done
        assert heard == [b"LINE %d" % n for n in range(100)]
    yield port.stopListening()
    first, second = Datagrams(), Datagrams()
    first.heard = defer.Deferred()
    one = reactor.listenUDP(0, first, interface="127.0.0.1")
    two = reactor.listenUDP(0, second, interface="127.0.0.1")
    second.transport.write(b"datagram", ("127.0.0.1", one.getHost().port))
    assert (yield first.heard) == b"datagram"
    yield one.stopListening()
    yield two.stopListening()
    assert (yield threads.deferToThread(lambda: 42)) == 42
    output = yield getProcessOutput(sys.executable, ["-c", "print('child')"])
    assert output == b"child\\n"
    yield task.deferLater(reactor, 0.01)
    async def coroutine():
        await asyncio.sleep(0.01)
        return app.loop_name()
    name = yield defer.Deferred.fromFuture(asyncio.ensure_future(coroutine()))
    print(name)

task.react(main)
"""


def test_twisted(loop_name, tmp_path):
    library("twisted")
    assert python(loop_name, TWISTED, tmp_path) == f"{loop_name}\n"


# Its log goes to standard error, with a line for each stream that its end cancels.
GRPC = """
import os
os.environ["GRPC_VERBOSITY"] = "NONE"
import grpc

async def double(request, context):
    return request * 2

async def count(request, context):
    for number in range(100):
        yield b"%d" % number

async def join(requests, context):
    return b",".join([request async for request in requests])

async def echo(requests, context):
    async for request in requests:
        yield request

async def late(request, context):
    await asyncio.sleep(60)

async def main():
    server = grpc.aio.server()
    handlers = {
        "double": grpc.unary_unary_rpc_method_handler(double),
        "count": grpc.unary_stream_rpc_method_handler(count),
        "join": grpc.stream_unary_rpc_method_handler(join),
        "echo": grpc.stream_stream_rpc_method_handler(echo),
        "late": grpc.unary_unary_rpc_method_handler(late),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary("/test/double")
        found = await asyncio.gather(*(call(b"%d" % n) for n in range(200)))
        assert found == [b"%d%d" % (n, n) for n in range(200)]
        large = bytes(3_000_000)
        small = channel.stream_unary("/test/join")
        assert await small(iter([large])) == large
        counted = [int(part) async for part in channel.unary_stream("/test/count")(b"")]
        assert counted == list(range(100))
        stream = channel.stream_stream("/test/echo")()
        for number in range(50):
            await stream.write(b"%d" % number)
            assert await stream.read() == b"%d" % number
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF
        try:
            await channel.unary_unary("/test/late")(b"", timeout=0.05)
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        else:
            raise AssertionError
        waiting = channel.unary_unary("/test/late")(b"")
        await asyncio.sleep(0.02)
        waiting.cancel()
        try:
            await waiting
        except asyncio.CancelledError:
            pass
    await server.stop(None)
    # gRPC prints a traceback for each of its tasks that the runner's end cancels.
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others, timeout=20)
    print(app.loop_name())

with asyncio.Runner(loop_factory=new_loop) as runner:
    runner.run(main())
"""


def test_grpc(loop_name, tmp_path):
    """In a process of its own: gRPC keeps threads and descriptors as long as that lives."""
    library("grpc")
    assert python(loop_name, GRPC, tmp_path) == f"{loop_name}\n"


CHANNELS = """
import django
from django.conf import settings
settings.configure(
    SECRET_KEY="test",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
)
django.setup()
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path
from asgiref.sync import sync_to_async
from app import loop_name

class Room(AsyncJsonWebsocketConsumer):
    async def connect(self):
        await self.channel_layer.group_add("room", self.channel_name)
        await self.accept()
    async def disconnect(self, code):
        await self.channel_layer.group_discard("room", self.channel_name)
    async def receive_json(self, content):
        await self.channel_layer.group_send("room", {"type": "said", "text": content["text"]})
    async def said(self, event):
        await self.send_json({"text": event["text"]})

async def loop(request):
    return HttpResponse(loop_name())

async def threaded(request):
    return HttpResponse(await sync_to_async(lambda: "from a thread")())

def plain(request):
    return HttpResponse("synchronous")

async def stream(request):
    async def parts():
        for number in range(1000):
            yield f"part {number}\\n"
    return StreamingHttpResponse(parts())

views = [loop, threaded, plain, stream]
urlpatterns = [path(view.__name__, view) for view in views]
application = ProtocolTypeRouter(
    {"http": get_asgi_application(), "websocket": URLRouter([path("room", Room.as_asgi())])}
)
"""


async def test_channels_on_daphne(loop, loop_name, tmp_path):
    """Django's views and a room of Channels, served by daphne on Twisted on the loop."""
    library("channels")
    client_module = library("websockets.asyncio.client")
    port = programs.free_port()
    (tmp_path / "site_of_test.py").write_text(CHANNELS)
    run = ["-m", "mioloop", "run"] if loop_name == "mioloop" else []
    words = [sys.executable, *run, "-m", "daphne", "-p", str(port), "site_of_test:application"]
    environment = programs.environment()
    environment["PYTHONPATH"] += f":{tmp_path}"
    with programs.running(words, tmp_path, env=environment, cwd=tmp_path) as server:
        server.wait_port(port)
        assert programs.fetch(port, "/loop") == loop_name
        assert programs.fetch(port, "/threaded") == "from a thread"
        assert programs.fetch(port, "/plain") == "synchronous"
        assert programs.fetch(port, "/stream") == "".join(f"part {n}\n" for n in range(1000))
        async with contextlib.AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(
                    client_module.connect(f"ws://{HOST}:{port}/room", proxy=None)
                )
                for _ in range(10)
            ]
            for number in range(20):
                await clients[number % 10].send(f'{{"text": "{number}"}}')
                heard = await asyncio.gather(*(client.recv() for client in clients))
                assert set(heard) == {f'{{"text": "{number}"}}'}
        assert server.ends() == 0
        assert "Traceback" not in server.printed, server.printed


DASK = """
import os
import distributed
from distributed import Client, LocalCluster

def where(number):
    return os.getpid()

def double(number):
    return 2 * number

def kind(dask_worker):
    return type(dask_worker.loop.asyncio_loop).__module__.partition(".")[0]

def kind_of_scheduler(dask_scheduler):
    return type(dask_scheduler.loop.asyncio_loop).__module__.partition(".")[0]

if __name__ == "__main__":
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None,
            host="127.0.0.1",
        ) as cluster,
        Client(cluster) as client,
    ):
        numbers = client.map(double, range(200))
        assert client.gather(numbers) == [2 * n for n in range(200)]
        total = client.submit(sum, numbers)
        assert total.result() == sum(2 * n for n in range(200))
        data = client.scatter(bytes(5_000_000), direct=False)
        assert client.submit(len, data).result() == 5_000_000
        failing = client.submit(int, "x")
        assert isinstance(failing.exception(), ValueError)
        kinds = {*client.run(kind).values(), client.run_on_scheduler(kind_of_scheduler)}
        print("loops:", *kinds)
"""


def dask(loop_name, folder, setting):
    """Run the program with Dask's setting of the loop; gives what it prints."""
    library("distributed")
    path = folder / "program.py"
    path.write_text(DASK)
    run = ["-m", "mioloop", "run", "--as-uvloop"] if loop_name == "mioloop" else []
    environment = programs.environment(DASK_DISTRIBUTED__ADMIN__EVENT_LOOP=setting)
    environment["DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT"] = "60s"
    with programs.running(
        [sys.executable, *run, str(path)], folder, env=environment, cwd=folder
    ) as program:
        status = program.process.wait(110)
        assert status == 0, program.printed
        return program.printed


def test_dask(loop_name, tmp_path):
    """Workers are processes that nannies start; scheduler and workers are on the loop."""
    assert f"loops: {loop_name}\n" in dask(loop_name, tmp_path, "tornado")


def test_dask_that_asks_for_uvloop(loop_name, mioloop_only, tmp_path):
    assert "loops: mioloop\n" in dask(loop_name, tmp_path, "uvloop")
