"""Every code block of the documents runs, as it stands; and the site has all pages.

The Python blocks of a page run one after the other in one module, as a reader would type them. One
that cannot run says why behind its language: "```python (not run: REASON)". Lines for a shell run
where they run mioloop, in a folder that has what they name; of others, the command or the target
has to exist, unless they are lines for other programs, which the ecosystem tests run
(`test_every_line_is_tested` there). Rust blocks are tests of the crate (`src/embed/mod.rs`).
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

import mioloop

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
CARGO = tomllib.loads((ROOT / "Cargo.toml").read_text())

ELSEWHERE = {"integrations.md": ROOT / "tests" / "ecosystem"}
"""Pages whose lines need other programs, and the folder of the tests that run them."""

PROGRAM = """
import asyncio

async def main():
    print(type(asyncio.get_running_loop()).__module__)

asyncio.run(main())
"""
PROGRAMS = {
    "script.py": "script.py",
    "program.py": "program.py",
    "package/module.py": "package.module",
}
"""Files that the documents run, and how they name them."""


class Block(NamedTuple):
    """What stands between two fences."""

    page: Path
    line: int
    language: str
    words: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """The code blocks of a page."""
    text = page.read_text()
    found = re.finditer(r"^```(\w*)(.*)\n((?:.*\n)*?)```$", text, re.MULTILINE)
    return [Block(page, text.count("\n", 0, m.start()) + 1, *m.groups()) for m in found]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def of_language(*languages: str) -> list[Block]:
    """All blocks in a language."""
    return [block for block in BLOCKS if block.language in languages]


def test_every_block_is_of_a_kind_that_is_tested() -> None:
    assert {block.language for block in BLOCKS} <= {"python", "sh", "rust", "toml", "text"}
    assert sum(page.read_text().count("\n```") for page in PAGES) == 2 * len(BLOCKS)


def has_reason(block: Block) -> bool:
    """Whether a block says why it does not run."""
    if not block.words:
        return False
    assert re.fullmatch(r" \(not run: .{8,}\)", block.words), f"{block}: {block.words}"
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python(page: Path, tmp_path: Path) -> None:
    blocks = [b for b in blocks_of(page) if b.language == "python" and not has_reason(b)]
    if page.name in ELSEWHERE:
        tests = "".join(path.read_text() for path in ELSEWHERE[page.name].rglob("*.py"))
        for line in (line for block in blocks for line in block.text.splitlines() if line):
            assert line in tests, f"{page.name}: {line}"
        return
    program = tmp_path / "page.py"
    program.write_text("".join(block.text for block in blocks))
    run([sys.executable, str(program)], tmp_path)


def run(command: list[str], folder: Path) -> str:
    """What a command says, which has to end well."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=50, check=False, cwd=folder
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("block", of_language("sh"), ids=str)
def test_shell(block: Block, tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    for name in PROGRAMS:
        (tmp_path / name).write_text(PROGRAM)
    for line in block.text.splitlines():
        words = shlex.split(line, comments=True)
        if words[:4] == ["python", "-m", "mioloop", "run"] and set(PROGRAMS.values()) & set(words):
            assert run([sys.executable, *words[1:]], tmp_path) == "mioloop._loop\n"
        elif block.page.name not in ELSEWHERE:
            check_command(words)


def check_command(words: list[str]) -> None:
    """Demand that what a line calls is there: a target of make, a module, a command."""
    command, *rest = words
    if command == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert rest[0] in targets
    elif Path(command).name == "python":
        assert rest[0] == "-m"
        assert importlib.util.find_spec(rest[1]) or (ROOT / rest[1].replace(".", "/")).exists()
    elif "/" in command:
        assert (ROOT / command).exists()
    else:
        assert command in ("cargo", "git", "pip") or shutil.which(command)
    for word in rest:
        assert "/" not in word or word.startswith("-") or (ROOT / word).exists(), word


@pytest.mark.parametrize("block", of_language("toml"), ids=str)
def test_toml(block: Block) -> None:
    dependencies = tomllib.loads(block.text)["dependencies"]
    assert mioloop.__version__.startswith(dependencies["mioloop"]["version"])
    assert set(dependencies["mioloop"]["features"]) <= set(CARGO["features"])
    assert dependencies["pyo3"] == CARGO["dependencies"]["pyo3"]


def test_rust_blocks_are_tests_of_the_crate() -> None:
    pages = {block.page for block in of_language("rust")}
    included = (ROOT / "src" / "embed" / "mod.rs").read_text()
    assert all(f'include_str!("../../docs/{page.name}")' in included for page in pages)


def test_the_site_has_every_page() -> None:
    config = (ROOT / "mkdocs.yml").read_text()
    pages = re.findall(r"^ +- [\w ,-]+: (\S+\.md)$", config, re.MULTILINE)
    outside = {"index.md", "contributing.md", "changelog.md"}
    assert set(pages) == outside | {page.name for page in (ROOT / "docs").glob("*.md")}


def test_the_first_page_fits_on_a_screen_or_two() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 70


def test_the_picture_is_shown_where_it_is_made() -> None:
    shown = "](docs/speed.svg)" in (ROOT / "README.md").read_text()
    assert shown == (ROOT / "docs" / "speed.svg").exists()
