"""A Sanic application: names its loop, streams, and echoes on a websocket."""

from sanic import Sanic, text

from app import loop_name

app = Sanic("mioloop_test")


@app.get("/loop")
async def loop(request):
    return text(loop_name())


@app.get("/stream")
async def stream(request):
    response = await request.respond(content_type="text/plain")
    for number in range(1000):
        await response.send(f"part {number}\n")
    await response.eof()


@app.websocket("/feed")
async def feed(request, connection):
    async for message in connection:
        await connection.send(message)
