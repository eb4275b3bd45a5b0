"""A Quart application that names its loop."""

from quart import Quart

from app import loop_name

app = Quart(__name__)


@app.get("/loop")
async def loop():
    return loop_name()
