"""The models of the tests of Tortoise ORM, which finds them by their module's name."""

from tortoise import fields
from tortoise.models import Model


class Author(Model):
    """Who writes."""

    id = fields.IntField(primary_key=True)
    name = fields.CharField(max_length=100)


class Book(Model):
    """What was written."""

    id = fields.IntField(primary_key=True)
    title = fields.CharField(max_length=100)
    author = fields.ForeignKeyField("models.Author", related_name="books")
