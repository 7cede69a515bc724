"""The prepared interpreter of one session.

Two kinds of process run this file. A *lane* has imported much of the standard library, forks *programs* and answers for
them: it says how they end, and leaves none of their processes behind. A program is forked and touched ahead of need,
since a fork copies pages for longer than most scripts run; what is the same for all of them is done before. It waits as
the lane's *spare* until the worker gives it a job over a socket of its own. A lane has at most one program with a job,
so that whatever else turns up below it is that program's, but for the spare that may wait there already. The first lane
forks further ones, for programs that run side by side.

A program gets its job, stdin, stdout, stderr and one more descriptor: where it shows pictures, or where a kernel gets
its calls. It returns from `serve` to the top of this file and runs the user's code as `__main__`.

What each of them does is in files of their own, which follow this one: `lane.py`, `program.py`, `display.py` and
`kernel.py`, then `start.py`.

The worker trusts nothing that is said here: the code of the session runs under the same user id.
"""

import _signal
import _socket
import ast
import atexit
import base64
import builtins
import ctypes
import errno
import gc
import importlib.util
import io
import itertools
import json
import linecache
import logging
import os
import pprint
import resource
import select
import signal
import site
import struct
import sys
import tempfile
import threading
import time
import traceback
import types

LANE_FD = 3
# Closed when the interpreter is prepared.
READY_FD = 5
# Where a program shows things, or a kernel gets its calls: the highest number there is, out of the way of programs.
EXTRA_FD = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 1
# Where a program gets its job and says how it ends.
JOB_FD = EXTRA_FD - 1
# The system's own functions and sockets, where those of the library around them would touch, and so copy, many pages in
# each program.
SEQPACKET = _socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0
RIGHTS = _socket.SOL_SOCKET, _socket.SCM_RIGHTS
JOB_BYTES_MAX = 64 << 10
LEFTOVERS_DEADLINE_S = 2.0
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36
# The same numbers on every architecture.
LANDLOCK_CREATE_RULESET, LANDLOCK_RESTRICT_SELF = 444, 446
SCOPE_ABSTRACT_UNIX_SOCKET, SCOPE_SIGNAL = 1, 2
CODE_NAME = "<code>"
# The module that is imported last before a program runs.
NEWEST = "codegen_display"
# Longer sources are compiled without a look at their last statement, which takes ten times as long.
SPLIT_BYTES_MAX = 64 << 10

# What scripts import most. Those that are missing in a trimmed interpreter are left to the script.
PRELOADED = """
abc argparse ast base64 bisect collections collections.abc concurrent.futures contextlib copy csv
dataclasses datetime decimal difflib enum fnmatch fractions functools glob gzip hashlib heapq importlib.util
inspect itertools logging math numbers operator pathlib pickle platform pprint queue random re
secrets shlex shutil socket statistics string struct subprocess tempfile textwrap typing unicodedata urllib.parse
uuid warnings zipfile zlib
""".split()

WORKSPACE = os.getcwd()
# What logging does at the end, and the handlers that it makes for itself.
END_LOGGING, HANDLERS = logging.shutdown, list(getattr(logging, "_handlerList", ()))

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4


def prctl(option, value):
    if LIBC.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "prctl")


# --- Preparing ------------------------------------------------------------------------------------------------------


def prepare():
    # Code of the session must not reach into a lane with ptrace or /proc/PID/mem.
    prctl(PR_SET_DUMPABLE, 0)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    for name in PRELOADED:
        try:
            __import__(name)
        except ImportError:
            pass
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    settle()
    make_standard_streams()
    # Objects made so far are never collected, so that the collector does not touch (and copy) their pages.
    gc.collect()
    gc.freeze()
    os.close(READY_FD)
