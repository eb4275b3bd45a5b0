"""Builds `examples/extension` with maturin and imports what comes out of it.

Owns the build's folder: cargo's own target folder, so that the next run finds it built.
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "examples" / "extension"


def maturin() -> str | None:
    """The maturin beside this Python, or the one on the path."""
    beside = Path(sys.executable).with_name("maturin")
    return str(beside) if beside.exists() else shutil.which("maturin")


def build(folder: Path, profile: str = "dev") -> ModuleType:
    """Build the extension for this Python, unpack it into a folder, and import it."""
    program = maturin()
    assert program is not None, "maturin is missing: pip install maturin"
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "extension"
    command = [program, "build", "--quiet", "--profile", profile, "--interpreter", sys.executable]
    environment = {**os.environ, "CARGO_TARGET_DIR": str(target)}
    # Those of a run of cargo around this one are not for the extension.
    environment.pop("PYO3_PYTHON", None)
    subprocess.run(
        [*command, "--manifest-path", str(SOURCE / "Cargo.toml"), "--out", str(folder)],
        check=True,
        env=environment,
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "unpacked")
    sys.path.insert(0, str(folder / "unpacked"))
    try:
        return importlib.import_module("example_extension")
    finally:
        sys.path.pop(0)
