"""An echo server and one client, as a program would write them for asyncio.

Run it with mioloop as it is:  python -m mioloop run examples/echo_server.py
or with asyncio:               python examples/echo_server.py
"""

import asyncio


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes in, until the client has finished."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
    await writer.wait_closed()


async def main() -> None:
    """Serve one client on a free port."""
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"hello over TCP\n")
        writer.write_eof()
        print((await reader.read()).decode(), end="")
        writer.close()
        await writer.wait_closed()
    print("the loop is", type(asyncio.get_running_loop()).__module__.partition(".")[0])


if __name__ == "__main__":
    asyncio.run(main())
