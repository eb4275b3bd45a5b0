"""Brokers: aio-pika on RabbitMQ, aiomqtt on Mosquitto, nats-py on NATS, aiokafka."""

import asyncio
import contextlib

import pytest

from programs import library


async def test_rabbitmq(loop, rabbitmq):
    aio_pika = library("aio_pika")
    address = f"amqp://guest:guest@{rabbitmq.host}:{rabbitmq.port}/"
    async with await aio_pika.connect(address) as sender, await aio_pika.connect(address) as taker:
        channel = await sender.channel(publisher_confirms=True)
        receiving = await taker.channel()
        await receiving.set_qos(prefetch_count=20)
        queue = await receiving.declare_queue(exclusive=True)
        bodies = [f"message {number}".encode() * 50 for number in range(300)]

        async def send(body):
            message = aio_pika.Message(body)
            await channel.default_exchange.publish(message, routing_key=queue.name)

        await asyncio.gather(*(send(body) for body in bodies))
        heard = []
        async with queue.iterator() as messages:
            async for message in messages:
                async with message.process():
                    heard.append(message.body)
                if len(heard) == len(bodies):
                    break
        assert sorted(heard) == sorted(bodies)
        large = bytes(2_000_000)
        await send(large)
        message = await queue.get(timeout=10)
        assert message.body == large
        await message.ack()


async def test_rabbitmq_remote_calls(loop, rabbitmq):
    aio_pika = library("aio_pika")
    patterns = library("aio_pika.patterns")
    address = f"amqp://guest:guest@{rabbitmq.host}:{rabbitmq.port}/"
    async with await aio_pika.connect(address) as connection:
        calls = await patterns.RPC.create(await connection.channel())

        async def double(*, number):
            return 2 * number

        await calls.register("double", double, auto_delete=True)
        found = await asyncio.gather(*(calls.call("double", {"number": n}) for n in range(50)))
        assert found == [2 * n for n in range(50)]
        await calls.close()


@pytest.mark.parametrize("quality", [0, 1, 2])
async def test_mqtt(loop, mosquitto, quality):
    aiomqtt = library("aiomqtt")
    async with (
        aiomqtt.Client(mosquitto.host, mosquitto.port) as sender,
        aiomqtt.Client(mosquitto.host, mosquitto.port) as taker,
    ):
        await taker.subscribe("news/#", qos=quality)
        for number in range(100):
            await sender.publish(f"news/{number % 3}", str(number), qos=quality)
        heard = []
        async for message in taker.messages:
            heard.append(int(message.payload))
            if len(heard) == 100:
                break
        assert heard == list(range(100))


async def test_nats(loop, nats_server):
    nats = library("nats")
    client = await nats.connect(f"nats://{nats_server.host}:{nats_server.port}")
    try:

        async def double(message):
            await message.respond(str(2 * int(message.data)).encode())

        await client.subscribe("double", cb=double)
        found = await asyncio.gather(*(client.request("double", b"%d" % n, 10) for n in range(200)))
        assert [int(answer.data) for answer in found] == [2 * n for n in range(200)]
        news = await client.subscribe("news")
        for number in range(1000):
            await client.publish("news", b"%d" % number)
        heard = [int((await news.next_msg(timeout=10)).data) for _ in range(1000)]
        assert heard == list(range(1000))
        stream = client.jetstream()
        with contextlib.suppress(nats.js.errors.NotFoundError):
            await stream.delete_stream("kept")
        await stream.add_stream(name="kept", subjects=["kept"])
        for number in range(50):
            assert (await stream.publish("kept", b"%d" % number)).seq == number + 1
        taker = await stream.pull_subscribe("kept", "taker")
        for message in (messages := await taker.fetch(50, timeout=10)):
            await message.ack()
        assert [int(message.data) for message in messages] == list(range(50))
    finally:
        await client.drain()


async def test_kafka(loop, loop_name, kafka):
    aiokafka = library("aiokafka")
    admin_module = library("aiokafka.admin")
    server, topic = f"{kafka.host}:{kafka.port}", f"topic-{loop_name}"
    admin = admin_module.AIOKafkaAdminClient(bootstrap_servers=server)
    await admin.start()
    try:
        new = admin_module.NewTopic(topic, num_partitions=1, replication_factor=1)
        await admin.create_topics([new])
    finally:
        await admin.close()
    async with (
        aiokafka.AIOKafkaProducer(bootstrap_servers=server) as producer,
        aiokafka.AIOKafkaConsumer(
            topic, bootstrap_servers=server, auto_offset_reset="earliest"
        ) as consumer,
    ):
        bodies = [f"message {number}".encode() for number in range(200)]
        for body in bodies:
            await producer.send_and_wait(topic, body)
        heard = []
        async for message in consumer:
            heard.append(message.value)
            if len(heard) == len(bodies):
                break
        assert heard == bodies
