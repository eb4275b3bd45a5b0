"""Prints the folder of this Python's shared library; exits with 1 where it has none to link to."""

import sys
import sysconfig
from pathlib import Path

folder = Path(sysconfig.get_config_var("LIBDIR") or "/")
name = sysconfig.get_config_var("LDLIBRARY") or ""
if not sysconfig.get_config_var("Py_ENABLE_SHARED") or not (folder / name).is_file():
    print(f"this Python has no shared library: {folder / name}", file=sys.stderr)
    sys.exit(1)
print(folder)
