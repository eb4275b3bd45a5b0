"""A Sanic application that names its loop."""

from sanic import Sanic, text

from app import loop_name

app = Sanic("mioloop_test")


@app.get("/loop")
async def loop(request):
    return text(loop_name())
