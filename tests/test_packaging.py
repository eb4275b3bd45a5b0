"""What is installed: the metadata, the files, and that the project's own files agree with them.

These tests look at the wheel that pip installed, not at the source tree beside them.
"""

from __future__ import annotations

import ast
import importlib.metadata
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zlib
from pathlib import Path

import pytest

import mioloop
from mioloop import _core

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CARGO = tomllib.loads((ROOT / "Cargo.toml").read_text())
INSTALLED = importlib.metadata.distribution("mioloop")
PYTHON_FILES = sorted((ROOT / "python").rglob("*.py"))


def test_it_is_the_installed_package_that_is_tested() -> None:
    assert ROOT / "python" not in Path(mioloop.__file__).parents


def test_the_version_has_one_home() -> None:
    assert INSTALLED.version == mioloop.__version__ == CARGO["package"]["version"]
    assert _core.build_info()["version"] == mioloop.__version__


def test_nothing_is_brought_along() -> None:
    assert all("extra ==" in requirement for requirement in INSTALLED.requires or [])


def test_extras_are_those_of_the_project() -> None:
    extras = PYPROJECT["project"]["optional-dependencies"]
    assert set(INSTALLED.metadata.get_all("Provides-Extra") or []) == set(extras)
    assert {"bench", "test"} <= set(extras)


def test_supported_pythons_are_the_same_everywhere() -> None:
    assert INSTALLED.metadata["Requires-Python"] == ">=3.11"
    classifiers = INSTALLED.metadata.get_all("Classifier") or []
    versions = {name.rpartition(" :: ")[2] for name in classifiers if ":: Python :: 3." in name}
    assert versions == {"3.11", "3.12", "3.13", "3.14", "3.15"}
    ci = re.search(r"^versions=\((.*)\)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert ci is not None
    assert set(ci[1].split()) == versions
    table = (ROOT / "docs" / "compatibility.md").read_text()
    assert f"CPython {', '.join(sorted(versions))} |" in table


def test_a_release_has_a_wheel_for_every_python() -> None:
    classifiers = INSTALLED.metadata.get_all("Classifier") or []
    versions = {name.rpartition(" :: ")[2] for name in classifiers if ":: Python :: 3." in name}
    workflow = (ROOT / ".github" / "workflows" / "release.yml").read_text()
    in_images = re.findall(r"/opt/python/(cp3\d+)-\1/bin/python", workflow)
    assert set(in_images) == {"cp" + version.replace(".", "") for version in versions}
    assert set(re.findall(r"python(3\.\d+)", workflow)) == versions
    assert set(re.findall(r"^ +(3\.\d+)$", workflow, re.MULTILINE)) == versions


@pytest.mark.parametrize("name", ["run", "sdist", "wheels"])
def test_scripts_of_a_release_can_be_run(name: str) -> None:
    script = ROOT / ".ci" / name
    assert script.stat().st_mode & 0o100
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_the_wheel_is_for_one_python_and_its_abi() -> None:
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    free_threaded = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
    (line,) = re.findall(r"^Tag: (.*)$", INSTALLED.read_text("WHEEL") or "", re.MULTILINE)
    assert line.startswith(f"{tag}-{tag}{free_threaded}-")


@pytest.mark.skipif(shutil.which("strip") is None, reason="needs strip, of the binutils")
def test_a_release_is_small(tmp_path: Path) -> None:
    """As the release profile has it: without debug information, and compressed as in a wheel."""
    stripped = tmp_path / "core"
    option = "-S" if sys.platform == "darwin" else "--strip-debug"
    subprocess.run(["strip", option, "-o", str(stripped), _core.__file__], check=True)
    others = [file.locate() for file in INSTALLED.files or [] if file.suffix not in {".so", ".pyc"}]
    packed = [zlib.compress(Path(str(file)).read_bytes()) for file in [stripped, *others]]
    assert sum(map(len, packed)) < 2_000_000


def test_importing_brings_little_beside_asyncio() -> None:
    """How long it takes is `benches/import_time.py`; what it takes can be told without a clock."""
    program = (
        "import asyncio, sys; before = set(sys.modules); import mioloop; "
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    brought = done.stdout.split()
    # asyncio has imported `typing` already, up to Python 3.14.
    others = {name for name in brought if name.partition(".")[0] != "mioloop"}
    assert others <= {"__future__", "typing", "_typing"}
    assert len(brought) <= 10, brought


def test_the_license_is_the_same_everywhere() -> None:
    expression = "MIT OR Apache-2.0"
    assert INSTALLED.metadata["License-Expression"] == expression
    assert CARGO["package"]["license"] == expression
    assert expression in (ROOT / "LICENSE").read_text()
    files = {Path(str(file)).name for file in INSTALLED.files or [] if "licenses" in str(file)}
    assert files == {"LICENSE", "LICENSE-MIT", "LICENSE-APACHE"}


def test_types_are_installed_with_the_code() -> None:
    files = {str(file) for file in INSTALLED.files or []}
    assert {"mioloop/py.typed", "mioloop/_core.pyi"} <= files
    sources = {path.relative_to(ROOT / "python").as_posix() for path in PYTHON_FILES}
    assert sources <= files


def test_nothing_else_is_installed() -> None:
    tops = {str(file).partition("/")[0] for file in INSTALLED.files or []}
    beside = {path.name for path in (ROOT / "mioloop.data" / "purelib").glob("*.p*")}
    assert beside == {"mioloop_children.pth", "_mioloop_children.py"}
    assert tops - {"__pycache__"} == {
        "mioloop",
        f"mioloop-{mioloop.__version__}.dist-info",
        *beside,
    }


def test_what_python_does_when_it_starts_is_one_line() -> None:
    (line,) = (ROOT / "mioloop.data/purelib/mioloop_children.pth").read_text().splitlines()
    assert line.startswith("import os; os.environ.get(")


@pytest.mark.parametrize("path", PYTHON_FILES, ids=lambda path: path.name)
def test_every_python_file_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_links_in_the_documents_lead_somewhere() -> None:
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    assert documents
    links = [
        (document.name, link)
        for document in documents
        for link in re.findall(r"\]\(([^)#\s]+)", document.read_text())
        if not link.startswith("https://") and not (document.parent / link).exists()
    ]
    assert links == []


def test_changes_have_a_place() -> None:
    assert "\n## Unreleased\n" in (ROOT / "CHANGELOG.md").read_text()


def test_the_source_archive_can_be_built() -> None:
    # maturin puts into the sdist what cargo's own list names.
    assert {"/Cargo.toml", "/build.rs", "/src"} <= set(CARGO["package"]["include"])
