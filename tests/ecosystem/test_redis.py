"""redis-py's asyncio client and aiocache on Redis."""

import asyncio

import pytest

from programs import library


@pytest.fixture(params=["tcp", "unix"])
def address(request, redis_server):
    """Where Redis listens, in both ways."""
    library("redis.asyncio")
    if request.param == "unix":
        return f"unix://{redis_server.socket}"
    return f"redis://{redis_server.host}:{redis_server.port}"


async def test_commands(loop, address):
    redis = library("redis.asyncio")
    async with redis.from_url(address, max_connections=10) as client:
        await client.flushall()

        async def work(number):
            await client.set(f"key {number}", number)
            return int(await client.get(f"key {number}"))

        for begin in range(0, 100, 10):
            found = await asyncio.gather(*(work(number) for number in range(begin, begin + 10)))
            assert found == list(range(begin, begin + 10))
        value = bytes(range(256)) * 20_000
        await client.set("large", value)
        assert await client.get("large") == value
        async with client.pipeline(transaction=True) as pipeline:
            for _ in range(1000):
                pipeline.incr("count")
            assert await pipeline.execute() == list(range(1, 1001))


async def test_publish_and_subscribe(loop, address):
    redis = library("redis.asyncio")
    async with redis.from_url(address, decode_responses=True) as client:
        async with client.pubsub() as listener:
            await listener.subscribe("news")
            assert (await listener.get_message(timeout=5))["type"] == "subscribe"
            for number in range(200):
                assert await client.publish("news", f"{number}") == 1
            heard = []
            async for message in listener.listen():
                heard.append(message["data"])
                if len(heard) == 200:
                    break
            assert heard == [f"{number}" for number in range(200)]


async def test_blocking_commands_and_cancelling(loop, address):
    redis = library("redis.asyncio")
    async with redis.from_url(address) as client, redis.from_url(address) as other:
        await client.delete("list")
        waiting = asyncio.ensure_future(client.blpop("list", timeout=30))
        await asyncio.wait([waiting], timeout=0.05)
        await other.rpush("list", "first")
        assert await waiting == (b"list", b"first")
        waiting = asyncio.ensure_future(client.blpop("list", timeout=30))
        await asyncio.wait([waiting], timeout=0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        # The answer of the cancelled command must not be taken for that of the next.
        assert await client.echo("hello") == b"hello"


async def test_locks_and_scripts(loop, address):
    redis = library("redis.asyncio")
    async with redis.from_url(address, max_connections=20) as client:
        await client.set("balance", 0)

        async def add():
            async with client.lock("guard", timeout=20, sleep=0.001):
                value = int(await client.get("balance"))
                await client.set("balance", value + 1)

        await asyncio.gather(*(add() for _ in range(10)))
        assert int(await client.get("balance")) == 10
        script = client.register_script("return redis.call('incrby', KEYS[1], ARGV[1])")
        assert await script(keys=["balance"], args=[32]) == 42


async def test_aiocache(loop, redis_server):
    aiocache = library("aiocache")
    serializers = library("aiocache.serializers")
    calls = 0

    @aiocache.cached(ttl=60, serializer=serializers.JsonSerializer())
    async def slow(number):
        nonlocal calls
        calls += 1
        await asyncio.sleep(0)
        return {"double": 2 * number}

    assert [await slow(4) for _ in range(10)] == [{"double": 8}] * 10
    assert calls == 1
    cache = aiocache.SimpleMemoryCache()
    await cache.set("soon gone", 1, ttl=0.01)
    assert await cache.get("soon gone") == 1
    await asyncio.sleep(0.02)
    assert await cache.get("soon gone") is None
