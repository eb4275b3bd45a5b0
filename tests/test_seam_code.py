"""The part of the seam that is code: functions of asyncio whose work is done in Rust.

Owns what their code adds up to, without its layout, comments and docstrings. Checks CPython alone,
as `test_seam.py` does.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import pkgutil
import textwrap

import pytest

REPLACED = {
    "StreamReaderProtocol.data_received": "ba068ae8d8e54370",
    "StreamReaderProtocol._stream_reader.fget": "076bb2589301aea0",
    "StreamReader.feed_data": "ad03c9394de6da10",
    "StreamReader._wakeup_waiter": "d28389aca0a23b62",
}
"""asyncio's functions whose work `transport/direct.rs` does, and what their code adds up to."""


@pytest.mark.parametrize("name", REPLACED)
def test_functions_that_rust_does_the_work_of(name: str) -> None:
    """Where one reads differently in a new Python, look whether ours still does the same."""
    source = inspect.getsource(pkgutil.resolve_name(f"asyncio.streams:{name}"))
    function = ast.parse(textwrap.dedent(source)).body[0]
    assert isinstance(function, ast.FunctionDef)
    function.decorator_list = []
    if ast.get_docstring(function) is not None:
        function.body = function.body[1:]
    found = hashlib.sha256(ast.unparse(function).encode()).hexdigest()
    assert found.startswith(REPLACED[name])
