"""Over databases: SQLAlchemy, psycopg, aiosqlite, Databases, Tortoise ORM, aiomysql."""

import asyncio

import pytest

from programs import library


def dsn(server, scheme="postgresql", user="test:test"):
    return f"{scheme}://{user}@{server.host}:{server.port}/test"


async def test_psycopg(loop, postgres):
    psycopg = library("psycopg")
    async with await psycopg.AsyncConnection.connect(dsn(postgres)) as connection:
        async with connection.cursor() as cursor:
            await cursor.execute("create temporary table copied (n int, t text)")
            async with cursor.copy("copy copied from stdin") as copy:
                for number in range(5000):
                    await copy.write_row((number, f"row {number}"))
            await cursor.execute("select n from copied order by n")
            assert [row[0] async for row in cursor] == list(range(5000))
        async with connection.pipeline():
            cursors = [await connection.execute("select %s::int", (n,)) for n in range(100)]
        assert [(await cursor.fetchone())[0] for cursor in cursors] == list(range(100))
    async with await psycopg.AsyncConnection.connect(dsn(postgres), autocommit=True) as connection:
        await connection.execute("listen news")
        async with await psycopg.AsyncConnection.connect(dsn(postgres), autocommit=True) as other:
            for number in range(10):
                await other.execute("select pg_notify('news', %s)", (str(number),))
        heard = [told.payload async for told in connection.notifies(stop_after=10, timeout=20)]
        assert heard == [str(number) for number in range(10)]
        sleeping = asyncio.ensure_future(connection.execute("select pg_sleep(60)"))
        await asyncio.wait([sleeping], timeout=0.1)
        sleeping.cancel()
        with pytest.raises((asyncio.CancelledError, psycopg.errors.QueryCanceled)):
            await sleeping


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg", "aiosqlite", "aiomysql"])
async def test_sqlalchemy(loop, driver, tmp_path, request):
    library(driver)
    aio = library("sqlalchemy.ext.asyncio")
    orm = library("sqlalchemy.orm")
    sqlalchemy = library("sqlalchemy")
    if driver == "aiosqlite":
        address = f"sqlite+aiosqlite:///{tmp_path}/database"
    elif driver == "aiomysql":
        server = request.getfixturevalue("mariadb")
        address = dsn(server, "mysql+aiomysql", "root")
    else:
        address = dsn(request.getfixturevalue("postgres"), f"postgresql+{driver}")

    class Base(orm.DeclarativeBase):
        pass

    class Word(Base):
        __tablename__ = "words"
        id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
        text: orm.Mapped[str] = orm.mapped_column(sqlalchemy.String(50))

    engine = aio.create_async_engine(address)
    sessions = aio.async_sessionmaker(engine, expire_on_commit=False)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)

    async def add(number):
        async with sessions() as session, session.begin():
            session.add(Word(text=f"word {number}"))

    if driver == "aiosqlite":
        for number in range(20):
            await add(number)
    else:
        await asyncio.gather(*(add(number) for number in range(20)))
    async with sessions() as session:
        words = (await session.scalars(sqlalchemy.select(Word))).all()
        assert sorted(word.text for word in words) == sorted(f"word {n}" for n in range(20))
        result = await session.stream(sqlalchemy.select(Word.id).order_by(Word.id))
        assert len([row async for row in result]) == 20
    with pytest.raises(ZeroDivisionError):
        async with sessions() as session, session.begin():
            session.add(Word(text="not kept"))
            await session.flush()
            raise ZeroDivisionError
    async with engine.connect() as connection:
        count = sqlalchemy.select(sqlalchemy.func.count()).select_from(Word)
        assert await connection.scalar(count) == 20
    await engine.dispose()


async def test_aiosqlite(loop, tmp_path):
    aiosqlite = library("aiosqlite")
    async with aiosqlite.connect(tmp_path / "database") as connection:
        await connection.execute("create table words (n integer, t text)")
        await connection.executemany(
            "insert into words values (?, ?)", [(n, str(n)) for n in range(500)]
        )
        await connection.commit()
        async with connection.execute("select n from words order by n") as cursor:
            assert [row[0] async for row in cursor] == list(range(500))

    async def reader(number):
        async with aiosqlite.connect(tmp_path / "database") as connection:
            async with connection.execute("select t from words where n = ?", (number,)) as cursor:
                return (await cursor.fetchone())[0]

    assert await asyncio.gather(*map(reader, range(20))) == [str(n) for n in range(20)]


async def test_databases(loop, postgres):
    databases = library("databases")
    async with databases.Database(dsn(postgres), min_size=1, max_size=4) as database:
        await database.execute("drop table if exists kept")
        await database.execute("create table kept (n int)")
        values = [{"n": number} for number in range(100)]
        await database.execute_many("insert into kept values (:n)", values)
        found = [row["n"] async for row in database.iterate("select n from kept order by n")]
        assert found == list(range(100))
        with pytest.raises(ZeroDivisionError):
            async with database.transaction():
                await database.execute("delete from kept")
                raise ZeroDivisionError

        async def count():
            return await database.fetch_val("select count(*) from kept")

        assert await asyncio.gather(*(count() for _ in range(20))) == [100] * 20


async def test_tortoise(loop, postgres):
    tortoise = library("tortoise")
    address = dsn(postgres, "asyncpg")
    await tortoise.Tortoise.init(db_url=address, modules={"models": ["tortoise_models"]})
    try:
        await tortoise.Tortoise.generate_schemas()
        models = library("tortoise_models")
        await models.Book.all().delete()
        author = await models.Author.create(name="Ada")
        await models.Book.bulk_create(
            [models.Book(title=f"book {number}", author=author) for number in range(50)]
        )
        books = (
            await models.Book.filter(author__name="Ada").order_by("id").prefetch_related("author")
        )
        assert [book.title for book in books] == [f"book {number}" for number in range(50)]
        assert {book.author.name for book in books} == {"Ada"}
        with pytest.raises(ZeroDivisionError):
            async with library("tortoise.transactions").in_transaction():
                await models.Book.all().delete()
                raise ZeroDivisionError
        assert await models.Book.all().count() == 50
    finally:
        await tortoise.Tortoise.close_connections()


async def test_aiomysql(loop, mariadb):
    aiomysql = library("aiomysql")
    address = {"host": mariadb.host, "port": mariadb.port, "user": "root", "db": "test"}
    async with aiomysql.create_pool(**address, minsize=1, maxsize=5, autocommit=True) as pool:

        async def double(number):
            async with pool.acquire() as connection, connection.cursor() as cursor:
                await cursor.execute("select %s * 2", (number,))
                return (await cursor.fetchone())[0]

        found = await asyncio.gather(*(double(number) for number in range(100)))
        assert found == [2 * number for number in range(100)]
        async with pool.acquire() as connection:
            async with connection.cursor(aiomysql.SSDictCursor) as cursor:
                await cursor.execute("select seq, repeat('x', 1000) as t from seq_1_to_5000")
                found = [row async for row in cursor]
            assert [row["seq"] for row in found] == list(range(1, 5001))
            async with connection.cursor() as cursor:
                await cursor.execute("create temporary table kept (n int, t longtext)")
                await connection.begin()
                await cursor.execute("insert into kept values (1, %s)", ("x" * 5_000_000,))
                await connection.rollback()
                await cursor.execute("select count(*) from kept")
                assert await cursor.fetchone() == (0,)
        with pytest.raises(aiomysql.ProgrammingError):
            async with pool.acquire() as connection, connection.cursor() as cursor:
                await cursor.execute("select * from nowhere")
