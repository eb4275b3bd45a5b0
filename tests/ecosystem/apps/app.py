"""An ASGI application without a framework: what a server does, and on which loop.

`/loop` names the package whose loop runs it, `/pid` the process, `/stream` sends a megabyte in
parts, `/slow` begins an answer and ends it half a second later; a websocket is an echo.
"""

import asyncio
import os

PART = bytes(range(256)) * 64
PARTS = 64


def loop_name():
    return type(asyncio.get_running_loop()).__module__.partition(".")[0]


async def name():
    return loop_name()


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] == "websocket":
        await talk(receive, send)
    else:
        await answer(scope["path"], send)


async def lifespan(receive, send):
    while True:
        message = await receive()
        print(message["type"], flush=True)
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def talk(receive, send):
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        if message.get("text") is not None:
            await send({"type": "websocket.send", "text": message["text"]})
        else:
            await send({"type": "websocket.send", "bytes": message["bytes"]})


async def answer(path, send):
    known = path in ("/loop", "/pid", "/stream", "/slow")
    headers = [(b"content-type", b"application/octet-stream")]
    await send({"type": "http.response.start", "status": 200 if known else 404, "headers": headers})

    async def body(data, more=False):
        await send({"type": "http.response.body", "body": data, "more_body": more})

    if path == "/loop":
        await body(loop_name().encode())
    elif path == "/pid":
        await body(b"%d" % os.getpid())
    elif path == "/stream":
        for _ in range(PARTS):
            await body(PART, more=True)
        await body(b"")
    elif path == "/slow":
        await body(b"begun", more=True)
        print("slow begun", flush=True)
        await asyncio.sleep(0.5)
        await body(b" and ended")
    else:
        await body(b"")
