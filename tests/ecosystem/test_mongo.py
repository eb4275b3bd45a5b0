"""PyMongo's async client and Motor on MongoDB."""

import asyncio

import pytest

from programs import library


async def test_pymongo(loop, mongod):
    pymongo = library("pymongo")
    async with pymongo.AsyncMongoClient(mongod.host, mongod.port) as client:
        words = client.test.words
        await words.drop()
        await words.insert_many([{"n": number, "text": "x" * 200} for number in range(2000)])
        assert [row["n"] async for row in words.find().sort("n")] == list(range(2000))
        await words.create_index("n", unique=True)
        with pytest.raises(pymongo.errors.DuplicateKeyError):
            await words.insert_one({"n": 0})

        async def increase(number):
            query, change = {"n": number % 10}, {"$inc": {"count": 1}}
            return await words.find_one_and_update(query, change)

        await asyncio.gather(*(increase(number) for number in range(200)))
        assert [row["count"] async for row in words.find({"n": {"$lt": 10}})] == [20] * 10
        groups = [{"$group": {"_id": None, "sum": {"$sum": "$n"}}}]
        assert [row["sum"] async for row in await words.aggregate(groups)] == [sum(range(2000))]


async def test_motor(loop, mongod):
    motor = library("motor.motor_asyncio")
    client = motor.AsyncIOMotorClient(mongod.host, mongod.port, io_loop=loop)
    try:
        words = client.test.motor
        await words.drop()
        await words.insert_many([{"n": number} for number in range(1000)])
        assert [row["n"] async for row in words.find().sort("n")] == list(range(1000))
        found = await asyncio.gather(*(words.find_one({"n": number}) for number in range(50)))
        assert [row["n"] for row in found] == list(range(50))
        bucket = motor.AsyncIOMotorGridFSBucket(client.test)
        data = bytes(range(256)) * 4096
        key = await bucket.upload_from_stream("file", data)
        assert await (await bucket.open_download_stream(key)).read() == data
    finally:
        client.close()
