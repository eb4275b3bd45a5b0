"""What is installed: the metadata, the files, and that the project's own files agree with them.

These tests look at the wheel that pip installed, not at the source tree beside them.
"""

from __future__ import annotations

import ast
import importlib.metadata
import re
import tomllib
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
