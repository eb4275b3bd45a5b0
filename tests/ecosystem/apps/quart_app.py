"""A Quart application: names its loop, streams, and echoes on a websocket."""

from quart import Quart, websocket

from app import loop_name

app = Quart(__name__)


@app.get("/loop")
async def loop():
    return loop_name()


@app.get("/stream")
async def stream():
    async def parts():
        for number in range(1000):
            yield f"part {number}\n"

    return parts(), 200, {"Content-Type": "text/plain"}


@app.websocket("/feed")
async def feed():
    while True:
        await websocket.send(await websocket.receive())
