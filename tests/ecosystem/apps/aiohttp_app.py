"""An aiohttp application that names its loop, served by gunicorn, or by `web.run_app` alone."""

import sys

from aiohttp import web

from app import loop_name


async def loop(request):
    return web.Response(text=loop_name())


application = web.Application()
application.add_routes([web.get("/loop", loop)])

if __name__ == "__main__":
    import mioloop

    web.run_app(application, host="127.0.0.1", port=int(sys.argv[1]), loop=mioloop.new_event_loop())
