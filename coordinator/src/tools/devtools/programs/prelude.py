"""What `test_run` and `lint_check` share. It is put before each of their programs.

The workspace leaves the search path before anything else is imported, so that a file of the session named like a module
of the library, of pytest or of ruff is never taken for it. A program puts it back when the session's own code begins.
"""

import os
import sys

WORKSPACE = os.getcwd()
sys.path[:] = [entry for entry in sys.path if entry not in ("", ".", WORKSPACE)]

import json
import stat
import time
import traceback

try:
    from codegen_display import publish
except ImportError:
    publish = None

# Directories that hold no sources of the session's own.
SKIPPED = {"__pycache__", "node_modules", "site-packages", "build", "dist"}
FILES_MAX = 5_000
SOURCE_BYTES_MAX = 4 << 20


def tell(kind, report):
    """Gives a report to the coordinator, which believes none of it."""
    if publish is not None:
        publish(f"application/vnd.codegen.{kind}-report+json", json.dumps(report).encode())


def shown(path):
    """A path as the user names it: from the workspace, when it is in there."""
    full = os.path.normpath(os.path.join(WORKSPACE, path))
    return full[len(WORKSPACE) + 1 :] if full.startswith(WORKSPACE + os.sep) else full


def cut(text, most):
    text = str(text)
    return text if len(text) <= most else text[: most - 1] + "\u2026"


def sources(start, wanted):
    """Python files at or below a path, sorted; `wanted` picks by name. Links to directories are not followed."""
    if os.path.isfile(start):
        yield start
        return
    found = 0
    for directory, below, names in os.walk(start):
        kept = (name for name in below if not name.startswith(".") and name not in SKIPPED)
        below[:] = sorted(name for name in kept if not os.path.exists(os.path.join(directory, name, "pyvenv.cfg")))
        for name in sorted(names):
            path = os.path.join(directory, name)
            if name.endswith(".py") and wanted(name) and is_source(path):
                found += 1
                if found > FILES_MAX:
                    return
                yield path


def is_source(path):
    """A plain file, so that reading it ends."""
    try:
        found = os.stat(path)
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size <= SOURCE_BYTES_MAX
