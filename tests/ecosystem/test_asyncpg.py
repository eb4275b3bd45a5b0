"""asyncpg on PostgreSQL: pool, COPY, LISTEN and NOTIFY, cancelling, transactions, cursors, TLS."""

import asyncio
import contextlib
import io

import pytest

from programs import library


@pytest.fixture
def address(postgres):
    """What `asyncpg.connect` takes."""
    library("asyncpg")
    names = dict.fromkeys(("user", "password", "database"), "test")
    return {**names, "host": postgres.host, "port": postgres.port, "ssl": False}


@contextlib.asynccontextmanager
async def connected(address, **more):
    connection = await library("asyncpg").connect(**{**address, **more})
    try:
        yield connection
    finally:
        await connection.close()


async def test_pool(loop, address):
    asyncpg = library("asyncpg")
    async with asyncpg.create_pool(**address, min_size=2, max_size=5) as pool:
        await pool.execute("create temporary table if not exists nothing (x int)")

        async def double(number):
            async with pool.acquire() as connection, connection.transaction():
                return await connection.fetchval("select $1::int * 2", number)

        found = await asyncio.gather(*(double(number) for number in range(300)))
        assert found == [2 * number for number in range(300)]
        rows = await pool.fetch(
            "select i, repeat('x', 1000) as text from generate_series(1, 5000) i"
        )
        assert [row["i"] for row in rows] == list(range(1, 5001))
        assert {row["text"] for row in rows} == {"x" * 1000}


async def test_copy(loop, address):
    rows = [(number, f"row {number}") for number in range(20_000)]
    async with connected(address) as connection:
        await connection.execute("create temporary table copied (n int, t text)")
        assert await connection.copy_records_to_table("copied", records=rows) == "COPY 20000"
        output = io.BytesIO()
        await connection.copy_from_query("select * from copied order by n", output=output)
        expected = "".join(f"{n}\t{t}\n" for n, t in rows)
        assert output.getvalue().decode() == expected

        async def parts():
            for n, t in rows:
                yield f"{n}\t{t}\n".encode()

        await connection.copy_to_table("copied", source=parts())
        assert await connection.fetchval("select count(*) from copied") == 40_000


async def test_listen_and_notify(loop, address):
    async with connected(address) as listener, connected(address) as speaker:
        heard = asyncio.Queue()
        await listener.add_listener("news", lambda *told: heard.put_nowait(told[3]))
        for number in range(100):
            await speaker.execute("select pg_notify('news', $1)", str(number))
        assert [await heard.get() for _ in range(100)] == [str(number) for number in range(100)]
        await listener.reset()


async def test_cancelling_frees_the_connection(loop, address):
    """The server is told to stop: the connection serves the next query at once."""
    asyncpg = library("asyncpg")
    async with asyncpg.create_pool(**address, min_size=1, max_size=1) as pool:
        sleeping = asyncio.ensure_future(pool.execute("select pg_sleep(60)"))
        done, _ = await asyncio.wait([sleeping], timeout=0.1)
        assert not done
        sleeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sleeping
        assert await pool.fetchval("select 1") == 1
        with pytest.raises(asyncio.TimeoutError):
            await pool.execute("select pg_sleep(60)", timeout=0.05)
        assert await pool.fetchval("select 2") == 2


async def test_transactions_and_cursors(loop, address):
    asyncpg = library("asyncpg")
    async with connected(address) as connection:
        await connection.execute("create temporary table kept (n int primary key)")
        with pytest.raises(asyncpg.UniqueViolationError):
            async with connection.transaction():
                await connection.execute("insert into kept values (1)")
                await connection.execute("insert into kept values (1)")
        assert await connection.fetchval("select count(*) from kept") == 0
        await connection.executemany("insert into kept values ($1)", [(n,) for n in range(1000)])
        async with connection.transaction():
            found = [row["n"] async for row in connection.cursor("select n from kept order by n")]
        assert found == list(range(1000))


async def test_tls(loop, address, certificate):
    context = certificate.client_context()
    context.check_hostname = False
    async with connected(address, ssl=context) as connection:
        row = await connection.fetchrow("select ssl from pg_stat_ssl where pid = pg_backend_pid()")
        assert row["ssl"] is True
        text = "x" * 3_000_000
        assert await connection.fetchval("select $1::text", text) == text


async def test_a_server_that_goes_away(loop, address):
    asyncpg = library("asyncpg")
    async with connected(address) as other:
        connection = await asyncpg.connect(**address)
        waiting = asyncio.ensure_future(connection.execute("select pg_sleep(60)"))
        pid = connection.get_server_pid()
        while (
            await other.fetchval("select state from pg_stat_activity where pid = $1", pid)
            != "active"
        ):
            await asyncio.sleep(0)
        await other.fetchval("select pg_terminate_backend($1)", pid)
        with pytest.raises((asyncpg.AdminShutdownError, asyncpg.ConnectionDoesNotExistError)):
            await waiting
        await connection.close()
